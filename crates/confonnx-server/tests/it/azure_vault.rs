//! A stand-in for Microsoft Azure Attestation, Azure Key Vault and the instance metadata service, written from their
//! REST documents: evidence has to carry the runtime data's digest, the token is believed by the vault alone, and keys are
//! wrapped to the key in it. It does not check the processor's signature; a release policy it decides by the claims of
//! SEV-SNP's tokens. Of a confidential VM's guest it checks what the virtual TPM signed, down to the key in the processor's report, and nothing of
//! the event log. What only the real services show is in docs/guides/key-services.md.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    key_wrap::{AES_256, AesKek, KeyWrapPadded},
    rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey},
    signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey},
};
use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use hyper::http::request::Parts;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{
    service::{Answer, Service, status},
    trustee::random,
};

pub(crate) struct AzureVault {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
    _service: Service,
}

#[derive(Default)]
struct State {
    /// Kind and bytes of each key, by name.
    keys: HashMap<String, (&'static str, Vec<u8>)>,
    /// The runtime data that each token was given for.
    tokens: HashMap<String, Value>,
    /// A path, and the status and body that are answered there instead.
    fault: Option<(&'static str, u16, &'static str)>,
    deny: bool,
    /// What a token has to say.
    policy: Option<Value>,
    other_key: bool,
}

/// The access token that the vault wants to see.
pub(crate) const ACCESS_TOKEN: &str = "eyJ.access.token";

impl AzureVault {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let service = Service::start(None, move |head, body| {
            let mut state = shared.lock().unwrap();
            let fault = state.fault.filter(|(path, ..)| head.uri.path().starts_with(path));
            Some(match fault {
                Some((_, code, body)) => status(code, body),
                None => answer(&mut state, head, body).unwrap_or_else(|(code, kind, message)| {
                    status(code, json!({ "error": { "code": kind, "message": message } }).to_string())
                }),
            })
        });
        let service = service.await;
        Self { url: service.url.clone(), state, _service: service }
    }

    pub(crate) fn put(&self, name: &str, kind: &'static str, bytes: &[u8]) {
        self.state.lock().unwrap().keys.insert(name.into(), (kind, bytes.into()));
    }

    /// Answers requests to paths that begin so by this status and body.
    pub(crate) fn fail(&self, fault: Option<(&'static str, u16, &'static str)>) {
        self.state.lock().unwrap().fault = fault;
    }

    /// Whether the release policy lets nobody have a key.
    pub(crate) fn deny(&self, deny: bool) {
        self.state.lock().unwrap().deny = deny;
    }

    /// What a token has to say, as the vault's grammar has it.
    pub(crate) fn require(&self, policy: Value) {
        self.state.lock().unwrap().policy = Some(policy);
    }

    /// Whether keys are wrapped to another key than the token's.
    pub(crate) fn wrap_to_another(&self, other: bool) {
        self.state.lock().unwrap().other_key = other;
    }
}

type Refusal = (u16, &'static str, &'static str);

fn answer(state: &mut State, head: &Parts, body: &[u8]) -> Result<Answer, Refusal> {
    let asked: Value = serde_json::from_slice(body).unwrap_or_default();
    let target = head.uri.path_and_query().unwrap().as_str();
    match (head.method.as_str(), target) {
        ("POST", "/attest/SevSnpVm?api-version=2022-08-01") => attest(state, &asked),
        ("POST", "/attest/AzureGuest?api-version=2020-10-01") => attest_guest(state, &asked),
        (
            "GET",
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fvault.azure.net",
        ) => {
            if head.headers.get("metadata").is_none_or(|field| field != "true") {
                return Err((400, "bad_request", "Required metadata header not specified"));
            }
            Ok(status(200, json!({ "access_token": ACCESS_TOKEN, "token_type": "Bearer" }).to_string()))
        }
        ("POST", target) => {
            let name = target
                .strip_prefix("/keys/")
                .and_then(|rest| rest.strip_suffix("/release?api-version=7.4"))
                .ok_or((404, "NotFound", "no such path"))?;
            release(state, head, name, &asked)
        }
        _ => Err((405, "MethodNotAllowed", "no such method")),
    }
}

fn attest(state: &mut State, asked: &Value) -> Result<Answer, Refusal> {
    let invalid = |message| (400, "InvalidParameter", message);
    let bundle: Value = serde_json::from_slice(&decode(&asked["report"]).ok_or(invalid("report"))?)
        .map_err(|_| invalid("report is no JSON"))?;
    let report = decode(&bundle["SnpReport"]).ok_or(invalid("SnpReport"))?;
    let chain = decode(&bundle["VcekCertChain"]).ok_or(invalid("VcekCertChain"))?;
    if String::from_utf8_lossy(&chain).matches("BEGIN CERTIFICATE").count() != 3 {
        return Err(invalid("expected VCEK, ASK and ARK"));
    }
    let data = decode(&asked["runtimeData"]["data"]).ok_or(invalid("runtimeData"))?;
    if asked["runtimeData"]["dataType"] != "JSON" {
        return Err(invalid("dataType"));
    }
    let expected = [&Sha256::digest(&data)[..], &[0; 32]].concat();
    if report.len() != 1184 || report[0x50..0x90] != expected {
        return Err((400, "AttestationFailed", "report data does not match the runtime data"));
    }
    let mut claims: Value = serde_json::from_slice(&data).map_err(|_| invalid("runtimeData is no JSON"))?;
    let said = u64::from_le_bytes(report[8..16].try_into().unwrap());
    claims["x-ms-attestation-type"] = "sevsnpvm".into();
    claims["x-ms-sevsnpvm-is-debuggable"] = (said >> 19 & 1 == 1).into();
    claims["x-ms-sevsnpvm-migration-allowed"] = (said >> 18 & 1 == 1).into();
    claims["x-ms-sevsnpvm-vmpl"] = u32::from_le_bytes(report[0x30..0x34].try_into().unwrap()).into();
    let measurement: String = report[0x90..0xc0].iter().map(|byte| format!("{byte:02x}")).collect();
    claims["x-ms-sevsnpvm-launchmeasurement"] = measurement.into();
    let token = format!("e30.{}.c2ln", Base64UrlUnpadded::encode_string(&random::<24>()));
    state.tokens.insert(token.clone(), claims);
    Ok(status(200, json!({ "token": token }).to_string()))
}

/// Whether claims are what a release policy, one of its authorities' parts or a condition wants.
fn meets(condition: &Value, claims: &Value) -> bool {
    let all = |name: &str| condition[name].as_array().map(|all| all.iter().map(|each| meets(each, claims)));
    match (all("allOf"), all("anyOf")) {
        (Some(mut all), None) => all.all(|good| good),
        (None, Some(mut any)) => any.any(|good| good),
        _ => claims[condition["claim"].as_str().unwrap()] == condition["equals"],
    }
}

fn release(state: &mut State, head: &Parts, name: &str, asked: &Value) -> Result<Answer, Refusal> {
    let bearer = head.headers.get("authorization").and_then(|field| field.to_str().ok());
    if bearer != Some(&format!("Bearer {ACCESS_TOKEN}")) {
        return Err((401, "Unauthorized", "AKV10000: Request is missing a Bearer or PoP token."));
    }
    let (kind, bytes) =
        state.keys.get(name).ok_or((404, "KeyNotFound", "A key with that name was not found"))?;
    let target = asked["target"].as_str().unwrap_or_default();
    // Each token is good for one release here, so that a client that kept one is found out.
    let claims = state.tokens.remove(target).ok_or((
        403,
        "Forbidden",
        "Target environment attestation statement cannot be verified.",
    ))?;
    if state.deny || state.policy.as_ref().is_some_and(|policy| !meets(policy, &claims)) {
        return Err((403, "Forbidden", "Key does not meet its release policy."));
    }
    let modulus =
        decode(&claims["keys"][0]["n"]).filter(|n| n.len() == 256).ok_or((403, "Forbidden", "no key"))?;
    let modulus = if state.other_key { [&[0x80][..], &random::<254>(), &[1]].concat() } else { modulus };
    let der = spki(&modulus);
    let enc = asked["enc"].as_str().unwrap_or("CKM_RSA_AES_KEY_WRAP");
    assert_eq!(enc, "RSA_AES_KEY_WRAP_256");
    let kek = random::<32>();
    let public = OaepPublicEncryptingKey::new(PublicEncryptingKey::from_der(&der).unwrap()).unwrap();
    let mut ciphertext = vec![0; 256];
    public.encrypt(&OAEP_SHA256_MGF1SHA256, &kek, &mut ciphertext, None).unwrap();
    let mut wrapped = vec![0; bytes.len() + 16];
    let wrapped = AesKek::new(&AES_256, &kek).unwrap().wrap_with_padding(bytes, &mut wrapped).unwrap();
    ciphertext.extend_from_slice(wrapped);
    let encode = |value: Value| Base64UrlUnpadded::encode_string(value.to_string().as_bytes());
    let key_hsm = encode(json!({
        "schema_version": "1.0", "header": { "kid": "x", "alg": "dir", "enc": enc },
        "ciphertext": Base64UrlUnpadded::encode_string(&ciphertext),
    }));
    let payload = encode(json!({
        "request": { "api-version": "7.4", "enc": enc, "kid": name },
        "response": { "key": { "key": { "kid": name, "kty": kind, "key_hsm": key_hsm }, "attributes": {} } },
    }));
    let value = format!("{}.{payload}.c2lnbmF0dXJl", encode(json!({ "alg": "RS256" })));
    Ok(status(200, json!({ "value": value }).to_string()))
}

/// Evidence of an Azure confidential VM, by its virtual TPM.
fn attest_guest(state: &mut State, asked: &Value) -> Result<Answer, Refusal> {
    let invalid = |message| (400, "InvalidParameter", message);
    let info = decode(&asked["AttestationInfo"]).ok_or(invalid("AttestationInfo"))?;
    let info: Value = serde_json::from_slice(&info).map_err(|_| invalid("AttestationInfo is no JSON"))?;
    if info["AttestationProtocolVersion"] != "2.0" || info["IsolationInfo"]["Type"] != "SevSnp" {
        return Err(invalid("AttestationProtocolVersion or IsolationInfo.Type"));
    }
    let evidence = &info["IsolationInfo"]["Evidence"];
    let data = decode(&evidence["RunTimeData"]).ok_or(invalid("RunTimeData"))?;
    let proof: Value = serde_json::from_slice(&decode(&evidence["Proof"]).ok_or(invalid("Proof"))?)
        .map_err(|_| invalid("Proof is no JSON"))?;
    let report = decode(&proof["SnpReport"]).ok_or(invalid("SnpReport"))?;
    decode(&proof["VcekCertChain"]).ok_or(invalid("VcekCertChain"))?;
    if report.len() != 1184 || report[0x50..0x70] != Sha256::digest(&data)[..] {
        return Err((400, "AttestationFailed", "report data does not match the runtime data"));
    }
    let data: Value = serde_json::from_slice(&data).map_err(|_| invalid("RunTimeData is no JSON"))?;
    let tpm = &info["TpmInfo"];
    let of = |name: &'static str| {
        Base64::decode_vec(tpm[name].as_str().unwrap_or_default()).map_err(|_| invalid(name))
    };
    // A TPM2B_PUBLIC of an RSA key ends with its modulus.
    let modulus = |public: &[u8]| public[public.len() - 256..].to_vec();
    let ak = modulus(&of("AikPub")?);
    if decode(&data["keys"][0]["n"]).as_ref() != Some(&ak) || of("AikCert")?.is_empty() {
        return Err((400, "AttestationFailed", "the attestation key is not that of the runtime data"));
    }
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, spki(&ak));
    let signed = |statement, signature| -> Result<Vec<u8>, Refusal> {
        let statement = of(statement)?;
        key.verify(&statement, &of(signature)?)
            .map_err(|_| (400, "AttestationFailed", "a statement is not the TPM's"))?;
        Ok(statement)
    };
    let quote = signed("PcrQuote", "PcrSignature")?;
    let digests = tpm["PCRs"].as_array().ok_or(invalid("PCRs"))?;
    let values: Vec<u8> = digests
        .iter()
        .flat_map(|pcr| Base64::decode_vec(pcr["Digest"].as_str().unwrap_or_default()).unwrap_or_default())
        .collect();
    let certified = signed("EncKeyCertifyInfo", "EncKeyCertifyInfoSignature")?;
    let public = of("EncKeyPub")?;
    let name = [&[0, 0x22, 0, 0x0b][..], &Sha256::digest(&public[2..])].concat();
    if !quote.ends_with(&Sha256::digest(values)) || !certified.windows(36).any(|part| part == name) {
        return Err((400, "AttestationFailed", "the PCRs or the key are not those of the statements"));
    }
    let claims = json!({ "keys": [{ "n": Base64UrlUnpadded::encode_string(&modulus(&public)) }] });
    let token = format!("e30.{}.c2ln", Base64UrlUnpadded::encode_string(&random::<24>()));
    state.tokens.insert(token.clone(), claims);

    let (inner, nonce) = (random::<32>(), random::<12>());
    let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &inner).unwrap());
    let mut sealed = token.into_bytes();
    let nonce_of = Nonce::assume_unique_for_key(nonce);
    let aad = Aad::from(b"Transport Key");
    let tag = cipher.seal_in_place_separate_tag(nonce_of, aad, &mut sealed).unwrap();
    let public = PublicEncryptingKey::from_der(&spki(&modulus(&public))).unwrap();
    let mut encrypted = vec![0; 256];
    Pkcs1PublicEncryptingKey::new(public).unwrap().encrypt(&inner, &mut encrypted).unwrap();
    let base64 = Base64::encode_string;
    let answer = json!({
        "EncryptedInnerKey": base64(&encrypted),
        "EncryptionParams": { "Iv": base64(&nonce) },
        "AuthenticationData": base64(tag.as_ref()),
        "Jwt": base64(&sealed),
    });
    let token = Base64UrlUnpadded::encode_string(answer.to_string().as_bytes());
    Ok(status(200, json!({ "token": token }).to_string()))
}

/// The SubjectPublicKeyInfo of an RSA key with this modulus.
fn spki(modulus: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = &[
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
        0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
    ];
    [BEFORE, modulus, &[2, 3, 1, 0, 1]].concat()
}

fn decode(text: &Value) -> Option<Vec<u8>> {
    Base64UrlUnpadded::decode_vec(text.as_str()?).ok()
}
