//! The page that shows what attestation and sealing are (`--demo`), as `scripts/make-demo` made it. Its files are the host's:
//! nobody's confidence rests on them, and the page says so.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use crate::body::Body;

/// The page's files.
pub struct Demo(Vec<Page>);

struct Page {
    name: &'static str,
    media: &'static str,
    content: Bytes,
}

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[error("demo: {}: {source}; expected the folder that scripts/make-demo makes", path.display())]
pub struct DemoError {
    path: PathBuf,
    source: io::Error,
}

impl Demo {
    /// Reads the files of `folder`; others that are there are not served.
    ///
    /// # Errors
    /// [`DemoError`]
    pub fn read(folder: &Path) -> Result<Self, DemoError> {
        let page = |(name, media): (&'static str, &'static str)| {
            let path = folder.join(name);
            match read(&path) {
                Ok(content) => Ok(Page { name, media, content }),
                Err(source) => Err(DemoError { path, source }),
            }
        };
        FILES.into_iter().map(page).collect::<Result<_, _>>().map(Self)
    }

    /// The answer to a GET of `path`; none if it is not the page's.
    pub(super) fn answer(&self, path: &str) -> Option<Response<Body>> {
        let rest = path.strip_prefix("/demo")?;
        if rest.is_empty() {
            // So that the names of its files are found below it, whatever stands before this server's paths.
            let mut response = Response::new(Body::from(Bytes::new()));
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(header::LOCATION, HeaderValue::from_static("demo/"));
            return Some(response);
        }
        let name = match rest.strip_prefix('/')? {
            "" => INDEX,
            name => name,
        };
        let page = self.0.iter().find(|page| page.name == name)?;
        let mut response = Response::new(Body::from(page.content.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(page.media));
        for (name, value) in HEADERS {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if KEPT.contains(&page.name) {
            headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
        }
        Some(response)
    }
}

fn read(path: &Path) -> io::Result<Bytes> {
    let mut content = Vec::new();
    // What is longer is something else.
    if File::open(path)?.take(MOST).read_to_end(&mut content)? as u64 == MOST {
        return Err(io::Error::other(format!("expected less than {MOST} bytes")));
    }
    Ok(content.into())
}

const INDEX: &str = "index.html";
/// Each page in one file, to be kept.
const KEPT: [&str; 2] = ["confonnx-demo.html", "confonnx-chat.html"];
const FILES: [(&str, &str); 8] = [
    (INDEX, "text/html; charset=utf-8"),
    ("chat.html", "text/html; charset=utf-8"),
    ("chat.js", "text/javascript; charset=utf-8"),
    ("demo.js", "text/javascript; charset=utf-8"),
    ("demo.css", "text/css; charset=utf-8"),
    ("confonnx.wasm", "application/wasm"),
    (KEPT[0], "text/html; charset=utf-8"),
    (KEPT[1], "text/html; charset=utf-8"),
];
const MOST: u64 = 64 << 20;
const HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; connect-src 'self' http: https:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_files_are_served() {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in FILES {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::fs::write(folder.path().join("other"), "secret").unwrap();
        let demo = Demo::read(folder.path()).unwrap();
        let found =
            |path: &str| demo.answer(path).map(|response| response.headers()[header::CONTENT_TYPE].clone());
        assert_eq!(found("/demo/").unwrap(), "text/html; charset=utf-8");
        assert_eq!(found("/demo/confonnx.wasm").unwrap(), "application/wasm");
        assert_eq!(demo.answer("/demo").unwrap().headers()[header::LOCATION], "demo/");
        for other in
            ["/demo/other", "/demo/../other", "/demo//index.html", "/demonstration", "/", "/demo/index.html/"]
        {
            assert!(demo.answer(other).is_none(), "{other}");
        }
        let kept = demo.answer("/demo/confonnx-demo.html").unwrap();
        assert_eq!(kept.headers()[header::CONTENT_DISPOSITION], "attachment");
        std::fs::remove_file(folder.path().join("demo.js")).unwrap();
        let error = Demo::read(folder.path()).err().unwrap().to_string();
        assert!(error.contains("demo.js") && error.contains("make-demo"), "{error}");
    }
}
