//! Settings of a group of servers with one secret, and where its members are.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::Deserialize;

/// Settings of the group.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// The other servers of the group.
    pub peers: Peers,
    /// The policy of the group; `None`: members have to be the same.
    pub policy: Option<PathBuf>,
    /// Whether this one may make the first secret.
    pub bootstrap: bool,
}

/// How to find the other servers, each time anew.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Peers {
    /// The servers at these addresses.
    List(Vec<Address>),
    /// Every address that a name has, such as that of a headless Service.
    Dns {
        /// The name.
        name: String,
        /// The port at each.
        port: u16,
    },
    /// A file with one URL a line.
    File(PathBuf),
}

/// A server's public port, by HTTP without TLS: what matters is attested and sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(pub(crate) String);

/// Text that says nowhere to look.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected http://HOST:PORT (several separated by commas), dns:NAME:PORT or file:PATH, found {0:?}; what members send each \
     other is attested and sealed, so https is not needed"
)]
pub struct PeersError(String);

impl Address {
    /// Host and port.
    pub fn authority(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = PeersError;

    fn from_str(url: &str) -> Result<Self, PeersError> {
        let wrong = || PeersError(url.into());
        let uri: http::Uri = url.parse().map_err(|_| wrong())?;
        let authority =
            uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        if uri.scheme_str() != Some("http") || uri.path() != "/" || uri.query().is_some() {
            return Err(wrong());
        }
        let port = authority.port_u16().unwrap_or(80);
        Ok(Self(format!("{}:{port}", authority.host())))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

impl FromStr for Peers {
    type Err = PeersError;

    fn from_str(text: &str) -> Result<Self, PeersError> {
        let wrong = || PeersError(text.into());
        if let Some(rest) = text.strip_prefix("dns:") {
            let (name, port) = rest.rsplit_once(':').ok_or_else(wrong)?;
            let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
            if name.is_empty() || name.contains(['/', ':']) {
                return Err(wrong());
            }
            return Ok(Self::Dns { name: name.into(), port });
        }
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::File(path.into())) };
        }
        let list: Result<Vec<_>, _> = text.split(',').map(|url| url.trim().parse()).collect();
        list.map(Self::List)
    }
}

impl TryFrom<String> for Peers {
    type Error = PeersError;

    fn try_from(text: String) -> Result<Self, PeersError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_forms() {
        let list = "http://a:1, http://10.0.0.2:8888/,http://[::1]:3,http://b".parse();
        let address = |text: &str| Address(text.into());
        let expected = ["a:1", "10.0.0.2:8888", "[::1]:3", "b:80"].map(address).to_vec();
        assert_eq!(list, Ok(Peers::List(expected)));
        let dns = Peers::Dns { name: "confonnx-peers.default.svc".into(), port: 8888 };
        assert_eq!("dns:confonnx-peers.default.svc:8888".parse(), Ok(dns));
        assert_eq!("file:/etc/peers".parse(), Ok(Peers::File("/etc/peers".into())));
        for wrong in [
            "",
            "a:1",
            "https://a:1",
            "http://user@a:1",
            "http://a:1/path",
            "http://a?b",
            "dns:a",
            "dns::1",
            "dns:a:0",
            "file:",
            "http://a:1,,",
        ] {
            assert!(wrong.parse::<Peers>().unwrap_err().to_string().contains("dns:NAME:PORT"), "{wrong}");
        }
    }
}
