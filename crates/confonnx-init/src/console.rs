//! What the console shows of the start: the serial port, in the image.

use std::io::Write as _;

/// One line, with the time since the machine started.
pub(crate) fn say(text: &str) {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    let since = uptime.split(' ').next().unwrap_or_default();
    // A console that is gone is no reason to stop.
    let _ = writeln!(std::io::stdout(), "confonnx-init [{since:>8}] {text}");
}
