//! Expectations of a server, given as texts: for hosts in other languages, each of which has names of its own for these
//! options.

use std::fmt::Display;

use confonnx_attest::{EnclaveHash, Expectations, Policy, PolicyBuildError, SigningKey};

/// Expectations that are given beside a policy, which they narrow, or without one.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Given<'g> {
    /// Programs of which one has to run.
    pub enclave_hashes: &'g [String],
    /// Public keys (PEM) of which one has to have signed the program.
    pub signing_keys: &'g [String],
    /// Hashes (`HEX` or `NAME=HEX`) of which the model that is called has to have one.
    pub model_hashes: &'g [String],
    /// Accepts debug mode, and with it the insecure TEE.
    pub allow_debug: bool,
}

/// One of the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GivenOption {
    /// [`Given::enclave_hashes`]
    EnclaveHash,
    /// [`Given::signing_keys`]
    SigningKey,
    /// [`Given::model_hashes`]
    ModelHash,
    /// [`Given::allow_debug`]
    AllowDebug,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GivenError {
    /// An option cannot be used.
    #[error("{reason}")]
    Option {
        /// The option.
        option: GivenOption,
        /// What is wrong with it.
        reason: String,
    },
    /// The expectations together are no policy.
    #[error(transparent)]
    Policy(#[from] PolicyBuildError),
}

impl Given<'_> {
    /// `policy` narrowed to what is given here or, without one, a policy of that alone. `enclave_hash` reads one.
    ///
    /// # Errors
    /// See [`GivenError`].
    pub fn narrow<E: Display>(
        self,
        policy: Option<Expectations>,
        enclave_hash: impl Fn(&str) -> Result<EnclaveHash, E>,
    ) -> Result<Policy, GivenError> {
        if policy.is_some() && self.allow_debug {
            let reason = "expected none beside a policy, which says itself whether debug is allowed".into();
            return Err(GivenError::Option { option: GivenOption::AllowDebug, reason });
        }
        let mut expected = policy.unwrap_or_else(|| Expectations::new().allow_debug(self.allow_debug));
        expected.narrow_signing_keys(read(
            GivenOption::SigningKey,
            self.signing_keys,
            SigningKey::from_pem,
        )?)?;
        expected.narrow_enclave_hashes(read(GivenOption::EnclaveHash, self.enclave_hashes, enclave_hash)?)?;
        expected.narrow_model_hashes(read(GivenOption::ModelHash, self.model_hashes, str::parse)?)?;
        Ok(Policy::new(expected)?)
    }
}

fn read<T, E: Display>(
    option: GivenOption,
    given: &[String],
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, GivenError> {
    let wrong = |error: E| GivenError::Option { option, reason: error.to_string() };
    given.iter().map(|text| parse(text).map_err(wrong)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(byte: u8) -> String {
        format!("{byte:02x}").repeat(32)
    }

    fn policy(given: Given<'_>, policy: Option<Expectations>) -> Result<Policy, GivenError> {
        given.narrow(policy, str::parse)
    }

    fn of(result: Result<Policy, GivenError>) -> GivenOption {
        match result.unwrap_err() {
            GivenError::Option { option, .. } => option,
            GivenError::Policy(error) => panic!("{error}"),
        }
    }

    #[test]
    fn what_is_given_narrows_a_policy_or_is_one() {
        let (hashes, keys) = ([hex(1), hex(2)], ["no key".to_owned()]);
        let given = Given { enclave_hashes: &hashes, ..Given::default() };
        assert!(policy(given, None).is_ok());
        let accepted = Expectations::new().enclave_hash(hex(2).parse().unwrap());
        let narrowed = policy(given, Some(accepted.clone())).unwrap();
        assert_eq!(narrowed.digest(), Policy::new(accepted).unwrap().digest());
        let other = Expectations::new().enclave_hash(hex(3).parse().unwrap());
        assert!(matches!(
            policy(given, Some(other)),
            Err(GivenError::Policy(PolicyBuildError::Contradiction { .. }))
        ));
        let models = [hex(5)];
        let with_model = policy(Given { model_hashes: &models, ..given }, None).unwrap();
        assert_ne!(with_model.digest(), policy(given, None).unwrap().digest());
        let mut another = Expectations::new().enclave_hash(hex(2).parse().unwrap());
        another.model_hashes = vec![hex(6).parse().unwrap()];
        assert!(matches!(
            policy(Given { model_hashes: &models, ..given }, Some(another)),
            Err(GivenError::Policy(PolicyBuildError::Contradiction { .. }))
        ));
        assert_eq!(of(policy(Given { enclave_hashes: &keys, ..given }, None)), GivenOption::EnclaveHash);
        assert_eq!(of(policy(Given { signing_keys: &keys, ..given }, None)), GivenOption::SigningKey);
        assert_eq!(of(policy(Given { model_hashes: &keys, ..given }, None)), GivenOption::ModelHash);
    }

    #[test]
    fn a_policy_says_itself_whether_debug_is_allowed() {
        let given = Given { allow_debug: true, ..Given::default() };
        assert!(policy(given, None).is_ok());
        assert_eq!(of(policy(given, Some(Expectations::new()))), GivenOption::AllowDebug);
    }
}
