//! A file that is an index and no truth: its bytes behind their digest, so that it is read as it was written, or not at all.
//!
//! It does not know what is kept. Invariant: losing it costs time alone, so that no failure to write it is one.

use std::fs;
use std::path::Path;

use headwater_cache::Digest;

/// Length of a digest.
const DIGEST: usize = 32;

/// The bytes that were kept, if every one of them is as it was written.
pub fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = fs::read(path).ok()?;
    let (digest, body) = bytes.split_at_checked(DIGEST)?;
    (Digest::of(body).as_bytes().as_slice() == digest).then_some(())?;
    bytes.drain(..DIGEST);
    Some(bytes)
}

/// Keeps bytes in the place of those before.
pub fn write(path: &Path, body: &[u8]) {
    // Two that write it at once make one that does not check.
    let aside = path.with_extension("part");
    let bytes = [Digest::of(body).as_bytes().as_slice(), body].concat();
    if fs::write(&aside, bytes).and_then(|()| fs::rename(&aside, path)).is_err() {
        let _ = fs::remove_file(&aside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("index");
        assert_eq!(read(&path), None);
        write(&path, b"content");
        assert_eq!(read(&path).as_deref(), Some(&b"content"[..]));
        let whole = fs::read(&path).expect("bytes");
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).expect("written");
            assert_eq!(read(&path), None, "{length}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).expect("written");
            assert_eq!(read(&path), None, "{at}");
        }
        write(&folder.path().join("missing/index"), b"content");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
}
