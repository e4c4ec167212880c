"""What can go wrong. Every class derives from `ConfonnxError`; no message carries tensor values, keys or tokens."""

from __future__ import annotations

from typing import NamedTuple

from confonnx import _html


class Check(NamedTuple):
    """One check of an attestation."""

    name: str
    """What was checked, such as `enclave hash`."""
    expected: str
    """What would pass."""
    found: str
    """What the server's document or its evidence says."""
    outcome: str
    """`passed`, `failed`, `undecided` when what it takes to decide is absent, `info` when nothing was expected, or `notable`
    when nothing was expected of a setting that is not as it is by default."""


class ConfonnxError(Exception):
    """Base of all errors of this package."""


class PolicyError(ConfonnxError, ValueError):
    """What the caller expects of the enclave is missing or malformed. Nothing was sent."""


class AttestationError(ConfonnxError):
    """The server did not prove what the caller expects. No request was sent."""

    def __init__(
        self, message: str, checks: list[Check] | None = None, genuine: bool = False, table: str = ""
    ) -> None:
        super().__init__(message)
        self.checks: list[Check] = [Check(*check) for check in checks or []]
        """Every check that was made; empty when the document could not be read at all."""
        self.genuine = genuine
        """Whether the evidence itself passed: then it is the caller's policy that refused."""
        self.table = table
        """The checks as a table, for people."""

    def __reduce__(self) -> tuple[type[AttestationError], tuple[str, list[Check], bool, str]]:
        return type(self), (str(self), self.checks, self.genuine, self.table)

    def _repr_html_(self) -> str:
        return _html.checks(self.checks)

    @property
    def undecided(self) -> bool:
        """Whether no check failed, but some could not be made for want of recent certificates or revocation lists."""
        outcomes = {check.outcome for check in self.checks}
        return "undecided" in outcomes and "failed" not in outcomes


class RequestError(ConfonnxError):
    """The server refused the request."""

    def __init__(
        self, message: str, status: int, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.code = code
        """The server's code for it, such as `queue-full`, if it named one."""
        self.retry_after = retry_after
        """After how many seconds to try again, if the server said so."""

    def __reduce__(self) -> tuple[type[RequestError], tuple[str, int, str | None, float | None]]:
        return type(self), (str(self), self.status, self.code, self.retry_after)


class AuthError(RequestError):
    """The server asks for other credentials (status 401 or 403)."""


class ServerError(RequestError):
    """The fault is the server's or its load (status 429 or 500 and above): trying later may help."""


class TransportError(ConfonnxError, ConnectionError):
    """No usable answer came: the server could not be reached, or the connection broke."""


class RequestTimeoutError(TransportError, TimeoutError):
    """No answer in time."""


class ReplyError(ConfonnxError):
    """The answer is not one this client's request can be opened with. It was thrown away."""
