//! What there is and what of it is damaged, for `verify`, a repair and a collection.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::loading::scan_twice;
use super::segment::Segment;
use super::writer::cut;
use super::{SegmentError, Segments};
use crate::digest::Digest;
use crate::disk::{self, DiskError};
use crate::entry::{self, HEADER, Head, Kind};

impl Segments {
    /// Number, length and entries of each segment.
    pub(crate) fn survey(&self) -> Vec<(usize, u64, Vec<Head>)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let segments = loaded.iter().enumerate();
        segments.map(|(number, segment)| (number, segment.end, segment.heads().copied().collect())).collect()
    }

    /// The names of all entries of a kind, and of what damaged bytes claim to be one.
    pub(crate) fn names_and_claims(&self, kind: Kind) -> BTreeSet<Digest> {
        let mut names = self.names(kind);
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let claims = loaded.iter().flat_map(Segment::claims).filter(|head| head.kind == kind);
        names.extend(claims.map(|head| head.name));
        names
    }

    /// Reads every segment whole: number and bytes of its blobs, and the entries that were found before and are damaged;
    /// to repair is not to find these again.
    pub(crate) fn verify(&self, repair: bool) -> Result<Vec<(u64, u64, Vec<Head>)>, SegmentError> {
        let mut verified = Vec::new();
        for (number, end, heads) in self.survey() {
            let (file, path) = self.file(number);
            let scan = scan_twice(&*file, &path, HEADER as u64, end)?;
            let good: BTreeSet<u64> = scan.heads.iter().map(|head| head.offset).collect();
            let blobs = scan.heads.iter().filter(|head| head.kind == Kind::Blob);
            let (count, bytes) = blobs.fold((0, 0), |(n, sum), head| (n + 1, sum + u64::from(head.length)));
            let damaged: Vec<Head> = heads.into_iter().filter(|head| !good.contains(&head.offset)).collect();
            if repair {
                damaged.iter().for_each(|head| self.lose(number, head));
                self.pass_over_damage(number)?;
            }
            verified.push((count, bytes, damaged));
        }
        Ok(verified)
    }

    /// Has those to come not find what was skipped, cuts off what is damaged at the end, and mends the header.
    fn pass_over_damage(&self, number: usize) -> Result<(), SegmentError> {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let segment = &mut loaded[number];
        if segment.damaged() == 0 {
            return Ok(());
        }
        // What is lost at the end is bytes after the last good entry now. Nothing follows what this process appends.
        if self.own.load(Ordering::Acquire) != number {
            segment.end_after(segment.last_good());
            if let Some(file) = self.hold(segment)? {
                cut(&*file, segment)?;
                if std::mem::take(&mut segment.header_is_damaged) {
                    disk::write(&*file, &segment.path, &entry::header(), 0)?;
                }
            }
        }
        segment.gap = None;
        segment.claims.clear();
        self.index(segment);
        Ok(())
    }

    /// What was skipped as damaged, a line a file.
    pub(crate) fn damage(&self) -> Vec<String> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let damaged = loaded.iter().filter(|segment| segment.damaged() > 0);
        let skipped =
            |segment: &Segment| format!("{}: {} damaged bytes were skipped", segment.path.display(), segment.damaged());
        let strange = self.lock_strange();
        let strange = strange.iter().map(|(path, kind)| format!("{} is a {kind}, not a segment", path.display()));
        damaged.map(skipped).chain(strange).collect()
    }

    /// Moves what has the name of a segment and is no file to `quarantine`.
    pub(crate) fn set_strange_aside(&self, quarantine: &Path) -> Result<(), DiskError> {
        for path in std::mem::take(&mut *self.lock_strange()).into_keys() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            disk::set_aside(&*self.disk, &path, quarantine, &name)?;
        }
        Ok(())
    }
}
