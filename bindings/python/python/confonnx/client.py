"""Clients that check a server's proof before they send it anything.

    from confonnx.client import Client

    client = Client("https://models.example", enclave_hash="ab12…", enclave_model_hash="cd34…")
    outputs = client.predict({"image": image})
"""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Sequence

import numpy.typing as npt

from confonnx import _confonnx, _tensor
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
    "AsyncClient",
    "Attestation",
    "AttestationError",
    "AuthError",
    "Check",
    "Client",
    "ConfonnxError",
    "PolicyError",
    "ReplyError",
    "RequestError",
    "RequestTimeoutError",
    "ServerError",
    "TransportError",
]


@dataclass(frozen=True)
class Attestation:
    """What a server proved. `str()` of it is a table of the checks."""

    tee: str
    """Kind of the trusted execution environment; `insecure` proves nothing."""
    claims: dict[str, Any]
    """What the evidence binds: models and their hashes, keys, settings (docs/protocol.md, section 2.4)."""
    checks: list[Check]
    """Every check that was made."""
    table: str

    def __str__(self) -> str:
        return self.table


class Client:
    """A client of one server. Safe to use from several threads; no network until the first call.

    Args:
        url: Where the server, or the ingress before it, listens: `https://host`, `http://host:8888`.
        auth: Credentials: `{'key': …}` or `{'user': …, 'pass': …}`. The key travels inside the seal as a bearer token,
            for the server alone; user and password outside as HTTP Basic, for an ingress.
        auth_key: The same as `auth={'key': …}`; may be given beside `{'user': …, 'pass': …}`. For tokens that expire, a
            function without arguments that returns one: it is called for each request.
        enclave_signing_key: The expected signer's public key, PEM.
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
        sessions: Resume sessions: from the third call on, requests need no key encapsulation of their own. They can then be
            linked to each other, and a session's secret, as long as it lives, opens all of them (docs/protocol.md, 4.1).
        relay: URL of an Oblivious HTTP relay that takes the sealed requests, so that the server does not see whose they
            are; never with sessions. Proofs still come from the server itself.
        chunked: Seal requests chunk by chunk as they are sent, and open replies as they arrive, so that sealing, sending
            and opening of large tensors overlap; without sessions.

    Raises:
        PolicyError: No expectation was given, or one is malformed.
        ValueError: The URL or a choice is malformed.
    """

    def __init__(
        self,
        url: str,
        auth: Mapping[str, str] | None = None,
        auth_key: str | Callable[[], str] | None = None,
        enclave_signing_key: str | None = None,
        enclave_hash: str | None = None,
        enclave_model_hash: str | None = None,
        enclave_allow_debug: bool = False,
        *,
        policy: str | os.PathLike[str] | None = None,
        auth_key_outside: bool = False,
        model: str | None = None,
        model_version: str | None = None,
        kem: str | None = None,
        aead: str | None = None,
        timeout: float | None = None,
        sessions: bool = True,
        relay: str | None = None,
        chunked: bool = False,
    ) -> None:
        key, basic = _credentials(auth, auth_key)
        self._client = _confonnx.Client(
            url,
            auth_key=key,
            basic=basic,
            auth_key_outside=auth_key_outside,
            enclave_signing_key=enclave_signing_key,
            enclave_hash=enclave_hash,
            enclave_model_hash=enclave_model_hash,
            enclave_allow_debug=enclave_allow_debug,
            policy=None if policy is None else os.fspath(policy),
            kem=kem,
            aead=aead,
            timeout=timeout,
            sessions=sessions,
            relay=relay,
            chunked=chunked,
        )
        self._model, self._version = model, model_version

    def _called(self, model: str | None, version: str | None) -> tuple[str | None, str | None]:
        # The client's version is one of the client's model.
        return (model or self._model, version or (self._version if model in (None, self._model) else None))

    def predict(
        self,
        data: Mapping[str, npt.ArrayLike],
        outputs: Sequence[str] = (),
        *,
        model: str | None = None,
        model_version: str | None = None,
    ) -> dict[str, Array]:
        """Runs the model.

        Args:
            data: An array for each input of the model, in its data type and shape. Strings are object arrays of `str`;
                bfloat16 is that of the package `ml_dtypes`.
            outputs: The outputs wanted; all when empty.
            model: Name of the model, instead of the client's.
            model_version: Its version, instead of the client's.

        Returns:
            A writable array for each output, in the model's order.

        Raises:
            TypeError: An array's data type has no tensor type.
            AttestationError: The server did not prove what is expected; nothing was sent.
            RequestError: The server refused; see its subclasses `AuthError` and `ServerError`.
            TransportError: No usable answer came, or not in time (`RequestTimeoutError`).
            ReplyError: The answer does not open or is malformed.
        """
        name, version = self._called(model, model_version)
        results = self._client.predict(_tensor.tensors(data), list(outputs), name, version)
        return {name: _tensor.array(type_, shape, content) for name, type_, shape, content in results}

    def attest(self) -> Attestation:
        """The proof on which the current key rests; fetches and checks one first when there is none. Raises as `predict`."""
        tee, claims, checks, table = self._client.attest()
        return Attestation(tee, json.loads(claims), [Check(*check) for check in checks], table)

    def provision_model_key(
        self,
        key: str,
        *,
        model: str | None = None,
        model_version: str | None = None,
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
        return self._client.provision_model_key(key, *self._called(model, model_version), owner_key)

    def metadata(self, model: str | None = None, model_version: str | None = None) -> dict[str, Any]:
        """What the server says of the model, inside the seal, as the Open Inference Protocol does.

        `{"name", "versions", "platform", "inputs", "outputs"}`; each input and output is
        `{"name", "datatype", "shape"}` with -1 where any size will do. Raises as `predict`.
        """
        name, versions, platform, inputs, outputs = self._client.metadata(*self._called(model, model_version))

        def described(tensors: list[tuple[str, str, list[int]]]) -> list[dict[str, Any]]:
            return [{"name": name, "datatype": datatype, "shape": shape} for name, datatype, shape in tensors]

        return {
            "name": name,
            "versions": versions,
            "platform": platform,
            "inputs": described(inputs),
            "outputs": described(outputs),
        }

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


class AsyncClient:
    """`Client` with coroutines; same arguments and attributes.

    Each call waits in a thread of asyncio's own pool, so the event loop stays free. Cancelling a call stops the waiting; the
    request itself ends by its timeout.
    """

    def __init__(
        self,
        url: str,
        auth: Mapping[str, str] | None = None,
        auth_key: str | Callable[[], str] | None = None,
        enclave_signing_key: str | None = None,
        enclave_hash: str | None = None,
        enclave_model_hash: str | None = None,
        enclave_allow_debug: bool = False,
        *,
        policy: str | os.PathLike[str] | None = None,
        auth_key_outside: bool = False,
        model: str | None = None,
        model_version: str | None = None,
        kem: str | None = None,
        aead: str | None = None,
        timeout: float | None = None,
        sessions: bool = True,
        relay: str | None = None,
        chunked: bool = False,
    ) -> None:
        self._client = Client(
            url,
            auth,
            auth_key,
            enclave_signing_key,
            enclave_hash,
            enclave_model_hash,
            enclave_allow_debug,
            policy=policy,
            auth_key_outside=auth_key_outside,
            model=model,
            model_version=model_version,
            kem=kem,
            aead=aead,
            timeout=timeout,
            sessions=sessions,
            relay=relay,
            chunked=chunked,
        )

    async def predict(
        self,
        data: Mapping[str, npt.ArrayLike],
        outputs: Sequence[str] = (),
        *,
        model: str | None = None,
        model_version: str | None = None,
    ) -> dict[str, Array]:
        """See `Client.predict`."""
        return await asyncio.to_thread(
            self._client.predict, data, outputs, model=model, model_version=model_version
        )

    async def attest(self) -> Attestation:
        """See `Client.attest`."""
        return await asyncio.to_thread(self._client.attest)

    async def provision_model_key(
        self,
        key: str,
        *,
        model: str | None = None,
        model_version: str | None = None,
        owner_key: str | None = None,
    ) -> str | None:
        """See `Client.provision_model_key`."""
        return await asyncio.to_thread(
            self._client.provision_model_key, key, model=model, model_version=model_version, owner_key=owner_key
        )

    async def metadata(self, model: str | None = None, model_version: str | None = None) -> dict[str, Any]:
        """See `Client.metadata`."""
        return await asyncio.to_thread(self._client.metadata, model, model_version)

    @property
    def url(self) -> str:
        """See `Client.url`."""
        return self._client.url

    @url.setter
    def url(self, url: str) -> None:
        self._client.url = url

    @property
    def key_rollover_count(self) -> int:
        """See `Client.key_rollover_count`."""
        return self._client.key_rollover_count

    @property
    def key_invalid_count(self) -> int:
        """See `Client.key_invalid_count`."""
        return self._client.key_invalid_count

    @property
    def key_outdated(self) -> bool:
        """See `Client.key_outdated`."""
        return self._client.key_outdated


def _credentials(
    auth: Mapping[str, str] | None, auth_key: str | Callable[[], str] | None
) -> tuple[str | Callable[[], str] | None, tuple[str, str] | None]:
    basic = None
    match dict(auth or {}):
        case {"key": key, **rest} if not rest:
            if auth_key is not None:
                raise ValueError("both auth['key'] and auth_key are given: expected one of them")
            auth_key = key
        case {"user": user, "pass": password, **rest} if not rest:
            basic = (user, password)
        case {**given} if given:
            raise ValueError(f"auth has {sorted(given)}: expected {{'key': …}} or {{'user': …, 'pass': …}}")
    return auth_key, basic
