//! A repository of models, and what changes it while it is served.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
};

use confonnx_attest::Digest;
use confonnx_client::{ClientError, ModelRefused, Options};
use confonnx_model::{
    encrypted::{self, ModelKey},
    model_hash,
};
use confonnx_protocol::Kem;
use confonnx_server::{
    config::{ModelControl, Settings},
    models::{Models, OpenError},
};
use confonnx_tensor::{DataType, Shape, Tensor};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::harness::{
    Answer, LONG, PATIENCE, Running, SEALED, config, count_to, engine, head, model, seal, start_with, until,
};

struct Repository(tempfile::TempDir);

impl Repository {
    fn new(models: &[(&str, &str)]) -> Self {
        let repository = Self(tempfile::tempdir().unwrap());
        for (name, source) in models {
            repository.add(name, 1, source);
        }
        repository
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn version(&self, name: &str, version: u64) -> PathBuf {
        self.path().join(name).join(version.to_string())
    }

    /// Puts a model into the repository as a whole, as an operator should.
    fn add(&self, name: &str, version: u64, source: &str) {
        let partial = self.path().join(format!(".{name}-{version}"));
        fs::create_dir(&partial).unwrap();
        fs::copy(model(source), partial.join("model.onnx")).unwrap();
        fs::create_dir_all(self.path().join(name)).unwrap();
        fs::rename(partial, self.version(name, version)).unwrap();
    }

    fn config(&self, name: &str, text: &str) {
        fs::write(self.path().join(name).join("config.pbtxt"), text).unwrap();
    }

    fn settings(&self, settings: &mut Settings, control: ModelControl) {
        (settings.model_path, settings.model_repository) = (None, Some(self.path().into()));
        (settings.model_control, settings.repository_poll_interval) = (Some(control), Some(1));
        if control == ModelControl::Explicit {
            let caller = |name: &str, rights: &str| {
                let hash = Digest(Sha256::digest(name).into());
                format!("[[caller]]\nname = \"{name}\"\ntoken_sha256 = \"{hash}\"\n{rights}\n")
            };
            let callers = [
                caller("operator", "may = [\"infer\", \"unlock\", \"manage\"]"),
                caller("user", "models = [\"other\"]"),
            ];
            let path = self.path().join(".auth.toml");
            fs::write(&path, callers.concat()).unwrap();
            settings.auth_file = Some(path);
        }
    }

    async fn start(&self, control: ModelControl) -> Running {
        start_with(config("mlp", |settings| self.settings(settings, control))).await
    }
}

async fn get(server: &Running, path: &str) -> Answer {
    ask_as("operator", server, "GET", path, "").await
}

async fn post(server: &Running, path: &str, body: &str) -> Answer {
    ask_as("operator", server, "POST", path, body).await
}

/// Gives a model its key; again while the folder is being looked at, as clients do.
async fn unlock(server: &Running, model: &str, key: &ModelKey) -> Answer {
    loop {
        let answer = post(server, &format!("/v2/models/{model}/key"), &key.expose()).await;
        if answer.head.status != 409 || answer.error().1 != "model-control-busy" {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn ask_as(caller: &str, server: &Running, method: &str, path: &str, body: &str) -> Answer {
    let mut head = head(method, path);
    head.fields.push("authorization", format!("Bearer {caller}"));
    server.ask(&head, body.as_bytes()).await
}

/// Name, version, state and reason of each line of the index.
async fn index(server: &Running) -> Vec<(String, String, String, String)> {
    let answer = post(server, "/v2/repository/index", "").await;
    assert_eq!(answer.head.status, 200);
    let text = |entry: &Value, member: &str| entry[member].as_str().unwrap_or_default().to_owned();
    let line = |entry: &Value| {
        (text(entry, "name"), text(entry, "version"), text(entry, "state"), text(entry, "reason"))
    };
    answer.json().as_array().unwrap().iter().map(line).collect()
}

async fn until_index(server: &Running, expected: impl Fn(&[(String, String, String, String)]) -> bool) {
    tokio::time::timeout(PATIENCE, async {
        while !expected(&index(server).await) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the index never said so");
}

fn ready(name: &str, version: &str) -> (String, String, String, String) {
    (name.into(), version.into(), "READY".into(), String::new())
}

fn row() -> Vec<(String, Tensor<'static>)> {
    let data: Vec<u8> = [1.0_f32, 2.0, 3.0, 4.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    vec![("x".into(), Tensor::new(DataType::Fp32, Shape::new(vec![1, 4]).unwrap(), data).unwrap())]
}

#[tokio::test]
async fn models_are_served_side_by_side_and_all_of_them_claimed() {
    let repository = Repository::new(&[("b", "mlp"), ("a", "two"), ("a.2", "scalar")]);
    repository.add("b", 7, "mlp");
    repository.config("b", "name: \"b\" backend: \"onnxruntime\" version_policy { all {} }");
    fs::create_dir(repository.path().join("b/007")).unwrap();
    fs::create_dir_all(repository.path().join("not a name/1")).unwrap();
    let server = repository.start(ModelControl::None).await;
    let expected = [ready("a", "1"), ready("a.2", "1"), ready("b", "1"), ready("b", "7")];
    assert_eq!(index(&server).await, expected);
    let claims = server.attest().await.claims().clone();
    let claimed: Vec<_> = claims.models.iter().map(|m| (m.name.as_str(), m.version.as_str())).collect();
    assert_eq!(claimed, [("a", "1"), ("a.2", "1"), ("b", "1"), ("b", "7")]);
    assert_eq!(claims.models[0].sha256, Some(Digest(model_hash(&model("two")).unwrap())));
    assert_eq!(claims.settings["model_control"], "none");

    assert_eq!(get(&server, "/v2/health/ready").await.json(), json!({ "ready": true }));
    let metadata = get(&server, "/v2/models/b").await.json();
    assert_eq!((&metadata["name"], &metadata["versions"]), (&json!("b"), &json!(["1", "7"])));
    assert_eq!(get(&server, "/v2/models/a").await.json()["inputs"].as_array().unwrap().len(), 2);
    let ask = r#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;
    for (path, version) in [("b", "7"), ("b/versions/1", "1"), ("b/versions/7", "7")] {
        let answer = post(&server, &format!("/v2/models/{path}/infer"), ask).await;
        assert_eq!((answer.head.status, &answer.json()["model_version"]), (200, &json!(version)));
    }
    for path in ["c", "b/versions/2", "b/versions/07", "a/versions/7", "..", "b/versions/x/ready"] {
        let answer = get(&server, &format!("/v2/models/{path}")).await;
        assert_eq!(answer.error(), (404, "model-not-found".into()), "{path}");
    }
    let answer = post(&server, "/v2/repository/models/a/unload", "").await;
    assert_eq!(answer.error().0, 403, "nobody may");
}

#[tokio::test]
async fn a_broken_model_takes_no_other_down_and_tells_no_path() {
    let repository = Repository::new(&[("good", "mlp"), ("cut", "mlp"), ("strange", "unknown_op")]);
    let whole = fs::read(model("mlp")).unwrap();
    fs::write(repository.version("cut", 1).join("model.onnx"), &whole[..40]).unwrap();
    repository.add("external", 1, "external");
    fs::create_dir_all(repository.version("empty", 1)).unwrap();
    fs::create_dir_all(repository.path().join("none")).unwrap();
    repository.add("settings", 1, "mlp");
    repository.config("settings", "ensemble_scheduling {}");
    let key = ModelKey::generate().unwrap();
    fs::create_dir_all(repository.version("sealed", 1)).unwrap();
    let sealed = repository.version("sealed", 1).join("model.onnx.age");
    encrypted::encrypt_file(&key, &model("mlp"), &sealed).unwrap();
    let server = repository.start(ModelControl::None).await;

    let lines = index(&server).await;
    let reason = |name: &str| {
        let line = lines.iter().find(|line| line.0 == name).unwrap();
        assert_eq!(line.2, if name == "good" { "READY" } else { "UNAVAILABLE" });
        line.3.clone()
    };
    for (name, expected) in [
        ("good", ""),
        ("cut", "not an ONNX model, or it was cut short"),
        ("strange", "the operator `Frobnicate`, which ONNX Runtime 1.31."),
        ("external", "cannot read external.bin"),
        ("empty", "expected model.onnx or model.onnx.age"),
        ("none", "there is no version to serve"),
        ("settings", "line 1: the field \"ensemble_scheduling\" is not supported"),
        ("sealed", "--use-model-key-provisioning"),
    ] {
        assert!(reason(name).contains(expected), "{name}: {}", reason(name));
    }
    let only = post(&server, "/v2/repository/index", r#"{"ready": true}"#).await.json();
    assert_eq!(only.as_array().unwrap().len(), 1);
    let folder = repository.path().to_str().unwrap();
    assert!(!format!("{lines:?}").contains(folder));
    for name in ["cut", "settings"] {
        let answer = get(&server, &format!("/v2/models/{name}")).await;
        assert_eq!(answer.error(), (503, "model-unavailable".into()));
        assert!(!String::from_utf8_lossy(&answer.body).contains(folder));
    }
    assert_eq!(get(&server, "/v2/health/ready").await.error(), (503, "model-unavailable".into()));
    let trouble = server.app.trouble().expect("the admin port says so, too");
    assert!(trouble.contains("cut") || trouble.contains("settings"), "{trouble}");
    let lenient = start_with(config("mlp", |settings| {
        repository.settings(settings, ModelControl::None);
        settings.strict_readiness = Some(false);
    }));
    assert_eq!(lenient.await.app.trouble(), None);
    assert_eq!(get(&server, "/v2/models/good/ready").await.head.status, 200);
    assert_eq!(server.attest().await.claims().models.len(), 1);
}

#[tokio::test]
async fn callers_load_and_unload_where_they_may() {
    let repository = Repository::new(&[("one", "mlp"), ("other", "two")]);
    let server = repository.start(ModelControl::Explicit).await;
    let control = |name: &str, verb: &str| format!("/v2/repository/models/{name}/{verb}");
    assert_eq!(post(&server, &control("one", "unload"), "").await.json(), json!({}));
    let unloaded = ("one".into(), "1".into(), "UNAVAILABLE".into(), "unloaded".into());
    assert_eq!(index(&server).await, [unloaded, ready("other", "1")]);
    assert_eq!(get(&server, "/v2/models/one").await.error(), (503, "model-unavailable".into()));
    // A model that was unloaded on purpose does not make the server unready.
    assert_eq!(get(&server, "/v2/health/ready").await.head.status, 200);
    assert_eq!(server.attest().await.claims().models.len(), 1);

    let harmless = r#"{"parameters": {"unload_dependents": false}}"#;
    assert_eq!(post(&server, &control("other", "unload"), harmless).await.head.status, 200);
    assert!(server.attest().await.claims().models.is_empty());
    for name in ["one", "other"] {
        assert_eq!(post(&server, &control(name, "load"), "{}").await.head.status, 200);
    }
    assert_eq!(index(&server).await, [ready("one", "1"), ready("other", "1")]);

    repository.add("new", 3, "scalar");
    assert_eq!(post(&server, &control("new", "load"), "").await.head.status, 200);
    assert_eq!(get(&server, "/v2/models/new").await.json()["versions"], json!(["3"]));
    for name in ["absent", "..", "."] {
        let answer = post(&server, &control(name, "load"), "").await;
        assert_eq!(answer.error(), (404, "model-not-found".into()), "{name}");
    }
    // A caller who may use one model sees no other, and changes none.
    let lines = ask_as("user", &server, "POST", "/v2/repository/index", "").await.json();
    assert_eq!(lines.as_array().unwrap().len(), 1, "{lines}");
    assert_eq!(lines[0]["name"], "other");
    for verb in ["load", "unload"] {
        let answer = ask_as("user", &server, "POST", &control("other", verb), "").await;
        assert_eq!(answer.error().0, 403);
    }
    let answer = ask_as("user", &server, "GET", "/v2/models/other/versions/9", "").await;
    assert!(!answer.json()["error"].as_str().unwrap().contains("one"), "{}", answer.json());
    let other = r#"{"parameters": {"config": "{}"}}"#;
    for body in [other, "[]", "{"] {
        let answer = post(&server, &control("new", "load"), body).await;
        assert_eq!(answer.error(), (400, "request-body-invalid".into()), "{body}");
    }
}

#[tokio::test]
async fn a_version_that_does_not_load_leaves_the_old_one_serving() {
    let repository = Repository::new(&[("m", "mlp")]);
    let server = repository.start(ModelControl::Explicit).await;
    let mut options = Options::default();
    options.auth_key = Some("operator".into());
    let client = server.client(options);
    let before = client.infer(None, row(), &[]).await.unwrap();
    repository.add("m", 2, "unknown_op");
    let load = "/v2/repository/models/m/load";
    let answer = post(&server, load, "").await;
    assert_eq!(answer.error(), (500, "model-unusable".into()));
    assert!(answer.json()["error"].as_str().unwrap().contains("version 2: "));
    let lines = index(&server).await;
    assert_eq!((&lines[0], lines[1].2.as_str()), (&ready("m", "1"), "UNAVAILABLE"));
    assert_eq!(client.infer(None, row(), &[]).await.unwrap(), before);

    // When a file is replaced by a bad one, what was loaded is served on, and the index says why.
    fs::remove_dir_all(repository.version("m", 2)).unwrap();
    fs::write(repository.version("m", 1).join("model.onnx"), b"half of a mod").unwrap();
    assert_eq!(post(&server, load, "").await.error(), (500, "model-unusable".into()));
    let lines = index(&server).await;
    assert!(
        lines.len() == 1 && lines[0].2 == "READY" && lines[0].3.contains("its files changed"),
        "{lines:?}"
    );
    assert_eq!(client.infer(None, row(), &[]).await.unwrap(), before);

    fs::copy(model("mlp"), repository.version("m", 1).join("model.onnx")).unwrap();
    assert_eq!(post(&server, load, "").await.head.status, 200);
    assert_eq!(index(&server).await, [ready("m", "1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_versions_are_served_without_dropping_a_request() {
    let repository = Repository::new(&[("m", "mlp"), ("other", "two")]);
    let server = Arc::new(repository.start(ModelControl::Poll).await);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let expected = server.client(Options::default()).infer(Some("m"), row(), &[]).await.unwrap();
    let ask = |chunked: bool| {
        let (server, stop, answered) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&answered));
        let expected = expected.clone();
        tokio::spawn(async move {
            let mut options = Options::default();
            options.chunked = chunked;
            let client = server.client(options);
            while !stop.load(SeqCst) {
                assert_eq!(client.infer(Some("m"), row(), &[]).await.unwrap(), expected);
                answered.fetch_add(1, SeqCst);
            }
        })
    };
    let asking = [ask(false), ask(false), ask(true)];
    for version in 2..6 {
        repository.add("m", version, "mlp");
        let version = version.to_string();
        // Older versions are no longer served: the policy serves the latest one.
        until_index(&server, |lines| lines == [ready("m", &version), ready("other", "1")]).await;
        let so_far = answered.load(SeqCst);
        crate::harness::until(|| answered.load(SeqCst) > so_far + 20).await;
    }
    stop.store(true, SeqCst);
    for task in asking {
        task.await.expect("a request was dropped");
    }
}

#[tokio::test]
async fn a_watched_folder_is_followed() {
    let repository = Repository::new(&[("a", "mlp")]);
    let server = repository.start(ModelControl::Poll).await;
    repository.add("b", 1, "two");
    until_index(&server, |lines| lines == [ready("a", "1"), ready("b", "1")]).await;
    fs::rename(repository.path().join("a"), repository.path().join(".a")).unwrap();
    until_index(&server, |lines| lines == [ready("b", "1")]).await;
    assert_eq!(get(&server, "/v2/models/a").await.error(), (404, "model-not-found".into()));
    // Another file comes under the same name and version.
    let replaced = repository.version("b", 1).join("model.onnx");
    fs::copy(model("scalar"), replaced.with_extension("partial")).unwrap();
    fs::rename(replaced.with_extension("partial"), &replaced).unwrap();
    let hash = Some(Digest(model_hash(&model("scalar")).unwrap()));
    tokio::time::timeout(PATIENCE, async {
        while server.attest().await.claims().models[0].sha256 != hash {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the claims never followed");
    assert_eq!(get(&server, "/v2/models/b").await.json()["inputs"][0]["shape"], json!([]));
}

#[tokio::test]
async fn locked_models_are_unlocked_one_by_one_beside_others() {
    let repository = Repository::new(&[("plain", "two"), ("m", "mlp")]);
    let (first, second) = (ModelKey::generate().unwrap(), ModelKey::generate().unwrap());
    for (name, version, source, key) in [("m", 2, "mlp", &first), ("sealed", 1, "external", &second)] {
        fs::create_dir_all(repository.version(name, version)).unwrap();
        let out = repository.version(name, version).join("model.onnx.age");
        encrypted::encrypt_file(key, &model(source), &out).unwrap();
    }
    let server = start_with(config("mlp", |settings| {
        repository.settings(settings, ModelControl::Poll);
        settings.use_model_key_provisioning = Some(true);
    }))
    .await;
    let states = |lines: &[(String, String, String, String)]| -> Vec<String> {
        lines.iter().map(|(name, version, state, _)| format!("{name}/{version} {state}")).collect()
    };
    let lines = index(&server).await;
    assert_eq!(states(&lines), ["m/2 UNAVAILABLE", "plain/1 READY", "sealed/1 UNAVAILABLE"]);
    assert!(lines[0].3.contains("locked"), "{lines:?}");
    assert_eq!(get(&server, "/v2/health/ready").await.error(), (503, "model-locked".into()));
    assert_eq!(server.app.trouble(), None, "its owner has to reach it");
    let answer = unlock(&server, "m", &second).await;
    assert_eq!(answer.error(), (400, "model-key-invalid".into()));
    let answer = unlock(&server, "plain", &first).await;
    assert_eq!(answer.error(), (409, "model-not-locked".into()));
    assert_eq!(unlock(&server, "sealed", &second).await.head.status, 200);
    assert_eq!(get(&server, "/v2/models/m").await.error(), (503, "model-locked".into()));
    assert_eq!(unlock(&server, "m/versions/2", &first).await.head.status, 200);
    assert_eq!(index(&server).await, [ready("m", "2"), ready("plain", "1"), ready("sealed", "1")]);

    // A new version that is locked does not end the one before until it is unlocked.
    fs::create_dir_all(repository.version("m", 3)).unwrap();
    fs::copy(
        repository.version("m", 2).join("model.onnx.age"),
        repository.version("m", 3).join("model.onnx.age"),
    )
    .unwrap();
    until_index(&server, |lines| {
        states(lines) == ["m/2 READY", "m/3 UNAVAILABLE", "plain/1 READY", "sealed/1 READY"]
    })
    .await;
    assert_eq!(get(&server, "/v2/models/m").await.json()["versions"], json!(["2"]));
    assert_eq!(unlock(&server, "m", &first).await.head.status, 200);
    assert_eq!(index(&server).await, [ready("m", "3"), ready("plain", "1"), ready("sealed", "1")]);
}

#[tokio::test]
async fn a_configuration_is_compared_with_its_model_and_followed() {
    let repository =
        Repository::new(&[("good", "mlp"), ("shape", "mlp"), ("name", "mlp"), ("warm", "gather")]);
    let port = |kind: &str, name: &str, dims: &str| {
        format!("{kind} [ {{ name: \"{name}\" data_type: TYPE_FP32 dims: {dims} }} ]\n")
    };
    let warm_up = |dims: &str| {
        let input = format!("value {{ data_type: TYPE_FP32 dims: {dims} zero_data: true }}");
        format!("model_warmup {{ name: \"w\" batch_size: 2 inputs {{ key: \"x\" {input} }} }}\n")
    };
    let batching = "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 100 }\n";
    let good = [batching, &port("input", "x", "[4]"), &port("output", "y", "[3]"), &warm_up("[4]")].concat();
    repository.config("good", &good);
    repository.config("shape", &[batching, &port("input", "x", "[5]")].concat());
    repository.config("name", &port("input", "image", "[-1, 4]"));
    repository.config("warm", &warm_up("[1]"));
    let server = repository.start(ModelControl::None).await;
    let lines = index(&server).await;
    let reasons: Vec<_> = lines.iter().map(|line| (line.0.as_str(), line.3.as_str())).collect();
    assert_eq!(reasons[0], ("good", ""), "{reasons:?}");
    assert!(
        reasons[1].1.contains("input \"image\" is FP32 [-1, 4]; the model has x FP32 [-1, 4]"),
        "{reasons:?}"
    );
    assert!(reasons[2].1.contains("input \"x\" is FP32 [-1, 5]"), "{reasons:?}");
    assert!(reasons[3].1.contains("the warm-up \"w\" failed"), "{reasons:?}");
}

#[test]
fn a_repository_without_anything_to_serve_is_an_error_unless_that_can_change() {
    let repository = Repository::new(&[]);
    let open = |control| {
        Models::open(&config("mlp", |settings| repository.settings(settings, control)), engine()).map(drop)
    };
    assert!(matches!(open(ModelControl::None), Err(OpenError::NothingServed { .. })));
    assert!(open(ModelControl::Poll).is_ok() && open(ModelControl::Explicit).is_ok());
    repository.add("broken", 1, "unknown_op");
    let error = open(ModelControl::None).unwrap_err().to_string();
    assert!(error.contains("; broken/1: ") && error.contains("Frobnicate"), "{error}");
    let absent = config("mlp", |settings| {
        repository.settings(settings, ModelControl::Poll);
        settings.model_repository = Some("/nowhere".into());
    });
    assert!(matches!(Models::open(&absent, engine()), Err(OpenError::Repository { .. })));
}

#[tokio::test]
async fn a_client_that_pinned_a_model_looks_again_and_refuses_before_it_sends() {
    let repository = Repository::new(&[("m", "mlp"), ("other", "two")]);
    let server = repository.start(ModelControl::Poll).await;
    let hash = model_hash(&model("mlp")).unwrap();
    let pinned = crate::protected::client(&server, hash);
    let before = pinned.infer(Some("m"), row(), &[]).await.unwrap();
    // The pinned hash is that of `m`: it vouches for no other model, though the server claims that one, too.
    let error = pinned.metadata(Some("other")).await.unwrap_err();
    assert!(matches!(error, ClientError::Model(ModelRefused::Hash { .. })), "{error}");

    // This request is sealed for the model that is about to be replaced.
    let ask = r#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;
    let key = server.key(Kem::XWing).await;
    let (kept, _) = seal(&key, &head("POST", "/v2/models/m/infer"), ask.as_bytes());
    let file = repository.version("m", 1).join("model.onnx");
    fs::copy(model("two"), file.with_extension("partial")).unwrap();
    fs::rename(file.with_extension("partial"), &file).unwrap();
    let replaced = Some(Digest(model_hash(&model("two")).unwrap()));
    tokio::time::timeout(PATIENCE, async {
        while server.attest().await.claims().models[0].sha256 != replaced {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await
    .expect("the claims never followed");

    let refused = server.post(SEALED, kept).await;
    assert_ne!(refused.status(), 200, "what was sealed for the old set is opened by nobody");
    let error = pinned.infer(Some("m"), row(), &[]).await.unwrap_err();
    assert!(matches!(error, ClientError::NotTrusted(_)), "{error}");
    // When the pinned content is added beside the other one, as another version, the client finds it again.
    repository.add("m", 2, "mlp");
    repository.config("m", "version_policy { all {} }");
    until_index(&server, |lines| lines == [ready("m", "1"), ready("m", "2"), ready("other", "1")]).await;
    assert_eq!(pinned.infer(Some("m"), row(), &[]).await.unwrap(), before);
}

/// Whether a request may run on an HTTP thread depends on how long its own model's requests took, not others'.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_leaves_the_only_http_thread_to_serve_brief_ones_of_another_model() {
    let repository = Repository::new(&[("brief", "mlp"), ("long", "count")]);
    let server = start_with(config("mlp", |settings| {
        repository.settings(settings, ModelControl::None);
        (settings.num_http_threads, settings.num_sessions) = (Some(1), Some(2));
    }))
    .await;
    let row = r#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;
    let brief = async || {
        let answer = server.ask(&head("POST", "/v2/models/brief/infer"), row.as_bytes()).await;
        assert_eq!(answer.head.status, 200, "{:?}", answer.json());
    };
    for _ in 0..20 {
        brief().await;
    }
    let long = {
        let (key, path) = (server.key(Kem::X25519).await, "/v2/models/long/infer");
        let (sealed, opener) = seal(&key, &head("POST", path), count_to(LONG).as_bytes());
        let answered = server.post(SEALED, sealed);
        async { Answer::open(answered.await, opener) }
    };
    tokio::pin!(long);
    let metrics = server.app.metrics();
    tokio::select! {
        _ = &mut long => panic!("answered too soon to see anything"),
        () = until(|| metrics.load.in_flight.load(Relaxed) == 1) => {}
    }
    brief().await;
    assert_eq!(metrics.load.in_flight.load(Relaxed), 1, "the long one still runs");
    assert_eq!(long.await.json()["outputs"][0]["data"], json!([LONG as f64]));
}
