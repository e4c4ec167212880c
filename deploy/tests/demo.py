"""The chart without a cluster: its pods by podman, behind nginx by its Ingress, and a verified answer.

    .venv/bin/python deploy/tests/demo.py docs/samples/chart-2020.yaml         # make demo-chart
    .venv/bin/python deploy/tests/demo.py my-values.yaml --port 8443 --keep    # leaves it running until Enter

Values are the preset `plain` (--preset: another one, without its TEE) and the files given; the image is made of target/debug, the
model is the example's."""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator

import certificates
import image
import yaml
from chart import Object, Values, merged, objects, preset, texts
from ingress import Controller, Ingress, Nginx
from pods import StatefulSet, make_volume, podman
from programs import TARGET, digits, onnxruntime

USER, PASSWORD = "user", "secret"
# Values in place of those for which a preset needs its hardware. Devices of plugins are unknown to podman, and left out by it.
WITHOUT_TEE: Values = {"insecure": True, "tee": "", "extraVolumes": [], "extraVolumeMounts": []}


@dataclass
class Release:
    pods: StatefulSet
    front: Ingress
    folder: Path
    notes: str
    secured: bool
    """Whether the ingress has TLS, by an authority of the test, and asks for user and password."""

    def commands(self) -> list[list[str]]:
        """The commands that NOTES says to type, with the addresses of this machine."""
        found = re.findall(r"^    confonnx ((?:verify|predict) .*)$", self.notes, re.M)
        return [[*self.here(shlex.split(line)), *self.credentials()] for line in found]

    def here(self, words: list[str]) -> list[str]:
        at = words.index("--url") + 1
        return [*words[:at], self.front.url, *words[at + 1 :]]

    def credentials(self) -> list[str]:
        if not self.secured:
            return []
        files = {"--ca-file": self.folder / "ca.pem", "--auth-pass-file": self.folder / "password"}
        return ["--auth-user", USER, *(str(word) for pair in files.items() for word in pair)]


@contextlib.contextmanager
def release(
    chosen: Values, reference: str, folder: Path, subnet: str = "10.89.217", port: int = 0, platform: str = "plain"
) -> Iterator[Release]:
    """The release that `helm install` would make of these values, until the end of the `with`."""
    here: Values = {"image": reference, "imagePullPolicy": "Never", "resources": {"requests": {"cpu": "100m"}}, "drain": 1}
    values = merged(preset(platform), chosen, WITHOUT_TEE, here)
    found, claim = objects(values), values["model"].get("from", {}).get("claim")
    notes = next(text for path, text in texts(values).items() if path.endswith("NOTES.txt"))
    with contextlib.ExitStack() as stack:
        if claim:
            make_volume(claim, digits.HERE, digits.MODEL.name)
            stack.callback(podman, "volume", "rm", "--force", claim, check=False)
        pods = StatefulSet(found, folder, subnet)
        stack.callback(pods.remove)
        pods.start_all()
        wanted: list[Object] = [x for x in found if x["kind"] == "Ingress"]
        front = Controller(pods, folder, wanted[0], secrets(wanted[0], folder), port) if wanted else Nginx(pods, folder, port)
        stack.callback(front.stop)
        yield Release(pods, front, folder, notes, bool(wanted))


def secrets(wanted: Object, folder: Path) -> dict[str, dict[str, bytes]]:
    """The Secrets that the Ingress names and that others put into the namespace: cert-manager, `kubectl create secret`."""
    made: dict[str, dict[str, bytes]] = {}
    for tls in wanted["spec"].get("tls", []):
        authority, made[tls["secretName"]] = certificates.make(tls["hosts"][0])
        (folder / "ca.pem").write_bytes(authority)
    (folder / "password").write_text(PASSWORD)
    made[wanted["metadata"]["annotations"]["nginx.ingress.kubernetes.io/auth-secret"]] = {"auth": f"{USER}:{{PLAIN}}{PASSWORD}\n".encode()}
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="The chart without a cluster: podman, nginx, and a verified answer")
    parser.add_argument("values", nargs="+", type=Path, help="files of values, later ones win")
    parser.add_argument("--preset", default="plain", help="of deploy/chart/presets")
    parser.add_argument("--port", type=int, default=0, help="of the ingress; by default a free one")
    parser.add_argument("--image", help="one that is there; by default one is made of target/debug/confonnx-server")
    parser.add_argument("--keep", action="store_true", help="leave it running until Enter")
    given = parser.parse_args()
    chosen = merged(*(yaml.safe_load(file.read_text()) for file in given.values))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        reference = given.image
        if not reference:
            print("Making an image of target/debug/confonnx-server", flush=True)
            reference = image.build(TARGET / "confonnx-server", onnxruntime(), folder)
            if not chosen.get("model", {}).get("from"):
                reference = image.with_model(digits.MODEL)
        print("Starting the pods", flush=True)
        with release(chosen, reference, folder, port=given.port, platform=given.preset) as made:
            for ordinal in made.pods.ordinals:
                user = made.pods.inspect(ordinal)["Config"]["User"]
                print(f"  {made.pods.name}-{ordinal} is ready at {made.pods.address(ordinal)}, as user {user}")
            (folder / "input.json").write_text((digits.HERE / "samples" / "digit_7.json").read_text())
            for words in made.commands():
                print(f"\n$ confonnx {shlex.join(words)}", flush=True)
                subprocess.run([TARGET / "confonnx", *words], cwd=folder, check=True)
            if given.keep:
                input(f"\nRunning at {made.front.url}; files in {folder}. Enter ends it. ")
    if not given.image:
        podman("rmi", "--force", reference, image.NAME, check=False)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
