//! How good the engine's schedules are, on a set of graphs that never changes. `benches/schedules.rs` prints the table.

mod simulation;

use headwater_cache::Digest;
use simulation::{FAMILIES, GRAPHS, Score, WORKERS, graph, score};

fn scores() -> Vec<Score> {
    FAMILIES.iter().flat_map(|family| WORKERS.map(|workers| score(family, workers))).collect()
}

#[test]
fn the_longest_path_first_keeps_to_nine_tenths_of_the_bound_and_beats_first_in_first_out() {
    let scores = scores();
    let mean = |of: fn(&Score) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
    let (ours, fifo) = (mean(|score| score.efficiency), mean(|score| score.efficiency_of_fifo));
    assert!(ours >= 0.9, "{ours}");
    assert!(ours > fifo, "{ours} {fifo}");
    for score in &scores {
        assert_eq!(score.worse, 0);
        assert!(score.length < score.length_of_fifo, "{} {}", score.length, score.length_of_fifo);
    }
}

#[test]
fn the_graphs_are_the_same_for_ever() {
    let mut text = String::new();
    for (family, number) in FAMILIES.iter().flat_map(|family| (0..GRAPHS).map(move |number| (family, number))) {
        let graph = graph(family, number);
        let lists: Vec<&[usize]> = graph.producers.iter().collect();
        text += &format!("{family} {number} {lists:?} {:?}\n", graph.costs);
    }
    assert_eq!(Digest::of(text.as_bytes()).short(), "bb0f49ee1b21");
}
