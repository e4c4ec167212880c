"""The C library as programs compile against it and run it: examples, every function, under sanitizers and valgrind."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
C = ROOT / "bindings" / "c"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g"]
EXAMPLES = ROOT / "examples" / "languages"
EXPECTED = "digit 1\n"


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | (environment or {}))
    assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout


def flags(prefix: Path, *, static: bool = False) -> list[str]:
    """Flags of the compiler, as pkg-config gives them."""
    environment = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    found = run("pkg-config", "--cflags", "--libs", "confonnx", environment=environment).split()
    if static:
        private = run("pkg-config", "--libs", "--static", "confonnx", environment=environment).split()
        found = [flag for flag in found if not flag.startswith("-l")]
        return [*found, str(prefix / "lib/libconfonnx.a"), *(flag for flag in private if flag != "-lconfonnx")]
    return [*found, f"-Wl,-rpath,{prefix}/lib"]


@pytest.fixture(scope="session")
def prefix() -> Path:
    """The prefix into which scripts/make-c installed the library."""
    return Path(os.environ["CONFONNX_C_PREFIX"])


@pytest.fixture
def silent() -> object:
    """The URL of a server that accepts connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_the_header_and_the_abi_are_those_of_the_sources(prefix: Path) -> None:
    run(str(ROOT / "scripts/c-header"), "--check")
    listed = {line for line in (C / "abi.txt").read_text().split("\n") if line.startswith("confonnx_")}
    symbols = run("nm", "--dynamic", "--defined-only", str(prefix / "lib/libconfonnx.so"))
    assert {line.split()[-1] for line in symbols.splitlines() if " T " in line} == listed
    assert "libconfonnx.so.0" in run("readelf", "-d", str(prefix / "lib/libconfonnx.so"))


@pytest.mark.parametrize("compiler", ["gcc", "clang", "g++", "clang++"])
@pytest.mark.parametrize("static", [False, True], ids=["shared", "static"])
def test_examples(prefix: Path, url: str, tmp_path: Path, compiler: str, static: bool) -> None:
    plus = compiler.endswith("++")
    source = EXAMPLES / ("first.cpp" if plus else "first.c")
    standard = "-std=c++17" if plus else "-std=c11"
    run(compiler, standard, *STRICT, str(source), *flags(prefix, static=static), "-o", str(tmp_path / "first"))
    assert run(str(tmp_path / "first"), url, "insecure") == EXPECTED
    refused = subprocess.run([str(tmp_path / "first"), url, "4a" * 48], capture_output=True, text=True)
    assert refused.returncode == 1 and "enclave hash" in refused.stderr


def build_all(prefix: Path, folder: Path, *more: str) -> str:
    program = str(folder / "all")
    run("gcc", "-std=gnu11", *STRICT, *more, str(C / "tests/all.c"), *flags(prefix), "-lpthread", "-o", program)
    return program


def test_every_function(prefix: Path, url: str, silent: str, tmp_path: Path) -> None:
    assert run(build_all(prefix, tmp_path), url, silent) == "all of it\n"


def test_sanitizers_find_nothing(prefix: Path, url: str, silent: str, tmp_path: Path) -> None:
    program = build_all(prefix, tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    assert run(program, url, silent, environment={"ASAN_OPTIONS": "detect_leaks=1"}) == "all of it\n"


VALGRIND = ["valgrind", "--quiet", "--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite"]


def test_a_leak_would_be_found(prefix: Path, tmp_path: Path) -> None:
    source = tmp_path / "leak.c"
    source.write_text(
        "#include <confonnx.h>\nint main(void) { for (int n = 0; n < 100; n++) confonnx_inputs_new(); return 0; }\n"
    )
    program = str(tmp_path / "leak")
    run("gcc", str(source), *flags(prefix), "-o", program)
    done = subprocess.run([*VALGRIND, program], capture_output=True, text=True)
    assert done.returncode == 9 and "definitely lost" in done.stderr


def test_valgrind_finds_nothing(prefix: Path, url: str, tmp_path: Path) -> None:
    program = str(tmp_path / "first")
    run("gcc", "-std=c11", *STRICT, str(EXAMPLES / "first.c"), *flags(prefix), "-o", program)
    assert run(*VALGRIND, program, url, "insecure") == EXPECTED


def test_cmake_finds_it(prefix: Path, url: str, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(example C)\nfind_package(confonnx 0.1 REQUIRED)\n"
        f"add_executable(first {EXAMPLES}/first.c)\ntarget_link_libraries(first confonnx::confonnx)\n"
    )
    build = str(tmp_path / "build")
    run("cmake", "-S", str(tmp_path), "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", build)
    assert run(f"{build}/first", url, "insecure") == EXPECTED
