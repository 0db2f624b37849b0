//! `kmeans`: k-means clustering, by linfa-clustering with k-means++ initialisation.
//!
//! It knows numbers alone: no frames, no names. linfa's default initialisation, k-means||, gives other centroids at
//! another number of threads and is therefore not offered; what it computes in parallel after k-means++ is each row's
//! own distance, so no sum depends on threads.
//!
//! Invariants: equal rows and an equal seed give equal centroids. A row belongs to the centroid of the least squared
//! distance, the first of equals; distances are added up in the order of the features.

use std::collections::BTreeSet;

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_clustering::{KMeans, KMeansInit};
use ndarray::Array2;
use rand_xoshiro::Xoshiro256Plus;
use rand_xoshiro::rand_core::SeedableRng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checked;
use crate::StageError;

/// Hyper-parameters of k-means.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KmeansConfig {
    /// The number of clusters; 1 or more.
    #[serde(deserialize_with = "checked::clusters")]
    pub clusters: u32,
    /// Steps at most in each run; 1 or more.
    #[serde(default = "three_hundred", deserialize_with = "checked::max_iterations")]
    pub max_iterations: u32,
    /// The best of this many runs counts, that of the least inertia; 1 or more.
    #[serde(default = "ten", deserialize_with = "checked::runs")]
    pub runs: u32,
    /// A run ends when a step moves the centroids by less than this in all (Euclidean length); above 0.
    #[serde(default = "small", deserialize_with = "checked::tolerance")]
    pub tolerance: f64,
}

fn three_hundred() -> u32 {
    300
}

fn ten() -> u32 {
    10
}

fn small() -> f64 {
    1e-4
}

/// Fitted centroids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Centroids {
    /// Clusters x features, one centroid after the other.
    pub centroids: Vec<f64>,
    pub clusters: u32,
}

impl Centroids {
    /// The nearest centroid to a row of features, and the squared distance to it.
    pub fn nearest(&self, row: &[f64]) -> (u32, f64) {
        let mut best = (0, f64::INFINITY);
        for cluster in 0..self.clusters {
            let start = cluster as usize * row.len();
            let centroid = &self.centroids[start..start + row.len()];
            let squared = centroid.iter().zip(row).fold(0.0, |sum, (c, v)| sum + (v - c) * (v - c));
            if squared < best.1 {
                best = (cluster, squared);
            }
        }
        best
    }

    pub(crate) fn check(&self, features: usize) -> Result<(), String> {
        let expected = features.checked_mul(self.clusters as usize);
        if self.clusters > 0 && expected == Some(self.centroids.len()) && self.centroids.iter().all(|v| v.is_finite()) {
            return Ok(());
        }
        Err("the centroids are not one finite number a cluster and feature".into())
    }
}

/// Finds centroids.
///
/// # Errors
/// If there are fewer distinct rows than clusters, distances are too large for numbers, or linfa fails.
pub fn fit(config: &KmeansConfig, x: &Array2<f64>, seed: u64) -> Result<Centroids, StageError> {
    check_distinct(x, config.clusters as usize)?;
    check_range(x)?;
    let failed = |detail: String| StageError::Library { what: "linfa-clustering", detail };
    // linfa goes through the matrix row by row.
    let rows = x.as_standard_layout();
    let fitted = KMeans::params_with_rng(config.clusters as usize, Xoshiro256Plus::seed_from_u64(seed))
        .init_method(KMeansInit::KMeansPlusPlus)
        .max_n_iterations(config.max_iterations.into())
        .n_runs(config.runs as usize)
        .tolerance(config.tolerance)
        .fit(&DatasetBase::from(rows.view()))
        .map_err(|error| failed(error.to_string()))?;
    let centroids = Centroids { centroids: fitted.centroids().iter().copied().collect(), clusters: config.clusters };
    centroids.check(x.ncols()).map_err(failed)?;
    Ok(centroids)
}

fn check_distinct(x: &Array2<f64>, clusters: usize) -> Result<(), StageError> {
    let mut distinct = BTreeSet::new();
    for row in x.rows() {
        distinct.insert(row.iter().map(|value| (value + 0.0).to_bits()).collect::<Vec<u64>>());
        if distinct.len() >= clusters {
            return Ok(());
        }
    }
    let detail = format!("train: kmeans asks for {clusters} clusters, the data have {} distinct rows", distinct.len());
    Err(StageError::Data { detail })
}

/// The first centroids are drawn by squared distances, which linfa adds up over all rows, and that panics on an
/// infinite sum.
fn check_range(x: &Array2<f64>) -> Result<(), StageError> {
    let largest = x.iter().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let apart = 2.0 * largest;
    if (apart * apart * x.len() as f64).is_finite() {
        return Ok(());
    }
    let detail =
        format!("train: kmeans cannot add up squared distances of values as large as {largest:e}; scale the features");
    Err(StageError::Data { detail })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn config(clusters: u32) -> KmeansConfig {
        KmeansConfig { clusters, max_iterations: 300, runs: 10, tolerance: 1e-4 }
    }

    #[test]
    fn separate_groups_are_found() {
        let x = array![[0.0, 0.0], [0.0, 2.0], [50.0, 0.0], [50.0, 2.0]];
        let found = fit(&config(2), &x, 7).unwrap();
        let (first, distance) = found.nearest(&[0.0, 0.0]);
        assert!((distance - 1.0).abs() < 1e-3);
        assert_eq!(found.nearest(&[0.0, 2.0]).0, first);
        assert_ne!(found.nearest(&[50.0, 2.0]).0, first);
    }

    #[test]
    fn more_clusters_than_distinct_rows_are_refused() {
        let x = array![[0.0], [-0.0], [1.0]];
        let error = fit(&config(3), &x, 0).unwrap_err().to_string();
        assert_eq!(error, "train: kmeans asks for 3 clusters, the data have 2 distinct rows");
    }

    #[test]
    fn values_too_large_for_squared_distances_are_refused() {
        for value in [1e200, 1e154, f64::MAX] {
            let error = fit(&config(2), &array![[value], [-value], [0.0]], 0).unwrap_err().to_string();
            let expected = format!(
                "train: kmeans cannot add up squared distances of values as large as {value:e}; scale the features"
            );
            assert_eq!(error, expected);
        }
        assert!(fit(&config(2), &array![[1e150], [-1e150], [0.0]], 0).is_ok());
        assert!(fit(&config(2), &array![[1e-200], [-1e-200], [0.0]], 0).is_ok());
    }
}
