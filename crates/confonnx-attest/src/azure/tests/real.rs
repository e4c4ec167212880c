//! Evidence of real virtual machines, in the layouts of others.

use super::*;
use crate::testing::shared;

/// The parts of others' JSON; all versions of it have these members.
fn parts(layout: &Value) -> (HclReport, Parts) {
    let hcl = Base64UrlUnpadded::decode_vec(&unpadded(&layout["hcl_report"])).unwrap();
    let hex = |value: &Value| crate::digest::decode(value.as_str().unwrap()).unwrap();
    let quote = &layout["tpm_quote"];
    let pcrs = quote["pcrs"].as_array().unwrap().iter().map(hex).collect();
    let parts = Parts { signature: hex(&quote["signature"]), message: hex(&quote["message"]), pcrs };
    (HclReport::parse(&hcl).unwrap(), parts)
}

/// Others' base64url with its padding taken away.
fn unpadded(value: &Value) -> String {
    value.as_str().unwrap().trim_end_matches('=').to_owned()
}

/// Our layout of the same evidence.
fn converted(layout: &Value) -> Evidence {
    let (hcl, quote) = parts(layout);
    let base64 = Base64UrlUnpadded::encode_string;
    let (kind, report, endorsements) = match hcl.hardware {
        HardwareReport::Snp(report) => ("snp", base64(&report), json!({ "vcek": unpadded(&layout["vcek"]) })),
        HardwareReport::Tdx(_) => ("tdx", unpadded(&layout["td_quote"]), json!({})),
    };
    let report = json!({
        "hardware": kind,
        "hardware_report": report,
        "runtime_data": base64(&hcl.runtime_data),
        "quote": base64(&quote.message),
        "signature": base64(&quote.tpmt_signature()),
        "pcrs": quote.pcrs.iter().map(|value| base64(value)).collect::<Vec<_>>(),
    });
    Evidence::parse(report.to_string().as_bytes(), endorsements.as_object().unwrap()).unwrap()
}

fn verdict_of(layout: &Value, data: &[u8]) -> (Verdict, Option<Measured<Facts>>) {
    let mut verdict = Verdict::default();
    let measured =
        converted(layout).verify_with(snp::Roots::amd(), data, at("2025-06-01T00:00:00Z"), &mut verdict);
    (verdict, measured)
}

fn at(text: &str) -> UnixTime {
    UnixTime(text.parse::<der::DateTime>().unwrap().unix_duration().as_secs())
}

fn layout(name: &str) -> Value {
    serde_json::from_slice(&shared(name)).unwrap()
}

fn check_snp(layout: &Value, data: &[u8]) {
    let (verdict, measured) = verdict_of(layout, data);
    assert!(verdict.passes(), "{verdict}");
    let (other, _) = verdict_of(layout, b"other");
    assert_eq!(bad(&other), [("report data", Failed)]);
    // A policy complains of nothing but that nobody named the paravisor, and of the console.
    let measured = measured.unwrap();
    assert!(!measured.debug);
    let facts = &measured.facts;
    let mut verdict = Verdict::default();
    Policy::cloud().check(facts, &measured.enclave_hash, &mut verdict);
    assert_eq!(bad(&verdict), [("paravisor", Undecided)], "{verdict}");
    let mut policy = Policy::cloud();
    policy.snp.id_keys = vec![ID_KEY.parse().unwrap()];
    // The key has signed older paravisors, too, so it names no program.
    assert!(!policy.snp.names_program());
    policy.snp.minimum_guest_svn = Some(1);
    let mut verdict = Verdict::default();
    policy.check(facts, &measured.enclave_hash, &mut verdict);
    assert!(verdict.passes(), "{verdict}");
    let mut verdict = Verdict::default();
    Policy::strict().check(facts, &measured.enclave_hash, &mut verdict);
    assert!(bad(&verdict).contains(&("console", Failed)), "{verdict}");
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn snp_evidence_in_the_first_layout_is_genuine() {
    let layout = layout("azure/trustee_az-snp-vtpm_evidence-v1.json");
    check_snp(&layout, CHALLENGE);
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn snp_evidence_in_the_second_layout_is_genuine() {
    let layout = layout("azure/trustee_az-snp-vtpm_evidence-v2.json");
    // This evidence is bound to the runtime data's `user-data`.
    let (hcl, _) = parts(&layout);
    let runtime: Value = serde_json::from_slice(&hcl.runtime_data).unwrap();
    let user_data = crate::digest::decode(runtime["user-data"].as_str().unwrap()).unwrap();
    check_snp(&layout, &user_data[..48]);
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn the_vcek_of_another_machine_is_refused() {
    let (pem, mut layout) =
        (shared("azure/trustee_az-snp-vtpm_vcek.pem"), layout("azure/trustee_az-snp-vtpm_evidence-v1.json"));
    let chain = crate::x509::certificates_from_pem(std::str::from_utf8(&pem).unwrap()).unwrap();
    let names: Vec<_> = chain.iter().map(Certificate::common_name).collect();
    assert_eq!(names, ["SEV-VCEK", "SEV-Milan", "ARK-Milan"]);
    layout["vcek"] = Base64UrlUnpadded::encode_string(chain[0].der()).into();
    let (verdict, _) = verdict_of(&layout, CHALLENGE);
    assert_eq!(verdict.check("signature").unwrap().outcome, Failed, "{verdict}");
    assert!(!verdict.is_undecided());
}

#[test]
#[ignore = "needs files of other projects that are not committed: make test-shared-evidence"]
fn tdx_evidence_is_bound_to_its_quotes() {
    let layout = layout("azure/trustee_az-tdx-vtpm_evidence-v1.json");
    let (verdict, measured) = verdict_of(&layout, CHALLENGE);
    for name in ["runtime data", "quote signature", "report data", "pcr selection", "pcr digest"] {
        assert_eq!(
            verdict.check(name).map(|check| check.outcome),
            Some(Outcome::Passed),
            "{name}: {verdict}"
        );
    }
    // Intel's collateral for that platform is in no file.
    assert!(verdict.is_undecided(), "{verdict}");
    assert!(measured.is_none());
    let (other, _) = verdict_of(&layout, b"other");
    assert_eq!(other.check("report data").unwrap().outcome, Failed);
    let quote = shared("azure/trustee_az-tdx-vtpm_td-quote.bin");
    let Hardware::Tdx(hardware) = converted(&layout).hardware else { panic!("evidence of tdx") };
    assert!(quote.starts_with(&hardware.report()));
}

#[test]
fn a_quote_of_another_crate_is_good() {
    let body: String = AK.lines().filter(|line| !line.starts_with("---")).collect();
    let ak = AkPublic::from_spki(&base64ct::Base64::decode_vec(&body).unwrap()).unwrap();
    let parts = Parts::from_bincode(QUOTE);
    let pcrs = parts.pcrs.iter().enumerate();
    let pcrs = Pcrs(pcrs.map(|(i, value)| (i as u8, value.clone().try_into().unwrap())).collect());
    let quote = Quote::parse(&parts.message, &parts.tpmt_signature()).unwrap();
    let names = Names { signature: "signature", data: "data" };
    let mut verdict = Verdict::default();
    assert!(quote.verify(&ak, CHALLENGE, &pcrs, names, &mut verdict).is_some(), "{verdict}");
}

/// The key that signed the paravisors of both machines.
const ID_KEY: &str =
    "942fd93ebde6ea7a96efadeafc60f1c6b3d10e703b1dafd7555b92f7f3d32d0e006767648cba5b102af3d65756af4177";
