//! An attested client for confonnx servers.
//!
//! Before it sends anything, a [`Client`] asks the server for evidence made for a fresh nonce, verifies it, and
//! compares it with the [`Policy`]. Only then does it seal requests to a key that the evidence vouches for. It renews
//! keys when they change and never treats an unsealed answer as a result. [`blocking::Client`] is the same without
//! `async`. What both do is a [`conversation`] without IO; without the feature `native` that is all there is.
//!
//! ```
//! use confonnx_client::{Client, ClientError, DataType, ErrorKind, Expectations, Options, Policy, Shape, Tensor};
//!
//! async fn classify(client: &Client, pixels: Vec<u8>) -> Result<Vec<(String, Tensor<'static>)>, ClientError> {
//!     let shape = Shape::new([1, 1, 28, 28]).expect("four dimensions");
//!     let image = Tensor::new(DataType::Uint8, shape, pixels).expect("as many pixels as the shape says");
//!     // Attests first, if nothing was verified yet. `None` is the server's only model.
//!     client.infer(None, vec![("image".into(), image)], &[]).await
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What `confonnx measure` says of the program that is to see the images.
//! let program = "4a81".repeat(16).parse()?;
//! let policy = Policy::new(Expectations::new().enclave_hash(program))?;
//! let client = Client::new("http://127.0.0.1:1", policy, Options::new().retries(0))?;
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let error = classify(&client, vec![0; 28 * 28]).await.expect_err("nobody listens there");
//! assert_eq!(error.kind(), ErrorKind::Transport);
//! assert!(client.proof().is_none(), "nothing was verified, so nothing was sent");
//! # });
//! # Ok(())
//! # }
//! ```
//!
//! The protocol is specified in `docs/protocol.md`.

#![cfg_attr(test, allow(clippy::restriction, reason = "a test may panic"))]
// Some of these modules have items that only the native host calls.
#![cfg_attr(not(feature = "native"), allow(dead_code))]

mod base;
mod chat;
pub mod conversation;
mod error;
mod given;
mod inference;
pub mod json;
mod model_ref;
#[cfg(feature = "native")]
mod native;
mod options;
mod repository;
mod request;

pub use chat::{Chat, ChatAnswer, Usage};
pub use error::{BoxError, ClientError, ErrorKind};
pub use given::{Given, GivenError, GivenOption};
pub use model_ref::ModelRef;
#[cfg(feature = "native")]
pub use native::{
    ChatStream, ChatTokens, Client, LoadError, Stream, blocking, load_enclave_hash, load_policy,
};
pub use options::{Options, Progress, Proxy, Secret, TokenSource, Transfer};
pub use repository::ModelState;
pub use request::{Request, Response};

pub use confonnx_attest::measure;
pub use confonnx_attest::{
    AcceptedEngine, AcceptedKeyService, Build, Check, Claims, ClientAuth, Digest, Document, DocumentError,
    EnclaveHash, EnclaveInfo, EnclaveInfoError, Expectations, Genuine, Hex, HexError, KeyClaim, KeyService,
    KeySource, Maxima, ModelClaim, ModelPin, ModelRefused, Nonce, Outcome, Platforms, Policy,
    PolicyBuildError, PolicyError, PolicyFileError, Preset, RawError, RawEvidence, Refusal, Runtime,
    ServerExpectations, SigningKey, SigningKeyError, Step, Tee, TimeError, Trusted, UnixTime, Verdict,
    VerifyError,
};
#[cfg(feature = "native")]
pub use confonnx_model::encrypted::{KeyError, ModelKey, OwnerKey, OwnerKeyError};
pub use confonnx_protocol::bhttp::Fields;
pub use confonnx_protocol::oip::{
    ModelMetadata, OipError, Sequence, SequenceId, ServerMetadata, TensorMetadata,
};
pub use confonnx_protocol::{Aead, Kem, NameError, SealError};
pub use confonnx_tensor::{DataType, Shape, Tensor, TensorError};
