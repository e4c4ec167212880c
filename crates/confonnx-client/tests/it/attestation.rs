use confonnx_client::{Client, ClientError, Digest, Expectations, Kem, Options, Policy};

use crate::fake::{AttestationFault, Fake};
use crate::{client, client_with, echo};

#[tokio::test]
async fn nothing_is_sent_before_the_first_call_and_the_proof_is_fresh() {
    let server = Fake::start().await;
    let client = client(&server);
    assert_eq!(server.attestations(), 0);
    let trusted = client.attest().await.unwrap();
    assert_eq!(trusted.claims().models[0].name, "echo");
    assert_eq!((server.attestations(), server.received()), (1, 0));
}

#[tokio::test]
async fn nothing_is_sealed_to_a_server_that_is_not_trusted() {
    for (fault, check) in
        [(AttestationFault::OtherNonce, "nonce"), (AttestationFault::OtherKeys, "report data")]
    {
        let server = Fake::start().await;
        server.state().attestation = Some(fault);
        let err = echo(&client(&server)).await.unwrap_err();
        assert!(matches!(err, ClientError::NotGenuine(_)), "{err}");
        assert_eq!(err.verdict().unwrap().failed().map(|check| check.name).collect::<Vec<_>>(), [check]);
        assert_eq!(server.received(), 0);
    }
}

#[tokio::test]
async fn nothing_is_sealed_to_another_program_or_model() {
    let server = Fake::start().await;
    for expected in [
        Expectations::new().allow_debug(true).enclave_hash(Digest([0; 32]).into()),
        Expectations::new().allow_debug(true).model_hash(Digest([0; 32]).into()),
    ] {
        let client = Client::new(&server.url(), Policy::new(expected).unwrap(), Options::default()).unwrap();
        let err = echo(&client).await.unwrap_err();
        assert!(matches!(err, ClientError::NotTrusted(_)), "{err}");
    }
    assert_eq!(server.received(), 0);
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_not() {
    for (fault, reason) in [
        (AttestationFault::KeysUnclaimed, "the claims do not say how long"),
        (AttestationFault::Expired, "compare this machine's clock"),
    ] {
        let server = Fake::start().await;
        server.state().attestation = Some(fault);
        let err = echo(&client(&server)).await.unwrap_err();
        assert!(matches!(&err, ClientError::NoKey { reason: found } if found.contains(reason)), "{err}");
        assert_eq!(server.received(), 0);
    }
}

#[tokio::test]
async fn answers_that_are_no_document_are_typed_errors() {
    let server = Fake::start().await;
    let client = client(&server);
    let answer = |fault| server.state().attestation = Some(fault);

    answer(AttestationFault::Answer(200, "text/html", "<html>"));
    let err = client.attest().await.unwrap_err();
    assert!(
        matches!(&err, ClientError::Unsealed { status: 200, found, .. } if found == "text/html"),
        "{err}"
    );
    answer(AttestationFault::Answer(
        503,
        "application/problem+json",
        r#"{"code": "attestation-unavailable"}"#,
    ));
    let err = client.attest().await.unwrap_err();
    assert!(
        matches!(&err, ClientError::Refused { status: 503, code, .. } if code == "attestation-unavailable"),
        "{err}"
    );
    answer(AttestationFault::Answer(200, "application/json", "{}"));
    let err = client.attest().await.unwrap_err();
    assert!(matches!(err, ClientError::Document(_)), "{err}");
    answer(AttestationFault::Long);
    let err = client.attest().await.unwrap_err();
    assert!(matches!(err, ClientError::TooLarge { .. }), "{err}");
}

#[tokio::test]
async fn every_kem_works() {
    let server = Fake::start().await;
    for kem in Kem::ALL {
        let mut options = Options::default();
        options.kem = kem;
        echo(&client_with(&server, options)).await.unwrap();
    }
}

#[test]
fn unusable_urls_are_refused_at_once() {
    for url in ["", "host:8888", "ftp://host", "http://host/?x=1", "http://user:secret@host"] {
        let expected = Expectations::new().allow_debug(true);
        let err = Client::new(url, Policy::new(expected).unwrap(), Options::default()).unwrap_err();
        assert!(matches!(err, ClientError::Url { .. }), "{url}: {err}");
        assert!(!err.to_string().contains("secret"), "{err}");
    }
}
