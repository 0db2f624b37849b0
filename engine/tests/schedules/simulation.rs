//! Schedules of seeded random graphs, in integers: no thread runs and no time passes.
//!
//! The graphs are of four families, fifty each: *layered* (each node reads up to three of the layer above), *fork-join*
//! (rounds of a fork, its branches, and a join), *trees* (each node reads a random one before it), and *montage-like*
//! (the shape of the Montage mosaic workflow: project, fit neighbours, one model, correct, one sum). Costs are mostly
//! small and sometimes large, as those of stages are.

use std::collections::{BTreeSet, VecDeque};

use headwater_engine::Outcome;
use headwater_engine::plan::{Lists, Plan, State, remaining_paths};
use headwater_engine::room::{Capacities, Request, Room, Seat};

pub const FAMILIES: [&str; 4] = ["layered", "fork-join", "trees", "montage-like"];
/// Graphs of each family.
pub const GRAPHS: u64 = 50;
pub const WORKERS: [u64; 4] = [2, 4, 8, 16];

/// A graph whose nodes read only nodes before them.
pub struct Graph {
    pub producers: Lists,
    pub costs: Vec<u64>,
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn within(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to - from + 1)
    }

    /// One in ten nodes takes about ten times as long as the others.
    fn cost(&mut self) -> u64 {
        let cost = self.within(1, 100) as u64;
        if self.below(10) == 0 { cost * 10 } else { cost }
    }
}

/// The graph of a family with this number.
pub fn graph(family: &str, number: u64) -> Graph {
    let mut random = Random(number * 4 + FAMILIES.iter().position(|name| *name == family).unwrap() as u64);
    let lists: Vec<BTreeSet<usize>> = match family {
        "layered" => layered(&mut random),
        "fork-join" => fork_join(&mut random),
        "trees" => tree(&mut random),
        _ => montage(&mut random),
    };
    let costs = lists.iter().map(|_| random.cost()).collect();
    Graph { producers: lists.into_iter().collect(), costs }
}

fn layered(random: &mut Random) -> Vec<BTreeSet<usize>> {
    let mut lists: Vec<BTreeSet<usize>> = Vec::new();
    let mut above = 0..0;
    for _ in 0..random.within(5, 20) {
        let begin = lists.len();
        for _ in 0..random.within(4, 40) {
            let count = if above.is_empty() { 0 } else { random.within(1, 3) };
            lists.push((0..count).map(|_| above.start + random.below(above.len())).collect());
        }
        above = begin..lists.len();
    }
    lists
}

fn fork_join(random: &mut Random) -> Vec<BTreeSet<usize>> {
    let mut lists = vec![BTreeSet::new()];
    for _ in 0..random.within(3, 10) {
        let fork = lists.len() - 1;
        let mut ends = BTreeSet::new();
        for _ in 0..random.within(8, 40) {
            let mut last = fork;
            for _ in 0..random.within(1, 3) {
                lists.push([last].into());
                last = lists.len() - 1;
            }
            ends.insert(last);
        }
        lists.push(ends);
    }
    lists
}

fn tree(random: &mut Random) -> Vec<BTreeSet<usize>> {
    let nodes = random.within(100, 400);
    (0..nodes).map(|node| if node == 0 { BTreeSet::new() } else { [random.below(node)].into() }).collect()
}

fn montage(random: &mut Random) -> Vec<BTreeSet<usize>> {
    let images = random.within(16, 80);
    let mut lists = vec![BTreeSet::new(); images];
    for image in 0..images {
        for other in [image + 1, image + 4].into_iter().filter(|other| *other < images) {
            lists.push([image, other].into());
        }
    }
    let fits: BTreeSet<usize> = (images..lists.len()).collect();
    lists.push(fits);
    let model = lists.len() - 1;
    lists.extend((0..images).map(|image| BTreeSet::from([model, image])));
    let corrected: BTreeSet<usize> = (model + 1..lists.len()).collect();
    lists.push(corrected);
    lists
}

/// No schedule is shorter: not than the longest path, nor than all work shared out evenly.
pub fn bound(graph: &Graph, workers: u64) -> u64 {
    let longest = remaining_paths(0..graph.costs.len(), &graph.producers, &graph.costs).into_iter().max();
    longest.unwrap_or(0).max(graph.costs.iter().sum::<u64>().div_ceil(workers))
}

/// The length of the engine's schedule: its plan and its room, ranked by the longest remaining path.
pub fn longest_path_first(graph: &Graph, workers: u64) -> u64 {
    let nodes = graph.costs.len();
    let mut plan = Plan::new(&graph.producers, &vec![true; nodes]);
    plan.rank(remaining_paths(0..nodes, &graph.producers, &graph.costs));
    let requests = vec![Request::default(); nodes];
    let mut room = Room::new(&requests, workers as u32, &Capacities::default()).unwrap();
    let mut running: Vec<(u64, usize, Seat)> = Vec::new();
    let mut now = 0;
    while !plan.is_done() {
        while room.is_open()
            && let Some(node) = plan.take()
        {
            running.push((now + graph.costs[node], node, room.enter(node).unwrap()));
        }
        let next = (0..running.len()).min_by_key(|at| (running[*at].0, running[*at].1)).unwrap();
        let (end, node, seat) = running.swap_remove(next);
        now = end;
        room.leave(seat);
        plan.finish(node, Outcome::Ran);
        assert_eq!(plan.state(node), State::Done(Outcome::Ran));
    }
    now
}

/// The length of the schedule in which nodes begin in the order in which they became ready.
pub fn first_in_first_out(graph: &Graph, workers: u64) -> u64 {
    let nodes = graph.costs.len();
    let mut waits: Vec<usize> = graph.producers.iter().map(<[usize]>::len).collect();
    let mut ready: VecDeque<usize> = (0..nodes).filter(|node| waits[*node] == 0).collect();
    let mut running: BTreeSet<(u64, usize)> = BTreeSet::new();
    let mut now = 0;
    loop {
        while running.len() < workers as usize
            && let Some(node) = ready.pop_front()
        {
            running.insert((now + graph.costs[node], node));
        }
        let Some((end, ended)) = running.pop_first() else { return now };
        now = end;
        for (node, reads) in graph.producers.iter().enumerate() {
            if reads.contains(&ended) {
                waits[node] -= 1;
                if waits[node] == 0 {
                    ready.push_back(node);
                }
            }
        }
    }
}

/// What the schedules of a family came to on so many workers.
#[derive(Default)]
pub struct Score {
    /// The mean of bound / length.
    pub efficiency: f64,
    pub efficiency_of_fifo: f64,
    /// The sums of all lengths.
    pub length: u64,
    pub length_of_fifo: u64,
    /// In how many graphs it was longer than first in, first out.
    pub worse: usize,
}

pub fn score(family: &str, workers: u64) -> Score {
    let mut score = Score::default();
    for number in 0..GRAPHS {
        let graph = graph(family, number);
        let (bound, ours, fifo) =
            (bound(&graph, workers), longest_path_first(&graph, workers), first_in_first_out(&graph, workers));
        assert!(bound <= ours && bound <= fifo);
        score.efficiency += bound as f64 / ours as f64 / GRAPHS as f64;
        score.efficiency_of_fifo += bound as f64 / fifo as f64 / GRAPHS as f64;
        score.length += ours;
        score.length_of_fifo += fifo;
        score.worse += usize::from(ours > fifo);
    }
    score
}
