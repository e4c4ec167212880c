//! Lists of accepted values in a policy's sections.

use serde::{Deserialize, Deserializer};

/// Reads a list that accepts something. An empty one would read as `nothing` and mean `anything`.
pub(crate) fn at_least_one<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let values = Vec::deserialize(deserializer)?;
    if values.is_empty() {
        let message =
            "expected at least one value, or no such key when it does not matter; found an empty list";
        return Err(serde::de::Error::custom(message));
    }
    Ok(values)
}
