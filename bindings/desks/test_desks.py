"""The command and the wheel that scripts/build-desk makes for other systems: each is started as that system would, and asks a real
server. CONFONNX_COMMANDS and CONFONNX_WHEELS name the targets whose command and wheel are tested."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest
from desk import ARM64, DESKS, ROOT, Desk

TOOLS = ROOT / ".cache" / "desk" / "bin"
EXAMPLE = ROOT / "examples" / "languages"
COMMANDS, WHEELS = (os.environ[name].split() for name in ("CONFONNX_COMMANDS", "CONFONNX_WHEELS"))
OTHER = "4a" * 32
# What the name of each target's wheel ends with, as a release expects it.
sys.path.insert(0, str(ROOT / "deploy" / "dist"))
from sbom import WHEELS as NAMES  # noqa: E402

TAGS = {target: tag for tag, target in NAMES.items()}
# What `file` would say: the first bytes, and where the machine is named.
FORMS = {"x86_64-unknown": (b"\x7fELF", b"\x3e\x00"), "aarch64-unknown": (b"\x7fELF", b"\xb7\x00"), "x86_64-pc": (b"MZ", None)}


@pytest.fixture(params=COMMANDS)
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    return Desk(request.param, tmp_path, request)


@pytest.fixture(params=WHEELS)
def wheel(request: pytest.FixtureRequest) -> Path:
    [found] = DESKS.glob(f"confonnx-*-cp310-abi3-{TAGS[request.param]}.whl")
    return found


@pytest.mark.parametrize("target", COMMANDS)
def test_it_is_a_program_of_that_system(target: str) -> None:
    [program] = DESKS.glob(f"confonnx-{target}*")
    magic, machine = FORMS["-".join(target.split("-")[:2])]
    head = program.read_bytes()[:20]
    assert head.startswith(magic) and (machine is None or head[18:20] == machine)
    if target.endswith("-gnu") and "linux" in target:
        # Symbols of a later C library than the oldest system has would keep it from starting there.
        symbols = subprocess.run(["readelf", "--wide", "--dyn-syms", program], check=True, capture_output=True, text=True).stdout
        versions = {tuple(map(int, found.split("."))) for found in re.findall(r"@GLIBC_([\d.]+)", symbols)}
        assert versions and max(versions) <= (2, 17), max(versions)
    if target.endswith("-musl"):
        assert "INTERP" not in subprocess.run(["readelf", "-l", program], check=True, capture_output=True, text=True).stdout


def test_the_command_verifies_and_asks(desk: Desk, url: str) -> None:
    assert re.fullmatch(r"confonnx \d+\.\d+\.\d+\S*\s*", desk.run("confonnx", "--version").stdout)
    answered = desk.run(str(EXAMPLE / "first.sh"), url, "insecure")
    assert (answered.returncode, answered.stdout) == (0, "digit 1\n"), answered.stderr
    refused = desk.run(str(EXAMPLE / "first.sh"), url, OTHER)
    assert refused.returncode == 4 and "enclave hash" in refused.stderr, refused


def test_the_command_reads_and_writes_files(desk: Desk) -> None:
    hashed = desk.run("confonnx", "hash-model", "--help")
    assert hashed.returncode == 0 and "--out" in hashed.stdout
    token = desk.run("confonnx", "create-token")
    assert re.search(r"token\s+cfx_[\w-]{43}\s", token.stdout), token


def test_the_proxy_serves_programs_of_that_system(desk: Desk, url: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["confonnx", "proxy", "--url", url, "--enclave-allow-debug", "--listen", f"127.0.0.1:{port}"]
    proxy = subprocess.Popen(command, env=desk.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        for tries in range(300):
            try:
                ready = urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=60).status
                break
            except OSError:
                assert proxy.poll() is None and tries < 299, proxy.communicate(timeout=10)
                time.sleep(0.1)
        assert ready == 200
    finally:
        proxy.kill()
        proxy.communicate(timeout=60)


def symbols(table: str) -> dict[str, set[str]]:
    """Of what readelf says: the symbols that a file defines, and those that it cannot do without."""
    found: dict[str, set[str]] = {"defined": set(), "UND": set()}
    for line in table.splitlines():
        match line.split():
            case [_, _, _, _, binding, _, section, name] if section != "UND" or binding == "GLOBAL":
                found["UND" if section == "UND" else "defined"].add(name.split("@")[0])
    return found


def test_a_wheel_keeps_to_the_oldest_python_and_system(wheel: Path, tmp_path: Path) -> None:
    def clean(*command: object) -> str:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    clean(TOOLS / "abi3audit", "--strict", wheel)
    assert "PASSED" in clean(TOOLS / "twine", "check", "--strict", wheel)
    with zipfile.ZipFile(wheel) as archive:
        [name] = (name for name in archive.namelist() if "/_confonnx." in name and not name.endswith(".pyi"))
        module = Path(archive.extract(name, tmp_path))
    if "musllinux" in wheel.name:
        # auditwheel knows musl's versions where it runs on musl alone. The module needs that library and the symbols of 1.2.3.
        assert re.findall(r"NEEDED.*\[(.*)\]", clean("readelf", "--wide", "--dynamic", module)) == ["libc.so"]
        library = ARM64 / "lib/aarch64-linux-musl/libc.so" if "aarch64" in wheel.name else "/lib/x86_64-linux-musl/libc.so"
        has, needed = (symbols(clean("readelf", "--wide", "--dyn-syms", of)) for of in (library, module))
        assert needed["UND"] and {name for name in needed["UND"] if not re.match("_?Py", name)} <= has["defined"]
    elif "manylinux" in wheel.name:
        # The name has the tag of PEP 600 beside its older alias, and auditwheel tells the former.
        [tag] = (tag for tag in wheel.stem.split("-")[-1].split(".") if "linux_" in tag)
        assert f'"{tag}"' in clean(TOOLS / "auditwheel", "show", wheel).replace("\n", " ")
    elif "win" in wheel.name:
        assert re.search(r"\bPyInit__confonnx$", clean("objdump", "-p", module), re.MULTILINE), "Python finds no module in it"
    names = zipfile.ZipFile(wheel).namelist()
    assert {"confonnx/__init__.py", "confonnx/py.typed", "confonnx/_confonnx.pyi"} <= set(names), names
    assert sum("licenses/LICENSE" in name for name in names) == 2, names


def test_a_wheel_is_installed_in_an_empty_environment_and_asks(wheel: Path, url: str, tmp_path: Path) -> None:
    """By pip, from nothing; what it depends on comes from where pip gets packages."""
    ask = [str(EXAMPLE / "first.py"), url]
    if "win" in wheel.name or "mac" in wheel.name or "musl" in wheel.name:
        # No Python of that system is here: pip of this one says whether it would take the wheel there.
        platform = wheel.stem.split("-")[-1].split(".")[0]
        install = ["--target", tmp_path, "--platform", platform, "--only-binary=:all:", "--python-version", "3.12", "--no-deps"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *map(str, install), str(wheel)], check=True)
        assert list((tmp_path / "confonnx").glob("_confonnx*"))
        return
    if "aarch64" in wheel.name:
        install = ["--target", tmp_path, "--platform", "manylinux2014_aarch64", "--only-binary=:all:", "--python-version", "3.11"]
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *map(str, install), str(wheel)], check=True)
        python = ["qemu-aarch64", "-L", str(ARM64), "-E", f"PYTHONPATH={tmp_path}", str(ARM64 / "usr/bin/python3")]
    else:
        subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
        python = [str(tmp_path / "venv/bin/python")]
        subprocess.run([*python, "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel], check=True)

    def run(expected: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*python, *ask, expected], capture_output=True, text=True, timeout=300, cwd=tmp_path)

    answered = run("insecure")
    assert (answered.returncode, answered.stdout) == (0, "digit 1\n"), answered.stderr
    refused = run(OTHER)
    assert refused.returncode == 1 and "enclave hash" in refused.stderr, refused
