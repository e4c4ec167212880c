//! Calls that another thread can end.

use std::future::Future;

use confonnx_client::ClientError;
use tokio::sync::watch;

use crate::error::Failure;
use crate::pointer;

/// Ends calls that were given it, from any thread.
pub struct ConfonnxCancel(watch::Sender<bool>);

/// A handle by which calls can be ended.
#[unsafe(no_mangle)]
pub extern "C" fn confonnx_cancel_new() -> *mut ConfonnxCancel {
    pointer::hand_out(ConfonnxCancel(watch::Sender::new(false)))
}

/// Ends all calls that were given `cancel`, and those that will be. May be called from any thread, at any time before it is
/// freed.
///
/// # Safety
/// `cancel` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_cancel_now(cancel: *const ConfonnxCancel) {
    // SAFETY: as the caller says.
    if let Some(ConfonnxCancel(sender)) = unsafe { cancel.as_ref() } {
        sender.send_replace(true);
    }
}

/// Frees the handle, after the calls that were given it have returned.
///
/// # Safety
/// `cancel` is null, or was given out by this library and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn confonnx_cancel_free(cancel: *mut ConfonnxCancel) {
    // SAFETY: as the caller says.
    unsafe { pointer::free(cancel) }
}

impl ConfonnxCancel {
    /// What comes of `call`, unless it is ended before.
    pub(crate) async fn bound<T>(
        cancel: Option<&Self>,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, Failure> {
        let Some(Self(sender)) = cancel else { return Ok(call.await?) };
        let mut ended = sender.subscribe();
        let mut call = std::pin::pin!(call);
        let mut end = std::pin::pin!(async move {
            // Its sender outlives the call.
            let _ = ended.wait_for(|ended| *ended).await;
        });
        std::future::poll_fn(|context| {
            if end.as_mut().poll(context).is_ready() {
                return std::task::Poll::Ready(Err(Failure::cancelled()));
            }
            call.as_mut().poll(context).map_err(Failure::from)
        })
        .await
    }
}
