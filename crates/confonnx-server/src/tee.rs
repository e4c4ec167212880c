//! What attests this server: the only place outside `confonnx-attest` that knows TEEs by name.

use std::path::Path;

use confonnx_attest::produce::{Attester, ProduceError, measure_executable};

/// Why there is nothing to attest this server.
#[derive(Debug, thiserror::Error)]
pub enum TeeError {
    /// No hardware that this version can use.
    #[error(
        "no TEE that this version supports: {}. Run it inside a confidential VM or enclave, or pass --debug to run \
         without protection, for development only",
        Looked(found)
    )]
    NoHardware {
        /// The devices looked for, and whether they are there.
        found: Vec<(&'static str, &'static str, bool)>,
    },
    /// The executable cannot be measured.
    #[error(transparent)]
    Produce(#[from] ProduceError),
}

/// The TEE this process runs in; the insecure stand-in only when `insecure` asks for it, never as a fallback.
///
/// # Errors
/// [`TeeError`]
pub fn select(insecure: bool) -> Result<Attester, TeeError> {
    if insecure {
        return Ok(Attester::insecure(measure_executable()?));
    }
    let found = DEVICES.iter().map(|(name, path)| (*name, *path, Path::new(path).exists())).collect();
    Err(TeeError::NoHardware { found })
}

const DEVICES: [(&str, &str); 5] = [
    ("SEV-SNP", "/dev/sev-guest"),
    ("TDX", "/dev/tdx_guest"),
    ("SGX", "/dev/attestation"),
    ("Nitro", "/dev/nsm"),
    ("TPM", "/dev/tpmrm0"),
];

struct Looked<'a>(&'a [(&'static str, &'static str, bool)]);

impl std::fmt::Display for Looked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, path, present)) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            let state = if *present { "present, not supported by this version" } else { "absent" };
            write!(f, "{separator}{name} ({path}) {state}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_insecure_stand_in_is_never_chosen_by_itself() {
        let error = select(false).unwrap_err().to_string();
        assert!(error.contains("/dev/sev-guest") && error.contains("--debug"), "{error}");
        assert_eq!(select(true).unwrap().tee(), confonnx_attest::Tee::Insecure);
    }
}
