//! The graph as text, dot, mermaid and svg.
//!
//! The svg is laid out in layers: a box stands one column right of the furthest of those that it reads, and boxes within
//! a column are ordered by the mean place of their neighbours (the barycentre method of Sugiyama, Tagawa and Toda, 1981).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use headwater_engine::NodeId;

use crate::pipeline::Pipeline;

/// What is drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    pub title: String,
    /// Producers before consumers.
    pub boxes: Vec<DrawnBox>,
    /// From, to: indices of boxes.
    pub edges: BTreeSet<(usize, usize)>,
}

/// One box.
#[derive(Debug, Clone, PartialEq)]
pub struct DrawnBox {
    pub name: String,
    pub kind: String,
    /// How many nodes it stands for.
    pub nodes: usize,
}

impl Drawing {
    /// One box a node.
    pub fn of_nodes(pipeline: &Pipeline) -> Self {
        Self::of(pipeline, |id| pipeline.graph.node(id).name.clone())
    }

    /// One box a stage.
    pub fn of_stages(pipeline: &Pipeline) -> Self {
        Self::of(pipeline, |id| pipeline.graph.node(id).stage_name.clone())
    }

    fn of(pipeline: &Pipeline, name: impl Fn(NodeId) -> String) -> Self {
        let graph = &pipeline.graph;
        let mut index: BTreeMap<String, usize> = BTreeMap::new();
        let mut boxes: Vec<DrawnBox> = Vec::new();
        for id in graph.order() {
            let at = *index.entry(name(*id)).or_insert_with(|| {
                boxes.push(DrawnBox { name: name(*id), kind: graph.node(*id).stage.kind.clone(), nodes: 0 });
                boxes.len() - 1
            });
            boxes[at].nodes += 1;
        }
        let edges = graph.ids().flat_map(|to| graph.producers(to).into_iter().map(move |from| (from, to)));
        let edges = edges.map(|(from, to)| (index[&name(from)], index[&name(to)])).filter(|(a, b)| a != b).collect();
        Self { title: pipeline.file.name.clone(), boxes, edges }
    }

    fn readers(&self, at: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges.range((at, 0)..(at + 1, 0)).map(|(_, to)| *to)
    }
}

/// A line a box: its name, its kind, and what it reads.
pub fn text(drawing: &Drawing) -> String {
    let width = drawing.boxes.iter().map(|node| node.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (at, node) in drawing.boxes.iter().enumerate() {
        let reads: Vec<&str> = drawing
            .edges
            .iter()
            .filter(|(_, to)| *to == at)
            .map(|(from, _)| drawing.boxes[*from].name.as_str())
            .collect();
        let reads = if reads.is_empty() { String::new() } else { format!("  <- {}", reads.join(", ")) };
        let _ = writeln!(text, "{:width$}  {:8}{reads}", node.name, node.kind);
    }
    text
}

/// Graphviz.
pub fn dot(drawing: &Drawing) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("digraph {} {{\n  rankdir=LR;\n  node [shape=box];\n", quoted(&drawing.title));
    for node in &drawing.boxes {
        let label = quoted(&format!("{}\\n{}", node.name, node.kind)).replace("\\\\n", "\\n");
        let _ = writeln!(text, "  {} [label={label}];", quoted(&node.name));
    }
    for (from, to) in &drawing.edges {
        let _ = writeln!(text, "  {} -> {};", quoted(&drawing.boxes[*from].name), quoted(&drawing.boxes[*to].name));
    }
    text + "}\n"
}

/// Mermaid.
pub fn mermaid(drawing: &Drawing) -> String {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;");
    let mut text = "flowchart LR\n".to_owned();
    for (at, node) in drawing.boxes.iter().enumerate() {
        let _ = writeln!(text, "  n{at}[\"{}<br/>{}\"]", escaped(&node.name), escaped(&node.kind));
    }
    for (from, to) in &drawing.edges {
        let _ = writeln!(text, "  n{from} --> n{to}");
    }
    text
}

const COLUMN_GAP: f64 = 60.0;
const ROW_HEIGHT: f64 = 58.0;
const BOX_HEIGHT: f64 = 40.0;
const LETTER: f64 = 7.2;
const MARGIN: f64 = 20.0;

struct Placed {
    x: f64,
    y: f64,
    width: f64,
}

/// A picture that stands alone.
pub fn svg(drawing: &Drawing) -> String {
    let columns = order_columns(drawing, columns(drawing));
    let placed = place(drawing, &columns);
    let right = placed.iter().map(|at| at.x + at.width).fold(0.0, f64::max) + MARGIN;
    let bottom = placed.iter().map(|at| at.y + BOX_HEIGHT).fold(0.0, f64::max) + MARGIN;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{right:.0}\" height=\"{bottom:.0}\" viewBox=\"0 0 {right:.0} {bottom:.0}\" font-family=\"sans-serif\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n",
        xml(&drawing.title)
    );
    for (from, to) in &drawing.edges {
        curve(&mut text, &placed[*from], &placed[*to]);
    }
    for (node, at) in drawing.boxes.iter().zip(&placed) {
        draw_box(&mut text, node, at);
    }
    text + "</svg>\n"
}

/// The column of each box: one right of the furthest that it reads.
fn columns(drawing: &Drawing) -> Vec<Vec<usize>> {
    let mut column = vec![0usize; drawing.boxes.len()];
    for at in 0..drawing.boxes.len() {
        for reader in drawing.readers(at) {
            column[reader] = column[reader].max(column[at] + 1);
        }
    }
    let mut columns = vec![Vec::new(); column.iter().max().map_or(0, |last| last + 1)];
    for (at, column) in column.iter().enumerate() {
        columns[*column].push(at);
    }
    columns
}

fn order_columns(drawing: &Drawing, mut columns: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let mut neighbours = vec![Vec::new(); drawing.boxes.len()];
    for (from, to) in &drawing.edges {
        neighbours[*from].push(*to);
        neighbours[*to].push(*from);
    }
    for _ in 0..4 {
        let mut rows = vec![0.0; drawing.boxes.len()];
        for column in &columns {
            for (row, at) in column.iter().enumerate() {
                rows[*at] = (row as f64 + 0.5) / column.len() as f64;
            }
        }
        let mean = |at: usize| {
            let near = &neighbours[at];
            if near.is_empty() { rows[at] } else { near.iter().map(|n| rows[*n]).sum::<f64>() / near.len() as f64 }
        };
        for column in &mut columns {
            column.sort_by(|a, b| mean(*a).total_cmp(&mean(*b)).then(a.cmp(b)));
        }
    }
    columns
}

fn place(drawing: &Drawing, columns: &[Vec<usize>]) -> Vec<Placed> {
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0) as f64;
    let mut placed: Vec<Placed> =
        drawing.boxes.iter().map(|node| Placed { x: 0.0, y: 0.0, width: box_width(node) }).collect();
    let mut x = MARGIN;
    for column in columns {
        let width = column.iter().map(|at| placed[*at].width).fold(0.0, f64::max);
        let top = MARGIN + (tallest - column.len() as f64) * ROW_HEIGHT / 2.0;
        for (row, at) in column.iter().enumerate() {
            placed[*at].x = x;
            placed[*at].y = top + row as f64 * ROW_HEIGHT;
            placed[*at].width = width;
        }
        x += width + COLUMN_GAP;
    }
    placed
}

fn box_width(node: &DrawnBox) -> f64 {
    let longest = node.name.chars().count().max(subtitle(node).chars().count());
    (longest as f64).mul_add(LETTER, 20.0)
}

fn subtitle(node: &DrawnBox) -> String {
    if node.nodes > 1 { format!("{} × {}", node.kind, node.nodes) } else { node.kind.clone() }
}

fn curve(text: &mut String, from: &Placed, to: &Placed) {
    let (x1, y1) = (from.x + from.width, from.y + BOX_HEIGHT / 2.0);
    let (x2, y2) = (to.x, to.y + BOX_HEIGHT / 2.0);
    let middle = f64::midpoint(x1, x2);
    let _ = writeln!(
        text,
        "<path d=\"M{x1:.1} {y1:.1} C{middle:.1} {y1:.1} {middle:.1} {y2:.1} {x2:.1} {y2:.1}\" fill=\"none\" stroke=\"#9aa5b1\" stroke-width=\"1.5\"/>"
    );
}

fn draw_box(text: &mut String, node: &DrawnBox, at: &Placed) {
    let (x, y, width) = (at.x, at.y, at.width);
    let centre = x + width / 2.0;
    let _ = writeln!(
        text,
        "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{BOX_HEIGHT}\" rx=\"6\" fill=\"#eef4fb\" stroke=\"#3b6ea5\"/>\n<text x=\"{centre:.1}\" y=\"{:.1}\" font-size=\"12\" text-anchor=\"middle\" fill=\"#1b2733\">{}</text>\n<text x=\"{centre:.1}\" y=\"{:.1}\" font-size=\"10\" text-anchor=\"middle\" fill=\"#5a6b7b\">{}</text>",
        y + 17.0,
        xml(&node.name),
        y + 32.0,
        xml(&subtitle(node)),
    );
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing() -> Drawing {
        let node = |name: &str, nodes| DrawnBox { name: name.into(), kind: "sql".into(), nodes };
        Drawing {
            title: "a <pipeline>".into(),
            boxes: vec![node("a", 1), node("b", 2), node("c\"&", 1)],
            edges: BTreeSet::from([(0, 1), (1, 2), (0, 2)]),
        }
    }

    #[test]
    fn a_box_stands_right_of_all_that_it_reads() {
        assert_eq!(columns(&drawing()), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn text_names_what_is_read() {
        assert_eq!(text(&drawing()), "a    sql     \nb    sql       <- a\nc\"&  sql       <- a, b\n");
    }

    #[test]
    fn names_are_escaped_in_every_form() {
        assert!(svg(&drawing()).contains("c&quot;&amp;"));
        assert!(dot(&drawing()).contains("\"c\\\"&\""));
        assert!(mermaid(&drawing()).contains("c&quot;&amp;"));
    }
}
