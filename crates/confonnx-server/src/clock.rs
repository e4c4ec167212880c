//! The host's clock, which is all there is inside a TEE; whoever relies on it guards against it running backwards.

use std::time::{SystemTime, UNIX_EPOCH};

use confonnx_attest::UnixTime;

/// Now.
pub fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
}
