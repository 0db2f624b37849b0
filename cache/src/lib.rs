//! Headwater's content-addressed store: bytes under their digest, records of what a key produced, and the digests of
//! the user's files.
//!
//! Knows bytes. Does not know graphs, stages or what any data means.
//!
//! # On disk
//!
//! A store is one folder of mode 0700. Integers are little-endian; digests are BLAKE3, 32 bytes, written as 64
//! lower-case hexadecimal digits.
//!
//! | path | content |
//! |---|---|
//! | `format` | the text `headwater-store 1` and a newline; any other version is refused |
//! | `blobs/ab/cdef…` | the bytes whose digest is `abcdef…`: 2 digits name the folder, 62 the file; mode 0444, written once |
//! | `tmp/.headwater-<32 digits>.tmp` | bytes on their way; mode 0600, locked by the kernel as long as their process writes |
//! | `quarantine/<digest>-<32 digits>` | what lay in the place of that blob and was not it |
//! | `quarantine/lock` | locked by the kernel while something is moved here; its existence means nothing |
//! | `ledger/records-v1.seg` | the ledger, a segment |
//!
//! The index of the user's files lies where its owner says. A file that is restored is written beside its place
//! as `.headwater-<32 digits>.tmp`, locked in the same way.
//!
//! **Tree** (a blob): `HWTR`, version `1` as a `u32`, then bincode 2 (standard configuration) of header text and
//! entries; an entry is name, type name, shape (`0` blob, `1` tree), 32 bytes of digest, length.
//!
//! **Segment**: a header of 16 bytes, then entries at multiples of 8.
//!
//! | header | bytes | | entry | bytes | |
//! |---|---|---|---|---|---|
//! | 0 | 8 | kind, for the ledger `HWLEDGER` | +0 | 4 | mark, `F5 48 57 65` |
//! | 8 | 4 | version `1` | +4 | 4 | length of the payload |
//! | 12 | 4 | first 4 bytes of the BLAKE3 of bytes 0 to 11 | +8 | 32 | BLAKE3 of `headwater segment entry\0`, kind, version (`u32`), the entry's own offset (`u64`), length (`u64`), payload |
//! | | | | +40 | length | payload, then zeros up to a multiple of 8 |
//!
//! **Ledger entry** (a payload): `HWRC`, version `1` as a `u32`, then bincode of the key's 32 bytes and the record:
//! outputs (port, artifact), manifest, seconds.
//!
//! **File index**: `HWFI`, version `2` as a `u32`, bincode of the name of the boot and of its lines in the order of
//! their paths, and 32 bytes of BLAKE3 of all that precedes.
//!
//! # What survives a crash
//!
//! Everything that was reported as done: a blob once [`Store::put`] has returned, a record once [`Ledger::append`] has,
//! a restored file once [`Store::restore`] has. The order is always: write to a temp, hash while writing,
//! sync it, give it its name, sync the folder (and the folders just made); only then the call returns. Nothing is made
//! in a folder before the name of that folder is durable, whichever process made it.
//!
//! | killed, or power lost | what is left |
//! |---|---|
//! | while a blob is written | a temp; nobody holds its lock, so the next [`Store::open`] removes it |
//! | after it has its name, before the folder is synced | the whole blob, or a temp, or nothing; the next put syncs the folder again |
//! | while a record is appended | a torn tail; readers skip it, the next append cuts it off |
//! | after a record was written, before it was synced | the whole record, or a torn tail, or nothing; readers sync it before they believe it |
//! | while a file is restored | the old file, and a temp that the next restore into that folder removes |
//! | while the file index is saved | the old index |
//!
//! A sync that failed is final: of a temp, for that temp; of a folder of the store, or of the ledger, for the store or
//! the ledger in this process, which takes nothing more and believes nothing new. Reading goes on. No call is otherwise
//! the last: whatever fails, the same call may succeed later, and a call that a signal interrupted is repeated at once.
//!
//! A blob that the medium cannot give back (`EIO`, `EUCLEAN`, `EBADMSG`, twice) is damaged, as is one whose bytes have
//! another digest: it is moved to `quarantine/` and can be made again. Any other failure to read it is an error and no
//! damage.
//!
//! All of this is tested on simulated disks, see [`disk`]: failing at every call, killed before every call, and left by
//! a power cut in the states that a file system may leave.
//!
//! # What is assumed
//!
//! A file system with hard links (a blob gets its name by one, as that never replaces), atomic rename and kernel locks,
//! on a drive that has what it says is synced. A blob that is there with the right length is not hashed by a put;
//! damage inside it is found by the next read.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod codec;
mod digest;
pub mod disk;
mod files;
mod ledger;
mod open;
mod segment;
mod store;
mod tree;

pub use codec::CodecError;
pub use digest::{Digest, DigestError};
pub use disk::{DiskError, copy_file};
pub use files::{FileError, FileIndex, FileState};
pub use ledger::{Ledger, LedgerError, Record};
pub use open::Verified;
pub use segment::SegmentError;
pub use store::{Store, StoreError};
pub use tree::{Artifact, Entry, MAX_ENTRIES, MAX_TREE_BYTES, Shape, Tree, TreeError};
