//! Many entries at once, as they lie on the disk.

use std::sync::PoisonError;

use rayon::prelude::*;

use super::Segments;
use crate::digest::Digest;
use crate::disk;
use crate::entry::{self, Head, Kind};
use crate::threads::aside;

/// Entries with no more bytes between them than this are read together.
const GAP: u64 = 16 << 10;
/// And so many bytes at once, but for an entry that begins within them and ends behind.
const STRETCH: u64 = 1 << 20;

impl Segments {
    /// What `take` makes of the payloads of many entries, checked, in no order. They are read as they lie, many with one
    /// call. What cannot be read, or is not what it was, is left out: [`Segments::read`] tells what is wrong with it.
    pub(crate) fn read_together<T: Send>(
        &self,
        kind: Kind,
        names: &[Digest],
        take: impl Fn(&Digest, &[u8]) -> Option<T> + Sync,
    ) -> Vec<T> {
        aside(|| {
            // Sorted, each is looked for from where the one before was.
            let mut names: Vec<&Digest> = names.iter().collect();
            names.par_sort_unstable();
            names.dedup();
            let mut places = self.best_of(kind, &names);
            places.par_sort_unstable_by_key(|(number, head)| (*number, head.offset));
            let together = |(one, before): &(usize, Head), (other, after): &(usize, Head)| {
                // Contents that are forged say that entries overlap.
                let gap = after.offset.checked_sub(before.end());
                one == other && gap.is_some_and(|gap| gap <= GAP) && after.offset / STRETCH == before.offset / STRETCH
            };
            let stretches: Vec<&[(usize, Head)]> = places.chunk_by(together).collect();
            // One buffer for many stretches: a new one each time is cleared by the kernel first.
            let read = |buffer: &mut Vec<u8>, stretch: &&[(usize, Head)]| self.read_stretch(stretch, buffer, &take);
            stretches.par_iter().map_init(Vec::new, read).flatten_iter().collect()
        })
    }

    /// Reads entries of one segment that lie behind each other.
    fn read_stretch<T>(
        &self,
        stretch: &[(usize, Head)],
        buffer: &mut Vec<u8>,
        take: &impl Fn(&Digest, &[u8]) -> Option<T>,
    ) -> Vec<T> {
        let [(number, first), .., (_, last)] = stretch else {
            return stretch.iter().filter_map(|(number, head)| self.read_one(*number, head, take)).collect();
        };
        let (file, _) = self.file(*number);
        let length = usize::try_from(last.end() - first.offset).unwrap_or(0);
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let read = disk::fill(&*file, &mut buffer[..length], first.offset).unwrap_or(0);
        let payload = |head: &Head| {
            let begin = usize::try_from(head.offset - first.offset).ok()?;
            entry::payload_in(buffer[..read].get(begin..)?, head)
        };
        stretch.iter().filter_map(|(_, head)| take(&head.name, payload(head)?)).collect()
    }

    fn read_one<T>(&self, number: usize, head: &Head, take: &impl Fn(&Digest, &[u8]) -> Option<T>) -> Option<T> {
        let (file, path) = self.file(number);
        take(&head.name, &entry::read(&*file, &path, head).ok()??)
    }

    /// Where the best entries of names lie, which are in ascending order.
    fn best_of(&self, kind: Kind, names: &[&Digest]) -> Vec<(usize, Head)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut begins = vec![0; loaded.len()];
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let mut best: Option<(usize, Head)> = None;
            for (number, (segment, begin)) in loaded.iter().zip(&mut begins).enumerate() {
                let fresh = segment.fresh.get(&(kind, **name));
                for head in fresh.into_iter().chain(segment.indexed.find_next(kind, name, begin)) {
                    let better = best.is_none_or(|(_, best)| head.generation > best.generation);
                    if better && segment.is_good(head) {
                        best = Some((number, *head));
                    }
                }
            }
            places.extend(best);
        }
        places
    }
}
