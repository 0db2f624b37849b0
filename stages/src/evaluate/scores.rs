//! The metrics: numbers that say how well predictions fit what was true.
//!
//! Pure functions of slices; no frames, no models. Edge cases are decided as scikit-learn decides them
//! (<https://scikit-learn.org/stable/modules/model_evaluation.html>), but what is undefined has no value here, never
//! NaN.
//!
//! Formulas, with n rows, truth y and prediction p:
//! - accuracy: the share of rows with y = p.
//! - precision: TP / (TP + FP), 0 if nothing was predicted positive. recall: TP / (TP + FN), 0 if nothing is positive.
//!   f1: 2 TP / (2 TP + FP + FN), 0 if that is 0 / 0. For more than two classes, the unweighted mean over the classes
//!   that occur in truth or predictions (macro average).
//! - roc_auc: the probability that a positive row has the greater score than a negative one, ties count one half: the
//!   Mann-Whitney U statistic over n_pos n_neg, from ranks (Hanley and McNeil, 1982). For more than two classes, the
//!   mean of one class against the rest over all classes (macro one-vs-rest).
//! - log_loss: the mean of -ln(probability of the true class), probabilities kept within `[eps, 1 - eps]`.
//! - mse: mean of (y - p)^2. rmse: its root. mae: mean of |y - p|. r2: 1 - sum (y - p)^2 / sum (y - mean y)^2.
//!
//! Invariant: sums run in row order, so a metric has the same bits at any number of threads.

/// Counts of one class against the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub true_positives: u64,
    pub false_positives: u64,
    pub false_negatives: u64,
}

impl Counts {
    /// Counts a class; a truth that is `None` is some class that the model does not know.
    pub fn of(class: u32, truth: &[Option<u32>], predicted: &[u32]) -> Self {
        let mut counts = Self::default();
        for (truth, predicted) in truth.iter().zip(predicted) {
            match (*truth == Some(class), *predicted == class) {
                (true, true) => counts.true_positives += 1,
                (false, true) => counts.false_positives += 1,
                (true, false) => counts.false_negatives += 1,
                (false, false) => {}
            }
        }
        counts
    }

    pub fn precision(self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_positives)
    }

    pub fn recall(self) -> f64 {
        ratio(self.true_positives, self.true_positives + self.false_negatives)
    }

    pub fn f1(self) -> f64 {
        ratio(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)
    }
}

/// 0 / 0 is 0.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// The share of rows that were predicted right; one row or more.
pub fn accuracy(truth: &[Option<u32>], predicted: &[u32]) -> f64 {
    let right = truth.iter().zip(predicted).filter(|(truth, predicted)| **truth == Some(**predicted)).count();
    right as f64 / truth.len() as f64
}

/// The area under the ROC curve; none unless there are both positive and negative rows. Scores are not NaN.
pub fn roc_auc(positive: &[bool], scores: &[f64]) -> Option<f64> {
    let mut order: Vec<(f64, bool)> = scores.iter().map(|score| score + 0.0).zip(positive.iter().copied()).collect();
    order.sort_by(|left, right| left.0.total_cmp(&right.0));
    let positives = positive.iter().filter(|positive| **positive).count() as u64;
    let negatives = positive.len() as u64 - positives;
    if positives == 0 || negatives == 0 {
        return None;
    }
    // Twice the sum of the positives' ranks is a whole number even with ties: no rounding before the end.
    let mut doubled = 0;
    let mut before = 0;
    for tied in order.chunk_by(|left, right| left.0 == right.0) {
        let first_and_last = 2 * before + tied.len() as u64 + 1;
        doubled += first_and_last * tied.iter().filter(|(_, positive)| *positive).count() as u64;
        before += tied.len() as u64;
    }
    let wins = doubled - positives * (positives + 1);
    Some(wins as f64 / (2.0 * positives as f64 * negatives as f64))
}

/// The mean of the negative logarithms of the true classes' probabilities; one row or more.
pub fn log_loss(true_probabilities: &[f64]) -> f64 {
    let bounded = |probability: &f64| probability.clamp(f64::EPSILON, 1.0 - f64::EPSILON);
    -true_probabilities.iter().map(|probability| bounded(probability).ln()).sum::<f64>()
        / true_probabilities.len() as f64
}

/// Mean squared error; one row or more.
pub fn mse(truth: &[f64], predicted: &[f64]) -> f64 {
    squares(truth, predicted) / truth.len() as f64
}

/// Mean absolute error; one row or more.
pub fn mae(truth: &[f64], predicted: &[f64]) -> f64 {
    truth.iter().zip(predicted).map(|(truth, predicted)| (truth - predicted).abs()).sum::<f64>() / truth.len() as f64
}

/// The coefficient of determination; none if the truth is constant.
pub fn r2(truth: &[f64], predicted: &[f64]) -> Option<f64> {
    let first = *truth.first()?;
    if truth.iter().all(|value| *value == first) {
        return None;
    }
    let mean = first + truth.iter().map(|value| value - first).sum::<f64>() / truth.len() as f64;
    let spread: f64 = truth.iter().map(|value| (value - mean) * (value - mean)).sum();
    (spread > 0.0).then(|| 1.0 - squares(truth, predicted) / spread)
}

fn squares(truth: &[f64], predicted: &[f64]) -> f64 {
    truth.iter().zip(predicted).map(|(truth, predicted)| (truth - predicted) * (truth - predicted)).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every pair of a positive and a negative row, counted.
    fn auc_by_pairs(positive: &[bool], scores: &[f64]) -> Option<f64> {
        let (mut wins, mut pairs) = (0.0, 0.0);
        for (p, _) in positive.iter().enumerate().filter(|(_, positive)| **positive) {
            for (n, _) in positive.iter().enumerate().filter(|(_, positive)| !**positive) {
                pairs += 1.0;
                wins += match scores[p].total_cmp(&scores[n]) {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        (pairs > 0.0).then_some(wins / pairs)
    }

    proptest! {
        #[test]
        fn auc_is_what_counting_pairs_gives(rows in proptest::collection::vec((any::<bool>(), 0u8..12), 1..60)) {
            let (positive, scores): (Vec<bool>, Vec<f64>) =
                rows.into_iter().map(|(p, s)| (p, f64::from(s) / 11.0)).unzip();
            prop_assert_eq!(roc_auc(&positive, &scores), auc_by_pairs(&positive, &scores));
        }

        #[test]
        fn auc_stays_under_a_growing_map(rows in proptest::collection::vec((any::<bool>(), -9i8..9), 1..60)) {
            let (positive, scores): (Vec<bool>, Vec<f64>) = rows.into_iter().map(|(p, s)| (p, f64::from(s))).unzip();
            let grown: Vec<f64> = scores.iter().map(|score| score * 3.0 + 1.0).collect();
            let turned: Vec<f64> = scores.iter().map(|score| -score).collect();
            prop_assert_eq!(roc_auc(&positive, &scores), roc_auc(&positive, &grown));
            if let (Some(one), Some(other)) = (roc_auc(&positive, &scores), roc_auc(&positive, &turned)) {
                prop_assert!((one + other - 1.0).abs() < 1e-12);
            }
        }
    }

    // All expected numbers: scikit-learn 1.9.1, functions of the same names, on these lists.
    #[test]
    fn scores_are_those_of_scikit_learn() {
        let truth = [1, 1, 0, 1, 0, 0, 1].map(Some);
        let predicted = [1, 0, 0, 1, 1, 0, 1];
        let counts = Counts::of(1, &truth, &predicted);
        assert_eq!((counts.precision(), counts.recall(), counts.f1()), (0.75, 0.75, 0.75));
        assert_eq!(accuracy(&truth, &predicted), 5.0 / 7.0);
        let positive = [false, false, true, true];
        assert_eq!(roc_auc(&positive, &[0.1, 0.4, 0.35, 0.8]), Some(0.75));
        assert!((log_loss(&[0.9, 0.8, 0.65, 0.0]) - 9.200_735_093_045_411).abs() < 1e-12);
        assert_eq!(mse(&[3.0, -0.5, 2.0, 7.0], &[2.5, 0.0, 2.0, 8.0]), 0.375);
        assert_eq!(mae(&[3.0, -0.5, 2.0, 7.0], &[2.5, 0.0, 2.0, 8.0]), 0.5);
        let found = r2(&[3.0, -0.5, 2.0, 7.0], &[2.5, 0.0, 2.0, 8.0]).unwrap();
        assert!((found - 0.948_608_137_044_967_9).abs() < 1e-15);
    }

    #[test]
    fn undefined_scores_have_no_value_and_empty_ratios_are_0() {
        assert_eq!(roc_auc(&[true, true], &[0.1, 0.2]), None);
        assert_eq!(r2(&[0.1, 0.1, 0.1], &[1.0, 2.0, 3.0]), None);
        let counts = Counts::of(1, &[Some(0)], &[0]);
        assert_eq!((counts.precision(), counts.recall(), counts.f1()), (0.0, 0.0, 0.0));
    }
}
