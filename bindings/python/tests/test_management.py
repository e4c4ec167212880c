"""A server's models are listed, loaded and unloaded; the `repr` of a client says what was verified."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import ROOT, Server

from confonnx import AsyncClient, AuthError, Client, ModelState, RequestError, ServerError

DATA = ROOT / "crates/confonnx-engine/tests/data"
OPERATOR, USER = "operator-of-the-test", "user-of-the-test"
ROW = {"x": np.ones((1, 4), np.float32)}


def put(repository: Path, name: str, model: Path) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "1/model.onnx").write_bytes(model.read_bytes())


@pytest.fixture
def managed(start_server: Callable[..., Server], tmp_path: Path) -> tuple[Server, Path]:
    """A server whose models the operator may change, and their folder."""

    def caller(name: str, token: str, rights: str) -> str:
        return f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n{rights}\n'

    repository = tmp_path / "models"
    put(repository, "mlp", DATA / "mlp.onnx")
    put(repository, "two", DATA / "two.onnx")
    auth = tmp_path / "auth.toml"
    auth.write_text(
        caller("operator", OPERATOR, 'may = ["infer", "manage"]') + caller("user", USER, 'models = ["two"]')
    )
    return start_server("--model-control", "explicit", "--auth-file", str(auth), model=repository), repository


def ready(*names: str) -> list[ModelState]:
    return [ModelState(name, "1", "READY", "") for name in names]


@pytest.mark.e2e
def test_models_are_listed_loaded_and_unloaded(managed: tuple[Server, Path]) -> None:
    server, repository = managed
    with Client(server.url, auth_key=OPERATOR, enclave_allow_debug=True, model="mlp") as client:
        assert client.models() == ready("mlp", "two") and all(model.ready for model in client.models())
        before = client.predict(ROW)["y"]
        client.unload("mlp")
        unloaded = ModelState("mlp", "1", "UNAVAILABLE", "unloaded")
        assert client.models() == [unloaded, *ready("two")] and not unloaded.ready
        with pytest.raises(ServerError) as error:
            client.predict(ROW)
        assert error.value.code == "model-unavailable"
        client.load("mlp")
        put(repository, "new", DATA / "scalar.onnx")
        client.load("new")
        assert client.models() == ready("mlp", "new", "two")
        np.testing.assert_array_equal(client.predict(ROW)["y"], before)
        with pytest.raises(RequestError) as error:
            client.load("absent/..")
        assert (error.value.status, error.value.code) == (404, "model-not-found")
        put(repository, "broken", Path(__file__))
        with pytest.raises(ServerError) as error:
            client.load("broken")
        assert error.value.code == "model-unusable"


@pytest.mark.e2e
def test_who_may_not_is_told_and_sees_no_other_model(managed: tuple[Server, Path]) -> None:
    with Client(managed[0].url, auth_key=USER, enclave_allow_debug=True) as client:
        assert client.models() == ready("two")
        for change in (client.load, client.unload):
            with pytest.raises(AuthError) as error:
                change("two")
            assert error.value.status == 403
        assert client.models() == ready("two")


@pytest.mark.e2e
def test_who_asks_too_often_is_told_when_to_ask_again(start_server: Callable[..., Server], tmp_path: Path) -> None:
    auth = tmp_path / "auth.toml"
    digest = hashlib.sha256(USER.encode()).hexdigest()
    auth.write_text(f'[[caller]]\nname = "user"\ntoken_sha256 = "{digest}"\nmodels = ["*"]\nrequests_per_minute = 1\n')
    server = start_server("--auth-file", str(auth), model=DATA / "mlp.onnx")
    with Client(server.url, auth_key=USER, enclave_allow_debug=True, retries=0) as client:
        with pytest.raises(RequestError) as error:
            for _ in range(3):
                client.predict(ROW)
    assert error.value.status == 429 and error.value.retry_after is not None
    assert 0 < error.value.retry_after <= 60


@pytest.mark.e2e
def test_the_asynchronous_client_manages_too(managed: tuple[Server, Path]) -> None:
    async def run() -> None:
        async with AsyncClient(managed[0].url, auth_key=OPERATOR, enclave_allow_debug=True) as client:
            assert await client.models() == ready("mlp", "two")
            await client.unload("two")
            assert [model.ready for model in await client.models()] == [True, False]
            await client.load("two")
            assert await client.models() == ready("mlp", "two")

    asyncio.run(run())


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [(None, TypeError, "name: expected str, found NoneType"), ("", ValueError, "name: expected a model's name")],
)
def test_a_wrong_name_is_not_sent(silent_server: str, wrong: str, kind: type[Exception], message: str) -> None:
    client = Client(silent_server, enclave_allow_debug=True)
    for change in (client.load, client.unload):
        with pytest.raises(kind, match=message):
            change(wrong)


@pytest.mark.e2e
def test_the_repr_says_what_the_current_key_rests_on(managed: tuple[Server, Path]) -> None:
    client = Client(managed[0].url, auth_key=OPERATOR, enclave_allow_debug=True)
    assert "nothing verified yet" in repr(client)
    client.models()
    # Any call verifies the server, so `attest` is not needed.
    assert "proves nothing" in repr(client) and "mlp" in repr(client)
    assert "<table" in client._repr_html_()
    client.unload("mlp")
    assert "nothing verified yet" in repr(client)
    client.models()
    assert "two" in repr(client) and "mlp" not in repr(client)
    client.close()
    assert repr(client) == "<Client: closed>" and client._repr_html_()


@pytest.mark.e2e
def test_a_request_over_the_limit_is_not_sent(start_server: Callable[..., Server]) -> None:
    server = start_server("--max-request-bytes", "100000", model=DATA / "mean.onnx")
    with Client(server.url, enclave_allow_debug=True) as client:
        assert client.predict({"x": np.ones(1000, np.float32)})["y"] == [1.0]
        with pytest.raises(RequestError, match="the server takes 100000: send fewer or smaller") as error:
            client.predict({"x": np.ones(100_000, np.float32)})
        assert (error.value.status, error.value.code) == (413, "request-too-large")


def test_a_file_of_certificates_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ca_file: .*nowhere.pem"):
        Client("https://127.0.0.1:1", enclave_allow_debug=True, ca_file=tmp_path / "nowhere.pem")
