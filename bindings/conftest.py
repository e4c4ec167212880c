"""A real server with the digits model, for the tests of every binding that has no settings of pytest of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
