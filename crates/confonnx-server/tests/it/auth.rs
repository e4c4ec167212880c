//! Who may call, through the seal.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use confonnx_attest::Digest;
use confonnx_client::{ClientError, Options, TokenSource};
use confonnx_protocol::bhttp::RequestHead;
use confonnx_server::config::Config;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::harness::*;

const BODY: &[u8] =
    br#"{"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}"#;

fn hash(text: impl AsRef<[u8]>) -> Digest {
    Digest(Sha256::digest(text).into())
}

fn vectors() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/jwt")
}

/// The token `name` of the vectors.
fn jwt(name: &str) -> String {
    let cases: Value = serde_json::from_slice(&fs::read(vectors().join("cases.json")).unwrap()).unwrap();
    let case = cases.as_array().unwrap().iter().find(|case| case["name"] == name).unwrap();
    case["token"].as_str().unwrap().into()
}

/// Settings with an authentication file of this text.
fn with_policy(folder: &Path, text: &str) -> Config {
    let path = folder.join("auth.toml");
    fs::write(&path, text).unwrap();
    config("mlp", |settings| settings.auth_file = Some(path))
}

fn with_token(mut head: RequestHead, token: &str) -> RequestHead {
    head.fields.push("authorization", format!("Bearer {token}"));
    head
}

fn infer(model: &str, token: &str) -> RequestHead {
    with_token(head("POST", &format!("/v2/models/{model}/infer")), token)
}

const OIDC: &str = r#"
    [oidc]
    issuer = "https://issuer.example/realms/lab"
    audience = "confonnx"
"#;

#[tokio::test]
async fn each_caller_is_held_to_its_permissions() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        r#"
        [[caller]]
        name = "all"
        token_sha256 = "{}"

        [[caller]]
        name = "other"
        token_sha256 = "{}"
        models = ["fraud-*"]

        [[caller]]
        name = "owner"
        token_sha256 = "{}"
        may = ["unlock"]

        [[caller]]
        name = "slow"
        token_sha256 = "{}"
        requests_per_minute = 1
        burst = 2
        "#,
        hash("all-token"),
        hash("other-token"),
        hash("owner-token"),
        hash("slow-token")
    );
    let server = start_with(with_policy(folder.path(), &text)).await;
    let claimed = server.attest().await.claims().client_auth.clone();
    assert_eq!(claimed.kind, "bearer");
    let manifest = format!("confonnx auth policy v1\n{}  auth_file\n", hash(&text));
    assert_eq!(claimed.policy_sha256, Some(hash(manifest)));

    for (token, model, expected) in [
        ("all-token", "mlp", (200, "")),
        ("all-token", "absent", (404, "model-not-found")),
        ("other-token", "mlp", (403, "forbidden")),
        ("other-token", "absent", (403, "forbidden")),
        ("other-token", "fraud-1", (404, "model-not-found")),
        ("owner-token", "mlp", (403, "forbidden")),
        ("nobody", "mlp", (401, "unauthorized")),
    ] {
        let answer = server.ask(&infer(model, token), BODY).await;
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()), "{token} {model}");
        let challenge = match expected.0 {
            401 => "Bearer error=\"invalid_token\"",
            403 => "Bearer error=\"insufficient_scope\"",
            _ => "",
        };
        assert!(answer.field("www-authenticate").starts_with(challenge), "{token} {model}");
        // A caller who may not use the model learns neither its name nor that there is another one.
        if token == "other-token" {
            let text = answer.json()["error"].to_string();
            assert_eq!(text.contains("mlp"), model == "mlp", "{text}");
        }
    }
    // Two requests that differ only in whether the model exists.
    let (there, absent) = (
        server.ask(&infer("mlp", "other-token"), BODY).await,
        server.ask(&infer("abc", "other-token"), BODY).await,
    );
    assert_eq!(
        there.json()["error"].as_str().unwrap().replace("mlp", "abc"),
        absent.json()["error"].as_str().unwrap()
    );
    let key = |token| with_token(head("POST", "/v2/models/mlp/key"), token);
    assert_eq!(server.ask(&key("all-token"), b"").await.error(), (403, "forbidden".into()));
    assert_eq!(server.ask(&key("owner-token"), b"").await.error(), (400, "model-key-invalid".into()));

    for _ in 0..2 {
        assert_eq!(server.ask(&infer("mlp", "slow-token"), BODY).await.head.status, 200);
    }
    let answer = server.ask(&infer("mlp", "slow-token"), BODY).await;
    assert_eq!(answer.error(), (429, "rate-limited".into()));
    let wait: u64 = answer.field("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(server.ask(&infer("mlp", "all-token"), BODY).await.head.status, 200);
}

/// A model's only lane is taken for as long as it runs: a caller who may not use the model is refused meanwhile, after
/// a time that does not say that there is the model.
#[tokio::test]
async fn who_may_not_use_a_model_waits_for_none_of_its_lanes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    let caller = |name: &str, more: &str| {
        format!("[[caller]]\nname = \"{name}\"\ntoken_sha256 = \"{}\"\n{more}\n", hash(name))
    };
    let callers =
        [("all", ""), ("other", "models = [\"o*\"]"), ("slow", "requests_per_minute = 1\nburst = 1")];
    fs::write(&path, callers.map(|(name, more)| caller(name, more)).concat()).unwrap();
    let server = start_with(config("count", |settings| settings.auth_file = Some(path))).await;
    assert_eq!(server.ask(&infer("count", "slow"), count_to(3).as_bytes()).await.head.status, 200);

    let key = server.key(confonnx_protocol::Kem::X25519).await;
    let load = &server.app.metrics().load;
    // Asks until one request waits for a lane, because all are taken.
    let mut long = Vec::new();
    while load.queued.load(Ordering::Relaxed) == 0 {
        assert!(long.len() < 64, "there is always another lane");
        let (sealed, _) = seal(&key, &infer("count", "all"), count_to(4 * LONG).as_bytes());
        let request = format!(
            "POST {GATEWAY} HTTP/1.1\r\nhost: x\r\ncontent-type: {SEALED}\r\ncontent-length: {}\r\n\r\n",
            sealed.len()
        );
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(&[request.as_bytes(), &sealed].concat()).await.unwrap();
        long.push(stream);
        let all = || load.in_flight.load(Ordering::Relaxed) + load.queued.load(Ordering::Relaxed);
        until(|| all() >= long.len() as i64).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for (token, expected) in [("other", (403, "forbidden")), ("slow", (429, "rate-limited"))] {
        let answer = server.ask(&infer("count", token), count_to(3).as_bytes()).await;
        assert_eq!(answer.error(), (expected.0, expected.1.to_owned()));
        assert!(load.queued.load(Ordering::Relaxed) > 0, "others still wait");
    }
}

#[tokio::test]
async fn an_issuers_tokens_become_callers() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(vectors().join("keys.json"), folder.path().join("keys.json")).unwrap();
    let text = format!(
        r#"{OIDC}
        jwks_file = "keys.json"

        [[oidc.rule]]
        match = {{ groups = ["staff", "admin-*"], scope = "infer" }}
        name = "lab-{{sub}}"
        models = ["mlp"]

        [[oidc.rule]]
        match.sub = "ada"
        models = ["other"]
        "#
    );
    let server = start_with(with_policy(folder.path(), &text)).await;
    let claimed = server.attest().await.claims().client_auth.clone();
    assert_eq!(claimed.kind, "oidc");
    let keys = fs::read(vectors().join("keys.json")).unwrap();
    let manifest =
        format!("confonnx auth policy v1\n{}  auth_file\n{}  jwks_file\n", hash(&text), hash(keys));
    assert_eq!(claimed.policy_sha256, Some(hash(manifest)));

    let granted = jwt("never-expires");
    let answer = server.ask(&infer("mlp", &granted), BODY).await;
    assert_eq!(answer.head.status, 200, "{}", answer.json());
    // The first rule that matches decides.
    assert_eq!(server.ask(&infer("other", &granted), BODY).await.error(), (403, "forbidden".into()));
    for (token, reason) in [
        (format!("{}x", jwt("never-expires")), "signature"),
        (jwt("alg-none"), "signed with none; expected RS256 or ES256"),
        (jwt("expired"), "expired at Unix time 1800000000"),
        (jwt("aud-of-another"), "audience is other; expected confonnx"),
        (jwt("hs256-keyed-with-the-public-pem"), "HS256"),
        (jwt("huge"), "expected at most 16384"),
    ] {
        let answer = server.ask(&infer("mlp", &token), BODY).await;
        assert_eq!(answer.error(), (401, "unauthorized".into()));
        let challenge = answer.field("www-authenticate");
        // The vectors' times are in 2027, so what is wrong may be that they are not yet valid.
        let text = answer.json()["error"].to_string();
        let early = text.contains("not valid before Unix time");
        assert!(text.contains(reason) || early, "{text}");
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\""), "{challenge}");
    }
    // No credentials: no reason either (RFC 6750, section 3.1).
    let answer = server.ask(&head("GET", "/v2"), b"").await;
    assert_eq!((answer.head.status, answer.field("www-authenticate")), (401, "Bearer"));
}

#[tokio::test]
async fn while_the_issuer_cannot_be_asked_its_tokens_wait_and_others_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let authority = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    fs::write(folder.path().join("ca.pem"), authority.cert.pem()).unwrap();
    let text = format!(
        r#"
        [[caller]]
        name = "alice"
        token_sha256 = "{}"
        {OIDC}
        jwks_url = "https://localhost:1/keys"
        ca_file = "ca.pem"
        [[oidc.rule]]
        "#,
        hash("alice-token")
    );
    let server = start_with(with_policy(folder.path(), &text)).await;
    assert_eq!(server.attest().await.claims().client_auth.kind, "bearer+oidc");
    let answer = server.ask(&infer("mlp", &jwt("never-expires")), BODY).await;
    assert_eq!(answer.error(), (503, "auth-unavailable".into()));
    assert_eq!((answer.field("retry-after"), answer.field("www-authenticate")), ("1", ""));
    assert_eq!(server.ask(&infer("mlp", "alice-token"), BODY).await.head.status, 200);
    until(|| server.app.metrics().auth.keys().is_some_and(|state| state.keys == 0 && state.failures > 0))
        .await;
}

#[tokio::test]
async fn the_audit_log_says_who_called_what_and_nothing_of_content() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let text = format!(
        "[[caller]]\nname = \"alice \\\"a\\\"\"\ntoken_sha256 = \"{}\"\nmodels = [\"mlp\"]\n",
        hash("alice-token")
    );
    let mut config = with_policy(folder.path(), &text);
    config.audit_log = Some(path.clone());
    let server = start_with(config).await;
    assert_eq!(server.attest().await.claims().settings["audit_log"], true);

    let key = server.key(confonnx_protocol::Kem::X25519).await;
    let mut expected = Vec::new();
    for (head, body, caller, auth, action, model, outcome) in [
        (
            infer("mlp", "alice-token"),
            BODY,
            json!("alice \"a\""),
            "token",
            json!("infer"),
            json!("mlp"),
            "ok",
        ),
        (
            infer("mlp", "alice-token"),
            b"{",
            json!("alice \"a\""),
            "token",
            json!("infer"),
            json!("mlp"),
            "inference-invalid",
        ),
        (
            infer("secret-name", "alice-token"),
            BODY,
            json!("alice \"a\""),
            "token",
            json!(null),
            json!(null),
            "forbidden",
        ),
        (infer("mlp", "wrong-token"), BODY, json!(null), "none", json!(null), json!(null), "unauthorized"),
        (
            with_token(head("GET", "/v2"), "alice-token"),
            b"",
            json!("alice \"a\""),
            "token",
            json!("server"),
            json!(null),
            "ok",
        ),
    ] {
        let (sealed, opener) = seal(&key, &head, body);
        let sealed_in = sealed.len();
        let response = server.post(SEALED, sealed).await;
        let id = response.headers()["x-ms-request-id"].to_str().unwrap().to_owned();
        let sealed_out = response.body().len();
        let answer = Answer::open(response, opener);
        assert_eq!(answer.head.status == 200, outcome == "ok");
        let version = if model.is_null() { json!(null) } else { json!("1") };
        expected.push(json!({
            "request": id, "caller": caller, "auth": auth, "action": action, "model": model, "version": version,
            "outcome": outcome, "sealed_in": sealed_in, "sealed_out": sealed_out,
        }));
    }
    server.stop.send(true).unwrap();
    server.stopped().await;
    let log = fs::read_to_string(&path).unwrap();
    let mut lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let now = confonnx_server::clock::now().0;
    for line in &mut lines {
        let time = line.as_object_mut().unwrap().remove("time").unwrap().as_u64().unwrap();
        assert!(time <= now && time + 600 > now, "{time}");
    }
    assert_eq!(lines, expected);
    for secret in ["alice-token", "wrong-token", "secret-name", "FP32", "date"] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[tokio::test]
async fn a_client_asks_its_source_for_a_token_at_each_call() {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[[caller]]\nname = \"a\"\ntoken_sha256 = \"{}\"\nrequests_per_minute = 1\nburst = 1",
        hash("token-2")
    );
    let server = start_with(with_policy(folder.path(), &text)).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let mut options = Options::default();
    let counted = Arc::clone(&calls);
    options.auth_key_source = Some(TokenSource::new(move || match counted.fetch_add(1, Ordering::Relaxed) {
        call @ 0..=2 => Ok(format!("token-{}", call + 1).into()),
        _ => Err("the vault is closed".into()),
    }));
    let client = server.client(options);
    let refused = client.server_metadata().await.unwrap_err();
    assert!(matches!(refused, ClientError::Inner { status: 401, .. }), "{refused}");
    client.server_metadata().await.unwrap();
    calls.store(1, Ordering::Relaxed);
    let refused = client.server_metadata().await.unwrap_err();
    let ClientError::Inner { status: 429, code, retry_after: Some(wait), .. } = &refused else {
        panic!("{refused}")
    };
    assert_eq!(code, "rate-limited");
    assert!((1..=60).contains(&wait.as_secs()), "{wait:?}");
    calls.store(9, Ordering::Relaxed);
    let refused = client.server_metadata().await.unwrap_err().to_string();
    assert_eq!(refused, "no token for the server: the vault is closed");
}
