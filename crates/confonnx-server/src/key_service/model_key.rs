//! The key of encrypted models, from a service instead of their owner.

use std::time::Duration;

use confonnx_model::encrypted::{KeyError, ModelKey};
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::{ReleaseError, Secret};

/// Why models stay locked.
#[derive(Debug, thiserror::Error)]
enum Locked<E> {
    #[error(transparent)]
    Release(#[from] ReleaseError),
    #[error("the released secret is no model key: {0}")]
    Text(#[from] KeyError),
    #[error("the released key has {0} bytes, and the X25519 identity of a model 32")]
    Bytes(usize),
    #[error("{0}")]
    Unlock(E),
}

/// Asks for `secret`, and `unlock`s with it what is encrypted; again every `retry` until that works.
pub async fn unlock<F, E>(secret: Secret, retry: Duration, unlock: F)
where
    F: Fn(&ModelKey) -> Result<(), E> + Clone + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    loop {
        match attempt(&secret, unlock.clone()).await {
            Ok(()) => return info!("the model's key came from {}", secret.service().url),
            Err(err) => {
                warn!("the model stays locked: {err}; next attempt in {} s", retry.as_secs());
                tokio::time::sleep(retry).await;
            }
        }
    }
}

async fn attempt<F, E>(secret: &Secret, unlock: F) -> Result<(), Locked<E>>
where
    F: Fn(&ModelKey) -> Result<(), E> + Send + 'static,
    E: Send + 'static,
{
    let bytes = secret.fetch().await?;
    let key = match secret {
        // The file that `confonnx encrypt-model` or age-keygen wrote.
        Secret::Kbs(..) => {
            let text = Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned());
            text.parse()?
        }
        Secret::Akv(..) => {
            let identity = bytes.as_slice().try_into().map_err(|_| Locked::Bytes(bytes.len()))?;
            ModelKey::from_bytes(identity).ok_or(Locked::Bytes(bytes.len()))?
        }
    };
    match tokio::task::spawn_blocking(move || unlock(&key)).await {
        Ok(result) => result.map_err(Locked::Unlock),
        // Loading panicked: that was said, and the next attempt may do better.
        Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
    }
}
