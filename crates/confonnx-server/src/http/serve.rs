//! Connections: how many, how long, and how they end.

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use confonnx_protocol::Code;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, interval_at, sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    App,
    counted::Counted,
    peers::{NotAdmitted, Peer, Peers},
    problem,
    threads::Threads,
    vsock::Vsock,
};
use crate::{budget::Purse, clock::Later, metrics::Held};

/// Tells the server to stop when its value becomes true, or its sender is dropped.
pub type Stop = watch::Receiver<bool>;

/// A bound port.
pub struct Listener {
    listener: TcpListener,
    vsock: Option<Vsock>,
    threads: Threads,
    places: Arc<Semaphore>,
    /// Connections beyond the limit that are told so; more are just closed.
    refusals: Arc<Semaphore>,
    connections: usize,
    peers: Peers,
}

impl Listener {
    /// Binds `address`; `connections` is how many to serve at once, on `threads`.
    ///
    /// # Errors
    /// When the address is taken or not this machine's, or the system gives no more threads.
    pub async fn bind(address: SocketAddr, connections: usize, threads: usize) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let threads = Threads::start(threads)?;
        let (places, refusals) =
            (Arc::new(Semaphore::new(connections)), Arc::new(Semaphore::new(MAX_REFUSALS)));
        Ok(Self { listener, vsock: None, threads, places, refusals, connections, peers: Peers::default() })
    }

    /// Binds a vsock port besides.
    ///
    /// # Errors
    /// When it is taken or the system has no vsock.
    pub fn with_vsock(self, port: u32) -> io::Result<Self> {
        Ok(Self { vsock: Some(Vsock::bind(port)?), ..self })
    }

    /// The address, with the port that was free when 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves `app` until `stop`, then finishes what was received, for at most `grace`.
    pub async fn serve(self, app: Arc<App>, mut stop: Stop, grace: Duration) {
        let (closing, close) = watch::channel(false);
        let accepting = async {
            loop {
                match self.accept().await {
                    Ok((stream, from)) => self.admit(stream, from, &app, &close),
                    // Out of descriptors, most likely: try again when some connections have ended.
                    Err(err) => {
                        warn!("cannot accept a connection: {err}");
                        sleep(ACCEPT_RETRY).await;
                    }
                }
            }
        };
        let draining = async {
            let _ = stop.wait_for(|stopping| *stopping).await;
            app.drain();
            if timeout(grace, app.idle()).await.is_err() {
                warn!("some requests are not finished after {} s; they are dropped", grace.as_secs());
            }
            closing.send_replace(true);
            // Answers are on their way once requests are finished; a connection ends when its answer is written.
            let all = u32::try_from(self.connections).unwrap_or(u32::MAX);
            let _ = timeout(CLOSE_GRACE, self.places.acquire_many(all)).await;
        };
        tokio::select! {
            () = accepting => {}
            () = draining => {}
        }
    }

    /// The next connection, and whose it is. All that come by vsock are one peer's, who passes them on.
    async fn accept(&self) -> io::Result<(TcpStream, IpAddr)> {
        let by_vsock = async {
            match &self.vsock {
                Some(vsock) => vsock.accept().await,
                None => pending().await,
            }
        };
        tokio::select! {
            accepted = self.listener.accept() => accepted.map(|(stream, from)| (stream, from.ip())),
            accepted = by_vsock => accepted.map(|stream| (stream, Ipv4Addr::UNSPECIFIED.into())),
        }
    }

    fn admit(&self, stream: TcpStream, from: IpAddr, app: &Arc<App>, close: &Stop) {
        let place = Arc::clone(&self.places).try_acquire_owned().ok();
        let peer = self.peers.admit(from, app.limits.peer_connections(), &app.budget);
        if peer.as_ref().err() == Some(&NotAdmitted::TooOften) {
            // It is closed, and costs nothing more: to tell would cost as much as to serve.
            return app.metrics.count(Code::ConnectionsFull.name());
        }
        match place.zip(peer.ok()) {
            Some(place) => {
                let (app, close) = (Arc::clone(app), close.clone());
                self.threads.spawn(stream, move |stream| connection(stream, app, close, place));
            }
            None => {
                app.metrics.count(Code::ConnectionsFull.name());
                if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
                    tokio::spawn(refuse(stream, permit));
                }
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    app: Arc<App>,
    mut close: Stop,
    (_place, peer): (OwnedSemaphorePermit, Peer),
) {
    let _open = Held::new(&app.metrics.connections);
    // Answers are written whole: waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let activity = Arc::new(Activity::default());
    let (purse, written) = (app.budget.purse(peer.budget()), Arc::<AtomicU64>::default());
    let service = {
        let (app, activity, purse) = (Arc::clone(&app), Arc::clone(&activity), purse.clone());
        service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(purse.clone());
            let (app, busy) = (Arc::clone(&app), Busy::new(&activity));
            async move {
                let response = app.answer(request).await;
                drop(busy);
                Ok::<_, Infallible>(response)
            }
        })
    };
    let builder = builder(&app);
    let connection =
        builder.serve_connection(TokioIo::new(Counted::new(stream, Arc::clone(&written))), service);
    tokio::pin!(connection);
    let idle = app.limits.idle_timeout;
    let mut looks = interval_at(Instant::now().later(idle), idle);
    let mut closing = false;
    let mut reading = Reading::new(&purse, &written);
    let mut stalls =
        interval_at(Instant::now().later(app.limits.request_timeout), app.limits.request_timeout);
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(err) = result {
                    // hyper's text tells of framing, never of content.
                    debug!("connection: {err}");
                }
                return;
            }
            _ = looks.tick() => {
                if activity.is_idle() && purse.unsent() == 0 {
                    return;
                }
            }
            _ = stalls.tick() => {
                if !reading.goes_on(app.limits.request_timeout) {
                    debug!("connection: its replies are not read");
                    return;
                }
            }
            _ = close.wait_for(|closing| *closing), if !closing => {
                closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn builder(app: &App) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(app.limits.idle_timeout)
        .max_buf_size(MAX_HEADER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(64 << 10)
        .max_concurrent_streams(128)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    builder
}

/// Tells a client that there are too many connections, over HTTP/1.1, which every client speaks.
async fn refuse(mut stream: TcpStream, _permit: OwnedSemaphorePermit) {
    let body = problem::body(Code::ConnectionsFull);
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let answer = [head.as_bytes(), &body].concat();
    let _ = timeout(REFUSAL_TIME, async {
        stream.write_all(&answer).await?;
        stream.shutdown().await?;
        // What the client sends is read: closing before that would take the answer from it.
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
}

/// Whether a client reads what it asked for.
struct Reading<'c> {
    purse: &'c Purse,
    written: &'c AtomicU64,
    /// At the last look: how many replies were unread, how many sent, and how many bytes written.
    last: (usize, u64, u64),
}

impl<'c> Reading<'c> {
    fn new(purse: &'c Purse, written: &'c AtomicU64) -> Self {
        Self { purse, written, last: (0, 0, 0) }
    }

    /// Whether nothing waited since the last look, a reply was finished, or enough of one was written within `time`.
    fn goes_on(&mut self, time: Duration) -> bool {
        let now = (self.purse.unread(), self.purse.sent(), self.written.load(Ordering::Relaxed));
        let (unread, sent, written) = std::mem::replace(&mut self.last, now);
        let enough = LEAST_RATE.saturating_mul(time.as_secs()).max(1);
        unread == 0 || now.0 == 0 || now.1 > sent || now.2.saturating_sub(written) >= enough
    }
}

/// Whether a connection does anything.
#[derive(Default)]
struct Activity {
    running: AtomicUsize,
    seen: AtomicBool,
}

impl Activity {
    /// Whether nothing is running, and nothing was since the last time this was asked.
    fn is_idle(&self) -> bool {
        !self.seen.swap(false, Ordering::Relaxed) && self.running.load(Ordering::Relaxed) == 0
    }
}

/// A request is running.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: &Arc<Activity>) -> Self {
        activity.running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.seen.store(true, Ordering::Relaxed);
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The least rate of a reader while replies wait for it, in bytes a second.
const LEAST_RATE: u64 = 4 << 10;
/// Connections that wait to be accepted: one that finds no room tries again a second later, and one behind many waits for
/// all of them.
const BACKLOG: u32 = 256;
const MAX_HEADER: usize = 64 << 10;
const MAX_REFUSALS: usize = 64;
const REFUSAL_TIME: Duration = Duration::from_secs(1);
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
const CLOSE_GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Budget;

    #[test]
    fn who_reads_below_the_least_rate_does_not_go_on() {
        let budget = Budget::new(100, 100, 100);
        let (purse, written) = (budget.purse(&budget.peer()), AtomicU64::new(0));
        let mut reading = Reading::new(&purse, &written);
        let time = Duration::from_secs(2);
        let mut goes_on_after = |bytes| {
            written.fetch_add(bytes, Ordering::Relaxed);
            reading.goes_on(time)
        };
        assert!(goes_on_after(0), "nothing is there to read");
        let reply = purse.reply(10).unwrap();
        assert!(goes_on_after(0), "it came since the last look");
        assert!(goes_on_after(2 * LEAST_RATE));
        assert!(!goes_on_after(2 * LEAST_RATE - 1));
        let next = purse.reply(10).unwrap();
        drop(reply);
        assert!(goes_on_after(1), "one was written to its end");
        assert!(!goes_on_after(1));
        drop(next);
    }
}
