//! Keeping the process's memory to itself.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Why the process could not be hardened.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot forbid core files, which would hold keys and plaintext ({call}: {source}); allow {call} in this sandbox"
)]
pub struct HardeningError {
    call: &'static str,
    source: std::io::Error,
}

/// Forbids core files and, to other processes of the same user, reading this one's memory.
///
/// # Errors
/// When the system refuses.
pub fn forbid_dumps() -> Result<(), HardeningError> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|e| HardeningError { call: "setrlimit", source: e.into() })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| HardeningError { call: "prctl", source: e.into() })
}

/// Makes panics say where they happened and nothing else: their messages can quote the values at hand.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!("panic at {place}; this is a bug, please report it");
    }));
}
