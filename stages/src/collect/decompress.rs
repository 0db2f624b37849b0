//! `decompress`: gzip and zstd, with an end to what a small file may grow to.
//!
//! It does not know formats.

use std::borrow::Cow;
use std::io::Read;

use super::read::Compression;
use crate::StageError;

/// No file may hold more bytes than this once it is decompressed: frames are held in memory.
pub const MAX_BYTES: u64 = 64 << 30;

/// The plain bytes of a file; truncated and damaged streams, and more than `limit` bytes, are errors.
pub(super) fn decompress<'a>(
    file: &str,
    bytes: &'a [u8],
    compression: Compression,
    limit: u64,
) -> Result<Cow<'a, [u8]>, StageError> {
    let failed = |error: std::io::Error| wrong(file, format!("it cannot be decompressed: {error}"));
    match compression {
        Compression::None => Ok(Cow::Borrowed(bytes)),
        Compression::Gzip => bounded(file, flate2::read::MultiGzDecoder::new(bytes), limit),
        Compression::Zstd => bounded(file, zstd::stream::read::Decoder::new(bytes).map_err(failed)?, limit),
    }
}

/// What the first bytes say a file is compressed with, if they do.
pub(super) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x1f, 0x8b, ..] => Some("gzip"),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
        _ => None,
    }
}

fn bounded<'a>(file: &str, reader: impl Read, limit: u64) -> Result<Cow<'a, [u8]>, StageError> {
    let mut plain = Vec::new();
    let read = reader.take(limit.saturating_add(1)).read_to_end(&mut plain);
    let read = read.map_err(|error| wrong(file, format!("it cannot be decompressed: {error}")))?;
    if read as u64 > limit {
        return Err(wrong(file, format!("it decompresses to more than {limit} bytes")));
    }
    Ok(Cow::Owned(plain))
}

fn wrong(file: &str, detail: String) -> StageError {
    StageError::File { file: file.into(), detail }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn streams_of_several_members_are_read_to_their_end() {
        let two = [gzip(b"ab"), gzip(b"cd")].concat();
        assert_eq!(&*decompress("f", &two, Compression::Gzip, 4).expect("reads"), b"abcd");
        let two = [zstd::encode_all(&b"ab"[..], 1).expect("memory"), zstd::encode_all(&b"cd"[..], 1).expect("memory")];
        assert_eq!(&*decompress("f", &two.concat(), Compression::Zstd, 4).expect("reads"), b"abcd");
    }

    #[test]
    fn a_bomb_is_refused() {
        for (bytes, compression) in [
            (gzip(&[0; 5000]), Compression::Gzip),
            (zstd::encode_all(&[0; 5000][..], 1).expect("memory"), Compression::Zstd),
        ] {
            let error = decompress("a.gz", &bytes, compression, 4999).expect_err("too long").to_string();
            assert_eq!(error, "a.gz: it decompresses to more than 4999 bytes");
            assert_eq!(decompress("a.gz", &bytes, compression, 5000).expect("fits").len(), 5000);
        }
    }

    #[test]
    fn a_truncated_stream_is_refused() {
        let whole = gzip(&[7; 5000]);
        let error = decompress("a.gz", &whole[..whole.len() - 3], Compression::Gzip, 1 << 20).expect_err("truncated");
        assert!(error.to_string().starts_with("a.gz: it cannot be decompressed: "), "{error}");
        let whole = zstd::encode_all(&[7; 5000][..], 1).expect("memory");
        assert!(decompress("a.zst", &whole[..whole.len() - 3], Compression::Zstd, 1 << 20).is_err());
    }
}
