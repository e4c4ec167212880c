//! Where the secrets of key epochs come from (docs/guides/keys.md shows how to write another source).

use std::{error::Error, future::Future, pin::Pin};

use confonnx_attest::{KeySource, UnixTime};
use confonnx_protocol::server::Epoch;

/// A source of epoch secrets.
///
/// Servers whose sources give the same epochs, and whose claims are the same, have the same keys. The server asks at its
/// start, some time before an epoch ends, and again after a failure; meanwhile it keeps the keys it has for as long as they
/// are accepted.
pub trait KeyProvider: Send + Sync {
    /// What the claims say of it: whatever lets a client decide whether it trusts this source. Asked after each
    /// [`epoch`](Self::epoch); a change changes the keys.
    fn claim(&self) -> KeySource;

    /// The epoch at `at`, the same each time. `at` is now, or within the epoch before, or the end of one given before.
    /// Before the first epoch there is, that one.
    ///
    /// # Errors
    /// [`ProviderError`]; it is logged and shown to whoever operates the server, so it must hold no secret.
    fn epoch(&self, at: UnixTime) -> BoxFuture<'_, Result<Epoch, ProviderError>>;

    /// Looks at the source again: every `--key-sync-interval`, and when a client has a key that is not known here. Sources
    /// that are not shared have nothing to look at.
    ///
    /// # Errors
    /// [`ProviderError`], as above.
    fn sync(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A future that can be sent to another thread.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a source gives no secret.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ProviderError(Box<dyn Error + Send + Sync>);

impl ProviderError {
    /// An error made of whatever went wrong.
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}
