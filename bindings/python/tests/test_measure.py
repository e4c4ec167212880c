"""`confonnx measure snp` gives what sev-snp-measure, an independent implementation, gives for the same inputs."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import uuid
from pathlib import Path

import pytest
from conftest import server_executable
from sevsnpmeasure import guest, vcpu_types
from sevsnpmeasure.sev_mode import SevMode
from sevsnpmeasure.vmm_types import VMMType

# Sections of memory as in edk2's AmdSev build: address, size, type.
SECTIONS = [
    (0x800000, 0x9000, 1),
    (0x80A000, 0x3000, 1),
    (0x80D000, 0x1000, 2),
    (0x80E000, 0x1000, 3),
    (0x80F000, 0x1000, 4),
    (0x810000, 0x1000, 0x10),
    (0x811000, 0xF000, 1),
]
METADATA_OFFSET = 0x800


def firmware(pages: int, seed: int) -> bytes:
    """An image with random content and what VMMs look for in OVMF."""

    def entry(guid: str, data: bytes) -> bytes:
        return data + struct.pack("<H", len(data) + 18) + uuid.UUID(guid).bytes_le

    table = (
        entry("e47a6535-984a-4798-865e-4685a7bf8ec2", struct.pack("<I", 0x900))
        + entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", METADATA_OFFSET))
        + entry("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", 0x810C00, 0x400))
        + entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", 0x80B004))
    )
    table += struct.pack("<H", len(table) + 18) + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(SECTIONS), 1, len(SECTIONS))
    metadata += b"".join(struct.pack("<III", *section) for section in SECTIONS)

    image = bytearray(random.Random(seed).randbytes(4096 * pages))
    image[-METADATA_OFFSET : len(metadata) - METADATA_OFFSET] = metadata
    image[-32 - len(table) : -32] = table
    return bytes(image)


@pytest.mark.parametrize(
    ("pages", "vcpus", "model", "vmm", "features", "kernel", "initrd", "append"),
    [
        (4, 1, "EPYC", "qemu", 0x1, None, None, ""),
        (64, 4, "EPYC-v4", "qemu", 0x1, b"kernel", b"initrd", "console=ttyS0 loglevel=7"),
        (5, 2, "EPYC-Rome", "qemu", 0x21, b"kernel", None, ""),
        (4, 16, "EPYC-Milan-v2", "qemu", 0x21, b"", b"", "ä"),
        (1024, 96, "EPYC-Genoa", "qemu", 0x1, None, None, ""),
        (4, 3, "EPYC-Turin", "qemu", 0xFFFFFFFFFFFFFFFF, None, None, ""),
        (4, 1, "EPYC-v4", "ec2", 0x1, None, None, ""),
        (16, 8, "EPYC-Milan", "ec2", 0x21, b"kernel" * 10_000, b"initrd" * 10_000, "quiet"),
    ],
    ids=str,
)
def test_launch_digests_equal_those_of_sev_snp_measure(
    pages: int,
    vcpus: int,
    model: str,
    vmm: str,
    features: int,
    kernel: bytes | None,
    initrd: bytes | None,
    append: str,
    tmp_path: Path,
) -> None:
    image = tmp_path / "OVMF.fd"
    image.write_bytes(firmware(pages, seed=vcpus))
    out = tmp_path / "enclave_info.json"
    flags = ["--firmware", image, "--vcpus", vcpus, "--vcpu-type", model, "--vmm", vmm, "--guest-features", features]
    files = {}
    for name, content in (("kernel", kernel), ("initrd", initrd)):
        if content is not None:
            files[name] = str(tmp_path / name)
            Path(files[name]).write_bytes(content)
            flags += [f"--{name}", files[name]]
    if append:
        flags += ["--append", append]
    if kernel is None:
        flags += ["--firmware-only"]
    command = server_executable().with_name("confonnx")
    done = subprocess.run([str(command), "measure", "snp", *map(str, flags), "--out", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    expected = guest.calc_launch_digest(
        SevMode.SEV_SNP,
        vcpus,
        vcpu_types.CPU_SIGS[model],
        str(image),
        files.get("kernel"),
        files.get("initrd"),
        append,
        features,
        vmm_type=VMMType[vmm if vmm == "ec2" else "QEMU"],
    )
    info = json.loads(out.read_text())
    assert (info["tee"], info["enclave_hash"]) == ("snp", expected.hex())


def test_what_was_predicted_can_be_expected(tmp_path: Path) -> None:
    from confonnx.client import Client, PolicyError

    image = tmp_path / "OVMF.fd"
    image.write_bytes(firmware(4, seed=1))
    out = tmp_path / "enclave_info.json"
    command = [str(server_executable().with_name("confonnx")), "measure", "snp", "--firmware", str(image)]
    subprocess.run([*command, "--vcpus", "1", "--vcpu-type", "EPYC", "--firmware-only", "--out", str(out)], check=True)
    Client("http://127.0.0.1:1", enclave_hash=str(out))
    policy = tmp_path / "policy.toml"
    policy.write_text('enclave_info_files = ["enclave_info.json"]\n[snp]\n')
    Client("http://127.0.0.1:1", policy=policy)
    with pytest.raises(PolicyError, match="nothing can be both"):
        Client("http://127.0.0.1:1", policy=policy, enclave_hash="ab" * 48)
