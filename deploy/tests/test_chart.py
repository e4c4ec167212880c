"""The chart against its schema, Kubernetes' published schemas and house rules; and no change of it goes unseen."""

from __future__ import annotations

import copy
import os
import re
from typing import Any

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import schemas
import yaml
from chart import CHART, DEPLOY, PRESETS, Object, Values, merged, objects, one, preset, texts

GOLDEN = DEPLOY / "tests" / "golden"
# The oldest version that the chart names, and the newest whose schemas are at hand.
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]

OLD_2020: Values = {
    "replicas": 2,
    "image": "myregistry.example/model-server:latest",
    "urlPrefix": "/mymodel",
    "host": "models.example",
    "letsEncrypt": {"enabled": True, "mode": "staging"},
}
EVERYTHING: Values = merged(
    OLD_2020,
    {
        "tee": "snp",
        "model": {
            "hash": "00" * 32,
            "from": {"init": {"image": "loader:1", "command": ["/load"], "args": ["s3://bucket/model.onnx"]}},
            "encrypted": {"keyFrom": "akv"},
        },
        "keys": {"provider": "peer", "peerPolicy": 'preset = "cloud"\n'},
        "akv": {
            "vaultUrl": "https://vault.example",
            "modelKeyName": "model",
            "attestationUrl": "https://maa.example",
            "tokenSecret": "token",
        },
        "kbs": {"url": "https://kbs.example", "caConfigMap": "kbs-ca"},
        "auth": {"fileSecret": "auth", "audit": True},
        "settings": {"CONFONNX_MAX_REQUEST_BYTES": 134217728},
        "autoscaling": {"enabled": True, "queue": 4},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "networkPolicy": {
            "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress-nginx"}}}],
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        },
        "imagePullSecrets": ["registry"],
        "priorityClassName": "inference",
        "serviceAccount": {"name": "models"},
        "spread": {"required": True},
        "podLabels": {"team": "a"},
        "podAnnotations": {"example.com/owner": "a"},
        "coco": {"initData": "H4sIAAAA"},
    },
)
GATEWAY: Values = {"gateway": {"enabled": True, "parentRefs": [{"name": "public"}]}, "host": "models.example", "urlPrefix": "/m"}
SOURCES: dict[str, Values] = {
    "owner": {"model": {"encrypted": {"keyFrom": "owner", "hash": "11" * 32, "ownerSecret": "owner"}}},
    "kbs": {
        "keys": {"provider": "kbs"},
        "kbs": {"url": "https://kbs.example", "resource": "default/confonnx/root", "caConfigMap": "kbs-ca"},
        "model": {"encrypted": {"keyFrom": "kbs", "resource": "default/models/digits"}},
    },
    "claim": {"model": {"from": {"claim": "models", "subPath": "digits"}}},
    "image": {"model": {"from": {"image": "registry.example/digits@sha256:" + "0" * 64}}},
    "config-map": {"model": {"from": {"configMap": "digits"}}},
    "repository": {"model": {"repository": True, "path": "/models", "from": {"claim": "models"}}},
}
CASES: dict[str, Values] = {
    "default": {},
    "2020": OLD_2020,
    "everything": EVERYTHING,
    "gateway": GATEWAY,
    **SOURCES,
    **{f"preset-{name}": preset(name) for name in PRESETS},
}


def pod(values: Values) -> Object:
    found: Object = one(objects(values), "StatefulSet")["spec"]["template"]["spec"]
    return found


def server(values: Values) -> Object:
    found: Object = pod(values)["containers"][0]
    return found


def env(values: Values) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in server(values)["env"]}


@pytest.mark.parametrize("case", CASES)
def test_nothing_changes_unseen(case: str) -> None:
    """`UPDATE=1` writes golden/ anew: read the difference before you commit it."""
    rendered = "".join(f"# {path}\n{text.strip()}\n---\n" for path, text in sorted(texts(CASES[case]).items()) if text.strip())
    file = GOLDEN / f"{case}.txt"
    if os.environ.get("UPDATE"):
        file.write_text(rendered)
    assert rendered == file.read_text()


def test_every_golden_file_is_of_a_case() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(CASES)


@pytest.mark.parametrize("case", CASES)
def test_helm_finds_nothing_to_warn_of(case: str) -> None:
    report = helm_python.lint(CHART, CASES[case], strict=True)
    assert report["total_charts_linted"] == 1 and not report["errors"]
    # Severity 1 is a remark: that there is no icon.
    assert [message for message in report["messages"] if message["severity"] != 1] == []


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("case", CASES)
def test_kubernetes_takes_every_field(case: str, version: str) -> None:
    for found in objects(CASES[case]):
        if found["kind"] in schemas.GROUPS:
            schemas.validate(found)
            continue
        if case == "image" and version == "1.30" and found["kind"] == "StatefulSet":
            # Version 1.30 does not know image volumes yet.
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(found, version, strict=True)
            continue
        kubernetes_validate.validate(found, version, strict=True)


def test_an_unknown_field_is_found() -> None:
    stateful = one(objects({}), "StatefulSet")
    stateful["spec"]["template"]["spec"]["enableServiceLink"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(stateful, KUBERNETES[-1], strict=True)


@pytest.mark.parametrize(
    ("case", "kind", "path", "value"),
    [
        ("gateway", "HTTPRoute", ["rules", 0, "filters", 0, "urlRewrite", "path", "type"], "Prefix"),
        ("gateway", "HTTPRoute", ["rules", 0, "backendRefs", 0, "port"], "http"),
        ("gateway", "HTTPRoute", ["rules", 0, "backendRef"], []),
        ("everything", "ServiceMonitor", ["endpoints", 0, "interval"], "30 s"),
        ("everything", "ServiceMonitor", ["endpoints", 0, "paths"], "/metrics"),
    ],
)
def test_a_wrong_field_of_others_objects_is_found(case: str, kind: str, path: list[Any], value: Any) -> None:
    found = copy.deepcopy(one(objects(CASES[case]), kind))
    schemas.validate(found)
    place = found["spec"]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schemas.validate(found)


def test_what_cases_render_of_others_is_checked() -> None:
    kinds = {found["kind"] for case in CASES.values() for found in objects(case)}
    assert set(schemas.GROUPS) <= kinds


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replica": 2}, "replica"),
        ({"replicas": 0}, "replicas"),
        ({"image": ""}, "image"),
        ({"model": {"hash": "abc"}}, "hash"),
        ({"tee": "sev"}, "tee"),
        ({"settings": {"MAX_QUEUE": 1}}, "CONFONNX_"),
        ({"insecure": True, "tee": "snp"}, "insecure"),
        ({"maxPeerPercent": 101}, "maxPeerPercent"),
        ({"keys": {"provider": "local"}}, "replicas 1"),
        ({"keys": {"provider": "kbs"}}, "kbs.url"),
        ({"keys": {"provider": "akv"}}, "akv.vaultUrl"),
        ({"model": {"encrypted": {"keyFrom": "kbs"}}}, "model.encrypted.resource"),
        ({"model": {"encrypted": {"keyFrom": "akv"}}}, "akv.modelKeyName"),
        ({"model": {"from": {"claim": "a", "image": "b"}}}, "claim, image"),
        ({"auth": {"keySecret": "a", "fileSecret": "b"}}, "one of them"),
        ({"akv": {"appId": "a", "appPwd": "b"}}, "managed identity"),
        (merged(EVERYTHING, {"model": {"encrypted": {"ownerSecret": "owner"}}}), "expected keyFrom owner"),
        ({"letsEncrypt": {"enabled": True}}, "host"),
        ({"gateway": {"enabled": True}}, "parentRefs"),
    ],
)
def test_wrong_values_are_refused_with_what_to_do(values: Values, words: str) -> None:
    with pytest.raises(helm_python.HelmError, match=re.escape(words)):
        texts(values)


@pytest.mark.parametrize("case", CASES)
def test_house_rules(case: str) -> None:
    found = objects(CASES[case])
    stateful, spec = one(found, "StatefulSet"), pod(CASES[case])
    assert spec["enableServiceLinks"] is False and spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
    mounts = {volume["name"] for volume in spec["volumes"]}
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]} and not context.get("privileged")
        assert container["resources"]["requests"] and container["resources"]["limits"]["memory"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= mounts
    # Secrets come as files, and no variable is set twice.
    names = [entry["name"] for entry in server(CASES[case])["env"]]
    assert len(names) == len(set(names)) and not [entry for entry in server(CASES[case])["env"] if "valueFrom" in entry]
    # The grace is enough to leave the balancer, to finish requests, and to end.
    drain = server(CASES[case])["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > drain + int(env(CASES[case])["CONFONNX_SHUTDOWN_GRACE"])
    # Every selector of pods selects these pods.
    labels = stateful["spec"]["template"]["metadata"]["labels"].items()
    selectors = [stateful["spec"]["selector"]["matchLabels"]]
    selectors += [x["spec"]["selector"] for x in found if x["kind"] == "Service"]
    selectors += [x["spec"]["selector"]["matchLabels"] for x in found if x["kind"] == "PodDisruptionBudget"]
    selectors += [x["spec"]["podSelector"]["matchLabels"] for x in found if x["kind"] == "NetworkPolicy"]
    assert len(selectors) == 5 and all(selector.items() <= labels for selector in selectors)
    assert all(x["metadata"]["namespace"] == "models" for x in found)


@pytest.mark.parametrize("case", CASES)
def test_probes_reach_the_admin_port(case: str) -> None:
    container = server(CASES[case])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    settings = env(CASES[case])
    assert settings["CONFONNX_ADMIN_PORT"] == str(ports["admin"]) and settings["CONFONNX_HTTP_PORT"] == str(ports["http"])
    # The node probes from outside of the pod.
    assert settings["CONFONNX_ADMIN_ADDRESS"] == "0.0.0.0"
    paths = {probe: container[probe]["httpGet"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert all(action["port"] == "admin" for action in paths.values())
    assert [action["path"] for action in paths.values()] == ["/health/live", "/health/live", "/health/ready"]


def test_peers_find_each_other_before_they_are_ready() -> None:
    found = objects({})
    headless = one(found, "Service", "confonnx-peers")
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"] is True
    assert one(found, "StatefulSet")["spec"]["serviceName"] == "confonnx-peers"
    assert env({})["CONFONNX_PEERS"] == "dns:confonnx-peers:8888" and env({})["CONFONNX_PEER_BOOTSTRAP"] == "ordinal"


def test_a_balancer_of_ones_own_can_ask_dns_for_ready_pods() -> None:
    service = one(objects({"service": {"headless": True}}), "Service", "confonnx")["spec"]
    assert service["clusterIP"] == "None" and not service.get("publishNotReadyAddresses")
    assert "clusterIP" not in one(objects({}), "Service", "confonnx")["spec"]


@pytest.mark.parametrize(
    ("values", "percent"),
    [
        ({}, None),
        (OLD_2020, "100"),
        (GATEWAY, "100"),
        ({"service": {"headless": True}}, "100"),
        ({"service": {"type": "LoadBalancer"}}, "100"),
        ({"maxPeerPercent": 25}, "25"),
        (merged(OLD_2020, {"maxPeerPercent": 50}), "50"),
    ],
)
def test_callers_that_share_an_address_are_not_held_to_half(values: Values, percent: str | None) -> None:
    assert env(values).get("CONFONNX_MAX_PEER_PERCENT") == percent


def test_values_of_2020_keep_their_meaning() -> None:
    found = objects(OLD_2020)
    assert one(found, "StatefulSet")["spec"]["replicas"] == 2 and server(OLD_2020)["image"] == OLD_2020["image"]
    ingress = one(found, "Ingress")
    annotations, [rule] = ingress["metadata"]["annotations"], ingress["spec"]["rules"]
    assert annotations["nginx.ingress.kubernetes.io/auth-secret"] == "api-auth"
    assert annotations["cert-manager.io/cluster-issuer"] == "letsencrypt-staging"
    assert rule["host"] == "models.example" and rule["http"]["paths"][0]["path"] == "/mymodel(/|$)(.*)"
    assert ingress["spec"]["tls"] == [{"hosts": ["models.example"], "secretName": "tls-secret"}]
    sgx = server({"sgx": {"epcMemInMiB": 10}, "tee": "sgx"})
    assert sgx["resources"]["limits"]["sgx.intel.com/epc"] == "10Mi"
    assert env({"useModelKeyProvisioning": True})["CONFONNX_USE_MODEL_KEY_PROVISIONING"] == "true"


def test_another_ingress_gets_no_annotations_of_nginx() -> None:
    ingress = one(objects({"urlPrefix": "/m", "ingress": {"className": "traefik"}}), "Ingress")
    assert not [name for name in ingress["metadata"]["annotations"] or {} if "nginx" in name]
    assert ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/m"


def test_a_change_of_the_peer_policy_restarts_pods() -> None:
    def checksum(policy: str) -> str:
        found = one(objects({"keys": {"peerPolicy": policy}}), "StatefulSet")
        value: str = found["spec"]["template"]["metadata"]["annotations"]["checksum/peers"]
        return value

    assert checksum("a = 1") != checksum("a = 2")


def test_large_numbers_are_written_out() -> None:
    assert env(EVERYTHING)["CONFONNX_MAX_REQUEST_BYTES"] == "134217728"


def test_every_value_is_in_the_schema_and_documented() -> None:
    """The schema refuses unknown keys, so the defaults' own keys and the schema's have to be the same."""
    import json

    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(schema: dict[str, Any], values: Values, path: str) -> None:
        if "properties" not in schema:
            return
        # The schema also has names of 2020, which are refused with an explanation, and Helm's own.
        known = set(schema["properties"]) - {"appId", "appPwd", "global"}
        assert known == set(values), f"{path}: {known ^ set(values)}"
        for key in known:
            if isinstance(values[key], dict):
                compare(schema["properties"][key], values[key], f"{path}.{key}")

    compare(schema, values, "")


def test_settings_are_the_servers_own() -> None:
    """Every variable that any case sets is one that the server reads."""
    source = (DEPLOY.parent / "crates/confonnx-server/src/config/settings.rs").read_text()
    known = set(re.findall(r'env = "(CONFONNX_[A-Z_]+)"', source))
    used = {name for case in CASES.values() for name in env(case) if name.startswith("CONFONNX_")}
    [runtime] = yaml.safe_load((DEPLOY / "kserve" / "runtime.yaml").read_text())["spec"]["containers"]
    used |= {entry["name"] for entry in runtime["env"]}
    assert used and used <= known, used - known


def test_notes_name_the_commands_with_the_hash() -> None:
    notes = next(text for path, text in texts(EVERYTHING).items() if path.endswith("NOTES.txt"))
    assert f"confonnx verify --url https://models.example/mymodel --enclave-hash HASH --enclave-model-hash {'00' * 32}" in notes
    assert "confonnx predict" in notes
    insecure = next(text for path, text in texts(preset("plain")).items() if path.endswith("NOTES.txt"))
    assert "NOTHING IS CONFIDENTIAL" in insecure and "--enclave-allow-debug" in insecure
