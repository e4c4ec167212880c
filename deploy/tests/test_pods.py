"""The rendered chart, really run: pods with keys of their own behind nginx and Envoy, which die, are updated and renew their
keys under load. No answer is wrong; what is lost is at most what was under way when a server was killed."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
import shlex
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Iterator

import ingress
import numpy as np
import pytest
from chart import Object, Values, merged, objects, one, preset, texts
from confonnx.client import Client
from confonnx.exceptions import AttestationError, AuthError, ServerError
from programs import TARGET, VOLUME, digits
from load import CLIENTS, Load
from pods import PATIENCE, StatefulSet, make_volume, podman

ROLLOVER = 10
CONNECTIONS = 64


def command(*arguments: str) -> str:
    return subprocess.run([TARGET / "confonnx", *arguments], check=True, capture_output=True, text=True).stdout


def values(reference: str, **more: object) -> Values:
    found = re.search(r"[0-9a-f]{64}", command("hash-model", str(digits.MODEL)))
    assert found
    chosen: Values = {
        "image": reference,
        "imagePullPolicy": "Never",
        "model": {"name": "digits", "path": "/models/digits.onnx", "hash": found[0], "from": {"claim": VOLUME}},
        "keys": {"rollover": ROLLOVER, "grace": ROLLOVER - 1},
        "settings": {
            "CONFONNX_KEY_SYNC_INTERVAL": 5,
            "CONFONNX_KEY_ERROR_RETRY_INTERVAL": 1,
            "CONFONNX_MAX_CONNECTIONS": CONNECTIONS,
        },
        # As before an Envoy of one's own: the Service's name has the pods' addresses, and all callers have Envoy's address.
        "service": {"headless": True},
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
        "drain": 3,
    }
    return merged(preset("plain"), chosen, more)


@pytest.fixture(scope="module")
def release(built: tuple[str, str]) -> Values:
    return values(built[0])


@pytest.fixture(scope="module")
def pods(release: Values, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StatefulSet]:
    """One release for all tests of this file, each of which leaves it whole."""
    found = StatefulSet(objects(release), tmp_path_factory.mktemp("pods"))
    try:
        found.start_all()
        yield found
    finally:
        found.remove()


def changed(pods: StatefulSet, *, reference: str | None = None, level: str | None = None) -> Object:
    """The template of an update: another image, or just another log level."""
    template: Object = copy.deepcopy(pods.object["spec"]["template"])
    [container] = template["spec"]["containers"]
    container["image"] = reference or container["image"]
    container["env"] = [entry for entry in container["env"] if entry["name"] != "CONFONNX_LOG_LEVEL"]
    container["env"] += [{"name": "CONFONNX_LOG_LEVEL", "value": level}] if level else []
    return template


def test_the_pod_is_what_was_rendered(pods: StatefulSet) -> None:
    found = pods.inspect(0)
    assert found["Config"]["User"] == "65532:65532" and found["HostConfig"]["ReadonlyRootfs"] is True
    assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"] and found["EffectiveCaps"] in (None, [])
    assert found["HostConfig"]["Memory"] == 1 << 30
    # The first server made the secret, the others joined; none warned of variables that are no settings.
    assert "made the first secret" in pods.log(0)
    assert all("joined group" in pods.log(ordinal) for ordinal in (1, 2))
    assert not [line for n in pods.ordinals for line in pods.log(n).splitlines() if "no setting has that name" in line]


def test_the_commands_of_notes_work(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    (tmp_path / "input.json").write_text((digits.HERE / "samples" / "digit_7.json").read_text())
    notes = next(text for path, text in texts(release).items() if path.endswith("NOTES.txt"))
    commands = re.findall(r"^    (confonnx (?:verify|predict) .*)$", notes, re.M)
    assert len(commands) == 2
    outputs = []
    for line in commands:
        # There is no `kubectl port-forward` here, so the pod's own address is asked.
        words = shlex.split(line.replace("http://127.0.0.1:8888", f"http://{pods.address(1)}:8888"))
        done = subprocess.run([TARGET / words[0], *words[1:]], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    assert "probabilities" in outputs[1]


def test_what_scales_and_watches_pods_finds_its_metrics(pods: StatefulSet, release: Values) -> None:
    found = objects(merged(release, {"autoscaling": {"enabled": True, "queue": 4}, "serviceMonitor": {"enabled": True}}))
    monitor, scaler = one(found, "ServiceMonitor")["spec"], one(found, "HorizontalPodAutoscaler")["spec"]
    [service] = [x for x in found if x["kind"] == "Service" and monitor["selector"]["matchLabels"].items() <= x["metadata"]["labels"].items()]
    [endpoint] = monitor["endpoints"]
    [port] = [port["port"] for port in service["spec"]["ports"] if port["name"] == endpoint["port"]]
    [wanted] = [metric["pods"]["metric"]["name"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    for ordinal in pods.ordinals:
        with urllib.request.urlopen(f"http://{pods.address(ordinal)}:{port}{endpoint['path']}", timeout=PATIENCE) as answer:
            assert re.search(rf"^{wanted} [0-9]+$", answer.read().decode(), re.M)
    # The scaler's percentage is of the CPU that is requested, so some has to be.
    [container] = pods.object["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"]


def test_callers_behind_one_address_have_all_connections(pods: StatefulSet) -> None:
    """One address, as of an ingress, holds more than half of the connections that there may be, and one of them is answered."""
    with contextlib.ExitStack() as stack:
        address = (pods.address(1), pods.port("http"))
        held = [stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(CONNECTIONS * 3 // 4)]
        held[-1].sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = held[-1].recv(1 << 16)
        assert b"connections-full" not in answer and answer.startswith(b"HTTP/1.1 "), answer


def test_no_request_is_lost_but_those_of_killed_servers(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        fronts = [ingress.Nginx(pods, tmp_path), ingress.Envoy(pods, tmp_path)]
        for before in fronts:
            stack.callback(before.stop)
        loads = [Load(before.url, enclave_model_hash=release["model"]["hash"]) for before in fronts]

        def until(more: int) -> None:
            for load in loads:
                load.until(more)

        def report(what: str, kills: int) -> None:
            for before, load in zip(fronts, loads):
                load.report(f"{type(before).__name__}, {what}", kills)

        with contextlib.ExitStack() as asking:
            for load in loads:
                asking.enter_context(load)
            # A rolling update and rollovers in it: nothing is lost.
            until(50)
            pods.roll(changed(pods, level="warning"))
            for load in loads:
                load.until_rollovers(2)
            until(50)
            report("a rolling update", 0)
            assert all(load.lost == [] and load.wrong == 0 for load in loads), [load.lost for load in loads]
            # A killed server costs the requests that it had under way, at most one for each client.
            for ordinal in pods.ordinals:
                restarts = pods.inspect(ordinal)["RestartCount"]
                pods.kill(ordinal)
                until(50)
                pods.wait_restarted(ordinal, restarts)
                pods.wait_ready(ordinal)
            # A pod that is gone for good comes back and joins the group that there is, also the one that may make secrets.
            pods.lose(0)
            until(50)
            pods.start(0)
            pods.wait_ready(0)
            for before in fronts:
                before.wait_told()
            until(50)
        kills = pods.replicas + 1
        report("then killed servers", kills)
        for load in loads:
            assert load.wrong == 0 and len(load.lost) <= kills * CLIENTS, load.lost


def test_a_drained_node_costs_nothing(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    """Two pods were on the node: by the budget they go one after the other."""
    before = ingress.Envoy(pods, tmp_path)
    try:
        with Load(before.url, enclave_model_hash=release["model"]["hash"]) as load:
            load.until(50)
            pods.drain(2, 0)
            for ordinal in pods.ordinals:
                pods.wait_ready(ordinal)
            load.until(50)
        load.report("Envoy, a drained node")
        assert load.lost == [] and load.wrong == 0, load.lost
    finally:
        before.stop()


def measurement(client: Client) -> str:
    return next(check.found for check in client.attest().checks if check.name == "enclave hash")


def test_another_measurement(pods: StatefulSet, release: Values, built: tuple[str, str], tmp_path: Path) -> None:
    """The group does not let another program in; a second release takes over while clients accept both, then one."""
    model = release["model"]["hash"]
    with Client(f"http://{pods.address(0)}:8888", enclave_allow_debug=True, enclave_model_hash=model) as client:
        old = measurement(client)
    before = ingress.Envoy(pods, tmp_path)
    second = StatefulSet(objects(values(built[1], replicas=1), "next"), tmp_path, "10.89.214")
    try:
        second.start_all()
        with Client(f"http://{second.address(0)}:8888", enclave_allow_debug=True, enclave_model_hash=model) as client:
            new = measurement(client)
        assert new != old
        with Load(before.url, enclave_hash=[old, new], enclave_model_hash=model) as load:
            load.until(50)
            # An update in place stops at its first pod, and the others go on.
            template = pods.object["spec"]["template"]
            pods.stop(2)
            pods.object["spec"]["template"] = changed(pods, reference=built[1])
            pods.start(2)
            pods.wait_said(2, "enclave hash")
            assert 2 not in pods.endpoints()
            load.until(50)
            # The update is taken back.
            pods.lose(2)
            pods.object["spec"]["template"] = template
            pods.start(2)
            pods.wait_ready(2)
            # All traffic moves to the other release.
            before.pods = second
            deadline = time.monotonic() + PATIENCE
            while measurement(load.client()) != new:
                assert time.monotonic() < deadline
            load.until(50)
        load.report("Envoy, another measurement")
        assert load.lost == [] and load.wrong == 0, load.lost
        # Then clients accept the new measurement alone.
        sample = digits.images()[:1]
        Client(before.url, enclave_allow_debug=True, enclave_hash=new).predict({"image": sample})
        with pytest.raises(AttestationError, match="enclave hash"):
            Client(before.url, enclave_allow_debug=True, enclave_hash=old).predict({"image": sample})
    finally:
        before.stop()
        second.remove()


def test_a_group_of_two_measurements_is_updated_in_place(built: tuple[str, str], tmp_path: Path) -> None:
    """The group's policy names both measurements from the start, and clients have to name that policy."""
    program = (TARGET / "confonnx-server").read_bytes()
    both = [hashlib.sha256(found).hexdigest() for found in (program, program + b"\n")]
    policy = f"allow_debug = true\nenclave_hashes = {json.dumps(both)}\n"
    pods = StatefulSet(objects(values(built[0], replicas=2, keys={"peerPolicy": policy}), "two"), tmp_path, "10.89.218")
    before = None
    try:
        pods.start_all()
        said = subprocess.run(
            [TARGET / "confonnx", "verify", "--url", f"http://{pods.address(0)}:8888", "--enclave-allow-debug"],
            capture_output=True,
            text=True,
        )
        found = re.findall(r"peer policy ([0-9a-f]{64})", said.stdout + said.stderr)
        assert said.returncode and found, said.stdout + said.stderr
        file = tmp_path / "policy.toml"
        file.write_text(f'{policy}peer_policy_sha256 = ["{found[-1]}"]\n')
        before = ingress.Envoy(pods, tmp_path)
        with Load(before.url, policy=file) as load:
            load.until(50)
            pods.roll(changed(pods, reference=built[1]))
            load.until(50)
        load.report("Envoy, two measurements in one group")
        assert load.lost == [] and load.wrong == 0, load.lost
        file.write_text(file.read_text().replace(both[0], "0" * 64))
        assert measurement(Client(before.url, policy=file)) == both[1]
    finally:
        if before:
            before.stop()
        pods.remove()


def test_a_caller_who_asks_too_often_is_refused_alone(built: tuple[str, str], tmp_path: Path) -> None:
    tokens = {name: dict(re.findall(r"^(\w+) +(\S+)", command("create-token"), re.M)) for name in ("busy", "calm")}
    policy = "".join(
        f'[[caller]]\nname = "{name}"\ntoken_sha256 = "{token["token_sha256"]}"\n'
        + ("requests_per_minute = 1\nburst = 3\n" if name == "busy" else "")
        for name, token in tokens.items()
    )
    (tmp_path / "auth.toml").write_text(policy)
    make_volume("callers", tmp_path, "auth.toml")
    chosen = values(built[0], replicas=1, auth={"fileSecret": "callers", "audit": True})
    chosen["keys"]["provider"] = "local"
    pods = StatefulSet(objects(chosen, "limits"), tmp_path, "10.89.215")
    try:
        pods.start_all()
        url, sample = f"http://{pods.address(0)}:8888", digits.images()[:1]

        def asking(name: str) -> Client:
            return Client(url, auth_key=tokens[name]["token"], enclave_allow_debug=True, retries=0)

        busy, calm = asking("busy"), asking("calm")
        answered = 0
        with pytest.raises(ServerError) as refused:
            for _ in range(4):
                busy.predict({"image": sample})
                answered += 1
        assert refused.value.code == "rate-limited" and refused.value.retry_after and 1 <= answered <= 3
        for _ in range(10):
            calm.predict({"image": sample})
        with pytest.raises(AuthError):
            Client(url, auth_key="cfx_wrong", enclave_allow_debug=True).predict({"image": sample})
        # The operator sees who was refused and why.
        pods.wait_said(0, '"outcome":"rate-limited"')
        assert '"caller":"busy"' in pods.log(0)
    finally:
        pods.remove()
        podman("volume", "rm", "--force", "callers", check=False)


def test_after_all_died_clients_go_on_by_themselves(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    before = ingress.Envoy(pods, tmp_path)
    try:
        client = Client(before.url, enclave_allow_debug=True, enclave_model_hash=release["model"]["hash"])
        sample = digits.images()[:1]
        expected = client.predict({"image": sample})["probabilities"]
        for ordinal in pods.ordinals:
            pods.lose(ordinal)
        pods.start_all()
        before.wait_told()
        # The pods are another group with other keys: the client attests it and asks again.
        assert np.array_equal(client.predict({"image": sample})["probabilities"], expected)
    finally:
        before.stop()
