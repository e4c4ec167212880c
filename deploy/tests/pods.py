"""What Kubernetes does with the chart's StatefulSet, by podman: pods with ordinals, names and peers' addresses, probes, restarts, rolling updates.

A node's own part is real (containers with the rendered pod's user, mounts, variables, limits); the controllers' part is this file.
"""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Sequence

import yaml
from chart import Object, one

HERE = Path(__file__).resolve().parent
# Enough for a machine that has much else to do; where all is well nothing waits so long.
PATIENCE = 120.0


def podman(*arguments: str, check: bool = True, stdin: bytes | None = None) -> str:
    environment = {**os.environ, "CONTAINERS_CONF": str(HERE / "containers.conf")}
    done = subprocess.run(["podman", *arguments], env=environment, input=stdin, capture_output=True, timeout=PATIENCE)
    if check and done.returncode:
        raise AssertionError(f"podman {' '.join(arguments)}: {done.stderr.decode()}")
    return done.stdout.decode().strip()


def make_volume(name: str, folder: Path, *files: str) -> None:
    podman("volume", "rm", "--force", name, check=False)
    podman("volume", "create", name)
    # Files belong to the user that the container runs as, as if that user had filled the volume.
    owner = ["--owner", "65532", "--group", "65532", "--numeric-owner"]
    packed = subprocess.run(["tar", "-C", str(folder), *owner, "-c", *files], check=True, capture_output=True)
    podman("volume", "import", name, "-", stdin=packed.stdout)


def status(url: str, timeout: float = 2) -> int | None:
    """The status of a GET; None if nothing answers."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class StatefulSet:
    """The pods of one release on a network of its own."""

    def __init__(self, found: list[Object], folder: Path, subnet: str = "10.89.213", others: Sequence[Object] = ()) -> None:
        """`others` are ConfigMaps of the namespace that the chart does not make."""
        self.object = one(found, "StatefulSet")
        self.subnet = subnet
        self._given = [x for x in [*found, *others] if x["kind"] == "ConfigMap"]
        self._budget = one(found, "PodDisruptionBudget")
        self.name: str = self.object["metadata"]["name"]
        self.peers: str = self.object["spec"]["serviceName"]
        self.replicas: int = self.object["spec"]["replicas"]
        # The Service that selects every pod, ready or not, gives the pods' names addresses.
        headless = one(found, "Service", self.peers)
        assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["publishNotReadyAddresses"]
        self.folder = folder
        self.ending: set[int] = set()
        self.network = f"{self.name}-test"
        # Removes what an earlier run left that was ended.
        self.remove()
        podman("network", "create", "--subnet", f"{subnet}.0/24", self.network)

    @property
    def ordinals(self) -> range:
        return range(self.replicas)

    def address(self, ordinal: int) -> str:
        return f"{self.subnet}.{10 + ordinal}"

    def port(self, name: str) -> int:
        ports = self._container()["ports"]
        return next(int(port["containerPort"]) for port in ports if port["name"] == name)

    def start_all(self) -> None:
        for ordinal in self.ordinals:
            self.start(ordinal)
        for ordinal in self.ordinals:
            self.wait_ready(ordinal)

    def start(self, ordinal: int) -> None:
        """Makes the pod from the template as it is now."""
        template = copy.deepcopy(self.object["spec"]["template"])
        spec = template["spec"]
        # Probes are the node's: see `probe`. podman would make health checks of them that need curl in the image, and publish
        # ports on this machine.
        for container in spec["containers"]:
            for key in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"):
                container.pop(key, None)
        name = f"{self.name}-{ordinal}"
        # Those that run first are started one by one below: podman 4 waits twenty seconds for one that has ended.
        first = spec.pop("initContainers", [])
        spec["containers"] = [*first, *spec["containers"]]
        # podman knows an empty folder by its name alone, and would share it between pods.
        empty = {volume["name"] for volume in spec["volumes"] if "emptyDir" in volume}
        for entry in [*spec["volumes"], *(mount for c in spec["containers"] for mount in c["volumeMounts"])]:
            if entry["name"] in empty:
                entry["name"] = f"{name}-{entry['name']}"
        for volume in spec["volumes"]:
            # podman 4 reads Secrets in a form of its own: here a volume of the Secret's name has its files.
            if secret := volume.pop("secret", None):
                volume["persistentVolumeClaim"] = {"claimName": secret["secretName"]}
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": template["metadata"]["labels"]},
            "spec": {**spec, "hostname": name, "subdomain": self.peers, "restartPolicy": "Never" if first else "Always"},
        }
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump_all([*self._given, pod]))
        network = f"{self.network}:alias={self.peers},ip={self.address(ordinal)}"
        podman("kube", "play", f"--start={not first}".lower(), "--network", network, str(file))
        for container in first:
            podman("start", "--attach", f"{name}-{container['name']}")
        if first:
            podman("start", f"{name}-{self._container()['name']}")

    def stop(self, ordinal: int) -> None:
        """Ends a pod as when it is deleted: it is no endpoint any more; preStop, the signal, the grace, the end."""
        self.ending.add(ordinal)
        container = self._container()
        time.sleep(container["lifecycle"]["preStop"]["sleep"]["seconds"])
        grace = self.object["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        podman("pod", "stop", "--time", str(grace), f"{self.name}-{ordinal}")
        podman("pod", "rm", "--force", f"{self.name}-{ordinal}")
        self.ending.discard(ordinal)

    def endpoints(self) -> list[int]:
        """The pods to which the Service leads: those that are ready and not about to end."""
        return [n for n in self.ordinals if n not in self.ending and self.probe(n, "readinessProbe")]

    def evictable(self) -> bool:
        """Whether the PodDisruptionBudget lets a pod go now; else the API server answers 429, and `kubectl drain` asks again."""
        spec, labels = self._budget["spec"], self.object["spec"]["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        unavailable: int = self.replicas - len(self.endpoints())
        return unavailable < int(spec["maxUnavailable"])

    def drain(self, *ordinals: int) -> None:
        """Drains the node that these pods are on, as `kubectl drain` does; each pod then starts on another.

        While a pod is away, the budget lets no second one go.
        """
        for ordinal in ordinals:
            deadline = time.monotonic() + PATIENCE
            while not self.evictable():
                assert time.monotonic() < deadline, f"{self.name}-{ordinal} is never let go"
                time.sleep(0.2)
            self.stop(ordinal)
            assert not self.evictable(), f"another pod could go while {self.name}-{ordinal} is away"
            self.start(ordinal)

    def kill(self, ordinal: int) -> None:
        """Kills the server by SIGKILL; the node starts the container again."""
        # The signal is not sent by podman, which would take it for an order to stop.
        os.kill(int(self.inspect(ordinal)["State"]["Pid"]), signal.SIGKILL)

    def lose(self, ordinal: int) -> None:
        """Removes the pod with all that it had, as when its node is gone."""
        podman("pod", "rm", "--force", "--time", "0", f"{self.name}-{ordinal}")

    def probe(self, ordinal: int, kind: str) -> bool:
        """Whether the pod answers the probe of that kind, as the node would ask."""
        action = self._container()[kind]["httpGet"]
        return status(f"http://{self.address(ordinal)}:{self.port(action['port'])}{action['path']}") == 200

    def wait_ready(self, ordinal: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self.probe(ordinal, "readinessProbe"):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.name}-{ordinal} is not ready: {self.log(ordinal)}")
            time.sleep(0.2)
        assert self.probe(ordinal, "livenessProbe") and self.probe(ordinal, "startupProbe")

    def wait_said(self, ordinal: int, words: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while words not in (log := self.log(ordinal)):
            assert time.monotonic() < deadline, f"{self.name}-{ordinal} does not say {words!r}: {log}"
            time.sleep(0.2)

    def wait_restarted(self, ordinal: int, restarts: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.inspect(ordinal)["RestartCount"] <= restarts:
            assert time.monotonic() < deadline, f"{self.name}-{ordinal} was not started again"
            time.sleep(0.2)

    def roll(self, template: Object) -> None:
        """Updates the pods to another template: from the highest ordinal, each ready before the next."""
        self.object["spec"]["template"] = template
        for ordinal in reversed(self.ordinals):
            self.stop(ordinal)
            self.start(ordinal)
            self.wait_ready(ordinal)

    def log(self, ordinal: int) -> str:
        done = subprocess.run(["podman", "logs", self._container_name(ordinal)], capture_output=True, text=True)
        return done.stdout + done.stderr

    def inspect(self, ordinal: int) -> Object:
        [found] = json.loads(podman("inspect", self._container_name(ordinal)))
        return dict(found)

    def remove(self) -> None:
        for ordinal in self.ordinals:
            podman("pod", "rm", "--force", "--time", "0", f"{self.name}-{ordinal}", check=False)
        podman("network", "rm", "--force", self.network, check=False)
        # podman makes a volume of each ConfigMap.
        for given in self._given:
            podman("volume", "rm", "--force", given["metadata"]["name"], check=False)

    def _container_name(self, ordinal: int) -> str:
        return f"{self.name}-{ordinal}-server"

    def _container(self) -> Object:
        [container] = self.object["spec"]["template"]["spec"]["containers"]
        return dict(container)
