use proptest::prelude::*;

use super::*;

/// As in Triton's documentation and its quick-start repository.
const DENSENET: &str = r#"
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 8  # of which at most
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    dims: [ 3, 224, -1 ]
  }
]
output: [
  { name: "fc6_1", data_type: TYPE_FP32; dims: [ 1000 ] },
  { name: 'labels' data_type: TYPE_STRING dims: 1 dims: 2 }
]
version_policy: { specific { versions: [1, 0x3] } }
instance_group [ { count: 2 kind: KIND_CPU } ]
parameters { key: "inference_timeout_s" value { string_value: "5" } }
dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 100 }
model_warmup <
  name: "zeros" batch_size: 1
  inputs { key: "data_0" value: { data_type: TYPE_FP32 dims: [3, 224, 224] zero_data: true } }
>
"#;

fn error(text: &str) -> String {
    ModelConfig::parse(text).unwrap_err().to_string()
}

#[test]
fn what_triton_users_write_is_read() {
    let tensor =
        |name: &str, dtype, dims: &[i64]| TensorConfig { name: name.into(), dtype, dims: dims.to_vec() };
    let expected = ModelConfig {
        name: Some("densenet_onnx".into()),
        max_batch_size: 8,
        inputs: vec![tensor("data_0", DataType::Fp32, &[3, 224, -1])],
        outputs: vec![tensor("fc6_1", DataType::Fp32, &[1000]), tensor("labels", DataType::Bytes, &[1, 2])],
        version_policy: VersionPolicy::Specific(vec![1, 3]),
        dynamic_batching: Some(DynamicBatching { preferred_batch_size: vec![4, 8], max_queue_delay_us: 100 }),
        instances: Some(2),
        inference_timeout_s: Some(5),
        warmup: vec![Warmup {
            name: "zeros".into(),
            batch_size: 1,
            count: 1,
            inputs: vec![tensor("data_0", DataType::Fp32, &[3, 224, 224])],
        }],
    };
    assert_eq!(ModelConfig::parse(DENSENET).unwrap(), expected);
    assert_eq!(ModelConfig::parse("# nothing\n").unwrap(), ModelConfig::default());
    let policy = |text: &str| ModelConfig::parse(&format!("version_policy: {text}")).unwrap().version_policy;
    assert_eq!(policy("{ all {} }"), VersionPolicy::All);
    assert_eq!(policy("{ all: {} }"), VersionPolicy::All);
    assert_eq!(policy("{ latest { num_versions: 2 } }"), VersionPolicy::Latest(2));
}

#[test]
fn what_is_not_followed_is_an_error_that_names_it() {
    let found = error("name: \"m\"\nsequence_batching { max_sequence_idle_microseconds: 5 }");
    assert!(
        found.starts_with(
            "line 2: the field \"sequence_batching\" is not supported here; supported are name, "
        ),
        "{found}"
    );
    let found = error("input { name: \"x\" data_type: TYPE_FP32 dims: [1]\n reshape { shape: [] } }");
    assert!(found.starts_with("line 2: the field \"reshape\""), "{found}");
    for (text, expected) in [
        ("backend: \"python\"", "\"backend\" is \"python\"; expected onnxruntime"),
        ("platform: \"tensorrt_plan\"", "expected onnxruntime_onnx"),
        ("instance_group { kind: KIND_GPU }", "expected KIND_CPU"),
        ("max_batch_size: -1", "expected 0 or more"),
        ("max_batch_size: \"8\"", "expected 0 or more"),
        ("max_batch_size: 1.5", "expected a whole number"),
        ("name: \"a\" name: \"b\"", "given again"),
        ("input { name: \"x\" dims: [1] }", "expected the field \"data_type\""),
        ("input { name: \"x\" data_type: TYPE_COMPLEX }", "expected TYPE_BOOL"),
        ("version_policy {}", "expected one of latest, all and specific"),
        ("version_policy { all {} latest {} }", "expected one of latest, all and specific"),
        ("dynamic_batching {}", "a max_batch_size of 1 or more"),
        (
            "model_warmup { inputs { key: \"x\" value { data_type: TYPE_FP32 random_data: true } } }",
            "random_data",
        ),
        ("name: \"m", "the quote that ends the string"),
        ("input [ { name: \"x\" }", "expected `,` or `]`, found the end"),
        ("name \"m\"", "expected `:` or `{`"),
        ("name = \"m\"", "expected a field or a value"),
        ("}", "expected a field"),
    ] {
        let found = error(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    assert!(error(&"version_policy {".repeat(40)).contains("fewer messages in each other"));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[ -~\n]{0,200}") {
        let _ = ModelConfig::parse(&text);
    }

    #[test]
    fn no_change_of_a_good_one_makes_it_panic(at in 0..DENSENET.len(), with in "[ -~\n]{0,3}") {
        let mut text = DENSENET.to_owned();
        text.replace_range(at..=at, &with);
        let _ = ModelConfig::parse(&text);
    }
}
