//! Quotes of Intel's DCAP, versions 3 to 5 (Intel SGX ECDSA QuoteLibReference 1.22 appendix A, Intel TDX DCAP
//! Quoting Library API appendix A.3), read so that no byte of them is left unexplained.

use base64ct::{Base64, Encoding};
use dcap_qvl::quote::Report;

use super::enclave::{ENCLAVE_REPORT_BYTES, EnclaveReport};
use crate::cursor::{Cursor, Truncated};
use crate::digest;
use crate::x509::{Certificate, PemError, certificates_from_pem};

/// A quote that is well-formed, and no more than that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quote {
    /// The quote without padding.
    bytes: Vec<u8>,
    /// Length of what [`signature`](Self::signature) is over: header and report.
    signed: usize,
    pub(super) report: Report,
    /// The quote's signature r ‖ s, by the attestation key.
    pub(super) signature: [u8; 64],
    /// The attestation key: x ‖ y on P-256.
    pub(super) attestation_key: [u8; 64],
    pub(super) qe_report: [u8; ENCLAVE_REPORT_BYTES],
    /// The signature r ‖ s of the quoting enclave's report, by the PCK.
    pub(super) qe_signature: [u8; 64],
    pub(super) qe_auth_data: [u8; 32],
    /// The PCK certificate, its issuer, the root.
    pub(super) chain: [Certificate; 3],
}

/// Whom a quote is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An enclave: version 3.
    Sgx,
    /// A trust domain: version 4 or 5.
    Tdx,
}

/// Bytes that are not a quote of the kind expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Longer than any quote.
    #[error("expected a quote of at most {MAX_QUOTE_BYTES} bytes, found {found}")]
    TooLong {
        /// Length in bytes.
        found: usize,
    },
    /// The quote ends too early, or its fields are not those of a quote.
    #[error("not a quote: {0}")]
    Malformed(String),
    /// Another kind of quote, or another version.
    #[error("expected {}, found version {version} of TEE type {tee:#04x}", .expected.described())]
    Kind {
        /// What the evidence says it is.
        expected: Kind,
        /// The quote's version.
        version: u16,
        /// The quote's TEE type: 0 for SGX, 0x81 for TDX.
        tee: u32,
    },
    /// A version 5 quote has a report of unknown type or wrong size.
    #[error("expected a report of type 2, 3 or 4 and its size, found type {kind} with {size} bytes")]
    Body {
        /// Type of the report.
        kind: u16,
        /// The report's size in bytes.
        size: u32,
    },
    /// The quote is signed in another way.
    #[error("expected attestation key type 2 (ECDSA P-256) of Intel's quoting enclave, found {0}")]
    Signer(String),
    /// The PCK certificates are not in the quote.
    #[error(
        "expected the PCK certificate chain in the quote (certification data of type {expected}), found type {found}: \
         set up the host's quote provider so that quotes carry it"
    )]
    Certification {
        /// The type expected.
        expected: u16,
        /// The type found.
        found: u16,
    },
    /// Bytes that nothing explains.
    #[error("expected nothing but zeros after the {0}, found other bytes")]
    Trailing(&'static str),
    /// The PCK certificate chain cannot be read.
    #[error("the PCK certificate chain of the quote: {0}")]
    Chain(String),
}

impl Quote {
    /// Reads a quote. Hosts pad quotes with zeros, which are dropped; any other byte too many is refused, so that what
    /// no signature covers has only one form.
    pub(crate) fn parse(bytes: &[u8], kind: Kind) -> Result<Self, QuoteError> {
        if bytes.len() > MAX_QUOTE_BYTES {
            return Err(QuoteError::TooLong { found: bytes.len() });
        }
        let mut cursor = Cursor::new(bytes);
        let version = read_header(&mut cursor, kind)?;
        skip_report(&mut cursor, version)?;
        let signed = bytes.len().saturating_sub(cursor.rest().len());
        let signature_data = cursor.sized_u32("signature data")?;
        if cursor.rest().iter().any(|&byte| byte != 0) {
            return Err(QuoteError::Trailing("signature data"));
        }
        let len = bytes.len().saturating_sub(cursor.rest().len());
        let bytes = bytes.get(..len).unwrap_or_default().to_vec();

        let mut cursor = Cursor::new(signature_data);
        let signature = cursor.array("quote signature")?;
        let attestation_key = cursor.array("attestation key")?;
        if version != 3 {
            let certification = certification_data(&mut cursor, QE_REPORT)?;
            if !cursor.rest().is_empty() {
                return Err(QuoteError::Trailing("certification data"));
            }
            cursor = Cursor::new(certification);
        }
        let qe_report = cursor.array("quoting enclave's report")?;
        let qe_signature = cursor.array("signature of the quoting enclave's report")?;
        let auth_len = cursor.u16("authentication data size")?;
        let qe_auth_data = cursor.array("authentication data")?;
        let pem = certification_data(&mut cursor, PCK_CHAIN)?;
        if auth_len != 32 || !cursor.rest().is_empty() {
            return Err(QuoteError::Trailing("certification data"));
        }
        let chain = read_chain(pem)?;
        // The layout is known by now: this only gives the report's fields.
        let parsed = dcap_qvl::quote::Quote::parse(&bytes);
        let report = parsed.map_err(|err| QuoteError::Malformed(err.to_string()))?.report;
        Ok(Self {
            bytes,
            signed,
            report,
            signature,
            attestation_key,
            qe_report,
            qe_signature,
            qe_auth_data,
            chain,
        })
    }

    pub(crate) fn report(&self) -> &Report {
        &self.report
    }

    /// The report of the enclave that a quote of SGX is about.
    pub(crate) fn enclave_report(&self) -> Option<EnclaveReport> {
        let report = self.signed().last_chunk()?;
        if self.report.is_sgx() { EnclaveReport::parse(report).ok() } else { None }
    }

    /// The quote without padding.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What the quote's signature is over.
    pub(super) fn signed(&self) -> &[u8] {
        self.bytes.get(..self.signed).unwrap_or_default()
    }
}

impl From<Truncated> for QuoteError {
    fn from(err: Truncated) -> Self {
        Self::Malformed(err.to_string())
    }
}

impl From<PemError> for QuoteError {
    fn from(err: PemError) -> Self {
        Self::Chain(err.to_string())
    }
}

impl Kind {
    fn described(self) -> &'static str {
        match self {
            Self::Sgx => "an SGX quote (version 3 of TEE type 0x00)",
            Self::Tdx => "a TDX quote (version 4 or 5 of TEE type 0x81)",
        }
    }
}

/// Checks what the header says of the quote's form; gives the version.
fn read_header(cursor: &mut Cursor<'_>, expected: Kind) -> Result<u16, QuoteError> {
    let version = cursor.u16("version")?;
    let key_type = cursor.u16("attestation key type")?;
    let tee = cursor.u32("TEE type")?;
    cursor.take("SVNs of the quoting and provisioning enclaves", 4)?;
    let vendor: [u8; 16] = cursor.array("vendor of the quoting enclave")?;
    cursor.take("user data", 20)?;
    match (expected, version, tee) {
        (Kind::Sgx, 3, 0x00) | (Kind::Tdx, 4 | 5, 0x81) => {}
        _ => return Err(QuoteError::Kind { expected, version, tee }),
    }
    if key_type != ECDSA_P256 || vendor != dcap_qvl::INTEL_QE_VENDOR_ID {
        let found = format!("type {key_type} of vendor {}", digest::encode(&vendor));
        return Err(QuoteError::Signer(found));
    }
    Ok(version)
}

fn skip_report(cursor: &mut Cursor<'_>, version: u16) -> Result<(), QuoteError> {
    let len = match version {
        3 => ENCLAVE_REPORT_BYTES,
        4 => 584,
        _ => {
            let kind = cursor.u16("report type")?;
            let size = cursor.u32("report size")?;
            match (kind, size) {
                (2, 584) => 584,
                (3, 648) => 648,
                (4, 885) => 885,
                _ => return Err(QuoteError::Body { kind, size }),
            }
        }
    };
    cursor.take("report", len)?;
    Ok(())
}

fn certification_data<'a>(cursor: &mut Cursor<'a>, expected: u16) -> Result<&'a [u8], QuoteError> {
    let found = cursor.u16("certification data type")?;
    if found != expected {
        return Err(QuoteError::Certification { expected, found });
    }
    Ok(cursor.sized_u32("certification data")?)
}

/// Reads the PCK chain: three certificates in the one form in which PEM is usually written, because no signature
/// covers the text. A NUL may follow.
fn read_chain(pem: &[u8]) -> Result<[Certificate; 3], QuoteError> {
    let pem = pem.strip_suffix(&[0]).unwrap_or(pem);
    let text = str::from_utf8(pem).map_err(|err| QuoteError::Chain(err.to_string()))?;
    let chain = certificates_from_pem(text)?;
    let canonical: String = chain.iter().map(|certificate| to_pem(certificate.der())).collect();
    if text != canonical && text != canonical.trim_ascii_end() {
        return Err(QuoteError::Chain("expected PEM with lines of 64 characters and nothing else".into()));
    }
    let found = chain.len();
    chain.try_into().map_err(|_| QuoteError::Chain(format!("expected 3 certificates, found {found}")))
}

/// A certificate in PEM, as OpenSSL writes it.
pub(super) fn to_pem(der: &[u8]) -> String {
    let base64 = Base64::encode_string(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (i, c) in base64.chars().enumerate() {
        if i > 0 && i.is_multiple_of(64) {
            pem.push('\n');
        }
        pem.push(c);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}

const MAX_QUOTE_BYTES: usize = 64 << 10;
/// Type of attestation keys.
const ECDSA_P256: u16 = 2;
/// Certification data: the quoting enclave's report with the certification data for it.
const QE_REPORT: u16 = 6;
/// Certification data: the PCK certificate chain as PEM.
const PCK_CHAIN: u16 = 5;
