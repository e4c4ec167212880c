//! What sealing costs: whole exchanges by suite and size, key encapsulation alone, and the ratio to the bare cipher.
//!
//! `cargo bench -p confonnx-protocol --bench crypto` ends with one line that gives the ratio.

#![allow(clippy::restriction, reason = "a tool for this repository, which may panic")]
#![expect(clippy::print_stdout, reason = "the ratio is the result")]
#![expect(clippy::disallowed_methods, reason = "a benchmark measures time")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce as LcNonce, UnboundKey},
    agreement::{PrivateKey, PublicKey, UnparsedPublicKey, X25519, agree},
    kem::{DecapsulationKey, EncapsulationKey, ML_KEM_768},
};
use confonnx_attest::{
    Claims, Digest, Document, Expectations, Nonce, Policy, UnixTime, merkle::Tree, produce::Attester,
    report_data,
};
use confonnx_protocol::{
    Aead, Draft, EpochSecret, Kem, KeyConfig,
    client::SealingKey,
    resumption::Resumption,
    server::{Epoch, KeyRing, ResumptionLimits, RingConfig},
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

/// A request is sealed and opened, as client and server do it.
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

/// A resumed request is sealed and opened.
fn resumed(criterion: &mut Criterion, ring: &KeyRing) {
    let resumption = resumption(ring);
    let mut group = criterion.benchmark_group("seal+open, resumed, AES-256-GCM");
    for (name, size) in SIZES {
        let message = vec![0x5a; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |bencher| {
            let draft = || Draft::from(&message);
            bencher.iter_batched(draft, |draft| exchange_in(ring, &resumption, draft), BatchSize::LargeInput);
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
    // The hpke crate's own X-Wing, which expands the private key for each message.
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

/// Prints throughput at 1 MiB over that of aws-lc-rs called directly, all measured turn by turn: what the suite is made of,
/// and its cipher alone, which nothing with a key encapsulation in it can come near at this size.
fn ratio(ring: &KeyRing) {
    let message = vec![0x5a; 1 << 20];
    let key = sealing_key(ring, Kem::XWing);
    let resumption = resumption(ring);
    let (raw_cipher, raw_kem) = (RawCipher::new(), RawKem::new());
    let [mut whole, mut resumed, mut empty, mut empty_resumed] = [const { Vec::new() }; 4];
    let [mut cipher, mut both] = [const { Vec::new() }; 2];
    let mut buffer = Vec::with_capacity(message.len() + 16);
    for _ in 0..RATIO_ROUNDS {
        // All contenders get their buffers filled for free.
        let draft = || (Draft::from(&message), Draft::from(b""));
        let (full, none) = draft();
        whole.push(timed(|| exchange(ring, &key, Aead::Aes256Gcm, full)));
        empty.push(timed(|| exchange(ring, &key, Aead::Aes256Gcm, none)));
        let (full, none) = draft();
        resumed.push(timed(|| exchange_in(ring, &resumption, full)));
        empty_resumed.push(timed(|| exchange_in(ring, &resumption, none)));
        for (times, kem) in [(&mut cipher, None), (&mut both, Some(&raw_kem))] {
            buffer.clear();
            buffer.extend_from_slice(&message);
            times.push(timed(|| {
                kem.inspect(|kem| kem.exchange());
                raw_cipher.exchange(&mut buffer);
            }));
        }
    }
    let [whole, resumed, empty, empty_resumed, cipher, both] =
        [whole, resumed, empty, empty_resumed, cipher, both].map(quartiles);
    let micros = |[low, median, high]: [Duration; 3]| {
        format!("{} us ({}-{})", median.as_micros(), low.as_micros(), high.as_micros())
    };
    let ratio = |raw: [Duration; 3], ours: [Duration; 3]| raw[1].as_secs_f64() / ours[1].as_secs_f64();
    println!("seal+open, medians and quartiles of {RATIO_ROUNDS}:");
    for (name, times) in [
        ("1 MiB with X-Wing", whole),
        ("1 MiB resumed", resumed),
        ("an empty message with X-Wing", empty),
        ("an empty message resumed", empty_resumed),
        ("1 MiB, aws-lc-rs ML-KEM-768, X25519, AES-256-GCM", both),
        ("1 MiB, aws-lc-rs AES-256-GCM", cipher),
    ] {
        println!("  {name:<50} {}", micros(times));
    }
    println!(
        "crypto ratio to raw aws-lc-rs at 1 MiB: {:.2} to the same key encapsulation and cipher, {:.2} resumed to the \
         cipher alone (target 0.80 each; with X-Wing to the cipher alone {:.2})",
        ratio(both, whole),
        ratio(cipher, resumed),
        ratio(cipher, whole),
    );
}

/// AES-256-GCM of aws-lc-rs, as it comes.
struct RawCipher(LessSafeKey);

impl RawCipher {
    fn new() -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap()))
    }

    fn exchange(&self, buffer: &mut Vec<u8>) {
        let nonce = || LcNonce::assume_unique_for_key([1; 12]);
        self.0.seal_in_place_append_tag(nonce(), Aad::empty(), buffer).unwrap();
        black_box(self.0.open_in_place(nonce(), Aad::empty(), buffer).unwrap());
    }
}

/// The key encapsulations that X-Wing is made of, by aws-lc-rs as they come: no key schedule, nothing combined.
struct RawKem {
    ml_kem: DecapsulationKey,
    ml_kem_public: EncapsulationKey,
    x25519: PrivateKey,
    x25519_public: PublicKey,
}

impl RawKem {
    fn new() -> Self {
        let ml_kem = DecapsulationKey::generate(&ML_KEM_768).unwrap();
        let x25519 = PrivateKey::generate(&X25519).unwrap();
        let (ml_kem_public, x25519_public) =
            (ml_kem.encapsulation_key().unwrap(), x25519.compute_public_key().unwrap());
        Self { ml_kem, ml_kem_public, x25519, x25519_public }
    }

    fn exchange(&self) {
        let (ciphertext, sent) = self.ml_kem_public.encapsulate().unwrap();
        let ephemeral = PrivateKey::generate(&X25519).unwrap();
        let public = ephemeral.compute_public_key().unwrap();
        let agree = |key: &PrivateKey, peer: &PublicKey| {
            agree(key, UnparsedPublicKey::new(&X25519, peer), (), |secret| {
                black_box(secret);
                Ok(())
            })
            .unwrap();
        };
        agree(&ephemeral, &self.x25519_public);
        let received = self.ml_kem.decapsulate(ciphertext).unwrap();
        agree(&self.x25519, &public);
        black_box((sent, received));
    }
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

fn exchange_in(ring: &KeyRing, resumption: &Resumption, message: Draft) {
    let (request, opener) = resumption.seal(black_box(message), &mut rng()).unwrap();
    let (opened, reply) = ring.open_resumed(request, NOW).unwrap();
    black_box((opened.plaintext.expose(), opener, reply));
}

fn resumption(ring: &KeyRing) -> Resumption {
    let (request, _, offer) =
        sealing_key(ring, Kem::XWing).seal_offering(Aead::Aes256Gcm, b"", &mut rng()).unwrap();
    offer.accept(&ring.open(request, NOW).unwrap().0.grant_resumption(&mut rng()).unwrap())
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
        resumption: ResumptionLimits { max: 64, lifetime: day },
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
    let policy = Policy::new(Expectations::new().allow_debug(true)).unwrap();
    let trusted = document.verify(Some(&nonce), NOW).unwrap().appraise(&policy, NOW).unwrap();
    let config =
        KeyConfig::parse_list(&key_configs).unwrap().into_iter().find(|config| config.kem() == kem).unwrap();
    SealingKey::new(config, &trusted).unwrap()
}
