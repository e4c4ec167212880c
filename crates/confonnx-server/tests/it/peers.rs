//! Groups of servers with one secret: real servers in this process, over sockets, with the insecure TEE. The tests show
//! the protocol and its refusals; that evidence of other machines is genuine is for the verifier's own tests.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use confonnx_attest::{
    Claims, Digest, Documents, Evidence, Expectations, KeySource, Nonce, Policy, merkle::Tree,
    produce::Attester, report_data,
};
use confonnx_client::{Client, Options};
use confonnx_protocol::{
    EpochSecret, Kem,
    server::{Epoch, KeyRing, ResumptionLimits, RingConfig},
};
use confonnx_server::{
    admin, clock,
    config::{Bootstrap, KeyProviderName, Settings},
    group::{CHALLENGE_PATH, JOIN_PATH},
};
use http_body_util::{BodyExt, Empty};
use hyper::Request;

use super::harness::*;

pub(crate) const PROGRAM: Digest = Digest([7; 32]);

/// The file that lists where the members of one group are.
pub(crate) struct Place(tempfile::NamedTempFile);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::NamedTempFile::new().unwrap())
    }

    pub(crate) fn list(&self, members: &[&Running]) {
        let urls: String = members.iter().map(|member| member.url() + "\n").collect();
        std::fs::write(self.0.path(), urls).unwrap();
    }

    pub(crate) fn settings(&self, settings: &mut Settings, bootstrap: Bootstrap) {
        settings.key_provider = Some(KeyProviderName::Peer);
        settings.peers = Some(format!("file:{}", self.0.path().display()).parse().unwrap());
        settings.peer_bootstrap = Some(bootstrap);
        settings.key_sync_interval = Some(1);
        settings.key_error_retry_interval = Some(1);
        settings.key_rollover_interval = Some(3600);
    }

    async fn start(&self, bootstrap: Bootstrap) -> Running {
        self.start_as(bootstrap, "mlp", PROGRAM, |_| {}).await
    }

    async fn start_as(
        &self,
        bootstrap: Bootstrap,
        model: &str,
        program: Digest,
        change: impl FnOnce(&mut Settings),
    ) -> Running {
        let config = config(model, |settings| {
            self.settings(settings, bootstrap);
            change(settings);
        });
        start_from(config, Attester::insecure(program)).await
    }

    /// The first server of a group, which makes the secret.
    async fn first(&self) -> Running {
        let first = self.start(Bootstrap::Always).await;
        until(|| first.keys.are_there()).await;
        self.list(&[&first]);
        first
    }
}

fn source(server: &Running) -> confonnx_attest::KeySource {
    server.keys.published().claims.key_source
}

pub(crate) async fn trouble(server: &Running) -> String {
    until(|| server.keys.trouble().is_some()).await;
    server.keys.trouble().unwrap()
}

#[tokio::test]
async fn who_joins_has_the_same_keys() {
    let place = Place::new();
    let first = place.first().await;
    let second = place.start(Bootstrap::Never).await;
    until(|| second.keys.are_there()).await;
    let (one, other) = (first.keys.published(), second.keys.published());
    assert_eq!(one.configs, other.configs);
    assert_eq!(one.claims, other.claims);
    assert_eq!(one.claims.key_source.kind, "peer");
    assert!(one.claims.key_source.group.is_some() && one.claims.key_source.peer_policy_sha256.is_some());

    // A request sealed for one member is answered by the other, with no new attestation.
    let client = first.client(Options::default());
    client.server_metadata().await.unwrap();
    let (sealed, opener) = seal(&first.key(Kem::XWing).await, &head("GET", "/v2"), b"");
    assert_eq!(Answer::open(second.post(SEALED, sealed).await, opener).head.status, 200);

    // The first server, restarted, joins the group that there is, though it may make one.
    place.list(&[&second]);
    let again = place.start(Bootstrap::Always).await;
    until(|| again.keys.are_there()).await;
    assert_eq!(again.keys.published().configs, one.configs);
    assert_eq!(second.app.metrics().foreign_peers.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn one_secret_is_other_keys_for_other_models() {
    let place = Place::new();
    let first = place.first().await;
    let other = place.start_as(Bootstrap::Never, "external", PROGRAM, |_| {}).await;
    until(|| other.keys.are_there()).await;
    assert_eq!(source(&first), source(&other));
    assert_ne!(first.keys.published().configs, other.keys.published().configs);
}

#[tokio::test]
async fn without_a_member_there_are_no_keys_and_everybody_is_told() {
    let place = Place::new();
    let waiting = place.start(Bootstrap::Never).await;
    let why = trouble(&waiting).await;
    assert!(why.contains("no member of the group answers") && why.contains("--peer-bootstrap"), "{why}");
    let (status, body) = waiting.get(&format!("{ATTESTATION}?nonce={}", Nonce([1; 32]))).await;
    assert_eq!(status, 503);
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap()["code"], "keys-unavailable");
    assert_eq!(code(&waiting.post(SEALED, "anything").await), "keys-unavailable");
    assert_eq!(waiting.get("/").await, (200, Bytes::from_static(b"Healthy")));
    let ready = |server: &Running| {
        let request = Request::get("/health/ready").body(Empty::<Bytes>::new()).unwrap();
        admin::answer(&request, &server.app)
    };
    let response = ready(&waiting);
    assert_eq!(response.status(), 503);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(body.starts_with(b"no keys: no member of the group answers"), "{body:?}");

    // Two servers that wait do not answer each other; one that may begin a group does.
    let begins = place.start(Bootstrap::Always).await;
    place.list(&[&waiting, &begins]);
    until(|| waiting.keys.are_there()).await;
    assert_eq!(ready(&waiting).status(), 200);
    assert_eq!(source(&waiting), source(&begins));
}

#[tokio::test]
async fn another_program_is_refused_on_both_sides() {
    let place = Place::new();
    let _first = place.first().await;
    let other = place.start_as(Bootstrap::Always, "mlp", Digest([8; 32]), |_| {}).await;
    let why = trouble(&other).await;
    // A refusal is no silence, so the other server does not begin a group of its own.
    assert!(why.starts_with("cannot join the group") && why.contains("enclave hash"), "{why}");
    assert!(!other.keys.are_there());
}

#[tokio::test]
async fn other_settings_of_keys_are_refused() {
    let place = Place::new();
    let _first = place.first().await;
    let other = place
        .start_as(Bootstrap::Always, "mlp", PROGRAM, |settings| settings.key_rollover_interval = Some(7200))
        .await;
    let why = trouble(&other).await;
    assert!(why.contains("the same key_rollover_interval_s: here it is 7200, there 3600"), "{why}");
}

#[tokio::test]
async fn the_policy_has_to_be_the_same() {
    let place = Place::new();
    let policy = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(policy.path(), "allow_debug = true\n").unwrap();
    let _first = place.first().await;
    let path = policy.path().to_owned();
    let other = place
        .start_as(Bootstrap::Always, "mlp", PROGRAM, |settings| settings.peer_policy = Some(path.clone()))
        .await;
    let why = trouble(&other).await;
    assert!(why.contains("key source") && why.contains("peer policy"), "{why}");

    // With a peer policy of all members, that policy alone decides: here, that any program may join.
    let place = Place::new();
    let with = |settings: &mut Settings| settings.peer_policy = Some(path.clone());
    let first = place.start_as(Bootstrap::Always, "mlp", PROGRAM, with).await;
    until(|| first.keys.are_there()).await;
    place.list(&[&first]);
    let other = place.start_as(Bootstrap::Never, "mlp", Digest([8; 32]), with).await;
    until(|| other.keys.are_there()).await;
    assert_eq!(source(&first), source(&other));

    // Clients have to agree to the peer policy.
    let client = |peer_policies| {
        let mut expected = Expectations::new().allow_debug(true);
        expected.peer_policies = peer_policies;
        Client::new(&other.url(), Policy::new(expected).unwrap(), Options::default()).unwrap()
    };
    let refused = client(vec![]).server_metadata().await.unwrap_err().to_string();
    assert!(refused.contains("key source"), "{refused}");
    client(vec![source(&first).peer_policy_sha256.unwrap()]).server_metadata().await.unwrap();
}

#[tokio::test]
async fn two_groups_see_each_other_and_stay_apart() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (one, other) = (place.first().await, elsewhere.first().await);
    let before = [one.keys.published().configs, other.keys.published().configs];
    assert_ne!(before[0], before[1]);
    place.list(&[&one, &other]);
    let foreign = || one.app.metrics().foreign_peers.load(Ordering::Relaxed);
    until(|| foreign() == 1).await;
    assert_eq!([one.keys.published().configs, other.keys.published().configs], before);
    place.list(&[&one]);
    until(|| foreign() == 0).await;
}

/// A joiner's document, of a TEE that measured `program`, for `nonce`.
fn document(program: Digest, nonce: Nonce, claims: &Claims, ring: &KeyRing) -> Vec<u8> {
    document_by(|data| Attester::insecure(program).evidence(data).unwrap(), nonce, claims, ring)
}

/// The same, with evidence that `make` makes.
pub(crate) fn document_by(
    make: impl FnOnce(&[u8; 64]) -> Evidence,
    nonce: Nonce,
    claims: &Claims,
    ring: &KeyRing,
) -> Vec<u8> {
    let tree = Tree::new(vec![nonce]).unwrap();
    let (configs, claims) = (ring.key_configs(), claims.to_bytes());
    let evidence = make(&report_data(&tree.root(), &configs, &claims));
    Documents::new(&configs, &claims, &evidence, tree.root(), None).to_json(tree.proof(0).as_ref())
}

/// Keys for the answer to who joins.
pub(crate) fn joining_ring() -> KeyRing {
    let now = clock::now();
    let minute = std::time::Duration::from_secs(60);
    let config = RingConfig {
        grace: minute,
        date_window: minute,
        replay_capacity: 1,
        resumption: ResumptionLimits::OFF,
    };
    let ring = KeyRing::new(config, [0; 32], now).unwrap();
    let secret = EpochSecret::generate(&mut rng());
    let not_after = confonnx_attest::UnixTime(now.0 + 60);
    ring.install(Epoch { number: 0, secret, not_before: now, not_after }, now).unwrap();
    ring
}

/// Claims of who joins where a member has those.
pub(crate) fn joining(serving: &Claims) -> Claims {
    let key_source = KeySource { group: None, ..serving.key_source.clone() };
    Claims { keys: Vec::new(), key_source, ..serving.clone() }
}

#[tokio::test]
async fn the_state_goes_to_fresh_evidence_of_the_right_program_alone() {
    let place = Place::new();
    let member = place.first().await;
    let (now, ring) = (clock::now(), joining_ring());
    let serving = member.keys.published().claims;
    let claims = joining(&serving);
    let challenge = async || -> [u8; 32] {
        let answer = member.ask(&head("POST", CHALLENGE_PATH), b"").await;
        assert_eq!(answer.head.status, 200);
        answer.body.try_into().unwrap()
    };
    let join = async |challenge: &[u8], document: &[u8]| {
        member.ask(&head("POST", JOIN_PATH), &[challenge, document].concat()).await
    };
    let error = async |challenge: &[u8], document: &[u8]| join(challenge, document).await.error();
    let refused = |code: &str| (403, code.to_owned());

    let nonce = challenge().await;
    let good = document(PROGRAM, Nonce(nonce), &claims, &ring);
    let answer = join(&nonce, &good).await;
    assert_eq!(answer.head.status, 200);
    let (state, _) = ring.open(answer.body, now).unwrap();
    assert!(state.plaintext.expose().starts_with(b"confonnx ratchet v1"));

    assert_eq!(error(&nonce, &good).await, (409, "challenge-unknown".into()), "a second time");
    assert_eq!(error(&[9; 32], &good).await, (409, "challenge-unknown".into()), "never given");
    let other = challenge().await;
    assert_eq!(error(&other, &good).await, refused("peer-refused"), "evidence for another challenge");
    let nonce = challenge().await;
    let program = document(Digest([8; 32]), Nonce(nonce), &claims, &ring);
    assert_eq!(error(&nonce, &program).await, refused("peer-refused"), "another program");
    let nonce = challenge().await;
    let mut settings = claims.clone();
    settings.settings.insert("key_grace_s".into(), 86_400.into());
    let settings = document(PROGRAM, Nonce(nonce), &settings, &ring);
    assert_eq!(error(&nonce, &settings).await, refused("peer-refused"), "other settings");
    let nonce = challenge().await;
    let mut local = claims.clone();
    local.key_source.kind = "local".into();
    let local = document(PROGRAM, Nonce(nonce), &local, &ring);
    assert_eq!(error(&nonce, &local).await, refused("peer-refused"), "not of a group");
    let nonce = challenge().await;
    assert_eq!(error(&nonce, b"{}").await, (400, "join-invalid".into()));
    assert_eq!(error(b"short", b"").await, (400, "join-invalid".into()));
    // A member's own document, fetched for the challenge and sent back, is refused.
    let nonce = challenge().await;
    let (_, own) = member.get(&format!("{ATTESTATION}?nonce={}", Nonce(nonce))).await;
    let answer = join(&nonce, &own).await;
    assert_eq!(answer.error(), refused("peer-refused"));
    assert!(String::from_utf8_lossy(&answer.body).contains("one for clients"));
    for source in [&serving.key_source, &claims.key_source] {
        for keys in [&serving.keys, &claims.keys] {
            let of = Claims { key_source: source.clone(), keys: keys.clone(), ..claims.clone() };
            let nonce = challenge().await;
            let status = join(&nonce, &document(PROGRAM, Nonce(nonce), &of, &ring)).await.head.status;
            assert_eq!(status, if of == claims { 200 } else { 403 });
        }
    }
}

#[tokio::test]
async fn servers_of_other_kinds_have_nothing_to_join() {
    let local = start("mlp").await;
    let answer = local.ask(&head("POST", CHALLENGE_PATH), b"").await;
    assert_eq!(answer.error(), (404, "not-found".into()));
}
