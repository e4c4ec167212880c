"""A model that its owner encrypted for KServe (JWE): decrypted by KServe's own code, served by the runtime's own container, and the
plaintext's digest is what clients pin."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Iterator

import numpy as np
import pytest
import yaml
from programs import ROOT, digits
from chart import DEPLOY, Object
from confonnx.client import Client
from confonnx.exceptions import AttestationError
from confonnx.hash_model import hash_model
from jwcrypto import jwe, jwk
from pods import PATIENCE, make_volume, podman, status

NAME, SUBNET = "confonnx-kserve-test", "10.89.216"
# KServe's module asks for the libraries of every cloud when it is imported; this part of it needs none of them.
RUNNER = """
import sys, types
package = types.ModuleType("kserve_storage")
package.__path__ = [sys.argv.pop(1) + "/kserve_storage"]
sys.modules["kserve_storage"] = package
from kserve_storage.confidential.cli import main
main()
"""


class DataHub(http.server.BaseHTTPRequestHandler):
    """The guest's Confidential Data Hub, after a key service has verified its evidence."""

    secrets: dict[str, bytes] = {}

    def do_GET(self) -> None:
        found = self.secrets.get(self.path)
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), DataHub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()


def initialize(models: Path, resource: str, hub: str) -> subprocess.CompletedProcess[str]:
    """What KServe's init container does once it has fetched the model."""
    [wheel] = (ROOT / ".cache" / "kserve").glob("kserve_storage-*.whl")
    command = [sys.executable, "-c", RUNNER, str(wheel), "--source-dir", str(models), "--resource-id", resource]
    return subprocess.run(command, env={**os.environ, "CDH_ADDR": hub}, capture_output=True, text=True)


def encrypted(key: jwk.JWK) -> bytes:
    header = {"alg": "A256KW", "enc": "A256GCM"}
    token = jwe.JWE(digits.MODEL.read_bytes(), recipient=key, protected=header)
    text: str = token.serialize(compact=True)
    return text.encode()


def predictor(service: Object, reference: str) -> Object:
    """The pod that KServe makes of the runtime and the service: the container, and the model at /mnt/models."""
    spec = yaml.safe_load((DEPLOY / "kserve" / "runtime.yaml").read_text())["spec"]
    [container] = spec["containers"]
    for key in ("readinessProbe", "livenessProbe", "ports"):
        container.pop(key)
    container["image"] = reference
    container["env"] = [
        {**entry, "value": entry["value"].replace("{{.Name}}", service["metadata"]["name"])} for entry in container["env"]
    ]
    # There is no TEE here, so the server is told so.
    container["env"].append({"name": "CONFONNX_DEBUG", "value": "true"})
    container["volumeMounts"].append({"name": "kserve-provision-location", "mountPath": "/mnt/models", "readOnly": True})
    volumes = [*spec["volumes"], {"name": "kserve-provision-location", "persistentVolumeClaim": {"claimName": NAME}}]
    for entry in [*volumes, *container["volumeMounts"]]:
        # podman knows an empty folder by its name alone, so the name must be this test's.
        entry["name"] = f"{NAME}-tmp" if entry["name"] == "tmp" else entry["name"]
    body = {"containers": [container], "volumes": volumes, "restartPolicy": "Never"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": NAME}, "spec": body}


def logs() -> str:
    done = subprocess.run(["podman", "logs", f"{NAME}-kserve-container"], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_a_jwe_model_is_served_and_its_plaintext_is_what_clients_pin(
    hub: str, built: tuple[str, str], tmp_path: Path
) -> None:
    service = yaml.safe_load((DEPLOY / "kserve" / "confidential.yaml").read_text())
    resource = service["spec"]["predictor"]["model"]["confidential"]["resourceId"]
    key = jwk.JWK.generate(kty="oct", size=256)
    models = tmp_path / "models"
    models.mkdir()
    (models / "model.onnx.jwe").write_bytes(encrypted(key))

    # Without the key, or with another, there is no model and so no server.
    assert initialize(models, resource, hub).returncode == 1 and not (models / "model.onnx").exists()
    path = resource.replace("kbs:///", "/cdh/resource/")
    DataHub.secrets[path] = jwk.JWK.generate(kty="oct", size=256).export().encode()
    assert initialize(models, resource, hub).returncode == 1 and not (models / "model.onnx").exists()
    DataHub.secrets[path] = key.export().encode()
    done = initialize(models, resource, hub)
    assert done.returncode == 0, done.stderr
    # The model is readable by the initializer's user alone, which KServe makes that of the server's container.
    assert (models / "model.onnx").read_bytes() == digits.MODEL.read_bytes()

    (tmp_path / "pod.yaml").write_text(yaml.safe_dump(predictor(service, built[0])))
    make_volume(NAME, models, "model.onnx")
    podman("network", "create", "--subnet", f"{SUBNET}.0/24", NAME)
    try:
        podman("kube", "play", "--network", f"{NAME}:ip={SUBNET}.10", str(tmp_path / "pod.yaml"))
        deadline = time.monotonic() + PATIENCE
        while status(f"http://{SUBNET}.10:8889/health/ready") != 200:
            assert time.monotonic() < deadline, logs()
            time.sleep(0.2)
        url, sample, digest = f"http://{SUBNET}.10:8080", digits.images()[7:8], hash_model(digits.MODEL)
        # A server that is ready answers by its model.
        with Client(url, enclave_allow_debug=True, enclave_model_hash=digest) as client:
            answer = client.predict({"image": sample})["probabilities"]
            [served] = client.attest().claims["models"]
        assert np.argmax(answer) == digits.labels()[7]
        assert served["name"] == service["metadata"]["name"] and served["sha256"] == digest
        with pytest.raises(AttestationError, match="model hash"):
            Client(url, enclave_allow_debug=True, enclave_model_hash="0" * 64).predict({"image": sample})
    finally:
        podman("pod", "rm", "--force", "--time", "0", NAME, check=False)
        podman("volume", "rm", "--force", NAME, check=False)
        podman("network", "rm", "--force", NAME, check=False)
