//! A client's options, from JSON.

use std::time::Duration;

use confonnx_attest::json;
use confonnx_client::{Expectations, Given, GivenError, GivenOption, NameError, Options, Policy, Preset};
use serde::Deserialize;

use crate::error;

/// The options that `confonnx-client` takes; those of the transport stay in JavaScript.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Told {
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

/// The policy and the options that the JSON stands for.
pub(crate) fn parse(text: &str) -> Result<(Policy, Options), String> {
    let given: Told = json::from_str(text).map_err(|err| error::argument("options", err))?;
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
        options.kem = name.parse().map_err(|err: NameError| error::argument("kem", err))?;
    }
    if let Some(name) = &given.aead {
        options.aead = name.parse().map_err(|err: NameError| error::argument("aead", err))?;
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

/// A JavaScript number as an integer, if it is a whole one from 0 to `MAX_SAFE_INTEGER`.
pub(crate) fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=MAX_SAFE).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, and in range")]
    is_whole.then_some(number as u64)
}

/// `Number.MAX_SAFE_INTEGER`
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

/// The preset or the text of a policy file, narrowed to the expectations beside it.
fn policy(given: &Told) -> Result<Policy, String> {
    let policy = match given.policy.as_deref() {
        Some(source) => Some(match source.trim().parse::<Preset>() {
            Ok(preset) => preset.into(),
            Err(_) => Expectations::from_toml(source, &mut |_| {
                Err(std::io::Error::other("there are no files here: put what it says into the policy"))
            })
            .map_err(|err| error::policy(format!("policy: {err}")))?,
        }),
        None => None,
    };
    let mut beside = Given::default();
    (beside.enclave_hashes, beside.signing_keys) = (&given.enclave_hash, &given.enclave_signing_key);
    (beside.model_hashes, beside.allow_debug) = (&given.model_hash, given.allow_debug);
    beside.narrow(policy, str::parse).map_err(|err| match &err {
        GivenError::Option { option, .. } => error::policy(format!("{}: {err}", name(*option))),
        _ => error::policy(err),
    })
}

fn name(option: GivenOption) -> &'static str {
    match option {
        GivenOption::EnclaveHash => "enclaveHash",
        GivenOption::SigningKey => "enclaveSigningKey",
        GivenOption::ModelHash => "modelHash",
        GivenOption::AllowDebug => "allowDebug",
        _ => "policy",
    }
}
