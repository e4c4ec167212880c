use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::crl::CrlError;
use super::*;
use crate::Outcome;

const ARK: &[u8] = include_bytes!("../snp/roots/milan-ark.der");
const ASK: &[u8] = include_bytes!("../snp/roots/milan-ask.der");
const VCEK: &[u8] = include_bytes!("../../../../vectors/evidence/snp/vcek_milan.der");
const CHAIN: &str = include_str!("../../../../vectors/evidence/snp/cert_chain_milan");

fn certificate(der: &[u8]) -> Certificate {
    Certificate::from_der(der).unwrap()
}

fn authority(path_len: Option<u8>, usages: &[KeyUsagePurpose]) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "test root");
    params.is_ca = IsCa::Ca(path_len.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = usages.to_vec();
    CertifiedIssuer::self_signed(params, KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap()).unwrap()
}

fn leaf(
    issuer: &CertifiedIssuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> Certificate {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 12, 31);
    change(&mut params);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    certificate(params.signed_by(&key, issuer).unwrap().der())
}

fn at(text: &str) -> UnixTime {
    UnixTime(text.parse::<der::DateTime>().unwrap().unix_duration().as_secs())
}

fn outcome(check: impl FnOnce(&mut Verdict)) -> Outcome {
    let mut verdict = Verdict::default();
    check(&mut verdict);
    verdict.checks[0].outcome
}

#[test]
fn a_real_chain_verifies_up_to_its_root() {
    let (ark, ask, vcek) = (certificate(ARK), certificate(ASK), certificate(VCEK));
    assert_eq!(vcek.issued_by(&ask, 0), Ok(()));
    assert_eq!(ask.issued_by(&ark, 0), Ok(()));
    assert_eq!(ark.issued_by(&ark, 0), Ok(()));
    assert_eq!(
        (ask.common_name().as_str(), ask.serial(), vcek.serial()),
        ("SEV-Milan", &[1, 0, 1][..], &[][..])
    );
    assert_eq!(certificates_from_pem(CHAIN).unwrap(), [ask, ark]);
}

#[test]
fn every_wrong_issuer_is_told_apart() {
    let (ark, ask, vcek) = (certificate(ARK), certificate(ASK), certificate(VCEK));
    assert!(matches!(vcek.issued_by(&ark, 0), Err(IssueError::Issuer { .. })));
    assert!(matches!(vcek.issued_by(&ask, 1), Err(IssueError::PathLength { allowed: 0, found: 1, .. })));
    let root = authority(None, &[]);
    let same_name = authority(None, &[]);
    let good = leaf(&root, |_| {});
    assert_eq!(good.issued_by(&certificate(root.der()), 5), Ok(()));
    let wrong = good.issued_by(&certificate(same_name.der()), 0);
    assert_eq!(wrong, Err(IssueError::Signature(SignatureError::Wrong)));
    assert!(matches!(good.issued_by(&good, 0), Err(IssueError::Issuer { .. })));
    let signer = authority(None, &[KeyUsagePurpose::CrlSign]);
    let refused = leaf(&signer, |_| {}).issued_by(&certificate(signer.der()), 0);
    assert!(matches!(refused, Err(IssueError::NotAuthority { .. })));
    let critical = leaf(&root, |params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
    });
    let refused = critical.issued_by(&certificate(root.der()), 0);
    assert!(matches!(refused, Err(IssueError::Critical { oid }) if oid.to_string() == "1.2.3"));
}

#[test]
fn a_leaf_that_signs_is_no_authority() {
    let root = authority(None, &[]);
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "an ordinary certificate");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let ordinary = CertifiedIssuer::signed_by(params, key, &root).unwrap();
    let below = leaf(&ordinary, |_| {});
    let refused = below.issued_by(&certificate(ordinary.der()), 0);
    assert!(matches!(refused, Err(IssueError::NotAuthority { .. })), "{refused:?}");
}

#[test]
fn bytes_that_are_no_certificate_are_refused() {
    assert!(Certificate::from_der(&[]).is_err());
    assert!(Certificate::from_der(&[VCEK, &[0]].concat()).is_err());
    assert!(Certificate::from_der(&VCEK[..VCEK.len() - 1]).is_err());
    for text in ["", "text", &CHAIN[1..], &CHAIN[..100], &format!("{CHAIN}more")] {
        assert_eq!(certificates_from_pem(text), Err(PemError::Block), "{text}");
    }
    assert_eq!(certificates_from_pem(&CHAIN.replacen("MII", "M*I", 1)), Err(PemError::Base64(0)));
}

/// All bits of the certificate and of its signature: some make it malformed, none leave it verifying.
#[test]
fn no_certificate_with_a_flipped_bit_is_issued() {
    let ask = certificate(ASK);
    for position in 0..VCEK.len() {
        let mut flipped = VCEK.to_vec();
        flipped[position] ^= 1 << (position % 8);
        let issued = Certificate::from_der(&flipped).is_ok_and(|vcek| vcek.issued_by(&ask, 0).is_ok());
        assert!(!issued, "byte {position}");
    }
}

#[test]
fn certificates_have_a_first_and_a_last_second() {
    let root = authority(None, &[]);
    let leaf = leaf(&root, |_| {});
    let check = |now| outcome(|verdict| leaf.check_validity("validity", at(now), verdict));
    assert_eq!(check("2025-12-31T23:59:59Z"), Outcome::Failed);
    assert_eq!(check("2026-01-01T00:00:00Z"), Outcome::Passed);
    assert_eq!(check("2026-12-31T00:00:00Z"), Outcome::Passed);
    assert_eq!(check("2026-12-31T00:00:01Z"), Outcome::Undecided);
}

#[test]
fn revocation_lists_name_serials_and_have_an_age() {
    let root = authority(None, &[KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    let crl = Crl::from_der(&crl_of(&root)).unwrap();
    assert_eq!(crl.issued_by(&certificate(root.der())), Ok(()));
    assert_eq!(crl.revoked_since(&[1, 2]), Some(at("2026-02-01T00:00:00Z")));
    assert_eq!((crl.revoked_since(&[1]), crl.revoked_since(&[])), (None, None));
    let check = |now| outcome(|verdict| crl.check_age("crl", at(now), verdict));
    assert_eq!(check("2026-02-28T23:59:59Z"), Outcome::Failed);
    assert_eq!(check("2026-03-01T00:00:00Z"), Outcome::Passed);
    assert_eq!(check("2026-04-01T00:00:01Z"), Outcome::Undecided);
}

#[test]
fn revocation_lists_of_others_are_refused() {
    let usages = [KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let root = authority(None, &usages);
    let der = crl_of(&root);
    let crl = Crl::from_der(&der).unwrap();
    assert!(matches!(crl.issued_by(&certificate(ARK)), Err(CrlError::Issuer { .. })));
    let same_name = authority(None, &usages);
    let wrong = crl.issued_by(&certificate(same_name.der()));
    assert_eq!(wrong, Err(CrlError::Signature(SignatureError::Wrong)));
    let no_crls = authority(None, &[KeyUsagePurpose::KeyCertSign]);
    assert!(matches!(crl.issued_by(&certificate(no_crls.der())), Err(CrlError::Usage { .. })));
    assert!(Crl::from_der(&[&der[..], &[0]].concat()).is_err());
    for position in 0..der.len() {
        let mut flipped = der.clone();
        flipped[position] ^= 1 << (position % 8);
        let issued = Crl::from_der(&flipped).is_ok_and(|crl| crl.issued_by(&certificate(root.der())).is_ok());
        assert!(!issued, "byte {position}");
    }
}

fn crl_of(root: &CertifiedIssuer<'static, KeyPair>) -> Vec<u8> {
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from_slice(&[1, 2]),
        revocation_time: date_time_ymd(2026, 2, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 3, 1),
        next_update: date_time_ymd(2026, 4, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(root).unwrap().der().to_vec()
}
