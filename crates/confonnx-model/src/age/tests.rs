#![allow(clippy::print_stdout, reason = "says why a test is skipped")]

use std::{fs, path::Path, process::Command};

use super::*;
use crate::encrypted::{NotSigned, OwnerKey, OwnerKeyError, OwnerPublicKey};

fn key() -> ModelKey {
    KEY.parse().unwrap()
}

fn encrypted(model: &[u8]) -> (Vec<u8>, Digests) {
    let mut out = Vec::new();
    let digests = encrypt(&key(), model, &mut out).unwrap();
    (out, digests)
}

fn decrypted(file: &[u8]) -> Result<Vec<u8>, DecryptError> {
    let mut model = Vec::new();
    decrypt(&key(), file, |piece| model.extend_from_slice(piece))?;
    Ok(model)
}

fn model(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[test]
fn models_of_every_size_around_a_chunk_come_back() {
    for len in [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000] {
        let (file, digests) = encrypted(&model(len));
        assert!(is_encrypted(&file) && !is_encrypted(&model(len)));
        let mut found = Vec::new();
        let opened = decrypt(&key(), file.as_slice(), |piece| found.extend_from_slice(piece)).unwrap();
        assert!(found == model(len), "{len}");
        assert_eq!(opened, digests);
        assert_eq!(digests.plaintext, <[u8; 32]>::from(Sha256::digest(&found)));
        assert_eq!(digests.ciphertext, <[u8; 32]>::from(Sha256::digest(&file)));
    }
}

#[test]
fn flaw_9_no_two_files_of_a_model_share_key_and_nonce() {
    let ((first, _), (second, _)) = (encrypted(&model(100)), encrypted(&model(100)));
    let tail = |file: &[u8]| file[file.len() - 116..].to_vec();
    assert_ne!(tail(&first), tail(&second));
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let (file, _) = encrypted(&model(70_000));
    let all = (0..300).chain((300..file.len()).step_by(997)).chain([file.len() - 1]);
    for at in all {
        for bit in 0..8 {
            let mut altered = file.clone();
            altered[at] ^= 1 << bit;
            assert!(decrypted(&altered).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn cut_and_lengthened_files_are_refused() {
    let (file, _) = encrypted(&model(140_000));
    for len in (0..file.len()).step_by(1013).chain([file.len() - 1, file.len() - 17]) {
        assert!(decrypted(&file[..len]).is_err(), "{len}");
    }
    // Cut between two chunks: what is left is whole chunks, none of them marked as the last.
    let payload = file.len() - 140_000 - 3 * 16;
    assert!(matches!(decrypted(&file[..payload + 65_552]), Err(DecryptError::Altered { after: 0 })));
    assert!(decrypted(&[file.as_slice(), b"x"].concat()).is_err());
}

#[test]
fn another_key_is_told_so() {
    let (file, _) = encrypted(b"model");
    let other = ModelKey::generate().unwrap();
    assert!(matches!(decrypt(&other, file.as_slice(), |_| ()), Err(DecryptError::WrongKey)));
    assert!(matches!(decrypted(b"\x08\x07onnx"), Err(DecryptError::Header(_))));
}

#[test]
fn keys_are_those_of_the_age_tool_and_never_printed() {
    assert_eq!(key().recipient(), RECIPIENT);
    assert_eq!(*key().expose(), KEY);
    assert_eq!(format!("{:?}", key()), format!("ModelKey({RECIPIENT})"));
    let commented = format!("# created: 2026-01-01\n# public key: {RECIPIENT}\n{KEY}\n");
    assert_eq!(commented.parse::<ModelKey>().unwrap().recipient(), RECIPIENT);
    let error = |text: &str| text.parse::<ModelKey>().map(drop).unwrap_err();
    assert_eq!(error(""), KeyError::NoKey);
    assert_eq!(error(RECIPIENT), KeyError::NoKey);
    assert_eq!(error(&format!("{KEY}\n{KEY}")), KeyError::Several);
    assert_eq!(error(&KEY[..70]), KeyError::Damaged);
    assert_eq!(error(&KEY.replace('7', "8")), KeyError::Damaged);
}

/// Files of the Go implementation, made with `age -r RECIPIENT`, one of them for three recipients with ours last.
#[test]
fn files_of_the_age_tool_open() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/encrypted-model");
    // Published, so that others can read them, too.
    assert_eq!(
        fs::read_to_string(folder.join("key.txt")).unwrap().parse::<ModelKey>().unwrap().recipient(),
        RECIPIENT
    );
    for name in ["one-recipient.age", "three-recipients.age"] {
        assert_eq!(
            decrypted(&fs::read(folder.join(name)).unwrap()).unwrap(),
            b"a model, as it were\n",
            "{name}"
        );
    }
}

#[test]
fn the_age_tool_opens_our_files() {
    let missing = Command::new("age").arg("--version").output().is_err();
    if missing {
        assert!(std::env::var_os("CI").is_none(), "age is not installed: .ci/run should have installed it");
        println!("skipped: age is not installed (Debian, Ubuntu: apt install age)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, identity) = (folder.path().join("model.age"), folder.path().join("key"));
    fs::write(&file, encrypted(&model(100_000)).0).unwrap();
    fs::write(&identity, KEY).unwrap();
    let opened = Command::new("age").arg("-d").arg("-i").arg(&identity).arg(&file).output().unwrap();
    assert!(opened.status.success(), "{}", String::from_utf8_lossy(&opened.stderr));
    assert!(opened.stdout == model(100_000));
}

/// An owner's key pair by openssl, an implementation of neither end.
fn owner(arguments: &[&str]) -> (String, String) {
    let run = |arguments: &[&str], input: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        fs::write(&path, input).unwrap();
        let output = Command::new("openssl").args(arguments).arg("-in").arg(&path).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let private = Command::new("openssl").arg("genpkey").args(arguments).output().unwrap();
    let private = String::from_utf8(private.stdout).unwrap();
    let public = run(&["pkey", "-pubout"], &private);
    (private, public)
}

#[test]
fn an_owner_signs_a_key_for_a_file_and_nothing_else() {
    for arguments in
        [&["-algorithm", "ed25519"][..], &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..]]
    {
        let (private, public) = owner(arguments);
        let (ours, theirs) =
            (OwnerKey::from_pem(&private).unwrap(), OwnerPublicKey::from_pem(&public).unwrap());
        let signature = ours.sign(&[7; 32], &key()).unwrap();
        assert_eq!(theirs.verify(&[7; 32], &key(), &signature), Ok(()));
        assert_eq!(theirs.verify(&[8; 32], &key(), &signature), Err(NotSigned));
        assert_eq!(theirs.verify(&[7; 32], &ModelKey::generate().unwrap(), &signature), Err(NotSigned));
        assert_eq!(theirs.verify(&[7; 32], &key(), &[]), Err(NotSigned));
        let other = OwnerPublicKey::from_pem(&owner(arguments).1).unwrap();
        assert_eq!(other.verify(&[7; 32], &key(), &signature), Err(NotSigned));
    }
    let (private, public) = owner(&["-algorithm", "RSA"]);
    assert_eq!(OwnerKey::from_pem(&private).map(drop).unwrap_err(), OwnerKeyError::Kind);
    assert_eq!(OwnerPublicKey::from_pem(&public).unwrap_err(), OwnerKeyError::Kind);
    assert_eq!(OwnerPublicKey::from_pem(&private).unwrap_err(), OwnerKeyError::NoBlock("PUBLIC KEY"));
}

const KEY: &str = "AGE-SECRET-KEY-1Z6WMGV03777U8YMW67G2T3HSC3NKN2TNH3APMDYRW6J4FAUWKTTS6DHQ3S";
const RECIPIENT: &str = "age10kg7v3234qvyz69pf9ehguc5604sacjnjfr8rmtg5vjkwlwzqpnqj6e6p5";
