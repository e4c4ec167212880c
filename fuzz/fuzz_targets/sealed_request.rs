#![no_main]

use std::{sync::LazyLock, time::Duration};

use confonnx_attest::UnixTime;
use confonnx_protocol::{
    EpochSecret,
    server::{Epoch, KeyRing, RingConfig, ResumptionLimits},
};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_795_426_200);

static RING: LazyLock<KeyRing> = LazyLock::new(|| {
    let day = Duration::from_secs(86_400);
    let (replay_capacity, resumption) = (1 << 16, ResumptionLimits::OFF);
    let config = RingConfig { grace: day, date_window: day, replay_capacity, resumption };
    let ring = KeyRing::new(config, std::array::from_fn(|i| 141_u8.wrapping_add(i as u8)), NOW).expect("sound settings");
    let secret = EpochSecret::new(std::array::from_fn(|i| i as u8));
    let epoch = Epoch { number: 300, secret, not_before: NOW, not_after: UnixTime(NOW.0 + 86_400) };
    ring.install(epoch, NOW).expect("a sound epoch");
    ring
});

// No input can be authentic but the seeds, which one ring opens once.
fuzz_target!(|input: &[u8]| {
    let _ = RING.open(input.to_vec(), NOW);
    // The first byte says in which pieces the rest comes in.
    let Some((&size, sealed)) = input.split_first() else { return };
    let mut opener = RING.chunked_opener(1 << 16);
    let arrived = sealed.chunks(usize::from(size).max(1)).try_for_each(|bytes| opener.push(bytes, NOW));
    if arrived.is_ok() {
        let _ = opener.finish(NOW);
    }
});
