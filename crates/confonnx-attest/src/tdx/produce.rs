//! Evidence of the trust domain this process runs in.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use serde_json::Map;

use super::{Evidence, ParseError};
use crate::Hex;
use crate::contract::Attested;
use crate::eventlog::{EventLog, MAX_LOG_BYTES};
use crate::tsm::{Tsm, TsmError};

/// How this trust domain gets its quotes: the kernel's configfs-tsm, behind which the host's quoting enclave is.
#[derive(Debug)]
pub struct Device {
    tsm: Tsm,
    /// What the firmware logged, without padding; it does not grow once the kernel runs.
    event_log: Option<Vec<u8>>,
}

/// Why there is no evidence of this trust domain.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel gives no quote.
    #[error("{0}; is a quote generation service running on the host?")]
    Tsm(#[from] TsmError),
    /// The event log is there and cannot be read.
    #[error("cannot read the event log {path}: {source}")]
    EventLog {
        /// The log's file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// What the kernel gave is not a quote.
    #[error("what the kernel gave is not a quote: {0}")]
    Quote(#[from] ParseError),
    /// The quote is for another request.
    #[error("asked for a quote with {expected}, the kernel gave one with {found}")]
    OtherData {
        /// What was asked for.
        expected: Box<Hex<64>>,
        /// The report data that the quote carries.
        found: Box<Hex<64>>,
    },
}

impl Device {
    /// The kernel's interface below `root`, which is `/` but in tests. `None` outside of trust domains.
    ///
    /// # Errors
    /// When there is a way to quotes that cannot be used, and why.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        match Tsm::find(root)? {
            Some(tsm) if tsm.provider() == PROVIDER => {
                Ok(Some(Self { tsm, event_log: read_event_log(root)? }))
            }
            _ => Ok(None),
        }
    }

    /// Evidence that carries `report_data`, with the event log if it replays to the quote's registers.
    ///
    /// # Errors
    /// When there is no quote, or one for another request.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, DeviceError> {
        let mut evidence = Evidence::parse(&self.tsm.report(report_data)?.report, &Map::new())?;
        let found = evidence.quote.report_data();
        if found != *report_data {
            let (expected, found) = (Box::new(Hex(*report_data)), Box::new(Hex(found)));
            return Err(DeviceError::OtherData { expected, found });
        }
        evidence.event_log = self.event_log.clone().filter(|log| evidence.replays(log));
        Ok(evidence)
    }
}

/// The CCEL of the ACPI, unless it is absent, of another form or longer than a document has room for.
fn read_event_log(root: &Path) -> Result<Option<Vec<u8>>, DeviceError> {
    let path = root.join(EVENT_LOG);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(DeviceError::EventLog { path, source }),
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_LOG_BYTES).unwrap_or(u64::MAX);
    file.take(limit).read_to_end(&mut bytes).map_err(|source| DeviceError::EventLog { path, source })?;
    let Ok(log) = EventLog::parse(&bytes) else { return Ok(None) };
    let len = log.len();
    bytes.truncate(len);
    Ok((len <= MAX_SENT_LOG_BYTES).then_some(bytes))
}

const PROVIDER: &str = "tdx_guest";
const EVENT_LOG: &str = "sys/firmware/acpi/tables/data/CCEL";
const MAX_SENT_LOG_BYTES: usize = 256 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Tee;
    use crate::produce::Attester;
    use crate::tsm::fake::{Fake, Round};

    const QUOTE: &[u8] = include_bytes!("../../../../vectors/evidence/tdx/tdx_quote");

    /// The report data of that quote.
    fn data() -> [u8; 64] {
        Evidence::parse(QUOTE, &Map::new()).unwrap().quote.report_data()
    }

    fn fake(provider: &str) -> Fake {
        Fake::new(provider, None, vec![Round { writes: 1, answer: |_| QUOTE.to_vec() }])
    }

    #[test]
    fn a_quote_is_evidence_without_its_padding() {
        let fake = fake("tdx_guest");
        let attester = Attester::Tdx(Device::find(fake.root()).unwrap().unwrap());
        assert_eq!(attester.tee(), Tee::Tdx);
        let evidence = attester.evidence(&data()).unwrap();
        assert_eq!(evidence.report(), QUOTE[..4936]);
        assert_eq!(evidence.endorsements(), Map::new());
    }

    #[test]
    fn a_quote_for_another_request_is_refused() {
        let fake = fake("tdx_guest");
        let device = Device::find(fake.root()).unwrap().unwrap();
        let error = device.evidence(&[7; 64]).unwrap_err().to_string();
        assert!(error.starts_with("asked for a quote with 0707"), "{error}");
    }

    #[test]
    fn other_machines_are_not_trust_domains() {
        assert!(Device::find(Fake::empty().root()).unwrap().is_none());
        assert!(Device::find(fake("sev_guest").root()).unwrap().is_none());
    }

    /// Clients refuse evidence with an event log that does not lead to its registers; without a log they judge the registers.
    #[test]
    fn a_log_that_does_not_replay_is_left_out() {
        let fake = fake("tdx_guest");
        let path = fake.root().join(EVENT_LOG);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, crate::eventlog::tests::log(&[(1, 8, b"other firmware")])).unwrap();
        let device = Device::find(fake.root()).unwrap().unwrap();
        assert!(device.event_log.is_some());
        assert_eq!(device.evidence(&data()).unwrap().endorsements(), Map::new());
    }
}
