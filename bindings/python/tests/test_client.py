"""What a client decides without a server."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from conftest import free_port
from confonnx.client import (
    AsyncClient,
    AttestationError,
    Check,
    Client,
    ConfonnxError,
    PolicyError,
    RequestTimeoutError,
    ServerError,
    TransportError,
)

INPUTS = {"image": np.zeros((1, 1, 28, 28), np.float32)}


def test_making_a_client_needs_no_network() -> None:
    client = Client("http://127.0.0.1:1/", enclave_hash="ab" * 32)
    assert (client.key_rollover_count, client.key_invalid_count, client.key_outdated) == (0, 0, False)


def test_no_expectation_is_an_error() -> None:
    with pytest.raises(PolicyError, match="expect"):
        Client("http://127.0.0.1:1/")


def test_a_model_hash_alone_is_no_expectation_of_the_enclave() -> None:
    with pytest.raises(PolicyError):
        Client("http://127.0.0.1:1/", enclave_model_hash="ab" * 32)


@pytest.mark.parametrize(
    "expectation",
    [
        {"enclave_hash": "xyz"},
        {"enclave_hash": ""},
        {"enclave_allow_debug": True, "enclave_model_hash": "abc"},
        {"enclave_allow_debug": True, "enclave_model_hash": ""},
        {"enclave_signing_key": "no PEM"},
    ],
    ids=str,
)
def test_a_malformed_expectation_is_an_error(expectation: dict[str, object]) -> None:
    with pytest.raises(PolicyError):
        Client("http://127.0.0.1:1/", **expectation)  # type: ignore[arg-type]


def test_a_policy_file_is_an_expectation_that_others_narrow(tmp_path: Path) -> None:
    (tmp_path / "enclave_info.json").write_text(json.dumps({"mrenclave": "ab" * 32}))
    policy = tmp_path / "policy.toml"
    policy.write_text('preset = "cloud"\nenclave_info_files = ["enclave_info.json"]\n')
    Client("http://127.0.0.1:1/", policy=policy)
    Client("http://127.0.0.1:1/", policy=str(policy), enclave_hash="ab" * 32)
    Client("http://127.0.0.1:1/", enclave_hash=str(tmp_path / "enclave_info.json"))
    Client("http://127.0.0.1:1/", policy="cloud", enclave_hash="ab" * 32)
    with pytest.raises(PolicyError, match="nothing can be both"):
        Client("http://127.0.0.1:1/", policy=policy, enclave_hash="cd" * 32)
    with pytest.raises(PolicyError, match="nothing is expected"):
        Client("http://127.0.0.1:1/", policy="cloud")
    with pytest.raises(PolicyError, match="says itself whether debug is allowed"):
        Client("http://127.0.0.1:1/", policy=policy, enclave_allow_debug=True)


def test_a_malformed_policy_is_an_error_that_names_key_and_line(tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('preset = "cloud"\nenclave_hash = "ab"\n')
    with pytest.raises(PolicyError, match="(?s)policy.toml.*line 2.*unknown field `enclave_hash`"):
        Client("http://127.0.0.1:1/", policy=policy)
    with pytest.raises(PolicyError, match="expected `strict`, `cloud` or a policy file, found `lax`"):
        Client("http://127.0.0.1:1/", policy="lax")


def test_what_could_not_be_decided_is_told_apart() -> None:
    def error(*outcomes: str) -> AttestationError:
        return AttestationError("", [Check("revocation", "a list valid now", "none", outcome) for outcome in outcomes])

    assert error("passed", "undecided", "info").undecided
    assert not error("undecided", "failed").undecided
    assert not error().undecided


@pytest.mark.parametrize(
    ("auth", "auth_key"),
    [({"token": "x"}, None), ({"user": "x"}, None), ({"key": "x", "user": "y"}, None), ({"key": "x"}, "y")],
)
def test_credentials_are_one_of_two_forms(auth: dict[str, str], auth_key: str | None) -> None:
    with pytest.raises(ValueError, match="auth"):
        Client("http://127.0.0.1:1/", auth, auth_key, enclave_allow_debug=True)


def test_the_message_about_credentials_does_not_quote_them() -> None:
    with pytest.raises(ValueError) as error:
        Client("http://127.0.0.1:1/", {"key": "s3cret", "extra": "s3cret"}, enclave_allow_debug=True)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize("choice", [{"kem": "rsa"}, {"aead": "rot13"}, {"timeout": -1.0}, {"timeout": float("nan")}], ids=str)
def test_a_malformed_choice_is_a_value_error(choice: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        Client("http://127.0.0.1:1/", enclave_allow_debug=True, **choice)  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["", "ftp://host", "no url"])
def test_a_malformed_url_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError):
        Client(url, enclave_allow_debug=True)


def test_url_may_be_reassigned() -> None:
    client = Client("http://127.0.0.1:1/", enclave_allow_debug=True)
    client.url = "http://127.0.0.1:2/"
    assert client.url.rstrip("/") == "http://127.0.0.1:2"
    with pytest.raises(ValueError):
        client.url = "no url"


def test_an_unreachable_server_is_a_transport_error() -> None:
    client = Client(f"http://127.0.0.1:{free_port()}", enclave_allow_debug=True)
    with pytest.raises(TransportError):
        client.predict(INPUTS)


def test_a_silent_server_is_a_timeout_and_the_gil_is_free_meanwhile(silent_server: str) -> None:
    client = Client(silent_server, enclave_allow_debug=True, timeout=0.5)
    ran = threading.Event()
    thread = threading.Thread(target=ran.set)
    threading.Timer(0.05, thread.start).start()
    with pytest.raises(RequestTimeoutError):
        client.predict(INPUTS)
    assert ran.is_set()


def test_ctrl_c_ends_a_waiting_call(silent_server: str) -> None:
    code = """
import signal, sys, threading
from confonnx.client import Client
# Where the tests run in the background, SIGINT is ignored, and children inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
client = Client(sys.argv[1], enclave_allow_debug=True, timeout=50)
threading.Timer(0.2, signal.raise_signal, [signal.SIGINT]).start()
try:
    client.predict({})
except KeyboardInterrupt:
    print("interrupted")
"""
    run = subprocess.run([sys.executable, "-c", code, silent_server], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("interrupted\n", "")


def test_the_async_client_leaves_the_loop_free(silent_server: str) -> None:
    async def ticks() -> int:
        client = AsyncClient(silent_server, enclave_allow_debug=True, timeout=0.5)
        call = asyncio.create_task(client.predict(INPUTS))
        count = 0
        while not call.done():
            await asyncio.sleep(0.01)
            count += 1
        with pytest.raises(RequestTimeoutError):
            await call
        return count

    assert asyncio.run(ticks()) > 1


def test_both_clients_have_one_surface() -> None:
    def surface(cls: type) -> dict[str, object]:
        members = {name: member for name, member in vars(cls).items() if not name.startswith("_")}
        return {
            name: list(inspect.signature(member).parameters) if callable(member) else type(member)
            for name, member in {**members, "__init__": cls.__init__}.items()
        }

    assert surface(Client) == surface(AsyncClient)


def test_errors_survive_pickling() -> None:
    # Process pools send exceptions home by pickle.
    refused = pickle.loads(pickle.dumps(ServerError("busy", 429, "queue-full")))
    assert (type(refused), str(refused), refused.status, refused.code) == (ServerError, "busy", 429, "queue-full")
    error = AttestationError("refused", [("nonce", "a", "b", "failed")])  # type: ignore[list-item]
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, ConfonnxError)
    assert str(back) == "refused"
    assert back.checks == error.checks
    assert back.checks[0].outcome == "failed"
