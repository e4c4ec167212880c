//! A release at a URL, brought into a folder: first what is signed, then the files that it names. Nothing is believed here; the
//! folder is checked like any other.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Proxy};

use crate::args::{Way, bytes};
use crate::progress::Watched;
use crate::release::{Broken, MANIFEST, PublicKey, SIGNATURE, entries};

/// Brings the release into a new folder. The signature is checked before anything that the manifest names is fetched.
pub(crate) fn download(url: &str, key: &Path, way: &Way<'_>) -> Result<Result<TempDir, Broken>> {
    let (agent, base) = (agent(way)?, url.trim_end_matches('/'));
    let folder = tempfile::tempdir().context("cannot make a folder for the release")?;
    let get = |name: &str, limit| fetch(&agent, &format!("{base}/{name}"), &folder.path().join(name), limit);
    get(MANIFEST, SMALL)?;
    get(SIGNATURE, SMALL)?;
    let manifest = match PublicKey::read(key).and_then(|key| key.manifest(folder.path())) {
        Ok(manifest) => manifest,
        Err(why) => return Ok(Err(Broken { link: "signature", why })),
    };
    let listed = match entries(&manifest) {
        Ok(listed) => listed,
        Err(why) => return Ok(Err(Broken { link: "manifest", why })),
    };
    for name in listed.keys() {
        get(name, LARGE)?;
    }
    Ok(Ok(folder))
}

fn agent(way: &Way<'_>) -> Result<Agent> {
    let roots = match way.ca_file {
        None => RootCerts::PlatformVerifier,
        Some(path) => RootCerts::from(certificates(path)?),
    };
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .unversioned_rustls_crypto_provider(rustls::crypto::aws_lc_rs::default_provider().into())
        .root_certs(roots);
    let config = Agent::config_builder()
        .tls_config(tls.build())
        .timeout_connect(Some(way.timeout))
        .timeout_recv_response(Some(way.timeout))
        .user_agent(concat!("confonnx/", env!("CARGO_PKG_VERSION")));
    let config = match way.proxy {
        None => config,
        Some("none") => config.proxy(None),
        // What is wrong with the URL may have a password in it.
        Some(url) => config.proxy(Some(Proxy::new(url).map_err(|_| anyhow!("--proxy: expected a URL"))?)),
    };
    Ok(config.build().into())
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let text = bytes(path)?;
    let found = parse_pem(&text).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
        Ok(_) => None,
        Err(err) => Some(Err(err)),
    });
    let expected = || format!("{}: expected certificates in PEM", path.display());
    let found = found.collect::<Result<Vec<_>, _>>().with_context(expected)?;
    ensure!(!found.is_empty(), "{}, found none", expected());
    Ok(found)
}

fn fetch(agent: &Agent, url: &str, file: &Path, limit: u64) -> Result<()> {
    let answer = agent.get(url).call().with_context(|| format!("cannot fetch {url}"))?;
    let body = answer.into_body();
    let total = body.content_length();
    let mut body = Watched::new(body.into_reader(), total).take(limit.saturating_add(1));
    let mut file = File::create_new(file).with_context(|| format!("cannot make {}", file.display()))?;
    let copied = io::copy(&mut body, &mut file).with_context(|| format!("cannot fetch {url}"))?;
    ensure!(copied <= limit, "{url}: expected at most {limit} bytes, found more");
    Ok(())
}

/// The most bytes of what is read before its signature is known to be right.
const SMALL: u64 = 1 << 20;
/// The most bytes of a file that the manifest names.
const LARGE: u64 = 1 << 34;
