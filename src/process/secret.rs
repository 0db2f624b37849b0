//! Variables whose values are secret: in keys they are known by a keyed hash.
//!
//! The key lies in the store, so that projects and machines that share a store share records. A plain digest would not
//! do: whoever has a ledger could try short values. It does not know commands.
//!
//! Invariant: of several processes that make the key at once all use the same one; it is readable by its owner alone.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const FILE: &str = "secrets.key";
const LENGTH: usize = 32;

/// The key of a store.
pub struct SecretKey([u8; LENGTH]);

impl SecretKey {
    /// The key of the store at a path; made if there is none.
    ///
    /// # Errors
    /// If it cannot be read or written, or is damaged.
    pub fn of_store(store: &Path) -> io::Result<Self> {
        let path = store.join(FILE);
        match read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(store, &path)?;
                read(&path)
            }
            found => found,
        }
        .map(Self)
        .map_err(|error| io::Error::new(error.kind(), format!("the key of secrets {}: {error}", path.display())))
    }

    /// What stands for a value in keys.
    pub fn hash(&self, value: &OsStr) -> String {
        blake3::keyed_hash(&self.0, value.as_bytes()).to_string()
    }
}

fn read(path: &Path) -> io::Result<[u8; LENGTH]> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LENGTH as u64 + 1).read_to_end(&mut bytes)?;
    let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged; remove it: a new one is made");
    bytes.try_into().map_err(damaged)
}

/// Written aside and put in place whole; another process may be faster, whose key is then the one.
fn make(store: &Path, path: &Path) -> io::Result<()> {
    fs::create_dir_all(store)?;
    let mut bytes = [0; LENGTH];
    let mut random = File::open("/dev/urandom")?;
    random.read_exact(&mut bytes)?;
    let mut unused = [0; 16];
    random.read_exact(&mut unused)?;
    let aside = store.join(format!("{FILE}.{:032x}", u128::from_ne_bytes(unused)));
    let written = write(&aside, &bytes).and_then(|()| match fs::hard_link(&aside, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    fs::remove_file(&aside)?;
    written?;
    // Results are recorded by it: it has to be there as long as they are.
    File::open(store)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_keeps_one_key() {
        let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let hash = |store: &Path| SecretKey::of_store(store).expect("a key").hash(OsStr::new("hunter2"));
        assert_eq!(hash(one.path()), hash(one.path()));
        assert_ne!(hash(one.path()), hash(other.path()));
        assert_eq!(fs::read_dir(one.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_damaged_key_is_an_error() {
        let store = tempfile::tempdir().expect("a folder");
        fs::write(store.path().join(FILE), "short").expect("a file");
        let error = SecretKey::of_store(store.path()).err().expect("an error").to_string();
        assert!(error.contains("it is damaged; remove it"), "{error}");
    }
}
