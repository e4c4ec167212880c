//! Who may ask: programs of this machine, and no page of a browser.
//!
//! A page from elsewhere may have a browser send requests here, and by a name that resolves to this machine even read the
//! answers. Browsers say where a page is from and by which name they came, and neither is this listener then.

use http::{HeaderMap, StatusCode, Uri, header};

use crate::answer::{Answer, refusal};

/// Names by which the listener may be called beside those of this machine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    pub(crate) names: Vec<String>,
}

impl Guard {
    /// Refuses what a browser sends for a page from elsewhere.
    pub(crate) fn check(&self, uri: &Uri, fields: &HeaderMap) -> Result<(), Answer> {
        let said = fields.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = uri.authority().map(http::uri::Authority::as_str).or(said).unwrap_or_default();
        if !self.is_ours(host) {
            let text = format!(
                "expected a request to localhost, found one to `{host}`: this proxy is for programs of this machine \
                 (--allow-host lets them use another name)"
            );
            return Err(refusal(StatusCode::MISDIRECTED_REQUEST, &text));
        }
        let Some(origin) = fields.get(header::ORIGIN) else { return Ok(()) };
        let from = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
        if from == Some(host) {
            return Ok(());
        }
        Err(refusal(StatusCode::FORBIDDEN, "this proxy answers programs, and no pages from elsewhere"))
    }

    /// An empty host is that of a Unix socket.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        name.is_empty()
            || name.eq_ignore_ascii_case("localhost")
            || address.is_ok_and(|address| address.is_loopback())
            || self.names.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(host: &'static str, origin: Option<&'static str>) -> bool {
        let mut fields = HeaderMap::new();
        fields.insert(header::HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            fields.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        Guard { names: vec!["models.local".into()] }.check(&Uri::from_static("/v2"), &fields).is_ok()
    }

    #[test]
    fn programs_of_this_machine_may_ask_and_pages_from_elsewhere_may_not() {
        for host in
            ["localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "127.9.9.9", "", "models.local:1"]
        {
            assert!(check(host, None), "{host}");
        }
        for host in
            ["evil.example", "evil.example:8000", "localhost.evil.example", "10.0.0.1:8000", "[::2]:80"]
        {
            assert!(!check(host, None), "{host}");
        }
        assert!(check("localhost:8000", Some("http://localhost:8000")));
        for origin in ["http://evil.example", "null", "http://localhost:9999"] {
            assert!(!check("localhost:8000", Some(origin)), "{origin}");
        }
    }
}
