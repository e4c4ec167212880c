//! Looks up where the other members of the group are.

use std::path::PathBuf;

use tokio::net::lookup_host;

use crate::config::{Address, Peers};

/// Why nowhere was found.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name has no address.
    #[error("the peers' name {name}: {source}")]
    Dns {
        /// The name.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be read.
    #[error("the file of peers {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line of the file is no URL. It is not printed: the host names the file.
    #[error("the file of peers {}: line {line} is not http://HOST:PORT", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
}

/// Where they are now.
///
/// # Errors
/// [`ResolveError`]
pub(super) async fn resolve(peers: &Peers) -> Result<Vec<Address>, ResolveError> {
    match peers {
        Peers::List(list) => Ok(list.clone()),
        Peers::Dns { name, port } => {
            let found = lookup_host((name.as_str(), *port)).await;
            let found = found.map_err(|source| ResolveError::Dns { name: name.clone(), source })?;
            Ok(found.map(|address| Address(address.to_string())).collect())
        }
        Peers::File(path) => {
            // A few lines: not worth a thread.
            let text = std::fs::read_to_string(path)
                .map_err(|source| ResolveError::Read { path: path.clone(), source })?;
            let lines = text.lines().map(str::trim).enumerate();
            let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
            let parse = |(index, line): (usize, &str)| {
                line.parse()
                    .map_err(|_| ResolveError::Line { path: path.clone(), line: index.saturating_add(1) })
            };
            lines.map(parse).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_and_files_are_looked_up_each_time() {
        let found = resolve(&"dns:localhost:7".parse().unwrap()).await.unwrap();
        assert!(found.contains(&Address("127.0.0.1:7".into())), "{found:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let peers = Peers::File(file.path().into());
        assert_eq!(resolve(&peers).await.unwrap(), []);
        std::fs::write(file.path(), "# two\nhttp://a:1\n\n http://b:2 \n").unwrap();
        assert_eq!(resolve(&peers).await.unwrap(), ["a:1", "b:2"].map(|text| Address(text.into())));
        std::fs::write(file.path(), "http://a:1\nnonsense\n").unwrap();
        assert!(resolve(&peers).await.unwrap_err().to_string().contains("line 2 is not"));
        assert!(matches!(resolve(&Peers::File("/nowhere".into())).await, Err(ResolveError::Read { .. })));
    }
}
