//! Preparing: queries over tables, splitting rows, and turning columns into features.
//!
//! What is fitted is fitted on train alone. This folder does not know models.

pub mod fit;
pub mod split;
pub mod sql;
pub mod step;

mod sql_columns;
mod sql_order;
#[cfg(test)]
mod sql_tests;
mod sql_text;

pub use fit::{Prepare, PrepareConfig};
pub use split::{Split, SplitConfig};
pub use sql::Sql;
