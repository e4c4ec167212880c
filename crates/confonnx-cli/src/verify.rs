use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use confonnx_client::{
    ClientError, Document, Nonce, Policy, RawError, RawEvidence, Tee, Trusted, UnixTime, Verdict,
    blocking::Client,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::args::{Connection, Expected, bytes};
use crate::download::download;
use crate::proof::Proof;
use crate::release::{self, Broken};
use crate::{UNDECIDED, code, complain, print, table};

/// Ask a server what it is, and check the evidence against what you expect
///
/// Prints every check, and what the policy does not judge. Sends nothing but a nonce.
///
/// With --release, what was released is checked first: signature, manifest, digests, provenance, materials, measurements;
/// then that the server, if --url names one, is it. The first link that is broken is named.
///
/// Exit codes: 0 trusted, 2 wrong usage, 3 evidence not genuine, 4 genuine but refused by the policy, 5 could not be
/// decided (no connection, damaged or unreadable file; certificates or revocation lists that are missing or too old).
#[derive(Args)]
pub(crate) struct Verify {
    /// The server
    #[arg(long, value_name = "URL", required_unless_present_any = ["document", "raw", "release"], conflicts_with_all = ["document", "raw"])]
    url: Option<String>,
    /// A saved proof, or an attestation document, instead of asking a server
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    document: Option<PathBuf>,
    /// Evidence of hardware by itself: the name of the TEE, the report, quote or document, and files
    /// that vouch for it (certificates, revocation lists, Intel's collateral)
    #[arg(long, value_name = "TEE FILE", num_args = 2..)]
    raw: Vec<PathBuf>,
    /// The nonce for which a document was made; a saved proof has it
    #[arg(long, value_name = "HEX", requires = "document")]
    nonce: Option<Nonce>,
    /// When to judge what was saved, as Unix seconds or such as 2026-10-08T01:09:46Z, or `now`. Left out: when a proof was
    /// saved, as it says; else now
    #[arg(long, value_name = "TIME", value_parser = instant, conflicts_with = "url")]
    at: Option<UnixTime>,
    /// Accept a saved document without nonce up to that age; it rests on the clock of the server's host
    #[arg(long, value_name = "SECONDS", requires = "document", conflicts_with = "nonce")]
    max_age: Option<u64>,
    /// Save a proof: the server's document with the nonce, the instant and the policy's digest, to be verified again later
    #[arg(long, value_name = "FILE", requires = "url")]
    save: Option<PathBuf>,
    /// A release (`make dist`), in a folder or at a URL: one of its measurements is the enclave hash that is expected
    #[arg(long, value_name = "FOLDER|URL", requires = "release_key", conflicts_with_all = ["enclave_hash", "document", "raw"])]
    release: Option<String>,
    /// The public key (PEM, P-256) of whoever signs releases
    #[arg(long, value_name = "FILE", requires = "release")]
    release_key: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    connection: Connection,
}

impl Verify {
    /// The exit code, or an error when there is no verdict to show.
    pub(crate) fn run(&self) -> Result<u8> {
        match self.outcome() {
            Ok(code) => Ok(code),
            // Wrong usage is for whoever typed it; all else is an outcome, which tools read as JSON.
            Err(err) if self.json && code(&err, UNDECIDED) != crate::USAGE => {
                let (error, code) = (crate::told(&err), code(&err, UNDECIDED));
                let outcome = if code == UNDECIDED { "undecided" } else { "not-genuine" };
                print(&serde_json::to_string_pretty(&json!({ "outcome": outcome, "error": error }))?)?;
                complain(&error);
                Ok(code)
            }
            Err(err) => Err(err),
        }
    }

    fn outcome(&self) -> Result<u8> {
        // The folder of a release that was fetched is there until all is read.
        let fetched = match self.fetched()? {
            Ok(fetched) => fetched,
            Err(broken) => return self.broken(&broken),
        };
        let released = match self.released(fetched.as_ref().map(TempDir::path))? {
            Ok(released) => released,
            Err(broken) => return self.broken(&broken),
        };
        if self.release.is_some() && self.url.is_none() {
            return Ok(0);
        }
        let policy = self.expected.policy_of(&released, self.max_age.map(Duration::from_secs))?;
        match self.raw.split_first() {
            Some((tee, files)) => self.judge_raw(tee, files, &policy),
            None => self.judge(&policy),
        }
    }

    /// The release's folder, if it is at a URL.
    fn fetched(&self) -> Result<Result<Option<TempDir>, Broken>> {
        let (Some(release), Some(key)) = (&self.release, &self.release_key) else { return Ok(Ok(None)) };
        if !["http://", "https://"].iter().any(|scheme| release.starts_with(scheme)) {
            return Ok(Ok(None));
        }
        Ok(download(release, key, &self.connection.way())?.map(Some))
    }

    /// What hardware reports of the release, if one is given.
    fn released(&self, fetched: Option<&Path>) -> Result<Result<Vec<String>, Broken>> {
        let (Some(release), Some(key)) = (&self.release, &self.release_key) else {
            return Ok(Ok(Vec::new()));
        };
        let say = |line: &str| if self.json { Ok(()) } else { print(line) };
        let released = release::check(fetched.unwrap_or(Path::new(release)), key, say);
        if self.url.is_some() && released.as_ref().is_ok_and(Vec::is_empty) {
            bail!("{release} says of no TEE what it measures: expected an enclave_info.TEE.json");
        }
        Ok(released.map(|files| files.iter().map(|file| file.display().to_string()).collect()))
    }

    fn broken(&self, broken: &Broken) -> Result<u8> {
        if self.json {
            let why = format!("{:#}", broken.why);
            print(&serde_json::to_string_pretty(
                &json!({ "outcome": "not-genuine", "link": broken.link, "error": why }),
            )?)?;
        }
        complain(&broken.to_string());
        Ok(crate::NOT_GENUINE)
    }

    fn judge(&self, policy: &Policy) -> Result<u8> {
        let proof = self.received(policy)?;
        let at = self.at.or(proof.at).unwrap_or_else(now);
        let nonce = self.nonce.or(proof.nonce);
        if let Some(path) = &self.save {
            let saved = Proof { at: Some(at), nonce, ..proof.clone() };
            fs::write(path, saved.to_json()?).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let document = match Document::parse(&proof.document) {
            // Nothing is known of a file that is damaged; a server that sends such a document does not prove what it
            // is.
            Err(err) if self.document.is_some() => return Err(err).context("the document cannot be read"),
            document => document.map_err(ClientError::from)?,
        };
        let result = decide(&document, nonce.as_ref(), policy, at);
        let verdict = match &result {
            Ok(trusted) => Some(trusted.verdict()),
            Err(err) => err.verdict(),
        };
        if self.json {
            print(&report(&result, verdict, &document, nonce, at, policy)?)?;
            return Ok(result.map_or_else(|err| code(&err.into(), UNDECIDED), |_| 0));
        }
        let Some(verdict) = verdict else { return Ok(result.map(|_| 0)?) };
        print(&table(verdict))?;
        if let (Some(saved), true) = (&proof.policy, self.document.is_some()) {
            let same = *saved == policy.digest();
            let text = if same { "the policy of then" } else { "another policy than then" };
            print(&format!("Judged as of {}, by {text}.", shown(at)))?;
        }
        if let Some(path) = &self.save {
            print(&format!("Saved; check it again with --document {} and a policy", path.display()))?;
        }
        // Nothing of the insecure TEE is genuine, whatever its own checks say.
        let stand_in = document.tee() == Tee::Insecure;
        let names = verdict.failed().map(|check| check.name).collect::<Vec<_>>().join(", ");
        let Err(err) = result else {
            print(&if stand_in { crate::warned(INSECURE) } else { "Trusted.".into() })?;
            return Ok(0);
        };
        // The table has what was expected and found.
        let conclusion = if stand_in { NOT_EVEN } else { conclusion(&err) };
        let link = if self.release.is_some() { "✗ live server: " } else { "" };
        complain(&format!("{link}{conclusion}: {names}"));
        Ok(code(&err.into(), UNDECIDED))
    }

    fn judge_raw(&self, tee: &Path, files: &[PathBuf], policy: &Policy) -> Result<u8> {
        let (report, others) = files.split_first().context("expected the evidence's file after the TEE")?;
        let others = others.iter().map(|path| bytes(path)).collect::<Result<Vec<_>>>()?;
        let evidence = RawEvidence::read(&tee.to_string_lossy(), &bytes(report)?, &others)
            .map_err(|err| unreadable(err, files))?;
        let at = self.at.unwrap_or_else(now);
        let verdict = evidence.judge(policy, at);
        let outcome = match (verdict.failed().next(), verdict.is_undecided()) {
            (None, _) => ("accepted", 0),
            (Some(_), true) => ("undecided", UNDECIDED),
            (Some(check), false) if check.step == confonnx_client::Step::Verify => {
                ("not-genuine", crate::NOT_GENUINE)
            }
            (Some(_), false) => ("not-accepted", crate::NOT_TRUSTED),
        };
        if self.json {
            print(&serde_json::to_string_pretty(&json!({
                "outcome": outcome.0,
                "at": at,
                "decided_until": verdict.decided_until(),
                "checks": verdict.checks,
                "not_judged": verdict.not_judged().map(|check| check.name).collect::<Vec<_>>(),
            }))?)?;
            return Ok(outcome.1);
        }
        print(&table(&verdict))?;
        match outcome.1 {
            0 => print("Accepted: genuine, and what was asked for. It says nothing of who showed it.")?,
            code => {
                let names = verdict.failed().map(|check| check.name).collect::<Vec<_>>().join(", ");
                complain(&format!("{}: {names}", outcome.0.replace('-', " ")));
                return Ok(code);
            }
        }
        Ok(0)
    }

    fn received(&self, policy: &Policy) -> Result<Proof> {
        if let Some(path) = &self.document {
            let read = Proof::read(bytes(path)?);
            return read.with_context(|| format!("{} is damaged, or no proof", path.display()));
        }
        let mut nonce = Nonce([0; 32]);
        getrandom::fill(&mut nonce.0).context("the operating system gives no random bytes")?;
        let url = self.url.as_deref().context("expected --url, --document or --raw")?;
        // This client only fetches the document: the policy is applied here.
        let client = Client::new(url, self.expected.policy(None)?, self.connection.options()?)?;
        let document = client.fetch_document(Some(&nonce))?;
        Ok(Proof { document, nonce: Some(nonce), at: Some(now()), policy: Some(policy.digest()) })
    }
}

/// The error with the name of the file that it is about.
fn unreadable(err: RawError, files: &[PathBuf]) -> anyhow::Error {
    let index = match err {
        RawError::Endorsement { index } => index.saturating_add(1),
        RawError::Encoding | RawError::Evidence(_) => 0,
    };
    let file = files.get(index).map(|path| path.display().to_string()).unwrap_or_default();
    anyhow::Error::new(err).context(format!("cannot use {file}"))
}

fn decide(
    document: &Document,
    nonce: Option<&Nonce>,
    policy: &Policy,
    at: UnixTime,
) -> Result<Trusted, ClientError> {
    Ok(document.verify(nonce, at)?.appraise(policy, at)?)
}

fn conclusion(err: &ClientError) -> &'static str {
    match (err, err.verdict().is_some_and(Verdict::is_undecided)) {
        (ClientError::NotTrusted(_), true) => {
            "genuine, but whether it is what was asked for cannot be decided"
        }
        (ClientError::NotTrusted(_), false) => "genuine, but not what was asked for",
        (_, true) => "whether the evidence is genuine cannot be decided",
        (_, false) => "the evidence is not genuine",
    }
}

fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

fn instant(text: &str) -> Result<UnixTime> {
    if text == "now" {
        return Ok(now());
    }
    text.parse().map_err(|err| anyhow::anyhow!("{err}, or now"))
}

fn shown(at: UnixTime) -> String {
    format!("{} (Unix seconds)", at.0)
}

fn report(
    result: &Result<Trusted, ClientError>,
    verdict: Option<&Verdict>,
    document: &Document,
    nonce: Option<Nonce>,
    at: UnixTime,
    policy: &Policy,
) -> serde_json::Result<String> {
    let outcome = match result {
        Ok(accepted) if accepted.tee() == Tee::Insecure => "insecure",
        Ok(_) => "trusted",
        Err(_) if verdict.is_some_and(Verdict::is_undecided) => "undecided",
        Err(ClientError::NotTrusted(_)) => "not-trusted",
        Err(_) => "not-genuine",
    };
    let genuine = matches!(result, Ok(_) | Err(ClientError::NotTrusted(_)));
    let model = |model: &confonnx_client::ModelClaim| json!({ "name": model.name, "version": model.version, "sha256": model.sha256, "ciphertext_sha256": model.ciphertext_sha256 });
    let not_judged = verdict.map(|verdict| verdict.not_judged().map(|check| check.name).collect::<Vec<_>>());
    serde_json::to_string_pretty(&json!({
        "outcome": outcome,
        "error": result.as_ref().err().map(ToString::to_string),
        "nonce": nonce.map(|nonce| nonce.to_string()),
        "at": at,
        "decided_until": verdict.and_then(Verdict::decided_until),
        "policy_sha256": policy.digest(),
        "checks": verdict.map_or(&[][..], |verdict| &verdict.checks),
        "not_judged": not_judged,
        "tee": result.as_ref().ok().map(|trusted| trusted.tee().name()),
        "enclave_hash": result.as_ref().ok().map(|trusted| trusted.enclave_hash()),
        "models": result.as_ref().ok().map(|trusted| trusted.claims().models.iter().map(model).collect::<Vec<_>>()),
        "claims": document.claims_json().unwrap_or(Value::Null),
        // Only if the evidence is genuine does hardware vouch for the claims.
        "claims_genuine": genuine,
    }))
}

const INSECURE: &str = "INSECURE: accepted, as you allowed. A stand-in for a TEE: nothing is proven.";
const NOT_EVEN: &str = "INSECURE, a stand-in without a TEE, and not what was asked for";
