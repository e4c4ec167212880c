//! Models of a real server, listed, loaded and unloaded: `confonnx-server` as it was built beside the command.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{confonnx, stderr, stdout};

const PATIENCE: Duration = Duration::from_secs(60);

/// A server in explicit model control, with one caller who may manage its models and one who may not.
pub(crate) struct Server {
    process: Child,
    pub(crate) url: String,
    folder: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start(models: &[(&str, &str)]) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_confonnx")).with_file_name("confonnx-server");
        assert!(
            program.is_file(),
            "no {}: run `cargo build -p confonnx-server`, or the tests of the workspace",
            program.display()
        );
        let folder = tempfile::tempdir().unwrap();
        for (name, source) in models {
            add(folder.path(), name, source);
        }
        let callers = [
            caller(folder.path(), "operator", "may = [\"infer\", \"manage\"]"),
            caller(folder.path(), "user", "models = [\"two\"]"),
        ];
        fs::write(folder.path().join("auth.toml"), callers.concat()).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = Command::new(program)
            .args(["--debug", "--address", "127.0.0.1", "--admin-port", "0", "--model-control", "explicit"])
            .args(["--num-sessions", "1", "--http-port", &port.to_string()])
            .arg("--onnxruntime-library")
            .arg(library())
            .arg("--model-repository")
            .arg(folder.path().join("models"))
            .arg("--auth-file")
            .arg(folder.path().join("auth.toml"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut server = Self { process, url: format!("http://127.0.0.1:{port}"), folder };
        server.wait(port);
        server
    }

    fn wait(&mut self, port: u16) {
        let start = Instant::now();
        while !healthy(port) {
            let ended = self.process.try_wait().unwrap();
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "{ended:?}:\n{}", log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Runs a command against this server as `caller`.
    fn run(&self, caller: &str, args: &[&str]) -> Output {
        let token = self.folder.path().join(caller);
        let server =
            ["--url", &self.url, "--enclave-allow-debug", "--auth-key-file", token.to_str().unwrap()];
        confonnx(&[args, &server].concat())
    }

    /// What the server says of its models to `caller`: name, version, state, reason.
    fn models(&self, caller: &str) -> Value {
        let output = self.run(caller, &["models", "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `CONFONNX_ORT_LIB`, else where `scripts/fetch-onnxruntime` puts it.
fn library() -> PathBuf {
    let fetched = || workspace().join(".cache/onnxruntime/libonnxruntime.so.1.31.1");
    let path = std::env::var_os("CONFONNX_ORT_LIB").map_or_else(fetched, PathBuf::from);
    assert!(path.is_file(), "no ONNX Runtime at {}: run scripts/fetch-onnxruntime", path.display());
    path
}

fn add(folder: &Path, name: &str, source: &str) {
    let version = folder.join("models").join(name).join("1");
    fs::create_dir_all(&version).unwrap();
    let source = workspace().join(format!("crates/confonnx-engine/tests/data/{source}.onnx"));
    fs::copy(source, version.join("model.onnx")).unwrap();
}

/// Makes a token for `name` in a file of that name; the caller's lines of the server's auth file.
fn caller(folder: &Path, name: &str, rights: &str) -> String {
    let made = stdout(&confonnx(&["create-token"]));
    let word = |label: &str| made.lines().find_map(|line| line.strip_prefix(label)).unwrap().trim();
    fs::write(folder.join(name), word("token ")).unwrap();
    format!("[[caller]]\nname = \"{name}\"\ntoken_sha256 = \"{}\"\n{rights}\n", word("token_sha256 "))
}

fn healthy(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer| answer.ends_with("Healthy"))
}

fn line(name: &str, state: &str, reason: &str) -> Value {
    json!({ "name": name, "version": "1", "state": state, "reason": reason })
}

#[test]
fn models_are_listed_loaded_and_unloaded() {
    let server = Server::start(&[("one", "mlp"), ("two", "two")]);
    let table = stdout(&server.run("operator", &["models"]));
    assert_eq!(table, "name  version  state  reason\none   1        READY\ntwo   1        READY\n");

    let unloaded = server.run("operator", &["unload", "one"]);
    assert_eq!((stdout(&unloaded).as_str(), unloaded.status.code()), ("Unloaded: one\n", Some(0)));
    let found = server.models("operator");
    assert_eq!(found, json!([line("one", "UNAVAILABLE", "unloaded"), line("two", "READY", "")]));
    let table = stdout(&server.run("operator", &["models"]));
    assert!(table.contains("one   1        UNAVAILABLE  unloaded\n"), "{table}");
    // The server refuses requests to the unloaded model, and not only says so.
    let input = server.folder.path().join("in.json");
    fs::write(&input, r#"{"x": {"type": "float32", "values": [[1, 2, 3, 4]]}}"#).unwrap();
    let predict = ["predict", "--model", "one", "--json-in", input.to_str().unwrap()];
    let refused = server.run("operator", &predict);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("model-unavailable"), "{}", stderr(&refused));

    let loaded = server.run("operator", &["load", "one"]);
    assert_eq!((stdout(&loaded).as_str(), loaded.status.code()), ("Loaded: one\n", Some(0)));
    add(server.folder.path(), "new", "scalar");
    assert_eq!(server.run("operator", &["load", "new"]).status.code(), Some(0));
    let found = server.models("operator");
    assert_eq!(found, json!(["new", "one", "two"].map(|name| line(name, "READY", ""))));
    assert_eq!(server.run("operator", &predict).status.code(), Some(0));
}

#[test]
fn who_may_not_is_told_and_sees_no_other_model() {
    let server = Server::start(&[("one", "mlp"), ("two", "two")]);
    assert_eq!(server.models("user"), json!([line("two", "READY", "")]));
    for command in ["load", "unload"] {
        let refused = server.run("user", &[command, "two"]);
        assert_eq!((refused.status.code(), stdout(&refused)), (Some(1), String::new()));
        assert!(stderr(&refused).contains("status 403"), "{}", stderr(&refused));
    }
    let absent = server.run("operator", &["load", "absent"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("model-not-found"), "{}", stderr(&absent));
    assert_eq!(server.models("operator"), json!([line("one", "READY", ""), line("two", "READY", "")]));

    // A client that expects another server sends this one no request.
    let other = ["unload", "one", "--url", &server.url, "--enclave-hash", &"ab".repeat(32)];
    let refused = confonnx(&other);
    assert_eq!(refused.status.code(), Some(4), "{}", stderr(&refused));
    assert_eq!(confonnx(&["models", "--url", &server.url]).status.code(), Some(2));
    assert_eq!(server.models("operator")[0]["state"], "READY");
}

#[test]
fn calls_that_reach_nobody_fail() {
    let nowhere = ["--url", "http://127.0.0.1:1", "--enclave-allow-debug"];
    for command in [&["models"][..], &["load", "one"], &["unload", "one"]] {
        let failed = confonnx(&[command, &nowhere, &["--retries", "1"]].concat());
        assert_eq!(failed.status.code(), Some(1));
        assert!(stderr(&failed).contains("no answer from http://127.0.0.1:1"), "{}", stderr(&failed));
    }
    let ca = ["models", "--url", "https://127.0.0.1:1", "--enclave-allow-debug", "--ca-file", "/nowhere.pem"];
    let failed = confonnx(&ca);
    assert_eq!(failed.status.code(), Some(1));
    assert!(stderr(&failed).contains("/nowhere.pem"), "{}", stderr(&failed));
}

#[test]
fn the_proxy_of_the_environment_is_asked_or_refused() {
    let models = ["models", "--url", "http://models.example", "--enclave-allow-debug", "--retries", "0"];
    let asked = |variable: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_confonnx"));
        let done = command.args(models).args(more).env("HTTP_PROXY", variable).output().unwrap();
        assert_eq!(done.status.code(), Some(1));
        stderr(&done)
    };
    let error = asked("http://127.0.0.1:1", &[]);
    assert!(error.contains("no connection through the proxy http://127.0.0.1:1/: "), "{error}");
    let error = asked("socks5://127.0.0.1:1", &[]);
    assert!(error.contains("HTTP_PROXY: expected an HTTP proxy"), "{error}");
    let error = asked("http://127.0.0.1:1", &["--proxy", "http://127.0.0.1:2"]);
    assert!(error.contains("no connection through the proxy http://127.0.0.1:2/: "), "{error}");
    let error = asked("socks5://127.0.0.1:1", &["--proxy", "none"]);
    assert!(error.contains("no answer from http://models.example") && !error.contains("proxy"), "{error}");
}
