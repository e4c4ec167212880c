//! Mounts, drivers, and what the kernel is forbidden before the server starts.

use std::fs::{self, File};
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot};

use crate::console::say;

/// What the kernel offers as file systems, but for configfs, which is a driver in some kernels.
pub(crate) fn mount_all() {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mounts = [
        ("proc", "/proc", quiet),
        ("sysfs", "/sys", quiet),
        ("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC),
        ("securityfs", "/sys/kernel/security", quiet),
        ("tmpfs", "/run", quiet),
        ("tmpfs", "/tmp", quiet),
    ];
    for (kind, place, flags) in mounts {
        let _ = fs::create_dir_all(place);
        if let Err(error) = mount(kind, place, kind, flags, None) {
            say(&format!("{place}: cannot mount {kind}: {error}"));
        }
    }
}

/// Where reports of newer kernels are asked for (configfs-tsm).
pub(crate) fn mount_configfs() {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(error) = mount("configfs", "/sys/kernel/config", "configfs", flags, None) {
        say(&format!("/sys/kernel/config: cannot mount configfs: {error}"));
    }
}

/// Loads the drivers that the file names, a path a line, in its order.
pub(crate) fn load_modules(order: &Path) {
    let Ok(names) = fs::read_to_string(order) else {
        return say("no drivers in the image");
    };
    let mut hyper_v = true;
    for name in names.lines().filter(|name| !name.is_empty()) {
        // All of Hyper-V's need its bus, and say so at length.
        if !hyper_v && name.contains("/hv_") {
            continue;
        }
        let loaded = File::open(name).and_then(|file| Ok(finit_module(file, c"", 0)?));
        if let Err(error) = loaded {
            hyper_v &= !name.contains("/hv_vmbus");
            // A machine need not have what each driver is for.
            say(&format!("{name}: {error}"));
        }
    }
}

/// No driver, kernel or program of the kernel's own joins from here on.
pub(crate) fn harden() {
    let settings = [
        ("/proc/sys/kernel/modules_disabled", "1"),
        ("/proc/sys/kernel/kexec_load_disabled", "1"),
        ("/proc/sys/kernel/unprivileged_bpf_disabled", "1"),
        ("/proc/sys/kernel/kptr_restrict", "2"),
        ("/proc/sys/kernel/dmesg_restrict", "1"),
        ("/proc/sys/kernel/perf_event_paranoid", "3"),
        ("/proc/sys/kernel/sysrq", "0"),
        ("/proc/sys/kernel/core_pattern", "|/no/core/files"),
        ("/proc/sys/vm/mmap_rnd_bits", "32"),
    ];
    for (name, value) in settings {
        if let Err(error) = fs::write(name, value) {
            say(&format!("{name}: {error}"));
        }
    }
}

/// Does not return unless the kernel refuses.
pub(crate) fn power_off() {
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::PowerOff) {
        say(&format!("cannot power off: {error}"));
    }
}
