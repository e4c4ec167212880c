//! Settings: a flag wins over a `CONFONNX_…` variable, which wins over the TOML file, which wins over the default.
//!
//! All of them come from the untrusted host. None weakens confidentiality, unless the evidence binds it: what touches
//! trust is in the claims.

mod collateral;
mod file;
mod limits;
mod origins;
mod peers;
mod services;
mod settings;

use std::{
    collections::BTreeSet,
    ffi::OsString,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::FromArgMatches;
use confonnx_model::triton::{DynamicBatching, ModelConfig};
use confonnx_protocol::server::ResumptionLimits;

pub use settings::{Bootstrap, EngineKind, KeyProviderName, LogFormat, LogLevel, ModelControl, Settings};

pub use collateral::{Bases, CollateralConfig};
pub use file::TomlError;
pub use limits::Limits;
pub use origins::Origins;
pub use peers::{Address, PeerConfig, Peers, PeersError};
pub use services::{AkvConfig, KbsConfig, SecretConfig, Service};

use crate::tee::TeeName;

/// What the server runs with: [`Settings`] with every default filled in and every value checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the models are.
    pub models: ModelSource,
    /// What changes which of them are served.
    pub model_control: ModelControl,
    /// What a model that is in no repository is run with.
    pub model_config: ModelConfig,
    /// How often a watched repository is looked at.
    pub repository_poll: Duration,
    /// Where ONNX Runtime is; `None` searches the built-in places.
    pub onnxruntime_library: Option<PathBuf>,
    /// Where sealed requests and attestation are served; port 0 takes a free one.
    pub http: SocketAddr,
    /// A vsock port besides, if any.
    pub vsock: Option<u32>,
    /// Where metrics and health are served, if at all.
    pub admin: Option<SocketAddr>,
    /// Threads that serve HTTP.
    pub http_threads: usize,
    /// Pages that may ask from a browser.
    pub origins: Origins,
    /// Folder with a page for people.
    pub demo: Option<PathBuf>,
    /// What is logged.
    pub log_level: LogLevel,
    /// How messages are written.
    pub log_format: LogFormat,
    /// Whether only the settings are to be checked.
    pub check: bool,
    /// File with bearer tokens, one a line.
    pub auth_key_file: Option<PathBuf>,
    /// File that says who may call.
    pub auth_file: Option<PathBuf>,
    /// Where to write who called; `-` is standard output.
    pub audit_log: Option<PathBuf>,
    /// The proof that the program's release is in a transparency log.
    pub release_proof: Option<PathBuf>,
    /// Run without a TEE.
    pub insecure: bool,
    /// The TEE to use; `None` looks for one.
    pub tee: Option<TeeName>,
    /// Where collateral comes from and is kept.
    pub collateral: CollateralConfig,
    /// How long keys live.
    pub keys: KeyTimes,
    /// How many encapsulated keys the replay table holds.
    pub replay_capacity: usize,
    /// Resumptions.
    pub resumption: ResumptionLimits,
    /// Bounds of what clients can make the server hold.
    pub limits: Limits,
    /// Whether the model is encrypted and its owner brings the key.
    pub use_model_key_provisioning: bool,
    /// File with the public key of the model's owner.
    pub model_owner_key_file: Option<PathBuf>,
    /// Where the secrets come from that keys are derived from.
    pub key_source: KeySource,
    /// Where the key of an encrypted model comes from, if not from its owner.
    pub model_key: Option<SecretConfig>,
    /// Where models run.
    pub engine: EngineKind,
    /// Whether the server is ready only if all models are that should be served.
    pub strict_readiness: bool,
    /// How long one run of a model may take.
    pub inference_timeout: Duration,
    /// Bytes of memory that each model's process may have; 0: no limit of its own.
    pub inference_memory: u64,
    /// ONNX Runtime sessions: requests that are run at once.
    pub sessions: usize,
    /// Threads inside one operator.
    pub threads_per_session: Option<usize>,
    /// How long running requests may take to finish after a signal to stop.
    pub shutdown_grace: Duration,
}

/// Where the models are.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// One `.onnx` file, and the model's name in request paths.
    File {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// A folder of them, `NAME/VERSION/model.onnx`.
    Repository {
        /// The folder.
        path: PathBuf,
    },
}

impl ModelSource {
    /// The only model's name; empty for a repository.
    pub fn name(&self) -> &str {
        match self {
            Self::File { name, .. } => name,
            Self::Repository { .. } => "",
        }
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } | Self::Repository { path } => path,
        }
    }
}

/// How long keys live.
#[derive(Clone, Copy, Debug)]
pub struct KeyTimes {
    /// An epoch.
    pub rollover: Duration,
    /// How long the previous epoch's keys are still accepted.
    pub grace: Duration,
    /// How often to look at the source of the keys, and how long before an epoch ends to ask for the next.
    pub sync: Duration,
    /// How long to wait after a failure to get new keys.
    pub error_retry: Duration,
}

/// Where the secrets come from that keys are derived from.
#[derive(Clone, Debug)]
pub enum KeySource {
    /// This TEE makes them.
    Local,
    /// A group of servers shares them.
    Peer(PeerConfig),
    /// A service releases one.
    Released(SecretConfig),
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The command line is wrong, or asks for help; knows how to print itself.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// The configuration file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The configuration file has an unknown key or a wrong value.
    #[error("configuration file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        source: TomlError,
    },
    /// A setting without a default is missing.
    #[error("no {name} is given: use --{name}, {variable} or the configuration file")]
    Missing {
        /// The setting, as its flag is spelled.
        name: &'static str,
        /// The setting's environment variable.
        variable: &'static str,
    },
    /// A variable that Kubernetes made.
    #[error(
        "{variable} is {value}, which Kubernetes sets in pods beside a Service whose name begins with `confonnx`: set \
         `enableServiceLinks: false` in the pod, or name the Service otherwise"
    )]
    Injected {
        /// The variable.
        variable: String,
        /// The address in the setting.
        value: String,
    },
    /// Two settings that exclude each other.
    #[error("both {first} and {second} are given; expected one of them")]
    Both {
        /// One setting, as its flag is spelled.
        first: &'static str,
        /// The setting that excludes it.
        second: &'static str,
    },
    /// A value is outside its range.
    #[error("{name} is {found}; expected {expected}")]
    Range {
        /// The setting, as its flag is spelled.
        name: &'static str,
        /// The value.
        found: String,
        /// What is allowed.
        expected: &'static str,
    },
}

impl Config {
    /// Reads flags from `arguments` (the first is the program's name), the environment, and the file they name.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(
        arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, ConfigError> {
        if let Some(injected) = injected(std::env::vars()) {
            return Err(injected);
        }
        let matches = Settings::flags().try_get_matches_from(arguments)?;
        let settings = Settings::from_arg_matches(&matches)?.or(renamed(|name| std::env::var(name).ok())?);
        let settings = match &settings.config {
            None => settings,
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.clone(), source })?;
                let file = Settings::from_toml(&text).map_err(|source| ConfigError::File {
                    path: path.clone(),
                    source: TomlError::of(&text, &source),
                })?;
                settings.or(file)
            }
        };
        Self::resolve(settings)
    }

    /// Fills in the defaults and checks the values.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] and [`ConfigError::Range`].
    pub fn resolve(settings: Settings) -> Result<Self, ConfigError> {
        let bases = Bases {
            amd: base_url("collateral-url-amd", settings.collateral_url_amd.clone())?,
            intel: base_url("collateral-url-intel", settings.collateral_url_intel.clone())?,
        };
        let model_key = services::model_key(&settings, &bases)?;
        let key_source = match settings.key_provider.unwrap_or(KeyProviderName::Local) {
            KeyProviderName::Local => KeySource::Local,
            KeyProviderName::Peer => KeySource::Peer(group(&settings)?),
            KeyProviderName::Kbs => KeySource::Released(services::kbs(&settings)?),
            KeyProviderName::Akv => KeySource::Released(services::akv(&settings, &bases)?),
        };
        let models = model_source(settings.model_path, settings.model_name, settings.model_repository)?;
        let model_control = settings.model_control.unwrap_or(ModelControl::None);
        if matches!(models, ModelSource::File { .. }) && model_control != ModelControl::None {
            let found = format!("{model_control:?}").to_lowercase();
            let expected = "none, for one model; a --model-repository can change";
            return Err(ConfigError::Range { name: "model-control", found, expected });
        }
        let max_batch_size = at_least_1("max-batch-size", settings.max_batch_size.unwrap_or(1))?;
        if matches!(models, ModelSource::Repository { .. }) && max_batch_size > 1 {
            let (name, found) = ("max-batch-size", max_batch_size.to_string());
            let expected = "no such flag with --model-repository: each model's config.pbtxt says it";
            return Err(ConfigError::Range { name, found, expected });
        }
        let dynamic_batching = (max_batch_size > 1).then(|| DynamicBatching {
            preferred_batch_size: Vec::new(),
            max_queue_delay_us: settings.max_batch_delay.unwrap_or(0),
        });
        if model_control == ModelControl::Explicit && settings.auth_file.is_none() {
            let expected = "an --auth-file beside it, which says who may `manage`";
            return Err(ConfigError::Range { name: "model-control", found: "explicit".into(), expected });
        }
        let request_bytes = at_least_1("max-request-bytes", settings.max_request_bytes.unwrap_or(64 << 20))?;
        let held_bytes =
            settings.max_held_bytes.unwrap_or_else(|| request_bytes.saturating_mul(4).max(512 << 20));
        if held_bytes < request_bytes {
            let expected = "at least max-request-bytes, or the longest request could not be held";
            return Err(ConfigError::Range {
                name: "max-held-bytes",
                found: held_bytes.to_string(),
                expected,
            });
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let rollover = at_least_1("key-rollover-interval", settings.key_rollover_interval.unwrap_or(DAY))?;
        at_most("key-rollover-interval", rollover, MONTH, "at most 2592000, thirty days")?;
        let grace = settings.key_grace.unwrap_or(rollover.min(HOUR));
        at_most("key-grace", grace, WEEK, "at most 604800, a week")?;
        if grace > rollover {
            let expected =
                "at most the key-rollover-interval: a key is accepted for one more epoch, no longer";
            return Err(ConfigError::Range { name: "key-grace", found: grace.to_string(), expected });
        }
        let sync = at_least_1("key-sync-interval", settings.key_sync_interval.unwrap_or(HOUR))?;
        let error_retry =
            at_least_1("key-error-retry-interval", settings.key_error_retry_interval.unwrap_or(300))?;
        let lifetime = at_least_1("resumption-lifetime", settings.resumption_lifetime.unwrap_or(600))?;
        if lifetime > DAY {
            let (name, found) = ("resumption-lifetime", lifetime.to_string());
            return Err(ConfigError::Range { name, found, expected: "at most 86400, a day" });
        }
        let address = settings.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let admin_address = settings.admin_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let admin_port = settings.admin_port.unwrap_or(8889);
        let request_timeout = at_least_1("request-timeout", settings.request_timeout.unwrap_or(30))?;
        Ok(Self {
            models,
            model_control,
            model_config: ModelConfig {
                max_batch_size: if max_batch_size > 1 { max_batch_size } else { 0 },
                dynamic_batching,
                ..ModelConfig::default()
            },
            repository_poll: Duration::from_secs(at_least_1(
                "repository-poll-interval",
                settings.repository_poll_interval.unwrap_or(15),
            )?),
            onnxruntime_library: settings.onnxruntime_library,
            http: SocketAddr::new(address, settings.http_port.unwrap_or(8888)),
            vsock: settings.vsock_port,
            admin: (admin_port != 0).then(|| SocketAddr::new(admin_address, admin_port)),
            http_threads: at_least_1(
                "num-http-threads",
                settings.num_http_threads.unwrap_or(cores.saturating_add(1)),
            )?,
            origins: Origins::parse(settings.cors_origin.as_deref().unwrap_or_default())?,
            demo: settings.demo,
            log_level: settings.log_level.unwrap_or(LogLevel::Info),
            log_format: settings.log_format.unwrap_or(LogFormat::Text),
            check: settings.check.unwrap_or(false),
            auth_key_file: settings.auth_key_file,
            auth_file: settings.auth_file,
            audit_log: settings.audit_log,
            release_proof: settings.release_proof,
            insecure: settings.debug.unwrap_or(false) || settings.simulation.unwrap_or(false),
            tee: settings.tee,
            collateral: CollateralConfig { bases, cache: settings.collateral_cache },
            keys: KeyTimes {
                rollover: Duration::from_secs(rollover),
                grace: Duration::from_secs(grace),
                sync: Duration::from_secs(sync),
                error_retry: Duration::from_secs(error_retry),
            },
            resumption: ResumptionLimits {
                max: settings.max_resumptions.unwrap_or(1 << 16),
                lifetime: Duration::from_secs(lifetime),
            },
            replay_capacity: at_least_1("replay-capacity", settings.replay_capacity.unwrap_or(1 << 24))?,
            limits: Limits {
                request_bytes,
                held_bytes,
                request_metrics: settings.request_metrics.unwrap_or(false),
                connections: at_least_1("max-connections", settings.max_connections.unwrap_or(1024))?,
                peer_percent: match settings.max_peer_percent.unwrap_or(50) {
                    found @ (0 | 101..) => {
                        let (name, expected) = ("max-peer-percent", "1 to 100");
                        return Err(ConfigError::Range { name, found: found.to_string(), expected });
                    }
                    percent => percent,
                },
                queue: at_least_1("max-queue", settings.max_queue.unwrap_or(128))?,
                request_timeout: Duration::from_secs(request_timeout),
                idle_timeout: Duration::from_secs(request_timeout.saturating_mul(2)),
            },
            // Whoever else has the model's key may give it as well.
            use_model_key_provisioning: settings.use_model_key_provisioning.unwrap_or(model_key.is_some()),
            key_source,
            model_key,
            model_owner_key_file: settings.model_owner_key_file,
            engine: settings.engine.unwrap_or(EngineKind::Isolated),
            strict_readiness: settings.strict_readiness.unwrap_or(true),
            inference_timeout: Duration::from_secs(at_least_1(
                "inference-timeout",
                settings.inference_timeout.unwrap_or(60),
            )?),
            inference_memory: settings
                .inference_memory
                .map_or_else(most_memory, |mib| mib.saturating_mul(1 << 20)),
            sessions: at_least_1("num-sessions", settings.num_sessions.unwrap_or(cores.min(4)))?,
            threads_per_session: settings.threads_per_session,
            shutdown_grace: Duration::from_secs(settings.shutdown_grace.unwrap_or(30)),
        })
    }
}

/// A variable of a setting that holds what Kubernetes writes into it: the address of a Service.
fn injected(variables: impl IntoIterator<Item = (String, String)>) -> Option<ConfigError> {
    let command = Settings::flags();
    let known = |name: &str| command.get_arguments().any(|a| a.get_env().is_some_and(|env| env == name));
    variables
        .into_iter()
        .find(|(name, value)| is_service(value) && known(name))
        .map(|(variable, value)| ConfigError::Injected { variable, value })
}

fn is_service(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}

/// Whether Kubernetes names variables so: `…_SERVICE_PORT_HTTP`, `…_PORT_8888_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
        || name.ends_with("_PORT")
}

/// Three quarters of what the machine has: a model that wants more gets an error, before the system ends something.
fn most_memory() -> u64 {
    let info = rustix::system::sysinfo();
    let total = u64::from(info.mem_unit).saturating_mul(info.totalram);
    (total / 4).saturating_mul(3)
}

/// What variables say that had another name once.
fn renamed(variable: impl Fn(&str) -> Option<String>) -> Result<Settings, clap::Error> {
    let found = RENAMED.iter().filter_map(|(old, flag)| Some(format!("--{flag}={}", variable(old)?)));
    let arguments: Vec<_> = std::iter::once(String::new()).chain(found).collect();
    if arguments.len() == 1 {
        return Ok(Settings::default());
    }
    Settings::from_arg_matches(&Settings::flags().try_get_matches_from(arguments)?)
}

/// Variables by their old names, and the settings that they are.
const RENAMED: [(&str, &str); 2] =
    [("CONFONNX_MAX_SESSIONS", "max-resumptions"), ("CONFONNX_SESSION_LIFETIME", "resumption-lifetime")];

/// `CONFONNX_…` variables that no setting reads: probably misspelled.
pub fn unknown_variables(names: impl IntoIterator<Item = OsString>) -> BTreeSet<String> {
    let command = Settings::flags();
    let known: BTreeSet<_> =
        command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let renamed = |name: &str| RENAMED.iter().any(|(old, _)| *old == name);
    let names = names.into_iter().filter_map(|name| name.into_string().ok());
    names
        .filter(|name| {
            name.starts_with("CONFONNX_")
                && !known.contains(name.as_str())
                && !renamed(name)
                && !is_service_link(name)
        })
        .collect()
}

/// The group of `--key-provider peer`.
fn group(settings: &Settings) -> Result<PeerConfig, ConfigError> {
    let missing = ConfigError::Missing { name: "peers", variable: "CONFONNX_PEERS" };
    let peers = settings.peers.clone().ok_or(missing)?;
    let bootstrap = match settings.peer_bootstrap.unwrap_or(Bootstrap::Never) {
        Bootstrap::Never => false,
        Bootstrap::Always => true,
        Bootstrap::Ordinal => rustix::system::uname().nodename().to_bytes().ends_with(b"-0"),
    };
    Ok(PeerConfig { peers, policy: settings.peer_policy.clone(), bootstrap })
}

fn model_source(
    path: Option<PathBuf>,
    name: Option<String>,
    repository: Option<PathBuf>,
) -> Result<ModelSource, ConfigError> {
    let path = match (path, repository) {
        (Some(path), None) => path,
        (None, Some(_)) if name.is_some() => {
            return Err(ConfigError::Both { first: "model-repository", second: "model-name" });
        }
        (None, Some(path)) => return Ok(ModelSource::Repository { path }),
        (Some(_), Some(_)) => {
            return Err(ConfigError::Both { first: "model-path", second: "model-repository" });
        }
        (None, None) => {
            return Err(ConfigError::Missing { name: "model-path", variable: "CONFONNX_MODEL_PATH" });
        }
    };
    let name = name.unwrap_or_else(|| {
        // `digits.onnx` and `digits.onnx.age` are both `digits`.
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let name = name.strip_suffix(".age").unwrap_or(name);
        Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned()
    });
    if !is_name(&name) {
        let expected = "1 to 128 letters, digits, '-', '_' and '.', which does not begin it; choose one with --model-name";
        return Err(ConfigError::Range { name: "model-name", found: format!("{name:?}"), expected });
    }
    Ok(ModelSource::File { path, name })
}

fn at_least_1<T: Copy + Default + PartialEq + ToString>(
    name: &'static str,
    value: T,
) -> Result<T, ConfigError> {
    if value == T::default() {
        return Err(ConfigError::Range { name, found: value.to_string(), expected: "1 or more" });
    }
    Ok(value)
}

/// What a client would not see in a name: keys that outlive any reason to have them.
fn at_most(name: &'static str, value: u64, most: u64, expected: &'static str) -> Result<(), ConfigError> {
    if value > most {
        return Err(ConfigError::Range { name, found: value.to_string(), expected });
    }
    Ok(())
}

fn base_url(name: &'static str, value: Option<String>) -> Result<Option<String>, ConfigError> {
    let Some(url) = value else { return Ok(None) };
    let usable = url.parse::<http::Uri>().is_ok_and(|uri| {
        let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        matches!(uri.scheme_str(), Some("http" | "https")) && authority && uri.query().is_none()
    });
    if usable {
        return Ok(Some(url));
    }
    let expected = "a URL such as https://pccs.example:8081, without user name and query";
    Err(ConfigError::Range { name, found: format!("{url:?}"), expected })
}

/// Whether `name` can stand in a request path as it is; hidden files have none.
pub(crate) fn is_name(name: &str) -> bool {
    (1..=128).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;
const MONTH: u64 = 30 * DAY;

#[cfg(test)]
mod tests;
