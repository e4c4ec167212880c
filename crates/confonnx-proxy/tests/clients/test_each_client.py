"""What goes wrong is an error of its own kind to each client, by that client's code. KServe's are in test_kserve.py."""

from __future__ import annotations

import openai
import pytest
import tritonclient.grpc
import tritonclient.http
from conftest import FAULTS, Proxy
from test_triton_grpc import vectors as grpc_vectors
from test_triton_http import vectors
from tritonclient.utils import InferenceServerException


@pytest.mark.parametrize("what", FAULTS)
def test_triton_over_http(faulty: dict[str, Proxy], what: str) -> None:
    _, status, _ = FAULTS[what]
    with tritonclient.http.InferenceServerClient(faulty[what].address) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("add", vectors())
        assert client.is_server_live() and not client.is_server_ready()
    assert refused.value.status() == str(status)
    assert says(what, refused.value.message())


@pytest.mark.parametrize("what", FAULTS)
def test_triton_over_grpc(faulty: dict[str, Proxy], what: str) -> None:
    _, _, code = FAULTS[what]
    with tritonclient.grpc.InferenceServerClient(faulty[what].grpc) as client:
        with pytest.raises(InferenceServerException) as refused:
            client.infer("add", grpc_vectors())
    assert refused.value.status() == f"StatusCode.{code}"
    assert says(what, refused.value.message())


@pytest.mark.parametrize("what", FAULTS)
def test_openai(faulty: dict[str, Proxy], what: str) -> None:
    kind, status, _ = FAULTS[what]
    client = openai.OpenAI(base_url=f"{faulty[what].url}/v1", api_key="any", max_retries=0)
    for call in (
        lambda: client.embeddings.create(model="add", input="a"),
        lambda: client.chat.completions.create(model="add", messages=[{"role": "user", "content": "a"}], stream=True),
    ):
        with pytest.raises(openai.InternalServerError) as refused:
            call()
        assert (refused.value.status_code, refused.value.code) == (status, kind)
        assert says(what, refused.value.message)


def says(what: str, text: str) -> bool:
    """Words in the error's text, which is all that most programs show."""
    words = {
        "wrong hash": "abab",
        "swapped server": "no longer the one that was trusted",
        "expired key": "was accepted until Unix time",
        "dead upstream": "no answer from",
        "slow upstream": "within 0.5 s",
    }
    return words[what] in text
