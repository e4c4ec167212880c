"""Every way in which the chart brings a model to its pods, and a key to an encrypted one, that podman can play: each ends with an
answer by the model that the client pins."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import image
import numpy as np
import pytest
from chart import Object, Values, merged, objects, preset, texts
from confonnx.client import Client
from confonnx.encrypt_model import encrypt_model, generate_key
from confonnx.exceptions import ServerError
from confonnx.hash_model import hash_model
from ingress import free_port
from pods import PATIENCE, StatefulSet, make_volume, podman
from programs import TARGET, digits

SUBNET, CLAIM = "10.89.219", "confonnx-test-source"
# Stands in for kubectl: makes a pod's port one of this machine, until it is killed.
PORT_FORWARD = """#!{python}
import re, socket, sys, threading
found = re.search(r"port-forward pod/\\S+-(\\d+) (\\d+):(\\d+)$", " ".join(sys.argv))
def copy(a, b):
    while data := a.recv(65536):
        b.sendall(data)
    b.shutdown(socket.SHUT_WR)
listener = socket.create_server(("127.0.0.1", int(found[2])))
while True:
    here, _ = listener.accept()
    there = socket.create_connection(("{subnet}." + str(10 + int(found[1])), int(found[3])))
    for pair in ((here, there), (there, here)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""


@contextlib.contextmanager
def release(reference: str, chosen: Values, folder: Path, *others: Object) -> Iterator[tuple[StatefulSet, Values]]:
    here: Values = {
        "image": reference,
        "imagePullPolicy": "Never",
        "replicas": 1,
        "keys": {"provider": "local"},
        "resources": {"requests": {"cpu": "100m"}},
        "drain": 1,
    }
    values = merged(preset("plain"), here, chosen)
    pods = StatefulSet(objects(values, "sources"), folder, SUBNET, others)
    try:
        yield pods, values
    finally:
        pods.remove()


def answers(pods: StatefulSet, ordinal: int, digest: str) -> None:
    url = f"http://{pods.address(ordinal)}:{pods.port('http')}"
    with Client(url, enclave_allow_debug=True, enclave_model_hash=digest) as client:
        answer = client.predict({"image": digits.images()[7:8]})["probabilities"]
    assert np.argmax(answer) == digits.labels()[7]


def model(**source: object) -> Values:
    return {"model": {"name": "digits", "path": "/models/digits.onnx", "from": source}}


def test_a_model_in_the_image(with_model: str, tmp_path: Path) -> None:
    with release(with_model, model(), tmp_path) as (pods, _):
        pods.start_all()
        answers(pods, 0, hash_model(digits.MODEL))


def test_a_model_that_a_container_brings_first(built: tuple[str, str], tmp_path: Path) -> None:
    loader = image.loader(digits.MODEL, tmp_path)
    bring = {"image": loader, "command": ["/bin/cp"], "args": ["/digits.onnx", "/models/digits.onnx"]}
    try:
        with release(built[0], model(init=bring), tmp_path) as (pods, _):
            pods.start_all()
            answers(pods, 0, hash_model(digits.MODEL))
    finally:
        podman("rmi", "--force", loader, check=False)


def test_a_model_in_a_config_map(built: tuple[str, str], tmp_path: Path) -> None:
    data = {"digits.onnx": base64.b64encode(digits.MODEL.read_bytes()).decode()}
    given: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "digits"}, "binaryData": data}
    with release(built[0], model(configMap="digits"), tmp_path, given) as (pods, _):
        pods.start_all()
        answers(pods, 0, hash_model(digits.MODEL))


def test_a_folder_of_models_on_a_claim(built: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    (tmp_path / "digits" / "1" / "model.onnx").write_bytes(digits.MODEL.read_bytes())
    make_volume(CLAIM, tmp_path, "digits")
    try:
        chosen: Values = {"model": {"repository": True, "path": "/models", "from": {"claim": CLAIM}}}
        with release(built[0], chosen, tmp_path) as (pods, _):
            pods.start_all()
            answers(pods, 0, hash_model(digits.MODEL))
    finally:
        podman("volume", "rm", "--force", CLAIM, check=False)


def test_an_owner_gives_the_key_as_notes_say(built: tuple[str, str], tmp_path: Path) -> None:
    """The owner gives each pod the key by the loop that NOTES prints; before that the model is locked."""
    key = generate_key()
    (tmp_path / "model.key").write_text(key)
    hashes = encrypt_model(digits.MODEL, tmp_path / "digits.onnx.age", key=key)
    make_volume(CLAIM, tmp_path, "digits.onnx.age")
    chosen = merged(
        model(claim=CLAIM),
        {"replicas": 2, "keys": {"provider": "peer"}},
        {"model": {"path": "/models/digits.onnx.age", "hash": hashes.model_hash}},
        {"model": {"encrypted": {"keyFrom": "owner", "hash": hashes.ciphertext_hash}}},
    )
    try:
        with release(built[0], chosen, tmp_path) as (pods, values):
            for ordinal in pods.ordinals:
                pods.start(ordinal)
                pods.wait_said(ordinal, "serving on")
            with pytest.raises(ServerError) as refused:
                answers(pods, 0, hashes.ciphertext_hash)
            assert refused.value.code == "model-locked"
            notes = next(text for path, text in texts(values, "sources").items() if path.endswith("NOTES.txt"))
            [loop] = re.findall(r"^    for n in .*?^    done$", notes, re.M | re.S)
            assert loop.count("9000") == 2
            loop = loop.replace("9000", str(free_port()))
            kubectl = tmp_path / "kubectl"
            kubectl.write_text(PORT_FORWARD.format(python=sys.executable, subnet=SUBNET))
            kubectl.chmod(0o755)
            places = f"{tmp_path}:{TARGET}:{os.environ['PATH']}"
            environment = {**os.environ, "PATH": places}
            done = subprocess.run(["bash", "-c", loop], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, done.stdout + done.stderr
            for ordinal in pods.ordinals:
                pods.wait_ready(ordinal)
                answers(pods, ordinal, hashes.model_hash)
    finally:
        podman("volume", "rm", "--force", CLAIM, check=False)


def test_the_server_takes_the_settings_of_each_case(tmp_path: Path) -> None:
    """The server's `--check` takes each case's settings, with files where the rendered ones would be."""
    from test_chart import CASES, env

    key = generate_key()
    encrypt_model(digits.MODEL, tmp_path / "digits.onnx.age", key=key)
    (tmp_path / "models" / "digits" / "1").mkdir(parents=True)
    (tmp_path / "models" / "digits" / "1" / "model.onnx").write_bytes(digits.MODEL.read_bytes())
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "owner.key"], check=True)
    owner = subprocess.run(["openssl", "pkey", "-in", tmp_path / "owner.key", "-pubout"], check=True, capture_output=True).stdout
    files = {
        "CONFONNX_PEER_POLICY": "allow_debug = true\n",
        "CONFONNX_AUTH_FILE": '[[caller]]\nname = "a"\ntoken_sha256 = "' + "0" * 64 + '"\n',
        "CONFONNX_MODEL_OWNER_KEY_FILE": owner.decode(),
        "CONFONNX_AKV_TOKEN_FILE": "token",
    }
    for case, values in CASES.items():
        settings = env(values)
        for name, content in files.items():
            if name in settings:
                (tmp_path / name).write_text(content)
                settings[name] = str(tmp_path / name)
        encrypted = {"CONFONNX_MODEL_KEY_SOURCE", "CONFONNX_USE_MODEL_KEY_PROVISIONING"} & set(settings)
        if "CONFONNX_MODEL_PATH" in settings:
            settings["CONFONNX_MODEL_PATH"] = str(tmp_path / "digits.onnx.age" if encrypted else digits.MODEL)
        else:
            settings["CONFONNX_MODEL_REPOSITORY"] = str(tmp_path / "models")
        settings["CONFONNX_COLLATERAL_CACHE"] = str(tmp_path)
        settings.pop("CONFONNX_KBS_CA_FILE", None)
        done = subprocess.run([TARGET / "confonnx-server", "--check"], env=settings, capture_output=True, text=True)
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "the settings are good" in said and "no setting has that name" not in said, f"{case}: {said}"
