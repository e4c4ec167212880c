#!/usr/bin/env python3
"""A transparency log of releases, in files that any web server can serve (C2SP tlog-tiles), and what is done with one.

    tlog.py key NAME --key PEM [--witness]           a verifier key; the secret key is made if there is none
    tlog.py new FOLDER --name NAME --key PEM          an empty log
    tlog.py add FOLDER --key PEM RELEASE              the release in a folder, as an entry; a new checkpoint
    tlog.py cosign FOLDER --log KEY --name NAME --key PEM --state FILE
                                                      as a witness: sees that the log only grew, and says so
    tlog.py prove FOLDER RELEASE                      release.tlog-proof, for the server's --release-proof

A log keeps all that was ever in it: whoever holds a release that is not in it holds one that nobody else was shown."""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import sys
import time
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

LOG, WITNESS = 1, 4
TILE = 256


class Refused(Exception):
    """Something that a log must not do, or files that are no log."""


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def root_of(hashes: list[bytes]) -> bytes:
    """The root hash (RFC 9162, section 2.1.1) of a tree with these hashes of leaves."""
    if not hashes:
        return sha256()
    if len(hashes) == 1:
        return hashes[0]
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01", root_of(hashes[:half]), root_of(hashes[half:]))


def path_of(index: int, hashes: list[bytes]) -> list[bytes]:
    """The inclusion proof (RFC 9162, section 2.1.3.1) of a leaf."""
    if len(hashes) == 1:
        return []
    half = 1 << (len(hashes) - 1).bit_length() - 1
    if index < half:
        return [*path_of(index, hashes[:half]), root_of(hashes[half:])]
    return [*path_of(index - half, hashes[half:]), root_of(hashes[:half])]


class Signer:
    """The secret key of a log or a witness, made if the file is not there."""

    def __init__(self, name: str, kind: int, file: Path) -> None:
        if not file.exists():
            key = Ed25519PrivateKey.generate()
            none = serialization.NoEncryption()
            file.touch(mode=0o600)
            file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
        found = serialization.load_pem_private_key(file.read_bytes(), None)
        if not isinstance(found, Ed25519PrivateKey):
            raise Refused(f"{file}: expected an Ed25519 key in PEM")
        self.name, self.kind, self.key = name, kind, found
        raw = found.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.typed = bytes([kind]) + raw
        self.id = sha256(name.encode(), b"\n", self.typed)[:4]

    def verifier(self) -> str:
        return f"{self.name}+{self.id.hex()}+{b64(self.typed)}"

    def line(self, text: str, now: int) -> str:
        if self.kind == LOG:
            signature = self.key.sign(text.encode())
        else:
            message = f"cosignature/v1\ntime {now}\n{text}"
            signature = now.to_bytes(8, "big") + self.key.sign(message.encode())
        return f"— {self.name} {b64(self.id + signature)}\n"


def check_signed(note: str, verifier: str) -> tuple[int, bytes]:
    """Size and root of a checkpoint that the log of this verifier key signed."""
    name, key_id, key = verifier.split("+", 2)
    text, signatures = note.split("\n\n", 1)
    for line in signatures.splitlines():
        signer, signature = line.removeprefix("— ").split(" ", 1)
        raw = base64.b64decode(signature)
        if signer == name and raw[:4].hex() == key_id:
            try:
                Ed25519PublicKey.from_public_bytes(base64.b64decode(key)[1:]).verify(raw[4:], f"{text}\n".encode())
            except InvalidSignature:
                break
            origin, size, root = text.split("\n")[:3]
            if origin != name:
                raise Refused(f"the checkpoint is of {origin}; expected {name}")
            return int(size), base64.b64decode(root)
    raise Refused(f"{name} did not sign the checkpoint")


class Log:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def checkpoint(self) -> str:
        return (self.folder / "checkpoint").read_text()

    def size(self) -> int:
        return int(self.checkpoint.split("\n")[1])

    def _file(self, kind: str, number: int, width: int) -> Path:
        """The path of a tile, full or partial."""
        digits = f"{number:03d}"
        digits = digits.rjust((len(digits) + 2) // 3 * 3, "0")
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        path = self.folder / "tile" / kind / "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
        return path if width == TILE else path.with_name(f"{path.name}.p") / str(width)

    def _tiles(self, kind: str, size: int) -> list[bytes]:
        found = []
        for number in range((size + TILE - 1) // TILE):
            width = min(TILE, size - number * TILE)
            found.append(self._file(kind, number, width).read_bytes())
        return found

    def hashes(self, size: int) -> list[bytes]:
        """The hashes of the first leaves."""
        joined = b"".join(self._tiles("0", size))
        if len(joined) != 32 * size:
            raise Refused(f"the tiles have {len(joined) // 32} leaves; expected {size}")
        return [joined[at : at + 32] for at in range(0, len(joined), 32)]

    def entries(self) -> list[bytes]:
        found = []
        for tile in self._tiles("entries", self.size()):
            while tile:
                length = int.from_bytes(tile[:2], "big")
                found.append(tile[2 : 2 + length])
                tile = tile[2 + length :]
        return found

    def write(self, entries: list[bytes], signer: Signer) -> None:
        """Writes all tiles that the tree of `entries` has and that are not there yet, then its checkpoint."""
        hashes = [sha256(b"\x00", entry) for entry in entries]
        for number in range(0, len(entries), TILE):
            some = entries[number : number + TILE]
            bundle = b"".join(len(entry).to_bytes(2, "big") + entry for entry in some)
            self._put("entries", number // TILE, len(some), bundle)
        level, row = 0, hashes
        while row:
            for number in range(0, len(row), TILE):
                some = row[number : number + TILE]
                self._put(str(level), number // TILE, len(some), b"".join(some))
            full = len(row) // TILE
            row = [root_of(row[at * TILE : (at + 1) * TILE]) for at in range(full)]
            level += 1
        text = f"{signer.name}\n{len(entries)}\n{b64(root_of(hashes))}\n"
        (self.folder / "checkpoint").write_text(f"{text}\n{signer.line(text, 0)}")

    def _put(self, kind: str, number: int, width: int, content: bytes) -> None:
        file = self._file(kind, number, width)
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.exists() and file.read_bytes() != content:
            raise Refused(f"{file} is there with other content: a log only grows")
        file.write_bytes(content)

    def cosign(self, verifier: str, witness: Signer, state: Path, now: int) -> None:
        """Adds the witness' line, if the log only grew since it was last seen."""
        note = self.checkpoint
        size, root = check_signed(note, verifier)
        hashes = self.hashes(size)
        if root_of(hashes) != root:
            raise Refused(f"the tiles do not have the checkpoint's root at {size} entries")
        if state.exists():
            seen = json.loads(state.read_text())
            if size < seen["size"]:
                raise Refused(f"rollback: the log has {size} entries, and had {seen['size']}")
            if root_of(hashes[: seen["size"]]).hex() != seen["root"]:
                raise Refused(f"split view: the first {seen['size']} entries are others than were seen before")
        # What was seen is written down before anybody is told that it was.
        state.write_text(json.dumps({"size": size, "root": root.hex()}) + "\n")
        text, signatures = note.split("\n\n", 1)
        own = f"— {witness.name} "
        others = "".join(f"{line}\n" for line in signatures.splitlines() if not line.startswith(own))
        (self.folder / "checkpoint").write_text(f"{text}\n\n{others}{witness.line(text + chr(10), now)}")

    def prove(self, entry: bytes) -> str:
        entries, size = self.entries(), self.size()
        if entry not in entries:
            raise Refused("a missing entry: the log does not have this release; add it")
        index = entries.index(entry)
        path = "".join(f"{b64(hash)}\n" for hash in path_of(index, self.hashes(size)))
        return f"c2sp.org/tlog-proof@v1\nextra {b64(entry)}\nindex {index}\n{path}\n{self.checkpoint}"


def entry_of(release: Path) -> bytes:
    """The entry of a release: its version, its manifest's digest, and the programs that hardware will name."""
    version = json.loads((release / "sbom.cdx.json").read_text())["metadata"]["component"]["version"]
    infos = json.loads((release / "enclave_info.json").read_text())
    programs = {f"enclave {tee} {info.get('enclave_hash') or info['mrenclave']}" for tee, info in infos.items()}
    lines = [f"version {version}", f"manifest {sha256((release / 'SHA256SUMS').read_bytes()).hex()}", *sorted(programs)]
    return "".join(f"{line}\n" for line in ["confonnx release v1", *lines]).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, what in [("key", "name"), ("new", "folder"), ("add", "folder"), ("cosign", "folder"), ("prove", "folder")]:
        one = commands.add_parser(command)
        one.add_argument(what, type=str if what == "name" else Path)
        if command in ("add", "prove"):
            one.add_argument("release", type=Path)
        if command in ("new", "cosign"):
            one.add_argument("--name", required=True)
        if command != "prove":
            one.add_argument("--key", type=Path, required=True)
        if command == "key":
            one.add_argument("--witness", action="store_true")
        if command == "cosign":
            one.add_argument("--log", required=True)
            one.add_argument("--state", type=Path, required=True)
    given = parser.parse_args()
    try:
        if given.command == "key":
            print(Signer(given.name, WITNESS if given.witness else LOG, given.key).verifier())
            return
        log = Log(given.folder)
        if given.command == "new":
            given.folder.mkdir(parents=True)
            log.write([], Signer(given.name, LOG, given.key))
        elif given.command == "add":
            entry, entries = entry_of(given.release), log.entries()
            if entry not in entries:
                log.write([*entries, entry], Signer(log.checkpoint.split("\n")[0], LOG, given.key))
        elif given.command == "cosign":
            log.cosign(given.log, Signer(given.name, WITNESS, given.key), given.state, int(time.time()))
        else:
            sys.stdout.write(log.prove(entry_of(given.release)))
    except (Refused, OSError) as error:
        raise SystemExit(f"tlog: {error}") from None


if __name__ == "__main__":
    main()
