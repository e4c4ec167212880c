"""The virtual machine image, booted in QEMU with UEFI firmware and a TPM in software, and asked by the ordinary client.

Run by `make test-vm`. What the client compares with was predicted from the image's bytes, before any boot, but for two values
that no image decides: PCR 0, which is the firmware's, and the TPM's key, which nobody certified here. The commands are those of
docs/guides/deploy.md wherever it has some. Machines boot beside each other, as many as there are processors: a boot takes half a
minute of one.

CONFONNX_VM is a folder in which make-vm has made an image, with fetched/trixie besides, other stub and firmware; CONFONNX_CLI the
`confonnx` command. The server may be of any profile.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tomllib
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILT = Path(os.environ["CONFONNX_VM"])
CONFONNX = os.environ["CONFONNX_CLI"]
FIRMWARE = BUILT / "fetched/root/usr/share/OVMF"
# Firmware of 2025, in one file. Its first 528 KiB are its variables.
WHOLE_FIRMWARE = BUILT / "fetched/trixie/root/usr/share/ovmf/OVMF.fd"
VARIABLES = 0x84000
STUB = "usr/lib/systemd/boot/efi/linuxx64.efi.stub"
MODEL = ROOT / "examples/digits/digits.onnx"
SAMPLE = ROOT / "examples/digits/samples/digit_7.json"
PATIENCE = 900


def client(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([CONFONNX, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def make(image: Path, built: Path = BUILT, **environment: str) -> Path:
    """Makes an image at that path, and beside it, as .toml, what is predicted of it."""
    environment = os.environ | {"IMAGE": str(image), "CONFONNX": CONFONNX} | environment
    subprocess.run([HERE / "make-vm", built], env=environment, check=True, timeout=600)
    return image


def predicted(image: Path) -> dict[int, list[str]]:
    """The values of each PCR that an image decides, and those of a machine that adds nothing."""
    measured = client("measure", "uki", image, "--plain-machine")
    assert measured.returncode == 0, measured.stderr
    policy = tomllib.loads(measured.stdout)
    return {int(index): values for index, values in policy["tpm"]["pcrs"].items()}


def written(path: Path, pcrs: dict[int, list[str]], ak: str | None = None) -> Path:
    keys = [f'aks = ["{ak}"]'] if ak else []
    path.write_text("\n".join(["[tpm]", *keys, "[tpm.pcrs]", *(f"{index} = {json.dumps(values)}" for index, values in pcrs.items())]))
    return path


def page(folder: Path, port: int, *wanted: str) -> str:
    """The commands of those blocks of docs/guides/deploy.md that have these words, to be run in the folder, which becomes a checkout's
    after `make vm`: by the programs of this test, and with that port in place of 8888."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/guides/deploy.md").read_text(), re.S)
    found = [[block for block in blocks if words in block] for words in wanted]
    assert [len(blocks) for blocks in found] == [1] * len(wanted), wanted
    laid_out(folder / "target/image/out/vm")
    for name in ("deploy", "examples"):
        (folder / name).symlink_to(ROOT / name)
    text = "".join(block for [block] in found)
    text = text.replace("127.0.0.1:8888", f"127.0.0.1:{port}").replace("state 8888", f"state {port}")
    return f'set -eu\nexport CONFONNX={CONFONNX}\nconfonnx() {{ "$CONFONNX" "$@"; }}\n{text}'


def laid_out(vm: Path) -> None:
    """A folder as make-vm needs one, into which it can write."""
    vm.mkdir(parents=True, exist_ok=True)
    for name in ("confonnx-init", "confonnx-server", "rootfs", "fetched"):
        (vm / name).symlink_to(BUILT / name)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Machine:
    """A machine that serves, or the commands that started one."""

    url: str
    process: subprocess.Popen[bytes]
    output: Path

    def ended(self) -> str:
        """What the commands said, once they have ended well."""
        code = self.process.wait(timeout=PATIENCE)
        said = self.output.read_text()
        assert code == 0, said
        return said


@contextlib.contextmanager
def booted(command: list[str | Path], state: Path, port: int, over: str = "powering off", **environment: str) -> Iterator[Machine]:
    """Runs a machine, whose state is in that folder, until the block ends. The text `over` on its console says that it never will
    answer, and is an error."""
    output = state.with_suffix(".out")
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=state.parent, env=os.environ | environment, start_new_session=True, stdout=sink, stderr=subprocess.STDOUT
        )
    try:
        machine = Machine(f"http://127.0.0.1:{port}", process, output)
        deadline = time.monotonic() + PATIENCE
        while True:
            alive = process.poll() is None and time.monotonic() < deadline and over not in console(state)
            assert alive, f"the machine serves nothing: {output.read_text()}{console(state)[-4000:]}"
            try:
                with urllib.request.urlopen(machine.url, timeout=5) as answer:
                    assert answer.read().startswith(b"Healthy")
                    break
            except OSError:
                time.sleep(0.5)
        yield machine
    finally:
        # What the commands started is still there when they have ended.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def console(state: Path) -> str:
    log = state / "serial.log"
    return log.read_text(errors="replace") if log.exists() else ""


def differing(verdict: str) -> dict[int, str]:
    """The PCRs that a refusal names, and what it says that they stand for."""
    return {int(index): what for index, what in re.findall(r"(\d+): [0-9a-f]{64} \(differs: ([^)]*)\)", verdict)}


def digit_of(said: str) -> int:
    """The digit that a prediction in JSON says, in what commands said."""
    answer, _ = json.JSONDecoder().raw_decode(said[said.index("{") :])
    [[probabilities]] = [output["values"] for output in answer.values()]
    digit: int = probabilities.index(max(probabilities))
    return digit


def decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def events(log: bytes) -> list[tuple[int, bytes]]:
    """PCR and SHA-384 of each event (TCG PC Client Platform Firmware Profile, 10.2.2)."""
    sizes = {0x4: 20, 0xB: 32, 0xC: 48, 0xD: 64}
    found = []
    at = 32 + int.from_bytes(log[28:32], "little")
    while at < len(log):
        pcr, kind, count = struct.unpack_from("<III", log, at)
        at += 12
        digests = {}
        for _ in range(count):
            (algorithm,) = struct.unpack_from("<H", log, at)
            digests[algorithm] = log[at + 2 : at + 2 + sizes[algorithm]]
            at += 2 + sizes[algorithm]
        at += 4 + int.from_bytes(log[at : at + 4], "little")
        # EV_NO_ACTION extends nothing.
        if kind != 3:
            found.append((pcr, digests[0xC]))
    return found


def log_of(proof: Path) -> list[tuple[int, bytes]]:
    report = decoded(json.loads(proof.read_text())["document"]["evidence"]["report"])
    return events(decoded(json.loads(report)["event_log"]))


def extended(digests: Iterable[bytes]) -> str:
    value = bytes(48)
    for digest in digests:
        value = hashlib.sha384(value + digest).digest()
    return value.hex()


def memory_list(size: int) -> bytes:
    """The list of memory that QEMU gives the firmware of a TDX guest (Debian 13's) with less than 2.75 GiB of it, without its end."""
    own = [(0x800000, 0x806000), (0x809000, 0x80B000), (0x80B000, 0x80D000), (0x811000, 0x820000)]
    edges = sorted({0, size, *(edge for section in own for edge in section)})
    ranges = list(zip(edges, edges[1:]))
    end = 0x809000 + 56 + 48 * len(ranges) + 8
    listed = [struct.pack("<HHIII5Q", 1, 56, 0, 9, 0, 0, 0, 0, 0, end)]
    for start, stop in ranges:
        kind = 0 if (start, stop) in own else 7
        listed.append(struct.pack("<HHI16xIIQQ", 3, 48, 0, kind, 7, start, stop - start))
    return b"".join(listed)


CALLS = """
import json, os, sys, urllib.request
[image] = json.load(open(sys.argv[1]))["image"]["values"]
pixels = [pixel for plane in image for row in plane for pixel in row]
tensor = {"name": "image", "shape": [1, 1, 28, 28], "datatype": "FP32", "data": pixels}
for _ in range(4):
    request = urllib.request.Request(os.environ["CONFONNX_PROXY_URL"] + "/v2/models/digits/infer", json.dumps({"inputs": [tensor]}).encode())
    [output] = json.load(urllib.request.urlopen(request, timeout=120))["outputs"]
    print(output["data"].index(max(output["data"])))
"""


def resumed(url: str, policy: Path) -> tuple[list[str], int]:
    """What four calls of one client (the proxy's) say, and how many of their answers came by resumption, as seen on the way."""
    seen = bytearray()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                seen.extend(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    with socket.create_server(("127.0.0.1", 0)) as between:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    near, _ = between.accept()
                    far = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
                    for ends in ((near, far), (far, near)):
                        threading.Thread(target=pump, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        way = f"http://127.0.0.1:{between.getsockname()[1]}"
        calls = [sys.executable, "-c", CALLS, SAMPLE]
        ran = client("proxy", "--url", way, "--policy", policy, "--listen", "127.0.0.1:0", "--exec", *map(str, calls))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    digits = [line for line in ran.stdout.splitlines() if line.isdigit()]
    return digits, bytes(seen).lower().count(b"message/confonnx-session-res")


@dataclass(frozen=True)
class Good:
    """What was read off the machine whose image is as expected: the one policy that all others are judged by."""

    ak: str
    pcr_0: str
    policy: Path
    digit: int
    digits: list[str]
    resumed: int
    console: str


@dataclass(frozen=True)
class Volume:
    """What was read off the machine whose models are on a disk: with the log of its boot, PCRs and digests of the bank SHA-384."""

    image: Path
    digit: int
    log: list[tuple[int, bytes]]
    console: str


class Machines:
    """Every machine of these tests, booted as processors are free."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tpm = folder / "tpm"
        self.tpm.mkdir()
        # The copies of this TPM's state are one TPM: they have its key.
        self.set_up(self.tpm, "sha256")
        self.pool = ThreadPoolExecutor(os.cpu_count())
        self.good: Future[Good] = self.pool.submit(self.boot_good)
        self.booted: dict[str, Future[Any]] = {}
        boots: dict[str, Callable[[], Any]] = {name: partial(self.boot_changed, name) for name in CHANGES}
        boots |= {"volume": self.boot_volume, "direct": self.boot_direct, "damaged": self.boot_damaged, "untrusted": self.boot_untrusted}
        for name, boot in boots.items():
            self.booted[name] = self.pool.submit(boot)

    def set_up(self, tpm: Path, banks: str, *more: str) -> None:
        options = {"--tpmstate": tpm, "--pcr-banks": banks, "--config": "/dev/null", "--log": self.folder / "tpm.log"}
        setup = ["swtpm_setup", "--tpm2", *more, *(str(word) for option in options.items() for word in option)]
        subprocess.run(setup, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin"}, timeout=60)

    def result(self, name: str) -> Any:
        return self.booted[name].result(PATIENCE * 3)

    def boot(self, image: Path, state: Path, **more: str) -> contextlib.AbstractContextManager[Machine]:
        port = free_port()
        shutil.copytree(self.tpm, state / "tpm")
        return booted([HERE / "run", image, FIRMWARE, state, str(port)], state, port, **more)

    def boot_good(self) -> Good:
        """What the page does with an image, from its first boot to a verified prediction."""
        folder, port = self.folder / "good", free_port()
        script = page(folder, port, "| tee first.txt", "firmware=$(")
        (folder / "target/image/out/vm/image.efi").symlink_to(BUILT / "image.efi")
        shutil.copytree(self.tpm, folder / "state/tpm")
        with booted(["bash", "-c", script], folder / "state", port) as machine:
            said = machine.ended()
            first = (folder / "first.txt").read_text()
            # Of all that was predicted nothing else differs.
            assert set(differing(first)) == {0}, first
            assert said.count("Trusted.") == 1, said
            policy = folder / "image.toml"
            digits, count = resumed(machine.url, policy)
        tpm = tomllib.loads(policy.read_text())["tpm"]
        [ak], [pcr_0] = tpm["aks"], tpm["pcrs"]["0"]
        digit = digit_of(said[said.index("Trusted.") :])
        return Good(ak, pcr_0, policy, digit, digits, count, console(folder / "state"))

    def policy_of(self, image: Path) -> Path:
        good = self.good.result(PATIENCE)
        return written(image.with_suffix(".policy.toml"), {0: [good.pcr_0], **predicted(image)}, good.ak)

    def boot_changed(self, name: str) -> str:
        """The verdict on a machine in which something is not as expected."""
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir()
        change = CHANGES[name](folder)
        variables = {"VARIABLES": change.pop("VARIABLES")} if "VARIABLES" in change else {}
        built = Path(change.pop("BUILT", BUILT))
        image = BUILT / "image.efi" if variables else make(folder / "image.efi", built, **change)
        with self.boot(image, folder / "state", **variables) as machine:
            refused = client("verify", "--url", machine.url, "--policy", self.good.result(PATIENCE).policy)
        assert refused.returncode == 4, refused.stdout + refused.stderr
        return refused.stdout

    def boot_volume(self) -> Volume:
        """A machine whose models are on a disk, as the page makes and starts it; its image has the other stub."""
        folder, port = self.folder / "volume", free_port()
        script = page(folder, port, "VOLUME=1 MODELS=folder")
        (folder / "folder").mkdir()
        shutil.copy(MODEL, folder / "folder")
        # The same TPM, with a bank more.
        tpm = shutil.copytree(self.tpm, folder / "state/tpm")
        self.set_up(tpm, "sha256,sha384", "--reconfigure")
        image, proof = folder / "target/image/out/vm/image.efi", folder / "proof.json"
        stub = str(BUILT / "fetched/trixie/root" / STUB)
        with booted(["bash", "-c", script], folder / "state", port, STUB=stub) as machine:
            ask = ("--url", machine.url, "--policy", self.policy_of(image))
            verified = client("verify", *ask, "--save", proof)
            assert verified.returncode == 0, verified.stdout + verified.stderr
            model_hash = hashlib.sha256(MODEL.read_bytes()).hexdigest()
            answer = client("predict", *ask, "--enclave-model-hash", model_hash, "--json-in", SAMPLE)
            assert answer.returncode == 0, answer.stderr
        return Volume(image, digit_of(answer.stdout), log_of(proof), console(folder / "state"))

    def boot_direct(self) -> tuple[list[tuple[int, bytes]], dict[str, list[str]]]:
        """The log of a machine that is like a TDX guest but for TDX, and the registers that are predicted of such a guest."""
        state, files, image = self.folder / "direct", self.folder / "acpi", BUILT / "image.efi"
        direct = {"DIRECT": str(WHOLE_FIRMWARE)}
        command: list[str | Path] = [HERE / "run", image, FIRMWARE, self.folder / "shape", "0"]
        subprocess.run(command, env=os.environ | direct | {"ACPI": str(files)}, check=True, timeout=PATIENCE)
        like = ("--memory", "1536M", "--acpi", files)
        measured = client("measure", "tdx", "--firmware", WHOLE_FIRMWARE, "--kernel", image, *like)
        assert measured.returncode == 0, measured.stderr
        proof, port = self.folder / "direct.json", free_port()
        self.set_up(shutil.copytree(self.tpm, state / "tpm"), "sha256,sha384", "--reconfigure")
        with booted([HERE / "run", image, FIRMWARE, state, str(port)], state, port, **direct) as machine:
            client("verify", "--url", machine.url, "--policy", self.policy_of(image), "--save", proof)
        return log_of(proof), tomllib.loads(measured.stdout)["tdx"]

    def boot_damaged(self) -> str:
        """The console of a machine on whose disk one byte of the model is another."""
        image = make(self.folder / "damaged.efi", VOLUME="1")
        volume = image.with_suffix(".volume")
        changed = bytearray(volume.read_bytes())
        changed[changed.index(b"confonnx-example")] ^= 1
        volume.write_bytes(changed)
        state = self.folder / "damaged"
        with pytest.raises(AssertionError, match="serves nothing"):
            with self.boot(image, state, VOLUME=str(volume)):
                pass
        return console(state)

    def boot_untrusted(self) -> str:
        """The console of a machine whose firmware has Secure Boot on, with somebody else's keys."""
        state = self.folder / "untrusted"
        variables = {"VARIABLES": str(FIRMWARE / "OVMF_VARS_4M.snakeoil.fd")}
        with pytest.raises(AssertionError, match="serves nothing"):
            with self.boot(BUILT / "image.efi", state, over="No bootable option", **variables):
                pass
        return console(state)


def other_settings(folder: Path) -> dict[str, str]:
    settings = (HERE / "server.toml").read_text()
    (folder / "settings.toml").write_text(settings.replace("admin_port = 0", "admin_port = 8889"))
    return {"SETTINGS": str(folder / "settings.toml")}


def other_model(folder: Path) -> dict[str, str]:
    # A bit of the producer's name changes, in the file's head: the model is as good as before.
    other = bytearray(MODEL.read_bytes())
    other[other.index(b"confonnx-example")] ^= 1
    (folder / "models").mkdir()
    (folder / "models/digits.onnx").write_bytes(other)
    return {"MODELS": str(folder / "models")}


def other_file(folder: Path) -> dict[str, str]:
    """A byte of a file of the initial file system."""
    laid_out(folder)
    (folder / "rootfs").unlink()
    shutil.copytree(BUILT / "rootfs", folder / "rootfs")
    users = folder / "rootfs/etc/passwd"
    text = users.read_text()
    users.unlink()
    users.write_text(text.replace("confonnx:x", "confonnx:y"))
    return {"BUILT": str(folder)}


def other_variables(folder: Path) -> dict[str, str]:
    """The firmware's variables with somebody's keys, and Secure Boot switched off by a byte."""
    variables = bytearray((FIRMWARE / "OVMF_VARS_4M.snakeoil.fd").read_bytes())
    name = "SecureBootEnable\0".encode("utf-16-le")
    at = variables.index(name) + len(name)
    assert variables[at] == 1
    variables[at] = 0
    (folder / "variables.fd").write_bytes(variables)
    return {"VARIABLES": str(folder / "variables.fd")}


CHANGES: dict[str, Callable[[Path], dict[str, str]]] = {
    "command line": lambda _: {"CMDLINE": "x"},
    "initial file system": other_file,
    "settings": other_settings,
    "model": other_model,
    "firmware variables": other_variables,
}
# What the firmware started, what the kernel measured, and the parts of the image.
OF_THE_IMAGE = {4: "the programs that the firmware started", 9: "the kernel's command line", 11: "the parts of the image"}
OF_VARIABLES = {7: "the firmware's variables of Secure Boot"}


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    machines = Machines(folder)
    yield machines
    machines.pool.shutdown(cancel_futures=True)
    shutil.rmtree(folder)


def test_the_machine_is_what_was_predicted_and_serves(machines: Machines) -> None:
    good = machines.good.result(PATIENCE)
    assert good.digit == 7 and good.digits == ["7"] * 4
    # The first call is whole, and offers a resumption to those after it.
    assert good.resumed >= 1
    assert "no more can be" in good.console and "network: " in good.console


@pytest.mark.parametrize("what", CHANGES)
def test_one_byte_elsewhere_is_refused_and_named(what: str, machines: Machines) -> None:
    verdict = machines.result(what)
    expected = OF_VARIABLES if what == "firmware variables" else OF_THE_IMAGE
    named = differing(verdict)
    assert set(named) == set(expected), verdict
    for index, words in expected.items():
        assert named[index].startswith(words), verdict


def test_models_come_from_a_disk_that_the_image_has_the_hash_of(machines: Machines) -> None:
    volume: Volume = machines.result("volume")
    assert volume.digit == 7
    assert "has the volume of the image's root hash" in volume.console
    assert re.search(r"models: \d+ MB read, of a volume of \d+ MB", volume.console)


def test_another_stub_is_predicted_as_well(machines: Machines) -> None:
    versions = re.findall(r"systemd-boot-efi (\d+)", (BUILT / "fetched/versions").read_text())
    assert len(set(versions)) == 2, versions
    # That machine has the other one, and was accepted for what was predicted of it.
    assert machines.result("volume")


def test_registers_of_tdx_have_the_events_that_the_firmware_measured(machines: Machines) -> None:
    volume: Volume = machines.result("volume")
    image, log = volume.image, volume.log
    firmware = BUILT / "fetched/root/usr/share/ovmf/OVMF.fd"
    measured = client("measure", "tdx", "--firmware", firmware, "--kernel", image)
    assert measured.returncode == 0, measured.stderr
    policy = tomllib.loads(measured.stdout)["tdx"]
    # RTMR1 stands for PCRs 2 to 6, whose separators are one event there.
    separator = hashlib.sha384(bytes(4)).digest()
    programs = [digest for pcr, digest in log if pcr == 4 or (pcr == 5 and digest != separator)]
    assert extended(programs) in policy["rtmr1"]
    # RTMR2 stands for PCRs 8 to 15. This stub measures where there is no TPM, too; a kernel (PCR 9) does since 6.9.
    stub = [digest for pcr, digest in log if pcr == 11]
    both = [digest for pcr, digest in log if pcr in (9, 11)]
    assert policy["rtmr2"] in ([extended(stub)], [extended(both)])


def test_rtmr0_of_tdx_has_what_the_firmware_measured_of_keys_tables_and_boot_entries(machines: Machines) -> None:
    log, policy = machines.result("direct")
    # What a TPM does not see: QEMU's list of memory, and the firmware's volume of variables.
    unseen = [memory_list(1536 << 20), WHOLE_FIRMWARE.read_bytes()[:VARIABLES]]
    keys, configuration = ([digest for pcr, digest in log if pcr == index] for index in (7, 1))
    # The script for the tables, three files, two variables; the separator of PCR 1 comes last, and RTMR0 has that of PCR 7 alone.
    assert len(keys) == 6 and len(configuration) == 7 and configuration.pop() == keys[-1]
    assert extended([hashlib.sha384(part).digest() for part in unseen] + keys + configuration) in policy["rtmr0"]


def test_a_changed_disk_is_a_read_error_and_no_answer(machines: Machines) -> None:
    console = machines.result("damaged")
    assert re.search(r"verity: .*data block \d+ is corrupted", console), console[-4000:]
    assert re.search(r"digits\.onnx: .*os error 5", console), console[-4000:]
    assert "serving on" not in console


def test_another_disk_is_another_image(tmp_path: Path) -> None:
    for name, more in (("one", {}), ("another", other_model(tmp_path)), ("again", {})):
        make(tmp_path / f"{name}.efi", VOLUME="1", **more)
    values = [predicted(tmp_path / f"{name}.efi") for name in ("one", "another")]
    assert {index for index in values[0] if not set(values[0][index]) & set(values[1][index])} == {4, 9, 11}
    # The same models are the same disk.
    one, another, again = ((tmp_path / f"{name}.volume").read_bytes() for name in ("one", "another", "again"))
    assert one == again and one != another


def test_firmware_that_trusts_others_does_not_start_the_image(machines: Machines) -> None:
    assert "Security Violation" in machines.result("untrusted")


def test_the_image_is_the_same_when_made_again(machines: Machines, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        make(tmp_path / "image.efi", TZ="Asia/Tokyo")
    finally:
        os.umask(before)
    assert (tmp_path / "image.efi").read_bytes() == (BUILT / "image.efi").read_bytes()
