"""The software bill of materials of a release: CycloneDX 1.6, of what is linked into each program and what lies beside it.

Crates by `cargo tree` (as docs/tcb.txt), their digests and what needs what by Cargo.lock; ONNX Runtime, Python's packages and the
distribution's by the files that pin them."""

from __future__ import annotations

import os
import re
import subprocess
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Component = dict[str, Any]
# The distribution's packages whose files are in images (deploy/image/environment has them with their versions).
SYSTEM = ("libc6", "libc-bin", "libstdc++6", "libgcc-s1", "ca-certificates")


def lock() -> dict[tuple[str, str], tuple[str | None, list[str]]]:
    """Every crate of Cargo.lock by name and version: its SHA-256, unless it is ours, and the names of those that it needs."""
    found = {}
    for block in (ROOT / "Cargo.lock").read_text().split("[[package]]\n")[1:]:
        values = dict(re.findall(r'^(name|version|checksum) = "(.+)"$', block, re.M))
        needs = re.search(r"^dependencies = \[\n(.*?)^\]", block, re.M | re.S)
        names = re.findall(r'"([^"]+)"', needs[1]) if needs else []
        found[values["name"], values["version"]] = values.get("checksum"), names
    return found


def crates(package: str, features: list[str]) -> dict[tuple[str, str], str]:
    """Name and version of every crate linked into a program, with its licence."""
    flags = ["-e", "normal", "--target", "x86_64-unknown-linux-gnu", "--prefix", "none", "--no-dedupe"]
    command = [os.environ.get("CARGO", "cargo"), "tree", "--locked", "-p", package, *features, *flags, "--format", "{p}|{l}"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    found = {}
    for line in output.splitlines():
        what, licence = line.replace(" (*)", "").split("|")
        name, version = what.split(" ")[:2]
        found[name, version.removeprefix("v")] = licence.replace("/", " OR ")
    return found


def crate(name: str, version: str, licence: str, digest: str | None) -> Component:
    found: Component = {"type": "library", "bom-ref": f"crate:{name}@{version}", "name": name, "version": version}
    found["purl"] = f"pkg:cargo/{name}@{version}"
    if licence:
        found["licenses"] = [{"expression": licence}]
    if digest:
        found["hashes"] = [{"alg": "SHA-256", "content": digest}]
    return found


def python_packages() -> list[Component]:
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", (ROOT / "requirements" / "runtime.txt").read_text(), re.M)
    return [
        {"type": "library", "bom-ref": f"pypi:{name}@{version}", "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        for name, version in pinned
    ]


def system_packages(environment: str) -> list[Component]:
    versions = dict(line.split(" ", 1) for line in environment.splitlines() if " " in line)
    return [
        {"type": "library", "bom-ref": f"deb:{name}", "name": name, "version": versions[name], "purl": f"pkg:deb/debian/{name}@{versions[name]}"}
        for name in SYSTEM
        if name in versions
    ]


def runtime() -> Component:
    script = (ROOT / "scripts" / "fetch-onnxruntime").read_text()
    version, digest = re.findall(r"^version=(\S+)$", script, re.M)[0], re.findall(r"x86_64\n.*\n? *sha256=(\w+)", script)
    found: Component = {"type": "library", "bom-ref": "onnxruntime", "name": "onnxruntime", "version": version}
    return {**found, "purl": f"pkg:pypi/onnxruntime@{version}", "hashes": [{"alg": "SHA-256", "content": digest[0]}]}


def make(version: str, programs: dict[str, tuple[str, list[str], str]], wheels: dict[str, str], environment: str) -> dict[str, Any]:
    """`programs`: file name to package, cargo's flags for features and SHA-256; `wheels`: file name to SHA-256."""
    locked = lock()
    components: dict[str, Component] = {}
    needs: dict[str, set[str]] = {}
    server = [runtime(), *system_packages(environment)]
    for file, (package, features, digest) in programs.items():
        linked = crates(package, features)
        for (name, number), licence in linked.items():
            checksum, names = locked[name, number]
            entry = crate(name, number, licence, checksum)
            components[entry["bom-ref"]] = entry
            # Cargo.lock names a version only where there are several.
            wanted = {tuple(text.split(" ")[:2]) for text in names}
            below = {f"crate:{n}@{v}" for n, v in linked if (n,) in wanted or (n, v) in wanted}
            needs.setdefault(entry["bom-ref"], set()).update(below)
        root = next(f"crate:{n}@{v}" for n, v in linked if n == package)
        beside = server if package == "confonnx-server" else []
        components |= {entry["bom-ref"]: entry for entry in beside}
        components[f"file:{file}"] = made(file, version, digest, "application")
        needs[f"file:{file}"] = {root, *(entry["bom-ref"] for entry in beside)}
    for file, digest in wheels.items():
        packages = python_packages()
        components |= {entry["bom-ref"]: entry for entry in packages}
        components[f"file:{file}"] = made(file, version, digest, "library")
        needs[f"file:{file}"] = {entry["bom-ref"] for entry in packages}
    listed = [components[ref] for ref in sorted(components)]
    bom: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "confonnx", "name": "confonnx", "version": version}},
        "components": listed,
        "dependencies": [
            {"ref": "confonnx", "dependsOn": sorted(ref for ref in components if ref.startswith("file:"))},
            *({"ref": ref, "dependsOn": sorted(needs.get(ref, set()))} for ref in sorted(components)),
        ],
    }
    # Its serial number is made of the content and it has no time: whoever builds again gets the same bytes.
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, repr(listed))}"
    return bom


def made(file: str, version: str, digest: str, kind: str) -> Component:
    return {"type": kind, "bom-ref": f"file:{file}", "name": file, "version": version, "hashes": [{"alg": "SHA-256", "content": digest}]}
