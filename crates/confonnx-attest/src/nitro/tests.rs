use ciborium::Value as Cbor;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

use super::*;
use crate::Outcome;

mod real;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An instant at which everything a [`Made`] document needs is valid.
pub(super) const NOW: UnixTime = UnixTime(1_795_426_200);
pub(super) const REPORT_DATA: [u8; 64] = [0x5a; 64];

/// How a document is made; as the hypervisor does unless changed.
pub(super) struct Made {
    root: Issuer,
    /// Path length constraints of the authorities below the root, the first signed by it.
    authorities: Vec<Option<u8>>,
    authority_usage: KeyUsagePurpose,
    /// Whether the last authority's key also signs the document, under an authority's certificate.
    leaf_is_ca: IsCa,
    leaf_usages: Vec<KeyUsagePurpose>,
    leaf_algorithm: &'static rcgen::SignatureAlgorithm,
    leaf_until: (i32, u8, u8),
    timestamp: UnixTime,
    pcrs: Vec<(u8, u8)>,
    user_data: Option<Vec<u8>>,
    edit_bundle: fn(&mut Vec<Vec<u8>>),
    edit_payload: fn(&mut Vec<u8>),
}

impl Made {
    pub(super) fn new() -> Self {
        Self {
            root: root(),
            authorities: vec![Some(2), Some(1), Some(0)],
            authority_usage: KeyUsagePurpose::KeyCertSign,
            leaf_is_ca: IsCa::ExplicitNoCa,
            leaf_usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment],
            leaf_algorithm: &PKCS_ECDSA_P384_SHA384,
            leaf_until: (2026, 12, 31),
            timestamp: UnixTime(NOW.0 - 10),
            pcrs: (0..16).map(|i| (i, if i == 8 { 0 } else { i + 1 })).collect(),
            user_data: Some(REPORT_DATA.to_vec()),
            edit_bundle: |_| {},
            edit_payload: |_| {},
        }
    }

    pub(super) fn report(&self) -> Vec<u8> {
        let mut bundle = vec![self.root.der().to_vec()];
        let mut last: Option<Issuer> = None;
        for (i, &path_len) in self.authorities.iter().enumerate() {
            let params = authority(&format!("authority {i}"), path_len, self.authority_usage);
            let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
            let issuer =
                CertifiedIssuer::signed_by(params, key, last.as_ref().unwrap_or(&self.root)).unwrap();
            bundle.push(issuer.der().to_vec());
            last = Some(issuer);
        }
        let key = KeyPair::generate_for(self.leaf_algorithm).unwrap();
        let mut params = named("an enclave");
        params.is_ca = self.leaf_is_ca;
        params.key_usages = self.leaf_usages.clone();
        let (year, month, day) = self.leaf_until;
        params.not_after = date_time_ymd(year, month, day);
        let leaf = params.signed_by(&key, last.as_ref().unwrap_or(&self.root)).unwrap();
        (self.edit_bundle)(&mut bundle);
        let payload = self.payload(leaf.der(), &bundle);
        self.sign(&key, payload)
    }

    fn payload(&self, leaf: &[u8], bundle: &[Vec<u8>]) -> Vec<u8> {
        let pcrs = self.pcrs.iter().map(|&(i, byte)| (Cbor::from(i), Cbor::Bytes(vec![byte; 48])));
        let user_data = self.user_data.clone().map_or(Cbor::Null, Cbor::Bytes);
        let members = vec![
            ("module_id".into(), "i-0-enc0".into()),
            ("digest".into(), "SHA384".into()),
            ("timestamp".into(), Cbor::from(self.timestamp.0 * 1000)),
            ("pcrs".into(), Cbor::Map(pcrs.collect())),
            ("certificate".into(), Cbor::Bytes(leaf.to_vec())),
            ("cabundle".into(), Cbor::Array(bundle.iter().cloned().map(Cbor::Bytes).collect())),
            ("public_key".into(), Cbor::Null),
            ("user_data".into(), user_data),
            ("nonce".into(), Cbor::Null),
        ];
        encode_cbor(&Cbor::Map(members))
    }

    fn sign(&self, key: &KeyPair, mut payload: Vec<u8>) -> Vec<u8> {
        let header = Cbor::Bytes(vec![0xa1, 0x01, 0x38, 0x22]);
        let signed =
            vec!["Signature1".into(), header.clone(), Cbor::Bytes(vec![]), Cbor::Bytes(payload.clone())];
        let signed = encode_cbor(&Cbor::Array(signed));
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key.serialize_der(), &random);
        // A key on another curve signs nothing here; the document then has a signature of the right length at least.
        let signature =
            pair.map_or(vec![1; 96], |pair| pair.sign(&random, &signed).unwrap().as_ref().to_vec());
        (self.edit_payload)(&mut payload);
        encode_cbor(&Cbor::Array(vec![
            header,
            Cbor::Map(vec![]),
            Cbor::Bytes(payload),
            Cbor::Bytes(signature),
        ]))
    }

    /// The root's certificate.
    pub(super) fn root(&self) -> &[u8] {
        self.root.der()
    }

    fn evidence(&self) -> Evidence {
        Evidence::parse(&self.report(), &Map::new()).unwrap()
    }

    fn verdict_at(&self, now: UnixTime) -> Verdict {
        let mut verdict = Verdict::default();
        self.evidence().verify_with(self.root.der(), &REPORT_DATA, now, &mut verdict);
        verdict
    }

    fn verdict(&self) -> Verdict {
        self.verdict_at(NOW)
    }

    fn measured(&self) -> Measured<Facts> {
        self.evidence().verify_with(self.root.der(), &REPORT_DATA, NOW, &mut Verdict::default())
    }
}

fn root() -> Issuer {
    let params = authority("a test root", None, KeyUsagePurpose::KeyCertSign);
    CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()).unwrap()
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2026, 11, 1);
    params.not_after = date_time_ymd(2027, 1, 31);
    params
}

fn authority(name: &str, path_len: Option<u8>, usage: KeyUsagePurpose) -> CertificateParams {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![usage];
    params
}

pub(super) fn encode_cbor(value: &Cbor) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

/// Names and outcomes of what did not pass.
fn bad(verdict: &Verdict) -> Vec<(&'static str, Outcome)> {
    verdict.failed().map(|check| (check.name, check.outcome)).collect()
}

/// Asserts that `change` makes the `expected` checks fail, and no other.
fn refused(change: impl FnOnce(&mut Made), expected: &[(&'static str, Outcome)], found: &str) {
    let mut made = Made::new();
    change(&mut made);
    let verdict = made.verdict();
    assert_eq!(bad(&verdict), expected, "{verdict}");
    assert!(verdict.to_string().contains(found), "`{found}` is not in\n{verdict}");
}

#[test]
fn a_document_as_the_hypervisor_makes_it_is_genuine() {
    let verdict = Made::new().verdict();
    assert!(verdict.passes(), "{verdict}");
    let names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
    let expected = [
        "signature",
        "root",
        "chain",
        "chain validity",
        "document time",
        "report data",
        "module",
        "document nonce",
        "public key",
    ];
    assert_eq!(names, expected);
    let chain = "an enclave ← authority 2 ← authority 1 ← authority 0 ← a test root";
    assert_eq!(verdict.check("chain").unwrap().found, chain);
    // Shorter chains are fine too, as long as they end at the root.
    let short = Made { authorities: Vec::new(), ..Made::new() };
    assert!(short.verdict().passes(), "{}", short.verdict());
}

#[test]
fn evidence_comes_back_as_it_was() {
    let report = Made::new().report();
    let endorsements = [("more".to_owned(), Value::Null)].into_iter().collect();
    let evidence = Evidence::parse(&report, &endorsements).unwrap();
    assert_eq!((evidence.report(), evidence.endorsements()), (report, Map::new()));
    assert!(evidence.collateral_requests().is_empty());
}

#[test]
fn roots_are_compared_byte_by_byte() {
    let made = Made::new();
    let mut verdict = Verdict::default();
    made.evidence().verify(&REPORT_DATA, NOW, &mut verdict);
    assert_eq!(bad(&verdict), [("root", Outcome::Failed)], "a root that is not AWS's: {verdict}");
    assert!(verdict.to_string().contains("641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"));
}

#[test]
fn every_broken_chain_is_refused() {
    use Outcome::Failed;
    let chain = [("chain", Failed)];
    refused(|made| made.edit_bundle = |bundle| bundle.swap(1, 2), &chain, "its issuer is");
    refused(|made| made.edit_bundle = |bundle| drop(bundle.remove(2)), &chain, "its issuer is");
    refused(|made| made.edit_bundle = |bundle| bundle.insert(1, bundle[1].clone()), &chain, "its issuer is");
    let both = [("root", Failed), ("chain", Failed)];
    refused(|made| made.edit_bundle = |bundle| bundle.reverse(), &both, "its issuer is");
    refused(|made| made.edit_bundle = |bundle| drop(bundle.remove(0)), &[("root", Failed)], "expected");
    let other_root: fn(&mut Vec<Vec<u8>>) = |bundle| bundle[0] = root().der().to_vec();
    refused(|made| made.edit_bundle = other_root, &both, "the signature is wrong");
    let short = vec![Some(2), Some(0), Some(0)];
    refused(|made| made.authorities = short, &chain, "may have 0 authorities below it, found 1");
    let crl_only = KeyUsagePurpose::CrlSign;
    refused(|made| made.authority_usage = crl_only, &chain, "is not a certificate authority");
    let ca = IsCa::Ca(BasicConstraints::Unconstrained);
    refused(|made| made.leaf_is_ca = ca, &chain, "an enclave may not sign documents");
    let cert_sign = vec![KeyUsagePurpose::KeyCertSign];
    refused(|made| made.leaf_usages = cert_sign, &chain, "an enclave may not sign documents");
    let signature = [("signature", Failed)];
    refused(
        |made| made.leaf_algorithm = &PKCS_ECDSA_P256_SHA256,
        &signature,
        "is not for EcdsaFixed(Sha384)",
    );
}

#[test]
fn certificates_that_are_none_leave_the_rest_undecided() {
    use Outcome::{Failed, Undecided};
    let expected = [
        ("signature", Undecided),
        ("chain", Failed),
        ("chain validity", Undecided),
        ("document time", Undecided),
    ];
    refused(|made| made.edit_bundle = |bundle| bundle[2].truncate(100), &expected, "cabundle[2]: not DER");
    refused(|made| made.edit_bundle = |bundle| bundle[1].push(0), &expected, "cabundle[1]: not DER");
}

#[test]
fn certificates_have_their_time() {
    let day = 86_400;
    let made = Made::new();
    // From 1 November 2026 on; the document's certificate ends first, on 31 December.
    let early = made.verdict_at(UnixTime(NOW.0 - 30 * day));
    assert_eq!(bad(&early), [("chain validity", Outcome::Failed), ("document time", Outcome::Failed)]);
    assert!(made.verdict_at(UnixTime(NOW.0 + 30 * day)).passes());
    let late = made.verdict_at(UnixTime(NOW.0 + 40 * day));
    assert_eq!(bad(&late), [("chain validity", Outcome::Undecided)], "{late}");
    let expired = [("chain validity", Outcome::Undecided), ("document time", Outcome::Failed)];
    refused(|made| made.leaf_until = (2026, 11, 20), &expired, "2026-11-20T00:00:00Z");
}

#[test]
fn documents_have_their_time() {
    let at = |seconds: i64| Made { timestamp: UnixTime(NOW.0.saturating_add_signed(seconds)), ..Made::new() };
    assert!(at(300).verdict().passes());
    assert_eq!(bad(&at(301).verdict()), [("document time", Outcome::Failed)]);
    assert!(at(-20 * 86_400).verdict().passes());
    assert_eq!(bad(&at(-40 * 86_400).verdict()), [("document time", Outcome::Failed)]);
}

#[test]
fn it_is_bound_to_our_report_data() {
    let failed = [("report data", Outcome::Failed)];
    let mut other = REPORT_DATA;
    other[63] ^= 1;
    refused(|made| made.user_data = Some(other.to_vec()), &failed, "5a5b");
    refused(|made| made.user_data = None, &failed, "absent");
    refused(|made| made.user_data = Some(REPORT_DATA[..63].to_vec()), &failed, "expected 5a");
    refused(|made| made.user_data = Some([&REPORT_DATA[..], &[0]].concat()), &failed, "5a00");
}

#[test]
fn altered_payloads_have_no_signature() {
    let edit: fn(&mut Vec<u8>) = |payload| {
        let at = payload.windows(3).position(|window| window == [3; 3]).unwrap();
        payload[at] = 4;
    };
    refused(|made| made.edit_payload = edit, &[("signature", Outcome::Failed)], "the signature is wrong");
}

/// ECDSA has two signatures of the same statement: bytes of documents are not unique (protocol 2.2).
#[test]
fn the_other_signature_of_the_same_document_is_one_too() {
    // python: bytes.fromhex of the order of P-384 (SEC 2, secp384r1)
    const ORDER: &str = "ffffffffffffffffffffffffffffffffffffffffffffffff\
                         c7634d81f4372ddf581a0db248b0a77aecec196accc52973";
    let (order, made) = (crate::digest::decode(ORDER).unwrap(), Made::new());
    let report = made.report();
    // The document ends with the signature: r, then s.
    let (mut other, at) = (report.clone(), report.len() - 48);
    let mut borrow = 0;
    for i in (0..48).rev() {
        let difference = i16::from(order[i]) - i16::from(report[at + i]) - borrow;
        borrow = i16::from(difference < 0);
        other[at + i] = difference.rem_euclid(256) as u8;
    }
    assert_ne!(other, report);
    let judged = |report: &[u8]| {
        let mut verdict = Verdict::default();
        let evidence = Evidence::parse(report, &Map::new()).unwrap();
        let measured = evidence.verify_with(made.root.der(), &REPORT_DATA, NOW, &mut verdict);
        assert!(verdict.passes(), "{verdict}");
        (verdict, measured.enclave_hash)
    };
    assert_eq!(judged(&report), judged(&other));
}

#[test]
fn the_enclave_hash_is_that_of_the_first_three_registers() {
    let measured = Made::new().measured();
    // python: hashlib.sha384(b"\1" * 48 + b"\2" * 48 + b"\3" * 48).hexdigest()
    assert_eq!(measured.enclave_hash.to_string(), HASH_OF_1_2_3);
    assert!(!measured.debug);
    for zero in 0..3 {
        let mut made = Made::new();
        made.pcrs[zero].1 = 0;
        assert!(made.measured().debug, "register {zero} is zero");
    }
}

/// Flips one bit of each byte, a different one from byte to byte, and all bits of the framing, which nothing signs.
#[test]
fn no_document_with_a_flipped_bit_is_genuine() {
    let made = Made { authorities: vec![Some(0)], ..Made::new() };
    let report = made.report();
    let genuine = |report: &[u8]| {
        Evidence::parse(report, &Map::new()).is_ok_and(|evidence| {
            let mut verdict = Verdict::default();
            evidence.verify_with(made.root.der(), &REPORT_DATA, NOW, &mut verdict);
            verdict.passes()
        })
    };
    assert!(genuine(&report), "untouched");
    for (position, bit) in (0..report.len()).map(|at| (at, at % 8)).chain((0..12 * 8).map(|i| (i / 8, i % 8)))
    {
        let mut flipped = report.clone();
        flipped[position] ^= 1 << bit;
        assert!(!genuine(&flipped), "bit {bit} of byte {position}");
    }
}

const HASH_OF_1_2_3: &str =
    "be9102e3314a9220c06d1ad479b298cb8928b470f3234e72dbc1a021c2f80fd9bff3208f94952ef479a293e0e6c839c6";
