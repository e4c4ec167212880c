//! A member's side: who asks to join proves what it is, and gets the state sealed to its own keys.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use confonnx_attest::{Document, DocumentError, Nonce, PolicyError, UnixTime, VerifyError};
use confonnx_protocol::{Aead, Kem, KeyConfig, client::SealingKey};
use tracing::info;

use super::{Disagree, Group};
use crate::random::rng;

/// What was asked of a member.
#[derive(Clone, Copy, Debug)]
pub enum JoinRequest {
    /// A challenge.
    Challenge,
    /// The state.
    Join,
}

/// Why somebody does not get the state.
#[derive(Debug, thiserror::Error)]
pub enum JoinRefusal {
    /// This server has no secret to give.
    #[error("this server is not of a group itself")]
    NotJoined,
    /// The evidence is of a server that serves already. Whoever relays its document could have asked for it.
    #[error(
        "the joiner: its document is one for clients; a joiner's has neither a group nor keys in its claims"
    )]
    Serving,
    /// The request is not a challenge and a document.
    #[error("expected 32 bytes of a challenge and an attestation document")]
    Short,
    /// The challenge is not one that was given, or too long ago.
    #[error("the challenge is not one that was given within the last {CHALLENGE_LIFE} s; ask for another")]
    Challenge,
    /// The document cannot be read.
    #[error("the joiner's document: {0}")]
    Document(#[from] DocumentError),
    /// The evidence is not genuine, or not for the challenge.
    #[error("the joiner: {0}")]
    NotGenuine(#[from] VerifyError),
    /// The joiner is not what the peer policy wants.
    #[error("the joiner: {0}")]
    NotTrusted(#[from] PolicyError),
    /// The joiner's settings are others.
    #[error("the joiner: {0}")]
    Disagree(#[from] Disagree),
    /// There is no key to seal to.
    #[error("the joiner's keys cannot be sealed to: {0}")]
    Key(String),
    /// The system gives no randomness.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
}

/// Challenges that were given and not used. The oldest makes room.
#[derive(Debug, Default)]
pub struct Challenges(Mutex<VecDeque<([u8; 32], UnixTime)>>);

impl Challenges {
    fn give(&self, now: UnixTime) -> Result<[u8; 32], getrandom::Error> {
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge)?;
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if given.len() >= MAX_CHALLENGES {
            given.pop_front();
        }
        given.push_back((challenge, now));
        Ok(challenge)
    }

    /// Whether it was given; it counts once.
    fn take(&self, challenge: &[u8; 32], now: UnixTime) -> bool {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(at) = given.iter().position(|(known, _)| known == challenge) else { return false };
        given.remove(at).is_some_and(|(_, at)| now.0.saturating_sub(at.0) <= CHALLENGE_LIFE)
    }
}

impl Group {
    /// The answer to what a joiner asks, sealed.
    ///
    /// # Errors
    /// [`JoinRefusal`]
    pub fn answer(&self, asked: JoinRequest, body: &[u8]) -> Result<Vec<u8>, JoinRefusal> {
        match asked {
            JoinRequest::Challenge => Ok(self.challenges.give(self.keys.now())?.to_vec()),
            JoinRequest::Join => self.admit(body),
        }
    }

    fn admit(&self, body: &[u8]) -> Result<Vec<u8>, JoinRefusal> {
        let (challenge, document) = body.split_first_chunk::<32>().ok_or(JoinRefusal::Short)?;
        // The host may turn its clock back: by the ring's, a challenge that is over stays over.
        let now = self.keys.now();
        if !self.challenges.take(challenge, now) {
            return Err(JoinRefusal::Challenge);
        }
        let policy = self.policy.get().ok_or(JoinRefusal::NotJoined)?;
        let judged_at = policy.time(now);
        let joiner = Document::parse(document)?.verify(Some(&Nonce(*challenge)), judged_at)?;
        let joiner = joiner.appraise(policy.policy(), judged_at)?;
        if joiner.claims().key_source.group.is_some() || !joiner.claims().keys.is_empty() {
            return Err(JoinRefusal::Serving);
        }
        policy.agree(&self.claims(), joiner.claims())?;
        let unusable = |err: &dyn std::fmt::Display| JoinRefusal::Key(err.to_string());
        let configs = KeyConfig::parse_list(joiner.key_configs()).map_err(|err| unusable(&err))?;
        let key = configs.into_iter().find(|config| config.kem() == Kem::XWing);
        let key = SealingKey::new(key.ok_or_else(|| unusable(&"none is for X-Wing"))?, &joiner)
            .map_err(|err| unusable(&err))?;
        let state = {
            let mut ratchet = self.ratchet.lock().unwrap_or_else(PoisonError::into_inner);
            let ratchet = ratchet.as_mut().ok_or(JoinRefusal::NotJoined)?;
            ratchet.forget(now, self.times.grace);
            ratchet.state()
        };
        let (sealed, _) = key.seal(Aead::Aes256Gcm, &state[..], &mut rng()).map_err(|err| unusable(&err))?;
        info!("a server with the enclave hash {} joins the group", joiner.enclave_hash());
        Ok(sealed)
    }
}

/// How many seconds may be between a challenge and its use.
const CHALLENGE_LIFE: u64 = 60;
/// A group has fewer members that join at once.
const MAX_CHALLENGES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_counts_once_and_not_for_long() {
        let challenges = Challenges::default();
        let start = UnixTime(1_000);
        let challenge = challenges.give(start).unwrap();
        assert!(!challenges.take(&[0; 32], start));
        assert!(challenges.take(&challenge, start));
        assert!(!challenges.take(&challenge, start));
        let late = challenges.give(start).unwrap();
        assert!(!challenges.take(&late, UnixTime(start.0 + CHALLENGE_LIFE + 1)));
        let crowded_out = challenges.give(start).unwrap();
        let kept: Vec<_> = (0..MAX_CHALLENGES).map(|_| challenges.give(start).unwrap()).collect();
        assert!(!challenges.take(&crowded_out, start));
        assert!(kept.iter().all(|challenge| challenges.take(challenge, start)));
    }
}
