#!/usr/bin/env python3
"""Puts a release into one folder: programs, images, what hardware will say of them, what they are made of, how they were made,
a manifest of all, and its signature. Everything given is built already; `make dist` builds it first.

    make_dist.py FOLDER --program confonnx-server=FILE --program confonnx=FILE [--image FOLDER] [--vm FOLDER] [--client FILE]…
                 [--enclave-info TEE=FILE]… [--key PEM] [--builder URI]"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundle
import sbom

ROOT = sbom.ROOT
MANIFEST, SBOM, PROVENANCE, INFO = "SHA256SUMS", "sbom.cdx.json", "provenance.intoto.json", "enclave_info.json"
# What cargo builds for each program, as deploy/image/build-binary does.
PACKAGES = {"confonnx-server": ("confonnx-server", ["--no-default-features"]), "confonnx": ("confonnx-cli", ["--no-default-features"])}
BUILD_TYPE = "https://github.com/confonnx/confonnx/blob/main/deploy/dist/make_dist.py"


def sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() if sys.version_info >= (3, 11) else _sha256(opened)


def _sha256(opened: Any) -> str:
    digest = hashlib.sha256()
    while block := opened.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def written(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def version() -> str:
    found = re.search(r'^version = "(.+)"$', (ROOT / "Cargo.toml").read_text(), re.M)
    assert found
    return found[1]


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True).stdout.strip()


def provenance(subjects: dict[str, str], environment: str, builder: str) -> dict[str, Any]:
    """An in-toto statement (v1) with SLSA's provenance (v1): these bytes, of that commit, with those tools."""
    commit, changed = git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    files = [ROOT / name for name in ("Cargo.lock", "deploy/image/toolchain", "scripts/fetch-onnxruntime")]
    depends = [{"uri": "git+https://github.com/confonnx/confonnx", "digest": {"gitCommit": commit}}]
    depends += [{"uri": f"file:{file.relative_to(ROOT)}", "digest": {"sha256": sha256(file)}} for file in files]
    tools = dict(line.split(" ", 1) for line in environment.splitlines() if " " in line)
    definition = {
        "buildType": BUILD_TYPE,
        "externalParameters": {"ref": commit, "uncommittedChanges": changed},
        "internalParameters": {"tools": tools},
        "resolvedDependencies": depends,
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sorted(subjects.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {"buildDefinition": definition, "runDetails": {"builder": {"id": builder}}},
    }


def measurements(given: dict[str, Path]) -> dict[str, Any]:
    """Each TEE's enclave_info.json in one file. A client reads that of a TEE from `enclave_info.TEE.json`."""
    found = {}
    for tee, file in given.items():
        info = json.loads(file.read_text())
        if "enclave_hash" not in info and "mrenclave" not in info:
            raise SystemExit(f"make_dist: {file}: expected a member enclave_hash (or mrenclave), found neither")
        found[tee] = info
    return found


def pair(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not file:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=FILE")
    return name, Path(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--program", type=pair, action="append", required=True)
    parser.add_argument("--image", type=Path, help="what deploy/image/make-image wrote")
    parser.add_argument("--vm", type=Path, help="what deploy/vm/make-vm wrote")
    parser.add_argument("--client", type=Path, action="append", default=[], help="a client of another system, a wheel, a package")
    parser.add_argument("--enclave-info", type=pair, action="append", default=[])
    parser.add_argument("--key", type=Path)
    parser.add_argument("--builder", default="urn:confonnx:by-hand")
    given = parser.parse_args()
    whole: Path = given.folder
    if whole.exists() and any(whole.iterdir()):
        raise SystemExit(f"make_dist: {whole} is not empty: expected a new folder")
    # It gets its name once it is whole.
    folder = whole.with_name(f".{whole.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)

    programs = dict(given.program)
    if unknown := set(programs) - set(PACKAGES):
        raise SystemExit(f"make_dist: --program {', '.join(unknown)}: expected {' or '.join(PACKAGES)}")
    copied: dict[str, Path] = dict(programs) | {client.name: client for client in given.client}
    environment = ""
    if given.image:
        environment = (given.image / "environment").read_text()
        copied |= {"confonnx-image.tar": given.image / "oci.tar", "confonnx-image.digest": given.image / "digest"}
    if given.vm:
        copied |= {"confonnx-vm.efi": given.vm / "image.efi", "confonnx-vm.toml": given.vm / "image.toml"}
    infos = dict(given.enclave_info)
    copied |= {f"enclave_info.{tee}.json": file for tee, file in infos.items()}
    for name, file in copied.items():
        shutil.copy(file, folder / name)
    written(folder / INFO, measurements(infos))

    digests = {name: sha256(folder / name) for name in [*copied, INFO]}
    described = {name: (*PACKAGES[name], digests[name]) for name in programs}
    clients = {client.name: digests[client.name] for client in given.client}
    written(folder / SBOM, sbom.make(version(), described, clients, environment))
    digests[SBOM] = sha256(folder / SBOM)
    statement = provenance(digests, environment, given.builder)
    key = bundle.private_key(given.key.read_bytes()) if given.key else None
    # Provenance that is signed is in a bundle of its own; else it lies there as it is.
    text = json.dumps(statement, sort_keys=True).encode()
    written(folder / PROVENANCE, bundle.sign_statement(key, text) if key else statement)
    digests[PROVENANCE] = sha256(folder / PROVENANCE)
    manifest = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    (folder / MANIFEST).write_text(manifest)
    if key:
        written(folder / f"{MANIFEST}.sigstore.json", bundle.sign_file(key, manifest.encode()))
    # An empty folder gives way.
    folder.rename(whole)
    print(f"{whole}: {len(digests)} files, {'signed' if key else 'NOT SIGNED: give --key'}")


if __name__ == "__main__":
    main()
