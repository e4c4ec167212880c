"""The virtual machine image, booted in QEMU with UEFI firmware and a TPM in software, and asked by the ordinary client.

Run by `make test-vm`. What the client compares with was predicted from the image's bytes, before any boot.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = Path(os.environ["CONFONNX_VM"])
CONFONNX = os.environ["CONFONNX_CLI"]
FIRMWARE = BUILT / "fetched/root/usr/share/OVMF"
MODEL = ROOT / "examples/digits/digits.onnx"
SAMPLE = ROOT / "examples/digits/samples/digit_7.json"
PATIENCE = 420


def client(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CONFONNX, *map(str, arguments)], capture_output=True, text=True, timeout=120)


def make(image: Path, **environment: str) -> str:
    """Makes an image at that path; returns what is predicted of it."""
    subprocess.run([HERE / "make-vm", BUILT], env=os.environ | {"IMAGE": str(image), "CONFONNX": CONFONNX} | environment, check=True, timeout=300)
    return image.with_suffix(".toml").read_text()


@contextlib.contextmanager
def booted(image: Path, state: Path, over: str = "the server ended", **environment: str) -> Iterator[str]:
    """Runs the machine until the block ends; yields the server's URL. The text `over` on its console says that it never will
    answer."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [HERE / "run", image, FIRMWARE, state, str(port)]
    machine = subprocess.Popen(command, env=os.environ | environment, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + PATIENCE
        while True:
            log = (state / "serial.log").read_text(errors="replace") if (state / "serial.log").exists() else ""
            alive = machine.poll() is None and time.monotonic() < deadline and over not in log
            assert alive, f"the machine serves nothing: {log[-3000:]}"
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert answer.read().startswith(b"Healthy")
                    break
            except OSError:
                time.sleep(1)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(machine.pid, signal.SIGTERM)
        machine.wait(timeout=30)


def found(verdict: str) -> dict[int, str]:
    """The numbers of the PCRs that a refusal shows with other values than the policy's."""
    line = re.search(r"pcrs +expected .*\n +found +(.*)", verdict)
    assert line, verdict
    return {int(index): value for index, value in re.findall(r"(\d+): ([0-9a-f]{64})", line[1])}


def differing(verdict: str, policy: str) -> set[int]:
    return {index for index, value in found(verdict).items() if value not in policy}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The state of a machine whose image, key and firmware variables are as expected, and the policy that says so."""
    state = tmp_path_factory.mktemp("machine")
    predicted = (BUILT / "image.toml").read_text()
    (state / "predicted.toml").write_text(predicted)
    with booted(BUILT / "image.efi", state) as url:
        # Nobody certified this TPM's key, and the firmware is not the image's: the key and PCRs 0, 2 and 7 are read off this
        # boot.
        nowhere = "".join(f'{index} = ["{"0" * 64}"]\n' for index in (0, 2, 7))
        wrong = state / "wrong.toml"
        wrong.write_text(predicted.replace("[tpm.pcrs]", f"[tpm.pcrs]\n{nowhere}"))
        refused = client("verify", "--url", url, "--policy", wrong)
        assert refused.returncode == 4, refused.stdout + refused.stderr
        ak = re.search(r"\? ak .*\n +found +([0-9a-f]{64})", refused.stdout)
        assert ak, refused.stdout
        values = found(refused.stdout)
        read = "\n".join(f'{index} = ["{values[index]}"]' for index in (0, 2, 7))
        policy = predicted.replace("[tpm.pcrs]", f'[tpm]\naks = ["{ak[1]}"]\n[tpm.pcrs]\n{read}')
        (state / "policy.toml").write_text(policy)
        model_hash = hashlib.sha256(MODEL.read_bytes()).hexdigest()
        for _ in range(2):
            flags = ["--policy", state / "policy.toml", "--enclave-model-hash", model_hash]
            answer = client("predict", "--url", url, *flags, "--json-in", SAMPLE)
            assert answer.returncode == 0, answer.stderr
            [[probabilities]] = [output["values"] for output in json.loads(answer.stdout).values()]
            assert probabilities.index(max(probabilities)) == 7
    log = (state / "serial.log").read_text(errors="replace")
    assert "no more can be" in log and "network: " in log
    yield state, policy


CHANGES = {
    "command line": {"CMDLINE": "x"},
    "settings": {"SETTINGS": "settings.toml"},
    "model": {"MODELS": "models"},
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_byte_of_the_image_is_refused(what: str, machine: tuple[Path, str], tmp_path: Path) -> None:
    state, policy = machine
    settings = (HERE / "server.toml").read_text()
    (tmp_path / "settings.toml").write_text(settings.replace("admin_port = 0", "admin_port = 8889"))
    (tmp_path / "models").mkdir()
    # A bit of the producer's name changes, in the file's head: the model is as good as before.
    other = bytearray(MODEL.read_bytes())
    other[other.index(b"confonnx-example")] ^= 1
    (tmp_path / "models/digits.onnx").write_bytes(other)
    changed = {name: value if name == "CMDLINE" else str(tmp_path / value) for name, value in CHANGES[what].items()}
    make(tmp_path / "image.efi", **changed)
    with booted(tmp_path / "image.efi", state) as url:
        refused = client("verify", "--url", url, "--policy", state / "policy.toml")
    assert refused.returncode == 4, refused.stdout + refused.stderr
    # PCR 4 is what the firmware started and 11 the parts of the image; those of the firmware's variables are as before.
    assert differing(refused.stdout, policy) == {4, 11}, refused.stdout


def test_firmware_that_trusts_others_does_not_start_the_image(tmp_path: Path) -> None:
    # The firmware's variables have Secure Boot on, with somebody else's keys.
    variables = {"VARIABLES": str(FIRMWARE / "OVMF_VARS_4M.snakeoil.fd")}
    with pytest.raises(AssertionError, match="Security Violation"):
        with booted(BUILT / "image.efi", tmp_path, over="No bootable option", **variables):
            pass


def test_the_image_is_the_same_when_made_again(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make(tmp_path / "image.efi", TZ="Asia/Tokyo")
    finally:
        os.umask(before)
    assert (tmp_path / "image.efi").read_bytes() == (BUILT / "image.efi").read_bytes()
    shutil.rmtree(tmp_path)
