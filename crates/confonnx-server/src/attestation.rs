//! Attestation documents. The TEE makes one quote at a time; all nonces that arrive meanwhile share the next.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use confonnx_attest::{
    Build, Claims, ClientAuth, Document, Evidence, KeySource, ModelClaim, Nonce, PROTOCOL, Runtime,
    merkle::{InclusionProof, MAX_LEAVES, Tree, TreeError},
    produce::{Attester, ProduceError},
    report_data,
};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tracing::error;

use crate::{clock, keys::Keys, metrics::Metrics, models::Slot};

/// Gives out documents.
pub struct Attestation {
    waiting: mpsc::SyncSender<Waiting>,
}

/// What the claims say besides time and keys.
pub struct Statement {
    /// This program.
    pub build: Build,
    /// ONNX Runtime.
    pub runtime: Runtime,
    /// The model.
    pub slot: Arc<Slot>,
    /// `none` or `bearer`.
    pub client_auth: &'static str,
    /// Every host setting that touches trust.
    pub settings: Map<String, Value>,
}

/// There is no document: too many callers wait, or the TEE gave no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no attestation")]
pub struct Unavailable;

impl Attestation {
    /// Starts the thread that talks to the TEE.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        attester: Attester,
        statement: Statement,
        keys: Arc<Keys>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (waiting, queue) = mpsc::sync_channel(MAX_WAITING);
        let mut producer = Producer { attester, statement, keys, metrics, cached: None };
        thread::Builder::new().name("attestation".into()).spawn(move || producer.run(&queue))?;
        Ok(Self { waiting })
    }

    /// A document for `nonce`; without one the latest, at most [`MAX_CACHE_AGE`] old.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn document(&self, nonce: Option<Nonce>) -> Result<Bytes, Unavailable> {
        let (answer, document) = oneshot::channel();
        self.waiting.try_send(Waiting { nonce, answer }).map_err(|_| Unavailable)?;
        document.await.unwrap_or(Err(Unavailable))
    }
}

struct Waiting {
    nonce: Option<Nonce>,
    answer: oneshot::Sender<Result<Bytes, Unavailable>>,
}

struct Producer {
    attester: Attester,
    statement: Statement,
    keys: Arc<Keys>,
    metrics: Arc<Metrics>,
    cached: Option<Cached>,
}

/// The latest document without a nonce, and the keys and models it lists.
struct Cached {
    made: Instant,
    key_configs: Vec<u8>,
    models: Vec<ModelClaim>,
    document: Bytes,
}

#[derive(Debug, thiserror::Error)]
enum QuoteError {
    #[error(transparent)]
    Produce(#[from] ProduceError),
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
}

impl Producer {
    fn run(&mut self, queue: &mpsc::Receiver<Waiting>) {
        while let Ok(first) = queue.recv() {
            let batch: Vec<Waiting> =
                std::iter::once(first).chain(queue.try_iter()).take(MAX_WAITING).collect();
            let (with_nonce, without): (Vec<_>, Vec<_>) = batch.into_iter().partition(|w| w.nonce.is_some());
            if !with_nonce.is_empty() {
                self.answer_nonces(with_nonce);
            }
            if !without.is_empty() {
                let document = self.latest();
                for caller in without {
                    self.give(caller, document.clone());
                }
            }
        }
    }

    fn answer_nonces(&mut self, callers: Vec<Waiting>) {
        let nonces = callers.iter().filter_map(|caller| caller.nonce).collect();
        match self.quote(nonces) {
            Ok(quote) => {
                for (index, caller) in callers.into_iter().enumerate() {
                    self.give(caller, Ok(quote.document(quote.tree.proof(index))));
                }
            }
            Err(err) => {
                error!("the TEE gave no evidence: {err}");
                callers.into_iter().for_each(|caller| self.give(caller, Err(Unavailable)));
            }
        }
    }

    fn latest(&mut self) -> Result<Bytes, Unavailable> {
        let configs = self.keys.published().configs;
        let models = self.statement.slot.claims();
        let current = |cached: &&Cached| {
            cached.made.elapsed() < MAX_CACHE_AGE && cached.key_configs == configs && cached.models == models
        };
        if let Some(cached) = self.cached.as_ref().filter(current) {
            return Ok(cached.document.clone());
        }
        let quoted = random_nonce().and_then(|nonce| self.quote(vec![nonce]));
        match quoted {
            Ok(quote) => {
                let document = quote.document(None);
                let (made, document_) = (Instant::now(), document.clone());
                self.cached = Some(Cached { made, key_configs: configs, models, document: document_ });
                Ok(document)
            }
            Err(err) => {
                error!("the TEE gave no evidence: {err}");
                Err(Unavailable)
            }
        }
    }

    /// One quote for `nonces`.
    fn quote(&self, nonces: Vec<Nonce>) -> Result<Quote, QuoteError> {
        let tree = Tree::new(nonces)?;
        let root = tree.root();
        let keys = self.keys.published();
        let claims = Claims {
            protocol: PROTOCOL.into(),
            issued_at: clock::now(),
            build: self.statement.build.clone(),
            runtime: self.statement.runtime.clone(),
            models: self.statement.slot.claims(),
            keys: keys.claims,
            key_source: KeySource { kind: "local".into() },
            client_auth: ClientAuth { kind: self.statement.client_auth.into() },
            settings: self.statement.settings.clone(),
        }
        .to_bytes();
        self.metrics.quotes.fetch_add(1, Relaxed);
        let evidence = self.attester.evidence(&report_data(&root, &keys.configs, &claims))?;
        Ok(Quote { tree, key_configs: keys.configs.clone(), claims, evidence })
    }

    fn give(&self, caller: Waiting, document: Result<Bytes, Unavailable>) {
        self.metrics.documents.fetch_add(u64::from(document.is_ok()), Relaxed);
        // The caller may have gone.
        let _ = caller.answer.send(document);
    }
}

/// Evidence for a batch of nonces.
struct Quote {
    tree: Tree,
    key_configs: Vec<u8>,
    claims: Vec<u8>,
    evidence: Evidence,
}

impl Quote {
    fn document(&self, proof: Option<InclusionProof>) -> Bytes {
        let (configs, claims) = (self.key_configs.clone(), self.claims.clone());
        Document::new(configs, claims, self.evidence.clone(), self.tree.root(), proof).to_json().into()
    }
}

fn random_nonce() -> Result<Nonce, QuoteError> {
    let mut nonce = Nonce([0; 32]);
    getrandom::fill(&mut nonce.0)?;
    Ok(nonce)
}

/// How old a document without a nonce gets before it is made anew.
pub const MAX_CACHE_AGE: Duration = Duration::from_secs(60);

/// Callers that can wait for the next quote.
const MAX_WAITING: usize = 4096;
const _: () = assert!(MAX_WAITING <= MAX_LEAVES);
