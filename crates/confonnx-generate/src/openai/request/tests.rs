use serde_json::json;

use super::*;

fn chat(extra: Value) -> Result<Request, RequestError> {
    let mut body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }] });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    Request::read(Kind::Chat, body.to_string().as_bytes())
}

fn completion(extra: Value) -> Result<Request, RequestError> {
    let mut body = json!({ "model": "m", "prompt": "once" });
    for (key, value) in extra.as_object().unwrap() {
        body[key] = value.clone();
    }
    Request::read(Kind::Completion, body.to_string().as_bytes())
}

#[test]
fn what_clients_send_is_read() {
    let request = chat(json!({
        "messages": [
            { "role": "developer", "content": "be brief", "name": "x" },
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "assistant", "content": null, "tool_calls": [] },
        ],
        "max_tokens": 7, "max_completion_tokens": 9, "temperature": 0.5, "top_p": 1, "n": 2, "seed": -1, "stop": "x",
        "stream": true, "stream_options": { "include_usage": true }, "logit_bias": { "5": -100, "05": 3 },
        "logprobs": true, "top_logprobs": 3, "presence_penalty": -2, "top_k": 40, "min_p": 0.1, "user": "u", "tools": [],
        "tool_choice": "auto", "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": {} } },
        "parallel_tool_calls": true, "metadata": {}, "frequency_penalty": null,
    }))
    .unwrap();
    let Prompt::Chat(messages) = &request.prompt else { panic!() };
    assert_eq!(messages.iter().map(|m| m.content.as_str()).collect::<Vec<_>>(), ["be brief", "ab", ""]);
    assert_eq!((request.max_tokens, request.answers, request.seed), (Some(9), 2, Some(u64::MAX)));
    assert_eq!((request.stream, request.stream_usage, request.stop), (true, true, vec!["x".to_owned()]));
    assert_eq!(request.overrides.logit_bias, [(5, -100.0)]);
    assert_eq!(request.format, Format::Schema(json!({})));
    let owner = Defaults {
        temperature: Some(0.2),
        top_p: Some(0.9),
        repetition_penalty: Some(1.1),
        ..Defaults::default()
    };
    let choices = request.overrides.over(&owner);
    assert_eq!(
        (choices.temperature, choices.top_p, choices.repetition_penalty, choices.logprobs),
        (0.5, 1.0, 1.1, Some(3))
    );
}

#[test]
fn completions_take_texts_and_tokens() {
    assert_eq!(completion(json!({})).unwrap().max_tokens, Some(16));
    for (prompt, read) in [
        (json!("a"), Prompt::Texts(vec!["a".into()])),
        (json!(["a", "b"]), Prompt::Texts(vec!["a".into(), "b".into()])),
        (json!([1, 2]), Prompt::Tokens(vec![vec![1, 2]])),
        (json!([[1], [2, 3]]), Prompt::Tokens(vec![vec![1], vec![2, 3]])),
    ] {
        assert_eq!(completion(json!({ "prompt": prompt })).unwrap().prompt, read);
    }
    for wrong in [json!([]), json!([1, "a"]), json!(["a", 1]), json!({}), json!([-1]), json!([[1], "a"])] {
        assert_eq!(completion(json!({ "prompt": wrong })).unwrap_err().code, "invalid_value", "{wrong}");
    }
}

#[test]
fn errors_say_where_and_what_and_quote_no_text() {
    let many: serde_json::Map<String, Value> = (0..2000).map(|token| (token.to_string(), json!(1))).collect();
    for (extra, param, code) in [
        (json!({ "temperature": 3 }), "temperature", "invalid_value"),
        (json!({ "temperature": "secret" }), "temperature", "invalid_value"),
        (json!({ "max_tokens": 0 }), "max_tokens", "invalid_value"),
        (json!({ "max_tokens": 1.5 }), "max_tokens", "invalid_value"),
        (json!({ "n": 9 }), "n", "invalid_value"),
        (json!({ "seed": 0.5 }), "seed", "invalid_value"),
        (json!({ "stop": ["a", "b", "c", "d", "e"] }), "stop", "invalid_value"),
        (json!({ "stop": "" }), "stop", "invalid_value"),
        (json!({ "logit_bias": { "x": 1 } }), "logit_bias", "invalid_value"),
        (json!({ "logit_bias": { "1": 101 } }), "logit_bias", "invalid_value"),
        (json!({ "logit_bias": many }), "logit_bias", "invalid_value"),
        (json!({ "top_logprobs": 2 }), "top_logprobs", "invalid_value"),
        (json!({ "tools": [{}] }), "tools", "unsupported_parameter"),
        (json!({ "store": true }), "store", "unsupported_parameter"),
        (json!({ "response_format": { "type": "xml" } }), "response_format.type", "invalid_value"),
        (json!({ "messages": [] }), "messages", "invalid_value"),
        (json!({ "messages": [{ "role": "secret", "content": "" }] }), "messages[0].role", "invalid_value"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content", "missing_parameter"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            "messages[0].content[0].type",
            "unsupported_parameter",
        ),
        (json!({ "pace_ms": 20 }), "pace_ms", "invalid_value"),
        (json!({ "pace_ms": 9, "stream": true }), "pace_ms", "invalid_value"),
        (json!({ "temprature": 1 }), "temprature", "unknown_parameter"),
    ] {
        let error = chat(extra.clone()).unwrap_err();
        assert_eq!((error.param.as_deref(), error.code), (Some(param), code), "{extra}");
        assert!(error.message.contains(param) && !error.message.contains("secret"), "{}", error.message);
    }
    let error = Request::read(Kind::Chat, b"{\"model\": \"m\",\n x").unwrap_err();
    assert_eq!(error.message, "the body is not JSON (line 2, column 2)");
    assert_eq!(Request::read(Kind::Chat, b"[]").unwrap_err().code, "invalid_json");
    assert_eq!(Request::read(Kind::Chat, b"{}").unwrap_err().code, "missing_parameter");
    assert_eq!(error.body("invalid_request_error")["error"]["type"], "invalid_request_error");
}

#[test]
fn tritons_requests_are_read_as_its_backends_do() {
    let read = |kind, body: Value| Request::read(kind, body.to_string().as_bytes());
    let request = read(
        Kind::Generate,
        json!({ "text_input": "once", "parameters": { "max_tokens": 5, "temperature": 0, "stop": ["x"], "seed": 1 } }),
    )
    .unwrap();
    assert_eq!(
        (request.max_tokens, request.overrides.temperature, request.seed),
        (Some(5), Some(0.0), Some(1))
    );
    assert_eq!((request.prompt, request.stop), (Prompt::Texts(vec!["once".into()]), vec!["x".to_owned()]));
    assert!(request.repeats_prompt && !request.stream);
    let request = read(
        Kind::GenerateStream,
        json!({ "text_input": "once", "max_tokens": 5, "stop_words": "x", "random_seed": 2, "stream": true }),
    )
    .unwrap();
    assert!(!request.repeats_prompt && request.stream && request.seed == Some(2));
    for (kind, body, param) in [
        (Kind::Generate, json!({}), "text_input"),
        (Kind::Generate, json!({ "text_input": ["once"] }), "text_input"),
        (Kind::Generate, json!({ "text_input": "", "stream": true }), "stream"),
        (Kind::GenerateStream, json!({ "text_input": "", "stream": false }), "stream"),
        (
            Kind::GenerateStream,
            json!({ "text_input": "", "exclude_input_in_output": false }),
            "exclude_input_in_output",
        ),
        (Kind::Generate, json!({ "text_input": "", "top_k": 1, "parameters": { "top_k": 1 } }), "top_k"),
        (Kind::Generate, json!({ "text_input": "", "beam_width": 2 }), "beam_width"),
        (Kind::Generate, json!({ "text_input": "", "parameters": [] }), "parameters"),
    ] {
        let error = read(kind, body.clone()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{body}");
    }
}
