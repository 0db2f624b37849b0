//! `Mapped`: a write-once file as memory. The only file of the project with `unsafe` in it.
//!
//! It does not know what the bytes mean, nor where they come from. Whoever maps a file has verified it: nothing is
//! checked here but that nobody may write to it.
//!
//! # Why this is sound
//!
//! A mapping is sound as long as nobody changes the file below it. A file is mapped only if it is a regular file of
//! which no one, its owner included, has the permission to write (the store gives its blobs mode 0444 before they have
//! a name). Headwater itself never opens a blob for writing, nor cuts it off; it renames it (to the quarantine) or
//! removes its name, and a mapping keeps the file itself alive through both. The mapping is read-only and private,
//! so nothing is written through it.
//!
//! # What is left to the machine
//!
//! Three things can be done to a mapped file that no program can defend its mapping against. Who has the owner's
//! rights may take the write protection away and write: the values may be others then than those that were verified, as
//! with any memory of a process that its owner's debugger writes to. Who cuts such a file off has the process killed by
//! SIGBUS at the next use of what is gone. And a medium that gave back the right bytes when they were verified may fail
//! later, when pages that the kernel has dropped meanwhile are read again: SIGBUS too. Nothing wrong is recorded in the
//! last two cases: a killed process publishes nothing. That is why verification itself reads the file in the ordinary
//! way, where a failing medium is an error, and never through the mapping.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use memmap2::Mmap;

/// Any write permission, of the owner, the group or others.
const WRITABLE: u32 = 0o222;

/// The bytes of a write-protected file, as memory; the file may lose its name meanwhile.
#[derive(Debug)]
pub struct Mapped(Mmap);

impl Mapped {
    /// Maps a whole file.
    ///
    /// # Errors
    /// If it is no regular file, somebody may write to it, or the file system maps no files.
    #[allow(unsafe_code)]
    pub fn new(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        if !found.is_file() || found.mode() & WRITABLE != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only write-protected files are mapped"));
        }
        // SAFETY: nobody changes the file while it is mapped; the head of this file says why.
        unsafe { Mmap::map(file) }.map(Self)
    }
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &tempfile::TempDir, mode: u32) -> File {
        let path = folder.path().join("file");
        fs::write(&path, b"content").expect("writes");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("sets");
        File::options().read(true).open(path).expect("opens")
    }

    #[test]
    fn a_mapping_outlives_the_name_and_the_handle_of_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let mapped = Mapped::new(&file(&folder, 0o444)).expect("maps");
        fs::rename(folder.path().join("file"), folder.path().join("quarantined")).expect("renames");
        assert_eq!(mapped.as_ref(), b"content");
        fs::remove_file(folder.path().join("quarantined")).expect("removes");
        assert_eq!(mapped.as_ref(), b"content");
        fs::File::create(folder.path().join("file")).expect("creates").write_all(b"another").expect("writes");
        assert_eq!(mapped.as_ref(), b"content");
    }

    #[test]
    fn what_somebody_may_write_to_is_not_mapped() {
        for mode in [0o644, 0o464, 0o446] {
            let folder = tempfile::tempdir().expect("a folder");
            let error = Mapped::new(&file(&folder, mode)).expect_err("writable").to_string();
            assert_eq!(error, "only write-protected files are mapped");
        }
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o500)).expect("sets");
        let directory = File::options().read(true).open(folder.path()).expect("opens");
        Mapped::new(&directory).expect_err("a folder");
    }
}
