//! The attestation document: a CBOR map (RFC 8949) signed as COSE_Sign1 (RFC 9052).
//!
//! The format is that of AWS's "Nitro Enclaves Attestation Process", sections 2.2, 3.1 and 3.2.2.

use std::collections::BTreeMap;

use ciborium::Value;

/// A document whose form is right. Nothing in it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Document {
    /// The map as signed.
    payload: Vec<u8>,
    /// r and s, 48 bytes each, big-endian.
    pub(super) signature: Vec<u8>,
    /// The hypervisor's name for the enclave.
    pub(super) module_id: String,
    /// Milliseconds since 1970, by the hypervisor's clock.
    pub(super) timestamp_ms: u64,
    /// The locked registers; 0, 1 and 2 are among them.
    pub(super) pcrs: BTreeMap<u8, Pcr>,
    /// DER of the certificate whose key signs the document.
    pub(super) certificate: Vec<u8>,
    /// DER of its issuers, the root first.
    pub(super) cabundle: Vec<Vec<u8>>,
    pub(super) public_key: Option<Vec<u8>>,
    pub(super) user_data: Option<Vec<u8>>,
    pub(super) nonce: Option<Vec<u8>>,
}

/// A register: SHA-384.
pub(super) type Pcr = [u8; 48];

/// Bytes that are no attestation document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The report is too long.
    #[error("expected an attestation document of at most {MAX_BYTES} bytes, found {found}")]
    TooLong {
        /// Bytes found.
        found: usize,
    },
    /// Not CBOR.
    #[error("{what} is not CBOR")]
    Cbor {
        /// Which part.
        what: &'static str,
    },
    /// Bytes follow the CBOR.
    #[error("{surplus} bytes follow {what}")]
    Trailing {
        /// Which part.
        what: &'static str,
        /// How many.
        surplus: usize,
    },
    /// Not a COSE_Sign1 in its only accepted encoding.
    #[error("expected a COSE_Sign1 [h'a1013822', {{}}, payload, signature] (ES384) in its shortest encoding")]
    Framing,
    /// A member of the payload is of another type.
    #[error("{member}: expected {expected}")]
    Type {
        /// Name of the member.
        member: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// A member of the payload is too short or too long.
    #[error("{member}: expected {expected} bytes or entries, found {found}")]
    Length {
        /// Name of the member.
        member: &'static str,
        /// The lengths that it may have.
        expected: &'static str,
        /// The length that it has.
        found: usize,
    },
    /// A member is absent.
    #[error("the payload has no {member}")]
    Missing {
        /// Name of the member.
        member: &'static str,
    },
    /// A member occurs twice.
    #[error("the payload has {member} twice")]
    Twice {
        /// Name of the member.
        member: &'static str,
    },
    /// A member nobody knows.
    #[error("the payload has a member that is not in the specification: {member}")]
    Unknown {
        /// The member's name, shortened.
        member: String,
    },
}

impl Document {
    /// Reads a COSE_Sign1, tagged or not, and the payload in it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_BYTES {
            return Err(ParseError::TooLong { found: bytes.len() });
        }
        let outer = match cbor(bytes, "the report")? {
            Value::Tag(COSE_SIGN1, inner) => *inner,
            untagged => untagged,
        };
        let (payload, signature) = match outer.as_array().map(Vec::as_slice) {
            Some(
                [
                    Value::Bytes(protected),
                    Value::Map(unprotected),
                    Value::Bytes(payload),
                    Value::Bytes(signature),
                ],
            ) if protected == PROTECTED && unprotected.is_empty() => (payload.clone(), signature.clone()),
            _ => return Err(ParseError::Framing),
        };
        // The framing is not signed, so it has to have one form only.
        let tagless = bytes.strip_prefix(TAG).unwrap_or(bytes);
        if tagless != encoded(&outer) {
            return Err(ParseError::Framing);
        }
        length("signature", "96", signature.len(), signature.len() == 96)?;
        let members = Members::read(&payload)?;
        members.into_document(payload, signature)
    }

    /// The bytes that are signed: Sig_structure of RFC 9052 section 4.4.
    pub(super) fn signed(&self) -> Vec<u8> {
        encoded(&Value::Array(vec![
            Value::Text("Signature1".into()),
            Value::Bytes(PROTECTED.to_vec()),
            Value::Bytes(Vec::new()),
            Value::Bytes(self.payload.clone()),
        ]))
    }

    /// One of the registers 0, 1 and 2, which are always there.
    pub(super) fn pcr(&self, index: u8) -> Pcr {
        self.pcrs.get(&index).copied().unwrap_or(ZERO)
    }
}

/// The payload's members as they are met.
#[derive(Default)]
struct Members {
    module_id: Option<String>,
    digest: Option<String>,
    timestamp: Option<u64>,
    pcrs: Option<BTreeMap<u8, Pcr>>,
    certificate: Option<Vec<u8>>,
    cabundle: Option<Vec<Vec<u8>>>,
    public_key: Option<Option<Vec<u8>>>,
    user_data: Option<Option<Vec<u8>>>,
    nonce: Option<Option<Vec<u8>>>,
}

impl Members {
    fn read(payload: &[u8]) -> Result<Self, ParseError> {
        let Value::Map(entries) = cbor(payload, "the payload")? else {
            return Err(ParseError::Type { member: "payload", expected: "a map" });
        };
        let mut members = Self::default();
        for (key, value) in entries {
            let Value::Text(key) = key else {
                return Err(ParseError::Type { member: "payload", expected: "names as keys" });
            };
            match key.as_str() {
                "module_id" => once("module_id", &mut members.module_id, text("module_id", value)?)?,
                "digest" => once("digest", &mut members.digest, text("digest", value)?)?,
                "timestamp" => once("timestamp", &mut members.timestamp, timestamp(value)?)?,
                "pcrs" => once("pcrs", &mut members.pcrs, pcrs(value)?)?,
                "certificate" => {
                    once("certificate", &mut members.certificate, certificate("certificate", value)?)?;
                }
                "cabundle" => once("cabundle", &mut members.cabundle, cabundle(value)?)?,
                "public_key" => {
                    once("public_key", &mut members.public_key, user_bytes("public_key", value)?)?;
                }
                "user_data" => once("user_data", &mut members.user_data, user_bytes("user_data", value)?)?,
                "nonce" => once("nonce", &mut members.nonce, user_bytes("nonce", value)?)?,
                _ => return Err(ParseError::Unknown { member: key.chars().take(32).collect() }),
            }
        }
        Ok(members)
    }

    fn into_document(self, payload: Vec<u8>, signature: Vec<u8>) -> Result<Document, ParseError> {
        if required("digest", self.digest)? != "SHA384" {
            return Err(ParseError::Type { member: "digest", expected: "SHA384" });
        }
        Ok(Document {
            payload,
            signature,
            module_id: required("module_id", self.module_id)?,
            timestamp_ms: required("timestamp", self.timestamp)?,
            pcrs: required("pcrs", self.pcrs)?,
            certificate: required("certificate", self.certificate)?,
            cabundle: required("cabundle", self.cabundle)?,
            public_key: self.public_key.flatten(),
            user_data: self.user_data.flatten(),
            nonce: self.nonce.flatten(),
        })
    }
}

fn cbor(bytes: &[u8], what: &'static str) -> Result<Value, ParseError> {
    let mut rest = bytes;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH)
        .map_err(|_| ParseError::Cbor { what })?;
    match rest.len() {
        0 => Ok(value),
        surplus => Err(ParseError::Trailing { what, surplus }),
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = ciborium::into_writer(value, &mut bytes);
    bytes
}

fn once<T>(member: &'static str, slot: &mut Option<T>, value: T) -> Result<(), ParseError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(ParseError::Twice { member }),
    }
}

fn required<T>(member: &'static str, slot: Option<T>) -> Result<T, ParseError> {
    slot.ok_or(ParseError::Missing { member })
}

fn length(member: &'static str, expected: &'static str, found: usize, right: bool) -> Result<(), ParseError> {
    if right { Ok(()) } else { Err(ParseError::Length { member, expected, found }) }
}

fn text(member: &'static str, value: Value) -> Result<String, ParseError> {
    let text = value.into_text().map_err(|_| ParseError::Type { member, expected: "text" })?;
    length(member, "1 to 256", text.len(), (1..=256).contains(&text.len()))?;
    Ok(text)
}

fn timestamp(value: Value) -> Result<u64, ParseError> {
    let member = "timestamp";
    let number = value.as_integer().and_then(|number| u64::try_from(number).ok()).filter(|&ms| ms > 0);
    number.ok_or(ParseError::Type { member, expected: "a positive number of milliseconds" })
}

fn pcrs(value: Value) -> Result<BTreeMap<u8, Pcr>, ParseError> {
    let member = "pcrs";
    let entries = value.into_map().map_err(|_| ParseError::Type { member, expected: "a map" })?;
    length(member, "1 to 32", entries.len(), (1..=32).contains(&entries.len()))?;
    let mut pcrs = BTreeMap::new();
    for (index, value) in entries {
        let index = index.as_integer().and_then(|index| u8::try_from(index).ok()).filter(|&index| index < 32);
        let index = index.ok_or(ParseError::Type { member, expected: "indices from 0 to 31" })?;
        let Value::Bytes(value) = value else {
            return Err(ParseError::Type { member, expected: "byte strings" });
        };
        let found = value.len();
        let value = value.try_into().map_err(|_| ParseError::Length { member, expected: "48", found })?;
        if pcrs.insert(index, value).is_some() {
            return Err(ParseError::Twice { member: "a register" });
        }
    }
    // These registers say what the enclave runs; a document without them says nothing.
    match [0, 1, 2].iter().all(|index| pcrs.contains_key(index)) {
        true => Ok(pcrs),
        false => Err(ParseError::Missing { member: "register 0, 1 or 2" }),
    }
}

fn certificate(member: &'static str, value: Value) -> Result<Vec<u8>, ParseError> {
    let der = value.into_bytes().map_err(|_| ParseError::Type { member, expected: "a byte string" })?;
    length(member, "1 to 1024", der.len(), (1..=1024).contains(&der.len()))?;
    Ok(der)
}

fn cabundle(value: Value) -> Result<Vec<Vec<u8>>, ParseError> {
    let member = "cabundle";
    let issuers = value.into_array().map_err(|_| ParseError::Type { member, expected: "an array" })?;
    length(member, "1 to 8", issuers.len(), (1..=MAX_ISSUERS).contains(&issuers.len()))?;
    issuers.into_iter().map(|issuer| certificate(member, issuer)).collect()
}

/// The specification forbids null, yet the hypervisor writes it for what the enclave did not give.
fn user_bytes(member: &'static str, value: Value) -> Result<Option<Vec<u8>>, ParseError> {
    if value.is_null() {
        return Ok(None);
    }
    let bytes = value.into_bytes().map_err(|_| ParseError::Type { member, expected: "a byte string" })?;
    length(member, "at most 1024", bytes.len(), bytes.len() <= 1024)?;
    Ok(Some(bytes))
}

const ZERO: Pcr = [0; 48];

/// CBOR tag of COSE_Sign1.
const COSE_SIGN1: u64 = 18;

/// The tag of COSE_Sign1, encoded.
const TAG: &[u8] = &[0xd2];

/// The map {1: -35}: the algorithm is ES384.
const PROTECTED: &[u8] = &[0xa1, 0x01, 0x38, 0x22];

/// 16,384 bytes of payload, as the specification allows, and the framing and signature around it.
const MAX_BYTES: usize = 16_384 + 128;

/// Tag, array and map around the values.
const MAX_DEPTH: usize = 8;

/// The most issuers: the hypervisor sends 4, and each costs a signature to check.
const MAX_ISSUERS: usize = 8;

#[cfg(test)]
mod tests;
