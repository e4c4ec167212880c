//! MRENCLAVE as Gramine's build computed it: passed on, not recomputed.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::image::MeasureError;
use crate::{Digest, EnclaveInfo, Hex, Tee};

/// The enclave's info, from the `.sig` file that `gramine-sgx-sign` writes, a SIGSTRUCT (Intel SDM volume 3D, section
/// 37.14), or from what `gramine-sgx-sigstruct-view --output-format json` prints of it.
pub fn enclave_info(file: &[u8]) -> Result<EnclaveInfo, MeasureError> {
    let signed = if file.len() == SIGSTRUCT { from_sigstruct(file)? } else { from_json(file)? };
    let Signed { mr_enclave, mr_signer, isv_prod_id, isv_svn, debug_enclave } = signed;
    let details = [
        ("mrsigner", mr_signer.to_string().into()),
        ("isv_prod_id", isv_prod_id.into()),
        ("isv_svn", isv_svn.into()),
        ("debug", debug_enclave.into()),
    ];
    Ok(EnclaveInfo {
        tee: Some(Tee::Sgx),
        enclave_hash: mr_enclave.into(),
        mrenclave: Some(mr_enclave),
        details: details.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    })
}

#[derive(Deserialize)]
struct Signed {
    mr_enclave: Digest,
    mr_signer: Hex<32>,
    isv_prod_id: u16,
    isv_svn: u16,
    debug_enclave: bool,
}

fn from_sigstruct(bytes: &[u8]) -> Result<Signed, MeasureError> {
    let header = field::<16>(bytes, 0)?;
    if header != HEADER {
        return Err(malformed("header", "that of a SIGSTRUCT (06000000e1000000…)", Hex(header)));
    }
    let modulus = field::<384>(bytes, 128)?;
    let attributes = u64::from_le_bytes(field(bytes, 928)?);
    Ok(Signed {
        mr_enclave: Digest(field(bytes, 960)?),
        mr_signer: Hex(Sha256::digest(modulus).into()),
        isv_prod_id: u16::from_le_bytes(field(bytes, 1024)?),
        isv_svn: u16::from_le_bytes(field(bytes, 1026)?),
        debug_enclave: attributes & DEBUG != 0,
    })
}

fn from_json(text: &[u8]) -> Result<Signed, MeasureError> {
    let expected = "a SIGSTRUCT of 1808 bytes, or the JSON of gramine-sgx-sigstruct-view";
    crate::json::from_slice(text)
        .map_err(|err| malformed("content", expected, format!("{} bytes: {err}", text.len())))
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], MeasureError> {
    let field = bytes.get(offset..).and_then(|rest| rest.first_chunk());
    field.copied().ok_or_else(|| malformed("length", "1808 bytes", bytes.len()))
}

fn malformed(what: &'static str, expected: &str, found: impl ToString) -> MeasureError {
    MeasureError::Malformed { file: "SIGSTRUCT", what, expected: expected.into(), found: found.to_string() }
}

/// How many bytes a SIGSTRUCT has.
const SIGSTRUCT: usize = 1808;
const HEADER: [u8; 16] = *b"\x06\0\0\0\xe1\0\0\0\0\0\x01\0\0\0\0\0";
/// The bit DEBUG of ATTRIBUTES.
const DEBUG: u64 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn sigstruct() -> Vec<u8> {
        let mut bytes = vec![0; SIGSTRUCT];
        bytes[..16].copy_from_slice(&HEADER);
        bytes[128..512].fill(0xaa);
        bytes[928] = 0x06;
        bytes[960..992].fill(0xe1);
        bytes[1024] = 3;
        bytes[1027] = 1;
        bytes
    }

    #[test]
    fn both_forms_say_the_same() {
        let binary = enclave_info(&sigstruct()).unwrap();
        assert_eq!(binary.mrenclave, Some(Digest([0xe1; 32])));
        assert_eq!(binary.enclave_hash, Digest([0xe1; 32]).into());
        let mr_signer = Hex::<32>(Sha256::digest([0xaa; 384]).into());
        let json = format!(
            r#"{{"mr_signer": "{mr_signer}", "mr_enclave": "{}", "isv_prod_id": 3, "isv_svn": 256, "debug_enclave": true}}"#,
            "e1".repeat(32)
        );
        assert_eq!(enclave_info(json.as_bytes()).unwrap(), binary);
    }

    #[test]
    fn other_files_are_refused() {
        let error = |file: &[u8]| enclave_info(file).unwrap_err().to_string();
        let mut other = sigstruct();
        other[4] = 0;
        assert!(error(&other).contains("header: expected that of a SIGSTRUCT"));
        assert!(error(&sigstruct()[..1807]).contains("expected a SIGSTRUCT of 1808 bytes"));
        assert!(error(b"{}").contains("missing field `mr_enclave`"), "{}", error(b"{}"));
    }
}
