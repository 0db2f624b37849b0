//! `decision_tree`: CART for classes (Gini impurity) and values (squared error), exact and deterministic.
//!
//! After Breiman, Friedman, Olshen, Stone: *Classification and Regression Trees* (1984). Every feature is sorted once;
//! a split keeps the sorted lists by stable partition, so that a level costs O(rows x features). This file knows
//! numbers alone: no frames, no labels. Missing values never reach it.
//!
//! Invariants: the split of a node is the one of greatest gain over all features and all midpoints between neighbouring
//! distinct values; gains that differ by less than 1e-12 of the node's impurity are equal, and among equals the lowest
//! feature, then the lowest threshold wins. An impure node is split even at gain 0, as in scikit-learn (else a tree
//! never learns an exclusive or). Nodes are flattened arrays: the children of a node lie side by side behind it.

use linfa::DatasetBase;
use linfa::traits::{Fit, PredictInplace};
use ndarray::{Array1, ArrayBase, ArrayView1, ArrayView2, Data, Ix2};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checked;

/// Gains closer than this share of the node's impurity are rounding errors of one gain.
const SLACK: f64 = 1e-12;

/// What a tree predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TreeTask {
    Classification,
    Regression,
}

/// Hyper-parameters of a decision tree; names and meanings are scikit-learn's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TreeConfig {
    /// The greatest number of splits between root and leaf, 1 or more; none means no bound.
    #[serde(default, deserialize_with = "checked::max_depth")]
    pub max_depth: Option<u32>,
    /// A node with fewer rows is a leaf; 2 or more.
    #[serde(default = "two", deserialize_with = "checked::min_samples_split")]
    pub min_samples_split: u32,
    /// No split leaves fewer rows on a side; 1 or more.
    #[serde(default = "one", deserialize_with = "checked::min_samples_leaf")]
    pub min_samples_leaf: u32,
    /// A split must lower the impurity by this much, weighted by the node's share of all rows
    /// (scikit-learn's `min_impurity_decrease`); 0 or more.
    #[serde(default, deserialize_with = "checked::min_gain")]
    pub min_gain: f64,
    /// Default: a bool or text target is classes, a numeric one is values.
    #[serde(default)]
    pub task: Option<TreeTask>,
}

fn one() -> u32 {
    1
}

fn two() -> u32 {
    2
}

impl Default for TreeConfig {
    fn default() -> Self {
        Self { max_depth: None, min_samples_split: 2, min_samples_leaf: 1, min_gain: 0.0, task: None }
    }
}

/// A fitted tree as flat arrays, an element a node; node 0 is the root.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// The feature that the node splits; 0 for a leaf.
    pub feature: Vec<u32>,
    /// A row goes left if its feature is at most this; 0 for a leaf.
    pub threshold: Vec<f64>,
    /// The left child, the right one follows it; 0 for a leaf.
    pub left: Vec<u32>,
    /// How many values a node has: the number of classes, or 1 for a regression.
    pub outputs: u32,
    /// Each node's values, nodes x outputs: shares of the classes, or the mean.
    pub values: Vec<f64>,
    /// Each feature's share of the total decrease of impurity ("Gini importance"); they sum to 1, or are all 0 for a
    /// tree without a split.
    pub importances: Vec<f64>,
}

impl Tree {
    /// The values of the leaf that a row falls into.
    pub fn leaf(&self, row: &[f64]) -> &[f64] {
        let mut node = 0;
        while self.left[node] != 0 {
            let right = row[self.feature[node] as usize] > self.threshold[node];
            node = self.left[node] as usize + usize::from(right);
        }
        let outputs = self.outputs as usize;
        &self.values[node * outputs..(node + 1) * outputs]
    }

    /// The number of splits on the longest way from the root to a leaf.
    pub fn depth(&self) -> u32 {
        let mut depths = vec![0; self.left.len()];
        for (node, &left) in self.left.iter().enumerate().filter(|(_, left)| **left != 0) {
            depths[left as usize] = depths[node] + 1;
            depths[left as usize + 1] = depths[node] + 1;
        }
        depths.into_iter().max().unwrap_or(0)
    }

    /// The number of leaves.
    pub fn leaves(&self) -> usize {
        self.left.iter().filter(|left| **left == 0).count()
    }

    /// Whether walking these arrays stays within them and ends; decoded ones are not trusted.
    pub(crate) fn check(&self, features: usize, outputs: usize) -> Result<(), String> {
        let nodes = self.left.len();
        let lengths = [self.feature.len(), self.threshold.len()];
        if nodes == 0 || lengths != [nodes; 2] || self.outputs as usize != outputs || outputs == 0 {
            return Err("the tree's arrays do not agree".into());
        }
        if nodes.checked_mul(outputs) != Some(self.values.len()) || self.importances.len() != features {
            return Err("the tree's arrays do not agree".into());
        }
        let finite = |values: &[f64]| values.iter().all(|value| value.is_finite());
        if !finite(&self.threshold) || !finite(&self.values) || !finite(&self.importances) {
            return Err("the tree holds a number that is not finite".into());
        }
        let mut free = 1;
        for (node, &left) in self.left.iter().enumerate().filter(|(_, left)| **left != 0) {
            let left = left as usize;
            // Children are laid down pair by pair in the order of their parents: no loops, and one parent each.
            if node >= free || left != free || left + 1 >= nodes || self.feature[node] as usize >= features {
                return Err(format!("the tree's node {node} has a child or a feature out of place"));
            }
            free = left + 2;
        }
        if free == nodes { Ok(()) } else { Err("the tree has nodes without a parent".into()) }
    }
}

/// Classes as indices from 0; there are as many as the greatest index says.
impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<usize>, linfa::Error> for TreeConfig {
    type Object = Tree;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<usize>>) -> linfa::error::Result<Tree> {
        let classes = dataset.targets().view();
        check_shape(dataset.records(), classes.len())?;
        let count = classes.iter().max().map_or(1, |class| class + 1);
        Ok(grow(self, dataset.records().view(), Gini::new(classes, count)))
    }
}

impl<D: Data<Elem = f64>> Fit<ArrayBase<D, Ix2>, Array1<f64>, linfa::Error> for TreeConfig {
    type Object = Tree;

    fn fit(&self, dataset: &DatasetBase<ArrayBase<D, Ix2>, Array1<f64>>) -> linfa::error::Result<Tree> {
        check_shape(dataset.records(), dataset.targets().len())?;
        Ok(grow(self, dataset.records().view(), SquaredError::new(dataset.targets().view())))
    }
}

impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<usize>> for Tree {
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<D, Ix2>, y: &mut Array1<usize>) {
        for (row, y) in x.rows().into_iter().zip(y.iter_mut()) {
            *y = crate::model::greatest(self.leaf(&row.to_vec()));
        }
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<usize> {
        Array1::zeros(x.nrows())
    }
}

impl<D: Data<Elem = f64>> PredictInplace<ArrayBase<D, Ix2>, Array1<f64>> for Tree {
    fn predict_inplace<'a>(&'a self, x: &'a ArrayBase<D, Ix2>, y: &mut Array1<f64>) {
        for (row, y) in x.rows().into_iter().zip(y.iter_mut()) {
            *y = self.leaf(&row.to_vec())[0];
        }
    }

    fn default_target(&self, x: &ArrayBase<D, Ix2>) -> Array1<f64> {
        Array1::zeros(x.nrows())
    }
}

fn check_shape<D: Data<Elem = f64>>(x: &ArrayBase<D, Ix2>, targets: usize) -> linfa::error::Result<()> {
    if x.nrows() != targets || x.nrows() > u32::MAX as usize / 2 {
        return Err(linfa::Error::Parameters(format!("{} rows, {targets} targets", x.nrows())));
    }
    if x.is_empty() || x.iter().any(|value| !value.is_finite()) {
        return Err(linfa::Error::Parameters("a tree takes one or more rows of finite features".into()));
    }
    Ok(())
}

/// A row's place in the sorted list of one feature. Ranks stand for the values: neighbouring ones differ by 1, and
/// comparing them touches no other memory.
#[derive(Clone, Copy)]
struct Entry {
    rank: u32,
    row: u32,
}

/// One feature's rows in ascending order, and its distinct values by rank.
struct Sorted {
    entries: Vec<Entry>,
    values: Vec<f64>,
}

impl Sorted {
    fn new(column: ArrayView1<'_, f64>) -> Self {
        // Adding 0 turns -0 into 0: the two compare as equal and must share a rank.
        let mut order: Vec<(u64, u32)> = (0..).zip(column).map(|(row, value)| (ascending(value + 0.0), row)).collect();
        order.sort_by_key(|(key, _)| *key);
        let mut values: Vec<f64> = Vec::new();
        let mut last = None;
        let entries = order.into_iter().map(|(key, row)| {
            if last != Some(key) {
                last = Some(key);
                values.push(column[row as usize] + 0.0);
            }
            Entry { rank: (values.len() - 1) as u32, row }
        });
        Self { entries: entries.collect(), values }
    }

    /// The threshold between two neighbours: their midpoint, unless rounding takes it up to the greater one.
    fn threshold(&self, lower: u32, upper: u32) -> f64 {
        let (lower, upper) = (self.values[lower as usize], self.values[upper as usize]);
        // Halving first cannot overflow.
        let middle = lower / 2.0 + upper / 2.0;
        if middle >= lower && middle < upper { middle } else { lower }
    }
}

/// An integer that sorts as the float does.
fn ascending(value: f64) -> u64 {
    let bits = value.to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// How the impurity of a node and the gain of a split are measured. Both count rows: they are sums, not means.
trait Criterion {
    /// Turns to a node; `rows` are all its rows.
    fn enter(&mut self, rows: &[Entry]);
    /// The impurity of the node times its rows; 0 if and only if it is pure.
    fn impurity(&self) -> f64;
    /// Appends the node's values.
    fn push_values(&self, values: &mut Vec<f64>);
    /// How many values that is.
    fn outputs(&self) -> usize;
    /// Starts a scan: all rows of the node are on the right.
    fn restart(&mut self);
    /// Takes a row from the right to the left.
    fn shift(&mut self, row: u32);
    /// The decrease of impurity times rows, with these numbers of rows on either side.
    fn gain(&self, left: usize, right: usize) -> f64;
}

/// Gini impurity, 1 - sum of squared shares of the classes. Sums of squared counts are exact integers.
struct Gini {
    classes: Vec<u32>,
    counts: Vec<u64>,
    left: Vec<u64>,
    rows: u64,
    squares: u64,
    left_squares: u64,
    right_squares: u64,
}

impl Gini {
    fn new(classes: ArrayView1<'_, usize>, count: usize) -> Self {
        let (counts, left) = (vec![0; count], vec![0; count]);
        let classes = classes.iter().map(|class| *class as u32).collect();
        Self { classes, counts, left, rows: 0, squares: 0, left_squares: 0, right_squares: 0 }
    }
}

impl Criterion for Gini {
    fn enter(&mut self, rows: &[Entry]) {
        self.counts.fill(0);
        for entry in rows {
            self.counts[self.classes[entry.row as usize] as usize] += 1;
        }
        self.rows = rows.len() as u64;
        self.squares = self.counts.iter().map(|count| count * count).sum();
    }

    fn impurity(&self) -> f64 {
        (self.rows * self.rows - self.squares) as f64 / self.rows as f64
    }

    fn push_values(&self, values: &mut Vec<f64>) {
        values.extend(self.counts.iter().map(|count| *count as f64 / self.rows as f64));
    }

    fn outputs(&self) -> usize {
        self.counts.len()
    }

    fn restart(&mut self) {
        self.left.fill(0);
        self.left_squares = 0;
        self.right_squares = self.squares;
    }

    fn shift(&mut self, row: u32) {
        let class = self.classes[row as usize] as usize;
        let left = self.left[class];
        let right = self.counts[class] - left;
        // (n + 1)^2 - n^2 and n^2 - (n - 1)^2.
        self.left_squares += 2 * left + 1;
        self.right_squares -= 2 * right - 1;
        self.left[class] = left + 1;
    }

    fn gain(&self, left: usize, right: usize) -> f64 {
        let parts = self.left_squares as f64 / left as f64 + self.right_squares as f64 / right as f64;
        (parts - self.squares as f64 / self.rows as f64).max(0.0)
    }
}

/// Sum of squared differences from the mean. Deviations are taken from the node's own mean, so no digits cancel.
struct SquaredError {
    targets: Vec<f64>,
    mean: f64,
    impurity: f64,
    rows: f64,
    left: f64,
}

impl SquaredError {
    fn new(targets: ArrayView1<'_, f64>) -> Self {
        Self { targets: targets.to_vec(), mean: 0.0, impurity: 0.0, rows: 0.0, left: 0.0 }
    }
}

impl Criterion for SquaredError {
    fn enter(&mut self, rows: &[Entry]) {
        let first = self.targets[rows[0].row as usize];
        let targets = || rows.iter().map(|entry| self.targets[entry.row as usize]);
        // Relative to one of the values, the mean of equal values is that value to the bit.
        let rows = rows.len() as f64;
        let mean = first + targets().map(|value| value - first).sum::<f64>() / rows;
        let impurity = targets().map(|value| (value - mean) * (value - mean)).sum();
        (self.mean, self.impurity, self.rows) = (mean, impurity, rows);
    }

    fn impurity(&self) -> f64 {
        self.impurity
    }

    fn push_values(&self, values: &mut Vec<f64>) {
        values.push(self.mean);
    }

    fn outputs(&self) -> usize {
        1
    }

    fn restart(&mut self) {
        self.left = 0.0;
    }

    fn shift(&mut self, row: u32) {
        self.left += self.targets[row as usize] - self.mean;
    }

    /// With deviations that sum to 0 over the node, n_l n_r / n (mean_l - mean_r)^2 = (sum over the left)^2 n / (n_l
    /// n_r).
    fn gain(&self, left: usize, right: usize) -> f64 {
        self.left * self.left * self.rows / (left as f64 * right as f64)
    }
}

/// A split of a node: the first `left` rows in the order of `feature` go left.
#[derive(Clone, Copy)]
struct Split {
    feature: usize,
    left: usize,
    gain: f64,
}

/// A node that waits for its turn: its part of every sorted list, and its depth.
struct Waiting {
    node: usize,
    start: usize,
    end: usize,
    depth: u32,
}

struct Growing<'a> {
    config: &'a TreeConfig,
    sorted: Vec<Sorted>,
    goes_left: Vec<bool>,
    scratch: Vec<Entry>,
    tree: Tree,
}

fn grow<C: Criterion>(config: &TreeConfig, x: ArrayView2<'_, f64>, mut criterion: C) -> Tree {
    let rows = x.nrows();
    let mut growing = Growing {
        config,
        sorted: x.columns().into_iter().map(Sorted::new).collect(),
        goes_left: vec![false; rows],
        scratch: vec![Entry { rank: 0, row: 0 }; rows],
        tree: Tree {
            feature: vec![0],
            threshold: vec![0.0],
            left: vec![0],
            outputs: criterion.outputs() as u32,
            values: Vec::new(),
            importances: vec![0.0; x.ncols()],
        },
    };
    // First in, first out: a parent comes before its children, so their places ascend with it.
    let mut waiting = std::collections::VecDeque::from([Waiting { node: 0, start: 0, end: rows, depth: 0 }]);
    while let Some(node) = waiting.pop_front() {
        criterion.enter(&growing.sorted[0].entries[node.start..node.end]);
        criterion.push_values(&mut growing.tree.values);
        if let Some(split) = growing.best_split(&mut criterion, &node) {
            waiting.extend(growing.split(&node, split));
        }
    }
    growing.finish()
}

impl Growing<'_> {
    fn may_split(&self, rows: usize, depth: u32) -> bool {
        rows >= self.config.min_samples_split as usize
            && rows / 2 >= self.config.min_samples_leaf as usize
            && self.config.max_depth.is_none_or(|deepest| depth < deepest)
    }

    fn best_split<C: Criterion>(&self, criterion: &mut C, node: &Waiting) -> Option<Split> {
        let impurity = criterion.impurity();
        if impurity <= 0.0 || !self.may_split(node.end - node.start, node.depth) {
            return None;
        }
        let mut best: Option<Split> = None;
        for feature in 0..self.sorted.len() {
            self.scan(criterion, node, feature, SLACK * impurity, &mut best);
        }
        let all = self.goes_left.len() as f64;
        best.filter(|split| split.gain / all >= self.config.min_gain)
    }

    fn scan<C: Criterion>(
        &self,
        criterion: &mut C,
        node: &Waiting,
        feature: usize,
        slack: f64,
        best: &mut Option<Split>,
    ) {
        let entries = &self.sorted[feature].entries[node.start..node.end];
        let (rows, least) = (entries.len(), self.config.min_samples_leaf as usize);
        if entries[0].rank == entries[rows - 1].rank {
            return;
        }
        criterion.restart();
        for left in 1..=rows - least {
            criterion.shift(entries[left - 1].row);
            if left < least || left == rows || entries[left - 1].rank == entries[left].rank {
                continue;
            }
            let gain = criterion.gain(left, rows - left);
            if best.is_none_or(|best| gain > best.gain + slack) {
                *best = Some(Split { feature, left, gain });
            }
        }
    }

    /// Makes the two children of a node; they wait for their turn, left before right.
    fn split(&mut self, node: &Waiting, split: Split) -> [Waiting; 2] {
        let middle = node.start + split.left;
        let chosen = &self.sorted[split.feature];
        let threshold = chosen.threshold(chosen.entries[middle - 1].rank, chosen.entries[middle].rank);
        for (at, entry) in chosen.entries[node.start..node.end].iter().enumerate() {
            self.goes_left[entry.row as usize] = at < split.left;
        }
        let depth = node.depth + 1;
        let splits_again = self.may_split(split.left, depth) || self.may_split(node.end - middle, depth);
        // Of leaves alone, only the rows themselves are wanted, for which one list will do.
        let lists = if splits_again { self.sorted.len() } else { 1 };
        for feature in (0..lists).filter(|feature| *feature != split.feature) {
            partition(&mut self.sorted[feature].entries[node.start..node.end], &self.goes_left, &mut self.scratch);
        }
        self.push_children(node, split, threshold, middle)
    }

    fn push_children(&mut self, node: &Waiting, split: Split, threshold: f64, middle: usize) -> [Waiting; 2] {
        let tree = &mut self.tree;
        let left = tree.left.len();
        tree.feature[node.node] = split.feature as u32;
        tree.threshold[node.node] = threshold;
        tree.left[node.node] = left as u32;
        tree.importances[split.feature] += split.gain;
        tree.feature.extend([0, 0]);
        tree.threshold.extend([0.0, 0.0]);
        tree.left.extend([0, 0]);
        let depth = node.depth + 1;
        [
            Waiting { node: left, start: node.start, end: middle, depth },
            Waiting { node: left + 1, start: middle, end: node.end, depth },
        ]
    }

    fn finish(self) -> Tree {
        let mut tree = self.tree;
        let total: f64 = tree.importances.iter().sum();
        if total > 0.0 {
            tree.importances.iter_mut().for_each(|importance| *importance /= total);
        }
        tree
    }
}

/// Stable: either side keeps its order. Without branches, for the two sides come as if at random.
fn partition(entries: &mut [Entry], goes_left: &[bool], scratch: &mut [Entry]) {
    let (mut left, mut right) = (0, 0);
    for at in 0..entries.len() {
        let entry = entries[at];
        let to_left = goes_left[entry.row as usize];
        entries[left] = entry;
        scratch[right] = entry;
        left += usize::from(to_left);
        right += usize::from(!to_left);
    }
    entries[left..].copy_from_slice(&scratch[..right]);
}

#[cfg(test)]
mod tests {
    use linfa::traits::Predict;
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    use super::*;

    fn classes(config: &TreeConfig, x: &Array2<f64>, y: &[usize]) -> Tree {
        config.fit(&DatasetBase::new(x.view(), Array1::from(y.to_vec()))).unwrap()
    }

    fn values(config: &TreeConfig, x: &Array2<f64>, y: &[f64]) -> Tree {
        config.fit(&DatasetBase::new(x.view(), Array1::from(y.to_vec()))).unwrap()
    }

    /// The impurity times rows, from its definition.
    fn gini(y: &[usize]) -> f64 {
        let rows = y.len() as f64;
        let share = |class| y.iter().filter(|other| **other == class).count() as f64 / rows;
        rows * (1.0 - (0..8).map(|class| share(class) * share(class)).sum::<f64>())
    }

    fn squared_error(y: &[f64]) -> f64 {
        let mean = y.iter().sum::<f64>() / y.len() as f64;
        y.iter().map(|value| (value - mean) * (value - mean)).sum()
    }

    /// A node of the oracle: split on a feature at a threshold, or the targets of a leaf.
    #[derive(Debug, PartialEq)]
    enum Oracle<T> {
        Split(usize, f64, Box<Oracle<T>>, Box<Oracle<T>>),
        Leaf(Vec<T>),
    }

    /// Tries every feature and every midpoint, with impurities from their definition.
    fn oracle<T: Copy>(
        config: &TreeConfig,
        x: &[Vec<f64>],
        y: &[T],
        depth: u32,
        all: usize,
        impurity: fn(&[T]) -> f64,
    ) -> Oracle<T> {
        let whole = impurity(y);
        let stop =
            config.max_depth.is_some_and(|deepest| depth == deepest) || y.len() < config.min_samples_split as usize;
        let mut best: Option<(f64, usize, f64)> = None;
        if whole > 1e-12 && !stop {
            for feature in 0..x[0].len() {
                let mut levels: Vec<f64> = x.iter().map(|row| row[feature]).collect();
                levels.sort_by(f64::total_cmp);
                levels.dedup();
                for pair in levels.windows(2) {
                    let threshold = (pair[0] + pair[1]) / 2.0;
                    let side = |left: bool| -> Vec<T> {
                        let rows = x.iter().zip(y).filter(|(row, _)| (row[feature] <= threshold) == left);
                        rows.map(|(_, y)| *y).collect()
                    };
                    let (left, right) = (side(true), side(false));
                    if left.len().min(right.len()) < config.min_samples_leaf as usize {
                        continue;
                    }
                    // Of gain 0, rounding can make less.
                    let gain = (whole - impurity(&left) - impurity(&right)).max(0.0);
                    if best.is_none_or(|best| gain > best.0 + 1e-9 * whole) {
                        best = Some((gain, feature, threshold));
                    }
                }
            }
        }
        let Some((_, feature, threshold)) = best.filter(|best| best.0 / all as f64 >= config.min_gain) else {
            return Oracle::Leaf(y.to_vec());
        };
        let side = |left: bool| {
            let rows = x.iter().zip(y).filter(|(row, _)| (row[feature] <= threshold) == left);
            let (x, y): (Vec<Vec<f64>>, Vec<T>) = rows.map(|(row, y)| (row.clone(), *y)).unzip();
            Box::new(oracle(config, &x, &y, depth + 1, all, impurity))
        };
        Oracle::Split(feature, threshold, side(true), side(false))
    }

    /// Walks a tree beside its oracle.
    fn same<T>(tree: &Tree, node: usize, oracle: &Oracle<T>, leaf: &dyn Fn(&[f64], &[T]) -> bool) -> bool {
        let outputs = tree.outputs as usize;
        match oracle {
            Oracle::Leaf(y) => tree.left[node] == 0 && leaf(&tree.values[node * outputs..(node + 1) * outputs], y),
            Oracle::Split(feature, threshold, left, right) => {
                let at = tree.left[node] as usize;
                at != 0
                    && tree.feature[node] as usize == *feature
                    && tree.threshold[node] == *threshold
                    && same(tree, at, left, leaf)
                    && same(tree, at + 1, right, leaf)
            }
        }
    }

    fn table(rows: &[(Vec<u8>, u8)]) -> (Array2<f64>, Vec<Vec<f64>>) {
        let lists: Vec<Vec<f64>> = rows.iter().map(|(row, _)| row.iter().map(|v| f64::from(*v)).collect()).collect();
        (Array2::from_shape_fn((rows.len(), lists[0].len()), |(row, column)| lists[row][column]), lists)
    }

    fn configs() -> impl Strategy<Value = TreeConfig> {
        (proptest::option::of(1u32..5), 2u32..6, 1u32..4, 0u8..3).prop_map(|(max_depth, split, leaf, gain)| {
            TreeConfig {
                max_depth,
                min_samples_split: split,
                min_samples_leaf: leaf,
                min_gain: f64::from(gain) * 0.0173,
                task: None,
            }
        })
    }

    fn rows() -> impl Strategy<Value = Vec<(Vec<u8>, u8)>> {
        (1usize..4).prop_flat_map(|features| {
            proptest::collection::vec((proptest::collection::vec(0u8..7, features), 0u8..3), 1..30)
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn classes_are_split_as_brute_force_does(config in configs(), rows in rows()) {
            let (x, lists) = table(&rows);
            let y: Vec<usize> = rows.iter().map(|(_, y)| usize::from(*y)).collect();
            let tree = classes(&config, &x, &y);
            let expected = oracle(&config, &lists, &y, 0, y.len(), gini);
            let shares = |found: &[f64], y: &[usize]| found.iter().enumerate().all(|(class, share)| {
                *share == y.iter().filter(|other| **other == class).count() as f64 / y.len() as f64
            });
            prop_assert!(same(&tree, 0, &expected, &shares), "{:?}\n{:?}", tree, expected);
            prop_assert_eq!(tree.check(lists[0].len(), tree.outputs as usize), Ok(()));
        }

        #[test]
        fn values_are_split_as_brute_force_does(config in configs(), rows in rows()) {
            let (x, lists) = table(&rows);
            let y: Vec<f64> = rows.iter().map(|(_, y)| f64::from(*y) * 4.0).collect();
            let tree = values(&config, &x, &y);
            let expected = oracle(&config, &lists, &y, 0, y.len(), squared_error);
            let mean = |found: &[f64], y: &[f64]| (found[0] - y.iter().sum::<f64>() / y.len() as f64).abs() < 1e-12;
            prop_assert!(same(&tree, 0, &expected, &mean), "{:?}\n{:?}", tree, expected);
            prop_assert_eq!(tree.check(lists[0].len(), 1), Ok(()));
        }

        /// Order is all that matters: a growing map of a feature moves thresholds, never a row to another leaf.
        #[test]
        fn a_growing_map_of_the_features_changes_no_training_prediction(rows in rows()) {
            let (x, _) = table(&rows);
            let y: Vec<usize> = rows.iter().map(|(_, y)| usize::from(*y)).collect();
            let config = TreeConfig { max_depth: Some(4), ..TreeConfig::default() };
            let grown = x.mapv(|value| value * value * value - 100.0);
            let one: Array1<usize> = classes(&config, &x, &y).predict(&x);
            let other: Array1<usize> = classes(&config, &grown, &y).predict(&grown);
            prop_assert_eq!(one, other);
        }

        /// More depth never raises the training error.
        #[test]
        fn a_deeper_tree_fits_its_training_rows_no_worse(rows in rows()) {
            let (x, _) = table(&rows);
            let y: Vec<f64> = rows.iter().map(|(_, y)| f64::from(*y)).collect();
            let mut last = f64::INFINITY;
            for depth in 1..6 {
                let tree = values(&TreeConfig { max_depth: Some(depth), ..TreeConfig::default() }, &x, &y);
                prop_assert!(tree.depth() <= depth);
                let found: Array1<f64> = tree.predict(&x);
                let error: f64 = found.iter().zip(&y).map(|(p, y)| (p - y) * (p - y)).sum();
                prop_assert!(error <= last + 1e-12);
                last = error;
            }
        }
    }

    #[test]
    fn an_exclusive_or_is_learnt() {
        let x = array![[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]];
        let tree = classes(&TreeConfig::default(), &x, &[0, 1, 1, 0]);
        let found: Array1<usize> = tree.predict(&x);
        assert_eq!(found.to_vec(), [0, 1, 1, 0]);
    }

    #[test]
    fn a_constant_target_is_one_leaf_with_that_value_to_the_bit() {
        let x = array![[1.0], [2.0], [3.0]];
        let tree = values(&TreeConfig::default(), &x, &[0.1, 0.1, 0.1]);
        assert_eq!((tree.leaves(), tree.values[0]), (1, 0.1));
        assert_eq!(tree.importances, [0.0]);
    }

    #[test]
    fn minus_zero_is_zero_and_neighbouring_floats_are_told_apart() {
        let x = array![[-0.0], [0.0]];
        assert_eq!(classes(&TreeConfig::default(), &x, &[0, 1]).leaves(), 1);
        let next = f64::from_bits(1.0f64.to_bits() + 1);
        let x = array![[1.0], [next], [f64::MAX], [-f64::MAX]];
        let found: Array1<usize> = classes(&TreeConfig::default(), &x, &[0, 1, 0, 1]).predict(&x);
        assert_eq!(found.to_vec(), [0, 1, 0, 1]);
    }

    // scikit-learn 1.9.1: DecisionTreeRegressor(max_depth=2).fit(x, s) with x and s as below; its thresholds are f32.
    #[test]
    fn a_regression_tree_is_that_of_scikit_learn() {
        let (x, s) = super::super::tests::reference();
        let tree = values(&TreeConfig { max_depth: Some(2), ..TreeConfig::default() }, &x, &s);
        assert_eq!(tree.depth(), 2);
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
        let thresholds: Vec<f64> = (0..3).map(|node| tree.threshold[node]).collect();
        thresholds.iter().zip([0.625, 1.833_333_3, -0.166_666_7]).for_each(|(f, e)| close(*f, e));
        let expected =
            [-0.104_700_854_700_854_7, -1.513_888_888_888_888_8, 1.888_888_888_888_889, 0.627_777_777_777_777_8];
        tree.values[3..].iter().zip(expected).for_each(|(f, e)| close(*f, e));
        tree.importances.iter().zip([0.638_752_635_952_51, 0.361_247_364_047_489_97]).for_each(|(f, e)| close(*f, e));
    }

    #[test]
    fn damaged_arrays_are_refused() {
        let x = array![[1.0], [2.0], [3.0], [4.0]];
        let tree = classes(&TreeConfig::default(), &x, &[0, 1, 0, 1]);
        assert_eq!(tree.check(1, 2), Ok(()));
        let damage: [fn(&mut Tree); 7] = [
            |tree| tree.left[0] = tree.left.len() as u32,
            |tree| {
                let inner = tree.left.iter().rposition(|left| *left != 0).unwrap();
                tree.left[inner] = 1;
            },
            |tree| tree.left[0] = 0,
            |tree| tree.feature[0] = 1,
            |tree| tree.threshold[0] = f64::NAN,
            |tree| tree.values.truncate(1),
            |tree| tree.outputs = 0,
        ];
        for damage in damage {
            let mut damaged = tree.clone();
            damage(&mut damaged);
            assert!(damaged.check(1, 2).is_err(), "{damaged:?}");
        }
    }
}
