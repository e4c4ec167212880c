//! Attestation documents. The TEE makes one quote at a time; all nonces that arrive meanwhile share the next.
//!
//! Each of their documents has the same bytes up to the proof that its nonce was among them, so those are made once.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed, mpsc},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use confonnx_attest::{
    Documents, MAX_PROOF_BYTES, Nonce, is_proof,
    merkle::{MAX_LEAVES, Tree, TreeError},
    produce::ProduceError,
    report_data,
};
use tokio::sync::oneshot;
use tracing::error;

use crate::{
    clock,
    collateral::Collateral,
    evidence::Source,
    keys::{Keys, Published},
    metrics::Metrics,
    random,
};

/// Gives out documents.
pub struct Attestation {
    waiting: mpsc::SyncSender<Waiting>,
}

/// There is no document: too many callers wait, or the TEE gave no evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no attestation")]
pub struct Unavailable;

/// Why the TEE is of no use.
#[derive(Debug, thiserror::Error)]
pub enum AttestationError {
    /// The TEE gave no first evidence.
    #[error("the TEE gives no evidence: {0}")]
    Quote(#[from] QuoteError),
    /// The proof of the release cannot be read.
    #[error("release-proof {}: {source}", path.display())]
    ReleaseProof {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The proof of the release is none.
    #[error(
        "release-proof {} is no proof: expected c2sp.org/tlog-proof@v1 with the entry as `extra`, {MAX_PROOF_BYTES} bytes at \
         most, as `release.tlog-proof` of a release is",
        path.display()
    )]
    NoReleaseProof {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What `path` has for clients who want the program's release to be in a transparency log. They judge it.
///
/// # Errors
/// [`AttestationError::ReleaseProof`] and [`AttestationError::NoReleaseProof`].
pub fn release_proof(path: &Path) -> Result<String, AttestationError> {
    let mut text = String::new();
    let most = u64::try_from(MAX_PROOF_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let file = File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    match file {
        Err(source) if source.kind() != ErrorKind::InvalidData => {
            Err(AttestationError::ReleaseProof { path: path.into(), source })
        }
        Ok(_) if is_proof(&text) => Ok(text),
        _ => Err(AttestationError::NoReleaseProof { path: path.into() }),
    }
}

impl Attestation {
    /// Makes the first quote, then starts the thread that talks to the TEE.
    ///
    /// # Errors
    /// See [`AttestationError`].
    pub fn start(
        source: Arc<Mutex<Source>>,
        keys: Arc<Keys>,
        collateral: Arc<Collateral>,
        metrics: Arc<Metrics>,
        release_proof: Option<String>,
    ) -> Result<Self, AttestationError> {
        let (waiting, queue) = mpsc::sync_channel(MAX_WAITING);
        let interval = source.lock().unwrap_or_else(PoisonError::into_inner).interval;
        let (cached, last_quote) = (None, None);
        let mut producer =
            Producer { source, interval, keys, collateral, metrics, release_proof, cached, last_quote };
        // Shows what collateral is needed, and a device that does not work while somebody looks.
        producer.cache()?;
        thread::Builder::new().name("attestation".into()).spawn(move || producer.run(&queue))?;
        Ok(Self { waiting })
    }

    /// A document for `nonce`; without one the latest, at most [`MAX_CACHE_AGE`] old.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn document(&self, nonce: Option<Nonce>) -> Result<Bytes, Unavailable> {
        self.wait(nonce, None).await
    }

    /// A document for `nonce` that vouches for other keys and claims than those published; its time is set here.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn vouch(&self, nonce: Nonce, subject: Published) -> Result<Bytes, Unavailable> {
        self.wait(Some(nonce), Some(subject)).await
    }

    async fn wait(&self, nonce: Option<Nonce>, subject: Option<Published>) -> Result<Bytes, Unavailable> {
        let (answer, document) = oneshot::channel();
        let subject = subject.map(Box::new);
        self.waiting.try_send(Waiting { nonce, subject, answer }).map_err(|_| Unavailable)?;
        document.await.unwrap_or(Err(Unavailable))
    }
}

struct Waiting {
    nonce: Option<Nonce>,
    /// What the document is to be about, if not what is published.
    subject: Option<Box<Published>>,
    answer: oneshot::Sender<Result<Bytes, Unavailable>>,
}

struct Producer {
    source: Arc<Mutex<Source>>,
    interval: Duration,
    keys: Arc<Keys>,
    collateral: Arc<Collateral>,
    metrics: Arc<Metrics>,
    /// The program's proof from a transparency log: the same in all documents.
    release_proof: Option<String>,
    cached: Option<Cached>,
    last_quote: Option<Instant>,
}

/// The latest document without a nonce, and what it was made of.
struct Cached {
    made: Instant,
    /// Keys are for one value of the claims: with other claims these are others.
    key_configs: Vec<u8>,
    /// The [`version`](Collateral::version) of what is stapled.
    collateral: u64,
    document: Bytes,
}

/// Why there is no quote.
#[derive(Debug, thiserror::Error)]
pub enum QuoteError {
    /// The device.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// The nonces make no tree.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The system gives no randomness for a nonce of the server's own.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
}

impl Producer {
    fn run(&mut self, queue: &mpsc::Receiver<Waiting>) {
        while let Ok(first) = queue.recv() {
            // A caller who comes while the device rests shares the next quote, too.
            if let Some(last) = self.last_quote {
                thread::sleep(self.interval.saturating_sub(last.elapsed()));
            }
            let batch: Vec<Waiting> =
                std::iter::once(first).chain(queue.try_iter()).take(MAX_WAITING).collect();
            let (own, batch): (Vec<_>, Vec<_>) = batch.into_iter().partition(|w| w.subject.is_some());
            for mut caller in own {
                let subject = caller.subject.take();
                self.answer_nonces(vec![caller], subject);
            }
            let (with_nonce, without): (Vec<_>, Vec<_>) = batch.into_iter().partition(|w| w.nonce.is_some());
            if !with_nonce.is_empty() {
                self.answer_nonces(with_nonce, None);
            }
            if !without.is_empty() {
                let document = self.latest();
                for caller in without {
                    self.give(caller, document.clone());
                }
            }
        }
    }

    fn answer_nonces(&mut self, callers: Vec<Waiting>, subject: Option<Box<Published>>) {
        let nonces = callers.iter().filter_map(|caller| caller.nonce).collect();
        match self.quote(nonces, subject) {
            Ok(quote) => {
                for (index, caller) in callers.into_iter().enumerate() {
                    let document = quote.documents.to_json(quote.tree.proof(index).as_ref());
                    self.give(caller, Ok(document.into()));
                }
            }
            Err(err) => {
                error!("the TEE gave no evidence: {err}");
                callers.into_iter().for_each(|caller| self.give(caller, Err(Unavailable)));
            }
        }
    }

    fn latest(&mut self) -> Result<Bytes, Unavailable> {
        let (configs, collateral) = (self.keys.published().configs, self.collateral.version());
        let current = |cached: &&Cached| {
            cached.made.elapsed() < MAX_CACHE_AGE
                && cached.key_configs == configs
                && cached.collateral == collateral
        };
        if let Some(cached) = self.cached.as_ref().filter(current) {
            return Ok(cached.document.clone());
        }
        self.cache().map_err(|err| {
            error!("the TEE gave no evidence: {err}");
            Unavailable
        })
    }

    /// Makes the latest document.
    fn cache(&mut self) -> Result<Bytes, QuoteError> {
        let quote = self.quote(vec![random::nonce()?], None)?;
        let document = Bytes::from(quote.documents.to_json(None));
        self.cached = Some(Cached {
            made: Instant::now(),
            key_configs: quote.key_configs,
            collateral: quote.collateral,
            document: document.clone(),
        });
        Ok(document)
    }

    /// One quote for `nonces`, about what is published if nothing else is given.
    fn quote(&mut self, nonces: Vec<Nonce>, subject: Option<Box<Published>>) -> Result<Quote, QuoteError> {
        let tree = Tree::new(nonces)?;
        let root = tree.root();
        let Published { configs, mut claims } =
            subject.map_or_else(|| self.keys.published(), |subject| *subject);
        let claims_time = clock::now();
        claims.issued_at = claims_time;
        let claims = claims.to_bytes();
        self.metrics.quotes.fetch_add(1, Relaxed);
        self.metrics.quoted.store(claims_time.0, Relaxed);
        self.last_quote = Some(Instant::now());
        let report_data = report_data(&root, &configs, &claims);
        let mut evidence =
            (self.source.lock().unwrap_or_else(PoisonError::into_inner).evidence)(&report_data)?;
        let collateral = self.collateral.staple(&mut evidence);
        let documents = Documents::new(&configs, &claims, &evidence, root, self.release_proof.as_deref());
        Ok(Quote { tree, key_configs: configs, collateral, documents })
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
    collateral: u64,
    documents: Documents,
}

/// How old a document without a nonce gets before it is made anew.
pub const MAX_CACHE_AGE: Duration = Duration::from_secs(60);

/// Callers that can wait for the next quote.
const MAX_WAITING: usize = 4096;
const _: () = assert!(MAX_WAITING <= MAX_LEAVES);
