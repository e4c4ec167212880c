"""nginx as the guide shows it, in front of pods."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

import pytest
from chart import DEPLOY
from pods import StatefulSet


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Ingress:
    """A process that passes requests on to pods."""

    def __init__(self, command: list[str], port: int, log: Path) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", log
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file)
        deadline = time.monotonic() + 30
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"{command[0]} does not listen: {log.read_text()}")
            time.sleep(0.1)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(10)


class Followed(Ingress):
    """nginx whose file is written anew when pods become ready or stop being so, as an ingress controller does."""

    def __init__(self, command: list[str], port: int, folder: Path, text: str, pods: StatefulSet) -> None:
        super().__init__(command, port, folder / "nginx.log")
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._follow, args=(folder / "nginx.conf", text, pods))
        self._thread.start()

    def _follow(self, file: Path, text: str, pods: StatefulSet) -> None:
        known = frozenset(pods.ordinals)
        while not self._done.wait(0.1):
            ready = frozenset(pods.endpoints())
            # None at all: the file stays, and requests are refused by the servers themselves.
            if ready == known or not ready:
                continue
            known = ready
            lines = text.splitlines(keepends=True)
            gone = [f"{pods.address(n)}:" for n in pods.ordinals if n not in ready]
            file.write_text("".join(line for line in lines if not any(address in line for address in gone)))
            self.process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        self._done.set()
        self._thread.join()
        super().stop()


def with_addresses(text: str, address: Callable[[int], str]) -> str:
    """Names of pods are known to the cluster's DNS, which is not here."""
    replaced, count = re.subn(r"confonnx-(\d+)\.confonnx-peers", lambda match: address(int(match[1])), text)
    assert count == 3
    return replaced


def nginx(pods: StatefulSet, folder: Path) -> Ingress:
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        pytest.fail("nginx is not installed: scripts/system-parts deploy")
    port = free_port()
    shown = with_addresses((DEPLOY / "ingress" / "nginx.conf").read_text(), pods.address)
    assert shown.count("listen 8080;") == 1
    shown = shown.replace("listen 8080;", f"listen 127.0.0.1:{port};")
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = (
        f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places}\n{shown}}}\n"
    )
    (folder / "nginx.conf").write_text(text)
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    return Followed(command, port, folder, text, pods)
