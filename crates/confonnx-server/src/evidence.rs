//! This server's TEE, asked for evidence: for clients by [`attestation`](crate::attestation), for others by [`Prover`].

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::random;
use confonnx_attest::{
    Evidence, Tee,
    key_service::MachineKey,
    produce::{Attester, ProduceError},
};

/// What makes evidence: a TEE's device, or what stands for one in a test or measurement.
pub struct Source {
    /// The TEE it is part of.
    pub tee: Tee,
    /// Asks it. May block for some 100 ms.
    pub evidence: Box<Produce>,
    /// Makes a key of the machine's own, if it has such.
    pub machine_key: Option<Box<MakeKey>>,
    /// The least time from one quote's start to the next. Devices are often shared with other guests.
    pub interval: Duration,
}

/// Makes evidence that carries the 64 bytes.
pub type Produce = dyn FnMut(&[u8; 64]) -> Result<Evidence, ProduceError> + Send;

/// Makes a key of the machine that is another one for each of the bytes.
pub type MakeKey = dyn Fn(&[u8; 256]) -> Result<Option<MachineKey>, ProduceError> + Send;

/// Gives evidence. Clones ask the same device, one at a time.
#[derive(Clone)]
pub struct Prover {
    tee: Tee,
    source: Arc<Mutex<Source>>,
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
pub enum NoEvidence {
    /// The device.
    #[error("the TEE gives no evidence: {0}")]
    Produce(#[from] ProduceError),
    /// The server is stopping.
    #[error("the TEE is not asked any more: the server stops")]
    Stopped,
}

impl Prover {
    /// Asks `source`.
    pub fn new(source: Arc<Mutex<Source>>) -> Self {
        let tee = source.lock().unwrap_or_else(PoisonError::into_inner).tee;
        Self { tee, source }
    }

    /// The TEE that the evidence is of.
    pub fn tee(&self) -> Tee {
        self.tee
    }

    /// Evidence that carries `report_data`.
    ///
    /// # Errors
    /// See [`NoEvidence`].
    pub async fn evidence(&self, report_data: [u8; 64]) -> Result<Evidence, NoEvidence> {
        let source = Arc::clone(&self.source);
        let asked = tokio::task::spawn_blocking(move || {
            (source.lock().unwrap_or_else(PoisonError::into_inner).evidence)(&report_data)
        });
        Ok(asked.await.map_err(|_| NoEvidence::Stopped)??)
    }
}

impl Prover {
    /// A key of the machine to which services encrypt that take none of ours; `None` where they do.
    ///
    /// # Errors
    /// See [`NoEvidence`].
    pub async fn machine_key(&self) -> Result<Option<MachineKey>, NoEvidence> {
        let source = Arc::clone(&self.source);
        let unique = random::bytes();
        let made = tokio::task::spawn_blocking(move || {
            let source = source.lock().unwrap_or_else(PoisonError::into_inner);
            source.machine_key.as_ref().map_or(Ok(None), |make| make(&unique))
        });
        Ok(made.await.map_err(|_| NoEvidence::Stopped)??)
    }
}

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("tee", &self.tee).finish_non_exhaustive()
    }
}

impl From<Attester> for Source {
    fn from(attester: Attester) -> Self {
        let tee = attester.tee();
        let interval = if tee == Tee::Insecure { Duration::ZERO } else { DEVICE_REST };
        let attester = Arc::new(attester);
        let maker = Arc::clone(&attester);
        Self {
            tee,
            evidence: Box::new(move |report_data| attester.evidence(report_data)),
            machine_key: Some(Box::new(move |unique| maker.machine_key(unique))),
            interval,
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("tee", &self.tee).finish_non_exhaustive()
    }
}

/// The rest between quotes: at most twelve a second are asked of a device. The first caller of an idle server waits for
/// none.
pub const DEVICE_REST: Duration = Duration::from_millis(85);
