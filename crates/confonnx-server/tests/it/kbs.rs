//! Secrets from a Key Broker Service: the server's client of it against a stand-in ([`crate::trustee`]).

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use base64ct::{Base64, Encoding};
use confonnx_attest::{Digest, produce::Attester};
use confonnx_model::encrypted::ModelKey;
use confonnx_protocol::key_service::trustee::Resource;
use confonnx_server::{
    config::KbsConfig,
    evidence::{Prover, Source},
    key_service::{Kbs, KbsError},
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::aws_lc_rs::default_provider, pki_types::PrivateKeyDer},
};

use crate::{
    harness::{PATIENCE, config, start_with, until},
    protected::{self, Protected, inner_code, predict},
    trustee::{Fault, Trustee},
};

fn prover() -> Prover {
    Prover::new(Arc::new(Mutex::new(Source::from(Attester::insecure(Digest([7; 32]))))))
}

fn kbs(url: &str, ca_file: Option<PathBuf>) -> Kbs {
    Kbs::new(&KbsConfig { url: url.into(), ca_file }, prover()).unwrap()
}

/// A service without TLS; it needs authorities as well, since the claims name them.
async fn plain() -> (Trustee, Kbs, Authority) {
    let (trustee, authority) = (Trustee::start().await, Authority::new("plain"));
    let kbs = kbs(&trustee.url, Some(authority.file()));
    (trustee, kbs, authority)
}

fn resource() -> Resource {
    "default/confonnx/root".parse().unwrap()
}

/// A certificate authority of our own.
pub(crate) struct Authority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();

        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), pem(issuer.der())).unwrap();
        Self { issuer, folder }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// The authority's digest, as claims and policies name it.
    pub(crate) fn digest(&self) -> Digest {
        Digest(Sha256::digest(Sha256::digest(self.issuer.der())).into())
    }

    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![name.into()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            );
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}

pub(crate) fn pem(der: &[u8]) -> String {
    let body = Base64::encode_string(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

#[tokio::test]
async fn a_secret_is_released_against_evidence() {
    let (trustee, kbs, authority) = plain().await;
    trustee.put("default/confonnx/root", b"thirty-two bytes, or some more");
    assert_eq!(kbs.resource(&resource()).await.unwrap().as_slice(), b"thirty-two bytes, or some more");
    let session = ["POST /kbs/v0/auth", "POST /kbs/v0/attest", "GET /kbs/v0/resource/default/confonnx/root"];
    assert_eq!(trustee.requests(), session);
    // Each secret is fetched in a session of its own: no key is used twice.
    trustee.put("default/confonnx/root", b"");
    assert_eq!(kbs.resource(&resource()).await.unwrap().as_slice(), b"");
    assert_eq!(trustee.requests().len(), 6);
    let service = kbs.service(&resource());
    assert_eq!(
        (service.url.as_str(), service.name.as_str()),
        (trustee.url.as_str(), "default/confonnx/root")
    );
    assert_eq!(service.roots_sha256, authority.digest());
}

#[tokio::test]
async fn refusals_say_what_was_refused() {
    let (trustee, kbs, _authority) = plain().await;
    let failure = async || kbs.resource(&resource()).await.unwrap_err().to_string();
    let error = failure().await;
    assert!(
        error.contains("asked for the secret") && error.contains("401") && error.contains("no such secret"),
        "{error}"
    );
    trustee.put("default/confonnx/root", b"secret");
    trustee.deny_secrets(true);
    let error = failure().await;
    assert!(
        error.contains("401")
            && error.contains("PolicyDeny: Access denied")
            && error.contains("resource policy"),
        "{error}"
    );
    trustee.reject_evidence(true);
    let error = failure().await;
    assert!(error.contains("shown evidence") && error.contains("verifier does not take"), "{error}");
    assert!(!error.contains("secret\""), "{error}");
    trustee.reject_evidence(false);
    trustee.deny_secrets(false);
    assert!(kbs.resource(&resource()).await.is_ok());
}

#[tokio::test]
async fn a_service_that_misbehaves_is_an_error() {
    let (trustee, kbs, _authority) = plain().await;
    trustee.put("default/confonnx/root", b"the secret itself");
    for (step, fault, expected) in [
        ("auth", Fault::Status(502), "502"),
        ("auth", Fault::Status(302), "302"),
        ("auth", Fault::Garbled, "expected a challenge"),
        ("auth", Fault::Endless, "more than"),
        ("auth", Fault::NoCookie, "expected a cookie `kbs-session-id`"),
        ("attest", Fault::Status(500), "500"),
        ("attest", Fault::Garbled, "expected a token"),
        ("resource", Fault::Status(403), "resource policy"),
        ("resource", Fault::Status(503), "503"),
        ("resource", Fault::Garbled, "expected a JWE"),
        ("resource", Fault::Endless, "more than"),
        ("resource", Fault::OtherKey, "does not open with the key that was attested"),
        ("resource", Fault::Damaged, "does not open with the key that was attested"),
    ] {
        trustee.fail(Some((step, fault)));
        let error = kbs.resource(&resource()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{step} {fault:?}: {error}");
        assert!(!error.contains("the secret itself"), "{error}");
    }
    trustee.fail(None);
    assert!(kbs.resource(&resource()).await.is_ok());
    drop(trustee);
    let error = kbs.resource(&resource()).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn the_service_is_known_by_its_authority() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let trustee = Trustee::start_tls(ours.acceptor("localhost")).await;
    trustee.put("default/confonnx/root", b"secret");
    let known = kbs(&trustee.url, Some(ours.file()));
    assert_eq!(known.resource(&resource()).await.unwrap().as_slice(), b"secret");
    let stranger = kbs(&trustee.url, Some(theirs.file()));
    let error = stranger.resource(&resource()).await.unwrap_err().to_string();
    assert!(error.contains("cannot be reached") && error.contains("certificate"), "{error}");
    // The service whose certificate nobody vouches for was asked for nothing.
    assert_eq!(trustee.requests().len(), 3);
    let other_name = Trustee::start_tls(ours.acceptor("another.example")).await;
    assert!(kbs(&other_name.url, Some(ours.file())).resource(&resource()).await.is_err());
    assert_ne!(known.service(&resource()).roots_sha256, stranger.service(&resource()).roots_sha256);
}

#[test]
fn what_cannot_be_asked_is_an_error_at_the_start() {
    let config = KbsConfig { url: "https://kbs.example".into(), ca_file: Some("/nowhere".into()) };
    let error = Kbs::new(&config, prover()).unwrap_err().to_string();
    assert!(error.contains("/nowhere"), "{error}");
    let source = Source {
        tee: confonnx_attest::Tee::Nitro,
        evidence: Box::new(|_| unreachable!("it is not asked")),
        machine_key: None,
        interval: std::time::Duration::ZERO,
    };
    let nitro = Prover::new(Arc::new(Mutex::new(source)));
    let config = KbsConfig { ca_file: Some(Path::new("unread").into()), ..config };
    let error = Kbs::new(&config, nitro).unwrap_err();
    assert!(matches!(error, KbsError::Form(_)) && error.to_string().contains("`nitro`"), "{error}");
}

#[tokio::test]
async fn a_service_unlocks_an_encrypted_model() {
    let (protected, trustee, authority) = (Protected::new(), Trustee::start().await, Authority::new("plain"));
    let server = start_with(config("mlp", |settings| {
        settings.model_path = Some(protected.path());
        settings.model_key_source = Some("kbs:default/model/key".into());
        settings.kbs_url = Some(trustee.url.clone());
        settings.kbs_ca_file = Some(authority.file());
        settings.key_error_retry_interval = Some(1);
    }))
    .await;
    let client = protected::client(&server, protected.digests.ciphertext);
    assert_eq!(inner_code(predict(&client).await.unwrap_err()), (503, "model-locked".into()));
    let claims = client.attest().await.unwrap().claims().clone();
    let source = &claims.settings["model_key_source"];
    assert_eq!((&source["kind"], &source["service"]["name"]), (&"kbs".into(), &"default/model/key".into()));
    // Neither a missing key, nor another model's, nor text that is no key unlocks the model, and the server asks again.
    for wrong in [ModelKey::generate().unwrap().expose().as_bytes(), b"not a key"] {
        let asked = trustee.requests().len();
        trustee.put("default/model/key", wrong);
        until(|| trustee.requests().len() >= asked + 6).await;
        assert_eq!(inner_code(predict(&client).await.unwrap_err()), (503, "model-locked".into()));
    }
    trustee
        .put("default/model/key", format!("# a comment\n{}\n", protected.key.expose().as_str()).as_bytes());
    let patience = std::time::Instant::now();
    while !client.ready().await.unwrap() {
        assert!(patience.elapsed() < PATIENCE, "it stays locked");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // A client that pins the plain model finds it.
    predict(&protected::client(&server, protected.digests.plaintext)).await.unwrap();
    // The server has the model's key, and asks for no other.
    let asked = trustee.requests().len();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert_eq!(trustee.requests().len(), asked);
}
