"""A client's arguments, checked one by one."""

from __future__ import annotations

import difflib
import inspect
import os
from dataclasses import dataclass, field
from typing import Any, Callable, Mapping, Sequence

AuthKey = str | Callable[[], str]
Progress = Callable[[bool, int, int | None], object]
Hashes = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Called:
    """A model by its name and version, as far as they are given."""

    name: str | None
    version: str | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of a client but its URL, as `Client.__init__` describes them. Secrets are not in its `repr`."""

    auth_key: AuthKey | None = field(default=None, repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)
    auth_key_outside: bool = False
    enclave_signing_keys: list[str] = field(default_factory=list)
    enclave_hashes: list[str] = field(default_factory=list)
    enclave_model_hashes: list[str] = field(default_factory=list)
    enclave_allow_debug: bool = False
    policy: str | None = None
    kem: str | None = None
    aead: str | None = None
    timeout: float | None = None
    sessions: bool = True
    relay: str | None = None
    chunked: bool = False
    retries: int = 2
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)
    progress: Progress | None = None


def refuse_unknown(client: type, unknown: Mapping[str, object]) -> None:
    """Raises the `TypeError` of an unknown argument, with the known one that is likely to be meant."""
    name = next(iter(unknown))
    there = [known for known in inspect.signature(client).parameters if known != "unknown"]
    alike = difflib.get_close_matches(name, there, n=1)
    hint = f"; did you mean {alike[0]!r}?" if alike else f"; there are {', '.join(there)}"
    raise TypeError(f"{client.__name__}() got an unexpected keyword argument {name!r}{hint}")


def options(
    *,
    auth: Mapping[str, str] | None,
    auth_key: AuthKey | None,
    enclave_signing_key: str | Sequence[str] | None,
    enclave_hash: Hashes | None,
    enclave_model_hash: str | Sequence[str] | None,
    policy: str | os.PathLike[str] | None,
    retries: int,
    ca_file: str | os.PathLike[str] | None,
    **rest: Any,
) -> Options:
    """The options of these arguments; raises `TypeError` or `ValueError` that names the argument that is wrong."""
    key, basic = _credentials(auth, auth_key)
    for name in ("auth_key_outside", "enclave_allow_debug", "sessions", "chunked"):
        if not isinstance(rest[name], bool):
            raise TypeError(f"{name}: expected True or False, found {type(rest[name]).__name__}")
    for name in ("kem", "aead", "relay", "proxy"):
        text(name, rest[name])
    if rest["progress"] is not None and not callable(rest["progress"]):
        raise TypeError(f"progress: expected a function, found {type(rest['progress']).__name__}")
    timeout = rest["timeout"]
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, (int, float))):
        raise TypeError(f"timeout: expected seconds, found {type(timeout).__name__}")
    return Options(
        auth_key=key,
        basic=basic,
        enclave_signing_keys=_several("enclave_signing_key", enclave_signing_key),
        enclave_hashes=_several("enclave_hash", enclave_hash, paths=True),
        enclave_model_hashes=_several("enclave_model_hash", enclave_model_hash),
        policy=_path("policy", policy),
        retries=_count("retries", retries),
        ca_file=_path("ca_file", ca_file),
        **rest,
    )


def text(name: str, value: object) -> str | None:
    """`value`, if it is a `str` or `None`."""
    if value is None or isinstance(value, str):
        return value
    raise TypeError(f"{name}: expected str, found {type(value).__name__}")


def name(argument: str, value: object) -> str:
    """`value`, if it is a `str` that is not empty."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected str, found {type(value).__name__}")
    if not value:
        raise ValueError(f"{argument}: expected a model's name, found an empty string")
    return value


def secret(argument: str, value: object) -> str:
    """`value`, if it is a `str`; the error never quotes it."""
    if not isinstance(value, str):
        raise TypeError(f"{argument}: expected str, found {type(value).__name__}")
    return value


def version(name: str, value: object) -> str | None:
    """A model's version as text, from text or a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(name, value)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}: expected a whole number, found {type(value).__name__}")
    if not 0 <= value < 2**32:
        raise ValueError(f"{name}: expected 0 or more, below 2**32, found {value}")
    return value


def names(name: str, value: object) -> list[str]:
    """A list of names; a single `str` is refused, since it would be a list of letters."""
    if isinstance(value, str):
        raise TypeError(f"{name}: expected a list of names, found the str {value!r}: write {name}=[{value!r}]")
    try:
        found: list[str] = list(value)  # type: ignore[call-overload]
    except TypeError:
        raise TypeError(f"{name}: expected a list of names, found {type(value).__name__}") from None
    for each in found:
        if not isinstance(each, str):
            raise TypeError(f"{name}: expected names as str, found {type(each).__name__}")
    return found


def _path(name: str, value: object) -> str | None:
    return text(name, os.fspath(value) if isinstance(value, os.PathLike) else value)


def _several(name: str, value: object, paths: bool = False) -> list[str]:
    if value is None:
        return []
    if isinstance(value, (str, os.PathLike)):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, (bytes, bytearray)):
        raise TypeError(f"{name}: expected str or a list of them, found {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: expected at least one, found an empty list")
    found = []
    for each in value:
        path = os.fspath(each) if paths and isinstance(each, os.PathLike) else each
        if not isinstance(path, str):
            raise TypeError(f"{name}: expected str, found {type(each).__name__}")
        found.append(path)
    return found


def _credentials(
    auth: Mapping[str, str] | None, auth_key: AuthKey | None
) -> tuple[AuthKey | None, tuple[str, str] | None]:
    """The credentials of `auth` and `auth_key`; errors never quote them."""
    basic = None
    if auth is not None and not isinstance(auth, Mapping):
        raise TypeError(f"auth: expected a dict, found {type(auth).__name__}")
    match dict(auth or {}):
        case {"key": key, **rest} if not rest:
            if auth_key is not None:
                raise ValueError("both auth['key'] and auth_key are given: expected one of them")
            auth_key = key
        case {"user": user, "pass": password, **rest} if not rest:
            basic = (_visible("auth['user']", user, spaces=True), _visible("auth['pass']", password, spaces=True))
            if ":" in user:
                raise ValueError("auth['user']: HTTP Basic allows no colon in it")
        case {**given} if given:
            raise ValueError(f"auth has {sorted(given)}: expected {{'key': …}} or {{'user': …, 'pass': …}}")
    if auth_key is not None and not callable(auth_key):
        _visible("auth_key", auth_key)
    return auth_key, basic


def _visible(name: str, value: object, spaces: bool = False) -> str:
    if not isinstance(value, str):
        expected = "str" if spaces else "str or a function that returns one"
        raise TypeError(f"{name}: expected {expected}, found {type(value).__name__}")
    if not value:
        raise ValueError(f"{name}: expected a value, found an empty string")
    if spaces and value.isprintable():
        return value
    if not all("!" <= letter <= "~" for letter in value):
        hint = "; it ends with a line break: use .strip()" if value.endswith(("\n", "\r")) else ""
        raise ValueError(f"{name}: expected visible ASCII characters without spaces, found others{hint}")
    return value
