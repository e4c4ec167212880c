//! Two clients of confonnx: one as light as those that peers get, and the published one.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use confonnx_client::{Client, Expectations, Options, Policy};
use confonnx_protocol::{
    Aead, Draft, Kem, KeyConfig,
    bhttp::{self, RequestHead},
    client::SealingKey,
    oip::{HEADER_LENGTH, InferRequest, InferResponse},
    resumption::{RESUMPTION_FIELD, RESUMPTION_OFFER, Resumption},
};
use confonnx_tensor::Tensor;
use getrandom::{SysRng, rand_core::UnwrapErr};
use tokio::runtime::{Builder, Runtime};

use crate::{
    http::{Connection, post},
    inputs::{Bare, Tensors, same},
};

/// A key of a server, which was attested.
pub(crate) struct Sealer {
    key: SealingKey,
    path: String,
    resumes: bool,
}

/// One client: its connection, and the resumption that its first request began.
pub(crate) struct SealedClient {
    connection: Connection,
    resumption: Option<Resumption>,
}

impl Sealer {
    /// Attests the server at `url`, and takes its key of `kem`, for requests to `model`.
    pub(crate) fn new(url: &str, model: &str, kem: Kem) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let proof = runtime.block_on(Client::new(url, policy()?, Options::default())?.attest())?;
        let key = KeyConfig::parse_list(proof.key_configs())?.into_iter().find(|key| key.kem() == kem);
        let key = SealingKey::new(key.with_context(|| format!("no {kem} key"))?, &proof)?;
        Ok(Self { key, path: format!("/v2/models/{model}/infer"), resumes: false })
    }

    /// Makes clients offer a resumption with their first request and use it from then on.
    pub(crate) fn resuming(self) -> Self {
        Self { resumes: true, ..self }
    }

    pub(crate) fn open(address: SocketAddr) -> anyhow::Result<SealedClient> {
        Ok(SealedClient { connection: Connection::open(address)?, resumption: None })
    }

    /// Writes, seals, sends, opens and reads one request: by the client's resumption, or else to the server's key.
    pub(crate) fn ask(&self, client: &mut SealedClient, bare: &Bare) -> anyhow::Result<Duration> {
        let (start, mut rng) = (Instant::now(), UnwrapErr(SysRng));
        let SealedClient { connection, resumption } = client;
        let (request, opener, media, offer) = match resumption {
            Some(resumption) => {
                let (request, opener) =
                    resumption.seal(message(&self.path, bare, Resumption::ROOM, false)?, &mut rng)?;
                (request, opener, "message/confonnx-session-req", None)
            }
            None => {
                let message = message(&self.path, bare, self.key.room(), self.resumes)?;
                let (request, opener, offer) = if self.resumes {
                    let (request, opener, offer) =
                        self.key.seal_offering(Aead::Aes256Gcm, message, &mut rng)?;
                    (request, opener, Some(offer))
                } else {
                    let (request, opener) = self.key.seal(Aead::Aes256Gcm, message, &mut rng)?;
                    (request, opener, None)
                };
                (request, opener, "message/ohttp-req", offer)
            }
        };
        let head = post("/.well-known/ohttp-gateway", &[("content-type", media)], request.len());
        let answer = connection.exchange(&[&head, &request])?;
        ensure!(answer.status == 200, "status {}: {}", answer.status, String::from_utf8_lossy(answer.body));
        let reply = opener.open(answer.body.to_vec())?;
        let (head, body) = bhttp::decode_response(reply.expose())?;
        let body = body.bytes(reply.expose());
        ensure!(head.status == 200, "sealed status {}: {}", head.status, String::from_utf8_lossy(body));
        let field = |name| head.fields.get(name).and_then(|value| std::str::from_utf8(value).ok());
        let json_len = field(HEADER_LENGTH).and_then(|len| len.parse().ok());
        let response = InferResponse::decode(body, json_len)?;
        let time = start.elapsed();
        if let Some(offer) = offer {
            let grant = field(RESUMPTION_FIELD).context("the server granted no resumption")?;
            *resumption = Some(offer.accept(&grant.parse()?));
        }
        same(&bare.outputs, &response.outputs).context("the sealed answer differs from bare ONNX Runtime")?;
        Ok(time)
    }
}

impl SealedClient {
    /// Forgets the resumption, so that the next request is sealed to the key.
    pub(crate) fn forget(&mut self) {
        self.resumption = None;
    }
}

/// The message that `confonnx-client` seals: its tensors start at a multiple of eight bytes.
pub(crate) fn message(path: &str, bare: &Bare, room: usize, offers: bool) -> anyhow::Result<Draft> {
    let request = InferRequest { inputs: bare.borrowed(), binary_default: true, ..InferRequest::default() };
    let encoded = request.encode()?;
    let mut head = RequestHead::new("POST", path);
    head.fields.push("date", httpdate::fmt_http_date(SystemTime::now()));
    if offers {
        head.fields.push(RESUMPTION_FIELD, RESUMPTION_OFFER);
    }
    head.fields.push("content-type", encoded.content_type());
    let mut body = encoded.parts();
    if let Some(json_len) = encoded.json_len() {
        let mut unaligned = head.clone();
        unaligned.fields.push(HEADER_LENGTH, json_len.to_string());
        let len = body.iter().map(|part| part.len()).sum();
        let tensors = bhttp::request_body_offset(&unaligned, len) + json_len;
        let spaces = tensors.next_multiple_of(8) - tensors;
        head.fields.push(HEADER_LENGTH, (json_len + spaces).to_string());
        body.insert(1, &b"        "[..spaces]);
    }
    Ok(Draft::request(room, &head, &body)?)
}

/// The published client, with an event loop of its own on the calling thread.
pub(crate) struct Library {
    runtime: Runtime,
    client: Client,
}

impl Library {
    /// Attests the server at `url`.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = Client::new(url, policy()?, Options::default())?;
        runtime.block_on(client.attest())?;
        Ok(Self { runtime, client })
    }

    /// As [`Self::new`], with requests sealed in chunks as they are sent.
    pub(crate) fn chunked(url: &str) -> anyhow::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut options = Options::default();
        (options.chunked, options.timeout) = (true, PATIENCE);
        Ok(Self { runtime, client: Client::new(url, policy()?, options)? })
    }

    /// Asks for all outputs.
    pub(crate) fn infer(&self, model: &str, inputs: Vec<(String, Tensor<'_>)>) -> anyhow::Result<Tensors> {
        Ok(self.runtime.block_on(self.client.infer(Some(model), inputs, &[]))?)
    }

    pub(crate) fn ask(&self, model: &str, bare: &Bare) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let outputs = self.runtime.block_on(self.client.infer(Some(model), bare.borrowed(), &[]))?;
        let time = start.elapsed();
        same(&bare.outputs, &outputs).context("the sealed answer differs from bare ONNX Runtime")?;
        Ok(time)
    }
}

const PATIENCE: Duration = Duration::from_secs(300);

/// A policy that trusts the insecure TEE: there is no real one here.
fn policy() -> anyhow::Result<Policy> {
    Ok(Policy::new(Expectations::new().allow_debug(true))?)
}

/// Where the server at `url` listens.
pub(crate) fn address(url: &str) -> anyhow::Result<SocketAddr> {
    url.strip_prefix("http://")
        .and_then(|rest| rest.parse().ok())
        .with_context(|| format!("no address in {url}"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use confonnx_attest::{Tee, produce::Attester};
    use confonnx_server::{
        evidence::Source,
        models,
        server::{Parts, Server},
    };
    use tokio::sync::watch;

    use super::*;
    use crate::{server::config, target::Target};

    #[test]
    fn every_way_to_ask_gets_bare_onnx_runtimes_answer() {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let library = std::env::var_os("CONFONNX_ORT_LIB")
            .map_or_else(|| workspace.join(".cache/onnxruntime/libonnxruntime.so.1.31.1"), PathBuf::from);
        let model = workspace.join("examples/digits/digits.onnx");
        let config = config(&model).unwrap();
        let settings = config.clone();
        let runtime = confonnx_engine::Engine::InProcess(models::load_runtime(Some(&library)).unwrap());
        let bare = Bare::new(models::load(&config, &runtime).unwrap().model).unwrap();
        let attester = Attester::insecure(confonnx_attest::Digest([0; 32]));
        let evidence = Box::new(move |report_data: &[u8; 64]| attester.evidence(report_data));
        let source = Source { tee: Tee::Insecure, evidence, machine_key: None, interval: Duration::ZERO };
        let parts = Parts::load(&config, source, &runtime).unwrap();
        let serving = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server = serving.block_on(Server::assemble(config, parts)).unwrap();
        let address = server.address();
        let url = format!("http://{address}");
        let (_stop, stopping) = watch::channel(false);
        serving.spawn(server.run(stopping));

        let sealer = |kem| Sealer::new(&url, "digits", kem).unwrap();
        let sealed = |sealer| Target::Sealed { address, sealer: Box::new(sealer) };
        for target in [
            sealed(sealer(Kem::XWing)),
            sealed(sealer(Kem::X25519)),
            sealed(sealer(Kem::XWing).resuming()),
            Target::Library { url: url.clone(), model: "digits".into() },
            Target::Bare,
        ] {
            let mut worker = target.open().unwrap();
            for _ in 0..3 {
                target.ask(&mut worker, &bare).unwrap();
            }
        }

        // A resuming client's second request is sealed by the resumption that its first began.
        let mut client = Sealer::open(address).unwrap();
        sealer(Kem::XWing).resuming().ask(&mut client, &bare).unwrap();
        assert!(client.resumption.is_some());
        client.forget();
        sealer(Kem::XWing).ask(&mut client, &bare).unwrap();
        assert!(client.resumption.is_none());

        // A wrong answer is noticed.
        let mut other = Bare::new(models::load(&settings, &runtime).unwrap().model).unwrap();
        other.outputs[0].0 = "another".into();
        let error = sealer(Kem::XWing).ask(&mut client, &other).unwrap_err();
        assert!(format!("{error:#}").contains("differs from bare ONNX Runtime"), "{error:#}");
    }
}
