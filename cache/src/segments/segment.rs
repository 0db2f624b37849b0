//! `Segment`: one segment, how far it has been read, and what was found in it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::SegmentError;
use crate::contents::Contents;
use crate::digest::{Digest, Uniform};
use crate::disk::Handle;
use crate::entry::{self, HEADER, Head, Header, Kind, VERSION};

/// One segment, and how far it has been read.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn Handle>,
    /// Whether entries may be appended: its header is intact, or still missing, and it is not about to be removed.
    pub(super) may_grow: bool,
    /// Whether what is in the place of its header is none, and could be read.
    pub(super) header_is_damaged: bool,
    pub(super) indexed: Contents,
    /// The best of each name behind what is indexed.
    pub(super) fresh: HashMap<(Kind, Digest), Head, Uniform>,
    /// End of the last good entry; 0 as long as there is no header.
    pub(super) end: u64,
    /// That entry.
    pub(super) last: Option<Head>,
    /// By offset, what was found, and then damaged.
    pub(super) lost: BTreeMap<u64, Head>,
    /// Damaged bytes that good entries follow, or that were cut off.
    pub(super) skipped: u64,
    /// Where the first of them begin that were skipped and not repaired since: contents lead so far.
    pub(super) gap: Option<u64>,
    /// What claims to be an entry in what was skipped, and behind the last good entry.
    pub(super) claims: Vec<Head>,
    /// Whether the medium did not give back a part: nothing is cut off or appended then, as it may be another time.
    pub(super) unreadable: bool,
    /// Bytes after the last good entry that nobody is about to make an entry of.
    pub(super) tail: u64,
}

impl Segment {
    pub(super) fn unread(path: PathBuf, file: Arc<dyn Handle>) -> Segment {
        Segment {
            path,
            file,
            may_grow: true,
            header_is_damaged: false,
            indexed: Contents::default(),
            fresh: HashMap::default(),
            end: 0,
            last: None,
            lost: BTreeMap::new(),
            skipped: 0,
            gap: None,
            claims: Vec::new(),
            unreadable: false,
            tail: 0,
        }
    }

    /// Looks at the header, unless that was done; `false` if there is none yet.
    pub(super) fn has_header(&mut self) -> Result<bool, SegmentError> {
        if self.end > 0 {
            return Ok(true);
        }
        match entry::scan_header(&*self.file, &self.path)? {
            Header::Good => {}
            Header::Missing => return Ok(false),
            // A damaged header says nothing: the entries speak for themselves.
            damaged @ (Header::Damaged | Header::Unreadable) => {
                self.header_is_damaged = matches!(damaged, Header::Damaged);
                (self.may_grow, self.skipped) = (false, HEADER as u64);
            }
            Header::Newer(found) => {
                return Err(SegmentError::Version { path: self.path.clone(), found, supported: VERSION });
            }
        }
        self.end = HEADER as u64;
        Ok(true)
    }

    /// Takes in contents, if they are of this file: one that lost its end and has grown again since has other entries there.
    pub(super) fn believe(&mut self, contents: Contents) {
        let last = contents.heads().iter().max_by_key(|head| head.offset).copied();
        if last.is_some_and(|last| last.end() == contents.end && entry::has(&*self.file, &last)) {
            self.end = contents.end.max(self.end);
            self.last = last;
            self.indexed = contents;
        }
    }

    /// Whether the file, of this length, still has what was read of it: somebody may have cut off its end because that was
    /// damaged, and appended since.
    pub(super) fn goes_on(&self, length: u64) -> bool {
        length >= self.end && self.last.is_none_or(|last| entry::has(&*self.file, &last))
    }

    pub(super) fn forget(&mut self) {
        self.indexed = Contents::default();
        self.fresh.clear();
        self.lost.clear();
        self.skipped = 0;
        self.gap = None;
        self.claims.clear();
        self.unreadable = false;
        self.end_after(None);
        self.end = 0;
    }

    /// Takes this for the last good entry.
    pub(super) fn end_after(&mut self, last: Option<Head>) {
        self.end = last.map_or(HEADER as u64, |last| last.end());
        self.last = last;
    }

    /// What follows the last good entry is looked at anew each time.
    pub(super) fn forget_tail(&mut self) {
        self.claims.retain(|claim| claim.offset < self.end);
        self.tail = 0;
    }

    /// What damaged bytes claim to be; what somebody may be about to write is not damaged.
    pub(super) fn claims(&self) -> impl Iterator<Item = &Head> {
        self.claims.iter().filter(|claim| claim.offset < self.end || self.tail > 0)
    }

    pub(super) fn damaged(&self) -> u64 {
        self.skipped + self.tail
    }

    /// Whether contents may say where this lies: nothing is damaged before it that was not repaired.
    pub(super) fn is_in_reach(&self, head: &Head) -> bool {
        self.gap.is_none_or(|gap| head.offset < gap)
    }

    /// Takes in entries that follow each other, up to `end`.
    pub(super) fn learn(&mut self, heads: &[Head], end: u64) {
        for head in heads {
            let best = self.fresh.entry((head.kind, head.name)).or_insert(*head);
            if head.generation >= best.generation {
                *best = *head;
            }
        }
        self.end = end;
        self.last = heads.last().copied().or(self.last);
        self.tail = 0;
    }

    pub(super) fn heads(&self) -> impl Iterator<Item = &Head> {
        self.indexed.heads().iter().chain(self.fresh.values())
    }

    /// Those of a name that were not found damaged, in no order.
    pub(super) fn find(&self, kind: Kind, name: &Digest) -> impl Iterator<Item = &Head> {
        let found = self.fresh.get(&(kind, *name)).into_iter().chain(self.indexed.find(kind, name));
        found.filter(|head| self.is_good(head))
    }

    /// The last of those that were not found damaged.
    pub(super) fn last_good(&self) -> Option<Head> {
        self.heads().filter(|head| self.is_good(head)).max_by_key(|head| head.offset).copied()
    }

    /// Whether an entry that was found was not found damaged since.
    pub(super) fn is_good(&self, head: &Head) -> bool {
        !self.lost.contains_key(&head.offset)
    }
}
