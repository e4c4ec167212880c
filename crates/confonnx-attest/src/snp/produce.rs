//! Evidence of the guest this process runs in.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use confonnx_device::{SevGuestError, sev_guest_extended_report};

use super::{Evidence, ParseError, table};
use crate::Hex;
use crate::tsm::{Tsm, TsmError, TsmReport};

/// How this guest gets its reports.
#[derive(Debug)]
pub struct Device(Source);

#[derive(Debug)]
enum Source {
    /// The interface that all TEEs share.
    Tsm(Tsm),
    /// `/dev/sev-guest`, which older kernels have alone.
    Guest(File),
}

/// Why there is no evidence of this guest.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel gives no report.
    #[error(transparent)]
    Tsm(#[from] TsmError),
    /// `/dev/sev-guest` is there and cannot be opened.
    #[error("cannot open {path}: {source}; the process needs to read and write it")]
    Open {
        /// The device.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// `/dev/sev-guest` gives no report.
    #[error("/dev/sev-guest gives no report: {0}")]
    Guest(#[from] SevGuestError),
    /// The security processor refuses.
    #[error("the security processor gives no report: status {status:#x} (AMD 56860, MSG_REPORT_RSP)")]
    Refused {
        /// The processor's status.
        status: u32,
    },
    /// What the kernel gave is not a report.
    #[error("what the kernel gave is not a report: {0}")]
    Report(#[from] ParseError),
    /// The report is for another request.
    #[error("asked for a report with {expected}, the kernel gave one with {found}")]
    OtherData {
        /// What was asked for.
        expected: Box<Hex<64>>,
        /// The report data that the report carries.
        found: Box<Hex<64>>,
    },
}

impl Device {
    /// The kernel's interface below `root`, which is `/` but in tests. `None` outside of SEV-SNP guests.
    ///
    /// # Errors
    /// When there is a way to reports that cannot be used, and why.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        let tsm = match Tsm::find(root) {
            Ok(Some(tsm)) if tsm.provider() == PROVIDER => return Ok(Some(Self(Source::Tsm(tsm)))),
            tsm => tsm,
        };
        let path = root.join(GUEST);
        match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(device) => Ok(Some(Self(Source::Guest(device)))),
            Err(err) if err.kind() == ErrorKind::NotFound => tsm.map(|_| None).map_err(Into::into),
            Err(source) => Err(DeviceError::Open { path, source }),
        }
    }

    /// Evidence that carries `report_data`, with what the host gave to endorse it.
    ///
    /// # Errors
    /// When the kernel gives no report, or another one.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, DeviceError> {
        let (report, table) = match &self.0 {
            Source::Tsm(tsm) => {
                let TsmReport { report, auxiliary } = tsm.report(report_data)?;
                (report, auxiliary)
            }
            Source::Guest(device) => {
                let answer = sev_guest_extended_report(device, report_data, VMPL)?;
                (report_of(&answer.response)?.to_vec(), answer.certificates)
            }
        };
        let mut evidence = Evidence::new(&report, super::Endorsements::default())?;
        if evidence.report.report_data != *report_data {
            let found = Box::new(Hex(evidence.report.report_data));
            return Err(DeviceError::OtherData { expected: Box::new(Hex(*report_data)), found });
        }
        *evidence.endorsements = table::endorsements(&evidence.report, &table);
        Ok(evidence)
    }
}

/// The report in a MSG_REPORT_RSP: status, size, 24 reserved bytes, the report.
fn report_of(response: &[u8]) -> Result<&[u8], DeviceError> {
    let short = ParseError::Length { found: response.len() };
    let (status, rest) = response.split_first_chunk().ok_or(short.clone())?;
    let (size, rest) = rest.split_first_chunk().ok_or(short.clone())?;
    match u32::from_le_bytes(*status) {
        0 => {
            let size = usize::try_from(u32::from_le_bytes(*size)).unwrap_or(usize::MAX);
            let report = rest.get(24..).and_then(|report| report.get(..size));
            Ok(report.ok_or(ParseError::Length { found: size })?)
        }
        status => Err(DeviceError::Refused { status }),
    }
}

const PROVIDER: &str = "sev_guest";
const GUEST: &str = "dev/sev-guest";
/// The level that the guest runs at where this device is the only way: kernels that run below a paravisor have
/// configfs-tsm.
const VMPL: u32 = 0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Attested as _;
    use crate::snp::tests::{Made, REPORT_DATA};
    use crate::tsm::fake::{Fake, Round};

    /// A Genoa guest's report, which carries what was asked for.
    fn answer(inblob: &[u8]) -> Vec<u8> {
        let mut report = Made::new().evidence().1.report();
        report[0x50..0x90].copy_from_slice(inblob);
        report
    }

    fn fake(provider: &str, answer: fn(&[u8]) -> Vec<u8>) -> Fake {
        Fake::new(provider, Some(b""), vec![Round { writes: 1, answer }])
    }

    #[test]
    fn evidence_carries_the_report_data() {
        let fake = fake("sev_guest", answer);
        let device = Device::find(fake.root()).unwrap().unwrap();
        let evidence = device.evidence(&REPORT_DATA).unwrap();
        assert_eq!(evidence.report.report_data, REPORT_DATA);
        assert!(evidence.endorsements().is_empty());
        assert_eq!(evidence.collateral_requests().len(), 2);
    }

    #[test]
    fn what_the_host_gave_endorses_it() {
        let (_, made) = Made::new().evidence();
        let table = table::tests::of(&made);
        let fake = Fake::new("sev_guest", Some(&table), vec![Round { writes: 1, answer }]);
        let evidence = Device::find(fake.root()).unwrap().unwrap().evidence(&REPORT_DATA).unwrap();
        assert_eq!(evidence.endorsements, made.endorsements);
    }

    #[test]
    fn other_guests_and_machines_have_no_device() {
        assert!(Device::find(Fake::empty().root()).unwrap().is_none());
        assert!(Device::find(fake("tdx_guest", answer).root()).unwrap().is_none());
    }

    #[test]
    fn reports_for_others_are_refused() {
        let stale = fake("sev_guest", |_| answer(&[7; 64]));
        let err = Device::find(stale.root()).unwrap().unwrap().evidence(&REPORT_DATA).unwrap_err();
        assert!(matches!(&err, DeviceError::OtherData { found, .. } if **found == Hex([7; 64])), "{err}");
        let short = fake("sev_guest", |_| b"short".to_vec());
        let err = Device::find(short.root()).unwrap().unwrap().evidence(&REPORT_DATA).unwrap_err();
        assert!(matches!(err, DeviceError::Report(ParseError::Length { found: 5 })), "{err}");
    }

    #[test]
    fn older_kernels_have_the_device_alone() {
        let fake = fake("tdx_guest", answer);
        let path = fake.root().join(GUEST);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"").unwrap();
        let device = Device::find(fake.root()).unwrap().unwrap();
        // A file knows no such request: ENOTTY.
        let err = device.evidence(&REPORT_DATA).unwrap_err();
        assert!(matches!(&err, DeviceError::Guest(err) if err.source.raw_os_error() == Some(25)), "{err}");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let err = Device::find(fake.root()).unwrap_err();
        assert!(matches!(&err, DeviceError::Open { path, .. } if path.ends_with(GUEST)), "{err}");
    }

    #[test]
    fn an_interface_that_cannot_be_used_is_an_error() {
        let fake = fake("sev_guest", answer);
        std::fs::remove_file(fake.entry().join("provider")).unwrap();
        assert!(matches!(Device::find(fake.root()), Err(DeviceError::Tsm(_))));
    }

    #[test]
    fn a_response_has_a_status_and_a_size() {
        let report = Made::new().evidence().1.report();
        let mut response = vec![0; 4000];
        response[4..8].copy_from_slice(&1184u32.to_le_bytes());
        response[32..1216].copy_from_slice(&report);
        assert_eq!(report_of(&response).unwrap(), report);
        response[4..8].copy_from_slice(&3969u32.to_le_bytes());
        let wrong = report_of(&response);
        assert!(matches!(wrong, Err(DeviceError::Report(ParseError::Length { found: 3969 }))));
        response[0] = 0x16;
        assert!(matches!(report_of(&response), Err(DeviceError::Refused { status: 0x16 })));
        for len in [0, 3, 7, 31] {
            response[0] = 0;
            assert!(report_of(&response[..len]).is_err(), "{len}");
        }
    }
}
