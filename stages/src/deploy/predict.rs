//! Predictions of a stored model for a frame as it comes from outside, through the model's own preparation.
//!
//! It does not know files or requests: a row of one HTTP request and a file of millions take the same way, and a row
//! gets the same bits in both.

use polars::prelude::DataFrame;

use crate::io::Stored;
use crate::model::Model;
use crate::{StageError, matrix};

/// Predictions for each row of a frame, in order; see [`crate::model::Predictions::frame`] for the columns. Columns
/// that the model does not take are ignored, the target among them. No rows give no predictions.
///
/// # Errors
/// If a column is missing (the message names it and what the frame has), holds what the model cannot take, or the model
/// is damaged.
pub fn predict(model: &dyn Stored, frame: &DataFrame) -> Result<DataFrame, StageError> {
    let transform = Model::transform(model)?;
    let model = Model::read(model)?;
    let Some(transform) = transform else {
        return model.predict(&matrix::features("predict", frame, model.features())?).frame();
    };
    // New rows have no target as a rule; one that is there must make no difference.
    let prepared = match frame.column(transform.target()) {
        Ok(_) => transform.apply(&frame.drop(transform.target()).map_err(failed)?)?,
        Err(_) => transform.apply(frame)?,
    };
    model.predict(&matrix::features("predict", &prepared, model.features())?).frame()
}

fn failed(error: polars::error::PolarsError) -> StageError {
    StageError::Library { what: "polars", detail: error.to_string() }
}
