//! A server on a port of its own, and a client that sees every byte.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use confonnx_attest::{Digest, Document, Expectations, Nonce, Policy, Trusted, UnixTime, produce::Attester};
use confonnx_engine::{BoxLimits, Boxes, Engine, Library, ModelOptions, Runtime};
use confonnx_protocol::{
    Aead, EpochSecret, Kem, KeyConfig, Plaintext,
    bhttp::{self, RequestHead, ResponseHead},
    client::{ReplyOpener, SealingKey},
    padding,
    server::Epoch,
};
use confonnx_server::{
    clock,
    config::{Config, Settings},
    evidence::Source,
    http::App,
    keys::Keys,
    server::{Parts, Server},
};
use getrandom::{SysRng, rand_core::UnwrapErr};
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::watch, task::JoinHandle};

pub(crate) const GATEWAY: &str = "/.well-known/ohttp-gateway";
pub(crate) const ATTESTATION: &str = "/.well-known/confonnx/attestation";
pub(crate) const SEALED: &str = "message/ohttp-req";

/// How long a test waits for what has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) admin: Option<SocketAddr>,
    pub(crate) app: Arc<App>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: Mutex<Option<JoinHandle<()>>>,
}

pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../confonnx-engine/tests/data").join(format!("{name}.onnx"))
}

/// The library under test: `CONFONNX_ORT_LIB`, else where `scripts/fetch-onnxruntime` puts it.
pub(crate) fn library() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = std::env::var_os("CONFONNX_ORT_LIB")
        .map_or_else(|| workspace.join(".cache/onnxruntime/libonnxruntime.so.1.31.1"), PathBuf::from);
    assert!(
        path.is_file(),
        "no ONNX Runtime at {}: run scripts/fetch-onnxruntime or set CONFONNX_ORT_LIB",
        path.display()
    );
    path
}

/// The engine of all tests: models run in processes of the program under test.
pub(crate) fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    // An example has no built program at hand, and takes the one that was built before.
    let built = || std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("confonnx-server");
    let program = || option_env!("CARGO_BIN_EXE_confonnx-server").map_or_else(built, PathBuf::from);
    let limits = BoxLimits { memory: 0, answer: 1 << 30 };
    let boxes = || Boxes::new(program(), Library::read(&library()).unwrap(), limits).unwrap();
    ENGINE.get_or_init(|| Engine::Isolated(boxes()))
}

/// The engine that runs models in this process, which can load the library once.
pub(crate) fn engine_in_process() -> &'static Engine {
    static HERE: OnceLock<Engine> = OnceLock::new();
    HERE.get_or_init(|| Engine::InProcess(Runtime::load(&library()).unwrap()))
}

/// Of a model that is loaded without a server: one session of one thread.
pub(crate) fn one_session() -> ModelOptions {
    ModelOptions {
        sessions: 1,
        threads_per_session: Some(1),
        external_data: Vec::new(),
        encoder: None,
        batch: None,
        free_width: false,
    }
}

/// Settings for the model `name`, further changed by `change`.
pub(crate) fn config(name: &str, change: impl FnOnce(&mut Settings)) -> Config {
    let mut settings = Settings {
        model_path: Some(model(name)),
        address: Some([127, 0, 0, 1].into()),
        http_port: Some(0),
        admin_port: Some(0),
        debug: Some(true),
        num_sessions: Some(1),
        threads_per_session: Some(1),
        replay_capacity: Some(10_000),
        // All clients of a test have one address, so one address may have everything.
        max_peer_percent: Some(100),
        ..Settings::default()
    };
    change(&mut settings);
    Config::resolve(settings).unwrap()
}

pub(crate) async fn start(name: &str) -> Running {
    start_with(config(name, |_| {})).await
}

pub(crate) async fn start_with(config: Config) -> Running {
    start_from(config, Attester::insecure(Digest([7; 32]))).await
}

pub(crate) async fn start_from(config: Config, source: impl Into<Source>) -> Running {
    start_by(config, source, engine()).await
}

/// As [`start_from`], with models run by `engine`.
pub(crate) async fn start_by(config: Config, source: impl Into<Source>, engine: &Engine) -> Running {
    let parts = Parts::load(&config, source, engine).unwrap();
    let server = Server::assemble(config, parts).await.unwrap();
    let (stop, stopping) = watch::channel(false);
    Running {
        address: server.address(),
        admin: server.admin_address(),
        app: server.app(),
        keys: server.keys(),
        stop,
        task: Mutex::new(Some(tokio::spawn(server.run(stopping)))),
    }
}

impl Running {
    pub(crate) async fn attest(&self) -> Trusted {
        let mut nonce = Nonce([0; 32]);
        getrandom::fill(&mut nonce.0).unwrap();
        let (status, body) = self.get(&format!("{ATTESTATION}?nonce={nonce}")).await;
        assert_eq!(status, 200);
        trust(&body, Some(&nonce)).unwrap()
    }

    /// The server's key for `kem`, attested.
    pub(crate) async fn key(&self, kem: Kem) -> SealingKey {
        let trusted = self.attest().await;
        let configs = KeyConfig::parse_list(trusted.key_configs()).unwrap();
        SealingKey::new(configs.into_iter().find(|config| config.kem() == kem).unwrap(), &trusted).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Bytes) {
        let response = self.send(Request::get(path), Bytes::new()).await;
        (response.status().as_u16(), response.into_body())
    }

    pub(crate) async fn post(&self, content_type: &str, body: impl Into<Bytes>) -> Response<Bytes> {
        self.send(Request::post(GATEWAY).header("content-type", content_type), body.into()).await
    }

    /// One request over a connection of its own.
    pub(crate) async fn send(&self, request: hyper::http::request::Builder, body: Bytes) -> Response<Bytes> {
        send_over(TcpStream::connect(self.address).await.unwrap(), request, body).await
    }

    /// As [`Self::send`], over HTTP/2 without TLS.
    pub(crate) async fn send_h2(
        &self,
        request: hyper::http::request::Builder,
        body: Bytes,
    ) -> Response<Bytes> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        whole(sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap()).await
    }

    /// Seals `head` and `body`, posts them, and opens the reply.
    pub(crate) async fn ask(&self, head: &RequestHead, body: &[u8]) -> Answer {
        loop {
            let key = self.key(Kem::X25519).await;
            let (sealed, opener) = seal(&key, head, body);
            let response = self.post(SEALED, sealed).await;
            // Models, and with them keys, may change between attestation and request.
            if response.status() != 400 || code(&response) != "key-unknown" {
                return Answer::open(response, opener);
            }
        }
    }

    /// Begins the next key epoch, before its time.
    pub(crate) fn begin_epoch(&self) {
        let (ring, now) = (self.keys.ring(), clock::now());
        let number = ring.newest().unwrap().number + 1;
        let secret = EpochSecret::generate(&mut rng());
        let epoch = Epoch { number, secret, not_before: now, not_after: UnixTime(now.0 + 3600) };
        ring.install(epoch, now).unwrap();
    }

    /// Waits until the server has stopped.
    pub(crate) async fn stopped(&self) {
        let task = self.task.lock().unwrap().take().unwrap();
        tokio::time::timeout(PATIENCE, task).await.expect("it never stopped").unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn client(&self, options: confonnx_client::Options) -> confonnx_client::Client {
        confonnx_client::Client::new(&self.url(), policy(), options).unwrap()
    }
}

/// One request over `stream`.
pub(crate) async fn send_over(
    stream: TcpStream,
    request: hyper::http::request::Builder,
    body: Bytes,
) -> Response<Bytes> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = request.header("host", "server").body(Full::new(body)).unwrap();
    whole(sender.send_request(request).await.unwrap()).await
}

pub(crate) async fn whole(response: Response<Incoming>) -> Response<Bytes> {
    let (head, body) = response.into_parts();
    Response::from_parts(head, body.collect().await.unwrap().to_bytes())
}

pub(crate) fn policy() -> Policy {
    Policy::new(Expectations::new().allow_debug(true)).unwrap()
}

pub(crate) fn trust(document: &[u8], nonce: Option<&Nonce>) -> Result<Trusted, Box<dyn std::error::Error>> {
    let max_age = nonce.is_none().then_some(Duration::from_secs(120));
    let mut expected = Expectations::new().allow_debug(true);
    expected.max_age = max_age;
    let policy = Policy::new(expected)?;
    Ok(Document::parse(document)?.verify(nonce, clock::now())?.appraise(&policy, clock::now())?)
}

/// The head of a request for `method` and `path`, with the date that is needed.
pub(crate) fn head(method: &str, path: &str) -> RequestHead {
    let mut head = RequestHead::new(method, path);
    head.fields.push("date", httpdate::fmt_http_date(SystemTime::now()));
    head
}

pub(crate) fn message(head: &RequestHead, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    bhttp::encode_request(head, &[body], &mut message).unwrap();
    padding::pad(&mut message);
    message
}

pub(crate) fn seal(key: &SealingKey, head: &RequestHead, body: &[u8]) -> (Vec<u8>, ReplyOpener) {
    key.seal(Aead::Aes256Gcm, &message(head, body), &mut rng()).unwrap()
}

pub(crate) fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// The `code` of a problem document, which is checked for its form.
pub(crate) fn code(response: &Response<Bytes>) -> String {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(body["status"], response.status().as_u16());
    assert!(body["title"].is_string() && body["type"].is_string());
    assert_eq!(body.as_object().unwrap().len(), 4, "nothing else");
    body["code"].as_str().unwrap().to_owned()
}

/// An opened reply.
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn open(response: Response<Bytes>, opener: ReplyOpener) -> Self {
        assert_eq!(response.status(), 200, "{:?}", response.body());
        assert_eq!(response.headers()["content-type"], "message/ohttp-res");
        Self::parse(&opener.open(response.into_body().to_vec()).unwrap())
    }

    pub(crate) fn parse(message: &Plaintext) -> Self {
        assert_eq!(message.len(), padding::padded_len(message.len()), "answers are padded");
        let (head, body) = bhttp::decode_response(message.expose()).unwrap();
        let body = body.bytes(message.expose()).to_vec();
        Self { head, body }
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        std::str::from_utf8(self.head.fields.get(name).unwrap_or_default()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Status and code of an answer that is an error.
    pub(crate) fn error(&self) -> (u16, String) {
        (self.head.status, self.json()["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// The body of a request that counts to `n` on the server before it is answered.
pub(crate) fn count_to(n: i64) -> String {
    format!(r#"{{"inputs": [{{"name": "n", "shape": [], "datatype": "INT64", "data": [{n}]}}]}}"#)
}

/// A number to which counting takes seconds.
pub(crate) const LONG: i64 = 1_000_000;

/// Waits until `condition` holds.
pub(crate) async fn until(mut condition: impl FnMut() -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it never happened");
}
