//! Threads that serve connections, each its own.
//!
//! A connection stays where it was put: nobody has to be woken up to look whether there is work to take over, which costs
//! more than a small model. In exchange, what a thread does for one connection the others on it wait for.

use std::{io, sync::Arc, thread};

use tokio::{
    net::TcpStream,
    runtime::{Builder, Handle},
    sync::oneshot,
};
use tracing::warn;

/// The threads. They end when this is dropped, and what they serve with them.
pub(super) struct Threads(Vec<HttpThread>);

struct HttpThread {
    runtime: Handle,
    /// Counts who uses the thread: each connection holds one, too.
    seat: Arc<()>,
    _running: oneshot::Sender<()>,
}

impl Threads {
    /// Starts `threads` of them.
    ///
    /// # Errors
    /// When the system gives no more threads.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        (0..threads).map(HttpThread::start).collect::<io::Result<_>>().map(Self)
    }

    /// Lets the thread that has the fewest connections `serve` one more.
    pub(super) fn spawn<F>(&self, stream: TcpStream, serve: impl FnOnce(TcpStream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let Some(thread) = self.0.iter().min_by_key(|thread| Arc::strong_count(&thread.seat)) else { return };
        let seat = Arc::clone(&thread.seat);
        // A connection is registered with the runtime that accepted it; this one is to be another's.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(err) => return warn!("cannot serve a connection: {err}"),
        };
        thread.runtime.spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(err) => warn!("cannot serve a connection: {err}"),
            }
            drop(seat);
        });
    }
}

impl HttpThread {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        thread::Builder::new().name(format!("http-{index}")).spawn(move || {
            // Nothing is sent to `ended`: the wait ends when its sender is dropped.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, seat: Arc::new(()), _running: running })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt, net::TcpListener, sync::mpsc, time::timeout};

    use super::*;

    #[tokio::test]
    async fn connections_go_to_the_thread_that_has_the_fewest() {
        let threads = Threads::start(2).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (served, mut by) = mpsc::unbounded_channel();
        let mut connect = async || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let served = served.clone();
            threads.spawn(listener.accept().await.unwrap().0, async move |mut stream| {
                served.send(thread::current().name().unwrap().to_owned()).unwrap();
                // The task lasts until the client leaves.
                let _ = stream.read(&mut [0]).await;
            });
            let by = timeout(Duration::from_secs(10), by.recv()).await.unwrap().unwrap();
            (client, by)
        };
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(connect().await);
        }
        let on =
            |name: &str, clients: &[(TcpStream, String)]| clients.iter().filter(|(_, by)| by == name).count();
        assert_eq!((on("http-0", &clients), on("http-1", &clients)), (2, 2));

        clients.retain(|(_, by)| by == "http-0");
        let seat = &threads.0[1].seat;
        timeout(Duration::from_secs(10), async {
            while Arc::strong_count(seat) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap();
        for _ in 0..2 {
            assert_eq!(connect().await.1, "http-1");
        }
    }
}
