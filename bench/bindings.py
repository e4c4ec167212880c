"""Sizes, start times and throughput of the client in each language, beside the native one.

    bindings.py --server FILE --desks FOLDER --package FOLDER [--rounds 7] [--out FOLDER]
    bindings.py --page                                # the page anew, of what was measured before

The first FOLDER has what scripts/build-desk made (command, wheel, library, examples), the second is the npm package, all built as for a
release. Each round asks every client once, in an order of its own, and a ratio is one of figures of a round. Writes
docs/measurements/data/bindings.json and docs/measurements/bindings.md, or both into the FOLDER of --out, to try it."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent / "bindings"
EXAMPLES = ROOT / "examples" / "languages"
DOCS = ROOT / "docs" / "measurements"
NAMES = {"rust": "Rust, native", "c": "C", "python": "Python", "node": "JavaScript, Node", "page": "JavaScript, Chromium"}


def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


def run(*command: object, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env={**os.environ, **(environment or {})})
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    return done.stdout


def timed(*command: object, environment: dict[str, str] | None = None) -> float:
    start = time.perf_counter()
    assert run(*command, environment=environment) == "digit 1\n"
    return time.perf_counter() - start


def machine() -> str:
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "unknown")
    return f"{model}, {os.cpu_count()} threads, {platform.system()} {platform.release().split('-')[0]}"


def versions() -> dict[str, str]:
    chromium = run(os.environ.get("CHROMIUM", "/usr/bin/chromium"), "--version").split()[1]
    return {"CPython": platform.python_version(), "Node": run("node", "--version").strip().removeprefix("v"), "Chromium": chromium}


def size(file: Path) -> dict[str, int]:
    data = file.read_bytes()
    return {"bytes": len(data), "gzip": len(gzip.compress(data, 9))}


def unpacked(given: argparse.Namespace, folder: Path) -> Path:
    """The C library's prefix."""
    [archive] = given.desks.glob("libconfonnx-*-x86_64-unknown-linux-gnu.tar.gz")
    (folder / "c").mkdir()
    run("tar", "-xzf", archive, "-C", folder / "c")
    return folder / "c"


def sizes(given: argparse.Namespace) -> dict[str, dict[str, int]]:
    [wheel] = given.desks.glob("confonnx-*manylinux*_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive, tempfile.TemporaryDirectory() as folder:
        module = Path(archive.extract(next(name for name in archive.namelist() if name.endswith(".so")), folder))
        found = {"Python's module": size(module)}
    found["the wheel"] = {"bytes": wheel.stat().st_size, "gzip": wheel.stat().st_size}
    found["the command"] = size(given.desks / "confonnx-x86_64-unknown-linux-gnu")
    with tempfile.TemporaryDirectory() as folder:
        found["libconfonnx.so"] = size((unpacked(given, Path(folder)) / "lib/libconfonnx.so").resolve())
    found["the WebAssembly"] = size(given.package / "wasm/confonnx_bg.wasm")
    scripts = b"".join(file.read_bytes() for folder in ("lib", "wasm") for file in sorted((given.package / folder).glob("*.js")))
    found["JavaScript around it"] = {"bytes": len(scripts), "gzip": len(gzip.compress(scripts, 9))}
    return found


def measure(given: argparse.Namespace) -> dict[str, Any]:
    load = round(os.getloadavg()[0], 2)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        [wheel] = given.desks.glob("confonnx-*manylinux*_x86_64.whl")
        run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder / "python", wheel)
        python = {"PYTHONPATH": str(folder / "python")}
        prefix = unpacked(given, folder)
        library = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib", "-lconfonnx"]
        for source in (HERE / "calls.c", EXAMPLES / "first.c"):
            run("cc", "-O2", source, *library, "-o", folder / source.stem)
        modules = folder / "node_modules/@confonnx"
        modules.mkdir(parents=True)
        (modules / "client").symlink_to(given.package.resolve())
        first = folder / "first.mjs"
        first.write_text((EXAMPLES / "first.mjs").read_text())
        http, files = port(), port()
        page = {"FILES_PORT": str(files)}
        command = [given.server, "--model-path", ROOT / "examples/digits/digits.onnx", "--debug", "--address", "127.0.0.1"]
        command += ["--http-port", http, "--admin-port", 0, "--cors-origin", f"http://127.0.0.1:{files}"]
        url = f"http://127.0.0.1:{http}"
        server = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(url, timeout=5)
                    break
                except OSError:
                    time.sleep(0.1)
            seconds = given.seconds
            starts: dict[str, Callable[[], float]] = {
                "rust": lambda: timed(given.desks / "examples/first", url, "insecure"),
                "c": lambda: timed(folder / "first", url, "insecure"),
                "python": lambda: timed(sys.executable, EXAMPLES / "first.py", url, "insecure", environment=python),
                "node": lambda: timed("node", first, url, "insecure"),
                "page": lambda: json.loads(run("node", HERE / "page.mjs", given.package, url, "start", 0, environment=page))["start"],
            }
            calls: dict[str, Callable[[], dict[str, float]]] = {
                "rust": lambda: json.loads(run(given.desks / "examples/calls", url, seconds)),
                "c": lambda: json.loads(run(folder / "calls", url, seconds)),
                "python": lambda: json.loads(run(sys.executable, HERE / "calls.py", url, seconds, environment=python)),
                "node": lambda: json.loads(run("node", HERE / "calls.mjs", given.package / "lib/node.js", url, seconds)),
                "page": lambda: json.loads(run("node", HERE / "page.mjs", given.package, url, "calls", seconds, environment=page)),
            }
            rounds: list[dict[str, dict[str, float]]] = []
            for _ in range(given.rounds):
                order = random.sample(list(NAMES), len(NAMES))
                rounds.append({name: {"start": starts[name](), **calls[name]()} for name in order})
        finally:
            server.terminate()
            server.wait(30)
    about = {"machine": machine(), "versions": versions(), "load_before": load, "seconds": seconds}
    return {**about, "rounds": rounds, "sizes": sizes(given)}


def shown(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def page(found: dict[str, Any]) -> str:
    rounds = found["rounds"]

    def row(name: str, what: str, scale: float, digits: int) -> str:
        values = [one[name][what] * scale for one in rounds]
        ratios = [one[name][what] / one["rust"][what] for one in rounds]
        return f"| {NAMES[name]} | {shown(values, digits)} | {'' if name == 'rust' else shown(ratios, 2)} |"

    def table(what: str, unit: str, scale: float, digits: int) -> list[str]:
        return [f"| client | {unit} | beside the native client |", "|---|--:|--:|", *(row(name, what, scale, digits) for name in NAMES), ""]

    using = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    about = (
        f"On {found['machine']}, with {using}; client and server on one machine, the server with examples/digits and without a TEE. "
        f"The load average was {found['load_before']:g} before the run. {len(rounds)} rounds, in each every client once, in an order "
        f"drawn anew; a ratio is one of figures of the same round. Medians, with minimum and maximum; {found['seconds']:g} s for each "
        "figure of throughput."
    )
    lines = [
        "# The clients of each language", "",
        "Sizes, start times and throughput of the client in each language, beside the native one: `make bench-bindings` measured",
        "them and wrote this page.", "",
        textwrap.fill(about, 118, break_on_hyphens=False), "",
        "## From start to first answer", "",
        "The program of [the guide](../guides/languages.md), from the start of its process to its end: the runtime is loaded, the",
        "server verified, a request sealed, the answer opened. In Chromium from the first line of script of a page that is open.", "",
        *table("start", "ms", 1000, 0),
        "## Small calls", "",
        "One image (3 KB) a call, one call after the other, resumed: what a call costs beside what the model costs.", "",
        *table("small", "calls/s", 1, 0),
        "## Large calls", "",
        "1,024 images (3.2 MB) a call, one after the other, resumed: how fast a client copies, seals and sends.", "",
        *table("large", "MB/s", 1e-6, 0),
        "## Sizes", "",
        "| file | bytes | with gzip |", "|---|--:|--:|",
        *(f"| {name} | {size['bytes']:,} | {size['gzip']:,} |" for name, size in found["sizes"].items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("server", "desks", "package"):
        # Absolute, since Node takes a path without a beginning for a package's name.
        parser.add_argument(f"--{name}", type=lambda path: Path(path).resolve())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.6, help="for each figure")
    parser.add_argument("--out", type=Path, help="where results and page go, docs/measurements by default")
    parser.add_argument("--page", action="store_true", help="write the page of what was measured before")
    given = parser.parse_args()
    data, written = (given.out / "bindings.json", given.out / "bindings.md") if given.out else (DOCS / "data/bindings.json", DOCS / "bindings.md")
    if not given.page:
        data.write_text(json.dumps(measure(given), indent=1) + "\n")
    written.write_text(page(json.loads(data.read_text())))


if __name__ == "__main__":
    main()
