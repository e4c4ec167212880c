"""`litellm` and LangChain's client for OpenAI's API, each by its own code."""

from __future__ import annotations

import json
from collections.abc import Callable

import langchain_openai
import litellm
import pytest
from conftest import ROOT, Proxy, Server
from langchain_core.messages import HumanMessage

DECODER = ROOT / "crates" / "confonnx-engine" / "tests" / "data" / "decoder.onnx"
# By onnxruntime's Python package: see the engine's tests.
SAID = bytes([255, 114, 156, 182, 152, 199, 12, 12, 12, 12, 12, 12]).decode(errors="replace")
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def base(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> str:
    """The API's address, before a server with a language model of a few thousand random weights."""
    server = start_server(DECODER, "--model-name", "decoder")
    return f"{start_proxy('--url', server.url, '--enclave-allow-debug').url}/v1"


def asked(base: str) -> dict[str, object]:
    return {"model": "openai/decoder", "api_base": base, "api_key": "any", "messages": HELLO, "seed": 7, "max_tokens": 30}


def test_litellm_whole_and_streamed(base: str) -> None:
    whole = litellm.completion(**asked(base))
    text = whole.choices[0].message.content
    assert text and whole.usage.completion_tokens <= 30
    pieces = list(litellm.completion(**asked(base), stream=True))
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == text
    assert pieces[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_litellm_completions(base: str) -> None:
    more = {"prompt": "hello", "temperature": 0, "max_tokens": 12}
    whole = litellm.text_completion(model="text-completion-openai/decoder", api_base=base, api_key="any", **more)
    assert whole.choices[0].text == SAID


def test_litellm_keeps_a_schema(base: str) -> None:
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    whole = litellm.completion(**asked(base) | {"response_format": form, "max_tokens": 200})
    assert isinstance(json.loads(whole.choices[0].message.content)["yes"], bool)


def test_litellm_knows_the_kinds_of_errors(base: str) -> None:
    with pytest.raises(litellm.BadRequestError) as long:
        litellm.completion(**asked(base) | {"max_tokens": 100_000}, num_retries=0)
    assert "max_tokens" in str(long.value)
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**asked(base) | {"model": "openai/other"}, num_retries=0)


def chat(base: str, max_tokens: int = 30) -> langchain_openai.ChatOpenAI:
    given = {"model": "decoder", "base_url": base, "api_key": "any", "seed": 7, "max_tokens": max_tokens}
    return langchain_openai.ChatOpenAI(**given, max_retries=0)


def test_langchain_whole_and_streamed(base: str) -> None:
    whole = chat(base).invoke([HumanMessage("hello")])
    assert whole.content and whole.usage_metadata["output_tokens"] <= 30
    assert "".join(piece.content for piece in chat(base).stream("hello")) == whole.content


def test_langchain_keeps_a_schema(base: str) -> None:
    schema = {"title": "answer", "type": "object", "properties": {"n": {"enum": [1, 22]}}, "required": ["n"]}
    schema |= {"additionalProperties": False}
    structured = chat(base, 200).with_structured_output(schema, method="json_schema")
    assert structured.invoke("hello")["n"] in (1, 22)


def test_langchain_embeds_nothing_with_it(base: str) -> None:
    embeddings = langchain_openai.OpenAIEmbeddings(
        model="decoder", base_url=base, api_key="any", max_retries=0, check_embedding_ctx_length=False
    )
    with pytest.raises(Exception, match="makes no vectors of texts"):
        embeddings.embed_query("hello")
