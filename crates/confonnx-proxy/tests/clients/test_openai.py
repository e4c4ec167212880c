"""`openai`: what the server has no answer for is an error of that API."""

from __future__ import annotations

import openai
import pytest
from conftest import USER, Proxy


@pytest.fixture
def client(open_proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{open_proxy.url}/v1", api_key=USER, max_retries=0)


def test_a_model_that_cannot_do_it(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.embeddings.create(model="add", input="hello")
    assert 400 <= refused.value.status_code < 500
    assert refused.value.type == "invalid_request_error"
    assert refused.value.code and isinstance(refused.value.body, dict) and refused.value.body["message"]


def test_streams_give_errors_as_statuses(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        client.completions.create(model="add", prompt="hello", stream=True)
    assert 400 <= refused.value.status_code < 500


def test_a_server_that_is_not_trusted(start_proxy, server) -> None:
    proxy = start_proxy("--url", server.url, "--enclave-hash", "ab" * 32)
    with pytest.raises(openai.InternalServerError) as refused:
        openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="any", max_retries=0).models.list()
    assert refused.value.status_code == 503
    assert refused.value.code in ("server-not-trusted", "server-not-genuine")
    assert refused.value.body["checks"]
