//! The extension module `confonnx._confonnx`: `confonnx-client` as Python sees it, with no logic of its own.
//!
//! Tensors cross with name, type, shape and bytes; Python's `confonnx._tensor` makes NumPy arrays of them. The GIL is
//! released around network, cryptography and files.

mod awaitable;
mod client;
mod error;
mod model;
mod options;
mod tensor;
mod values;

use pyo3::prelude::*;

/// Confidential inference: attested clients of a confonnx server. See `confonnx.client`.
#[pymodule]
mod _confonnx {
    #[pymodule_export]
    use crate::client::Client;
    #[pymodule_export]
    use crate::client::{ChatAnswer, Tokens};
    #[pymodule_export]
    use crate::error::PyCheck;
    #[pymodule_export]
    use crate::model::{
        Encrypted, ModelInfo, Value, annotate, encrypt_model, generate_model_key, model_hash, model_info,
        model_key_recipient, read_tensor_proto, tensors_from_json, tensors_to_json, write_tensor_proto,
    };

    #[pymodule_export]
    use crate::tensor::Returned;
    #[pymodule_export]
    use crate::values::{Described, Metadata, Proof, State};

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "Python's name for it")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
