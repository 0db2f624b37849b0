//! Kinds that make tables from tables.

pub mod sql;

mod sql_columns;
mod sql_order;
#[cfg(test)]
mod sql_tests;
mod sql_text;
