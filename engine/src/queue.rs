//! `Queue`: nodes whose keys another process computes, and those that have been waited for.
//!
//! Each waiting node has a thread that does nothing else, so that it takes neither the coordinator nor a worker. It does
//! not know the plan, nor why a key is wanted.
//!
//! Nothing deadlocks, within a process or between several that compute each other's keys, because whoever holds a claim
//! never waits for another. A claim is held by a node that runs; by one that has been handed out and not begun, as nodes
//! of its kind end within a moment; and by a record on its way to the disk. The first waits for its stage alone: it was
//! given all its inputs before, and if it finds them lost it lets go before they are made again. The second waits for
//! workers, all of which are busy with the first kind. The third waits for the committer, which commits when a batch is
//! full, old, or told to, and takes no claim. What waits for a claim or for room, or pauses before another try, holds
//! none: a claim that comes while there is no room is let go, once it was seen that there is no record, and tried for again
//! when there is room, as others may have room before. What waits behind an equal key of its own process waits for one of
//! these. Two keys that share a lock file do not wait for each other within a process. So some claim is always let go, and
//! each is held only as long as work goes on. The one thing that is not allowed: a stage that itself runs nodes over
//! the same store.
//!
//! Invariants: at most [`WAITERS`] threads wait for one run; a thread that outlives its run, as nothing interrupts a wait
//! for a lock, lets go of what it gets.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Sender;

use headwater_cache::{Claim, Claims, DiskError};

use crate::coordinator::Message;
use crate::manifest::Key;

/// How many nodes wait at once.
pub(crate) const WAITERS: usize = 64;

/// A node whose claim has come.
pub(crate) struct Claimed {
    pub node: usize,
    pub key: Key,
    pub claim: Claim,
}

/// The nodes of one run that wait for claims.
pub(crate) struct Queue {
    claims: Claims,
    answers: Sender<Message>,
    waiting: BTreeMap<usize, Key>,
    claimed: Vec<Claimed>,
}

impl Queue {
    /// An empty queue, whose threads answer by [`Message::Claimed`].
    pub fn new(claims: Claims, answers: Sender<Message>) -> Self {
        Self { claims, answers, waiting: BTreeMap::new(), claimed: Vec::new() }
    }

    /// Whether one more may wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITERS
    }

    /// Whether no node waits and none has a claim.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.claimed.is_empty()
    }

    /// Waits for a claim on a node's key.
    pub fn wait(&mut self, node: usize, key: Key) -> io::Result<()> {
        let (claims, answers) = (self.claims.clone(), self.answers.clone());
        std::thread::Builder::new().name("waiter".into()).spawn(move || {
            let claim = claims.wait(&key.0);
            // If the run has ended, the claim ends with the message.
            let _ = answers.send(Message::Claimed { node, key, claim });
        })?;
        self.waiting.insert(node, key);
        Ok(())
    }

    /// Takes in what a thread has waited for. Of a node that was given up nothing is kept.
    pub fn receive(&mut self, node: usize, key: Key, claim: Result<Claim, DiskError>) -> Result<(), DiskError> {
        if self.waiting.remove(&node).is_some() {
            self.claimed.push(Claimed { node, key, claim: claim? });
        }
        Ok(())
    }

    /// The nodes whose claims have come.
    pub fn claimed(&mut self) -> Vec<Claimed> {
        std::mem::take(&mut self.claimed)
    }

    /// Lets go of all nodes, and gives them with their keys.
    pub fn give_up(&mut self) -> Vec<(usize, Key)> {
        let claimed = self.claimed.drain(..).map(|claimed| (claimed.node, claimed.key));
        std::mem::take(&mut self.waiting).into_iter().chain(claimed).collect()
    }
}
