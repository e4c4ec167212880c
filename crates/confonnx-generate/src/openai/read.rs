//! Reading an object field by field, with errors that say which and what was expected.

use confonnx_tensor::Erase;
use serde_json::{Map, Value, json};

/// Why a request is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// What was expected and found.
    pub message: String,
    /// The field.
    pub param: Option<String>,
    /// A fixed word.
    pub code: &'static str,
}

impl RequestError {
    /// An error about no field.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { message: message.into(), param: None, code }
    }

    /// An error about the field `param`.
    pub fn of(param: impl Into<String>, code: &'static str, message: impl Into<String>) -> Self {
        Self { message: message.into(), param: Some(param.into()), code }
    }

    /// The error's body as the API has it.
    pub fn body(&self, kind: &str) -> Value {
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

/// The fields of an object that were not read yet. Erased on drop.
pub(crate) struct Fields {
    path: String,
    fields: Map<String, Value>,
}

impl Fields {
    pub(crate) fn of(path: &str, value: Value) -> Result<Self, RequestError> {
        match value {
            Value::Object(fields) => Ok(Self { path: path.to_owned(), fields }),
            other => Err(wrong(path, "an object", &other)),
        }
    }

    /// The field's value, if it is there and not null.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.fields.remove(key).filter(|value| !value.is_null())
    }

    /// The fields of `other`, too.
    pub(crate) fn join(&mut self, mut other: Self) -> Result<(), RequestError> {
        for (key, value) in std::mem::take(&mut other.fields) {
            if self.fields.contains_key(&key) {
                let shown: String = key.chars().take(64).collect();
                let message = format!("{shown:?} is given twice; expected it here or in {}", other.path);
                return Err(RequestError::of(shown, "invalid_value", message));
            }
            self.fields.insert(key, value);
        }
        Ok(())
    }

    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<Option<String>, RequestError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(key), "a string", &other)),
        }
    }

    pub(crate) fn flag(&mut self, key: &str) -> Result<Option<bool>, RequestError> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(wrong(&self.path(key), "true or false", &other)),
        }
    }

    pub(crate) fn whole(&mut self, key: &str, least: u64, most: u64) -> Result<Option<u64>, RequestError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let found = value.as_u64().filter(|number| (least..=most).contains(number));
        found
            .map(Some)
            .ok_or_else(|| wrong(&self.path(key), &format!("a whole number from {least} to {most}"), &value))
    }

    #[allow(clippy::cast_possible_truncation)]
    pub(crate) fn number(&mut self, key: &str, least: f64, most: f64) -> Result<Option<f32>, RequestError> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let found = value.as_f64().filter(|number| (least..=most).contains(number));
        let found = found.map(|number| Some(number as f32));
        found.ok_or_else(|| wrong(&self.path(key), &format!("a number from {least} to {most}"), &value))
    }

    /// Passes over fields whose values make no difference here.
    pub(crate) fn ignore(&mut self, keys: &[&str]) {
        for key in keys {
            self.fields.remove(*key);
        }
    }

    /// Refuses a field that asks for what is not done here, unless its value is `harmless`.
    pub(crate) fn refuse(
        &mut self,
        key: &str,
        harmless: impl Fn(&Value) -> bool,
    ) -> Result<(), RequestError> {
        match self.take(key) {
            Some(value) if !harmless(&value) => {
                let path = self.path(key);
                let message = format!("{path} is not supported by this server; leave it out");
                Err(RequestError::of(path, "unsupported_parameter", message))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what other fields there are.
    pub(crate) fn end(self) -> Result<(), RequestError> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(key) => {
                let shown: String = key.chars().take(64).collect();
                let path = self.path(&shown);
                let message = format!("{path:?} is no parameter of this server; leave it out");
                Err(RequestError::of(path, "unknown_parameter", message))
            }
        }
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        self.fields.values_mut().for_each(erase);
    }
}

/// Overwrites the texts and numbers of a value that nobody reads any more.
pub(crate) fn erase(value: &mut Value) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            *number = 0.into();
            // Written even though it is freed next.
            std::hint::black_box(number);
        }
        Value::String(text) => text.erase(),
        Value::Array(items) => items.iter_mut().for_each(erase),
        Value::Object(fields) => fields.values_mut().for_each(erase),
    }
}

/// The error for a value that is something else.
pub(crate) fn wrong(path: &str, expected: &str, found: &Value) -> RequestError {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    RequestError::of(path, "invalid_value", format!("{path}: expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_erased_says_nothing_any_more() {
        let mut value = json!({ "a": ["text", 1234, { "b": [-1.5, true, null] }] });
        erase(&mut value);
        assert_eq!(value, json!({ "a": ["", 0, { "b": [0, true, null] }] }));
    }
}
