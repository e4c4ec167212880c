//! Where programs of this machine connect, and how the proxy ends.

use std::{convert::Infallible, future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
#[cfg(unix)]
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
#[cfg(unix)]
use tokio::net::UnixListener;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::watch,
    task::JoinSet,
};

use crate::{Proxy, front};

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address is not of this machine alone.
    #[error(
        "expected an address of this machine alone (127.0.0.1, [::1]), found {0}: requests are in the clear until they \
         are sealed here"
    )]
    NotLoopback(SocketAddr),
    /// The system refuses.
    #[error("cannot listen on {place}: {source}")]
    System {
        /// The address or path.
        place: String,
        /// Why.
        source: io::Error,
    },
}

/// A loopback port or a Unix socket. Each takes HTTP/1.1 and HTTP/2, REST and gRPC.
#[derive(Debug)]
pub enum Listener {
    /// A port.
    Tcp(TcpListener),
    /// A socket, and its path, which is removed at the end.
    #[cfg(unix)]
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Listens on a loopback address.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub async fn tcp(address: SocketAddr) -> Result<Self, ListenError> {
        if !address.ip().is_loopback() {
            return Err(ListenError::NotLoopback(address));
        }
        let system = |source| ListenError::System { place: address.to_string(), source };
        Ok(Self::Tcp(TcpListener::bind(address).await.map_err(system)?))
    }

    /// Listens on a Unix socket that its owner alone may use. It takes the place of one that nobody listens on any more.
    ///
    /// # Errors
    /// See [`ListenError`].
    #[cfg(unix)]
    pub fn unix(path: &Path) -> Result<Self, ListenError> {
        let system = |source| ListenError::System { place: path.display().to_string(), source };
        let abandoned = |err: io::Error| err.kind() == io::ErrorKind::ConnectionRefused;
        if std::os::unix::net::UnixStream::connect(path).is_err_and(abandoned) {
            std::fs::remove_file(path).map_err(system)?;
        }
        let listener = UnixListener::bind(path).map_err(system)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(system)?;
        Ok(Self::Unix(listener, path.to_owned()))
    }

    /// The URL as clients write it: `http://127.0.0.1:8000`, `unix:/run/confonnx.sock`.
    pub fn url(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map(|address| format!("http://{address}")).unwrap_or_default()
            }
            #[cfg(unix)]
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            #[cfg(unix)]
            Self::Unix(listener, _) => Box::new(listener.accept().await?.0),
        })
    }

    /// Serves until `stop` is closed; then until what runs has ended.
    async fn run(self, proxy: Arc<Proxy>, mut stop: watch::Receiver<()>) {
        let connections = GracefulShutdown::new();
        loop {
            let accepted = tokio::select! {
                _ = stop.changed() => break,
                accepted = self.accept() => accepted,
            };
            let Ok(stream) = accepted else {
                // Out of files, for instance: what is open goes on.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let proxy = Arc::clone(&proxy);
            let service = service_fn(move |request| {
                let proxy = Arc::clone(&proxy);
                async move { Ok::<_, Infallible>(front::answer(proxy, request).await) }
            });
            let mut builder = auto::Builder::new(TokioExecutor::new());
            builder.http1().timer(TokioTimer::new());
            builder.http2().timer(TokioTimer::new());
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // A program that hangs up is no event.
                let _ = connection.await;
            });
        }
        connections.shutdown().await;
        #[cfg(unix)]
        if let Self::Unix(_, path) = &self {
            // The socket's file may be gone already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Serves until `stop`; requests that run then have `grace` to finish.
pub async fn serve(
    listeners: Vec<Listener>,
    proxy: Arc<Proxy>,
    stop: impl Future<Output = ()>,
    grace: Duration,
) {
    let (stopping, stopped) = watch::channel(());
    let mut running = JoinSet::new();
    for listener in listeners {
        running.spawn(listener.run(Arc::clone(&proxy), stopped.clone()));
    }
    stop.await;
    drop(stopping);
    let ended = async { while running.join_next().await.is_some() {} };
    // A request that is still running then is cut off.
    let _ = tokio::time::timeout(grace, ended).await;
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
