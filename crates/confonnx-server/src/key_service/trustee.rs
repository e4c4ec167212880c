//! A client of the Key Broker Service of Confidential Containers Trustee.

use std::fmt;

use bytes::Bytes;
use confonnx_attest::{
    KeyService,
    key_service::{self, trustee_report_data},
};
use confonnx_protocol::key_service::{
    JweError, KbsKey,
    trustee::{self as kbs, Challenge, ChallengeError, Resource},
};
use http::{HeaderMap, Request, header};
use zeroize::Zeroizing;

use super::{
    ask::{AskError, TIMEOUT, ask},
    roots::{Roots, RootsError},
};
use crate::{
    config::KbsConfig,
    evidence::{NoEvidence, Prover},
    https::Fetcher,
    random::rng,
};

/// Asks one service. Each request is a new session with a new key.
pub struct Kbs {
    url: String,
    roots: confonnx_attest::Digest,
    https: Fetcher,
    prover: Prover,
    tee: &'static str,
}

/// Why a service releases nothing.
#[derive(Debug, thiserror::Error)]
pub enum KbsError {
    /// The service's authorities cannot be read.
    #[error("key broker service: {0}")]
    Roots(#[from] RootsError),
    /// The service cannot check this TEE.
    #[error("key broker service: {0}")]
    Form(#[from] key_service::ReleaseError),
    /// The TEE.
    #[error("key broker service: {0}")]
    Evidence(#[from] NoEvidence),
    /// There is no key to encrypt to.
    #[error("key broker service: no key could be made")]
    NoKey,
    /// The service did not answer, or refused to begin.
    #[error("key broker service, {step}: {source}{}", .step.hint(source))]
    Ask {
        /// The step that failed.
        step: Step,
        /// Why it failed.
        source: AskError,
    },
    /// The service's challenge is not one.
    #[error("key broker service: {0}")]
    Challenge(#[from] ChallengeError),
    /// The service gave no session.
    #[error(
        "key broker service: expected a cookie `{COOKIE}` with its challenge, found none that can be sent back"
    )]
    Cookie,
    /// The service says the evidence was good, and gives no token.
    #[error("key broker service: expected a token for the evidence, found none")]
    Token,
    /// The service's answer does not open.
    #[error("key broker service, secret {resource}: {source}")]
    Jwe {
        /// The secret's name.
        resource: Resource,
        /// Why not.
        source: JweError,
    },
}

/// The steps of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// `POST /kbs/v0/auth`
    Auth,
    /// `POST /kbs/v0/attest`
    Attest,
    /// `GET /kbs/v0/resource/…`
    Resource,
}

impl Kbs {
    /// A client of the service of `config` that shows evidence of `prover`. Opens no connection yet.
    ///
    /// # Errors
    /// [`KbsError::Form`] for a TEE that such services do not know, and [`KbsError::Roots`].
    pub fn new(config: &KbsConfig, prover: Prover) -> Result<Self, KbsError> {
        let tee = prover.tee().trustee_name()?;
        let roots = Roots::load(config.ca_file.as_deref())?;
        let http = config.url.starts_with("http://");
        let https = Fetcher::trusting(roots.store, http, TIMEOUT);
        Ok(Self { url: config.url.clone(), roots: roots.sha256, https, prover, tee })
    }

    /// The secret's bytes.
    ///
    /// # Errors
    /// See [`KbsError`].
    pub async fn resource(&self, resource: &Resource) -> Result<Zeroizing<Vec<u8>>, KbsError> {
        let key = KbsKey::generate(&mut rng()).ok_or(KbsError::NoKey)?;
        let answer = self.post(Step::Auth, "auth", kbs::auth(self.tee), None).await?;
        let challenge = Challenge::parse(answer.body())?;
        let cookie = session(answer.headers()).ok_or(KbsError::Cookie)?;

        let report_data = trustee_report_data(&challenge.runtime_data(&key));
        let evidence = self.prover.evidence(report_data).await?.trustee()?;
        let body = challenge.attestation(&key, &evidence);
        let answer = self.post(Step::Attest, "attest", body, Some(&cookie)).await?;
        // The session has it too; another replica of the service may have only this.
        let token = kbs::token(answer.body()).ok_or(KbsError::Token)?;
        let cookie = session(answer.headers()).unwrap_or(cookie);

        let request = Request::get(format!("{}/kbs/v0/resource/{resource}", self.url))
            .header(header::COOKIE, cookie)
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Bytes::new());
        let answer = self.ask(Step::Resource, request).await?;
        key.open(answer.body()).map_err(|source| KbsError::Jwe { resource: resource.clone(), source })
    }

    /// The service, for the claims.
    pub fn service(&self, resource: &Resource) -> KeyService {
        KeyService {
            url: self.url.clone(),
            name: resource.to_string(),
            roots_sha256: self.roots,
            attestation_url: None,
        }
    }

    async fn post(
        &self,
        step: Step,
        path: &str,
        body: Vec<u8>,
        cookie: Option<&str>,
    ) -> Result<http::Response<Vec<u8>>, KbsError> {
        let request = Request::post(format!("{}/kbs/v0/{path}", self.url))
            .header(header::CONTENT_TYPE, "application/json");
        let request =
            cookie.into_iter().fold(request, |request, cookie| request.header(header::COOKIE, cookie));
        self.ask(step, request.body(body.into())).await
    }

    async fn ask(
        &self,
        step: Step,
        request: http::Result<Request<Bytes>>,
    ) -> Result<http::Response<Vec<u8>>, KbsError> {
        let failed = |source| KbsError::Ask { step, source };
        let request = request
            .map_err(|source| failed(AskError::Fetch { url: self.url.clone(), source: source.into() }))?;
        ask(&self.https, request, kbs::problem).await.map_err(failed)
    }
}

impl fmt::Debug for Kbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kbs").field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "asked for a challenge",
            Self::Attest => "shown evidence",
            Self::Resource => "asked for the secret",
        })
    }
}

impl Step {
    /// What may be wrong. The service answers almost every error with 401, so its own word for it is asked first, and the
    /// step where it has none.
    fn hint(self, error: &AskError) -> &'static str {
        let AskError::Status { status, detail, .. } = error else { return "" };
        match detail.split(':').next().unwrap_or_default() {
            "PluginInternalError" => {
                " (there is no such secret, or the service cannot read where it keeps them)"
            }
            "PolicyDeny" => {
                " (its resource policy does not release this secret to this server; what its attestation policy and \
                 reference values say of the server counts there, and nowhere before)"
            }
            "TokenVerifierError" => {
                " (it does not trust who signed the token: its settings have to name the certificate of its attestation \
                 service; or the token is of another session)"
            }
            "TokenNotFound" => {
                " (it lost the session: it was restarted, or several services share the address)"
            }
            "AttestationError" | "RcarAttestFailed" => {
                " (its verifier does not take this evidence, or it lost the session: its own log says which; reference \
                 values are not asked here)"
            }
            "RcarAuthFailed" => {
                " (does it speak version 0.4.0 of the protocol, and know this kind of machine?)"
            }
            "InvalidRequestPath" | "PluginNotFound" => " (is the URL that of a key broker service?)",
            _ => self.hint_without_word(status.as_u16()),
        }
    }

    fn hint_without_word(self, status: u16) -> &'static str {
        match (self, status) {
            (Self::Auth, 401) => " (does it speak version 0.4.0 of the protocol?)",
            // A lost or failed handshake has no word at all.
            (Self::Attest | Self::Resource, 401) => {
                " (without a reason: the handshake failed or the session was lost; several services behind one address do \
                 not share sessions)"
            }
            (Self::Resource, 403) => " (its resource policy may not release this secret to this server)",
            (_, 404) => " (is the URL that of a key broker service?)",
            _ => "",
        }
    }
}

/// The session's cookie, as it is sent back.
fn session(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::SET_COOKIE).iter().find_map(|field| {
        let (pair, _) = field.to_str().ok()?.split_once(';').unwrap_or((field.to_str().ok()?, ""));
        let (name, value) = pair.trim().split_once('=')?;
        let usable = !value.is_empty()
            && value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b'\\'));
        (name == COOKIE && usable).then(|| format!("{COOKIE}={value}"))
    })
}

const COOKIE: &str = "kbs-session-id";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_go_by_the_services_own_word() {
        let error = |status: u16, detail: &str| AskError::Status {
            url: "https://kbs.example".into(),
            status: http::StatusCode::from_u16(status).unwrap(),
            detail: detail.into(),
        };
        for (step, detail, expected) in [
            (Step::Resource, "PluginInternalError: Resource not found", "no such secret"),
            (Step::Resource, "PolicyDeny: Access denied by policy", "resource policy"),
            (Step::Resource, "TokenVerifierError", "who signed the token"),
            (Step::Resource, "TokenNotFound: no", "lost the session"),
            (Step::Attest, "AttestationError: verify failed", "verifier does not take this evidence"),
            (Step::Attest, "RcarAttestFailed: no", "verifier does not take this evidence"),
            (Step::Auth, "RcarAuthFailed", "know this kind of machine"),
            (Step::Auth, "InvalidRequestPath: /kbs/v0/auth", "URL that of a key broker service"),
            (Step::Resource, "PluginNotFound: resource", "URL that of a key broker service"),
            (Step::Attest, "", "without a reason"),
            (Step::Resource, "Novelty: something", "without a reason"),
        ] {
            let hint = step.hint(&error(401, detail));
            assert!(hint.contains(expected), "{step} {detail}: {hint}");
        }
        assert!(Step::Resource.hint(&error(403, "")).contains("resource policy"));
        assert_eq!(Step::Auth.hint(&error(502, "")), "");
    }

    #[test]
    fn the_session_is_the_cookie_of_that_name() {
        let read = |fields: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(header::SET_COOKIE, field.parse().unwrap());
            }
            session(&headers)
        };
        let cookie = "kbs-session-id=0a1b; Expires=Mon, 23 Nov 2026 17:00:00 GMT";
        assert_eq!(read(&[cookie]).unwrap(), "kbs-session-id=0a1b");
        assert_eq!(read(&["other=1", "kbs-session-id=2"]).unwrap(), "kbs-session-id=2");
        for bad in ["", "kbs-session-id", "kbs-session-id=", "kbs-session-id=a b", "x=1; kbs-session-id=2"] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
    }
}
