"""Clients that check a server's proof before they send it anything.

    from confonnx import Client

    with Client("https://models.example", enclave_hash="ab12…", enclave_model_hash="cd34…") as client:
        outputs = client.predict({"image": image})
"""

from __future__ import annotations

import html
import json
import os
import types
from dataclasses import dataclass
from typing import Any, Mapping, NoReturn, Sequence

import numpy.typing as npt

from confonnx import _chat, _confonnx, _html, _options, _tensor
from confonnx._chat import AsyncChatStream, ChatAnswer, ChatStream, Messages
from confonnx._options import AuthKey, Called, Hashes, Progress
from confonnx._tensor import Array
from confonnx.exceptions import (
    AttestationError,
    AuthError,
    Check,
    ConfonnxError,
    PolicyError,
    ReplyError,
    RequestError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

__all__ = [
    "AsyncChatStream",
    "AsyncClient",
    "Attestation",
    "AttestationError",
    "AuthError",
    "ChatAnswer",
    "ChatStream",
    "Check",
    "Client",
    "ConfonnxError",
    "ModelState",
    "PolicyError",
    "ReplyError",
    "RequestError",
    "RequestTimeoutError",
    "ServerError",
    "TransportError",
]


@dataclass(frozen=True)
class Attestation:
    """What a server proved. `str()` of it is a table of the checks; notebooks show one."""

    tee: str
    """Kind of the trusted execution environment; `insecure` proves nothing."""
    claims: dict[str, Any]
    """What the evidence binds: models and their hashes, keys, settings (docs/protocol.md, section 2.4)."""
    checks: list[Check]
    """Every check that was made."""
    table: str

    def __str__(self) -> str:
        return self.table

    def __repr__(self) -> str:
        models = ", ".join(f"{model.get('name')} {_short(model.get('sha256'))}" for model in self.claims.get("models", []))
        found = next((check.found for check in self.checks if check.name == "enclave hash"), None)
        proved = "insecure TEE, proves nothing" if self.tee == "insecure" else f"verified {self.tee}"
        return f"<Attestation: {proved}; enclave {_short(found)}; models {models or 'none'}>"

    def _repr_html_(self) -> str:
        return _html.verdict(self.tee, self.checks)


@dataclass(frozen=True)
class ModelState:
    """A version of a model in a server's repository, and whether it is served."""

    name: str
    version: str | None
    """`None` where the model's folder cannot be used as a whole, such as one without versions."""
    state: str
    """`READY`, `LOADING` or `UNAVAILABLE`."""
    reason: str
    """Why it is not ready; or, of one that is, why its changed files are not served. Else empty."""

    @property
    def ready(self) -> bool:
        """Whether it is served."""
        return self.state == "READY"


INPUT_INVALID = "input-invalid"
"""The server's code for inputs that do not fit the model."""


class _Base:
    """What both clients are: their options, and what they know without the network."""

    def __init__(
        self,
        url: str,
        auth: Mapping[str, str] | None = None,
        auth_key: AuthKey | None = None,
        enclave_signing_key: str | Sequence[str] | None = None,
        enclave_hash: Hashes | None = None,
        enclave_model_hash: str | Sequence[str] | None = None,
        enclave_allow_debug: bool = False,
        *,
        policy: str | os.PathLike[str] | None = None,
        auth_key_outside: bool = False,
        model: str | None = None,
        model_version: str | int | None = None,
        kem: str | None = None,
        aead: str | None = None,
        timeout: float | None = None,
        sessions: bool = True,
        relay: str | None = None,
        chunked: bool = False,
        retries: int = 2,
        ca_file: str | os.PathLike[str] | None = None,
        proxy: str | None = None,
        progress: Progress | None = None,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            _options.refuse_unknown(type(self), unknown)
        if not isinstance(url, str):
            raise TypeError(f"url: expected str, found {type(url).__name__}")
        options = _options.options(
            auth=auth,
            auth_key=auth_key,
            enclave_signing_key=enclave_signing_key,
            enclave_hash=enclave_hash,
            enclave_model_hash=enclave_model_hash,
            enclave_allow_debug=enclave_allow_debug,
            policy=policy,
            auth_key_outside=auth_key_outside,
            kem=kem,
            aead=aead,
            timeout=timeout,
            sessions=sessions,
            relay=relay,
            chunked=chunked,
            retries=retries,
            ca_file=ca_file,
            proxy=proxy,
            progress=progress,
        )
        self._model, self._version = _options.text("model", model), _options.version("model_version", model_version)
        self._client = _confonnx.Client(url, options)
        self._types: dict[Called, _tensor.Types] = {}

    def _called(self, model: object, version: object) -> Called:
        name, number = _options.text("model", model), _options.version("model_version", version)
        # The client's version is one of the client's model.
        return Called(name or self._model, number or (self._version if name in (None, self._model) else None))

    def _asked(
        self, messages: Messages, system: str | None, model: str | None, parameters: Mapping[str, Any]
    ) -> _chat.Asked:
        return _chat.asked(messages, system, _options.text("model", model) or self._model, parameters)

    def _verified(self) -> Attestation | None:
        """What the next call rests on; `None` before the first one, after `load` or `unload`, and once closed."""
        proof = None if self._client.closed else self._client.proof()
        return None if proof is None else _attested(proof)

    def _learned(self, called: Called, metadata: _confonnx.Metadata) -> _tensor.Types:
        types = {tensor.name: tensor.datatype for tensor in metadata.inputs}
        self._types[called] = types
        return types

    def __repr__(self) -> str:
        name = type(self).__name__
        if self._client.closed:
            return f"<{name}: closed>"
        verified = self._verified()
        return f"<{name} {self._client.url}: {'nothing verified yet' if verified is None else repr(verified)}>"

    def _repr_html_(self) -> str:
        verified = self._verified()
        return f"<code>{html.escape(repr(self))}</code>" if verified is None else verified._repr_html_()

    @property
    def url(self) -> str:
        """Where the server listens. May be reassigned: keys are then fetched and checked anew."""
        return self._client.url

    @url.setter
    def url(self, url: str) -> None:
        self._client.url = url

    @property
    def key_rollover_count(self) -> int:
        """How often the key was renewed because the server changed its own; 0 after the first key exchange."""
        return self._client.key_rollover_count

    @property
    def key_invalid_count(self) -> int:
        """How often the server no longer knew the key; the client then retries once by itself."""
        return self._client.key_invalid_count

    @property
    def key_outdated(self) -> bool:
        """Whether the last reply said that a newer key is in use; the next call then fetches it first."""
        return self._client.key_outdated


class Client(_Base):
    """A client of one server. Safe to use from several threads; no network until the first call.

    A context manager: leaving its block closes it.

    Args:
        url: Where the server, or the ingress before it, listens: `https://host`, `http://host:8888`.
        auth: Credentials: `{'key': …}` or `{'user': …, 'pass': …}`. The key travels inside the seal as a bearer token,
            for the server alone; user and password outside as HTTP Basic, for an ingress.
        auth_key: The same as `auth={'key': …}`; may be given beside `{'user': …, 'pass': …}`. For tokens that expire, a
            function without arguments that returns one: it is called for each request.
        enclave_signing_key: The expected signer's public key, PEM. Here and below, a list accepts any of several.
        enclave_hash: The expected measurement of the enclave: hex, or the path of an `enclave_info.json`.
        enclave_model_hash: The expected hash of the model that is called, hex, or `name=hex` for the one of that name; always
            enforced when given. The model's other versions, and other models, may be served beside it.
        enclave_allow_debug: Accept enclaves that can be debugged, and the insecure one, which proves nothing. For
            development only. Not beside `policy`, which says that itself.
        policy: A policy file (docs/guides/attestation.md), or the preset `strict` or `cloud`. Other expectations narrow it.
        auth_key_outside: Send the key outside the seal, for an ingress to see.
        model: Name of the model; needed when the server has several.
        model_version: Its version; when not given, the highest with the expected hash, or the highest.
        kem: `x-wing` (post-quantum hybrid, the default), `x25519` or `p-256`.
        aead: `aes-256-gcm` (the default), `aes-128-gcm` or `chacha20-poly1305`.
        timeout: For one call with its key exchange and retries, in seconds; 60 when not given.
        sessions: Resume: from the third call on, requests need no key encapsulation of their own. They can then be linked to
            each other, and the resumption's secret, as long as it lives, opens all of them (docs/protocol.md, 4.1).
        relay: URL of an Oblivious HTTP relay that takes the sealed requests, so that the server does not see whose they
            are; never resumed. It is asked for proofs, too, and never gets `auth`.
        chunked: Seal requests chunk by chunk as they are sent, and open replies as they arrive, so that sealing, sending
            and opening of large tensors overlap; never resumed.
        retries: How often a call is repeated, after a pause that grows, when the server was too busy to run it or the
            connection broke; what may have run is run again only if that changes nothing, as for inference. `timeout` is
            for all tries together.
        ca_file: Certificates (PEM) that https is checked against, in place of this machine's.
        proxy: URL of the HTTP proxy on the way, or `none`; when not given, what the variables `HTTPS_PROXY`, `HTTP_PROXY`,
            `ALL_PROXY` and `NO_PROXY` say. It sees sealed requests. This machine is always reached directly.
        progress: Called as `progress(sending, done, total)` while a sealed request (`sending` is true), then its answer is on
            its way: bytes so far, and of how many, or `None`. Often, and in another thread; its exceptions are only printed.

    Raises:
        PolicyError: No expectation was given, or one is malformed.
        ValueError: The URL or a choice is malformed.
    """

    def predict(
        self,
        data: Mapping[str, npt.ArrayLike] | npt.ArrayLike,
        outputs: Sequence[str] = (),
        *,
        model: str | None = None,
        model_version: str | int | None = None,
    ) -> dict[str, Array]:
        """Runs the model.

        Args:
            data: An array for each input of the model, in its data type and shape; for a model with one input, the array
                alone will do. Strings are object arrays of `str`; bfloat16 is that of the package `ml_dtypes`. Numbers and
                nested lists take the model's type, if it can hold them.
            outputs: The outputs wanted; all when empty.
            model: Name of the model, instead of the client's.
            model_version: Its version, instead of the client's.

        Returns:
            A writable array for each output, in the model's order.

        Raises:
            TypeError: An array's data type has no tensor type.
            ValueError: The model's type cannot hold the numbers of a list.
            AttestationError: The server did not prove what is expected; nothing was sent.
            RequestError: The server refused; see its subclasses `AuthError` and `ServerError`.
            TransportError: No usable answer came, or not in time (`RequestTimeoutError`).
            ReplyError: The answer does not open or is malformed.
        """
        called, wanted = self._called(model, model_version), _options.names("outputs", outputs)
        types = None
        if _tensor.needs_types(data):
            types = self._types.get(called) or self._learned(called, self._client.metadata(called))
        tensors = _tensor.tensors(data, types)
        try:
            results = self._client.predict(tensors, wanted, called)
        except RequestError as error:
            # What was learned of the model may be of another one by now.
            self._types.pop(called, None)
            if error.code != INPUT_INVALID:
                raise
            types = self._learned(called, self._client.metadata(called))
            _mended(error, _tensor.mending(data, types))
        return {tensor.name: _tensor.array(tensor.datatype, tensor.shape, tensor.data) for tensor in results}

    def chat(
        self, messages: Messages, *, system: str | None = None, model: str | None = None, **parameters: Any
    ) -> ChatAnswer:
        """Asks a language model (docs/guides/chat.md); its whole answer.

        Args:
            messages: What the user says, or all messages so far: `[{"role": "user", "content": …}, …]`.
            system: What the model is told before.
            model: Its name, instead of the client's.
            parameters: Those of the API, such as `temperature`, `seed`, `max_tokens`, `stop`; `None` is the server's choice.

        Raises as `predict`.
        """
        return _chat.answered(self._client.chat(self._asked(messages, system, model, parameters)))

    def stream(
        self, messages: Messages, *, system: str | None = None, model: str | None = None, **parameters: Any
    ) -> ChatStream:
        """The same, as it comes: `for token in client.stream("Who wrote Faust?"): print(token, end="")`.

        Raises as `predict`, while it is read: what was said until then is not the whole answer.
        """
        return ChatStream(self._client.stream(self._asked(messages, system, model, parameters)))

    def attest(self) -> Attestation:
        """The proof on which the current key rests; fetches and checks one first when there is none.

        Raises as `predict`.
        """
        return _attested(self._client.attest())

    def ready(self) -> bool:
        """Whether the server, once proved, says that it is ready to run its models. Raises as `predict`."""
        return self._client.ready()

    def provision_model_key(
        self,
        key: str,
        *,
        model: str | None = None,
        model_version: str | int | None = None,
        owner_key: str | None = None,
    ) -> str | None:
        """Gives an encrypted model its key (`confonnx.encrypt_model`), sealed, to the server that was proved.

        Give the hash of the encrypted file as `enclave_model_hash`, so that the key opens your model and no other.

        Args:
            key: The key, `AGE-SECRET-KEY-1…`.
            model: Name of the model, instead of the client's.
            model_version: Its version, instead of the client's.
            owner_key: The owner's private key (PEM; Ed25519 or P-256), for a server that was told whose model it is.

        Returns:
            The hash of the model that the server serves from now on.

        Raises:
            ValueError: It is no such key; nothing was sent.
            RequestError: The key does not open the model, or the model is not locked (any more).
        """
        called = self._called(model, model_version)
        return self._client.provision_model_key(_options.secret("key", key), called, _options.text("owner_key", owner_key))

    def metadata(self, model: str | None = None, model_version: str | int | None = None) -> dict[str, Any]:
        """What the server says of the model, inside the seal, as the Open Inference Protocol does.

        `{"name", "versions", "platform", "inputs", "outputs"}`; each input and output is
        `{"name", "datatype", "shape"}` with -1 where any size will do. Raises as `predict`.
        """
        return _described(self._client.metadata(self._called(model, model_version)))

    def models(self) -> list[ModelState]:
        """The models of the server that the caller may use, in all their versions. Raises as `predict`."""
        return _listed(self._client.models())

    def load(self, name: str) -> None:
        """Loads the model `name` of the server's repository, or what of it has changed.

        The server needs `--model-control explicit`, the caller the right to `manage`. The models are part of what the server
        proves: it is proved anew before the next call.

        Raises:
            AuthError: The caller may not.
            RequestError: There is no such model.
            ServerError: It does not load (`code` is `model-unusable`).
        """
        self._client.load(_options.name("name", name))

    def unload(self, name: str) -> None:
        """Unloads the model `name`, until it is loaded again; requests under way are still answered. Raises as `load`."""
        self._client.unload(_options.name("name", name))

    def close(self) -> None:
        """Drops keys and connections. Later calls raise `ValueError`; closing again does nothing."""
        self._client.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.close()


class AsyncClient(_Base):
    """`Client` with coroutines; same arguments and attributes. An asynchronous context manager.

    Calls wait in the event loop and in no thread of the application's, so any number may run at once, each with its own
    timeout. Cancelling a call gives up its request.
    """

    async def predict(
        self,
        data: Mapping[str, npt.ArrayLike] | npt.ArrayLike,
        outputs: Sequence[str] = (),
        *,
        model: str | None = None,
        model_version: str | int | None = None,
    ) -> dict[str, Array]:
        """See `Client.predict`."""
        called, wanted = self._called(model, model_version), _options.names("outputs", outputs)
        types = None
        if _tensor.needs_types(data):
            types = self._types.get(called) or self._learned(called, await self._client.metadata_async(called))
        tensors = _tensor.tensors(data, types)
        try:
            results = await self._client.predict_async(tensors, wanted, called)
        except RequestError as error:
            # What was learned of the model may be of another one by now.
            self._types.pop(called, None)
            if error.code != INPUT_INVALID:
                raise
            types = self._learned(called, await self._client.metadata_async(called))
            _mended(error, _tensor.mending(data, types))
        return {tensor.name: _tensor.array(tensor.datatype, tensor.shape, tensor.data) for tensor in results}

    async def chat(
        self, messages: Messages, *, system: str | None = None, model: str | None = None, **parameters: Any
    ) -> ChatAnswer:
        """See `Client.chat`."""
        return _chat.answered(await self._client.chat_async(self._asked(messages, system, model, parameters)))

    def stream(
        self, messages: Messages, *, system: str | None = None, model: str | None = None, **parameters: Any
    ) -> AsyncChatStream:
        """See `Client.stream`: `async for token in client.stream(…)`. No coroutine: nothing is awaited before the first token."""
        return AsyncChatStream(self._client.stream(self._asked(messages, system, model, parameters)))

    async def attest(self) -> Attestation:
        """See `Client.attest`."""
        return _attested(await self._client.attest_async())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._client.ready_async()

    async def provision_model_key(
        self,
        key: str,
        *,
        model: str | None = None,
        model_version: str | int | None = None,
        owner_key: str | None = None,
    ) -> str | None:
        """See `Client.provision_model_key`."""
        called = self._called(model, model_version)
        return await self._client.provision_model_key_async(_options.secret("key", key), called, _options.text("owner_key", owner_key))

    async def metadata(self, model: str | None = None, model_version: str | int | None = None) -> dict[str, Any]:
        """See `Client.metadata`."""
        return _described(await self._client.metadata_async(self._called(model, model_version)))

    async def models(self) -> list[ModelState]:
        """See `Client.models`."""
        return _listed(await self._client.models_async())

    async def load(self, name: str) -> None:
        """See `Client.load`."""
        await self._client.load_async(_options.name("name", name))

    async def unload(self, name: str) -> None:
        """See `Client.unload`."""
        await self._client.unload_async(_options.name("name", name))

    async def close(self) -> None:
        """See `Client.close`."""
        self._client.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        await self.close()


def _mended(error: RequestError, line: str | None) -> NoReturn:
    """Raises the error, with the line of code that mends it if that is known."""
    if line is None:
        raise error
    message = f"{error}; to convert it: {line}"
    raise type(error)(message, error.status, error.code, error.retry_after) from error


def _attested(proof: _confonnx.Proof) -> Attestation:
    checks = [Check(check.name, check.expected, check.found, check.outcome) for check in proof.checks]
    return Attestation(proof.tee, json.loads(proof.claims), checks, proof.table)


def _listed(models: Sequence[_confonnx.State]) -> list[ModelState]:
    return [ModelState(model.name, model.version, model.state, model.reason) for model in models]


def _described(metadata: _confonnx.Metadata) -> dict[str, Any]:
    def described(tensors: Sequence[_confonnx.Described]) -> list[dict[str, Any]]:
        return [{"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape} for tensor in tensors]

    return {
        "name": metadata.name,
        "versions": metadata.versions,
        "platform": metadata.platform,
        "inputs": described(metadata.inputs),
        "outputs": described(metadata.outputs),
    }


def _short(digest: object) -> str:
    return f"{digest[:12]}…" if isinstance(digest, str) and len(digest) > 12 else str(digest or "unknown")
