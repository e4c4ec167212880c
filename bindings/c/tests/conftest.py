"""A real server with the digits model, and the library as it is installed."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def prefix() -> Path:
    """The prefix into which scripts/make-c installed the library."""
    return Path(os.environ["CONFONNX_C_PREFIX"])


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server for development."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        os.environ["CONFONNX_SERVER"], "--model-path", str(ROOT / "examples/digits/digits.onnx"), "--debug",
        "--address", "127.0.0.1", "--http-port", str(port), "--admin-port", "0",
    ]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            if urllib.request.urlopen(url, timeout=5).read() == b"Healthy":
                break
        except OSError:
            time.sleep(0.1)
    else:
        pytest.fail(f"the server is not healthy: {log.read_text()}")
    yield url
    server.terminate()
    server.wait(30)
