//! What may be tried again, and when.

use std::time::Duration;

use rand_core::CryptoRng;

use crate::ClientError;

/// Whether the call was not run, or is `repeatable`: running it twice changes nothing; and whether a while later it may
/// succeed.
pub(super) fn may_retry(err: &ClientError, repeatable: bool) -> bool {
    match err {
        ClientError::Refused { code, .. } => matches!(
            code.as_str(),
            "queue-full"
                | "connections-full"
                | "replay-state-full"
                | "attestation-unavailable"
                | "keys-unavailable"
                | "shutting-down"
        ),
        ClientError::Inner { status: 429 | 503, code, .. } => {
            matches!(code.as_str(), "rate-limited" | "auth-unavailable" | "model-restarting")
        }
        ClientError::Transport { sent, .. } => !sent || repeatable,
        // A gateway that lost its server, in its own words.
        ClientError::Unsealed { status: 502..=504, .. } => repeatable,
        _ => false,
    }
}

/// How long to wait before the try after `tries`: twice as long each time, half of it at random so that many clients do
/// not come at once, and at least what the server asks for.
pub(super) fn pause(tries: u32, asked: Option<Duration>, rng: &mut impl CryptoRng) -> Duration {
    let longest = FIRST.saturating_mul(1_u32.checked_shl(tries).unwrap_or(u32::MAX)).min(LONGEST);
    let share = f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let half = longest.checked_div(2).unwrap_or_default();
    half.saturating_add(half.mul_f64(share)).max(asked.unwrap_or_default())
}

const FIRST: Duration = Duration::from_millis(200);
const LONGEST: Duration = Duration::from_secs(10);
