//! What a client is told.

use std::ffi::c_char;
use std::time::Duration;

use confonnx_client::{
    Given, GivenError, GivenOption, NameError, Options, Policy, Proxy, load_enclave_hash, load_policy,
};

use crate::error::{ConfonnxCode, ConfonnxError, Failure};
use crate::pointer;

/// What is expected of a server, and how to talk to it.
#[derive(Clone, Default)]
pub struct ConfonnxOptions {
    policy: Option<String>,
    allow_debug: bool,
    enclave_hashes: Vec<String>,
    signing_keys: Vec<String>,
    model_hashes: Vec<String>,
    basic_user: Option<String>,
    basic_password: Option<String>,
    options: Options,
}

/// The defaults, which expect nothing: a client is made only once an enclave hash, a signing key or a policy is set.
#[unsafe(no_mangle)]
pub extern "C" fn confonnx_options_new() -> *mut ConfonnxOptions {
    pointer::hand_out(ConfonnxOptions::default())
}

/// Frees options.
///
/// # Safety
/// `options` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_options_free(options: *mut ConfonnxOptions) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(options) }
}

/// Sets the option `name`: `policy` (a preset or a file), `enclave_hash` (hex or an enclave_info.json; more than once, one
/// of them has to match), `enclave_signing_key` (PEM; likewise), `model_hash` (hex or NAME=HEX; likewise), `allow_debug`,
/// `auth_key`, `basic_user`, `basic_password`, `kem`, `aead`, `chunked`, `resumption`, `relay`, `timeout_ms`,
/// `connect_timeout_ms`, `max_reply`, `retries`, `ca_file`, `proxy` (a URL or `none`; what the environment says when not
/// set). Whether something is on is `true` or `false`.
///
/// # Safety
/// `options` was given out by this library and not freed; `name` and `value` are texts; `error` is null or can be
/// written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_options_set(
    options: *mut ConfonnxOptions,
    name: *const c_char,
    value: *const c_char,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::check(error, || {
            let options = pointer::borrow_mut(options, "options")?;
            options.set(pointer::text(name, "name")?, pointer::text(value, "value")?)
        })
    }
}

impl ConfonnxOptions {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Failure> {
        match name {
            "policy" => self.policy = Some(value.into()),
            "allow_debug" => self.allow_debug = parsed(name, value, "true or false")?,
            "enclave_hash" => self.enclave_hashes.push(value.into()),
            "enclave_signing_key" => self.signing_keys.push(value.into()),
            "model_hash" => self.model_hashes.push(value.into()),
            "auth_key" => self.options.auth_key = Some(value.into()),
            "basic_user" => self.basic_user = Some(value.into()),
            "basic_password" => self.basic_password = Some(value.into()),
            "kem" => {
                self.options.kem = value.parse().map_err(|err: NameError| Failure::argument(name, err))?
            }
            "aead" => {
                self.options.aead = value.parse().map_err(|err: NameError| Failure::argument(name, err))?
            }
            "chunked" => self.options.chunked = parsed(name, value, "true or false")?,
            "resumption" => self.options.resumption = parsed(name, value, "true or false")?,
            "relay" => self.options.relay = Some(value.into()),
            "timeout_ms" => self.options.timeout = milliseconds(name, value)?,
            "connect_timeout_ms" => self.options.connect_timeout = milliseconds(name, value)?,
            "max_reply" => self.options.max_reply = parsed(name, value, "a number of bytes")?,
            "retries" => self.options.retries = parsed(name, value, "a number")?,
            "ca_file" => self.options.ca_file = Some(value.into()),
            "proxy" => self.options.proxy = Proxy::from_name(value),
            _ => return Err(Failure::argument(name, "unknown option: confonnx.h lists them")),
        }
        Ok(())
    }

    /// The policy, narrowed to the expectations that were set beside it, and the client's options.
    pub(crate) fn finish(&self) -> Result<(Policy, Options), Failure> {
        let mut options = self.options.clone();
        options.basic = match (&self.basic_user, &self.basic_password) {
            (None, None) => None,
            (Some(user), password) => Some((user.clone(), password.clone().unwrap_or_default().into())),
            (None, Some(_)) => {
                return Err(Failure::argument("basic_password", "expected a basic_user besides, found none"));
            }
        };
        Ok((self.policy()?, options))
    }

    fn policy(&self) -> Result<Policy, Failure> {
        let policy = self.policy.as_deref().map(load_policy).transpose().map_err(Failure::policy)?;
        let mut beside = Given::default();
        (beside.enclave_hashes, beside.signing_keys) = (&self.enclave_hashes, &self.signing_keys);
        (beside.model_hashes, beside.allow_debug) = (&self.model_hashes, self.allow_debug);
        beside.narrow(policy, load_enclave_hash).map_err(|err| match &err {
            GivenError::Option { option, .. } => Failure::policy(format!("{}: {err}", named(*option))),
            _ => Failure::policy(err),
        })
    }
}

fn named(option: GivenOption) -> &'static str {
    match option {
        GivenOption::EnclaveHash => "enclave_hash",
        GivenOption::SigningKey => "enclave_signing_key",
        GivenOption::ModelHash => "model_hash",
        GivenOption::AllowDebug => "allow_debug",
        _ => "policy",
    }
}

fn parsed<T: std::str::FromStr>(name: &str, value: &str, expected: &str) -> Result<T, Failure> {
    value.parse().map_err(|_| Failure::argument(name, format!("expected {expected}, found {value:?}")))
}

fn milliseconds(name: &str, value: &str) -> Result<Duration, Failure> {
    match parsed(name, value, "milliseconds above 0")? {
        0 => Err(Failure::argument(name, "expected milliseconds above 0, found 0")),
        time => Ok(Duration::from_millis(time)),
    }
}
