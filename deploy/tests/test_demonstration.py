"""The guides lead to a verified answer through the rendered chart, with the output that they show."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import demo
import ingress
import numpy as np
import pytest
import yaml
from chart import merged, objects, one
from confonnx.client import Client
from programs import ROOT, TARGET, digits
from test_guides import CLOUDS, GUIDES, blocks


def is_shown(page: str, output: str) -> None:
    """Whether the page shows this text; in the page … is anything, and a line of … any lines."""
    shown = [block for block in re.findall(r"```text\n(.*?)```", (GUIDES / page).read_text(), re.S) if "is ready at" in block]
    assert len(shown) == 1
    expected = [".*".join(map(re.escape, line.split("…"))) for line in shown[0].splitlines() if line != "…"]
    assert re.search("\n(?:.*\n)*?".join(expected), output), output


def demonstrate(*arguments: str) -> str:
    """Runs what `make demo-chart` runs."""
    done = subprocess.run([sys.executable, demo.__file__, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "probabilities" in done.stdout
    return done.stdout


def test_the_demonstration_of_the_guide_shows_it(built: tuple[str, str]) -> None:
    output = demonstrate(str(ROOT / "docs" / "samples" / "chart-2020.yaml"), "--image", built[0])
    is_shown("from-the-2020-beta.md", output)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_pods_of_a_clouds_guide_answer_without_its_tee(cloud: str, with_model: str, tmp_path: Path) -> None:
    shown = [yaml.safe_load(block) for block in blocks(cloud, "yaml") if block.startswith("# my-values.yaml")]
    # One pod is enough for what the page shows.
    (tmp_path / "my-values.yaml").write_text(yaml.safe_dump(merged(*shown, {"replicas": 1})))
    is_shown(f"{cloud}.md", demonstrate(str(tmp_path / "my-values.yaml"), "--preset", cloud, "--image", with_model))


def test_values_of_2020_lead_to_a_verified_answer(built: tuple[str, str], tmp_path: Path) -> None:
    """The answer comes through the Ingress, by TLS, user and password, and prefix; then through the HTTPRoute of the same
    release."""
    chosen = yaml.safe_load((ROOT / "docs" / "samples" / "chart-2020.yaml").read_text())
    (tmp_path / "input.json").write_text((digits.HERE / "samples" / "digit_7.json").read_text())

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([TARGET / "confonnx", *words], capture_output=True, text=True, cwd=tmp_path)

    with demo.release(chosen, built[0], tmp_path) as made:
        assert made.front.url.startswith("https://localhost:") and made.front.url.endswith("/mymodel")
        verify, predict = made.commands()
        for words in (verify, predict):
            done = run(words)
            assert done.returncode == 0, done.stdout + done.stderr
        assert "probabilities" in done.stdout
        # The ingress asks for the password, and the server answers only under its prefix.
        (tmp_path / "password").write_text("another")
        assert "401" in run(predict).stderr
        (tmp_path / "password").write_text(demo.PASSWORD)
        elsewhere = [word.removesuffix("/mymodel") for word in predict]
        assert elsewhere != predict and "404" in run(elsewhere).stderr
        gateway = objects({"gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}, "urlPrefix": "/m"})
        front = ingress.Envoy(made.pods, tmp_path, one(gateway, "HTTPRoute"))
        try:
            answer = Client(front.url, enclave_allow_debug=True).predict({"image": digits.images()[7:8]})
            assert front.url.endswith("/m") and np.argmax(answer["probabilities"]) == digits.labels()[7]
        finally:
            front.stop()
