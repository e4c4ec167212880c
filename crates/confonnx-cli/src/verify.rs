use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::Args;
use confonnx_client::{ClientError, Document, Nonce, Policy, Trusted, UnixTime, Verdict, blocking::Client};
use serde_json::json;

use crate::args::{Connection, Expected, bytes};
use crate::{UNDECIDED, code, complain, print, table};

/// Ask a server what it is, and check the evidence against what you expect
///
/// Prints every check. Sends nothing but a nonce.
///
/// Exit codes: 0 trusted, 2 wrong usage, 3 evidence not genuine, 4 genuine but refused by the policy, 5 could not be
/// decided (no connection, unreadable file; certificates or revocation lists that are missing or too old).
#[derive(Args)]
pub(crate) struct Verify {
    /// The server
    #[arg(long, value_name = "URL", required_unless_present = "document", conflicts_with = "document")]
    url: Option<String>,
    /// A saved attestation document, instead of asking a server
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,
    /// The nonce for which a saved document was made
    #[arg(long, value_name = "HEX", requires = "document")]
    nonce: Option<Nonce>,
    /// When to judge a saved document, as Unix seconds or such as 2026-10-08T01:09:46Z; now when left out
    #[arg(long, value_name = "TIME", requires = "document")]
    at: Option<UnixTime>,
    /// Accept a saved document without nonce up to that age; it rests on the clock of the server's host
    #[arg(long, value_name = "SECONDS", requires = "document", conflicts_with = "nonce")]
    max_age: Option<u64>,
    /// Save the server's document, to be verified again later
    #[arg(long, value_name = "FILE", conflicts_with = "document")]
    save: Option<PathBuf>,
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
        let policy = self.expected.policy(self.max_age.map(Duration::from_secs))?;
        let (document, nonce) = self.received()?;
        if let Some(path) = &self.save {
            fs::write(path, &document).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let at = self.at.unwrap_or_else(now);
        let result = decide(&document, nonce.as_ref(), &policy, at);
        let verdict = match &result {
            Ok(trusted) => Some(trusted.verdict()),
            Err(err) => err.verdict(),
        };
        if self.json {
            print(&report(&result, verdict, nonce, at)?)?;
            return Ok(result.map(|_| 0)?);
        }
        let Some(verdict) = verdict else { return Ok(result.map(|_| 0)?) };
        print(&table(verdict))?;
        if let (Some(path), Some(nonce)) = (&self.save, nonce) {
            print(&format!("Saved; check it again with --document {} --nonce {nonce}", path.display()))?;
        } else if result.is_ok() {
            print("Trusted.")?;
        }
        // Expected and found are in the table.
        let names = verdict.failed().map(|check| check.name).collect::<Vec<_>>().join(", ");
        let Err(err) = result else { return Ok(0) };
        complain(&format!("{}: {names}", conclusion(&err)));
        Ok(code(&err.into(), UNDECIDED))
    }

    fn received(&self) -> Result<(Vec<u8>, Option<Nonce>)> {
        if let Some(path) = &self.document {
            return Ok((bytes(path)?, self.nonce));
        }
        let mut nonce = Nonce([0; 32]);
        getrandom::fill(&mut nonce.0).context("the operating system gives no random bytes")?;
        let url = self.url.as_deref().context("expected --url or --document")?;
        // The policy is not the client's business here: it only fetches.
        let client = Client::new(url, self.expected.policy(None)?, self.connection.options()?)?;
        Ok((client.fetch_document(Some(&nonce))?, Some(nonce)))
    }
}

fn decide(
    document: &[u8],
    nonce: Option<&Nonce>,
    policy: &Policy,
    at: UnixTime,
) -> Result<Trusted, ClientError> {
    Ok(Document::parse(document)?.verify(nonce, at)?.appraise(policy, at)?)
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

fn report(
    result: &Result<Trusted, ClientError>,
    verdict: Option<&Verdict>,
    nonce: Option<Nonce>,
    at: UnixTime,
) -> serde_json::Result<String> {
    let outcome = match result {
        Ok(_) => "trusted",
        Err(_) if verdict.is_some_and(Verdict::is_undecided) => "undecided",
        Err(ClientError::NotTrusted(_)) => "not-trusted",
        Err(_) => "not-genuine",
    };
    let model = |model: &confonnx_client::ModelClaim| json!({ "name": model.name, "version": model.version, "sha256": model.sha256, "ciphertext_sha256": model.ciphertext_sha256 });
    serde_json::to_string_pretty(&json!({
        "outcome": outcome,
        "error": result.as_ref().err().map(ToString::to_string),
        "nonce": nonce.map(|nonce| nonce.to_string()),
        "at": at,
        "checks": verdict.map_or(&[][..], |verdict| &verdict.checks),
        "tee": result.as_ref().ok().map(|trusted| trusted.tee().name()),
        "enclave_hash": result.as_ref().ok().map(|trusted| trusted.enclave_hash()),
        "models": result.as_ref().ok().map(|trusted| trusted.claims().models.iter().map(model).collect::<Vec<_>>()),
    }))
}
