//! The client.

use std::ffi::{CString, c_char};

use confonnx_client::{Client, ModelRef, Request};
use tokio::runtime::{Builder, Runtime};

use crate::call::ConfonnxCancel;
use crate::error::{ConfonnxCode, ConfonnxError, Failure};
use crate::options::ConfonnxOptions;
use crate::pointer::{self, c_text};
use crate::response::ConfonnxResponse;
use crate::tensors::{ConfonnxInputs, ConfonnxOutputs};

/// A client of one server, which it verifies before it sends anything. For many threads at once, but not for a process
/// forked since it was made: its connections have a thread.
pub struct ConfonnxClient {
    client: Client,
    runtime: Runtime,
}

/// Text that the caller frees.
pub struct ConfonnxText(CString);

/// A client of the server at `url`, which has to be what `options` expect. No network until the first call. The options
/// are copied.
///
/// # Safety
/// `url` is a text; `options` was given out by this library and not freed; `client` can be written to; `error` is null or
/// can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_client_new(
    url: *const c_char,
    options: *const ConfonnxOptions,
    client: *mut *mut ConfonnxClient,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::run(client, error, || {
            let (policy, options) = pointer::borrow(options, "options")?.finish()?;
            let runtime = Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("confonnx-client")
                .enable_all()
                .build()
                .map_err(Failure::system)?;
            let client = Client::new(pointer::text(url, "url")?, policy, options)?;
            Ok(ConfonnxClient { client, runtime })
        })
    }
}

/// Frees a client, after the calls of other threads have returned.
///
/// # Safety
/// `client` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_client_free(client: *mut ConfonnxClient) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(client) }
}

/// What the server proved, as JSON: `tee`, `enclave_hash`, `claims`, `checks`. Attests first if there is no proof.
///
/// # Safety
/// `client` was given out by this library and not freed, `cancel` likewise or null; `proof` can be written to; `error` is
/// null or can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_client_attest(
    client: *const ConfonnxClient,
    cancel: *const ConfonnxCancel,
    proof: *mut *mut ConfonnxText,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::run(proof, error, || {
            let client = pointer::borrow(client, "client")?;
            let trusted = client.wait(cancel.as_ref(), client.client.attest())?;
            let claims: serde_json::Value =
                serde_json::from_slice(&trusted.claims().to_bytes()).map_err(Failure::system)?;
            let proof = serde_json::json!({
                "tee": trusted.tee().to_string(),
                "enclave_hash": trusted.enclave_hash().to_string(),
                "claims": claims,
                "checks": trusted.verdict().checks,
            });
            Ok(ConfonnxText(c_text(&proof.to_string())))
        })
    }
}

/// Runs `model` (null: the only one) in `version` (null: the server's choice) on `inputs`; the `output_count` outputs that
/// are named, or all if none is.
///
/// # Safety
/// `client` and `inputs` were given out by this library and not freed, `cancel` likewise or null; `model`, `version` are
/// texts or null; `output_names` points to as many texts as said; `outputs` can be written to; `error` is null or can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_client_infer(
    client: *const ConfonnxClient,
    model: *const c_char,
    version: *const c_char,
    inputs: *const ConfonnxInputs,
    output_names: *const *const c_char,
    output_count: usize,
    cancel: *const ConfonnxCancel,
    outputs: *mut *mut ConfonnxOutputs,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::run(outputs, error, || {
            let client = pointer::borrow(client, "client")?;
            let inputs = pointer::borrow(inputs, "inputs")?.borrowed();
            let model = ModelRef {
                name: pointer::optional(model, "model")?,
                version: pointer::optional(version, "version")?,
            };
            let names = pointer::slice(output_names, output_count, "output_names")?
                .iter()
                .map(|name| pointer::text(*name, "output_names").map(Into::into))
                .collect::<Result<Vec<String>, _>>()?;
            let found = client.wait(cancel.as_ref(), client.client.infer(model, inputs, &names))?;
            Ok(ConfonnxOutputs::new(found))
        })
    }
}

/// Sends a request to the inner API, such as `GET` `/v2`; the answer, whatever its status. `content_type` may be null.
///
/// # Safety
/// `client` was given out by this library and not freed, `cancel` likewise or null; `method` and `path` are texts,
/// `content_type` too or null; `body` points to `body_len` bytes; `response` can be written to; `error` is null or can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_client_request(
    client: *const ConfonnxClient,
    method: *const c_char,
    path: *const c_char,
    content_type: *const c_char,
    body: *const u8,
    body_len: usize,
    cancel: *const ConfonnxCancel,
    response: *mut *mut ConfonnxResponse,
    error: *mut *mut ConfonnxError,
) -> ConfonnxCode {
    // SAFETY: as the caller says.
    unsafe {
        pointer::run(response, error, || {
            let client = pointer::borrow(client, "client")?;
            let mut request = Request::new(pointer::text(method, "method")?, pointer::text(path, "path")?);
            if let Some(content_type) = pointer::optional(content_type, "content_type")? {
                request = request.field("content-type", content_type);
            }
            let request = request.body(pointer::slice(body, body_len, "body")?);
            Ok(ConfonnxResponse::new(client.wait(cancel.as_ref(), client.client.request(request))?))
        })
    }
}

/// The text. It lives until it is freed.
///
/// # Safety
/// `text` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_text(text: *const ConfonnxText) -> *const c_char {
    // SAFETY: as the caller says.
    unsafe { text.as_ref() }.map_or(c"".as_ptr(), |text| text.0.as_ptr())
}

/// Frees a text.
///
/// # Safety
/// `text` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_text_free(text: *mut ConfonnxText) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(text) }
}

impl ConfonnxClient {
    fn wait<T>(
        &self,
        cancel: Option<&ConfonnxCancel>,
        call: impl Future<Output = Result<T, confonnx_client::ClientError>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(ConfonnxCancel::bound(cancel, call))
    }
}
