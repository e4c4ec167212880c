"""Answers of a language model to `openai`, whole and streamed, and the errors of that API."""

from __future__ import annotations

import asyncio
import json
import typing
from pathlib import Path
from typing import Callable

import openai
import pydantic
import pytest
from conftest import ROOT, USER, Proxy, Server

DECODER = ROOT / "crates" / "confonnx-engine" / "tests" / "data" / "decoder.onnx"
# What onnxruntime's Python package says: see the engine's tests.
SAID = bytes([255, 114, 156, 182, 152, 199, 12, 12, 12, 12, 12, 12]).decode(errors="replace")
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def client(open_proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{open_proxy.url}/v1", api_key=USER, max_retries=0)


@pytest.fixture(scope="module")
def chat_proxy(start_server: Callable[..., Server], start_proxy: Callable[..., Proxy]) -> Proxy:
    """A proxy before a server with a language model of a few thousand random weights."""
    return start_proxy("--url", start_server(DECODER, "--model-name", "decoder").url, "--enclave-allow-debug")


@pytest.fixture
def chat(chat_proxy: Proxy) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{chat_proxy.url}/v1", api_key="any", max_retries=0)


def test_models(chat: openai.OpenAI) -> None:
    assert [model.id for model in chat.models.list()] == ["decoder"]


def test_completions_say_what_the_model_says(chat: openai.OpenAI) -> None:
    asked = {"model": "decoder", "prompt": "hello", "temperature": 0, "max_tokens": 12}
    whole = chat.completions.create(**asked)
    assert whole.choices[0].text == SAID and whole.choices[0].finish_reason == "length"
    assert whole.usage and (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.total_tokens) == (5, 12, 17)
    pieces = list(chat.completions.create(**asked, stream=True))
    assert "".join(piece.choices[0].text for piece in pieces) == SAID
    assert pieces[-1].choices[0].finish_reason == "length"


def test_a_chat_is_streamed_as_it_is_told_at_the_end(chat: openai.OpenAI) -> None:
    asked = {"model": "decoder", "messages": HELLO, "seed": 7, "max_tokens": 30, "logprobs": True, "top_logprobs": 2}
    whole = chat.chat.completions.create(**asked)
    choice = whole.choices[0]
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.logprobs and choice.logprobs.content and len(choice.logprobs.content[0].top_logprobs) == 2
    with chat.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == choice.message.content
    told = [token for c in chunks if c.choices and c.choices[0].logprobs for token in c.choices[0].logprobs.content or []]
    assert told == choice.logprobs.content
    assert chunks[-1].usage == whole.usage and not chunks[-1].choices
    finishes = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    assert finishes == [choice.finish_reason]
    assert len({c.id for c in chunks}) == 1


def test_its_own_way_to_stream(chat: openai.OpenAI) -> None:
    with chat.chat.completions.stream(model="decoder", messages=HELLO, seed=7, max_tokens=30, n=2) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        # The client's parser takes no answer that ended at max_tokens, and has that answer in its error.
        with pytest.raises(openai.LengthFinishReasonError) as long:
            stream.get_final_completion()
    choices = long.value.completion.choices
    assert len(choices) == 2
    assert sorted("".join(deltas)) == sorted("".join(choice.message.content or "" for choice in choices))


def test_many_at_once(chat_proxy: Proxy) -> None:
    async def ask(client: openai.AsyncOpenAI, seed: int) -> str:
        stream = await client.chat.completions.create(
            model="decoder", messages=HELLO, seed=seed % 3, max_tokens=20, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{chat_proxy.url}/v1", api_key="any", max_retries=0) as client:
            return await asyncio.gather(*(ask(client, seed) for seed in range(9)))

    answers = asyncio.run(all_of_them())
    assert answers == answers[:3] * 3 and len(set(answers)) == 3


def test_what_is_wrong_is_said(chat: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(model="decoder", messages=HELLO, max_tokens=600)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as refused:
        chat.chat.completions.create(model="decoder", messages=HELLO, temperature=9, stream=True)
    assert (refused.value.param, refused.value.type) == ("temperature", "invalid_request_error")
    with pytest.raises(openai.NotFoundError):
        chat.chat.completions.create(model="other", messages=HELLO)


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


def test_an_answer_in_json_keeps_its_schema(chat: openai.OpenAI) -> None:
    class Verdict(pydantic.BaseModel):
        """An answer that the model's random weights could never give by themselves."""

        guilty: bool
        counts: typing.Literal[1, 22]

    for seed in range(3):
        asked = {"model": "decoder", "messages": HELLO, "seed": seed, "max_tokens": 200}
        parsed = chat.chat.completions.parse(**asked, response_format=Verdict)
        assert isinstance(parsed.choices[0].message.parsed, Verdict)
    with pytest.raises(openai.BadRequestError) as refused:
        schema = {"name": "x", "schema": {"type": "nothing"}}
        chat.chat.completions.create(**asked, response_format={"type": "json_schema", "json_schema": schema})
    assert refused.value.param == "response_format" and "JSON Schema" in refused.value.message
