"""`confonnx chat` in a terminal: the verdict above, prompts, answers as they come."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path
from typing import Callable

import pytest
from conftest import ROOT, Server, executable

DECODER = ROOT / "crates" / "confonnx-engine" / "tests" / "data" / "decoder.onnx"


@pytest.fixture(scope="module")
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(DECODER, "--model-name", "decoder")


def in_a_terminal(*command: str | Path, lines: list[str]) -> tuple[int, str]:
    """What a terminal shows to a person who types `lines`."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([*map(str, command)], stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        os.write(ours, "".join(f"{line}\n" for line in lines).encode())
        screen = b""
        while True:
            try:
                seen = os.read(ours, 1 << 16)
            except OSError:
                break
            if not seen:
                break
            screen += seen
        os.close(ours)
        return process.wait(), screen.decode(errors="replace").replace("\r\n", "\n")


def test_a_chat(server: Server) -> None:
    command = [executable("confonnx"), "chat", "--url", server.url, "--enclave-allow-debug", "--seed", "7", "--max-tokens", "9"]
    status, screen = in_a_terminal(*command, lines=["hello", "and you?", ""])
    assert status == 0, screen
    verdict, chat = screen.split("decoder: what you write is sealed", 1)
    assert "tee" in verdict and "insecure" in verdict
    assert chat.count("> ") >= 3, chat
    assert chat.count("--max-tokens") == 2
    alone = subprocess.run([*map(str, command), "--message", "hello"], capture_output=True, check=True).stdout
    assert alone.decode().strip() and alone.decode().strip() in chat


def test_nothing_is_said_to_a_server_that_is_not_trusted(server: Server) -> None:
    status, screen = in_a_terminal(
        executable("confonnx"), "chat", "--url", server.url, "--enclave-hash", "ab" * 32, lines=["secret", ""]
    )
    assert status != 0
    assert "> " not in screen.replace("->", "") and "enclave hash" in screen
