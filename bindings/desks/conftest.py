"""A real server with the digits model, and how a program for another system runs here."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import pytest
from forwarder import library

ROOT = Path(__file__).resolve().parents[2]
DESKS = Path(os.environ.get("CONFONNX_DESKS", ROOT / "target" / "desks")).resolve()
ARM64 = ROOT / ".cache" / "arm64"
# Debian's wine has this path on no list of commands.
WINE = shutil.which("wine64") or "/usr/lib/wine/wine64"


@pytest.fixture(scope="session")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server for development."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    command = [
        os.environ["CONFONNX_SERVER"], "--model-path", str(ROOT / "examples/digits/digits.onnx"), "--debug",
        "--address", "127.0.0.1", "--http-port", str(port), "--admin-port", "0",
    ]
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        assert server.poll() is None, log.read_text()
        try:
            if urllib.request.urlopen(url, timeout=5).read() == b"Healthy":
                break
        except OSError:
            time.sleep(0.1)
    else:
        pytest.fail(f"the server is not healthy: {log.read_text()}")
    yield url
    server.terminate()
    server.wait(30)


@pytest.fixture(scope="session")
def wine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of Windows programs: a new disk C:, and no display."""
    folder = tmp_path_factory.mktemp("wine")
    changed = {"WINEPREFIX": str(folder / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe="}
    yield changed
    subprocess.run([WINE, "wineboot", "--kill"], env=os.environ | changed, capture_output=True, timeout=60)
    # Some hundred megabytes, which pytest would keep.
    shutil.rmtree(folder, ignore_errors=True)


class Desk:
    """The command of a target, under the name `confonnx` in a folder of its own."""

    def __init__(self, target: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.environment = dict(os.environ)
        program = DESKS / f"confonnx-{target}{'.exe' if 'windows' in target else ''}"
        assert program.exists(), f"{program}: expected what scripts/build-desk {target} {DESKS} makes"
        if "windows" in target:
            self.environment |= request.getfixturevalue("wine")
            start = [WINE, str(beside(program, folder))]
        elif target.endswith("-musl"):
            # A folder with nothing in it but the program: no library, no shell, no files of the system.
            bare = folder / "bare"
            bare.mkdir()
            shutil.copy(program, bare / "confonnx")
            as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
            start = [*as_root, shutil.which("chroot") or "/usr/sbin/chroot", str(bare), "/confonnx"]
            if target.startswith("aarch64"):
                start = ["qemu-aarch64", str(program)]
        elif target.startswith("aarch64"):
            start = ["qemu-aarch64", "-L", str(ARM64), str(program)]
        else:
            start = [str(program)]
        self.start = start
        wrapper = folder / "bin" / "confonnx"
        wrapper.parent.mkdir()
        wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(start)} "$@"\n')
        wrapper.chmod(0o755)
        self.environment["PATH"] = f"{wrapper.parent}{os.pathsep}{self.environment['PATH']}"

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300)


def beside(program: Path, folder: Path) -> Path:
    """The program in a folder, beside what Windows 10 has and the wine of Debian 12 lacks, if it lacks it."""
    copied = Path(shutil.copy(program, folder / "confonnx.exe"))
    if not any(Path("/usr/lib/x86_64-linux-gnu/wine").rglob("bcryptprimitives.dll")):
        # Random bytes, and both functions take the place and the length.
        forwarder = library("bcryptprimitives", "ProcessPrng", "advapi32.SystemFunction036")
        (folder / "bcryptprimitives.dll").write_bytes(forwarder)
    return copied


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of what was not asked for there is no test, rather than one that is skipped."""
    asked = [item for item in items if "NOTSET" not in item.name]
    config.hook.pytest_deselected(items=[item for item in items if item not in asked])
    items[:] = asked
