//! Pages that may ask from a browser: their origins (RFC 6454).

use super::ConfigError;

/// The origins that answers are for; none by default. Confidentiality does not rest on them: what a page is answered is
/// sealed to it, or public.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origins {
    /// No page of another origin.
    #[default]
    None,
    /// Any page.
    Any,
    /// The origins that are named.
    Listed(Vec<String>),
}

impl Origins {
    /// From `*`, or origins with commas between.
    ///
    /// # Errors
    /// [`ConfigError::Range`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        match text.trim() {
            "" => Ok(Self::None),
            "*" => Ok(Self::Any),
            list => list
                .split(',')
                .map(str::trim)
                .map(|origin| if is_origin(origin) { Ok(origin.into()) } else { Err(wrong(origin)) })
                .collect::<Result<_, _>>()
                .map(Self::Listed),
        }
    }

    /// Whether a page of `origin` may ask.
    pub fn allow(&self, origin: &[u8]) -> bool {
        match self {
            Self::None => false,
            Self::Any => true,
            Self::Listed(origins) => origins.iter().any(|known| known.as_bytes() == origin),
        }
    }
}

/// Scheme, host and port as browsers send them: lower case, without path.
fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
    host.is_some_and(|host| !host.is_empty() && host.chars().all(allowed))
}

fn wrong(origin: &str) -> ConfigError {
    ConfigError::Range {
        name: "cors-origin",
        found: origin.into(),
        expected: "`*`, or origins such as https://app.example: lower case, without path or slash at the end",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_browser_sends_is_refused() {
        for wrong in
            ["app.example", "https://", "https://app.example/", "https://App.example", "*, https://a", "null"]
        {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_whole_origins_are_allowed() {
        let origins = Origins::parse("https://app.example, http://localhost:8000").unwrap();
        assert!(origins.allow(b"https://app.example") && origins.allow(b"http://localhost:8000"));
        for other in [&b"http://app.example"[..], b"https://app.example.evil", b"https://app", b"null", b""] {
            assert!(!origins.allow(other));
        }
        assert!(Origins::parse("*").unwrap().allow(b"null"));
        assert!(!Origins::parse("").unwrap().allow(b"https://app.example"));
    }
}
