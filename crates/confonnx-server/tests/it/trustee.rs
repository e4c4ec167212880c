//! A stand-in for the Key Broker Service of Confidential Containers Trustee: sessions, the binding of evidence to nonce
//! and key, and secrets encrypted to that key, written from its protocol document. Like the real service in its tests
//! it believes `sample` evidence. What only the real service shows is in docs/guides/key-services.md.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    agreement::{self, ECDH_P256},
    key_wrap::{AES_256, AesKek, KeyWrap},
};
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use http_body_util::Full;
use hyper::{Response, http::request::Parts};
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha384};
use tokio_rustls::TlsAcceptor;

use crate::service::{Answer, Service, status};

/// A fault of the service at one step: `auth`, `attest` or `resource`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Answers with this status, as a proxy in front of it does.
    Status(u16),
    /// Answers with what is not JSON.
    Garbled,
    /// Never answers.
    #[allow(dead_code, reason = "nobody waits that long in a test")]
    Silent,
    /// Answers with more than anybody wants.
    Endless,
    /// Gives no cookie.
    NoCookie,
    /// Encrypts to another key.
    OtherKey,
    /// Changes one byte of the secret's ciphertext.
    Damaged,
}

pub(crate) struct Trustee {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    _service: Service,
}

#[derive(Default)]
struct State {
    fault: Option<(&'static str, Fault)>,
    /// Whether all evidence is refused.
    reject: bool,
    /// Whether the policy lets nobody have secrets.
    deny: bool,
    secrets: HashMap<String, Vec<u8>>,
    sessions: HashMap<String, Session>,
    requests: Vec<String>,
}

#[derive(Clone)]
struct Session {
    nonce: String,
    attested: Option<(String, Value)>,
}

impl Trustee {
    pub(crate) async fn start() -> Self {
        Self::serve(None).await
    }

    /// As `start`, behind TLS.
    pub(crate) async fn start_tls(acceptor: TlsAcceptor) -> Self {
        Self::serve(Some(acceptor)).await
    }

    async fn serve(acceptor: Option<TlsAcceptor>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let service = Service::start(acceptor, move |head, body| faulty(&shared, head, body)).await;
        Self { url: service.url.clone(), state, _service: service }
    }

    pub(crate) fn put(&self, name: &str, secret: &[u8]) {
        self.state.lock().unwrap().secrets.insert(name.into(), secret.into());
    }

    pub(crate) fn fail(&self, fault: Option<(&'static str, Fault)>) {
        self.state.lock().unwrap().fault = fault;
    }

    pub(crate) fn reject_evidence(&self, reject: bool) {
        self.state.lock().unwrap().reject = reject;
    }

    pub(crate) fn deny_secrets(&self, deny: bool) {
        self.state.lock().unwrap().deny = deny;
    }

    /// `METHOD PATH` of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

fn faulty(state: &Mutex<State>, head: &Parts, body: &[u8]) -> Option<Answer> {
    let step = head.uri.path().trim_start_matches("/kbs/v0/").split('/').next()?.to_owned();
    let fault = {
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {}", head.method, head.uri.path()));
        state.fault.filter(|(at, _)| *at == step).map(|(_, fault)| fault)
    };
    Some(match fault {
        Some(Fault::Status(code)) => status(code, "<html>no</html>"),
        Some(Fault::Garbled) => status(200, "<html>sign in</html>"),
        Some(Fault::Endless) => status(200, vec![b' '; 1 << 20]),
        Some(Fault::Silent) => return None,
        fault => answer(state, head, body, fault).unwrap_or_else(|(code, kind, detail)| {
            let kind = format!("https://github.com/confidential-containers/kbs/errors/{kind}");
            status(code, json!({ "type": kind, "detail": detail }).to_string())
        }),
    })
}

type Refusal = (u16, &'static str, &'static str);

fn answer(state: &Mutex<State>, head: &Parts, body: &[u8], fault: Option<Fault>) -> Result<Answer, Refusal> {
    let mut state = state.lock().unwrap();
    let state = &mut *state;
    let path = head.uri.path().strip_prefix("/kbs/v0/").ok_or((404, "InvalidRequestPath", "no such path"))?;
    let json = |body: &[u8]| serde_json::from_slice(body).map_err(|_| (401, "SerdeError", "not JSON"));
    match (head.method.as_str(), path) {
        ("POST", "auth") => {
            let request: Value = json(body)?;
            if request["version"] != "0.4.0" {
                return Err((401, "RcarAuthFailed", "version mismatch"));
            }
            if request["tee"] != "sample" {
                return Err((401, "RcarAuthFailed", "no verifier for that TEE"));
            }
            let (nonce, id) = (Base64::encode_string(&random::<32>()), hex(&random::<16>()));
            state.sessions.insert(id.clone(), Session { nonce: nonce.clone(), attested: None });
            let mut response = Response::builder();
            if fault != Some(Fault::NoCookie) {
                let cookie = format!("kbs-session-id={id}; Expires=Fri, 01 Jan 2100 00:00:00 GMT");
                response = response.header("set-cookie", cookie);
            }
            let challenge = json!({ "nonce": nonce, "extra-params": "" }).to_string();
            Ok(response.body(Full::from(challenge)).unwrap())
        }
        ("POST", "attest") => {
            let attestation: Value = json(body)?;
            let id = cookie(head).ok_or((401, "RcarAttestFailed", "cookie not found"))?;
            let session =
                state.sessions.get_mut(&id).ok_or((401, "RcarAttestFailed", "session not found"))?;
            if session.attested.is_some() {
                return Err((401, "RcarAttestFailed", "replayed"));
            }
            let runtime = &attestation["runtime-data"];
            if runtime["nonce"] != session.nonce {
                return Err((401, "RcarAttestFailed", "nonce mismatch"));
            }
            let key = &runtime["tee-pubkey"];
            let additional = &attestation["tee-evidence"]["additional_evidence"];
            // The members are sorted, as canonical JSON has them.
            let bound =
                json!({ "additional-evidence": additional, "nonce": session.nonce, "tee-pubkey": key });
            let expected = Base64::encode_string(&Sha384::digest(bound.to_string()));
            let evidence = &attestation["tee-evidence"]["primary_evidence"];
            // Only the verifier's own checks decide here; policies and reference values are asked when a secret is
            // fetched.
            if evidence["report_data"] != expected || evidence["svn"] != "1" {
                return Err((401, "AttestationError", "REPORT_DATA is different from that in Sample Quote"));
            }
            if state.reject {
                return Err((401, "AttestationError", "verifier evaluate failed"));
            }
            let token = format!("{}.e30.c2ln", Base64UrlUnpadded::encode_string(&random::<16>()));
            session.attested = Some((token.clone(), key.clone()));
            // The service sets the cookie again.
            let cookie = format!("kbs-session-id={id}; Expires=Fri, 01 Jan 2100 00:00:00 GMT");
            let body = Full::from(json!({ "token": token }).to_string());
            Ok(Response::builder().header("set-cookie", cookie).body(body).unwrap())
        }
        ("GET", path) => {
            let name = path.strip_prefix("resource/").ok_or((404, "PluginNotFound", "no such plugin"))?;
            let attested = cookie(head).and_then(|id| state.sessions.get(&id)?.attested.clone());
            let (token, key) = attested.ok_or((401, "TokenNotFound", "no attested session"))?;
            let bearer = head.headers.get("authorization").and_then(|field| field.to_str().ok());
            if bearer != Some(&format!("Bearer {token}")) {
                return Err((401, "TokenVerifierError", "not this session's token"));
            }
            if state.deny {
                return Err((401, "PolicyDeny", "Access denied by policy"));
            }
            let secret =
                state.secrets.get(name).ok_or((401, "PluginInternalError", "Plugin Internal Error"))?;
            let mut own = KeyPair::generate().jwk();
            own["alg"] = "ECDH-ES+A256KW".into();
            let key = if fault == Some(Fault::OtherKey) { &own } else { &key };
            let mut jwe = encrypt(key, secret).ok_or((401, "JweError", "not a usable key"))?;
            if fault == Some(Fault::Damaged) {
                let text = jwe["ciphertext"].as_str().unwrap();
                let mut ciphertext = Base64UrlUnpadded::decode_vec(text).unwrap();
                ciphertext[0] ^= 1;
                jwe["ciphertext"] = Base64UrlUnpadded::encode_string(&ciphertext).into();
            }
            Ok(Response::new(Full::from(jwe.to_string())))
        }
        _ => Err((404, "InvalidRequestPath", "no such method")),
    }
}

fn cookie(head: &Parts) -> Option<String> {
    Some(head.headers.get("cookie")?.to_str().ok()?.strip_prefix("kbs-session-id=")?.to_owned())
}

struct KeyPair {
    private: agreement::PrivateKey,
    x: Vec<u8>,
    y: Vec<u8>,
}

impl KeyPair {
    fn generate() -> Self {
        let private = agreement::PrivateKey::generate(&ECDH_P256).unwrap();
        let public = private.compute_public_key().unwrap();
        let (x, y) = public.as_ref()[1..].split_at(32);
        Self { x: x.to_vec(), y: y.to_vec(), private }
    }

    fn jwk(&self) -> Value {
        let [x, y] = [&self.x, &self.y].map(|coordinate| Base64UrlUnpadded::encode_string(coordinate));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
    }
}

/// Encrypts as Trustee's `kbs/src/jwe` does.
fn encrypt(key: &Value, secret: &[u8]) -> Option<Value> {
    if (key["kty"].as_str()?, key["crv"].as_str()?, key["alg"].as_str()?) != ("EC", "P-256", "ECDH-ES+A256KW")
    {
        return None;
    }
    let coordinate = |name: &str| Base64UrlUnpadded::decode_vec(key[name].as_str()?).ok();
    let point = [vec![4], coordinate("x")?, coordinate("y")?].concat();
    let (ephemeral, content_key) = (KeyPair::generate(), random::<32>());
    let peer = agreement::UnparsedPublicKey::new(&ECDH_P256, point);
    let kek = agreement::agree(&ephemeral.private, peer, (), |z| {
        let algorithm = b"ECDH-ES+A256KW";
        let hash = Sha256::new_with_prefix([0, 0, 0, 1]).chain_update(z);
        let hash =
            hash.chain_update(u32::try_from(algorithm.len()).unwrap().to_be_bytes()).chain_update(algorithm);
        Ok(hash.chain_update([0; 8]).chain_update(256u32.to_be_bytes()).finalize())
    })
    .ok()?;
    let mut encrypted_key = [0; 40];
    AesKek::new(&AES_256, &kek).unwrap().wrap(&content_key, &mut encrypted_key).unwrap();
    let header = json!({ "alg": "ECDH-ES+A256KW", "enc": "A256GCM", "epk": ephemeral.jwk() }).to_string();
    let protected = Base64UrlUnpadded::encode_string(header.as_bytes());
    let (mut ciphertext, iv) = (secret.to_vec(), random::<12>());
    let tag = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &content_key).unwrap())
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(iv), Aad::from(&protected), &mut ciphertext)
        .unwrap();
    let encode = Base64UrlUnpadded::encode_string;
    Some(json!({
        "protected": protected, "encrypted_key": encode(&encrypted_key), "iv": encode(&iv),
        "ciphertext": encode(&ciphertext), "tag": encode(tag.as_ref()),
    }))
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
