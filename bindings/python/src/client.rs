//! The client's class.

mod chat;

use std::future::Future;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use confonnx_client::{Chat, ModelRef};
use confonnx_model::encrypted::{ModelKey, OwnerKey};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;

use self::chat::Asked;
pub(crate) use self::chat::{ChatAnswer, Tokens};
use crate::awaitable::{Converted, awaitable};
use crate::error;
use crate::options::Options;
use crate::tensor::{PyTensor, Returned, to_python};
use crate::values::{Metadata, Proof, State};

/// How often a waiting call looks for signals, so that Ctrl-C ends it.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(100);

/// How long the end of a client waits for its thread.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// See `confonnx.client.Client`. Each method with `_async` gives an `asyncio.Future` of the running loop.
#[pyclass(frozen, module = "confonnx._confonnx")]
pub(crate) struct Client {
    /// `None` once the client is closed.
    inner: Mutex<Option<Arc<confonnx_client::Client>>>,
    threads: Mutex<Threads>,
}

/// `confonnx._options.Called`.
#[derive(FromPyObject)]
struct Named {
    name: Option<String>,
    version: Option<String>,
}

fn named(called: &Named) -> ModelRef<'_> {
    ModelRef { name: called.name.as_deref(), version: called.version.as_deref() }
}

type Inner = Arc<confonnx_client::Client>;

async fn infer(
    client: Inner,
    inputs: Vec<PyTensor>,
    outputs: Vec<String>,
    model: Named,
) -> PyResult<Vec<(String, confonnx_tensor::Tensor<'static>)>> {
    let inputs = inputs.iter().map(PyTensor::parse).collect::<PyResult<_>>()?;
    client.infer(named(&model), inputs, &outputs).await.map_err(error::client)
}

fn outputs(
    py: Python<'_>,
    results: Vec<(String, confonnx_tensor::Tensor<'static>)>,
) -> PyResult<Vec<Returned>> {
    results.into_iter().map(|(name, tensor)| to_python(py, name, &tensor)).collect()
}

async fn metadata(client: Inner, model: Named) -> PyResult<Metadata> {
    Ok(client.metadata(named(&model)).await.map_err(error::client)?.into())
}

/// A model's key and the owner's key, parsed before anything is sent.
fn keys(key: &str, owner: Option<&str>) -> PyResult<(ModelKey, Option<OwnerKey>)> {
    let key: ModelKey = key.parse().map_err(|err| error::argument("key", err))?;
    let owner = owner.map(OwnerKey::from_pem).transpose();
    Ok((key, owner.map_err(|err| error::argument("owner_key", err))?))
}

async fn provision(
    client: Inner,
    (key, owner): (ModelKey, Option<OwnerKey>),
    model: Named,
) -> PyResult<Option<String>> {
    let claim = client.provision_model_key(named(&model), &key, owner.as_ref()).await;
    Ok(claim.map_err(error::client)?.sha256.map(|hash| hash.to_string()))
}

async fn attest(client: Inner) -> PyResult<Proof> {
    Ok(Proof::of(&*client.attest().await.map_err(error::client)?))
}

async fn answer(client: Inner, chat: Chat) -> PyResult<ChatAnswer> {
    Ok(client.chat(&chat).await.map_err(error::client)?.into())
}

async fn models(client: Inner) -> PyResult<Vec<State>> {
    Ok(client.models().await.map_err(error::client)?.into_iter().map(State::from).collect())
}

async fn load(client: Inner, name: String) -> PyResult<()> {
    client.load(&name).await.map_err(error::client)
}

async fn unload(client: Inner, name: String) -> PyResult<()> {
    client.unload(&name).await.map_err(error::client)
}

async fn ready(client: Inner) -> PyResult<bool> {
    client.ready().await.map_err(error::client)
}

#[pymethods]
impl Client {
    #[new]
    fn new(url: &str, options: Options) -> PyResult<Self> {
        let (policy, options) = options.parse()?;
        let inner = confonnx_client::Client::new(url, policy, options).map_err(error::client)?;
        Ok(Self { inner: Mutex::new(Some(Arc::new(inner))), threads: Mutex::new(Threads::start()?) })
    }

    fn predict(
        &self,
        py: Python<'_>,
        inputs: Vec<PyTensor>,
        outputs: Vec<String>,
        model: Named,
    ) -> PyResult<Vec<Returned>> {
        let results = self.wait(py, infer(self.open()?, inputs, outputs, model))?;
        self::outputs(py, results)
    }

    fn predict_async<'py>(
        &self,
        py: Python<'py>,
        inputs: Vec<PyTensor>,
        outputs: Vec<String>,
        model: Named,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, infer(self.open()?, inputs, outputs, model), |py, results| {
            self::outputs(py, results)?.into_py_any(py)
        })
    }

    fn attest(&self, py: Python<'_>) -> PyResult<Proof> {
        self.wait(py, attest(self.open()?))
    }

    fn attest_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, attest(self.open()?), |py, value| value.into_py_any(py))
    }

    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        self.wait(py, ready(self.open()?))
    }

    fn ready_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, ready(self.open()?), |py, value| value.into_py_any(py))
    }

    fn metadata(&self, py: Python<'_>, model: Named) -> PyResult<Metadata> {
        self.wait(py, metadata(self.open()?, model))
    }

    fn metadata_async<'py>(&self, py: Python<'py>, model: Named) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, metadata(self.open()?, model), |py, value| value.into_py_any(py))
    }

    fn models(&self, py: Python<'_>) -> PyResult<Vec<State>> {
        self.wait(py, models(self.open()?))
    }

    fn models_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, models(self.open()?), |py, value| value.into_py_any(py))
    }

    fn load(&self, py: Python<'_>, name: String) -> PyResult<()> {
        self.wait(py, load(self.open()?, name))
    }

    fn load_async<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, load(self.open()?, name), |py, value| value.into_py_any(py))
    }

    fn unload(&self, py: Python<'_>, name: String) -> PyResult<()> {
        self.wait(py, unload(self.open()?, name))
    }

    fn unload_async<'py>(&self, py: Python<'py>, name: String) -> PyResult<Bound<'py, PyAny>> {
        self.start(py, unload(self.open()?, name), |py, value| value.into_py_any(py))
    }

    fn chat(&self, py: Python<'_>, asked: Asked) -> PyResult<ChatAnswer> {
        let chat = asked.chat()?;
        self.wait(py, answer(self.open()?, chat))
    }

    fn chat_async<'py>(&self, py: Python<'py>, asked: Asked) -> PyResult<Bound<'py, PyAny>> {
        let chat = asked.chat()?;
        self.start(py, answer(self.open()?, chat), |py, value| value.into_py_any(py))
    }

    /// Sends the chat at once; the answer comes through [`Tokens`].
    fn stream(this: &Bound<'_, Self>, asked: Asked) -> PyResult<Tokens> {
        let (chat, client) = (asked.chat()?, this.get());
        Ok(Tokens::start(this.clone().unbind(), client.open()?, &*client.runtime()?, chat))
    }

    fn provision_model_key(
        &self,
        py: Python<'_>,
        key: &str,
        model: Named,
        owner_key: Option<&str>,
    ) -> PyResult<Option<String>> {
        let keys = keys(key, owner_key)?;
        self.wait(py, provision(self.open()?, keys, model))
    }

    fn provision_model_key_async<'py>(
        &self,
        py: Python<'py>,
        key: &str,
        model: Named,
        owner_key: Option<&str>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let keys = keys(key, owner_key)?;
        self.start(py, provision(self.open()?, keys, model), |py, value| value.into_py_any(py))
    }

    /// The proof on which the current key rests; no network.
    fn proof(&self) -> PyResult<Option<Proof>> {
        Ok(self.open()?.proof().map(|trusted| Proof::of(&trusted)))
    }

    /// Drops connections and keys once calls that are under way have ended; may be called twice.
    fn close(&self, py: Python<'_>) {
        // To drop a client takes locks, though it waits for nobody: so without the GIL.
        py.detach(|| drop(self.inner.lock().unwrap_or_else(PoisonError::into_inner).take()));
    }

    #[getter]
    fn closed(&self) -> bool {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }

    #[getter]
    fn url(&self) -> PyResult<String> {
        Ok(self.open()?.url())
    }

    #[setter]
    fn set_url(&self, url: &str) -> PyResult<()> {
        self.open()?.set_url(url).map_err(error::client)
    }

    #[getter]
    fn key_rollover_count(&self) -> PyResult<u64> {
        Ok(self.open()?.key_rollover_count())
    }

    #[getter]
    fn key_invalid_count(&self) -> PyResult<u64> {
        Ok(self.open()?.key_invalid_count())
    }

    #[getter]
    fn key_outdated(&self) -> PyResult<bool> {
        Ok(self.open()?.key_outdated())
    }
}

impl Client {
    /// The client, unless it was closed.
    fn open(&self) -> PyResult<Inner> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.clone().ok_or_else(error::closed)
    }

    /// Runs `work` to its end without the GIL, or until a signal handler raises.
    pub(crate) fn wait<T: Send>(
        &self,
        py: Python<'_>,
        work: impl Future<Output = PyResult<T>> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            self.runtime()?.block_on(async {
                let mut work = std::pin::pin!(work);
                loop {
                    match timeout(SIGNAL_INTERVAL, &mut work).await {
                        Ok(result) => return result,
                        Err(_) => Python::attach(|py| py.check_signals())?,
                    }
                }
            })
        })
    }

    /// Starts `work` on this client's thread; an `asyncio.Future` of what `convert` makes of its result.
    fn start<'py, T: Send + 'static>(
        &self,
        py: Python<'py>,
        work: impl Future<Output = PyResult<T>> + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> Converted + Send + 'static,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.runtime()?.handle(), work, convert)
    }

    /// The runtime of this process: threads do not survive a fork.
    pub(crate) fn runtime(&self) -> PyResult<Arc<Runtime>> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.process != process::id() {
            *threads = Threads::start()?;
        }
        threads.runtime.clone().ok_or_else(error::closed)
    }
}

/// The thread that keeps connections alive, and the process it belongs to.
struct Threads {
    process: u32,
    /// `None` once it is being dropped.
    runtime: Option<Arc<Runtime>>,
}

impl Threads {
    fn start() -> PyResult<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("confonnx-client")
            .enable_all()
            .build()
            .map_err(PyErr::from)?;
        Ok(Self { process: process::id(), runtime: Some(Arc::new(runtime)) })
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.process == process::id() {
            let Some(runtime) = Arc::into_inner(runtime) else { return };
            if Handle::try_current().is_ok() {
                // The last reference goes on the runtime's own thread, which must not wait for itself.
                return runtime.shutdown_background();
            }
            // To wait for the runtime the GIL is released, since the runtime's thread may need it to end a call. The
            // wait is bounded, for a name may be being looked up.
            let wait = || runtime.shutdown_timeout(SHUTDOWN);
            Python::try_attach(|py| py.detach(wait));
        } else {
            // After a fork this process has no such thread, and the sockets that the thread watched are the parent's.
            std::mem::forget(runtime);
        }
    }
}
