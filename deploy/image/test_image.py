"""The container image: built without a daemon, run under podman with runc, asked by the ordinary client.

Run by `make test-image`, which builds the image's development variant first: there is no TEE where tests run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import subprocess
import tarfile
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = Path(os.environ["CONFONNX_IMAGE"])
BASE = os.environ.get("CONFONNX_IMAGE_NAME", "localhost/confonnx:development")
CONFONNX = os.environ["CONFONNX_CLI"]
MODEL = ROOT / "examples/digits/digits.onnx"
SAMPLE = ROOT / "examples/digits/samples/digit_7.json"
# runc and cgroupfs: no systemd is needed. Limits that a container without privileges may raise are low where tests run.
PODMAN = ["podman", "--cgroup-manager=cgroupfs", "--runtime", "runc"]
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]


def run(*command: str | Path, **more: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300, **more)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


def build(name: str, out: Path, **more: str) -> str:
    environment = os.environ | {"MODEL_PATH": str(MODEL), "IMAGE_NAME": name, "BASE_IMAGE": BASE, "OUT": str(out)} | more
    return run(HERE / "build_image.sh", env=environment).split()[-1]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    name = f"localhost/confonnx-test-digits-{os.getpid()}"
    build(name, tmp_path_factory.mktemp("image"))
    yield name
    subprocess.run([*PODMAN, "rmi", "--force", name], capture_output=True, timeout=60)


@contextlib.contextmanager
def running(image: str, *flags: str) -> Iterator[str]:
    """A container until the block ends; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    hardened = ["--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    container = run(*PODMAN, "run", "--detach", *hardened, *LIMITS, "-p", f"127.0.0.1:{port}:8888", image, *flags).strip()
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(url, container)
        yield url
        run(*PODMAN, "stop", "--time", "30", container)
        state = json.loads(run(*PODMAN, "inspect", container))[0]["State"]
        # The server ended by the signal, and was not killed.
        assert state["ExitCode"] == 0, state
    finally:
        subprocess.run([*PODMAN, "rm", "--force", "--time", "1", container], capture_output=True, timeout=60)


def wait_for(url: str, container: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                assert answer.read().startswith(b"Healthy")
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no answer within 60 s: {run(*PODMAN, 'logs', container)}")


def files(archive: Path) -> dict[str, tarfile.TarInfo]:
    """All files of all layers of the image, by path."""
    found = {}
    with tarfile.open(archive) as whole:
        index = json.load(whole.extractfile("index.json"))  # type: ignore[arg-type]
        manifest = json.load(blob(whole, index["manifests"][0]["digest"]))
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(whole, layer["digest"])) as layer_tar:
                found |= {member.name.strip("/"): member for member in layer_tar}
    return found


def blob(whole: tarfile.TarFile, digest: str):  # type: ignore[no-untyped-def]
    return whole.extractfile("blobs/" + digest.replace(":", "/"))


def test_a_container_starts_predicts_and_stops(image: str) -> None:
    server_hash = hashlib.sha256((BUILT / "confonnx-server").read_bytes()).hexdigest()
    model_hash = hashlib.sha256(MODEL.read_bytes()).hexdigest()
    with running(image, "--debug", "--admin-port", "0") as url:
        expected = ["--enclave-hash", server_hash, "--enclave-model-hash", model_hash, "--enclave-allow-debug"]
        answer = json.loads(run(CONFONNX, "predict", "--url", url, *expected, "--json-in", SAMPLE))
        [digit] = answer.values()
        [probabilities] = digit["values"]
        assert probabilities.index(max(probabilities)) == 7
        # With another program's hash nothing is sent to the server.
        wrong = ["--enclave-hash", "0" * 64, "--enclave-model-hash", model_hash, "--enclave-allow-debug"]
        refused = subprocess.run(
            [CONFONNX, "predict", "--url", url, *wrong, "--json-in", SAMPLE], capture_output=True, text=True, timeout=60
        )
        assert refused.returncode == 4, refused.stderr
        assert server_hash in refused.stderr


def test_the_image_has_the_server_and_nothing_to_get_in_by() -> None:
    found = files(BUILT / "oci.tar")
    programs = {name for name, member in found.items() if member.isfile() and member.mode & 0o111}
    assert {name for name in programs if not name.startswith(("lib/", "lib64/"))} == {"confonnx/confonnx-server"}
    assert not [name for name, member in found.items() if member.mode & 0o6002 and not member.issym()], "set-user-id or writable"
    assert {member.mtime for member in found.values()} == {0}
    assert {(member.uid, member.gid) for member in found.values()} == {(0, 0)}
    assert "usr/lib/locale/C.utf8/LC_CTYPE" in found and "models" in found
    config = json.loads(run("buildah", "inspect", "--type", "image", BASE))["OCIv1"]["config"]
    assert config["User"] == "65532:65532" and config["Entrypoint"] == ["/confonnx/confonnx-server"]


def test_the_release_variant_has_no_stand_in_for_a_tee() -> None:
    server = Path(os.environ["CONFONNX_RELEASE_SERVER"])
    library = next((ROOT / ".cache/onnxruntime").glob("libonnxruntime.so.*"))
    refused = subprocess.run(
        [server, "--debug", "--model-path", MODEL, "--onnxruntime-library", library, "--http-port", "0", "--admin-port", "0"],
        capture_output=True, text=True, timeout=60,
    )
    assert refused.returncode == 1
    assert "release builds do not have" in refused.stdout + refused.stderr


def test_the_same_model_gives_the_same_archive(tmp_path: Path) -> None:
    first = build(f"localhost/confonnx-test-a-{os.getpid()}", tmp_path / "a")
    # The second build has another umask, locale and time zone, and the model's file another time.
    os.utime(MODEL)
    before = os.umask(0o077)
    try:
        second = build(f"localhost/confonnx-test-b-{os.getpid()}", tmp_path / "b", LC_ALL="C", TZ="Asia/Tokyo")
    finally:
        os.umask(before)
    assert first == second
    assert (tmp_path / "a/oci.tar").read_bytes() == (tmp_path / "b/oci.tar").read_bytes()
    for name in "ab":
        run(*PODMAN, "rmi", "--force", f"localhost/confonnx-test-{name}-{os.getpid()}")


def test_the_guide_ends_with_a_verified_prediction(tmp_path: Path) -> None:
    """The commands of docs/guides/deploy.md, as they are there, but for the port, podman's flags for this machine, and the image,
    which is the one that is tested here."""
    page = (ROOT / "docs/guides/deploy.md").read_text()
    [block] = [block for block in re.findall(r"```sh\n(.*?)```", page, re.S) if "IMAGE_NAME=try" in block]
    make, *commands = block.splitlines(keepends=True)
    assert make == "deploy/image/make-image development target/image/out/development\n"
    (tmp_path / "target/image/out").mkdir(parents=True)
    (tmp_path / "target/image/out/development").symlink_to(BUILT)
    for name in ("deploy", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    text = "".join(commands).replace("localhost/confonnx:development", BASE).replace("8888:8888", f"{port}:8888")
    text = text.replace("127.0.0.1:8888", f"127.0.0.1:{port}")
    flags, run_flags = " ".join(PODMAN[1:]), " ".join(LIMITS)
    shell = f"""set -eu
        confonnx() {{ {CONFONNX} "$@"; }}
        podman() {{
            local command=$1; shift
            if [ "$command" = run ]; then set -- {run_flags} "$@"; fi
            command podman {flags} "$command" "$@"
        }}
        {text}
        command podman {flags} rmi --force try"""
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    answer, _ = json.JSONDecoder().raw_decode(done.stdout[done.stdout.index("{") :])
    [digit] = answer.values()
    [probabilities] = digit["values"]
    assert probabilities.index(max(probabilities)) == 7


def test_what_is_missing_is_named() -> None:
    for environment, message in [
        ({"MODEL_PATH": "", "IMAGE_NAME": "x"}, "MODEL_PATH: expected a model's file"),
        ({"MODEL_PATH": str(MODEL), "IMAGE_NAME": ""}, "IMAGE_NAME: expected a name"),
        ({"MODEL_PATH": str(HERE / "pack"), "IMAGE_NAME": "x"}, "expected a name of letters"),
        ({"MODEL_PATH": str(MODEL), "IMAGE_NAME": "x", "BASE_IMAGE": "localhost/no:such"}, "run 'make image' first"),
    ]:
        done = subprocess.run([HERE / "build_image.sh"], env=os.environ | environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1 and message in done.stderr, done.stderr
