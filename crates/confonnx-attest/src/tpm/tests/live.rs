//! Our commands and our verifier run against a real TPM in software, and both are compared with tpm2-tools.

use super::emulator::Emulator;
use super::{NAMES, policy, verified};
use crate::tpm::command::Tpm;
use crate::tpm::*;
use crate::{EnclaveHash, Hex};

const REPORT_DATA: [u8; 64] = [0x5a; 64];

fn extended(value: [u8; 32], digest: [u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(value).chain_update(digest).finalize().into()
}

#[test]
fn a_tpm_quotes_its_boot_and_a_policy_names_its_key() {
    let Some(emulator) = Emulator::start() else { return };
    let mut tpm = Tpm::open(&emulator.device()).unwrap();
    let mut expected = [[0; 32]; 16];
    for index in [0, 4, 4, 7, 11, 15] {
        tpm.pcr_extend(index, &[index; 32]).unwrap();
        let value = &mut expected[usize::from(index)];
        *value = extended(*value, [index; 32]);
    }
    drop(tpm);
    let device = Device::find(emulator.root()).unwrap().unwrap();
    let evidence = device.evidence(&REPORT_DATA).unwrap();
    assert_eq!(evidence, Evidence::parse(&evidence.report(), &evidence.endorsements()).unwrap());

    let (measured, verdict) = verified(&evidence, &REPORT_DATA);
    let measured = measured.unwrap_or_else(|| panic!("{verdict}"));
    let boot = BOOT_PCRS.map(|index| expected[usize::from(index)]).concat();
    assert_eq!(measured.enclave_hash, EnclaveHash::new(Sha256::digest(boot).to_vec()).unwrap());

    let name = Hex(evidence.ak.name().unwrap());
    let pinned = policy(&format!("aks = [\"{name}\"]\npcrs.4 = [\"{}\"]", Hex(expected[4])));
    assert!(pinned.failures(&measured).is_empty());
    assert_eq!(policy("").failures(&measured), ["? ak"]);
    let other = policy(&format!("aks = [\"{}\"]\npcrs.4 = [\"{}\"]", Hex([0; 32]), Hex([0; 32])));
    assert_eq!(other.failures(&measured), ["✗ ak", "✗ pcrs"]);
    // Other report data stands for another document.
    let (measured, verdict) = verified(&evidence, &[0; 64]);
    assert!(measured.is_none(), "{verdict}");
    assert!(verdict.failed().map(|check| check.name).eq(["report data"]), "{verdict}");
}

/// A log in the crypto-agile format, SHA-256 only, and the digests it is about.
fn event_log(events: &[(u8, u32, &[u8])]) -> Vec<u8> {
    let spec_id =
        [b"Spec ID Event03\0".as_slice(), &[0; 4], &[0, 2, 0, 2], &[1, 0, 0, 0, 0x0b, 0, 32, 0, 0]].concat();
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut log = [&[0; 4], &[3, 0, 0, 0], [0; 20].as_slice(), &len(&spec_id), &spec_id].concat();
    for (pcr, kind, data) in events {
        log.extend(u32::from(*pcr).to_le_bytes());
        log.extend(kind.to_le_bytes());
        log.extend([1, 0, 0, 0, 0x0b, 0]);
        log.extend(Sha256::digest(data));
        log.extend(len(data));
        log.extend(*data);
    }
    log
}

#[test]
fn an_event_log_counts_when_the_tpm_measured_the_same() {
    let Some(mut emulator) = Emulator::start() else { return };
    let variable = |value| {
        let name: Vec<u8> = "SecureBoot".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let guid =
            [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
        [&guid[..], &10_u64.to_le_bytes(), &1_u64.to_le_bytes(), &name, &[value]].concat()
    };
    let (on, off) = (variable(1), variable(0));
    let folder = emulator.file("sys/kernel/security/tpm0");
    std::fs::create_dir_all(&folder).unwrap();
    let mut outcomes = Vec::new();
    for (booted, told) in [(&on, &on), (&on, &off), (&off, &off)] {
        emulator.restart();
        let mut tpm = Tpm::open(&emulator.device()).unwrap();
        tpm.pcr_extend(7, &Sha256::digest(booted).into()).unwrap();
        tpm.pcr_extend(4, &Sha256::digest("a loader").into()).unwrap();
        drop(tpm);
        let log = event_log(&[(7, 0x8000_0001, told), (4, 0x8000_0003, b"a loader")]);
        std::fs::write(folder.join("binary_bios_measurements"), log).unwrap();
        let device = Device::find(emulator.root()).unwrap().unwrap();
        let evidence = device.evidence(&REPORT_DATA).unwrap();
        assert_eq!(evidence, Evidence::parse(&evidence.report(), &evidence.endorsements()).unwrap());
        let (measured, verdict) = verified(&evidence, &REPORT_DATA);
        let failed: Vec<_> = verdict.failed().map(|check| check.name).collect();
        let policy = policy(&format!("secure_boot = true\naks = [\"{}\"]", Hex(evidence.ak.name().unwrap())));
        outcomes.push((failed, policy.failures(&measured.unwrap())));
    }
    let expected = [
        (vec![], vec![]),
        (vec!["event log"], vec!["? secure boot".to_owned()]),
        (vec![], vec!["✗ secure boot".to_owned()]),
    ];
    assert_eq!(outcomes, expected);
}

#[test]
fn quotes_go_on_after_the_tpm_restarts_with_the_same_key() {
    let Some(mut emulator) = Emulator::start() else { return };
    let device = Device::find(emulator.root()).unwrap().unwrap();
    let before = device.evidence(&REPORT_DATA).unwrap();
    // More evidence is made than the TPM has room for keys, so none of these leaks.
    for _ in 0..10 {
        device.evidence(&REPORT_DATA).unwrap();
    }
    emulator.restart();
    assert!(matches!(device.evidence(&REPORT_DATA), Err(CommandError::Io { .. })));
    let after = device.evidence(&REPORT_DATA).unwrap();
    assert_eq!(before.ak, after.ak);
    let resets = |evidence: &Evidence| {
        verified(evidence, &REPORT_DATA).0.map(|measured| measured.facts.quoted.reset_count)
    };
    assert_eq!(resets(&after), resets(&before).map(|count| count + 1));
}

#[test]
fn machines_without_tpm_and_unusable_ones_differ() {
    let root = tempfile::tempdir().unwrap();
    assert!(Device::find(root.path()).unwrap().is_none());
    std::fs::create_dir(root.path().join("dev")).unwrap();
    std::fs::write(root.path().join("dev/tpmrm0"), "").unwrap();
    // The device is a file that swallows the command and answers nothing.
    let err = Device::find(root.path()).unwrap_err();
    assert!(matches!(err, CommandError::Io { .. }), "{err}");
}

#[test]
fn tpm2_tools_verify_our_quotes() {
    let Some(emulator) = Emulator::start() else { return };
    Tpm::open(&emulator.device()).unwrap().pcr_extend(11, &[7; 32]).unwrap();
    let device = Device::find(emulator.root()).unwrap().unwrap();
    let evidence = device.evidence(&REPORT_DATA).unwrap();
    drop(device);
    let area = evidence.ak.tpmt().unwrap();
    emulator.write("ak.tpmt", area);
    emulator.write("ak.pub", [&u16::try_from(area.len()).unwrap().to_be_bytes(), area].concat());
    emulator.write("q.msg", evidence.quote.message());
    emulator.write("q.sig", evidence.quote.signature());
    let list = "sha256:0,1,2,3,4,5,6,7,8,9,11,12,13,14,15";
    emulator.tool(&format!("tpm2_pcrread -o q.pcrs -F serialized {list}"));
    let nonce = Hex::<32>(Sha256::digest(REPORT_DATA).into());
    let check = |nonce| format!("tpm2_checkquote -u ak.pub -m q.msg -s q.sig -f q.pcrs -g sha256 -q {nonce}");
    emulator.tool(&check(nonce));
    // The tool does tell: it refuses another nonce, and other PCRs.
    assert!(!emulator.try_tool(&check(Hex([0; 32]))).1);
    Tpm::open(&emulator.device()).unwrap().pcr_extend(11, &[7; 32]).unwrap();
    emulator.tool(&format!("tpm2_pcrread -o q.pcrs -F serialized {list}"));
    assert!(!emulator.try_tool(&check(nonce)).1);
}

#[test]
fn our_verifier_takes_quotes_of_tpm2_tools_with_every_kind_of_key() {
    let Some(emulator) = Emulator::start() else { return };
    Tpm::open(&emulator.device()).unwrap().pcr_extend(4, &[7; 32]).unwrap();
    emulator.tool("tpm2_createek -c ek.ctx -G ecc -u ek.pub");
    emulator.tool("tpm2_flushcontext -t");
    for (kind, hash, scheme) in [
        ("rsa", "sha256", "rsassa"),
        ("rsa", "sha384", "rsassa"),
        ("rsa", "sha256", "rsapss"),
        ("ecc", "sha256", "ecdsa"),
        ("ecc384", "sha384", "ecdsa"),
    ] {
        emulator
            .tool(&format!("tpm2_createak -C ek.ctx -c ak.ctx -G {kind} -g {hash} -s {scheme} -u ak.pub"));
        emulator.tool("tpm2_flushcontext -t");
        let nonce = Hex::<32>(Sha256::digest(REPORT_DATA).into());
        emulator.tool(&format!(
            "tpm2_quote -c ak.ctx -l sha256:0,2,4,7,8,9,11,12,13 -q {nonce} -m q.msg -s q.sig -o q.pcrs -g {hash} --scheme {scheme}"
        ));
        emulator.tool("tpm2_flushcontext -t");
        let public = emulator.read("ak.pub");
        // A TPM2B_PUBLIC is its length, then the key's description.
        let ak = AkPublic::from_tpmt(&public[2..]).unwrap_or_else(|err| panic!("{kind} {scheme}: {err}"));
        let quote = Quote::parse(&emulator.read("q.msg"), &emulator.read("q.sig")).unwrap();
        let pcrs = super::tools_pcrs(&emulator.read("q.pcrs"), &BOOT_PCRS);
        let evidence = Evidence { ak, ak_chain: Vec::new(), quote: Box::new(quote), pcrs, event_log: None };
        let (measured, verdict) = verified(&evidence, &REPORT_DATA);
        assert!(measured.is_some(), "{kind} {hash} {scheme}:\n{verdict}");
    }
}

#[test]
fn a_key_that_signs_anything_is_none_for_attestation() {
    let Some(emulator) = Emulator::start() else { return };
    emulator.tool("tpm2_createprimary -C e -G ecc256:ecdsa-sha256:null -c key.ctx -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign");
    emulator.tool("tpm2_flushcontext -t");
    emulator.tool("tpm2_readpublic -c key.ctx -o key.pub");
    let nonce = Hex::<32>(Sha256::digest(REPORT_DATA).into());
    emulator.tool(&format!(
        "tpm2_quote -c key.ctx -l sha256:0,2,4,7,8,9,11,12,13 -q {nonce} -m q.msg -s q.sig -o q.pcrs -g sha256"
    ));
    let ak = AkPublic::from_tpmt(&emulator.read("key.pub")[2..]).unwrap();
    let quote = Quote::parse(&emulator.read("q.msg"), &emulator.read("q.sig")).unwrap();
    let pcrs = super::tools_pcrs(&emulator.read("q.pcrs"), &BOOT_PCRS);
    let mut verdict = Verdict::default();
    assert!(quote.verify(&ak, &Sha256::digest(REPORT_DATA), &pcrs, NAMES, &mut verdict).is_some());
    let evidence = Evidence { ak, ak_chain: Vec::new(), quote: Box::new(quote), pcrs, event_log: None };
    let (_, verdict) = verified(&evidence, &REPORT_DATA);
    assert!(verdict.failed().map(|check| check.name).eq(["ak attributes"]), "{verdict}");
}

#[test]
fn tpm2_tools_make_the_same_key_and_enroll_it() {
    let Some(emulator) = Emulator::start() else { return };
    let device = Device::find(emulator.root()).unwrap().unwrap();
    let ak = device.evidence(&REPORT_DATA).unwrap().ak;
    drop(device);
    // As docs/guides/attestation.md has it: the endorsement key, which the manufacturer certified, releases a secret only to
    // the TPM that also has that attestation key.
    emulator.tool("tpm2_createek -c ek.ctx -G ecc -u ek.pub");
    emulator.tool("tpm2_flushcontext -t");
    emulator.tool("tpm2_createprimary -C e -G ecc256:ecdsa-sha256:null -c ak.ctx -a fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign");
    emulator.tool("tpm2_flushcontext -t");
    emulator.tool("tpm2_readpublic -c ak.ctx -o ak.pub -n ak.name");
    emulator.tool("tpm2_flushcontext -t");
    assert_eq!(emulator.read("ak.pub")[2..], *ak.tpmt().unwrap());
    let name = emulator.read("ak.name");
    assert_eq!(name, [&[0, 0x0b][..], &ak.name().unwrap()].concat());
    emulator.write("secret", "a secret");
    emulator.tool(&format!(
        "tpm2_makecredential -T none -u ek.pub -s secret -n {} -o credential",
        name.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    ));
    emulator.tool("tpm2_startauthsession --policy-session -S session.ctx");
    emulator.tool("tpm2_policysecret -S session.ctx -c e");
    emulator
        .tool("tpm2_activatecredential -c ak.ctx -C ek.ctx -i credential -o released -P session:session.ctx");
    assert_eq!(emulator.read("released"), b"a secret");
}

#[test]
fn a_key_that_the_cloud_certified_comes_first() {
    let Some(emulator) = Emulator::start() else { return };
    let own = Device::find(emulator.root()).unwrap().unwrap().evidence(&REPORT_DATA).unwrap().ak;
    // A template of another key (noDA), as Google's machines have it in NV index 0x01c10003.
    let mut template = own.tpmt().unwrap()[..own.tpmt().unwrap().len() - 68].to_vec();
    template[6] |= 0x04;
    template.extend([0; 4]);
    let certified = Tpm::open(&emulator.device()).unwrap().create_primary(&template).unwrap().1;
    assert_ne!(certified, own);
    let root = super::made::authority("cloud");
    let certificate = super::made::certificate_of(&certified, &root);
    emulator.write("template", &template);
    // NV indices are longer than what is in them.
    emulator.write("certificate", [certificate.der(), &[0; 100]].concat());
    for (index, file) in [("0x01c10003", "template"), ("0x01c10002", "certificate")] {
        let len = emulator.read(file).len();
        let attributes = "ownerread|authread|ownerwrite|authwrite|no_da";
        emulator.tool(&format!("tpm2_nvdefine {index} -C o -s {len} -a {attributes}"));
        emulator.tool(&format!("tpm2_nvwrite {index} -C o -i {file}"));
    }
    let device = Device::find(emulator.root()).unwrap().unwrap();
    let evidence = device.evidence(&REPORT_DATA).unwrap();
    assert_eq!((&evidence.ak, evidence.ak_chain.as_slice()), (&certified, [certificate].as_slice()));
    let (measured, verdict) = verified(&evidence, &REPORT_DATA);
    assert!(verdict.passes(), "{verdict}");
    assert!(super::made::trusting(&root).failures(&measured.unwrap()).is_empty());
}
