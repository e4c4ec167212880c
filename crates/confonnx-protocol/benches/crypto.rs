//! What sealing costs: whole exchanges by suite and size, key encapsulation alone, and the ratio to the bare cipher.
//!
//! `cargo bench -p confonnx-protocol --bench crypto` ends with one line that gives the ratio.

#![expect(clippy::print_stdout, reason = "the ratio is the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LcNonce, UnboundKey};
use confonnx_attest::{
    Claims, Digest, Document, Expectations, Nonce, Policy, UnixTime, merkle::Tree, produce::Attester,
    report_data,
};
use confonnx_protocol::{
    Aead, Draft, EpochSecret, Kem, KeyConfig,
    client::SealingKey,
    server::{Epoch, KeyRing, RingConfig, SessionLimits},
    session::Session,
};
use criterion::{BatchSize, Criterion, Throughput};
use getrandom::{SysRng, rand_core::UnwrapErr};
use hpke::{
    Kem as _, OpModeR, OpModeS, aead::ExportOnlyAead, kdf::HkdfSha256, setup_receiver, setup_sender_with_rng,
};

const NOW: UnixTime = UnixTime(1_795_426_200);
const SIZES: [(&str, usize); 3] = [("1 KiB", 1 << 10), ("64 KiB", 1 << 16), ("1 MiB", 1 << 20)];
const SUITES: [(&str, Kem, Aead); 2] = [
    ("X-Wing, AES-256-GCM", Kem::XWing, Aead::Aes256Gcm),
    ("X25519, AES-256-GCM", Kem::X25519, Aead::Aes256Gcm),
];
const RATIO_ROUNDS: usize = 401;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .configure_from_args();
    let ring = ring();
    seal_and_open(&mut criterion, &ring);
    resumed(&mut criterion, &ring);
    encapsulation(&mut criterion);
    criterion.final_summary();
    ratio(&ring);
}

/// A request sealed and opened, as client and server do it.
fn seal_and_open(criterion: &mut Criterion, ring: &KeyRing) {
    for (suite, kem, aead) in SUITES {
        let key = sealing_key(ring, kem);
        let mut group = criterion.benchmark_group(format!("seal+open, {suite}"));
        for (name, size) in SIZES {
            let message = vec![0x5a; size];
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(name, |bencher| {
                let draft = || Draft::from(&message);
                bencher.iter_batched(draft, |draft| exchange(ring, &key, aead, draft), BatchSize::LargeInput);
            });
        }
        group.finish();
    }
}

/// The same in a session.
fn resumed(criterion: &mut Criterion, ring: &KeyRing) {
    let session = session(ring);
    let mut group = criterion.benchmark_group("seal+open, in a session, AES-256-GCM");
    for (name, size) in SIZES {
        let message = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |bencher| {
            let draft = || Draft::from(&message);
            bencher.iter_batched(draft, |draft| exchange_in(ring, &session, draft), BatchSize::LargeInput);
        });
    }
    group.finish();
}

/// Key encapsulation with its key schedule: the fixed cost of a request.
fn encapsulation(criterion: &mut Criterion) {
    let ring = ring();
    let empty = b"";
    for (suite, kem, aead) in SUITES {
        let key = sealing_key(&ring, kem);
        let mut group = criterion.benchmark_group(format!("empty message, {suite}"));
        group.bench_function("seal", |bencher| bencher.iter(|| key.seal(aead, empty, &mut rng()).unwrap()));
        let seal = || key.seal(aead, empty, &mut rng()).unwrap().0;
        group.bench_function("open", |bencher| {
            bencher.iter_batched(seal, |request| ring.open(request, NOW).unwrap(), BatchSize::SmallInput);
        });
        group.finish();
    }
    // What the hpke crate's own X-Wing takes, which expands the private key for each message.
    type Theirs = hpke::kem::XWing;
    let (private, public) = Theirs::derive_keypair(&[7; 32]);
    let encapsulate = || {
        setup_sender_with_rng::<ExportOnlyAead, HkdfSha256, Theirs>(&OpModeS::Base, &public, b"", &mut rng())
            .unwrap()
    };
    let (encapsulated, _) = encapsulate();
    let mut group = criterion.benchmark_group("X-Wing of the hpke crate");
    group.bench_function("encapsulate", |bencher| bencher.iter(encapsulate));
    group.bench_function("decapsulate", |bencher| {
        bencher.iter(|| {
            setup_receiver::<ExportOnlyAead, HkdfSha256, Theirs>(&OpModeR::Base, &private, &encapsulated, b"")
                .unwrap()
        });
    });
    group.finish();
}

/// Prints throughput at 1 MiB over that of aws-lc-rs alone, all measured turn by turn: once with everything, once
/// without what an empty message costs, which is key encapsulation.
fn ratio(ring: &KeyRing) {
    let message = vec![0x5a; 1 << 20];
    let key = sealing_key(ring, Kem::XWing);
    let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
    let (mut whole, mut empty, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let (session, mut resumed) = (session(ring), Vec::new());
    let mut buffer = Vec::with_capacity(message.len() + 16);
    for round in 0..RATIO_ROUNDS {
        // Both get their buffers filled for free.
        let (draft, none) = (Draft::from(&message), Draft::from(b""));
        whole.push(timed(|| exchange(ring, &key, Aead::Aes256Gcm, draft)));
        empty.push(timed(|| exchange(ring, &key, Aead::Aes256Gcm, none)));
        let none = Draft::from(b"");
        resumed.push(timed(|| exchange_in(ring, &session, none)));
        buffer.clear();
        buffer.extend_from_slice(&message);
        let nonce = || LcNonce::assume_unique_for_key([round as u8; 12]);
        raw.push(timed(|| {
            bare.seal_in_place_append_tag(nonce(), Aad::empty(), &mut buffer).unwrap();
            black_box(bare.open_in_place(nonce(), Aad::empty(), &mut buffer).unwrap());
        }));
    }
    let [whole, empty, raw, resumed] = [whole, empty, raw, resumed].map(quartiles);
    let micros = |[low, median, high]: [Duration; 3]| {
        format!("{} us ({}-{})", median.as_micros(), low.as_micros(), high.as_micros())
    };
    let over = |time: Duration| raw[1].as_secs_f64() / time.as_secs_f64();
    println!(
        "crypto ratio at 1 MiB to aws-lc-rs AES-256-GCM alone: {:.2} in all, {:.2} without key encapsulation \
         (target 0.80; X-Wing seal+open {}, of an empty message {}, alone {}; medians and quartiles of {RATIO_ROUNDS})",
        over(whole[1]),
        over(whole[1].saturating_sub(empty[1])),
        micros(whole),
        micros(empty),
        micros(raw),
    );
    println!(
        "an empty message sealed and opened in a session: {}, {:.1} times as fast as with X-Wing",
        micros(resumed),
        empty[1].as_secs_f64() / resumed[1].as_secs_f64(),
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn quartiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    [1, 2, 3].map(|quarter| times[times.len() * quarter / 4])
}

fn exchange(ring: &KeyRing, key: &SealingKey, aead: Aead, message: Draft) {
    let (request, opener) = key.seal(aead, black_box(message), &mut rng()).unwrap();
    let (opened, reply) = ring.open(request, NOW).unwrap();
    black_box((opened.plaintext.expose(), opener, reply));
}

fn exchange_in(ring: &KeyRing, session: &Session, message: Draft) {
    let (request, opener) = session.seal(black_box(message), &mut rng()).unwrap();
    let (opened, reply) = ring.open_session(request, NOW).unwrap();
    black_box((opened.plaintext.expose(), opener, reply));
}

fn session(ring: &KeyRing) -> Session {
    let (request, _, offer) =
        sealing_key(ring, Kem::XWing).seal_offering(Aead::Aes256Gcm, b"", &mut rng()).unwrap();
    offer.accept(&ring.open(request, NOW).unwrap().0.grant_session(&mut rng()).unwrap())
}

fn rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

fn ring() -> KeyRing {
    let day = Duration::from_secs(86_400);
    let config = RingConfig {
        grace: day,
        date_window: day,
        replay_capacity: 1 << 24,
        sessions: SessionLimits { max: 64, lifetime: day },
    };
    let ring = KeyRing::new(config, [1; 32], NOW).unwrap();
    let secret = EpochSecret::new([7; 32]);
    let epoch = Epoch { number: 0, secret, not_before: NOW, not_after: UnixTime(NOW.0 + 86_400) };
    ring.install(epoch, NOW).unwrap();
    ring
}

fn sealing_key(ring: &KeyRing, kem: Kem) -> SealingKey {
    let key_configs = ring.key_configs();
    let nonce = Nonce([5; 32]);
    let tree = Tree::new(vec![nonce]).unwrap();
    let claims = Claims::example(NOW).to_bytes();
    let evidence = Attester::insecure(Digest([1; 32]))
        .evidence(&report_data(&tree.root(), &key_configs, &claims))
        .unwrap();
    let document = Document::new(key_configs.clone(), claims, evidence, tree.root(), tree.proof(0));
    let policy = Policy::new(Expectations { allow_debug: true, ..Expectations::default() }).unwrap();
    let trusted = document.verify(Some(&nonce), NOW).unwrap().appraise(&policy, NOW).unwrap();
    let config =
        KeyConfig::parse_list(&key_configs).unwrap().into_iter().find(|config| config.kem() == kem).unwrap();
    SealingKey::new(config, &trusted).unwrap()
}
