//! Evidence whose processor's report is under a test root, and whose quote is a real one.

use serde_json::json;

use super::*;
use crate::Outcome::{self, Failed, Undecided};
use crate::contract::Section as _;
use crate::tpm::AkPublic;
use crate::x509::Certificate;

mod real;

/// An instant at which the made report is valid.
const NOW: UnixTime = UnixTime(1_795_426_200);
/// What the real quote carries.
const CHALLENGE: &[u8] = b"challenge";
const QUOTE: &[u8] = include_bytes!("../../../../vectors/evidence/azure/quote.bin");
const AK: &str = include_str!("../../../../vectors/evidence/azure/akpub.pem");

/// The parts of a quote as others write them.
struct Parts {
    signature: Vec<u8>,
    message: Vec<u8>,
    pcrs: Vec<Vec<u8>>,
}

impl Parts {
    /// `az-cvm-vtpm`'s encoding: lengths of 8 bytes, little-endian, before signature, message, PCRs and each of them.
    fn from_bincode(mut bytes: &[u8]) -> Self {
        fn length(bytes: &mut &[u8]) -> usize {
            let (length, rest) = bytes.split_first_chunk().unwrap();
            *bytes = rest;
            usize::try_from(u64::from_le_bytes(*length)).unwrap()
        }
        fn take(bytes: &mut &[u8], length: usize) -> Vec<u8> {
            let (taken, rest) = bytes.split_at(length);
            *bytes = rest;
            taken.to_vec()
        }
        let len = length(&mut bytes);
        let signature = take(&mut bytes, len);
        let len = length(&mut bytes);
        let message = take(&mut bytes, len);
        let count = length(&mut bytes);
        let pcrs = (0..count).map(|_| take(&mut bytes, 32)).collect();
        assert_eq!(bytes, [0_u8; 0]);
        Self { signature, message, pcrs }
    }

    /// The signature, before which az-cvm-vtpm leaves out what a TPMT_SIGNATURE says: RSASSA, SHA-256, 256 bytes.
    fn tpmt_signature(&self) -> Vec<u8> {
        [&[0, 0x14, 0, 0x0b, 1, 0], &self.signature[..]].concat()
    }
}

/// How evidence is made; good unless changed.
struct Made {
    runtime_data: Value,
    /// What the processor's report has in the second half of its report data.
    rest: [u8; 32],
    edit: fn(&mut Value),
}

impl Made {
    fn new() -> Self {
        let ak = key();
        let vm = json!({
            "console-enabled": false, "secure-boot": true, "tpm-enabled": true, "vmUniqueId": "A-VM"
        });
        Self { runtime_data: json!({ "keys": [ak], "vm-configuration": vm }), rest: [0; 32], edit: |_| {} }
    }

    fn with(edit: fn(&mut Value)) -> Self {
        Self { edit, ..Self::new() }
    }

    /// The roots, the report's JSON, and the endorsements.
    fn wire(&self) -> (snp::Roots, Value, Map<String, Value>) {
        let runtime_data = self.runtime_data.to_string();
        let bound = [&Sha256::digest(&runtime_data)[..], &self.rest].concat().try_into().unwrap();
        let (roots, hardware) = snp::tests::evidence_for(bound);
        let quote = Parts::from_bincode(QUOTE);
        let base64 = Base64UrlUnpadded::encode_string;
        let mut report = json!({
            "hardware": "snp",
            "hardware_report": base64(&hardware.report()),
            "runtime_data": base64(runtime_data.as_bytes()),
            "quote": base64(&quote.message),
            "signature": base64(&quote.tpmt_signature()),
            "pcrs": quote.pcrs.iter().map(|value| base64(value)).collect::<Vec<_>>(),
        });
        (self.edit)(&mut report);
        (roots, report, hardware.endorsements())
    }

    fn verify(&self) -> (Verdict, Option<Measured<Facts>>) {
        let (roots, report, endorsements) = self.wire();
        let evidence = Evidence::parse(report.to_string().as_bytes(), &endorsements).unwrap();
        let mut verdict = Verdict::default();
        let measured = evidence.verify_with(&roots, CHALLENGE, NOW, &mut verdict);
        (verdict, measured)
    }

    fn failures(&self) -> Vec<(&'static str, Outcome)> {
        bad(&self.verify().0)
    }

    fn parse_error(&self) -> String {
        let (_, report, endorsements) = self.wire();
        Evidence::parse(report.to_string().as_bytes(), &endorsements).unwrap_err().to_string()
    }
}

/// The key of the real quote, as runtime data has keys.
fn key() -> Value {
    let body: String = AK.lines().filter(|line| !line.starts_with("---")).collect();
    jwk(&base64ct::Base64::decode_vec(&body).unwrap())
}

/// The attestation key of a SubjectPublicKeyInfo (RSA, 2048 bits), as runtime data has keys.
pub(super) fn jwk(der: &[u8]) -> Value {
    // The DER ends with the modulus and the exponent 65537.
    let modulus = &der[der.len() - 5 - 256..der.len() - 5];
    json!({
        "kid": "HCLAkPub", "key_ops": ["sign"], "kty": "RSA", "e": "AQAB",
        "n": Base64UrlUnpadded::encode_string(modulus),
    })
}

fn bad(verdict: &Verdict) -> Vec<(&'static str, Outcome)> {
    verdict.failed().map(|check| (check.name, check.outcome)).collect()
}

#[test]
fn evidence_from_processor_to_pcrs_is_genuine() {
    let (verdict, measured) = Made::new().verify();
    assert!(verdict.passes(), "{verdict}");
    let expected =
        ["runtime data", "signature", "quote signature", "report data", "pcr selection", "pcr digest"];
    for name in expected {
        assert_eq!(verdict.check(name).unwrap().outcome, Outcome::Passed, "{name}");
    }
    let measured = measured.unwrap();
    let pcrs = Parts::from_bincode(QUOTE).pcrs;
    let chosen: Vec<u8> = BOOT_PCRS.iter().flat_map(|&index| pcrs[usize::from(index)].clone()).collect();
    assert_eq!(measured.enclave_hash.as_bytes(), &Sha256::digest(chosen)[..]);
    assert!(!measured.debug);
    let facts = &measured.facts;
    assert_eq!(facts.hardware.enclave_hash().as_bytes(), [0x3e; 48]);
    assert_eq!(facts.vm.vm_unique_id.as_deref(), Some("A-VM"));
}

#[test]
fn evidence_comes_back_as_it_was() {
    let (_, report, endorsements) = Made::new().wire();
    let bytes = serde_json::to_vec(&report).unwrap();
    let evidence = Evidence::parse(&bytes, &endorsements).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&evidence.report()).unwrap(), report);
    assert_eq!(evidence.endorsements(), endorsements);
    let Hardware::Snp(hardware) = &evidence.hardware else { panic!("evidence of snp") };
    assert_eq!(evidence.collateral_requests(), hardware.collateral_requests());
}

#[test]
fn the_processor_vouches_for_exactly_this_runtime_data() {
    let other = Made::with(|report| {
        let mut runtime = Made::new().runtime_data;
        runtime["vm-configuration"]["vmUniqueId"] = json!("ANOTHER-VM");
        report["runtime_data"] = Base64UrlUnpadded::encode_string(runtime.to_string().as_bytes()).into();
    });
    assert_eq!(other.failures(), [("runtime data", Failed)]);
    let mut rest = [0; 32];
    rest[31] = 1;
    assert_eq!(Made { rest, ..Made::new() }.failures(), [("runtime data", Failed)]);
}

#[test]
fn the_key_of_the_runtime_data_signs_the_quote() {
    let mut made = Made::new();
    let modulus = made.runtime_data["keys"][0]["n"].as_str().unwrap().replacen('q', "r", 1);
    made.runtime_data["keys"][0]["n"] = modulus.into();
    assert_eq!(made.failures(), [("quote signature", Failed)]);
    assert!(made.verify().1.is_none());
}

#[test]
fn the_quote_is_over_our_data_and_these_pcrs() {
    let (roots, report, endorsements) = Made::new().wire();
    let evidence = Evidence::parse(report.to_string().as_bytes(), &endorsements).unwrap();
    let mut verdict = Verdict::default();
    evidence.verify_with(&roots, b"challengf", NOW, &mut verdict);
    assert_eq!(bad(&verdict), [("report data", Failed)]);
    // A document's quote carries the hash of the report data.
    let mut verdict = Verdict::default();
    evidence.verify(&[7; 64], NOW, &mut verdict);
    let expected = crate::digest::encode(&Sha256::digest([7; 64]));
    assert_eq!(verdict.check("report data").unwrap().expected, expected);
    let swapped = Made::with(|report| {
        let pcrs = report["pcrs"].as_array_mut().unwrap();
        pcrs.swap(0, 1);
    });
    assert_eq!(swapped.failures(), [("pcr digest", Failed)]);
}

#[test]
fn without_endorsements_the_processor_is_undecided() {
    let (roots, report, _) = Made::new().wire();
    let evidence = Evidence::parse(report.to_string().as_bytes(), &Map::new()).unwrap();
    let mut verdict = Verdict::default();
    evidence.verify_with(&roots, CHALLENGE, NOW, &mut verdict);
    assert!(verdict.is_undecided(), "{verdict}");
    assert!(bad(&verdict).contains(&("signature", Undecided)));
}

#[test]
fn malformed_reports_say_what_is_wrong() {
    type Edit = fn(&mut Value);
    let cases: [(Edit, &str); 9] = [
        (|report| report["hardware"] = json!("sgx"), "unknown variant `sgx`"),
        (|report| report["more"] = json!(1), "unknown field `more`"),
        (|report| drop(report.as_object_mut().unwrap().remove("quote")), "missing field `quote`"),
        (|report| report["quote"] = json!("AA=="), "quote is not base64url"),
        (|report| report["quote"] = json!("AAAA"), "not a quote"),
        (|report| report["signature"] = json!("AAAA"), "not a quote's signature"),
        (|report| report["runtime_data"] = json!("e30"), "runtime_data: missing field"),
        (
            |report| report["hardware_report"] = json!("AAAA"),
            "hardware_report: expected a report of 1184 bytes",
        ),
        (|report| drop(report["pcrs"].as_array_mut().unwrap().pop()), "pcrs: expected 24 values"),
    ];
    for (edit, expected) in cases {
        let found = Made::with(edit).parse_error();
        assert!(found.contains(expected), "expected `{expected}`, found `{found}`");
    }
    let short = Made::with(|report| report["pcrs"][3] = json!("AAAA")).parse_error();
    assert!(short.contains("pcrs: expected 24 values of 32 bytes"), "{short}");
}

#[test]
fn a_quote_over_too_few_pcrs_has_no_enclave_hash() {
    // The real quote covers all PCRs; of a made one only the form matters here.
    let few = Made::with(|report| {
        let mut quote = Base64UrlUnpadded::decode_vec(report["quote"].as_str().unwrap()).unwrap();
        let at = quote.windows(4).position(|window| window == [3, 0xff, 0xff, 0xff]).unwrap();
        quote[at + 1] = 0xfe;
        report["quote"] = Base64UrlUnpadded::encode_string(&quote).into();
        drop(report["pcrs"].as_array_mut().unwrap().remove(0));
    });
    let (verdict, measured) = few.verify();
    let expected = [("quote signature", Failed), ("pcr digest", Failed), ("boot pcrs", Failed)];
    assert_eq!(bad(&verdict), expected);
    assert!(measured.is_none());
}

#[test]
fn names_of_checks_are_unique() {
    let (mut verdict, measured) = Made::new().verify();
    let measured = measured.unwrap();
    let facts = &measured.facts;
    Policy::strict().check(facts, &measured.enclave_hash, &mut verdict);
    let mut names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "{verdict}");
}

/// Flips one bit of each byte of the report's JSON, a different one from byte to byte.
#[test]
fn no_report_with_a_flipped_bit_is_genuine() {
    let (roots, report, endorsements) = Made::new().wire();
    let report = serde_json::to_vec(&report).unwrap();
    let genuine = |report: &[u8]| {
        Evidence::parse(report, &endorsements).is_ok_and(|evidence| {
            let mut verdict = Verdict::default();
            evidence.verify_with(&roots, CHALLENGE, NOW, &mut verdict);
            verdict.passes()
        })
    };
    // The quote is cheap to check, the processor's chain is not. So the whole verification is run on what the quote
    // does not refuse already, and on every eighth byte.
    let refused_early = |report: &[u8]| {
        Evidence::parse(report, &endorsements).is_ok_and(|evidence| {
            let names = Names { signature: "quote signature", data: "report data" };
            let mut verdict = Verdict::default();
            let Evidence { quote, runtime_data, pcrs, .. } = &evidence;
            quote.verify(&runtime_data.ak, CHALLENGE, pcrs, names, &mut verdict).is_none()
        })
    };
    assert!(genuine(&report) && !refused_early(&report), "untouched");
    for position in 0..report.len() {
        let mut flipped = report.clone();
        flipped[position] ^= 1 << (position % 8);
        if !position.is_multiple_of(8) && refused_early(&flipped) {
            continue;
        }
        assert!(!genuine(&flipped), "byte {position}");
    }
}
