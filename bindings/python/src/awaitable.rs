//! Work of this extension's threads as `asyncio` futures, for which no thread of the application waits.

use std::future::Future;

use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

/// A result for Python: an object, or the exception to raise.
pub(crate) type Converted = PyResult<Py<PyAny>>;

/// Spawns `work`, and gives an `asyncio.Future` of the running loop that `convert`'s object completes. Cancelling the
/// future drops `work`.
pub(crate) fn awaitable<'py, T: Send + 'static>(
    py: Python<'py>,
    threads: &Handle,
    work: impl Future<Output = PyResult<T>> + Send + 'static,
    convert: impl FnOnce(Python<'_>, T) -> Converted + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    let event_loop = py.import("asyncio")?.call_method0("get_running_loop")?;
    let future = event_loop.call_method0("create_future")?;
    let (event_loop, waiting) = (event_loop.unbind(), future.clone().unbind());
    let task = threads.spawn(async move {
        let result = work.await;
        // When the interpreter ends there is no Python to tell.
        Python::try_attach(|py| {
            let result = result.and_then(|value| convert(py, value));
            let done = Completion { future: waiting, result: Some(result).into() };
            // An error means that the loop was closed meanwhile, so nobody waits.
            let _ = event_loop.call_method1(py, "call_soon_threadsafe", (done,));
        });
    });
    future.call_method1("add_done_callback", (Abort { task: task.abort_handle() },))?;
    Ok(future)
}

/// Called in the loop's thread: gives the future its result.
#[pyclass(frozen)]
struct Completion {
    future: Py<PyAny>,
    result: std::sync::Mutex<Option<Converted>>,
}

#[pymethods]
impl Completion {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let result = self.result.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let future = self.future.bind(py);
        if future.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        match result {
            Some(Ok(value)) => future.call_method1("set_result", (value,))?,
            Some(Err(error)) => future.call_method1("set_exception", (error,))?,
            None => return Ok(()),
        };
        Ok(())
    }
}

/// Called when the future is done: if it was cancelled, nobody waits for the work any more.
#[pyclass(frozen)]
struct Abort {
    task: AbortHandle,
}

#[pymethods]
impl Abort {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.task.abort();
    }
}
