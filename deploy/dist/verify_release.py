#!/usr/bin/env python3
"""Checks a release link by link, and names the one that is broken: signature, manifest, digests, provenance, materials,
measurements; with --url also what a live server proves.

    verify_release.py FOLDER --key PUBLIC.pem [--url URL --tee NAME [--confonnx COMMAND] [-- FLAGS OF confonnx verify]]"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import bundle
from make_dist import INFO, MANIFEST, PROVENANCE, SBOM, sha256


class Broken(Exception):
    """A link that does not hold."""


def signature(folder: Path, key: bytes) -> bytes:
    manifest = (folder / MANIFEST).read_bytes()
    file = folder / f"{MANIFEST}.sigstore.json"
    if not file.exists():
        raise Broken(f"expected {file.name}, found none: this release is not signed")
    bundle.check_file(bundle.public_key(key), file.read_bytes(), manifest)
    return manifest


def listed(folder: Path, manifest: bytes) -> dict[str, str]:
    """Names and digests, of which each is a file of the folder and no file is missing."""
    found: dict[str, str] = {}
    for line in manifest.decode().splitlines():
        match = re.fullmatch(r"([0-9a-f]{64})  ([A-Za-z0-9][A-Za-z0-9._+-]*)", line)
        if not match or match[2] in found:
            raise Broken(f"expected lines `SHA-256  NAME`, each name once, found {line!r}")
        found[match[2]] = match[1]
    there = {path.name for path in folder.iterdir()} - {MANIFEST, f"{MANIFEST}.sigstore.json"}
    for name in sorted(there ^ set(found)):
        raise Broken(f"{name}: {'in the folder and not in the manifest' if name in there else 'in the manifest and not in the folder'}")
    return found


def digests(folder: Path, manifest: dict[str, str]) -> None:
    for name, expected in manifest.items():
        if (found := sha256(folder / name)) != expected:
            raise Broken(f"{name}: expected {expected}, found {found}")


def provenance(folder: Path, key: bytes, manifest: dict[str, str]) -> str:
    statement = bundle.check_statement(bundle.public_key(key), (folder / PROVENANCE).read_bytes())
    if (kind := statement.get("predicateType")) != "https://slsa.dev/provenance/v1":
        raise Broken(f"expected SLSA's provenance v1, found {kind}")
    made = {subject["name"]: subject["digest"]["sha256"] for subject in statement["subject"]}
    for name in sorted(set(manifest) - {PROVENANCE}):
        if made.get(name) != manifest[name]:
            raise Broken(f"{name}: expected {manifest[name]} among its subjects, found {made.get(name, 'nothing')}")
    parameters = statement["predicate"]["buildDefinition"]["externalParameters"]
    return f"commit {parameters['ref']}{' WITH UNCOMMITTED CHANGES' if parameters['uncommittedChanges'] else ''}"


def materials(folder: Path, manifest: dict[str, str]) -> str:
    components = json.loads((folder / SBOM).read_text())["components"]
    files = {entry["name"]: entry["hashes"][0]["content"] for entry in components if entry["bom-ref"].startswith("file:")}
    for name, digest in files.items():
        if manifest.get(name) != digest:
            raise Broken(f"{name}: expected {manifest.get(name)}, found {digest} in {SBOM}")
    if "confonnx-server" in manifest and "confonnx-server" not in files:
        raise Broken(f"expected confonnx-server in {SBOM}, found only {', '.join(files)}")
    return f"{len(components)} components"


def measured(folder: Path, manifest: dict[str, str]) -> str:
    infos: dict[str, Any] = json.loads((folder / INFO).read_text())
    for tee, info in infos.items():
        name = f"enclave_info.{tee}.json"
        if name not in manifest or json.loads((folder / name).read_text()) != info:
            raise Broken(f"{name}: expected what {INFO} has for {tee}")
    return ", ".join(infos) or "none"


def live(folder: Path, url: str, tee: str, command: str, flags: list[str]) -> str:
    file = folder / f"enclave_info.{tee}.json"
    if not file.exists():
        raise Broken(f"expected {file.name}, found none: the release says nothing of {tee}")
    done = subprocess.run([command, "verify", "--url", url, "--enclave-hash", str(file), *flags], capture_output=True, text=True)
    if done.returncode:
        raise Broken(f"{url}:\n{done.stdout}{done.stderr}".rstrip())
    return f"{url} runs it"


def main() -> None:
    arguments = sys.argv[1:]
    at = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--url")
    parser.add_argument("--tee")
    parser.add_argument("--confonnx", default="confonnx")
    given = parser.parse_args(arguments[:at])
    if given.url and not given.tee:
        parser.error("--url needs --tee: whose measurement is expected")
    folder, key = given.folder, given.key.read_bytes()
    link, said = "signature", ""
    try:
        signed = signature(folder, key)
        print("✓ signature")
        link = "manifest"
        manifest = listed(folder, signed)
        print(f"✓ manifest      {len(manifest)} files")
        link = "digests"
        digests(folder, manifest)
        print("✓ digests")
        link = "provenance"
        said = provenance(folder, key, manifest)
        print(f"✓ provenance    {said}")
        link = "materials"
        print(f"✓ materials     {materials(folder, manifest)}")
        link = "measurements"
        print(f"✓ measurements  {measured(folder, manifest)}")
        if given.url:
            link = "live server"
            print(f"✓ live server   {live(folder, given.url, given.tee, given.confonnx, arguments[at + 1 :])}")
    except (Broken, bundle.BundleError, OSError, KeyError, ValueError, TypeError) as error:
        print(f"✗ {link}: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
