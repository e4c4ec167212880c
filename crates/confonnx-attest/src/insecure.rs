//! The insecure TEE: a software stand-in for development, which proves nothing (protocol.md 2.7).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::contract::Attested;
use crate::digest::{self, HexError};
use crate::measured::Measured;
use crate::{Digest, EnclaveHash, UnixTime, Verdict};

/// The stand-in's report: whatever the program says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The bytes the evidence is bound to.
    pub report_data: [u8; 64],
    /// SHA-256 of the executable, as the program says.
    pub measurement: Digest,
    /// From when until when what a vendor would state is valid, as it says; nothing is stated without.
    pub validity: Option<(UnixTime, UnixTime)>,
}

/// Bytes that are not such a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// Not a JSON object with the members of a report.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// `report_data` is not 64 bytes of hex.
    #[error("report_data: {0}")]
    ReportData(#[from] HexError),
    /// The endorsements say from when until when they are valid, but not in two numbers.
    #[error("endorsements.validity: expected two times in Unix seconds: {0}")]
    Validity(serde_json::Error),
}

impl Attested for Report {
    type Error = ReportError;
    type Facts = ();

    fn parse(bytes: &[u8], endorsements: &Map<String, Value>) -> Result<Self, ReportError> {
        let wire: Received = crate::json::from_slice(bytes)?;
        let report_data = digest::decode_array(&wire.report_data)?;
        let stated = endorsements.get(VALIDITY).cloned().unwrap_or_default();
        let validity = serde_json::from_value(stated).map_err(ReportError::Validity)?;
        Ok(Self { report_data, measurement: wire.measurement, validity })
    }

    fn endorsements(&self) -> Map<String, Value> {
        let stated =
            self.validity.map(|(from, until)| (VALIDITY.to_owned(), [from.0, until.0].to_vec().into()));
        stated.into_iter().collect()
    }

    fn report(&self) -> Vec<u8> {
        let report_data = digest::encode(&self.report_data);
        let wire = Sent { warning: WARNING, report_data, measurement: self.measurement, debug: true };
        // Strings and a boolean: serializing them cannot fail.
        serde_json::to_vec(&wire).unwrap_or_default()
    }

    fn says(&self) -> Option<EnclaveHash> {
        Some(self.measurement.into())
    }

    fn verify_whatever_it_carries(&self, now: UnixTime, verdict: &mut Verdict) -> Option<Measured<()>> {
        self.verify(&self.report_data, now, verdict)
    }

    fn verify(&self, report_data: &[u8; 64], now: UnixTime, verdict: &mut Verdict) -> Option<Measured<()>> {
        verdict.info("signature", "none: the insecure TEE proves nothing");
        verdict.equal("report data", digest::encode(report_data), digest::encode(&self.report_data));
        if let Some((from, until)) = self.validity {
            verdict.valid(from, Some(until));
            let (expected, found) = (format!("valid at {}", now.0), format!("{} to {}", from.0, until.0));
            match now > until {
                true => verdict.undecided(VALIDITY, expected, found),
                false => verdict.decide(VALIDITY, expected, found, now >= from),
            }
        }
        // The insecure TEE is in debug mode by nature, whatever its report says.
        Some(Measured { enclave_hash: self.measurement.into(), signer: None, debug: true, facts: () })
    }
}

#[derive(Serialize)]
struct Sent {
    warning: &'static str,
    report_data: String,
    measurement: Digest,
    debug: bool,
}

#[derive(Deserialize)]
struct Received {
    report_data: String,
    measurement: Digest,
}

/// The member of the endorsements, and the check.
const VALIDITY: &str = "validity";
const WARNING: &str =
    "INSECURE: a software stand-in for development. It protects nothing and proves nothing.";
