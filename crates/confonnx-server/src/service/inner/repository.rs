//! The model repository extension: what is there, loading and unloading.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Call, LetsIn, Row, Runs, Subject};
use crate::{
    auth::Action,
    models::{ControlError, Entry},
    service::error::{InnerError, WireError},
};

pub(super) const ROWS: &[Row] = &[
    Row {
        name: "index",
        method: "POST",
        paths: &["/v2/repository/index"],
        lets_in: LetsIn::Callers,
        subject: Subject::Nothing,
        runs: Runs::Briefly,
        answer: index,
    },
    Row {
        name: "load",
        method: "POST",
        paths: &["/v2/repository/models/{model}/load"],
        lets_in: LetsIn::Those(Action::Manage),
        subject: Subject::Name,
        runs: Runs::Long,
        answer: |call| {
            no_parameters(call, &[])?;
            call.service.models.load(&call.model.name)?;
            call.json(&json!({}))
        },
    },
    Row {
        name: "unload",
        method: "POST",
        paths: &["/v2/repository/models/{model}/unload"],
        lets_in: LetsIn::Those(Action::Manage),
        subject: Subject::Name,
        runs: Runs::Long,
        answer: |call| {
            no_parameters(call, &["unload_dependents"])?;
            call.service.models.unload(&call.model.name)?;
            call.json(&json!({}))
        },
    },
];

impl WireError for ControlError {
    fn wire(&self) -> (u16, &'static str) {
        match self {
            Self::Off => (403, "model-control-off"),
            Self::Unknown { .. } => (404, "model-not-found"),
            Self::Busy => (409, "model-control-busy"),
            Self::Repository(_) | Self::Failed { .. } => (500, "model-unusable"),
        }
    }
}

/// Whether only what runs is to be listed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Filter {
    ready: bool,
}

fn index(call: &Call<'_>) -> Result<Answer, InnerError> {
    let filter: Filter = match call.body {
        [] => Filter::default(),
        body => confonnx_attest::json::from_slice(body)
            .map_err(|_| InnerError::body(call.path, "{\"ready\": true or false}"))?,
    };
    let listed = |entry: &&Entry| call.caller.may_see(&entry.name) && (entry.is_ready() || !filter.ready);
    let entries: Vec<_> = call.set.index().iter().filter(listed).collect();
    call.json(&entries)
}

/// Parameters change nothing here, so none may be given but those that are `harmless`.
fn no_parameters(call: &Call<'_>, harmless: &[&str]) -> Result<(), InnerError> {
    let wrong = |expected| InnerError::body(call.path, expected);
    if call.body.is_empty() {
        return Ok(());
    }
    let body: Map<String, Value> =
        confonnx_attest::json::from_slice(call.body).map_err(|_| wrong("a JSON object"))?;
    match body.get("parameters") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::Object(given)) if given.keys().all(|name| harmless.contains(&name.as_str())) => Ok(()),
        Some(_) => Err(wrong("no parameters: a model is loaded as it is in the repository")),
    }
}
