"""How a program for another system runs here."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from forwarder import library

ROOT = Path(__file__).resolve().parents[2]
DESKS = Path(os.environ.get("CONFONNX_DESKS", ROOT / "target" / "desks")).resolve()
ARM64 = ROOT / ".cache" / "arm64"
# Debian's wine has this path on no list of commands.
WINE = shutil.which("wine64") or "/usr/lib/wine/wine64"


class Desk:
    """The command of a target, under the name `confonnx` in a folder of its own."""

    def __init__(self, target: str, folder: Path, request: pytest.FixtureRequest) -> None:
        self.environment = dict(os.environ)
        program = DESKS / f"confonnx-{target}{'.exe' if 'windows' in target else ''}"
        assert program.exists(), f"{program}: expected what scripts/build-desk {target} {DESKS} makes"
        if "windows" in target:
            self.environment |= request.getfixturevalue("wine")
            start = [WINE, str(beside(program, folder))]
        elif target == "aarch64-unknown-linux-musl":
            start = ["qemu-aarch64", str(program)]
        elif target == "aarch64-unknown-linux-gnu":
            start = ["qemu-aarch64", "-L", str(ARM64), str(program)]
        elif target == "x86_64-unknown-linux-musl":
            # A folder with nothing in it but the program: no library, no shell, no files of the system.
            bare = folder / "bare"
            bare.mkdir()
            shutil.copy(program, bare / "confonnx")
            as_root = [] if os.geteuid() == 0 else ["unshare", "--map-root-user"]
            start = [*as_root, shutil.which("chroot") or "/usr/sbin/chroot", str(bare), "/confonnx"]
        else:
            start = [str(program)]
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
