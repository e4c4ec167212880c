//! The first process of the virtual machine image. It mounts what the kernel offers, loads the drivers that the image
//! names, forbids any further ones, gets an address, and runs the server as a user of its own: there is no shell, no
//! other program, and nothing is read from a disk. When the server ends, so does the machine.
//!
//! Everything here is measured: the program and the server's configuration are in the image. The answer of the
//! network's DHCP server is the host's word, as the network itself is.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

mod console;
mod dhcp;
mod netlink;
mod network;
mod program;
mod system;

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

fn boot() -> Result<std::process::ExitStatus, program::ProgramError> {
    system::mount_all();
    console::say("system mounted");
    system::load_modules(Path::new("/lib/modules/order"));
    system::mount_configfs();
    system::harden();
    console::say("drivers loaded, no more can be");
    match network::start() {
        Ok(lease) => console::say(&format!("network: {lease}")),
        // The server may still serve through a socket that needs no address.
        Err(error) => console::say(&format!("network: {error}")),
    }
    console::say("starting the server");
    program::run()
}
