"""What deploy/vm/run-tee starts and predicts, with stand-ins for QEMU and the command: nobody here has the hardware."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "vm" / "run-tee"


def run(folder: Path, tee: str, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[str], list[str]]:
    """What the script printed, and the words that it gave to QEMU and to the command."""
    for name in ("qemu", "confonnx"):
        script = folder / name
        script.write_text(f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done > {folder}/{name}.words\n')
        script.chmod(0o755)
    for name in ("image.efi", "OVMF.fd"):
        (folder / name).write_bytes(b"x")
    programs = {"QEMU": str(folder / "qemu"), "CONFONNX": str(folder / "confonnx")}
    command = [str(SCRIPT), tee, "image.efi", "OVMF.fd", "8888"]
    done = subprocess.run(command, cwd=folder, env={**os.environ, **programs, **settings}, capture_output=True, text=True)
    words = [(folder / f"{name}.words") for name in ("qemu", "confonnx")]
    qemu, confonnx = (file.read_text().splitlines() if file.exists() else [] for file in words)
    return done, qemu, confonnx


def test_snp_starts_what_it_predicts(tmp_path: Path) -> None:
    done, qemu, confonnx = run(tmp_path, "snp", VCPUS="4", VCPU_TYPE="EPYC-Genoa")
    assert done.returncode == 0 and "--enclave-hash enclave_info.json" in done.stdout
    predicted = dict(zip(confonnx[2::2], confonnx[3::2]))
    started = dict(zip(qemu[::2], qemu[1::2]))
    assert confonnx[:2] == ["measure", "snp"]
    assert predicted["--vcpus"] == started["-smp"] == "4" and predicted["--vcpu-type"] == started["-cpu"] == "EPYC-Genoa"
    assert predicted["--kernel"] == started["-kernel"] and predicted["--firmware"] == started["-bios"]
    [guest] = [word for word in qemu if word.startswith("sev-snp-guest")]
    # With kernel-hashes the firmware starts nothing but this image; bit 19 of the policy would allow debugging.
    assert "kernel-hashes=on" in guest and not int(guest.split("policy=")[1].split(",")[0], 16) & 1 << 19


def test_tdx_gets_quotes_from_the_host(tmp_path: Path) -> None:
    done, qemu, confonnx = run(tmp_path, "tdx", QGS="4051")
    assert done.returncode == 0 and "RTMR0" in done.stdout and confonnx[:2] == ["measure", "tdx"]
    assert dict(zip(confonnx[2::2], confonnx[3::2]))["--kernel"] == "image.efi"
    [guest] = [json.loads(word) for word in qemu if word.startswith("{")]
    assert guest["qom-type"] == "tdx-guest" and guest["quote-generation-socket"]["port"] == "4051"
    assert any("confidential-guest-support=tee" in word for word in qemu) and guest["id"] == "tee"


def test_tdx_is_predicted_whole_with_the_tables_of_a_guest(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    done, qemu, confonnx = run(tmp_path, "tdx", ACPI="tables", MEMORY="3G")
    assert done.returncode == 0 and "RTMR0 to 3" in done.stdout and "read it off" not in done.stdout
    predicted = dict(zip(confonnx[2::2], confonnx[3::2]))
    assert predicted["--acpi"] == "tables" and predicted["--memory"] == qemu[qemu.index("-m") + 1] == "3G"


def test_the_guest_is_started_for_its_tables_when_there_are_none(tmp_path: Path) -> None:
    # The stand-in for QEMU ends before any firmware speaks.
    done, qemu, confonnx = run(tmp_path, "tdx", ACPI="tables")
    assert done.returncode == 1 and "expected the firmware to write to the serial port" in done.stderr
    assert "-qtest" in qemu and any("tdx-guest" in word for word in qemu) and not confonnx
    done, _, confonnx = run(tmp_path, "tdx", ACPI="tables", LIBVIRT="1")
    assert done.returncode == 1 and "copy the files in one" in done.stderr and not confonnx


@pytest.mark.parametrize("tee", ["snp", "tdx"])
def test_libvirt_gets_the_same_machine_as_a_domain(tmp_path: Path, tee: str) -> None:
    done, qemu, confonnx = run(tmp_path, tee, LIBVIRT="1", VCPUS="4", MEMORY="3G")
    assert done.returncode == 0 and not qemu and confonnx[:2] == ["measure", tee]
    domain = ElementTree.fromstring((tmp_path / "confonnx.xml").read_text())
    assert domain.findtext("vcpu") == "4" and domain.findtext("memory") == str(3 << 30)
    assert domain.findtext("os/kernel") == str(tmp_path / "image.efi")
    security = domain.find("launchSecurity")
    assert security is not None and security.get("type") == {"snp": "sev-snp", "tdx": "tdx"}[tee]
    policy = int(security.findtext("policy") or "", 16)
    # Debugging is bit 19 of SNP's policy, bit 0 of TDX's attributes.
    assert not policy & (1 << 19 | 1) and security.get("kernelHashes") == {"snp": "yes", "tdx": None}[tee]


@pytest.mark.parametrize(("tee", "words"), [("sev", "expected snp or tdx"), ("", "expected snp or tdx")])
def test_another_tee_is_refused(tmp_path: Path, tee: str, words: str) -> None:
    done, qemu, _ = run(tmp_path, tee)
    assert done.returncode == 1 and words in done.stderr and not qemu
