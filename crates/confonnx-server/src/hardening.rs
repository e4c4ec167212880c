//! Keeping the process's memory to itself.

use std::ffi::OsString;

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

/// Variables that change what code runs, and that nobody who starts this server has to set.
#[derive(Debug, thiserror::Error)]
#[error(
    "the variable {name} is set, and can change what code runs here; start without LD_… and ORT_… variables, or with \
     --debug for development"
)]
pub struct EnvironmentError {
    name: String,
}

/// Refuses variables of the dynamic loader and of ONNX Runtime, unless this is for development. By now the loader has read
/// its own: who wants them unset has to start the server without, as a measured image does.
///
/// # Errors
/// The first one.
pub fn check_environment(
    insecure: bool,
    names: impl IntoIterator<Item = OsString>,
) -> Result<(), EnvironmentError> {
    let mut names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
    let found = names.find(|name| name.starts_with("LD_") || name.starts_with("ORT_"));
    found.filter(|_| !insecure).map_or(Ok(()), |name| Err(EnvironmentError { name }))
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
