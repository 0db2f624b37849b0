//! `headwater schema`: the JSON Schema of the pipeline file, made from the kinds themselves.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use crate::catalog::KINDS;
use crate::commands::Globals;
use crate::error::CommandError;

/// Print the JSON Schema of the pipeline file
#[derive(Debug, Args)]
pub struct PrintSchema {}

impl PrintSchema {
    /// # Errors
    /// If output cannot be written.
    pub fn execute(&self, _globals: &Globals) -> Result<(), CommandError> {
        use std::io::Write;
        Ok(writeln!(std::io::stdout(), "{:#}", schema())?)
    }
}

/// The schema of the whole file.
pub fn schema() -> Json {
    let mut definitions = Map::new();
    let mut stages: Vec<Json> = Vec::new();
    for kind in &KINDS {
        let (stage, inner) = kind_schema(kind.name, (kind.schema)().to_value());
        definitions.extend(inner);
        definitions.insert(format!("stage.{}", kind.name), stage);
        stages.push(json!({ "$ref": format!("#/$defs/stage.{}", kind.name) }));
    }
    definitions.insert("stage.run".into(), command_schema());
    stages.push(json!({ "$ref": "#/$defs/stage.run" }));
    let table = json!({ "type": "object" });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Headwater pipeline",
        "type": "object",
        "additionalProperties": false,
        "required": ["stages"],
        "properties": {
            "pipeline": { "type": "object", "additionalProperties": false, "properties": { "name": { "type": "string" } } },
            "store": { "type": "object", "additionalProperties": false, "properties": { "path": { "type": "string" } } },
            "params": table,
            "matrix": table,
            "variants": { "type": "object", "additionalProperties": table },
            "stages": { "type": "object", "additionalProperties": { "oneOf": stages } },
        },
        "$defs": definitions,
    })
}

/// A kind's configuration with the keys of every stage added, and what it defines itself.
fn kind_schema(name: &str, mut schema: Json) -> (Json, Map<String, Json>) {
    let inner = match schema.as_object_mut().and_then(|object| object.remove("$defs")) {
        Some(Json::Object(inner)) => inner.into_iter().map(|(key, value)| (format!("{name}.{key}"), value)).collect(),
        _ => Map::new(),
    };
    let mut properties = match schema["properties"].take() {
        Json::Object(properties) => properties,
        _ => Map::new(),
    };
    for value in properties.values_mut() {
        // A param may stand for any value.
        let own = value.take();
        *value = json!({ "anyOf": [own, { "type": "string", "pattern": "\\$\\{[^}]+\\}" }] });
    }
    properties.insert("uses".into(), json!({ "const": name }));
    properties.extend(wiring());
    let mut required = vec![Json::from("uses")];
    required.extend(schema["required"].as_array().cloned().unwrap_or_default());
    let mut stage = json!({
        "type": "object", "additionalProperties": false, "properties": properties, "required": required,
    });
    if let Some(description) = schema.get("description") {
        stage["description"] = description.clone();
    }
    (rename(stage, name), inner.into_iter().map(|(key, value)| (key, rename(value, name))).collect())
}

/// The keys that wire a stage to others.
fn wiring() -> Vec<(String, Json)> {
    let reference = json!({ "type": "string", "description": "a stage, or stage.output" });
    vec![
        ("input".into(), reference.clone()),
        ("inputs".into(), json!({ "type": "object", "additionalProperties": reference })),
        ("gather".into(), reference),
        ("over".into(), json!({ "type": "array", "items": { "type": "string" } })),
    ]
}

/// References within a kind's own schema, moved to where its definitions stand now.
fn rename(value: Json, kind: &str) -> Json {
    match value {
        Json::Object(map) => {
            let entry = |(key, value): (String, Json)| match (key.as_str(), value.as_str()) {
                ("$ref", Some(path)) => {
                    let renamed = path.replacen("#/$defs/", &format!("#/$defs/{kind}."), 1);
                    (key, Json::from(renamed))
                }
                _ => (key, rename(value, kind)),
            };
            Json::Object(map.into_iter().map(entry).collect())
        }
        Json::Array(values) => Json::Array(values.into_iter().map(|value| rename(value, kind)).collect()),
        other => other,
    }
}

fn command_schema() -> Json {
    let texts = json!({ "type": "array", "items": { "type": "string" } });
    let mount = json!({
        "type": "object", "additionalProperties": false, "required": ["from", "as"],
        "properties": { "from": { "type": "string" }, "as": { "type": "string" } },
    });
    let mut properties = Map::from_iter(wiring());
    properties.insert("run".into(), json!({ "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1 }] }));
    properties.insert("deps".into(), json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, mount] } }));
    for key in ["outs", "env", "tools", "environment"] {
        properties.insert(key.into(), texts.clone());
    }
    json!({
        "type": "object", "description": "a command", "additionalProperties": false,
        "required": ["run", "outs"], "properties": properties,
    })
}
