"""What the guides for clouds show renders: values and files. Of their commands that cannot be run here, none pretends to have
been."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from chart import DEPLOY, PRESETS, Values, merged, objects, one, preset

GUIDES = DEPLOY.parent / "docs" / "guides"
CLOUDS = ["aks", "gke", "eks", "coco"]
NEWEST = kubernetes_validate.latest_version()


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (GUIDES / f"{name}.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("name", CLOUDS)
def test_the_values_of_a_guide_render(name: str) -> None:
    shown: list[Values] = [yaml.safe_load(block) for block in blocks(name, "yaml") if block.startswith("# my-values.yaml")]
    assert shown
    found = objects(merged(preset(name), *shown))
    for entry in found:
        kubernetes_validate.validate(entry, NEWEST, strict=True)
    [server] = one(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert server["image"] == shown[0]["image"] and "@sha256:" in server["image"]
    # The preset's own settings survive the values that a reader adds.
    assert one(found, "StatefulSet")["spec"]["template"]["spec"]["securityContext"]["seccompProfile"]


def test_the_values_of_the_first_page_render() -> None:
    [shown] = [yaml.safe_load(block) for block in blocks("kubernetes", "yaml") if block.startswith("image:")]
    # Values that a reader fills in.
    shown["image"], shown["model"]["hash"] = "registry.example/confonnx-server@sha256:" + "0" * 64, "0" * 64
    for name in PRESETS:
        found = objects(merged(preset(name), shown))
        for entry in found:
            kubernetes_validate.validate(entry, NEWEST, strict=True)
        volumes = one(found, "StatefulSet")["spec"]["template"]["spec"]["volumes"]
        assert shown["model"]["from"]["claim"] in [volume.get("persistentVolumeClaim", {}).get("claimName") for volume in volumes]


@pytest.mark.parametrize("name", CLOUDS)
def test_commands_that_were_not_run_say_so(name: str) -> None:
    text = (GUIDES / f"{name}.md").read_text()
    assert len(blocks(name, "sh")) == len(re.findall(r"^<!-- not run: .+ -->\n```sh$", text, re.M)) > 3
    assert "## What was run here" in text and f"presets/{name}.yaml" in text


def test_the_preset_of_azure_has_the_resource_that_the_plugin_offers() -> None:
    plugin = yaml.safe_load((DEPLOY / "aks" / "device-plugin.yaml").read_text())
    kubernetes_validate.validate(plugin, NEWEST, strict=True)
    spec, mine = plugin["spec"]["template"]["spec"], preset("aks")
    [device] = [yaml.safe_load(argument) for argument in spec["containers"][0]["args"] if argument.startswith("{")]
    assert f"squat.ai/{device['name']}" in mine["resources"]["limits"]
    # The command runs where the servers do.
    assert spec["nodeSelector"] == mine["nodeSelector"] and spec["tolerations"] == mine["tolerations"]


def test_init_data_arrives_as_it_is() -> None:
    file: Path = DEPLOY / "coco" / "initdata.toml"
    assert file.read_text() in (GUIDES / "coco.md").read_text()
    packed = base64.b64encode(gzip.compress(file.read_bytes(), mtime=0)).decode()
    stateful = one(objects(merged(preset("coco"), {"coco": {"initData": packed}})), "StatefulSet")
    annotation = stateful["spec"]["template"]["metadata"]["annotations"]["io.katacontainers.config.hypervisor.cc_init_data"]
    unpacked = gzip.decompress(base64.b64decode(annotation))
    assert hashlib.sha256(unpacked).digest() == hashlib.sha256(file.read_bytes()).digest()
    text = unpacked.decode()
    # SNP's HOST_DATA has room for just this digest.
    assert 'algorithm = "sha256"' in text and 'version = "0.1.0"' in text
    assert "default CreateContainerRequest := false" in text and "default ExecProcessRequest := false" in text
    assert "@sha256:" in text
