use std::path::Path;

use super::*;
use crate::group::PeerPolicy;

fn load(arguments: &[&str]) -> Result<Config, ConfigError> {
    Config::load(std::iter::once("confonnx-server").chain(arguments.iter().copied()))
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("server.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

#[test]
fn the_documented_defaults() {
    let config = load(&["--model-path", "models/digits.onnx"]).unwrap();
    assert_eq!(config.models.name(), "digits");
    assert_eq!(config.http.to_string(), "0.0.0.0:8888");
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:8889");
    assert_eq!(config.keys.rollover, Duration::from_secs(86_400));
    assert_eq!(config.keys.grace, Duration::from_secs(3600));
    assert_eq!((config.resumption.max, config.resumption.lifetime.as_secs()), (65_536, 600));
    assert!(!config.insecure);
    assert!(config.auth_key_file.is_none());
}

#[test]
fn a_flag_wins_over_the_file() {
    let (_dir, path) =
        file("model_path = \"a.onnx\"\nhttp_port = 1\nmax_queue = 7\nlog_level = \"verbose\"\ndebug = true");
    let config = load(&["--config", &path, "--http-port", "2", "--debug=false"]).unwrap();
    assert_eq!((config.http.port(), config.limits.queue), (2, 7));
    assert_eq!(config.log_level, LogLevel::Verbose);
    assert!(!config.insecure);
    assert!(load(&["--config", &path]).unwrap().insecure);
}

#[test]
fn a_misspelled_key_is_an_error_that_names_it() {
    let (_dir, path) = file("model_path = \"a.onnx\"\nmodel_pth = \"b\"");
    let error = load(&["--config", &path]).unwrap_err().to_string();
    assert!(error.contains("model_pth"), "{error}");
    let (_dir, path) = file("http_port = 70000");
    assert!(matches!(load(&["--config", &path]), Err(ConfigError::File { .. })));
    assert!(matches!(load(&["--config", "/nowhere.toml"]), Err(ConfigError::Read { .. })));
}

#[test]
fn what_cannot_work_is_refused() {
    assert!(load(&[]).unwrap_err().to_string().contains("CONFONNX_MODEL_PATH"));
    let refused =
        |flags: &[&str]| load(&[&["--model-path", "m.onnx"], flags].concat()).unwrap_err().to_string();
    assert!(refused(&["--max-queue", "0"]).contains("max-queue is 0; expected 1 or more"));
    assert!(refused(&["--key-rollover-interval", "0"]).contains("key-rollover-interval"));
    assert!(refused(&["--key-rollover-interval", "10", "--key-grace", "11"]).contains("key-grace is 11"));
    assert!(refused(&["--key-rollover-interval", "2592001"]).contains("thirty days"));
    let week = ["--key-rollover-interval", "2592000", "--key-grace", "604801"];
    assert!(refused(&week).contains("at most 604800"));
    assert!(refused(&["--resumption-lifetime", "86401"]).contains("at most 86400"));
    assert!(refused(&["--model-name", "a/b"]).contains("model-name"));
    assert!(refused(&["--log-level", "loud"]).contains("verbose"));
    // Grace follows a short rollover, so that key ids never run out.
    let config = load(&["--model-path", "m.onnx", "--key-rollover-interval", "2"]).unwrap();
    assert_eq!(config.keys.grace, Duration::from_secs(2));
}

#[test]
fn old_names_of_settings_still_say_what_they_said() {
    let (_dir, path) = file("max_sessions = 7");
    for (flags, held, seconds) in [
        (&["--max-sessions", "5", "--session-lifetime", "60"][..], 5, 60),
        (&["--max-resumptions", "5", "--resumption-lifetime", "60"], 5, 60),
        (&["--config", &path], 7, 600),
    ] {
        let resumption = load(&[&["--model-path", "m.onnx"], flags].concat()).unwrap().resumption;
        assert_eq!((resumption.max, resumption.lifetime.as_secs()), (held, seconds), "{flags:?}");
    }
    let variables = [("CONFONNX_MAX_SESSIONS", "3"), ("CONFONNX_SESSION_LIFETIME", "30")];
    let given = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into());
    let settings = renamed(given).unwrap();
    assert_eq!((settings.max_resumptions, settings.resumption_lifetime), (Some(3), Some(30)));
    assert!(renamed(|_| Some("many".into())).unwrap_err().to_string().contains("many"));
    let names = variables.map(|(name, _)| OsString::from(name));
    assert!(unknown_variables(names).is_empty());
    let mut help = Settings::flags();
    let help = help.render_long_help().to_string();
    assert!(help.contains("--max-resumptions") && !help.contains("--max-sessions"));
}

#[test]
fn services_for_collateral_are_urls() {
    let with = |url: &str| load(&["--model-path", "m.onnx", "--collateral-url-intel", url]);
    for url in ["https://pccs.example:8081", "http://127.0.0.1:1/prefix/"] {
        assert_eq!(with(url).unwrap().collateral.bases.intel.as_deref(), Some(url));
    }
    for url in
        ["", "pccs.example", "ftp://pccs.example", "https://user:word@pccs.example", "http://a/?b", "/path"]
    {
        let error = with(url).unwrap_err().to_string();
        assert!(error.starts_with("collateral-url-intel is ") && error.contains("expected a URL"), "{error}");
    }
}

#[test]
fn a_tee_is_one_of_those_there_are() {
    assert_eq!(load(&["--model-path", "m.onnx", "--tee", "tpm"]).unwrap().tee, Some(TeeName::Tpm));
    // The insecure TEE has flags of its own, which say what it is.
    let error = load(&["--model-path", "m.onnx", "--tee", "insecure"]).unwrap_err().to_string();
    assert!(error.contains("possible values: azure,"), "{error}");
}

#[test]
fn variables_nobody_reads_are_reported() {
    let names = ["CONFONNX_HTTP_PORT", "CONFONNX_HTTP_PROT", "HOME", "CONFONNX_CONFIG"];
    let unknown = unknown_variables(names.map(OsString::from));
    assert_eq!(unknown.into_iter().collect::<Vec<_>>(), ["CONFONNX_HTTP_PROT"]);
}

#[test]
fn variables_of_kubernetes_are_named_as_such() {
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let found =
        injected([variable("HOME", "tcp://x"), variable("CONFONNX_HTTP_PORT", "tcp://10.0.0.7:8888")]);
    let error = found.unwrap().to_string();
    for part in ["CONFONNX_HTTP_PORT is tcp://10.0.0.7:8888", "Kubernetes", "enableServiceLinks: false"] {
        assert!(error.contains(part), "no {part} in {error}");
    }
    for value in ["udp://10.0.0.7:53", "sctp://10.0.0.7:53"] {
        assert!(injected([variable("CONFONNX_HTTP_PORT", value)]).is_some(), "{value}");
    }
    assert!(injected([variable("CONFONNX_HTTP_PORT", "8888")]).is_none());
    // Kubernetes sets such variables: no setting has these names, and nobody misspelled them.
    let links = [
        "CONFONNX_SERVICE_HOST",
        "CONFONNX_PORT_8888_TCP_ADDR",
        "CONFONNX_SERVICE_PORT_HTTP",
        "CONFONNX_PORT",
    ];
    assert!(unknown_variables(links.map(OsString::from)).is_empty());
}

/// The host names the file; it may be any that this machine holds.
#[test]
fn errors_about_a_file_do_not_show_its_lines() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let secret = "AGE-SECRET-KEY-1QQPQQ";
    for text in
        [format!("{secret}\n"), format!("# {secret}\nmax_queue = \n"), format!("max_queue = [\n{secret}\n")]
    {
        std::fs::write(file.path(), &text).unwrap();
        let error = load(&["--config", file.path().to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("line ") && !error.contains("SECRET-KEY"), "{error}");
        let error = crate::auth::parse(&text).unwrap_err().to_string();
        assert!(error.contains("line ") && !error.contains("SECRET-KEY"), "{error}");
        let error = PeerPolicy::from_file(file.path()).err().unwrap().to_string();
        assert!(error.contains("line ") && !error.contains("SECRET-KEY"), "{error}");
    }
    let error = <toml::de::Error as serde::de::Error>::custom(format!("it is wrong\n{secret}"));
    assert_eq!(TomlError::of("", &error).to_string(), "line 1, column 1: it is wrong");
}

#[test]
fn who_begins_a_group_is_said_with_and_without_an_equals_sign() {
    let begins = |flags: &[&str]| {
        let always = ["--model-path", "m.onnx", "--key-provider", "peer", "--peers", "http://a:1"];
        match load(&[&always, flags].concat()).unwrap().key_source {
            KeySource::Peer(peer) => peer.bootstrap,
            _ => panic!("no group"),
        }
    };
    assert!(begins(&["--peer-bootstrap", "true"]) && begins(&["--peer-bootstrap=true"]));
    assert!(begins(&["--peer-bootstrap"]) && begins(&["--peer-bootstrap", "--max-queue", "3"]));
    assert!(!begins(&["--peer-bootstrap", "false"]));
    load(&["--model-path", "m.onnx", "--peer-bootstrap", "ordinal"]).unwrap();
}

#[test]
fn every_flag_has_its_variable() {
    // These flags are no settings.
    let none = ["help", "version", "check"];
    for argument in Settings::flags().get_arguments().filter(|a| !none.contains(&a.get_id().as_str())) {
        let expected = format!("CONFONNX_{}", argument.get_id().as_str().to_uppercase());
        assert_eq!(argument.get_env().and_then(|name| name.to_str()), Some(&*expected));
    }
}

#[test]
fn the_samples_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/samples");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let settings = Settings::from_toml(&std::fs::read_to_string(&path).unwrap());
            Config::resolve(settings.unwrap_or_else(|e| panic!("{}: {e}", path.display()))).unwrap();
            seen += 1;
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_sample_for_production_has_every_key() {
    let sample = include_str!("../../../../docs/samples/production.toml");
    for argument in Settings::flags().get_arguments() {
        let key = argument.get_id().as_str();
        let named = |line: &str| line.trim_start_matches("# ").starts_with(&format!("{key} = "));
        assert!(
            ["check", "config", "help", "version"].contains(&key) || sample.lines().any(named),
            "production.toml lacks {key}"
        );
    }
}

#[test]
fn a_model_key_comes_from_a_service_by_https() {
    let settings = |source: &str, url: &str| Settings {
        model_path: Some("m.onnx.age".into()),
        model_key_source: Some(source.into()),
        kbs_url: Some(url.into()),
        akv_url: Some("https://vault.example/".into()),
        akv_attestation_url: Some("https://attest.example".into()),
        ..Settings::default()
    };
    let resolve = |settings: Settings| Config::resolve(settings).map_err(|error| error.to_string());
    let config = resolve(settings("kbs:a/b/c", "https://kbs.example/")).unwrap();
    let Some(SecretConfig::Kbs(service, name)) = config.model_key else { panic!() };
    assert_eq!((service.url.as_str(), name.to_string().as_str()), ("https://kbs.example", "a/b/c"));
    assert!(config.use_model_key_provisioning);
    let config = resolve(settings("akv:key/1", "unused")).unwrap();
    let Some(SecretConfig::Akv(service, name)) = config.model_key else { panic!() };
    assert_eq!((service.vault.url.as_str(), name.to_string().as_str()), ("https://vault.example", "key/1"));
    assert_eq!(service.identity_url, "http://169.254.169.254");
    // Whoever answers in the service's name knows the secret.
    let plain = settings("kbs:a/b/c", "http://kbs.example");
    assert!(resolve(plain.clone()).unwrap_err().contains("expected a URL of https"));
    assert!(resolve(Settings { debug: Some(true), ..plain }).is_ok());
    for (source, expected) in [
        ("a/b/c", "kbs:REPOSITORY/TYPE/TAG or akv:NAME"),
        ("kbs:a/b", "expected REPOSITORY/TYPE/TAG"),
        ("akv:a/b/c", "expected NAME or NAME/VERSION"),
    ] {
        let error = resolve(settings(source, "https://kbs.example")).unwrap_err();
        assert!(error.contains(expected) && error.contains(source.rsplit(':').next().unwrap()), "{error}");
    }
    let absent = Settings { kbs_url: None, ..settings("kbs:a/b/c", "") };
    assert!(resolve(absent).unwrap_err().contains("CONFONNX_KBS_URL"));
    let owner = Settings {
        model_owner_key_file: Some("owner.pub".into()),
        ..settings("kbs:a/b/c", "https://kbs.example")
    };
    assert!(resolve(owner).unwrap_err().contains("model-owner-key-file"));
}

#[test]
fn one_model_or_a_repository() {
    let error = |arguments: &[&str]| {
        let arguments = std::iter::once("confonnx-server").chain(arguments.iter().copied());
        Config::load(arguments).unwrap_err().to_string()
    };
    assert!(error(&["--model-path", "a.onnx", "--model-repository", "b"]).contains("expected one of them"));
    assert!(error(&["--model-name", "a", "--model-repository", "b"]).contains("expected one of them"));
    let control = error(&["--model-path", "a.onnx", "--model-control", "poll"]);
    assert!(control.contains("model-control is poll") && control.contains("--model-repository"), "{control}");
    let nobody = error(&["--model-repository", "b", "--model-control", "explicit"]);
    assert!(nobody.contains("who may `manage`"), "{nobody}");
    for name in ["", ".", "..", ".a", "a/b", "a b"] {
        assert!(!is_name(name), "{name}");
    }
}

#[test]
fn a_key_provider_needs_its_service_and_secret() {
    let settings = |provider| Settings {
        model_path: Some("m.onnx".into()),
        key_provider: Some(provider),
        kbs_url: Some("https://kbs.example".into()),
        kbs_resource: Some("default/confonnx/root".into()),
        akv_url: Some("https://vault.example".into()),
        akv_attestation_url: Some("https://attest.example".into()),
        akv_key: Some("confonnx-root".into()),
        ..Settings::default()
    };
    let (kbs, akv) = (settings(KeyProviderName::Kbs), settings(KeyProviderName::Akv));
    assert!(matches!(
        Config::resolve(kbs.clone()).unwrap().key_source,
        KeySource::Released(SecretConfig::Kbs(..))
    ));
    assert!(matches!(
        Config::resolve(akv.clone()).unwrap().key_source,
        KeySource::Released(SecretConfig::Akv(..))
    ));
    let local = Config::resolve(settings(KeyProviderName::Local)).unwrap();
    assert!(matches!(local.key_source, KeySource::Local));
    let missing = |settings| Config::resolve(settings).unwrap_err().to_string();
    assert!(missing(Settings { kbs_resource: None, ..kbs }).contains("--kbs-resource"));
    assert!(missing(Settings { akv_key: None, ..akv.clone() }).contains("--akv-key"));
    assert!(missing(Settings { akv_attestation_url: None, ..akv }).contains("--akv-attestation-url"));
}

#[test]
fn a_group_needs_peers() {
    let settings = || Settings {
        model_path: Some("m.onnx".into()),
        key_provider: Some(KeyProviderName::Peer),
        ..Settings::default()
    };
    assert!(Config::resolve(settings()).unwrap_err().to_string().contains("CONFONNX_PEERS"));
    let peers = Some("http://a:1".parse().unwrap());
    for (role, may_begin) in [(None, false), (Some(Bootstrap::Never), false), (Some(Bootstrap::Always), true)]
    {
        let peer = Settings { peers: peers.clone(), peer_bootstrap: role, ..settings() };
        let KeySource::Peer(config) = Config::resolve(peer).unwrap().key_source else { panic!("{role:?}") };
        assert_eq!(config.bootstrap, may_begin);
    }
    for (text, role) in
        [("true", Bootstrap::Always), ("false", Bootstrap::Never), ("\"ordinal\"", Bootstrap::Ordinal)]
    {
        let read = Settings::from_toml(&format!("peer_bootstrap = {text}")).unwrap();
        assert_eq!(read.peer_bootstrap, Some(role));
    }
    for wrong in ["\"true\"", "1", "\"first\""] {
        Settings::from_toml(&format!("peer_bootstrap = {wrong}")).unwrap_err();
    }
}
