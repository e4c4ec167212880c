"""The rules that kube-linter, Polaris and Checkov are known for, on every rendered preset and case, by their names there.

A rule that a case breaks on purpose is in `MEANT`, with the reason. That each rule can fail is a test, too."""

from __future__ import annotations

import copy
from typing import Any, Callable, Iterator

import pytest
from chart import Object, objects, one
from test_chart import CASES

Found = list[Object]
ROOT = "configfs, which evidence comes from, is root's in the container"
MEANT = {
    ("run-as-non-root", "preset-coco"): ROOT,
    ("run-as-non-root", "preset-eks"): ROOT,
    ("run-as-non-root", "preset-gke"): ROOT,
    ("latest-tag", "2020"): "the image of that chart's documentation, as it was given",
    ("latest-tag", "everything"): "the image of that chart's documentation, as it was given",
    ("minimum-three-replicas", "2020"): "replicas as they were given",
    ("minimum-three-replicas", "everything"): "an autoscaler decides",
}
# What may be seen of the node: sockets and devices that evidence comes from.
HOST_PATHS = ("/var/run/aesmd", "/dev/", "/sys/kernel/config", "/sys/kernel/security")


def pod(found: Found) -> Object:
    spec: Object = one(found, "StatefulSet")["spec"]["template"]["spec"]
    return spec


def containers(found: Found) -> Found:
    return [*pod(found)["containers"], *pod(found).get("initContainers", [])]


def kind(found: Found, name: str) -> Iterator[Object]:
    return (x["spec"] for x in found if x["kind"] == name)


def labels(found: Found) -> Any:
    return one(found, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()


def names_of_ports(found: Found) -> set[object]:
    ports = [port for container in containers(found) for port in container.get("ports", [])]
    return {port["name"] for port in ports} | {port["containerPort"] for port in ports}


def probes(found: Found) -> Iterator[tuple[str, Object]]:
    return ((name, probe) for name, probe in pod(found)["containers"][0].items() if name.endswith("Probe"))


def non_root(found: Found) -> bool:
    context = pod(found)["securityContext"]
    return bool(context.get("runAsNonRoot")) and context.get("runAsUser", 0) >= 10000


def services(found: Found) -> set[str]:
    return {x["metadata"]["name"] for x in found if x["kind"] == "Service"}


def ingress_services(found: Found) -> list[str]:
    of_ingress = [
        path["backend"]["service"]["name"] for spec in kind(found, "Ingress") for rule in spec["rules"] for path in rule["http"]["paths"]
    ]
    routes = [ref["name"] for spec in kind(found, "HTTPRoute") for rule in spec["rules"] for ref in rule["backendRefs"]]
    return of_ingress + routes


RULES: dict[str, Callable[[Found], bool]] = {
    "run-as-non-root": non_root,
    "latest-tag": lambda f: all(not c["image"].endswith(":latest") and (":" in c["image"]) for c in containers(f)),
    "minimum-three-replicas": lambda f: one(f, "StatefulSet")["spec"].get("replicas", 0) >= 3,
    "hpa-minimum-three-replicas": lambda f: all(spec["minReplicas"] >= 3 for spec in kind(f, "HorizontalPodAutoscaler")),
    "dangling-horizontalpodautoscaler": lambda f: all(
        spec["scaleTargetRef"]["name"] == one(f, "StatefulSet")["metadata"]["name"] for spec in kind(f, "HorizontalPodAutoscaler")
    ),
    "pdb-max-unavailable": lambda f: all(spec.get("maxUnavailable") not in (0, "0%") for spec in kind(f, "PodDisruptionBudget")),
    "missing-pod-disruption-budget": lambda f: any(True for _ in kind(f, "PodDisruptionBudget")),
    "no-rolling-update-strategy": lambda f: one(f, "StatefulSet")["spec"]["updateStrategy"]["type"] == "RollingUpdate",
    "no-anti-affinity": lambda f: bool(pod(f).get("topologySpreadConstraints")),
    "non-isolated-pod": lambda f: any(spec["podSelector"]["matchLabels"].items() <= labels(f) for spec in kind(f, "NetworkPolicy")),
    "dangling-service": lambda f: all(spec["selector"].items() <= labels(f) for spec in kind(f, "Service")),
    "dangling-ingress": lambda f: set(ingress_services(f)) <= services(f),
    "invalid-target-ports": lambda f: all(
        port["targetPort"] in names_of_ports(f) for spec in kind(f, "Service") for port in spec["ports"]
    ),
    "exposed-services": lambda f: all(spec.get("type", "ClusterIP") == "ClusterIP" for spec in kind(f, "Service")),
    "probe-port": lambda f: all(probe["httpGet"]["port"] in names_of_ports(f) for _, probe in probes(f)),
    "no-liveness-and-readiness-probe": lambda f: {name for name, _ in probes(f)}
    == {"startupProbe", "livenessProbe", "readinessProbe"},
    "privileged-ports": lambda f: all(p["containerPort"] > 1024 for c in containers(f) for p in c.get("ports", [])),
    "no-read-only-root-fs": lambda f: all(c["securityContext"]["readOnlyRootFilesystem"] for c in containers(f)),
    "privilege-escalation-container": lambda f: all(
        c["securityContext"]["allowPrivilegeEscalation"] is False and not c["securityContext"].get("privileged") for c in containers(f)
    ),
    "drop-net-raw-capability": lambda f: all(c["securityContext"]["capabilities"] == {"drop": ["ALL"]} for c in containers(f)),
    "seccomp-profile": lambda f: pod(f)["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault",
    "host-namespaces": lambda f: not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(f)),
    "unsafe-sysctls": lambda f: "sysctls" not in pod(f)["securityContext"],
    "unset-memory-requirements": lambda f: all(
        {"cpu", "memory"} <= set(c["resources"]["requests"]) and "memory" in c["resources"]["limits"] for c in containers(f)
    ),
    "sensitive-host-mounts": lambda f: all(
        volume["hostPath"]["path"].startswith(HOST_PATHS) for volume in pod(f)["volumes"] if "hostPath" in volume
    ),
    "duplicate-env-var": lambda f: all(
        len({e["name"] for e in c.get("env", [])}) == len(c.get("env", [])) for c in containers(f)
    ),
    "env-value-from": lambda f: not [e for c in containers(f) for e in c.get("env", []) if "valueFrom" in e],
    "service-account-token": lambda f: pod(f)["automountServiceAccountToken"] is False,
    "access-to-secrets": lambda f: not [x for x in f if "Role" in x["kind"]],
    "use-namespace": lambda f: all(x["metadata"]["namespace"] not in ("", "default") for x in f),
}


@pytest.mark.parametrize("case", CASES)
def test_rules(case: str) -> None:
    found = objects(CASES[case])
    broken = {name for name, rule in RULES.items() if not rule(found)}
    assert broken == {rule for rule, meant in MEANT if meant == case}


def break_it(found: Found) -> None:
    """Everything that a rule forbids."""
    stateful = one(found, "StatefulSet")
    stateful["spec"]["replicas"], stateful["spec"]["updateStrategy"] = 1, {"type": "OnDelete"}
    stateful["metadata"] |= {"name": "other", "namespace": "default"}
    spec = pod(found)
    spec |= {"hostNetwork": True, "automountServiceAccountToken": True, "topologySpreadConstraints": []}
    spec["securityContext"] = {"runAsUser": 0, "seccompProfile": {"type": "Unconfined"}, "sysctls": [{"name": "a", "value": "1"}]}
    spec["volumes"].append({"name": "x", "hostPath": {"path": "/etc"}})
    server = spec["containers"][0]
    server |= {"image": "x:latest", "env": [{"name": "A", "valueFrom": {}}] * 2, "resources": {"requests": {}, "limits": {}}}
    server["securityContext"] = {
        "readOnlyRootFilesystem": False,
        "allowPrivilegeEscalation": True,
        "capabilities": {"add": ["NET_RAW"]},
    }
    server["ports"] = [{"name": "ssh", "containerPort": 22}]
    server.pop("startupProbe")
    stateful["spec"]["template"]["metadata"]["labels"] = {}
    for x in found:
        if x["kind"] == "Service":
            x["spec"]["type"], x["metadata"]["name"] = "NodePort", "other"
        if x["kind"] == "HorizontalPodAutoscaler":
            x["spec"]["minReplicas"] = 1
    found[:] = [x for x in found if x["kind"] != "PodDisruptionBudget"] + [{"kind": "RoleBinding", "metadata": {"namespace": "default"}}]


def test_every_rule_can_be_broken() -> None:
    found = copy.deepcopy(objects(CASES["everything"]))
    break_it(found)
    assert {name for name, rule in RULES.items() if rule(found)} == {"pdb-max-unavailable"}
    budget = copy.deepcopy(objects({}))
    one(budget, "PodDisruptionBudget")["spec"]["maxUnavailable"] = 0
    assert not RULES["pdb-max-unavailable"](budget)


def test_every_exception_is_of_a_rule_and_a_case() -> None:
    assert {rule for rule, _ in MEANT} <= set(RULES) and {case for _, case in MEANT} <= set(CASES)
