//! How entries come in that others have appended: a segment read for the first time, by its contents as far as these lead,
//! and what has been appended since.

use std::path::{Path, PathBuf};

use super::segment::Segment;
use super::{SegmentError, Segments};
use crate::contents::Contents;
use crate::disk::{self, Access, DiskError, Handle, Links, Opened, Temp};
use crate::entry::{self, HEADER, Head, Scan};

/// What the name of its contents ends in.
const CONTENTS_SUFFIX: &str = ".idx";
/// Contents are written anew when what they lack is more than this part of them.
const STALE_SHARE: usize = 8;

impl Segments {
    /// Reads a segment for the first time; `None` if there is nothing that could be one.
    pub(super) fn load(&self, path: PathBuf) -> Result<Option<Segment>, SegmentError> {
        let (file, found) = match disk::open_regular(&*self.disk, &path, Links::Refuse)? {
            Opened::Regular(file, found) => (file, found),
            Opened::Missing => return Ok(None),
            Opened::Other(kind) => {
                self.lock_strange().insert(path, kind);
                return Ok(None);
            }
        };
        let mut segment = Segment::unread(path, file.into());
        let indexed = Contents::load(&*self.disk, &contents_path(&segment.path));
        if let Some(indexed) = indexed.filter(|indexed| indexed.end <= found.bytes)
            && segment.has_header()?
        {
            segment.believe(indexed);
        }
        self.meet();
        self.catch_up(&mut segment)?;
        let lacking = segment.fresh.values().filter(|head| segment.is_in_reach(head)).count();
        if lacking * STALE_SHARE > segment.indexed.heads().len() {
            self.index(&mut segment);
        }
        Ok(Some(segment))
    }

    /// Reads what lies behind the last good entry that is known.
    pub(super) fn catch_up(&self, segment: &mut Segment) -> Result<(), SegmentError> {
        let length = disk::look_at(&*segment.file, &segment.path)?.bytes;
        if !segment.goes_on(length) {
            // Somebody has cut off what was read: what is there is looked through from the beginning.
            segment.forget();
            self.meet();
        }
        segment.forget_tail();
        if !segment.has_header()? || length <= segment.end {
            return Ok(());
        }
        let scan = scan_twice(&*segment.file, &segment.path, segment.end, length)?;
        if !scan.heads.is_empty() {
            // A writer that died between write and sync leaves entries that are whole and not durable.
            self.sync(&*segment.file, &segment.path, "sync")?;
            segment.learn(&scan.heads, scan.end);
            segment.skipped += scan.skipped;
            segment.gap = segment.gap.or(scan.gap);
            self.meet();
        }
        segment.claims.extend(scan.claims);
        segment.unreadable |= scan.unreadable;
        let tail = length.saturating_sub(segment.end);
        segment.tail = if tail > 0 && self.is_abandoned(segment) { tail } else { 0 };
        Ok(())
    }

    /// Whether nobody is writing to the segment, so that what follows its last good entry is what somebody left.
    fn is_abandoned(&self, segment: &Segment) -> bool {
        let file = self.disk.open(&segment.path, Access::Read(Links::Refuse));
        file.is_ok_and(|file| disk::try_lock(&*file, &segment.path).unwrap_or(false))
    }

    /// Writes the contents of a segment beside it, up to what is damaged: that stays in sight until it is repaired. They are
    /// an index: if that fails, the segment is looked through again the next time, and if they are torn, they are none.
    pub(super) fn index(&self, segment: &mut Segment) {
        let good = |head: &&Head| segment.is_in_reach(head) && segment.is_good(head);
        let heads: Vec<Head> = segment.heads().filter(good).copied().collect();
        // Not further than the last entry: it is the one by which they are known to be of this segment.
        let end = heads.iter().map(Head::end).max().unwrap_or(HEADER as u64);
        let contents = Contents::new(heads, end);
        let written = Temp::create(&self.disk, &self.tmp, 0o600).and_then(|mut temp| {
            temp.write(&contents.encode())?;
            temp.place(&contents_path(&segment.path))
        });
        if written.is_ok() {
            let gap = segment.gap;
            segment.fresh.retain(|_, head| gap.is_some_and(|gap| head.offset >= gap));
            segment.indexed = contents;
        }
    }
}

/// Looks for entries; what is skipped is looked at again, as a fault that passes is no damage.
pub(super) fn scan_twice(file: &dyn Handle, path: &Path, begin: u64, length: u64) -> Result<Scan, DiskError> {
    let scan = entry::scan(file, path, begin, length)?;
    if scan.skipped == 0 && scan.end >= length { Ok(scan) } else { entry::scan(file, path, begin, length) }
}

pub(super) fn contents_path(segment: &Path) -> PathBuf {
    segment.with_extension(&CONTENTS_SUFFIX[1..])
}
