#!/usr/bin/env python3
"""What `make demo` shows: a server, its proof, and handwritten digits read through a sealed channel.

    python demo.py --server target/release/confonnx-server   # starts and stops that server
    python demo.py --server target/release/confonnx-server --keep    # leaves it running
    python demo.py --url http://127.0.0.1:8888               # asks a running one
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import digits
import numpy as np

from confonnx.client import Client, ConfonnxError
from confonnx.hash_model import hash_model

COLOR = sys.stdout.isatty() and "NO_COLOR" not in os.environ
START_SECONDS = 30
LOG = Path(tempfile.gettempdir()) / "confonnx-demo.log"


def main() -> None:
    parser = argparse.ArgumentParser(description="Read handwritten digits through an attested, sealed channel")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", type=Path, help="confonnx-server executable to start")
    where.add_argument("--url", help="a server that already runs")
    parser.add_argument("--port", type=int, default=8888, help="port for the started server (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="leave the started server running")
    args = parser.parse_args()

    # The pictures need more than ASCII, whatever the locale says.
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    try:
        if args.server:
            with started(args.server, args.port, args.keep) as (url, process):
                show(url, hashlib.sha256(args.server.read_bytes()).hexdigest())
            if args.keep:
                step(f"The server goes on: its log is {LOG}; kill {process} stops it. Paste what you like:")
            else:
                step("Stopped the server. Start it again with `make demo KEEP=1`, and paste what you like:")
            paste(args.server, url)
        else:
            show(args.url, None)
    except ConfonnxError as error:
        sys.exit(f"demo: {error}")


def show(url: str, enclave_hash: str | None) -> None:
    model_hash = hash_model(digits.MODEL)
    client = Client(url, enclave_hash=enclave_hash, enclave_model_hash=model_hash, enclave_allow_debug=True)

    step("The client asks for proof, and sends nothing before every check has passed")
    print(client.attest())

    step("Ten digits, one sealed request: what the model says, and how sure it is (✓ when right)")
    images, labels = digits.images(), digits.labels()
    probabilities = client.predict({"image": images[:10]})["probabilities"]
    gallery([picture(*row) for row in zip(images[:10, 0], probabilities, labels[:10])])

    step(f"All {len(images):,} held-out digits, another sealed request")
    start = time.perf_counter()
    found = client.predict({"image": images})["probabilities"].argmax(1)
    seconds = time.perf_counter() - start
    right = int((found == labels).sum())
    print(f"{right} of {len(images):,} right ({right / len(images):.1%}) in {seconds * 1000:.0f} ms")


def paste(server: Path, url: str) -> None:
    """Two commands that a reader can paste into a shell."""
    command = os.path.relpath(server.with_name("confonnx"))
    trust = f"--url {url} --enclave-allow-debug --enclave-model-hash {hash_model(digits.MODEL)}"
    sample = os.path.relpath(digits.HERE / "samples" / "digit_7.json")
    print(f"{command} verify {trust}")
    print(f"{command} predict {trust} --json-in {sample}")


def picture(image: np.ndarray, probabilities: np.ndarray, label: int) -> list[str]:
    """One digit as lines of equal width: float32 [28, 28], two pixels a character cell, and a caption."""
    columns = np.flatnonzero(image.max(0) > 0.25)
    rows = np.flatnonzero(image.max(1) > 0.25)
    ink = image[:, columns[0] : columns[-1] + 1] > 0.35
    top = min(int(rows[0]), 8)
    lines = ["".join(" ▀▄█"[upper + 2 * lower] for upper, lower in zip(*pair)) for pair in ink[top : top + 20].reshape(10, 2, -1)]
    guess = int(probabilities.argmax())
    verdict = paint("✓", "32") if guess == label else paint(f"✗ is {label}", "31")
    caption = f"{guess}  {probabilities[guess]:.1%} "
    width = max(ink.shape[1], len(caption) + (1 if guess == label else 6)) + 3
    colored = paint(caption, "1") + verdict
    padding = " " * (width - len(caption) - (1 if guess == label else 6))
    return [line.ljust(width) for line in lines] + [colored + padding]


def gallery(pictures: list[list[str]]) -> None:
    """As many pictures side by side as fit the terminal's width."""
    available = shutil.get_terminal_size((80, 24)).columns
    row: list[list[str]] = []
    for each in [*pictures, None]:
        if each is None or sum(len(p[0]) for p in [*row, each]) > available:
            for lines in zip(*row):
                print("".join(lines).rstrip())
            print()
            row = []
        if each is not None:
            row.append(each)


@contextlib.contextmanager
def started(server: Path, port: int, keep: bool) -> Iterator[tuple[str, int]]:
    """Runs the server until the block ends, or longer; yields its URL and process id."""
    if not server.exists():
        sys.exit(f"demo: {server} does not exist: run `make demo`, which builds it")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            sys.exit(f"demo: port {port} is not free ({error.strerror}): choose another with `make demo PORT=9999`")
    url = f"http://127.0.0.1:{port}"
    command = [str(server), "--model-path", str(digits.MODEL), "--http-port", str(port), "--address", "127.0.0.1"]
    command += ["--admin-port", "0", "--debug"]
    step("The server: " + " ".join(os.path.relpath(part) if part.startswith("/") else part for part in command))
    with (LOG.open("w+b") if keep else tempfile.TemporaryFile()) as log:
        # The server has a process group of its own: what ends the demo does not end a server that is to stay.
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=keep)
        done = False
        try:
            wait_until_healthy(process, url)
            log.seek(0)
            sys.stdout.write(log.read().decode(errors="replace"))
            yield url, process.pid
            done = True
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))
            raise
        finally:
            if process.poll() is None and not (keep and done):
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def wait_until_healthy(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"demo: the server stopped with status {process.returncode}; its log is above")
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2) as answer:
            if answer.status == 200:
                return
        time.sleep(0.05)
    sys.exit(f"demo: the server did not answer within {START_SECONDS} s; its log is above")


def step(text: str) -> None:
    print(f"\n{paint('▸ ' + text, '1')}", flush=True)


def paint(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOR else text


if __name__ == "__main__":
    main()
