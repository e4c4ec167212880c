//! Quotes of real platforms, and quotes made with a test root for what no real file shows.

use serde_json::{Map, Value};

use crate::contract::{Attested as _, Section as _};
use crate::dcap::Root;
use crate::{Outcome, UnixTime, Verdict, sgx, tdx};

mod made;
mod pcs;
mod policy;
mod real;

/// The checks that did not pass.
fn failures(verdict: &Verdict) -> Vec<(&'static str, Outcome)> {
    verdict.failed().map(|check| (check.name, check.outcome)).collect()
}
