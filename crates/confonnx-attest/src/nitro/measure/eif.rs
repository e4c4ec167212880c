//! Enclave image files (EIF, version 4): what the hypervisor measures of one, as `nitro-cli` computes it.

use base64ct::{Base64, Encoding};
use ciborium::Value;
use sha2::{Digest as _, Sha384};

use crate::{Hex, cursor::Cursor, image::MeasureError};

/// What every image begins with.
pub(super) const MAGIC: &[u8] = b".eif";

/// The registers of an enclave that is started from an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Registers {
    /// Kernel, command line and all RAM disks.
    pub(super) pcr0: Hex<48>,
    /// Kernel, command line and the first RAM disk.
    pub(super) pcr1: Hex<48>,
    /// The other RAM disks.
    pub(super) pcr2: Hex<48>,
    /// The certificate that signed the image.
    pub(super) pcr8: Option<Hex<48>>,
}

/// Reads the sections of `image` and measures them.
pub(super) fn registers(image: &[u8]) -> Result<Registers, MeasureError> {
    let mut reader = Cursor::new(image);
    reader.take("header", HEADER).map_err(|short| malformed("header", "548 bytes", short.to_string()))?;
    let (mut all, mut boot, mut program) = (Sha384::new(), Sha384::new(), Sha384::new());
    let (mut kernels, mut disks, mut signer) = (0_usize, 0_usize, None);
    while !reader.rest().is_empty() {
        let content = section(&mut reader);
        let (kind, content) =
            content.map_err(|found| malformed("section", "a header and its content", found))?;
        match kind {
            KERNEL | COMMAND_LINE => {
                kernels = kernels.saturating_add(usize::from(kind == KERNEL));
                all.update(content);
                boot.update(content);
            }
            RAM_DISK => {
                all.update(content);
                let of = if disks == 0 { &mut boot } else { &mut program };
                of.update(content);
                disks = disks.saturating_add(1);
            }
            SIGNATURE => signer = Some(certificate(content)?),
            METADATA => {}
            other => return Err(malformed("section", "a type of 1 to 5", other.to_string())),
        }
    }
    if kernels != 1 {
        return Err(malformed("sections", "one kernel", kernels.to_string()));
    }
    Ok(Registers {
        pcr0: extended(all),
        pcr1: extended(boot),
        pcr2: extended(program),
        pcr8: signer.map(|der| extended(Sha384::new_with_prefix(der))),
    })
}

/// The next section's type and content.
fn section<'i>(reader: &mut Cursor<'i>) -> Result<(u16, &'i [u8]), String> {
    let mut head = || -> Result<_, crate::cursor::Truncated> {
        let kind = u16::from_be_bytes(reader.array("type")?);
        reader.take("flags", 2)?;
        let size = u64::from_be_bytes(reader.array("size")?);
        // A size that no `usize` holds is more than what is left anyway.
        Ok((kind, reader.take("content", usize::try_from(size).unwrap_or(usize::MAX))?))
    };
    head().map_err(|short| short.to_string())
}

/// DER of the certificate of the first signature.
fn certificate(section: &[u8]) -> Result<Vec<u8>, MeasureError> {
    let wrong =
        || malformed("signature", "CBOR with the PEM of `signing_certificate`", "something else".into());
    let value: Value =
        ciborium::de::from_reader_with_recursion_limit(section, MAX_DEPTH).map_err(|_| wrong())?;
    let first = value.as_array().and_then(|all| all.first()).and_then(Value::as_map).ok_or_else(wrong)?;
    let named = |(key, _): &&(Value, Value)| key.as_text() == Some("signing_certificate");
    let (_, found) = first.iter().find(named).ok_or_else(wrong)?;
    // The writer of images makes an array of numbers of the certificate.
    let numbers = || {
        let byte = |number: &Value| u8::try_from(number.as_integer()?).ok();
        found.as_array()?.iter().map(byte).collect::<Option<Vec<u8>>>()
    };
    let pem = found.as_bytes().cloned().or_else(numbers).and_then(|pem| String::from_utf8(pem).ok());
    let pem = pem.ok_or_else(wrong)?;
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----").ok_or_else(wrong)?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----").ok_or_else(wrong)?;
    Base64::decode_vec(&body.split_whitespace().collect::<String>()).map_err(|_| wrong())
}

/// A register that holds zeros and is extended once, by the hash of what was measured.
fn extended(measured: Sha384) -> Hex<48> {
    Hex(Sha384::new_with_prefix([0; 48]).chain_update(measured.finalize()).finalize().into())
}

fn malformed(what: &'static str, expected: &str, found: String) -> MeasureError {
    MeasureError::Malformed { file: "enclave image (EIF)", what, expected: expected.into(), found }
}

/// How many bytes come before the first section.
const HEADER: usize = 548;
const KERNEL: u16 = 1;
const COMMAND_LINE: u16 = 2;
const RAM_DISK: u16 = 3;
const SIGNATURE: u16 = 4;
const METADATA: u16 = 5;
const MAX_DEPTH: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// An image that `EifBuilder` of the crate aws-nitro-enclaves-image-format 0.8.1 wrote, and what that measured.
    fn vector(name: &str) -> (Vec<u8>, serde_json::Value) {
        let path = |end: &str| format!("{}/../../vectors/eif/{name}.{end}", env!("CARGO_MANIFEST_DIR"));
        let found = std::fs::read_to_string(path("json")).unwrap();
        (std::fs::read(path("eif")).unwrap(), serde_json::from_str(&found).unwrap())
    }

    #[test]
    fn registers_are_those_of_amazons_own_builder() {
        for name in ["plain", "signed"] {
            let (image, expected) = vector(name);
            let found = registers(&image).unwrap();
            for (pcr, found) in [("PCR0", &found.pcr0), ("PCR1", &found.pcr1), ("PCR2", &found.pcr2)] {
                assert_eq!(found.to_string(), expected[pcr].as_str().unwrap(), "{name} {pcr}");
            }
            assert_eq!(found.pcr8.map(|pcr| pcr.to_string()).as_deref(), expected["PCR8"].as_str(), "{name}");
        }
    }

    #[test]
    fn any_other_bytes_are_refused_or_measured_as_others() {
        let (image, _) = vector("signed");
        let good = registers(&image).unwrap();
        for len in 0..image.len() {
            assert!(registers(&image[..len]).map_or(true, |found| found != good), "{len}");
        }
        assert!(registers(&[&image[..], b"more"].concat()).is_err());
        assert!(registers(&[&image[..HEADER], &[0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]].concat()).is_err());
        // The kernel's bytes are in two registers.
        let mut other = image.clone();
        other[HEADER + 12 + 3] ^= 1;
        let other = registers(&other).unwrap();
        assert!(other.pcr0 != good.pcr0 && other.pcr1 != good.pcr1 && other.pcr2 == good.pcr2);
    }
}
