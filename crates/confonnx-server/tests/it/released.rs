//! Servers whose keys come from a Key Broker Service, against a stand-in ([`crate::trustee`]).

use confonnx_attest::{AcceptedKeyService, Document, Expectations, Nonce, Policy, Trusted};
use confonnx_client::{Client, Options};
use confonnx_protocol::{Kem, KeyConfig, client::SealingKey};
use confonnx_server::{clock, config::KeyProviderName};

use crate::{
    harness::{ATTESTATION, Answer, Running, SEALED, config, head, seal, start_with, until},
    kbs::Authority,
    protected::predict,
    trustee::Trustee,
};

const NAME: &str = "default/confonnx/root";

struct Setup {
    trustee: Trustee,
    authority: Authority,
}

impl Setup {
    async fn new() -> Self {
        let trustee = Trustee::start().await;
        trustee.put(NAME, &[0x5a; 32]);
        Self { trustee, authority: Authority::new("plain") }
    }

    fn config(&self, rollover: u64) -> confonnx_server::config::Config {
        config("mlp", |settings| {
            settings.key_provider = Some(KeyProviderName::Kbs);
            settings.kbs_url = Some(self.trustee.url.clone());
            settings.kbs_resource = Some(NAME.into());
            settings.kbs_ca_file = Some(self.authority.file());
            settings.key_rollover_interval = Some(rollover);
            settings.key_grace = Some(1);
            settings.key_sync_interval = Some(1);
            settings.key_error_retry_interval = Some(1);
        })
    }

    async fn start(&self, rollover: u64) -> Running {
        start_with(self.config(rollover)).await
    }

    fn policy(&self) -> Policy {
        let service = AcceptedKeyService {
            url: self.trustee.url.clone(),
            roots_sha256: self.authority.digest(),
            name: Some(NAME.into()),
        };
        let key_services = vec![service];
        let mut expected = Expectations::new().allow_debug(true);
        expected.key_services = key_services;
        Policy::new(expected).unwrap()
    }

    fn client(&self, server: &Running) -> Client {
        Client::new(&server.url(), self.policy(), Options::default()).unwrap()
    }

    async fn attest(&self, server: &Running) -> Trusted {
        let mut nonce = Nonce([0; 32]);
        getrandom::fill(&mut nonce.0).unwrap();
        let (status, document) = server.get(&format!("{ATTESTATION}?nonce={nonce}")).await;
        assert_eq!(status, 200);
        let genuine = Document::parse(&document).unwrap().verify(Some(&nonce), clock::now()).unwrap();
        genuine.appraise(&self.policy(), clock::now()).unwrap()
    }
}

fn current(trusted: &Trusted) -> KeyConfig {
    KeyConfig::parse_list(trusted.key_configs())
        .unwrap()
        .into_iter()
        .find(|it| it.kem() == Kem::X25519)
        .unwrap()
}

#[tokio::test]
async fn servers_with_the_same_secret_have_the_same_keys() {
    let setup = Setup::new().await;
    let (one, two) = (setup.start(100_000).await, setup.start(100_000).await);
    let trusted = setup.attest(&one).await;
    assert_eq!(trusted.key_configs(), setup.attest(&two).await.key_configs());
    let source = &trusted.claims().key_source;
    assert_eq!((source.kind.as_str(), source.service.as_ref().unwrap().name.as_str()), ("kbs", NAME));
    // A request sealed for a key that one server attested is answered by the other.
    let key = SealingKey::new(current(&trusted), &trusted).unwrap();
    let (sealed, opener) = seal(&key, &head("GET", "/v2/models/mlp"), b"");
    assert_eq!(Answer::open(two.post(SEALED, sealed).await, opener).json()["name"], "mlp");
    predict(&setup.client(&two)).await.unwrap();

    setup.trustee.put(NAME, &[0xa5; 32]);
    let other = setup.attest(&setup.start(100_000).await).await;
    assert_ne!(other.key_configs(), trusted.key_configs());
}

#[tokio::test]
async fn a_client_has_to_name_the_service() {
    let setup = Setup::new().await;
    let server = setup.start(100_000).await;
    let error = predict(&server.client(Options::default())).await.unwrap_err();
    assert!(error.to_string().contains("key source"), "{error}");
}

#[tokio::test]
async fn keys_outlast_an_outage_and_end_with_a_refusal() {
    let setup = Setup::new().await;
    let server = setup.start(2).await;
    let there = || !server.keys.published().claims.keys.is_empty();
    let first = setup.attest(&server).await.key_configs().to_vec();
    until(|| server.keys.published().configs != first).await;
    predict(&setup.client(&server)).await.unwrap();
    // While the service refuses, the server keeps its keys until they end, and makes no others.
    setup.trustee.deny_secrets(true);
    until(|| server.keys.trouble().is_some()).await;
    assert!(server.keys.trouble().unwrap().contains("PolicyDeny"));
    until(|| !there()).await;
    assert_eq!(server.get(ATTESTATION).await.0, 503);
    setup.trustee.deny_secrets(false);
    until(there).await;
    predict(&setup.client(&server)).await.unwrap();
}

#[tokio::test]
async fn without_a_usable_secret_a_server_is_alive_and_asks_again() {
    let setup = Setup::new().await;
    let start = async || {
        let mut config = setup.config(100_000);
        config.keys.error_retry = std::time::Duration::from_millis(50);
        let server = start_with(config).await;
        assert_eq!((server.get("/").await.0, server.get(ATTESTATION).await.0), (200, 503));
        let trouble = server.app.trouble().expect("it is ready");
        assert!(trouble.starts_with("no keys: "), "{trouble}");
        (server, trouble)
    };
    setup.trustee.put(NAME, &[0x5a; 31]);
    let (_, error) = start().await;
    assert!(error.contains("32 bytes or more, found 31") && error.contains("openssl rand"), "{error}");
    setup.trustee.deny_secrets(true);
    let (server, error) = start().await;
    assert!(error.contains("PolicyDeny") && error.contains("resource policy"), "{error}");
    setup.trustee.put(NAME, &[0x5a; 32]);
    setup.trustee.deny_secrets(false);
    until(|| server.keys.are_there()).await;
    assert!(server.app.trouble().is_none());
    predict(&setup.client(&server)).await.unwrap();
}
