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
HERE = "x86_64-unknown-linux-gnu"
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


# Files of clients, by their names: the package, cargo's flags for features, the target, and whether it is a program. A wheel's name
# ends with what Python calls its system.
WHEELS = {
    "manylinux2014_x86_64.manylinux_2_17_x86_64": HERE,
    "manylinux2014_aarch64.manylinux_2_17_aarch64": "aarch64-unknown-linux-gnu",
    "musllinux_1_2_x86_64": "x86_64-unknown-linux-musl",
    "musllinux_1_2_aarch64": "aarch64-unknown-linux-musl",
    "win_amd64": "x86_64-pc-windows-gnu",
    "macosx_11_0_arm64": "aarch64-apple-darwin",
    "macosx_11_0_x86_64": "x86_64-apple-darwin",
}


def client(file: str) -> tuple[str, list[str], str, str]:
    """Of a client's file: its package, cargo's flags for features, the target and CycloneDX' kind."""
    if (wheel := re.fullmatch(r"confonnx-[^-]+-cp310-abi3-(.+)\.whl", file)) and wheel[1] in WHEELS:
        return "confonnx-python", [], WHEELS[wheel[1]], "library"
    if (command := re.fullmatch(r"confonnx-(.+?)(\.exe)?", file)) and command[1] in WHEELS.values():
        return "confonnx-cli", [], command[1], "application"
    if (library := re.fullmatch(r"libconfonnx-[\d.]+-(.+)\.tar\.gz", file)) and library[1] in WHEELS.values():
        return "confonnx-c", [], library[1], "library"
    if re.fullmatch(r"confonnx-client-[\d.]+\.tgz|confonnx-demo\.(html|tar\.gz)", file):
        return "confonnx-js", ["--features", "rust-crypto"], "wasm32-unknown-unknown", "library"
    raise SystemExit(
        f"sbom: {file}: expected a command (confonnx-TARGET), a wheel, the C library (libconfonnx-VERSION-TARGET.tar.gz), the npm package "
        "(confonnx-client-VERSION.tgz) or the page (confonnx-demo.html, .tar.gz)"
    )


def crates(package: str, features: list[str], target: str = HERE) -> dict[tuple[str, str], str]:
    """Name and version of every crate linked into a program, with its licence."""
    flags = ["-e", "normal", "--target", target, "--prefix", "none", "--no-dedupe"]
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


def make(version: str, programs: dict[str, tuple[str, list[str], str]], clients: dict[str, str], environment: str) -> dict[str, Any]:
    """`programs`: file name to package, cargo's flags for features and SHA-256; `clients`: file name to SHA-256."""
    locked = lock()
    components: dict[str, Component] = {}
    needs: dict[str, set[str]] = {}
    server = [runtime(), *system_packages(environment)]
    files = [(file, package, features, HERE, digest, "application") for file, (package, features, digest) in programs.items()]
    for file, digest in clients.items():
        package, features, target, kind = client(file)
        files.append((file, package, features, target, digest, kind))
    for file, package, features, target, digest, kind in files:
        linked = crates(package, features, target)
        for (name, number), licence in linked.items():
            checksum, names = locked[name, number]
            entry = crate(name, number, licence, checksum)
            components[entry["bom-ref"]] = entry
            # Cargo.lock names a version only where there are several.
            wanted = {tuple(text.split(" ")[:2]) for text in names}
            below = {f"crate:{n}@{v}" for n, v in linked if (n,) in wanted or (n, v) in wanted}
            needs.setdefault(entry["bom-ref"], set()).update(below)
        # What a crate needs differs from system to system, and has one entry here: so a client's file names all that is linked into it.
        own = {f"crate:{n}@{v}" for n, v in linked if n == package or file in clients}
        beside = server if package == "confonnx-server" else python_packages() if package == "confonnx-python" else []
        components |= {entry["bom-ref"]: entry for entry in beside}
        components[f"file:{file}"] = made(file, version, digest, kind)
        needs[f"file:{file}"] = {*own, *(entry["bom-ref"] for entry in beside)}
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
