//! What is done with a finished model: predictions for new rows.

pub mod predict;

pub use predict::predict;
