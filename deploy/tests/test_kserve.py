"""The KServe objects have no field that KServe does not know, and the guide shows these files."""

from __future__ import annotations

import ast
import re
import zipfile
from functools import cache
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chart import DEPLOY

ROOT = DEPLOY.parent
KSERVE = DEPLOY / "kserve"
KINDS = {"ClusterServingRuntime": "V1alpha1ClusterServingRuntime", "InferenceService": "V1beta1InferenceService"}


@cache
def models() -> dict[str, dict[str, str]]:
    """Each class of KServe's package, which is generated from its API: the type of each field. Read, not imported: its
    dependencies are many."""
    [wheel] = (ROOT / ".cache" / "kserve").glob("kserve-*.whl")
    found: dict[str, dict[str, str]] = {}
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if re.fullmatch(r"kserve/models/(v1|knative)\w*\.py", name):
                for node in ast.parse(archive.read(name)).body:
                    if isinstance(node, ast.ClassDef):
                        tables = {
                            target.id: ast.literal_eval(item.value)
                            for item in node.body
                            if isinstance(item, ast.Assign) and isinstance(target := item.targets[0], ast.Name)
                            if target.id in ("openapi_types", "attribute_map")
                        }
                        found[node.name] = {
                            tables["attribute_map"][field]: kind for field, kind in tables["openapi_types"].items()
                        }
    return found


def unknown(kind: str, value: Any, path: str) -> list[str]:
    """Fields below `value` that its class does not have. Kubernetes' own classes are checked by its schemas."""
    if listed := re.fullmatch(r"list\[(.+)\]", kind):
        return [problem for at, item in enumerate(value) for problem in unknown(listed[1], item, f"{path}[{at}]")]
    if kind not in models():
        return []
    fields = models()[kind]
    return [f"{path}.{key}" for key in value if key not in fields] + [
        problem for key, item in value.items() if key in fields for problem in unknown(fields[key], item, f"{path}.{key}")
    ]


@pytest.mark.parametrize("name", ["runtime", "inference-service", "confidential", "autoscaled"])
def test_kserve_knows_every_field(name: str) -> None:
    found = yaml.safe_load((KSERVE / f"{name}.yaml").read_text())
    assert unknown(KINDS[found["kind"]], found, name) == []


def test_the_runtime_may_be_of_one_namespace() -> None:
    found = yaml.safe_load((KSERVE / "runtime.yaml").read_text())
    assert unknown("V1alpha1ServingRuntime", {**found, "kind": "ServingRuntime"}, "runtime") == []


def test_variables_are_the_servers_own() -> None:
    source = (ROOT / "crates/confonnx-server/src/config/settings.rs").read_text()
    service = yaml.safe_load((KSERVE / "autoscaled.yaml").read_text())
    used = {entry["name"] for entry in service["spec"]["predictor"]["model"]["env"]}
    assert used and used <= set(re.findall(r'env = "(CONFONNX_[A-Z_]+)"', source))


def test_an_unknown_field_is_found() -> None:
    found = yaml.safe_load((KSERVE / "confidential.yaml").read_text())
    found["spec"]["predictor"]["model"]["confidential"]["resource"] = "kbs:///a/b/c"
    assert unknown("V1beta1InferenceService", found, "x") == ["x.spec.predictor.model.confidential.resource"]


def test_the_runtimes_container_is_one_that_kubernetes_takes() -> None:
    spec = yaml.safe_load((KSERVE / "runtime.yaml").read_text())["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    pod["spec"] = {"containers": spec["containers"], "volumes": spec["volumes"]}
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize(
    ("guide", "file"),
    [
        ("kserve", "kserve/runtime.yaml"),
        ("kserve", "kserve/inference-service.yaml"),
        ("kserve", "kserve/autoscaled.yaml"),
        ("from-the-2020-beta", "../docs/samples/chart-2020.yaml"),
        ("kubernetes", "ingress/nginx.conf"),
        ("kubernetes", "ingress/envoy.yaml"),
    ],
)
def test_the_guide_shows_the_file(guide: str, file: str) -> None:
    page = (ROOT / "docs" / "guides" / f"{guide}.md").read_text()
    assert (DEPLOY / file).read_text() in page


def test_what_the_guide_shows_of_an_encrypted_model_is_of_the_file() -> None:
    page = (ROOT / "docs" / "guides" / "kserve.md").read_text()
    [shown] = re.findall(r"^  ```yaml\n(.*?)^  ```$", page, re.M | re.S)
    whole = yaml.safe_load((KSERVE / "confidential.yaml").read_text())["spec"]["predictor"]["model"]
    assert yaml.safe_load(shown)["model"].items() <= whole.items()
