use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Words by themselves, `[CLS]` before and `[SEP]` after.
fn tokenizer() -> String {
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "query", ":", "a", "b", "c", "A"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let special = |id: &str| json!({ "SpecialToken": { "id": id, "type_id": 0 } });
    let named = |id: &str, number: u32| json!({ "id": id, "ids": [number], "tokens": [id] });
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 },
        "padding": { "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]" },
        "added_tokens": [],
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, special("[SEP]")],
            "pair": [],
            "special_tokens": { "[CLS]": named("[CLS]", 2), "[SEP]": named("[SEP]", 3) },
        },
        "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]" },
    })
    .to_string()
}

fn encoder<'f>(change: impl Fn(&mut Files<'f>)) -> Result<Encoder, FilesError> {
    let mut files = Files { tokenizer: Box::leak(tokenizer().into_boxed_str()), ..Files::default() };
    change(&mut files);
    Encoder::new(&files)
}

fn request(more: Value) -> Request {
    let mut body = json!({ "model": "m" });
    for (key, value) in more.as_object().unwrap() {
        body[key] = value.clone();
    }
    Request::read(body.to_string().as_bytes()).unwrap()
}

fn tokens(encoder: &Encoder, more: Value, most: usize) -> Result<Vec<Vec<u32>>, EmbedError> {
    let all = encoder.tokens(&request(more), most)?;
    Ok(all.into_iter().map(Erased::take).collect())
}

#[test]
fn texts_get_what_is_added_and_what_is_too_long_is_an_error_unless_asked_for() {
    let encoder = encoder(|_| {}).unwrap();
    assert_eq!(
        tokens(&encoder, json!({ "input": [" a b ", "c c c c"] }), 9),
        Ok(vec![vec![2, 6, 7, 3], vec![2, 8, 8, 8, 8, 3]]),
        "the file's own truncation and padding do not count"
    );
    assert_eq!(
        tokens(&encoder, json!({ "input": ["a", "a b c"] }), 4),
        Err(EmbedError::TooLong { index: 1, found: 5, most: 4 })
    );
    let cut = json!({ "input": ["a", "a b c"], "truncate": true });
    assert_eq!(tokens(&encoder, cut, 4), Ok(vec![vec![2, 6, 3], vec![2, 6, 7, 3]]));
    assert_eq!(encoder.pad(), 0);
}

#[test]
fn tokens_are_taken_as_they_are() {
    let encoder = encoder(|_| {}).unwrap();
    assert_eq!(tokens(&encoder, json!({ "input": [6, 7] }), 4), Ok(vec![vec![6, 7]]));
    assert_eq!(tokens(&encoder, json!({ "input": [[6], [7, 8]] }), 4), Ok(vec![vec![6], vec![7, 8]]));
    assert_eq!(
        tokens(&encoder, json!({ "input": [[6], [10]] }), 4),
        Err(EmbedError::Token { index: 1, token: 10, tokens: 10 })
    );
    assert_eq!(tokens(&encoder, json!({ "input": [[]] }), 4), Err(EmbedError::Empty { index: 0 }));
    assert_eq!(
        tokens(&encoder, json!({ "input": [6, 6, 6] }), 2),
        Err(EmbedError::TooLong { index: 0, found: 3, most: 2 })
    );
}

#[test]
fn prompts_are_the_models() {
    let own =
        json!({ "prompts": { "query": "query: ", "document": "" }, "default_prompt_name": null }).to_string();
    let encoder = encoder(|files| files.sentence_transformers = Some(&own)).unwrap();
    assert_eq!(tokens(&encoder, json!({ "input": "a" }), 9), Ok(vec![vec![2, 6, 3]]));
    let asked = json!({ "input": "a", "prompt_name": "query" });
    assert_eq!(tokens(&encoder, asked, 9), Ok(vec![vec![2, 4, 5, 6, 3]]));
    let expected = vec!["document".to_owned(), "query".to_owned()];
    assert_eq!(
        tokens(&encoder, json!({ "input": "a", "prompt_name": "other" }), 9),
        Err(EmbedError::Prompt { name: "other".into(), expected })
    );
    let own = json!({ "prompts": { "query": "query: " }, "default_prompt_name": "query" }).to_string();
    let encoder = self::encoder(|files| files.sentence_transformers = Some(&own)).unwrap();
    assert_eq!(tokens(&encoder, json!({ "input": "a" }), 9), Ok(vec![vec![2, 4, 5, 6, 3]]));
}

#[test]
fn files_are_read_as_sentence_transformers_writes_them() {
    let modules = |last: &str| {
        let module = |kind: &str| json!({ "idx": 0, "name": "0", "path": "", "type": format!("sentence_transformers.models.{kind}") });
        json!([module("Transformer"), module("Pooling"), module(last)]).to_string()
    };
    let normalize = modules("Normalize");
    let pooling = r#"{"word_embedding_dimension": 8, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
    let encoder = encoder(|files| {
        files.modules = Some(&normalize);
        files.pooling = Some(pooling);
        files.sentence_bert = Some(r#"{"max_seq_length": 128, "do_lower_case": true}"#);
        files.config = Some(r#"{"max_position_embeddings": 512}"#);
    })
    .unwrap();
    assert_eq!(
        (encoder.pooling(), encoder.normalizes(), encoder.most()),
        (Some(Pooling::First), true, Some(128))
    );
    assert_eq!(tokens(&encoder, json!({ "input": "A" }), 9), Ok(vec![vec![2, 6, 3]]), "in lower case");
    let limits = self::encoder(|files| {
        files.config = Some(r#"{"max_position_embeddings": 512}"#);
        files.tokenizer_config = Some(r#"{"model_max_length": 1000000000000000019884624838656}"#);
    })
    .unwrap();
    assert_eq!((limits.most(), limits.pooling(), limits.normalizes()), (Some(512), None, false));
    let dense = modules("Dense");
    let refused = self::encoder(|files| files.modules = Some(&dense)).unwrap_err().to_string();
    assert!(refused.contains("models.Dense"), "{refused}");
    for (pooling, said) in [
        (r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true}"#, "cls and mean"),
        (r#"{"pooling_mode_max_tokens": true}"#, "max_tokens"),
        (r#"{"pooling_mode": "mean", "include_prompt": false}"#, "include_prompt"),
        ("{}", "none"),
    ] {
        let refused = self::encoder(|files| files.pooling = Some(pooling)).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
}

#[test]
fn what_is_padding_counts_for_nothing() {
    let numbers = [1.0_f32, 2.0, 3.0, 4.0, 99.0, 99.0, 5.0, 6.0, 7.0, 8.0, 9.0, 1.0];
    let data: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let hidden = Hidden { data: &data, width: 3, size: 2 };
    let of = |pooling| -> Option<Vec<Vec<f32>>> {
        Some(pooled(pooling, hidden, &[2, 3])?.into_iter().map(Erased::take).collect())
    };
    assert_eq!(of(Pooling::Mean), Some(vec![vec![2.0, 3.0], vec![7.0, 5.0]]));
    assert_eq!(of(Pooling::First), Some(vec![vec![1.0, 2.0], vec![5.0, 6.0]]));
    assert_eq!(of(Pooling::Last), Some(vec![vec![3.0, 4.0], vec![9.0, 1.0]]));
    for lengths in [&[2][..], &[0, 3], &[2, 4], &[2, 3, 1]] {
        assert_eq!(pooled(Pooling::Mean, hidden, lengths), None, "{lengths:?}");
    }
    assert_eq!(pooled(Pooling::Mean, Hidden { data: &[], width: 0, size: 0 }, &[]), None);
}

#[test]
fn vectors_are_cut_and_then_made_as_long_as_one() {
    let vector = || Erased::new(vec![3.0_f32, 4.0, 12.0]);
    assert_eq!(*finished(vector(), Some(2), true), [0.6, 0.8]);
    assert_eq!(*finished(vector(), Some(2), false), [3.0, 4.0]);
    assert_eq!(*finished(vector(), Some(9), false), [3.0, 4.0, 12.0]);
    assert_eq!(*finished(Erased::new(vec![0.0; 2]), None, true), [0.0, 0.0]);
}

#[test]
fn answers_are_written_as_the_api_has_them() {
    let vectors = [Erased::new(vec![0.1_f32, -1.0]), Erased::new(vec![2.5, 0.0])];
    let read = |encoding| -> Value { serde_json::from_slice(&answer("m\"", &vectors, encoding, 7)).unwrap() };
    let floats = read(Encoding::Float);
    assert_eq!((&floats["object"], &floats["model"]), (&json!("list"), &json!("m\"")));
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 7, "total_tokens": 7 }));
    assert_eq!(floats["data"][1], json!({ "object": "embedding", "index": 1, "embedding": [2.5, 0.0] }));
    assert_eq!(floats["data"][0]["embedding"].to_string(), "[0.1,-1.0]");
    // struct.pack("<2f", 0.1, -1.0)
    assert_eq!(read(Encoding::Base64)["data"][0]["embedding"], "zczMPQAAgL8=");
}

#[test]
fn what_is_no_request_is_told_apart() {
    let refused = |more: Value| {
        let mut body = json!({ "model": "m", "input": "a" });
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        Request::read(body.to_string().as_bytes()).unwrap_err()
    };
    for (more, param) in [
        (json!({ "input": null }), "input"),
        (json!({ "input": "" }), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": ["a", 1] }), "input[1]"),
        (json!({ "input": [1, "a"] }), "input"),
        (json!({ "input": [1.5] }), "input"),
        (json!({ "input": { "a": 1 } }), "input"),
        (json!({ "input": vec!["a"; 2049] }), "input"),
        (json!({ "input": "a".repeat((2 << 20) + 1) }), "input"),
        (json!({ "model": null }), "model"),
        (json!({ "encoding_format": "hex" }), "encoding_format"),
        (json!({ "dimensions": 0 }), "dimensions"),
        (json!({ "truncate": "START" }), "truncate"),
        (json!({ "other": 1 }), "other"),
    ] {
        assert_eq!(refused(more.clone()).param.as_deref(), Some(param), "{more}");
    }
    assert_eq!(Request::read(b"{").unwrap_err().code, "invalid_json");
    let long = Request::read(&vec![b' '; (6 << 20) + 1]).unwrap_err();
    assert!(long.message.contains("6291456 bytes at most"), "{long}");
    assert_eq!(
        request(json!({ "input": "a", "user": "u", "encoding_format": "base64" })).encoding,
        Encoding::Base64
    );
}

proptest! {
    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), text in ".{0,40}", number in any::<i64>()) {
        let encoder = encoder(|_| {}).unwrap();
        let _ = Request::read(&bytes);
        for input in [json!(text), json!([text, number]), json!([number]), json!([[number], [number, 1]]), json!([[text]])] {
            for truncate in [json!(true), json!(text), json!(number)] {
                let body = json!({ "model": text, "input": input, "truncate": truncate, "dimensions": number });
                if let Ok(request) = Request::read(body.to_string().as_bytes())
                    && let Ok(tokens) = encoder.tokens(&request, 4)
                {
                    prop_assert!(tokens.iter().all(|tokens| (1..=4).contains(&tokens.len())));
                }
            }
        }
    }
}
