//! Keys from Azure Key Vault: the client against a stand-in ([`crate::azure_vault`]).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{Digest, Evidence, Tee, produce::Attester};
use confonnx_protocol::key_service::key_vault::{KeyName, Released};
use confonnx_server::{
    config::{AkvConfig, Bases, Service},
    evidence::{Prover, Source},
    key_service::{Akv, AkvError},
};
use serde_json::json;

use crate::azure_vault::{ACCESS_TOKEN, AzureVault};

/// A report with everything but a signature, beside a certificate that would be for another chip.
fn source(certificate: bool) -> Source {
    let evidence = move |report_data: &[u8; 64]| {
        let mut report = vec![0; 1184];
        report[0] = 3;
        report[0x0A] = 2;
        report[0x50..0x90].copy_from_slice(report_data);
        report[0x188..0x18A].copy_from_slice(&[0x19, 0x01]);
        let vcek = include_bytes!("../../../../vectors/evidence/snp/vcek_milan.der");
        let vcek = Base64UrlUnpadded::encode_string(vcek);
        let endorsements = if certificate { json!({ "vcek": vcek }) } else { json!({}) };
        Ok(Evidence::parse("snp", &report, endorsements.as_object().unwrap()).unwrap())
    };
    Source { tee: Tee::Snp, evidence: Box::new(evidence), interval: Duration::ZERO }
}

struct Setup {
    azure: AzureVault,
    folder: tempfile::TempDir,
}

impl Setup {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        std::fs::write(folder.path().join("ca.pem"), crate::kbs::pem(ca.cert.der())).unwrap();
        Self { azure: AzureVault::start().await, folder }
    }

    fn akv(&self, token_file: Option<PathBuf>, source: Source) -> Akv {
        let config = AkvConfig {
            vault: Service { url: self.azure.url.clone(), ca_file: Some(self.folder.path().join("ca.pem")) },
            attestation_url: self.azure.url.clone(),
            token_file,
            identity_url: self.azure.url.clone(),
            // Nobody is there, and nobody is needed.
            collateral: Bases { amd: Some("http://127.0.0.1:9".into()), intel: None },
        };
        Akv::new(config, Prover::new(Arc::new(Mutex::new(source)))).unwrap()
    }
}

fn name() -> KeyName {
    "confonnx-root".parse().unwrap()
}

fn bytes(released: Released) -> Vec<u8> {
    match released {
        Released::Bytes(bytes) | Released::Scalar(bytes) => bytes.expose().to_vec(),
    }
}

#[tokio::test]
async fn a_key_is_released_against_evidence() {
    let setup = Setup::new().await;
    setup.azure.put("confonnx-root", "oct-HSM", &[0x5a; 32]);
    let akv = setup.akv(None, source(true));
    assert_eq!(bytes(akv.release(&name()).await.unwrap()), [0x5a; 32]);
    // The version is part of the name, and the access token may come from a file.
    let token = setup.folder.path().join("token");
    std::fs::write(&token, format!("{ACCESS_TOKEN}\n")).unwrap();
    let akv = setup.akv(Some(token), source(true));
    setup.azure.put("confonnx-root/0a1b", "oct-HSM", &[0xa5; 48]);
    assert_eq!(bytes(akv.release(&"confonnx-root/0a1b".parse().unwrap()).await.unwrap()), [0xa5; 48]);
    let service = akv.service(&name());
    assert_eq!(
        (service.name.as_str(), service.attestation_url),
        ("confonnx-root", Some(setup.azure.url.clone()))
    );
}

#[tokio::test]
async fn refusals_say_what_was_refused() {
    let setup = Setup::new().await;
    let akv = setup.akv(None, source(true));
    let failure = async |akv: &Akv| akv.release(&name()).await.unwrap_err().to_string();
    let error = failure(&akv).await;
    assert!(error.contains("asked for the key") && error.contains("KeyNotFound"), "{error}");
    setup.azure.put("confonnx-root", "oct-HSM", &[0x5a; 32]);
    setup.azure.deny(true);
    let error = failure(&akv).await;
    assert!(
        error.contains("403") && error.contains("Forbidden: Key does not meet its release policy"),
        "{error}"
    );
    setup.azure.deny(false);
    setup.azure.put("confonnx-root", "RSA-HSM", &[0x5a; 32]);
    let error = failure(&akv).await;
    assert!(error.contains("`RSA-HSM`") && error.contains("oct-HSM"), "{error}");
    let token = setup.folder.path().join("token");
    std::fs::write(&token, "wrong").unwrap();
    let error = failure(&setup.akv(Some(token), source(true))).await;
    assert!(error.contains("401") && error.contains("AKV10000"), "{error}");
    let error = failure(&setup.akv(Some("/nowhere/token".into()), source(true))).await;
    assert!(error.contains("/nowhere/token"), "{error}");
}

#[tokio::test]
async fn services_that_misbehave_are_errors() {
    let setup = Setup::new().await;
    setup.azure.put("confonnx-root", "oct-HSM", b"the thirty-two bytes themselves");
    let akv = setup.akv(None, source(true));
    for (path, status, body, expected) in [
        ("/attest", 503, "", "503"),
        ("/attest", 200, "<html>", "attestation service: the answer has no usable token"),
        ("/metadata", 400, r#"{"error":"invalid_request"}"#, "machine's identity"),
        ("/metadata", 200, "{}", "machine's identity: the answer has no usable token"),
        ("/keys", 200, "<html>", "the vault's answer"),
        ("/keys", 200, r#"{"value":"a.b"}"#, "expected a JWS"),
        ("/keys", 429, "", "429"),
    ] {
        setup.azure.fail(Some((path, status, body)));
        let error = akv.release(&name()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{path} {status}: {error}");
    }
    setup.azure.fail(None);
    setup.azure.wrap_to_another(true);
    let error = akv.release(&name()).await.unwrap_err().to_string();
    assert!(
        error.contains("does not unwrap with the key that was attested") && !error.contains("thirty"),
        "{error}"
    );
    setup.azure.wrap_to_another(false);
    assert!(akv.release(&name()).await.is_ok());
}

#[tokio::test]
async fn evidence_without_its_certificate_or_form_is_refused_here() {
    let setup = Setup::new().await;
    setup.azure.put("confonnx-root", "oct-HSM", &[0x5a; 32]);
    let error = setup.akv(None, source(false)).release(&name()).await.unwrap_err().to_string();
    assert!(error.contains("VCEK") && error.contains("--collateral-url-amd"), "{error}");
    let insecure = Source::from(Attester::insecure(Digest([7; 32])));
    let error = setup.akv(None, insecure).release(&name()).await.unwrap_err();
    assert!(matches!(error, AkvError::Form(_)) && error.to_string().contains("`insecure`"), "{error}");
}
