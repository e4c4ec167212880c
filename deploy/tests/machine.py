"""A machine of its own, as far as systemd can tell: namespaces in which the system's systemd is the first process."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from pathlib import Path

SYSTEMD = Path("/usr/lib/systemd/systemd")
# What services depend on unless they say otherwise, and what the machine starts: nothing.
TARGETS = ("sysinit", "basic", "shutdown", "test")
# Devices of every machine, by their numbers, and two that only rules keep from us (FUSE, loop).
DEVICES = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0", "sev-guest": "10 229", "other": "10 237"}

SET_UP = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /usr/local
cp -a "$1"/local/. /usr/local
mkdir /usr/local/units && cp -a "$1"/units/. /usr/local/units
mkdir -p /usr/local/etc/upper /usr/local/etc/work
cp -a "$1"/etc/. /usr/local/etc/upper
mount -t overlay -o lowerdir=/etc,upperdir=/usr/local/etc/upper,workdir=/usr/local/etc/work overlay /etc
mount -t tmpfs -o mode=755 tmpfs /var/lib
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /sys/kernel
mkdir -p /sys/kernel/config/tsm/report
# Its own cgroups, of version 2: systemd makes the file system of version 1 read-only for everybody who has it mounted. In a
# group of its own, because what is forbidden to a service's group outlives the machine that forbade it.
umount -R -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
find /sys/fs/cgroup -mindepth 1 -depth -type d -path "*/confonnx-machine*" -exec rmdir {} + 2>/dev/null || true
mkdir "/sys/fs/cgroup/confonnx-machine.$2"
echo $$ > "/sys/fs/cgroup/confonnx-machine.$2/cgroup.procs"
mount -t tmpfs -o mode=755 tmpfs /dev
shift 2
while [ $# -gt 0 ]; do
    mknod -m 600 "/dev/$1" c $2 $3
    shift 3
done
mkdir /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts
ln -s pts/ptmx /dev/ptmx
chmod 666 /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty
exec unshare --cgroup bash -c 'umount /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"' - \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test SYSTEMD_UNIT_PATH=/usr/local/units:/etc/systemd/system \
    /usr/lib/systemd/systemd --system --unit=test.target --log-target=console --log-level=warning
"""


class Machine:
    """`folder` has `local` (its /usr/local), `etc` (added to /etc) and `units`."""

    def __init__(self, folder: Path) -> None:
        for target in TARGETS:
            (folder / "units" / f"{target}.target").write_text("[Unit]\nDefaultDependencies=no\n")
        devices = [word for name, numbers in DEVICES.items() for word in (name, *numbers.split())]
        self.log = folder / "systemd.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--fork", "--kill-child", "--pid", "--mount", "--net", "--ipc", "--uts", "--mount-proc"]
                + ["bash", "-c", SET_UP, "bash", str(folder), secrets.token_hex(4), *devices],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 60
        while self.run("systemctl", "is-active", "test.target").stdout.strip() != "active":
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Runs a command in the machine, as root."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        enter = ["nsenter", "--target", children[0] if children else "0", "--mount", "--pid", "--net"]
        return subprocess.run([*enter, *map(str, command)], capture_output=True, text=True, timeout=120)

    def show(self, unit: str, name: str) -> str:
        """One of a unit's properties."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()

    def end(self) -> None:
        """Ends all that runs in the machine."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def there() -> bool:
    """Whether this user may make a machine."""
    return os.geteuid() == 0 and SYSTEMD.exists() and shutil.which("nsenter") is not None
