//! The whole server: everything loaded, wired and running.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use confonnx_attest::{
    Build, Claims, Digest, PROTOCOL, Runtime as RuntimeClaim, UnixTime, produce::measure_executable,
};
use confonnx_engine::Engine;
use confonnx_model::encrypted::ModelKey;
use confonnx_protocol::server::RingError;
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tracing::{error, info, warn};

use crate::{
    admin,
    attestation::{Attestation, AttestationError, release_proof},
    audit::{Audit, AuditError},
    auth::{Auth, AuthError},
    collateral::{Collateral, StoreError},
    config::{Config, KeySource, ModelControl, ModelSource, PeerConfig, SecretConfig},
    evidence::{Prover, Source},
    group::{Group, PeerPolicy, PeerPolicyError, Shared},
    http::{App, Demo, DemoError, Listener, Stop},
    key_service::{ReleaseError, Secret, model_key},
    keys::{
        DATE_WINDOW, Keys,
        driver::{Driver, RefreshError},
        local::Local,
        provider::KeyProvider,
        released::Released,
    },
    metrics::Metrics,
    models::{self, Absent, Models, OpenError, RuntimeError, Unserved},
    scheduling::Scheduling,
    service::Service,
    systemd,
    tee::{self, TeeError},
};

/// A server that is ready, its ports bound.
pub struct Server {
    listener: Listener,
    address: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
    app: Arc<App>,
    keys: Arc<Keys>,
    /// There is one for each source of keys.
    driver: Option<Driver>,
    models: Arc<Models>,
    /// How often the models are looked at, if they are.
    poll: Option<Duration>,
    collateral: Arc<Collateral>,
    hangup: Hangup,
    audit: Option<Arc<Audit>>,
    model_key: Option<ModelKeySource>,
    grace: Duration,
}

/// Where the model's key comes from, and what it unlocks.
struct ModelKeySource {
    secret: Secret,
    service: Arc<Service>,
    retry: Duration,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Nothing attests this machine.
    #[error(transparent)]
    Tee(#[from] TeeError),
    /// The models.
    #[error(transparent)]
    Models(#[from] OpenError),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The files that say who may call cannot be used.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The audit log.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The settings of the keys.
    #[error("no keys: {0}")]
    Ring(#[from] RingError),
    /// The first keys.
    #[error("no keys: {0}")]
    Keys(#[from] RefreshError),
    /// The system gives no randomness.
    #[error("no random bytes from the system: {0}")]
    Random(#[from] getrandom::Error),
    /// The TEE does not work.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// The policy of the group cannot be used.
    #[error("peer-policy: {0}")]
    PeerPolicy(#[from] PeerPolicyError),
    /// The page for people.
    #[error(transparent)]
    Demo(#[from] DemoError),
    /// A service that releases secrets cannot be asked.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// The folder for collateral.
    #[error("collateral-cache: {0}; choose another folder or leave it out")]
    Store(#[from] StoreError),
    /// A port.
    #[error("cannot listen on {address}: {source}; choose another with --{port} or stop what uses it")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The flag that changes the port.
        port: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A port of vsock.
    #[error(
        "cannot listen on port {port} of vsock: {source}; it needs a kernel with vsock, leave --vsock-port out elsewhere"
    )]
    Vsock {
        /// The port.
        port: u32,
        /// What the system said.
        source: std::io::Error,
    },
    /// Threads.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

/// What a server is made of, loaded and measured.
pub struct Parts {
    /// The source of evidence.
    pub source: Source,
    /// The models.
    pub models: Unserved,
    /// The name in the claims of where models run.
    pub engine: &'static str,
    /// What the claims say of ONNX Runtime.
    pub runtime: RuntimeClaim,
    /// What the claims say of this program.
    pub build: Build,
}

impl Parts {
    /// Has `engine` load the models of `config`.
    ///
    /// # Errors
    /// [`StartError::Tee`] and [`StartError::Models`].
    pub fn load(config: &Config, source: impl Into<Source>, engine: &Engine) -> Result<Self, StartError> {
        let models = Models::open(config, engine)?;
        let sha256 = measure_executable().map_err(TeeError::from)?;
        let build = Build { version: env!("CARGO_PKG_VERSION").into(), sha256 };
        let runtime = RuntimeClaim {
            name: "onnxruntime".into(),
            version: engine.version().into(),
            sha256: Digest(engine.sha256()),
        };
        Ok(Self { source: source.into(), models, engine: engine.kind(), runtime, build })
    }
}

/// Reads every file that `config` names and that can be judged without a TEE, ONNX Runtime, ports or others' services; what
/// they are, for people.
///
/// # Errors
/// See [`StartError`].
pub fn check(config: &Config) -> Result<Vec<String>, StartError> {
    let metrics = Arc::new(Metrics::default());
    let auth = Auth::load(config.auth_key_file.as_deref(), config.auth_file.as_deref(), &metrics)?;
    config.release_proof.as_deref().map(release_proof).transpose()?;
    let mut lines = vec![format!("client authentication: {}", auth.claim())];
    for model in models::found(config)? {
        lines.push(format!("model {model}"));
    }
    if let KeySource::Peer(PeerConfig { policy: Some(path), .. }) = &config.key_source {
        PeerPolicy::from_file(path)?;
        lines.push(format!("peer policy: {}", path.display()));
    }
    Collateral::new(&config.collateral, metrics)?;
    lines.push("the settings are good; not looked at: the TEE, ONNX Runtime, ports, others' services".into());
    Ok(lines)
}

impl Server {
    /// Finds the TEE and ONNX Runtime, loads the model, makes the keys and binds the ports.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // The TEE first: without one there is nothing to load for.
        let attester = tee::select(Path::new("/"), config.insecure, config.tee)?;
        // The very program that runs, whatever is at its path by now.
        let engine = models::open_engine(&config, Path::new("/proc/self/exe"))?;
        let parts = Parts::load(&config, attester, &engine)?;
        Self::assemble(config, parts).await
    }

    /// Makes the keys and binds the ports for what is loaded.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn assemble(config: Config, parts: Parts) -> Result<Self, StartError> {
        let Parts { source, models, engine, runtime, build } = parts;
        let tee = source.tee;
        let source = Arc::new(Mutex::new(source));
        let prover = Prover::new(Arc::clone(&source));
        let open = |secret: &SecretConfig| Secret::open(secret, prover.clone());
        let model_key = config.model_key.as_ref().map(open).transpose()?;
        // The log says this before anything is waited for.
        if let KeySource::Peer(PeerConfig { policy: Some(path), .. }) = &config.key_source {
            PeerPolicy::from_file(path)?;
        }
        let metrics = Arc::new(Metrics::default());
        metrics.by_model.store(config.limits.request_metrics, Relaxed);
        // Signals are listened to before the files are read, so that none is missed that comes after.
        let hangups = signal(SignalKind::hangup()).map_err(StartError::Thread)?;
        let auth = Auth::load(config.auth_key_file.as_deref(), config.auth_file.as_deref(), &metrics)?;
        let proof = config.release_proof.as_deref().map(release_proof).transpose()?;
        let claims = Claims {
            protocol: PROTOCOL.into(),
            issued_at: UnixTime(0),
            build,
            runtime: runtime.clone(),
            models: Vec::new(),
            keys: Vec::new(),
            key_source: confonnx_attest::KeySource::default(),
            client_auth: auth.claim(),
            settings: settings(&config, engine, models.owner(), model_key.as_ref()),
        };
        let keys = Arc::new(Keys::new(&config, models.set(), claims, Arc::clone(&metrics))?);
        let models = Arc::new(models.serve(&keys));
        let drive = |provider: Arc<dyn KeyProvider>| {
            Driver::new(Arc::clone(&keys), provider, config.keys, Arc::clone(&metrics))
        };
        let driver = match &config.key_source {
            KeySource::Local => Some(drive(Arc::new(Local::new(&config.keys)?))),
            KeySource::Released(secret) => {
                Some(drive(Arc::new(Released::new(open(secret)?, config.keys.rollover))))
            }
            // Takes evidence, and others may have to be waited for.
            KeySource::Peer(_) => None,
        };
        match (&driver, &config.key_source) {
            (Some(driver), KeySource::Released(_)) => {
                // A service that is down is asked again, while this server is alive and not ready.
                driver.begin().await;
            }
            (Some(driver), _) => driver.refresh().await?,
            (None, _) => {}
        }
        let binding = Listener::bind(config.http, config.limits.connections, config.http_threads);
        let listener = bind("http-port", config.http, binding).await?;
        let listener = match config.vsock {
            None => listener,
            Some(port) => listener.with_vsock(port).map_err(|source| StartError::Vsock { port, source })?,
        };
        let address = listener.address().unwrap_or(config.http);
        let admin = match config.admin {
            None => None,
            Some(wanted) => {
                let listener = bind("admin-port", wanted, TcpListener::bind(wanted)).await?;
                let address = listener.local_addr().unwrap_or(wanted);
                Some((listener, address))
            }
        };
        banner(&config, &models, &runtime, tee.name(), address, &keys);
        info!("client authentication: {}", auth.claim());
        let collateral = Arc::new(Collateral::new(&config.collateral, Arc::clone(&metrics))?);
        let attestation = Attestation::start(
            source,
            Arc::clone(&keys),
            Arc::clone(&collateral),
            Arc::clone(&metrics),
            proof,
        )?;
        let attestation = Arc::new(attestation);
        let group = match &config.key_source {
            KeySource::Peer(peer) => Some(Arc::new(Group::new(
                peer.clone(),
                config.keys,
                Arc::clone(&keys),
                Arc::clone(&attestation),
                Arc::clone(&metrics),
            ))),
            KeySource::Local | KeySource::Released(_) => None,
        };
        let of_group = |group: &Arc<Group>| drive(Arc::new(Shared(Arc::clone(group))));
        let driver = driver.or_else(|| group.as_ref().map(of_group));
        let audit = config.audit_log.as_deref().map(|path| Audit::open(path, Arc::clone(&metrics)));
        let audit = audit.transpose()?.map(Arc::new);
        let issuer = auth.remote_keys().map(|keys| tokio::spawn(keys.run()));
        let service = Arc::new(Service::new(
            Arc::clone(&keys),
            Arc::clone(&models),
            auth,
            audit.clone(),
            group,
            Arc::clone(&metrics),
        ));
        let hangup = Hangup {
            signal: hangups,
            service: Arc::clone(&service),
            audit: audit.clone(),
            metrics: Arc::clone(&metrics),
            tokens: config.auth_key_file.clone(),
            policy: config.auth_file.clone(),
            issuer,
        };
        let poll = (config.model_control == ModelControl::Poll).then_some(config.repository_poll);
        let load = Arc::clone(&metrics.load);
        let scheduling = Scheduling::start(config.limits.queue, workers(&config), load);
        let app = App::new(
            Arc::clone(&service),
            attestation,
            scheduling.map_err(StartError::Thread)?,
            config.limits,
            config.origins.clone(),
            metrics,
        );
        let app = Arc::new(app.with_demo(config.demo.as_deref().map(Demo::read).transpose()?));
        let grace = config.shutdown_grace;
        let model_key =
            model_key.map(|secret| ModelKeySource { secret, service, retry: config.keys.error_retry });
        Ok(Self {
            listener,
            address,
            admin,
            app,
            keys,
            driver,
            models,
            poll,
            collateral,
            hangup,
            audit,
            model_key,
            grace,
        })
    }

    /// Where sealed requests are served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics and health are served.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(|(_, address)| *address)
    }

    /// The part of the server that answers requests.
    pub fn app(&self) -> Arc<App> {
        Arc::clone(&self.app)
    }

    /// The keys.
    pub fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys)
    }

    /// Serves until `stop`, then finishes what was received.
    pub async fn run(self, mut stop: Stop) {
        let rollover = self.driver.map(|driver| {
            let collateral = Arc::clone(&self.collateral);
            tokio::spawn(async move {
                // A group's member verifies its own evidence first.
                collateral.settled(COLLATERAL_PATIENCE).await;
                driver.run().await;
            })
        });
        let refresh = tokio::spawn(Arc::clone(&self.collateral).run());
        let hangups = Some(tokio::spawn(self.hangup.listen()));
        let model_key = self.model_key.map(|ModelKeySource { secret, service, retry }| {
            let unlock = move |key: &ModelKey| service.unlock_all(key);
            tokio::spawn(model_key::unlock(secret, retry, unlock))
        });
        let admin =
            self.admin.map(|(listener, _)| tokio::spawn(admin::serve(listener, Arc::clone(&self.app))));
        let poll = self.poll.map(|interval| tokio::spawn(watch_models(self.models, interval)));
        tokio::select! {
            () = self.collateral.settled(COLLATERAL_PATIENCE) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        systemd::tell(systemd::State::Ready);
        self.listener.serve(self.app, stop, self.grace).await;
        refresh.abort();
        for task in [rollover, admin, hangups, model_key, poll].into_iter().flatten() {
            task.abort();
        }
        if let Some(audit) = self.audit {
            // A disk that stalls must not keep the process.
            let _ = timeout(AUDIT_PATIENCE, audit.written()).await;
        }
        info!("stopped");
    }
}

/// Becomes true with SIGTERM or SIGINT.
///
/// # Errors
/// When the system refuses handlers.
pub fn signals() -> std::io::Result<Stop> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Whether or not there is a log to open anew, a hangup ends nothing: with a handler, the system's way is off for good.
    drop(signal(SignalKind::hangup())?);
    let (stop, stopping) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping: no new requests; those received are finished");
        systemd::tell(systemd::State::Stopping);
        stop.send_replace(true);
    });
    Ok(stopping)
}

/// What a SIGHUP does: the audit log is opened anew, as programs that move logs away expect, and the files that say who may
/// call are read anew.
struct Hangup {
    signal: Signal,
    service: Arc<Service>,
    audit: Option<Arc<Audit>>,
    metrics: Arc<Metrics>,
    tokens: Option<PathBuf>,
    policy: Option<PathBuf>,
    /// Fetches the issuer's keys.
    issuer: Option<JoinHandle<()>>,
}

impl Hangup {
    async fn listen(mut self) {
        while self.signal.recv().await.is_some() {
            if let Some(audit) = &self.audit {
                audit.reopen();
            }
            if self.tokens.is_some() || self.policy.is_some() {
                self.read_auth();
            }
        }
    }

    fn read_auth(&mut self) {
        match Auth::load(self.tokens.as_deref(), self.policy.as_deref(), &self.metrics) {
            Err(err) => error!("{err}; who may call stays as it was"),
            Ok(auth) => {
                info!("client authentication, read anew: {}", auth.claim());
                let issuer = auth.remote_keys();
                self.service.admit_by(auth);
                let issuer = issuer.map(|keys| tokio::spawn(keys.run()));
                self.end_issuer(issuer);
            }
        }
    }

    fn end_issuer(&mut self, next: Option<JoinHandle<()>>) {
        if let Some(before) = std::mem::replace(&mut self.issuer, next) {
            before.abort();
        }
    }
}

impl Drop for Hangup {
    fn drop(&mut self) {
        self.end_issuer(None);
    }
}

/// Looks at the repository again and again.
async fn watch_models(models: Arc<Models>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let models = Arc::clone(&models);
        match tokio::task::spawn_blocking(move || models.poll()).await {
            Ok(Ok(())) => {}
            Ok(Err(err)) => {
                error!("the model repository cannot be read: {err}; next attempt in {} s", interval.as_secs())
            }
            Err(err) => error!("looking at the model repository failed: {err}"),
        }
    }
}

async fn bind<T>(
    port: &'static str,
    address: SocketAddr,
    binding: impl Future<Output = std::io::Result<T>>,
) -> Result<T, StartError> {
    binding.await.map_err(|source| StartError::Bind { address, port, source })
}

/// Threads to open, run and seal: as many as can run a model. One more to open meanwhile would have to hand over to them,
/// and the kernel leaves cores idle over that. And those that wait while their requests are batched.
fn workers(config: &Config) -> usize {
    let together = match config.models {
        ModelSource::File { .. } => {
            usize::try_from(config.model_config.max_batch_size).unwrap_or(usize::MAX).saturating_sub(1)
        }
        // By what a repository's models will be batched is not known yet.
        ModelSource::Repository { .. } => LIKELY_BATCH,
    };
    config.sessions.saturating_add(together.min(config.limits.queue))
}

const LIKELY_BATCH: usize = 32;

/// Every host setting that touches trust, for the claims.
fn settings(
    config: &Config,
    engine: &str,
    owner: Option<Digest>,
    model_key: Option<&Secret>,
) -> Map<String, Value> {
    let settings = json!({
        "date_window_s": DATE_WINDOW.as_secs(),
        "key_rollover_interval_s": config.keys.rollover.as_secs(),
        "key_grace_s": config.keys.grace.as_secs(),
        "replay_capacity": config.replay_capacity,
        "max_sessions": config.resumption.max,
        "session_lifetime_s": config.resumption.lifetime.as_secs(),
        "max_request_bytes": config.limits.request_bytes,
        "insecure": config.insecure,
        "engine": engine,
        "audit_log": config.audit_log.is_some(),
        "request_metrics": config.limits.request_metrics,
        "use_model_key_provisioning": config.use_model_key_provisioning,
        "model_owner_sha256": owner,
        "model_key_source": model_key.map(|secret| json!({ "kind": secret.kind(), "service": secret.service() })),
        "model_control": format!("{:?}", config.model_control).to_lowercase(),
    });
    match settings {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn banner(
    config: &Config,
    models: &Models,
    runtime: &RuntimeClaim,
    tee: &str,
    address: SocketAddr,
    keys: &Keys,
) {
    info!(
        "confonnx-server {}, ONNX Runtime {} ({})",
        env!("CARGO_PKG_VERSION"),
        runtime.version,
        runtime.sha256
    );
    let set = models.current();
    for model in set.claims() {
        info!(
            "model {} version {} from {}: {model}",
            model.name,
            model.version,
            config.models.path().display()
        );
    }
    if let Some(absent @ Absent::Locked { .. }) = set.lacking() {
        match &config.model_key {
            None => info!("{absent}"),
            Some(_) => info!("what is locked waits until its key is released"),
        }
    }
    let ids: Vec<_> =
        keys.published().claims.keys.iter().map(|key| format!("{} ({})", key.key_id, key.kem)).collect();
    info!("TEE {tee}; keys {}", if ids.is_empty() { "none yet".into() } else { ids.join(", ") });
    info!("serving on http://{address}");
    if config.insecure {
        warn!(
            "INSECURE: --debug or --simulation is set. There is no TEE: this machine can read every request."
        );
        warn!(
            "INSECURE: clients refuse this server unless they allow it by name. Never use it for real data."
        );
    }
}

/// How long the first clients wait for collateral, lest they get documents without.
const COLLATERAL_PATIENCE: Duration = Duration::from_secs(10);

/// How long the last lines of the audit log may take to be written.
const AUDIT_PATIENCE: Duration = Duration::from_secs(2);
