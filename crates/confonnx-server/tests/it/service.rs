//! What stand-ins for others' services share: a port of their own, and HTTP.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, http::request::Parts, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

pub(crate) type Answer = Response<Full<Bytes>>;

/// A service that answers until it is dropped.
pub(crate) struct Service {
    pub(crate) url: String,
    task: JoinHandle<()>,
}

impl Service {
    /// Starts a service: `answer` gives the answer to a request, or none, and then the connection stays open without
    /// one.
    pub(crate) async fn start<F>(acceptor: Option<TlsAcceptor>, answer: F) -> Self
    where
        F: Fn(&Parts, &[u8]) -> Option<Answer> + Send + Sync + 'static,
    {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://localhost:{}", listener.local_addr().unwrap().port());
        let answer = Arc::new(answer);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (answer, acceptor) = (Arc::clone(&answer), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => connection(stream, answer).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                connection(stream, answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, task }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn connection<F>(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, answer: Arc<F>)
where
    F: Fn(&Parts, &[u8]) -> Option<Answer> + Send + Sync + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = Arc::clone(&answer);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            match answer(&head, &body) {
                // The connection closes after each answer, so that none outlives the service.
                Some(mut answer) => {
                    answer.headers_mut().insert("connection", "close".parse().unwrap());
                    Ok::<_, Infallible>(answer)
                }
                None => std::future::pending().await,
            }
        }
    });
    // An error means that the peer has gone.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

pub(crate) fn status(status: u16, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}
