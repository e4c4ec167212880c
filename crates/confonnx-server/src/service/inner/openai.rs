//! The OpenAI API: chat completions and completions, whole and streamed, and the list of models. Triton's generate extension,
//! which asks the same of the same models.

mod sink;

use std::{sync::Arc, time::Duration};

use confonnx_generate::{
    constrain::ConstraintError,
    decode::{Event, Order, Refused},
    openai::{Format, Kind, Prompt, Request, RequestError, Writer, models},
    text::{Text, TextError},
};
use confonnx_tensor::Erased;
use serde_json::{Value, json};

use self::sink::{Streamed, Whole};
use super::{Answer, Call, LetsIn, Row, Runs, Subject};
use crate::{
    auth::{self, Action, Allowance},
    generation::{Generator, Sink},
    models::Served,
    random,
    sequences::Sender,
    service::error::{InnerError, WireError},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "chat",
        method: "POST",
        paths: &["/v1/chat/completions"],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::InBody(model),
        runs: Runs::Long,
        answer: |call| generate(call, Kind::Chat),
    },
    Row {
        name: "complete",
        method: "POST",
        paths: &["/v1/completions"],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::InBody(model),
        runs: Runs::Long,
        answer: |call| generate(call, Kind::Completion),
    },
    Row {
        name: "generate",
        method: "POST",
        paths: &["/v2/models/{model}/generate", "/v2/models/{model}/versions/{version}/generate"],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::Served,
        runs: Runs::Long,
        answer: |call| generate(call, Kind::Generate),
    },
    Row {
        name: "generate-stream",
        method: "POST",
        paths: &[
            "/v2/models/{model}/generate_stream",
            "/v2/models/{model}/versions/{version}/generate_stream",
        ],
        lets_in: LetsIn::Those(Action::Infer),
        subject: Subject::Served,
        runs: Runs::Long,
        answer: |call| generate(call, Kind::GenerateStream),
    },
    Row {
        name: "models",
        method: "GET",
        paths: &["/v1/models"],
        lets_in: LetsIn::Callers,
        subject: Subject::Nothing,
        runs: Runs::Briefly,
        answer: |call| {
            let names =
                call.set.index().iter().filter(|entry| entry.is_ready() && call.caller.may_see(&entry.name));
            let mut names: Vec<&str> = names.map(|entry| entry.name.as_str()).collect();
            names.dedup();
            call.json(&models(names.into_iter().map(|name| (name, 0))))
        },
    },
];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum GenerateError {
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("response_format: {0}")]
    Form(#[from] ConstraintError),
    #[error(transparent)]
    Text(#[from] TextError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    NotAllowed(#[from] auth::Refused),
    #[error(
        "the model {model:?} answers no prompts; expected a model with a cache of keys and values, and with its tokenizer in it \
         (confonnx annotate --text)"
    )]
    NotGenerative { model: String },
    #[error("the prompt has the token {token}; expected tokens below {tokens}")]
    Token { token: u32, tokens: usize },
}

impl WireError for GenerateError {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Request(_) | Self::Token { .. } | Self::Refused(Refused::Empty) => {
                (400, "generation-invalid")
            }
            Self::Form(_) => (400, "response-format-invalid"),
            Self::Text(_) => (400, "prompt-invalid"),
            Self::Refused(Refused::TooLong { .. } | Refused::LongPrompt { .. }) => (400, "prompt-too-long"),
            Self::Refused(Refused::Busy { .. } | Refused::Share { .. }) => (429, "generation-busy"),
            Self::NotAllowed(refused) => refused.wire(),
            Self::NotGenerative { .. } => (400, "model-not-generative"),
        }
    }

    fn retry_after(&self) -> Option<u64> {
        match self {
            Self::NotAllowed(refused) => refused.retry_after(),
            Self::Refused(Refused::Busy { .. } | Refused::Share { .. }) => Some(1),
            _ => None,
        }
    }

    fn body(&self) -> Option<Value> {
        let request = match self {
            Self::Request(request) => request.clone(),
            Self::Form(_) => RequestError::of("response_format", "invalid_value", self.to_string()),
            Self::Refused(Refused::TooLong { .. } | Refused::LongPrompt { .. })
            | Self::NotAllowed(auth::Refused::Budget { .. }) => {
                RequestError::new("context_length_exceeded", self.to_string())
            }
            other => RequestError::new(other.wire().1, other.to_string()),
        };
        let kind = if self.wire().0 == 429 { "rate_limit_error" } else { "invalid_request_error" };
        Some(request.body(kind))
    }
}

/// The model that a body names; what is no request names none.
pub(super) fn model(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        model: String,
    }
    confonnx_attest::json::from_slice::<Named>(body).ok().map(|named| named.model)
}

/// An error in the form of all other resources of the Open Inference Protocol, which Triton's are among.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Plain(GenerateError);

impl WireError for Plain {
    fn wire(&self) -> (u16, &'static str) {
        self.0.wire()
    }

    fn retry_after(&self) -> Option<u64> {
        self.0.retry_after()
    }
}

fn generate(call: &Call<'_>, kind: Kind) -> Result<Answer, InnerError> {
    let served = call.served();
    let refused = |error: GenerateError| if kind.is_tritons() { Plain(error).into() } else { error.into() };
    let request = Request::read(kind, call.body).map_err(|error| refused(error.into()))?;
    answer(call, served?, kind, request).map_err(refused)
}

fn answer(call: &Call<'_>, served: &Served, kind: Kind, request: Request) -> Result<Answer, GenerateError> {
    let claim = &served.claim;
    let Some(generator) = &served.generator else {
        return Err(GenerateError::NotGenerative { model: claim.name.clone() });
    };
    let now = call.received.0;
    let prompts = prompts(generator, &request, now)?;
    let sender = Sender { caller: call.caller.name(), network: call.place.take().network };
    let mut orders = orders(generator, &request, prompts, sender.told_apart().as_ref());
    let allowance = Arc::new(allowance(call, &orders)?);
    // Only now: a form can take much to prepare.
    keep(&mut orders, generator.text(), &request.format)?;
    let begun = generator.begin(orders)?;
    let fingerprint: String =
        claim.sha256.map(|hash| hash.to_string().chars().take(16).collect()).unwrap_or_default();
    let writer = Writer::new(kind, &id(), now, (&claim.name, &claim.version), &fingerprint);
    let (text, answers) = (Arc::clone(generator.text()), begun.len());
    let before = Erased::new(match &request.prompt {
        Prompt::Texts(texts) if request.repeats_prompt => texts.first().cloned().unwrap_or_default(),
        _ => String::new(),
    });
    Ok(if request.stream {
        let pacer = Arc::clone(generator.pacer());
        call.stream("text/event-stream", move |stream| {
            // Where all goes at the end, there are no instants to be seen.
            let pace = request.pace_ms.filter(|_| stream.is_in_pieces()).map(Duration::from_millis);
            let shared = Streamed::new(stream, writer, answers, request.stream_usage, pace.is_some());
            if let Some(every) = pace {
                pacer.add(every, shared.paced());
            }
            begun.give(|index| counted(&allowance, shared.of(index, Arc::clone(&text))));
        })
    } else {
        call.stream("application/json", move |stream| {
            let shared = Whole::new(stream, writer, answers, before.as_str());
            begun.give(|index| counted(&allowance, shared.of(index, Arc::clone(&text))));
        })
    })
}

/// The tokens of each prompt.
fn prompts(
    generator: &Generator,
    request: &Request,
    now: u64,
) -> Result<Vec<Erased<Vec<u32>>>, GenerateError> {
    let text = generator.text();
    let prompts = match &request.prompt {
        Prompt::Chat(messages) => vec![text.chat(messages, now)?.into()],
        Prompt::Texts(texts) => {
            texts.iter().map(|prompt| generator.prompt(prompt).map(Erased::new)).collect::<Result<_, _>>()?
        }
        Prompt::Tokens(prompts) => prompts.iter().cloned().map(Erased::new).collect(),
    };
    let tokens = text.tokens();
    let unknown = prompts
        .iter()
        .flat_map(|prompt| prompt.iter())
        .find(|token| usize::try_from(**token).is_ok_and(|token| token >= tokens));
    match unknown {
        Some(token) => Err(GenerateError::Token { token: *token, tokens }),
        None => Ok(prompts),
    }
}

/// What the caller is promised for `orders`.
fn allowance(call: &Call<'_>, orders: &[Order]) -> Result<Allowance, GenerateError> {
    let prompts = orders.iter().map(|order| order.prompt.len()).fold(0, usize::saturating_add);
    let answers = orders.iter().filter_map(|order| order.max_tokens).fold(0, usize::saturating_add);
    Ok(call.service.auth().promise(call.caller, orders.len(), prompts, answers)?)
}

/// Counts an answer's tokens on their way to `sink`.
fn counted(allowance: &Arc<Allowance>, sink: Box<dyn Sink>) -> Box<dyn Sink> {
    struct Counted(Arc<Allowance>, Box<dyn Sink>);
    impl Sink for Counted {
        fn take(&mut self, event: &Event) -> bool {
            self.0.spend();
            if event.end.is_some() {
                self.0.end_one();
            }
            self.1.take(event)
        }
    }
    Box::new(Counted(Arc::clone(allowance), sink))
}

/// Has the answers keep to `format`.
fn keep(orders: &mut [Order], text: &Text, format: &Format) -> Result<(), ConstraintError> {
    let constraint = match format {
        Format::Text => return Ok(()),
        Format::Json => text.constraint(&json!({ "type": "object" })),
        Format::Schema(schema) => text.constraint(schema),
    }?;
    for order in orders {
        order.constraint = Some(constraint.clone());
    }
    Ok(())
}

/// What the model is to answer `holder` to each of `prompts`.
fn orders(
    generator: &Generator,
    request: &Request,
    prompts: Vec<Erased<Vec<u32>>>,
    holder: Option<&Arc<str>>,
) -> Vec<Order> {
    let facts = generator.text().facts();
    let mut choices = request.overrides.over(&facts.defaults);
    // The owner's word stands above the caller's.
    choices.logit_bias.extend(facts.never.iter().map(|token| (*token, f32::NEG_INFINITY)));
    let seed = request.seed.unwrap_or_else(|| u64::from_le_bytes(random::bytes()));
    let room = |prompt: usize| generator.room(prompt).map_or(MAX_TOKENS, |room| room.clamp(1, MAX_TOKENS));
    let order = |prompt: &Erased<Vec<u32>>, answer: u64| Order {
        holder: holder.cloned(),
        prompt: prompt.clone(),
        max_tokens: Some(request.max_tokens.unwrap_or_else(|| room(prompt.len()))),
        choices: choices.clone(),
        seed: seed.wrapping_add(answer),
        stop: request.stop.clone(),
        constraint: None,
    };
    let each = 0..request.answers as u64;
    prompts.iter().flat_map(|prompt| each.clone().map(move |answer| order(prompt, answer))).collect()
}

/// 128 random bits.
fn id() -> String {
    random::bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The most tokens of an answer that says nothing of them: room is set apart for as many.
const MAX_TOKENS: usize = 1024;

#[cfg(test)]
mod tests {
    #[test]
    fn a_model_is_named_by_a_member_and_not_by_its_place() {
        assert_eq!(super::model(br#"{"prompt": "x", "model": "tiny"}"#).as_deref(), Some("tiny"));
        assert_eq!(super::model(br#"["tiny"]"#), None);
    }
}
