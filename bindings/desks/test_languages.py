"""The program of docs/guides/languages.md in Python, Rust and a shell, as somebody pastes it. Those in C and C++ are compiled and run by
bindings/c/tests, the one in JavaScript by bindings/js/tests, from the packed package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from desk import ROOT

EXAMPLES = ROOT / "examples" / "languages"
PROGRAMS = Path(os.environ.get("CONFONNX_PROGRAMS", ROOT / "target" / "debug"))
COMMANDS = {
    "python": [sys.executable, str(EXAMPLES / "first.py")],
    "rust": [str(PROGRAMS / "examples" / "first")],
    "shell": ["sh", str(EXAMPLES / "first.sh")],
}


@pytest.mark.parametrize("language", COMMANDS)
def test_the_same_answer_and_the_same_refusal(language: str, url: str) -> None:
    environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}

    def run(expected: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*COMMANDS[language], url, expected], env=environment, capture_output=True, text=True, timeout=120)

    answered = run("insecure")
    assert (answered.returncode, answered.stdout) == (0, "digit 1\n"), answered.stderr
    refused = run("4a" * 32)
    assert refused.returncode != 0 and refused.stdout == "", refused
    assert "enclave hash: expected 4a4a" in refused.stderr


def test_the_guide_shows_them_whole() -> None:
    page = (ROOT / "docs/guides/languages.md").read_text()
    for file in sorted(EXAMPLES.glob("first.*")):
        assert file.read_text() in page, f"{file.name}: docs/guides/languages.md shows another program"
