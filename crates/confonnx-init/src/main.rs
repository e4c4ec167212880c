//! The first process of the virtual machine image. It mounts what the kernel offers, loads the drivers that the image
//! names, forbids any further ones, gets an address, and runs the server as a user of its own: there is no shell, and no
//! other program. When the server ends, so does the machine. If the image says so, models come from a disk: the image has
//! the root hash by which the kernel checks each block.
//!
//! Everything here is measured: the program and the server's configuration are in the image. The answer of the
//! network's DHCP server is the host's word, as the network itself is.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

use std::io::Write as _;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

mod console;
mod dhcp;
mod netlink;
mod network;
mod program;
mod system;
mod volume;

fn main() -> ExitCode {
    // Anywhere else this would only do harm.
    if std::process::id() != 1 {
        let _ = writeln!(std::io::stderr(), "confonnx-init: expected to be the first process, found another");
        return ExitCode::from(2);
    }
    let ended = boot();
    match ended {
        Ok(status) => console::say(&format!("the server ended ({status}): powering off")),
        Err(error) => console::say(&format!("{error}: powering off")),
    }
    system::power_off();
    ExitCode::FAILURE
}

fn boot() -> Result<ExitStatus, BootError> {
    system::mount_all();
    console::say("system mounted");
    system::load_modules(Path::new("/lib/modules/order"));
    system::mount_configfs();
    system::harden();
    console::say("drivers loaded, no more can be");
    if let Some(volume) = volume::mount()? {
        console::say(&format!("models: {volume}"));
        volume.watch();
    }
    match network::start() {
        Ok(lease) => console::say(&format!("network: {lease}")),
        // The server may still serve through a socket that needs no address.
        Err(error) => console::say(&format!("network: {error}")),
    }
    console::say("starting the server");
    Ok(program::run()?)
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    Volume(#[from] volume::VolumeError),
    #[error(transparent)]
    Program(#[from] program::ProgramError),
}
