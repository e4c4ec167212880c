"""The package against a real confonnx-server with the digits model."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import threading
import time
from pathlib import Path
from typing import Callable

import numpy as np
import pytest

import digits
from conftest import Server
from confonnx import main as cli
from confonnx.client import (
    AsyncClient,
    AttestationError,
    AuthError,
    Client,
    PolicyError,
    RequestError,
)
from confonnx.create_test_inputs import main as create_test_inputs
from confonnx.get_model_info import get_model_info
from confonnx.hash_model import hash_model

pytestmark = pytest.mark.e2e

SAMPLES = digits.HERE / "samples"


@pytest.fixture
def client(server: Server) -> Client:
    return Client(server.url, enclave_allow_debug=True, enclave_model_hash=hash_model(digits.MODEL))


def guess(client: Client, count: int = 20) -> list[int]:
    found: list[int] = client.predict({"image": digits.images()[:count]})["probabilities"].argmax(1).tolist()
    return found


def test_the_model_is_at_least_98_percent_right_on_held_out_digits(client: Client) -> None:
    outputs = client.predict({"image": digits.images()})
    assert list(outputs) == ["probabilities"]
    probabilities = outputs["probabilities"]
    assert probabilities.shape == (1000, 10)
    assert probabilities.dtype == np.float32
    assert probabilities.flags.writeable
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == digits.labels()).mean() >= 0.98


def test_the_batch_is_dynamic(client: Client) -> None:
    images = digits.images()[:7]
    together = client.predict({"image": images})["probabilities"]
    alone = np.concatenate([client.predict({"image": image[None]})["probabilities"] for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-6)
    assert client.predict({"image": images[:0]})["probabilities"].shape == (0, 10)


def test_counters_after_the_first_exchange(client: Client) -> None:
    guess(client)
    assert (client.key_rollover_count, client.key_invalid_count, client.key_outdated) == (0, 0, False)
    guess(client)
    assert (client.key_rollover_count, client.key_invalid_count, client.key_outdated) == (0, 0, False)


@pytest.mark.parametrize("kem", ["x-wing", "x25519", "p-256"])
@pytest.mark.parametrize("aead", ["aes-256-gcm", "aes-128-gcm", "chacha20-poly1305"])
def test_every_suite(server: Server, kem: str, aead: str) -> None:
    client = Client(server.url, enclave_allow_debug=True, kem=kem, aead=aead)
    assert guess(client) == digits.labels()[:20].tolist()


def test_the_proof_names_its_checks(client: Client, server: Server) -> None:
    attestation = client.attest()
    assert attestation.tee == "insecure"
    assert [model["sha256"] for model in attestation.claims["models"]] == [hash_model(digits.MODEL)]
    assert attestation.checks
    assert {check.outcome for check in attestation.checks} <= {"passed", "info", "notable"}
    assert "✓" in str(attestation)


def test_the_enclave_hash_of_the_insecure_tee_is_its_executable(server: Server) -> None:
    enclave_hash = hashlib.sha256(server.executable.read_bytes()).hexdigest()
    client = Client(server.url, enclave_hash=enclave_hash, enclave_allow_debug=True)
    assert guess(client) == digits.labels()[:20].tolist()


@pytest.mark.parametrize(
    "expectation",
    [
        {"enclave_allow_debug": True, "enclave_model_hash": "00" * 32},
        {"enclave_allow_debug": True, "enclave_hash": "00" * 32},
        {"enclave_hash": "00" * 32},
    ],
    ids=str,
)
def test_a_wrong_expectation_is_refused_with_its_checks(server: Server, expectation: dict[str, object]) -> None:
    client = Client(server.url, **expectation)  # type: ignore[arg-type]
    with pytest.raises(AttestationError) as error:
        guess(client)
    failed = [check for check in error.value.checks if check.outcome == "failed"]
    assert failed
    assert all(check.expected != check.found for check in failed)
    # Of the insecure TEE nobody says that it is genuine.
    assert "genuine" not in str(error.value) and "proves nothing" in str(error.value)


def test_the_insecure_tee_is_refused_unless_allowed(server: Server) -> None:
    enclave_hash = hashlib.sha256(server.executable.read_bytes()).hexdigest()
    with pytest.raises(AttestationError, match="proves nothing.*insecure") as error:
        guess(Client(server.url, enclave_hash=enclave_hash))
    assert "genuine" not in str(error.value)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "image"),
        ({"picture": np.zeros((1, 1, 28, 28), np.float32)}, "image|picture"),
        ({"image": np.zeros((1, 1, 28, 28), np.float64)}, "FP64"),
        ({"image": np.zeros((1, 1, 28, 27), np.float32)}, "27"),
        ({"image": np.zeros((1, 28, 28), np.float32)}, "image"),
        ({"image": np.zeros((1, 1, 28, 28), np.float32), "more": np.zeros(1)}, "more"),
        ({"image": np.array(["a"], object)}, "BYTES"),
    ],
    ids=["none", "name", "type", "dimension", "rank", "extra", "strings"],
)
def test_wrong_inputs_are_explained_and_the_server_goes_on(
    client: Client, inputs: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as error:
        client.predict(inputs)
    assert error.value.status == 400
    assert error.value.code
    assert guess(client) == digits.labels()[:20].tolist()


def test_outputs_and_models_are_chosen_by_name(client: Client, server: Server) -> None:
    images = digits.images()[:1]
    assert list(client.predict({"image": images}, ["probabilities"], model="digits")) == ["probabilities"]
    with pytest.raises(RequestError):
        client.predict({"image": images}, ["logits"])
    # No model of that name has the pinned hash, so nothing is sent.
    with pytest.raises(AttestationError, match="letters"):
        client.predict({"image": images}, model="letters")
    with pytest.raises(RequestError) as error:
        Client(server.url, enclave_allow_debug=True).predict({"image": images}, model="letters")
    assert error.value.status == 404


def test_metadata_is_the_models(client: Client) -> None:
    metadata = client.metadata()
    info = get_model_info(digits.MODEL)
    assert [tensor["name"] for tensor in metadata["inputs"]] == list(info["inputs"])
    assert [tensor["name"] for tensor in metadata["outputs"]] == list(info["outputs"])


def test_threads_share_a_client(client: Client) -> None:
    results: list[list[int]] = []
    threads = [threading.Thread(target=lambda: results.append(guess(client))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [digits.labels()[:20].tolist()] * 8
    assert client.key_rollover_count == 0


def test_coroutines_share_an_async_client(server: Server) -> None:
    async def run() -> None:
        client = AsyncClient(server.url, enclave_allow_debug=True)
        answers = await asyncio.gather(*(client.predict({"image": digits.images()[:20]}) for _ in range(8)))
        assert all((answer["probabilities"].argmax(1) == digits.labels()[:20]).all() for answer in answers)
        assert (await client.attest()).tee == "insecure"
        assert (await client.metadata())["name"] == "digits"

    asyncio.run(run())


def test_a_rollover_costs_no_failed_request(start_server: Callable[..., Server]) -> None:
    server = start_server("--key-rollover-interval", "2")
    client = Client(server.url, enclave_allow_debug=True)
    guess(client)
    deadline = time.monotonic() + 30
    while client.key_rollover_count == 0 and time.monotonic() < deadline:
        guess(client, 1)
        time.sleep(0.1)
    assert client.key_rollover_count >= 1
    assert client.key_invalid_count == 0


def test_a_key_the_server_lost_is_replaced_by_one_retry(start_server: Callable[..., Server]) -> None:
    server = start_server()
    client = Client(server.url, enclave_allow_debug=True)
    guess(client)
    server.stop()
    start_server(port=int(server.url.rsplit(":", 1)[1]))
    assert guess(client) == digits.labels()[:20].tolist()
    assert client.key_invalid_count == 1


def test_the_url_may_be_reassigned(start_server: Callable[..., Server], server: Server) -> None:
    client = Client("http://127.0.0.1:9", enclave_allow_debug=True)
    client.url = server.url
    assert guess(client) == digits.labels()[:20].tolist()
    client.url = start_server().url
    assert guess(client) == digits.labels()[:20].tolist()
    assert client.key_invalid_count == 0


def test_the_auth_key_travels_inside_the_seal(start_server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("correct-horse\n")
    server = start_server("--auth-key-file", str(tmp_path / "key"))
    for credentials in ({"auth_key": "correct-horse"}, {"auth": {"key": "correct-horse"}}):
        client = Client(server.url, enclave_allow_debug=True, **credentials)  # type: ignore[arg-type]
        assert guess(client) == digits.labels()[:20].tolist()
    for credentials in ({}, {"auth_key": "wrong-horse"}, {"auth_key": "correct-horse", "auth_key_outside": True}):
        with pytest.raises(AuthError) as error:
            guess(Client(server.url, enclave_allow_debug=True, **credentials))  # type: ignore[arg-type]
        assert error.value.status == 401
        assert "horse" not in str(error.value)
    assert "horse" not in server.log.read_text()


def test_a_callable_gives_the_key_for_each_call(start_server: Callable[..., Server], tmp_path: Path) -> None:
    (tmp_path / "key").write_text("correct-horse\n")
    server = start_server("--auth-key-file", str(tmp_path / "key"))
    keys = iter(["correct-horse", "wrong-horse", "correct-horse"])
    client = Client(server.url, auth_key=lambda: next(keys), enclave_allow_debug=True)
    assert guess(client) == digits.labels()[:20].tolist()
    with pytest.raises(AuthError):
        guess(client)
    assert guess(client) == digits.labels()[:20].tolist()
    # An exception of the function reaches the caller; a result that is no key is a TypeError.
    with pytest.raises(StopIteration):
        guess(client)
    with pytest.raises(TypeError):
        guess(Client(server.url, auth_key=lambda: 7, enclave_allow_debug=True))  # type: ignore[arg-type,return-value]


def test_the_server_stops_cleanly(start_server: Callable[..., Server]) -> None:
    assert start_server().stop() == 0


# --- the commands ---


def test_main_reads_and_writes_tensor_protos(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_hash = tmp_path / "model-hash"
    model_hash.write_text(hash_model(digits.MODEL) + "\n")
    out = tmp_path / "new" / "out"
    flags = ["--url", server.url, "--enclave-allow-debug", "--enclave-model-hash-file", str(model_hash), "-v"]
    pb = ["--pb-in", str(SAMPLES / "digit_7.pb"), "--pb-in-names", "image", "--pb-out", str(out)]
    cli.main([*flags, *pb])
    printed = capsys.readouterr()
    assert " image: dtype=float32 shape=(1, 1, 28, 28)\n" in printed.err
    assert printed.out == ""
    # The command can read the file that it wrote.
    written = str(out / "output_0.pb")
    args = cli._parser().parse_args(["--pb-in", written, "--pb-in-names", "p"])
    assert cli._read_inputs(args)["p"].argmax() == 7


def test_main_reads_and_writes_json(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    cli.main(
        ["--url", server.url, "--enclave-allow-debug", "--json-in", str(SAMPLES / "digit_7.json"), "--json-out", str(out)]
    )
    written = json.loads(out.read_text())
    assert list(written) == ["probabilities"]
    assert written["probabilities"]["type"] == "float32"
    assert np.array(written["probabilities"]["values"]).shape == (1, 10)
    assert np.argmax(written["probabilities"]["values"]) == 7


def test_main_verifies(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["--mode", "verify", "--url", server.url, "--enclave-allow-debug"])
    printed = capsys.readouterr().out
    assert "✓" in printed and "Trusted" not in printed
    command = server.executable.with_name("confonnx")
    flags = ["verify", "--url", server.url, "--enclave-allow-debug"]
    said = subprocess.run([command, *flags], capture_output=True, text=True, timeout=60).stdout
    assert printed.splitlines()[-1] == said.splitlines()[-1]


def test_main_says_what_failed(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--url", server.url, "--enclave-allow-debug", "--enclave-model-hash", "00" * 32]
    argv += ["--json-in", str(SAMPLES / "digit_7.json")]
    with pytest.raises(SystemExit) as status:
        cli.main(argv)
    assert status.value.code == 4
    assert capsys.readouterr().err.startswith("ERROR: ")
    with pytest.raises(AttestationError):
        cli.main([*argv, "-v"])
    with pytest.raises(PolicyError):
        cli.main(["--url", server.url, "--json-in", str(SAMPLES / "digit_7.json"), "-v"])


def test_random_inputs_run(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inputs = tmp_path / "inputs.json"
    create_test_inputs(["--model", str(digits.MODEL), "--out", str(inputs)])
    capsys.readouterr()
    cli.main(["--url", server.url, "--enclave-allow-debug", "--json-in", str(inputs)])
    # Without a file to write to, the results alone are on stdout.
    assert list(json.loads(capsys.readouterr().out)) == ["probabilities"]


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        ([], 2),
        (["--enclave-hash", "xyz"], 2),
        (["--enclave-hash", "00" * 32], 4),
        (["--enclave-allow-debug", "--url", "http://127.0.0.1:1"], 5),
    ],
    ids=str,
)
def test_main_verifies_with_the_exit_codes_of_the_command(
    server: Server, flags: list[str], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        cli.main(["--mode", "verify", "--url", server.url, *flags])
    assert exited.value.code == status
    printed = capsys.readouterr()
    assert printed.err.startswith("ERROR: ")
    # A client whose policy refuses sees all checks, as the command shows them.
    assert ("✗ enclave hash" in printed.out) == (status == 4)
