//! Other servers of ONNX models, in plaintext: installed by `bench/peers/install`, each started by its own `serve`.

use std::{
    fmt::Write,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use confonnx_protocol::oip::{HEADER_LENGTH, InferRequest};
use confonnx_tensor::DataType;
use serde_json::json;

use crate::{
    grpc,
    http::post,
    inputs::Bare,
    process::Group,
    target::{Body, Target},
};

/// A server to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// FastAPI on uvicorn, with raw bytes and with JSON.
    Fastapi,
    /// Triton's Python backend, with binary tensors.
    Triton,
    /// MLServer, with gRPC.
    Mlserver,
    /// LitServe, with JSON.
    Litserve,
}

/// A peer's processes, which answer.
pub(crate) struct Running {
    pub(crate) group: Group,
    address: SocketAddr,
}

/// How a peer uses the cores: its processes, and the threads inside an operator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    pub(crate) instances: usize,
    pub(crate) threads: usize,
}

impl Peer {
    /// The peer's name in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Fastapi => "FastAPI",
            Self::Triton => "Triton",
            Self::Mlserver => "MLServer",
            Self::Litserve => "LitServe",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Fastapi => "fastapi",
            Self::Triton => "triton",
            Self::Mlserver => "mlserver",
            Self::Litserve => "litserve",
        }
    }

    /// The size that the peer's users would pick after trying: bench/peers/README.md says what was tried.
    pub(crate) fn best(self) -> Size {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Size { instances: cores, threads: 1 }
    }

    /// The versions of what is installed of the peer, from its pinned requirements.
    pub(crate) fn versions(self, places: &Places) -> anyhow::Result<String> {
        let path = places.scripts.join(self.folder()).join("requirements.in");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let pins = text.lines().filter(|line| line.contains("==")).map(|line| line.replace("==", " "));
        Ok(pins.collect::<Vec<_>>().join(", "))
    }

    /// Starts the peer for `model` and waits until it answers as it should.
    pub(crate) fn start(
        self,
        places: &Places,
        model: &Path,
        bare: &Bare,
        size: Size,
    ) -> anyhow::Result<Running> {
        let home = places.installed.join(self.folder());
        if let Ok(reason) = fs::read_to_string(home.join("absent")) {
            bail!("{}", reason.trim());
        }
        let absolute = |path: &Path| {
            let path = path.canonicalize().with_context(|| path.display().to_string());
            anyhow::Ok(path?.display().to_string())
        };
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let program = places.scripts.join(self.folder()).join("serve");
        let arguments = [
            absolute(&home)? + "/venv",
            absolute(model)?,
            address.port().to_string(),
            size.instances.to_string(),
            size.threads.to_string(),
        ];
        let inputs = bare
            .inputs
            .iter()
            .map(|(name, tensor)| json!([name, tensor.dtype().name(), tensor.shape().dims()]));
        let inputs = serde_json::to_string(&inputs.collect::<Vec<_>>())?;
        let mut group = Group::start(
            &program.canonicalize().with_context(|| program.display().to_string())?,
            &arguments,
            &[("BENCH_INPUTS", inputs)],
            &home.join("log"),
        )?;
        let (_, target) = self.targets(address, bare)?.into_iter().next().context("no mode")?;
        let last = std::cell::RefCell::new(None);
        let ready =
            group.wait_for(|_| match target.open().and_then(|mut worker| target.ask(&mut worker, bare)) {
                Ok(_) => Some(()),
                Err(error) => {
                    last.replace(Some(error));
                    thread::sleep(BETWEEN_TRIES);
                    None
                }
            });
        ready.with_context(|| match last.take() {
            Some(error) => format!("{} does not serve ({error:#})", self.name()),
            None => format!("{} does not serve", self.name()),
        })?;
        Ok(Running { group, address })
    }

    /// The ways to ask the peer that are measured, by name.
    fn targets(self, address: SocketAddr, bare: &Bare) -> anyhow::Result<Vec<(&'static str, Target)>> {
        let http = |path: &str, fields: &[(&str, &str)], body: Vec<u8>, answer| {
            let mut request = post(path, fields, body.len());
            request.extend_from_slice(&body);
            Target::Plain { address, request, answer }
        };
        let raw = || bare.inputs.iter().flat_map(|(_, tensor)| tensor.data().to_vec()).collect::<Vec<u8>>();
        let bytes = [("content-type", "application/octet-stream")];
        Ok(match self {
            Self::Fastapi => vec![
                ("raw bytes", http("/raw", &bytes, raw(), Body::Raw)),
                ("JSON", http("/json", &[("content-type", "application/json")], v2_json(bare)?, Body::V2)),
            ],
            Self::Litserve => {
                vec![(
                    "JSON",
                    http("/predict", &[("content-type", "application/json")], v2_json(bare)?, Body::V2),
                )]
            }
            Self::Triton => {
                vec![("binary", v2_binary(address, "model", bare)?)]
            }
            Self::Mlserver => {
                vec![("gRPC", Target::Grpc { address, request: grpc::request("model", bare)? })]
            }
        })
    }
}

impl Running {
    /// The ways to ask the peer that are measured, by name.
    pub(crate) fn targets(&self, peer: Peer, bare: &Bare) -> anyhow::Result<Vec<(&'static str, Target)>> {
        peer.targets(self.address, bare)
    }
}

/// The folders of the peers.
pub(crate) struct Places {
    /// The scripts: `bench/peers`.
    pub(crate) scripts: PathBuf,
    /// The folder into which `bench/peers/install` installed them.
    pub(crate) installed: PathBuf,
}

/// A server that takes inference requests of the Open Inference Protocol in the clear, with binary tensors.
pub(crate) fn v2_binary(address: SocketAddr, model: &str, bare: &Bare) -> anyhow::Result<Target> {
    let inputs = bare.borrowed();
    let request = InferRequest { inputs, binary_default: true, ..InferRequest::default() };
    let encoded = request.encode()?;
    let json_len = encoded.json_len().context("a request without tensors")?.to_string();
    let body = encoded.parts().concat();
    let fields = [("content-type", "application/octet-stream"), (HEADER_LENGTH, json_len.as_str())];
    let mut request = post(&format!("/v2/models/{model}/infer"), &fields, body.len());
    request.extend_from_slice(&body);
    Ok(Target::Plain { address, request, answer: Body::V2 })
}

/// An inference request of the Open Inference Protocol with its tensors as JSON.
fn v2_json(bare: &Bare) -> anyhow::Result<Vec<u8>> {
    let mut text = String::from(r#"{"inputs":["#);
    for (at, (name, tensor)) in bare.inputs.iter().enumerate() {
        let data = match tensor.dtype() {
            // Each float has its own shortest digits, not those of the double that it would become.
            DataType::Fp32 => serde_json::to_string(
                &tensor
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect::<Vec<_>>(),
            )?,
            DataType::Int64 => serde_json::to_string(
                &tensor
                    .data()
                    .as_chunks()
                    .0
                    .iter()
                    .map(|bytes| i64::from_le_bytes(*bytes))
                    .collect::<Vec<_>>(),
            )?,
            other => bail!("{} as JSON", other.name()),
        };
        let comma = if at == 0 { "" } else { "," };
        let (name, shape) = (serde_json::to_string(name)?, serde_json::to_string(tensor.shape().dims())?);
        let datatype = tensor.dtype().name();
        write!(text, r#"{comma}{{"name":{name},"datatype":"{datatype}","shape":{shape},"data":{data}}}"#)?;
    }
    text.push_str("]}");
    ensure!(text.len() < 1 << 30, "the request is too long");
    Ok(text.into_bytes())
}

const BETWEEN_TRIES: Duration = Duration::from_millis(100);
