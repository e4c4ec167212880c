//! Quotes made with a test root: each has one thing wrong that no real file shows.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CustomExtension,
    DnType, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;
use sha2::{Digest as _, Sha256, Sha384};

use super::*;
use crate::dcap::quote::to_pem;
use crate::digest;
use crate::eventlog::tests::log;
use crate::x509::Certificate;
use Outcome::{Failed, Undecided};

type Issuer = CertifiedIssuer<'static, KeyPair>;
type Date = (i32, u8, u8);
type Edit = fn(&mut Vec<u8>);

/// 2026-11-23: when everything that [`Made::new`] makes is valid.
const NOW: UnixTime = UnixTime(1_795_426_200);
const REPORT_DATA: [u8; 64] = [0x5a; 64];
const FMSPC: [u8; 6] = [0x00, 0x90, 0x6e, 0xd5, 0, 0];
const PCK_SERIAL: u64 = 0x1111;
const CA_SERIAL: u64 = 0x2222;
const TCB_SERIAL: u64 = 0x3333;

macro_rules! date {
    ($date:expr) => {{
        let (year, month, day) = $date;
        date_time_ymd(year, month, day)
    }};
}

/// How evidence of a trust domain is made.
struct Made {
    pck_until: Date,
    pck_from: Date,
    pck_revoked: bool,
    ca_revoked: bool,
    signer_revoked: bool,
    crl_from: Date,
    crl_until: Date,
    /// The revocation list of the PCK's issuer is signed by the root instead.
    crl_forged: bool,
    /// The common name of who signs TCB info and QE identity.
    signer: &'static str,
    /// The chain in the quote ends in another root.
    other_anchor: bool,
    edit_tcb: fn(&mut Value),
    edit_identity: fn(&mut Value),
    /// Changes the report before the attestation key signs it.
    edit_report: Edit,
    /// Changes the quoting enclave's report before the PCK signs it.
    edit_qe: Edit,
    event_log: Option<Vec<u8>>,
}

/// A trust domain whose report `edit_report` changes.
pub(super) fn trust_domain(edit_report: Edit) -> (Verdict, Option<tdx::Facts>) {
    Made { edit_report, ..Made::new() }.verify()
}

impl Made {
    fn new() -> Self {
        Self {
            pck_until: (2033, 1, 1),
            pck_from: (2024, 1, 1),
            pck_revoked: false,
            ca_revoked: false,
            signer_revoked: false,
            crl_from: (2026, 11, 1),
            crl_until: (2026, 12, 1),
            crl_forged: false,
            signer: "Intel SGX TCB Signing",
            other_anchor: false,
            edit_tcb: |_| {},
            edit_identity: |_| {},
            edit_report: |_| {},
            edit_qe: |_| {},
            event_log: None,
        }
    }

    fn verify(&self) -> (Verdict, Option<tdx::Facts>) {
        let root = authority("Intel SGX Root CA", 1, None);
        let ca = authority("Intel SGX PCK Platform CA", CA_SERIAL, Some(&root));
        let pck_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let pck = self.pck().signed_by(&pck_key, &ca).unwrap();
        let mut signer = named(self.signer, TCB_SERIAL);
        signer.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let signer_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let signer = signer.signed_by(&signer_key, &root).unwrap();

        let anchor = if self.other_anchor { &authority("Intel SGX Root CA", 1, None) } else { &root };
        let chain = [pck.der(), ca.der(), anchor.der()].map(|der| to_pem(der)).concat();
        let quote = self.quote(&pck_key, &chain);

        let (mut info, mut identity) = (tcb_info(), qe_identity());
        (self.edit_tcb)(&mut info);
        (self.edit_identity)(&mut identity);
        let issuer_chain = [signer.der(), root.der()].map(|der| to_pem(der)).concat();
        let (info, identity) = (info.to_string(), identity.to_string());
        let root_revoked = [(self.ca_revoked, CA_SERIAL), (self.signer_revoked, TCB_SERIAL)];
        let pck_crl_issuer = if self.crl_forged { &root } else { &ca };
        let collateral = json!({
            "pck_crl_issuer_chain": "",
            "root_ca_crl": digest::encode(&self.crl(&root, &root_revoked)),
            "pck_crl": digest::encode(&self.crl(pck_crl_issuer, &[(self.pck_revoked, PCK_SERIAL)])),
            "tcb_info_issuer_chain": issuer_chain,
            "tcb_info": info,
            "tcb_info_signature": digest::encode(&sign(&signer_key, info.as_bytes())),
            "qe_identity_issuer_chain": issuer_chain,
            "qe_identity": identity,
            "qe_identity_signature": digest::encode(&sign(&signer_key, identity.as_bytes())),
        });
        let mut endorsements = Map::new();
        endorsements.insert("collateral".into(), collateral);
        if let Some(log) = &self.event_log {
            use base64ct::{Base64UrlUnpadded, Encoding};
            endorsements.insert("event_log".into(), Base64UrlUnpadded::encode_string(log).into());
        }
        let evidence = tdx::Evidence::parse(&quote, &endorsements).unwrap();
        let root = Root::new(Certificate::from_der(root.der()).unwrap());
        let mut verdict = Verdict::default();
        let facts = evidence.verify_with(&root, &REPORT_DATA, NOW, &mut verdict);
        (verdict, facts)
    }

    /// The checks that did not pass.
    fn failures(&self) -> Vec<(&'static str, Outcome)> {
        let (verdict, facts) = self.verify();
        let failures = failures(&verdict);
        assert_eq!(
            facts.is_some(),
            verdict.check("dcap").unwrap().outcome == Outcome::Passed && failures.is_empty()
        );
        failures
    }

    fn pck(&self) -> CertificateParams {
        let mut params = named("Intel SGX PCK Certificate", PCK_SERIAL);
        params.not_before = date!(self.pck_from);
        params.not_after = date!(self.pck_until);
        let flags =
            [(1, 0xff), (2, 0xff), (3, 0)].map(|(arc, value)| member(&[7, arc], &tlv(0x01, &[value])));
        let tcb = [member(&[2, 17], &tlv(0x02, &[13])), member(&[2, 18], &tlv(0x04, &[5; 16]))].concat();
        let extension = [
            member(&[1], &tlv(0x04, &[0x99; 16])),
            member(&[2], &tlv(0x30, &tcb)),
            member(&[3], &tlv(0x04, &[0; 2])),
            member(&[4], &tlv(0x04, &FMSPC)),
            member(&[5], &tlv(0x0a, &[1])),
            member(&[6], &tlv(0x04, &[0x66; 16])),
            member(&[7], &tlv(0x30, &flags.concat())),
        ];
        let oid = [1, 2, 840, 113741, 1, 13, 1];
        let extension = CustomExtension::from_oid_content(&oid, tlv(0x30, &extension.concat()));
        params.custom_extensions = vec![extension];
        params
    }

    fn quote(&self, pck: &KeyPair, chain: &str) -> Vec<u8> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let public = &ring_key(&key).public_key().as_ref()[1..].to_vec();
        let mut quote =
            [&[4, 0, 2, 0, 0x81, 0, 0, 0, 0, 0, 0, 0][..], &dcap_qvl::INTEL_QE_VENDOR_ID].concat();
        quote.resize(48, 0);
        let mut report = vec![0; 584];
        report[0x7b] = 0x10; // SEPT_VE_DISABLE
        report[0x88..0xb8].fill(0x3e);
        report[520..].copy_from_slice(&REPORT_DATA);
        (self.edit_report)(&mut report);
        quote.extend(report);
        let signature = sign(&key, &quote);

        let auth = [7; 32];
        let mut qe = vec![0; 384];
        qe[48] = 0x15;
        qe[128..160].fill(0xdc);
        qe[256] = 2;
        qe[258] = 8;
        qe[320..352].copy_from_slice(&Sha256::new().chain_update(public).chain_update(auth).finalize());
        (self.edit_qe)(&mut qe);
        let mut inner = [&qe[..], &sign(pck, &qe), &[32, 0], &auth, &[5, 0]].concat();
        inner.extend(u32::try_from(chain.len()).unwrap().to_le_bytes());
        inner.extend(chain.as_bytes());
        let mut data = [&signature[..], public, &[6, 0]].concat();
        data.extend(u32::try_from(inner.len()).unwrap().to_le_bytes());
        data.extend(inner);
        quote.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        quote.extend(data);
        quote
    }

    fn crl(&self, issuer: &Issuer, revoked: &[(bool, u64)]) -> Vec<u8> {
        let revoked = revoked.iter().filter(|(revoked, _)| *revoked).map(|&(_, serial)| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2026, 6, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date!(self.crl_from),
            next_update: date!(self.crl_until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(issuer).unwrap().der().to_vec()
    }
}

fn tcb_info() -> Value {
    let components = |svn: u8| vec![json!({ "svn": svn }); 16];
    json!({
        "id": "TDX", "version": 3, "issueDate": "2026-11-10T00:00:00Z", "nextUpdate": "2026-12-10T00:00:00Z",
        "fmspc": "00906ED50000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 17,
        "tdxModule": {
            "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8),
        },
        "tdxModuleIdentities": [{
            "id": "TDX_01",
            "mrsigner": "00".repeat(48), "attributes": "00".repeat(8), "attributesMask": "FF".repeat(8),
            "tcbLevels": [
                { "tcb": { "isvsvn": 6 }, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate" },
                { "tcb": { "isvsvn": 4 }, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "OutOfDate",
                  "advisoryIDs": ["INTEL-SA-01036"] },
            ],
        }],
        "tcbLevels": [{
            "tcb": { "sgxtcbcomponents": components(5), "pcesvn": 13, "tdxtcbcomponents": components(0) },
            "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate",
        }],
    })
}

fn qe_identity() -> Value {
    json!({
        "id": "TD_QE", "version": 2, "issueDate": "2026-11-10T00:00:00Z", "nextUpdate": "2026-12-10T00:00:00Z",
        "tcbEvaluationDataNumber": 18, "miscselect": "00000000", "miscselectMask": "FFFFFFFF",
        "attributes": format!("11{}", "00".repeat(15)), "attributesMask": format!("FB{}", "FF".repeat(15)),
        "mrsigner": "dc".repeat(32), "isvprodid": 2,
        "tcbLevels": [
            { "tcb": { "isvsvn": 8 }, "tcbDate": "2026-01-01T00:00:00Z", "tcbStatus": "UpToDate" },
            { "tcb": { "isvsvn": 6 }, "tcbDate": "2025-01-01T00:00:00Z", "tcbStatus": "OutOfDate",
              "advisoryIDs": ["INTEL-SA-00615"] },
        ],
    })
}

fn authority(name: &str, serial: u64, issuer: Option<&Issuer>) -> Issuer {
    let mut params = named(name, serial);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(u8::from(issuer.is_none())));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    match issuer {
        Some(issuer) => CertifiedIssuer::signed_by(params, key, issuer).unwrap(),
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
    }
}

fn named(name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from(serial));
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2045, 1, 1);
    params
}

fn ring_key(key: &KeyPair) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key.serialize_der(), &random).unwrap()
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    ring_key(key).sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
}

/// A member of Intel's extension: its name below 1.2.840.113741.1.13.1, and DER of its value.
fn member(arcs: &[u8], value: &[u8]) -> Vec<u8> {
    let oid = [&[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01], arcs].concat();
    tlv(0x30, &[tlv(0x06, &oid), value.to_vec()].concat())
}

fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let len = value.len();
    let header = match len {
        0..=0x7f => vec![tag, len as u8],
        0x80..=0xff => vec![tag, 0x81, len as u8],
        _ => vec![tag, 0x82, (len >> 8) as u8, len as u8],
    };
    [&header[..], value].concat()
}

#[test]
fn evidence_with_nothing_wrong_is_genuine() {
    let (verdict, facts) = Made::new().verify();
    assert!(verdict.passes(), "{verdict}");
    let platform = facts.unwrap().platform;
    assert_eq!((platform.fmspc, platform.ppid), (FMSPC, vec![0x99; 16]));
    assert_eq!(platform.platform_instance_id, Some([0x66; 16]));
    let flags = (platform.dynamic_platform, platform.cached_keys, platform.smt);
    assert_eq!(flags, (Some(true), Some(true), Some(false)));
    assert_eq!((platform.tcb_evaluation, platform.status), (17, tdx::TcbStatus::UpToDate));
}

#[test]
fn the_root_is_not_negotiable() {
    let made = Made { other_anchor: true, ..Made::new() };
    assert_eq!(made.failures(), [("chain", Failed)]);
}

#[test]
fn certificates_have_their_time() {
    let expired = Made { pck_until: (2026, 1, 1), ..Made::new() };
    assert_eq!(expired.failures(), [("chain validity", Undecided), ("dcap", Undecided)]);
    let future = Made { pck_from: (2027, 1, 1), ..Made::new() };
    assert_eq!(future.failures(), [("chain validity", Failed), ("dcap", Failed)]);
}

#[test]
fn revoked_certificates_fail() {
    for (made, who) in [
        (Made { pck_revoked: true, ..Made::new() }, "Intel SGX PCK Certificate"),
        (Made { ca_revoked: true, ..Made::new() }, "Intel SGX PCK Platform CA"),
        (Made { signer_revoked: true, ..Made::new() }, "Intel SGX TCB Signing"),
    ] {
        assert_eq!(made.failures(), [("revocation", Failed), ("dcap", Failed)]);
        let found = made.verify().0.check("revocation").unwrap().found.clone();
        assert!(found.starts_with(&format!("{who} is revoked since 2026-06-01")), "{found}");
    }
}

#[test]
fn revocation_lists_have_their_time_and_issuer() {
    let expired = Made { crl_until: (2026, 11, 20), ..Made::new() };
    let ages = [("pck crl age", Undecided), ("root crl age", Undecided), ("dcap", Undecided)];
    assert_eq!(expired.failures(), ages);
    // dcap-qvl does not look at the start, so this check is ours alone.
    let future = Made { crl_from: (2026, 11, 25), ..Made::new() };
    assert_eq!(future.failures(), [("pck crl age", Failed), ("root crl age", Failed)]);
    let forged = Made { crl_forged: true, ..Made::new() };
    assert_eq!(forged.failures(), [("pck crl", Failed), ("dcap", Failed)]);
}

#[test]
fn only_intels_signer_signs_what_intel_says() {
    // The signer was issued by the root like the right one. dcap-qvl does not look at names, so this check is ours
    // alone.
    let made = Made { signer: "Intel SGX PCK Processor CA", ..Made::new() };
    let names = ["tcb info", "tcb info validity", "qe identity", "qe identity validity"];
    let outcomes = [Failed, Undecided, Failed, Undecided];
    let expected: Vec<_> = names.into_iter().zip(outcomes).collect();
    assert_eq!(made.failures(), expected);
}

#[test]
fn tcb_info_has_its_time_and_platform() {
    let expired = Made { edit_tcb: |info| info["nextUpdate"] = "2026-11-20T00:00:00Z".into(), ..Made::new() };
    assert_eq!(expired.failures(), [("tcb info validity", Undecided), ("dcap", Undecided)]);
    let future = Made { edit_tcb: |info| info["issueDate"] = "2026-11-25T00:00:00Z".into(), ..Made::new() };
    assert_eq!(future.failures(), [("tcb info validity", Failed), ("dcap", Failed)]);
    let other = Made { edit_tcb: |info| info["fmspc"] = "00906ED50001".into(), ..Made::new() };
    assert_eq!(other.failures(), [("tcb info platform", Failed), ("dcap", Failed)]);
    // dcap-qvl does not compare the PCE id, so this check is ours alone.
    let other = Made { edit_tcb: |info| info["pceId"] = "0001".into(), ..Made::new() };
    assert_eq!(other.failures(), [("tcb info platform", Failed)]);
    let malformed = Made { edit_tcb: |info| info["tcbLevels"] = Value::Null, ..Made::new() };
    let failed = malformed.failures();
    assert!(
        failed.contains(&("tcb info", Failed)) && failed.contains(&("tcb level", Undecided)),
        "{failed:?}"
    );
}

#[test]
fn the_quoting_enclave_is_intels() {
    let expired = Made {
        edit_identity: |identity| identity["nextUpdate"] = "2026-11-20T00:00:00Z".into(),
        ..Made::new()
    };
    assert_eq!(expired.failures(), [("qe identity validity", Undecided), ("dcap", Undecided)]);
    let edits: [Edit; 6] = [
        |qe| qe[128] ^= 1, // MRSIGNER
        |qe| qe[256] ^= 1, // ISVPRODID
        |qe| qe[258] = 5,  // ISVSVN
        |qe| qe[48] |= 2,  // ATTRIBUTES: DEBUG
        |qe| qe[48] ^= 1,  // ATTRIBUTES
        |qe| qe[16] ^= 1,  // MISCSELECT
    ];
    for edit_qe in edits {
        let made = Made { edit_qe, ..Made::new() };
        assert_eq!(made.failures(), [("qe identity match", Failed), ("dcap", Failed)]);
    }
    let other = Made { edit_identity: |identity| identity["id"] = "QE".into(), ..Made::new() };
    assert_eq!(other.failures(), [("qe identity match", Failed), ("dcap", Failed)]);
    let unbound = Made { edit_qe: |qe| qe[320] ^= 1, ..Made::new() };
    assert_eq!(unbound.failures(), [("attestation key", Failed), ("dcap", Failed)]);
    // The second half of the quoting enclave's report data is Intel's zeros. dcap-qvl does not look, so this check is
    // ours alone.
    let unbound = Made { edit_qe: |qe| qe[352] ^= 1, ..Made::new() };
    assert_eq!(unbound.failures(), [("attestation key", Failed)]);
    let old = Made { edit_qe: |qe| qe[258] = 6, ..Made::new() };
    let platform = old.verify().1.unwrap().platform;
    assert_eq!((platform.status, &*platform.advisories[0]), (tdx::TcbStatus::OutOfDate, "INTEL-SA-00615"));
}

#[test]
fn the_tdx_module_is_intels() {
    let signed = Made { edit_report: |report| report[64] ^= 1, ..Made::new() };
    assert_eq!(signed.failures(), [("tdx module", Failed), ("dcap", Failed)]);
    let attributes = Made { edit_report: |report| report[112] ^= 1, ..Made::new() };
    assert_eq!(attributes.failures(), [("tdx module", Failed), ("dcap", Failed)]);
    // Module version 1 has an identity of its own, version 9 has none.
    let current = Made { edit_report: |report| report[..2].copy_from_slice(&[6, 1]), ..Made::new() };
    assert_eq!(current.failures(), []);
    let unknown = Made { edit_report: |report| report[..2].copy_from_slice(&[6, 9]), ..Made::new() };
    assert_eq!(unknown.failures(), [("tdx module", Failed), ("dcap", Failed)]);
    let older = Made { edit_report: |report| report[..2].copy_from_slice(&[3, 1]), ..Made::new() };
    assert_eq!(older.failures(), [("tdx module", Failed), ("dcap", Failed)]);
    let old = Made { edit_report: |report| report[..2].copy_from_slice(&[4, 1]), ..Made::new() };
    assert_eq!(old.verify().1.unwrap().platform.status, tdx::TcbStatus::OutOfDate);
}

#[test]
fn revoked_platforms_are_not_genuine() {
    let made = Made { edit_tcb: |info| info["tcbLevels"][0]["tcbStatus"] = "Revoked".into(), ..Made::new() };
    assert_eq!(made.failures(), [("dcap", Failed)]);
    assert!(made.verify().0.check("dcap").unwrap().found.contains("Revoked"));
}

#[test]
fn reserved_attributes_are_nobodys_to_accept() {
    let made = Made { edit_report: |report| report[0x79] |= 1, ..Made::new() };
    assert_eq!(made.failures(), [("td attributes", Failed), ("dcap", Failed)]);
    assert_eq!(made.verify().0.check("td attributes").unwrap().found, "reserved bits");
}

/// Real trust domains are started with both attributes: whether that will do is for the policy to say.
#[test]
fn what_policies_judge_does_not_make_evidence_less_genuine() {
    let edits: [(Edit, &str, &str); 3] = [
        (|report| report[0x7b] = 0, "sept ve disable", "sept_ve = true"),
        (|report| report[0x7b] |= 0x20, "attributes", "attributes = [\"MIGRATABLE\"]"),
        (|report| report[0x7b] = 0x20, "attributes", "sept_ve = true\nattributes = [\"MIGRATABLE\"]"),
    ];
    for (edit_report, name, allowed) in edits {
        let (verdict, facts) = trust_domain(edit_report);
        assert!(verdict.passes(), "{verdict}");
        let facts = facts.unwrap();
        assert_eq!(facts.platform.status, tdx::TcbStatus::UpToDate);
        let refused = |section: &str| {
            let flags = "dynamic_platform = true\ncached_keys = true\nminimum_tcb_evaluation = 17";
            let policy: tdx::Policy = toml::from_str(&format!("{flags}\n{section}")).unwrap();
            let mut verdict = Verdict::default();
            policy.check(&facts, &facts.enclave_hash().unwrap(), &mut verdict);
            verdict.failed().map(|check| check.name).collect::<Vec<_>>()
        };
        assert!(refused("").contains(&name), "{name}");
        assert_eq!(refused(allowed), [""; 0], "{allowed}");
    }
    // All else is still refused: the attributes excuse nothing.
    let made = Made { edit_report: |report| report[0x7b] = 0, pck_revoked: true, ..Made::new() };
    assert_eq!(made.failures(), [("revocation", Failed), ("dcap", Failed)]);
}

#[test]
fn what_intel_signed_in_another_version_decides_nothing() {
    let older = Made { edit_tcb: |info| info["version"] = 2.into(), ..Made::new() };
    let undecided = ["tcb info", "tcb info validity", "tcb info platform", "tdx module", "tcb level", "dcap"];
    assert_eq!(older.failures(), undecided.map(|name| (name, Undecided)));
    let newer = Made { edit_identity: |identity| identity["version"] = 9.into(), ..Made::new() };
    let undecided = ["qe identity", "qe identity validity", "qe identity match", "dcap"];
    assert_eq!(newer.failures(), undecided.map(|name| (name, Undecided)));
    // An unreadable version is no excuse if somebody else signed it.
    let forged = Made { edit_tcb: |info| info["version"] = 2.into(), signer: "Somebody", ..Made::new() };
    assert!(forged.failures().contains(&("tcb info", Failed)), "{:?}", forged.failures());
}

#[test]
fn a_platform_that_is_behind_says_by_how_much_and_since_when() {
    let behind = Made {
        edit_tcb: |info| {
            let mut newest = info["tcbLevels"][0].clone();
            newest["tcb"]["sgxtcbcomponents"][1] =
                json!({ "svn": 7, "category": "OS/VMM", "type": "SGX Late Microcode Update" });
            newest["tcb"]["pcesvn"] = 15.into();
            newest["tcbDate"] = "2026-08-12T00:00:00Z".into();
            info["tcbLevels"][0]["tcbStatus"] = "OutOfDate".into();
            info["tcbLevels"].as_array_mut().unwrap().push(newest);
        },
        ..Made::new()
    };
    let (verdict, facts) = behind.verify();
    assert!(verdict.passes(), "{verdict}");
    let facts = facts.unwrap();
    let mut verdict = Verdict::default();
    tdx::Policy::cloud().check(&facts, &facts.enclave_hash().unwrap(), &mut verdict);
    let found = &verdict.check("tcb status").unwrap().found;
    assert_eq!(
        found,
        "OutOfDate; behind Intel's newest level, of 2026-08-12: CPUSVN[1] 5 of 7 (update OS/VMM, SGX Late Microcode \
         Update), PCESVN 13 of 15 (update the SGX platform software)"
    );
}

#[test]
fn debug_and_profiling_are_debug() {
    for bits in [0x01, 0x10, 0x20, 0x40] {
        let edit_report: Edit = match bits {
            0x01 => |report| report[0x78] = 0x01,
            0x10 => |report| report[0x78] = 0x10,
            0x20 => |report| report[0x78] = 0x20,
            _ => |report| report[0x78] = 0x40,
        };
        let (verdict, facts) = Made { edit_report, ..Made::new() }.verify();
        assert!(verdict.passes() && facts.unwrap().is_debug(), "{bits:#x}");
    }
}

#[test]
fn an_event_log_has_to_replay() {
    let events = log(&[(1, 8, b"firmware"), (3, 13, b"kernel")]);
    let differs = Made { event_log: Some(events.clone()), ..Made::new() };
    assert_eq!(differs.failures(), [("event log", Failed)]);
    let found = differs.verify().0.check("event log").unwrap().found.clone();
    assert_eq!(found, "RTMR0 different, RTMR1 without events, RTMR2 different, RTMR3 without events");
    let replayed = Made {
        edit_report: |report| {
            let extended =
                |data: &[u8]| Sha384::new().chain_update([0; 48]).chain_update(Sha384::digest(data));
            report[328..376].copy_from_slice(&extended(b"firmware").finalize());
            report[424..472].copy_from_slice(&extended(b"kernel").finalize());
        },
        event_log: Some(events),
        ..Made::new()
    };
    assert_eq!(replayed.failures(), []);
    let malformed = Made { event_log: Some(vec![1; 100]), ..Made::new() };
    assert_eq!(malformed.failures(), [("event log", Failed)]);
}
