//! Evidence of the guest this process runs in.

use std::path::Path;

use super::{Evidence, ParseError, table};
use crate::Hex;
use crate::produce::{Tsm, TsmError, TsmReport};

/// How this guest gets its reports.
#[derive(Debug)]
pub struct Device {
    tsm: Tsm,
}

/// Why there is no evidence of this guest.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The kernel gives no report.
    #[error(transparent)]
    Tsm(#[from] TsmError),
    /// What the kernel gave is not a report.
    #[error("what the kernel gave is not a report: {0}")]
    Report(#[from] ParseError),
    /// The report is for another request.
    #[error("asked for a report with {expected}, the kernel gave one with {found}")]
    OtherData {
        /// What was asked for.
        expected: Box<Hex<64>>,
        /// What it carries.
        found: Box<Hex<64>>,
    },
}

impl Device {
    /// `None` outside of SEV-SNP guests. `root` is `/` outside of tests.
    ///
    /// # Errors
    /// When there is a way to reports that cannot be used, and why.
    pub fn find(root: &Path) -> Result<Option<Self>, DeviceError> {
        Ok(Tsm::find(root)?.filter(|tsm| tsm.provider() == PROVIDER).map(|tsm| Self { tsm }))
    }

    /// Evidence that carries `report_data`, with what the host gave to endorse it.
    ///
    /// # Errors
    /// When the kernel gives no report, or another one.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, DeviceError> {
        let TsmReport { report, auxiliary } = self.tsm.report(report_data)?;
        let mut evidence = Evidence::new(&report, super::Endorsements::default())?;
        if evidence.report.report_data != *report_data {
            let found = Box::new(Hex(evidence.report.report_data));
            return Err(DeviceError::OtherData { expected: Box::new(Hex(*report_data)), found });
        }
        *evidence.endorsements = table::endorsements(&evidence.report, &auxiliary);
        Ok(evidence)
    }
}

const PROVIDER: &str = "sev_guest";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::produce::fake::{Fake, Round};
    use crate::snp::tests::{Made, REPORT_DATA};

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
}
