//! Intel TDX (protocol.md 2.9).

use base64ct::{Base64UrlUnpadded, Encoding};
use dcap_qvl::quote::{Report, TDReport10};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha384};

use crate::bound::Bound;
use crate::collateral::{Answer, Request, StapleError};
use crate::contract::Attested;
pub(crate) use crate::dcap::Root;
use crate::dcap::{self, Collateral, CollateralError, Platform, Quote};
use crate::eventlog::{Bank, EventLog};
use crate::measured::Measured;
use crate::{EnclaveHash, UnixTime, Verdict};

pub mod measure;
mod policy;
#[cfg(feature = "produce")]
mod produce;

pub use crate::dcap::{Kind, QuoteError, TcbStatus};
pub use policy::{Attribute, Policy};
#[cfg(feature = "produce")]
pub use produce::{Device, DeviceError};

/// Evidence as received or produced: a quote, Intel's collateral, the log of what was measured into the RTMRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    quote: Quote,
    collateral: Option<Collateral>,
    event_log: Option<Vec<u8>>,
}

/// Bytes that are no such evidence.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// The report is not a TDX quote.
    #[error(transparent)]
    Quote(#[from] QuoteError),
    /// The member `collateral` of the endorsements cannot be read.
    #[error("{0}")]
    Collateral(String),
    /// The member `event_log` of the endorsements is not base64url without padding.
    #[error("event_log is not base64url without padding")]
    EventLog,
}

/// What this TEE says beyond the enclave hash, for [`Policy`].
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) report: Box<TDReport10>,
    /// MR_SERVICETD: what other trust domains were bound to this one when it was created; zeros before TD 1.5.
    pub(crate) mr_service_td: [u8; 48],
    /// CUR_SERVICE_TD_HASH: what trust domains are bound to this one now, where the report says it.
    pub(crate) current_service_td: Option<[u8; 48]>,
    /// TEE_TCB_SVN2: the version of the TDX module that runs now, where that is not the one that started the trust
    /// domain.
    pub(crate) tee_tcb_svn2: Option<[u8; 16]>,
    pub(crate) platform: Platform,
}

impl Evidence {
    /// The checks of [`verify`](Self::verify), also for evidence of which a TDX quote is a part, whose report data is
    /// not ours.
    pub(crate) fn verify_with<'a>(
        &self,
        root: &Root,
        bound: impl Into<Bound<'a>>,
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Facts> {
        let bound = bound.into();
        let platform = dcap::verify(root, &self.quote, self.collateral.as_ref(), bound, now, verdict);
        let (report, later) = match *self.quote.report() {
            Report::SgxEnclave(_) => return None,
            Report::TD10(report) => (report, None),
            Report::TD15(report) => (report.base, Some((report, None))),
            Report::TD15Ex(report) => {
                (report.base.base, Some((report.base, Some(report.cur_service_td_hash))))
            }
        };
        let explained = self.check_event_log(&report, verdict);
        Some(Facts {
            report: Box::new(report),
            mr_service_td: later.map_or([0; 48], |(report, _)| report.mr_service_td),
            current_service_td: later.and_then(|(_, current)| current),
            tee_tcb_svn2: later.map(|(report, _)| report.tee_tcb_svn2),
            platform: platform.filter(|_| explained)?,
        })
    }

    /// Whether the event log, if there is one, explains the RTMRs. Registers without events are left to policies.
    fn check_event_log(&self, report: &TDReport10, verdict: &mut Verdict) -> bool {
        let Some(bytes) = &self.event_log else {
            verdict.info("event log", "none");
            return true;
        };
        let expected = "a log that replays to the RTMRs";
        let log = match EventLog::parse(bytes) {
            Ok(log) => log,
            Err(err) => {
                verdict.decide("event log", expected, err.to_string(), false);
                return false;
            }
        };
        let states: Vec<_> = replay(&log, report).collect();
        let found = states.iter().enumerate().map(|(i, state)| format!("RTMR{i} {}", state.name()));
        let passed = !states.contains(&Replay::Differs);
        verdict.decide("event log", expected, found.collect::<Vec<_>>().join(", "), passed);
        passed
    }

    /// Whether a log explains the RTMRs of this quote.
    #[cfg(feature = "produce")]
    fn replays(&self, log: &[u8]) -> bool {
        let (Ok(log), Some(report)) = (EventLog::parse(log), self.quote.report().as_td10()) else {
            return false;
        };
        !replay(&log, report).any(|state| state == Replay::Differs)
    }
}

impl Attested for Evidence {
    type Error = ParseError;
    type Facts = Facts;

    /// Reads a quote, and the members `collateral` and `event_log` of `endorsements` (protocol.md 2.9).
    fn parse(report: &[u8], endorsements: &Map<String, Value>) -> Result<Self, ParseError> {
        let quote = Quote::parse(report, Kind::Tdx)?;
        let collateral = endorsements.get("collateral").map(Collateral::parse).transpose()?;
        let event_log = endorsements.get("event_log").map(|log| {
            let text = log.as_str().ok_or(ParseError::EventLog)?;
            Base64UrlUnpadded::decode_vec(text).map_err(|_| ParseError::EventLog)
        });
        Ok(Self { quote, collateral, event_log: event_log.transpose()? })
    }

    fn report(&self) -> Vec<u8> {
        self.quote.bytes().to_vec()
    }

    fn endorsements(&self) -> Map<String, Value> {
        let collateral =
            self.collateral.as_ref().map(|collateral| ("collateral".into(), collateral.to_json()));
        let event_log = self
            .event_log
            .as_ref()
            .map(|log| ("event_log".into(), Base64UrlUnpadded::encode_string(log).into()));
        collateral.into_iter().chain(event_log).collect()
    }

    fn collateral_requests(&self) -> Vec<Request> {
        dcap::requests(&self.quote)
    }

    fn staple(&mut self, answers: &[Option<&Answer>]) -> Result<(), StapleError> {
        if let Some(collateral) = dcap::staple(&self.quote, answers)? {
            self.collateral = Some(collateral);
        }
        Ok(())
    }

    fn says(&self) -> Option<EnclaveHash> {
        enclave_hash(self.quote.report().as_td10()?)
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<Facts>> {
        self.verify(&self.quote.report_data(), now, verdict)
    }

    fn verify(
        &self,
        report_data: &[u8; 64],
        now: UnixTime,
        verdict: &mut Verdict,
    ) -> Option<Measured<Facts>> {
        self.verify_with(&Root::intel()?, report_data, now, verdict)?.into_measured()
    }
}

/// What a log says of one RTMR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replay {
    Same,
    Differs,
    NoEvents,
}

impl Replay {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "replayed",
            Self::Differs => "different",
            Self::NoEvents => "without events",
        }
    }
}

fn replay(log: &EventLog<'_>, report: &TDReport10) -> impl Iterator<Item = Replay> {
    // Number 0 is MRTD, which is not extended.
    (1..).zip(rtmrs(report)).map(|(number, register)| match log.replay(Bank::Sha384, number) {
        _ if !log.extends(number) => Replay::NoEvents,
        Ok(value) if value == register => Replay::Same,
        // Without a SHA-384 digest nothing is explained.
        Ok(_) | Err(_) => Replay::Differs,
    })
}

impl Facts {
    pub(crate) fn tcb_evaluation(&self) -> Option<u32> {
        Some(self.platform.tcb_evaluation)
    }

    pub(crate) fn into_measured(self) -> Option<Measured<Self>> {
        Some(Measured {
            enclave_hash: self.enclave_hash()?,
            signer: None,
            debug: self.is_debug(),
            facts: self,
        })
    }

    /// SHA-384(MRTD ‖ RTMR0 ‖ RTMR1 ‖ RTMR2 ‖ RTMR3).
    pub(crate) fn enclave_hash(&self) -> Option<EnclaveHash> {
        enclave_hash(&self.report)
    }

    /// Whether the host can look into the trust domain: any attribute of the group TUD, TD Under Debug.
    pub(crate) fn is_debug(&self) -> bool {
        let [under_debug, ..] = self.report.td_attributes;
        under_debug != 0
    }
}

impl From<CollateralError> for ParseError {
    fn from(err: CollateralError) -> Self {
        Self::Collateral(err.to_string())
    }
}

fn enclave_hash(report: &TDReport10) -> Option<EnclaveHash> {
    let mut hash = Sha384::new().chain_update(report.mr_td);
    for rtmr in rtmrs(report) {
        hash.update(rtmr);
    }
    EnclaveHash::new(hash.finalize().to_vec())
}

fn rtmrs(report: &TDReport10) -> [[u8; 48]; 4] {
    [report.rt_mr0, report.rt_mr1, report.rt_mr2, report.rt_mr3]
}
