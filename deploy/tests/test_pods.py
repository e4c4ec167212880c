"""The rendered chart, really run: three pods with keys of their own behind nginx, which die, are updated and renew their keys
under load. No answer is wrong; what is lost is at most what was under way when a server was killed."""

from __future__ import annotations

import copy
import os
import re
import shlex
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator

import image
import ingress
import numpy as np
import pytest
from chart import DEPLOY, Values, merged, objects, preset, texts
from confonnx.client import Client
from pods import StatefulSet, podman

ROOT = DEPLOY.parent
sys.path.insert(0, str(ROOT / "examples" / "digits"))

import digits  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
CLIENTS = 4
ROLLOVER = 10
VOLUME = "confonnx-test-models"


def values(reference: str) -> Values:
    command = [str(TARGET / "confonnx"), "hash-model", str(digits.MODEL)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"[0-9a-f]{64}", output)
    assert found, output
    chosen: Values = {
        "image": reference,
        "imagePullPolicy": "Never",
        "model": {"name": "digits", "path": "/models/digits.onnx", "hash": found[0], "from": {"claim": VOLUME}},
        "keys": {"rollover": ROLLOVER, "grace": ROLLOVER - 1},
        "settings": {"CONFONNX_KEY_SYNC_INTERVAL": 5, "CONFONNX_KEY_ERROR_RETRY_INTERVAL": 1},
        "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
        "drain": 1,
    }
    return merged(preset("plain"), chosen)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Values]:
    """The chart's values, with an image and a volume that exist. `CONFONNX_IMAGE` names another image."""
    reference = os.environ.get("CONFONNX_IMAGE")
    if not reference:
        [runtime] = (ROOT / ".cache" / "onnxruntime").glob("libonnxruntime.so.*")
        reference = image.build(TARGET / "confonnx-server", runtime, tmp_path_factory.mktemp("image"))
    podman("volume", "rm", "--force", VOLUME, check=False)
    podman("volume", "create", VOLUME)
    packed = subprocess.run(["tar", "-C", str(digits.HERE), "-c", digits.MODEL.name], check=True, capture_output=True)
    podman("volume", "import", VOLUME, "-", stdin=packed.stdout)
    yield values(reference)
    podman("volume", "rm", "--force", VOLUME, check=False)


@pytest.fixture
def pods(release: Values, tmp_path: Path) -> Iterator[StatefulSet]:
    found = StatefulSet(objects(release), tmp_path)
    try:
        for ordinal in found.ordinals:
            found.start(ordinal)
        for ordinal in found.ordinals:
            found.wait_ready(ordinal)
        yield found
    finally:
        found.remove()


class Load:
    """Clients that ask without pause, each with one request under way."""

    def __init__(self, url: str, model_hash: str) -> None:
        self.url, self.hash = url, model_hash
        self.images = digits.images()[:50]
        self.right = self.wrong = 0
        self.lost: list[str] = []
        self.rollovers = 0
        self._done = threading.Event()
        self._lock = threading.Lock()
        client = self.client()
        # One answer a sample, by one server: all others give the same bits.
        self.expected = [client.predict({"image": sample[None]})["probabilities"] for sample in self.images]
        right = sum(int(answer.argmax()) == label for answer, label in zip(self.expected, digits.labels()))
        assert right >= 45
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def client(self) -> Client:
        return Client(self.url, enclave_allow_debug=True, enclave_model_hash=self.hash)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def until(self, more: int) -> None:
        """Until so many more were answered: the group still works."""
        wanted, deadline = self.right + more, time.monotonic() + 60
        while self.right < wanted:
            assert time.monotonic() < deadline, f"{self.right} of {wanted}; lost {self.lost[-3:]}"
            time.sleep(0.05)

    def _ask(self, first: int) -> None:
        client, at = self.client(), first
        while not self._done.is_set():
            at = (at + CLIENTS) % len(self.images)
            try:
                answer = client.predict({"image": self.images[at][None]})["probabilities"]
            except Exception as error:  # noqa: BLE001
                with self._lock:
                    self.lost.append(f"{type(error).__name__}: {error}")
                continue
            with self._lock:
                if np.array_equal(answer, self.expected[at]):
                    self.right += 1
                else:
                    self.wrong += 1
        with self._lock:
            self.rollovers = max(self.rollovers, client.key_rollover_count)


def report(what: str, load: Load, kills: int) -> None:
    print(
        f"\n{what}: {load.right} answered rightly, {load.wrong} wrongly, {len(load.lost)} lost through {kills} kills;"
        f" a client renewed its key {load.rollovers} times {load.lost[:3]}"
    )


def updated(pods: StatefulSet) -> dict[str, object]:
    """The template of an update: another log level is enough for new pods."""
    template = copy.deepcopy(pods.object["spec"]["template"])
    template["spec"]["containers"][0]["env"].append({"name": "CONFONNX_LOG_LEVEL", "value": "warning"})
    return dict(template)


def test_the_pod_is_what_was_rendered(pods: StatefulSet) -> None:
    found = pods.inspect(0)
    assert found["Config"]["User"] == "65532:65532" and found["HostConfig"]["ReadonlyRootfs"] is True
    assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"] and found["EffectiveCaps"] in (None, [])
    assert found["HostConfig"]["Memory"] == 1 << 30
    # The first made the secret, the others joined; none warned of variables that are no settings.
    assert "made the first secret" in pods.log(0)
    assert all("joined group" in pods.log(ordinal) for ordinal in (1, 2))
    assert not [line for n in pods.ordinals for line in pods.log(n).splitlines() if "no setting has that name" in line]


def test_no_request_is_lost_but_those_of_killed_servers(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    before = ingress.nginx(pods, tmp_path)
    try:
        with Load(before.url, release["model"]["hash"]) as load:
            # A rolling update and a rollover: nothing is lost.
            load.until(100)
            pods.roll(updated(pods))
            load.until(100)
            time.sleep(ROLLOVER)
            load.until(100)
            assert load.lost == [] and load.wrong == 0, load.lost
            # Killed servers cost what they had under way, at most one request a client.
            for ordinal in pods.ordinals:
                restarts = pods.inspect(ordinal)["RestartCount"]
                pods.kill(ordinal)
                load.until(50)
                pods.wait_restarted(ordinal, restarts)
                pods.wait_ready(ordinal)
            # A pod that is gone for good comes back, the one that may make secrets too: to the group that there is.
            pods.lose(0)
            load.until(50)
            pods.start(0)
            pods.wait_ready(0)
            load.until(100)
        kills = pods.replicas + 1
        report("nginx", load, kills)
        assert load.wrong == 0 and len(load.lost) <= kills * CLIENTS
        # Two rollovers at least, unseen by clients.
        assert load.rollovers >= 2
    finally:
        before.stop()


def test_after_all_died_clients_go_on_by_themselves(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    before = ingress.nginx(pods, tmp_path)
    try:
        client = Client(before.url, enclave_allow_debug=True, enclave_model_hash=release["model"]["hash"])
        sample = digits.images()[:1]
        expected = client.predict({"image": sample})["probabilities"]
        for ordinal in pods.ordinals:
            pods.lose(ordinal)
        for ordinal in pods.ordinals:
            pods.start(ordinal)
        for ordinal in pods.ordinals:
            pods.wait_ready(ordinal)
        # Another group with other keys: the client attests it and asks again.
        assert np.array_equal(client.predict({"image": sample})["probabilities"], expected)
    finally:
        before.stop()


def test_the_commands_of_notes_work(pods: StatefulSet, release: Values, tmp_path: Path) -> None:
    before = ingress.nginx(pods, tmp_path)
    try:
        (tmp_path / "input.json").write_text((digits.HERE / "samples" / "digit_7.json").read_text())
        notes = next(text for path, text in texts(release).items() if path.endswith("NOTES.txt"))
        commands = re.findall(r"^    (confonnx (?:verify|predict) .*)$", notes, re.M)
        assert len(commands) == 2
        outputs = []
        for command in commands:
            # `kubectl port-forward` is not here.
            words = shlex.split(command.replace("http://127.0.0.1:8888", before.url))
            done = subprocess.run([TARGET / words[0], *words[1:]], capture_output=True, text=True, cwd=tmp_path)
            assert done.returncode == 0, done.stdout + done.stderr
            outputs.append(done.stdout)
        assert "probabilities" in outputs[1]
    finally:
        before.stop()
