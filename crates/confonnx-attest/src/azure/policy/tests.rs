use serde_json::json;

use super::*;
use crate::Outcome::{self, Failed, Info, Passed, Undecided};
use crate::Tee;
use crate::contract::Attested as _;
use crate::measured::Measured;
use crate::tpm::Pcrs;

/// What a good machine says: PCR n holds n 32 times.
fn measured() -> Measured<Facts> {
    let (_, evidence) = snp::tests::evidence_for([0; 64]);
    let hardware =
        evidence.verify(&[0; 64], crate::UnixTime(1_795_426_200), &mut Verdict::default()).unwrap();
    let hardware = Processor::Snp(Box::new(hardware));
    let pcrs = Pcrs((0..24).map(|index| (index, [index; 32])).collect());
    let quoted = Quoted { clock: 5, reset_count: 1, restart_count: 2, safe: true, firmware_version: 3 };
    let vm = VmConfiguration {
        secure_boot: Some(true),
        console_enabled: Some(false),
        interactive_console_enabled: None,
        tpm_enabled: Some(true),
        vm_unique_id: Some("D270E56B-F668-4990-A5BC-9B624576841D".into()),
    };
    Measured {
        enclave_hash: crate::Digest([7; 32]).into(),
        signer: None,
        debug: false,
        facts: Facts { hardware, vm, pcrs, quoted },
    }
}

/// A policy that a good machine passes.
fn policy() -> Policy {
    let mut policy = Policy::cloud();
    policy.snp.measurements = vec![Hex([0x3e; 48])];
    policy
}

fn verdict_with(policy: &Policy, change: impl FnOnce(&mut Facts)) -> Verdict {
    let mut measured = measured();
    change(&mut measured.facts);
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    verdict
}

fn outcome(policy: &Policy, name: &str, change: impl FnOnce(&mut Facts)) -> Outcome {
    verdict_with(policy, change).check(name).unwrap().outcome
}

#[test]
fn what_nobody_expects_is_stated() {
    let verdict = verdict_with(&policy(), |_| {});
    assert!(verdict.passes(), "{verdict}");
    for name in ["paravisor", "boot measurement", "pcrs", "vm", "tpm clock"] {
        assert_eq!(verdict.check(name).unwrap().outcome, Info, "{name}");
    }
}

#[test]
fn nobody_trusts_a_paravisor_that_nobody_named() {
    let bare = Policy::cloud();
    assert_eq!(outcome(&bare, "paravisor", |_| {}), Undecided);
    let mut other = Policy::cloud();
    other.snp.measurements = vec![Hex([0x3f; 48])];
    assert_eq!(outcome(&other, "measurement", |_| {}), Failed);
    // A section for the other processor names nothing for this one.
    let mut tdx_only = Policy::cloud();
    tdx_only.snp = snp::Policy::cloud();
    assert_eq!(outcome(&tdx_only, "paravisor", |_| {}), Undecided);
}

#[test]
fn measurements_and_registers_are_compared() {
    let with = |hash: u8| Policy { measurements: vec![Hex([99; 32]), Hex([hash; 32])], ..policy() };
    assert_eq!(outcome(&with(7), "boot measurement", |_| {}), Passed);
    assert_eq!(outcome(&with(8), "boot measurement", |_| {}), Failed);
    let pcr = |index, value| {
        let pcrs = [(PcrIndex::new(index).unwrap(), vec![Hex([value; 32])])].into_iter().collect();
        Policy { pcrs, ..policy() }
    };
    assert_eq!(outcome(&pcr(4, 4), "pcrs", |_| {}), Passed);
    assert_eq!(outcome(&pcr(4, 5), "pcrs", |_| {}), Failed);
    let without_4 = |facts: &mut Facts| facts.pcrs.0.retain(|&index, _| index != 4);
    assert_eq!(outcome(&pcr(4, 4), "pcrs", without_4), Failed);
}

#[test]
fn machines_may_be_named() {
    let named = |id: &str| Policy { vms: vec![id.into()], ..policy() };
    let same = named("d270e56b-f668-4990-a5bc-9b624576841d");
    assert_eq!(outcome(&same, "vm", |_| {}), Passed);
    assert_eq!(outcome(&named("another"), "vm", |_| {}), Failed);
    assert_eq!(outcome(&same, "vm", |facts| facts.vm.vm_unique_id = None), Failed);
}

#[test]
fn secure_boot_has_to_be_on_where_the_policy_is_strict() {
    let strict = Policy::strict();
    for (flag, expected) in [(Some(true), Passed), (Some(false), Failed), (None, Failed)] {
        assert_eq!(outcome(&strict, "secure boot", |facts| facts.vm.secure_boot = flag), expected);
        assert_eq!(outcome(&policy(), "secure boot", |facts| facts.vm.secure_boot = flag), Passed);
    }
}

#[test]
fn an_interactive_console_is_refused_where_the_policy_is_strict() {
    let strict = Policy::strict();
    let cases = [
        (Some(false), None, Passed),
        (Some(false), Some(true), Passed),
        (Some(true), Some(false), Passed),
        (Some(true), Some(true), Failed),
        // An older paravisor does not say whether its console is interactive.
        (Some(true), None, Failed),
        (None, None, Failed),
        (None, Some(false), Passed),
    ];
    for (console, interactive, expected) in cases {
        let change = |facts: &mut Facts| {
            facts.vm.console_enabled = console;
            facts.vm.interactive_console_enabled = interactive;
        };
        assert_eq!(outcome(&strict, "console", change), expected, "{console:?} {interactive:?}");
        assert_eq!(outcome(&policy(), "console", change), Passed);
    }
}

#[test]
fn debug_is_allowed_by_the_processors_own_section() {
    let measured = measured();
    let facts = &measured.facts;
    let mut policy = policy();
    assert!(!policy.allows_debug(facts));
    policy.snp.debug = true;
    assert!(policy.allows_debug(facts));
    let mut other = Policy::cloud();
    other.snp.debug = false;
    assert!(!other.allows_debug(facts));
}

#[test]
fn programs_are_named_by_what_booted_not_by_the_paravisor() {
    assert!(!policy().names_program());
    assert!(Policy { measurements: vec![Hex([7; 32])], ..Policy::strict() }.names_program());
    let pcrs = |indices: &[u8]| {
        let pcrs = indices.iter().map(|&index| (PcrIndex::new(index).unwrap(), vec![Hex([1; 32])]));
        Policy { pcrs: pcrs.collect(), ..Policy::strict() }
    };
    assert!(pcrs(&[0, 2, 4, 11]).names_program());
    for indices in [&[4][..], &[11], &[4, 11], &[0, 2, 4], &[0, 2, 11], &[0, 4, 11], &[2, 4, 11]] {
        assert!(!pcrs(indices).names_program(), "{indices:?}");
    }
}

#[test]
fn sections_are_read_and_unknown_keys_refused() {
    let text = json!({
        "measurements": ["07".repeat(32)], "pcrs": { "4": ["04".repeat(32)] },
        "snp": { "id_keys": ["01".repeat(48)] },
    });
    let read: Policy = serde_json::from_value(text).unwrap();
    assert_eq!(read.measurements, [Hex([7; 32])]);
    assert_eq!(read.snp.id_keys, [Hex([1; 48])]);
    let again: Policy = serde_json::from_value(serde_json::to_value(&read).unwrap()).unwrap();
    assert_eq!(format!("{again:?}"), format!("{read:?}"));
    let wrong = [
        json!({ "colour": 1 }),
        json!({ "measurements": [] }),
        json!({ "vms": [] }),
        json!({ "pcrs": { "23": ["04".repeat(32)] } }),
        json!({ "snp": { "colour": 1 } }),
    ];
    for value in wrong {
        assert!(serde_json::from_value::<Policy>(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn the_section_is_part_of_a_policy_file() {
    let text = format!(
        "preset = \"cloud\"\n[azure]\nmeasurements = [\"{}\"]\n[azure.snp]\nid_keys = [\"{}\"]",
        "07".repeat(32),
        "01".repeat(48)
    );
    let expected = crate::Expectations::from_toml(&text, &mut |_| panic!("names no file")).unwrap();
    let azure = expected.platforms.azure.as_ref().unwrap();
    assert_eq!((azure.measurements.len(), azure.snp.id_keys.len()), (1, 1));
    // The preset's other values are kept, in the nested section too.
    assert!(azure.console && !azure.require_secure_boot);
    assert_eq!(azure.snp.smt, snp::Policy::cloud().smt);
    assert_eq!(expected.platforms.accepted(), [Tee::Azure]);
}
