//! The program itself: flags, signals, exit status, what it logs.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, Command, Stdio},
};

use super::harness::*;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_confonnx-server"));
    command
        .env_clear()
        .arg("--onnxruntime-library")
        .arg(library())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

fn serving(flags: &[&str]) -> (Child, BufReader<ChildStderr>, String) {
    let mut child = command()
        .arg("--model-path")
        .arg(model("mlp"))
        .args(["--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0", "--debug"])
        .args(flags)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("Never use it for real data") {
        assert!(log.read_line(&mut seen).unwrap() > 0, "it ended: {seen}");
    }
    (child, log, seen)
}

#[test]
fn it_says_what_it_serves_and_stops_on_sigterm() {
    let (mut child, mut log, start) = serving(&[]);
    let hash = confonnx_model::model_hash(&model("mlp")).unwrap();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    for part in ["model mlp", &hash, "TEE insecure", "(x-wing)", "http://127.0.0.1:", "INSECURE"] {
        assert!(start.contains(part), "no {part} in {start}");
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    let mut end = String::new();
    log.read_to_string(&mut end).unwrap();
    assert!(status.success() && end.contains("stopped"), "{status} {end}");
}

#[test]
fn nobody_else_can_read_its_memory() {
    let (mut child, _log, start) = serving(&[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap().trim();
    let may_lock = limits.lines().any(|line| {
        line.starts_with("Max locked memory")
            && line.split_whitespace().filter(|word| *word == "unlimited").count() == 2
    });
    // A process with the capability needs no limit, unless the capability is of a user namespace alone.
    let users = std::fs::read_to_string("/proc/self/uid_map").unwrap();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim();
    let has_capability = u64::from_str_radix(capabilities, 16).unwrap() >> CAP_IPC_LOCK & 1 == 1
        && users.split_whitespace().eq(["0", "0", "4294967295"]);
    if may_lock || has_capability {
        assert!(start.contains("requests is locked") && locked != "0 kB", "{locked}: {start}");
    } else {
        assert!(start.contains("LimitMEMLOCK=infinity") && locked == "0 kB", "{locked}: {start}");
    }
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(cores.split_whitespace().filter(|word| *word == "0").count() == 2, "{cores}");
    child.kill().unwrap();
    child.wait().unwrap();
}

const CAP_IPC_LOCK: u32 = 14;

#[test]
fn a_hangup_reads_anew_who_may_call_and_keeps_what_was_if_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("auth.toml");
    let text = |token: &str| {
        let hash: String =
            <sha2::Sha256 as sha2::Digest>::digest(token).iter().map(|b| format!("{b:02x}")).collect();
        format!("[[caller]]\nname = \"lab\"\ntoken_sha256 = \"{hash}\"\nmodels = [\"*\"]\n")
    };
    std::fs::write(&policy, text("first")).unwrap();
    let (mut child, mut log, start) =
        serving(&["--auth-file", policy.to_str().unwrap(), "--log-format", "json"]);
    let claim = |text: &str| text.split("bearer").nth(1).unwrap().split('"').next().unwrap().to_owned();
    for line in start.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            line["time"].is_string() && line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
    let pid = rustix::process::Pid::from_child(&child);
    let mut until = |expected: &str| {
        let mut line = String::new();
        while !line.contains(expected) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
        }
        line
    };
    let first = claim(&until("client authentication"));
    let mut hangup = |expected: &str| {
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
        until(expected)
    };
    std::fs::write(&policy, "callers = 7").unwrap();
    hangup("who may call stays as it was");
    std::fs::write(&policy, text("second")).unwrap();
    assert_ne!(claim(&hangup("read anew")), first);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn settings_can_be_checked_without_a_tee_and_without_serving() {
    let check = |flags: &[&str]| {
        let output =
            command().arg("--check").arg("--model-path").arg(model("mlp")).args(flags).output().unwrap();
        let [out, log] =
            [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (output.status.code(), out, log)
    };
    let hash = confonnx_model::model_hash(&model("mlp")).unwrap();
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let (status, out, log) = check(&[]);
    assert!(status == Some(0) && out.contains(&hash) && out.contains("are good"), "{out} {log}");
    for (flags, expected) in [
        (["--auth-file", "/nowhere/auth.toml"], "/nowhere/auth.toml"),
        (["--auth-key-file", "/nowhere/keys"], "/nowhere/keys"),
    ] {
        let (status, _, log) = check(&flags);
        assert!(status == Some(1) && log.contains(expected), "{log}");
    }
}

#[test]
fn the_short_help_has_what_most_need_and_the_long_one_sections() {
    let help = |flag: &str| String::from_utf8(command().arg(flag).output().unwrap().stdout).unwrap();
    let (short, long) = (help("-h"), help("--help"));
    assert!(short.contains("--model-path") && !short.contains("--replay-capacity"), "{short}");
    assert!(short.lines().count() < 60, "{short}");
    for part in ["Models:", "Keys:", "Callers:", "Running and limits:", "--replay-capacity"] {
        assert!(long.contains(part), "no {part} in {long}");
    }
    assert!(!long.contains("Others:"), "every flag has a section");
}

#[test]
fn without_a_tee_it_refuses_to_start() {
    // The TEE is named, for this machine may have another.
    let output = command().arg("--model-path").arg(model("mlp")).args(["--tee", "nitro"]).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(log.contains("--tee nitro was asked for, but there is no"), "{log}");
    let output = command().arg("--model-path").arg(model("mlp")).args(["--tee", "nitro", "--debug"]).output();
    let log = String::from_utf8_lossy(&output.unwrap().stderr).into_owned();
    assert!(log.contains("give one of them"), "{log}");
}

#[test]
fn wrong_settings_have_their_own_status() {
    for (flags, expected) in [
        (&[][..], "no model-path is given"),
        (&["--config", "/nowhere.toml"], "/nowhere.toml"),
        (&["--http-port", "x"], "--http-port"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        let output = command().args(flags).output().unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(expected), "{log}");
    }
    let output = command().env("CONFONNX_HTTP_PORT", "tcp://10.0.0.7:8888").output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("Kubernetes") && log.contains("enableServiceLinks"), "{log}");
    let help = command().arg("--help").output().unwrap();
    assert!(help.status.success() && String::from_utf8_lossy(&help.stdout).contains("CONFONNX_MODEL_PATH"));
}

#[test]
fn a_cause_is_said_once() {
    let folder = tempfile::tempdir().unwrap();
    let auth = folder.path().join("auth.toml");
    std::fs::write(&auth, "x = [").unwrap();
    for (model_path, flags, cause) in [
        ("nowhere.onnx".into(), vec![], "No such file or directory"),
        (model("mlp"), vec!["--auth-file", auth.to_str().unwrap()], "unclosed array"),
    ] {
        let output = command()
            .arg("--model-path")
            .arg(&model_path)
            .args(["--debug", "--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0"])
            .args(flags)
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), log.matches(cause).count()), (Some(1), 1), "{log}");
    }
}

#[test]
fn variables_set_what_flags_do_not_and_misspelled_ones_are_reported() {
    let mut child = command()
        .env("CONFONNX_MODEL_PATH", model("mlp"))
        .env("CONFONNX_MODEL_NAME", "from-variable")
        .env("CONFONNX_HTTP_PORT", "0")
        .env("CONFONNX_ADMIN_PORT", "0")
        .env("CONFONNX_SIMULATION", "true")
        .env("CONFONNX_MODEL_NAM", "x")
        .args(["--model-name", "from-flag"])
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains("Never use it") {
        assert!(log.read_line(&mut seen).unwrap() > 0, "it ended: {seen}");
    }
    assert!(seen.contains("model from-flag") && seen.contains("CONFONNX_MODEL_NAM is set"), "{seen}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn systemd_is_told_when_requests_are_answered_and_when_no_more_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    let told = || {
        let mut bytes = [0; 64];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let mut child = command()
        .env("NOTIFY_SOCKET", &path)
        .arg("--model-path")
        .arg(model("mlp"))
        .args(["--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0", "--debug"])
        .spawn()
        .unwrap();
    assert_eq!(told(), "READY=1\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(told(), "STOPPING=1\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_hangup_ends_nothing() {
    let (mut child, mut log, _) = serving(&[]);
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = child.wait().unwrap();
    let mut end = String::new();
    log.read_to_string(&mut end).unwrap();
    assert!(status.success() && end.contains("stopped"), "{status} {end}");
}

#[test]
fn a_peer_policy_that_is_not_there_is_said_at_once() {
    let output = command()
        .arg("--model-path")
        .arg(model("mlp"))
        .args(["--address", "127.0.0.1", "--http-port", "0", "--admin-port", "0", "--debug"])
        .args(["--key-provider", "peer", "--peers", "http://127.0.0.1:9", "--peer-policy", "/nowhere.toml"])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && log.contains("/nowhere.toml"), "{log}");
}
