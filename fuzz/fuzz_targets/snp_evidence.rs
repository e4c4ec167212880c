#![no_main]

use confonnx_attest::{Document, Evidence, UnixTime};
use libfuzzer_sys::fuzz_target;

const NOW: UnixTime = UnixTime(1_767_225_600);
const REPORT_BYTES: usize = 1184;

// The input is a report, then each endorsement: two bytes of length, and DER. The input may end anywhere. A length of 0 leaves an
// endorsement out.
fuzz_target!(|input: &[u8]| {
    let (report, mut rest) = input.split_at(input.len().min(REPORT_BYTES));
    let mut endorsements = serde_json::Map::new();
    for member in ["vcek", "vlek", "ask", "asvk", "crl"] {
        let Some((len, after)) = rest.split_first_chunk() else { break };
        let (der, after) = after.split_at(after.len().min(usize::from(u16::from_be_bytes(*len))));
        if !der.is_empty() {
            endorsements.insert(member.into(), base64(der).into());
        }
        rest = after;
    }
    let Ok(evidence) = Evidence::parse("snp", report, &endorsements) else { return };
    let _ = evidence.collateral_requests();
    let document = Document::new(Vec::new(), Vec::new(), evidence, [0; 32], None);
    assert!(Document::parse(&document.to_json()).expect("what is written can be read") == document);
    // The evidence binds nothing of this document, so it never verifies.
    assert!(document.verify(None, NOW).is_err());
});

/// base64url without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}
