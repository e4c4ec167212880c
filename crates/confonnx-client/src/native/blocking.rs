//! The client without `async`. Not for use inside an async runtime.

use std::sync::Arc;

use confonnx_attest::{ModelClaim, Nonce, Policy, Trusted};
use confonnx_model::encrypted::{ModelKey, OwnerKey};
use confonnx_protocol::oip::{ModelMetadata, ServerMetadata};
use confonnx_tensor::Tensor;
use tokio::runtime::{Builder, Runtime};

use crate::{ClientError, ModelRef, ModelState, Options, Request, Response};

/// See [`crate::Client`]; every method here blocks until its work is done.
#[derive(Debug)]
pub struct Client {
    pub(super) inner: crate::Client,
    /// Keeps idle connections alive in a thread of its own.
    pub(super) runtime: Runtime,
}

impl Client {
    /// See [`crate::Client::new`].
    pub fn new(url: &str, policy: Policy, options: Options) -> Result<Self, ClientError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("confonnx-client")
            .enable_all()
            .build()
            .map_err(|err| ClientError::System { source: err.into() })?;
        Ok(Self { inner: crate::Client::new(url, policy, options)?, runtime })
    }

    /// See [`crate::Client::url`].
    pub fn url(&self) -> String {
        self.inner.url()
    }

    /// See [`crate::Client::set_url`].
    pub fn set_url(&self, url: &str) -> Result<(), ClientError> {
        self.inner.set_url(url)
    }

    /// See [`crate::Client::key_rollover_count`].
    pub fn key_rollover_count(&self) -> u64 {
        self.inner.key_rollover_count()
    }

    /// See [`crate::Client::key_invalid_count`].
    pub fn key_invalid_count(&self) -> u64 {
        self.inner.key_invalid_count()
    }

    /// See [`crate::Client::key_outdated`].
    pub fn key_outdated(&self) -> bool {
        self.inner.key_outdated()
    }

    /// See [`crate::Client::attest`].
    pub fn attest(&self) -> Result<Arc<Trusted>, ClientError> {
        self.runtime.block_on(self.inner.attest())
    }

    /// See [`crate::Client::fetch_document`].
    pub fn fetch_document(&self, nonce: Option<&Nonce>) -> Result<Vec<u8>, ClientError> {
        self.runtime.block_on(self.inner.fetch_document(nonce))
    }

    /// See [`crate::Client::proof`].
    pub fn proof(&self) -> Option<Arc<Trusted>> {
        self.inner.proof()
    }

    /// See [`crate::Client::request`].
    pub fn request(&self, request: Request) -> Result<Response, ClientError> {
        self.runtime.block_on(self.inner.request(request))
    }

    /// See [`crate::Client::models`].
    pub fn models(&self) -> Result<Vec<ModelState>, ClientError> {
        self.runtime.block_on(self.inner.models())
    }

    /// See [`crate::Client::load`].
    pub fn load(&self, name: &str) -> Result<(), ClientError> {
        self.runtime.block_on(self.inner.load(name))
    }

    /// See [`crate::Client::unload`].
    pub fn unload(&self, name: &str) -> Result<(), ClientError> {
        self.runtime.block_on(self.inner.unload(name))
    }

    /// See [`crate::Client::infer`].
    pub fn infer<'a>(
        &self,
        model: impl Into<ModelRef<'a>>,
        inputs: Vec<(String, Tensor<'_>)>,
        outputs: &[String],
    ) -> Result<Vec<(String, Tensor<'static>)>, ClientError> {
        self.runtime.block_on(self.inner.infer(model, inputs, outputs))
    }

    /// See [`crate::Client::metadata`].
    pub fn metadata<'a>(&self, model: impl Into<ModelRef<'a>>) -> Result<ModelMetadata, ClientError> {
        self.runtime.block_on(self.inner.metadata(model))
    }

    /// See [`crate::Client::server_metadata`].
    pub fn server_metadata(&self) -> Result<ServerMetadata, ClientError> {
        self.runtime.block_on(self.inner.server_metadata())
    }

    /// See [`crate::Client::ready`].
    pub fn ready(&self) -> Result<bool, ClientError> {
        self.runtime.block_on(self.inner.ready())
    }

    /// See [`crate::Client::provision_model_key`].
    pub fn provision_model_key<'a>(
        &self,
        model: impl Into<ModelRef<'a>>,
        key: &ModelKey,
        owner: Option<&OwnerKey>,
    ) -> Result<ModelClaim, ClientError> {
        self.runtime.block_on(self.inner.provision_model_key(model, key, owner))
    }
}
