"""A model that its owner encrypts, hands to a host, and unlocks in a server it has verified."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path
from typing import Callable

import digits
import pytest
from conftest import Server, server_executable

from confonnx import main as cli
from confonnx.client import AttestationError, Client, RequestError, ServerError
from confonnx.encrypt_model import EncryptedModel, encrypt_model, generate_key
from confonnx.encrypt_model import main as encrypt_main
from confonnx.hash_model import hash_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def key() -> str:
    return generate_key()


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    return tmp_path / "digits.onnx.age"


@pytest.fixture
def encrypted(stored: Path, key: str) -> EncryptedModel:
    return encrypt_model(digits.MODEL, stored, key=key)


def right(client: Client) -> bool:
    found: list[int] = client.predict({"image": digits.images()[:20]})["probabilities"].argmax(1).tolist()
    return found == digits.labels()[:20].tolist()


def test_the_owner_unlocks_and_users_pin_either_hash(
    start_server: Callable[..., Server], stored: Path, encrypted: EncryptedModel, key: str
) -> None:
    server = start_server("--use-model-key-provisioning", model=stored)
    assert "locked" in server.log.read_text()
    owner = Client(server.url, enclave_allow_debug=True, enclave_model_hash=encrypted.ciphertext_hash)
    with pytest.raises(ServerError, match="locked"):
        right(owner)
    user = Client(server.url, enclave_allow_debug=True, enclave_model_hash=hash_model(digits.MODEL))
    with pytest.raises(AttestationError, match="waiting for its key"):
        right(user)

    with pytest.raises(RequestError, match="not encrypted to this key"):
        owner.provision_model_key(generate_key())
    with pytest.raises(ValueError, match="AGE-SECRET-KEY-1"):
        owner.provision_model_key("a password")
    assert owner.provision_model_key(key) == hash_model(digits.MODEL) == encrypted.model_hash
    with pytest.raises(RequestError, match="not locked"):
        owner.provision_model_key(key)

    assert right(owner) and right(user)
    model = user.attest().claims["models"][0]
    assert (model["sha256"], model["ciphertext_sha256"]) == (encrypted.model_hash, encrypted.ciphertext_hash)
    for secret in (key, key[16:40]):
        assert secret not in server.log.read_text()


def test_by_the_modules(
    start_server: Callable[..., Server], tmp_path: Path, stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key_file = tmp_path / "key"
    encrypt_main([str(digits.MODEL), "--key", str(key_file), "--out", str(stored)])
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    out = capsys.readouterr().out
    assert hash_model(digits.MODEL) in out and "AGE-SECRET" not in out
    server = start_server("--use-model-key-provisioning", model=stored)
    expected = ["--enclave-allow-debug", "--enclave-model-hash", hash_model_of(out)]
    cli.main(["--mode", "provision-model-key", "--url", server.url, "--model-key-file", str(key_file), *expected])
    assert f"model hash {hash_model(digits.MODEL)}" in capsys.readouterr().out
    assert right(Client(server.url, enclave_allow_debug=True, enclave_model_hash=hash_model(digits.MODEL)))


def test_by_the_command(start_server: Callable[..., Server], tmp_path: Path, stored: Path) -> None:
    key_file = tmp_path / "key"

    def confonnx(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        executable = server_executable().with_name("confonnx")
        return subprocess.run([executable, *map(str, arguments)], capture_output=True, text=True, timeout=60)

    made = confonnx("encrypt-model", digits.MODEL, "--key", key_file, "--out", stored)
    assert made.returncode == 0 and "new: keep it" in made.stdout, made.stderr
    again = confonnx("encrypt-model", stored, "--key", key_file, "--out", tmp_path / "twice")
    assert again.returncode == 1 and "encrypted already" in again.stderr and not (tmp_path / "twice").exists()
    assert "AGE-SECRET" not in made.stdout + made.stderr
    server = start_server("--use-model-key-provisioning", model=stored)
    expected = ["--enclave-allow-debug", "--enclave-model-hash", hash_model_of(made.stdout)]
    other = confonnx("provision", "--url", server.url, "--model-key-file", key_file, "--enclave-allow-debug",
                     "--enclave-model-hash", "ab" * 32)  # fmt: skip
    assert other.returncode == 4 and "model hash" in other.stderr, other.stderr
    done = confonnx("provision", "--url", server.url, "--model-key-file", key_file, *expected)
    assert done.returncode == 0 and "Unlocked" in done.stdout, done.stderr


def test_an_owner_has_to_sign(
    start_server: Callable[..., Server], tmp_path: Path, stored: Path, encrypted: EncryptedModel, key: str
) -> None:
    private, public = tmp_path / "owner", tmp_path / "owner.pub"
    curve = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    subprocess.run(["openssl", "genpkey", *curve, "-out", private], check=True, capture_output=True)
    subprocess.run(["openssl", "pkey", "-pubout", "-in", private, "-out", public], check=True, capture_output=True)
    server = start_server("--use-model-key-provisioning", "--model-owner-key-file", str(public), model=stored)
    client = Client(server.url, enclave_allow_debug=True, enclave_model_hash=encrypted.ciphertext_hash)
    with pytest.raises(RequestError, match="owner did not sign"):
        client.provision_model_key(key)
    with pytest.raises(ValueError, match="owner_key: expected a PEM file"):
        client.provision_model_key(key, owner_key="")
    assert client.provision_model_key(key, owner_key=private.read_text()) == encrypted.model_hash
    assert right(client)


def test_a_server_says_what_to_do_with_an_encrypted_model(stored: Path, encrypted: EncryptedModel) -> None:
    for flags, model, said in (
        ([], stored, "--use-model-key-provisioning"),
        (["--use-model-key-provisioning"], digits.MODEL, "not encrypted"),
    ):
        done = subprocess.run(
            [server_executable(), "--model-path", str(model), "--http-port", "0", "--debug", *flags],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=digits.HERE.parents[1],
        )
        assert done.returncode != 0 and said in done.stderr, done.stderr


def test_one_key_is_expected(stored: Path) -> None:
    with pytest.raises(ValueError, match="one of key and key_path"):
        encrypt_model(digits.MODEL, stored)
    with pytest.raises(ValueError, match="AGE-SECRET-KEY-1"):
        encrypt_model(digits.MODEL, stored, key="a password")
    with pytest.raises(FileNotFoundError):
        encrypt_model(stored, stored, key=generate_key())
    assert not list(stored.parent.glob("*.partial"))


def hash_model_of(printed: str) -> str:
    """The hash of the encrypted file, as `encrypt-model` prints it."""
    return next(line.split()[-1] for line in printed.splitlines() if line.startswith("hash when locked"))
