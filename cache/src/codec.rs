//! The one place that knows bincode: a value to bytes that say what they are, and back.
//!
//! Does not know which values are encoded, nor whether the bytes are intact: that is the checksum or the digest
//! of whoever keeps them.
//!
//! Layout: 4 bytes of magic, the format version as a little-endian `u32`, then the value in bincode's standard
//! configuration (little-endian, variable-length integers).
//!
//! Invariants: no more than the limit is read or claimed by a length inside the bytes, and of short bytes not more than
//! they could hold; every byte is consumed; equal values give equal bytes.

use bincode::error::DecodeError;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Length of the magic and the version.
pub(crate) const HEADER: usize = 8;

/// What a value takes in bincode's count of memory, at most, for each byte of it: an integer of 8 bytes may be one.
const CLAIM: usize = 8;
/// What short data may claim, and data of middle length: bincode sets memory aside on the word of a length, up to a limit
/// that is part of a type.
const SHORT: usize = 64 << 10;
const MIDDLE: usize = 4 << 20;
const LONG: usize = 32 << 20;

/// Why bytes are not the value that was asked for, or a value cannot be bytes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The bytes begin with another magic: they are something else.
    #[error("the data is of another kind: it does not begin with {expected:?}")]
    Magic {
        /// The magic of the kind that was asked for.
        expected: String,
    },
    /// The bytes are of a format version that this program cannot read.
    #[error("the data has format version {found}, this program reads version {supported}")]
    Version {
        /// The version in the bytes.
        found: u32,
        /// The one version that this program reads.
        supported: u32,
    },
    /// The bytes are more than the limit of their kind.
    #[error("the data has {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// Length of the data.
        bytes: u64,
        /// The limit of its kind.
        limit: u64,
    },
    /// There are bytes left after the value.
    #[error("{bytes} bytes follow the end of the data")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// The value itself could not be written or read.
    #[error("the data is malformed: {reason}")]
    Malformed {
        /// What the encoder or decoder says.
        reason: String,
    },
}

/// The bytes of `value`, refused if they are more than `LIMIT`.
pub(crate) fn encode<const LIMIT: usize>(
    magic: [u8; 4],
    version: u32,
    value: &impl Serialize,
) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&magic);
    bytes.extend_from_slice(&version.to_le_bytes());
    bincode::serde::encode_into_std_write(value, &mut bytes, bincode::config::standard()).map_err(malformed)?;
    within(bytes.len(), LIMIT)?;
    Ok(bytes)
}

/// The value that `bytes` hold; they must hold nothing else.
pub(crate) fn decode<const LIMIT: usize, T: DeserializeOwned>(
    magic: [u8; 4],
    version: u32,
    bytes: &[u8],
) -> Result<T, CodecError> {
    decode_after::<LIMIT, T>(magic, version, bytes, 0)
}

/// The same of a value before which so many bytes stand that the caller has read.
pub(crate) fn decode_after<'a, const LIMIT: usize, T: Deserialize<'a>>(
    magic: [u8; 4],
    version: u32,
    bytes: &'a [u8],
    skipped: usize,
) -> Result<T, CodecError> {
    within(bytes.len(), LIMIT)?;
    let body = body(magic, version, bytes)?;
    let body = body.get(skipped..).unwrap_or_default();
    let decoded = match body.len().saturating_mul(CLAIM).min(LIMIT) {
        claimed if claimed <= SHORT => decode_within::<SHORT, T>(body),
        claimed if claimed <= MIDDLE => decode_within::<MIDDLE, T>(body),
        claimed if claimed <= LONG => decode_within::<LONG, T>(body),
        _ => decode_within::<LIMIT, T>(body),
    };
    let (value, consumed) = decoded.map_err(malformed)?;
    match body.len() - consumed {
        0 => Ok(value),
        bytes => Err(CodecError::Trailing { bytes }),
    }
}

/// The value at the beginning of `body`, if no more than `CLAIMED` bytes of memory are needed, and how long it is.
fn decode_within<'a, const CLAIMED: usize, T: Deserialize<'a>>(body: &'a [u8]) -> Result<(T, usize), DecodeError> {
    bincode::serde::borrow_decode_from_slice(body, bincode::config::standard().with_limit::<CLAIMED>())
}

fn within(bytes: usize, limit: usize) -> Result<(), CodecError> {
    if bytes <= limit {
        return Ok(());
    }
    let (bytes, limit) = (bytes as u64, limit as u64);
    Err(CodecError::TooLarge { bytes, limit })
}

/// What follows the magic and the version, if they are the right ones.
fn body(magic: [u8; 4], supported: u32, bytes: &[u8]) -> Result<&[u8], CodecError> {
    let wrong_magic = || CodecError::Magic { expected: String::from_utf8_lossy(&magic).into_owned() };
    let (header, body) = bytes.split_first_chunk::<HEADER>().ok_or_else(wrong_magic)?;
    let [m0, m1, m2, m3, v0, v1, v2, v3] = *header;
    if [m0, m1, m2, m3] != magic {
        return Err(wrong_magic());
    }
    match u32::from_le_bytes([v0, v1, v2, v3]) {
        found if found == supported => Ok(body),
        found => Err(CodecError::Version { found, supported }),
    }
}

fn malformed(error: impl std::fmt::Display) -> CodecError {
    let reason = error.to_string();
    CodecError::Malformed { reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAGIC: [u8; 4] = *b"TEST";

    fn bytes_of(value: &str) -> Vec<u8> {
        encode::<64>(MAGIC, 3, &value).unwrap()
    }

    fn read(bytes: &[u8]) -> Result<String, CodecError> {
        decode::<64, String>(MAGIC, 3, bytes)
    }

    #[test]
    fn the_layout_is_magic_version_value() {
        assert_eq!(bytes_of("ab"), b"TEST\x03\0\0\0\x02ab");
        assert_eq!(read(b"TEST\x03\0\0\0\x02ab"), Ok("ab".to_owned()));
    }

    #[test]
    fn another_kind_is_refused() {
        for bytes in [&b""[..], b"TEST", b"ABCD\x03\0\0\0\x02ab"] {
            assert_eq!(
                read(bytes).unwrap_err().to_string(),
                "the data is of another kind: it does not begin with \"TEST\""
            );
        }
    }

    #[test]
    fn another_version_is_refused() {
        assert_eq!(
            read(b"TEST\x04\0\0\0\x02ab").unwrap_err().to_string(),
            "the data has format version 4, this program reads version 3"
        );
    }

    #[test]
    fn trailing_bytes_are_refused() {
        assert_eq!(read(b"TEST\x03\0\0\0\x02abc").unwrap_err().to_string(), "1 bytes follow the end of the data");
    }

    #[test]
    fn data_beyond_the_limit_is_refused_both_ways() {
        let text = "x".repeat(64);
        let error = encode::<64>(MAGIC, 3, &text).unwrap_err();
        assert_eq!(error.to_string(), "the data has 73 bytes, the limit is 64");
        assert_eq!(read(&[0; 65]).unwrap_err(), CodecError::TooLarge { bytes: 65, limit: 64 });
    }

    #[test]
    fn a_length_that_asks_for_exabytes_is_refused() {
        let mut bytes = b"TEST\x03\0\0\0".to_vec();
        bytes.push(253);
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(matches!(read(&bytes), Err(CodecError::Malformed { .. })));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = bytes_of("some text");
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err());
        }
    }
}
