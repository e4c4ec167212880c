//! A key of the vTPM with what Microsoft Azure Attestation wants to see of it (`attest/AzureGuest`): the way by which services
//! of Azure encrypt to a confidential VM, whose own report data the paravisor took.
//!
//! The members are those that Microsoft's guest attestation library sends (Azure/confidential-computing-cvm-guest-attestation,
//! `AttestationParameters`, `TpmInfo`, `IsolationInfo`; Azure/azure-guest-attestation-sdk for the encoding of the proofs).

use std::io;
use std::path::Path;

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{AK, Device, DeviceError};
use crate::azure::{Evidence, Hardware};
use crate::contract::Attested;
use crate::maa::MaaRequest;
use crate::snp::FormError;
use crate::tpm::{DecryptionKey, Handle, Padding, Tpm, rsa_signature};

/// A key in the vTPM, certified, and this machine's evidence beside it. The key ends when this value is dropped.
#[derive(Debug)]
pub struct GuestKey {
    tpm: Tpm,
    key: DecryptionKey,
    /// Evidence over the PCRs that the service knows, without data of ours.
    evidence: Evidence,
    ak_certificate: Vec<u8>,
    ak_public: Vec<u8>,
    log: Vec<u8>,
    system: System,
}

/// The name and version of an operating system.
#[derive(Debug, PartialEq, Eq)]
struct System {
    name: String,
    major: u32,
    minor: u32,
}

impl Device {
    /// A key that is another one for each `unique`. Blocks until the virtual TPM has made it: some seconds, at times.
    ///
    /// # Errors
    /// See [`DeviceError`].
    pub fn guest_key(&self, unique: &[u8; 256]) -> Result<GuestKey, DeviceError> {
        let mut tpm = Tpm::open(&self.path)?;
        let evidence = self.quoted_by(&mut tpm, &[], &PCRS)?;
        let ak_certificate = tpm.nv_read(AK_CERTIFICATE)?;
        let ak_public = tpm.read_public_area(AK)?;
        let key = tpm.create_decryption_key(AK, &evidence.pcrs, unique)?;
        let path = self.root.join(LOG);
        let log = match std::fs::read(&path) {
            // The service decides whether it can do without the log.
            Err(err) if err.kind() == io::ErrorKind::NotFound => Vec::new(),
            log => log.map_err(|source| DeviceError::Log { path, source })?,
        };
        let system = System::of(&self.root);
        Ok(GuestKey { tpm, key, evidence, ak_certificate, ak_public, log, system })
    }
}

impl GuestKey {
    /// The evidence, to which its vendor's word is to be stapled.
    pub fn evidence(&mut self) -> &mut Evidence {
        &mut self.evidence
    }

    /// What Microsoft Azure Attestation is asked with.
    ///
    /// # Errors
    /// [`DeviceError::Signature`]
    pub fn maa(&self) -> Result<MaaRequest, GuestError> {
        let signature = |tpmt: &[u8]| rsa_signature(tpmt).ok_or(DeviceError::Signature);
        let Evidence { quote, pcrs, hardware, runtime_data, .. } = &self.evidence;
        let (certified, certified_signature) = &self.key.certified;
        let base64 = Base64::encode_string;
        let values = pcrs.0.iter().map(|(index, value)| json!({ "Index": index, "Digest": base64(value) }));
        let url = Base64UrlUnpadded::encode_string;
        let isolation = match hardware {
            Hardware::Snp(evidence) => {
                let proof = json!({
                    "SnpReport": url(&evidence.report()),
                    "VcekCertChain": url(evidence.chain_pem()?.as_bytes()),
                });
                let proof = url(proof.to_string().as_bytes());
                let evidence = json!({ "Proof": proof, "RunTimeData": url(runtime_data.bytes()) });
                json!({ "Type": "SevSnp", "Evidence": evidence })
            }
            Hardware::Tdx(evidence) => {
                let (proof, data) = (base64(&evidence.report()), base64(runtime_data.bytes()));
                json!({ "Type": "Tdx", "Evidence": { "Proof": proof, "RunTimeData": data } })
            }
        };
        let System { name, major, minor } = &self.system;
        let info = json!({
            "AttestationProtocolVersion": "2.0",
            "OSType": base64(b"Linux"),
            "OSDistro": base64(name.as_bytes()),
            "OSVersionMajor": major,
            "OSVersionMinor": minor,
            // Microsoft's library says the same on Linux.
            "OSBuild": base64(b"NotApplication"),
            "TcgLogs": base64(&self.log),
            "ClientPayload": {},
            "TpmInfo": {
                "AikCert": base64(&self.ak_certificate),
                "AikPub": base64(&self.ak_public),
                "PcrQuote": base64(quote.message()),
                "PcrSignature": base64(&signature(quote.signature())?),
                "PcrSet": pcrs.0.keys().collect::<Vec<_>>(),
                "PCRs": values.collect::<Vec<Value>>(),
                "EncKeyPub": base64(&self.key.public),
                "EncKeyCertifyInfo": base64(certified),
                "EncKeyCertifyInfoSignature": base64(&signature(certified_signature)?),
            },
            "IsolationInfo": isolation,
        });
        let body = json!({ "AttestationInfo": url(info.to_string().as_bytes()) });
        Ok(MaaRequest { path: "/attest/AzureGuest?api-version=2020-10-01", body })
    }

    /// Decrypts what is encrypted to the key by RSAES-PKCS1-v1_5, as the service does with its token's key.
    ///
    /// # Errors
    /// [`DeviceError::Tpm`], also when the PCRs have changed meanwhile.
    pub fn decrypt_pkcs1(&mut self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
        Ok(self.tpm.decrypt(&self.key, ciphertext, Padding::Pkcs1)?)
    }

    /// Decrypts what is encrypted to the key by RSAES-OAEP with SHA-256, as vaults do.
    ///
    /// # Errors
    /// [`DeviceError::Tpm`], also when the PCRs have changed meanwhile.
    pub fn decrypt_oaep(&mut self, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, DeviceError> {
        Ok(self.tpm.decrypt(&self.key, ciphertext, Padding::Oaep)?)
    }
}

/// Why the service cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// The virtual TPM does not do what it has to.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// What vouches for the processor's report is missing.
    #[error(transparent)]
    Form(#[from] FormError),
}

impl System {
    /// The system by its `/etc/os-release`. The service wants a name and a version, and believes neither.
    fn of(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("etc/os-release")).unwrap_or_default();
        let field = |name: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            values.next().map(|value| value.trim_matches('"')).filter(|value| !value.is_empty())
        };
        let mut numbers = field("VERSION_ID").unwrap_or_default().split('.').map(str::parse);
        let mut number = || numbers.next().and_then(Result::ok);
        let name = field("NAME").unwrap_or("Linux").into();
        Self { name, major: number().filter(|major| *major > 0).unwrap_or(1), minor: number().unwrap_or(0) }
    }
}

/// The PCRs that machines with Linux send to the service.
const PCRS: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
/// Where Azure keeps the certificate of the attestation key.
const AK_CERTIFICATE: Handle = Handle(0x01c1_01d0);
const LOG: &str = "sys/kernel/security/tpm0/binary_bios_measurements";

#[cfg(test)]
mod tests;
