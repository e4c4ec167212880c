"""A real server for the end-to-end tests, and the digits example."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "examples" / "digits"))

import digits  # noqa: E402

START_SECONDS = 60


@dataclass
class Server:
    """A running confonnx-server."""

    url: str
    executable: Path
    process: subprocess.Popen[bytes]
    log: Path
    admin: str | None = None

    def stop(self) -> int:
        """Stops the server by SIGTERM; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def server_executable() -> Path:
    """The path of `CONFONNX_SERVER`, or of the newest build in the target folder."""
    if given := os.environ.get("CONFONNX_SERVER"):
        return Path(given)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    built = [path for profile in ("debug", "release") if (path := target / profile / "confonnx-server").exists()]
    if not built:
        pytest.fail("confonnx-server is not built: run `cargo build -p confonnx-server`, or `make test-python`")
    return max(built, key=lambda path: path.stat().st_mtime)


@pytest.fixture(scope="session")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts a server with the digits model and further flags on a port of its own; all are stopped at the end."""
    executable = server_executable()
    logs = tmp_path_factory.mktemp("servers")
    servers: list[Server] = []

    def start(
        *flags: str, model: Path = digits.MODEL, port: int | None = None, admin: bool = False
    ) -> Server:
        port = port or free_port()
        admin_port = free_port() if admin else 0
        log = logs / f"server{len(servers)}.log"
        models = "--model-repository" if model.is_dir() else "--model-path"
        command = [str(executable), models, str(model), "--address", "127.0.0.1", "--http-port", str(port)]
        with log.open("wb") as file:
            process = subprocess.Popen(
                [*command, "--admin-port", str(admin_port), "--debug", *flags], stdout=file, stderr=file, cwd=ROOT
            )
        admin_url = f"http://127.0.0.1:{admin_port}" if admin else None
        server = Server(f"http://127.0.0.1:{port}", executable, process, log, admin_url)
        servers.append(server)
        wait_until_healthy(server)
        return server

    yield start
    for server in servers:
        server.process.kill()
        server.process.wait()


def wait_until_healthy(server: Server) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            pytest.fail(f"the server stopped with status {server.process.returncode}:\n{server.log.read_text()}")
        with contextlib.suppress(OSError), urllib.request.urlopen(server.url, timeout=5) as answer:
            if answer.read() == b"Healthy":
                return
        time.sleep(0.05)
    pytest.fail(f"the server was not healthy within {START_SECONDS} s:\n{server.log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server]) -> Server:
    """One server for all tests that do not change what it serves."""
    return start_server()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """The URL of a server that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
