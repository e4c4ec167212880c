use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use toml::Value;

use super::super::platforms::section;
use super::*;
use crate::{Policy, PolicyBuildError, Tee};

const HASH: &str = "e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1e1";

/// Reads a policy that names no files.
fn read(text: &str) -> Result<Expectations, PolicyFileError> {
    Expectations::from_toml(text, &mut |_| Err(std::io::ErrorKind::NotFound.into()))
}

fn error(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Section {
    minimum: u32,
    tolerated: Vec<String>,
    table: Inner,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Inner {
    one: u32,
    two: u32,
}

impl Default for Section {
    fn default() -> Self {
        Self { minimum: 9, tolerated: Vec::new(), table: Inner::default() }
    }
}

impl Default for Inner {
    fn default() -> Self {
        Self { one: 1, two: 2 }
    }
}

#[test]
fn a_section_changes_only_what_it_names() {
    let cloud = Section { minimum: 3, tolerated: vec!["a".into()], table: Inner { one: 5, two: 6 } };
    let given: Value = toml::from_str::<Table>("table.two = 7").unwrap().into();
    let refined = section(Some(&cloud), Some(&given)).unwrap().unwrap();
    assert_eq!(refined, Section { table: Inner { one: 5, two: 7 }, ..cloud });

    let given: Value = toml::from_str::<Table>("minimum = 4\ntolerated = []").unwrap().into();
    let refined = section(Some(&refined), Some(&given)).unwrap().unwrap();
    assert_eq!((refined.minimum, refined.tolerated.len(), refined.table.two), (4, 0, 7));
    assert_eq!(section(Some(&refined), None).unwrap(), None);
}

/// A value that is not written when it is absent would come back as the default, which is strict.
#[test]
fn presets_survive_being_written_and_read() {
    fn same<P: Serialize + DeserializeOwned>(section: Option<P>) {
        let value = Value::try_from(section.unwrap()).unwrap();
        assert_eq!(Value::try_from(value.clone().try_into::<P>().unwrap()).unwrap(), value);
    }
    for preset in [Preset::Strict, Preset::Cloud] {
        let Platforms { azure, nitro, sgx, snp, tdx, tpm } = preset.platforms();
        same(azure);
        same(nitro);
        same(sgx);
        same(snp);
        same(tdx);
        same(tpm);
    }
}

#[test]
fn an_empty_file_is_the_strict_preset_and_no_policy_yet() {
    let expected = read("").unwrap();
    assert_eq!(expected.platforms.accepted().len(), 6);
    assert_eq!(Policy::new(expected).map(drop), Err(PolicyBuildError::NoExpectation));
    let expected = read(&format!("preset = \"cloud\"\nenclave_hashes = [\"{HASH}\"]")).unwrap();
    assert!(Policy::new(expected).is_ok());
}

#[test]
fn sections_refuse_the_kinds_without_one() {
    let expected = read(&format!("enclave_hashes = [\"{HASH}\"]\n[snp]\n[tdx]\n")).unwrap();
    assert_eq!(expected.platforms.accepted(), [Tee::Snp, Tee::Tdx]);
}

#[test]
fn sections_that_accept_any_program_are_refused() {
    let expected = read("[snp]\n").unwrap();
    assert_eq!(Policy::new(expected).map(drop), Err(PolicyBuildError::NoExpectation));
    let expected = read(&format!("model_hashes = [\"{HASH}\"]\n[snp]\n")).unwrap();
    assert_eq!(Policy::new(expected).map(drop), Err(PolicyBuildError::ModelHashAlone));
}

#[test]
fn errors_name_key_line_and_what_was_expected() {
    let unknown = error("preset = \"cloud\"\nmodel_hash = \"12\"\n");
    assert!(
        unknown.contains("line 2, column 1") && unknown.contains("unknown field `model_hash`"),
        "{unknown}"
    );
    assert!(unknown.contains("`model_hashes`"), "{unknown}");
    let unknown = error("[snp]\n\n\nminimum_tbc = 1\n");
    assert!(unknown.contains("line 4, column 1") && unknown.contains("`minimum_tbc`"), "{unknown}");
    let preset = error("preset = \"lax\"");
    assert!(preset.contains("unknown variant `lax`, expected `strict` or `cloud`"), "{preset}");
    let short = error("\nenclave_hashes = [\"12\"]");
    assert!(short.contains("line 2") && short.contains("expected 64 to 128 hex digits, found 2"), "{short}");
    assert!(error("[sev]").contains("unknown field `sev`"));
    assert!(error("snp = 1").contains("line 1"));
    assert!(error("preset = ").contains("line 1"));
    assert!(error("model_hashes = []").starts_with("`model_hashes` is an empty list"));
    assert!(error("client_auth_sha256 = []").starts_with("`client_auth_sha256` is an empty list"));
}

/// An empty list would accept everything.
#[test]
fn lists_that_restrict_are_not_empty() {
    for (section, key) in [
        ("azure", "measurements"),
        ("azure.snp", "measurements"),
        ("nitro", "pcr0"),
        ("sgx", "mr_enclave"),
        ("sgx", "ppid"),
        ("snp", "measurements"),
        ("snp", "chips"),
        ("tdx", "mr_td"),
        ("tdx", "fmspc"),
        ("tpm", "measurements"),
    ] {
        let error = error(&format!("[{section}]\n{key} = []"));
        assert!(error.contains("line 2") && error.contains("at least one"), "{section}.{key}: {error}");
    }
}

#[test]
fn files_it_names_are_read() {
    let mut asked = Vec::new();
    let mut files = |path: &str| {
        asked.push(path.to_owned());
        match path {
            "a.json" => Ok(format!(r#"{{"mrenclave": "{HASH}"}}"#)),
            "key.pem" => Ok("-----BEGIN PUBLIC KEY-----\nAAEC\n-----END PUBLIC KEY-----".into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        }
    };
    let text = "enclave_info_files = [\"a.json\"]\nsigning_key_files = [\"key.pem\"]";
    let expected = Expectations::from_toml(text, &mut files).unwrap();
    assert_eq!(expected.enclave_hashes, [HASH.parse().unwrap()]);
    assert_eq!(expected.signing_keys.len(), 1);
    let mut error = |text: &str| Expectations::from_toml(text, &mut files).unwrap_err().to_string();
    let absent = error("signing_key_files = [\"b.pem\"]");
    assert!(absent.starts_with("`signing_key_files` names b.pem, which cannot be read"), "{absent}");
    assert!(error("enclave_info_files = [\"key.pem\"]").contains("not an enclave_info.json"));
    assert!(error("signing_key_files = [\"a.json\"]").contains("expected a PEM file"));
    assert_eq!(asked, ["a.json", "key.pem", "b.pem", "key.pem", "a.json"]);
}

#[test]
fn key_services_are_named_with_their_authorities() {
    let text = format!(
        "allow_debug = true\n[[key_services]]\nurl = \"https://kbs.example\"\nroots_sha256 = \"{HASH}\"\nname = \"a/b/c\"\n\
         [[key_services]]\nurl = \"https://vault.example\"\nroots_sha256 = \"{HASH}\"\n"
    );
    let services = read(&text).unwrap().key_services;
    assert_eq!((services[0].name.as_deref(), services[1].name.as_deref()), (Some("a/b/c"), None));
    assert_eq!(services[1].url, "https://vault.example");
    assert!(error("[[key_services]]\nurl = \"https://kbs.example\"").contains("roots_sha256"));
    assert!(error(&format!("{text}\nother = 1\n")).contains("other"));
    assert!(error("key_services = []").contains("key_services"));
}
