"""As much of a cluster's DNS as a headless Service needs: one name with the addresses of its pods (RFC 1035)."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading

A = 1
NO_ERROR, NO_NAME = 0, 3


class Server:
    """Answers until `stop`. `addresses` may be assigned anew at any time."""

    def __init__(self, name: str, addresses: list[str]) -> None:
        self.name, self.addresses = name, addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def stop(self) -> None:
        self._done = True
        # An empty message wakes the thread.
        self._socket.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    _done = False

    def _serve(self) -> None:
        while not self._done:
            asked, whence = self._socket.recvfrom(512)
            if len(asked) > 12:
                self._socket.sendto(self._answer(asked), whence)

    def _answer(self, asked: bytes) -> bytes:
        labels, at = [], 12
        while length := asked[at]:
            labels.append(asked[at + 1 : at + 1 + length].decode())
            at += 1 + length
        (kind,) = struct.unpack_from("!H", asked, at + 1)
        question = asked[12 : at + 5]
        known = ".".join(labels) == self.name and bool(self.addresses)
        addresses = list(self.addresses) if known and kind == A else []
        # The answer's head: a response, recursion available; the name is where the question has it; the address lives a second.
        head = asked[:2] + struct.pack("!HHHHH", 0x8180 | (NO_ERROR if known else NO_NAME), 1, len(addresses), 0, 0)
        records = [struct.pack("!HHHIH", 0xC00C, A, 1, 1, 4) + ipaddress.ip_address(text).packed for text in addresses]
        return head + question + b"".join(records)
