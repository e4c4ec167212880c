//! Chats with a language model: answers whole, and as they come.

use std::sync::{Arc, Mutex, PoisonError};

use confonnx_client::{Chat, ClientError};
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::AbortHandle;

use super::Client;
use crate::awaitable::awaitable;
use crate::error;

/// A model's whole answer.
#[pyclass(frozen, get_all, module = "confonnx._confonnx")]
#[derive(Clone, Default)]
pub(crate) struct ChatAnswer {
    text: String,
    finish_reason: Option<String>,
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
}

impl From<confonnx_client::ChatAnswer> for ChatAnswer {
    fn from(answer: confonnx_client::ChatAnswer) -> Self {
        let usage = answer.usage;
        Self {
            text: answer.text,
            finish_reason: answer.finish_reason,
            prompt_tokens: usage.map(|usage| usage.prompt_tokens),
            completion_tokens: usage.map(|usage| usage.completion_tokens),
        }
    }
}

/// `confonnx._chat.Asked`.
#[derive(FromPyObject)]
pub(crate) struct Asked {
    model: Option<String>,
    messages: Vec<(String, String)>,
    /// The parameters, a JSON object.
    parameters: String,
}

impl Asked {
    pub(crate) fn chat(self) -> PyResult<Chat> {
        let parameters: Map<String, Value> =
            serde_json::from_str(&self.parameters).map_err(|err| error::argument("parameters", err))?;
        let chat =
            parameters.into_iter().fold(Chat::new(), |chat, (name, value)| chat.parameter(name, value));
        let messages = self.messages.into_iter();
        let chat = messages.fold(chat, |chat, (role, text)| chat.message(&role, text));
        Ok(match self.model {
            Some(name) => chat.model(name),
            None => chat,
        })
    }
}

/// An answer as it comes. The client's thread reads only as far as Python asks; when this object goes, the answer is
/// given up.
#[pyclass(frozen, module = "confonnx._confonnx")]
pub(crate) struct Tokens {
    client: Py<Client>,
    coming: Arc<tokio::sync::Mutex<Receiver<Result<String, ClientError>>>>,
    answer: Arc<Mutex<ChatAnswer>>,
    task: AbortHandle,
}

impl Tokens {
    pub(crate) fn start(
        client: Py<Client>,
        inner: Arc<confonnx_client::Client>,
        runtime: &Runtime,
        chat: Chat,
    ) -> Self {
        let (sender, coming) = mpsc::channel(1);
        let answer = Arc::new(Mutex::new(ChatAnswer::default()));
        let told = Arc::clone(&answer);
        let task = runtime.spawn(async move {
            let read = async {
                let mut stream = inner.chat_stream(&chat).await?;
                while let Some(token) = stream.token().await? {
                    *told.lock().unwrap_or_else(PoisonError::into_inner) = stream.answer().clone().into();
                    if sender.send(Ok(token)).await.is_err() {
                        return Ok(());
                    }
                }
                *told.lock().unwrap_or_else(PoisonError::into_inner) = stream.answer().clone().into();
                Ok(())
            };
            if let Err(err) = read.await {
                // It does not matter if nobody listens any more.
                let _ = sender.send(Err(err)).await;
            }
        });
        let coming = Arc::new(tokio::sync::Mutex::new(coming));
        Self { client, coming, answer, task: task.abort_handle() }
    }
}

async fn next(
    coming: Arc<tokio::sync::Mutex<Receiver<Result<String, ClientError>>>>,
) -> PyResult<Option<String>> {
    coming.lock().await.recv().await.transpose().map_err(error::client)
}

#[pymethods]
impl Tokens {
    /// `None` once the answer is whole.
    fn next(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.client.get().wait(py, next(Arc::clone(&self.coming)))
    }

    fn next_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let runtime = self.client.get().runtime()?;
        awaitable(py, runtime.handle(), next(Arc::clone(&self.coming)), |py, value| value.into_py_any(py))
    }

    /// The answer so far.
    fn answer(&self) -> ChatAnswer {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn close(&self) {
        self.task.abort();
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.task.abort();
    }
}
