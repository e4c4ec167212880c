//! What the firmware's event log says, once it is shown to be what the TPM measured.

use super::pcrs::{Pcrs, list};
use crate::Verdict;
use crate::digest::encode;
use crate::eventlog::{Bank, EventLog};

/// Longest log in evidence, in bytes; real ones have some 50 KiB.
pub(super) const MAX_LOG_BYTES: usize = 256 << 10;

/// Whether Secure Boot was on, by a log that agrees with the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecureBoot {
    On,
    Off,
    /// There is no log, or it does not say.
    Unknown,
}

/// Records whether `log` gives the quoted values of the firmware's own PCRs; returns what it then says of Secure Boot.
/// Later PCRs are extended by software that keeps logs of its own.
pub(super) fn check(log: Option<&[u8]>, pcrs: &Pcrs, verdict: &mut Verdict) -> SecureBoot {
    let Some(log) = log else {
        verdict.info("event log", "none");
        return SecureBoot::Unknown;
    };
    let firmware: Vec<_> = pcrs.0.iter().filter(|(index, _)| **index <= LAST_OF_FIRMWARE).collect();
    let expected = format!("a log of pcrs {}", list(firmware.iter().map(|(index, _)| *index)));
    let log = match EventLog::parse(log) {
        Ok(log) => log,
        Err(err) => {
            verdict.decide("event log", expected, err.to_string(), false);
            return SecureBoot::Unknown;
        }
    };
    let differing =
        firmware.iter().find_map(|&(&index, value)| match log.replay(Bank::Sha256, index.into()) {
            Ok(replayed) if replayed == value => None,
            Ok(replayed) => Some(format!("pcr {index} would be {}", encode(&replayed))),
            Err(err) => Some(err.to_string()),
        });
    let agrees = differing.is_none();
    let found = differing.unwrap_or_else(|| format!("{} events that give them", log.events().len()));
    verdict.decide("event log", expected, found, agrees);
    if agrees { secure_boot(&log) } else { SecureBoot::Unknown }
}

/// The variable `SecureBoot` as the firmware measured it: an event whose digest is that of its data (TCG PC Client
/// Platform Firmware Profile, 3.3.4.8, UEFI_VARIABLE_DATA).
fn secure_boot(log: &EventLog<'_>) -> SecureBoot {
    use sha2::{Digest as _, Sha256};
    let mut states = log.events().iter().filter_map(|event| {
        let measured = event.register == 7
            && event.kind == EV_EFI_VARIABLE_DRIVER_CONFIG
            && event.digest(Bank::Sha256) == Some(&Sha256::digest(event.data));
        event.data.strip_prefix(VARIABLE.as_slice()).filter(|_| measured)
    });
    match (states.next(), states.next()) {
        (Some([1]), None) => SecureBoot::On,
        (Some(_), None) => SecureBoot::Off,
        _ => SecureBoot::Unknown,
    }
}

/// PCRs 8 and later are for what runs after the firmware.
const LAST_OF_FIRMWARE: u8 = 7;
const EV_EFI_VARIABLE_DRIVER_CONFIG: u32 = 0x8000_0001;
/// GUID of EFI's own variables, lengths of name (in UTF-16 units) and value, name; the value follows.
const VARIABLE: [u8; 52] = *b"\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c\
    \x0a\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0S\0e\0c\0u\0r\0e\0B\0o\0o\0t\0";
