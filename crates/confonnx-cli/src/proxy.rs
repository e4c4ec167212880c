use std::ffi::OsString;
use std::future::pending;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use confonnx_client::Client;
use confonnx_proxy::{Config, Listener, Settings, Traces, Upstream};
use tokio::process::{Child, Command};

use crate::args::{Connection, Expected};
use crate::complain;

/// Let unmodified programs (Triton's, KServe's and OpenAI's clients) use a server: verify, seal and forward what they ask
///
/// Listens on this machine alone. A server that is not what you expect gets nothing: programs get 503 (gRPC: UNAVAILABLE)
/// and the checks that failed.
#[derive(Args)]
pub(crate) struct Proxy {
    /// The server
    #[arg(long, required_unless_present = "config")]
    url: Option<String>,
    /// Several servers, each with its policy and models, in a TOML file (docs/guides/triton.md)
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    config: Option<PathBuf>,
    /// Where to listen: a loopback address; port 0 takes a free one. REST and gRPC
    #[arg(long, value_name = "IP:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)))]
    listen: SocketAddr,
    /// Listen there, too, where gRPC clients expect it (Triton's is 127.0.0.1:8001)
    #[arg(long, value_name = "IP:PORT")]
    grpc_listen: Option<SocketAddr>,
    /// Listen on a Unix socket instead
    #[cfg(unix)]
    #[arg(long, value_name = "PATH", conflicts_with_all = ["listen", "grpc_listen"])]
    socket: Option<PathBuf>,
    /// Serve a page for people at /ui: what was verified, what was refused, live rates
    #[arg(long)]
    ui: bool,
    /// A name beside localhost by which programs may call the proxy. Repeat to allow several
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Longest request
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    max_request_bytes: usize,
    /// How long running requests may take to finish at the end, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
    /// Start this program, with the proxy's address as CONFONNX_PROXY_URL and CONFONNX_PROXY_ADDRESS (without http://) in its
    /// environment, and end with it, with its exit code. Takes the rest of the line
    #[arg(long, value_name = "COMMAND", num_args = 1.., allow_hyphen_values = true)]
    exec: Vec<OsString>,
    #[command(flatten)]
    expected: Expected,
    #[command(flatten)]
    connection: Connection,
}

impl Proxy {
    pub(crate) fn run(self) -> Result<ExitCode> {
        // The memory of a request of some hundred kilobytes is kept, because the next request takes several buffers of
        // that size, too.
        #[cfg(target_os = "linux")]
        confonnx_device::keep_freed_memory();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(self.serve());
        runtime.shutdown_background();
        ended
    }

    async fn serve(self) -> Result<ExitCode> {
        let mut settings = Settings::default();
        settings.max_request_bytes = self.max_request_bytes;
        settings.allowed_hosts.clone_from(&self.allow_host);
        settings.ui = self.ui;
        let proxy = confonnx_proxy::Proxy::new(self.upstreams()?, settings);
        let proxy = Arc::new(proxy.traced(Traces::from_environment()?));
        let (listeners, url) = self.listeners().await?;
        // The proxy listens all the same, and refuses: servers may be started later.
        for (name, refused) in proxy.verify().await {
            complain(&format!("{name}: refused until it is what you expect: {refused}"));
        }
        let mut ending = Ending::new()?;
        complain(&format!("proxy on {url}"));
        let child = self.child(&url)?;
        let mut code = ExitCode::SUCCESS;
        let stop = async {
            tokio::select! {
                () = ending.wait() => {}
                ended = wait(child) => code = ended,
            }
        };
        confonnx_proxy::serve(listeners, Arc::clone(&proxy), stop, Duration::from_secs(self.grace)).await;
        proxy.close().await;
        Ok(code)
    }

    async fn listeners(&self) -> Result<(Vec<Listener>, String)> {
        let first = self.first().await?;
        let mut url = first.url();
        let mut listeners = vec![first];
        if let Some(address) = self.grpc_listen {
            let second = Listener::tcp(address).await?;
            url += &format!(" and {}", second.url());
            listeners.push(second);
        }
        Ok((listeners, url))
    }

    #[cfg(unix)]
    async fn first(&self) -> Result<Listener> {
        Ok(match &self.socket {
            Some(path) => Listener::unix(path)?,
            None => Listener::tcp(self.listen).await?,
        })
    }

    #[cfg(not(unix))]
    async fn first(&self) -> Result<Listener> {
        Ok(Listener::tcp(self.listen).await?)
    }

    fn child(&self, url: &str) -> Result<Option<Child>> {
        let Some((program, arguments)) = self.exec.split_first() else { return Ok(None) };
        let url = url.split(' ').next().unwrap_or_default();
        let mut command = Command::new(program);
        command.args(arguments).env("CONFONNX_PROXY_URL", url).kill_on_drop(true);
        command.env("CONFONNX_PROXY_ADDRESS", url.trim_start_matches("http://"));
        Ok(Some(command.spawn().with_context(|| format!("cannot start {}", program.display()))?))
    }

    fn upstreams(&self) -> Result<Vec<Upstream>> {
        let options = self.connection.options()?;
        if let Some(path) = &self.config {
            let folder = path.parent().unwrap_or(Path::new(""));
            return Ok(Config::read(path)?.open(folder, &options)?);
        }
        let url = self.url.as_deref().unwrap_or_default();
        let passes = options.auth_key.is_none();
        let client = Client::new(url, self.expected.policy(None)?, options)?;
        Ok(vec![Upstream::new("server", client).passes_token(passes)])
    }
}

/// What tells a program to end: Ctrl+C, and SIGTERM where there is one.
#[cfg(unix)]
struct Ending(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Ending {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self(signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(windows)]
struct Ending(tokio::signal::windows::CtrlC, tokio::signal::windows::CtrlBreak);

#[cfg(windows)]
impl Ending {
    fn new() -> std::io::Result<Self> {
        Ok(Self(tokio::signal::windows::ctrl_c()?, tokio::signal::windows::ctrl_break()?))
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

/// Waits for the program, if there is one; its exit code.
async fn wait(child: Option<Child>) -> ExitCode {
    let Some(mut child) = child else { return pending().await };
    let code = |status: ExitStatus| status.code().and_then(|code| u8::try_from(code).ok());
    child.wait().await.ok().and_then(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
