//! Others' text in a verdict.

/// Server-chosen text in a verdict: bounded, one line, no control characters.
pub(crate) fn shown(text: &str) -> String {
    let clean: String = text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(64).is_some() { clean + "…" } else { clean }
}

/// A setting of the claims, bounded likewise.
pub(crate) fn said(value: &serde_json::Value) -> String {
    shown(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Values of which one will do.
pub(crate) fn one_of(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(" or ")
}
