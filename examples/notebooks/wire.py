"""A wire with a window in it: passes on what a client and a server say to each other, and keeps what went by."""

from __future__ import annotations

import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt


class Wire:
    """A wire from `url` to the server. `sent` and `came` are the bytes of both directions since `clear`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.clear()
        threading.Thread(target=self._accept, daemon=True).start()

    def clear(self) -> None:
        self._sent, self._came = bytearray(), bytearray()

    @property
    def sent(self) -> bytes:
        return bytes(self._sent)

    @property
    def came(self) -> bytes:
        return bytes(self._came)

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            far = socket.create_connection(self._server)
            for source, target, sending in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pass, args=(source, target, sending), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, sending: bool) -> None:
        try:
            while data := source.recv(1 << 16):
                (self._sent if sending else self._came).extend(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def body(message: bytes) -> bytes:
    """What follows the head of an HTTP message: the sealed part."""
    return message.partition(b"\r\n\r\n")[2]


def square(data: bytes) -> npt.NDArray[np.uint8]:
    """Bytes as a picture, a pixel each."""
    side = max(1, int(len(data) ** 0.5))
    return np.frombuffer(data[: side * side], np.uint8).reshape(side, side)


def entropy(data: bytes) -> float:
    """Entropy in bits of a byte: 8 is noise."""
    counts = np.bincount(np.frombuffer(data, np.uint8), minlength=256) / max(1, len(data))
    seen = counts[counts > 0]
    return float(-(seen * np.log2(seen)).sum())
