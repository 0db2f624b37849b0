//! Hyper-parameters that are refused, while they are read, when no model can be trained with them.
//!
//! One function a field, so that the message names it: serde tells a `deserialize_with` function no name. It knows
//! nothing of what the parameters mean.

use serde::{Deserialize, Deserializer, de::Error};

pub fn l2<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    at_least_zero("l2", from)
}

pub fn min_gain<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    at_least_zero("min_gain", from)
}

pub fn tolerance<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if value.is_finite() && value > 0.0 {
        return Ok(value);
    }
    Err(D::Error::custom(format!("`tolerance` is {value}, expected a finite number above 0")))
}

pub fn max_iterations<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    count("max_iterations", 1, from)
}

pub fn clusters<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    count("clusters", 1, from)
}

pub fn runs<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    count("runs", 1, from)
}

pub fn max_depth<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let value = Option::<i64>::deserialize(from)?;
    value.map(|value| within("max_depth", 1, value)).transpose()
}

pub fn min_samples_split<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    count("min_samples_split", 2, from)
}

pub fn min_samples_leaf<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    count("min_samples_leaf", 1, from)
}

fn at_least_zero<'de, D: Deserializer<'de>>(name: &str, from: D) -> Result<f64, D::Error> {
    let value = f64::deserialize(from)?;
    if value.is_finite() && value >= 0.0 {
        return Ok(value);
    }
    Err(D::Error::custom(format!("`{name}` is {value}, expected a finite number of 0 or more")))
}

fn count<'de, D: Deserializer<'de>>(name: &str, least: u32, from: D) -> Result<u32, D::Error> {
    within(name, least, i64::deserialize(from)?)
}

fn within<E: Error>(name: &str, least: u32, value: i64) -> Result<u32, E> {
    let refused = || E::custom(format!("`{name}` is {value}, expected a whole number of {least} or more"));
    u32::try_from(value).ok().filter(|value| *value >= least).ok_or_else(refused)
}
