//! `step`: one step of a preparation as the pipeline file writes it, checked.
//!
//! It does not know data: which columns there are is found out when the step is fitted.
//!
//! Invariant: a [`Step`] that exists has exactly one verb, and options that the verb takes.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A step, in the form that the pipeline file writes it in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Value>", untagged)]
pub enum Step {
    /// Fills what is missing: nulls and NaN.
    Impute { impute: Fill, columns: Columns },
    /// A text or number becomes one column a category, 1 where it is that one and 0 elsewhere.
    OneHot { one_hot: Columns, min_frequency: f64 },
    /// `(x - shift) / scale`.
    Scale { scale: Scaling, columns: Columns },
    /// Leaves columns out.
    Drop { drop: Vec<String> },
}

/// What is put in the place of a missing value.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// The middle value, or the mean of the middle two.
    Median,
    /// The arithmetic mean.
    Mean,
    /// The most frequent value; of several the smallest.
    MostFrequent,
    /// This value.
    Constant(Constant),
}

/// A value that the pipeline file sets; booleans count as 0 and 1.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Constant {
    Number(f64),
    Text(String),
}

/// How a column is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// Mean 0 and population standard deviation 1.
    Standard,
    /// Least value 0 and greatest 1.
    Minmax,
}

/// The columns of a step, among those that there are when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Columns {
    /// Whole numbers, floats, booleans, and what earlier steps have turned into numbers.
    Numeric,
    /// Text.
    Categorical,
    All,
    #[serde(untagged)]
    Named(Vec<String>),
}

const VERBS: &str = "impute, one_hot, scale and drop";

impl TryFrom<BTreeMap<String, Value>> for Step {
    type Error = String;

    fn try_from(fields: BTreeMap<String, Value>) -> Result<Self, String> {
        let is_verb = |name: &str| ["impute", "one_hot", "scale", "drop"].contains(&name);
        let is_option = |name: &str| ["columns", "min_frequency"].contains(&name);
        if let Some(unknown) = fields.keys().find(|name| !is_verb(name) && !is_option(name)) {
            return Err(format!(
                "a step has no `{unknown}`; the verbs are {VERBS}, the options columns and min_frequency"
            ));
        }
        let verbs: Vec<&String> = fields.keys().filter(|name| is_verb(name)).collect();
        match verbs[..] {
            [] => Err(format!("a step needs one of {VERBS}")),
            [verb] => Self::of_verb(verb, &fields),
            [first, second, ..] => {
                Err(format!("a step has one verb, not both `{first}` and `{second}`; make two steps of it"))
            }
        }
    }
}

impl Step {
    fn of_verb(verb: &str, fields: &BTreeMap<String, Value>) -> Result<Self, String> {
        let (value, columns, min_frequency) = (&fields[verb], fields.get("columns"), fields.get("min_frequency"));
        if min_frequency.is_some() && verb != "one_hot" {
            return Err(format!("`min_frequency` is for one_hot, not for {verb}"));
        }
        if columns.is_some() && matches!(verb, "one_hot" | "drop") {
            return Err(format!("`columns` is for impute and scale; write `{verb} = [\"…\"]`"));
        }
        match verb {
            "impute" => Ok(Self::Impute { impute: Fill::of(value)?, columns: columns_or_numeric(columns)? }),
            "scale" => Ok(Self::Scale { scale: Scaling::of(value)?, columns: scaled_columns(columns)? }),
            "drop" => Ok(Self::Drop { drop: names("drop", value)? }),
            _ => Ok(Self::OneHot { one_hot: one_hot_columns(value)?, min_frequency: frequency(min_frequency)? }),
        }
    }

    /// The columns that the step names, if it does.
    pub fn named(&self) -> &[String] {
        match self {
            Self::Drop { drop } => drop,
            Self::Impute { columns: Columns::Named(names), .. }
            | Self::Scale { columns: Columns::Named(names), .. }
            | Self::OneHot { one_hot: Columns::Named(names), .. } => names,
            _ => &[],
        }
    }
}

impl Fill {
    fn of(value: &Value) -> Result<Self, String> {
        let wrong =
            || format!("`impute` is {value}; it can be \"median\", \"mean\", \"most_frequent\" or {{ constant = … }}");
        match value {
            Value::String(name) => match name.as_str() {
                "median" => Ok(Self::Median),
                "mean" => Ok(Self::Mean),
                "most_frequent" => Ok(Self::MostFrequent),
                _ => Err(wrong()),
            },
            Value::Object(fields) if fields.len() == 1 => {
                fields.get("constant").ok_or_else(wrong).and_then(Constant::of).map(Self::Constant)
            }
            _ => Err(wrong()),
        }
    }
}

impl Constant {
    fn of(value: &Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self::Text(text.clone())),
            Value::Bool(flag) => Ok(Self::Number(f64::from(u8::from(*flag)))),
            Value::Number(number) => {
                let finite = number.as_f64().filter(|number| number.is_finite());
                finite.map(Self::Number).ok_or_else(|| format!("`constant` is {number}, which is not a finite number"))
            }
            other => Err(format!("`constant` is {other}; it can be a number, a text or a boolean")),
        }
    }
}

impl Scaling {
    fn of(value: &Value) -> Result<Self, String> {
        match value.as_str() {
            Some("standard") => Ok(Self::Standard),
            Some("minmax") => Ok(Self::Minmax),
            _ => Err(format!("`scale` is {value}; it can be \"standard\" or \"minmax\"")),
        }
    }
}

fn columns_or_numeric(value: Option<&Value>) -> Result<Columns, String> {
    let Some(value) = value else { return Ok(Columns::Numeric) };
    match value.as_str() {
        Some("numeric") => Ok(Columns::Numeric),
        Some("categorical") => Ok(Columns::Categorical),
        Some("all") => Ok(Columns::All),
        Some(_) => {
            Err(format!("`columns` is {value}; it can be \"numeric\", \"categorical\", \"all\" or a list of names"))
        }
        None => names("columns", value).map(Columns::Named),
    }
}

fn scaled_columns(value: Option<&Value>) -> Result<Columns, String> {
    match columns_or_numeric(value)? {
        Columns::Categorical => Err("`scale` is for numbers; `columns` cannot be \"categorical\"".into()),
        columns => Ok(columns),
    }
}

fn one_hot_columns(value: &Value) -> Result<Columns, String> {
    match value.as_str() {
        Some("categorical") => Ok(Columns::Categorical),
        Some(_) => Err(format!("`one_hot` is {value}; it can be \"categorical\" or a list of names")),
        None => names("one_hot", value).map(Columns::Named),
    }
}

fn frequency(value: Option<&Value>) -> Result<f64, String> {
    let Some(value) = value else { return Ok(0.0) };
    let share = value.as_f64().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| format!("`min_frequency` is {value}; it is a share of the rows, from 0 to less than 1"))
}

fn names(field: &str, value: &Value) -> Result<Vec<String>, String> {
    let texts = value.as_array().and_then(|all| all.iter().map(|name| name.as_str().map(Into::into)).collect());
    let names: Vec<String> = texts.ok_or_else(|| format!("`{field}` is {value}; it is a list of column names"))?;
    if names.is_empty() {
        return Err(format!("`{field}` names no column"));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(format!("`{field}` names `{twice}` twice")),
        None => Ok(names),
    }
}

impl JsonSchema for Step {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Step".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        let names =
            serde_json::json!({ "type": "array", "items": { "type": "string" }, "minItems": 1, "uniqueItems": true });
        json_schema!({
            "description": "One step of a preparation: exactly one of impute, one_hot, scale, drop.",
            "type": "object",
            "additionalProperties": false,
            "minProperties": 1,
            "oneOf": [{ "required": ["impute"] }, { "required": ["one_hot"] }, { "required": ["scale"] }, { "required": ["drop"] }],
            "properties": {
                "impute": {
                    "description": "What takes the place of nulls and NaN.",
                    "oneOf": [
                        { "enum": ["median", "mean", "most_frequent"] },
                        {
                            "type": "object",
                            "properties": { "constant": { "type": ["number", "string", "boolean"] } },
                            "required": ["constant"],
                            "additionalProperties": false
                        }
                    ]
                },
                "one_hot": { "description": "One column a category.", "oneOf": [{ "const": "categorical" }, names] },
                "min_frequency": {
                    "description": "For one_hot: rarer categories share the column `<column>=other`.",
                    "type": "number", "minimum": 0, "exclusiveMaximum": 1
                },
                "scale": { "enum": ["standard", "minmax"] },
                "drop": names,
                "columns": {
                    "description": "For impute and scale; default numeric.",
                    "oneOf": [{ "enum": ["numeric", "categorical", "all"] }, names]
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(value: Value) -> String {
        serde_json::from_value::<Step>(value).expect_err("refused").to_string()
    }

    #[test]
    fn what_is_no_step_is_told_precisely() {
        assert_eq!(told(json!({})), "a step needs one of impute, one_hot, scale and drop");
        assert_eq!(
            told(json!({"scale": "standard", "impute": "mean"})),
            "a step has one verb, not both `impute` and `scale`; make two steps of it"
        );
        assert_eq!(
            told(json!({"onehot": ["a"]})),
            "a step has no `onehot`; the verbs are impute, one_hot, scale and drop, the options columns and min_frequency"
        );
        assert_eq!(
            told(json!({"impute": "middle"})),
            "`impute` is \"middle\"; it can be \"median\", \"mean\", \"most_frequent\" or { constant = … }"
        );
        assert_eq!(
            told(json!({"impute": {"constant": []}})),
            "`constant` is []; it can be a number, a text or a boolean"
        );
        assert_eq!(told(json!({"scale": "robust"})), "`scale` is \"robust\"; it can be \"standard\" or \"minmax\"");
        assert_eq!(told(json!({"drop": "a"})), "`drop` is \"a\"; it is a list of column names");
        assert_eq!(told(json!({"drop": []})), "`drop` names no column");
        assert_eq!(told(json!({"drop": ["a", "a"]})), "`drop` names `a` twice");
        assert_eq!(
            told(json!({"drop": ["a"], "columns": "all"})),
            "`columns` is for impute and scale; write `drop = [\"…\"]`"
        );
        assert_eq!(
            told(json!({"scale": "standard", "min_frequency": 0.1})),
            "`min_frequency` is for one_hot, not for scale"
        );
        assert_eq!(
            told(json!({"one_hot": ["a"], "min_frequency": 1})),
            "`min_frequency` is 1; it is a share of the rows, from 0 to less than 1"
        );
        assert_eq!(
            told(json!({"one_hot": "text"})),
            "`one_hot` is \"text\"; it can be \"categorical\" or a list of names"
        );
        assert_eq!(
            told(json!({"impute": "mean", "columns": "text"})),
            "`columns` is \"text\"; it can be \"numeric\", \"categorical\", \"all\" or a list of names"
        );
        assert_eq!(
            told(json!({"scale": "standard", "columns": "categorical"})),
            "`scale` is for numbers; `columns` cannot be \"categorical\""
        );
    }

    #[test]
    fn a_step_serializes_to_what_reads_back_as_it_with_defaults_filled_in() {
        for (written, canonical) in [
            (json!({"impute": "median"}), json!({"impute": "median", "columns": "numeric"})),
            (
                json!({"impute": {"constant": true}, "columns": ["a"]}),
                json!({"impute": {"constant": 1.0}, "columns": ["a"]}),
            ),
            (json!({"one_hot": "categorical"}), json!({"one_hot": "categorical", "min_frequency": 0.0})),
            (json!({"scale": "minmax", "columns": "all"}), json!({"scale": "minmax", "columns": "all"})),
            (json!({"drop": ["a"]}), json!({"drop": ["a"]})),
        ] {
            let step: Step = serde_json::from_value(written).expect("a step");
            assert_eq!(serde_json::to_value(&step).expect("serializes"), canonical);
            assert_eq!(serde_json::from_value::<Step>(canonical).expect("a step"), step);
        }
    }
}
