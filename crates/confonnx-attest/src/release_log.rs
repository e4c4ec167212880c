//! Releases in a transparency log: a proof that the program which the evidence names is an entry of a log that witnesses
//! watch. It is made once for a release, comes with each document, and is verified without asking anybody.
//!
//! Formats are C2SP's: `tlog-proof`, `tlog-checkpoint`, `signed-note`, `tlog-cosignature`.

mod note;

use std::fmt;

use base64ct::{Base64, Encoding};
use serde::Deserialize;

use self::note::{Kind, Note, NoteKey, Signed};
use crate::{EnclaveHash, Tee, Verdict, merkle::InclusionProof, shown::shown};

/// The log that has to have the release, and the witnesses that have to have seen that it has.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct ReleaseLog {
    key: NoteKey,
    witnesses: Vec<NoteKey>,
    quorum: usize,
}

/// The section `release_log` of a policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    key: NoteKey,
    witnesses: Vec<NoteKey>,
    quorum: usize,
}

/// A section `release_log` that would accept what it must not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refused {
    #[error("`key` is that of {0}, a witness (type 4); expected that of a log (type 1)")]
    NoLog(String),
    #[error("`witnesses` has the key of {0}, a log (type 1); expected those of witnesses (type 4)")]
    NoWitness(String),
    #[error("`witnesses` has one key twice, as {0} and as {1}; expected each once")]
    Twice(String, String),
    #[error("`quorum` is {found}; expected 1 to {most}, the number of witnesses")]
    Quorum { found: usize, most: usize },
}

impl TryFrom<Written> for ReleaseLog {
    type Error = Refused;

    fn try_from(written: Written) -> Result<Self, Refused> {
        let Written { key, witnesses, quorum } = written;
        if key.kind() != Kind::Log {
            return Err(Refused::NoLog(key.name().into()));
        }
        for (at, witness) in witnesses.iter().enumerate() {
            if witness.kind() != Kind::Witness {
                return Err(Refused::NoWitness(witness.name().into()));
            }
            if let Some(same) = witnesses.iter().take(at).find(|other| other.same_key(witness)) {
                return Err(Refused::Twice(same.name().into(), witness.name().into()));
            }
        }
        if !(1..=witnesses.len()).contains(&quorum) {
            return Err(Refused::Quorum { found: quorum, most: witnesses.len() });
        }
        Ok(Self { key, witnesses, quorum })
    }
}

impl fmt::Display for ReleaseLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut witnesses: Vec<_> = self.witnesses.iter().map(NoteKey::to_string).collect();
        witnesses.sort_unstable();
        write!(f, "{}, {} of {}", self.key, self.quorum, witnesses.join(" "))
    }
}

impl ReleaseLog {
    /// Decides whether `proof` shows that a release with this program is in the log.
    pub(crate) fn check(&self, proof: Option<&str>, tee: Tee, hash: &EnclaveHash, verdict: &mut Verdict) {
        let (log, count) = (self.key.name(), self.witnesses.len());
        let expected = format!(
            "a release with this enclave hash in {log}, cosigned by {} of {count} witnesses",
            self.quorum
        );
        match self.judged(proof, tee, hash) {
            Ok(found) => verdict.decide(NAME, expected, found, true),
            Err(why) => verdict.decide(NAME, expected, why.to_string(), false),
        }
    }

    fn judged(&self, proof: Option<&str>, tee: Tee, hash: &EnclaveHash) -> Result<String, Why> {
        let proof = Proof::parse(proof.ok_or(Why::None)?).ok_or(Why::Form)?;
        let (name, checkpoint) = (self.key.name(), &proof.checkpoint);
        if checkpoint.origin != name {
            return Err(Why::Origin(checkpoint.origin.into()));
        }
        match proof.note.signed_by(&self.key) {
            Signed::Yes => {}
            Signed::No => return Err(Why::NotSigned(name.into())),
            Signed::Wrong => return Err(Why::WrongSignature(name.into())),
        }
        let mut seen = Vec::new();
        for witness in &self.witnesses {
            match proof.note.signed_by(witness) {
                Signed::Yes => seen.push(witness.name()),
                Signed::No => {}
                Signed::Wrong => return Err(Why::WrongSignature(witness.name().into())),
            }
        }
        if seen.len() < self.quorum {
            let by = if seen.is_empty() { "none".into() } else { seen.join(", ") };
            return Err(Why::Witnesses(by));
        }
        let InclusionProof { leaf_index, tree_size, .. } = proof.inclusion;
        proof.inclusion.verify_entry(&proof.entry, &checkpoint.root).map_err(|_| Why::Missing)?;
        let release = Release::parse(&proof.entry).ok_or(Why::Entry)?;
        let version = shown(release.version);
        let program = (tee.name(), hash.to_string());
        if !release.programs.iter().any(|(tee, hash)| *tee == program.0 && *hash == program.1) {
            return Err(Why::Program { version, tee: program.0, hash: program.1 });
        }
        Ok(format!("version {version}, entry {leaf_index} of {tree_size}, cosigned by {}", seen.join(", ")))
    }
}

/// What a document says of a log that nobody asked for: the log's name.
pub(crate) fn stated(proof: &str, verdict: &mut Verdict) {
    let origin = Proof::parse(proof).map(|proof| shown(proof.checkpoint.origin));
    verdict
        .info(NAME, origin.map_or("a proof that cannot be read".into(), |log| format!("a proof of {log}")));
}

/// Whether a text has the form of a proof. Nothing is verified.
pub fn is_proof(text: &str) -> bool {
    Proof::parse(text).is_some()
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Why {
    #[error("no proof: the server was started without one (--release-proof)")]
    None,
    #[error("a proof that cannot be read: expected c2sp.org/tlog-proof@v1 with the entry as `extra`")]
    Form,
    #[error("a proof of another log, {}", shown(.0))]
    Origin(String),
    #[error("a checkpoint that {0} did not sign")]
    NotSigned(String),
    #[error("a checkpoint with a signature of {0} that is not by its key")]
    WrongSignature(String),
    #[error("too few witnesses: cosigned by {0}")]
    Witnesses(String),
    #[error("a missing entry: the release is not in the log of this checkpoint")]
    Missing,
    #[error("an entry that is no release of confonnx")]
    Entry,
    #[error("the release {version}, which has no {tee} program {hash}")]
    Program { version: String, tee: &'static str, hash: String },
}

/// A `tlog-proof` whose `extra` is the entry.
struct Proof<'p> {
    entry: Vec<u8>,
    inclusion: InclusionProof,
    note: Note<'p>,
    checkpoint: Checkpoint<'p>,
}

impl<'p> Proof<'p> {
    fn parse(text: &'p str) -> Option<Self> {
        if text.len() > MAX_PROOF_BYTES {
            return None;
        }
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        if lines.next() != Some("c2sp.org/tlog-proof@v1") {
            return None;
        }
        let entry = Base64::decode_vec(lines.next()?.strip_prefix("extra ")?).ok()?;
        let leaf_index = number(lines.next()?.strip_prefix("index ")?)?;
        let path = lines.map(hash).collect::<Option<_>>()?;
        let note = Note::parse(note)?;
        let checkpoint = Checkpoint::parse(note.text)?;
        let inclusion = InclusionProof { leaf_index, tree_size: checkpoint.size, path };
        Some(Self { entry, inclusion, note, checkpoint })
    }
}

/// A log's statement of its size and root.
struct Checkpoint<'c> {
    origin: &'c str,
    size: u64,
    root: [u8; 32],
}

impl<'c> Checkpoint<'c> {
    fn parse(text: &'c str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let (origin, size, root) = (lines.next()?, number(lines.next()?)?, hash(lines.next()?)?);
        let extended = lines.any(str::is_empty);
        (!origin.is_empty() && !extended).then_some(Self { origin, size, root })
    }
}

/// An entry of the log: a release and its programs.
struct Release<'r> {
    version: &'r str,
    /// Each program's kind of TEE and enclave hash.
    programs: Vec<(&'r str, &'r str)>,
}

impl<'r> Release<'r> {
    fn parse(entry: &'r [u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(entry).ok()?.strip_suffix('\n')?.split('\n');
        if lines.next() != Some("confonnx release v1") {
            return None;
        }
        let version = lines.next()?.strip_prefix("version ")?;
        hex(lines.next()?.strip_prefix("manifest ")?)?;
        let program = |line: &'r str| line.strip_prefix("enclave ")?.split_once(' ');
        Some(Self { version, programs: lines.map(program).collect::<Option<_>>()? })
    }
}

fn hex(text: &str) -> Option<[u8; 32]> {
    crate::digest::decode_array_lower(text).ok()
}

fn hash(line: &str) -> Option<[u8; 32]> {
    Base64::decode_vec(line).ok()?.try_into().ok()
}

/// A decimal number in its one form.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

const NAME: &str = "release log";
/// How many bytes a proof has at most. Entries of logs have 64 KiB at most.
pub const MAX_PROOF_BYTES: usize = 128 << 10;

#[cfg(test)]
mod tests;
