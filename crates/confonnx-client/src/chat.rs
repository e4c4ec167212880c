//! Chats with a language model: what is asked, and what is answered, whole or as it comes.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::{ClientError, Request};

/// What a language model is asked: the messages so far, and how to answer. Later parameters of the same name win.
#[derive(Clone, Default)]
pub struct Chat {
    pub(crate) model: Option<String>,
    messages: Vec<Value>,
    parameters: Map<String, Value>,
}

impl Chat {
    /// A chat without messages.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more message: `role` is `system`, `user` or `assistant`.
    #[must_use]
    pub fn message(mut self, role: &str, text: impl Into<String>) -> Self {
        self.messages.push(json!({ "role": role, "content": text.into() }));
        self
    }

    /// One more message of the user.
    #[must_use]
    pub fn user(self, text: impl Into<String>) -> Self {
        self.message("user", text)
    }

    /// One more answer of the model.
    #[must_use]
    pub fn assistant(self, text: impl Into<String>) -> Self {
        self.message("assistant", text)
    }

    /// A message of the system, which the model is told before the others.
    #[must_use]
    pub fn system(self, text: impl Into<String>) -> Self {
        self.message("system", text)
    }

    /// The model; may be left out when the server has exactly one.
    #[must_use]
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// A further parameter of the API (docs/guides/chat.md), such as `temperature`, `seed` or `max_tokens`.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.parameters.insert(name.into(), value.into());
        self
    }

    /// The request to `model`.
    pub(crate) fn request(&self, model: &str, streamed: bool) -> Request {
        let mut body = self.parameters.clone();
        body.insert("model".into(), model.into());
        body.insert("messages".into(), self.messages.clone().into());
        if streamed {
            body.insert("stream".into(), true.into());
            body.insert("stream_options".into(), json!({ "include_usage": true }));
        }
        Request::post("/v1/chat/completions")
            .about_model(model)
            .field("content-type", "application/json")
            .body(Value::Object(body).to_string())
    }
}

impl fmt::Debug for Chat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chat({} messages)", self.messages.len())
    }
}

/// A model's answer. Its text is not in `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChatAnswer {
    /// What it says.
    pub text: String,
    /// How the answer ended, in the API's word: `stop`, or `length` when a limit cut it short.
    pub finish_reason: Option<String>,
    /// How many tokens were counted.
    pub usage: Option<Usage>,
}

impl fmt::Debug for ChatAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, finish_reason, usage } = self;
        write!(f, "ChatAnswer({} bytes, {finish_reason:?}, {usage:?})", text.len())
    }
}

/// Tokens of question and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of all messages, as the template writes them.
    pub prompt_tokens: u64,
    /// Tokens of the answer.
    pub completion_tokens: u64,
}

impl Usage {
    fn of(body: &Value) -> Option<Self> {
        let count = |name| body.get("usage")?.get(name)?.as_u64();
        Some(Self { prompt_tokens: count("prompt_tokens")?, completion_tokens: count("completion_tokens")? })
    }
}

impl ChatAnswer {
    /// The answer in a body that came whole.
    pub(crate) fn whole(body: &[u8]) -> Result<Self, ClientError> {
        let body: Value = serde_json::from_slice(body).map_err(ClientError::reply)?;
        let text = body.pointer("/choices/0/message/content").and_then(Value::as_str);
        let text = text.ok_or_else(|| ClientError::reply("an answer of a language model without text"))?;
        Ok(Self { text: text.into(), finish_reason: finish_reason(&body), usage: Usage::of(&body) })
    }
}

/// Reads an answer that comes piece by piece.
#[derive(Default)]
pub(crate) struct Reader {
    /// The beginning of a line whose end has not come.
    pending: Vec<u8>,
    ended: bool,
    /// What was said so far.
    pub(crate) answer: ChatAnswer,
}

impl Reader {
    /// The text in `bytes`, which follow those before; it may be empty yet.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<String, ClientError> {
        self.pending.extend_from_slice(bytes);
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(String::new());
        };
        let rest = self.pending.split_off(end.saturating_add(1));
        let lines = std::mem::replace(&mut self.pending, rest);
        let lines = String::from_utf8(lines).map_err(ClientError::reply)?;
        let before = self.answer.text.len();
        lines.lines().try_for_each(|line| self.line(line))?;
        Ok(self.answer.text.get(before..).unwrap_or_default().into())
    }

    fn line(&mut self, line: &str) -> Result<(), ClientError> {
        // Comments fill pieces up to a constant size.
        let Some(data) = line.strip_prefix("data: ") else { return Ok(()) };
        if data == "[DONE]" {
            self.ended = true;
            return Ok(());
        }
        let event: Value = serde_json::from_str(data).map_err(ClientError::reply)?;
        if event.get("error").is_some() {
            return Err(refusal(500, &event));
        }
        if let Some(text) = event.pointer("/choices/0/delta/content").and_then(Value::as_str) {
            self.answer.text += text;
        }
        self.answer.finish_reason = finish_reason(&event).or(self.answer.finish_reason.take());
        self.answer.usage = Usage::of(&event).or(self.answer.usage);
        Ok(())
    }

    /// Checks, after the last bytes, that the answer is complete.
    pub(crate) fn finish(&self) -> Result<(), ClientError> {
        if self.ended && self.pending.is_empty() {
            return Ok(());
        }
        Err(ClientError::reply("the answer is not complete: its end is missing"))
    }
}

fn finish_reason(body: &Value) -> Option<String> {
    body.pointer("/choices/0/finish_reason")?.as_str().map(Into::into)
}

/// The error in an answer of another status than 200: in the API's shape, or in the server's own.
pub(crate) fn failure(status: u16, body: &[u8]) -> ClientError {
    refusal(status, &serde_json::from_slice(body).unwrap_or_default())
}

fn refusal(status: u16, body: &Value) -> ClientError {
    let said = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(String::from);
    let message = said("/error/message").or_else(|| said("/error"));
    ClientError::Inner {
        status,
        code: said("/error/code").or_else(|| said("/code")).unwrap_or_else(|| "none".into()),
        message: message.unwrap_or_else(|| "the server gave no reason".into()),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = concat!(
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        ": filling\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"Grüß \"},\"finish_reason\":null}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\"dich\"},\"finish_reason\":\"stop\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn a_stream_is_the_same_however_it_is_cut_and_never_whole_without_its_end() {
        let usage = Some(Usage { prompt_tokens: 3, completion_tokens: 2 });
        for size in 1..STREAM.len() {
            let mut reader = Reader::default();
            let mut told = String::new();
            for piece in STREAM.as_bytes().chunks(size) {
                told += &reader.push(piece).unwrap();
            }
            reader.finish().unwrap();
            let expected = ChatAnswer { text: told, finish_reason: Some("stop".into()), usage };
            assert!(reader.answer == expected && expected.text == "Grüß dich", "{size}");
        }
        let end = STREAM.find("data: [DONE]\n").unwrap() + "data: [DONE]\n".len();
        for cut in 0..end {
            let mut reader = Reader::default();
            let read = reader.push(&STREAM.as_bytes()[..cut]);
            assert!(read.is_err() || reader.finish().is_err(), "{cut}");
        }
    }

    #[test]
    fn what_is_wrong_is_an_error_with_the_servers_words() {
        let error = b"data: {\"error\":{\"message\":\"too long\",\"type\":\"x\",\"param\":null,\"code\":\"length\"}}\n";
        let said = Reader::default().push(error).unwrap_err().to_string();
        assert_eq!(said, "too long (length, status 500)");
        let own = failure(503, br#"{"error":"the model is locked","code":"model-locked"}"#);
        assert_eq!(own.to_string(), "the model is locked (model-locked, status 503)");
        assert_eq!(failure(502, b"?").to_string(), "the server gave no reason (none, status 502)");
        assert!(ChatAnswer::whole(b"{}").is_err());
    }

    #[test]
    fn messages_and_parameters_are_sent_and_not_shown() {
        let chat = Chat::new().system("be brief").user("secret").parameter("seed", 7);
        let request = chat.request("m", true);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert_eq!(body["messages"][1], json!({ "role": "user", "content": "secret" }));
        assert_eq!((&body["model"], &body["seed"], &body["stream"]), (&json!("m"), &json!(7), &json!(true)));
        assert!(!format!("{chat:?}").contains("secret"));
    }
}
