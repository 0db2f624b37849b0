//! `Digest`: the identity of bytes. 32 bytes of BLAKE3, with one text form.
//!
//! Does not know what the bytes mean, nor where they are kept.
//!
//! Invariants: equal bytes have equal digests on every machine; the text form is exactly 64 lower-case
//! hexadecimal digits, so a digest has one spelling. Order is the order of the bytes and of the text alike.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of a digest in bytes.
pub(crate) const LENGTH: usize = 32;
/// Length of the text form.
const TEXT_LENGTH: usize = LENGTH * 2;
/// Length of the short text form, for people to read.
const SHORT_LENGTH: usize = 12;

/// The BLAKE3 hash of some bytes.
///
/// Serialised as its text in formats that people read, as 32 plain bytes in the others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; LENGTH]);

impl Digest {
    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(blake3::hash(bytes).into())
    }

    /// The digest whose 32 bytes are given.
    pub const fn from_bytes(bytes: [u8; LENGTH]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; LENGTH] {
        &self.0
    }

    /// The first 12 hexadecimal digits: enough for a person to tell digests apart, never an identity.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(SHORT_LENGTH);
        text
    }

    /// The digest of all that `hasher` has been fed.
    pub(crate) fn of_stream(hasher: &blake3::Hasher) -> Digest {
        Digest(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = blake3::Hash::from_bytes(self.0).to_hex();
        f.pad(hex.as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// How maps hash digests: their first bytes are as good as the hash of all of them.
pub(crate) type Uniform = BuildHasherDefault<FirstBytes>;

/// See [`Uniform`].
#[derive(Default)]
pub(crate) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        let first = bytes.first_chunk().map_or(bytes.len() as u64, |first| u64::from_le_bytes(*first));
        self.0 = self.0.rotate_left(1) ^ first;
    }

    fn write_usize(&mut self, length: usize) {
        self.0 ^= length as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text does not have 64 bytes.
    #[error("a digest has 64 hexadecimal digits, this text has {found} bytes")]
    Length {
        /// Length of the text in bytes.
        found: usize,
    },
    /// A character is not one of `0123456789abcdef`.
    #[error("a digest has only the digits 0-9 and a-f, byte {position} of this text is another")]
    Character {
        /// Offset of the first wrong byte.
        position: usize,
    },
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        if text.len() != TEXT_LENGTH {
            return Err(DigestError::Length { found: text.len() });
        }
        let mut bytes = [0; LENGTH];
        for (position, character) in text.bytes().enumerate() {
            let value = digit(character).ok_or(DigestError::Character { position })?;
            bytes[position / 2] = bytes[position / 2] << 4 | value;
        }
        Ok(Digest(bytes))
    }
}

/// The value of one lower-case hexadecimal digit.
pub(crate) fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
        } else {
            <[u8; LENGTH]>::deserialize(deserializer).map(Digest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EMPTY: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

    #[test]
    fn the_digest_of_nothing_is_blake3s() {
        assert_eq!(Digest::of(b"").to_string(), EMPTY);
    }

    #[test]
    fn the_short_form_is_the_first_twelve_digits() {
        assert_eq!(Digest::of(b"").short(), "af1349b9f5f9");
    }

    #[test]
    fn debug_shows_the_whole_digest() {
        assert_eq!(format!("{:?}", Digest::of(b"")), format!("Digest({EMPTY})"));
    }

    #[test]
    fn upper_case_is_another_spelling_and_is_refused() {
        let error = EMPTY.to_uppercase().parse::<Digest>().unwrap_err();
        assert_eq!(error.to_string(), "a digest has only the digits 0-9 and a-f, byte 0 of this text is another");
    }

    #[test]
    fn a_text_of_another_length_is_refused() {
        for text in ["", "af", &EMPTY[1..], &format!("{EMPTY}0")] {
            assert_eq!(
                text.parse::<Digest>().unwrap_err().to_string(),
                format!("a digest has 64 hexadecimal digits, this text has {} bytes", text.len())
            );
        }
    }

    #[test]
    fn characters_of_several_bytes_are_refused_without_panic() {
        let text = "é".repeat(32);
        assert_eq!(text.parse::<Digest>(), Err(DigestError::Character { position: 0 }));
    }

    proptest! {
        #[test]
        fn the_text_form_round_trips(bytes: [u8; 32]) {
            let digest = Digest::from_bytes(bytes);
            prop_assert_eq!(digest.to_string().parse::<Digest>(), Ok(digest));
        }

        #[test]
        fn the_order_of_digests_is_the_order_of_their_texts(a: [u8; 32], b: [u8; 32]) {
            let (a, b) = (Digest::from_bytes(a), Digest::from_bytes(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn any_text_that_parses_is_the_text_of_its_digest(text in "[0-9a-fA-Fg]{63,65}|.*") {
            if let Ok(digest) = text.parse::<Digest>() {
                prop_assert_eq!(digest.to_string(), text);
            }
        }
    }
}
