"""The commands and policies that the guides of clouds show are known to our programs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from programs import ROOT, TARGET
from confonnx.client import Client
from confonnx.exceptions import ConfonnxError
from test_guides import CLOUDS, GUIDES, blocks

PAGES = [*CLOUDS, "kubernetes", "kserve"]
# How many digits the values have that a reader fills in.
LENGTHS = {"measurements": 96, "id_keys": 96, "host_data": 64}


def commands(name: str) -> list[list[str]]:
    """Each call of our command, with its arguments."""
    lines = "".join(blocks(name, "sh")).replace("\\\n", " ").splitlines()
    return [line.split() for line in lines if re.match(r"confonnx [a-z]", line)]


@pytest.mark.parametrize("name", PAGES)
def test_every_flag_of_a_guide_is_known(name: str) -> None:
    found = commands(name)
    assert found
    for words in found:
        # The subcommand is what comes before the first flag or file, as in `confonnx measure snp`.
        path = [word for word in words[1:3] if re.fullmatch(r"[a-z][a-z-]*", word)]
        while subprocess.run([TARGET / "confonnx", *path, "--help"], capture_output=True).returncode:
            path.pop()
        usage = subprocess.run([TARGET / "confonnx", *path, "--help"], capture_output=True, text=True, check=True).stdout
        known = set(re.findall(r"(?<![\w-])--[a-z-]+", usage))
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert path and used <= known, f"{' '.join(words)}: {sorted(used - known)}"


@pytest.mark.parametrize("name", CLOUDS)
def test_the_policy_of_a_guide_is_one(name: str, tmp_path: Path) -> None:
    shown = [block for block in blocks(name, "toml") if block.startswith("preset")]
    assert len(shown) == 1
    length = {**LENGTHS, "measurements": 64} if "[azure]" in shown[0] else LENGTHS
    text = re.sub(r'(\w+) = \["…"\]', lambda found: f'{found[1]} = ["{"0" * length[found[1]]}"]', shown[0])
    assert "…" not in re.sub("#.*", "", text)
    file = tmp_path / "policy.toml"
    file.write_text(text)
    Client("http://127.0.0.1:1", policy=file)
    file.write_text(text + "unheard_of = 1\n")
    with pytest.raises(ConfonnxError, match="unheard_of"):
        Client("http://127.0.0.1:1", policy=file)


def test_the_scripts_and_targets_of_the_guides_are_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in PAGES:
        text = (GUIDES / f"{name}.md").read_text()
        for path in set(re.findall(r"(?<![\w/.])deploy/[\w./-]+\w", text)):
            assert (ROOT / path).exists(), f"{name}: {path}"
        for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)):
            assert re.search(rf"^{target}:", makefile, re.M), f"{name}: make {target}"
