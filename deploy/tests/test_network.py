"""Who reaches whom by the rendered NetworkPolicy, by Kubernetes' rules for it: what a policy selects is closed but for what it names."""

from __future__ import annotations

from typing import Any

import pytest
from chart import Object, Values, objects, one
from test_chart import EVERYTHING, GATEWAY, OLD_2020

Labels = dict[str, str]
NAMESPACE = "kubernetes.io/metadata.name"


def matches(selector: Object | None, labels: Labels) -> bool:
    assert selector is None or set(selector) <= {"matchLabels"}
    wanted: Labels = (selector or {}).get("matchLabels", {})
    return wanted.items() <= labels.items()


def allowed(values: Values, direction: str, port: int, namespace: str, labels: Labels, protocol: str = "TCP") -> bool:
    """`direction` is ingress (from the one that is described) or egress (to it)."""
    found = objects(values)
    pod = one(found, "StatefulSet")["spec"]["template"]
    policy = one(found, "NetworkPolicy")["spec"]
    assert matches(policy["podSelector"], pod["metadata"]["labels"]) and set(policy["policyTypes"]) == {"Ingress", "Egress"}
    names = {p["name"]: p["containerPort"] for p in pod["spec"]["containers"][0]["ports"]}

    def port_fits(rule: Object) -> bool:
        given: list[Any] = rule.get("ports", [])
        return not given or any(names.get(p["port"], p["port"]) == port and p.get("protocol", "TCP") == protocol for p in given)

    def peer_fits(rule: Object) -> bool:
        given: list[Any] = rule.get("from" if direction == "ingress" else "to", [])
        return not given or any(
            # Without a selector of namespaces a rule means the policy's own namespace.
            (matches(p["namespaceSelector"], {NAMESPACE: namespace}) if "namespaceSelector" in p else namespace == "models")
            and matches(p.get("podSelector"), labels)
            for p in given
            if "ipBlock" not in p
        )

    return any(port_fits(rule) and peer_fits(rule) for rule in policy.get(direction, []))


OWN = {"app.kubernetes.io/name": "confonnx", "app.kubernetes.io/instance": "confonnx", "app.kubernetes.io/version": "x"}
OTHER = {"app": "other"}


@pytest.mark.parametrize("values", [{}, OLD_2020, GATEWAY, EVERYTHING], ids=["default", "2020", "gateway", "everything"])
def test_peers_reach_each_other_and_what_they_need(values: Values) -> None:
    assert allowed(values, "ingress", 8888, "models", OWN) and allowed(values, "egress", 8888, "models", OWN)
    assert allowed(values, "egress", 53, "kube-system", {}, "UDP") and allowed(values, "egress", 443, "elsewhere", OTHER)
    assert not allowed(values, "egress", 80, "elsewhere", OTHER) and not allowed(values, "egress", 8888, "models", OTHER)
    # Pods of another release are no peers.
    assert not allowed(values, "egress", 8888, "models", {**OWN, "app.kubernetes.io/instance": "other"})


def test_who_asks_and_who_reads_metrics() -> None:
    assert allowed({}, "ingress", 8888, "elsewhere", OTHER)
    assert not allowed({}, "ingress", 8889, "elsewhere", OTHER) and not allowed({}, "ingress", 8889, "models", OWN)
    assert allowed(EVERYTHING, "ingress", 8888, "ingress-nginx", OTHER) and not allowed(EVERYTHING, "ingress", 8888, "elsewhere", OTHER)
    assert allowed(EVERYTHING, "ingress", 8889, "monitoring", OTHER) and not allowed(EVERYTHING, "ingress", 8889, "ingress-nginx", OTHER)
