"""Chats with a language model, against a real server with a decoder of a few thousand random weights."""

from __future__ import annotations

import asyncio
from typing import Any, Callable

import pytest
from conftest import ROOT, Server

from confonnx import AsyncClient, Client, RequestError

pytestmark = pytest.mark.e2e

MODEL = ROOT / "crates/confonnx-engine/tests/data/decoder.onnx"
ASKED: dict[str, Any] = {"seed": 7, "max_tokens": 30}


@pytest.fixture(scope="module")
def decoder(start_server: Callable[..., Server]) -> Server:
    return start_server(model=MODEL)


@pytest.fixture(scope="module")
def client(decoder: Server) -> Client:
    return Client(decoder.url, enclave_allow_debug=True)


def test_what_is_streamed_is_what_is_told_at_the_end(client: Client) -> None:
    whole = client.chat("hello", **ASKED)
    assert str(whole) == whole.text and whole.finish_reason in ("stop", "length")
    assert whole.prompt_tokens and whole.completion_tokens and whole.completion_tokens <= 30
    stream = client.stream("hello", **ASKED)
    tokens = list(stream)
    assert len(tokens) > 1 and "".join(tokens) == whole.text
    assert stream.answer == whole and list(stream) == []


def test_messages_may_be_a_list_and_a_system_message_is_the_first(client: Client) -> None:
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "x"}]
    said = client.chat(messages, system="be brief", **ASKED)
    same = client.chat([{"role": "system", "content": "be brief"}, *messages], **ASKED)
    assert said == same and said.prompt_tokens != client.chat(messages, **ASKED).prompt_tokens
    assert client.chat("hello", temperature=None, **ASKED) == client.chat("hello", **ASKED)


def test_the_asynchronous_client_does_the_same(decoder: Server, client: Client) -> None:
    async def run() -> None:
        async with AsyncClient(decoder.url, enclave_allow_debug=True) as asynchronous:
            whole = await asynchronous.chat("hello", **ASKED)
            assert whole == client.chat("hello", **ASKED)

            async def streamed() -> str:
                return "".join([token async for token in asynchronous.stream("hello", **ASKED)])

            assert await asyncio.gather(*(streamed() for _ in range(3))) == [whole.text] * 3

    asyncio.run(run())


def test_an_answer_can_be_given_up(client: Client) -> None:
    with client.stream("hello", max_tokens=400, seed=1) as stream:
        first = next(stream)
    assert stream.answer.text.startswith(first) and stream.answer.finish_reason is None
    # The next chat does not wait for the one that was given up.
    assert client.chat("hello", max_tokens=1)


@pytest.mark.parametrize(
    ("messages", "more", "kind", "message"),
    [
        (7, {}, TypeError, "messages: expected str or a list of messages, found int"),
        ([], {}, ValueError, "messages: expected at least one"),
        (["hi"], {}, TypeError, r"messages\[0\]: expected a dict with role and content, found str"),
        ([{"role": "user"}], {}, ValueError, r"messages\[0\]: expected role and content, found role"),
        ([{"role": "user", "content": 1}], {}, TypeError, r"messages\[0\]: expected content as str, found int"),
        ("hi", {"system": 1}, TypeError, "system: expected str"),
        ("hi", {"stream": True}, TypeError, "stream: no parameter"),
        ("hi", {"seed": object()}, TypeError, "seed: expected what JSON can hold"),
        ("hi", {"temperature": float("nan")}, ValueError, "temperature: expected what JSON can hold"),
        ("hi", {"temperature": 9}, RequestError, "temperature"),
        ("hi", {"temprature": 1}, RequestError, "temprature"),
        ("hi", {"model": "nobody"}, RequestError, "nobody"),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(
    client: Client, messages: Any, more: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        client.chat(messages, **more)
    with pytest.raises(kind, match=message):
        list(client.stream(messages, **more))
