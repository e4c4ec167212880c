//! OpenAI's API: forwarded as it is, streams too, to the server of the model that the body names.

use std::sync::Arc;

use confonnx_client::{ModelRef, Request as Sealed};
use http::{HeaderMap, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{encoded, receive::Content, streamed::streamed};
use crate::{
    Proxy, Upstream,
    answer::{Answer, JSON, failed, json_answer, opened, with_body},
    fault::{Fault, Kind},
    proxy::token,
};

/// What of a body decides where it goes and how.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Glance {
    model: Option<String>,
    stream: Option<bool>,
}

pub(super) async fn answer(
    proxy: &Arc<Proxy>,
    among: &[usize],
    method: &Method,
    path: &str,
    fields: &HeaderMap,
    content: Content,
) -> Answer {
    if method == Method::GET && path == "/v1/models" {
        return models(proxy, among, fields).await;
    }
    let glance: Glance = serde_json::from_slice(&content.json).unwrap_or_default();
    let in_path =
        path.strip_prefix("/v1/models/").map(|name| name.split(['/', '?']).next().unwrap_or_default());
    let model = glance.model.as_deref().or(in_path);
    let place = among.iter().copied().find(|place| {
        proxy.upstreams.get(*place).is_some_and(|upstream| model.is_none_or(|model| upstream.has(model)))
    });
    let Some(upstream) = place.and_then(|place| proxy.upstreams.get(place)) else {
        let text = format!("no server of this proxy is for model {}", model.unwrap_or_default());
        return error(StatusCode::NOT_FOUND, &text, "model_not_found");
    };
    let running = glance
        .model
        .as_deref()
        .map(|name| proxy.stats.begin(&upstream.counted(ModelRef { name: Some(name), version: None })));
    let mut request = base(upstream, method, path, fields).body(content.json);
    if let Some(model) = &glance.model {
        request = request.about_model(model);
    }
    let streams = glance.stream == Some(true);
    if let (true, Some(place)) = (streams, place) {
        let answer = streamed(Arc::clone(proxy), place, request, running).await;
        return answer.unwrap_or_else(|fault| failure(&fault));
    }
    let answer = upstream.ask(request).await;
    if let (Some(running), Ok(answer)) = (running, &answer)
        && answer.status() == 200
    {
        running.succeeded();
    }
    match answer {
        Ok(answer) if answer.status() >= 400 => match shaped(answer.status(), answer.body()) {
            Some(shaped) => shaped,
            None => opened(answer),
        },
        Ok(answer) => opened(answer),
        Err(fault) => failure(&fault),
    }
}

/// The lists of all servers.
async fn models(proxy: &Proxy, among: &[usize], fields: &HeaderMap) -> Answer {
    let mut data = Vec::new();
    for upstream in proxy.among(among) {
        let answer = match upstream.ask(base(upstream, &Method::GET, "/v1/models", fields)).await {
            Ok(answer) => answer,
            Err(fault) => return failure(&fault),
        };
        let listed: Option<Value> = serde_json::from_slice(answer.body()).ok();
        let listed = listed.as_ref().and_then(|body| body.get("data")?.as_array());
        match listed {
            Some(listed) if answer.status() == 200 => {
                let ours = |model: &&Value| {
                    model.get("id").and_then(Value::as_str).is_some_and(|id| upstream.has(id))
                };
                data.extend(listed.iter().filter(ours).cloned());
            }
            _ => return shaped(answer.status(), answer.body()).unwrap_or_else(|| opened(answer)),
        }
    }
    json_answer(&json!({ "object": "list", "data": data }))
}

fn base(upstream: &Upstream, method: &Method, path: &str, fields: &HeaderMap) -> Sealed {
    let mut request = Sealed::new(method.as_str(), visible(path));
    for name in [header::CONTENT_TYPE, header::ACCEPT] {
        if let Some(value) = fields.get(&name).and_then(|value| value.to_str().ok()) {
            request = request.field(name.as_str(), value);
        }
    }
    match token(upstream, fields) {
        Some(token) => request.field("authorization", token),
        None => request,
    }
}

/// A path that may be sealed: visible ASCII.
fn visible(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_graphic() { c.to_string() } else { encoded(&c.to_string()) }).collect()
}

/// An error of a server that has another shape, in OpenAI's. `None`: it has that shape already.
fn shaped(status: u16, body: &[u8]) -> Option<Answer> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let text = body.get("error")?.as_str()?;
    let code = body.get("code").and_then(Value::as_str).unwrap_or("none");
    Some(error(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY), text, code))
}

fn failure(fault: &Fault) -> Answer {
    let mut error = body(fault.kind.status(), &fault.text, fault.kind.name());
    if matches!(fault.kind, Kind::NotTrusted | Kind::NotGenuine | Kind::Changed)
        && let Some(error) = error.get_mut("error").and_then(Value::as_object_mut)
    {
        error.insert("checks".into(), json!(fault.checks));
    }
    failed(fault, &error)
}

fn error(status: StatusCode, text: &str, code: &str) -> Answer {
    with_body(status, JSON, body(status, text, code).to_string())
}

fn body(status: StatusCode, text: &str, code: &str) -> Value {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    };
    json!({ "error": { "message": text, "type": kind, "param": null, "code": code } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_another_shape_get_openais_and_others_stay_as_they_are() {
        let ours = shaped(404, br#"{"error": "no resource", "code": "not-found"}"#);
        assert_eq!(ours.map(|answer| answer.status()), Some(StatusCode::NOT_FOUND));
        assert!(shaped(400, br#"{"error": {"message": "m", "type": "t"}}"#).is_none());
        assert!(shaped(502, b"<html>").is_none());
        let body = body(StatusCode::NOT_FOUND, "t", "c");
        assert_eq!(body["error"]["type"], "invalid_request_error");
        assert_eq!(body["error"]["code"], "c");
    }
}
