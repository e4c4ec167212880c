//! An attested client for confonnx servers.
//!
//! Before it sends anything, a [`Client`] asks the server for evidence made for a fresh nonce, verifies it, and
//! compares it with the [`Policy`]. Only then does it seal requests to a key that the evidence vouches for. It renews
//! keys when they change and never treats an unsealed answer as a result. [`blocking::Client`] is the same without
//! `async`. What both do is a [`conversation`] without IO; without the feature `native` that is all there is.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use confonnx_client::{Client, DataType, Expectations, Options, Policy, Shape, Tensor};
//!
//! let expected = Expectations { enclave_hashes: vec!["4a…".parse()?], ..Expectations::default() };
//! let client = Client::new("https://models.example", Policy::new(expected)?, Options::default())?;
//! let image = Tensor::new(DataType::Fp32, Shape::new([1, 1, 28, 28])?, vec![0; 4 * 28 * 28])?;
//! let outputs = client.infer(None, vec![("image".into(), image)], &[]).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The protocol is specified in `docs/protocol.md`.

// What only the native host calls.
#![cfg_attr(not(feature = "native"), allow(dead_code))]

mod base;
pub mod conversation;
mod error;
mod inference;
pub mod json;
mod model_ref;
#[cfg(feature = "native")]
mod native;
mod options;
mod repository;
mod request;

pub use error::{BoxError, ClientError, ErrorKind};
pub use model_ref::ModelRef;
#[cfg(feature = "native")]
pub use native::{Client, LoadError, Stream, blocking, load_enclave_hash, load_policy};
pub use options::{Options, Secret, TokenSource};
pub use repository::ModelState;
pub use request::{Request, Response};

pub use confonnx_attest::Genuine;
pub use confonnx_attest::measure;
pub use confonnx_attest::{
    Check, Claims, Digest, Document, DocumentError, EnclaveHash, EnclaveInfo, Expectations, Hex, ModelClaim,
    ModelPin, ModelRefused, Nonce, Outcome, Policy, PolicyBuildError, PolicyError, PolicyFileError, Preset,
    RawError, RawEvidence, SigningKey, Step, Tee, TimeError, Trusted, UnixTime, Verdict, VerifyError,
};
#[cfg(feature = "native")]
pub use confonnx_model::encrypted::{ModelKey, OwnerKey};
pub use confonnx_protocol::bhttp::Fields;
pub use confonnx_protocol::oip::{ModelMetadata, ServerMetadata, TensorMetadata};
pub use confonnx_protocol::{Aead, Kem};
pub use confonnx_tensor::{DataType, Shape, Tensor, TensorError};
