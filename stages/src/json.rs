//! Canonical JSON text: the one way in which metrics, model cards and reports become bytes.
//!
//! It knows no artifact. Invariant: equal values have equal text. Keys are sorted bytewise at every depth, whatever map
//! the value came from; two spaces indent; one line feed ends the text; a number is the shortest text that reads back
//! as the same number.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::StageError;

/// The canonical text of a value. JSON has no NaN and no infinity, so callers refuse those before.
pub fn canonical<T: Serialize>(value: &T) -> Result<Vec<u8>, StageError> {
    let failed = |error: serde_json::Error| StageError::Encode { detail: error.to_string() };
    let value = serde_json::to_value(value).map_err(failed)?;
    let mut text = serde_json::to_vec_pretty(&Sorted::from(value)).map_err(failed)?;
    text.push(b'\n');
    Ok(text)
}

/// A JSON value whose objects cannot be in any other order than that of their keys. `serde_json::Map` keeps the order
/// of insertion as soon as any crate of the build asks for that feature.
#[derive(Serialize)]
#[serde(untagged)]
enum Sorted {
    Leaf(Value),
    List(Vec<Sorted>),
    Object(BTreeMap<String, Sorted>),
}

impl From<Value> for Sorted {
    fn from(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Value::Object(fields) => Self::Object(fields.into_iter().map(|(k, v)| (k, Self::from(v))).collect()),
            leaf => Self::Leaf(leaf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        #[derive(Serialize)]
        struct Outer {
            z: f64,
            a: Vec<Inner>,
        }
        #[derive(Serialize)]
        struct Inner {
            y: u8,
            b: Option<bool>,
        }
        let text = canonical(&Outer { z: 0.1, a: vec![Inner { y: 1, b: None }] }).unwrap();
        let expected = "{\n  \"a\": [\n    {\n      \"b\": null,\n      \"y\": 1\n    }\n  ],\n  \"z\": 0.1\n}\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
