//! What is said of a file that is not what it should be.

/// What is wrong with a TOML file, and where. Without its lines: the host names the file, and could name one that holds
/// a secret of this machine to have it printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct TomlError {
    /// The line's number, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    message: String,
}

impl TomlError {
    /// What `error` says of `text`.
    pub fn of(text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or_default();
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
        // The message's first line alone: further ones may show the file's.
        let message = error.message().lines().next().unwrap_or_default().into();
        Self { line, column, message }
    }
}
