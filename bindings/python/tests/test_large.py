"""Large tensors: what they cost the server in memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import ROOT, Server

from confonnx.client import Client

MEAN = ROOT / "crates/confonnx-engine/tests/data/mean.onnx"
INPUT = 96 << 20


def peak(server: Server) -> int:
    """The most memory the process ever had, in bytes (proc(5), VmHWM)."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found, status
    return int(found[1]) * 1024


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_input_is_in_memory_once(start_server: Callable[..., Server], chunked: bool) -> None:
    server = start_server("--max-request-bytes", str(2 * INPUT), model=MEAN)
    client = Client(server.url, enclave_allow_debug=True, chunked=chunked)
    small = np.ones(1 << 18, np.float32)
    assert client.predict({"x": small})["y"] == [1.0]
    before = peak(server)
    large = np.full(INPUT // 4, 0.5, np.float32)
    assert client.predict({"x": large})["y"] == [0.5]
    # The server holds the message and its padding (Padmé: at most 3 % here); a second copy would be 100 % more.
    assert peak(server) - before < 1.25 * INPUT


def test_chunked_answers_are_the_same(start_server: Callable[..., Server]) -> None:
    server = start_server(model=ROOT / "crates/confonnx-engine/tests/data/rows.onnx")
    x = np.random.default_rng(1).standard_normal((5000, 1, 6, 6)).astype(np.float32)
    whole = Client(server.url, enclave_allow_debug=True).predict({"x": x})
    for kem in ("x-wing", "x25519"):
        chunked = Client(server.url, enclave_allow_debug=True, kem=kem, chunked=True).predict({"x": x})
        assert chunked["y"].tobytes() == whole["y"].tobytes()
