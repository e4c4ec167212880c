"""Chats with a language model: what is asked, and what is answered, whole or as it comes."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass
from typing import Any, Mapping, Sequence

from confonnx import _confonnx, _options

Messages = str | Sequence[Mapping[str, str]]
OURS = ("messages", "model", "stream", "stream_options", "n")
"""Parameters of the API that have arguments of their own here, or are not to be had here."""


@dataclass(frozen=True)
class Asked:
    """A chat as the extension module takes it."""

    model: str | None
    messages: list[tuple[str, str]]
    parameters: str


@dataclass(frozen=True)
class ChatAnswer:
    """A language model's answer. `str()` of it is its text."""

    text: str
    finish_reason: str | None
    """`stop`, or `length` when a limit cut the answer short."""
    prompt_tokens: int | None
    """Tokens of all messages, as the model's template writes them."""
    completion_tokens: int | None
    """Tokens of the answer."""

    def __str__(self) -> str:
        return self.text


def asked(messages: Messages, system: str | None, model: str | None, parameters: Mapping[str, Any]) -> Asked:
    """The chat of these arguments; raises `TypeError` or `ValueError` that names the argument that is wrong."""
    said = [("system", system)] if _options.text("system", system) is not None else []
    if isinstance(messages, str):
        said.append(("user", messages))
    elif isinstance(messages, Sequence) and not isinstance(messages, (bytes, bytearray)):
        said += [_message(number, message) for number, message in enumerate(messages)]
        if not messages:
            raise ValueError("messages: expected at least one, found an empty list")
    else:
        raise TypeError(f"messages: expected str or a list of messages, found {type(messages).__name__}")
    for name in OURS:
        if name in parameters:
            raise TypeError(f"{name}: no parameter of chats here")
    given = {name: value for name, value in parameters.items() if value is not None}
    try:
        text = json.dumps(given, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{', '.join(given)}: expected what JSON can hold: {error}") from None
    return Asked(model, [(role, text) for role, text in said if text is not None], text)


def _message(number: int, message: object) -> tuple[str, str]:
    name = f"messages[{number}]"
    if not isinstance(message, Mapping):
        raise TypeError(f"{name}: expected a dict with role and content, found {type(message).__name__}")
    if set(message) != {"role", "content"}:
        raise ValueError(f"{name}: expected role and content, found {', '.join(sorted(map(str, message)))}")
    for key in ("role", "content"):
        if not isinstance(message[key], str):
            raise TypeError(f"{name}: expected {key} as str, found {type(message[key]).__name__}")
    return message["role"], message["content"]


def answered(answer: _confonnx.ChatAnswer) -> ChatAnswer:
    """The extension module's answer as a class of Python's."""
    return ChatAnswer(answer.text, answer.finish_reason, answer.prompt_tokens, answer.completion_tokens)


class _Tokens:
    def __init__(self, tokens: _confonnx.Tokens) -> None:
        self._tokens = tokens

    @property
    def answer(self) -> ChatAnswer:
        """What was said so far; the whole answer once the loop has ended by itself."""
        return answered(self._tokens.answer())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self.answer.text)} characters so far>"


class ChatStream(_Tokens):
    """An answer as it comes: an iterator of `str`. A loop that ends without an exception has seen all of it.

    Leaving a loop early gives the answer up once this object goes, or at the end of a `with` block.
    """

    def __iter__(self) -> ChatStream:
        return self

    def __next__(self) -> str:
        token = self._tokens.next()
        if token is None:
            raise StopIteration
        return token

    def close(self) -> None:
        """Gives the rest of the answer up: the model stops."""
        self._tokens.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()


class AsyncChatStream(_Tokens):
    """`ChatStream` for `async for` and `async with`."""

    def __aiter__(self) -> AsyncChatStream:
        return self

    async def __anext__(self) -> str:
        token = await self._tokens.next_async()
        if token is None:
            raise StopAsyncIteration
        return token

    async def close(self) -> None:
        """See `ChatStream.close`."""
        self._tokens.close()

    async def __aenter__(self) -> AsyncChatStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        await self.close()
