"""The systemd units of docs/samples, run by systemd as they are, and installed as docs/guides/deploy.md says."""

from __future__ import annotations

import errno
import json
import re
import shutil
import time
from pathlib import Path
from typing import Iterator

import pytest
from machine import Machine, there
from programs import ROOT, TARGET, digits

SAMPLES = ROOT / "docs" / "samples"
SERVER, PROXY = "confonnx-server.service", "confonnx-proxy.service"
# The bit of CAP_DAC_OVERRIDE, by which a process may read and write files of others.
DAC_OVERRIDE = 1 << 1

# This program prints what the kernel says to the server's process when it asks for evidence.
PROBE = """
import errno, json, os
said = {}
def ask(name, call):
    try:
        call()
        said[name] = 0
    except OSError as error:
        said[name] = error.errno
for device in ("sev-guest", "other"):
    ask(device, lambda: os.open("/dev/" + device, os.O_RDWR))
ask("report", lambda: os.mkdir("/sys/kernel/config/tsm/report/probe"))
ask("sys", lambda: os.mkdir("/sys/kernel/config/probe"))
ask("usr", lambda: os.mkdir("/usr/local/probe"))
ask("state", lambda: os.mkdir("/var/lib/confonnx/probe"))
with open("/run/said/probe.json", "w") as file:
    json.dump(said, file)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if not there():
        pytest.skip("needs root, and systemd (installed, not running)")
    folder = tmp_path_factory.mktemp("machine")
    local, etc, units = folder / "local", folder / "etc" / "confonnx", folder / "units"
    for each in (local / "bin", local / "lib", etc, units):
        each.mkdir(parents=True)
    shutil.copy2(TARGET / "confonnx", local / "bin")
    shutil.copy2(digits.MODEL, local / "lib")
    (local / "lib" / "probe.py").write_text(PROBE)
    (local / "lib" / "settings.toml").write_text(
        f'debug = true\nmodel_path = "/usr/local/lib/{digits.MODEL.name}"\ncollateral_cache = "/var/lib/confonnx"\n'
    )
    shutil.copy2(SAMPLES / "proxy" / PROXY, units)
    for unit in (SERVER, PROXY):
        (units / f"{unit}.d").mkdir()
        (units / f"{unit}.d" / "log.conf").write_text(f"[Service]\nStandardError=file:/run/{unit}.log\n")
    # The program asks in the server's place, under the unit's rules.
    (units / f"{SERVER}.d" / "probe.conf").write_text(
        "[Service]\nRuntimeDirectory=said\nExecStartPost=/usr/bin/python3 /usr/local/lib/probe.py\n"
    )
    made = Machine(folder)
    yield made
    made.end()


def log(machine: Machine, unit: str) -> str:
    return machine.run("cat", f"/run/{unit}.log").stdout


@pytest.fixture(scope="module")
def serving(machine: Machine) -> Machine:
    page = (ROOT / "docs/guides/deploy.md").read_text()
    [commands] = re.findall(r"```sh\n(install .*?)```", page, re.DOTALL)
    commands = commands.replace("target/release", str(TARGET)).replace("settings.toml", "/usr/local/lib/settings.toml")
    # `enable --now` waits until the server has said that it is ready.
    done = machine.run("bash", "-ec", f"cd {ROOT}\n{commands}")
    assert done.returncode == 0, done.stderr + log(machine, SERVER) + machine.log.read_text()
    return machine


def test_the_server_answers_once_it_is_started(serving: Machine) -> None:
    assert serving.show(SERVER, "ActiveState") == "active"
    verified = serving.run("/usr/local/bin/confonnx", "verify", "--url", "http://127.0.0.1:8888", "--enclave-allow-debug")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    # The sandbox of the models' processes holds under these rules, too.
    assert "isolated" in verified.stdout, verified.stdout


def test_it_has_the_capability_to_ask_for_evidence_and_no_other(serving: Machine) -> None:
    status = serving.run("cat", f"/proc/{serving.show(SERVER, 'MainPID')}/status").stdout
    found = {key: value.split() for key, _, value in (line.partition(":") for line in status.splitlines())}
    assert found["Uid"][0] != "0"
    for kind in ("CapEff", "CapPrm", "CapBnd"):
        assert int(found[kind][0], 16) == DAC_OVERRIDE, kind
    assert (found["NoNewPrivs"], found["Seccomp"]) == (["1"], ["2"])


def test_evidence_can_be_asked_for_and_nothing_else_be_written(serving: Machine) -> None:
    said = json.loads(serving.run("cat", "/run/said/probe.json").stdout)
    # A kernel without such a device says so, which is no refusal.
    assert said.pop("sev-guest") not in (errno.EPERM, errno.EACCES)
    assert said == {"report": 0, "state": 0, "other": errno.EPERM, "sys": errno.EROFS, "usr": errno.EROFS}


def test_a_reload_keeps_the_process(serving: Machine) -> None:
    before = serving.show(SERVER, "MainPID")
    reloaded = serving.run("systemctl", "reload", SERVER)
    assert reloaded.returncode == 0, reloaded.stderr
    assert (serving.show(SERVER, "MainPID"), serving.show(SERVER, "ActiveState")) == (before, "active")


def test_the_proxy_answers_programs_of_the_machine(serving: Machine, tmp_path: Path) -> None:
    policy = '[[upstream]]\nname = "digits"\nurl = "http://127.0.0.1:8888"\npolicy = "policy.toml"\n'
    (tmp_path / "proxy.toml").write_text(policy)
    (tmp_path / "policy.toml").write_text("allow_debug = true\n")
    for file in ("proxy.toml", "policy.toml"):
        assert serving.run("cp", tmp_path / file, f"/etc/confonnx/{file}").returncode == 0
    started = serving.run("systemctl", "start", PROXY)
    assert started.returncode == 0, started.stderr
    for _ in range(30):
        asked = serving.run("curl", "-sf", "http://127.0.0.1:8000/v2/health/ready")
        if asked.returncode == 0:
            break
        time.sleep(0.1)
    assert asked.returncode == 0 and serving.show(PROXY, "ActiveState") == "active", log(serving, PROXY) + serving.show(PROXY, "ExecMainStatus")
    assert serving.run("systemctl", "stop", PROXY).returncode == 0
    assert serving.show(PROXY, "Result") == "success"


def test_what_it_has_received_is_answered_before_it_stops(serving: Machine) -> None:
    assert serving.run("systemctl", "stop", SERVER).returncode == 0
    assert (serving.show(SERVER, "ActiveState"), serving.show(SERVER, "Result")) == ("inactive", "success")
    assert "stopped" in log(serving, SERVER)


def test_wrong_settings_are_said_before_anything_starts(serving: Machine) -> None:
    serving.run("sed", "-i", "s/model_path/model_pat/", "/etc/confonnx/production.toml")
    started = serving.run("systemctl", "start", SERVER)
    assert started.returncode != 0 and "model_pat" in log(serving, SERVER), log(serving, SERVER)
    serving.run("systemctl", "stop", SERVER)
