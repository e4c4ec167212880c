use std::{collections::BTreeMap, fs};

use confonnx_model::{HashError, hash_bytes, hash_files, model_hash};
use sha2::{Digest, Sha256};

use crate::{data, path};

#[test]
fn a_file_alone_has_its_own_sha256() {
    let expected: [u8; 32] = Sha256::digest(data("add.onnx")).into();
    assert_eq!(model_hash(&path("add.onnx")).unwrap(), expected);
    assert_eq!(hash_bytes(&data("add.onnx")).unwrap(), expected);
    assert_eq!(hash_files(&data("add.onnx"), &BTreeMap::new()), expected);
}

#[test]
fn external_data_makes_a_manifest() {
    let hex = |name: &str| Sha256::digest(data(name)).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let manifest = format!(
        "confonnx model manifest v1\n{}  .\n{}  external.bin\n{}  parts/inner.bin\n",
        hex("external.onnx"),
        hex("external.bin"),
        hex("parts/inner.bin")
    );
    let expected: [u8; 32] = Sha256::digest(manifest).into();
    assert_eq!(model_hash(&path("external.onnx")).unwrap(), expected);

    let digest = |name: &str| (name.to_owned(), Sha256::digest(data(name)).into());
    let external = BTreeMap::from([digest("external.bin"), digest("parts/inner.bin")]);
    assert_eq!(hash_files(&data("external.onnx"), &external), expected);
}

#[test]
fn bytes_that_name_other_files_have_no_hash_alone() {
    let Err(HashError::External { locations }) = hash_bytes(&data("external.onnx")) else { panic!() };
    assert_eq!(locations, ["external.bin", "parts/inner.bin"]);
}

#[test]
fn the_hash_follows_the_data_and_not_the_file_name() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("parts")).unwrap();
    for (from, to) in [
        ("external.onnx", "renamed.onnx"),
        ("external.bin", "external.bin"),
        ("parts/inner.bin", "parts/inner.bin"),
    ] {
        fs::write(at(to), data(from)).unwrap();
    }
    let hash = model_hash(&path("external.onnx")).unwrap();
    assert_eq!(model_hash(&at("renamed.onnx")).unwrap(), hash);

    fs::write(at("parts/inner.bin"), b"other weights").unwrap();
    assert_ne!(model_hash(&at("renamed.onnx")).unwrap(), hash);

    fs::remove_file(at("parts/inner.bin")).unwrap();
    let Err(HashError::Read { path, .. }) = model_hash(&at("renamed.onnx")) else { panic!() };
    assert!(path.ends_with("parts/inner.bin"));
}

#[cfg(unix)]
#[test]
fn links_out_of_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("parts")).unwrap();
    fs::write(folder.path().join("m.onnx"), data("external.onnx")).unwrap();
    fs::write(folder.path().join("external.bin"), data("external.bin")).unwrap();
    std::os::unix::fs::symlink(path("parts/inner.bin"), folder.path().join("parts/inner.bin")).unwrap();
    assert!(matches!(model_hash(&folder.path().join("m.onnx")), Err(HashError::Outside { .. })));
}

#[test]
fn a_missing_model_is_named() {
    let error = model_hash(&path("nowhere.onnx")).unwrap_err();
    assert!(error.to_string().contains("nowhere.onnx"), "{error}");
}
