//! What a path asks for.

use http::Method;

/// A model as a path names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) version: Option<String>,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Live,
    Ready,
    Server,
    Index,
    Load(String),
    Unload(String),
    Model(Named),
    ModelReady(Named),
    ModelConfig(Named),
    Infer(Named),
    Generate(Named),
    GenerateStream(Named),
    /// Numbers of one model or all.
    Statistics(Option<Named>),
    Trace,
    Logging,
    SharedMemory(Memory, String, Region),
    /// A path of OpenAI's API, whatever is asked of it.
    OpenAi,
}

/// The kind of the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Memory {
    System,
    Cuda,
}

/// What to do with a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Region {
    Status,
    Register,
    Unregister,
}

/// Why there is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    Path,
    Method,
}

impl Route {
    pub(crate) fn of(method: &Method, path: &str) -> Result<Self, NoRoute> {
        if path.starts_with("/v1/") {
            return Ok(Self::OpenAi);
        }
        let segments =
            path.split('/').skip(1).map(decoded).collect::<Option<Vec<_>>>().ok_or(NoRoute::Path)?;
        let mut segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        if segments.len() > 1 && segments.last() == Some(&"") {
            segments.pop();
        }
        let (route, allowed) = Self::found(&segments).ok_or(NoRoute::Path)?;
        let fits = match allowed {
            Allowed::Get => matches!(*method, Method::GET | Method::HEAD),
            Allowed::Post => *method == Method::POST,
            Allowed::Both => matches!(*method, Method::GET | Method::POST),
        };
        if fits { Ok(route) } else { Err(NoRoute::Method) }
    }

    fn found(segments: &[&str]) -> Option<(Self, Allowed)> {
        use Allowed::{Both, Get, Post};
        Some(match segments {
            ["v2"] => (Self::Server, Get),
            ["v2", "health", "live"] => (Self::Live, Get),
            ["v2", "health", "ready"] => (Self::Ready, Get),
            ["v2", "repository", "index"] => (Self::Index, Post),
            ["v2", "repository", "models", name, "load"] => (Self::Load(full(name)?), Post),
            ["v2", "repository", "models", name, "unload"] => (Self::Unload(full(name)?), Post),
            ["v2", "models", "stats"] => (Self::Statistics(None), Get),
            ["v2", "trace", "setting"] | ["v2", "models", _, "trace", "setting"] => (Self::Trace, Both),
            ["v2", "logging"] => (Self::Logging, Both),
            ["v2", memory, rest @ ..] if memory.ends_with("sharedmemory") => {
                let memory = match *memory {
                    "systemsharedmemory" => Memory::System,
                    "cudasharedmemory" => Memory::Cuda,
                    _ => return None,
                };
                let (name, what) = match rest {
                    ["region", name, what] => (*name, what),
                    [what] => ("", what),
                    _ => return None,
                };
                let (what, allowed) = match *what {
                    "status" => (Region::Status, Get),
                    "register" => (Region::Register, Post),
                    "unregister" => (Region::Unregister, Post),
                    _ => return None,
                };
                (Self::SharedMemory(memory, name.into(), what), allowed)
            }
            ["v2", "models", name, "versions", version, rest @ ..] => {
                Self::of_model(Named { name: full(name)?, version: Some(full(version)?) }, rest)?
            }
            ["v2", "models", name, rest @ ..] => {
                Self::of_model(Named { name: full(name)?, version: None }, rest)?
            }
            _ => return None,
        })
    }

    fn of_model(model: Named, rest: &[&str]) -> Option<(Self, Allowed)> {
        use Allowed::{Get, Post};
        Some(match rest {
            [] => (Self::Model(model), Get),
            ["ready"] => (Self::ModelReady(model), Get),
            ["config"] => (Self::ModelConfig(model), Get),
            ["stats"] => (Self::Statistics(Some(model)), Get),
            ["infer"] => (Self::Infer(model), Post),
            ["generate"] => (Self::Generate(model), Post),
            ["generate_stream"] => (Self::GenerateStream(model), Post),
            _ => return None,
        })
    }
}

enum Allowed {
    Get,
    Post,
    Both,
}

fn full(segment: &str) -> Option<String> {
    (!segment.is_empty()).then(|| segment.to_owned())
}

/// The segment without percent encoding (RFC 3986).
fn decoded(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut out = Vec::with_capacity(segment.len());
    while let Some(byte) = bytes.next() {
        out.push(if byte == b'%' {
            let digit =
                |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
            (high << 4) | low
        } else {
            byte
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_what_the_protocol_and_triton_say() {
        let model =
            |name: &str, version: Option<&str>| Named { name: name.into(), version: version.map(Into::into) };
        let region = |name: &str, what| Ok(Route::SharedMemory(Memory::System, name.into(), what));
        let cases = [
            (Method::GET, "/v2", Ok(Route::Server)),
            (Method::GET, "/v2/", Ok(Route::Server)),
            (Method::GET, "/v2/health/live", Ok(Route::Live)),
            (Method::GET, "/v2/health/ready", Ok(Route::Ready)),
            (Method::POST, "/v2/repository/index", Ok(Route::Index)),
            (Method::POST, "/v2/repository/models/a%2Fb/load", Ok(Route::Load("a/b".into()))),
            (Method::GET, "/v2/models/m", Ok(Route::Model(model("m", None)))),
            (Method::GET, "/v2/models/m/ready", Ok(Route::ModelReady(model("m", None)))),
            (
                Method::GET,
                "/v2/models/a%20b/versions/2/ready",
                Ok(Route::ModelReady(model("a b", Some("2")))),
            ),
            (Method::POST, "/v2/models/m/versions/1/infer", Ok(Route::Infer(model("m", Some("1"))))),
            (Method::GET, "/v2/models/m/config", Ok(Route::ModelConfig(model("m", None)))),
            (Method::GET, "/v2/models/stats", Ok(Route::Statistics(None))),
            (Method::GET, "/v2/models/m/stats", Ok(Route::Statistics(Some(model("m", None))))),
            (Method::POST, "/v2/models/m/trace/setting", Ok(Route::Trace)),
            (Method::GET, "/v2/logging", Ok(Route::Logging)),
            (Method::GET, "/v2/systemsharedmemory/status", region("", Region::Status)),
            (Method::POST, "/v2/systemsharedmemory/region/r/register", region("r", Region::Register)),
            (Method::POST, "/v1/embeddings", Ok(Route::OpenAi)),
            (Method::GET, "/v2/models/m/infer", Err(NoRoute::Method)),
            (Method::POST, "/v2/models/m", Err(NoRoute::Method)),
            (Method::GET, "/v2/models/", Err(NoRoute::Path)),
            (Method::GET, "/v2/models/%f", Err(NoRoute::Path)),
            (Method::GET, "/v2/models/%ff", Err(NoRoute::Path)),
            (Method::GET, "/v2x", Err(NoRoute::Path)),
            (Method::GET, "/", Err(NoRoute::Path)),
            (Method::POST, "/v2/models/m/generate", Ok(Route::Generate(model("m", None)))),
            (
                Method::POST,
                "/v2/models/m/versions/1/generate_stream",
                Ok(Route::GenerateStream(model("m", Some("1")))),
            ),
            (Method::POST, "/v2/models/m/generates", Err(NoRoute::Path)),
        ];
        for (method, path, expected) in cases {
            assert_eq!(Route::of(&method, path), expected, "{method} {path}");
        }
    }
}
