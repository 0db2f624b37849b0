//! `Capture`: what a program prints, in a file: the beginning and the end, with a line between that counts what is left out.
//!
//! It does not know what prints. Bytes are kept as they are; who shows them makes them safe. Invariants: the file has at
//! most [`HEAD`] and [`TAIL`] bytes and that line, and memory holds [`TAIL`] bytes, however much is printed; the beginning
//! is in the file at once, so that it can be followed.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// How much of the beginning is kept.
pub const HEAD: usize = 8 * 1024 * 1024;
/// How much of the end is kept.
pub const TAIL: usize = 8 * 1024 * 1024;

/// How much is kept of what goes into no file.
pub const LEAST: usize = 64 * 1024;

/// What is printed, on its way into a file, or kept as far as it is short.
pub struct Capture {
    file: Option<File>,
    kept: Vec<u8>,
    printed: u64,
    tail: VecDeque<u8>,
    /// The first failure to write, as on a full disk; it does not end the program.
    failure: Option<io::Error>,
}

impl Capture {
    /// Captures into a new file; without a path, the beginning is kept.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(path: Option<&Path>) -> io::Result<Self> {
        let file = path.map(File::create).transpose()?;
        Ok(Self { file, kept: Vec::new(), printed: 0, tail: VecDeque::new(), failure: None })
    }

    /// Takes bytes.
    pub fn take(&mut self, bytes: &[u8]) {
        if self.file.is_none() {
            self.printed += bytes.len() as u64;
            let room = LEAST - self.kept.len();
            return self.kept.extend(&bytes[..room.min(bytes.len())]);
        }
        let room = HEAD.saturating_sub(usize::try_from(self.printed).unwrap_or(usize::MAX));
        let (head, rest) = bytes.split_at(room.min(bytes.len()));
        self.printed += bytes.len() as u64;
        self.write(head);
        let rest = &rest[rest.len().saturating_sub(TAIL)..];
        let surplus = (self.tail.len() + rest.len()).saturating_sub(TAIL);
        self.tail.drain(..surplus);
        self.tail.extend(rest);
    }

    fn write(&mut self, bytes: &[u8]) {
        if let (Some(file), None) = (&mut self.file, &self.failure) {
            self.failure = file.write_all(bytes).err();
        }
    }

    /// Writes the end; how many bytes were printed, and those that were kept.
    ///
    /// # Errors
    /// The first failure to write.
    pub fn finish(mut self) -> io::Result<(u64, Vec<u8>)> {
        if self.file.is_none() {
            return Ok((self.printed, self.kept));
        }
        let left_out = self.printed.saturating_sub((HEAD + self.tail.len()) as u64);
        if left_out > 0 {
            self.write(format!("\n[{left_out} bytes are left out here]\n").as_bytes());
        }
        let (first, second) = self.tail.as_slices();
        let tail = [first, second].concat();
        self.write(&tail);
        self.failure.map_or(Ok((self.printed, Vec::new())), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(parts: &[&[u8]]) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut capture = Capture::new(Some(&path)).expect("a file");
        parts.iter().for_each(|part| capture.take(part));
        let (printed, _) = capture.finish().expect("written");
        assert_eq!(printed, parts.iter().map(|part| part.len() as u64).sum::<u64>());
        std::fs::read(path).expect("bytes")
    }

    #[test]
    fn what_fits_is_kept_byte_for_byte() {
        assert_eq!(captured(&[b"a\x1b[31m\0", b"", b"\xff\n"]), b"a\x1b[31m\0\xff\n");
        let half = vec![b'a'; HEAD / 2 + 1];
        assert_eq!(captured(&[&half, &half]), [half.clone(), half].concat());
        let (head, tail) = (vec![b'a'; HEAD], vec![b'b'; TAIL]);
        assert_eq!(captured(&[&head, &tail]), [head, tail].concat());
    }

    #[test]
    fn without_a_file_the_beginning_is_kept() {
        let mut capture = Capture::new(None).expect("no file");
        let part = vec![b'a'; LEAST - 1];
        capture.take(&part);
        capture.take(b"bc");
        capture.take(b"d");
        let (printed, kept) = capture.finish().expect("nothing is written");
        assert_eq!((printed, kept.len(), kept.last()), (LEAST as u64 + 2, LEAST, Some(&b'b')));
    }

    #[test]
    fn of_too_much_the_beginning_and_the_end_are_kept_and_the_rest_is_counted() {
        let (head, middle, tail) = (vec![b'a'; HEAD], vec![b'b'; 12_345], vec![b'c'; TAIL]);
        let expected = [head.clone(), b"\n[12345 bytes are left out here]\n".to_vec(), tail.clone()].concat();
        let whole = [head, middle, tail].concat();
        assert!(captured(&[&whole]) == expected, "at one blow");
        let parts: Vec<&[u8]> = whole.chunks(60_001).collect();
        assert!(captured(&parts) == expected, "in parts");
    }
}
