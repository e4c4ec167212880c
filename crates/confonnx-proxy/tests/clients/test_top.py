"""`confonnx top`: what a person sees of servers, and what a script prints."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
import urllib.request
from typing import Callable

import pytest
from conftest import DIGITS, Proxy, Server, executable, free_port
from test_chat import in_a_terminal


@pytest.fixture(scope="module")
def admin(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> tuple[str, Proxy]:
    port = free_port()
    server = start_server(DIGITS, "--admin-port", str(port))
    return f"http://127.0.0.1:{port}", start_proxy("--url", server.url, "--enclave-allow-debug")


def test_it_prints_what_it_saw(admin: tuple[str, Proxy]) -> None:
    url, proxy = admin
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            with urllib.request.urlopen(proxy.url + "/v2/models/digits") as answer:
                assert json.load(answer)["name"] == "digits"

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        command = [executable("confonnx"), "top", url, f"http://127.0.0.1:{free_port()}", "--once", "--interval", "0.5"]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=True)
    finally:
        stop.set()
        asking.join()
    lines = done.stdout.splitlines()
    assert "2 servers, 1 not ready" in lines[0]
    [row] = [line.split() for line in lines if line.startswith(url.removeprefix("http://"))]
    assert row[1:3] == ["✓", "ready"] and float(row[3]) > 0, done.stdout
    assert any("✗ no answer" in line for line in lines) and "Connection refused" in done.stdout
    assert any(line.startswith("digits") and "✓ served" in line for line in lines)
    assert any(line.startswith("✓ ok") for line in lines)


def test_a_server_that_is_not_ready_says_why() -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = (200, "confonnx_in_flight 0\n") if self.path == "/metrics" else (503, "no keys: not yet\n")
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [executable("confonnx"), "top", f"http://127.0.0.1:{server.server_port}", "--once", "--interval", "0.2"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=True)
    server.shutdown()
    assert "1 server, 1 not ready" in done.stdout, done.stdout
    assert "✗ not ready" in done.stdout and "no keys: not yet" in done.stdout, done.stdout


def test_a_terminal_is_given_back(admin: tuple[str, Proxy]) -> None:
    status, screen = in_a_terminal(executable("confonnx"), "top", admin[0], "--interval", "0.2", lines=["q"])
    assert status == 0
    assert "\x1b[?1049h" in screen and screen.rstrip().endswith("\x1b[?25h"), screen[-200:]
    assert "\x1b[?1049l" in screen


def test_what_is_no_terminal_is_told_so() -> None:
    done = subprocess.run([str(executable("confonnx")), "top"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "--once" in done.stderr
