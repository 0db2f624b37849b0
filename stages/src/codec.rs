//! The one place where bincode is used in this crate: a magic word, a format version, then the value.
//!
//! bincode 2.0.1 is named unmaintained by RUSTSEC-2025-0141; it does what is needed, its source is small, and this
//! file is the only one to change should that end.
//!
//! Invariant: a length inside the bytes is believed only as far as the bytes can bear it out: up to 1 MiB, of more than
//! that up to 32 MiB, and of more than that up to twice what there is.

use bincode::config::{self, Configuration, Fixint, Limit, LittleEndian};
use bincode::error::DecodeError;
use serde::{Serialize, de::DeserializeOwned};

use crate::StageError;

/// No transform or model may be longer than this: what is encoded can be decoded.
const LIMIT: usize = 1 << 30;
const MIB: usize = 1 << 20;

fn configuration<const BYTES: usize>() -> Configuration<LittleEndian, Fixint, Limit<BYTES>> {
    config::standard().with_fixed_int_encoding().with_limit::<BYTES>()
}

/// Encodes a value behind its magic word and version.
pub fn encode<T: Serialize>(magic: &[u8; 4], version: u8, value: &T) -> Result<Vec<u8>, StageError> {
    let body = bincode::serde::encode_to_vec(value, configuration::<LIMIT>());
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
    let (value, used) = decode_body(body).map_err(|error| damaged(error.to_string()))?;
    if used != body.len() {
        return Err(damaged(format!("{} bytes follow the value", body.len() - used)));
    }
    Ok(value)
}

/// The value at the beginning of `body`, and how long it is. bincode sets memory aside for a text on the word of its
/// length, up to a limit that is part of a type; what is whole takes no more than `body` is long.
fn decode_body<T: DeserializeOwned>(body: &[u8]) -> Result<(T, usize), DecodeError> {
    match body.len().div_ceil(MIB) {
        0..=1 => decode_within::<MIB, T>(body),
        2..=32 => decode_within::<{ 32 * MIB }, T>(body),
        33..=64 => decode_within::<{ 64 * MIB }, T>(body),
        65..=128 => decode_within::<{ 128 * MIB }, T>(body),
        129..=256 => decode_within::<{ 256 * MIB }, T>(body),
        257..=512 => decode_within::<{ 512 * MIB }, T>(body),
        _ => decode_within::<LIMIT, T>(body),
    }
}

fn decode_within<const BYTES: usize, T: DeserializeOwned>(body: &[u8]) -> Result<(T, usize), DecodeError> {
    bincode::serde::decode_from_slice(body, configuration::<BYTES>())
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
        decode_within::<BYTES, Value>(body).is_ok()
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

    #[test]
    fn what_fills_its_step_to_the_last_byte_is_read() {
        for mib in [1, 32, 64] {
            for bytes in [mib * MIB, mib * MIB + 1] {
                // The length of the text stands before it.
                let text = "x".repeat(bytes - size_of::<u64>());
                let encoded = encode(b"TEST", 1, &text).unwrap();
                assert_eq!(encoded.len(), 5 + bytes);
                assert_eq!(decode::<String>(b"TEST", 1, &encoded).unwrap(), text);
            }
        }
    }
}
