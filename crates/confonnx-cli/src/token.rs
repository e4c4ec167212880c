use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use base64ct::{Base64UrlUnpadded, Encoding};
use clap::Args;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::print;

/// Make a bearer token for a caller of a server with --auth-file
///
/// The token is printed once: give it to the caller (--auth-key-file), and its hash to the server's policy file.
#[derive(Args)]
pub(crate) struct CreateToken {
    /// New file for the token, which nobody else may read; its hash alone is printed then
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Print the hash of a bearer token, for a server's policy file
///
/// The token is read from standard input, so that it is no argument that others see.
#[derive(Args)]
pub(crate) struct HashToken {}

impl CreateToken {
    pub(crate) fn run(&self) -> Result<()> {
        let mut random = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *random).context("the operating system gives no random bytes")?;
        let token = Zeroizing::new(format!("cfx_{}", Base64UrlUnpadded::encode_string(&*random)));
        if let Some(path) = &self.out {
            let mut options = File::options();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let written = options.open(path).and_then(|mut file| writeln!(file, "{}", *token));
            written.with_context(|| format!("cannot write {}", path.display()))?;
            return Ok(print(&hash(&token))?);
        }
        Ok(print(&Zeroizing::new(format!("token         {}\ntoken_sha256  {}", *token, hash(&token))))?)
    }
}

impl HashToken {
    #[expect(clippy::unused_self, reason = "as the other commands")]
    pub(crate) fn run(&self) -> Result<()> {
        let mut text = Zeroizing::new(String::with_capacity(MAX_TOKEN));
        io::stdin().take(MAX_TOKEN as u64).read_to_string(&mut text).context("cannot read standard input")?;
        Ok(print(&hash(check(text.trim())?))?)
    }
}

/// The token, if it can be sent and nobody guesses it: the policy's digest is public, and lets guesses be tried.
fn check(token: &str) -> Result<&str> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("expected one token of visible ASCII without spaces on standard input");
    }
    let found = token.len();
    if !(MIN_TOKEN..MAX_TOKEN).contains(&found) {
        bail!(
            "expected a token of {MIN_TOKEN} to {} characters, found {found}; `confonnx create-token` makes a good one",
            MAX_TOKEN - 1
        );
    }
    Ok(token)
}

fn hash(token: &str) -> String {
    confonnx_client::Digest(Sha256::digest(token).into()).to_string()
}

const MIN_TOKEN: usize = 22;
const MAX_TOKEN: usize = 4096;
