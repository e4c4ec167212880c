//! Keys of a real TPM in software: what it signs is checked, and what another library encrypts to them opens there.

use aws_lc_rs::rsa::{
    OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, Pkcs1PublicEncryptingKey, PublicEncryptingKey,
};
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};

use super::super::tests::{emulator, hcl_report, store};
use super::*;
use crate::snp;
use crate::tpm::tests::emulator::Emulator;

/// SubjectPublicKeyInfo of the RSA key at the end of a public area.
fn spki(public: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = &[
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01,
        0x05, 0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
    ];
    [BEFORE, &public[public.len() - 256..], &[2, 3, 1, 0, 1]].concat()
}

/// A confidential VM: its device, and the processor's word of it.
fn machine() -> Option<(Emulator, Device, serde_json::Map<String, Value>)> {
    let (emulator, ak) = emulator()?;
    let runtime_data = json!({ "keys": [ak], "vm-configuration": {} }).to_string();
    let bound = [&Sha256::digest(&runtime_data)[..], &[0; 32]].concat().try_into().unwrap();
    let (_, hardware) = snp::tests::evidence_for(bound);
    store(&emulator, &hcl_report(2, &hardware.report(), runtime_data.as_bytes()));
    emulator.write("ak.crt", b"a certificate");
    emulator.tool("tpm2_nvdefine -Q -C o -s 13 -a ownerread|ownerwrite 0x01c101d0");
    emulator.tool("tpm2_nvwrite -Q -C o -i ak.crt 0x01c101d0");
    // The tools leave keys in the TPM, which has room for three.
    emulator.tool("tpm2_flushcontext -Q -t");
    for (path, text) in [(LOG, "the log"), ("etc/os-release", "NAME=\"Some Linux\"\nVERSION_ID=\"24.04\"\n")]
    {
        let path = emulator.file(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let device = Device::find(emulator.root()).unwrap().unwrap();
    Some((emulator, device, hardware.endorsements()))
}

fn of(value: &Value) -> Vec<u8> {
    Base64::decode_vec(value.as_str().unwrap()).unwrap()
}

fn info(request: &MaaRequest) -> Value {
    let info = Base64UrlUnpadded::decode_vec(request.body["AttestationInfo"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&info).unwrap()
}

#[test]
fn the_vtpm_vouches_for_a_key_and_opens_what_is_encrypted_to_it() {
    let Some((emulator, device, endorsements)) = machine() else { return };
    let mut key = device.guest_key(&[1; 256]).unwrap();
    let missing = key.maa().unwrap_err().to_string();
    assert!(missing.contains("VCEK"), "{missing}");
    key.evidence = Evidence::parse(&key.evidence.report(), &endorsements).unwrap();
    let request = key.maa().unwrap();
    assert_eq!(request.path, "/attest/AzureGuest?api-version=2020-10-01");
    let info = info(&request);
    assert_eq!((&info["OSVersionMajor"], &info["OSVersionMinor"]), (&json!(24), &json!(4)));
    assert_eq!((of(&info["OSDistro"]), of(&info["TcgLogs"])), (b"Some Linux".to_vec(), b"the log".to_vec()));
    let tpm = &info["TpmInfo"];
    assert_eq!(of(&tpm["AikCert"]), b"a certificate");
    assert_eq!(tpm["PcrSet"], json!([0, 1, 2, 3, 4, 5, 6, 7]));

    // Both statements are the attestation key's: over the PCRs, and over the name of the key.
    let ak = spki(&of(&tpm["AikPub"]));
    let signed = |statement: &str, signature: &str| {
        let (statement, signature) = (of(&tpm[statement]), of(&tpm[signature]));
        let verified =
            UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &ak).verify(&statement, &signature);
        assert!(verified.is_ok());
        statement
    };
    let quote = signed("PcrQuote", "PcrSignature");
    let values: Vec<u8> = (0..8).flat_map(|index| of(&tpm["PCRs"][index]["Digest"])).collect();
    assert_eq!(quote[quote.len() - 32..], Sha256::digest(values)[..]);
    let certified = signed("EncKeyCertifyInfo", "EncKeyCertifyInfoSignature");
    assert_eq!(certified[..6], [0xff, b'T', b'C', b'G', 0x80, 0x17], "TPM_ST_ATTEST_CERTIFY");
    let public = of(&tpm["EncKeyPub"]);
    let name = Sha256::digest(&public[2..]);
    assert!(certified.windows(32).any(|part| part == &name[..]), "its name");

    let der = spki(&public);
    let public = PublicEncryptingKey::from_der(&der).unwrap();
    let mut sealed = vec![0; 256];
    Pkcs1PublicEncryptingKey::new(public.clone()).unwrap().encrypt(b"inner key", &mut sealed).unwrap();
    assert_eq!(*key.decrypt_pkcs1(&sealed).unwrap(), b"inner key");
    let oaep = OaepPublicEncryptingKey::new(public).unwrap();
    oaep.encrypt(&OAEP_SHA256_MGF1SHA256, b"transfer key", &mut sealed, None).unwrap();
    // The key decrypts more often than a TPM has room for sessions.
    for _ in 0..5 {
        assert_eq!(*key.decrypt_oaep(&sealed).unwrap(), b"transfer key");
        assert!(key.decrypt_pkcs1(&sealed).is_err(), "not by the other padding");
    }
    drop(key);

    // Each call makes another key: what was encrypted to one is for nobody once that key is gone.
    let mut other = device.guest_key(&[2; 256]).unwrap();
    assert!(other.decrypt_oaep(&sealed).is_err());
    drop(other);
    let mut same = device.guest_key(&[1; 256]).unwrap();
    assert_eq!(*same.decrypt_oaep(&sealed).unwrap(), b"transfer key", "the key is of `unique` alone");
    // Once other software was measured, the key opens nothing.
    same.tpm.pcr_extend(4, &[9; 32]).unwrap();
    assert!(same.decrypt_oaep(&sealed).is_err());
    drop(same);
    drop(emulator);
}

#[test]
fn a_system_without_a_name_has_one() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(System::of(folder.path()), System { name: "Linux".into(), major: 1, minor: 0 });
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    for (text, name, major, minor) in [
        ("ID=x\nNAME=Arch\nVERSION_ID=rolling", "Arch", 1, 0),
        ("VERSION_ID=0.3\nNAME=\"\"", "Linux", 1, 3),
        ("NAME=Debian\nVERSION_ID=13", "Debian", 13, 0),
    ] {
        std::fs::write(folder.path().join("etc/os-release"), text).unwrap();
        assert_eq!(System::of(folder.path()), System { name: name.into(), major, minor }, "{text}");
    }
}
