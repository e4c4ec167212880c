"""The page for people, and the metrics."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Callable

import pytest
import tritonclient.http as triton
from conftest import Proxy, Server
from test_triton_http import vectors


def get(url: str) -> tuple[str, str]:
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode(), answer.headers.get("Content-Security-Policy", "")


def test_the_page_shows_what_was_verified(start_proxy: Callable[..., Proxy], server: Server) -> None:
    proxy = start_proxy("--url", server.url, "--enclave-allow-debug", "--ui")
    page, policy = get(proxy.url + "/ui")
    assert "default-src 'none'" in policy
    # The page loads nothing from elsewhere.
    for asset in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert asset.startswith(("/ui/", "data:,"))
        if asset.startswith("/ui/"):
            assert "//" not in get(proxy.url + asset)[0].replace("// ", "")
    [found] = json.loads(get(proxy.url + "/ui/status.json")[0])["servers"]
    evidence = found["evidence"]
    assert evidence["tee"] == "insecure"
    assert {model["name"] for model in evidence["models"]} == {"add", "identity"}
    assert evidence["keys"][0]["accepted_until"] > evidence["issued_at"]
    assert {"name", "expected", "found", "outcome"} <= set(evidence["checks"][0])


def test_the_page_shows_why_nothing_is_sent(start_proxy: Callable[..., Proxy], server: Server) -> None:
    proxy = start_proxy("--url", server.url, "--enclave-hash", "ab" * 32, "--ui")
    [found] = json.loads(get(proxy.url + "/ui/status.json")[0])["servers"]
    assert found["evidence"] is None
    assert found["fault"]["kind"] == "server-not-trusted"
    assert any("abab" in check["expected"] for check in found["fault"]["checks"])


def test_there_is_no_page_unless_asked_for(proxy: Proxy) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(proxy.url + "/ui")


def test_metrics_have_tritons_names(proxy: Proxy) -> None:
    def numbers() -> dict[str, float]:
        lines = get(proxy.url + "/metrics")[0].splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    model = '{model="add",version="1"}'
    before = numbers().get(f"nv_inference_request_success{model}", 0)
    with triton.InferenceServerClient(proxy.address) as client:
        client.infer("add", vectors())
    found = numbers()
    assert found[f"nv_inference_request_success{model}"] == before + 1
    assert found['nv_inference_first_response_histogram_ms_count{model="add",version="1"}'] == before + 1
    assert found['confonnx_proxy_verified{upstream="server"}'] == 1
