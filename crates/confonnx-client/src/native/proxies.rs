//! Proxies on the way to a server: which one, and the connection through it.
//!
//! A proxy sees no more than anybody else on the way: requests are sealed. To https a tunnel is asked for (`CONNECT`); what
//! is http goes through it as it is (RFC 9112, section 3.2.2).

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::{BoxError, ClientError, Proxy};

/// Which servers are reached through which proxy.
#[derive(Clone, Debug)]
pub(crate) struct Proxies(Option<Arc<Matcher>>);

impl Proxies {
    /// The proxies that the option names, or else the variables of the environment.
    pub(crate) fn new(wanted: &Proxy) -> Result<Self, ClientError> {
        match wanted {
            Proxy::Direct => Ok(Self(None)),
            Proxy::Url(url) => {
                check("proxy", url.expose())?;
                Ok(Self(Some(Arc::new(Matcher::builder().all(url.expose().to_owned()).build()))))
            }
            Proxy::Environment => Self::of(|name| std::env::var(name).ok()),
        }
    }

    fn of(variable: impl Fn(&'static str) -> Option<String>) -> Result<Self, ClientError> {
        let first = |names: [&'static str; 2]| {
            let mut found = names.into_iter().filter_map(|name| Some((name, variable(name)?)));
            found.find(|(_, value)| !value.trim().is_empty())
        };
        let mut builder = Matcher::builder();
        if let Some((name, url)) = first(["HTTPS_PROXY", "https_proxy"]).or_else(|| first(ALL)) {
            check(name, &url)?;
            builder = builder.https(url);
        }
        // In a CGI program, a header field of its caller's would be in this variable.
        let ours = variable("REQUEST_METHOD").is_none();
        let http = if ours { first(["HTTP_PROXY", "http_proxy"]) } else { None };
        if let Some((name, url)) = http.or_else(|| first(ALL)) {
            check(name, &url)?;
            builder = builder.http(url);
        }
        if let Some((_, hosts)) = first(["NO_PROXY", "no_proxy"]) {
            builder = builder.no(hosts);
        }
        Ok(Self(Some(Arc::new(builder.build()))))
    }

    fn before(&self, url: &Uri) -> Option<Intercept> {
        if url.host().is_some_and(is_here) {
            return None;
        }
        self.0.as_ref()?.intercept(url)
    }

    /// What the proxy itself is told, in a request that goes through it as it is.
    pub(crate) fn credentials(&self, url: &Uri) -> Option<HeaderValue> {
        if url.scheme_str() != Some("http") {
            return None;
        }
        self.before(url)?.basic_auth().cloned()
    }
}

/// Whether the host is this machine, for which a proxy is never asked: it would not find the server there.
fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Refuses a URL of which parts would be ignored silently.
fn check(named: &str, url: &str) -> Result<(), ClientError> {
    let wrong = |reason: &str| ClientError::Proxy { named: named.into(), reason: reason.into() };
    let uri: Uri = url.parse().map_err(|_| wrong("what is given is no URL"))?;
    match uri.scheme_str() {
        None | Some("http") => {}
        Some(other) => return Err(wrong(&format!("found one that begins with {other}://"))),
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(wrong("what is given names no host"));
    }
    Ok(())
}

/// Connects to a server, or to the proxy before it.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) tcp: HttpConnector,
    pub(crate) proxies: Proxies,
}

impl Service<Uri> for Way {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let mut tcp = self.tcp.clone();
        let Some(proxy) = self.proxies.before(&url) else {
            let connecting = tcp.call(url);
            return Box::pin(async { Ok(Stream { io: connecting.await?, proxied: false }) });
        };
        let (at, credentials) = (proxy.uri().clone(), proxy.basic_auth().cloned());
        let failed =
            move |source: BoxError| -> BoxError { Failed { proxy: proxy.uri().clone(), source }.into() };
        if url.scheme_str() == Some("https") {
            let mut tunnel = Tunnel::new(at, tcp);
            if let Some(credentials) = credentials {
                tunnel = tunnel.with_auth(credentials);
            }
            let connecting = tunnel.call(url);
            return Box::pin(async move {
                let io = connecting.await.map_err(|err| failed(err.into()))?;
                Ok(Stream { io, proxied: false })
            });
        }
        let connecting = tcp.call(at);
        Box::pin(async move {
            let io = connecting.await.map_err(|err| failed(err.into()))?;
            Ok(Stream { io, proxied: true })
        })
    }
}

/// No connection through a proxy. All is in its text, because it is shown as the root of what went wrong.
#[derive(Debug)]
struct Failed {
    proxy: Uri,
    source: BoxError,
}

impl std::error::Error for Failed {}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection through the proxy {}: {}", self.proxy, self.source)?;
        let mut cause = self.source.source();
        while let Some(source) = cause {
            write!(f, ": {source}")?;
            cause = source.source();
        }
        Ok(())
    }
}

/// A connection.
pub(crate) struct Stream {
    io: TokioIo<TcpStream>,
    /// Whether the connection is to a proxy that has to be told the whole URL.
    proxied: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.proxied)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, slices)
    }
}

const ALL: [&str; 2] = ["ALL_PROXY", "all_proxy"];

#[cfg(test)]
mod tests {
    use super::*;

    fn before(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let given = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into());
        let proxies = Proxies::of(given).unwrap();
        Some(proxies.before(&url.parse().unwrap())?.uri().to_string())
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        let given = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).into());
        Proxies::of(given).unwrap_err().to_string()
    }

    #[test]
    fn variables_name_the_proxy_of_their_scheme() {
        let both = [("HTTPS_PROXY", "http://secure:1"), ("http_proxy", "plain:2")];
        assert_eq!(before(&both, "https://a.example").as_deref(), Some("http://secure:1/"));
        assert_eq!(before(&both, "http://a.example:8888").as_deref(), Some("http://plain:2/"));
        assert_eq!(
            before(&[("all_proxy", "http://all:3")], "https://a.example").as_deref(),
            Some("http://all:3/")
        );
        assert_eq!(before(&[("HTTPS_PROXY", " ")], "https://a.example"), None);
        assert_eq!(before(&[], "https://a.example"), None);
    }

    #[test]
    fn hosts_that_are_named_and_this_machine_are_reached_directly() {
        let set = [("ALL_PROXY", "http://all:3"), ("NO_PROXY", "corp.example, 10.0.0.0/8")];
        for url in [
            "https://models.corp.example",
            "http://10.1.2.3:8888",
            "http://localhost:8888",
            "http://[::1]:8888",
            "http://127.0.0.1",
        ] {
            assert_eq!(before(&set, url), None, "{url}");
        }
        assert!(before(&set, "https://a.example").is_some());
    }

    #[test]
    fn a_caller_of_a_cgi_program_chooses_no_proxy() {
        let set = [("HTTP_PROXY", "http://evil:1"), ("REQUEST_METHOD", "GET")];
        assert_eq!(before(&set, "http://a.example"), None);
    }

    #[test]
    fn what_would_be_ignored_is_refused() {
        let error = refused(&[("HTTPS_PROXY", "socks5://10.0.0.1:1080")]);
        assert_eq!(
            error,
            "HTTPS_PROXY: expected an HTTP proxy, such as http://proxy.example:3128, found one that begins with \
             socks5://; to ask none, add the server to NO_PROXY"
        );
        for url in ["http://", "http://a b", "https://p:1"] {
            assert!(
                refused(&[("http_proxy", url)]).starts_with("http_proxy: expected an HTTP proxy"),
                "{url}"
            );
        }
        assert!(!refused(&[("ALL_PROXY", "socks5://user:hunter2@p")]).contains("hunter2"));
    }
}
