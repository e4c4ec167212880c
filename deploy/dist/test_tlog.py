"""A release in a log with three witnesses, all in folders of files; a server with the proof of it; and the ordinary client, which
names what is missing: an entry, a witness, a tree that only grew."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import tlog
from test_dist import CLI, Release, run, serving

NAMES = ["one.example", "two.example", "three.example"]


class Logged:
    """A log with other entries before and after the release, cosigned by two of three witnesses."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log"
        self.release = Release(folder)
        key = self.key("log.example/releases", "log")
        self.do("new", self.log, "--name", "log.example/releases", "--key", folder / "log.pem")
        self.signer = tlog.Signer("log.example/releases", tlog.LOG, folder / "log.pem")
        tlog.Log(self.log).write([f"other {number}".encode() for number in range(300)], self.signer)
        self.verifier, self.witnesses = key, [self.key(name, name, "--witness") for name in NAMES]
        self.do("add", self.log, "--key", folder / "log.pem", self.release.folder)
        for name in NAMES[:2]:
            self.cosign(name)
        self.proof = folder / "release.tlog-proof"
        self.proof.write_text(self.do("prove", self.log, self.release.folder))

    def key(self, name: str, file: str, *more: str) -> str:
        return self.do("key", name, "--key", self.folder / f"{file}.pem", *more).strip()

    def do(self, *arguments: object, fails: bool = False) -> str:
        code, output = run("tlog.py", *arguments)
        assert bool(code) == fails, output
        return output

    def cosign(self, name: str, log: Path | None = None, fails: bool = False) -> str:
        key, state = self.folder / f"{name}.pem", self.folder / f"{name}.state"
        given = ["--log", self.verifier, "--name", name, "--key", key, "--state", state]
        return self.do("cosign", log or self.log, *given, fails=fails)

    def policy(self, quorum: int = 2) -> Path:
        hash = json.loads((self.release.folder / "enclave_info.insecure.json").read_text())["enclave_hash"]
        text = f'allow_debug = true\nenclave_hashes = ["{hash}"]\n\n[release_log]\nkey = "{self.verifier}"\n'
        file = self.folder / f"policy-{quorum}.toml"
        file.write_text(f"{text}witnesses = {json.dumps(self.witnesses)}\nquorum = {quorum}\n")
        return file


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> Logged:
    return Logged(tmp_path_factory.mktemp("logged"))


def verify(url: str, policy: Path) -> tuple[int, str]:
    done = subprocess.run([CLI, "verify", "--url", url, "--policy", policy], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_a_client_accepts_what_is_logged_and_names_what_is_not(logged: Logged, tmp_path: Path) -> None:
    with serving(tmp_path, "--release-proof", logged.proof) as url:
        code, output = verify(url, logged.policy())
        assert code == 0 and "version 0.1.0, entry 300 of 301, cosigned by one.example, two.example" in output, output
        code, output = verify(url, logged.policy(3))
        assert code == 4 and "too few witnesses: cosigned by one.example, two.example" in output, output
        # A client that asks for no log is told that the server names one.
        done = subprocess.run([CLI, "verify", "--url", url, "--enclave-allow-debug"], capture_output=True, text=True)
        assert done.returncode == 0 and "a proof of log.example/releases" in done.stdout, done.stdout
    with serving(tmp_path) as url:
        code, output = verify(url, logged.policy())
        assert code == 4 and "no proof" in output, output


def test_a_proof_of_another_program_is_of_no_use(logged: Logged, tmp_path: Path) -> None:
    """The log is honest and has a release, of which this server is not."""
    log = tmp_path / "tree"
    shutil.copytree(logged.log, log)
    entries = tlog.Log(log).entries()
    entries[-1] = entries[-1].replace(b"enclave insecure ", b"enclave insecure 00")
    shutil.rmtree(log / "tile")
    tlog.Log(log).write(entries, logged.signer)
    text = tlog.Log(log).checkpoint
    body = text.split("\n\n")[0] + "\n"
    for name in NAMES:
        text += tlog.Signer(name, tlog.WITNESS, logged.folder / f"{name}.pem").line(body, 1)
    (log / "checkpoint").write_text(text)
    (tmp_path / "proof").write_text(tlog.Log(log).prove(entries[-1]))
    with serving(tmp_path, "--release-proof", tmp_path / "proof") as url:
        code, output = verify(url, logged.policy())
    assert code == 4 and "which has no insecure program" in output, output


def test_a_server_says_what_is_no_proof(tmp_path: Path) -> None:
    (tmp_path / "proof").write_text("c2sp.org/tlog-proof@v1\n")
    for name, said in [("proof", "expected c2sp.org/tlog-proof@v1"), ("nowhere", "No such file")]:
        with pytest.raises(AssertionError, match=said), serving(tmp_path, "--release-proof", tmp_path / name):
            pass


def test_witnesses_name_what_a_log_must_not_do(logged: Logged, tmp_path: Path) -> None:
    # This release was never added.
    other = tmp_path / "other"
    shutil.copytree(logged.release.folder, other)
    (other / "SHA256SUMS").write_text("")
    assert "a missing entry" in logged.do("prove", logged.log, other, fails=True)
    entries = tlog.Log(logged.log).entries()
    # This log has fewer entries than a witness has seen.
    rolled = tmp_path / "rolled"
    rolled.mkdir()
    tlog.Log(rolled).write(entries[:-1], logged.signer)
    assert "rollback: the log has 300 entries, and had 301" in logged.cosign("one.example", rolled, fails=True)
    # This log shows others other entries.
    split = tmp_path / "split"
    split.mkdir()
    tlog.Log(split).write([b"another", *entries[1:], b"more"], logged.signer)
    assert "split view: the first 301 entries are others" in logged.cosign("two.example", split, fails=True)
    # A witness who has seen nothing yet takes that log, and one witness is too few.
    logged.cosign("three.example", split)
    note = tlog.Log(split).checkpoint
    assert [name for name in NAMES if f"— {name} " in note] == ["three.example"]
    # The tiles are not those of the checkpoint; then the checkpoint is somebody else's.
    tiles = split / "tile/0/000"
    tiles.write_bytes(bytes(len(tiles.read_bytes())))
    assert "do not have the checkpoint's root" in logged.cosign("three.example", split, fails=True)
    tlog.Log(rolled).write(entries, tlog.Signer("log.example/releases", tlog.LOG, tmp_path / "stranger.pem"))
    assert "did not sign the checkpoint" in logged.cosign("one.example", rolled, fails=True)
    with pytest.raises(tlog.Refused, match="only grows"):
        tlog.Log(logged.log).write([b"another", *entries[1:]], logged.signer)


def test_files_are_where_the_specification_says(logged: Logged, tmp_path: Path) -> None:
    assert (logged.log / "tile/0/000").stat().st_size == 256 * 32
    assert (logged.log / "tile/0/001.p/45").stat().st_size == 45 * 32
    assert (logged.log / "tile/1/000.p/1").stat().st_size == 32
    assert tlog.Log(tmp_path)._file("0", 1234067, 256) == tmp_path / "tile/0/x001/x234/067"
    # The expected hashes are test vectors of Certificate Transparency.
    leaves = [b"", b"\x00", b"\x10", b"\x20\x21", b"\x30\x31", b"@ABC", b"PQRSTUVW", b"`abcdefghijklmno"]
    root = tlog.root_of([tlog.sha256(b"\x00", leaf) for leaf in leaves])
    assert root.hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
