use std::collections::BTreeMap;

use rcgen::{CertificateParams, KeyPair, PublicKeyData};

use super::*;
use crate::{Digest, Outcome};

fn pcr(byte: u8) -> Hex<48> {
    Hex([byte; 48])
}

/// Registers 0 to 4 hold their number plus one, 8 is of an unsigned image.
fn facts() -> Facts {
    let pcrs: BTreeMap<u8, Pcr> = (0..5).map(|i| (i, [i + 1; 48])).chain([(8, [0; 48])]).collect();
    Facts { pcrs, debug: false, age_s: 60 }
}

fn verdict(policy: &Policy, facts: Facts) -> Verdict {
    let mut verdict = Verdict::default();
    policy.check(&facts, &Digest([1; 32]).into(), &mut verdict);
    verdict
}

fn outcome(policy: &Policy, name: &str) -> Outcome {
    verdict(policy, facts()).check(name).unwrap().outcome
}

fn certificate() -> String {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::default().self_signed(&key).unwrap();
    in_pem(cert.der())
}

fn in_pem(der: &[u8]) -> String {
    format!("{BEGIN}\n{}\n{END}\n", Base64::encode_string(der))
}

#[test]
fn what_nobody_expects_is_stated() {
    let verdict = verdict(&Policy::strict(), facts());
    let names: Vec<_> = verdict.checks.iter().map(|check| (check.name, check.outcome)).collect();
    let all = ["pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8", "document age"];
    assert_eq!(names, all.map(|name| (name, Outcome::Info)));
}

#[test]
fn each_register_is_compared_with_its_own_list() {
    type Register = (&'static str, u8, fn(&mut Policy) -> &mut Vec<Hex<48>>);
    let registers: [Register; 5] = [
        ("pcr0", 1, |policy| &mut policy.pcr0),
        ("pcr1", 2, |policy| &mut policy.pcr1),
        ("pcr2", 3, |policy| &mut policy.pcr2),
        ("pcr3", 4, |policy| &mut policy.pcr3),
        ("pcr4", 5, |policy| &mut policy.pcr4),
    ];
    for (name, right, list) in registers {
        let mut policy = Policy::strict();
        list(&mut policy).extend([pcr(99), pcr(right)]);
        assert_eq!(outcome(&policy, name), Outcome::Passed, "{name}");
        *list(&mut policy) = vec![pcr(99), pcr(right + 1)];
        assert_eq!(outcome(&policy, name), Outcome::Failed, "{name}");
        assert_eq!(verdict(&policy, facts()).failed().count(), 1, "{name}");
    }
}

#[test]
fn zero_names_nobody_unless_it_is_debug_mode() {
    let policy = Policy { pcr8: vec![pcr(0)], ..Policy::strict() };
    assert_eq!(outcome(&policy, "pcr8"), Outcome::Failed);
    let found = verdict(&policy, Facts { debug: true, ..facts() });
    assert_eq!(found.check("pcr8").unwrap().outcome, Outcome::Passed);
}

#[test]
fn absent_registers_are_not_any_value() {
    let policy = Policy { pcr8: vec![pcr(9)], ..Policy::strict() };
    let found = verdict(&policy, Facts { pcrs: BTreeMap::new(), ..facts() });
    let check = found.check("pcr8").unwrap();
    assert_eq!((check.outcome, check.found.as_str()), (Outcome::Failed, "absent"));
}

#[test]
fn a_signing_certificate_stands_for_its_register() {
    let certificate = SigningCertificate::from_pem(&certificate()).unwrap();
    let policy = Policy { signing_certificates: vec![certificate.clone()], ..Policy::strict() };
    assert!(!policy.names_program());
    assert_eq!(outcome(&policy, "pcr8"), Outcome::Failed);
    let mut signed = facts();
    signed.pcrs.insert(8, certificate.pcr8());
    assert!(verdict(&policy, signed).passes());
}

#[test]
fn register_8_is_computed_as_the_image_builder_does() {
    // python: sha384(bytes(48) + sha384(der).digest()), der being AWS's root certificate.
    let pem = include_str!("../../../../../vectors/evidence/nitro/nitro.pem");
    let found = SigningCertificate::from_pem(pem).unwrap().pcr8();
    assert_eq!(Hex(found).to_string(), PCR8_OF_ROOT);
}

#[test]
fn documents_may_be_too_old() {
    let at_most = |seconds| Policy { max_age_s: Some(seconds), ..Policy::strict() };
    assert_eq!(outcome(&at_most(60), "document age"), Outcome::Passed);
    assert_eq!(outcome(&at_most(59), "document age"), Outcome::Failed);
}

#[test]
fn programs_are_named_by_image_or_by_both_parts_and_not_by_signer() {
    let named = |policy: Policy| policy.names_program();
    assert!(!named(Policy::strict()) && !named(Policy::cloud()));
    assert!(named(Policy { pcr0: vec![pcr(1)], ..Policy::strict() }));
    assert!(!named(Policy { pcr8: vec![pcr(1)], ..Policy::strict() }));
    assert!(!named(Policy { pcr1: vec![pcr(1)], ..Policy::strict() }));
    assert!(!named(Policy { pcr2: vec![pcr(1)], ..Policy::strict() }));
    assert!(named(Policy { pcr1: vec![pcr(1)], pcr2: vec![pcr(1)], ..Policy::strict() }));
    assert!(!named(Policy { pcr3: vec![pcr(1)], pcr4: vec![pcr(1)], ..Policy::strict() }));
    assert!(
        !Policy::strict().allows_debug(&facts())
            && Policy { debug: true, ..Policy::strict() }.allows_debug(&facts())
    );
}

#[test]
fn sections_are_read_and_unknown_keys_refused() {
    let pem = certificate();
    let json =
        serde_json::json!({ "pcr0": ["01".repeat(48)], "signing_certificates": [pem], "max_age_s": 60 });
    let policy: Policy = serde_json::from_value(json).unwrap();
    assert_eq!((policy.pcr0.as_slice(), policy.max_age_s), (&[pcr(1)][..], Some(60)));
    // What is written reads back.
    let again = serde_json::from_value(serde_json::to_value(&policy).unwrap());
    assert_eq!(again.ok(), Some(policy));
    for wrong in [
        serde_json::json!({ "pcr9": [] }),
        serde_json::json!({ "pcr0": ["01"] }),
        serde_json::json!({ "pcr0": [] }),
        serde_json::json!({ "pcr0": ["zz".repeat(48)] }),
        serde_json::json!({ "signing_certificates": ["text"] }),
    ] {
        assert!(serde_json::from_value::<Policy>(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_certificate_says_why() {
    let pem = certificate();
    let error = |pem: &str| SigningCertificate::from_pem(pem).unwrap_err();
    assert_eq!(error(""), SigningCertificateError::Blocks { found: 0 });
    assert_eq!(error(&pem.repeat(2)), SigningCertificateError::Blocks { found: 2 });
    assert_eq!(error(&pem.replacen("MII", "M*I", 1)), SigningCertificateError::Base64);
    let key = in_pem(&KeyPair::generate().unwrap().subject_public_key_info());
    assert!(matches!(error(&key), SigningCertificateError::Certificate(_)));
}

const PCR8_OF_ROOT: &str =
    "df3a0511a411c6a5628d91a189a052d281dec8153ffecde6bdc1a059825c32e4bfb7fc95b367564a64812a8795af8f8a";
