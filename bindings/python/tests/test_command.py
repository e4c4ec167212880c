"""The `confonnx` command against a real server, as a shell would use it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Callable

import digits
import pytest
from conftest import ROOT, Server

from confonnx.hash_model import hash_model

pytestmark = pytest.mark.e2e

SAMPLE = Path(digits.__file__).parent / "samples" / "digit_7.pb"


@pytest.fixture
def confonnx(server: Server) -> Callable[..., subprocess.CompletedProcess[str]]:
    executable = server.executable.with_name("confonnx")
    if not executable.exists():
        pytest.fail(f"{executable} is not built: run `cargo build -p confonnx-cli`, or `make test-python`")

    def run(command: str, *flags: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(executable), command, *map(str, flags)], capture_output=True, text=True, timeout=60, check=False
        )

    return run


def test_verify_shows_every_check_and_trusts(server: Server, confonnx: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = confonnx("verify", "--url", server.url, "--enclave-allow-debug", "--enclave-model-hash", hash_model(digits.MODEL))
    assert done.returncode == 0, done.stderr
    for check in ("report data", "nonce", "tee", "debug", "model hash", "protocol"):
        assert f"✓ {check}" in done.stdout
    assert "proves nothing" in done.stdout


def test_verify_refuses_another_model_and_says_which(
    server: Server, confonnx: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = confonnx("verify", "--url", server.url, "--enclave-allow-debug", "--enclave-model-hash", "ab" * 32)
    assert done.returncode == 4
    assert "✗ model hash" in done.stdout
    assert "ab" * 32 in done.stdout and hash_model(digits.MODEL) in done.stdout


def test_verify_refuses_the_insecure_tee_unless_told(
    server: Server, confonnx: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert confonnx("verify", "--url", server.url).returncode == 2
    done = confonnx("verify", "--url", server.url, "--enclave-hash", "ab" * 32, "--json")
    assert done.returncode == 4
    failed = {check["name"] for check in json.loads(done.stdout)["checks"] if check["outcome"] == "failed"}
    assert {"tee", "debug", "enclave hash"} <= failed


def test_verify_cannot_decide_without_a_server(
    server: Server, silent_server: str, confonnx: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    del server
    done = confonnx("verify", "--url", silent_server.replace("http://127.0.0.1", "http://127.0.0.2"), "--enclave-allow-debug")
    assert done.returncode == 5, done.stderr


def test_predict_from_a_file_to_json_and_to_files(
    server: Server, confonnx: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    trust = ("--url", server.url, "--enclave-allow-debug")
    done = confonnx("predict", *trust, "--pb-in", SAMPLE, "--pb-in-names", "image")
    assert done.returncode == 0, done.stderr
    output = json.loads(done.stdout)["probabilities"]
    assert output["type"] == "float32"
    (row,) = output["values"]
    assert max(range(10), key=row.__getitem__) == 7
    assert confonnx("predict", *trust, "--pb-in", SAMPLE, "--pb-in-names", "image", "--pb-out", tmp_path).returncode == 0
    assert (tmp_path / "output_0.pb").stat().st_size >= 40


def test_predict_names_the_input_that_is_wrong(
    server: Server, confonnx: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = confonnx("predict", "--url", server.url, "--enclave-allow-debug", "--pb-in", SAMPLE, "--pb-in-names", "picture")
    assert done.returncode == 1
    assert "picture" in done.stderr and "image" in done.stderr


def test_hash_model_is_the_models_sha256(server: Server, confonnx: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    del server
    done = confonnx("hash-model", digits.MODEL)
    assert done.stdout.strip() == hash_model(digits.MODEL)


def test_the_picture_of_a_verdict_is_what_the_command_prints(server: Server) -> None:
    script = ROOT / "scripts/verdict-picture"
    drawn = subprocess.run(
        [sys.executable, str(script), str(server.executable.with_name("confonnx"))], capture_output=True, text=True, check=True
    )
    assert drawn.stdout == (ROOT / "docs/pictures/verdict.svg").read_text(), f"draw it anew: {script}"
