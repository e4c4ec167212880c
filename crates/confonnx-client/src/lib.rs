//! An attested client for confonnx servers.
//!
//! Before it sends anything, a [`Client`] asks the server for evidence made for a fresh nonce, verifies it, and
//! compares it with the [`Policy`]. Only then does it seal requests to a key that the evidence vouches for. It renews
//! keys when they change and never treats an unsealed answer as a result. [`blocking::Client`] is the same without
//! `async`.
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

pub mod blocking;
mod call;
mod client;
mod error;
pub mod json;
mod model_ref;
mod options;
mod outgoing;
mod policy;
mod resumption;
mod session;
mod transport;

pub use client::Client;
pub use error::{BoxError, ClientError};
pub use model_ref::ModelRef;
pub use options::{Options, Secret, TokenSource};
pub use policy::{LoadError, load_enclave_hash, load_policy};

pub use confonnx_attest::measure;
pub use confonnx_attest::{
    Check, Claims, Digest, Document, DocumentError, EnclaveHash, EnclaveInfo, Expectations, Hex, ModelClaim,
    ModelPin, ModelRefused, Nonce, Outcome, Policy, PolicyBuildError, PolicyError, PolicyFileError,
    SigningKey, Step, Tee, TimeError, Trusted, UnixTime, Verdict, VerifyError,
};
pub use confonnx_protocol::oip::{ModelMetadata, ServerMetadata, TensorMetadata};
pub use confonnx_protocol::{Aead, Kem};
pub use confonnx_tensor::{DataType, Shape, Tensor, TensorError};
