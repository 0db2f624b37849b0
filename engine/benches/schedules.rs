//! The table behind `tests/schedules`: simulated lengths of schedules, in integers. No time is measured.

#[path = "../tests/schedules/simulation.rs"]
mod simulation;

use simulation::{FAMILIES, GRAPHS, WORKERS, score};

fn main() {
    println!("{GRAPHS} graphs each; bound = max(longest path, work / workers)");
    println!("graphs         workers  bound/ours  bound/fifo  fifo/ours  graphs in which fifo is shorter");
    let mut mean = (0.0, 0.0);
    for (family, workers) in FAMILIES.iter().flat_map(|family| WORKERS.map(|workers| (family, workers))) {
        let score = score(family, workers);
        let (ours, fifo) = (score.efficiency, score.efficiency_of_fifo);
        let ratio = score.length_of_fifo as f64 / score.length as f64;
        println!("{family:14} {workers:7} {ours:11.4} {fifo:11.4} {ratio:10.4} {:6}", score.worse);
        mean.0 += ours;
        mean.1 += fifo;
    }
    let count = (FAMILIES.len() * WORKERS.len()) as f64;
    println!("{:14} {:7} {:11.4} {:11.4}", "mean", "", mean.0 / count, mean.1 / count);
}
