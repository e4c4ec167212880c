//! What a sealed request costs besides inference: each part measured by itself.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use bytes::Bytes;
use confonnx_attest::{
    Claims, Digest, Document, Expectations, Nonce, Policy, Trusted, UnixTime, merkle::Tree,
    produce::Attester, report_data,
};
use confonnx_protocol::{
    Aead, EpochSecret, Kem, KeyConfig,
    bhttp::{self, ResponseHead},
    client::SealingKey,
    oip::{HEADER_LENGTH, InferResponse},
    padding,
    server::{Epoch, KeyRing, RingConfig},
};
use confonnx_server::{config::Config, keys::DATE_WINDOW};
use getrandom::{SysRng, rand_core::UnwrapErr};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::runtime::{Builder, Runtime};

use crate::{inputs::Bare, load::micros, sealed::message, stats::median};

/// Both ends of the cryptography, in this process, and connections to the server.
pub(crate) struct Probes {
    crypto: Crypto,
    http: Http,
}

/// Medians of one round's measurements, in µs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// Time to seal an empty request: encapsulation and key schedule.
    pub(crate) encapsulate: f64,
    /// Time to open an empty request: decapsulation, key schedule, replay table.
    pub(crate) decapsulate: f64,
    /// How much longer sealing and opening take with the real request and the real reply.
    pub(crate) aead: f64,
    /// Time of a keep-alive round trip that does next to nothing.
    pub(crate) http: f64,
}

/// How long the padded messages are that are sealed, in bytes: request, reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) request: usize,
    pub(crate) reply: usize,
}

impl Probes {
    /// Probes for the request of `bare`, which the server at `url` serves as `config` says.
    pub(crate) fn new(config: &Config, url: &str, bare: &Bare) -> anyhow::Result<Self> {
        Ok(Self { crypto: Crypto::new(config, bare)?, http: Http::new(url)? })
    }

    /// Measures for `length`, half of the time HTTP.
    pub(crate) fn round(&self, length: Duration) -> anyhow::Result<Cost> {
        let http = repeat(length / 2, || self.http.round_trip())?;
        let exchanges = repeat(length / 2, || self.crypto.exchange())?;
        let of = |part: fn(&Exchange) -> f64| median(exchanges.iter().map(part));
        Ok(Cost {
            encapsulate: of(|exchange| exchange.seal_empty),
            decapsulate: of(|exchange| exchange.open_empty),
            aead: of(Exchange::aead),
            http: median(http),
        })
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes { request: self.crypto.request.len(), reply: self.crypto.reply.len() }
    }
}

fn repeat<T>(length: Duration, mut once: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<Vec<T>> {
    let start = Instant::now();
    let mut found = vec![once()?];
    while start.elapsed() < length {
        found.push(once()?);
    }
    Ok(found)
}

struct Crypto {
    ring: KeyRing,
    key: SealingKey,
    now: UnixTime,
    request: Vec<u8>,
    reply: Vec<u8>,
}

/// How long each step took, in µs.
struct Exchange {
    seal_empty: f64,
    open_empty: f64,
    seal: f64,
    open: f64,
    reply: f64,
}

impl Exchange {
    fn aead(&self) -> f64 {
        self.seal + self.open - self.seal_empty - self.open_empty + self.reply
    }
}

impl Crypto {
    fn new(config: &Config, bare: &Bare) -> anyhow::Result<Self> {
        let now = UnixTime(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs());
        let ring = RingConfig {
            grace: config.keys.grace,
            date_window: DATE_WINDOW,
            replay_capacity: config.replay_capacity,
            resumption: config.resumption,
        };
        let ring = KeyRing::new(ring, [0; 32], now)?;
        let not_after = UnixTime(now.0.saturating_add(config.keys.rollover.as_secs()));
        let secret = EpochSecret::generate(&mut rng());
        ring.install(Epoch { number: 0, secret, not_before: now, not_after }, now)?;
        let listed = ring.key_configs();
        let key = KeyConfig::parse_list(&listed)?.into_iter().find(|key| key.kem() == Kem::XWing);
        let key = SealingKey::new(key.context("no X-Wing key")?, &trusted(&listed, now)?)?;
        let path = format!("/v2/models/{}/infer", config.models.name());
        let request = message(&path, bare, 0, false)?.message().to_vec();
        Ok(Self { ring, key, now, request, reply: reply(config, bare)? })
    }

    fn exchange(&self) -> anyhow::Result<Exchange> {
        let (seal_empty, open_empty, _) = self.there(b"")?;
        let (seal, open, (opener, reply)) = self.there(&self.request)?;
        let start = Instant::now();
        let sealed = reply.seal(&self.reply, &mut rng())?;
        let opened = opener.open(sealed)?;
        let time = start.elapsed();
        ensure!(opened.expose() == self.reply, "the reply changed on its way");
        Ok(Exchange { seal_empty, open_empty, seal, open, reply: micros(&time) })
    }

    /// Seals `message`, then opens it as the server does.
    fn there(&self, message: &[u8]) -> anyhow::Result<(f64, f64, Ends)> {
        let start = Instant::now();
        let (sealed, opener) = self.key.seal(Aead::Aes256Gcm, message, &mut rng())?;
        let between = Instant::now();
        let (opened, reply) = self.ring.open(sealed, self.now)?;
        let end = Instant::now();
        ensure!(opened.plaintext.expose() == message, "the request changed on its way");
        Ok((micros(&(between - start)), micros(&(end - between)), (opener, reply)))
    }
}

type Ends = (confonnx_protocol::client::ReplyOpener, confonnx_protocol::server::Reply);

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// An attestation of these keys, made here and trusted here.
fn trusted(key_configs: &[u8], now: UnixTime) -> anyhow::Result<Trusted> {
    let nonce = Nonce([0; 32]);
    let tree = Tree::new(vec![nonce]).context("a tree of one nonce")?;
    let claims = Claims::example(now).to_bytes();
    let bound = report_data(&tree.root(), key_configs, &claims);
    let evidence = Attester::insecure(Digest([0; 32])).evidence(&bound)?;
    let document = Document::new(key_configs.to_vec(), claims, evidence, tree.root(), tree.proof(0));
    let policy = Policy::new(Expectations::new().allow_debug(true))?;
    Ok(document.verify(Some(&nonce), now)?.appraise(&policy, now)?)
}

/// The message that the server seals.
fn reply(config: &Config, bare: &Bare) -> anyhow::Result<Vec<u8>> {
    let response = InferResponse {
        model_name: config.models.name().into(),
        model_version: Some("1".into()),
        id: None,
        outputs: bare.outputs.clone(),
    };
    let encoded = response.encode(|_| true)?;
    let mut head = ResponseHead::new(200);
    head.fields.push("content-type", encoded.content_type());
    if let Some(len) = encoded.json_len() {
        head.fields.push(HEADER_LENGTH, len.to_string());
    }
    let mut message = Vec::new();
    bhttp::encode_response(&head, &encoded.parts(), &mut message)?;
    padding::pad(&mut message);
    Ok(message)
}

/// The HTTP stack of `confonnx-client`, without what that puts in and takes out.
struct Http {
    runtime: Runtime,
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: http::Uri,
}

impl Http {
    fn new(url: &str) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(tcp);
        Ok(Self { runtime, client, uri: format!("{url}/").parse()? })
    }

    /// How long a `GET /` takes, in µs.
    fn round_trip(&self) -> anyhow::Result<f64> {
        let start = Instant::now();
        let (status, body) = self.runtime.block_on(async {
            let response = self.client.get(self.uri.clone()).await?;
            let status = response.status();
            anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
        })?;
        let time = start.elapsed();
        ensure!(status == 200 && !body.is_empty(), "GET / was answered with {status}; expected 200");
        Ok(micros(&time))
    }
}
