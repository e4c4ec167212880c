#![no_main]

use std::{sync::LazyLock, time::Duration};

use confonnx_attest::UnixTime;
use confonnx_protocol::{
    EpochSecret,
    resumption::ResumptionGrant,
    server::{Epoch, KeyRing, OpenError, ResumptionLimits, RingConfig},
};
use libfuzzer_sys::fuzz_target;
use rand_core::{Infallible, TryCryptoRng, TryRng};

const NOW: UnixTime = UnixTime(1_795_426_200);

/// The server of vectors/session, after it granted their resumption.
static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let (day, resumption) =
        (Duration::from_secs(86_400), ResumptionLimits { max: 16, lifetime: Duration::from_secs(600) });
    let config = RingConfig { grace: day, date_window: day, replay_capacity: 16, resumption };
    let binding = std::array::from_fn(|i| 141_u8.wrapping_add(i as u8));
    let ring = KeyRing::new(config, binding, NOW).expect("sound settings");
    let secret = EpochSecret::new(std::array::from_fn(|i| i as u8));
    let epoch = Epoch { number: 300, secret, not_before: NOW, not_after: UnixTime(NOW.0 + 86_400) };
    ring.install(epoch, NOW).expect("a sound epoch");
    let opening = include_bytes!("../seeds/session_request/opening").to_vec();
    let (opened, _) = ring.open(opening, NOW).expect("sealed to this ring");
    opened.grant_resumption(&mut Ids(0xa0)).expect("a resumption");
    ring
});

// No input can be authentic but the seeds, each of which opens once.
fuzz_target!(|input: &[u8]| {
    match RING.open_resumed(input.to_vec(), NOW) {
        Ok((opened, _)) => assert!(opened.plaintext.len() == input.len() - 63 - 16),
        Err(OpenError::Truncated { len }) => assert!(len < 63 + 16),
        Err(_) => {}
    }
    // The text as a client reads a grant.
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = text.parse::<ResumptionGrant>();
    }
});

/// A generator whose bytes count up.
struct Ids(u8);

impl TryRng for Ids {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.0.into())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.0.into())
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for byte in out {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
        Ok(())
    }
}

impl TryCryptoRng for Ids {}
