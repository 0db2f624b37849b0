//! `headwater schema`: the JSON Schema of the pipeline file, made from the kinds themselves.

use clap::Args;
use serde_json::{Map, Value as Json, json};

use crate::catalog::KINDS;
use crate::commands::Globals;
use crate::error::CommandError;

/// Print the JSON Schema of the pipeline file
#[derive(Debug, Args)]
pub struct PrintSchema {
    /// The kinds and their keys for people, as Markdown
    #[arg(long)]
    markdown: bool,
}

impl PrintSchema {
    /// # Errors
    /// If output cannot be written.
    pub fn execute(&self, _globals: &Globals) -> Result<(), CommandError> {
        use std::io::Write;
        let text = if self.markdown { reference(&schema()) } else { format!("{:#}\n", schema()) };
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }
}

/// The reference of kinds in the documentation.
fn reference(schema: &Json) -> String {
    let mut text = String::from(
        "# Kinds of stages\n\nMade by `headwater schema --markdown`. Every kind but `read` also takes `input` or \
         `inputs`; `compare` takes `gather` and `over` in their place. `resources` and `retries` are taken by all: \
         [the pipeline file](pipeline-file.md#resources-and-retries).\n",
    );
    let definitions = schema["$defs"].as_object().into_iter().flatten();
    for (name, stage) in definitions.filter_map(|(key, stage)| Some((key.strip_prefix("stage.")?, stage))) {
        text += &format!("\n## {name}\n\n");
        if let Some(description) = stage["description"].as_str() {
            text += &format!("{}\n\n", one_line(description));
        }
        text += &properties(stage, schema, &["uses", "input", "inputs", "gather", "over", "resources", "retries"]);
    }
    text
}

/// A table of an object's keys, followed by those of the alternatives of its table-valued keys.
fn properties(object: &Json, schema: &Json, without: &[&str]) -> String {
    let (mut rows, mut below) = (String::new(), String::new());
    for (key, value) in object["properties"].as_object().into_iter().flatten() {
        if without.contains(&key.as_str()) {
            continue;
        }
        let own = without_param(value);
        let required = object["required"].as_array().is_some_and(|keys| keys.iter().any(|name| name == key));
        let default = if required { "required".into() } else { own["default"].to_string().replace("null", "") };
        let description = own["description"].as_str().map(one_line).unwrap_or_default();
        rows += &format!("| `{key}` | {} | {default} | {description} |\n", type_text(own, schema));
        below += &alternatives(key, own, schema);
    }
    match rows.is_empty() {
        true => below,
        false => format!("| key | type | default | |\n|---|---|---|---|\n{rows}{below}"),
    }
}

fn alternatives(key: &str, value: &Json, schema: &Json) -> String {
    let mut text = String::new();
    for one in resolve(value, schema)["oneOf"].as_array().into_iter().flatten() {
        let tag = one["properties"].as_object().into_iter().flatten();
        let tag = tag.filter_map(|(tag, value)| Some((tag, value["const"].as_str()?))).next();
        if let Some((tag, name)) = tag {
            let about = one["description"].as_str().map(|text| format!(": {}", one_line(text))).unwrap_or_default();
            text += &format!("\n`{key}` with `{tag} = \"{name}\"`{about}\n\n");
            let inner = resolve(one, schema);
            text += &properties(one, schema, &[tag.as_str()]);
            if one.get("$ref").is_some() {
                text += &properties(inner, schema, &[tag.as_str()]);
            }
        }
    }
    text
}

fn resolve<'a>(value: &'a Json, schema: &'a Json) -> &'a Json {
    match value["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
        Some(name) => &schema["$defs"][name],
        None => value,
    }
}

/// The type of a value that a param may stand for.
fn without_param(value: &Json) -> &Json {
    if value["anyOf"][1]["pattern"].is_string() { &value["anyOf"][0] } else { value }
}

fn type_text(value: &Json, schema: &Json) -> String {
    let value = resolve(without_param(value), schema);
    if let Some(names) = value["enum"].as_array() {
        return join(names.iter().filter(|name| !name.is_null()).map(|name| format!("`{}`", plain(name))));
    }
    if let Some(name) = value.get("const") {
        return format!("`{}`", plain(name));
    }
    for union in ["anyOf", "oneOf"] {
        if let Some(several) = value[union].as_array() {
            let several = several.iter().filter(|one| one["type"] != "null");
            return join(several.map(|one| type_text(one, schema)));
        }
    }
    match &value["type"] {
        Json::Array(types) if types.iter().any(|name| name == "array") => {
            format!("array of {}", type_text(&value["items"], schema))
        }
        Json::Array(types) => join(types.iter().filter(|name| *name != "null").map(plain)),
        Json::String(name) if name == "array" => format!("array of {}", type_text(&value["items"], schema)),
        Json::String(name) if name == "object" => "table".into(),
        Json::String(name) => name.clone(),
        _ => "any".into(),
    }
}

/// Alternatives, each once, in order.
fn join(texts: impl Iterator<Item = String>) -> String {
    let mut seen: Vec<String> = Vec::new();
    for text in texts {
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    seen.join(" or ")
}

fn plain(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
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
            "pipeline": { "type": "object", "additionalProperties": false, "properties": { "name": { "type": "string" }, "hermetic": { "type": "boolean" } } },
            "store": {
                "type": "object",
                "additionalProperties": false,
                "properties": { "path": { "type": "string" }, "keep_sources": { "type": "boolean" } }
            },
            "resources": resources("What there is of what stages ask for; `cpus` are those of `--jobs`."),
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
        *value = or_param(value.take());
    }
    properties.insert("uses".into(), json!({ "const": name }));
    properties.extend(wiring());
    properties.extend(running());
    let mut required = vec![Json::from("uses")];
    required.extend(schema["required"].as_array().cloned().unwrap_or_default());
    let mut stage = json!({
        "type": "object", "additionalProperties": false, "properties": properties, "required": required,
    });
    if let Some(description) = schema.get("description") {
        stage["description"] = description.clone();
    }
    (rename(stage, name), inner.into_iter().map(|(key, value)| (key, rename(within(value), name))).collect())
}

/// A param may stand for any value, at any depth; what tells alternatives apart excepted.
fn or_param(value: Json) -> Json {
    if value.get("const").is_some() {
        return value;
    }
    json!({ "anyOf": [within(value), { "type": "string", "pattern": "\\$\\{[^}]+\\}" }] })
}

fn within(value: Json) -> Json {
    let Json::Object(map) = value else { return value };
    let entry = |(key, value): (String, Json)| match (key.as_str(), value) {
        ("properties", Json::Object(inner)) => {
            (key, Json::Object(inner.into_iter().map(|(name, value)| (name, or_param(value))).collect()))
        }
        ("anyOf" | "oneOf", Json::Array(several)) => (key, Json::Array(several.into_iter().map(within).collect())),
        ("items", value) => (key, or_param(value)),
        (_, value) => (key, value),
    };
    Json::Object(map.into_iter().map(entry).collect())
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

/// The keys that say how a stage is run.
fn running() -> Vec<(String, Json)> {
    let retries = "How often it is tried again when it fails, after pauses of 1, 2, 4 ... seconds.";
    vec![
        (
            "resources".into(),
            resources("What it takes up while it runs: `cpus`, `memory`, `gpus`, and tags of your own."),
        ),
        (
            "retries".into(),
            json!({ "type": "integer", "minimum": 0, "maximum": 100, "default": 0, "description": retries }),
        ),
    ]
}

fn resources(about: &str) -> Json {
    let amount = json!({ "type": "integer", "minimum": 0 });
    json!({
        "type": "object", "description": about, "additionalProperties": amount,
        "properties": { "memory": { "anyOf": [amount, { "type": "string" }] } },
    })
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
    let mount = json!({
        "type": "object", "additionalProperties": false, "required": ["from", "as"],
        "properties": { "from": { "type": "string" }, "as": { "type": "string" } },
    });
    let mut properties = Map::from_iter(wiring().into_iter().chain(running()));
    let texts = |about: &str| json!({ "type": "array", "items": { "type": "string" }, "description": about });
    properties.insert(
        "run".into(),
        json!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": ["string", "number", "boolean"] }, "minItems": 1 }],
            "description": "A command line for `sh -c`, or a program and its arguments.",
        }),
    );
    properties.insert(
        "deps".into(),
        json!({
            "type": "array", "items": { "anyOf": [{ "type": "string" }, mount] },
            "description": "What the command reads: paths, or `{ from = \"stage.output\", as = \"path\" }`.",
        }),
    );
    let keys = [
        ("outs", "The files and folders that the command makes."),
        ("env", "Environment variables that are passed on; their values are in the key."),
        ("secrets", "Environment variables that are passed on; a keyed hash of their values is in the key."),
        ("tools", "Programs whose versions are in the key, beside those that are run."),
        ("environment", "Lock files and the like, by content."),
    ];
    for (key, about) in keys {
        properties.insert(key.into(), texts(about));
    }
    let flags = [
        (
            "hermetic",
            true,
            "Whether the kernel keeps the command from all that is not declared; its default may be set in [pipeline].",
        ),
        ("network", false, "Whether a hermetic command may use the network."),
    ];
    for (key, default, about) in flags {
        properties.insert(key.into(), or_param(json!({ "type": "boolean", "default": default, "description": about })));
    }
    let limits = [
        ("timeout", "How long the command may take, such as \"10m\" or \"1h30m\"."),
        ("idle_timeout", "How long the command may print nothing."),
    ];
    for (key, about) in limits {
        properties.insert(key.into(), json!({ "type": "string", "description": about }));
    }
    json!({
        "type": "object", "description": "Runs a command in a folder of its own. An output for each out, named by its path.",
        "additionalProperties": false,
        "required": ["run", "outs"], "properties": properties,
    })
}
