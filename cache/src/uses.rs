//! `Uses`: what each project that has run on a store needs of it, run by run: the roots of a collection.
//!
//! Does not know what a project or a run is; a user is a name. A set of keys and blobs is a blob, so that a run which
//! uses what an earlier one used costs nothing; the list of a user's sets is an entry of a segment.
//!
//! Invariants: the newest set stands first; no set stands twice. A list that is damaged is never passed over in silence: as
//! long as no newer one is there it is an error to ask what is used. A newer one is written in its place by the next run of
//! its user, whatever that uses, or by a repair, which need not know whose it is. Which sets the damaged one held, and in what
//! order, is not known: the new one has, after the present set, one that names what all sets in the store name. It is kept
//! as long as any set would be that stands at its place, so that nothing which a run used is forgotten before its time.
//! One process at a time reads a list and writes the next: the kernel's lock on a file of the store sees to it.

use std::collections::BTreeSet;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::{Digest, LENGTH};
use crate::entry::{Kind, MAX_PAYLOAD};
use crate::segments::{NewEntry, Newest};
use crate::store::{Store, StoreError};

const MAGIC: [u8; 4] = *b"HWUS";
const SET_MAGIC: [u8; 4] = *b"HWUE";
const VERSION: u32 = 1;
/// More sets than this of one user are not remembered.
const MAX_SETS: usize = 1000;
/// Sets that stand in for a damaged list have no more keys and blobs than this together: an entry can hold it.
const MAX_NAMES: usize = MAX_PAYLOAD / LENGTH - 1024;
/// Whose a list is that was damaged when no older one was there: its name is known, and not who has that name.
const SOMEBODY: &str = "a project";

/// What one run needs to be had again without running anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedSet {
    /// Keys of records.
    pub keys: BTreeSet<Digest>,
    /// Blobs that no record names, such as kept sources.
    pub blobs: BTreeSet<Digest>,
}

impl UsedSet {
    /// How many keys and blobs this and the other have together.
    fn with(&self, other: &UsedSet) -> usize {
        let new = other.keys.difference(&self.keys).count() + other.blobs.difference(&self.blobs).count();
        self.keys.len() + self.blobs.len() + new
    }
}

/// The sets of one user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Uses {
    pub(crate) user: String,
    /// Digests of sets, the newest first.
    pub(crate) sets: Vec<Digest>,
}

impl Store {
    /// Remembers, durably, that `user` now needs what `set` names. What was put before becomes durable too.
    ///
    /// # Errors
    /// If it cannot be written and synced.
    pub fn use_now(&self, user: &str, set: &UsedSet) -> Result<(), StoreError> {
        // Another run of this user may have ended since the store was opened, or end now: what it used stays.
        let _alone = self.lock_uses()?;
        self.segments().refresh()?;
        let name = Digest::of(user.as_bytes());
        let digest = self.put(&encode(SET_MAGIC, set)?)?;
        let list = self.list(&name)?;
        let mut sets = match &list {
            List::Nothing => Vec::new(),
            List::Intact(uses) => uses.sets.clone(),
            List::Damaged { older, .. } => self.mended(&older.sets)?,
        };
        sets.retain(|set| *set != digest);
        sets.insert(0, digest);
        sets.truncate(MAX_SETS);
        let uses = Uses { user: user.to_owned(), sets };
        match list {
            List::Intact(known) if known == uses => self.commit(),
            _ => self.write_uses(name, &uses),
        }
    }

    /// Writes a list under its name, which need not be that of the user: who that is may be forgotten.
    pub(crate) fn write_uses(&self, name: Digest, uses: &Uses) -> Result<(), StoreError> {
        let payload = encode(MAGIC, uses)?;
        self.commit_with(&[NewEntry::new(Kind::Uses, name, &payload)], &[])
    }

    /// The lists of everybody and their names, in no meaningful order; or which is damaged.
    pub(crate) fn all_uses(&self) -> Result<Result<Vec<(Digest, Uses)>, DamagedList>, StoreError> {
        let mut all = Vec::new();
        for name in self.segments().names_and_claims(Kind::Uses) {
            match self.list(&name)? {
                List::Intact(uses) => all.push((name, uses)),
                List::Nothing => {}
                List::Damaged { path, older } => return Ok(Err(DamagedList { path, user: older.user })),
            }
        }
        Ok(Ok(all))
    }

    /// Writes a list anew in the place of each that is damaged.
    pub(crate) fn mend_uses(&self) -> Result<(), StoreError> {
        let _alone = self.lock_uses()?;
        self.segments().refresh()?;
        for name in self.segments().names_and_claims(Kind::Uses) {
            if let List::Damaged { older, .. } = self.list(&name)? {
                let sets = self.mended(&older.sets)?;
                self.write_uses(name, &Uses { user: older.user, sets })?;
            }
        }
        Ok(())
    }

    /// A set that stands in somebody's uses.
    pub(crate) fn used_set(&self, digest: &Digest) -> Result<UsedSet, StoreError> {
        Ok(decode(SET_MAGIC, &self.get(digest)?)?)
    }

    /// The blobs of the newest set of `user`; none where that cannot be told.
    ///
    /// # Errors
    /// If it cannot be read at the moment.
    pub fn last_used_blobs(&self, user: &str) -> Result<BTreeSet<Digest>, StoreError> {
        let List::Intact(uses) = self.list(&Digest::of(user.as_bytes()))? else { return Ok(BTreeSet::new()) };
        match uses.sets.first().map(|set| self.used_set(set)) {
            Some(Err(StoreError::Disk(error))) => Err(error.into()),
            set => Ok(set.and_then(Result::ok).map(|set| set.blobs).unwrap_or_default()),
        }
    }

    fn list(&self, name: &Digest) -> Result<List, StoreError> {
        Ok(match self.segments().newest(Kind::Uses, name)? {
            Newest::Payload(payload) => List::Intact(decode(MAGIC, &payload)?),
            Newest::Nothing => List::Nothing,
            Newest::Damaged { path, older } => {
                let older = older.and_then(|payload| decode(MAGIC, &payload).ok());
                let unknown = || Uses { user: SOMEBODY.to_owned(), sets: Vec::new() };
                List::Damaged { path, older: older.unwrap_or_else(unknown) }
            }
        })
    }

    /// What stands in the place of a damaged list: as its newest set what all sets in the store name together, then those
    /// of an older list.
    fn mended(&self, older: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let mut together = Vec::new();
        for digest in self.sets()? {
            join(&mut together, self.used_set(&digest)?, MAX_NAMES);
        }
        let put = |set: &UsedSet| self.put(&encode(SET_MAGIC, set)?);
        let mut sets = together.iter().map(put).collect::<Result<Vec<Digest>, StoreError>>()?;
        for set in older {
            if !sets.contains(set) {
                sets.push(*set);
            }
        }
        Ok(sets)
    }

    /// Every blob that is a set, in order; what cannot be read is none. Looks at all blobs.
    fn sets(&self) -> Result<BTreeSet<Digest>, StoreError> {
        let small: Vec<Digest> = self.segments().names(Kind::Blob).into_iter().collect();
        let is_set = |digest: &Digest, payload: &[u8]| decode::<UsedSet>(SET_MAGIC, payload).is_ok().then_some(*digest);
        let mut sets: BTreeSet<Digest> =
            self.segments().read_together(Kind::Blob, &small, is_set).into_iter().collect();
        for (digest, bytes) in self.large_blobs()? {
            if bytes <= MAX_PAYLOAD as u64
                && self.blobs().begin_with(&digest, &SET_MAGIC)
                && self.used_set(&digest).is_ok()
            {
                sets.insert(digest);
            }
        }
        Ok(sets)
    }
}

/// A list that is not what it was, and no newer one is there.
pub(crate) struct DamagedList {
    /// The segment.
    pub(crate) path: PathBuf,
    /// Whose it is, as an older one says, or somebody's.
    pub(crate) user: String,
}

/// The newest list of a user.
enum List {
    Intact(Uses),
    Nothing,
    /// The older one that is intact, or one of somebody's that is empty.
    Damaged {
        path: PathBuf,
        older: Uses,
    },
}

/// Takes a set into the last of these, as long as that has no more than so many keys and blobs.
fn join(together: &mut Vec<UsedSet>, set: UsedSet, max: usize) {
    match together.last_mut() {
        Some(last) if last.with(&set) <= max => {
            last.keys.extend(set.keys);
            last.blobs.extend(set.blobs);
        }
        _ => together.push(set),
    }
}

fn encode(magic: [u8; 4], value: &impl Serialize) -> Result<Vec<u8>, CodecError> {
    codec::encode::<MAX_PAYLOAD>(magic, VERSION, value)
}

fn decode<T: serde::de::DeserializeOwned>(magic: [u8; 4], bytes: &[u8]) -> Result<T, CodecError> {
    codec::decode::<MAX_PAYLOAD, T>(magic, VERSION, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(keys: &[&str]) -> UsedSet {
        UsedSet { keys: keys.iter().map(|key| Digest::of(key.as_bytes())).collect(), blobs: BTreeSet::new() }
    }

    #[test]
    fn what_is_no_file_in_the_place_of_the_lock_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        std::os::unix::fs::symlink("elsewhere", folder.path().join("uses.lock")).unwrap();
        store.use_now("me", &set(&["a"])).unwrap();
        assert!(folder.path().join("uses.lock").is_file());
        std::fs::remove_file(folder.path().join("uses.lock")).unwrap();
        std::fs::create_dir(folder.path().join("uses.lock")).unwrap();
        store.use_now("me", &set(&["b"])).unwrap();
        assert_eq!(std::fs::read_dir(folder.path().join("quarantine")).unwrap().count(), 2);
    }

    #[test]
    fn runs_of_one_user_that_end_together_lose_no_set() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..24).map(|number| number.to_string()).collect();
        std::thread::scope(|scope| {
            for names in names.chunks(6) {
                let store = Store::open(folder.path()).unwrap();
                scope.spawn(move || names.iter().for_each(|name| store.use_now("me", &set(&[name])).unwrap()));
            }
        });
        let store = Store::open(folder.path()).unwrap();
        let lists = store.all_uses().unwrap().ok().unwrap();
        assert_eq!(lists[0].1.sets.len(), names.len());
    }

    #[test]
    fn the_newest_set_stands_first_and_none_twice() {
        let folder = tempfile::tempdir().unwrap();
        for keys in [&["a"][..], &["a", "b"], &["a", "b"], &["a"]] {
            let store = Store::open(folder.path()).unwrap();
            store.use_now("me", &set(keys)).unwrap();
        }
        let store = Store::open(folder.path()).unwrap();
        store.use_now("you", &set(&["c"])).unwrap();
        let all = || store.all_uses().unwrap().ok().unwrap();
        let (_, uses) = all().into_iter().find(|(_, uses)| uses.user == "me").unwrap();
        let sets: Vec<UsedSet> = uses.sets.iter().map(|digest| store.used_set(digest).unwrap()).collect();
        assert_eq!(sets, [set(&["a"]), set(&["a", "b"])]);
        assert_eq!(all().len(), 2);
    }

    #[test]
    fn what_another_process_used_since_the_store_was_opened_stays_in_the_list() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Store::open(folder.path()).unwrap(), Store::open(folder.path()).unwrap());
        two.use_now("me", &set(&["a"])).unwrap();
        one.use_now("me", &set(&["b"])).unwrap();
        drop((one, two));
        let store = Store::open(folder.path()).unwrap();
        let (_, uses) = store.all_uses().unwrap().ok().unwrap().remove(0);
        let sets: Vec<UsedSet> = uses.sets.iter().map(|digest| store.used_set(digest).unwrap()).collect();
        assert_eq!(sets, [set(&["b"]), set(&["a"])]);
    }

    #[test]
    fn a_set_that_was_used_last_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let size = || -> u64 {
            let segments = std::fs::read_dir(folder.path().join("segments")).unwrap();
            let segments =
                segments.map(|entry| entry.unwrap()).filter(|entry| entry.path().extension().unwrap() == "seg");
            segments.map(|entry| entry.metadata().unwrap().len()).sum()
        };
        Store::open(folder.path()).unwrap().use_now("me", &set(&["a"])).unwrap();
        let before = size();
        Store::open(folder.path()).unwrap().use_now("me", &set(&["a"])).unwrap();
        assert_eq!(size(), before);
    }

    #[test]
    fn an_encoding_never_changes_within_a_version() {
        let bytes = encode(SET_MAGIC, &set(&["a", "b"])).unwrap();
        assert_eq!(Digest::of(&bytes).to_string(), "29e8267bbc150c53814cdf7a7924bbed22374266551831ffe4fb452fea79131e");
    }

    #[test]
    fn sets_are_joined_as_long_as_an_entry_can_hold_them() {
        let mut together = Vec::new();
        for names in [&["a", "b"][..], &["b", "c"], &["d"], &["a", "b", "d"]] {
            join(&mut together, set(names), 3);
        }
        assert_eq!(together, [set(&["a", "b", "c"]), set(&["a", "b", "d"])]);
        let name = |at: usize| Digest::from_bytes(std::array::from_fn(|i| (at >> (8 * i.min(7))) as u8));
        let most = UsedSet { keys: (0..MAX_NAMES).map(name).collect(), blobs: BTreeSet::new() };
        let bytes = encode(SET_MAGIC, &most).unwrap();
        assert_eq!(decode::<UsedSet>(SET_MAGIC, &bytes).unwrap().keys.len(), MAX_NAMES);
    }
}
