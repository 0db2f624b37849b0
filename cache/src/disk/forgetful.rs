//! `ForgetfulDisk`: a disk in memory that knows what a power cut could leave of it, for tests.
//!
//! Does not know who writes, nor which states are good.
//!
//! What a crash may leave, by the rules that file systems keep and no more:
//!
//! - The content of a file as its last sync left it. Of what was done since, any part: each write in units of 512
//!   bytes, each of them not at all, by half or whole; its growth without its bytes, which are zeros then; each
//!   change of length and mode.
//! - The names in a folder as its last sync left them. Of the names made, moved and removed since, any subset. One
//!   operation on names is atomic; a rename is durable once either folder is synced. What becomes durable takes the
//!   earlier operations on the same names with it: a folder is not written backwards.
//! - A file without a durable name is gone, synced or not; so is all that is in a folder without one.
//!
//! A file that shares the bytes of another has them as if they had been written to it.
//!
//! Not simulated: symbolic links, permissions, and a drive that lies about a sync.
//!
//! Invariants: the same calls give the same disk, times included; a crash state is a disk of its own, with nothing
//! pending and nothing locked; locks belong to handles.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Component, Path};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Access, Disk, FileKind, Handle, Links, Lock, Meta};

/// What a drive writes as a whole.
const UNIT: u64 = 512;
const ROOT: u64 = 1;
/// When the disk's own clock begins, in seconds since 1970. Each change is a second later than the one before.
const BEGINNING: i64 = 1_000_000_000;
const FILE: u32 = libc::S_IFREG;
const FOLDER: u32 = libc::S_IFDIR;

/// A disk in memory that forgets what was not synced. A clone is the same disk.
#[derive(Clone)]
pub struct ForgetfulDisk(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    unlocked: Condvar,
}

#[derive(Clone)]
struct State {
    nodes: BTreeMap<u64, Node>,
    /// Operations on names that no sync covers yet, in their order.
    pending: Vec<Naming>,
    ticks: i64,
    handles: u64,
    /// Whether files can share their bytes.
    shares: bool,
}

/// A file or folder.
#[derive(Clone)]
struct Node {
    mode: u32,
    modified: i64,
    changed: i64,
    links: u64,
    exclusive: Option<u64>,
    shared: BTreeSet<u64>,
    body: Body,
}

#[derive(Clone)]
enum Body {
    File {
        now: Vec<u8>,
        synced: Vec<u8>,
        synced_mode: u32,
        /// What was done since the last sync.
        pending: Vec<Change>,
    },
    Folder {
        now: Names,
        synced: Names,
    },
}

type Names = BTreeMap<OsString, u64>;

/// What was done to a file, in the smallest parts that a crash may keep or lose.
#[derive(Clone)]
enum Change {
    Write { at: u64, bytes: Vec<u8> },
    Grow(u64),
    Cut(u64),
    Mode(u32),
}

/// A name, in the folder with that number.
type Place = (u64, OsString);

/// One atomic operation on names: some go, some come.
#[derive(Clone)]
struct Naming {
    removed: Option<Place>,
    added: Option<(Place, u64)>,
}

impl Naming {
    fn places(&self) -> impl Iterator<Item = &Place> {
        self.removed.iter().chain(self.added.as_ref().map(|(place, _)| place))
    }
}

fn error<T>(errno: i32) -> io::Result<T> {
    Err(io::Error::from_raw_os_error(errno))
}

impl Default for ForgetfulDisk {
    fn default() -> ForgetfulDisk {
        ForgetfulDisk::new()
    }
}

impl fmt::Debug for ForgetfulDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let (files, pending) = (state.nodes.len(), state.pending.len());
        f.debug_struct("ForgetfulDisk").field("files", &files).field("pending", &pending).finish()
    }
}

impl ForgetfulDisk {
    /// A disk with nothing but the folder `/`.
    pub fn new() -> ForgetfulDisk {
        ForgetfulDisk::at(BEGINNING)
    }

    /// Such a disk, whose clock begins at this second after 1970.
    pub fn at(seconds: i64) -> ForgetfulDisk {
        let root = Node::new(FOLDER | 0o755, Body::Folder { now: Names::new(), synced: Names::new() }, seconds);
        ForgetfulDisk::of(State {
            nodes: BTreeMap::from([(ROOT, root)]),
            pending: Vec::new(),
            ticks: seconds,
            handles: 0,
            shares: false,
        })
    }

    /// The same disk, on which files can share their bytes.
    #[must_use]
    pub fn sharing(self) -> ForgetfulDisk {
        self.state().shares = true;
        self
    }

    /// Another disk with the same content, the same things synced, and no locks.
    pub fn copy(&self) -> ForgetfulDisk {
        let mut state = self.state().clone();
        state.nodes.values_mut().for_each(Node::unlock);
        ForgetfulDisk::of(state)
    }

    /// Makes everything durable, as a clean shutdown does.
    pub fn sync_all(&self) {
        let mut state = self.state();
        state.pending.clear();
        state.nodes.values_mut().for_each(Node::sync);
    }

    /// In how many ways a crash could happen now, `u64::MAX` for more than that. Different ways may leave the same.
    pub fn crash_count(&self) -> u64 {
        self.state().choices().iter().fold(1, |product: u64, options| product.saturating_mul(*options))
    }

    /// The states that a crash could leave now: all of them if there are no more than `bound`, otherwise a sample by
    /// `seed` with the two extremes, nothing of what is pending and all of it.
    pub fn crashes(&self, bound: u64, seed: u64) -> impl Iterator<Item = ForgetfulDisk> {
        let state = self.state().clone();
        let choices = state.choices();
        let (count, mut random) = (self.crash_count(), Random(seed));
        let mut seen = BTreeSet::new();
        (0..count.min(bound)).filter_map(move |index| {
            let chosen = match index {
                _ if count <= bound => digits(index, &choices),
                0 => vec![0; choices.len()],
                1 => choices.iter().map(|options| options - 1).collect(),
                _ if index % 3 == 2 => random.all_but_one(&choices),
                _ => choices.iter().map(|options| random.below(*options)).collect(),
            };
            let state = state.crashed(&chosen);
            seen.insert(chosen).then(|| ForgetfulDisk::of(state))
        })
    }

    fn of(state: State) -> ForgetfulDisk {
        ForgetfulDisk(Arc::new(Shared { state: Mutex::new(state), unlocked: Condvar::new() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number with this index in a system whose digits have as many values as `choices` says.
fn digits(mut index: u64, choices: &[u64]) -> Vec<u64> {
    let digit = |options: &u64| {
        let digit = index % options;
        index /= options;
        digit
    };
    choices.iter().map(digit).collect()
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Random {
    /// Everything is kept, but one thing is not: what a single forgotten sync costs.
    fn all_but_one(&mut self, choices: &[u64]) -> Vec<u64> {
        let one = self.below(choices.len() as u64) as usize;
        choices.iter().enumerate().map(|(at, options)| if at == one { 0 } else { options - 1 }).collect()
    }
}

impl Change {
    /// How much of it a crash may keep: nothing, by half, whole.
    fn options(&self) -> u64 {
        match self {
            Change::Write { bytes, .. } if bytes.len() > 1 => 3,
            _ => 2,
        }
    }

    /// Does as much of it as a crash kept.
    fn apply(&self, chosen: u64, content: &mut Vec<u8>, mode: &mut u32) {
        match self {
            _ if chosen == 0 => {}
            Change::Write { at, bytes } => {
                let kept = if chosen + 1 < self.options() { bytes.len() / 2 } else { bytes.len() };
                let end = *at as usize + kept;
                content.resize(content.len().max(end), 0);
                content[*at as usize..end].copy_from_slice(&bytes[..kept]);
            }
            Change::Grow(length) => content.resize(content.len().max(*length as usize), 0),
            Change::Cut(length) => content.truncate(*length as usize),
            Change::Mode(new) => *mode = *new,
        }
    }
}

impl Node {
    fn new(mode: u32, body: Body, ticks: i64) -> Node {
        Node { mode, modified: ticks, changed: ticks, links: 0, exclusive: None, shared: BTreeSet::new(), body }
    }

    fn unlock(&mut self) {
        self.exclusive = None;
        self.shared.clear();
    }

    /// Makes the body durable; the names in a folder must be no longer pending.
    fn sync(&mut self) {
        match &mut self.body {
            Body::File { now, synced, synced_mode, pending } => {
                synced.clone_from(now);
                *synced_mode = self.mode;
                pending.clear();
            }
            Body::Folder { now, synced } => synced.clone_from(now),
        }
    }

    fn bytes(&self) -> u64 {
        match &self.body {
            Body::File { now, .. } => now.len() as u64,
            Body::Folder { .. } => 4096,
        }
    }

    fn kind(&self) -> FileKind {
        match self.body {
            Body::File { .. } => FileKind::File,
            Body::Folder { .. } => FileKind::Folder,
        }
    }

    /// Remembers and does a change of a file.
    fn change(&mut self, change: Change) {
        if let Body::File { now, pending, .. } = &mut self.body {
            change.apply(change.options() - 1, now, &mut self.mode);
            pending.push(change);
        }
    }
}

impl State {
    fn node(&mut self, number: u64) -> &mut Node {
        self.nodes.get_mut(&number).expect("what has a name or a handle is never dropped")
    }

    fn names(&mut self, folder: u64) -> io::Result<&mut Names> {
        match &mut self.node(folder).body {
            Body::Folder { now, .. } => Ok(now),
            Body::File { .. } => error(libc::ENOTDIR),
        }
    }

    /// The number of what lies at a path.
    fn find(&mut self, path: &Path) -> io::Result<u64> {
        let mut found = ROOT;
        for part in path.components() {
            found = match part {
                Component::RootDir | Component::CurDir => found,
                Component::Normal(name) => {
                    let next = self.names(found)?.get(name).copied();
                    next.map_or_else(|| error(libc::ENOENT), Ok)?
                }
                Component::ParentDir | Component::Prefix(_) => return error(libc::EINVAL),
            };
        }
        Ok(found)
    }

    /// The folder and the name of a path, whether there is anything or not.
    fn place(&mut self, path: &Path) -> io::Result<Place> {
        let Some((folder, name)) = path.parent().zip(path.file_name()) else {
            return error(libc::EINVAL);
        };
        let folder = self.find(folder)?;
        self.names(folder)?;
        Ok((folder, name.to_owned()))
    }

    fn at(&mut self, (folder, name): &Place) -> Option<u64> {
        self.names(*folder).ok()?.get(name).copied()
    }

    fn tick(&mut self) -> i64 {
        self.ticks += 1;
        self.ticks
    }

    fn add(&mut self, place: Place, mode: u32, body: Body) -> u64 {
        let number = self.nodes.last_key_value().map_or(ROOT, |(last, _)| *last) + 1;
        let ticks = self.tick();
        self.nodes.insert(number, Node::new(mode, body, ticks));
        self.name(Naming { removed: None, added: Some((place, number)) });
        number
    }

    /// Does an operation on names, and remembers that it is not durable.
    fn name(&mut self, naming: Naming) {
        let ticks = self.tick();
        if let Some(place) = &naming.removed {
            self.unname(place, ticks);
        }
        if let Some((place, number)) = &naming.added {
            self.unname(place, ticks);
            if let Ok(names) = self.names(place.0) {
                names.insert(place.1.clone(), *number);
            }
            let node = self.node(*number);
            node.links += 1;
            node.changed = ticks;
        }
        self.pending.push(naming);
    }

    fn unname(&mut self, (folder, name): &Place, ticks: i64) {
        let removed = self.names(*folder).ok().and_then(|names| names.remove(name));
        if let Some(number) = removed {
            let node = self.node(number);
            node.links -= 1;
            node.changed = ticks;
        }
    }

    /// Makes the names in a folder durable, and what must be durable before them.
    fn sync_names(&mut self, folder: u64) {
        let mut places = BTreeSet::new();
        let mut covered = Vec::new();
        for naming in self.pending.iter().rev() {
            let touched = naming.places().any(|place| place.0 == folder || places.contains(place));
            if touched {
                places.extend(naming.places().cloned());
            }
            covered.push(touched);
        }
        covered.reverse();
        let mut covered = covered.into_iter();
        let (durable, pending) = self.pending.drain(..).partition(|_| covered.next().unwrap_or(false));
        self.pending = pending;
        Vec::into_iter(durable).for_each(|naming| self.settle(&naming));
    }

    /// Does an operation on names to what is durable.
    fn settle(&mut self, naming: &Naming) {
        if let Some((folder, name)) = &naming.removed
            && let Body::Folder { synced, .. } = &mut self.node(*folder).body
        {
            synced.remove(name);
        }
        if let Some(((folder, name), number)) = &naming.added
            && let Body::Folder { synced, .. } = &mut self.node(*folder).body
        {
            synced.insert(name.clone(), *number);
        }
    }

    /// What a crash may choose, in the order in which [`State::crashed`] takes it: how many ways there are for each
    /// thing that is pending.
    fn choices(&self) -> Vec<u64> {
        let names = self.pending.iter().map(|_| 2);
        let changes = self.nodes.values().flat_map(|node| match &node.body {
            Body::File { pending, .. } => pending.as_slice(),
            Body::Folder { .. } => &[],
        });
        names.chain(changes.map(Change::options)).collect()
    }

    /// What is left if the crash chooses so.
    fn crashed(&self, chosen: &[u64]) -> State {
        let (names, changes) = chosen.split_at(self.pending.len());
        let mut state = self.clone();
        let pending = std::mem::take(&mut state.pending);
        for (naming, _) in pending.iter().zip(names).filter(|(_, chosen)| **chosen > 0) {
            state.settle(naming);
        }
        let mut changes = changes.iter();
        for node in state.nodes.values_mut() {
            node.unlock();
            node.links = 0;
            node.forget(&mut changes);
        }
        state.drop_nameless();
        state
    }

    /// Drops what no durable name leads to, and counts the names of the rest.
    fn drop_nameless(&mut self) {
        let mut open = vec![ROOT];
        let mut reached = BTreeSet::from([ROOT]);
        while let Some(number) = open.pop() {
            let Body::Folder { now, .. } = &self.node(number).body else { continue };
            for child in now.values().copied().collect::<Vec<_>>() {
                self.node(child).links += 1;
                if reached.insert(child) {
                    open.push(child);
                }
            }
        }
        self.nodes.retain(|number, _| reached.contains(number));
    }
}

impl Node {
    /// Becomes what was synced, and as much of what is pending as was chosen.
    fn forget<'c>(&mut self, chosen: &mut impl Iterator<Item = &'c u64>) {
        match &mut self.body {
            Body::File { now, synced, synced_mode, pending } => {
                now.clone_from(synced);
                self.mode = *synced_mode;
                for change in pending.iter() {
                    let chosen = chosen.next().expect("a choice is made for each change");
                    change.apply(*chosen, now, &mut self.mode);
                }
            }
            Body::Folder { now, synced } => now.clone_from(synced),
        }
        self.sync();
    }
}

impl Disk for ForgetfulDisk {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Handle>> {
        let mut state = self.state();
        let node = match access {
            Access::Read(_) => state.find(path)?,
            Access::Write => {
                let found = state.find(path)?;
                match state.node(found).kind() {
                    FileKind::Folder => return error(libc::EISDIR),
                    _ => found,
                }
            }
            Access::Create(mode) | Access::Edit(mode) => {
                let place = state.place(path)?;
                match (state.at(&place), access) {
                    (Some(_), Access::Create(_)) => return error(libc::EEXIST),
                    (Some(found), _) if state.node(found).kind() == FileKind::Folder => return error(libc::EISDIR),
                    (Some(found), _) => found,
                    (None, _) => state.add(place, FILE | mode, empty_file(FILE | mode)),
                }
            }
        };
        state.handles += 1;
        let (read, write) = (!matches!(access, Access::Create(_)), !matches!(access, Access::Read(_)));
        Ok(Box::new(ForgetfulHandle { disk: self.clone(), node, number: state.handles, read, write }))
    }

    fn look(&self, path: &Path, _: Links) -> io::Result<Meta> {
        let mut state = self.state();
        let number = state.find(path)?;
        Ok(meta(number, state.node(number)))
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        let mut state = self.state();
        let number = state.find(folder)?;
        Ok(state.names(number)?.keys().cloned().collect())
    }

    fn create_dir(&self, folder: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.state();
        if state.find(folder).is_ok() {
            return error(libc::EEXIST);
        }
        let place = state.place(folder)?;
        state.add(place, FOLDER | mode, Body::Folder { now: Names::new(), synced: Names::new() });
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let node = state.find(from)?;
        let place = state.place(to)?;
        match state.at(&place) {
            Some(_) => error(libc::EEXIST),
            None if state.node(node).kind() == FileKind::Folder => error(libc::EPERM),
            None => {
                state.name(Naming { removed: None, added: Some((place, node)) });
                Ok(())
            }
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let (removed, added) = (state.place(from)?, state.place(to)?);
        let Some(node) = state.at(&removed) else {
            return error(libc::ENOENT);
        };
        if let Some(there) = state.at(&added) {
            match (state.node(node).kind(), state.node(there).kind()) {
                _ if node == there => return Ok(()),
                (FileKind::Folder, FileKind::Folder) => return error(libc::ENOTEMPTY),
                (FileKind::Folder, _) => return error(libc::ENOTDIR),
                (_, FileKind::Folder) if from.starts_with(to) => return error(libc::ENOTEMPTY),
                (_, FileKind::Folder) => return error(libc::EISDIR),
                _ => {}
            }
        } else if state.node(node).kind() == FileKind::Folder && to.starts_with(from) {
            return error(libc::EINVAL);
        }
        state.name(Naming { removed: Some(removed), added: Some((added, node)) });
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.look(to, Links::Refuse) {
            Ok(_) => error(libc::EEXIST),
            Err(_) => self.rename(from, to),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let place = state.place(path)?;
        match state.at(&place) {
            None => error(libc::ENOENT),
            Some(found) if state.node(found).kind() == FileKind::Folder => error(libc::EISDIR),
            Some(_) => {
                state.name(Naming { removed: Some(place), added: None });
                Ok(())
            }
        }
    }
}

fn empty_file(mode: u32) -> Body {
    Body::File { now: Vec::new(), synced: Vec::new(), synced_mode: mode, pending: Vec::new() }
}

fn meta(number: u64, node: &Node) -> Meta {
    Meta {
        kind: node.kind(),
        bytes: node.bytes(),
        mode: node.mode,
        device: 1,
        inode: number,
        links: node.links,
        modified: (node.modified, 0),
        changed: (node.changed, 0),
    }
}

struct ForgetfulHandle {
    disk: ForgetfulDisk,
    node: u64,
    /// What locks know the handle by.
    number: u64,
    read: bool,
    write: bool,
}

impl fmt::Debug for ForgetfulHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ForgetfulHandle").field("node", &self.node).field("number", &self.number).finish()
    }
}

impl ForgetfulHandle {
    fn change(&self, changes: impl IntoIterator<Item = Change>) {
        let mut state = self.disk.state();
        let ticks = state.tick();
        let node = state.node(self.node);
        for change in changes {
            if !matches!(change, Change::Mode(_)) {
                node.modified = ticks;
            }
            node.change(change);
        }
        node.changed = ticks;
    }

    /// Whether nobody else holds what the lock excludes.
    fn is_free(&self, node: &Node, lock: Lock) -> bool {
        let other = |holder: &u64| *holder != self.number;
        let exclusive = node.exclusive.as_ref().is_some_and(other);
        !exclusive && (lock == Lock::Shared || !node.shared.iter().any(other))
    }

    fn let_go(&self, node: &mut Node) {
        node.shared.remove(&self.number);
        node.exclusive = node.exclusive.filter(|holder| *holder != self.number);
    }
}

impl Handle for ForgetfulHandle {
    fn look(&self) -> io::Result<Meta> {
        Ok(meta(self.node, self.disk.state().node(self.node)))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if !self.read {
            return error(libc::EBADF);
        }
        let mut state = self.disk.state();
        let Body::File { now, .. } = &state.node(self.node).body else {
            return error(libc::EISDIR);
        };
        let rest = usize::try_from(offset).ok().and_then(|offset| now.get(offset..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        if !self.write {
            return error(libc::EBADF);
        }
        let end = offset + bytes.len() as u64;
        let grows = !bytes.is_empty() && end > self.look()?.bytes;
        let mut changes = Vec::from_iter(grows.then_some(Change::Grow(end)));
        let mut at = offset;
        while at < end {
            let next = (at + 1).next_multiple_of(UNIT).min(end);
            let bytes = bytes[(at - offset) as usize..(next - offset) as usize].to_vec();
            changes.push(Change::Write { at, bytes });
            at = next;
        }
        self.change(changes);
        Ok(bytes.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if !self.write {
            return error(libc::EINVAL);
        }
        let cuts = length < self.look()?.bytes;
        self.change([if cuts { Change::Cut(length) } else { Change::Grow(length) }]);
        Ok(())
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        let kind = self.look()?.mode & libc::S_IFMT;
        self.change([Change::Mode(kind | mode)]);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        match state.node(self.node).kind() {
            FileKind::Folder => state.sync_names(self.node),
            _ => state.node(self.node).sync(),
        }
        Ok(())
    }

    fn sync_file_system(&self) -> io::Result<bool> {
        self.disk.sync_all();
        Ok(true)
    }

    fn share(&self, from: &dyn Handle) -> io::Result<()> {
        if !self.disk.state().shares {
            return error(libc::EOPNOTSUPP);
        }
        let mut bytes = vec![0; from.look()?.bytes as usize];
        let read = from.read_at(&mut bytes, 0)?;
        self.write_at(&bytes[..read], 0).map(drop)
    }

    fn lock(&self, lock: Lock) -> io::Result<()> {
        let mut state = self.disk.state();
        while !self.is_free(state.node(self.node), lock) {
            if lock == Lock::TryExclusive {
                return error(libc::EWOULDBLOCK);
            }
            state = self.disk.0.unlocked.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let node = state.node(self.node);
        self.let_go(node);
        match lock {
            Lock::Shared => _ = node.shared.insert(self.number),
            Lock::Exclusive | Lock::TryExclusive => node.exclusive = Some(self.number),
        }
        Ok(())
    }
}

impl Drop for ForgetfulHandle {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        self.let_go(state.node(self.node));
        drop(state);
        self.disk.0.unlocked.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(disk: &ForgetfulDisk, path: &str, bytes: &[u8]) -> Box<dyn Handle> {
        let handle = disk.open(Path::new(path), Access::Edit(0o600)).unwrap();
        handle.write_at(bytes, 0).unwrap();
        handle
    }

    fn sync(disk: &ForgetfulDisk, folder: &str) {
        disk.open(Path::new(folder), Access::Read(Links::Follow)).unwrap().sync().unwrap();
    }

    fn content(disk: &ForgetfulDisk, path: &str) -> Option<Vec<u8>> {
        let handle = disk.open(Path::new(path), Access::Read(Links::Follow)).ok()?;
        let mut bytes = vec![0; 10_000];
        let count = handle.read_at(&mut bytes, 0).unwrap();
        bytes.truncate(count);
        Some(bytes)
    }

    fn names_of(disk: &ForgetfulDisk, folder: &str) -> Vec<String> {
        let names = disk.names(Path::new(folder)).unwrap_or_default();
        names.into_iter().map(|name| name.into_string().unwrap()).collect()
    }

    /// What `of` sees in all crash states, each once.
    fn seen<T: Ord>(disk: &ForgetfulDisk, of: impl Fn(&ForgetfulDisk) -> T) -> Vec<T> {
        assert!(disk.crash_count() <= 10_000);
        disk.crashes(10_000, 0).map(|crashed| of(&crashed)).collect::<BTreeSet<_>>().into_iter().collect()
    }

    #[test]
    fn writing_nothing_behind_the_end_leaves_a_file_as_long_as_it_was() {
        let disk = ForgetfulDisk::new();
        let file = disk.open(Path::new("/file"), Access::Edit(0o600)).unwrap();
        assert_eq!(file.write_at(b"", 1127).unwrap(), 0);
        assert_eq!(file.look().unwrap().bytes, 0);
    }

    #[test]
    fn what_was_not_synced_may_be_there_in_part_or_not() {
        let disk = ForgetfulDisk::new();
        create(&disk, "/a", b"1234");
        let states = seen(&disk, |disk| content(disk, "/a"));
        let expected: [Option<&[u8]>; 5] = [None, Some(b""), Some(b"\0\0\0\0"), Some(b"12"), Some(b"1234")];
        let mut expected: Vec<_> = expected.map(|state| state.map(<[u8]>::to_vec)).into();
        expected.push(Some(b"12\0\0".to_vec()));
        expected.sort();
        assert_eq!(states, expected);
    }

    #[test]
    fn shared_bytes_are_durable_when_the_file_that_shares_them_is_synced() {
        let disk = ForgetfulDisk::new().sharing();
        let from = create(&disk, "/from", b"12");
        disk.sync_all();
        let to = create(&disk, "/to", b"");
        sync(&disk, "/");
        to.share(&*from).unwrap();
        let states = seen(&disk, |disk| content(disk, "/to").unwrap());
        assert_eq!(states, [&b""[..], b"\0\0", b"1", b"1\0", b"12"].map(<[u8]>::to_vec));
        to.sync().unwrap();
        assert_eq!(seen(&disk, |disk| content(disk, "/to").unwrap()), [b"12".to_vec()]);
    }

    #[test]
    fn bytes_are_shared_only_on_a_disk_that_can() {
        let disk = ForgetfulDisk::new();
        let (from, to) = (create(&disk, "/from", b"1"), create(&disk, "/to", b""));
        assert_eq!(to.share(&*from).unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn a_synced_file_needs_its_name_and_a_synced_name_does_not_make_bytes_durable() {
        let disk = ForgetfulDisk::new();
        create(&disk, "/a", b"1").sync().unwrap();
        assert_eq!(seen(&disk, |disk| content(disk, "/a")), [None, Some(b"1".to_vec())]);
        sync(&disk, "/");
        assert_eq!(seen(&disk, |disk| content(disk, "/a")), [Some(b"1".to_vec())]);
        create(&disk, "/b", b"2");
        sync(&disk, "/");
        assert!(seen(&disk, |disk| content(disk, "/b")).contains(&Some(Vec::new())));
    }

    #[test]
    fn units_of_a_write_are_lost_one_by_one() {
        let disk = ForgetfulDisk::new();
        let handle = create(&disk, "/a", &[1; 1024]);
        disk.sync_all();
        handle.write_at(&[2; 600], 500).unwrap();
        let first_bytes = |disk: &ForgetfulDisk| [499, 500, 511, 512, 1023].map(|at| content(disk, "/a").unwrap()[at]);
        let states = seen(&disk, first_bytes);
        assert!(states.contains(&[1, 2, 2, 1, 1]) && states.contains(&[1, 1, 1, 2, 2]));
        assert!(states.iter().all(|state| state[0] == 1));
    }

    #[test]
    fn a_rename_is_atomic_and_durable_with_either_folder() {
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new("/d"), 0o700).unwrap();
        create(&disk, "/a", b"new").sync().unwrap();
        create(&disk, "/d/b", b"old").sync().unwrap();
        disk.sync_all();
        disk.rename(Path::new("/a"), Path::new("/d/b")).unwrap();
        let both = |disk: &ForgetfulDisk| (content(disk, "/a"), content(disk, "/d/b").unwrap());
        let (before, after) = ((Some(b"new".to_vec()), b"old".to_vec()), (None, b"new".to_vec()));
        assert_eq!(seen(&disk, both), [after.clone(), before]);
        sync(&disk, "/");
        assert_eq!(seen(&disk, both), [after]);
    }

    #[test]
    fn what_is_durable_is_not_undone_by_what_came_before_it() {
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new("/d"), 0o700).unwrap();
        disk.sync_all();
        create(&disk, "/a", b"1");
        disk.rename(Path::new("/a"), Path::new("/d/a")).unwrap();
        sync(&disk, "/d");
        assert_eq!(seen(&disk, |disk| names_of(disk, "/")), [["d".to_owned()]]);
    }

    #[test]
    fn what_is_in_a_folder_without_a_durable_name_is_gone() {
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new("/d"), 0o700).unwrap();
        create(&disk, "/d/a", b"1").sync().unwrap();
        sync(&disk, "/d");
        assert_eq!(seen(&disk, |disk| content(disk, "/d/a")), [None, Some(b"1".to_vec())]);
    }

    #[test]
    fn a_sample_is_bounded_repeatable_and_has_the_extremes() {
        let disk = ForgetfulDisk::new();
        (0..40).for_each(|i| drop(create(&disk, &format!("/{i}"), b"")));
        let counts = |seed| disk.crashes(20, seed).map(|disk| names_of(&disk, "/")).collect::<Vec<_>>();
        assert_eq!(disk.crash_count(), 1 << 40);
        assert_eq!(counts(7), counts(7));
        assert_ne!(counts(7), counts(8));
        assert_eq!((counts(7)[0].len(), counts(7)[1].len()), (0, 40));
        assert!((15..=20).contains(&counts(7).len()), "a choice that comes up twice is one state");
    }

    #[test]
    fn a_lock_belongs_to_a_handle_and_vanishes_at_a_crash() {
        let disk = ForgetfulDisk::new();
        let (one, two) = (create(&disk, "/a", b""), create(&disk, "/a", b""));
        one.lock(Lock::Shared).unwrap();
        two.lock(Lock::Shared).unwrap();
        assert_eq!(one.lock(Lock::TryExclusive).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(two);
        one.lock(Lock::TryExclusive).unwrap();
        sync(&disk, "/");
        let crashed = disk.crashes(1, 0).next().unwrap();
        create(&crashed, "/a", b"").lock(Lock::TryExclusive).unwrap();
    }

    #[test]
    fn a_lock_is_waited_for() {
        let disk = ForgetfulDisk::new();
        let (one, two) = (create(&disk, "/a", b""), create(&disk, "/a", b""));
        one.lock(Lock::Exclusive).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| two.lock(Lock::Exclusive));
            drop(one);
            waiting.join().unwrap().unwrap();
        });
    }
}
