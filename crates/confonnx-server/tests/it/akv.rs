//! Keys from Azure Key Vault: the client against a stand-in ([`crate::azure_vault`]).

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64ct::{Base64UrlUnpadded, Encoding};
use confonnx_attest::{Digest, Evidence, Tee, azure, produce::Attester};
use confonnx_protocol::key_service::key_vault::{KeyName, Released};
use confonnx_server::{
    config::{AkvConfig, Bases, Service},
    evidence::{Prover, Source},
    key_service::{Akv, AkvError},
};
use emulator::Emulator;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    azure_vault::{ACCESS_TOKEN, AzureVault},
    service::{Service as StandIn, status},
};

#[path = "../../../confonnx-attest/src/tpm/tests/emulator.rs"]
#[expect(dead_code, reason = "made for other tests, which need more of it")]
mod emulator;

/// A source whose report has everything but a signature, beside a certificate that would be for another chip.
fn source(certificate: bool) -> Source {
    let evidence = move |report_data: &[u8; 64]| {
        let mut report = vec![0; 1184];
        report[0] = 3;
        report[0x0A] = 2;
        report[0x50..0x90].copy_from_slice(report_data);
        report[0x90..0xC0].fill(0x7a);
        report[0x188..0x18A].copy_from_slice(&[0x19, 0x01]);
        let vcek = include_bytes!("../../../../vectors/evidence/snp/vcek_milan.der");
        let vcek = Base64UrlUnpadded::encode_string(vcek);
        let endorsements = if certificate { json!({ "vcek": vcek }) } else { json!({}) };
        Ok(Evidence::parse("snp", &report, endorsements.as_object().unwrap()).unwrap())
    };
    Source { tee: Tee::Snp, evidence: Box::new(evidence), machine_key: None, interval: Duration::ZERO }
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
        // Nobody listens at AMD's address here, and no test needs it.
        self.akv_with(token_file, source, "http://127.0.0.1:9")
    }

    fn akv_with(&self, token_file: Option<PathBuf>, source: Source, amd: &str) -> Akv {
        let config = AkvConfig {
            vault: Service { url: self.azure.url.clone(), ca_file: Some(self.folder.path().join("ca.pem")) },
            attestation_url: self.azure.url.clone(),
            token_file,
            identity_url: self.azure.url.clone(),
            collateral: Bases { amd: Some(amd.into()), intel: None },
        };
        Akv::new(config, Prover::new(Arc::new(Mutex::new(source)))).unwrap()
    }
}

fn name() -> KeyName {
    "confonnx-root".parse().unwrap()
}

fn bytes(released: Released) -> Vec<u8> {
    match released {
        Released::Bytes(bytes) | Released::Scalar(bytes) => bytes.to_vec(),
    }
}

#[tokio::test]
async fn a_key_is_released_against_evidence() {
    let setup = Setup::new().await;
    setup.azure.put("confonnx-root", "oct-HSM", &[0x5a; 32]);
    let akv = setup.akv(None, source(true));
    assert_eq!(bytes(akv.release(&name()).await.unwrap()), [0x5a; 32]);
    // A key's version is part of its name, and the access token may come from a file.
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
async fn the_release_policy_of_the_documents_is_met_by_what_it_names_and_by_nothing_else() {
    let setup = Setup::new().await;
    setup.azure.put("confonnx-root", "oct-HSM", &[0x5a; 32]);
    let akv = setup.akv(None, source(true));
    let mut policy: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/samples/akv-release-policy.json")).unwrap();
    assert_eq!(policy["version"], "1.0.0");
    let conditions = "/anyOf/0/allOf";
    setup.azure.require(policy.clone());
    assert!(akv.release(&name()).await.is_err(), "the sample's measurement is nobody's");
    let measured = policy.pointer_mut(conditions).unwrap().as_array_mut().unwrap().last_mut().unwrap();
    assert_eq!(measured["claim"], "x-ms-sevsnpvm-launchmeasurement");
    measured["equals"] = "7a".repeat(48).into();
    setup.azure.require(policy.clone());
    assert_eq!(bytes(akv.release(&name()).await.unwrap()), [0x5a; 32]);
    for at in 0..policy.pointer(conditions).unwrap().as_array().unwrap().len() {
        let mut other = policy.clone();
        *other.pointer_mut(&format!("{conditions}/{at}/equals")).unwrap() = "another".into();
        setup.azure.require(other);
        let error = akv.release(&name()).await.unwrap_err().to_string();
        assert!(error.contains("does not meet its release policy"), "{at}: {error}");
    }
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

/// A virtual TPM as the paravisor of a confidential VM prepares it, beside a processor's report that nobody signed.
fn confidential_vm() -> Option<Emulator> {
    let tpm = Emulator::start()?;
    let attributes = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign";
    tpm.tool(&format!("tpm2_createprimary -Q -C e -G rsa2048:rsassa-sha256:null -a {attributes} -c ak.ctx"));
    tpm.tool("tpm2_evictcontrol -Q -C o -c ak.ctx 0x81000003");
    tpm.tool("tpm2_readpublic -Q -c 0x81000003 -f der -o ak.der");
    let der = tpm.read("ak.der");
    let modulus = Base64UrlUnpadded::encode_string(&der[der.len() - 261..der.len() - 5]);
    let ak = json!({ "kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB", "n": modulus });
    let runtime_data = json!({ "keys": [ak], "vm-configuration": {} }).to_string();
    let mut report = vec![0; 1184];
    (report[0], report[0x0A]) = (3, 2);
    report[0x50..0x70].copy_from_slice(&Sha256::digest(&runtime_data));
    report[0x188..0x18A].copy_from_slice(&[0x19, 0x01]);
    let len = u32::try_from(runtime_data.len()).unwrap();
    let numbers = |of: &[u32]| of.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>();
    let hcl = [
        b"HCLA".to_vec(),
        numbers(&[2, 32 + 1184 + 20 + len, 2, 0, 0, 0, 0]),
        report,
        numbers(&[20 + len, 1, 2, 1, len]),
        runtime_data.into_bytes(),
    ]
    .concat();
    tpm.write("ak.crt", b"a certificate");
    for (file, len, index) in [("hcl.bin", hcl.len(), "0x01400001"), ("ak.crt", 13, "0x01c101d0")] {
        if file == "hcl.bin" {
            tpm.write(file, &hcl);
        }
        tpm.tool(&format!("tpm2_nvdefine -Q -C o -s {len} -a ownerread|ownerwrite {index}"));
        tpm.tool(&format!("tpm2_nvwrite -Q -C o -i {file} {index}"));
    }
    tpm.tool("tpm2_flushcontext -Q -t");
    Some(tpm)
}

#[tokio::test(flavor = "multi_thread")]
async fn to_a_confidential_vm_a_key_is_released_by_way_of_its_virtual_tpm() {
    let Some(tpm) = confidential_vm() else { return };
    let amd = StandIn::start(None, |head, _| {
        let vcek = include_bytes!("../../../../vectors/evidence/snp/vcek_milan.der");
        let is_certificate =
            head.uri.path().starts_with("/vcek/v1/Milan/") && !head.uri.path().ends_with("crl");
        Some(if is_certificate { status(200, vcek.to_vec()) } else { status(404, "") })
    })
    .await;
    let setup = Setup::new().await;
    setup.azure.put("confonnx-root", "oct-HSM", &[0x5a; 32]);
    let source = || Source::from(Attester::Azure(azure::Device::find(tpm.root()).unwrap().unwrap()));
    let akv = setup.akv_with(None, source(), &amd.url);
    for _ in 0..2 {
        assert_eq!(bytes(akv.release(&name()).await.unwrap()), [0x5a; 32]);
    }
    let failure = async |akv: &Akv| akv.release(&name()).await.unwrap_err().to_string();
    let error = failure(&setup.akv(None, source())).await;
    assert!(error.contains("VCEK") && error.contains("--collateral-url-amd"), "{error}");
    setup.azure.deny(true);
    let error = failure(&akv).await;
    assert!(error.contains("Forbidden"), "{error}");
    setup.azure.deny(false);
    setup.azure.wrap_to_another(true);
    let error = failure(&akv).await;
    assert!(error.contains("this machine does not open"), "{error}");
    setup.azure.wrap_to_another(false);
    for answer in ["{}", r#"{"token":"a.b.c"}"#] {
        setup.azure.fail(Some(("/attest", 200, answer)));
        let error = failure(&akv).await;
        assert!(error.contains("attestation service: the answer has no usable token"), "{error}");
    }
}
