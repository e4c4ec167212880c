"""The pod of docs/samples, in which a program has a proxy beside it."""

from __future__ import annotations

import kubernetes_validate
import yaml
from chart import DEPLOY

POD = DEPLOY.parent / "docs" / "samples" / "proxy" / "pod.yaml"


def test_the_pod_is_one_and_its_proxy_is_there_first() -> None:
    pod = yaml.safe_load(POD.read_text())
    kubernetes_validate.validate(pod, kubernetes_validate.latest_version(), strict=True)
    [proxy] = pod["spec"]["initContainers"]
    assert proxy["restartPolicy"] == "Always"
    # Programs outside of the pod cannot reach the proxy: it listens at the default address, which is loopback.
    assert "--listen" not in proxy["command"] and "ports" not in proxy
