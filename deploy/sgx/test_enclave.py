"""What make-enclave makes of enclave.toml. Gramine is in no package index, so that nothing here builds or starts an enclave: the
manifest is read as Gramine's tools would, once the folder of its C library is filled in."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SERVER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "confonnx-server"
CLI = SERVER.parent / "confonnx"
RUNTIME = "/usr/lib/x86_64-linux-gnu/gramine/runtime/glibc"


def make(folder: Path, *more: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(HERE / "make-enclave"), str(folder), *map(str, more)], capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    folder = tmp_path_factory.mktemp("inputs")
    subprocess.run([ROOT / "deploy/image/make-rootfs", SERVER, folder / "rootfs"], check=True, capture_output=True, timeout=120)
    (folder / "models").mkdir()
    (folder / "models/digits.onnx").write_bytes((ROOT / "examples/digits/digits.onnx").read_bytes())
    return ["--rootfs", folder / "rootfs", "--models", folder / "models"]


@pytest.fixture(scope="module")
def enclave(inputs: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "enclave"
    code, output = make(folder, *inputs)
    assert code == 0 and "a new key signs this enclave" in output, output
    return folder


def manifest(folder: Path) -> dict[str, Any]:
    text = (folder / "confonnx.manifest.template").read_text()
    filled = text.replace("{{ gramine.runtimedir() }}", RUNTIME)
    assert "{{" not in filled and "{%" not in filled
    return tomllib.loads(filled)


def test_the_host_adds_no_flag_no_variable_and_no_file(enclave: Path) -> None:
    found = manifest(enclave)
    assert found["loader"]["argv"][:3] == ["confonnx-server", "--engine", "in-process"]
    assert not [name for name in found["loader"] if name.startswith("insecure") or name.endswith("_src_file")]
    assert all(isinstance(value, str) for value in found["loader"]["env"].values()), "a variable is passed through"
    assert "allowed_files" not in found["sgx"] and found["sgx"]["file_check_policy"] == "strict"
    assert found["sgx"]["remote_attestation"] == "dcap" and found["sgx"]["debug"] is False
    # Each file that is there is one that the enclave checks, and what it mounts is below these.
    there = {f"file:/{path.relative_to(enclave / 'rootfs')}" for path in (enclave / "rootfs").rglob("*") if path.is_file()}
    assert {*found["sgx"]["trusted_files"]} == there | {f"file:{RUNTIME}/"}
    assert "file:/models/digits.onnx" in there and "file:/confonnx/confonnx-server" in there
    roots = {mount["uri"] for mount in found["fs"]["mounts"]} - {f"file:{RUNTIME}"}
    assert all(any(file.startswith(root + "/") for root in roots) for file in there)


def test_the_libraries_are_gramines_or_found_beside_them(enclave: Path) -> None:
    found = manifest(enclave)
    others = {path.name for path in (enclave / "rootfs/confonnx/others").iterdir()}
    assert "libstdc++.so.6" in others and not [name for name in others if name.startswith(("libc.", "ld-linux", "libm."))]
    mounted = {mount["path"]: mount["uri"] for mount in found["fs"]["mounts"]}
    folders = found["loader"]["env"]["LD_LIBRARY_PATH"].split(":")
    assert [mounted[folder] for folder in folders] == [f"file:{RUNTIME}", "file:/confonnx/others"]


def test_what_enclave_toml_says_is_in_the_manifest(inputs: list[object], enclave: Path, tmp_path: Path) -> None:
    text = (HERE / "enclave.toml").read_text()
    for before, after in [("debug = false", "debug = true"), ('"4G"', '"512M"'), ("= 32", "= 7"), ("dynamic = false", "dynamic = true")]:
        assert before in text
        text = text.replace(before, after)
    (tmp_path / "enclave.toml").write_text(text.replace("product_id = 1", "product_id = 9"))
    code, output = make(tmp_path / "made", *inputs, "--enclave", tmp_path / "enclave.toml", "--key", enclave / "enclave.pem")
    assert code == 0 and "new key" not in output, output
    sgx = manifest(tmp_path / "made")["sgx"]
    names = ("debug", "enclave_size", "max_threads", "edmm_enable", "use_exinfo", "isvprodid", "isvsvn")
    assert [sgx[name] for name in names] == [True, "512M", 7, True, True, 9, 1]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('heap = "4G"', 'heap = "3G"', "heap: expected a power of two with M or G, found '3G'"),
        ("threads = 32", "threads = '32'", "threads: expected int, found '32'"),
        ("debug = false", "", "debug: expected it (bool), found nothing"),
        ("debug = false", "debug = false\nstack = 1", "stack: no such setting"),
        ("product_id = 1", "product_id = 65536", "product_id: expected 0 to 65535, found 65536"),
        ('"--http-port"', '"{{ x }}"', "expected neither {{ nor {% in it"),
    ],
)
def test_what_is_wrong_is_named(before: str, after: str, message: str, inputs: list[object], tmp_path: Path) -> None:
    text = (HERE / "enclave.toml").read_text()
    assert before in text
    (tmp_path / "enclave.toml").write_text(text.replace(before, after))
    code, output = make(tmp_path / "made", *inputs, "--enclave", tmp_path / "enclave.toml")
    assert code == 1 and message in output, output


def test_a_key_that_signs_gives_what_clients_expect(enclave: Path, tmp_path: Path) -> None:
    """A SIGSTRUCT (Intel's manual, volume 3D, 37.14) of this key, made here in place of gramine-sgx-sign."""
    key = serialization.load_pem_private_key((enclave / "enclave.pem").read_bytes(), None)
    assert isinstance(key, rsa.RSAPrivateKey) and key.key_size == 3072
    numbers = key.public_key().public_numbers()
    assert numbers.e == 3
    modulus = numbers.n.to_bytes(384, "little")
    header = bytes.fromhex("06000000e10000000000010000000000") + bytes(4) + bytes.fromhex("26112026")
    header += bytes.fromhex("01010000600000006000000001000000") + bytes(88)
    body = bytes(4 + 4 + 20) + (4).to_bytes(8, "little") + (3).to_bytes(8, "little") + b"\xff" * 16 + bytes.fromhex("e1" * 32)
    body += bytes(32) + (1).to_bytes(2, "little") + (1).to_bytes(2, "little")
    assert (len(header), len(body)) == (128, 128)
    signature = key.sign(header + body, padding.PKCS1v15(), hashes.SHA256())[::-1]
    (tmp_path / "confonnx.sig").write_bytes(header + modulus + (3).to_bytes(4, "little") + signature + body + bytes(12) + bytes(768))
    done = subprocess.run([CLI, "measure", "sgx", tmp_path / "confonnx.sig"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert info["mrenclave"] == "e1" * 32 and info["details"]["debug"] is False
    assert (info["details"]["isv_prod_id"], info["details"]["isv_svn"]) == (1, 1)
    digest = hashes.Hash(hashes.SHA256())
    digest.update(modulus)
    assert re.fullmatch("[0-9a-f]{64}", info["details"]["mrsigner"]) and info["details"]["mrsigner"] == digest.finalize().hex()
