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

const SERVER: &str = "/confonnx/confonnx-server";
const CONFIG: &str = "/etc/confonnx/server.toml";
/// The user that the server runs as, the same as in the container image.
const USER: u32 = 65532;
const DEVICES: [&str; 8] = [
    "/dev/tpm0",
    "/dev/tpmrm0",
    "/dev/sev-guest",
    "/dev/tdx_guest",
    "/sys/kernel/config/tsm/report",
    "/sys/kernel/security",
    "/sys/kernel/security/tpm0",
    "/sys/kernel/security/tpm0/binary_bios_measurements",
];
