use std::{fs, path::Path};

use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::*;

/// A TLS server with a certificate of its own, on this machine: an issuer's, as far as keys go.
struct Issuer {
    url: String,
    pem: String,
    keys: Arc<Mutex<Vec<u8>>>,
    asked: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

fn set(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/jwt");
    fs::read(folder.join(name).with_extension("json")).unwrap()
}

impl Issuer {
    async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let tls = rustls::ServerConfig::builder_with_provider(provider.into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
        let (keys, asked) = (Arc::new(Mutex::new(set("keys"))), Arc::new(Mutex::new(0)));
        let (given, count) = (Arc::clone(&keys), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(tls));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                *count.lock().unwrap() += 1;
                let body = given.lock().unwrap().clone();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { url, pem: made.cert.pem(), keys, asked, task }
    }

    fn remote(&self, roots: &str, metrics: &Arc<Metrics>) -> Remote {
        let (refresh, max_age) = (Duration::from_secs(3600), Duration::from_secs(7200));
        Remote::new(&self.url, roots.as_bytes(), refresh, max_age, Arc::clone(metrics)).unwrap()
    }
}

async fn until(mut condition: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(60), async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it never happened");
}

fn ids(keys: &Remote, now: Instant) -> Vec<String> {
    keys.current(now).unwrap().keys().iter().filter_map(|key| key.id.clone()).collect()
}

#[tokio::test]
async fn rotated_keys_are_fetched_when_missed_and_old_ones_outlive_an_outage() {
    let (issuer, metrics) = (Issuer::start().await, Arc::<Metrics>::default());
    let mut remote = issuer.remote(&issuer.pem, &metrics);
    remote.pause = Duration::ZERO;
    let remote = Arc::new(remote);
    let now = Instant::now();
    assert!(matches!(remote.current(now), Err(Refused::Unavailable { .. })), "nothing was fetched yet");
    let running = tokio::spawn(Arc::clone(&remote).run());
    until(|| remote.current(now).is_ok()).await;
    assert!(ids(&remote, now).contains(&"rsa".to_owned()));

    *issuer.keys.lock().unwrap() = set("keys-rotated");
    let keys = Keys::Remote(Arc::clone(&remote));
    let miss = || keys.miss(Instant::now());
    let refused = miss().unwrap();
    assert_eq!((refused.wire(), refused.retry_after()), ((503, "auth-unavailable"), Some(1)));
    until(|| ids(&remote, Instant::now()) == ["rsa-new", "p256"]).await;
    assert_eq!(*issuer.asked.lock().unwrap(), 2);

    // The issuer gives no set, and then there is no issuer at all: the last good keys stay until they are too old.
    *issuer.keys.lock().unwrap() = b"{\"keys\": []}".to_vec();
    miss();
    until(|| metrics.auth.keys().unwrap().failures == 1).await;
    issuer.task.abort();
    until(|| issuer.task.is_finished()).await;
    until(|| {
        miss();
        metrics.auth.keys().unwrap().failures >= 2
    })
    .await;
    assert_eq!(metrics.auth.keys().unwrap().keys, 2);
    let fetched = remote.state().keys.as_ref().unwrap().1;
    assert_eq!(ids(&remote, fetched + Duration::from_secs(7200)), ["rsa-new", "p256"]);
    let late = remote.current(fetched + Duration::from_secs(7201));
    assert!(matches!(late, Err(Refused::Unavailable { .. })), "too old");
    running.abort();
}

#[tokio::test]
async fn callers_cause_no_more_than_one_fetch_in_a_while() {
    let (issuer, metrics) = (Issuer::start().await, Arc::<Metrics>::default());
    let remote = issuer.remote(&issuer.pem, &metrics);
    let now = Instant::now();
    remote.state().asked = Some(now);
    let keys = Keys::Remote(Arc::new(remote));
    let miss = |seconds| keys.miss(now + Duration::from_secs(seconds)).map(|refused| refused.wire().0);
    let unavailable = Some(503);
    let found = [miss(0), miss(29), miss(30), miss(31), miss(59), miss(60)];
    assert_eq!(found, [None, None, unavailable, None, None, unavailable]);
    let Err(JwksError::Roots) = Remote::new("https://x", b"", Duration::ZERO, Duration::ZERO, metrics) else {
        panic!("no authority at all");
    };
}

#[tokio::test]
async fn whoever_is_certified_by_another_authority_is_not_the_issuer() {
    let (issuer, other, metrics) = (Issuer::start().await, Issuer::start().await, Arc::<Metrics>::default());
    let remote = Arc::new(issuer.remote(&other.pem, &metrics));
    let running = tokio::spawn(Arc::clone(&remote).run());
    until(|| metrics.auth.keys().is_some_and(|state| state.failures > 0)).await;
    assert!(remote.current(Instant::now()).is_err());
    assert_eq!(*issuer.asked.lock().unwrap(), 0);
    running.abort();
}

#[test]
fn sets_that_are_none() {
    for (json, expected) in [
        ("", "not a JWK Set"),
        ("{}", "not a JWK Set"),
        ("{\"keys\": []}", "of its 0 keys none"),
        ("{\"keys\": [1, {\"kty\": \"oct\", \"k\": \"AAAA\"}]}", "of its 2 keys none"),
        ("{\"keys\": [{\"kty\": \"RSA\", \"n\": \"?\", \"e\": \"AQAB\"}]}", "of its 1 keys none"),
    ] {
        let error = KeySet::parse(json.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let many = format!("{{\"keys\": [{}1]}}", "1,".repeat(64));
    assert!(KeySet::parse(many.as_bytes()).unwrap_err().to_string().contains("65 keys"));
    // The set has neither the secret key, nor the key for encryption, nor the one on a curve that nobody asked for.
    let ids: Vec<_> = KeySet::parse(&set("keys")).unwrap().0.into_iter().filter_map(|key| key.id).collect();
    assert_eq!(ids, ["rsa", "rsa-only-512", "rsa-weak", "p256", "p384", "ed25519"]);
}
