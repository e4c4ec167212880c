//! What the calls to one server share.

use std::sync::Arc;

use confonnx_client::{Nonce, Trusted, conversation};
use serde_json::json;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::{error, options};

/// See `confonnx_client::conversation::Conversation`.
#[wasm_bindgen]
pub struct Conversation(pub(crate) Arc<conversation::Conversation>);

#[wasm_bindgen]
impl Conversation {
    /// A conversation with the server at `url`; `options` is JSON.
    #[wasm_bindgen(constructor)]
    pub fn new(url: &str, options: &str) -> Result<Self, String> {
        let (policy, options) = options::parse(options)?;
        let conversation = conversation::Conversation::new(url, policy, options);
        conversation.map(|made| Self(Arc::new(made))).map_err(|err| error::of(&err))
    }

    /// The server's URL.
    #[wasm_bindgen(getter)]
    pub fn url(&self) -> String {
        self.0.url()
    }

    /// Talks to another server from now on.
    #[wasm_bindgen(js_name = setUrl)]
    pub fn set_url(&self, url: &str) -> Result<(), String> {
        self.0.set_url(url).map_err(|err| error::of(&err))
    }

    /// The proof on which the current key rests, as JSON, if there is one.
    pub fn proof(&self) -> Option<String> {
        self.0.proof().map(|trusted| proof(&trusted))
    }

    /// Forgets the key.
    pub fn forget(&self) {
        self.0.forget();
    }

    /// How often the key was renewed because the server changed its own.
    #[wasm_bindgen(getter, js_name = keyRolloverCount)]
    pub fn key_rollover_count(&self) -> f64 {
        self.0.key_rollover_count() as f64
    }

    /// How often the server no longer knew the key.
    #[wasm_bindgen(getter, js_name = keyInvalidCount)]
    pub fn key_invalid_count(&self) -> f64 {
        self.0.key_invalid_count() as f64
    }
}

/// A proof as JSON.
pub(crate) fn proof(trusted: &Trusted) -> String {
    let claims = serde_json::from_slice(&trusted.claims().to_bytes()).unwrap_or(serde_json::Value::Null);
    json!({
        "tee": trusted.tee().to_string(),
        "enclaveHash": trusted.enclave_hash().to_string(),
        "claims": claims,
        "checks": trusted.verdict().checks,
    })
    .to_string()
}

/// The nonce that the digits `hex` stand for.
pub(crate) fn nonce(hex: &str) -> Result<Nonce, String> {
    hex.parse().map_err(|err| error::argument("nonce", err))
}
