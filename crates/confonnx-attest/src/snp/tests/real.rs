//! Reports of real processors, at instants when their certificates are valid, with `sev` as an independent peer.

use sev::certs::snp::{Chain, Verifiable, builtin, ca};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

use super::*;
use crate::testing;
use crate::{Claims, Expectations, Genuine, Platforms, Tee, digest};

/// 2026-01-01: within the validity of every VCEK here.
const THEN: UnixTime = UnixTime(1_767_225_600);
const MILAN_VCEK: &[u8] = include_bytes!("../../../../../vectors/evidence/snp/vcek_milan.der");
const MILAN_REPORT: &str = include_str!("../../../../../vectors/evidence/snp/report_milan.hex");

fn milan_report() -> Vec<u8> {
    digest::decode_array::<REPORT_BYTES>(MILAN_REPORT.trim()).unwrap().to_vec()
}

fn with_vcek(report: &[u8], vcek: &[u8]) -> Evidence {
    let vcek = Some(certificate(vcek));
    Evidence::new(report, Endorsements { vcek, ..Endorsements::default() }).unwrap()
}

fn verify(evidence: &Evidence, now: UnixTime) -> (Verdict, Option<Facts>) {
    let report_data = evidence.report.report_data;
    let mut verdict = Verdict::default();
    let facts = evidence.verify_with(Roots::amd(), &report_data, now, &mut verdict);
    (verdict, facts)
}

fn failures(evidence: &Evidence) -> Vec<(&'static str, Outcome)> {
    verify(evidence, THEN).0.failed().map(|check| (check.name, check.outcome)).collect()
}

/// What `sev` says of signature and chain.
fn peer(report: &[u8], vcek: &[u8], product: Product) -> bool {
    let ca = match product {
        Product::Milan => {
            ca::Chain { ark: builtin::milan::ark().unwrap(), ask: builtin::milan::ask().unwrap() }
        }
        Product::Genoa => {
            ca::Chain { ark: builtin::genoa::ark().unwrap(), ask: builtin::genoa::ask().unwrap() }
        }
        Product::Turin => {
            ca::Chain { ark: builtin::turin::ark().unwrap(), ask: builtin::turin::ask().unwrap() }
        }
    };
    let Ok(vek) = sev::certs::snp::Certificate::from_der(vcek) else { return false };
    let chain = Chain { ca, vek };
    let Ok(report) = AttestationReport::from_bytes(report) else { return false };
    (&chain, &report).verify().is_ok()
}

fn agrees_with_peer(bytes: &[u8]) {
    let (ours, theirs) = (Report::parse(bytes).unwrap(), AttestationReport::from_bytes(bytes).unwrap());
    assert_eq!(ours.version, theirs.version);
    assert_eq!(ours.guest_svn, theirs.guest_svn);
    assert_eq!(ours.policy.allows_debug(), theirs.policy.debug_allowed());
    assert_eq!(ours.policy.allows_migration(), theirs.policy.migrate_ma_allowed());
    assert_eq!(ours.platform.smt(), theirs.plat_info.smt_enabled());
    assert_eq!(ours.vmpl, theirs.vmpl);
    assert_eq!(ours.measurement[..], theirs.measurement[..]);
    assert_eq!(ours.report_data[..], theirs.report_data[..]);
    assert_eq!(ours.host_data[..], theirs.host_data[..]);
    assert_eq!(ours.id_key_digest[..], theirs.id_key_digest[..]);
    assert_eq!(ours.author_key_digest[..], theirs.author_key_digest[..]);
    assert_eq!(ours.chip_id[..], theirs.chip_id[..]);
    let product = ours.product().flatten().unwrap_or(Product::Milan);
    for (ours, theirs) in [
        (ours.reported_tcb, theirs.reported_tcb),
        (ours.committed_tcb, theirs.committed_tcb),
        (ours.launch_tcb, theirs.launch_tcb),
        (ours.current_tcb, theirs.current_tcb),
    ] {
        let theirs = Tcb {
            fmc: theirs.fmc.unwrap_or_default(),
            bootloader: theirs.bootloader,
            tee: theirs.tee,
            snp: theirs.snp,
            microcode: theirs.microcode,
        };
        assert_eq!(Tcb::decode(ours, product), Some(theirs));
    }
}

#[test]
fn amds_roots_are_all_there_and_sign_themselves() {
    for product in Product::ALL {
        let root = Roots::amd().of(product).unwrap();
        assert_eq!(root.ark.issued_by(&root.ark, 0), Ok(()));
        assert_eq!(root.ark.common_name(), format!("ARK-{product}"));
        let ask = root.ask.as_ref().unwrap();
        assert_eq!(ask.issued_by(&root.ark, 0), Ok(()));
        assert_eq!(ask.common_name(), format!("SEV-{product}"));
    }
    let pem = include_str!("../../../../../vectors/evidence/snp/cert_chain_turin");
    let root = Roots::amd().of(Product::Turin).unwrap();
    let chain = [root.ask.clone().unwrap(), root.ark.clone()];
    assert_eq!(crate::x509::certificates_from_pem(pem).unwrap(), chain);
}

#[test]
fn a_milan_report_is_genuine() {
    let evidence = with_vcek(&milan_report(), MILAN_VCEK);
    let (verdict, facts) = verify(&evidence, THEN);
    assert!(verdict.passes(), "{verdict}");
    let measured = facts.unwrap().into_measured();
    assert!(!measured.debug && measured.signer.is_none());
    assert_eq!(measured.enclave_hash.as_bytes(), &milan_report()[0x90..0xC0]);
    agrees_with_peer(&milan_report());
    assert!(peer(&milan_report(), MILAN_VCEK, Product::Milan));
    let outcome = |now| verify(&evidence, UnixTime(now)).0.check("vcek validity").unwrap().outcome;
    // 2023-04-03T19:23:43Z to 2030-04-03T19:23:43Z.
    assert_eq!(outcome(1_680_549_822), Outcome::Failed);
    assert_eq!(outcome(1_680_549_823), Outcome::Passed);
    assert_eq!(outcome(1_901_474_623), Outcome::Passed);
    assert_eq!(outcome(1_901_474_624), Outcome::Undecided);
}

#[test]
fn a_turin_vcek_chains_to_its_root_and_has_its_own_layout() {
    let vcek = certificate(include_bytes!("../../../../../vectors/evidence/snp/vcek_turin.der"));
    let ask = Roots::amd().of(Product::Turin).unwrap().ask.as_ref().unwrap();
    assert_eq!(vcek.issued_by(ask, 0), Ok(()));
    let tcb = Tcb { fmc: 0, bootloader: 0, tee: 0, snp: 0, microcode: 9 };
    assert_eq!(super::super::chain::tcb_of(&vcek, Product::Turin), Some(tcb));
    assert_eq!(super::super::chain::product_of(&vcek), Some(Product::Turin));
}

/// Flips one random-looking bit of every byte, and all bits of the header, of the key info, of the TCB and of what the
/// signature does not cover.
#[test]
fn no_report_with_a_flipped_bit_is_genuine() {
    let report = milan_report();
    let evidence = with_vcek(&report, MILAN_VCEK);
    let report_data = evidence.report.report_data;
    let endorsements = *evidence.endorsements;
    // The whole verification refuses what the signature refuses, with some ten times as much work. So it is run on what
    // the signature leaves, and on every eighth byte.
    let key = Certificate::from_der(MILAN_VCEK).unwrap().public_key().unwrap();
    let refused_early = |bytes: &[u8]| {
        let report = Report::parse(bytes).unwrap();
        report.signature().is_none_or(|signature| {
            key.verify(Algorithm::EcdsaFixed(Hash::Sha384), report.signed(), &signature).is_err()
        })
    };
    assert!(!refused_early(&report));
    let mut flips = 0;
    for position in 0..report.len() {
        let all = position < 0x50 || (0x180..0x1A0).contains(&position) || position >= 0x2A0;
        let bits = if all { 0..8 } else { position * 7 % 8..position * 7 % 8 + 1 };
        for bit in bits {
            let mut flipped = report.clone();
            flipped[position] ^= 1 << bit;
            flips += 1;
            if !position.is_multiple_of(8) && refused_early(&flipped) {
                continue;
            }
            let mut verdict = Verdict::default();
            let evidence = Evidence::new(&flipped, endorsements.clone()).unwrap();
            evidence.verify_with(Roots::amd(), &report_data, THEN, &mut verdict);
            assert!(!verdict.passes(), "byte {position:#x} bit {bit}");
        }
    }
    assert!(flips > 5000, "{flips}");
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn shared_reports_have_their_verdict() {
    let cases = [
        ("trustee_test-report.bin", "trustee_test-vcek.der", Product::Milan),
        ("gosev_attestation_DEBUG.bin", "gosev_vcek.der", Product::Milan),
        ("oak_genoa_oc_report.bin", "oak_genoa_oc_vcek.der", Product::Genoa),
        ("oak_milan_oc_release_report.bin", "oak_milan_oc_release_vcek.der", Product::Milan),
    ];
    for (report, vcek, product) in cases {
        let (report, vcek) = (shared(report), shared(vcek));
        let evidence = with_vcek(&report, &vcek);
        let (verdict, facts) = verify(&evidence, THEN);
        assert!(verdict.passes(), "{verdict}");
        let facts = facts.unwrap();
        assert_eq!(facts.product, Some(product));
        agrees_with_peer(&report);
        assert!(peer(&report, &vcek, product));
        let mut wrong = report.clone();
        wrong[0x90] ^= 1;
        assert_eq!(failures(&with_vcek(&wrong, &vcek)), [("signature", Outcome::Failed)]);
        assert!(!peer(&wrong, &vcek, product));
    }
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn a_shared_debug_report_is_genuine_and_refused() {
    let (report, vcek) = (shared("gosev_attestation_DEBUG.bin"), shared("gosev_vcek.der"));
    let (verdict, facts) = verify(&with_vcek(&report, &vcek), THEN);
    let measured = facts.unwrap().into_measured();
    let expected = Expectations {
        enclave_hashes: vec![measured.enclave_hash.clone()],
        platforms: Platforms::cloud(),
        ..Expectations::default()
    };
    let claims = Claims::example(THEN);
    let genuine = Genuine {
        key_configs: vec![],
        claims,
        tee: Tee::Snp,
        measured: measured.map(crate::evidence::Facts::Snp),
        fresh: true,
        release_proof: None,
        verdict,
    };
    let refused = genuine.appraise(&crate::Policy::new(expected).unwrap(), THEN).unwrap_err();
    let failed: Vec<_> = refused.verdict.failed().map(|check| check.name).collect();
    assert_eq!(failed, ["debug"]);
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn shared_vceks_with_a_broken_signature_are_refused() {
    for vcek in ["trustee_test-vcek-invalid-legacy.der", "trustee_test-vcek-invalid-new.der"] {
        let (report, vcek) = (shared("trustee_test-report.bin"), shared(vcek));
        let failures = failures(&with_vcek(&report, &vcek));
        assert!(failures.contains(&("chain", Outcome::Failed)), "{failures:?}");
        assert!(!peer(&report, &vcek, Product::Milan));
    }
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn shared_asvks_are_issued_by_the_pinned_roots() {
    for product in Product::ALL {
        let file = format!("{}_ask_ark_asvk.pem", product.name().to_lowercase());
        let pem = shared(&file);
        let chain = crate::x509::certificates_from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
        let [ask, ark, asvk] = &chain[..] else { panic!("{} certificates", chain.len()) };
        let root = Roots::amd().of(product).unwrap();
        assert_eq!((Some(ask), ark), (root.ask.as_ref(), &root.ark));
        assert_eq!(asvk.issued_by(&root.ark, 0), Ok(()));
        assert_eq!(asvk.common_name(), format!("SEV-VLEK-{product}"));
    }
}

fn shared(name: &str) -> Vec<u8> {
    testing::shared(&format!("snp/{name}"))
}
