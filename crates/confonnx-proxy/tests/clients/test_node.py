"""npm's `openai`, as published, through the proxy."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import FAULTS, Proxy, Server
from test_embeddings import ENCODER, by_hand
from test_openai import DECODER, SAID

NODE = Path(__file__).parent / "node"


def run(proxy: Proxy, script: str) -> dict:
    done = subprocess.run(["node", script, f"{proxy.url}/v1"], cwd=NODE, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("format", ["float", "base64"])
def test_embeddings(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy], format: str) -> None:
    proxy = start_proxy("--url", start_server(ENCODER, "--model-name", "encoder").url, "--enclave-allow-debug")
    found = run(proxy, f"embeddings-{format}.mjs")
    assert found["models"] == ["encoder"]
    np.testing.assert_allclose(np.array(found["vectors"]), by_hand(["a b", "x"]), atol=1e-5)
    assert found["refused"] == {"status": 400, "code": "context_length_exceeded", "type": "invalid_request_error"}


def test_answers_of_a_language_model(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> None:
    proxy = start_proxy("--url", start_server(DECODER, "--model-name", "decoder").url, "--enclave-allow-debug")
    found = run(proxy, "chat.mjs")
    assert found["completion"] == SAID
    assert found["streamed"] == found["whole"] != ""


@pytest.mark.parametrize("what", FAULTS)
def test_what_goes_wrong_is_an_error_of_its_own_kind(faulty: dict[str, Proxy], what: str) -> None:
    kind, status, _ = FAULTS[what]
    found = run(faulty[what], "refused.mjs")
    assert (found["status"], found["code"]) == (status, kind)
    assert bool(found.get("checks")) == (what in ("wrong hash", "swapped server"))
