//! Sections of policies: each of their keys accepts what is so, and refuses what is not.

use super::made;
use super::*;
use crate::measured::{Measured, Signer};
use crate::{Genuine, Hex, SigningKey, digest};

const SGX: &[u8] = include_bytes!("../../../../../vectors/evidence/sgx/sgx_quote");
const SGX_COLLATERAL: &[u8] = include_bytes!("../../../../../vectors/evidence/sgx/sgx_quote_collateral.json");

/// Facts of a trust domain whose platform is up to date, with dynamic platform and cached keys.
fn trust_domain(edit_report: fn(&mut Vec<u8>)) -> Measured<tdx::Facts> {
    let (verdict, facts) = made::trust_domain(edit_report);
    let facts = facts.unwrap_or_else(|| panic!("{verdict}"));
    Measured { enclave_hash: facts.enclave_hash().unwrap(), signer: None, debug: facts.is_debug(), facts }
}

fn enclave() -> Measured<sgx::Facts> {
    let collateral = serde_json::from_slice(SGX_COLLATERAL).unwrap();
    let endorsements = [("collateral".into(), collateral)].into_iter().collect();
    let evidence = sgx::Evidence::parse(SGX, &endorsements).unwrap();
    let data = crate::dcap::Quote::parse(SGX, crate::dcap::Kind::Sgx).unwrap().report_data();
    evidence.verify(&data, UnixTime(1_750_334_171), &mut Verdict::default()).unwrap()
}

fn tdx_failures(section: &str, measured: &Measured<tdx::Facts>) -> Vec<&'static str> {
    let evaluation =
        if section.contains("minimum_tcb_evaluation") { "" } else { "minimum_tcb_evaluation = 17\n" };
    let flags = "dynamic_platform = true\ncached_keys = true\n";
    let policy: tdx::Policy = toml::from_str(&format!("{flags}{evaluation}{section}")).unwrap();
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    verdict.failed().map(|check| check.name).collect()
}

fn sgx_failures(section: &str, measured: &Measured<sgx::Facts>) -> Vec<&'static str> {
    let tolerated = "tcb_statuses = [\"ConfigurationAndSWHardeningNeeded\"]\nadvisories = [\"INTEL-SA-00289\", \"INTEL-SA-00615\"]";
    let section = if section.contains("tcb_statuses") || section.contains("advisories") {
        section.to_owned()
    } else {
        format!("{tolerated}\n{section}")
    };
    let policy: sgx::Policy = toml::from_str(&format!("minimum_tcb_evaluation = 17\n{section}")).unwrap();
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    verdict.failed().map(|check| check.name).collect()
}

#[test]
fn every_value_of_a_trust_domain_can_be_expected() {
    let measured = trust_domain(|_| {});
    assert_eq!(tdx_failures("", &measured), [""; 0]);
    let mr_td = format!("mr_td = [\"{}\", \"{}\"]", "00".repeat(48), "3e".repeat(48));
    assert_eq!(tdx_failures(&mr_td, &measured), [""; 0]);
    let zeros = "00".repeat(48);
    for key in ["rtmr0", "rtmr1", "rtmr2", "rtmr3", "mr_seam", "mr_config_id", "mr_owner", "mr_owner_config"]
    {
        assert_eq!(tdx_failures(&format!("{key} = [\"{zeros}\"]"), &measured), [""; 0], "{key}");
        let other = format!("{key} = [\"01{}\"]", &zeros[2..]);
        assert_eq!(tdx_failures(&other, &measured), [key.replace('_', " ")], "{key}");
    }
    let other = |key: &str, bytes: usize| format!("{key} = [\"{}\"]", "01".repeat(bytes));
    assert_eq!(tdx_failures(&other("mr_td", 48), &measured), ["mr td"]);
    assert_eq!(tdx_failures(&other("xfam", 8), &measured), ["xfam"]);
    assert_eq!(tdx_failures(&other("fmspc", 6), &measured), ["fmspc"]);
    assert_eq!(tdx_failures(&other("ppid", 16), &measured), ["ppid"]);
    assert_eq!(tdx_failures(&other("platform_instance_id", 16), &measured), ["platform instance"]);
    let right = format!("ppid = [\"{}\"]\nfmspc = [\"00906ed50000\"]", "99".repeat(16));
    assert_eq!(tdx_failures(&right, &measured), [""; 0]);
}

#[test]
fn platform_flags_and_levels_are_decided_by_the_section() {
    let measured = trust_domain(|_| {});
    assert_eq!(tdx_failures("minimum_tcb_evaluation = 17", &measured), [""; 0]);
    assert_eq!(tdx_failures("minimum_tcb_evaluation = 18", &measured), ["tcb evaluation"]);
    assert_eq!(tdx_failures("tcb_statuses = [\"OutOfDate\"]", &measured), ["tcb status"]);
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    tdx::Policy::strict().check(facts, &measured.enclave_hash, &mut verdict);
    assert_eq!(
        failures(&verdict).iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["tcb evaluation", "dynamic platform", "cached keys"]
    );

    let newer = trust_domain(|report| report[..3].copy_from_slice(&[6, 1, 4]));
    let svn = |bytes: &str| format!("minimum_tee_tcb_svn = \"{bytes}{}\"", "00".repeat(13));
    assert_eq!(tdx_failures(&svn("060104"), &newer), [""; 0]);
    // The SVN is compared byte by byte: a newer module does not make up for an older loader.
    assert_eq!(tdx_failures(&svn("050105"), &newer), ["tee tcb svn"]);
}

#[test]
fn attributes_have_to_be_allowed_by_name() {
    let perfmon = trust_domain(|report| report[0x7f] |= 0x80);
    assert_eq!(tdx_failures("", &perfmon), ["attributes"]);
    assert_eq!(tdx_failures("attributes = [\"PERFMON\"]", &perfmon), [""; 0]);
    let unnamed = trust_domain(|report| report[0x7a] |= 0x04);
    let all = "attributes = [\"ICSSD\", \"SERVTD_EXT\", \"LASS\", \"PKS\", \"KL\", \"TPA\", \"PERFMON\"]";
    assert_eq!(tdx_failures(all, &unnamed), ["attributes"]);
    assert!(toml::from_str::<tdx::Policy>("attributes = [\"DEBUG\"]").is_err());
    assert!(toml::from_str::<tdx::Policy>("tcb_statuses = [\"Revoked\"]").is_err());
}

#[test]
fn service_trust_domains_are_refused_unless_named() {
    let mut measured = trust_domain(|_| {});
    let facts = &mut measured.facts;
    facts.mr_service_td = [0xaa; 48];
    assert_eq!(tdx_failures("", &measured), ["service td"]);
    assert_eq!(tdx_failures(&format!("mr_service_td = [\"{}\"]", "aa".repeat(48)), &measured), [""; 0]);
    assert_eq!(
        tdx_failures(&format!("mr_service_td = [\"{}\"]", "ab".repeat(48)), &measured),
        ["service td"]
    );
}

/// Neither of the two values stands for the other.
#[test]
fn service_trust_domains_of_now_and_of_creation_are_both_judged() {
    let named = format!("mr_service_td = [\"{}\"]", "aa".repeat(48));
    let judged = |created: [u8; 48], current: [u8; 48], section: &str| {
        let mut measured = trust_domain(|_| {});
        (measured.facts.mr_service_td, measured.facts.current_service_td) = (created, Some(current));
        tdx_failures(section, &measured)
    };
    assert_eq!(judged([0; 48], [0; 48], ""), [""; 0]);
    assert_eq!(judged([0xaa; 48], [0xaa; 48], &named), [""; 0]);
    assert_eq!(judged([0xbb; 48], [0xaa; 48], &named), ["service td"]);
    assert_eq!(judged([0xaa; 48], [0xbb; 48], &named), ["current service td"]);
    assert_eq!(judged([0; 48], [0xbb; 48], ""), ["current service td"]);
}

/// A member of a group knows from its own evidence what Intel has stated, and when.
#[test]
fn who_joins_has_no_older_word_of_intels() {
    let (verdict, _) = made::trust_domain(|_| {});
    // TCB info and QE identity are of 10 November 2026, revocation lists of the first.
    assert_eq!(verdict.stated_at(), Some(UnixTime(1_794_268_800)));
    let mut platforms = crate::Platforms::cloud();
    platforms.raise_tcb_evaluation(18);
    let number = |platforms: &crate::Platforms| platforms.tdx.as_ref().unwrap().minimum_tcb_evaluation;
    assert_eq!((number(&platforms), number(&crate::Platforms::cloud())), (Some(18), Some(17)));
    platforms.raise_tcb_evaluation(16);
    assert_eq!(number(&platforms), Some(18));
    assert_eq!(platforms.sgx.unwrap().minimum_tcb_evaluation, Some(18));
    assert_eq!(trust_domain(|_| {}).facts.tcb_evaluation(), Some(17));
}

/// Its own evidence is the least that a policy accepts of others from then on.
#[test]
fn a_policy_that_is_no_older_than_ones_own_evidence_refuses_what_is() {
    let genuine = |evaluation: u32| {
        let (verdict, _) = made::trust_domain(|_| {});
        let mut measured = trust_domain(|_| {});
        measured.facts.platform.tcb_evaluation = evaluation;
        Genuine {
            key_configs: Vec::new(),
            claims: crate::Claims::example(UnixTime(1_795_426_200)),
            tee: crate::Tee::Tdx,
            measured: measured.map(crate::evidence::Facts::Tdx),
            fresh: true,
            release_proof: None,
            verdict,
        }
    };
    let own = genuine(18);
    let expected = crate::Expectations {
        enclave_hashes: vec![own.enclave_hash().clone()],
        platforms: crate::Platforms::cloud(),
        ..crate::Expectations::default()
    };
    let policy = crate::Policy::new(expected).unwrap();
    let now = UnixTime(1_795_426_200);
    let failed = |policy: &crate::Policy, genuine: Genuine| {
        let refused = genuine.appraise(policy, now).err().map(|err| err.verdict);
        refused.iter().flat_map(Verdict::failed).map(|check| check.name).collect::<Vec<_>>()
    };
    assert_eq!(failed(&policy, genuine(17)), [""; 0]);
    assert_eq!(policy.time(UnixTime(5)), UnixTime(5));
    let policy = policy.no_older_than(&own);
    assert_eq!(failed(&policy, genuine(17)), ["tcb evaluation"]);
    assert_eq!(failed(&policy, genuine(18)), [""; 0]);
    // The tenth of November, when Intel had stated the last of it.
    assert_eq!((policy.time(UnixTime(5)), policy.time(now)), (UnixTime(1_794_268_800), now));
}

#[test]
fn a_trust_domain_is_named_by_all_it_booted() {
    let named = |keys: &[&str]| {
        let lines: Vec<_> = keys.iter().map(|key| format!("{key} = [\"{}\"]", "00".repeat(48))).collect();
        toml::from_str::<tdx::Policy>(&lines.join("\n")).unwrap().names_program()
    };
    assert!(named(&["mr_td", "rtmr0", "rtmr1", "rtmr2"]));
    for keys in [&["mr_td"][..], &["mr_td", "rtmr1", "rtmr2"], &["rtmr0", "rtmr1", "rtmr2"], &[]] {
        assert!(!named(keys), "{keys:?}");
    }
}

#[test]
fn every_value_of_an_enclave_can_be_expected() {
    let measured = enclave();
    let facts = &measured.facts;
    let report = &facts.report;
    let right = format!(
        "mr_enclave = [\"{}\"]\nmr_signer = [\"{}\"]\nisv_prod_id = [{}]\nminimum_isv_svn = {}\nconfig_id = [\"{}\"]\n\
         minimum_config_svn = {}\nfmspc = [\"00a067110000\"]",
        Hex(report.mr_enclave),
        Hex(report.mr_signer),
        report.isv_prod_id,
        report.isv_svn,
        Hex(report.config_id),
        report.config_svn,
    );
    assert_eq!(sgx_failures(&right, &measured), [""; 0]);
    let other = |key: &str, bytes: usize| format!("{key} = [\"{}\"]", "01".repeat(bytes));
    assert_eq!(sgx_failures(&other("mr_enclave", 32), &measured), ["mr enclave"]);
    assert_eq!(sgx_failures(&other("mr_signer", 32), &measured), ["mr signer"]);
    assert_eq!(sgx_failures(&other("config_id", 64), &measured), ["config id"]);
    assert_eq!(sgx_failures("isv_prod_id = [4711]", &measured), ["isv prod id"]);
    assert_eq!(sgx_failures("minimum_isv_svn = 4711", &measured), ["isv svn"]);
    assert_eq!(sgx_failures("minimum_config_svn = 4711", &measured), ["config svn"]);
    assert_eq!(sgx_failures("tcb_statuses = [\"UpToDate\"]", &measured), ["tcb status", "advisories"]);
    let one = "tcb_statuses = [\"ConfigurationAndSWHardeningNeeded\"]\nadvisories = [\"INTEL-SA-00615\"]";
    assert_eq!(sgx_failures(one, &measured), ["advisories"]);
    // A platform of one package has no number for the machine.
    assert_eq!(sgx_failures(&other("platform_instance_id", 16), &measured), ["platform instance"]);
}

#[test]
fn a_signer_alone_names_no_program() {
    let named = |section: &str| toml::from_str::<sgx::Policy>(section).unwrap().names_program();
    let signer = format!("mr_signer = [\"{}\"]", "00".repeat(32));
    assert!(!named("") && !named(&signer) && !named(&format!("{signer}\nisv_prod_id = [1]")));
    assert!(!named(&format!("{signer}\nminimum_isv_svn = 3")));
    assert!(named(&format!("{signer}\nisv_prod_id = [1]\nminimum_isv_svn = 3")));
    assert!(named(&format!("mr_enclave = [\"{}\"]", "00".repeat(32))));
}

/// The debug attribute of an enclave, although nothing signs such a report here.
#[test]
fn debug_of_an_enclave_is_an_attribute() {
    let mut report = SGX[48..432].to_vec();
    let parse = |report: &[u8]| crate::dcap::EnclaveReport::parse(report.try_into().unwrap()).unwrap();
    assert!(!parse(&report).is_debug());
    report[48] |= 2;
    assert!(parse(&report).is_debug());
}

#[test]
fn mr_signer_is_computed_from_the_public_key() {
    let found = Signer::new(&[0; 32], sgx::signer_of);
    // openssl rsa -pubin -noout -modulus; python: hashlib.sha256(bytes.fromhex(modulus)[::-1])
    let key = SigningKey::from_pem(KEY).unwrap();
    assert_eq!(
        key.expected(Some(&found)),
        "530f4c928d8ae27273e0d8da61461ad610be8d6859d2c62f1d7fd38407d9790a"
    );
    // An exponent that SGX does not use names nobody.
    let other = KEY.replace("IhAgED", "IhAgEF");
    assert_ne!(other, KEY);
    let expected = SigningKey::from_pem(&other).unwrap().expected(Some(&found));
    assert!(expected.starts_with("a program signed by SigningKey("), "{expected}");
    assert_eq!(sgx::signer_of(&digest::decode("3000").unwrap()), None);
}

const KEY: &str = "\
-----BEGIN PUBLIC KEY-----\n\
MIIBoDANBgkqhkiG9w0BAQEFAAOCAY0AMIIBiAKCAYEAzJ62LOMVaO7ErOmpyZd/\n\
a5uE0rmzGL6Psyi40LescO1dREgWle5qyOdVRRT72ETUZhKN77TBHIuYMJElX352\n\
tyfzQbzdX8Wy/aDAu3DWpiRbc77uJlWJT8/8rU5ifHYnwBJA2KU0OKb0zdPpSWnN\n\
8ef5ZJzSs4QEZxUZdkOHONanne2Ltc3vLDak5/vH+JKWT1RMXQIIs4SXYXpVZLtE\n\
oTqCPzAf8XB+iyNtR3AUZn3VtlGr6fKvaNk5j+d8lhJOQ1IiA7eqgo/QZ6drm/av\n\
HqJOu7sSjesDf6Wq6InAsMLeNZ7x1yl2OedwtqGXBm4GlIuNVT2DRQhrKzx1MdRA\n\
dsCLFuvIl47082MVJA7Fit0LN3bOM3C0hK9mGzVA+dC1+sabbdAQQ1dMgHY1qWac\n\
vczdo3rx7+sQSI9BFo3wu/6hgCI5AN2i/koVhhsJQhwJ9UUVWBsfy3sg44cOd7OK\n\
9P8P68lHHVk8TsT2Wdtu87vPWWzkUOe4594X+aECxjIhAgED\n\
-----END PUBLIC KEY-----\n";
