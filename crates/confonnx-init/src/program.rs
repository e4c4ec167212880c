//! The server: the one program this machine runs.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::{fs, io};

use crate::console::say;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The program cannot be started.
    #[error("cannot start {SERVER}: {0}")]
    Start(io::Error),
    /// The program cannot be waited for.
    #[error("cannot wait for {SERVER}: {0}")]
    Wait(io::Error),
}

/// Runs the server until it ends.
pub(crate) fn run() -> Result<ExitStatus, ProgramError> {
    for device in DEVICES {
        hand_over(Path::new(device));
    }
    prepare_reports(Path::new(REPORTS));
    let mut server = Command::new(SERVER)
        .args(["--config", CONFIG])
        .env_clear()
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .uid(USER)
        .gid(USER)
        .spawn()
        .map_err(ProgramError::Start)?;
    server.wait().map_err(ProgramError::Wait)
}

/// Lets the server's user use what attests the machine.
fn hand_over(device: &Path) {
    if !device.exists() {
        return;
    }
    let handed = chown(device, Some(USER), Some(USER)).or_else(|_| {
        // securityfs knows no owners; its files hold no secrets.
        fs::metadata(device).and_then(|found| {
            let mut permissions = found.permissions();
            permissions.set_mode(permissions.mode() | 0o444);
            fs::set_permissions(device, permissions)
        })
    });
    if let Err(error) = handed {
        say(&format!("{}: {error}", device.display()));
    }
}

/// Makes the directory by which the server asks the kernel for reports (configfs-tsm). The server cannot: the kernel makes
/// attributes that are root's, whoever makes the directory, and `inblob` is its owner's alone to write.
fn prepare_reports(reports: &Path) {
    let entry = reports.join("confonnx");
    if !reports.is_dir() {
        return;
    }
    let handed = fs::create_dir(&entry).and_then(|()| {
        chown(&entry, Some(USER), Some(USER))?;
        fs::read_dir(&entry)?.try_for_each(|attribute| chown(attribute?.path(), Some(USER), Some(USER)))
    });
    match handed {
        // The interface is there without a TEE (ENXIO).
        Err(error) if error.raw_os_error() == Some(6) => {}
        Err(error) => say(&format!("{}: {error}", entry.display())),
        Ok(()) => say("the server may ask for reports"),
    }
}

const SERVER: &str = "/confonnx/confonnx-server";
const REPORTS: &str = "/sys/kernel/config/tsm/report";
const CONFIG: &str = "/etc/confonnx/server.toml";
/// The user that the server runs as, the same as in the container image.
const USER: u32 = 65532;
const DEVICES: [&str; 8] = [
    "/dev/tpm0",
    "/dev/tpmrm0",
    "/dev/sev-guest",
    "/dev/tdx_guest",
    // Without a TEE behind it the server has to be told so by the kernel, not by the lack of a right.
    REPORTS,
    "/sys/kernel/security",
    "/sys/kernel/security/tpm0",
    "/sys/kernel/security/tpm0/binary_bios_measurements",
];
