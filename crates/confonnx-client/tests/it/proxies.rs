//! An HTTP proxy between the client and its server.

use std::sync::{Arc, Mutex};

use confonnx_client::{Client, Options, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::fake::Fake;
use crate::{client_with, echo, policy};

/// A proxy that connects to one server, whichever host it is asked for, and keeps the heads of the requests that it
/// gets.
struct Forwarder {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Forwarder {
    /// Starts the proxy; with `refusal`, it answers that instead of connecting.
    async fn start(server: String, refusal: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://user:secret@{}", listener.local_addr().unwrap());
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&heads);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (kept, server) = (Arc::clone(&kept), server.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    kept.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                    if let Some(refusal) = refusal {
                        return stream.write_all(refusal.as_bytes()).await;
                    }
                    let mut onward = TcpStream::connect(server).await?;
                    if head.starts_with(b"CONNECT ") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                    } else {
                        onward.write_all(&head).await?;
                    }
                    copy_bidirectional(&mut stream, &mut onward).await.map(drop)
                });
            }
        });
        Self { url, heads }
    }

    fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    fn options(&self) -> Options {
        Options::new().proxy(Proxy::Url(self.url.as_str().into())).retries(0)
    }
}

#[tokio::test]
async fn http_goes_through_a_proxy_as_it_is() {
    let server = Fake::start().await;
    let proxy = Forwarder::start(server.url().replace("http://", ""), None).await;
    let client = Client::new("http://models.example:8888", policy(), proxy.options()).unwrap();
    echo(&client).await.unwrap();
    let heads = proxy.heads();
    let first = heads[0].to_ascii_lowercase();
    assert!(first.starts_with("get http://models.example:8888/"), "{first}");
    assert!(first.contains("proxy-authorization: basic dxnlcjpzzwnyzxq="), "{first}");
    assert_eq!(server.opened(), 1);
}

#[tokio::test]
async fn https_is_tunnelled() {
    // The server behind the proxy speaks no TLS, so the call fails; what the proxy was asked shows the tunnel.
    let server = Fake::start().await;
    let proxy = Forwarder::start(server.url().replace("http://", ""), None).await;
    let client = Client::new("https://models.example", policy(), proxy.options()).unwrap();
    echo(&client).await.unwrap_err();
    let heads = proxy.heads();
    assert!(heads[0].starts_with("CONNECT models.example:443 HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[0].contains("Proxy-Authorization: Basic dXNlcjpzZWNyZXQ=\r\n"), "{heads:?}");
}

#[tokio::test]
async fn errors_name_the_proxy_without_its_password() {
    let server = Fake::start().await;
    let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
    let proxy = Forwarder::start(server.url().replace("http://", ""), Some(refusal)).await;
    let client = Client::new("https://models.example", policy(), proxy.options()).unwrap();
    let error = echo(&client).await.unwrap_err().to_string();
    assert!(error.contains("no connection through the proxy http://127.0.0.1:"), "{error}");
    assert!(error.contains("proxy authorization required") && !error.contains("secret"), "{error}");

    let error =
        Client::new("https://models.example", policy(), Options::new().proxy(Proxy::Url("ftp://p".into())));
    let error = error.unwrap_err().to_string();
    assert!(error.starts_with("proxy: expected an HTTP proxy"), "{error}");
}

#[tokio::test]
async fn this_machine_is_reached_directly() {
    let server = Fake::start().await;
    let proxy = Forwarder::start(server.url().replace("http://", ""), None).await;
    echo(&client_with(&server, proxy.options())).await.unwrap();
    assert!(proxy.heads().is_empty());
}
