//! What the `[snp]` section of a policy makes of genuine evidence.

use super::*;
use base64ct::Encoding as _;

use crate::measured::Signer;
use crate::{Claims, Expectations, Genuine, Platforms, SigningKey, Tee};

fn failures(made: &Made, policy: &Policy) -> Vec<(&'static str, Outcome)> {
    let (_, facts) = made.verify();
    let measured = facts.unwrap().into_measured();
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    verdict.failed().map(|check| (check.name, check.outcome)).collect()
}

fn refused(edit: fn(&mut Policy)) -> Vec<(&'static str, Outcome)> {
    let mut policy = Policy::cloud();
    edit(&mut policy);
    failures(&Made::crl(), &policy)
}

#[test]
fn presets_differ_in_what_cloud_concedes() {
    let strict = || Policy { minimum_tcb: MinimumTcb::default(), ..Policy::strict() };
    assert_eq!(failures(&Made::crl(), &strict()), []);
    assert_eq!(failures(&Made::new(), &strict()), [("revocation list", Undecided)]);
    let smt = Made { edit_report: |report| report[0x40] |= 1, ..Made::crl() };
    assert_eq!(failures(&smt, &strict()), [("smt", Failed)]);
    let unchecked = Made { edit_report: |report| report[0x40] = 1, ..Made::new() };
    let expected = [("smt", Failed), ("alias check", Failed), ("revocation list", Undecided)];
    assert_eq!(failures(&unchecked, &strict()), expected);
    assert_eq!(failures(&unchecked, &Policy::cloud()), []);
    assert_eq!(Policy::default(), Policy::strict());
}

/// The made reports have TCB\[SNP\] 24, of whatever processor they are.
#[test]
fn strict_asks_for_the_firmware_that_amds_bulletins_ask_for() {
    let behind = ["tcb", "launch tcb", "committed tcb", "current tcb"].map(|name| (name, Failed));
    assert_eq!(failures(&Made::crl(), &Policy::strict()), behind);
    let (_, facts) = Made::crl().verify();
    let measured = facts.unwrap().into_measured();
    let mut verdict = Verdict::default();
    Policy::strict().check(&measured.facts, &measured.enclave_hash, &mut verdict);
    let found = &verdict.check("tcb").unwrap().found;
    assert!(found.ends_with("; behind: snp 24 of 28 (update the host's SEV firmware or BIOS)"), "{found}");
    assert_eq!(Policy::cloud().minimum_tcb, MinimumTcb::default());
}

/// One version below the floor of its processor each of a report's four numbers is refused, at the floor none.
#[test]
fn every_processor_has_a_floor_of_its_own() {
    const NAMES: [&str; 4] = ["tcb", "launch tcb", "committed tcb", "current tcb"];
    for (product, at, floor) in [("Milan", 6, 0x1D), ("Genoa", 6, 0x1C), ("Turin", 3, 0x04)] {
        let (_, facts) = Made { product, ..Made::crl() }.verify();
        let mut measured = facts.unwrap().into_measured();
        for below in [None, Some(0), Some(1), Some(2), Some(3)] {
            let report = &mut measured.facts.report;
            let numbers = [
                &mut report.reported_tcb,
                &mut report.launch_tcb,
                &mut report.committed_tcb,
                &mut report.current_tcb,
            ];
            for (i, tcb) in numbers.into_iter().enumerate() {
                tcb[at] = if below == Some(i) { floor - 1 } else { floor };
            }
            let mut verdict = Verdict::default();
            Policy::strict().check(&measured.facts, &measured.enclave_hash, &mut verdict);
            let failed: Vec<_> = verdict.failed().map(|check| check.name).collect();
            assert_eq!(
                failed,
                below.map(|i| NAMES[i]).into_iter().collect::<Vec<_>>(),
                "{product}: {verdict}"
            );
        }
    }
}

#[test]
fn mitigations_are_demanded_of_launch_and_of_now() {
    fn version_5(report: &mut [u8], launch: u8, now: u8) {
        (report[0], report[0x1F8], report[0x200]) = (5, launch, now);
    }
    let wants = |bits: &[u32]| Policy { mitigations: bits.to_vec(), ..Policy::cloud() };
    let both = Made { edit_report: |report| version_5(report, 0b1_0110, 0b1_0010), ..Made::new() };
    assert_eq!(failures(&both, &wants(&[1, 4])), []);
    for bits in [&[1, 2][..], &[0], &[64], &[u32::MAX]] {
        assert_eq!(failures(&both, &wants(bits)), [("mitigations", Failed)], "{bits:?}");
    }
    let since = Made { edit_report: |report| version_5(report, 0, 0b10), ..Made::new() };
    assert_eq!(failures(&since, &wants(&[1])), [("mitigations", Failed)], "what came before is not undone");
    assert_eq!(failures(&since, &Policy::cloud()), []);
    assert_eq!(failures(&Made::new(), &wants(&[1])), [("mitigations", Failed)], "a report that has none");
}

#[test]
fn guests_that_the_host_can_read_or_move_are_told() {
    let debug = Made { edit_report: |report| report[0x0A] |= 8, ..Made::new() };
    assert!(debug.verify().1.unwrap().into_measured().debug);
    assert!(!Made::new().verify().1.unwrap().into_measured().debug);
    let facts = Made::new().verify().1.unwrap();
    assert!(
        Policy { debug: true, ..Policy::cloud() }.allows_debug(&facts)
            && !Policy::cloud().allows_debug(&facts)
    );
    let migration = Made { edit_report: |report| report[0x0A] |= 4, ..Made::new() };
    assert_eq!(failures(&migration, &Policy::cloud()), [("migration", Failed)]);
    assert_eq!(failures(&migration, &Policy { migration: true, ..Policy::cloud() }), []);
    let level_one = Made { edit_report: |report| report[0x30] = 1, ..Made::new() };
    assert_eq!(failures(&level_one, &Policy::cloud()), [("vmpl", Failed)]);
    assert_eq!(failures(&level_one, &Policy { vmpl: vec![0, 1], ..Policy::cloud() }), []);
    let host = Made { edit_report: |report| report[0x30..0x34].fill(0xff), ..Made::new() };
    assert_eq!(failures(&host, &Policy::cloud()), [("vmpl", Failed)]);
}

#[test]
fn every_expectation_is_compared() {
    assert_eq!(refused(|policy| policy.measurements = vec![Hex([0x3e; 48])]), []);
    assert_eq!(refused(|policy| policy.measurements = vec![Hex([0x3f; 48])]), [("measurement", Failed)]);
    assert_eq!(refused(|policy| policy.chips = vec![Hex([1; 64]), Hex(CHIP)]), []);
    assert_eq!(refused(|policy| policy.chips = vec![Hex([1; 64])]), [("chip", Failed)]);
    assert_eq!(refused(|policy| policy.minimum_guest_svn = Some(0)), []);
    assert_eq!(refused(|policy| policy.minimum_guest_svn = Some(1)), [("guest svn", Failed)]);
    assert_eq!(refused(|policy| policy.host_data = vec![Hex([1; 32])]), [("host data", Failed)]);
    assert_eq!(refused(|policy| policy.require_ciphertext_hiding = true), [("ciphertext hiding", Failed)]);
    assert_eq!(refused(|policy| policy.providers = vec!["test".into()]), [("provider", Failed)]);
    let vlek = Policy { providers: vec!["other".into(), "test".into()], ..Policy::cloud() };
    assert_eq!(failures(&Made::vlek(), &vlek), []);
    let vlek = Policy { providers: vec!["other".into()], ..Policy::cloud() };
    assert_eq!(failures(&Made::vlek(), &vlek), [("provider", Failed)]);
}

#[test]
fn signers_are_compared_and_zero_is_nobody() {
    let signed = Made { edit_report: |report| report[0xE0..0x110].fill(7), ..Made::new() };
    let policy = Policy { id_keys: vec![Hex([7; 48])], ..Policy::cloud() };
    // A signer alone names no program: it has signed old ones.
    assert!(!policy.names_program() && !Policy::cloud().names_program());
    assert!(Policy { minimum_guest_svn: Some(1), ..policy.clone() }.names_program());
    assert_eq!(failures(&signed, &policy), []);
    assert_eq!(failures(&Made::new(), &policy), [("id key", Failed)]);
    assert_eq!(refused(|policy| policy.id_keys = vec![Hex([0; 48])]), [("id key", Failed)]);
    assert_eq!(refused(|policy| policy.author_keys = vec![Hex([7; 48])]), [("author key", Failed)]);
    let measured = signed.verify().1.unwrap().into_measured();
    assert_eq!(measured.signer.unwrap().reported(), [7; 48]);
    assert!(Made::new().verify().1.unwrap().into_measured().signer.is_none());
}

#[test]
fn flaw_6_a_signer_counts_only_with_a_version_or_a_measurement() {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let der = rcgen::PublicKeyData::subject_public_key_info(&key);
    let digest = signer_of(&der).unwrap();
    let body = base64ct::Base64::encode_string(&der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let signing_key = SigningKey::from_pem(&pem).unwrap();
    let genuine = |edit_report: fn(&mut Vec<u8>)| {
        let (_, facts) = Made { edit_report, ..Made::new() }.verify();
        let mut measured = facts.unwrap().into_measured();
        measured.signer = Some(Signer::new(&digest, signer_of));
        Genuine {
            key_configs: Vec::new(),
            claims: Claims::example(NOW),
            tee: Tee::Snp,
            measured: measured.map(crate::evidence::Facts::Snp),
            fresh: true,
            release_proof: None,
            verdict: Verdict::default(),
        }
    };
    let expected = |minimum_guest_svn| Expectations {
        signing_keys: vec![signing_key.clone()],
        platforms: Platforms {
            snp: Some(Policy { minimum_guest_svn, ..Policy::cloud() }),
            ..Platforms::cloud()
        }
        .only(Tee::Snp),
        ..Expectations::default()
    };
    let refused = |genuine: Genuine, expected: Expectations| {
        let policy = crate::Policy::new(expected).unwrap();
        let failed = genuine.appraise(&policy, NOW).err().map(|err| err.verdict);
        failed.iter().flat_map(Verdict::failed).map(|check| check.name).collect::<Vec<_>>()
    };
    let build = |expected| crate::Policy::new(expected).map(drop);
    assert_eq!(build(expected(None)), Err(crate::PolicyBuildError::SignerAlone));
    assert_eq!(refused(genuine(|report| report[4] = 3), expected(Some(3))), [""; 0]);
    assert_eq!(refused(genuine(|report| report[4] = 2), expected(Some(3))), ["guest svn"]);
    let debug = genuine(|report| (report[4], report[0x0A]) = (3, report[0x0A] | 8));
    assert_eq!(refused(debug, expected(Some(3))), ["debug"]);
    let other = Expectations { enclave_hashes: vec![Hex([0x3f; 48]).into()], ..expected(None) };
    assert_eq!(refused(genuine(|_| {}), other), ["enclave hash"]);
    let right = Expectations { enclave_hashes: vec![Hex([0x3e; 48]).into()], ..expected(None) };
    assert_eq!(refused(genuine(|_| {}), right), [""; 0]);
    // The permission to debug names no program either.
    let debugging = Expectations { allow_debug: true, ..expected(None) };
    assert_eq!(refused(genuine(|_| {}), debugging), ["enclave hash"]);
}

#[test]
fn minimum_tcbs_are_by_product_and_by_part() {
    let tcb = Tcb { fmc: 0, bootloader: 3, tee: 0, snp: 24, microcode: 219 };
    let policy = |genoa| {
        let minimum_tcb = MinimumTcb { genoa: Some(genoa), ..MinimumTcb::default() };
        Policy { minimum_tcb, ..Policy::cloud() }
    };
    assert_eq!(failures(&Made::new(), &policy(tcb)), []);
    let all = ["tcb", "launch tcb", "committed tcb", "current tcb"].map(|name| (name, Failed));
    for higher in [
        Tcb { bootloader: 4, ..tcb },
        Tcb { tee: 1, ..tcb },
        Tcb { snp: 25, ..tcb },
        Tcb { microcode: 220, ..tcb },
        Tcb { fmc: 1, ..tcb },
    ] {
        assert_eq!(failures(&Made::new(), &policy(higher)), all);
    }
    let launched_before = Made { edit_report: |report| report[0x1F6] = 23, ..Made::new() };
    assert_eq!(failures(&launched_before, &policy(tcb)), [("launch tcb", Failed)]);
    // One product has a minimum: the others are not accepted without.
    assert_eq!(failures(&Made::turin(), &policy(tcb)), all);
    let turin = MinimumTcb { turin: Some(Tcb { fmc: 7, ..tcb }), ..MinimumTcb::default() };
    assert_eq!(failures(&Made::turin(), &Policy { minimum_tcb: turin, ..Policy::cloud() }), []);
    let turin = MinimumTcb { turin: Some(Tcb { fmc: 8, ..tcb }), ..MinimumTcb::default() };
    assert_eq!(failures(&Made::turin(), &Policy { minimum_tcb: turin, ..Policy::cloud() }), all);
}

#[test]
fn sections_are_read_from_files() {
    let text = format!(
        "measurements = [\"{}\"]\nvmpl = [0, 2]\nsmt = true\n[minimum_tcb.milan]\nsnp = 24\nmicrocode = 219\n",
        "ab".repeat(48)
    );
    let policy: Policy = toml::from_str(&text).unwrap();
    assert_eq!(policy.minimum_tcb.milan, Some(Tcb { snp: 24, microcode: 219, ..Tcb::default() }));
    assert_eq!((policy.vmpl, policy.smt, policy.require_crl), (vec![0, 2], true, true));
    for wrong in [
        "measurements = []",
        "measurements = [\"ab\"]",
        "vmpl = []",
        "smtt = true",
        "[minimum_tcb.rome]\nsnp = 1",
    ] {
        assert!(toml::from_str::<Policy>(wrong).is_err(), "{wrong}");
    }
}
