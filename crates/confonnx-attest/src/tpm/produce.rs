//! Quotes of this machine's TPM.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use der::{Decode, Header, Reader as _, SliceReader};
use sha2::{Digest as _, Sha256};

use super::command::{CommandError, Handle, Tpm};
use super::{AkPublic, Evidence, MAX_CERTIFICATES, MAX_LOG_BYTES};
use crate::x509::{Certificate, certificates_from_pem};

/// This machine's TPM, through the kernel's resource manager.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    event_log: PathBuf,
    /// Certificates above the key's own, where the cloud does not put them into the TPM.
    issuers: Vec<Certificate>,
    /// The TPM with its key, kept open until a command fails: making a key takes TPMs up to a second.
    open: Mutex<Option<Open>>,
}

/// The open TPM with its attestation key.
#[derive(Debug)]
struct Open {
    tpm: Tpm,
    handle: Handle,
    ak: AkPublic,
    ak_chain: Vec<Certificate>,
}

impl Device {
    /// The TPM below `root`, which is `/` but in tests. `None`: there is none.
    pub fn find(root: &Path) -> Result<Option<Self>, CommandError> {
        let path = root.join(DEVICE);
        if !path.exists() {
            return Ok(None);
        }
        let open = Mutex::new(Some(Open::start(&path)?));
        let issuers = issuers(&root.join(ISSUERS))?;
        Ok(Some(Self { path, event_log: root.join(EVENT_LOG), issuers, open }))
    }

    /// A quote that carries the SHA-256 of `report_data`. Blocks for as long as the TPM takes, usually some 100 ms.
    pub fn evidence(&self, report_data: &[u8; 64]) -> Result<Evidence, CommandError> {
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match slot.take() {
            Some(open) => open,
            None => Open::start(&self.path)?,
        };
        let data = Sha256::digest(report_data);
        let (quote, pcrs) = open.tpm.quote_with_values(open.handle, &data, &QUOTED_PCRS)?;
        let (ak, mut ak_chain) = (open.ak.clone(), open.ak_chain.clone());
        if let [_] = ak_chain.as_slice() {
            ak_chain.extend(self.issuers.iter().take(MAX_CERTIFICATES.saturating_sub(1)).cloned());
        }
        *slot = Some(open);
        let event_log = self.event_log();
        Ok(Evidence { ak, ak_chain, quote: Box::new(quote), pcrs, event_log })
    }

    /// The firmware's log, which proves nothing by itself: without one, or with one that is too long to send, a client
    /// sees the PCRs all the same.
    fn event_log(&self) -> Option<Vec<u8>> {
        let log = std::fs::read(&self.event_log).ok()?;
        (!log.is_empty() && log.len() <= MAX_LOG_BYTES).then_some(log)
    }
}

impl Open {
    /// Takes the key that the cloud certified, if there is one, and makes one otherwise.
    fn start(path: &Path) -> Result<Self, CommandError> {
        let mut tpm = Tpm::open(path)?;
        for (certificate, place) in CERTIFIED {
            let Some(padded) = tpm.nv_read_if_defined(certificate)? else { continue };
            let ak_chain = certificates_in(&padded);
            if ak_chain.is_empty() {
                continue;
            }
            let (handle, ak) = match place {
                Place::Template(index) => {
                    let template = tpm.nv_read(index)?;
                    tpm.create_primary(&template)?
                }
                Place::Persistent(handle) => (handle, tpm.read_public(handle)?),
            };
            return Ok(Self { tpm, handle, ak, ak_chain });
        }
        let (handle, ak) = tpm.create_ak()?;
        Ok(Self { tpm, handle, ak, ak_chain: Vec::new() })
    }
}

/// The certificates of a file that may be absent. Like all else here they are checked by clients.
fn issuers(path: &Path) -> Result<Vec<Certificate>, CommandError> {
    let unusable = |source| CommandError::Issuers { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(pem) => certificates_from_pem(&pem)
            .map_err(|error| unusable(io::Error::new(io::ErrorKind::InvalidData, error.to_string()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unusable(error)),
    }
}

/// Where a key is that a cloud certified.
enum Place {
    /// The attestation key is made from the template (TPMT_PUBLIC) in this NV index.
    Template(Handle),
    /// The attestation key is at this handle.
    Persistent(Handle),
}

/// The certificates at the start of an NV index, which may be longer than them: the key's, and those of who issued it where
/// the cloud put them there.
fn certificates_in(padded: &[u8]) -> Vec<Certificate> {
    let mut certificates = Vec::new();
    let mut rest = padded;
    while certificates.len() < MAX_CERTIFICATES {
        let Some((certificate, len)) = first_certificate(rest) else { break };
        certificates.push(certificate);
        rest = rest.get(len..).unwrap_or_default();
    }
    certificates
}

/// The certificate that bytes begin with, and its length.
fn first_certificate(padded: &[u8]) -> Option<(Certificate, usize)> {
    let mut reader = SliceReader::new(padded).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    let len = u32::from(reader.position()).checked_add(u32::from(header.length()))?;
    let len = usize::try_from(len).ok()?;
    Some((Certificate::from_der(padded.get(..len)?).ok()?, len))
}

/// The device of the kernel's resource manager, so that programs do not disturb each other.
pub(crate) const DEVICE: &str = "dev/tpmrm0";
/// Where Linux shows the log; only root may read it.
const EVENT_LOG: &str = "sys/kernel/security/tpm0/binary_bios_measurements";
/// Where whoever runs the machine puts the issuers' certificates, the key's own issuer first.
const ISSUERS: &str = "etc/confonnx/ak-issuers.pem";
/// All PCRs that software cannot reset, but 10: Linux's integrity measurements extend it with every program that
/// starts.
pub(crate) const QUOTED_PCRS: [u8; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15];
/// NV indices of certificates of attestation keys: of Google Compute Engine (P-256), of Azure (RSA).
const CERTIFIED: [(Handle, Place); 2] = [
    (Handle(0x01c1_0002), Place::Template(Handle(0x01c1_0003))),
    (Handle(0x01c1_01d0), Place::Persistent(Handle(0x8100_0003))),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_come_from_a_file_if_there_is_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("issuers.pem");
        assert!(issuers(&path).unwrap().is_empty());
        let made = |name: &str| rcgen::generate_simple_self_signed(vec![name.into()]).unwrap().cert;
        let (one, other) = (made("one"), made("other"));
        let pem = |der: &[u8]| {
            let body = <base64ct::Base64 as base64ct::Encoding>::encode_string(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        std::fs::write(&path, pem(one.der()) + &pem(other.der())).unwrap();
        let found = issuers(&path).unwrap();
        let found: Vec<_> = found.iter().map(Certificate::der).collect();
        assert_eq!(found, [&one.der()[..], &other.der()[..]]);
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        let error = issuers(&path).unwrap_err().to_string();
        assert!(error.contains("issuers.pem"), "{error}");
    }

    #[test]
    fn all_certificates_of_an_index_are_sent() {
        let der: [&[u8]; 2] = [
            include_bytes!("../../../../vectors/evidence/snp/vcek_milan.der"),
            include_bytes!("../../../../vectors/evidence/snp/vcek_turin.der"),
        ];
        let padded = |count: usize| [der.repeat(3)[..count].concat(), vec![0; 100]].concat();
        for count in 0..=MAX_CERTIFICATES {
            let found = certificates_in(&padded(count));
            assert_eq!(found.len(), count);
            assert!(found.iter().zip(der.repeat(3)).all(|(found, der)| found.der() == der));
        }
        assert_eq!(certificates_in(&padded(MAX_CERTIFICATES + 1)).len(), MAX_CERTIFICATES);
        assert_eq!(certificates_in(&der[0][..900]).len(), 0);
    }
}
