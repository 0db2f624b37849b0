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
//! | `format` | the text `headwater-store 2` and a newline; any other version is refused |
//! | `lock` | empty; locked by the kernel, shared by whoever has the store open, alone by a collection; its existence means nothing |
//! | `blobs/ab/cdef…` | a blob of more than 64 KiB whose digest is `abcdef…`: 2 digits name the folder, 62 the file; mode 0444, written once |
//! | `segments/<32 digits>.seg` | smaller blobs, records, and what projects use; locked by the kernel while a process appends to it |
//! | `segments/<32 digits>.idx` | what lies where in that segment, up to some offset; can be removed at any time |
//! | `tmp/.headwater-<32 digits>.tmp` | bytes on their way; mode 0600, locked by the kernel as long as their process writes |
//! | `quarantine/<digest>-<32 digits>` | what lay in the place of that blob and was not it; so does what lay in the place of a segment or a lock |
//! | `quarantine/lock` | locked by the kernel while something is moved here; its existence means nothing |
//! | `removed/` | files that a collection has taken out of their places and not removed yet; nobody needs them |
//! | `uses.lock` | empty; locked by the kernel while a project's list of what it uses is read and written anew; its existence means nothing |
//! | `locks/ab12` | empty; locked by the kernel while a process computes a key that begins with these digits; made when first needed, stays for good, and its existence means nothing |
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
//! | 0 | 8 | `HWSEGMNT` | +0 | 4 | mark, `F5 48 57 65` |
//! | 8 | 4 | version `1` | +4 | 4 | length of the payload |
//! | 12 | 4 | first 4 bytes of the BLAKE3 of bytes 0 to 11 | +8 | 4 | kind: `1` blob, `2` record, `3` uses |
//! | | | | +12 | 4 | generation: of several entries of a name the highest counts |
//! | | | | +16 | 32 | name: digest of the blob, key of the record, digest of the user's name |
//! | | | | +48 | 16 | first 16 bytes of the BLAKE3 of `headwater segment entry\0`, version (`u32`), the entry's own offset (`u64`), bytes +4 to +47, and unless it is a blob the payload |
//! | | | | +64 | length | payload, then zeros up to a multiple of 8 |
//!
//! **Contents of a segment** (`.idx`): `HWSEGIDX`, version `1` (`u32`), the offset up to which the segment is covered
//! (`u64`), which is the end of the last entry, then of each entry kind, generation, length (`u32`), offset (`u64`) and
//! name, and 32 bytes of BLAKE3 of all that precedes.
//!
//! **Record** (a payload): `HWRC`, version `1` as a `u32`, then bincode of the key's 32 bytes and the record: outputs
//! (port, artifact), manifest, seconds.
//!
//! **Uses** (a payload): `HWUS`, version `1`, then bincode of a user's name and the digests of its sets, the newest first.
//! A **set** is a blob: `HWUE`, version `1`, then bincode of keys and digests of blobs, both in order.
//!
//! **File index** (two files): a first line of `HWFI`, version `3` as a `u32` and zeros, then lines of 128 bytes that
//! each check themselves. The file that the owner names is sorted by the hashes of paths; the one with `.new` behind its
//! name has the lines that came since, in no order.
//!
//! | line | bytes | | line | bytes | |
//! |---|---|---|---|---|---|
//! | +0 | 16 | first bytes of the BLAKE3 of the path | +76 | 2 | mode |
//! | +16 | 24 | device, inode, length | +78 | 2 | merges through which nobody asked for it |
//! | +40 | 24 | seconds: modified, changed, hashed | +80 | 32 | digest |
//! | +64 | 12 | their nanoseconds | +112 | 16 | first bytes of the keyed BLAKE3 of bytes 0 to 111 |
//!
//! # What survives a crash
//!
//! Everything that was committed: what was put before a [`Store::commit`] or [`Ledger::append`] that has returned, the
//! records that were appended, and what was restored before a [`Store::commit_restored`]. What is put is visible at once to the process that put it, and to no
//! other before it is durable. A commit syncs large blobs, gives them their names and syncs the folders; then it writes
//! all small blobs and records to one segment and syncs that once. Many restored files are synced with all that is on their
//! file system. So ten thousand small results cost a handful of syncs.
//!
//! | killed, or power lost | what is left |
//! |---|---|
//! | while a blob is written, or before it is committed | a temp; nobody holds its lock, so the next [`Store::open`] removes it |
//! | after it has its name, before the folder is synced | the whole blob, or a temp, or nothing; the next put syncs the folder again |
//! | while a segment is appended to | a torn tail; readers skip it, the next to append cuts it off |
//! | after entries were written, before they were synced | some of them whole; readers sync them before they believe them. A record whose blobs are torn counts for nothing: ask [`Store::holds`] |
//! | while a file is restored | the old file, and a temp that the next restore into that folder removes |
//! | after it was restored, before the commit | the old file, or the new name with a part of the bytes |
//! | while the file index is saved | the old index, and of the new lines any: each is whole or does not check |
//! | while keys are claimed | lock files; nobody holds their locks, so nobody waits |
//! | while a store is collected | a part of what was to go, and all that was to stay |
//!
//! A sync that failed is final: of a temp, for that file; of restored files, for those of that commit; of a folder of the store, or of a segment, for
//! the store in this process, which takes nothing more and believes nothing new. Reading goes on. No call is otherwise
//! the last: whatever fails, the same call may succeed later, and a call that a signal interrupted is repeated at once.
//!
//! A blob that the medium cannot give back (`EIO`, `EUCLEAN`, `EBADMSG`, twice) is damaged, as is one whose bytes have
//! another digest: a file is moved to `quarantine/`, an entry of a segment is taken out of its contents, and the blob can
//! be made again. Any other failure to read it is an error and no damage.
//!
//! All of this is tested on simulated disks, see [`disk`]: failing at every call, killed before every call, and left by
//! a power cut in the states that a file system may leave; and every bit of a store is flipped, every file cut at every
//! length. What parses stored bytes is fuzzed, see `fuzz/run`.
//!
//! # Why no database
//!
//! Contents of segments and the file index are files of this crate and not, say, SQLite: what goes through [`disk::Disk`]
//! can be failed, killed and crashed at every call in memory, thousands of times a second; each file bears a checksum of
//! all of it; and nothing is written through a mapping, as a write-ahead log's shared memory is.
//!
//! # What is assumed
//!
//! A file system with hard links (a blob gets its name by one, as that never replaces), atomic rename and kernel locks,
//! on a drive that has what it says is synced.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod blobs;
mod claim;
mod codec;
mod contents;
mod digest;
pub mod disk;
mod entry;
mod files;
mod fingerprint;
mod folder;
mod gc;
mod ledger;
mod lines;
mod open;
mod pending;
mod segments;
mod settling;
mod snapshot;
mod store;
mod threads;
mod tree;
mod uses;
mod verify;

pub use claim::{Claim, Claims};
pub use codec::CodecError;
pub use digest::{Digest, DigestError};
pub use disk::{DiskError, copy_file, hash_file, is_temp};
pub use files::{FileError, FileIndex};
pub use fingerprint::FileState;
pub use folder::{FolderError, FolderFile};
pub use gc::{CollectError, Collector, Dropped, Keep, Plan, User};
pub use ledger::{Ledger, LedgerError, Made, Record};
pub use open::Verified;
pub use segments::SegmentError;
pub use snapshot::Snapshot;
pub use store::{Store, StoreError};
pub use tree::{Artifact, Entry, MAX_ENTRIES, MAX_TREE_BYTES, Shape, Tree, TreeError};
pub use uses::UsedSet;
pub use verify::{Findings, Look, Stats};
