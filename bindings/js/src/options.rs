//! What a client is told, from JSON.

use std::fmt::Display;
use std::time::Duration;

use confonnx_client::{Aead, Expectations, Kem, Options, Policy, Preset, SigningKey};
use serde::Deserialize;

use crate::error;

/// The options that decide; those of the transport stay in JavaScript.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Given {
    policy: Option<String>,
    enclave_hash: Vec<String>,
    enclave_signing_key: Vec<String>,
    model_hash: Vec<String>,
    allow_debug: bool,
    auth_key: Option<String>,
    inner_headers: Vec<(String, String)>,
    kem: Option<String>,
    aead: Option<String>,
    chunked: bool,
    resumption: Option<bool>,
    relay: Option<String>,
    max_reply: Option<f64>,
    retries: Option<u32>,
    timeout: Option<f64>,
}

/// The policy and the options that the client takes.
pub(crate) fn parse(json: &str) -> Result<(Policy, Options), String> {
    let given: Given = serde_json::from_str(json).map_err(|err| error::argument("options", err))?;
    let mut options = Options::new().chunked(given.chunked);
    options.resumption = given.resumption.unwrap_or(true);
    options.relay.clone_from(&given.relay);
    options.retries = given.retries.unwrap_or(options.retries);
    if let Some(key) = &given.auth_key {
        options = options.auth_key(key.as_str());
    }
    for (name, value) in &given.inner_headers {
        options = options.inner_header(name, value.as_str());
    }
    if let Some(name) = &given.kem {
        options.kem = choice("kem", name, Kem::from_name, &Kem::ALL.map(Kem::name))?;
    }
    if let Some(name) = &given.aead {
        options.aead = choice("aead", name, Aead::from_name, &Aead::ALL.map(Aead::name))?;
    }
    if let Some(milliseconds) = given.timeout {
        let timeout = Duration::try_from_secs_f64(milliseconds / 1000.0).ok().filter(|time| !time.is_zero());
        let wrong =
            || error::argument("timeout", format!("expected milliseconds above 0, found {milliseconds}"));
        options.timeout = timeout.ok_or_else(wrong)?;
    }
    if let Some(bytes) = given.max_reply {
        options.max_reply = whole(bytes).and_then(|bytes| usize::try_from(bytes).ok()).ok_or_else(|| {
            error::argument("maxReply", format!("expected a number of bytes, found {bytes}"))
        })?;
    }
    Ok((policy(&given)?, options))
}

/// A number of JavaScript's that is one of ours.
pub(crate) fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=MAX_SAFE).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and in range")]
    is_whole.then_some(number as u64)
}

/// `Number.MAX_SAFE_INTEGER`
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// The preset or the text of a policy file, narrowed to what is given beside it.
fn policy(given: &Given) -> Result<Policy, String> {
    let mut expected = match given.policy.as_deref() {
        Some(_) if given.allow_debug => {
            return Err(error::policy(
                "allowDebug: expected none beside a policy, which says itself whether debug is allowed",
            ));
        }
        Some(source) => match source.trim().parse::<Preset>() {
            Ok(preset) => preset.into(),
            Err(_) => Expectations::from_toml(source, &mut |_| {
                Err(std::io::Error::other("there are no files here: put what it says into the policy"))
            })
            .map_err(|err| error::policy(format!("policy: {err}")))?,
        },
        None => Expectations::new().allow_debug(given.allow_debug),
    };
    let keys = parsed("enclaveSigningKey", &given.enclave_signing_key, SigningKey::from_pem)?;
    let hashes = parsed("enclaveHash", &given.enclave_hash, str::parse)?;
    let models = parsed("modelHash", &given.model_hash, str::parse)?;
    expected
        .narrow_signing_keys(keys)
        .and_then(|()| expected.narrow_enclave_hashes(hashes))
        .and_then(|()| expected.narrow_model_hashes(models))
        .and_then(|()| Policy::new(expected))
        .map_err(error::policy)
}

fn parsed<T, E: Display>(
    name: &str,
    given: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, String> {
    given.iter().map(|text| parse(text).map_err(|err| error::policy(format!("{name}: {err}")))).collect()
}

fn choice<T>(
    argument: &str,
    name: &str,
    parse: impl Fn(&str) -> Option<T>,
    known: &[&str],
) -> Result<T, String> {
    let unknown =
        || error::argument(argument, format!("expected one of {}, found {name:?}", known.join(", ")));
    parse(name).ok_or_else(unknown)
}
