//! A client of Azure Key Vault's secure key release, with tokens of Microsoft Azure Attestation.

use std::{fmt, path::PathBuf};

use bytes::Bytes;
use confonnx_attest::{
    Evidence, KeyService,
    collateral::{Answer as CollateralAnswer, Request as CollateralRequest, StapleError},
    key_service::{self, MaaRequest, MachineError, MachineKey, maa_report_data},
};
use confonnx_protocol::key_service::{
    AkvKey,
    key_vault::{self as akv, KeyName, NoKey, Released, SealedToken, Wrapped},
};
use http::{Request, header};
use zeroize::Zeroizing;

use super::{
    ask::{AskError, TIMEOUT, ask},
    roots::{Roots, RootsError},
};
use crate::{
    collateral,
    config::AkvConfig,
    evidence::{NoEvidence, Prover},
    https::Fetcher,
};

/// Asks one vault. Each request is a new attestation with a new key.
pub struct Akv {
    config: AkvConfig,
    roots: confonnx_attest::Digest,
    https: Fetcher,
    collateral: collateral::Fetcher,
    identity: Fetcher,
    prover: Prover,
}

/// Why a vault releases nothing.
#[derive(Debug, thiserror::Error)]
pub enum AkvError {
    /// The service's authorities cannot be read.
    #[error("key vault: {0}")]
    Roots(#[from] RootsError),
    /// The TEE.
    #[error("key vault: {0}")]
    Evidence(#[from] NoEvidence),
    /// The vault's attestation service cannot check this TEE.
    #[error("key vault: {0}")]
    Form(#[from] key_service::ReleaseError),
    /// What names the machine's own key has no form for the service.
    #[error("key vault: {0}")]
    Machine(#[from] key_service::MachineFormError),
    /// The machine's own key does not open what was encrypted to it.
    #[error(
        "key vault: this machine does not open what was encrypted to it: {0} (was anything measured since?)"
    )]
    Decrypt(#[from] MachineError),
    /// There is no key to wrap to.
    #[error("key vault: {0}")]
    NoKey(#[from] NoKey),
    /// A service did not answer, or refused.
    #[error("key vault, {step}: {source}")]
    Ask {
        /// The step that failed.
        step: Step,
        /// Why it failed.
        source: AskError,
    },
    /// A service answered without what it was asked for.
    #[error("key vault, {0}: the answer has no usable token")]
    NoToken(Step),
    /// The file with the access token.
    #[error("key vault, access token {}: {source}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The released key.
    #[error("key vault, key {key}: {source}")]
    Released {
        /// The key's name.
        key: KeyName,
        /// What is wrong with it.
        source: akv::AkvError,
    },
}

/// A step on the way to the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The attestation service, for a token.
    Attest,
    /// The machine's identity, for an access token.
    Identity,
    /// The vault, for the key.
    Release,
}

impl Akv {
    /// A client of the vault of `config` that shows evidence of `prover`. Opens no connection yet.
    ///
    /// # Errors
    /// [`AkvError::Roots`]
    pub fn new(config: AkvConfig, prover: Prover) -> Result<Self, AkvError> {
        let roots = Roots::load(config.vault.ca_file.as_deref())?;
        let http = [&config.vault.url, &config.attestation_url].iter().any(|url| url.starts_with("http://"));
        let https = Fetcher::trusting(roots.store, http, TIMEOUT);
        let collateral = collateral::Fetcher::new(config.collateral.clone(), TIMEOUT);
        // The identity service is on the machine's own link: there is no TLS, and nothing but the host to know.
        let identity = Fetcher::trusting(rustls::RootCertStore::empty(), true, TIMEOUT);
        Ok(Self { roots: roots.sha256, https, collateral, identity, prover, config })
    }

    /// The key.
    ///
    /// # Errors
    /// See [`AkvError`].
    pub async fn release(&self, key: &KeyName) -> Result<Released, AkvError> {
        match self.prover.machine_key().await? {
            Some(machine) => self.release_to_machine(machine, key).await,
            None => self.release_to_us(key).await,
        }
    }

    /// Wrapped to a key that we make, and that evidence names.
    async fn release_to_us(&self, key: &KeyName) -> Result<Released, AkvError> {
        let wrapping = AkvKey::generate()?;
        let runtime_data = wrapping.runtime_data();
        let mut evidence = self.prover.evidence(maa_report_data(&runtime_data)).await?;
        self.endorse(&mut evidence).await;
        let answer = self.attest(evidence.maa(&runtime_data)?).await?;
        let token = akv::token(answer.body()).ok_or(AkvError::NoToken(Step::Attest))?;
        let body = self.wrapped(key, &token).await?;
        wrapping.open(&body).map_err(|source| AkvError::Released { key: key.clone(), source })
    }

    /// Releases a key wrapped to one that the machine makes and vouches for; the token, too, is encrypted to that.
    async fn release_to_machine(&self, mut machine: MachineKey, key: &KeyName) -> Result<Released, AkvError> {
        let answers = self.collateral_of(machine.collateral_requests()).await;
        let answers: Vec<_> = answers.iter().map(Option::as_ref).collect();
        malformed(machine.staple(&answers));
        let answer = self.attest(machine.maa()?).await?;
        let sealed = SealedToken::parse(answer.body()).ok_or(AkvError::NoToken(Step::Attest))?;
        let encrypted = sealed.encrypted_key().to_vec();
        let (machine, inner) = by_machine(machine, move |machine| machine.decrypt_pkcs1(&encrypted)).await?;
        let token = sealed.open(&inner).ok_or(AkvError::NoToken(Step::Attest))?;

        let body = self.wrapped(key, &token).await?;
        let failed = |source| AkvError::Released { key: key.clone(), source };
        let wrapped = Wrapped::parse(&body).map_err(failed)?;
        let encrypted = wrapped.encrypted_kek().to_vec();
        let (_, kek) = by_machine(machine, move |machine| machine.decrypt_oaep(&encrypted)).await?;
        wrapped.open(&kek).map_err(failed)
    }

    async fn attest(&self, request: MaaRequest) -> Result<http::Response<Vec<u8>>, AkvError> {
        let request = Request::post(format!("{}{}", self.config.attestation_url, request.path))
            .header(header::CONTENT_TYPE, "application/json")
            .body(request.body.to_string().into());
        self.ask(&self.https, Step::Attest, request).await
    }

    /// The vault's answer to `token`.
    async fn wrapped(&self, key: &KeyName, token: &str) -> Result<Zeroizing<Vec<u8>>, AkvError> {
        let access = self.access_token().await?;
        let bearer = Zeroizing::new(format!("Bearer {}", access.as_str()));
        let request = Request::post(format!("{}{}", self.config.vault.url, key.release_path()))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, bearer.as_str())
            .body(akv::release(token).into());
        let answer = self.ask(&self.https, Step::Release, request).await?;
        Ok(Zeroizing::new(answer.into_body()))
    }

    /// The service, for the claims.
    pub fn service(&self, key: &KeyName) -> KeyService {
        KeyService {
            url: self.config.vault.url.clone(),
            name: key.to_string(),
            roots_sha256: self.roots,
            attestation_url: Some(self.config.attestation_url.clone()),
        }
    }

    /// Adds what the TEE's vendor says of it, as far as it can be had: what is missing is named when it is needed.
    async fn endorse(&self, evidence: &mut Evidence) {
        let answers = self.collateral_of(evidence.collateral_requests()).await;
        let answers: Vec<_> = answers.iter().map(Option::as_ref).collect();
        malformed(evidence.staple(&answers));
    }

    async fn collateral_of(&self, requests: Vec<CollateralRequest>) -> Vec<Option<CollateralAnswer>> {
        let mut answers = Vec::new();
        for request in requests {
            answers.push(self.collateral.get(&request).await.ok());
        }
        answers
    }

    async fn access_token(&self) -> Result<Zeroizing<String>, AkvError> {
        if let Some(path) = &self.config.token_file {
            let failed = |source| AkvError::TokenFile { path: path.clone(), source };
            let text = Zeroizing::new(std::fs::read_to_string(path).map_err(failed)?);
            let token = text.trim_ascii();
            if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(failed(std::io::Error::other("expected one line with a token")));
            }
            return Ok(Zeroizing::new(token.into()));
        }
        let managed = self.config.vault.url.contains(".managedhsm.");
        let resource =
            if managed { "https%3A%2F%2Fmanagedhsm.azure.net" } else { "https%3A%2F%2Fvault.azure.net" };
        let url = format!(
            "{}/metadata/identity/oauth2/token?api-version=2018-02-01&resource={resource}",
            self.config.identity_url
        );
        let request = Request::get(url).header("metadata", "true").body(Bytes::new());
        let answer = self.ask(&self.identity, Step::Identity, request).await?;
        let body = Zeroizing::new(answer.into_body());
        akv::access_token(&body).ok_or(AkvError::NoToken(Step::Identity))
    }

    async fn ask(
        &self,
        fetcher: &Fetcher,
        step: Step,
        request: http::Result<Request<Bytes>>,
    ) -> Result<http::Response<Vec<u8>>, AkvError> {
        let failed = |source| AkvError::Ask { step, source };
        let request = request.map_err(|source| {
            failed(AskError::Fetch { url: self.config.vault.url.clone(), source: source.into() })
        })?;
        ask(fetcher, request, akv::problem).await.map_err(failed)
    }
}

fn malformed(stapled: Result<(), StapleError>) {
    if let Err(error) = stapled {
        tracing::warn!("key vault: what the TEE's vendor says of it is malformed: {error}");
    }
}

/// Has the machine do what may take it a while.
async fn by_machine<R: Send + 'static>(
    mut machine: MachineKey,
    work: impl FnOnce(&mut MachineKey) -> Result<R, MachineError> + Send + 'static,
) -> Result<(MachineKey, R), AkvError> {
    let worked = tokio::task::spawn_blocking(move || work(&mut machine).map(|done| (machine, done)));
    Ok(worked.await.map_err(|_| NoEvidence::Stopped)??)
}

impl fmt::Debug for Akv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Akv").field("url", &self.config.vault.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attest => "shown evidence to its attestation service",
            Self::Identity => "asked for this machine's identity",
            Self::Release => "asked for the key",
        })
    }
}
