//! Evidence by a key made here in place of a TPM's: certificates, attributes and damage that no emulator shows.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

use super::{policy, verified};
use crate::contract::Section as _;
use crate::tpm::*;
use crate::{Hex, Outcome};

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

const REPORT_DATA: [u8; 64] = [0x5a; 64];
const AK_ATTRIBUTES: u32 = 0x0005_0072;
const AIK: &[u64] = &[2, 23, 133, 8, 3];

/// A key with what it takes to sign quotes and to be certified.
struct Key {
    ring: EcdsaKeyPair,
    rcgen: KeyPair,
}

impl Key {
    fn new() -> Self {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        let random = SystemRandom::new();
        let ring =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        Self { ring, rcgen: KeyPair::try_from(pkcs8.as_ref()).unwrap() }
    }

    /// The key's TPMT_PUBLIC.
    fn area(&self, attributes: u32) -> Vec<u8> {
        let point = self.ring.public_key().as_ref();
        let mut area = vec![0, 0x23, 0, 0x0b];
        area.extend(attributes.to_be_bytes());
        area.extend([0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 32]);
        area.extend(&point[1..33]);
        area.extend([0, 32]);
        area.extend(&point[33..]);
        area
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let signature = self.ring.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        [&[0, 0x18, 0, 0x0b, 0, 32][..], r, &[0, 32], s].concat()
    }

    /// TPM2B_NAME of the key's place in the endorsement hierarchy, with those attributes.
    fn qualified(&self, attributes: u32) -> Vec<u8> {
        let name = Sha256::digest(self.area(attributes));
        let digest = Sha256::new().chain_update([0x40, 0, 0, 0x0b, 0, 0x0b]).chain_update(name).finalize();
        [&[0, 34, 0, 0x0b][..], &digest].concat()
    }

    fn evidence(&self, attributes: u32, selection: [u8; 3], ak_chain: Vec<Certificate>) -> Evidence {
        self.described(attributes, attributes, selection, ak_chain)
    }

    /// Evidence of a key that has the attributes `real`, beside a description of it that says `told`.
    fn described(&self, real: u32, told: u32, selection: [u8; 3], ak_chain: Vec<Certificate>) -> Evidence {
        let selected = |index: &u8| selection[usize::from(index / 8)] >> (index % 8) & 1 == 1;
        let pcrs = Pcrs((0..24).filter(selected).map(|index| (index, [index; 32])).collect());
        let digest = Sha256::digest(pcrs.0.values().copied().collect::<Vec<_>>().concat());
        let mut message = vec![0xff, 0x54, 0x43, 0x47, 0x80, 0x18];
        message.extend(self.qualified(real));
        message.extend([0, 32]);
        message.extend(Sha256::digest(REPORT_DATA));
        // Clock, resets, restarts, safe, firmware version.
        message.extend([0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 2, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 1, 5]);
        message.extend([0, 0, 0, 1, 0, 0x0b, 3]);
        message.extend(selection);
        message.extend([0, 32]);
        message.extend(digest);
        let quote = Quote::parse(&message, &self.sign(&message)).unwrap();
        let ak = AkPublic::from_tpmt(&self.area(told)).unwrap();
        Evidence { ak, ak_chain, quote: Box::new(quote), pcrs, event_log: None }
    }

    fn good(&self, ak_chain: Vec<Certificate>) -> Evidence {
        self.evidence(AK_ATTRIBUTES, [0xff, 0xfb, 0], ak_chain)
    }
}

pub(super) fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

fn intermediate(name: &str, issuer: &Issuer) -> Issuer {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), issuer).unwrap()
}

/// A certificate for a key whose secret is elsewhere.
pub(super) fn certificate_of(ak: &AkPublic, issuer: &Issuer) -> Certificate {
    struct Public(Vec<u8>);
    impl rcgen::PublicKeyData for Public {
        fn der_bytes(&self) -> &[u8] {
            &self.0
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            &rcgen::PKCS_ECDSA_P256_SHA256
        }
    }
    let area = ak.tpmt().unwrap();
    let (x, y) = area[area.len() - 68..].split_at(34);
    params(|_| {})
        .signed_by(&Public([&[4], &x[2..], &y[2..]].concat()), issuer)
        .map(|certificate| Certificate::from_der(certificate.der()).unwrap())
        .unwrap()
}

fn certificate(key: &Key, issuer: &Issuer, change: impl FnOnce(&mut CertificateParams)) -> Certificate {
    Certificate::from_der(params(change).signed_by(&key.rcgen, issuer).unwrap().der()).unwrap()
}

fn params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "an attestation key");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(AIK.to_vec())];
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2030, 1, 1));
    change(&mut params);
    params
}

pub(super) fn trusting(root: &Issuer) -> Policy {
    let body = base64ct::Base64::encode_string(root.der());
    policy(&format!("ak_roots = '''-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----'''"))
}

/// The checks of both steps that did not pass.
fn failures(evidence: &Evidence, policy: &Policy) -> Vec<String> {
    let (measured, verdict) = verified(evidence, &REPORT_DATA);
    let mut failures: Vec<_> =
        verdict.failed().map(|check| format!("{} {}", check.outcome.mark(), check.name)).collect();
    failures.extend(measured.map(|measured| policy.failures(&measured)).unwrap_or_default());
    failures
}

#[test]
fn an_authority_may_vouch_for_the_key() {
    let (key, root) = (Key::new(), authority("root"));
    let leaf = certificate(&key, &root, |_| {});
    assert!(failures(&key.good(vec![leaf.clone()]), &trusting(&root)).is_empty());
    let between = intermediate("between", &root);
    let chain = vec![certificate(&key, &between, |_| {}), Certificate::from_der(between.der()).unwrap()];
    let evidence = key.good(chain.clone());
    assert!(failures(&evidence, &trusting(&root)).is_empty());
    assert_eq!(Evidence::parse(&evidence.report(), &Map::new()).unwrap(), evidence);
    // The authority between root and key may be the one that is trusted, too.
    assert!(failures(&evidence, &trusting(&between)).is_empty());
    assert_eq!(
        failures(&key.good(chain[..1].to_vec()), &trusting(&root)),
        ["✗ ak certificate", "? ak validity"]
    );
}

#[test]
fn only_a_certificate_of_this_key_for_attestation_by_that_authority_does() {
    let (key, root) = (Key::new(), authority("root"));
    let refused = ["✗ ak certificate", "? ak validity"];
    let good = |change: fn(&mut CertificateParams)| key.good(vec![certificate(&key, &root, change)]);
    assert_eq!(failures(&key.good(Vec::new()), &trusting(&root)), refused);
    assert_eq!(failures(&good(|_| {}), &trusting(&authority("another"))), refused);
    // An authority of the same name as the trusted one is another one.
    assert_eq!(failures(&good(|_| {}), &trusting(&authority("root"))), refused);
    let other = certificate(&Key::new(), &root, |_| {});
    assert_eq!(failures(&key.good(vec![other]), &trusting(&root)), refused);
    let web = good(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert_eq!(failures(&web, &trusting(&root)), refused);
    let any = good(|params| params.extended_key_usages.clear());
    assert_eq!(failures(&any, &trusting(&root)), refused);
    let expired = good(|params| params.not_after = date_time_ymd(2026, 1, 1));
    assert_eq!(failures(&expired, &trusting(&root)), ["? ak validity"]);
    let future = good(|params| params.not_before = date_time_ymd(2027, 1, 1));
    assert_eq!(failures(&future, &trusting(&root)), ["✗ ak validity"]);
    // A key that is named needs no certificate.
    let name = Hex(key.good(Vec::new()).ak.name().unwrap());
    assert!(failures(&key.good(Vec::new()), &policy(&format!("aks = [\"{name}\"]"))).is_empty());
}

#[test]
fn every_attribute_of_an_attestation_key_is_needed() {
    let key = Key::new();
    let pin = |evidence: &Evidence| policy(&format!("aks = [\"{}\"]", Hex(evidence.ak.name().unwrap())));
    for bit in [1, 4, 5, 16, 17, 18] {
        let evidence = key.evidence(AK_ATTRIBUTES ^ 1 << bit, [0xff, 0xfb, 0], Vec::new());
        assert_eq!(failures(&evidence, &pin(&evidence)), ["✗ ak attributes"], "bit {bit}");
    }
}

/// A certificate is of the key alone: the description beside it has to be what the TPM's own quote names.
#[test]
fn a_description_around_a_certified_key_is_refused() {
    let (key, root) = (Key::new(), authority("root"));
    let chain = vec![certificate(&key, &root, |_| {})];
    let forged = key.described(AK_ATTRIBUTES ^ 1 << 16, AK_ATTRIBUTES, [0xff, 0xfb, 0], chain);
    assert_eq!(failures(&forged, &trusting(&root)), ["✗ ak name"]);
    // The policy may name the key, too: whoever took the name from such evidence named a description.
    let name = Hex(forged.ak.name().unwrap());
    assert_eq!(failures(&forged, &policy(&format!("aks = [\"{name}\"]"))), ["✗ ak name"]);
}

#[test]
fn the_boot_pcrs_have_to_be_quoted_and_resettable_ones_do_not_stand_for_them() {
    let key = Key::new();
    for selection in [[0xff, 0xf3, 0], [0xfe, 0xfb, 0], [0, 0, 0xff], [0xff, 0, 0]] {
        let (measured, verdict) = verified(&key.evidence(AK_ATTRIBUTES, selection, Vec::new()), &REPORT_DATA);
        assert!(measured.is_none());
        assert!(verdict.failed().map(|check| check.name).eq(["boot pcrs"]), "{verdict}");
    }
    assert_eq!(PcrIndex::new(16), None);
    assert!(toml::from_str::<Policy>(&format!("pcrs.16 = [\"{}\"]", Hex([0; 32]))).is_err());
}

#[test]
fn what_a_policy_asks_is_compared() {
    let evidence = Key::new().good(Vec::new());
    let ak = format!("aks = [\"{}\"]\n", Hex(evidence.ak.name().unwrap()));
    let measured = verified(&evidence, &REPORT_DATA).0.unwrap().enclave_hash;
    let asked = |more: &str| failures(&evidence, &policy(&format!("{ak}{more}")));
    assert!(asked("").is_empty());
    assert!(asked(&format!("measurements = [\"{measured}\"]")).is_empty());
    assert_eq!(asked(&format!("measurements = [\"{}\"]", Hex([0; 32]))), ["✗ measurement"]);
    assert!(asked("minimum_firmware_version = 261").is_empty());
    assert_eq!(asked("minimum_firmware_version = 262"), ["✗ tpm firmware"]);
    assert_eq!(asked("secure_boot = true"), ["? secure boot"]);
    assert!(asked(&format!("pcrs.11 = [\"{}\", \"{}\"]", Hex([0; 32]), Hex([11; 32]))).is_empty());
    assert_eq!(asked(&format!("pcrs.10 = [\"{}\"]", Hex([10; 32]))), ["✗ pcrs"]);
    for empty in ["aks = []", "measurements = []", "ak_roots = ''", "unknown = 1", "pcrs.x = []"] {
        assert!(toml::from_str::<Policy>(empty).is_err(), "{empty}");
    }
}

/// Any kernel can extend PCR 11, and PCR 4 says nothing of a kernel behind a boot loader.
#[test]
fn policies_name_programs_by_measurement_or_by_enough_pcrs() {
    let value = Hex([0; 32]);
    let named = |indices: &[u8]| {
        let lines = indices.iter().map(|index| format!("pcrs.{index} = [\"{value}\"]"));
        policy(&lines.collect::<Vec<_>>().join("\n")).names_program()
    };
    assert!(policy(&format!("measurements = [\"{value}\"]")).names_program());
    assert!(named(&[0, 2, 4, 11]) && named(&[0, 2, 4, 8, 9]));
    let not_enough: [&[u8]; 10] = [
        &[],
        &[7],
        &[4],
        &[11],
        &[4, 11],
        &[0, 2, 11],
        &[0, 2, 4, 8],
        &[0, 2, 4, 9],
        &[2, 4, 11],
        &[0, 4, 11],
    ];
    for indices in not_enough {
        assert!(!named(indices), "{indices:?}");
    }
}

#[test]
fn no_flipped_bit_of_the_evidence_passes() {
    let key = Key::new();
    let good = key.good(Vec::new());
    let policy = policy(&format!("aks = [\"{}\"]", Hex(good.ak.name().unwrap())));
    let passes = |report: &[u8]| {
        Evidence::parse(report, &Map::new()).is_ok_and(|evidence| {
            let (measured, verdict) = verified(&evidence, &REPORT_DATA);
            verdict.passes() && measured.is_some_and(|measured| policy.failures(&measured).is_empty())
        })
    };
    let report = good.report();
    assert!(passes(&report));
    let mut parsed = 0;
    for (byte, bit) in (0..report.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut bad = report.clone();
        bad[byte] ^= 1 << bit;
        assert!(!passes(&bad), "byte {byte}, bit {bit}: {}", String::from_utf8_lossy(&bad));
        parsed += u32::from(Evidence::parse(&bad, &Map::new()).is_ok());
    }
    assert!(parsed > 1000, "only {parsed} of the flipped ones were readable at all");
}

#[test]
fn checks_that_cannot_be_made_are_named_all_the_same() {
    let evidence = Key::new().good(Vec::new());
    let (_, verdict) = verified(&evidence, &[0; 64]);
    let names: Vec<_> = verdict.checks.iter().map(|check| check.name).collect();
    let expected = [
        "signature",
        "report data",
        "pcr selection",
        "pcr digest",
        "ak name",
        "ak attributes",
        "boot pcrs",
        "event log",
    ];
    assert_eq!(names, expected);
    assert_eq!(verdict.check("report data").unwrap().outcome, Outcome::Failed);
}
