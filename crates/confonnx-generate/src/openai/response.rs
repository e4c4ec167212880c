//! Answers, whole and in pieces.

use confonnx_tensor::Erased;
use serde_json::{Value, json};

use crate::{decode::Finish, sample::Logprobs};

/// Which of the API's forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completion,
    /// Triton's `/v2/models/{model}/generate`
    Generate,
    /// Triton's `/v2/models/{model}/generate_stream`
    GenerateStream,
}

impl Kind {
    /// Whether it is one of Triton's.
    pub fn is_tritons(self) -> bool {
        matches!(self, Self::Generate | Self::GenerateStream)
    }
}

/// How many tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of all answers.
    pub answer: usize,
}

/// Writes the answer to one request.
#[derive(Clone, Debug)]
pub struct Writer {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    version: String,
    fingerprint: String,
}

/// A token that was chosen, its text and those of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Text and logarithm of its probability.
    pub chosen: (String, f32),
    /// The texts of the most likely tokens, likewise with their logarithms.
    pub top: Vec<(String, f32)>,
}

impl Told {
    /// What `logprobs` tell of `token`, with the texts of tokens by `text`.
    pub fn new(token: u32, logprobs: &Logprobs, text: impl Fn(u32) -> String) -> Self {
        let top = logprobs.top.iter().map(|(token, logprob)| (text(*token), *logprob)).collect();
        Self { chosen: (text(token), logprobs.chosen), top }
    }
}

/// One of the answers, as far as it is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Choice {
    /// The answer's text.
    pub text: Erased<String>,
    /// The answer's tokens, if they are to be told.
    pub told: Option<Vec<Told>>,
    /// How the answer ended, if it has.
    pub finish: Option<Finish>,
}

impl Usage {
    fn body(self) -> Value {
        let total = self.prompt.saturating_add(self.answer);
        json!({ "prompt_tokens": self.prompt, "completion_tokens": self.answer, "total_tokens": total })
    }
}

impl Writer {
    /// For the request `id` to `version` of `model`, whose hash is `fingerprint`, received at `created` (Unix time).
    pub fn new(kind: Kind, id: &str, created: u64, model: (&str, &str), fingerprint: &str) -> Self {
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let (model, version) = model;
        Self {
            kind,
            id: format!("{prefix}-{id}"),
            created,
            model: model.to_owned(),
            version: version.to_owned(),
            fingerprint: fingerprint.to_owned(),
        }
    }

    /// The whole answer.
    pub fn whole(&self, choices: &[Choice], usage: Usage) -> Value {
        if self.kind.is_tritons() {
            return self.text_output(choices.first().map_or("", |choice| choice.text.as_str()));
        }
        let choices = choices.iter().enumerate().map(|(index, choice)| {
            let logprobs = self.logprobs(choice);
            match self.kind {
                Kind::Chat => json!({
                    "index": index,
                    "message": { "role": "assistant", "content": *choice.text, "refusal": null },
                    "logprobs": logprobs,
                    "finish_reason": choice.finish.map(finish),
                }),
                _ => json!({
                    "index": index,
                    "text": *choice.text,
                    "logprobs": logprobs,
                    "finish_reason": choice.finish.map(finish),
                }),
            }
        });
        let object = if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        let mut body = self.head(object, choices.collect());
        with(&mut body, "usage", usage.body());
        body
    }

    /// The first piece of the answer number `index`, of a chat alone.
    pub fn first(&self, index: usize) -> Option<Value> {
        (self.kind == Kind::Chat).then(|| {
            let delta = json!({ "role": "assistant", "content": "", "refusal": null });
            let choice = json!({ "index": index, "delta": delta, "logprobs": null, "finish_reason": null });
            self.head(CHUNK, vec![choice])
        })
    }

    /// The next piece of the answer number `index`.
    pub fn piece(&self, index: usize, choice: &Choice) -> Value {
        let logprobs = self.logprobs(choice);
        let finish = choice.finish.map(finish);
        match self.kind {
            Kind::Chat => {
                let delta =
                    if choice.text.is_empty() { json!({}) } else { json!({ "content": *choice.text }) };
                let choice =
                    json!({ "index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish });
                self.head(CHUNK, vec![choice])
            }
            Kind::Generate | Kind::GenerateStream => self.text_output(&choice.text),
            Kind::Completion => {
                let choice = json!({ "index": index, "text": *choice.text, "logprobs": logprobs, "finish_reason": finish });
                self.head("text_completion", vec![choice])
            }
        }
    }

    /// The last piece, which says how many tokens it took.
    pub fn usage(&self, usage: Usage) -> Value {
        let object = if self.kind == Kind::Chat { CHUNK } else { "text_completion" };
        let mut body = self.head(object, Vec::new());
        with(&mut body, "usage", usage.body());
        body
    }

    /// What ends a stream; Triton's just end.
    pub fn done(&self) -> &'static str {
        if self.kind.is_tritons() { "" } else { "data: [DONE]\n\n" }
    }

    /// What stands in the place of an answer, or of the rest of one, that ends as `finish` says; none where that is how answers end.
    pub fn failed(&self, finish: Finish) -> Option<Value> {
        let code = finish.failure()?;
        let (text, kind) = match finish {
            Finish::Unkept => (
                "to say what the response_format lets come next takes more than one answer may have; what came is not complete: \
                 expected a form with fewer alternatives that begin alike, ask with a simpler one",
                "invalid_request_error",
            ),
            _ => (
                "the model failed in the middle of the answer; what came is not complete: ask again",
                "server_error",
            ),
        };
        Some(match self.kind.is_tritons() {
            true => json!({ "error": text, "code": code }),
            false => json!({ "error": { "message": text, "type": kind, "param": null, "code": code } }),
        })
    }

    fn text_output(&self, text: &str) -> Value {
        json!({ "model_name": self.model, "model_version": self.version, "text_output": text })
    }

    fn head(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
            "choices": choices,
        })
    }

    fn logprobs(&self, choice: &Choice) -> Value {
        let Some(told) = &choice.told else { return Value::Null };
        match self.kind {
            Kind::Chat => {
                let one = |(text, logprob): &(String, f32)| json!({ "token": text, "logprob": number(*logprob), "bytes": text.as_bytes() });
                let content = told.iter().map(|token| {
                    let mut body = one(&token.chosen);
                    with(&mut body, "top_logprobs", token.top.iter().map(one).collect());
                    body
                });
                json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
            }
            _ => {
                let tokens: Vec<&str> = told.iter().map(|token| token.chosen.0.as_str()).collect();
                let logprobs: Vec<f64> = told.iter().map(|token| number(token.chosen.1)).collect();
                let top = told.iter().map(|token| {
                    let of = token.top.iter().map(|(text, logprob)| (text.clone(), number(*logprob).into()));
                    Value::Object(of.collect())
                });
                json!({ "tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top.collect::<Vec<_>>(), "text_offset": [] })
            }
        }
    }
}

/// One more field of an object.
fn with(body: &mut Value, key: &str, value: Value) {
    if let Some(fields) = body.as_object_mut() {
        fields.insert(key.to_owned(), value);
    }
}

/// An infinite number has no JSON.
fn number(logprob: f32) -> f64 {
    f64::from(logprob.max(-9999.0))
}

fn finish(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
        // Whoever reads the answer finds an error in its place.
        Finish::Failed | Finish::Unkept => "error",
    }
}

/// The list of models: names, and when each was loaded (Unix time).
pub fn models<'n>(models: impl Iterator<Item = (&'n str, u64)>) -> Value {
    let one =
        |(id, created)| json!({ "id": id, "object": "model", "created": created, "owned_by": "confonnx" });
    json!({ "object": "list", "data": models.map(one).collect::<Vec<_>>() })
}

const CHUNK: &str = "chat.completion.chunk";

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(kind: Kind) -> Writer {
        Writer::new(kind, "1", 2, ("m", "3"), "f")
    }

    #[test]
    fn a_chat_is_written_as_the_api_has_it() {
        let told = Told { chosen: ("é".into(), f32::NEG_INFINITY), top: vec![("a".into(), -0.5)] };
        let choice =
            Choice { text: "hi".to_owned().into(), told: Some(vec![told]), finish: Some(Finish::Length) };
        let body = writer(Kind::Chat).whole(std::slice::from_ref(&choice), Usage { prompt: 3, answer: 4 });
        assert_eq!(body["id"], "chatcmpl-1");
        assert_eq!(
            body["choices"][0]["message"],
            json!({ "role": "assistant", "content": "hi", "refusal": null })
        );
        assert_eq!(body["choices"][0]["finish_reason"], "length");
        let token = json!({ "token": "é", "logprob": -9999.0, "bytes": [195, 169],
            "top_logprobs": [{ "token": "a", "logprob": -0.5, "bytes": [97] }] });
        assert_eq!(body["choices"][0]["logprobs"]["content"], json!([token]));
        assert_eq!(body["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7 }));
        let piece =
            writer(Kind::Chat).piece(1, &Choice { text: "hi".to_owned().into(), ..Choice::default() });
        assert_eq!(
            piece["choices"][0],
            json!({ "index": 1, "delta": { "content": "hi" }, "logprobs": null, "finish_reason": null })
        );
        let last = writer(Kind::Chat).piece(0, &Choice { finish: Some(Finish::Stop), ..Choice::default() });
        assert_eq!(last["choices"][0]["delta"], json!({}));
        assert_eq!(writer(Kind::Chat).usage(Usage::default())["choices"], json!([]));
    }

    #[test]
    fn a_completion_has_texts() {
        let told = Told { chosen: ("x".into(), -1.0), top: vec![("y".into(), -0.5)] };
        let choice = Choice { text: "hi".to_owned().into(), told: Some(vec![told]), finish: None };
        let body = writer(Kind::Completion).piece(0, &choice);
        assert_eq!((&body["object"], &body["choices"][0]["text"]), (&json!("text_completion"), &json!("hi")));
        assert_eq!(body["choices"][0]["logprobs"]["top_logprobs"], json!([{ "y": -0.5 }]));
        assert!(writer(Kind::Completion).first(0).is_none());
    }

    #[test]
    fn tritons_answers_are_a_text_each() {
        let choice =
            Choice { text: "hi".to_owned().into(), finish: Some(Finish::Length), ..Choice::default() };
        let expected = json!({ "model_name": "m", "model_version": "3", "text_output": "hi" });
        let writer = writer(Kind::GenerateStream);
        assert_eq!(writer.piece(0, &choice), expected);
        assert_eq!(writer.whole(&[choice], Usage::default()), expected);
        assert!(
            writer.first(0).is_none()
                && writer.done().is_empty()
                && writer.failed(Finish::Failed).unwrap()["error"].is_string()
        );
    }

    #[test]
    fn models_are_listed() {
        let list = models([("a", 1)].into_iter());
        assert_eq!(
            list["data"][0],
            json!({ "id": "a", "object": "model", "created": 1, "owned_by": "confonnx" })
        );
    }
}
