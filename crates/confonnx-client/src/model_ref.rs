//! Which model a call is about.

/// A model of a server and one of its versions. Without a name, the only one; without a version, what the policy's model
/// hash says, or else the server's choice: its highest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModelRef<'a> {
    /// The model's name.
    pub name: Option<&'a str>,
    /// The model's version.
    pub version: Option<&'a str>,
}

impl<'a> From<Option<&'a str>> for ModelRef<'a> {
    fn from(name: Option<&'a str>) -> Self {
        Self { name, version: None }
    }
}
