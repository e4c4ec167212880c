//! Secrets that a group of servers shares: each joins by evidence, then derives every epoch by itself
//! (`docs/protocol.md`, section 3.3).

mod addresses;
mod exchange;
mod member;
mod policy;

use std::{
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use confonnx_attest::{
    Claims, Digest, Document, DocumentError, Genuine, KeySource, Nonce, PolicyError, Trusted, UnixTime,
    VerifyError,
};
use confonnx_protocol::{
    EpochSecret, Kem, KeyConfig,
    client::SealingKey,
    server::{Epoch, KeyRing, OpenError, Ratchet, ResumptionLimits, RingConfig, RingError, StateError},
};
use tracing::{info, warn};

pub use addresses::ResolveError;
pub use exchange::ExchangeError;
pub use member::{Challenges, JoinRefusal, JoinRequest};
pub use policy::{Disagree, PeerPolicy, PeerPolicyError};

use crate::{
    attestation::{Attestation, Unavailable},
    clock,
    config::{Address, KeyTimes, PeerConfig},
    keys::{
        Keys, Published,
        provider::{BoxFuture, KeyProvider, ProviderError},
    },
    metrics::Metrics,
    random::{self, rng},
};
use addresses::resolve;

/// This server's part in its group.
pub struct Group {
    config: PeerConfig,
    times: KeyTimes,
    keys: Arc<Keys>,
    attestation: Arc<Attestation>,
    metrics: Arc<Metrics>,
    /// Known once this server's own evidence was verified.
    policy: OnceLock<Arc<PeerPolicy>>,
    /// The group's secrets, once this server has joined.
    ratchet: Mutex<Option<Ratchet>>,
    challenges: Challenges,
    /// One look at a time: peers that do not answer take theirs.
    looking: tokio::sync::Mutex<()>,
}

/// Why this server has no part in a group.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody who has the secret was found, and this one may not make it.
    #[error(
        "no member of the group answers, and this server may not make the first secret (--peer-bootstrap): {}",
        Listed(.0)
    )]
    Nobody(Vec<ExchangeError>),
    /// Somebody answers, but this server cannot join there. A first secret is not made then.
    #[error("cannot join the group: {}", Listed(.0))]
    Refused(Vec<AttemptError>),
    /// Nowhere to look.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The policy.
    #[error(transparent)]
    Policy(#[from] PeerPolicyError),
    /// This server has no evidence of its own.
    #[error("this server's own evidence: {0}")]
    Evidence(#[from] Unavailable),
    /// This server's own document cannot be read.
    #[error("this server's own document: {0}")]
    Document(#[from] DocumentError),
    /// This server's own evidence is not genuine, or lacks what its vendor says of it.
    #[error("this server's own evidence: {0}")]
    NotGenuine(#[from] VerifyError),
    /// This server would not accept itself.
    #[error("this server does not satisfy its own peer policy: {0}")]
    NotTrusted(#[from] PolicyError),
    /// The system gives no randomness.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why this server cannot join by a certain member.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The exchange failed.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The member's document cannot be read.
    #[error("{address}: {source}")]
    Document {
        /// The member's address.
        address: Address,
        /// What is wrong.
        source: DocumentError,
    },
    /// The member's evidence is not genuine.
    #[error("{address}: {source}")]
    NotGenuine {
        /// The member's address.
        address: Address,
        /// Which checks failed.
        source: VerifyError,
    },
    /// The member is not what the peer policy wants.
    #[error("{address}: {source}")]
    NotTrusted {
        /// The member's address.
        address: Address,
        /// Which checks failed.
        source: PolicyError,
    },
    /// The member's settings are others.
    #[error("{address}: {source}")]
    Disagree {
        /// The member's address.
        address: Address,
        /// In what the two disagree.
        source: Disagree,
    },
    /// The member is not of the protocol.
    #[error("{address}: {reason}")]
    Protocol {
        /// The member's address.
        address: Address,
        /// What is wrong.
        reason: String,
    },
    /// The TEE gives no evidence.
    #[error("this server's own evidence: {0}")]
    Evidence(#[from] Unavailable),
}

impl Group {
    /// A server that is in no group yet.
    pub fn new(
        config: PeerConfig,
        times: KeyTimes,
        keys: Arc<Keys>,
        attestation: Arc<Attestation>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            config,
            times,
            keys,
            attestation,
            metrics,
            policy: OnceLock::new(),
            ratchet: Mutex::new(None),
            challenges: Challenges::default(),
            looking: tokio::sync::Mutex::default(),
        }
    }

    /// Joins where somebody answers, or makes the first secret if that is this server's role and nobody does.
    async fn join(&self) -> Result<Ratchet, JoinError> {
        let policy = self.policy().await?;
        let (mut silent, mut refused) = (Vec::new(), Vec::new());
        for address in resolve(&self.config.peers).await? {
            match self.join_at(&address, &policy).await {
                Ok(ratchet) => {
                    let group = Digest(*ratchet.fingerprint());
                    info!("joined group {group} by {address}");
                    return Ok(ratchet);
                }
                Err(AttemptError::Exchange(
                    err @ (ExchangeError::Silent { .. } | ExchangeError::NoKeys(_)),
                )) => silent.push(err),
                Err(err) => refused.push(err),
            }
        }
        if !refused.is_empty() {
            return Err(JoinError::Refused(refused));
        }
        if !self.config.bootstrap {
            return Err(JoinError::Nobody(silent));
        }
        let first = EpochSecret::generate(&mut rng());
        let ratchet = Ratchet::start(first, 0, self.keys.now(), self.times.rollover);
        info!("nobody answers: made the first secret of group {}", Digest(*ratchet.fingerprint()));
        Ok(ratchet)
    }

    /// What members demand of each other, which this server has to satisfy, too.
    async fn policy(&self) -> Result<Arc<PeerPolicy>, JoinError> {
        if let Some(policy) = self.policy.get() {
            return Ok(Arc::clone(policy));
        }
        let nonce = random::nonce()?;
        // Stays here. A group's source would be one that the policy is not known of yet.
        let key_source = KeySource { kind: "local".into(), ..KeySource::default() };
        let claims = Claims { key_source, keys: Vec::new(), ..self.keys.published().claims };
        let document = self.attestation.vouch(nonce, Published { configs: Vec::new(), claims }).await?;
        let (document, now) = (Document::parse(&document)?, self.keys.now());
        let own = document.verify(Some(&nonce), now)?;
        let policy = match &self.config.policy {
            Some(path) => PeerPolicy::from_file(path)?,
            None => PeerPolicy::like(&own)?,
        };
        let policy = policy.no_older_than(&own);
        own.appraise(policy.policy(), now)?;
        Ok(Arc::clone(self.policy.get_or_init(|| Arc::new(policy))))
    }

    async fn join_at(&self, address: &Address, policy: &PeerPolicy) -> Result<Ratchet, AttemptError> {
        let protocol = |reason: String| AttemptError::Protocol { address: address.clone(), reason };
        let member = self.meet(address, policy).await?;
        let group = member.claims().key_source.group.ok_or_else(|| protocol("it names no group".into()))?;
        let configs = KeyConfig::parse_list(member.key_configs()).map_err(|err| protocol(err.to_string()))?;
        let key = configs.into_iter().find(|config| config.kem() == Kem::XWing);
        let key = key.ok_or_else(|| protocol("it has no X-Wing key".into()))?;
        let key = SealingKey::new(key, &member).map_err(|err| protocol(err.to_string()))?;

        let challenge = exchange::ask(address, &key, CHALLENGE_PATH, b"").await?;
        let challenge: [u8; 32] =
            challenge.try_into().map_err(|_| protocol("its challenge is not 32 bytes".into()))?;
        // Keys for one answer, made as those of an epoch are and bound to nothing.
        let ephemeral = ephemeral().map_err(|err| protocol(err.to_string()))?;
        let subject = Published { configs: ephemeral.key_configs(), claims: self.joining() };
        let document = self.attestation.vouch(Nonce(challenge), subject).await?;
        let request = [&challenge, &document[..]].concat();
        let sealed = exchange::ask(address, &key, JOIN_PATH, &request).await?;
        let unopened = |err: OpenError| protocol(format!("its answer: {err}"));
        let (opened, _) = ephemeral.open(sealed, clock::now()).map_err(unopened)?;
        let state = |err: StateError| protocol(err.to_string());
        let ratchet = Ratchet::from_state(opened.plaintext.expose()).map_err(state)?;
        if *ratchet.fingerprint() != group.0 {
            return Err(protocol(format!(
                "the secret is of group {}, not {group}",
                Digest(*ratchet.fingerprint())
            )));
        }
        if ratchet.rollover() != self.times.rollover.as_secs() {
            return Err(protocol(format!("epochs of {} s", ratchet.rollover())));
        }
        Ok(ratchet)
    }

    /// The server at `address`, if it can be of one group with this one.
    async fn meet(&self, address: &Address, policy: &PeerPolicy) -> Result<Trusted, AttemptError> {
        let nonce = random::nonce()
            .map_err(|err| AttemptError::Protocol { address: address.clone(), reason: err.to_string() })?;
        let document = exchange::document(address, &nonce).await?;
        let place = || address.clone();
        let document = Document::parse(&document)
            .map_err(|source| AttemptError::Document { address: place(), source })?;
        let now = policy.time(self.keys.now());
        let genuine: Genuine = document
            .verify(Some(&nonce), now)
            .map_err(|source| AttemptError::NotGenuine { address: place(), source })?;
        let trusted = genuine
            .appraise(policy.policy(), now)
            .map_err(|source| AttemptError::NotTrusted { address: place(), source })?;
        policy
            .agree(&self.claims(), trusted.claims())
            .map_err(|source| AttemptError::Disagree { address: place(), source })?;
        Ok(trusted)
    }

    /// Looks whether the others are of the same group. Whatever is found, this server keeps its own secret.
    async fn look_around(&self) -> Result<(), JoinError> {
        let (policy, own) = (self.policy().await?, self.claim().group);
        let mut foreign = 0_i64;
        for address in resolve(&self.config.peers).await? {
            match self.meet(&address, &policy).await {
                Ok(member) if member.claims().key_source.group == own => {}
                Ok(member) => {
                    foreign = foreign.saturating_add(1);
                    let [theirs, ours] = [member.claims().key_source.group, own]
                        .map(|group| group.map_or("none".into(), |group| group.to_string()));
                    warn!(
                        "{address} is of another group, {theirs}; this server is of {ours} and stays. Restart the servers of one \
                         of the two: clients that meet both have to attest again and again"
                    );
                }
                // The peer may be restarting, or be about to join.
                Err(AttemptError::Exchange(ExchangeError::Silent { .. } | ExchangeError::NoKeys(_))) => {}
                Err(err) => warn!("a peer that cannot be of this group: {err}"),
            }
        }
        self.metrics.foreign_peers.store(foreign, Relaxed);
        Ok(())
    }

    /// What this server claims, joined or not.
    fn claims(&self) -> Claims {
        Claims { key_source: self.claim(), ..self.keys.published().claims }
    }

    /// The claims of a joiner: of no group, and without keys for clients.
    fn joining(&self) -> Claims {
        let key_source = KeySource { group: None, ..self.claim() };
        Claims { key_source, keys: Vec::new(), ..self.keys.published().claims }
    }
}

/// [`Group`] as a source of keys.
pub struct Shared(pub Arc<Group>);

impl KeyProvider for Shared {
    fn claim(&self) -> KeySource {
        self.0.claim()
    }

    fn epoch(&self, at: UnixTime) -> BoxFuture<'_, Result<Epoch, ProviderError>> {
        Box::pin(async move {
            if !self.0.has_joined() {
                let joined = self.0.join().await.map_err(ProviderError::new)?;
                *self.0.ratchet.lock().unwrap_or_else(PoisonError::into_inner) = Some(joined);
            }
            self.0.epoch(at)
        })
    }

    fn sync(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        // Epochs come without talking, so nothing waits for those that may not answer.
        let group = Arc::clone(&self.0);
        tokio::spawn(async move {
            let Ok(_alone) = group.looking.try_lock() else { return };
            if group.has_joined()
                && let Err(err) = group.look_around().await
            {
                warn!("cannot look for the others of the group: {err}");
            }
        });
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Group {
    fn claim(&self) -> KeySource {
        let ratchet = self.ratchet.lock().unwrap_or_else(PoisonError::into_inner);
        KeySource {
            kind: "peer".into(),
            group: ratchet.as_ref().map(|ratchet| Digest(*ratchet.fingerprint())),
            peer_policy_sha256: self.policy.get().map(|policy| policy.sha256()),
            ..KeySource::default()
        }
    }

    fn has_joined(&self) -> bool {
        self.ratchet.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn epoch(&self, at: UnixTime) -> Result<Epoch, ProviderError> {
        let mut ratchet = self.ratchet.lock().unwrap_or_else(PoisonError::into_inner);
        let ratchet = ratchet.as_mut().ok_or_else(|| ProviderError::new("not of a group"))?;
        ratchet.forget(self.keys.now(), self.times.grace);
        ratchet.epoch(at).map_err(ProviderError::new)
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A ring for one answer.
fn ephemeral() -> Result<KeyRing, RingError> {
    let now = clock::now();
    let minute = Duration::from_secs(60);
    let config = RingConfig {
        grace: minute,
        date_window: minute,
        replay_capacity: 1,
        resumption: ResumptionLimits::OFF,
    };
    let ring = KeyRing::new(config, [0; 32], now)?;
    let secret = EpochSecret::generate(&mut rng());
    let not_after = UnixTime(now.0.saturating_add(minute.as_secs()));
    ring.install(Epoch { number: 0, secret, not_before: now, not_after }, now)?;
    Ok(ring)
}

struct Listed<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there are no peers");
        }
        for (i, item) in self.0.iter().enumerate() {
            write!(f, "{}{item}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Asks for 32 bytes that the joiner's evidence has to be made for.
pub const CHALLENGE_PATH: &str = "/confonnx/peers/challenge";
/// Asks for the state.
pub const JOIN_PATH: &str = "/confonnx/peers/join";
