//! The one place where bincode is used in this crate: a magic word, a format version, then the value.
//!
//! bincode 2.0.1 is named unmaintained by RUSTSEC-2025-0141; it does what is needed, its source is small, and this
//! file is the only one to change should that end. Lengths are bounded before anything is allocated.

use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use serde::{Serialize, de::DeserializeOwned};

use crate::StageError;

/// No transform or model may be longer than this: what is encoded can be decoded.
const LIMIT: usize = 1 << 30;

fn configuration() -> Configuration<LittleEndian, Fixint, Limit<LIMIT>> {
    config::standard().with_fixed_int_encoding().with_limit::<LIMIT>()
}

/// Encodes a value behind its magic word and version.
pub fn encode<T: Serialize>(magic: &[u8; 4], version: u8, value: &T) -> Result<Vec<u8>, StageError> {
    let body = bincode::serde::encode_to_vec(value, configuration());
    let body = body.map_err(|error| StageError::Encode { detail: error.to_string() })?;
    check_length(body.len(), LIMIT)?;
    let mut bytes = magic.to_vec();
    bytes.push(version);
    bytes.extend(body);
    Ok(bytes)
}

/// bincode holds to its limit only while it decodes.
fn check_length(length: usize, limit: usize) -> Result<(), StageError> {
    if length <= limit {
        return Ok(());
    }
    Err(StageError::Encode { detail: format!("it would take {length} bytes, more than the {limit} allowed") })
}

/// Decodes what [`encode`] wrote; anything else, a newer version and trailing bytes included, is an error.
pub fn decode<T: DeserializeOwned>(magic: &[u8; 4], version: u8, bytes: &[u8]) -> Result<T, StageError> {
    let damaged = |detail: String| StageError::Decode { what: String::from_utf8_lossy(magic).into_owned(), detail };
    let Some((head, body)) = bytes.split_at_checked(5) else {
        return Err(damaged(format!("{} bytes are too few for a header", bytes.len())));
    };
    if &head[..4] != magic {
        return Err(damaged("the magic word is another".into()));
    }
    if head[4] != version {
        return Err(damaged(format!("format version {} was found, {version} is understood", head[4])));
    }
    let (value, used) =
        bincode::serde::decode_from_slice(body, configuration()).map_err(|error| damaged(error.to_string()))?;
    if used != body.len() {
        return Err(damaged(format!("{} bytes follow the value", body.len() - used)));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Value = (Vec<f64>, Vec<String>, Option<u32>, std::collections::BTreeMap<String, bool>);

    fn value() -> Value {
        (vec![0.5; 3], vec!["a".into(), "text".into()], Some(7), [("k".to_owned(), true)].into())
    }

    /// What bincode allows with a limit of so many bytes.
    fn decodes<const BYTES: usize>(body: &[u8]) -> bool {
        let configuration = config::standard().with_fixed_int_encoding().with_limit::<BYTES>();
        bincode::serde::decode_from_slice::<Value, _>(body, configuration).is_ok()
    }

    #[test]
    fn what_is_refused_when_decoded_is_refused_when_encoded() {
        let bytes = encode(b"TEST", 1, &value()).unwrap();
        let body = &bytes[5..];
        assert_eq!(body.len(), BODY);
        assert_eq!((decodes::<BODY>(body), check_length(BODY, BODY).is_ok()), (true, true));
        assert!(!decodes::<{ BODY - 1 }>(body));
        let error = check_length(BODY, BODY - 1).unwrap_err().to_string();
        assert_eq!(error, "the output cannot be encoded: it would take 84 bytes, more than the 83 allowed");
    }

    const BODY: usize = 84;
}
