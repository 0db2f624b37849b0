//! `Paces`: which kinds of stages end within a moment, as far as this run has seen.
//!
//! It does not know nodes, and has no clock. No result depends on it, but when a node is handed out.

use std::collections::BTreeMap;

/// How often in a row a kind must have been quick.
const ENOUGH: u32 = 16;
/// The seconds within which each of these must have ended.
const MOMENT: f64 = 1e-3;
/// How many nodes are handed out at most before a thread is free.
const LEAD: u64 = 256;

/// How often each kind has been quick since it last was not.
#[derive(Default)]
pub(crate) struct Paces<'a>(BTreeMap<&'a str, u32>);

impl<'a> Paces<'a> {
    /// A node of this kind took so long.
    pub fn saw(&mut self, kind: &'a str, seconds: f64) {
        let quick = self.0.entry(kind).or_default();
        *quick = if seconds < MOMENT { quick.saturating_add(1) } else { 0 };
    }

    /// How many nodes of this kind may be handed out before there are threads for them. Of a kind that has just taken
    /// longer it is none: whatever stands behind it would wait, and be kept from other processes.
    pub fn lead(&self, kind: &str) -> u64 {
        if self.0.get(kind).is_some_and(|quick| *quick >= ENOUGH) { LEAD } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_leads_once_it_was_quick_often_enough_in_a_row() {
        let mut paces = Paces::default();
        for _ in 1..ENOUGH {
            paces.saw("quick", 0.0);
            assert_eq!(paces.lead("quick"), 0);
        }
        paces.saw("quick", 0.0);
        assert_eq!((paces.lead("quick"), paces.lead("other")), (LEAD, 0));
        paces.saw("quick", MOMENT);
        for _ in 0..ENOUGH {
            assert_eq!(paces.lead("quick"), 0);
            paces.saw("quick", 0.0);
        }
        assert_eq!(paces.lead("quick"), LEAD);
    }
}
