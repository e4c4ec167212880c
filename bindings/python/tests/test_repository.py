"""Several models behind one server, and what a client notices when they change."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Callable

import digits
import numpy as np
import pytest
from conftest import ROOT, Server

from confonnx import main as cli
from confonnx.client import AttestationError, Client, RequestError
from confonnx.hash_model import hash_model

pytestmark = pytest.mark.e2e

OTHER = ROOT / "crates/confonnx-engine/tests/data/mlp.onnx"
PATIENCE_SECONDS = 60


def put(repository: Path, name: str, version: int, model: Path) -> None:
    """Puts a model there as a whole: written elsewhere, then moved."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(model, folder / ".partial")
    os.replace(folder / ".partial", folder / "model.onnx")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    put(tmp_path, "digits", 1, digits.MODEL)
    put(tmp_path, "other", 1, OTHER)
    return tmp_path


def right(client: Client) -> bool:
    found: list[int] = client.predict({"image": digits.images()[:20]})["probabilities"].argmax(1).tolist()
    return found == digits.labels()[:20].tolist()


def test_what_is_not_served_is_logged_with_the_reason(start_server: Callable[..., Server], repository: Path) -> None:
    put(repository, "we ird", 1, digits.MODEL)
    (repository / "read.me").write_text("")
    for folder in ("empty", "hollow/1", "digits/v0", "digits/01"):
        (repository / folder).mkdir(parents=True)
    server = start_server(model=repository)
    assert right(Client(server.url, enclave_allow_debug=True, model="digits"))
    log = server.log.read_text()
    for said in (
        "we ird in",
        "read.me in",
        "digits/v0 in",
        "digits/01 in",
        f"model empty in {repository}: there is no version to serve",
        "found neither",
    ):
        assert log.count(said) == 1, (said, log)


def test_each_model_has_its_own_hash(start_server: Callable[..., Server], repository: Path) -> None:
    server = start_server(model=repository)
    own, other = hash_model(digits.MODEL), hash_model(OTHER)

    def client(model_hash: str | None, model: str | None = "digits", version: str | None = None) -> Client:
        return Client(
            server.url,
            enclave_allow_debug=True,
            enclave_model_hash=model_hash,
            model=model,
            model_version=version,
        )

    assert right(client(own)) and right(client(f"digits={own}")) and right(client(own, version="1"))
    with pytest.raises(AttestationError, match="does not prove the expected model"):
        right(client(other))
    with pytest.raises(AttestationError, match="model digits version 2, found none"):
        right(client(own, version="2"))
    with pytest.raises(ValueError, match="the server has digits, other"):
        right(client(None, model=None))
    with pytest.raises(RequestError, match="no model"):
        right(client(None, version="2"))
    row = client(other, model="other").predict({"x": np.ones((1, 4), np.float32)})
    assert row["y"].shape == (1, 3)
    assert client(None).metadata("other")["versions"] == ["1"]
    models = client(own).attest().claims["models"]
    assert [(model["name"], model["sha256"]) for model in models] == [("digits", own), ("other", other)]


def test_a_pinned_client_refuses_a_model_that_was_exchanged(
    start_server: Callable[..., Server], repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server("--model-control", "poll", "--repository-poll-interval", "1", model=repository)
    pinned = Client(server.url, enclave_allow_debug=True, enclave_model_hash=hash_model(digits.MODEL), model="digits")
    follower = Client(server.url, enclave_allow_debug=True, model="digits")
    assert right(pinned) and follower.metadata()["inputs"][0]["name"] == "image"
    put(repository, "digits", 2, OTHER)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while follower.metadata()["versions"] != ["2"]:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)
    # The client's key died with the set of models, so it attested again, and refuses what it sees.
    with pytest.raises(AttestationError, match="model"):
        right(pinned)
    assert follower.predict({"x": np.ones((1, 4), np.float32)})["y"].shape == (1, 3)
    # The server has both versions, and the client goes on with its own.
    (repository / "digits/config.pbtxt").write_text("version_policy { all {} }")
    while len(follower.metadata()["versions"]) != 2:
        assert time.monotonic() < deadline, server.log.read_text()
        time.sleep(0.1)
    assert right(pinned)

    arguments = ["--url", server.url, "--enclave-allow-debug", "--enclave-model-hash", hash_model(OTHER)]
    arguments += ["--model-name", "digits", "--json-in", str(repository / "in.json")]
    (repository / "in.json").write_text('{"x": {"type": "float32", "values": [[1, 2, 3, 4]]}}')
    cli.main([*arguments, "--model-version", "2", "--json-out", str(repository / "out.json")])
    assert '"y"' in (repository / "out.json").read_text()
    with pytest.raises(SystemExit):
        cli.main([*arguments, "--model-version", "1"])
    assert "does not prove the expected model" in capsys.readouterr().err
