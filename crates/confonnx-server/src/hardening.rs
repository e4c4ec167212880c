//! Keeping the process's memory to itself.

use std::ffi::OsString;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit},
};

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

/// Refuses variables of the dynamic loader and of ONNX Runtime, unless they are no surprise: this is for development, or they are
/// measured. By now the loader has read
/// its own: who wants them unset has to start the server without, as a measured image does.
///
/// # Errors
/// The first one.
pub fn check_environment(
    expected: bool,
    names: impl IntoIterator<Item = OsString>,
) -> Result<(), EnvironmentError> {
    let mut names = names.into_iter().map(|name| name.to_string_lossy().into_owned());
    let found = names.find(|name| name.starts_with("LD_") || name.starts_with("ORT_"));
    found.filter(|_| !expected).map_or(Ok(()), |name| Err(EnvironmentError { name }))
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

/// Keeps this process's memory, keys and requests, out of swap, or says why it cannot; and says so if the system swaps at
/// all, as the models' processes are not locked: they give memory back by pages, which locked ones cannot.
pub fn lock_memory() {
    match lock() {
        Ok(()) => tracing::info!("memory of keys and requests is locked: it is never written to swap"),
        Err(why) => tracing::info!("memory of keys and requests is not locked: {why}"),
    }
    if let Ok(swaps) = std::fs::read_to_string("/proc/swaps")
        && is_swapping(&swaps)
    {
        tracing::warn!(
            "swap is on: weights and tensors in models' processes can be written to a disk, whatever is locked; turn it off \
             (swapoff -a)"
        );
    }
}

/// Why memory is not locked.
#[derive(Debug, thiserror::Error)]
enum NotLocked {
    /// Locking what comes would make it fail later.
    #[error(
        "expected no limit on what may be locked (RLIMIT_MEMLOCK), or CAP_IPC_LOCK; found {0} bytes and no capability; set \
         LimitMEMLOCK=infinity in the unit, or `--ulimit memlock=-1` for the container, or turn swap off"
    )]
    Limit(u64),
    /// The system refused.
    #[error("mlockall: {0}")]
    Refused(std::io::Error),
}

fn lock() -> Result<(), NotLocked> {
    // Pages are locked as they are touched: much is reserved that never is.
    let all = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    // With a limit of nothing, only a process may lock for which there is no limit, and then none counts later.
    let limit = getrlimit(Resource::Memlock);
    if setrlimit(Resource::Memlock, Rlimit { current: Some(0), ..limit }).is_ok() {
        let locked = mlockall(all);
        let _ = setrlimit(Resource::Memlock, limit);
        if locked.is_ok() {
            return Ok(());
        }
    }
    // A process that may raise the limit need not be told to.
    let _ = setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None });
    let limit = getrlimit(Resource::Memlock);
    let _ = setrlimit(Resource::Memlock, Rlimit { current: limit.maximum, ..limit });
    // Under a limit, what is mapped once it is reached fails: that would be worse than memory that may be swapped.
    if let Some(limit) = limit.maximum {
        return Err(NotLocked::Limit(limit));
    }
    mlockall(all).map_err(|error| NotLocked::Refused(error.into()))
}

/// Whether `/proc/swaps` lists anything below its heading.
fn is_swapping(swaps: &str) -> bool {
    swaps.lines().skip(1).any(|line| !line.trim().is_empty())
}

/// Makes panics say where they happened and nothing else: their messages can quote the values at hand.
pub fn silence_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!("panic at {place}; this is a bug, please report it");
    }));
}

#[cfg(test)]
mod tests {
    use rustix::process::dumpable_behavior;

    use super::*;

    #[test]
    fn dumps_are_forbidden_of_every_kind() {
        forbid_dumps().unwrap();
        let Rlimit { current, maximum } = getrlimit(Resource::Core);
        assert_eq!((current, maximum), (Some(0), Some(0)));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }

    #[test]
    fn a_heading_alone_is_no_swap() {
        let heading = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        assert!(!is_swapping(heading) && !is_swapping(""));
        assert!(is_swapping(&format!("{heading}/dev/sda2 partition 1048572 0 -2\n")));
    }
}
