"""The progress of a large transfer is told to a function, and shown at a terminal by both commands."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
from conftest import ROOT, Server

from confonnx import Client, _confonnx, _progress, _tensor

MODEL = ROOT / "crates/confonnx-engine/tests/data/rows.onnx"
ROWS = 20_000
"""So many rows are about 2.9 MB."""


@pytest.fixture(scope="module")
def rows(start_server: Callable[..., Server]) -> Server:
    return start_server(model=MODEL)


def image() -> np.ndarray:
    return np.random.default_rng(1).standard_normal((ROWS, 1, 6, 6)).astype(np.float32)


def test_the_bar_is_drawn_and_taken_away(capsys: pytest.CaptureFixture[str]) -> None:
    bar = _progress.Bar()
    bar(True, 10, 1000)
    bar(True, 10, None)
    assert capsys.readouterr().err == "", "drawn for what is small"
    bar(True, 1_000_000, 2_000_000)
    assert capsys.readouterr().err == "\r\x1b[Ksending   [============>           ]  50%  1.0 of 2.0 MB"
    bar(True, 1_100_000, 2_000_000)
    assert capsys.readouterr().err == "", "drawn again at once"
    bar(True, 2_000_000, 2_000_000)
    assert capsys.readouterr().err == "\r\x1b[Ksent      [========================] 100%  2.0 of 2.0 MB"
    bar(False, 2_000_000, 2_000_000)
    assert capsys.readouterr().err == "\r\x1b[K"
    bar.erase()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("chunked", [False, True])
def test_a_function_is_told_of_every_byte(rows: Server, chunked: bool) -> None:
    told: list[tuple[bool, int, int | None]] = []
    with Client(
        rows.url, enclave_allow_debug=True, chunked=chunked, progress=lambda *transfer: told.append(transfer)
    ) as client:
        client.attest()
        assert told == [], "an attestation is no transfer"
        client.predict({"x": image()})
    sent = [transfer for transfer in told if transfer[0]]
    received = [transfer for transfer in told if not transfer[0]]
    assert told == sent + received and len(sent) > 5
    assert [done for _, done, _ in sent] == sorted(done for _, done, _ in sent)
    assert sent[-1][1] == sent[-1][2] and sent[-1][1] > image().nbytes
    assert received[-1][1] > 0 and received[-1][2] in (None, received[-1][1])


def test_what_the_function_raises_does_not_end_the_call(rows: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no screen")

    hook, seen = sys.unraisablehook, []
    sys.unraisablehook = lambda what: seen.append(what.exc_type)
    try:
        with Client(rows.url, enclave_allow_debug=True, progress=fails) as client:
            assert client.predict({"x": image()})
    finally:
        sys.unraisablehook = hook
    assert seen and set(seen) == {RuntimeError}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    path = tmp_path / "x.pb"
    path.write_bytes(_confonnx.write_tensor_proto(_tensor.tensor("x", image())))
    return path


@pytest.mark.e2e
@pytest.mark.parametrize("program", ["confonnx", "python"])
def test_a_terminal_shows_it_and_nobody_else(rows: Server, inputs: Path, program: str, tmp_path: Path) -> None:
    command: list[str | Path] = [rows.executable.with_name("confonnx"), "predict"]
    if program == "python":
        command = [sys.executable, "-m", "confonnx.main"]
    command += ["--url", rows.url, "--enclave-allow-debug", "--pb-in", inputs, "--pb-in-names", "x"]

    def run(*flags: str, terminal: bool = True) -> tuple[str, str, int]:
        ours, theirs = pty.openpty() if terminal else os.pipe()
        environment = {**os.environ, "TERM": "xterm"}
        out = tmp_path / "out"
        with out.open("wb") as stdout:
            # The answer goes to a file, so that nobody has to read it while the terminal is read.
            with subprocess.Popen([*command, *flags], stdout=stdout, stderr=theirs, env=environment) as process:
                os.close(theirs)
                shown = b""
                try:
                    while more := os.read(ours, 65536):
                        shown += more
                except OSError:
                    pass  # the terminal's other end is closed
            os.close(ours)
        return out.read_text(), shown.decode(), process.returncode

    answer, shown, status = run()
    assert status == 0, shown
    assert list(json.loads(answer)) == ["y"], "the bar is not on standard output"
    assert "sending" in shown and "sent      [========================] 100%" in shown and "MB" in shown
    assert shown.endswith("\r\x1b[K"), "the bar is gone at the end"
    # A pipe in place of the terminal is shown no progress.
    assert "%" not in run(terminal=False)[1]
