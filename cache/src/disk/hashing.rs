//! The digest of a file, large ones by all threads; what is read can be handed on to be written meanwhile.
//!
//! Does not know whose file it is. Invariants: the digest is that of the bytes that were read, once each, in their order,
//! whatever the number of threads; memory grows by 32 bytes for each half MiB of a file that is only hashed, else not.

use std::io;
use std::path::Path;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use rayon::prelude::*;

use super::{DiskError, Handle, failed, fill};
use crate::digest::Digest;
use crate::threads::aside;

/// How much is read at a time.
const CHUNK: usize = 1 << 20;
/// How much is handed on at a time, mostly to be written: for larger writes the kernel looks for memory in larger pieces,
/// which it may have to make room for first.
pub(crate) const HANDED_ON: usize = 64 << 10;
/// After this many bytes of one file, several threads read and hash it: below, waking them costs more than it gains.
const PARALLEL_AFTER: u64 = 16 << 20;
/// How much of a large file that is only hashed one thread reads at a time: it stays in the memory of one processor
/// core. A power of two.
const PIECE: usize = 512 << 10;
/// How many of these are hashed before the next ones are begun.
const PIECES: usize = 1024;
/// The most chunks of a large file that are read at a time, by as many threads. More of them than keep the threads busy
/// would only leave the processor's own memory before they are hashed.
const MAX_CHUNKS: usize = 16;

/// Reads at most `limit` bytes of `file`, and returns digest and count of what it read.
pub(crate) fn hash(file: &dyn Handle, path: &Path, limit: u64) -> Result<(Digest, u64), DiskError> {
    match limit <= PARALLEL_AFTER {
        true => hash_into(file, path, limit, |_| Ok(())),
        false => aside(|| hash_in_pieces(file, path, limit)),
    }
}

/// Hashes a large file by pieces, each of which is read and hashed by one thread: what one processor core has read need
/// not go to another. A piece is a whole subtree of BLAKE3's tree.
fn hash_in_pieces(file: &dyn Handle, path: &Path, limit: u64) -> Result<(Digest, u64), DiskError> {
    let (mut pieces, mut total) = (Vec::new(), 0);
    while total < limit {
        let left = usize::try_from(limit - total).unwrap_or(usize::MAX);
        let window = (0..PIECES.min(left.div_ceil(PIECE))).into_par_iter();
        let hashed = window.map_init(
            || vec![0; PIECE],
            |buffer, number| {
                let length = (left - number * PIECE).min(PIECE);
                hash_piece(file, &mut buffer[..length], total + (number * PIECE) as u64)
            },
        );
        let hashed: Vec<(ChainingValue, usize)> = hashed.collect::<io::Result<_>>().map_err(failed("read", path))?;
        // What lies behind the end was not there when the end was read.
        let whole = hashed.iter().take_while(|(_, filled)| *filled == PIECE).count();
        let last = hashed.get(whole).filter(|(_, filled)| *filled > 0);
        let counted = hashed[..whole].iter().chain(last);
        pieces.extend(counted.clone().map(|(part, _)| *part));
        let count: usize = counted.map(|(_, filled)| filled).sum();
        total += count as u64;
        if count < PIECES * PIECE {
            break;
        }
    }
    match pieces.len() {
        // The root of a tree is hashed in another way than what is below.
        0 | 1 => hash_into(file, path, total, |_| Ok(())),
        _ => Ok((root(&pieces), total)),
    }
}

/// The hash of what the file has at an offset, which means nothing if it has nothing there, and how much that is.
fn hash_piece(file: &dyn Handle, buffer: &mut [u8], offset: u64) -> io::Result<(ChainingValue, usize)> {
    let filled = fill(file, buffer, offset)?;
    let hash = || Hasher::new().set_input_offset(offset).update(&buffer[..filled]).finalize_non_root();
    Ok((if filled > 0 { hash() } else { ChainingValue::default() }, filled))
}

fn root(pieces: &[ChainingValue]) -> Digest {
    let (left, right) = halves(pieces);
    Digest::from_bytes(merge_subtrees_root(&merged(left), &merged(right), Mode::Hash).into())
}

fn merged(pieces: &[ChainingValue]) -> ChainingValue {
    match pieces {
        [one] => *one,
        several => {
            let (left, right) = halves(several);
            merge_subtrees_non_root(&merged(left), &merged(right), Mode::Hash)
        }
    }
}

/// The left half of a BLAKE3 tree is the largest power of two that leaves something for the right one.
fn halves(pieces: &[ChainingValue]) -> (&[ChainingValue], &[ChainingValue]) {
    pieces.split_at(pieces.len().next_power_of_two() / 2)
}

/// Reads at most `limit` bytes of `file`, hands each chunk to `sink`, and returns digest and count of what it read.
pub(crate) fn hash_into(
    file: &dyn Handle,
    path: &Path,
    limit: u64,
    mut sink: impl FnMut(&[u8]) -> Result<(), DiskError> + Send,
) -> Result<(Digest, u64), DiskError> {
    let size = usize::try_from(limit).unwrap_or(CHUNK).clamp(1, CHUNK);
    let mut buffer = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    let mut total = 0;
    while total < PARALLEL_AFTER {
        let left = usize::try_from(limit - total).unwrap_or(CHUNK).min(size);
        let filled = fill(file, &mut buffer[..left], total).map_err(failed("read", path))?;
        hasher.update(&buffer[..filled]);
        buffer[..filled].chunks(HANDED_ON).try_for_each(&mut sink)?;
        total += filled as u64;
        if filled < size {
            return Ok((Digest::of_stream(&hasher), total));
        }
    }
    drop(buffer);
    aside(|| hash_in_parallel(file, path, limit, total, hasher, &mut sink))
}

/// Goes on with the rest of a large file: while one part of it is hashed and handed on, the next one is read, all on
/// the threads of the rayon pool that this runs in.
fn hash_in_parallel(
    file: &dyn Handle,
    path: &Path,
    limit: u64,
    mut total: u64,
    mut hasher: blake3::Hasher,
    sink: &mut (impl FnMut(&[u8]) -> Result<(), DiskError> + Send),
) -> Result<(Digest, u64), DiskError> {
    // Half of the threads read while the others hash; parts of other lengths are hashed more slowly.
    let wide = CHUNK * (rayon::current_num_threads() / 2).clamp(1, MAX_CHUNKS).next_power_of_two();
    let read = |part: &mut Vec<u8>, at: u64| {
        let left = usize::try_from(limit - at).unwrap_or(wide).min(wide);
        part.resize(left, 0);
        let filled = fill_wide(file, part, at).map_err(failed("read", path))?;
        part.truncate(filled);
        Ok(())
    };
    let (mut now, mut next) = (Vec::new(), Vec::new());
    read(&mut now, total)?;
    while !now.is_empty() {
        let end = total + now.len() as u64;
        let take = || rayon::join(|| now.chunks(HANDED_ON).try_for_each(&mut *sink), || hasher.update_rayon(&now)).0;
        let (was_read, taken) = rayon::join(|| read(&mut next, end), take);
        taken?;
        was_read?;
        total = end;
        std::mem::swap(&mut now, &mut next);
    }
    Ok((Digest::of_stream(&hasher), total))
}

/// [`fill`] by several threads, each of which reads a piece.
fn fill_wide(file: &dyn Handle, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let pieces = buffer.par_chunks_mut(CHUNK).enumerate();
    let counts = pieces.map(|(number, piece)| {
        let length = piece.len();
        fill(file, piece, offset + (number * CHUNK) as u64).map(|count| (count, length))
    });
    let counts: Vec<(usize, usize)> = counts.collect::<io::Result<_>>()?;
    // What lies behind the end was not there when the end was read.
    let whole = counts.iter().take_while(|(count, length)| count == length).count();
    Ok(counts.iter().take(whole + 1).map(|(count, _)| count).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Access, Call, Disk, FailingDisk, Fault, Links, RealDisk};
    use std::fs::{self, File};
    use std::io::ErrorKind;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn hashing_in_chunks_and_in_parallel_equals_hashing_at_once() {
        let folder = folder();
        let path = folder.path().join("large");
        let bytes: Vec<u8> = (0..PARALLEL_AFTER + 3 * CHUNK as u64 + 7).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        for limit in [u64::MAX, bytes.len() as u64 + 1, bytes.len() as u64, PARALLEL_AFTER + 5, PARALLEL_AFTER, 5] {
            let mut copied = Vec::new();
            let copy = |chunk: &[u8]| {
                copied.extend_from_slice(chunk);
                Ok(())
            };
            let (digest, total) = hash_into(&file, &path, limit, copy).unwrap();
            let expected = &bytes[..bytes.len().min(usize::try_from(limit).unwrap())];
            assert_eq!((digest, total), (Digest::of(expected), expected.len() as u64));
            assert!(copied == expected, "limit {limit}");
        }
    }

    #[test]
    fn hashing_in_pieces_equals_hashing_at_once() {
        let folder = folder();
        let path = folder.path().join("large");
        let all: Vec<u8> = (0..PIECE * 9 + 1).map(|i| (i % 251) as u8).collect();
        let whole = (0..=9).map(|pieces| pieces * PIECE);
        for length in whole.flat_map(|length| [length.saturating_sub(1), length, length + 1]) {
            let bytes = &all[..length.min(all.len())];
            fs::write(&path, bytes).unwrap();
            let file = File::open(&path).unwrap();
            let expected = (Digest::of(bytes), bytes.len() as u64);
            for limit in [bytes.len() as u64 + 1, bytes.len() as u64, u64::MAX] {
                assert_eq!(hash_in_pieces(&file, &path, limit).unwrap(), expected, "{length}, limit {limit}");
            }
        }
        let file = File::open(&path).unwrap();
        let limit = PIECE * 3 + 5;
        assert_eq!(hash_in_pieces(&file, &path, limit as u64).unwrap(), (Digest::of(&all[..limit]), limit as u64));
    }

    #[test]
    fn a_file_of_more_pieces_than_are_hashed_together_has_the_digest_of_its_content() {
        let folder = folder();
        let path = folder.path().join("large");
        let length = (PIECES * PIECE + PIECE + 3) as u64;
        let file = File::create_new(&path).unwrap();
        file.set_len(length).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"far behind", (PIECES * PIECE) as u64 + 5).unwrap();
        let file = File::open(&path).unwrap();
        let expected = hash_into(&file, &path, u64::MAX, |_| Ok(())).unwrap();
        assert_eq!(hash(&file, &path, length + 1).unwrap(), expected);
        assert_eq!(expected.1, length);
    }

    #[test]
    fn any_number_of_threads_gives_one_digest() {
        let folder = folder();
        let path = folder.path().join("large");
        let bytes: Vec<u8> = (0..9 * CHUNK + 7).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        let file = File::open(&path).unwrap();
        for threads in [1, 2, 5, 16] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let mut copied = Vec::new();
            let mut copy = |chunk: &[u8]| {
                copied.extend_from_slice(chunk);
                Ok(())
            };
            let hasher = blake3::Hasher::new();
            let hashed = pool.install(|| hash_in_parallel(&file, &path, u64::MAX, 0, hasher, &mut copy));
            assert_eq!(hashed.unwrap(), (Digest::of(&bytes), bytes.len() as u64));
            assert!(copied == bytes, "{threads} threads");
        }
    }

    #[test]
    fn a_sink_or_a_file_that_fails_far_into_a_large_file_is_an_error() {
        let folder = folder();
        let path = folder.path().join("large");
        File::create(&path).unwrap().set_len(PARALLEL_AFTER * 2).unwrap();
        let mut left = PARALLEL_AFTER + 2 * CHUNK as u64;
        let fill_up = |chunk: &[u8]| {
            left = left
                .checked_sub(chunk.len() as u64)
                .ok_or_else(|| failed("write", &path)(ErrorKind::StorageFull.into()))?;
            Ok(())
        };
        let error = hash_into(&File::open(&path).unwrap(), &path, u64::MAX, fill_up).unwrap_err();
        assert_eq!((error.operation, error.source.kind()), ("write", ErrorKind::StorageFull));
        let decide = |call: &Call| (call.number == 25).then_some(Fault::Error(libc::EIO));
        let disk = FailingDisk::new(std::sync::Arc::new(RealDisk), decide);
        let file = disk.open(&path, Access::Read(Links::Refuse)).unwrap();
        let error = hash_into(&*file, &path, u64::MAX, |_| Ok(())).unwrap_err();
        assert_eq!((error.operation, error.source.raw_os_error()), ("read", Some(libc::EIO)));
    }
}
