//! Quotes of a TPM, read as they were made by other software.

use super::*;
use crate::contract::Section as _;

#[cfg(feature = "produce")]
pub(crate) mod emulator;
#[cfg(feature = "produce")]
mod live;
mod made;

const NOW: UnixTime = UnixTime(1_795_426_200);

const NAMES: Names = Names { signature: "signature", data: "report data" };

fn vector(name: &str) -> Vec<u8> {
    let path = format!("{}/../../vectors/evidence/tpm/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|err| panic!("{path}: {err}"))
}

/// A quote by tpm2-tools over PCRs 0-5, 7 and 11, with what it was made for.
struct Sample {
    message: Vec<u8>,
    signature: Vec<u8>,
    ak: AkPublic,
    data: Vec<u8>,
    pcrs: Pcrs,
}

impl Sample {
    fn new() -> Self {
        let pem = String::from_utf8(vector("ak.pub")).unwrap();
        let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let spki = base64ct::Base64::decode_vec(&body).unwrap();
        Self {
            message: vector("q.msg"),
            signature: vector("q.sig"),
            ak: AkPublic::from_spki(&spki).unwrap(),
            data: Sha256::digest("nonce-channelkeyhash").to_vec(),
            pcrs: tools_pcrs(&vector("q.pcrs"), &[0, 1, 2, 3, 4, 5, 7, 11]),
        }
    }

    fn verdict(&self) -> Result<(Option<Quoted>, Verdict), QuoteError> {
        let mut verdict = Verdict::default();
        let quote = Quote::parse(&self.message, &self.signature)?;
        let quoted = quote.verify(&self.ak, &self.data, &self.pcrs, NAMES, &mut verdict);
        assert_eq!(quoted.is_some(), verdict.passes(), "{verdict}");
        Ok((quoted, verdict))
    }

    fn failed(&self) -> Vec<&'static str> {
        self.verdict().unwrap().1.failed().map(|check| check.name).collect()
    }
}

/// The values in a file of tpm2-tools, which has the memory layout of C: a selection (132 bytes), the number of lists,
/// the lists: each a number of digests and room for 8, each of a length and 64 bytes.
fn tools_pcrs(file: &[u8], indices: &[u8]) -> Pcrs {
    let digests = file[136..].chunks_exact(4 + 8 * 66).flat_map(|list| list[4..].chunks_exact(66));
    let value = |(digest, &index): (&[u8], &u8)| (index, digest[2..34].try_into().unwrap());
    Pcrs(digests.zip(indices).map(value).collect())
}

fn verified(evidence: &Evidence, report_data: &[u8; 64]) -> (Option<Measured<Facts>>, Verdict) {
    let mut verdict = Verdict::default();
    let measured = evidence.verify(report_data, NOW, &mut verdict);
    (measured, verdict)
}

fn policy(toml: &str) -> Policy {
    toml::from_str(toml).unwrap()
}

impl Policy {
    /// Mark and name of the checks that do not pass.
    fn failures(&self, measured: &Measured<Facts>) -> Vec<String> {
        let facts = &measured.facts;
        let mut verdict = Verdict::default();
        self.check(facts, &measured.enclave_hash, &mut verdict);
        verdict.failed().map(|check| format!("{} {}", check.outcome.mark(), check.name)).collect()
    }
}

#[test]
fn a_quote_by_tpm2_tools_verifies() {
    let (quoted, verdict) = Sample::new().verdict().unwrap();
    assert_eq!(quoted.unwrap().firmware_version, 0x2019_1023_0016_3636, "{verdict}");
    assert_eq!(verdict.checks.len(), 4);
}

#[test]
fn evidence_of_our_own_is_read_as_before() {
    let evidence = Evidence::parse(&vector("evidence.json"), &Map::new()).unwrap();
    assert_eq!(evidence.report(), vector("evidence.json"));
    let (measured, verdict) = verified(&evidence, &[0x5a; 64]);
    assert!(verdict.passes(), "{verdict}");
    let measured = measured.unwrap();
    let enclave_hash = "8c2c0eb73d8033a67c280e6a1be163d13d5babe93cf94b1baffa67670d7555b2";
    assert_eq!(measured.enclave_hash.to_string(), enclave_hash);
    let ak = "b1624700f3c2cf341839331e6373c6ba0416d2680a2afff85c278363c53d0990";
    let policy =
        policy(&format!("aks = [\"{ak}\"]\nmeasurements = [\"{enclave_hash}\"]\nsecure_boot = true"));
    assert!(policy.failures(&measured).is_empty());
}

#[test]
fn each_part_of_a_quote_is_checked() {
    let mut sample = Sample::new();
    sample.data[0] ^= 1;
    assert_eq!(sample.failed(), ["report data"]);
    let mut sample = Sample::new();
    sample.pcrs.0.get_mut(&11).unwrap()[31] ^= 1;
    assert_eq!(sample.failed(), ["pcr digest"]);
    // The quote's digest does not say of which PCRs it is: the same values under other indices.
    let mut sample = Sample::new();
    let value = sample.pcrs.0.remove(&11).unwrap();
    sample.pcrs.0.insert(16, value);
    assert_eq!(sample.failed(), ["pcr selection"]);
    let mut sample = Sample::new();
    *sample.signature.last_mut().unwrap() ^= 1;
    assert_eq!(sample.failed(), ["signature"]);
    let mut sample = Sample::new();
    sample.ak = AkPublic::from_rsa(&[0xff; 256], &[1, 0, 1]).unwrap();
    assert_eq!(sample.failed(), ["signature"]);
}

#[test]
fn no_flipped_bit_of_a_quote_or_its_signature_verifies() {
    let good = Sample::new();
    assert!(good.verdict().unwrap().0.is_some());
    let mut parsed = 0;
    for (len, part) in [(good.message.len(), 0), (good.signature.len(), 1)] {
        for (byte, bit) in (0..len).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
            let mut bad = Sample::new();
            let bytes = if part == 0 { &mut bad.message } else { &mut bad.signature };
            bytes[byte] ^= 1 << bit;
            if let Ok((quoted, verdict)) = bad.verdict() {
                parsed += 1;
                assert!(quoted.is_none(), "byte {byte} of part {part}, bit {bit}: {verdict}");
            }
        }
    }
    assert!(parsed > 1000, "only {parsed} of the flipped ones were readable at all");
}

#[test]
fn structures_are_exact() {
    let good = Sample::new();
    for len in 0..good.message.len() {
        assert!(Quote::parse(&good.message[..len], &good.signature).is_err(), "{len}");
    }
    for len in 0..good.signature.len() {
        assert!(Quote::parse(&good.message, &good.signature[..len]).is_err(), "{len}");
    }
    let longer = [good.message.as_slice(), &[0]].concat();
    let trailing = WireError::Trailing { found: 1 };
    assert_eq!(Quote::parse(&longer, &good.signature), Err(QuoteError::Attest(trailing)));
}

#[test]
fn indices_are_written_as_ranges() {
    assert_eq!(list(&[0, 1, 2, 4, 7, 8, 11]), "0-2, 4, 7-8, 11");
    assert_eq!(list(&[]), "");
}

/// The evidence was made with `swtpm` for a challenge of its own. Its key is RSA and comes without description, so this
/// shows that the quote is sound, and not whose it is.
#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_quote_in_the_evidence_of_another_project_verifies() {
    let file = crate::testing::shared("tpm/trustee_tpm_evidence.json");
    let file: Value = serde_json::from_slice(&file).unwrap();
    let bytes = |value: &Value| base64ct::Base64::decode_vec(value.as_str().unwrap()).unwrap();
    let quoted = &file["tpm_quote"];
    let pcr = |(index, value): (usize, &Value)| {
        (u8::try_from(index).unwrap(), value.as_str().unwrap().parse::<crate::Hex<32>>().unwrap().0)
    };
    let sample = Sample {
        message: bytes(&quoted["message"]),
        signature: bytes(&quoted["signature"]),
        ak: AkPublic::from_spki(&bytes(&file["ak_public"])).unwrap(),
        data: bytes(&quoted["message"])[44..108].to_vec(),
        pcrs: Pcrs(quoted["pcrs"].as_array().unwrap().iter().enumerate().map(pcr).collect()),
    };
    let (quoted, verdict) = sample.verdict().unwrap();
    assert!(quoted.is_some(), "{verdict}");
}

proptest::proptest! {
    #[test]
    fn whatever_is_read_is_written_the_same(len in 0_usize..150, bytes in proptest::collection::vec(0_u8.., 0..200)) {
        // Arbitrary bytes in place of the end of good ones, so that parsing gets somewhere.
        let good = Sample::new();
        let message = [&good.message[..len.min(good.message.len())], &bytes].concat();
        if let Ok(quote) = Quote::parse(&message, &good.signature) {
            assert_eq!((quote.message(), quote.signature()), (&message[..], &good.signature[..]));
        }
        let signature = [&good.signature[..len.min(good.signature.len())], &bytes].concat();
        let _ = Quote::parse(&good.message, &signature);
        let area = Evidence::parse(&vector("evidence.json"), &Map::new()).unwrap().ak.tpmt().unwrap().to_vec();
        let area = [&area[..len.min(area.len())], &bytes].concat();
        if let Ok(ak) = AkPublic::from_tpmt(&area) {
            assert_eq!(ak.tpmt(), Some(&area[..]));
        }
        let _ = Evidence::parse(&bytes, &Map::new());
    }
}
