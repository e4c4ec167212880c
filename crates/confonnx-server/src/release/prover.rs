//! This server's TEE, asked for evidence that is for others than clients.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use confonnx_attest::{Evidence, Tee, produce::ProduceError};

use crate::attestation::Source;

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

    /// What the evidence is of.
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

impl fmt::Debug for Prover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prover").field("tee", &self.tee).finish_non_exhaustive()
    }
}
