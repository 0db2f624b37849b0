//! `Committer`: makes what workers stored durable and writes their records, many of them with one sync.
//!
//! It works on a thread of its own, so that no worker and no coordinator waits for a disk. It does not know nodes, the
//! plan or what an item is of. When to commit is a matter of time as well, which nothing else in the engine is: what a
//! run gives does not depend on it.
//!
//! Invariants: items are answered in the order in which they came, each once, when it is durable or has failed; after a
//! commit that failed nothing more is written, and every later item fails as that one did, as the disk is not to be
//! trusted; a claim is let go when its record is durable or has failed. It waits for nothing but items and the disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::Duration;
#[allow(clippy::disallowed_types, reason = "it decides when a commit is due, and reaches no output")]
use std::time::Instant;

use headwater_cache::{Claim, Digest, Ledger, Record, Store};

use crate::coordinator::Message;

/// A commit is due when so many records wait for it. Each holds a lock file open, of the thousand that a process may
/// have.
const RECORDS: usize = 256;
/// Or when so many bytes do.
const BYTES: u64 = 64 << 20;
/// Or when the first of them has waited this long: others may want what it has claimed.
const PATIENCE: Duration = Duration::from_millis(100);

/// Something to be made durable: what was put before it was handed in, and a record of it, if any.
pub(crate) struct Item {
    pub record: Option<(Digest, Arc<Record>)>,
    pub claim: Option<Claim>,
}

enum Order {
    Take(Vec<Item>),
    /// Nothing else would come: commit what there is.
    Flush,
}

/// The coordinator's end of the committer. The thread ends when it is dropped.
pub(crate) struct Committer {
    orders: Sender<Order>,
    /// Items that were taken and not handed over.
    taken: Vec<Item>,
    flushed: bool,
}

impl Committer {
    /// Starts the thread; it answers by [`Message::Committed`].
    pub fn start<'scope>(
        threads: &'scope Scope<'scope, '_>,
        store: &'scope Store,
        ledger: &'scope Ledger,
        answers: Sender<Message>,
    ) -> std::io::Result<Self> {
        let (orders, received) = channel();
        let mut desk = Desk { store, ledger, failed: None };
        std::thread::Builder::new().name("committer".into()).spawn_scoped(threads, move || {
            while let Ok(order) = received.recv() {
                let Order::Take(items) = order else { continue };
                let (count, result) = desk.commit(Batch::gather(items, &received));
                // A run that has ended does not ask any more.
                let _ = answers.send(Message::Committed { count, result });
            }
        })?;
        Ok(Self { orders, taken: Vec::new(), flushed: true })
    }

    /// Takes an item, to be handed over with others.
    pub fn take(&mut self, item: Item) {
        self.taken.push(item);
    }

    /// Hands what was taken over to the thread, which need not wake for each of many.
    pub fn hand_over(&mut self) {
        if !self.taken.is_empty() {
            self.flushed = false;
            let items = std::mem::take(&mut self.taken);
            self.order(Order::Take(items));
        }
    }

    /// Has all items committed that were handed in and wait for others.
    pub fn flush(&mut self) {
        self.hand_over();
        if !std::mem::replace(&mut self.flushed, true) {
            self.order(Order::Flush);
        }
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the thread ends when its orders do");
    }
}

/// Items that are committed together.
#[derive(Default)]
struct Batch {
    count: usize,
    records: Vec<(Digest, Arc<Record>)>,
    claims: Vec<Claim>,
    bytes: u64,
}

impl Batch {
    /// Takes items until a commit is due.
    #[allow(clippy::disallowed_types, reason = "see the import")]
    fn gather(first: Vec<Item>, orders: &Receiver<Order>) -> Self {
        let due = Instant::now() + PATIENCE;
        let mut batch = Self::default();
        first.into_iter().for_each(|item| batch.add(item));
        while batch.records.len() < RECORDS && batch.bytes < BYTES {
            match orders.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Order::Take(items)) => items.into_iter().for_each(|item| batch.add(item)),
                Ok(Order::Flush) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        batch
    }

    fn add(&mut self, item: Item) {
        self.count += 1;
        let artifacts = item.record.iter().flat_map(|(_, record)| &record.outputs);
        self.bytes += artifacts.map(|(_, artifact)| artifact.bytes).sum::<u64>();
        self.records.extend(item.record);
        self.claims.extend(item.claim);
    }
}

/// Where batches are committed.
struct Desk<'a> {
    store: &'a Store,
    ledger: &'a Ledger,
    /// Why the first commit failed that did.
    failed: Option<String>,
}

impl Desk<'_> {
    /// Makes a batch durable; gives how many items it was and what became of them. Its claims end here.
    fn commit(&mut self, batch: Batch) -> (usize, Result<(), String>) {
        if self.failed.is_none() {
            let written = catch_unwind(AssertUnwindSafe(|| self.write(&batch.records)));
            // The coordinator waits for an answer whatever happens.
            self.failed = written.unwrap_or_else(|_| Err("the store panicked".into())).err();
        }
        (batch.count, self.failed.clone().map_or(Ok(()), Err))
    }

    fn write(&self, records: &[(Digest, Arc<Record>)]) -> Result<(), String> {
        if records.is_empty() {
            return self.store.commit().map_err(|error| error.to_string());
        }
        self.ledger.append_shared(records).map_err(|error| error.to_string())
    }
}
