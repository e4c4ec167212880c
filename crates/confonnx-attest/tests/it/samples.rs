//! The policies of docs/samples parse.

use std::fs;
use std::path::Path;

use confonnx_attest::{Expectations, Policy};

#[test]
fn every_sample_policy_is_one() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/samples/policies");
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let expected = Expectations::from_toml(&text, &mut |_| unreachable!("samples name no files"))
            .unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        Policy::new(expected).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
        names.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(
        names,
        ["azure", "cloud", "key-service", "nitro", "peers", "sgx", "snp", "strict", "tdx", "tpm"]
    );
}
