//! Where models run: what their processes have and cannot do, and what becomes of their requests when they end; and who
//! else is served meanwhile.

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use confonnx_attest::{Digest, Expectations, Policy, produce::Attester};
use confonnx_client::{Client, Options};
use confonnx_engine::Engine;
use confonnx_protocol::Kem;
use confonnx_tensor::{DataType, Shape, Tensor};
use sha2::{Digest as _, Sha256};
use tokio::{runtime::Builder, task::JoinSet};

use super::{
    harness::*,
    memory::{Server, count_in},
};

/// The process ids of the children of `parent`.
fn children(parent: u32) -> Vec<u32> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // State and parent follow the name, which may have anything in it.
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_ascii_whitespace().nth(1).is_some_and(|found| found == parent.to_string())
    };
    processes.filter(is_child).collect()
}

fn client(server: &Server, auth_key: Option<&str>) -> Client {
    let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
    let mut options = Options::default();
    options.auth_key = auth_key.map(Into::into);
    Client::new(&server.url, policy, options).unwrap()
}

async fn count(running: &Running, n: i64) -> Answer {
    running.ask(&head("POST", "/v2/models/count/infer"), count_to(n).as_bytes()).await
}

#[tokio::test]
async fn a_run_without_end_is_ended_and_the_next_is_answered() {
    let running = start_with(config("count", |settings| settings.inference_timeout = Some(1))).await;
    let answer = count(&running, i64::MAX / 2).await;
    assert_eq!(answer.error(), (504, "inference-timeout".to_owned()));
    assert_eq!(count(&running, 3).await.head.status, 200);
}

/// A version that is no longer served answers whom it let in.
#[tokio::test]
async fn a_model_that_is_dropped_answers_what_it_was_asked() {
    let onnx = fs::read(model("count")).unwrap();
    let load = move || engine().load("count", &onnx, &one_session(), Duration::from_secs(60)).unwrap();
    let loaded = tokio::task::spawn_blocking(load).await.unwrap();
    let n = Tensor::new(DataType::Int64, Shape::new([]).unwrap(), (LONG / 5).to_le_bytes().to_vec()).unwrap();
    let running = loaded.reserve().await.unwrap().unwrap().run(&[("n".into(), n)], &[], false).unwrap();
    drop(loaded);
    assert!(running.answered().await.read().is_ok());
}

/// A process whose run stops when it is told to serves on, also if the request names the outputs that it wants.
#[tokio::test]
async fn a_run_that_stops_when_it_is_told_costs_no_process() {
    let running = start_with(config("count", |settings| settings.inference_timeout = Some(1))).await;
    let n = i64::MAX / 2;
    let body = format!(
        r#"{{"inputs": [{{"name": "n", "shape": [], "datatype": "INT64", "data": [{n}]}}], "outputs": [{{"name": "sum"}}]}}"#
    );
    let answer = running.ask(&head("POST", "/v2/models/count/infer"), body.as_bytes()).await;
    assert_eq!(answer.error(), (504, "inference-timeout".to_owned()));
    let page = running.app.metrics_page();
    for reason in ["crash", "timeout"] {
        let line = format!(
            "confonnx_model_processes_ended_total{{model=\"count\",version=\"1\",reason=\"{reason}\"}} 0"
        );
        assert!(page.lines().any(|found| found == line), "no {line} in {page}");
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_ended() {
    // With 20 brief runs before, the server expects this one to be brief, too.
    for brief in [0, 20] {
        let running = start("count").await;
        for n in 0..brief {
            assert_eq!(count(&running, n).await.head.status, 200);
        }
        let asked = count(&running, i64::MAX / 2);
        // The only session would be busy for ever if nobody ended this run.
        assert!(tokio::time::timeout(Duration::from_millis(500), asked).await.is_err());
        assert_eq!(count(&running, 3).await.head.status, 200);
    }
}

/// One session has brief runs, and among them some that take longer than was foreseen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_a_model_keeps_nobody_from_its_answer() {
    let running = Arc::new(start("count").await);
    let mut asking = JoinSet::new();
    for client in 0..8 {
        let running = Arc::clone(&running);
        asking.spawn(async move {
            for request in 0..30 {
                let n = if (client + request) % 7 == 0 { LONG / 50 } else { 3 };
                assert_eq!(count(&running, n).await.head.status, 200);
            }
        });
    }
    while let Some(ended) = tokio::time::timeout(PATIENCE, asking.join_next()).await.expect("it stands still")
    {
        ended.unwrap();
    }
}

/// A request that waited behind the run with which the process ends was not run: its client asks again, and is
/// answered.
#[tokio::test]
async fn a_process_that_ends_costs_the_requests_it_ran_and_is_started_again() {
    let server = Server::start(&["--model-path", model("count").to_str().unwrap()]);
    let [first] = children(server.pid())[..] else { panic!("one model, one process") };
    let number =
        |n: i64| Tensor::new(DataType::Int64, Shape::new([]).unwrap(), n.to_le_bytes().to_vec()).unwrap();
    let ask = |n: i64| {
        let client = client(&server, None);
        async move { client.infer(Some("count"), vec![("n".to_owned(), number(n))], &[]).await.map(drop) }
    };
    // After so many brief runs the server lets others go behind a run, as it does only if that is likely to be brief.
    for _ in 0..20 {
        ask(3).await.unwrap();
    }
    let asked = tokio::spawn(ask(i64::MAX / 2));
    let cpu = || {
        let stat = fs::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default().to_owned();
        after.split_ascii_whitespace().nth(11).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or_default()
    };
    let before = cpu();
    until(|| cpu() > before + 20).await;
    let behind = tokio::spawn(ask(3));
    let before = cpu();
    until(|| cpu() > before + 20).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::ABORT).unwrap();
    let error = asked.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("inference-crashed") || error.contains("process ended"), "{error}");
    behind.await.unwrap().unwrap();

    ask(3).await.unwrap();
    let [second] = children(server.pid())[..] else { panic!("one model, one process") };
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_process_has_its_own_tensors_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["identity_uint8", "identity_int64"] {
        let version = folder.path().join("models").join(name).join("1");
        fs::create_dir_all(&version).unwrap();
        fs::copy(model(name), version.join("model.onnx")).unwrap();
    }
    let token = "a-token-that-is-nowhere-else-77ac";
    let auth = folder.path().join("auth.toml");
    let hash = Digest(Sha256::digest(token).into());
    fs::write(&auth, format!("[[caller]]\nname = \"a\"\ntoken_sha256 = \"{hash}\"\n")).unwrap();
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let models = text(&folder.path().join("models"));
    let server = Server::start(&["--model-repository", &models, "--auth-file", &text(&auth)]);
    let client = client(&server, Some(token));
    let metadata = client.metadata(Some("identity_uint8")).await.unwrap();
    let pattern = b"tensor-that-is-nowhere-else-3e10".to_vec();
    let dims: Vec<u64> =
        metadata.inputs[0].shape.iter().map(|dim| u64::try_from(*dim).unwrap_or(32)).collect();
    let shape = Shape::new(dims).unwrap();
    let data: Vec<u8> = pattern.iter().copied().cycle().take(shape.elements()).collect();
    let input = Tensor::new(DataType::Uint8, shape, data.clone()).unwrap();
    let name = metadata.inputs[0].name.clone();
    client.infer(Some("identity_uint8"), vec![(name, input)], &[]).await.unwrap();

    let boxes = children(server.pid());
    assert_eq!(boxes.len(), 2, "one for each model");
    let needles: [&[u8]; 3] = [&data, token.as_bytes(), &hash.0];
    let found: Vec<_> =
        boxes.iter().map(|pid| count_in(*pid, &needles).expect("CI has to be able to read it")).collect();
    for found in &found {
        assert_eq!(found[1..], [0, 0], "the token, and its hash");
    }
    // That the tensor is in the process of its own model shows that the search finds what is there.
    let with = found.iter().filter(|found| found[0] > 0).count();
    assert_eq!(with, 1, "the tensor is in the process of its model alone: {found:?}");
    assert!(count_in(server.pid(), &needles).unwrap()[2] > 0, "the search finds nothing at all");

    for pid in boxes {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        assert!(status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"), "{status}");
        assert_eq!(fs::read(format!("/proc/{pid}/environ")).unwrap(), b"");
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let to = text(&fs::read_link(fd.unwrap().path()).unwrap());
            let ours = ["socket:[", "/memfd:tensors", "anon_inode:[eventfd]", "/dev/null"]
                .iter()
                .any(|start| to.starts_with(start));
            assert!(ours, "it has {to}");
        }
    }
}

#[test]
fn without_debug_another_library_or_a_loaders_variable_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("libonnxruntime.so");
    fs::write(&other, b"\x7fELF\0VERS_1.31.1\0").unwrap();
    let start = |variable: &str, flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_confonnx-server"))
            .env_clear()
            .env(variable, "1")
            .arg("--onnxruntime-library")
            .arg(library())
            .args(["--model-path", model("mlp").to_str().unwrap()])
            .args(flags)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for variable in ["LD_BIND_NOW", "ORT_SOMETHING"] {
        for flags in [&[][..], &["--check"]] {
            let (started, log) = start(variable, flags);
            assert!(!started && log.contains(&format!("{variable} is set")), "{flags:?}: {log}");
        }
    }
    let config = config("mlp", |settings| {
        settings.debug = Some(false);
        settings.onnxruntime_library = Some(other.clone());
    });
    let error = confonnx_server::models::open_engine(&config, Path::new("/nowhere")).unwrap_err().to_string();
    assert!(error.contains("expected fc44112f") || error.contains("expected 8aa3b76b"), "{error}");
}

/// After brief requests a long one takes no thread from the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_after_brief_ones_leaves_a_thread_to_serve() {
    leaves_a_thread_to_serve(engine()).await;
}

/// What runs in this process runs on a worker, so that one HTTP thread is enough for all others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_request_of_a_model_in_this_process_leaves_the_only_http_thread_to_serve() {
    leaves_a_thread_to_serve(engine_in_process()).await;
}

async fn leaves_a_thread_to_serve(engine: &'static Engine) {
    let mut config = config("count", |settings| settings.num_http_threads = Some(1));
    config.sessions = 2;
    // The server has threads of its own, so that this client's tasks do not wait behind the server's.
    let serving = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let source = Attester::insecure(Digest([7; 32]));
    let server = serving.spawn(start_by(config, source, engine)).await.unwrap();
    let key = server.key(Kem::X25519).await;
    let request = |n| seal(&key, &head("POST", "/v2/models/count/infer"), count_to(n).as_bytes());
    for _ in 0..20 {
        let (sealed, opener) = request(3);
        Answer::open(server.post(SEALED, sealed).await, opener);
    }
    let (sealed, opener) = request(LONG);
    let long = server.post(SEALED, sealed);
    tokio::pin!(long);
    let metrics = server.app.metrics();
    tokio::select! {
        _ = &mut long => panic!("answered too soon to see anything"),
        () = until(|| metrics.load.in_flight.load(Relaxed) == 1) => {}
    }
    assert_eq!(server.get("/").await.0, 200);
    server.attest().await;
    let (sealed, brief) = request(4);
    assert_eq!(
        Answer::open(server.post(SEALED, sealed).await, brief).json()["outputs"][0]["data"],
        serde_json::json!([4.0])
    );
    assert_eq!(metrics.load.in_flight.load(Relaxed), 1, "the long one still runs");
    assert_eq!(
        Answer::open(long.await, opener).json()["outputs"][0]["data"],
        serde_json::json!([LONG as f64])
    );
    serving.shutdown_background();
}
