//! Evidence made with a test root: what no real file shows.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};

use super::chain::Root;
use super::*;
use crate::contract::Section as _;
use crate::x509::{Certificate, Crl};
use crate::{Hex, Outcome};

mod appraise;
mod collateral;
mod key_service;
mod real;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// An instant at which everything [`Made`] is valid.
const NOW: UnixTime = UnixTime(1_795_426_200);
pub(super) const REPORT_DATA: [u8; 64] = [0x5a; 64];
const CHIP: [u8; 64] = [0xc4; 64];

/// How evidence is made; as a Genoa machine does unless changed.
pub(super) struct Made {
    product: &'static str,
    vlek: bool,
    key_until: (i32, u8, u8),
    key_from: (i32, u8, u8),
    /// Extensions of the signing key's certificate below 1.3.6.1.4.1.3704.1, replaced or added; empty to drop.
    extensions: Vec<(&'static [u64], Vec<u8>)>,
    intermediate_name: Option<&'static str>,
    intermediate_until: (i32, u8, u8),
    crl: Option<MadeCrl>,
    report_data: [u8; 64],
    edit_report: fn(&mut Vec<u8>),
    edit_signed: fn(&mut Vec<u8>),
    edit: fn(&mut Endorsements),
}

/// Good evidence that carries `report_data`, under roots of its own, valid at the end of 2026.
pub(crate) fn evidence_for(report_data: [u8; 64]) -> (Roots, Evidence) {
    Made { report_data, ..Made::new() }.evidence()
}

struct MadeCrl {
    revoked: Vec<u64>,
    until: (i32, u8, u8),
    /// The chain ends in another root of the same name.
    forged: bool,
}

impl Made {
    pub(super) fn new() -> Self {
        Self {
            product: "Genoa",
            vlek: false,
            key_until: (2027, 1, 1),
            key_from: (2026, 1, 1),
            extensions: Vec::new(),
            intermediate_name: None,
            intermediate_until: (2040, 1, 1),
            crl: None,
            report_data: REPORT_DATA,
            edit_report: |_| {},
            edit_signed: |_| {},
            edit: |_| {},
        }
    }

    pub(super) fn vlek() -> Self {
        Self { vlek: true, ..Self::new() }
    }

    fn turin() -> Self {
        Self { product: "Turin", ..Self::new() }
    }

    pub(super) fn crl() -> Self {
        Self { crl: Some(MadeCrl { revoked: vec![], until: (2027, 1, 1), forged: false }), ..Self::new() }
    }

    pub(super) fn evidence(&self) -> (Roots, Evidence) {
        let ark = authority(&format!("ARK-{}", self.product), 1, None, (2045, 1, 1));
        let name = self.intermediate_name.map_or_else(
            || format!("SEV-{}{}", if self.vlek { "VLEK-" } else { "" }, self.product),
            String::from,
        );
        let intermediate = authority(&name, INTERMEDIATE_SERIAL, Some(&ark), self.intermediate_until);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let signer = certificate(self.key_params().signed_by(&key, &intermediate).unwrap().der());
        let intermediate = Some(certificate(intermediate.der()));
        let crl = self.crl.as_ref().map(|crl| crl.sign(&ark, self.product));
        let mut endorsements = match self.vlek {
            true => Endorsements { vlek: Some(signer), asvk: intermediate, crl, ..Endorsements::default() },
            false => Endorsements { vcek: Some(signer), ask: intermediate, crl, ..Endorsements::default() },
        };
        (self.edit)(&mut endorsements);
        let mut report = self.report();
        (self.edit_report)(&mut report);
        sign(&mut report, &key);
        (self.edit_signed)(&mut report);
        let product = Product::ALL.into_iter().find(|product| product.name() == self.product).unwrap();
        let roots = Roots::new(vec![Root { product, ark: certificate(ark.der()), ask: None }]);
        (roots, Evidence::new(&report, endorsements).unwrap())
    }

    fn verify(&self) -> (Verdict, Option<Facts>) {
        let (roots, evidence) = self.evidence();
        let mut verdict = Verdict::default();
        let facts = evidence.verify_with(&roots, &REPORT_DATA, NOW, &mut verdict);
        (verdict, facts)
    }

    /// The checks that did not pass, by outcome.
    fn failures(&self) -> Vec<(&'static str, Outcome)> {
        let (verdict, _) = self.verify();
        verdict.failed().map(|check| (check.name, check.outcome)).collect()
    }

    fn key_params(&self) -> CertificateParams {
        let mut extensions: Vec<(&[u64], Vec<u8>)> = vec![
            (&[1], vec![2, 1, 1]),
            (&[2], [&[0x16, self.product.len() as u8], self.product.as_bytes()].concat()),
            (&[3, 1], vec![2, 1, 3]),
            (&[3, 2], vec![2, 1, 0]),
            (&[3, 3], vec![2, 1, 24]),
            (&[3, 8], vec![2, 2, 0, 219]),
        ];
        match (self.vlek, self.product) {
            (true, _) => extensions.push((&[5], [&[0x16, 4][..], b"test"].concat())),
            (false, "Turin") => extensions.push((&[4], CHIP[..8].to_vec())),
            (false, _) => extensions.push((&[4], CHIP.to_vec())),
        }
        if self.product == "Turin" {
            extensions.push((&[3, 9], vec![2, 1, 7]));
        }
        for (arcs, value) in &self.extensions {
            extensions.retain(|(existing, _)| existing != arcs);
            if !value.is_empty() {
                extensions.push((arcs, value.clone()));
            }
        }
        let mut params = named(if self.vlek { "SEV-VLEK" } else { "SEV-VCEK" });
        params.serial_number = Some(SerialNumber::from_slice(&[0]));
        let (year, month, day) = self.key_from;
        params.not_before = date_time_ymd(year, month, day);
        let (year, month, day) = self.key_until;
        params.not_after = date_time_ymd(year, month, day);
        params.custom_extensions = extensions
            .into_iter()
            .map(|(arcs, value)| {
                let oid = [&[1, 3, 6, 1, 4, 1, 3704, 1], arcs].concat();
                CustomExtension::from_oid_content(&oid, value)
            })
            .collect();
        params
    }

    fn report(&self) -> Vec<u8> {
        let tcb: [u8; 8] = match self.product {
            "Turin" => [7, 3, 0, 24, 0, 0, 0, 219],
            _ => [3, 0, 0, 0, 0, 0, 24, 219],
        };
        let cpuid = match self.product {
            "Milan" => [0x19, 0x01, 1],
            "Genoa" => [0x19, 0x11, 1],
            _ => [0x1A, 0x02, 0],
        };
        let mut report = vec![0; REPORT_BYTES];
        let mut put = |at: usize, bytes: &[u8]| report[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[3]);
        put(0x08, &(1u64 << 17).to_le_bytes());
        put(0x34, &[1]);
        put(0x40, &[0b10_0000]);
        put(0x48, &[if self.vlek { 1 << 2 } else { 0 }]);
        put(0x50, &self.report_data);
        put(0x90, &[0x3e; 48]);
        for at in [0x38, 0x180, 0x1E0, 0x1F0] {
            put(at, &tcb);
        }
        put(0x188, &cpuid);
        put(0x1A0, if self.product == "Turin" { &CHIP[..8] } else { &CHIP });
        report
    }
}

impl MadeCrl {
    fn sign(&self, ark: &Issuer, product: &str) -> Crl {
        let (year, month, day) = self.until;
        let revoked = self.revoked.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 6, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update: date_time_ymd(year, month, day),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let other = authority(&format!("ARK-{product}"), 1, None, (2045, 1, 1));
        let der = params.signed_by(if self.forged { &other } else { ark }).unwrap();
        Crl::from_der(der.der()).unwrap()
    }
}

fn authority(name: &str, serial: u64, issuer: Option<&Issuer>, (year, month, day): (i32, u8, u8)) -> Issuer {
    let mut params = named(name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_after = date_time_ymd(year, month, day);
    params.is_ca = IsCa::Ca(match issuer {
        Some(_) => BasicConstraints::Constrained(0),
        None => BasicConstraints::Unconstrained,
    });
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    match issuer {
        Some(issuer) => CertifiedIssuer::signed_by(params, key, issuer).unwrap(),
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn certificate(der: &[u8]) -> Certificate {
    Certificate::from_der(der).unwrap()
}

fn sign(report: &mut [u8], key: &KeyPair) {
    let random = SystemRandom::new();
    let key =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &key.serialize_der(), &random).unwrap();
    let signature = key.sign(&random, &report[..0x2A0]).unwrap();
    for (at, integer) in [0x2A0, 0x2E8].into_iter().zip(signature.as_ref().chunks(48)) {
        let little_endian: Vec<u8> = integer.iter().rev().copied().collect();
        report[at..at + 48].copy_from_slice(&little_endian);
    }
}

const INTERMEDIATE_SERIAL: u64 = 0x1_0001;

use Outcome::{Failed, Undecided};

#[test]
fn evidence_of_every_product_and_key_is_genuine() {
    for made in
        [Made::new(), Made::vlek(), Made::turin(), Made::crl(), Made { product: "Milan", ..Made::new() }]
    {
        let (verdict, facts) = made.verify();
        assert!(verdict.passes(), "{verdict}");
        let facts = facts.unwrap();
        assert_eq!(facts.product.unwrap().name(), made.product);
        assert_eq!(facts.csp.as_deref(), made.vlek.then_some("test"));
    }
}

#[test]
fn names_of_checks_are_unique() {
    for made in [Made::crl(), Made::vlek(), Made { edit: |e| *e = Endorsements::default(), ..Made::new() }] {
        let (verdict, facts) = made.verify();
        let measured = facts.unwrap().into_measured();
        let facts = &measured.facts;
        let mut verdict = verdict;
        Policy::strict().check(facts, &measured.enclave_hash, &mut verdict);
        let mut names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}

#[test]
fn report_versions_are_two_to_five() {
    let version = |edit_report| Made { edit_report, ..Made::new() }.failures();
    assert_eq!(version(|report| report[0] = 1), [("version", Failed), ("reserved bytes", Failed)]);
    assert_eq!(version(|report| (report[0], report[0x188], report[0x189], report[0x18A]) = (2, 0, 0, 0)), []);
    assert_eq!(version(|report| report[0] = 4), []);
    assert_eq!(version(|report| (report[0], report[0x1F8]) = (5, 1)), []);
    assert_eq!(version(|report| (report[0], report[0x1F8]) = (4, 1)), [("reserved bytes", Failed)]);
    assert_eq!(version(|report| report[0] = 6), [("version", Undecided)]);
    let newer = Made { edit_report: |report| report[0] = 6, ..Made::new() };
    assert!(newer.verify().1.is_none());
}

#[test]
fn every_field_of_the_form_is_checked() {
    let failed = |edit_report| Made { edit_report, ..Made::new() }.failures();
    assert_eq!(failed(|report| report[0x34] = 2), [("signature algorithm", Failed)]);
    assert_eq!(failed(|report| report[0x0A] = 0), [("reserved bytes", Failed)]);
    let reserved: [fn(&mut Vec<u8>); 8] = [
        |report| report[0x0B] |= 4,
        |report| report[0x48] |= 0x20,
        |report| report[0x4B] = 1,
        |report| report[0x4C] = 1,
        |report| report[0x18B] = 1,
        |report| report[0x19F] = 1,
        |report| report[0x1EB] = 1,
        |report| report[0x29F] = 1,
    ];
    for edit in reserved {
        assert_eq!(failed(edit), [("reserved bytes", Failed)]);
    }
    assert_eq!(failed(|report| report[0x48] |= 1), [("author key flag", Failed)]);
    assert_eq!(failed(|report| report[0x110] = 1), [("author key flag", Failed)]);
    assert_eq!(failed(|report| (report[0x48], report[0x110]) = (1, 1)), []);
    assert_eq!(failed(|report| report[0x50] ^= 1), [("report data", Failed)]);
}

#[test]
fn reports_without_a_usable_key_are_refused() {
    let failed = |edit_report| Made { edit_report, ..Made::new() }.failures();
    assert_eq!(failed(|report| report[0x48] |= 7 << 2), [("signing key", Failed)]);
    assert_eq!(failed(|report| report[0x48] |= 3 << 2), [("signing key", Failed)]);
    assert_eq!(failed(|report| report[0x48] |= 2), [("chip key", Failed)]);
    let masked = Made { edit_report: |report| report[0x48] |= 2, ..Made::vlek() };
    assert_eq!(masked.failures(), []);
}

#[test]
fn signatures_cover_the_report_and_are_padded_with_zeros() {
    let failed = |edit_signed| Made { edit_signed, ..Made::new() }.failures();
    let edits: [fn(&mut Vec<u8>); 6] = [
        |report| report[0x90] ^= 1,
        |report| report[0x2A0] ^= 1,
        |report| report[0x2A0 + 48] = 1,
        |report| report[0x2E8 + 71] = 1,
        |report| report[0x330] = 1,
        |report| report[0x49F] = 1,
    ];
    for edit in edits {
        assert_eq!(failed(edit), [("signature", Failed)]);
    }
}

#[test]
fn the_processor_decides_the_root() {
    let made = Made { edit_report: |report| report[0x189] = 0x01, ..Made::new() };
    assert_eq!(made.failures(), [("product", Failed)]);
    let made = Made { edit_report: |report| report[0x189] = 0x60, ..Made::new() };
    let failures = made.failures();
    assert!(failures.contains(&("product", Undecided)) && failures.contains(&("chain", Undecided)));
    let made = Made { extensions: vec![(&[2], b"\x16\x05Milan".to_vec())], ..Made::new() };
    let failures = made.failures();
    assert!(
        failures.contains(&("product", Failed)) && failures.contains(&("chain", Undecided)),
        "{failures:?}"
    );
    let made = Made { extensions: vec![(&[2], b"\x16\x05Venus".to_vec())], ..Made::new() };
    assert_eq!(made.failures(), [("product", Failed)]);
    let old =
        Made { edit_report: |report| (report[0], report[0x188], report[0x189]) = (2, 0, 0), ..Made::turin() };
    assert_eq!(old.failures(), [("product", Failed)]);
}

#[test]
fn chains_that_are_not_amds_are_refused() {
    let (_, evidence) = Made::new().evidence();
    let mut verdict = Verdict::default();
    evidence.verify(&REPORT_DATA, NOW, &mut verdict);
    let failed: Vec<_> = verdict.failed().map(|check| (check.name, check.outcome)).collect();
    assert_eq!(failed, [("chain", Failed)]);
    let (other_roots, _) = Made::new().evidence();
    let mut verdict = Verdict::default();
    evidence.verify_with(&other_roots, &REPORT_DATA, NOW, &mut verdict);
    assert_eq!(verdict.check("chain").unwrap().outcome, Failed);
    let wrong_name = Made { intermediate_name: Some("SEV-VLEK-Genoa"), ..Made::new() };
    assert_eq!(wrong_name.failures(), [("chain", Failed)]);
    let wrong_key = Made {
        edit: |endorsements| endorsements.vcek = Made::new().evidence().1.endorsements.vcek,
        ..Made::new()
    };
    assert_eq!(wrong_key.failures(), [("chain", Failed), ("signature", Failed)]);
    let wrong_intermediate = Made {
        edit: |endorsements| endorsements.ask = Made::new().evidence().1.endorsements.ask,
        ..Made::new()
    };
    assert_eq!(wrong_intermediate.failures(), [("chain", Failed)]);
}

#[test]
fn certificates_are_valid_at_now() {
    let expired = Made { key_until: (2026, 11, 1), ..Made::new() };
    assert_eq!(expired.failures(), [("vcek validity", Undecided)]);
    let future = Made { key_from: (2026, 12, 1), ..Made::new() };
    assert_eq!(future.failures(), [("vcek validity", Failed)]);
    let expired = Made { key_until: (2026, 11, 1), ..Made::vlek() };
    assert_eq!(expired.failures(), [("vlek validity", Undecided)]);
    let expired = Made { intermediate_until: (2026, 11, 1), ..Made::new() };
    assert_eq!(expired.failures(), [("ask validity", Undecided)]);
}

#[test]
fn revocation_is_checked_by_a_current_list_of_the_root() {
    let crl = |revoked, until, forged| Made { crl: Some(MadeCrl { revoked, until, forged }), ..Made::new() };
    let revoked = vec![5, INTERMEDIATE_SERIAL];
    assert_eq!(crl(vec![5, 0], (2027, 1, 1), false).failures(), []);
    assert_eq!(crl(revoked.clone(), (2027, 1, 1), false).failures(), [("revocation", Failed)]);
    assert_eq!(crl(vec![], (2026, 11, 1), false).failures(), [("crl age", Undecided)]);
    let old_and_revoked = crl(revoked, (2026, 11, 1), false);
    assert_eq!(old_and_revoked.failures(), [("crl age", Undecided), ("revocation", Failed)]);
    assert_eq!(crl(vec![], (2027, 1, 1), true).failures(), [("crl", Failed), ("revocation", Undecided)]);
    assert_eq!(Made::new().verify().0.check("revocation").unwrap().outcome, Outcome::Info);
}

#[test]
fn the_certificate_is_for_the_reported_tcb_and_chip() {
    let failed =
        |arcs, value: &[u8]| Made { extensions: vec![(arcs, value.to_vec())], ..Made::new() }.failures();
    for (arcs, value) in [
        (&[3, 1][..], &[2, 1, 4][..]),
        (&[3, 2], &[2, 1, 1]),
        (&[3, 3], &[2, 1, 23]),
        (&[3, 8], &[2, 1, 19]),
        (&[3, 8], &[2, 2, 1, 219]),
        // Two bytes for a number that needs one are not DER.
        (&[3, 1], &[2, 2, 0, 3]),
        (&[3, 3], &[]),
    ] {
        assert_eq!(failed(arcs, value), [("vcek tcb", Failed)], "{arcs:?} {value:?}");
    }
    assert_eq!(failed(&[4], &[0xc5; 64]), [("vcek chip", Failed)]);
    assert_eq!(failed(&[4], &CHIP[..63]), [("vcek chip", Failed)]);
    assert_eq!(failed(&[4], &[]), [("vcek chip", Failed)]);
    assert_eq!(failed(&[4], &[&[4, 64][..], &CHIP].concat()), []);
    let failed =
        |arcs, value: &[u8]| Made { extensions: vec![(arcs, value.to_vec())], ..Made::turin() }.failures();
    assert_eq!(failed(&[3, 9], &[2, 1, 8]), [("vcek tcb", Failed)]);
    assert_eq!(failed(&[3, 9], &[]), [("vcek tcb", Failed)]);
    assert_eq!(failed(&[4], &CHIP), [("vcek chip", Failed)]);
    let masked = Made { edit_report: |report| report[0x1A0..0x1E0].fill(0), ..Made::new() };
    assert_eq!(masked.failures(), [("vcek chip", Failed)]);
    let reserved = Made { edit_report: |report| report[0x182] = 1, ..Made::new() };
    assert_eq!(reserved.failures(), [("vcek tcb", Failed)]);
    let no_provider = Made { extensions: vec![(&[5], vec![])], ..Made::vlek() };
    assert_eq!(no_provider.failures(), [("vlek provider", Failed)]);
}

#[test]
fn what_is_not_stapled_is_undecided() {
    let bare = Made { edit: |endorsements| *endorsements = Endorsements::default(), ..Made::new() };
    let (verdict, facts) = bare.verify();
    assert!(verdict.is_undecided(), "{verdict}");
    assert!(facts.is_some());
    let failed: Vec<_> = verdict.failed().map(|check| check.name).collect();
    let expected =
        ["product", "chain", "vcek validity", "ask validity", "vcek tcb", "vcek chip", "signature"];
    assert_eq!(failed, expected);
    let no_asvk = Made { edit: |endorsements| endorsements.asvk = None, ..Made::vlek() };
    assert_eq!(no_asvk.failures(), [("chain", Undecided), ("asvk validity", Undecided)]);
    // A certificate of the other kind of key is not what the report names.
    let other = Made { edit: |endorsements| endorsements.vlek = endorsements.vcek.take(), ..Made::new() };
    assert!(other.failures().contains(&("signature", Undecided)));
}

#[test]
fn evidence_round_trips_and_malformed_evidence_is_refused() {
    for made in [Made::crl(), Made::vlek()] {
        let (_, evidence) = made.evidence();
        let again = Evidence::parse(&evidence.report(), &evidence.endorsements()).unwrap();
        assert_eq!(again, evidence);
    }
    let report = Made::new().evidence().1.report();
    let parse = |member: &str, value: Value| {
        Evidence::parse(&report, &Map::from_iter([(member.to_owned(), value)])).unwrap_err()
    };
    assert_eq!(parse("vcek", Value::from(1)), ParseError::Base64 { member: "vcek" });
    assert_eq!(parse("ask", Value::from("AA==")), ParseError::Base64 { member: "ask" });
    assert!(matches!(parse("vlek", Value::from("AAAA")), ParseError::X509 { member: "vlek", .. }));
    assert!(matches!(parse("crl", Value::from("AAAA")), ParseError::X509 { member: "crl", .. }));
    for len in [0, 1183, 1185] {
        let mut bytes = report.clone();
        bytes.resize(len, 0);
        let refused = Evidence::parse(&bytes, &Map::new()).unwrap_err();
        assert_eq!(refused, ParseError::Length { found: len });
    }
}

#[test]
fn id_keys_are_named_as_reports_name_them() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let der = rcgen::PublicKeyData::subject_public_key_info(&key);
    let point = key.public_key_raw();
    let mut format = vec![2, 0, 0, 0];
    for coordinate in [&point[1..49], &point[49..]] {
        format.extend(coordinate.iter().rev());
        format.extend([0; 24]);
    }
    format.extend([0; 880]);
    assert_eq!(format.len(), 0x404);
    let expected = ring::digest::digest(&ring::digest::SHA384, &format);
    assert_eq!(signer_of(&der).as_ref().map(|digest| &digest[..]), Some(expected.as_ref()));
    let other = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    assert_eq!(signer_of(&rcgen::PublicKeyData::subject_public_key_info(&other)), None);
    assert_eq!(signer_of(&[]), None);
}

proptest::proptest! {
    /// Any bytes of a report's length are read, verified and appraised without a panic, and are not genuine.
    #[test]
    fn no_report_panics(
        version in 0u8..8,
        rest in proptest::collection::vec(proptest::num::u8::ANY, REPORT_BYTES - 4),
    ) {
        let report = [&[version, 0, 0, 0], &rest[..]].concat();
        let endorsements = Made::crl().evidence().1.endorsements;
        let evidence = Evidence::new(&report, *endorsements).unwrap();
        let mut verdict = Verdict::default();
        let facts = evidence.verify_with(Roots::amd(), &REPORT_DATA, NOW, &mut verdict);
        proptest::prop_assert!(!verdict.passes());
        proptest::prop_assert_eq!(facts.is_some(), (2..=5).contains(&evidence.report.version));
        evidence.collateral_requests();
    }
}
