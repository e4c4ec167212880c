#![allow(clippy::print_stdout, reason = "says why a test is skipped")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use proptest::prelude::*;

use super::*;
use crate::{
    encrypted::{EncryptFileError, encrypt, encrypt_file},
    model_hash,
};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in files {
        let entry = Entry { name: (*name).into(), size: content.len() as u64 };
        archive.extend(entry.header().unwrap());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

type Files = Vec<(String, Vec<u8>)>;

fn unpack(plaintext: &[u8], piece: usize) -> Result<Files, UnpackError> {
    let mut unpacker = Unpacker::new(plaintext.len());
    for piece in plaintext.chunks(piece) {
        unpacker.push(piece)?;
    }
    let (onnx, external) = unpacker.finish()?;
    let external = external.into_iter().map(|(name, bytes)| (name, bytes.to_vec()));
    Ok([(MODEL.into(), onnx.to_vec())].into_iter().chain(external).collect())
}

#[test]
fn an_encrypted_model_brings_its_data_files() {
    let folder = tempfile::tempdir().unwrap();
    let (out, key) = (folder.path().join("external.onnx.age"), ModelKey::generate().unwrap());
    let digests = encrypt_file(&key, &data("external.onnx"), &out).unwrap();
    assert_eq!(digests.plaintext, model_hash(&data("external.onnx")).unwrap());
    let file = fs::read(&out).unwrap();
    let opened = open_model(&key, file.as_slice(), file.len()).unwrap();
    assert_eq!(opened.ciphertext, digests.ciphertext);
    assert_eq!(*opened.onnx, *fs::read(data("external.onnx")).unwrap());
    let names: Vec<_> = opened.external.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["external.bin", "parts/inner.bin"]);
    for (name, bytes) in &opened.external {
        assert_eq!(**bytes, *fs::read(data(name)).unwrap());
    }
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["external.onnx.age"]);
}

#[test]
fn a_model_in_one_file_is_encrypted_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (out, key) = (folder.path().join("add.onnx.age"), ModelKey::generate().unwrap());
    let digests = encrypt_file(&key, &data("add.onnx"), &out).unwrap();
    assert_eq!(digests.plaintext, model_hash(&data("add.onnx")).unwrap());
    let file = fs::read(&out).unwrap();
    let mut plaintext = Vec::new();
    decrypt(&key, file.as_slice(), |piece| plaintext.extend_from_slice(piece)).unwrap();
    assert_eq!(plaintext, fs::read(data("add.onnx")).unwrap());
    assert!(open_model(&key, file.as_slice(), file.len()).unwrap().external.is_empty());
}

#[test]
fn missing_and_misnamed_data_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("m.onnx"), folder.path().join("m.onnx.age"));
    fs::copy(data("external.onnx"), &model).unwrap();
    let error = encrypt_file(&ModelKey::generate().unwrap(), &model, &out).unwrap_err();
    assert!(matches!(error, EncryptFileError::Data { .. }), "{error}");
    assert!(error.to_string().contains("external.bin") && !out.exists());
}

/// By programs that share no code with ours.
#[test]
fn tar_and_age_open_our_files_and_we_open_theirs() {
    let missing = ["age", "tar"].iter().any(|tool| Command::new(tool).arg("--version").output().is_err());
    if missing {
        assert!(std::env::var_os("CI").is_none(), "age is not installed: .ci/run should have installed it");
        println!("skipped: age or tar is not installed (Debian, Ubuntu: apt install age tar)");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let shell = |script: &str| {
        let done = Command::new("sh").args(["-euc", script]).current_dir(folder.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let key = ModelKey::generate().unwrap();
    fs::write(at("key"), key.expose().as_bytes()).unwrap();
    encrypt_file(&key, &data("external.onnx"), &at("ours.age")).unwrap();
    shell("age -d -i key ours.age | tar -x && mv model.onnx renamed.onnx");
    assert_eq!(model_hash(&at("renamed.onnx")).unwrap(), model_hash(&data("external.onnx")).unwrap());

    shell("mv renamed.onnx model.onnx");
    for format in ["ustar", "gnu"] {
        shell(&format!(
            "tar --format={format} -c model.onnx external.bin parts/inner.bin | age -r {} -o {format}.age",
            key.recipient()
        ));
        let file = fs::read(at(&format!("{format}.age"))).unwrap();
        let opened = open_model(&key, file.as_slice(), file.len()).unwrap();
        assert_eq!((*opened.onnx).to_vec(), fs::read(data("external.onnx")).unwrap(), "{format}");
        assert_eq!((*opened.external[1].1).to_vec(), fs::read(data("parts/inner.bin")).unwrap());
    }
    shell("ln -s /etc/passwd weights.bin && tar --format=ustar -c model.onnx weights.bin > link.tar");
    let found = unpack(&fs::read(at("link.tar")).unwrap(), 4096).unwrap_err();
    assert_eq!(
        found,
        UnpackError::Malformed("it has a link, a folder or an extension; only regular files are expected")
    );
}

#[test]
fn long_names_are_split_as_tar_does_and_longer_ones_refused() {
    let (folder, file) = ("d".repeat(150), "f".repeat(100));
    let name = format!("{folder}/{file}");
    let files = [(MODEL, &b"m"[..]), (name.as_str(), &b"data"[..])];
    assert_eq!(unpack(&archive(&files), 700).unwrap()[1].0, name);
    for name in ["f".repeat(101), format!("{}/{file}", "d".repeat(156))] {
        assert!(Entry { name, size: 0 }.header().is_none());
    }
    // More than eleven octal digits.
    let large = Entry { name: "w".into(), size: 40 << 30 };
    assert_eq!(Entry::read(&large.header().unwrap()).unwrap(), large);
}

#[test]
fn archives_have_one_form() {
    let error = |files: &[(&str, &[u8])]| unpack(&archive(files), 512).unwrap_err();
    for name in ["../m", "/etc/m", "a/../m", "./m", "a//m", "a\\m", ""] {
        assert_eq!(error(&[(MODEL, b"m"), (name, b"")]), UnpackError::Name { name: name.into() });
    }
    for files in [
        &[(MODEL, &b"m"[..]), ("b", b""), ("a", b"")][..],
        &[(MODEL, b"m"), ("a", b""), ("a", b"")],
        &[(MODEL, b"m"), (MODEL, b"m")],
    ] {
        assert!(matches!(error(files), UnpackError::Order { .. }));
    }
    let good = archive(&[(MODEL, b"model"), ("a", b"data")]);
    for len in [600, 1024, 1500, 2048, 2560] {
        assert_eq!(unpack(&good[..len], 512), Err(UnpackError::Truncated), "{len}");
    }
    assert!(unpack(&[good.as_slice(), &[0; 10 * BLOCK]].concat(), 512).is_ok());
    assert_eq!(unpack(&[good.as_slice(), b"x"].concat(), 512), Err(UnpackError::Truncated));
    assert!(matches!(unpack(&[good.as_slice(), &[1; BLOCK]].concat(), 512), Err(UnpackError::Malformed(_))));
    let mut padded = good.clone();
    padded[BLOCK + 100] = 1;
    assert!(matches!(unpack(&padded, 512), Err(UnpackError::Malformed(_))));
}

#[test]
fn no_memory_is_taken_for_more_than_there_is() {
    let mut lie = archive(&[(MODEL, b"model")]);
    lie[..BLOCK].copy_from_slice(&Entry { name: MODEL.into(), size: 1 << 62 }.header().unwrap());
    assert_eq!(unpack(&lie, 512), Err(UnpackError::Size { name: MODEL.into(), size: 1 << 62 }));
}

proptest! {
    #[test]
    fn files_come_back_however_they_are_split(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1500), 1..5),
        piece in 1_usize..2000,
    ) {
        let names: Vec<_> = (0..contents.len()).map(|i| if i == 0 { MODEL.into() } else { format!("part{i}") }).collect();
        let files: Vec<_> = names.iter().map(String::as_str).zip(contents.iter().map(Vec::as_slice)).collect();
        let found = unpack(&archive(&files), piece).unwrap();
        let expected: Files = names.iter().cloned().zip(contents.iter().cloned()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_archive_is_a_model(bytes in prop::collection::vec(any::<u8>(), 0..1200), piece in 1_usize..2000) {
        prop_assert_eq!(unpack(&bytes, piece).unwrap(), [(MODEL.to_owned(), bytes)]);
    }

    #[test]
    fn no_changed_header_makes_it_panic(at in 0_usize..BLOCK, byte: u8, sum in any::<bool>()) {
        let mut changed = archive(&[(MODEL, b"model"), ("a", b"data")]);
        changed[2 * BLOCK + at] = byte;
        if sum {
            // With a checksum to match.
            let header: &mut [u8] = &mut changed[2 * BLOCK..3 * BLOCK];
            header[148..156].fill(b' ');
            let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        let _ = unpack(&changed, 512);
    }
}

#[test]
fn a_plain_model_longer_than_its_file_is_refused() {
    let mut out = Vec::new();
    let key = ModelKey::generate().unwrap();
    encrypt(&key, &[7_u8; 5000][..], &mut out).unwrap();
    assert!(open_model(&key, out.as_slice(), out.len()).is_ok());
    assert!(matches!(
        open_model(&key, out.as_slice(), 1000),
        Err(OpenModelError::Unpack(UnpackError::Size { .. }))
    ));
}
