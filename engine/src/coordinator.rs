//! The coordinator: the one place where plan, store and workers meet.
//!
//! It owns the plan and all that is known of the nodes. It takes ready nodes, makes their keys and looks their records
//! up; what is not cached takes up its room, is claimed, so that no other process computes it too, and goes to the crew,
//! which sends one message back. What it made goes to the committer. A run that starts nothing is the same loop told so.
//!
//! A look-up takes up nothing, and putting outs back next to nothing: whatever runs, nodes that are cached are told. What
//! is not cached begins in the order of the plan: before one that was looked up does, whatever is ready and comes before
//! it is looked up.
//!
//! Nodes are claimed some at a time, and the ledger is read again once for all of them. What comes first is reckoned when
//! the first node turns out to need a worker: as long as all is cached, any order will do.
//!
//! Invariants: a node is visited only while all that it reads is done with outputs, and ends as what follows from
//! these; of nodes with one key one runs at a time, in all processes that share the store; a node whose sources changed
//! while it ran is run again once from the new content and then fails; what runs takes up no more than there is; nobody
//! holds a claim and waits for room.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use headwater_cache::{Artifact, Claim, DiskError, Record};

use crate::clock::Pauses;
use crate::committer::Committer;
use crate::compose::Trees;
use crate::crew::{Crew, Work as Job};
use crate::event::{Event, Outcome, Preview};
use crate::graph::{NodeId, Source};
use crate::known::{Failed, Flight, Found, Hit, Inputs, Known, Prepared, Uncommitted};
use crate::manifest::Key;
use crate::misses::Misses;
use crate::pace::Paces;
use crate::plan::{Plan, State};
use crate::queue::{Claimed, Queue};
use crate::recent::Recent;
use crate::room::{Room, Seat};
use crate::run::{Look, Options, Session, SourceError, SourceId, Summary};
use crate::stage::{Failure, Stage};
use crate::worker::{Work, guarded};

/// How many claims are held at once before nothing more begins: each may hold a file open, and a process often may have
/// no more than a thousand.
const CLAIMS: usize = 512;
/// How many nodes are visited before those of them that need a worker begin.
const BATCH: usize = 64;

/// What reaches the coordinator.
pub(crate) enum Message {
    /// From a worker.
    Worked {
        node: usize,
        seconds: f64,
        work: Work,
        /// It only put outs back in place.
        restored: bool,
    },
    /// From a thread that waited for a claim.
    Claimed { node: usize, key: Key, claim: Result<Claim, DiskError> },
    /// From the committer: what became of the next so many items.
    Committed { count: usize, result: Result<(), String> },
    /// From the clock: nodes have paused until this microsecond.
    Rang { moment: u64 },
    /// The run is told to end.
    Raised,
}

/// A run under way; owned by the coordinator.
pub(crate) struct Run<'s, 'e> {
    pub(crate) session: &'s Session<'s>,
    pub(crate) options: &'s Options,
    pub(crate) plan: Plan,
    /// Whether the plan knows what comes first.
    ranked: bool,
    pub(crate) room: Room,
    paces: Paces<'s>,
    pub(crate) looked: BTreeMap<SourceId, Look>,
    pub(crate) recent: Recent,
    pub(crate) known: Vec<Known>,
    /// Whether each node runs whatever its record says.
    pub(crate) forced: Vec<bool>,
    pub(crate) in_flight: BTreeMap<Key, Flight>,
    pub(crate) misses: Misses,
    prepared: Vec<Prepared>,
    /// The ledger has had news since prepared nodes were looked up.
    news: bool,
    /// Keys that this run has computed.
    pub(crate) computed: BTreeSet<Key>,
    /// Records that the committer has, by the number of their item.
    pub(crate) unrecorded: BTreeMap<Key, (u64, Arc<Record>)>,
    /// In the order in which they will be answered.
    pub(crate) uncommitted: VecDeque<Uncommitted>,
    /// Failures that wait for the ends of what their nodes have read, which the committer still has.
    pub(crate) untold: Vec<Failed>,
    pub(crate) committer: Committer,
    /// How many items there were.
    pub(crate) items: u64,
    pub(crate) queue: Queue,
    pub(crate) pauses: Pauses,
    pub(crate) trees: Trees<'s>,
    crew: Crew<'s>,
    /// The threads that put outs back in place.
    restorers: Crew<'s>,
    /// Nodes whose outs are to be put back, and which wait until fewer threads work.
    restores: VecDeque<usize>,
    /// What is handed out.
    running: usize,
    /// How much of that puts outs back.
    restoring: usize,
    pub(crate) stopping: bool,
    pub(crate) sender: Sender<Message>,
    pub(crate) emit: &'e mut dyn FnMut(Event),
}

impl<'s, 'e> Run<'s, 'e> {
    #[allow(clippy::too_many_arguments, reason = "what a session makes for its run, and no two of it belong together")]
    pub(crate) fn new(
        session: &'s Session<'s>,
        options: &'s Options,
        plan: Plan,
        room: Room,
        looked: BTreeMap<SourceId, Look>,
        recent: Recent,
        committer: Committer,
        [crew, restorers]: [Crew<'s>; 2],
        sender: Sender<Message>,
        emit: &'e mut dyn FnMut(Event),
    ) -> Self {
        let nodes = session.graph.len();
        let mut forced = vec![false; nodes];
        options.forced.iter().for_each(|id| forced[id.0] = true);
        Self {
            session,
            options,
            plan,
            ranked: options.preview,
            room,
            paces: Paces::default(),
            looked,
            recent,
            known: std::iter::repeat_with(Known::default).take(nodes).collect(),
            forced,
            in_flight: BTreeMap::new(),
            misses: Misses::default(),
            prepared: Vec::new(),
            news: false,
            computed: BTreeSet::new(),
            unrecorded: BTreeMap::new(),
            uncommitted: VecDeque::new(),
            untold: Vec::new(),
            committer,
            items: 0,
            queue: Queue::new(session.claims.clone(), sender.clone()),
            pauses: Pauses::default(),
            trees: if options.preview { Trees::preview(session.store) } else { Trees::new(session.store) },
            crew,
            restorers,
            restores: VecDeque::new(),
            running: 0,
            restoring: 0,
            stopping: false,
            sender,
            emit,
        }
    }

    /// Goes on until all has ended.
    pub(crate) fn drive(&mut self, messages: &Receiver<Message>) {
        self.fail_sourceless();
        loop {
            self.stopping |= self.options.cancel.is_raised();
            let visited = self.visit_some();
            self.begin_prepared();
            // Why nothing more begins is told before what does not begin.
            if self.stopping && self.untold.is_empty() {
                self.cancel();
            }
            if self.plan.is_done() && self.uncommitted.is_empty() {
                debug_assert!(self.untold.is_empty(), "whatever a failure waits for is among the uncommitted");
                return;
            }
            self.committer.hand_over();
            if !visited {
                let message = self.wait_for(messages);
                self.receive(message);
            }
            while let Ok(message) = messages.try_recv() {
                self.receive(message);
            }
        }
    }

    /// Fails the nodes that read a file which cannot be looked at: nothing that they also read need be made for that.
    fn fail_sourceless(&mut self) {
        // Of a run that was told to end, nothing is looked at.
        if self.options.cancel.is_raised() || self.looked.values().all(Result::is_ok) {
            return;
        }
        for node in 0..self.known.len() {
            let is_open = matches!(self.plan.state(node), State::Waiting(_) | State::Ready);
            if let (true, Some(error)) = (is_open, self.unseen_source(node)) {
                self.fail(node, Failure::new(error));
            }
        }
    }

    fn unseen_source(&self, node: usize) -> Option<SourceError> {
        self.session.graph.inputs(NodeId(node)).iter().find_map(|input| match &input.source {
            Source::File { path, without } => self.looked.get(&(path.clone(), without.clone()))?.clone().err(),
            Source::Output { .. } => None,
        })
    }

    fn wait_for(&mut self, messages: &Receiver<Message>) -> Message {
        if self.running == 0 {
            self.committer.flush();
        }
        // Else the next line would wait for ever.
        let waits =
            self.running > 0 || !self.queue.is_empty() || !self.uncommitted.is_empty() || !self.pauses.is_empty();
        assert!(waits, "a node is ready or runs until all are done");
        messages.recv().expect("the coordinator holds a sender")
    }

    fn visit_some(&mut self) -> bool {
        (0..BATCH).take_while(|_| !self.stopping && self.visit_next()).count() > 0
    }

    /// Goes on with nodes whose claims have come, else with one whose turn has come, else looks a ready one up.
    fn visit_next(&mut self) -> bool {
        self.resume_claimed() || self.restore_next() || self.begin_next() || self.look_at_next()
    }

    /// Reads the ledger again; gives whether others have written records meanwhile.
    fn refresh(&mut self) -> Result<bool, String> {
        let news = self.session.ledger.refresh().map_err(|error| error.to_string())?;
        if news {
            self.recent.forget();
        }
        Ok(news)
    }

    /// Goes on with the nodes whose claims have come: others may want these.
    fn resume_claimed(&mut self) -> bool {
        let claimed = self.queue.claimed();
        if claimed.is_empty() {
            return false;
        }
        // Whoever had the claim has most likely written what is asked for.
        let refreshed = self.refresh();
        for claimed in claimed {
            match &refreshed {
                Ok(news) => {
                    self.news |= news;
                    self.resume(claimed);
                }
                Err(error) => {
                    self.fail_with(claimed.node, error.clone());
                    self.land(claimed.key);
                }
            }
        }
        true
    }

    /// Looks again at a node whose outs are to be put back, if that may be done now.
    fn restore_next(&mut self) -> bool {
        let next = if self.may_restore() { self.restores.pop_front() } else { None };
        if let Some(node) = next {
            self.look_again(node, None);
        }
        next.is_some()
    }

    /// One at a time always; more as long as no more threads work than there are cpus.
    fn may_restore(&self) -> bool {
        self.restoring == 0 || self.running < self.options.jobs
    }

    /// Goes on with a node whose turn it is to take up room, else with the first of those that are not cached, if there is
    /// room and none comes before it that was not looked up.
    fn begin_next(&mut self) -> bool {
        if !self.may_claim() {
            return false;
        }
        if let Some((node, seat)) = self.room.call() {
            self.look_again(node, Some(seat));
            return true;
        }
        let Some(first) = self.misses.first() else { return false };
        let ready = self.plan.peek();
        let rank = |node| (self.plan.priority(node), Reverse(node));
        if ready.is_some_and(|ready| rank(ready) > rank(first)) || !self.has_room_for(first) {
            return false;
        }
        if let Some((node, inputs)) = self.misses.take() {
            self.begin_missed(node, inputs);
        }
        true
    }

    fn look_at_next(&mut self) -> bool {
        let ready = self.plan.take();
        if let Some(node) = ready {
            self.visit(node, None, None);
        }
        ready.is_some()
    }

    /// Whether one more node may be claimed, or wait for its claim.
    fn may_claim(&self) -> bool {
        let claims = self.running + self.prepared.len() + self.unrecorded.len();
        self.queue.has_room() && claims < CLAIMS
    }

    /// Whether a node may ask for room: there is some, or it may be handed out ahead.
    fn has_room_for(&mut self, node: usize) -> bool {
        self.room.is_open() || {
            let lead = self.paces.lead(&self.stage(node).kind);
            // Half of them at a time, as the ledger is read again for each batch.
            let enough = if self.prepared.is_empty() { lead / 2 } else { lead };
            enough > 0 && self.room.is_open_ahead(enough)
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        if self.options.preview {
            return summary;
        }
        for (node, known) in self.known.iter().enumerate() {
            match self.plan.state(node) {
                State::Done(Outcome::Ran) => summary.ran += 1,
                State::Done(Outcome::Cached) => {
                    summary.cached += 1;
                    summary.saved += known.saved;
                }
                State::Done(Outcome::Failed) => summary.failed += 1,
                State::Done(Outcome::Skipped) => summary.skipped += 1,
                State::Done(Outcome::Cancelled) => summary.cancelled += 1,
                State::Unwanted | State::Waiting(_) | State::Ready | State::Running => {}
            }
        }
        summary
    }

    /// Decides about a ready node: cached, prepared, skipped, failed, or it waits: for room, or behind an equal key.
    fn visit(&mut self, node: usize, claimed: Option<(Key, Claim)>, seat: Option<Seat>) {
        self.known[node].seat = seat;
        self.look_at(node, claimed);
        self.unseat(node);
    }

    /// A node that runs no more, or will not now, takes up nothing.
    fn unseat(&mut self, node: usize) {
        if !self.known[node].handed
            && let Some(seat) = self.known[node].seat.take()
        {
            self.room.leave(seat);
        }
    }

    fn look_at(&mut self, node: usize, claimed: Option<(Key, Claim)>) {
        self.known[node].outdated = false;
        self.known[node].key = None;
        if let Some(failed) = self.failed_producer(node) {
            return self.skip(node, failed);
        }
        if self.options.preview && self.preview_below_stale(node) {
            return;
        }
        match self.bind(node) {
            Ok(inputs) => {
                // What it waited for may not be what it needs any more.
                let claim = claimed.filter(|(key, _)| *key == inputs.key).map(|(_, claim)| claim);
                self.decide(node, inputs, claim);
            }
            Err(Failure::Lost(digest)) if !self.options.preview => self.lost(node, digest),
            Err(failure) => self.fail(node, failure),
        }
    }

    fn decide(&mut self, node: usize, inputs: Inputs, claim: Option<Claim>) {
        let key = inputs.key;
        self.known[node].key = Some(key);
        if let Some(flight) = self.in_flight.get_mut(&key) {
            flight.parked.push(node);
            return;
        }
        let forced = self.forced[node] && !self.computed.contains(&key);
        let lost = match self.look_up(node, key, &inputs.bound, forced) {
            Ok(Found::Hit(hit)) => return self.hit(node, key, hit),
            Ok(Found::Miss(lost)) => lost,
            Err(failure) => return self.fail(node, failure),
        };
        if self.options.preview {
            let reason = self.reason(node, &inputs, forced, lost);
            return self.preview(node, Preview::Stale(reason));
        }
        if self.is_ranked_now() {
            return self.plan.put_back(node);
        }
        if self.known[node].seat.is_none() && !(self.may_claim() && self.has_room_for(node)) {
            self.known[node].key = None;
            return self.misses.add(node, self.plan.priority(node), inputs);
        }
        if self.seat(node) {
            self.prepare(Prepared { node, inputs, forced, lost }, claim);
        }
    }

    /// Tells the plan what comes first, if it does not know yet.
    fn is_ranked_now(&mut self) -> bool {
        if std::mem::replace(&mut self.ranked, true) {
            return false;
        }
        self.plan.rank(self.session.priorities(self.options, &self.plan, &self.recent));
        true
    }

    /// Has a node take up its room, or wait for it. Whoever waits holds no claim.
    fn seat(&mut self, node: usize) -> bool {
        if self.known[node].seat.is_none() {
            let lead = self.paces.lead(&self.stage(node).kind);
            self.known[node].seat = self.room.enter_ahead(node, lead);
        }
        let seated = self.known[node].seat.is_some();
        if !seated {
            self.room.wait(node, self.plan.priority(node));
        }
        seated
    }

    fn prepare(&mut self, prepared: Prepared, claim: Option<Claim>) {
        let (node, key) = (prepared.node, prepared.inputs.key);
        match claim.map_or_else(|| self.session.claims.try_claim(&key.0), |claim| Ok(Some(claim))) {
            Ok(Some(claim)) => {
                self.in_flight.insert(key, Flight { claim: Some(claim), ..Flight::default() });
                self.known[node].handed = true;
                self.prepared.push(prepared);
            }
            Ok(None) => self.wait(node, key),
            Err(error) => self.fail(node, Failure::new(error)),
        }
    }

    /// Begins the nodes that are prepared.
    fn begin_prepared(&mut self) {
        let prepared = std::mem::take(&mut self.prepared);
        if prepared.is_empty() {
            return;
        }
        let before = std::mem::take(&mut self.news);
        let news = if self.stopping { Ok(false) } else { self.refresh().map(|news| news || before) };
        let mut jobs = Vec::with_capacity(prepared.len());
        for prepared in prepared {
            let (node, key) = (prepared.node, prepared.inputs.key);
            self.known[node].handed = false;
            match &news {
                _ if self.stopping => {
                    self.plan.put_back(node);
                    self.land(key);
                }
                Ok(news) => jobs.extend(self.begin(prepared, *news)),
                Err(error) => {
                    self.fail_with(node, error.clone());
                    self.land(key);
                }
            }
            self.unseat(node);
        }
        self.crew.hand(jobs);
    }

    /// Starts a node whose key is claimed, unless another process computed that before it could be claimed.
    fn begin(&mut self, prepared: Prepared, news: bool) -> Option<Job<'s>> {
        let Prepared { node, inputs, forced, mut lost } = prepared;
        if news {
            match self.look_up(node, inputs.key, &inputs.bound, forced) {
                Ok(Found::Miss(now)) => lost = now,
                found => {
                    self.land(inputs.key);
                    match found {
                        Ok(Found::Hit(hit)) => self.hit(node, inputs.key, hit),
                        Ok(Found::Miss(_)) => {}
                        Err(failure) => self.fail(node, failure),
                    }
                    return None;
                }
            }
        }
        let reason = self.reason(node, &inputs, forced, lost);
        self.known[node].reason = Some(reason.clone());
        (self.emit)(Event::Started { node: NodeId(node), reason });
        let (options, is_last) = (self.options, !self.has_retries(node));
        Some(self.job(node, false, move |session| session.execute(NodeId(node), inputs, is_last, &options.cancel)))
    }

    /// Has a node wait for another process that computes its key, or one that shares its lock file.
    fn wait(&mut self, node: usize, key: Key) {
        if let Err(error) = self.queue.wait(node, key) {
            return self.fail(node, Failure::new(error));
        }
        self.in_flight.insert(key, Flight::default());
        (self.emit)(Event::Waiting { node: NodeId(node) });
    }

    /// Looks again at a node that holds the claim it waited for.
    fn resume(&mut self, Claimed { node, key, claim }: Claimed) {
        self.land(key);
        if self.plan.is_fed(node) {
            return self.visit(node, Some((key, claim)), None);
        }
        // What it reads was opened again meanwhile, and may need claims itself.
        drop(claim);
        self.plan.put_back(node);
    }

    /// Goes on with a node that was looked up before.
    fn begin_missed(&mut self, node: usize, inputs: Option<Inputs>) {
        match inputs {
            Some(inputs) => {
                self.decide(node, inputs, None);
                self.unseat(node);
            }
            None => self.look_again(node, None),
        }
    }

    /// Looks again at a node that has waited, with the room that it has.
    fn look_again(&mut self, node: usize, seat: Option<Seat>) {
        if self.plan.is_fed(node) {
            return self.visit(node, None, seat);
        }
        if let Some(seat) = seat {
            self.room.leave(seat);
        }
        self.plan.put_back(node);
    }

    /// A key is computed or waited for no more: whoever waits for the same looks again. Gives its claim.
    pub(crate) fn land(&mut self, key: Key) -> Option<Claim> {
        let flight = self.in_flight.remove(&key).unwrap_or_default();
        for parked in flight.parked {
            self.plan.put_back(parked);
        }
        flight.claim
    }

    /// A node that was put back may find that what it reads was opened again and has failed.
    fn failed_producer(&self, node: usize) -> Option<&'s str> {
        let failed = |id: &&usize| {
            matches!(self.plan.state(**id), State::Done(Outcome::Failed | Outcome::Skipped | Outcome::Cancelled))
        };
        let found = self.plan.producers(node).iter().find(failed);
        found.map(|id| self.session.graph.node(NodeId(*id)).name.as_str())
    }

    pub(crate) fn stage(&self, node: usize) -> &'s Stage {
        &self.session.graph.node(NodeId(node)).stage
    }

    fn hit(&mut self, node: usize, key: Key, hit: Hit) {
        let Hit { outputs, seconds, durable } = hit;
        self.known[node].saved = seconds;
        let stage = self.stage(node);
        let in_place = match &stage.outs {
            Some(outs) => guarded(|| outs.in_place(&outputs)),
            None => Ok(true),
        };
        let in_place = match in_place {
            Ok(in_place) => in_place,
            Err(failure) => return self.fail(node, failure),
        };
        if self.options.preview {
            self.known[node].outputs = outputs;
            return self.preview(node, if in_place { Preview::Cached } else { Preview::Restore });
        }
        if in_place {
            let item = if durable { None } else { Some(self.commit(node, None)) };
            return self.succeed(node, outputs, false, item);
        }
        self.restore(node, key, outputs);
    }

    /// Has outs put back in place, now or when fewer threads work. That copies files: it takes up nothing of what the
    /// stage would take.
    fn restore(&mut self, node: usize, key: Key, outputs: Vec<Artifact>) {
        self.unseat(node);
        if !self.may_restore() {
            self.known[node].key = None;
            return self.restores.push_back(node);
        }
        self.in_flight.insert(key, Flight::default());
        self.restoring += 1;
        let stage = self.stage(node);
        let job = self.job(node, true, move |session| session.restore(stage, outputs));
        self.restorers.hand([job]);
    }

    /// Puts all nodes back that wait for their turn.
    pub(crate) fn put_waiting_back(&mut self) {
        let nodes = self.room.give_up().into_iter().chain(self.misses.give_up()).chain(self.restores.drain(..));
        nodes.for_each(|node| self.plan.put_back(node));
    }

    fn job(&mut self, node: usize, restored: bool, work: impl FnOnce(&'s Session<'s>) -> Work + Send + 's) -> Job<'s> {
        self.running += 1;
        self.known[node].handed = true;
        let (session, sender) = (self.session, self.sender.clone());
        Box::new(move || {
            let begun = session.clock.now();
            let work = work(session);
            let seconds = session.clock.now() - begun;
            // The receiver outlives the crew.
            let _ = sender.send(Message::Worked { node, seconds, work, restored });
        })
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Worked { node, seconds, work, restored } => {
                self.running -= 1;
                self.restoring -= usize::from(restored);
                self.known[node].handed = false;
                self.unseat(node);
                self.known[node].seconds += seconds;
                if !restored {
                    self.paces.saw(&self.stage(node).kind, seconds);
                }
                self.worked(node, work, restored);
            }
            Message::Claimed { node, key, claim } => {
                if let Err(error) = self.queue.receive(node, key, claim) {
                    self.fail(node, Failure::new(error));
                    self.land(key);
                }
            }
            Message::Committed { count, result } => self.committed(count, &result),
            Message::Rang { moment } => self.rang(moment),
            Message::Raised => self.stopping = true,
        }
    }
}
