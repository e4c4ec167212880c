use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{Outcome, merkle};

const TIME: u64 = 1_795_426_200;

/// A log or a witness.
struct Signer {
    name: &'static str,
    kind: u8,
    key: Ed25519KeyPair,
}

impl Signer {
    fn new(name: &'static str, kind: u8, seed: u8) -> Self {
        Self { name, kind, key: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap() }
    }

    fn typed(&self) -> Vec<u8> {
        [&[self.kind], self.key.public_key().as_ref()].concat()
    }

    fn id(&self) -> Vec<u8> {
        Sha256::digest([self.name.as_bytes(), b"\n", &self.typed()].concat())[..4].to_vec()
    }

    fn verifier(&self) -> String {
        let key = Base64::encode_string(&self.typed());
        format!("{}+{}+{key}", self.name, crate::digest::encode(&self.id()))
    }

    fn sign(&self, text: &str) -> String {
        let signature = if self.kind == 1 {
            self.key.sign(text.as_bytes()).as_ref().to_vec()
        } else {
            let signature = self.key.sign(format!("cosignature/v1\ntime {TIME}\n{text}").as_bytes());
            [&TIME.to_be_bytes(), signature.as_ref()].concat()
        };
        format!("— {} {}\n", self.name, Base64::encode_string(&[self.id(), signature].concat()))
    }
}

fn log() -> Signer {
    Signer::new("log.example/releases", 1, 1)
}

fn witnesses() -> [Signer; 3] {
    [Signer::new("one.example", 4, 2), Signer::new("two.example", 4, 3), Signer::new("three.example", 4, 4)]
}

fn hash() -> EnclaveHash {
    "ab".repeat(32).parse().unwrap()
}

fn entry() -> String {
    format!(
        "confonnx release v1\nversion 1.2.3\nmanifest {}\nenclave snp {}\nenclave tdx {}\n",
        "0".repeat(64),
        "cd".repeat(48),
        hash()
    )
}

/// A proof of the entry number 4 of 7, cosigned by the first two witnesses.
fn proof(entry: &str) -> String {
    signed(entry, &log(), &witnesses()[..2])
}

fn signed(entry: &str, log: &Signer, witnesses: &[Signer]) -> String {
    let entries = (0..7).map(|number| if number == 4 { entry.to_owned() } else { format!("entry {number}") });
    let tree = merkle::Tree::from_leaves(entries.map(|entry| merkle::leaf_hash(entry.as_bytes())).collect());
    let text = format!("{}\n7\n{}\n", log.name, Base64::encode_string(&tree.root()));
    let path: String =
        tree.proof(4).unwrap().path.iter().map(|hash| format!("{}\n", Base64::encode_string(hash))).collect();
    let extra = Base64::encode_string(entry.as_bytes());
    let signatures: String = std::iter::once(log).chain(witnesses).map(|signer| signer.sign(&text)).collect();
    format!("c2sp.org/tlog-proof@v1\nextra {extra}\nindex 4\n{path}\n{text}\n{signatures}")
}

fn written(key: &str, witnesses: &[String], quorum: usize) -> Result<ReleaseLog, toml::de::Error> {
    toml::from_str(&format!("key = {key:?}\nwitnesses = {witnesses:?}\nquorum = {quorum}"))
}

fn policy() -> ReleaseLog {
    written(&log().verifier(), &witnesses().map(|witness| witness.verifier()), 2).unwrap()
}

/// What the check found, if it passed, or why it did not.
fn judge(proof: Option<&str>, tee: Tee) -> Result<String, String> {
    let mut verdict = Verdict::default();
    policy().check(proof, tee, &hash(), &mut verdict);
    let check = verdict.check("release log").unwrap();
    assert_eq!(
        check.expected,
        "a release with this enclave hash in log.example/releases, cosigned by 2 of 3 witnesses"
    );
    if check.outcome == Outcome::Passed { Ok(check.found.clone()) } else { Err(check.found.clone()) }
}

#[test]
fn a_release_that_is_logged_and_seen_is_accepted() {
    let found = judge(Some(&proof(&entry())), Tee::Tdx).unwrap();
    assert_eq!(found, "version 1.2.3, entry 4 of 7, cosigned by one.example, two.example");
}

#[test]
fn what_is_wrong_is_named() {
    let refused = |proof: &str| judge(Some(proof), Tee::Tdx).unwrap_err();
    assert!(judge(None, Tee::Tdx).unwrap_err().starts_with("no proof"));
    assert!(refused("c2sp.org/tlog-proof@v2\n").contains("cannot be read"));
    // The proof is of another log, or of one that only has the name.
    let other = Signer::new("other.example", 1, 1);
    assert!(refused(&signed(&entry(), &other, &witnesses())).contains("of another log, other.example"));
    let other = Signer::new(log().name, 1, 9);
    assert!(refused(&signed(&entry(), &other, &witnesses())).contains("did not sign"));
    // A log that shows different trees to different people finds no witnesses for the second one.
    assert_eq!(
        refused(&signed(&entry(), &log(), &witnesses()[..1])),
        "too few witnesses: cosigned by one.example"
    );
    let strangers = [Signer::new("one.example", 4, 7), Signer::new("four.example", 4, 8)];
    assert_eq!(refused(&signed(&entry(), &log(), &strangers)), "too few witnesses: cosigned by none");
    // The entry is of another tree.
    let (good, other) = (proof(&entry()), proof("confonnx release v1\n"));
    let note = good.split_once("\n\n").unwrap().1;
    let head = other.split_once("\n\n").unwrap().0;
    assert!(refused(&format!("{head}\n\n{note}")).starts_with("a missing entry"));
    // The entry is logged, and is no release, or none of this program.
    assert!(refused(&proof("anything\n")).contains("no release"));
    assert!(
        judge(Some(&good), Tee::Snp)
            .unwrap_err()
            .contains("the release 1.2.3, which has no snp program abab")
    );
}

#[test]
fn no_byte_of_a_proof_can_be_changed() {
    let good = proof(&entry());
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] ^= 1;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            assert!(judge(Some(text), Tee::Tdx).is_err(), "byte {at} of\n{good}");
        }
        if good.is_char_boundary(at) {
            assert!(judge(Some(&good[..at]), Tee::Tdx).is_err());
        }
    }
}

#[test]
fn policies_that_would_accept_too_much_are_refused() {
    let (key, all) = (log().verifier(), witnesses().map(|witness| witness.verifier()));
    let error =
        |key: &str, witnesses: &[String], quorum| written(key, witnesses, quorum).unwrap_err().to_string();
    assert!(error(&key, &all, 0).contains("expected 1 to 3"));
    assert!(error(&key, &all, 4).contains("expected 1 to 3"));
    assert!(error(&key, &[], 1).contains("expected 1 to 0"));
    assert!(error(&all[0], &all, 1).contains("expected that of a log"));
    assert!(error(&key, std::slice::from_ref(&key), 1).contains("expected those of witnesses"));
    // One witness under two names is one.
    let twice = [Signer::new("one.example", 4, 2).verifier(), Signer::new("alias.example", 4, 2).verifier()];
    assert!(error(&key, &twice, 2).contains("one.example and as alias.example"));
    assert!(error("log.example", &all, 1).contains("no verifier key"));
}

#[test]
fn a_proof_that_nobody_asked_for_is_stated() {
    let mut verdict = Verdict::default();
    stated(&proof(&entry()), &mut verdict);
    stated("x", &mut verdict);
    let found: Vec<_> = verdict.checks.iter().map(|check| (check.outcome, check.found.as_str())).collect();
    assert_eq!(
        found,
        [(Outcome::Info, "a proof of log.example/releases"), (Outcome::Info, "a proof that cannot be read")]
    );
}
