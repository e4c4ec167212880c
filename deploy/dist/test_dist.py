"""A release is made of files that exist, read by others' tools, and each broken link of it is named. The files are small here:
what they are is nothing to these scripts. A live server is asked when one is built."""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import bundle
import pytest
import sbom
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from make_dist import MANIFEST, PROVENANCE, SBOM, sha256
from sigstore_models.bundle.v1 import Bundle

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", sbom.ROOT / "target")) / "debug"
# A client of each kind.
CLIENTS = (
    "confonnx-0.1.0-cp310-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64.whl", "confonnx-0.1.0-cp310-abi3-macosx_11_0_arm64.whl",
    "confonnx-x86_64-pc-windows-gnu.exe", "confonnx-aarch64-unknown-linux-musl", "confonnx-client-0.1.0.tgz", "confonnx-demo.html",
    "confonnx-demo.tar.gz", "libconfonnx-0.1.0-x86_64-unknown-linux-gnu.tar.gz",
)
SERVER, CLI = TARGET / "confonnx-server", TARGET / "confonnx"


def run(script: str, *arguments: object) -> tuple[int, str]:
    command = [sys.executable, str(HERE / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def make_key(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    secret, public = folder / f"{name}.pem", folder / f"{name}.pub"
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return secret, public


class Release:
    def __init__(self, folder: Path) -> None:
        self.folder, self.secret, self.public = folder / "dist", *make_key(folder, "key")
        given = folder / "given"
        for name in ("image", "vm"):
            (given / name).mkdir(parents=True)
        for name in ("image/oci.tar", "vm/image.efi", "vm/image.toml", *CLIENTS):
            (given / name).write_bytes(name.encode() * 100)
        (given / "image/digest").write_text("sha256:" + "0" * 64)
        (given / "image/environment").write_text("rustc-release 1.95.0\nlibc6 2.36-9\nca-certificates 20230311\n")
        # The stand-in for a TEE measures the program's file.
        info = given / "info.json"
        info.write_text(json.dumps({"tee": "insecure", "enclave_hash": sha256(SERVER)}))
        (given / "confonnx").write_bytes(b"command" * 100)
        self.arguments = ["--program", f"confonnx-server={SERVER}", "--program", f"confonnx={given / 'confonnx'}"]
        self.arguments += ["--image", str(given / "image"), "--vm", str(given / "vm"), "--enclave-info", f"insecure={info}"]
        for name in CLIENTS:
            self.arguments += ["--client", str(given / name)]
        code, output = run("make_dist.py", self.folder, *self.arguments, "--key", self.secret)
        assert code == 0, output

    def verify(self, folder: Path | str, *more: object) -> tuple[int, str]:
        command = [CLI, "verify", "--release", folder, "--release-key", self.public, *more]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return Release(tmp_path_factory.mktemp("release"))


def test_a_release_verifies_and_is_the_same_again(release: Release, tmp_path: Path) -> None:
    code, output = release.verify(release.folder)
    assert code == 0 and output.count("✓") == 6, output
    code, _ = run("make_dist.py", tmp_path / "again", *release.arguments)
    assert code == 0
    # All files but the signatures are the same again; signatures have randomness in them.
    assert (tmp_path / "again" / SBOM).read_bytes() == (release.folder / SBOM).read_bytes()
    statement = json.loads((tmp_path / "again" / PROVENANCE).read_text())
    envelope = json.loads((release.folder / PROVENANCE).read_text())["dsseEnvelope"]
    assert json.loads(base64.b64decode(envelope["payload"])) == statement
    code, output = release.verify(tmp_path / "again")
    assert code == 3 and "✗ signature" in output and "not signed" in output


def test_the_manifest_is_what_sha256sum_reads(release: Release) -> None:
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", MANIFEST], cwd=release.folder, check=True)


def test_openssl_accepts_the_signature_and_others_read_the_bundle(release: Release, tmp_path: Path) -> None:
    text = (release.folder / f"{MANIFEST}.sigstore.json").read_text()
    found = Bundle.from_json(text)
    assert found.message_signature is not None
    (tmp_path / "sig").write_bytes(base64.b64decode(json.loads(text)["messageSignature"]["signature"]))
    command: list[str | Path] = ["openssl", "dgst", "-sha256", "-verify", release.public, "-signature", tmp_path / "sig", release.folder / MANIFEST]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "Verified OK"


def test_securesystemslib_verifies_the_provenance(release: Release) -> None:
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer._key import SSlibKey

    text = (release.folder / PROVENANCE).read_text()
    assert Bundle.from_json(text).dsse_envelope is not None
    given = json.loads(text)["dsseEnvelope"]
    public = serialization.load_pem_public_key(release.public.read_bytes())
    assert isinstance(public, ec.EllipticCurvePublicKey)
    key = SSlibKey.from_crypto(public)
    # The verifier looks keys up by their name, which is no part of what is signed.
    given["signatures"][0]["keyid"] = key.keyid
    envelope = Envelope.from_dict(given)
    assert envelope.verify([key], threshold=1)
    statement = json.loads(envelope.payload)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    files = {subject["name"] for subject in statement["subject"]}
    assert {"confonnx-server", "confonnx-image.tar", "confonnx-vm.efi", "enclave_info.json", SBOM} <= files
    [source, *_] = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert re.fullmatch("[0-9a-f]{40}", source["digest"]["gitCommit"])


def test_the_bill_of_materials_is_valid_and_has_what_is_linked(release: Release) -> None:
    text = (release.folder / SBOM).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    components = {entry["bom-ref"]: entry for entry in bom["components"]}
    needs = {entry["ref"]: entry["dependsOn"] for entry in bom["dependencies"]}
    assert set(needs) == {*components, "confonnx"}
    assert all(ref in components for refs in needs.values() for ref in refs)
    # Everything in docs/tcb.txt is reached from the server, and so is everything beside it in its image.
    reached = below(needs, "file:confonnx-server")
    trusted = {
        "crate:{}@{}".format(*line.split(" ")[:2]).replace("@v", "@") for line in (sbom.ROOT / "docs" / "tcb.txt").read_text().splitlines()
    }
    built = {f"crate:{name}@{version}" for name, version in sbom.crates("confonnx-server", ["--no-default-features"])}
    assert built <= reached and len(built & trusted) > 200
    assert {"onnxruntime", "deb:libc6", "deb:ca-certificates"} <= reached
    # Each client's crates are those of its own system.
    names = {file: {ref.split("@")[0].removeprefix("crate:") for ref in needs[f"file:{file}"]} for file in CLIENTS}
    assert all("confonnx-client" in found for found in names.values())
    assert "windows-sys" in names["confonnx-x86_64-pc-windows-gnu.exe"] and "windows-sys" not in names["confonnx-aarch64-unknown-linux-musl"]
    assert "aws-lc-rs" in names["confonnx-aarch64-unknown-linux-musl"] and "aws-lc-rs" not in names["confonnx-client-0.1.0.tgz"]
    assert {"pypi:numpy", "pyo3"} <= names[CLIENTS[1]]
    # Crates from registries have digests, and every component has a licence.
    crates = [entry for ref, entry in components.items() if ref.startswith("crate:")]
    assert all(entry.get("hashes") or entry["name"].startswith("confonnx") for entry in crates)
    assert all(entry.get("licenses") for entry in crates)
    [runtime] = [entry for ref, entry in components.items() if ref == "onnxruntime"]
    [library] = (sbom.ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*")
    assert runtime["hashes"][0]["content"] == sha256(library)


def below(needs: dict[str, list[str]], ref: str) -> set[str]:
    """What is reached from a component."""
    reached, new = set(), set(needs[ref])
    while new:
        reached |= new
        new = {ref for above in new for ref in needs[above]} - reached
    return reached


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def resign(release: Release, folder: Path) -> None:
    """Makes the manifest and its signature anew, as somebody with the key could, so that a later link has to hold."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith(MANIFEST))
    manifest = "".join(f"{sha256(folder / name)}  {name}\n" for name in names)
    (folder / MANIFEST).write_text(manifest)
    signed = bundle.sign_file(bundle.private_key(release.secret.read_bytes()), manifest.encode())
    (folder / f"{MANIFEST}.sigstore.json").write_text(json.dumps(signed))


def restated(release: Release, folder: Path) -> None:
    """Signs provenance of the files that are there now."""
    statement = json.loads(base64.b64decode(json.loads((folder / PROVENANCE).read_text())["dsseEnvelope"]["payload"]))
    for subject in statement["subject"]:
        subject["digest"]["sha256"] = sha256(folder / subject["name"])
    signed = bundle.sign_statement(bundle.private_key(release.secret.read_bytes()), json.dumps(statement).encode())
    (folder / PROVENANCE).write_text(json.dumps(signed))


def resigned_server(release: Release, folder: Path) -> None:
    flip(folder / "confonnx-server")
    resign(release, folder)


def resigned_provenance(release: Release, folder: Path) -> None:
    flip(folder / "confonnx-server")
    restated(release, folder)
    resign(release, folder)


def resigned_measurement(release: Release, folder: Path) -> None:
    (folder / "enclave_info.insecure.json").write_text(json.dumps({"enclave_hash": "0" * 64}))
    restated(release, folder)
    resign(release, folder)


def broken_provenance(release: Release, folder: Path) -> None:
    flip(folder / PROVENANCE)
    resign(release, folder)


def another_key(release: Release, folder: Path) -> None:
    shutil.copy(make_key(folder.parent, "other")[1], release.public)


CHANGES: dict[str, tuple[Callable[[Release, Path], object], str]] = {
    "manifest": (lambda _, folder: flip(folder / MANIFEST), "✗ signature"),
    "other key": (another_key, "✗ signature"),
    "no signature": (lambda _, folder: (folder / f"{MANIFEST}.sigstore.json").unlink(), "✗ signature"),
    "image": (lambda _, folder: flip(folder / "confonnx-image.tar"), "✗ digests: confonnx-image.tar"),
    "machine": (lambda _, folder: flip(folder / "confonnx-vm.efi"), "✗ digests: confonnx-vm.efi"),
    "missing": (lambda _, folder: (folder / "confonnx").unlink(), "✗ manifest: confonnx"),
    "added": (lambda _, folder: (folder / "extra").write_text("x"), "✗ manifest: extra"),
    "resigned server": (resigned_server, "✗ provenance: confonnx-server"),
    "resigned provenance": (resigned_provenance, "✗ materials: confonnx-server"),
    "resigned measurement": (resigned_measurement, "✗ measurements: enclave_info.insecure.json"),
    "broken provenance": (broken_provenance, "✗ provenance"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_broken_link_is_named(name: str, release: Release, tmp_path: Path) -> None:
    folder, public = tmp_path / "dist", release.public.read_bytes()
    shutil.copytree(release.folder, folder)
    change, expected = CHANGES[name]
    try:
        change(release, folder)
        code, output = release.verify(folder)
    finally:
        release.public.write_bytes(public)
    assert code == 3 and expected in output, output
    code, output = release.verify(folder, "--json") if name != "other key" else (3, "")
    assert code == 3 and (not output or '"outcome": "not-genuine"' in output), output


@contextlib.contextmanager
def serving(folder: Path, *more: str | Path) -> Iterator[str]:
    """A server with the stand-in for a TEE; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    [library] = (sbom.ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*")
    model = sbom.ROOT / "examples" / "digits" / "digits.onnx"
    flags: list[str | Path] = ["--model-path", model, "--debug", "--http-port", str(port), "--admin-port", "0", "--onnxruntime-library", library]
    flags += more
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([SERVER, *flags], stdout=log, stderr=log)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
        while subprocess.run([CLI, "verify", "--url", url, "--enclave-allow-debug"], capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline, Path(log.name).read_text()
            time.sleep(0.2)
        yield url
    finally:
        process.kill()
        process.wait(10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("server")) as url:
        yield url


@contextlib.contextmanager
def published(folder: Path) -> Iterator[str]:
    """The folder on a web server; its URL."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{web.server_port}"
        web.shutdown()


def test_a_release_at_a_url_verifies_like_one_in_a_folder(release: Release, server: str, tmp_path: Path) -> None:
    folder = tmp_path / "web" / "dist"
    shutil.copytree(release.folder, folder)
    with published(folder.parent) as web:
        code, output = release.verify(f"{web}/dist/", "--url", server, "--enclave-allow-debug")
        assert code == 0 and "INSECURE: accepted" in output, output
        flip(folder / "confonnx-image.tar")
        code, output = release.verify(f"{web}/dist")
        assert code == 3 and "✗ digests: confonnx-image.tar" in output, output
        (folder / "confonnx").unlink()
        code, output = release.verify(f"{web}/dist")
        assert code == 5 and f"cannot fetch {web}/dist/confonnx: http status: 404" in output, output
        # Nothing is fetched that a manifest names whose signature is wrong.
        (folder / MANIFEST).write_text(f"{'0' * 64}  enclave_info.json\n")
        code, output = release.verify(f"{web}/dist")
        assert code == 3 and "✗ signature" in output and "✓" not in output, output
    code, output = release.verify(f"{web}/dist", "--json")
    assert code == 5 and json.loads(output[: output.index("}") + 1])["outcome"] == "undecided", output


def test_a_live_server_runs_the_release(release: Release, server: str, tmp_path: Path) -> None:
    more: list[Any] = ["--url", server, "--enclave-allow-debug"]
    code, output = release.verify(release.folder, *more)
    assert code == 0 and output.count("✓") > 6 and "INSECURE: accepted" in output, output
    # The live server does not run another release, though that is signed as well.
    folder = tmp_path / "dist"
    shutil.copytree(release.folder, folder)
    infos = json.loads((folder / "enclave_info.json").read_text())
    infos["insecure"]["enclave_hash"] = hashlib.sha256(b"another").hexdigest()
    (folder / "enclave_info.json").write_text(json.dumps(infos))
    (folder / "enclave_info.insecure.json").write_text(json.dumps(infos["insecure"]))
    restated(release, folder)
    resign(release, folder)
    code, output = release.verify(folder, *more)
    assert code == 4 and "✗ live server" in output and "enclave hash" in output, output
