//! The log of what firmware and boot loader measured: TCG PC Client Platform Firmware Profile 1.06, section 10, in its
//! crypto-agile form. TPMs log to PCRs with it, TDX guests to RTMRs (the CCEL table of the ACPI).
//!
//! A log is not signed. It is worth something once it [replays](EventLog::replay) to registers that hardware signed;
//! then its digests are those that were measured. Its data is what the firmware says was measured: for some kinds the
//! digest is that of the data, for others (`EV_EFI_BOOT_SERVICES_APPLICATION`…) of something the log does not contain.

use sha2::{Digest as _, Sha256, Sha384};

use crate::cursor::{Cursor, Truncated};

/// Most bytes of a log that are read, padding included: firmware reserves up to some MiB.
pub(crate) const MAX_LOG_BYTES: usize = 4 << 20;

/// A log whose every byte was read.
#[derive(Clone, Debug)]
pub(crate) struct EventLog<'a> {
    events: Vec<Event<'a>>,
    /// The log's length without padding.
    len: usize,
}

/// One measurement: a `TCG_PCR_EVENT2`.
#[derive(Clone, Debug)]
pub(crate) struct Event<'a> {
    /// Number of the PCR; in logs of TDX 0 for MRTD and n + 1 for RTMR n.
    pub(crate) register: u32,
    /// The event's type: one of `EV_…`.
    pub(crate) kind: u32,
    /// What the register was extended with, by `TPM_ALG_ID`.
    digests: Vec<(u16, &'a [u8])>,
    /// What the firmware says of what was measured.
    pub(crate) data: &'a [u8],
}

/// A bank of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bank {
    Sha256,
    Sha384,
}

/// Bytes that are no such log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventLogError {
    /// Longer than is read.
    #[error("expected an event log of at most {MAX_LOG_BYTES} bytes, found {found}")]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// The first event is not the `Spec ID Event03` of the crypto-agile format.
    #[error("expected an event log that starts with a `Spec ID Event03`, found another event")]
    Header,
    /// The log ends within an event.
    #[error("event {index} of the log: {source}")]
    Truncated {
        /// Number of the event, the header being 0.
        index: usize,
        /// What is missing.
        source: Truncated,
    },
    /// An event carries a digest that the header does not declare, or one twice.
    #[error("event {index} of the log has digest {algorithm:#06x}, which its header does not declare (once)")]
    Algorithm {
        /// Number of the event, the header being 0.
        index: usize,
        /// The algorithm, a `TPM_ALG_ID`.
        algorithm: u16,
    },
    /// An event that extends a register lacks the digest of the bank asked for.
    #[error("event {index} of the log has no {bank} digest")]
    NoDigest {
        /// Number of the event, the header being 0.
        index: usize,
        /// Name of the bank.
        bank: &'static str,
    },
}

impl<'a> EventLog<'a> {
    /// Reads a log. What follows the last event has to be padding: all 0x00 or all 0xff.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, EventLogError> {
        if bytes.len() > MAX_LOG_BYTES {
            return Err(EventLogError::TooLong { found: bytes.len() });
        }
        let mut cursor = Cursor::new(bytes);
        let algorithms = read_header(&mut cursor)?;
        let mut events = Vec::new();
        while !is_padding(cursor.rest()) {
            let index = events.len().saturating_add(1);
            events.push(Event::read(&mut cursor, &algorithms, index)?);
        }
        let len = bytes.len().saturating_sub(cursor.rest().len());
        Ok(Self { events, len })
    }

    /// All events but the header, in the order they were measured.
    pub(crate) fn events(&self) -> &[Event<'a>] {
        &self.events
    }

    /// Length in bytes, without padding.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// What `register` holds after all events: extend is `register = H(register ‖ digest)`. Registers that start as
    /// zeros only, so not PCRs 17 to 22.
    pub(crate) fn replay(&self, bank: Bank, register: u32) -> Result<Vec<u8>, EventLogError> {
        let mut value = vec![0; bank.digest_len()];
        for (i, event) in self.events.iter().enumerate().filter(|(_, event)| event.register == register) {
            if event.kind == EV_NO_ACTION {
                if let (Some(locality), Some(last)) = (event.startup_locality(), value.last_mut()) {
                    *last = locality;
                }
                continue;
            }
            let index = i.saturating_add(1);
            let digest = event.digest(bank).ok_or(EventLogError::NoDigest { index, bank: bank.name() })?;
            value = match bank {
                Bank::Sha256 => Sha256::new().chain_update(&value).chain_update(digest).finalize().to_vec(),
                Bank::Sha384 => Sha384::new().chain_update(&value).chain_update(digest).finalize().to_vec(),
            };
        }
        Ok(value)
    }

    /// Whether any event extends `register`.
    pub(crate) fn extends(&self, register: u32) -> bool {
        self.events.iter().any(|event| event.register == register && event.kind != EV_NO_ACTION)
    }
}

impl<'a> Event<'a> {
    /// What the register of that bank was extended with.
    pub(crate) fn digest(&self, bank: Bank) -> Option<&'a [u8]> {
        let wanted = bank.algorithm();
        self.digests.iter().find(|(algorithm, _)| *algorithm == wanted).map(|&(_, digest)| digest)
    }

    /// The locality from which PCR 0 was started, which is its initial value.
    fn startup_locality(&self) -> Option<u8> {
        match (self.register, self.data.strip_prefix(STARTUP_LOCALITY)) {
            (0, Some(&[locality])) => Some(locality),
            _ => None,
        }
    }

    fn read(
        cursor: &mut Cursor<'a>,
        algorithms: &[(u16, usize)],
        index: usize,
    ) -> Result<Self, EventLogError> {
        let truncated = |source| EventLogError::Truncated { index, source };
        let register = cursor.u32("register").map_err(truncated)?;
        let kind = cursor.u32("event type").map_err(truncated)?;
        let count = cursor.u32("digest count").map_err(truncated)?;
        let mut digests: Vec<(u16, &[u8])> = Vec::new();
        for _ in 0..count {
            let algorithm = cursor.u16("digest algorithm").map_err(truncated)?;
            let repeated = digests.iter().any(|&(seen, _)| seen == algorithm);
            // At most one digest for each declared algorithm, so `count` cannot make this long.
            let size = algorithms.iter().find(|&&(declared, _)| declared == algorithm && !repeated);
            let &(_, size) = size.ok_or(EventLogError::Algorithm { index, algorithm })?;
            digests.push((algorithm, cursor.take("digest", size).map_err(truncated)?));
        }
        let data = cursor.sized_u32("event data").map_err(truncated)?;
        Ok(Self { register, kind, digests, data })
    }
}

impl Bank {
    /// The bank's name as tools print it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
        }
    }

    fn algorithm(self) -> u16 {
        match self {
            Self::Sha256 => TPM_ALG_SHA256,
            Self::Sha384 => TPM_ALG_SHA384,
        }
    }

    fn digest_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }
}

/// Reads the `TCG_PCClientPCREvent` with the `TCG_EfiSpecIDEvent`: which digests the events have, and their sizes.
fn read_header(cursor: &mut Cursor<'_>) -> Result<Vec<(u16, usize)>, EventLogError> {
    let truncated = |source| EventLogError::Truncated { index: 0, source };
    // The register is 0 in logs of TPMs, 1 in those of TDX.
    let _register = cursor.u32("register").map_err(truncated)?;
    let kind = cursor.u32("event type").map_err(truncated)?;
    let _sha1: [u8; 20] = cursor.array("SHA-1 digest").map_err(truncated)?;
    let mut event = Cursor::new(cursor.sized_u32("event data").map_err(truncated)?);
    if kind != EV_NO_ACTION || event.array("signature").ok() != Some(*SPEC_ID) {
        return Err(EventLogError::Header);
    }
    // platformClass, specVersionMinor, specVersionMajor, specErrata, uintnSize: none changes the format.
    event.take("version", 8).map_err(truncated)?;
    let count = event.u32("algorithm count").map_err(truncated)?;
    let mut algorithms: Vec<(u16, usize)> = Vec::new();
    for _ in 0..count {
        let algorithm = event.u16("digest algorithm").map_err(truncated)?;
        let size = usize::from(event.u16("digest size").map_err(truncated)?);
        let known = KNOWN_SIZES.iter().find(|(known, _)| *known == algorithm);
        let repeated = algorithms.iter().any(|&(seen, _)| seen == algorithm);
        if repeated || known.is_some_and(|&(_, expected)| expected != size) {
            return Err(EventLogError::Algorithm { index: 0, algorithm });
        }
        algorithms.push((algorithm, size));
    }
    let vendor = event.u8("vendor info size").map_err(truncated)?;
    event.take("vendor info", usize::from(vendor)).map_err(truncated)?;
    if event.rest().is_empty() { Ok(algorithms) } else { Err(EventLogError::Header) }
}

/// Whether nothing but padding is left. No event looks like it: type 0 and 0xffffffff are not in use.
fn is_padding(rest: &[u8]) -> bool {
    rest.iter().all(|&byte| byte == 0) || rest.iter().all(|&byte| byte == 0xff)
}

/// The type of events that extend nothing.
pub(crate) const EV_NO_ACTION: u32 = 3;
const SPEC_ID: &[u8; 16] = b"Spec ID Event03\0";
const STARTUP_LOCALITY: &[u8] = b"StartupLocality\0";
const TPM_ALG_SHA256: u16 = 0x000b;
const TPM_ALG_SHA384: u16 = 0x000c;
/// SHA-1, SHA-256, SHA-384, SHA-512, SM3-256: digest sizes that a header cannot redefine.
const KNOWN_SIZES: [(u16, usize); 5] =
    [(0x0004, 20), (TPM_ALG_SHA256, 32), (TPM_ALG_SHA384, 48), (0x000d, 64), (0x0012, 32)];

#[cfg(test)]
pub(crate) mod tests;
