//! The settings as a user gives them: flags, variables and TOML keys, declared once.

use std::{net::IpAddr, path::PathBuf};

use clap::{CommandFactory, Parser, ValueEnum};
use serde::Deserialize;

use super::Peers;
use crate::tee::TeeName;

/// Serves an ONNX model to clients that need not trust whoever runs this machine.
///
/// Every flag can also be set by the variable shown with it, or in a TOML file (`--config`) under the flag's name with
/// `_` for `-`. A flag wins over a variable, which wins over the file. Times are in seconds.
#[derive(Clone, Debug, Default, Parser, Deserialize)]
#[command(name = "confonnx-server", version)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// TOML file with further settings.
    #[arg(long, env = "CONFONNX_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Read the settings and the files that they name, say what is wrong with them, and end.
    #[arg(long, num_args = 0, default_missing_value = "true")]
    #[serde(skip)]
    pub check: Option<bool>,
    /// The model: an .onnx file, its external data beside it; or such a file encrypted.
    #[arg(long, env = "CONFONNX_MODEL_PATH", value_name = "FILE")]
    pub model_path: Option<PathBuf>,
    /// The model's name in requests [default: the file's name without .onnx or .onnx.age].
    #[arg(long, env = "CONFONNX_MODEL_NAME", value_name = "NAME")]
    pub model_name: Option<String>,
    /// Several models: a folder with NAME/VERSION/model.onnx or model.onnx.age, as for Triton; NAME/config.pbtxt if wanted.
    #[arg(long, env = "CONFONNX_MODEL_REPOSITORY", value_name = "FOLDER")]
    pub model_repository: Option<PathBuf>,
    /// What changes which models of the repository are served: nothing, what is found in the folder, or callers who load
    /// and unload, if the --auth-file lets them `manage`. Clients see it in the claims [default: none].
    #[arg(long, env = "CONFONNX_MODEL_CONTROL", value_name = "MODE")]
    pub model_control: Option<ModelControl>,
    /// How often to look at the repository, with --model-control poll [default: 15].
    #[arg(long, env = "CONFONNX_REPOSITORY_POLL_INTERVAL", value_name = "SECONDS")]
    pub repository_poll_interval: Option<u64>,
    /// Batch requests, up to this many along their first dimension, while others run. Only if that changes no bit
    /// of the answers, which is tried at the start. In a repository config.pbtxt says so [default: 1, none].
    #[arg(long, env = "CONFONNX_MAX_BATCH_SIZE", value_name = "N")]
    pub max_batch_size: Option<u32>,
    /// How long a request that found others running waits for more to go with it [default: 0].
    #[arg(long, env = "CONFONNX_MAX_BATCH_DELAY", value_name = "MICROSECONDS")]
    pub max_batch_delay: Option<u64>,
    /// The model is encrypted (`confonnx encrypt-model`): wait for its owner to give the key (`confonnx provision`).
    #[arg(long, env = "CONFONNX_USE_MODEL_KEY_PROVISIONING", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub use_model_key_provisioning: Option<bool>,
    /// Only who has the private half of this key may unlock the model (PEM; Ed25519 or P-256). Clients see whose it is in
    /// the claims [default: anyone who has the model's key].
    #[arg(long, env = "CONFONNX_MODEL_OWNER_KEY_FILE", value_name = "FILE")]
    pub model_owner_key_file: Option<PathBuf>,
    /// The model is encrypted: get its key from this service, as kbs:REPOSITORY/TYPE/TAG or akv:NAME[/VERSION].
    #[arg(long, env = "CONFONNX_MODEL_KEY_SOURCE", value_name = "SECRET")]
    pub model_key_source: Option<String>,
    /// Port for attestation and sealed requests; 0 takes a free one [default: 8888].
    #[arg(long, env = "CONFONNX_HTTP_PORT", value_name = "PORT")]
    pub http_port: Option<u16>,
    /// Port of vsock where the same is served besides, for enclaves that have no network; all callers are one peer there
    /// (max-peer-percent).
    #[arg(long, env = "CONFONNX_VSOCK_PORT", value_name = "PORT")]
    pub vsock_port: Option<u32>,
    /// Address to listen on [default: 0.0.0.0].
    #[arg(long, env = "CONFONNX_ADDRESS", value_name = "IP")]
    pub address: Option<IpAddr>,
    /// Port for /metrics, /health/live and /health/ready; 0 turns them off [default: 8889].
    #[arg(long, env = "CONFONNX_ADMIN_PORT", value_name = "PORT")]
    pub admin_port: Option<u16>,
    /// Address to listen on for the admin port [default: 127.0.0.1].
    #[arg(long, env = "CONFONNX_ADMIN_ADDRESS", value_name = "IP")]
    pub admin_address: Option<IpAddr>,
    /// Run without a TEE, for development. NOTHING IS CONFIDENTIAL: clients have to allow it by name.
    #[arg(long, env = "CONFONNX_DEBUG", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub debug: Option<bool>,
    /// The same as --debug.
    #[arg(long, env = "CONFONNX_SIMULATION", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub simulation: Option<bool>,
    /// Where the secrets come from that keys are derived from [default: local].
    #[arg(long, env = "CONFONNX_KEY_PROVIDER", value_name = "NAME")]
    pub key_provider: Option<KeyProviderName>,
    /// The other servers of the group, for --key-provider peer: http://HOST:PORT, several separated by commas;
    /// dns:NAME:PORT, every address of a name; or file:PATH, one URL a line, read anew each time.
    #[arg(long, env = "CONFONNX_PEERS", value_name = "WHERE")]
    pub peers: Option<Peers>,
    /// Policy file that says who may be of the group; all its members need the same. Its digest is in the claims, and
    /// clients have to name it [default: the same TEE, enclave hash, build and ONNX Runtime].
    #[arg(long, env = "CONFONNX_PEER_POLICY", value_name = "FILE")]
    pub peer_policy: Option<PathBuf>,
    /// Make the group's first secret when no peer answers; `ordinal`: if the host name ends in -0, as that of a
    /// StatefulSet's first pod. For one server of the group [default: false].
    #[arg(long, env = "CONFONNX_PEER_BOOTSTRAP", num_args = 0..=1, default_missing_value = "true", value_name = "WHEN")]
    pub peer_bootstrap: Option<Bootstrap>,
    /// How long a key is the current one [default: 86400].
    #[arg(long, env = "CONFONNX_KEY_ROLLOVER_INTERVAL", value_name = "SECONDS")]
    pub key_rollover_interval: Option<u64>,
    /// How long a key is still accepted afterwards, at most one rollover interval [default: 3600 or that interval].
    #[arg(long, env = "CONFONNX_KEY_GRACE", value_name = "SECONDS")]
    pub key_grace: Option<u64>,
    /// How often to look at the source of the keys, and how long before it is needed to ask for the next key
    /// [default: 3600].
    #[arg(long, env = "CONFONNX_KEY_SYNC_INTERVAL", value_name = "SECONDS")]
    pub key_sync_interval: Option<u64>,
    /// How long to wait after the source of the keys failed [default: 300].
    #[arg(long, env = "CONFONNX_KEY_ERROR_RETRY_INTERVAL", value_name = "SECONDS")]
    pub key_error_retry_interval: Option<u64>,
    /// A Key Broker Service of Confidential Containers (Trustee).
    #[arg(long, env = "CONFONNX_KBS_URL", value_name = "URL")]
    pub kbs_url: Option<String>,
    /// The secret there that keys are derived from, 32 bytes or more: REPOSITORY/TYPE/TAG.
    #[arg(long, env = "CONFONNX_KBS_RESOURCE", value_name = "NAME")]
    pub kbs_resource: Option<String>,
    /// Authorities that certify the service's name, in PEM [default: the system's].
    #[arg(long, env = "CONFONNX_KBS_CA_FILE", value_name = "FILE")]
    pub kbs_ca_file: Option<PathBuf>,
    /// An Azure Key Vault or Managed HSM.
    #[arg(long, env = "CONFONNX_AKV_URL", value_name = "URL")]
    pub akv_url: Option<String>,
    /// The key there that keys are derived from, exportable, of type EC-HSM or oct-HSM: NAME or NAME/VERSION.
    #[arg(long, env = "CONFONNX_AKV_KEY", value_name = "NAME")]
    pub akv_key: Option<String>,
    /// The instance of Microsoft Azure Attestation that the key's release policy names.
    #[arg(long, env = "CONFONNX_AKV_ATTESTATION_URL", value_name = "URL")]
    pub akv_attestation_url: Option<String>,
    /// File with an access token for the vault [default: ask the machine's managed identity for one].
    #[arg(long, env = "CONFONNX_AKV_TOKEN_FILE", value_name = "FILE")]
    pub akv_token_file: Option<PathBuf>,
    /// The instance metadata service, which knows that identity [default: http://169.254.169.254].
    #[arg(long, env = "CONFONNX_AKV_IDENTITY_URL", value_name = "URL")]
    pub akv_identity_url: Option<String>,
    /// Authorities that certify the names of both services, in PEM [default: the system's].
    #[arg(long, env = "CONFONNX_AKV_CA_FILE", value_name = "FILE")]
    pub akv_ca_file: Option<PathBuf>,
    /// File with the bearer tokens that clients need, one a line [default: anyone may ask].
    #[arg(long, env = "CONFONNX_AUTH_KEY_FILE", value_name = "FILE")]
    pub auth_key_file: Option<PathBuf>,
    /// Policy file: who may call, with which token or whose JWT, and what each may. Its digest is in the claims
    /// [default: see --auth-key-file].
    #[arg(long, env = "CONFONNX_AUTH_FILE", value_name = "FILE")]
    pub auth_file: Option<PathBuf>,
    /// Write down who called which model when, as JSON lines, to this file or (-) standard output. The host reads it; the
    /// claims say that there is one [default: no log].
    #[arg(long, env = "CONFONNX_AUDIT_LOG", value_name = "FILE")]
    pub audit_log: Option<PathBuf>,
    /// Proof that this program's release is in a transparency log, for clients whose policy has a `release_log`
    /// (`release.tlog-proof` of a release) [default: none].
    #[arg(long, env = "CONFONNX_RELEASE_PROOF", value_name = "FILE")]
    pub release_proof: Option<PathBuf>,
    /// What attests this server [default: what is found].
    #[arg(long, env = "CONFONNX_TEE", value_name = "NAME")]
    pub tee: Option<TeeName>,
    /// Folder that keeps the TEE vendor's certificates and revocation lists over a restart [default: memory only].
    #[arg(long, env = "CONFONNX_COLLATERAL_CACHE", value_name = "FOLDER")]
    pub collateral_cache: Option<PathBuf>,
    /// A service with the API of AMD's Key Distribution Service [default: AMD's own].
    #[arg(long, env = "CONFONNX_COLLATERAL_URL_AMD", value_name = "URL")]
    pub collateral_url_amd: Option<String>,
    /// A PCCS, to ask instead of Intel [default: Intel's own].
    #[arg(long, env = "CONFONNX_COLLATERAL_URL_INTEL", value_name = "URL")]
    pub collateral_url_intel: Option<String>,
    /// Least serious kind of message to log [default: info].
    #[arg(long, env = "CONFONNX_LOG_LEVEL", value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How messages are written [default: text].
    #[arg(long, env = "CONFONNX_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// The ONNX Runtime library; its digest is in the claims [default: lib/ beside the program, then .cache/onnxruntime
    /// in a folder above it]. Without --debug its digest has to be one that this version knows.
    #[arg(long, env = "CONFONNX_ONNXRUNTIME_LIBRARY", value_name = "FILE")]
    pub onnxruntime_library: Option<PathBuf>,
    /// Where models run: each in a process of its own that has nothing else, or all in this one, for TEEs that have no
    /// other. It is in the claims [default: isolated].
    #[arg(long, env = "CONFONNX_ENGINE", value_name = "WHERE")]
    pub engine: Option<EngineKind>,
    /// How long one run of a model may take; a config.pbtxt can say another time. The process that does not stop then is
    /// ended, and started again [default: 60].
    #[arg(long, env = "CONFONNX_INFERENCE_TIMEOUT", value_name = "SECONDS")]
    pub inference_timeout: Option<u64>,
    /// Memory that each model's process may have; 0 sets no limit [default: three quarters of the machine's].
    #[arg(long, env = "CONFONNX_INFERENCE_MEMORY", value_name = "MIB")]
    pub inference_memory: Option<u64>,
    /// Requests of a model that run at once, each with its own copy of the weights [default: one a core, at most 4].
    #[arg(long, env = "CONFONNX_NUM_SESSIONS", value_name = "N")]
    pub num_sessions: Option<usize>,
    /// Threads inside one operator [default: the cores are shared out, and one session more has them all for a request that
    /// is alone].
    #[arg(long, env = "CONFONNX_THREADS_PER_SESSION", value_name = "N")]
    pub threads_per_session: Option<usize>,
    /// Threads that serve HTTP, and open and seal what is short [default: one more than cores].
    #[arg(long, env = "CONFONNX_NUM_HTTP_THREADS", value_name = "N")]
    pub num_http_threads: Option<usize>,
    /// Longest sealed request [default: 67108864].
    #[arg(long, env = "CONFONNX_MAX_REQUEST_BYTES", value_name = "BYTES")]
    pub max_request_bytes: Option<usize>,
    /// Bytes of requests and replies held at once for all connections, those not yet read by clients too; more get 429
    /// [default: 536870912 or four of the longest requests].
    #[arg(long, env = "CONFONNX_MAX_HELD_BYTES", value_name = "BYTES")]
    pub max_held_bytes: Option<usize>,
    /// Count what became of requests inside the seal, too. The host reads the counters; the claims say that there are such
    /// [default: false].
    #[arg(long, env = "CONFONNX_REQUEST_METRICS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub request_metrics: Option<bool>,
    /// Pages that may ask this server from a browser: their origins, such as `https://app.example`, with commas between; or `*`
    /// [default: none].
    #[arg(long, env = "CONFONNX_CORS_ORIGIN", value_name = "ORIGINS")]
    pub cors_origin: Option<String>,
    /// Serve at /demo, from this folder, the page that shows attestation and sealing (scripts/make-demo makes it)
    /// [default: none].
    #[arg(long, env = "CONFONNX_DEMO", value_name = "FOLDER")]
    pub demo: Option<PathBuf>,
    /// Whether the server is ready only if every model that should be served is; a model that waits for its key keeps only
    /// clients from it [default: true].
    #[arg(long, env = "CONFONNX_STRICT_READINESS", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub strict_readiness: Option<bool>,
    /// Connections at once [default: 1024].
    #[arg(long, env = "CONFONNX_MAX_CONNECTIONS", value_name = "N")]
    pub max_connections: Option<usize>,
    /// What one address, or one /64 of IPv6, may have of connections and of bytes held, in percent of the two limits; it is
    /// served slowly while it sends garbage, or asks for more than 128 documents a second, and has no more than 512 new
    /// connections a second. Behind a proxy all callers have the proxy's address: 100 there, which ends all three, and the
    /// proxy limits its callers [default: 50].
    #[arg(long, env = "CONFONNX_MAX_PEER_PERCENT", value_name = "PERCENT")]
    pub max_peer_percent: Option<usize>,
    /// Sealed requests received, waiting or running at once; more get 429 [default: 128].
    #[arg(long, env = "CONFONNX_MAX_QUEUE", value_name = "N")]
    pub max_queue: Option<usize>,
    /// How long the header or the body of a request may take to arrive [default: 30].
    #[arg(long, env = "CONFONNX_REQUEST_TIMEOUT", value_name = "SECONDS")]
    pub request_timeout: Option<u64>,
    /// How long running requests may take to finish after SIGTERM [default: 30].
    #[arg(long, env = "CONFONNX_SHUTDOWN_GRACE", value_name = "SECONDS")]
    pub shutdown_grace: Option<u64>,
    /// Resumptions held for clients that ask again; a new one takes the place of one rarely used; 0 grants none
    /// [default: 65536].
    #[arg(long, env = "CONFONNX_MAX_RESUMPTIONS", value_name = "N", alias = "max-sessions")]
    #[serde(alias = "max_sessions")]
    pub max_resumptions: Option<usize>,
    /// How long a resumption lasts: its requests stay readable to whoever gets into the TEE meanwhile [default: 600].
    #[arg(long, env = "CONFONNX_RESUMPTION_LIFETIME", value_name = "SECONDS", alias = "session-lifetime")]
    #[serde(alias = "session_lifetime")]
    pub resumption_lifetime: Option<u64>,
    /// Requests remembered to refuse replays, for about ten minutes each; more get 503 [default: 16777216].
    #[arg(long, env = "CONFONNX_REPLAY_CAPACITY", value_name = "N")]
    pub replay_capacity: Option<usize>,
}

/// What changes which models of a repository are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelControl {
    /// Nothing: those that were there at the start.
    None,
    /// What is in the folder, which is looked at again and again.
    Poll,
    /// Callers, by the repository's API.
    Explicit,
}

/// Where models run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Each in a process of its own.
    Isolated,
    /// In the server's process.
    InProcess,
}

impl EngineKind {
    /// For the claims.
    pub fn name(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::InProcess => "in-process",
        }
    }
}

/// Where secrets come from that keys are derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyProviderName {
    /// This TEE makes them.
    Local,
    /// Servers that verify each other share them.
    Peer,
    /// A Key Broker Service releases one, and knows it. Clients have to name the service.
    Kbs,
    /// Azure Key Vault releases one, and knows it. Clients have to name the vault.
    Akv,
}

/// Whether a server may make its group's first secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(try_from = "toml::Value")]
pub enum Bootstrap {
    /// The server waits for a member of the group.
    #[value(name = "false")]
    Never,
    /// When no peer answers.
    #[value(name = "true")]
    Always,
    /// As `Always`, if its host name ends in -0; else as `Never`.
    Ordinal,
}

impl TryFrom<toml::Value> for Bootstrap {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        match value {
            toml::Value::Boolean(false) => Ok(Self::Never),
            toml::Value::Boolean(true) => Ok(Self::Always),
            toml::Value::String(word) if word == "ordinal" => Ok(Self::Ordinal),
            other => Err(format!("expected true, false or \"ordinal\", found {other}")),
        }
    }
}

/// Least serious kind of message to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// A line for each request, too.
    Verbose,
    /// What the server does.
    Info,
    /// What may need attention.
    Warning,
    /// What failed.
    Error,
    /// Only what ends the server.
    Fatal,
}

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

impl Settings {
    /// Flags as they are read and shown: the few that most need with `-h`, all of them in sections with `--help`.
    pub fn flags() -> clap::Command {
        Self::command().mut_args(|argument| {
            let id = argument.get_id().to_string();
            if matches!(&*id, "help" | "version") {
                return argument;
            }
            let (section, _) =
                SECTIONS.iter().find(|(_, ids)| ids.contains(&&*id)).unwrap_or(&("Others", &[]));
            argument.help_heading(*section).hide_short_help(!FEW.contains(&&*id))
        })
    }

    /// Reads a TOML file's text; unknown keys are errors.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// These settings, and those of `other` where there is none here.
    pub(super) fn or(self, other: Self) -> Self {
        macro_rules! merge {
            ($($field:ident),* $(,)?) => { Self { $($field: self.$field.or(other.$field)),* } };
        }
        merge!(
            config,
            check,
            model_path,
            model_name,
            model_repository,
            model_control,
            max_batch_size,
            max_batch_delay,
            repository_poll_interval,
            use_model_key_provisioning,
            model_owner_key_file,
            model_key_source,
            http_port,
            vsock_port,
            address,
            admin_port,
            admin_address,
            debug,
            simulation,
            key_provider,
            peers,
            peer_policy,
            peer_bootstrap,
            key_rollover_interval,
            key_grace,
            key_sync_interval,
            key_error_retry_interval,
            kbs_url,
            kbs_resource,
            kbs_ca_file,
            akv_url,
            akv_key,
            akv_attestation_url,
            akv_token_file,
            akv_identity_url,
            akv_ca_file,
            auth_key_file,
            auth_file,
            audit_log,
            release_proof,
            tee,
            collateral_cache,
            collateral_url_amd,
            collateral_url_intel,
            log_level,
            log_format,
            onnxruntime_library,
            engine,
            inference_timeout,
            inference_memory,
            num_sessions,
            threads_per_session,
            num_http_threads,
            max_request_bytes,
            max_held_bytes,
            request_metrics,
            cors_origin,
            demo,
            strict_readiness,
            max_connections,
            max_peer_percent,
            max_queue,
            request_timeout,
            shutdown_grace,
            max_resumptions,
            resumption_lifetime,
            replay_capacity,
        )
    }
}

/// What `-h` shows.
const FEW: [&str; 10] = [
    "config",
    "check",
    "model_path",
    "model_repository",
    "http_port",
    "admin_port",
    "auth_file",
    "key_provider",
    "tee",
    "debug",
];

/// What `--help` is divided into.
const SECTIONS: [(&str, &[&str]); 8] = [
    (
        "Models",
        &[
            "model_path",
            "model_name",
            "model_repository",
            "model_control",
            "repository_poll_interval",
            "max_batch_size",
            "max_batch_delay",
            "use_model_key_provisioning",
            "model_owner_key_file",
            "model_key_source",
        ],
    ),
    (
        "Ports",
        &[
            "http_port",
            "vsock_port",
            "address",
            "admin_port",
            "admin_address",
            "cors_origin",
            "demo",
            "strict_readiness",
        ],
    ),
    ("Callers", &["auth_key_file", "auth_file"]),
    (
        "Keys",
        &[
            "key_provider",
            "peers",
            "peer_policy",
            "peer_bootstrap",
            "key_rollover_interval",
            "key_grace",
            "key_sync_interval",
            "key_error_retry_interval",
            "max_resumptions",
            "resumption_lifetime",
            "replay_capacity",
        ],
    ),
    (
        "Key services",
        &[
            "kbs_url",
            "kbs_resource",
            "kbs_ca_file",
            "akv_url",
            "akv_key",
            "akv_attestation_url",
            "akv_token_file",
            "akv_identity_url",
            "akv_ca_file",
        ],
    ),
    (
        "The TEE",
        &[
            "tee",
            "debug",
            "simulation",
            "release_proof",
            "collateral_cache",
            "collateral_url_amd",
            "collateral_url_intel",
        ],
    ),
    (
        "Running and limits",
        &[
            "onnxruntime_library",
            "engine",
            "inference_timeout",
            "inference_memory",
            "num_sessions",
            "threads_per_session",
            "num_http_threads",
            "max_request_bytes",
            "max_held_bytes",
            "max_connections",
            "max_peer_percent",
            "max_queue",
            "request_timeout",
            "shutdown_grace",
        ],
    ),
    ("Settings and logs", &["config", "check", "log_level", "log_format", "audit_log", "request_metrics"]),
];
