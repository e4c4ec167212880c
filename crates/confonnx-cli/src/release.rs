//! A release in a folder, link by link: signature, manifest, digests, provenance, materials, measurements. The first
//! link that does not hold is named.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64ct::{Base64, Encoding};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

pub(crate) const MANIFEST: &str = "SHA256SUMS";
pub(crate) const SIGNATURE: &str = "SHA256SUMS.sigstore.json";
const PROVENANCE: &str = "provenance.intoto.json";
const MATERIALS: &str = "sbom.cdx.json";
const MEASUREMENTS: &str = "enclave_info.json";
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const STATEMENT: &str = "application/vnd.in-toto+json";
/// What comes before the point of P-256 in a SubjectPublicKeyInfo (RFC 5480).
const P256: &[u8] = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00";

/// A link that does not hold, and why.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) link: &'static str,
    pub(crate) why: anyhow::Error,
}

impl Display for Broken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "✗ {}: {:#}", self.link, self.why)
    }
}

/// Names and SHA-256 of the files.
type Digests = BTreeMap<String, String>;

/// What holds, said as it is found to; and the files with what hardware will report of this release.
pub(crate) fn check(
    folder: &Path,
    key: &Path,
    mut say: impl FnMut(&str) -> io::Result<()>,
) -> Result<Vec<PathBuf>, Broken> {
    let mut link = |link: &'static str, held: Result<String>| {
        let said = held.and_then(|what| Ok(say(format!("✓ {link:<13} {what}").trim_end())?));
        said.map_err(|why| Broken { link, why })
    };
    let opened = (|| {
        let key = PublicKey::read(key)?;
        let manifest = key.manifest(folder)?;
        Ok((key, manifest))
    })();
    let (key, manifest) = opened.map_err(|why| Broken { link: "signature", why })?;
    link("signature", Ok(String::new()))?;
    let listed = listed(folder, &manifest).map_err(|why| Broken { link: "manifest", why })?;
    link("manifest", Ok(format!("{} files", listed.len())))?;
    link("digests", digests(folder, &listed).map(|()| String::new()))?;
    link("provenance", provenance(folder, &key, &listed))?;
    link("materials", materials(folder, &listed))?;
    let measured = measurements(folder, &listed).map_err(|why| Broken { link: "measurements", why })?;
    let names = if measured.is_empty() { "none".into() } else { measured.join(", ") };
    link("measurements", Ok(names))?;
    Ok(measured.iter().map(|tee| folder.join(info(tee))).collect())
}

/// The name of the file that says what hardware reports for a TEE.
fn info(tee: &str) -> String {
    format!("enclave_info.{tee}.json")
}

fn read(folder: &Path, name: &str) -> Result<Vec<u8>> {
    let path = folder.join(name);
    fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn sha256(path: &Path) -> Result<String> {
    let cannot = || format!("cannot read {}", path.display());
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    let mut file = File::open(path).with_context(cannot)?;
    loop {
        let length = file.read(&mut buffer).with_context(cannot)?;
        match buffer.get(..length) {
            Some(part) if length > 0 => digest.update(part),
            _ => return Ok(hex(&digest.finalize())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names and digests.
pub(crate) fn entries(manifest: &[u8]) -> Result<Digests> {
    let mut found = Digests::new();
    for line in std::str::from_utf8(manifest)?.lines() {
        let entry = line.split_once("  ").filter(|(digest, name)| is_digest(digest) && is_name(name));
        let (digest, name) =
            entry.ok_or_else(|| anyhow!("expected lines `SHA-256  NAME`, found {line:?}"))?;
        ensure!(found.insert(name.into(), digest.into()).is_none(), "{name} is there twice");
    }
    Ok(found)
}

/// Names and digests, of which each is a file of the folder and no file is missing.
fn listed(folder: &Path, manifest: &[u8]) -> Result<Digests> {
    let found = entries(manifest)?;
    let files = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned()));
    let there: BTreeSet<_> = names.collect::<io::Result<_>>()?;
    for name in there.iter().filter(|name| ![MANIFEST, SIGNATURE].contains(&name.as_str())) {
        ensure!(found.contains_key(name), "{name}: in the folder and not in the manifest");
    }
    for name in found.keys() {
        ensure!(there.contains(name), "{name}: in the manifest and not in the folder");
    }
    Ok(found)
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether the text is a file's name, and no path.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

fn digests(folder: &Path, listed: &Digests) -> Result<()> {
    for (name, expected) in listed {
        let found = sha256(&folder.join(name))?;
        ensure!(found == *expected, "{name}: expected {expected}, found {found}");
    }
    Ok(())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
    subject: Vec<Subject>,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    digest: Sha256Member,
}

#[derive(Deserialize)]
struct Sha256Member {
    sha256: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: BuildDefinition,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    external_parameters: Parameters,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Parameters {
    r#ref: String,
    uncommitted_changes: bool,
}

/// Each file but this one is among what the statement says was made, and of which commit.
fn provenance(folder: &Path, key: &PublicKey, listed: &Digests) -> Result<String> {
    let statement: Statement = serde_json::from_slice(&key.check_statement(&read(folder, PROVENANCE)?)?)?;
    let kind = statement.predicate_type;
    ensure!(kind == "https://slsa.dev/provenance/v1", "expected SLSA's provenance v1, found {kind}");
    let made: Digests = statement.subject.into_iter().map(|made| (made.name, made.digest.sha256)).collect();
    for (name, expected) in listed.iter().filter(|(name, _)| *name != PROVENANCE) {
        let found = made.get(name).map_or("nothing", String::as_str);
        ensure!(found == expected, "{name}: expected {expected} among its subjects, found {found}");
    }
    let parameters = statement.predicate.build_definition.external_parameters;
    let changed = if parameters.uncommitted_changes { " WITH UNCOMMITTED CHANGES" } else { "" };
    Ok(format!("commit {}{changed}", parameters.r#ref))
}

#[derive(Deserialize)]
struct Bill {
    components: Vec<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    #[serde(rename = "bom-ref")]
    reference: String,
    #[serde(default)]
    hashes: Vec<ComponentHash>,
}

#[derive(Deserialize)]
struct ComponentHash {
    content: String,
}

/// What the bill of materials is of is what the release has.
fn materials(folder: &Path, listed: &Digests) -> Result<String> {
    let bill: Bill = serde_json::from_slice(&read(folder, MATERIALS)?)?;
    let files = bill.components.iter().filter(|component| component.reference.starts_with("file:"));
    let mut names = BTreeSet::new();
    for Component { name, hashes, .. } in files {
        let found = hashes.first().map_or("nothing", |hash| &hash.content);
        let expected = listed.get(name).map_or("no such file", String::as_str);
        ensure!(found == expected, "{name}: expected {expected}, found {found} in {MATERIALS}");
        names.insert(name.as_str());
    }
    let server = "confonnx-server";
    ensure!(!listed.contains_key(server) || names.contains(server), "expected {server} in {MATERIALS}");
    Ok(format!("{} components", bill.components.len()))
}

/// For which TEEs the release says what hardware reports.
fn measurements(folder: &Path, listed: &Digests) -> Result<Vec<String>> {
    let all: BTreeMap<String, Value> = serde_json::from_slice(&read(folder, MEASUREMENTS)?)?;
    for (tee, expected) in &all {
        let name = info(tee);
        ensure!(listed.contains_key(&name), "{name}: expected it in the manifest");
        let found: Value = serde_json::from_slice(&read(folder, &name)?)?;
        ensure!(found == *expected, "{name}: expected what {MEASUREMENTS} has for {tee}");
    }
    Ok(all.into_keys().collect())
}

/// A public key on P-256, whose private key whoever releases keeps offline.
pub(crate) struct PublicKey {
    der: Vec<u8>,
    point: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    message_signature: Option<MessageSignature>,
    dsse_envelope: Option<Envelope>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Hint,
}

#[derive(Deserialize)]
struct Hint {
    hint: String,
}

#[derive(Deserialize)]
struct MessageSignature {
    signature: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<EnvelopeSignature>,
}

#[derive(Deserialize)]
struct EnvelopeSignature {
    sig: String,
}

impl PublicKey {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let inner = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----");
        let inner = inner.and_then(|text| text.strip_suffix("-----END PUBLIC KEY-----"));
        let packed: String = inner.unwrap_or_default().split_whitespace().collect();
        let der = Base64::decode_vec(&packed).unwrap_or_default();
        let point = der.strip_prefix(P256).filter(|point| point.len() == 65).map(<[u8]>::to_vec);
        let expected = || format!("{}: expected a public key of P-256 (PEM)", path.display());
        Ok(Self { point: point.with_context(expected)?, der })
    }

    fn bundle(&self, text: &[u8]) -> Result<Bundle> {
        let bundle: Bundle = serde_json::from_slice(text).context("expected a Sigstore bundle by a key")?;
        ensure!(bundle.media_type == BUNDLE, "expected {BUNDLE}, found {}", bundle.media_type);
        let (own, named) = (
            Base64::encode_string(&Sha256::digest(&self.der)),
            &bundle.verification_material.public_key.hint,
        );
        ensure!(*named == own, "expected the key {own}, found one by {named}");
        Ok(bundle)
    }

    fn check(&self, signature: &str, data: &[u8]) -> Result<()> {
        let signature = Base64::decode_vec(signature).map_err(|_| anyhow!("the signature is no base64"))?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &self.point)
            .verify(data, &signature)
            .map_err(|_| anyhow!("the signature is not of these bytes"))
    }

    /// The manifest of the folder, once its signature is right.
    pub(crate) fn manifest(&self, folder: &Path) -> Result<Vec<u8>> {
        let manifest = read(folder, MANIFEST)?;
        let bundle = read(folder, SIGNATURE).context("this release is not signed")?;
        let signed = self.bundle(&bundle)?.message_signature;
        self.check(&signed.context("expected a bundle with a messageSignature")?.signature, &manifest)?;
        Ok(manifest)
    }

    /// The statement in the bundle, once its signature (DSSE) is right.
    fn check_statement(&self, bundle: &[u8]) -> Result<Vec<u8>> {
        let envelope = self.bundle(bundle)?.dsse_envelope.context("expected a bundle with a dsseEnvelope")?;
        let kind = envelope.payload_type;
        ensure!(kind == STATEMENT, "expected a statement ({STATEMENT}), found {kind}");
        let payload =
            Base64::decode_vec(&envelope.payload).map_err(|_| anyhow!("the payload is no base64"))?;
        let [signature] = envelope.signatures.as_slice() else {
            bail!("expected one signature, found {}", envelope.signatures.len())
        };
        let mut signed = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
        signed.extend_from_slice(&payload);
        self.check(&signature.sig, &signed)?;
        Ok(payload)
    }
}
