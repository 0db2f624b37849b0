//! `Room`: what nodes take up while they run, and whose turn it is. Pure: nodes and amounts are integers.
//!
//! It does not know why a node runs, what comes before it, nor threads. What a node takes up is its [`Request`]: a number
//! of cpus, of bytes of memory, of gpus, and of whatever the project names by a tag of its own.
//!
//! # Whose turn it is
//!
//! A node that finds no room waits. Of those that wait, and fit, the one with the highest priority goes first, so that small
//! ones fill what a big one cannot use. But a node that has seen [`OVERTAKEN`] others begin while it waited is *due*,
//! the one that has waited longest first, and while a node is due nothing begins before it.
//!
//! So every node that waits gets its turn, as long as what runs comes to an end. While it is not due at most
//! `OVERTAKEN` others begin. From then on only those begin that have waited longer, of which there are no more than
//! waited when it came. Nothing else takes anything up meanwhile, so what runs gives its room back, until all is free; and
//! all is enough for any node, which was checked before the first began.
//!
//! # Ahead
//!
//! Nodes that are known to end within a moment may be handed out before a thread is free, so that threads need not wait
//! for the coordinator ([`Room::enter_ahead`]). They are of one cpu and nothing else, there are as many threads as
//! cpus, and nothing that takes more runs or waits; so those that a thread has begun are never too many.
//!
//! Invariant: what has entered and been begun takes up no more of anything than there is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::num::NonZeroU32;

/// How many others may begin while a node waits, before it is due.
pub const OVERTAKEN: u64 = 16;

/// What a node takes up while it runs; one cpu unless it says more. One that asks for more cpus than there are takes all
/// of them: how many there are is a machine's matter, and no project's.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub cpus: NonZeroU32,
    /// Bytes.
    pub memory: u64,
    pub gpus: u32,
    /// Whatever else there is a limited number of, by the project's own name for it.
    pub tags: BTreeMap<String, u32>,
}

impl Default for Request {
    fn default() -> Self {
        Self { cpus: NonZeroU32::MIN, memory: 0, gpus: 0, tags: BTreeMap::new() }
    }
}

/// What there is for a run, beside its cpus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capacities {
    /// Bytes; without a number, requests of memory count for nothing.
    pub memory: Option<u64>,
    pub gpus: u32,
    /// There is one of a tag that is not named here: nodes that share it run one at a time.
    pub tags: BTreeMap<String, u32>,
}

/// More than there will ever be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// `memory`, `gpus` or a tag.
    pub resource: String,
    pub requested: u64,
    pub capacity: u64,
}

/// What a node has entered with, to be given back.
#[derive(Debug)]
#[must_use = "what is not given back is never free again"]
pub struct Seat(usize);

/// The amounts of resources, by their number; cpus are number 0.
type Amounts = Vec<(usize, u64)>;

/// The number of the class that takes one cpu and nothing else.
const SIMPLE: usize = 0;

/// What is free, and who waits for it.
pub struct Room {
    free: Vec<u64>,
    /// Distinct requests.
    classes: Vec<Amounts>,
    /// The class of each node.
    class_of: Vec<u32>,
    /// Nodes that have entered ahead, beyond all cpus.
    ahead: u64,
    /// Nodes that have entered and are not simple.
    big: usize,
    /// How often a node has entered.
    entered: u64,
    tickets: u64,
    /// The ticket of each node that waits.
    waiting: BTreeMap<usize, u64>,
    /// The waiting nodes of each class; those whose ticket is another are gone.
    ranked: Vec<BinaryHeap<(u64, Reverse<usize>, u64)>>,
    /// The waiting nodes in the order in which they came: ticket, node, and how many had entered before.
    line: VecDeque<(u64, usize, u64)>,
}

impl Room {
    /// All is free. `requests` are those of all nodes.
    ///
    /// # Errors
    /// The nodes that ask for more than there is, each with the first thing that it asks too much of.
    pub fn new<'a>(
        requests: impl IntoIterator<Item = &'a Request>,
        cpus: u32,
        capacities: &Capacities,
    ) -> Result<Self, Vec<(usize, Excess)>> {
        let mut census = Census::new(cpus, capacities);
        let (mut class_of, mut excess) = (Vec::new(), Vec::new());
        for (node, request) in requests.into_iter().enumerate() {
            match census.class_of(request) {
                Ok(class) => class_of.push(class),
                Err(too_much) => excess.push((node, too_much)),
            }
        }
        if !excess.is_empty() {
            return Err(excess);
        }
        let Census { free, classes, .. } = census;
        let ranked = classes.iter().map(|_| BinaryHeap::new()).collect();
        Ok(Self {
            free,
            classes,
            class_of,
            ahead: 0,
            big: 0,
            entered: 0,
            tickets: 0,
            waiting: BTreeMap::new(),
            ranked,
            line: VecDeque::new(),
        })
    }

    /// Whether a node of one cpu could enter.
    pub fn is_open(&mut self) -> bool {
        self.ahead == 0 && self.fits(SIMPLE) && !self.is_due()
    }

    /// Lets a node in that does not wait, if there is room and nobody is due.
    pub fn enter(&mut self, node: usize) -> Option<Seat> {
        let class = self.class_of[node] as usize;
        let may = self.ahead == 0 && self.fits(class) && !self.is_due();
        may.then(|| self.take(class))
    }

    /// Whether a node takes one cpu and nothing else.
    pub fn is_simple(&self, node: usize) -> bool {
        self.class_of[node] as usize == SIMPLE
    }

    /// Whether a simple node could enter, up to so many beyond what there is room for.
    pub fn is_open_ahead(&self, lead: u64) -> bool {
        self.waiting.is_empty() && self.big == 0 && (self.ahead < lead || self.fits(SIMPLE))
    }

    /// Lets a simple node in, up to so many beyond what there is room for. It must be handed to threads that are as many
    /// as the cpus, and take one after another.
    pub fn enter_ahead(&mut self, node: usize, lead: u64) -> Option<Seat> {
        if self.ahead == 0 && self.fits(SIMPLE) {
            return self.enter(node);
        }
        let may = self.is_simple(node) && self.is_open_ahead(lead);
        may.then(|| {
            self.ahead += 1;
            self.entered += 1;
            Seat(SIMPLE)
        })
    }

    /// Takes back what a node entered with.
    pub fn leave(&mut self, Seat(class): Seat) {
        if class == SIMPLE && self.ahead > 0 {
            self.ahead -= 1;
            return;
        }
        for (resource, amount) in &self.classes[class] {
            self.free[*resource] += amount;
        }
        self.big -= usize::from(class != SIMPLE);
    }

    /// Has a node wait, with this priority, until [`Room::call`] gives it.
    pub fn wait(&mut self, node: usize, priority: u64) {
        self.tickets += 1;
        self.waiting.insert(node, self.tickets);
        self.ranked[self.class_of[node] as usize].push((priority, Reverse(node), self.tickets));
        self.line.push_back((self.tickets, node, self.entered));
    }

    /// Lets the next of the waiting nodes in whose turn it is, if it fits.
    pub fn call(&mut self) -> Option<(usize, Seat)> {
        let node = if self.is_due() { self.line.front().map(|(_, node, _)| *node) } else { self.best() };
        let node = node?;
        let class = self.class_of[node] as usize;
        if self.ahead > 0 || !self.fits(class) {
            return None;
        }
        self.waiting.remove(&node);
        Some((node, self.take(class)))
    }

    /// Lets go of all waiting nodes, and gives them.
    pub fn give_up(&mut self) -> Vec<usize> {
        self.line.clear();
        self.ranked.iter_mut().for_each(BinaryHeap::clear);
        std::mem::take(&mut self.waiting).into_keys().collect()
    }

    fn take(&mut self, class: usize) -> Seat {
        for (resource, amount) in &self.classes[class] {
            self.free[*resource] -= amount;
        }
        self.big += usize::from(class != SIMPLE);
        self.entered += 1;
        Seat(class)
    }

    fn fits(&self, class: usize) -> bool {
        self.classes[class].iter().all(|(resource, amount)| self.free[*resource] >= *amount)
    }

    /// Whether the node that has waited longest has been overtaken often enough.
    fn is_due(&mut self) -> bool {
        while let Some((ticket, node, _)) = self.line.front()
            && self.waiting.get(node) != Some(ticket)
        {
            self.line.pop_front();
        }
        self.line.front().is_some_and(|(_, _, before)| self.entered - before >= OVERTAKEN)
    }

    /// Of the waiting nodes that fit, the one with the highest priority.
    fn best(&mut self) -> Option<usize> {
        for ranked in &mut self.ranked {
            while let Some((_, Reverse(node), ticket)) = ranked.peek()
                && self.waiting.get(node) != Some(ticket)
            {
                ranked.pop();
            }
        }
        let fitting = (0..self.classes.len()).filter(|class| self.fits(*class));
        let first = fitting.filter_map(|class| self.ranked[class].peek().map(|(priority, node, _)| (*priority, *node)));
        first.max().map(|(_, Reverse(node))| node)
    }
}

/// Finds the classes of requests.
struct Census<'a> {
    capacities: &'a Capacities,
    numbers: BTreeMap<String, usize>,
    /// What there is of each resource.
    free: Vec<u64>,
    classes: Vec<Amounts>,
    known: BTreeMap<Request, u32>,
    plain: Request,
}

impl<'a> Census<'a> {
    fn new(cpus: u32, capacities: &'a Capacities) -> Self {
        let free = vec![cpus.into(), capacities.memory.unwrap_or(0), capacities.gpus.into()];
        let classes = vec![vec![(0, 1)]];
        Self { capacities, numbers: BTreeMap::new(), free, classes, known: BTreeMap::new(), plain: Request::default() }
    }

    fn class_of(&mut self, request: &Request) -> Result<u32, Excess> {
        if *request == self.plain {
            return Ok(SIMPLE as u32);
        }
        if let Some(class) = self.known.get(request) {
            return Ok(*class);
        }
        let amounts = self.amounts(request)?;
        // As when it asks for memory that is not counted.
        let class = self.classes.iter().position(|class| *class == amounts).unwrap_or_else(|| {
            self.classes.push(amounts);
            self.classes.len() - 1
        });
        let class = u32::try_from(class).expect("there are no more classes than nodes");
        self.known.insert(request.clone(), class);
        Ok(class)
    }

    fn amounts(&mut self, request: &Request) -> Result<Amounts, Excess> {
        let cpus = u64::from(request.cpus.get()).min(self.free[0]);
        let mut asked = vec![("cpus", 0, cpus), ("gpus", 2, request.gpus.into())];
        if self.capacities.memory.is_some() {
            asked.push(("memory", 1, request.memory));
        }
        for (tag, amount) in &request.tags {
            asked.push((tag, self.number(tag), (*amount).into()));
        }
        asked.retain(|(_, _, amount)| *amount > 0);
        if let Some((resource, number, requested)) = asked.iter().find(|(_, number, asked)| *asked > self.free[*number])
        {
            let capacity = self.free[*number];
            return Err(Excess { resource: (*resource).to_owned(), requested: *requested, capacity });
        }
        let mut amounts: Amounts = asked.into_iter().map(|(_, number, amount)| (number, amount)).collect();
        amounts.sort_unstable();
        Ok(amounts)
    }

    fn number(&mut self, tag: &str) -> usize {
        if let Some(number) = self.numbers.get(tag) {
            return *number;
        }
        self.free.push(self.capacities.tags.get(tag).copied().unwrap_or(1).into());
        self.numbers.insert(tag.to_owned(), self.free.len() - 1);
        self.free.len() - 1
    }
}

#[cfg(test)]
#[path = "room_tests.rs"]
mod tests;
