//! `headwater show`: a preview of an artifact: a frame's head and columns, metrics, a model's card, a table.

use std::io::Write;

use clap::Args;
use headwater_cache::{Artifact, Shape};
use headwater_stages::frame::{self, Schema};
use headwater_stages::io::{Bytes, Stored};
use headwater_stages::kind::artifact;
use headwater_stages::summary::{self, ColumnSummary};
use headwater_stages::transform::Transform;
use serde_json::Value as Json;

use crate::catalog;
use crate::commands::compare::leaderboard;
use crate::commands::{Globals, number};
use crate::error::CommandError;
use crate::process::staging::printable;
use crate::report::print_json;
use crate::workspace::{Found, Workspace};

/// How much of a text is shown, however long its lines are.
const HEAD_BYTES: usize = 64 * 1024;

/// Preview an artifact
#[derive(Debug, Args)]
pub struct Show {
    /// stage[axis=value,…].output, or the beginning of a digest
    reference: String,
    /// How many rows of a frame
    #[arg(short, long, default_value_t = 10, value_parser = number)]
    rows: usize,
}

/// The first rows of a frame, and a line a column.
struct Preview {
    rows: usize,
    names: Vec<String>,
    head: Vec<Vec<String>>,
    columns: Vec<ColumnSummary>,
}

impl Show {
    /// # Errors
    /// If there is no such artifact, or it cannot be read.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let found = workspace.artifact(&self.reference)?;
        let stored = open(&workspace, &found)?;
        if globals.json() {
            return self.print_json(&found.artifact, &*stored);
        }
        let text = self.text(&workspace, &found, &*stored)?;
        Ok(std::io::stdout().write_all(text.as_bytes())?)
    }

    fn text(&self, workspace: &Workspace, found: &Found, stored: &dyn Stored) -> Result<String, CommandError> {
        let artifact = &found.artifact;
        let (name, digest, bytes) = (&artifact.type_name, artifact.digest.short(), artifact.bytes);
        let title = format!("{}  {name}  {digest}  {bytes} bytes\n", found.reference);
        let body = match (artifact.type_name.as_str(), artifact.shape) {
            (artifact::FRAME, _) => self.frame(stored)?,
            (artifact::MODEL, _) => pretty(&json(&stored.entry("card").map_err(CommandError::artifact)?)?),
            (artifact::TRANSFORM, _) => pretty(&transform(stored)?),
            (artifact::METRICS, _) => metrics(&json(&blob(stored)?)?),
            (artifact::REPORT, _) => leaderboard(&json(&blob(stored)?)?),
            (_, Shape::Tree) => entries(workspace, artifact)?,
            (_, Shape::Blob) => match text(&blob(stored)?) {
                Some(text) => file_head(text, self.rows),
                None => "not a text; headwater get writes it to a file\n".to_owned(),
            },
        };
        Ok(title + &body)
    }

    fn frame(&self, stored: &dyn Stored) -> Result<String, CommandError> {
        let preview = self.preview(stored)?;
        let (shown, width) = (preview.head.len(), preview.names.len());
        let head = table(preview.names, preview.head);
        let lines = preview.columns.into_iter().map(|column| {
            let mean = column.mean.map(|mean| format!("{mean:.4}")).unwrap_or_default();
            let (nulls, distinct) = (column.nulls.to_string(), column.distinct.to_string());
            let (min, max) = (column.min.unwrap_or_default(), column.max.unwrap_or_default());
            vec![column.column, column.type_name, nulls, distinct, mean, min, max]
        });
        let names = ["column", "type", "nulls", "distinct", "mean", "min", "max"].map(String::from).to_vec();
        let columns = table(names, lines.collect());
        Ok(format!("{head}\n{shown} of {} rows, {width} columns\n\n{columns}\n", preview.rows))
    }

    /// What is shown of a frame. All of it is looked at, as its columns are summed up, but one column at a time: a frame
    /// may be larger than memory.
    fn preview(&self, stored: &dyn Stored) -> Result<Preview, CommandError> {
        let schema = Schema::of(stored).map_err(CommandError::artifact)?;
        let (names, rows) = (schema.names(), usize::try_from(schema.rows).map_err(CommandError::failed)?);
        let (mut head, mut columns) = (vec![Vec::new(); rows.min(self.rows)], Vec::new());
        for name in &names {
            let column = frame::decode_columns(stored, std::slice::from_ref(name)).map_err(CommandError::artifact)?;
            let (_, cells) = summary::head(&column, self.rows).map_err(CommandError::failed)?;
            head.iter_mut().zip(cells).for_each(|(row, cell)| row.extend(cell));
            columns.extend(summary::columns(&column).map_err(CommandError::failed)?);
        }
        Ok(Preview { rows, names, head, columns })
    }

    fn print_json(&self, artifact: &Artifact, stored: &dyn Stored) -> Result<(), CommandError> {
        let value = match (artifact.type_name.as_str(), artifact.shape) {
            (artifact::FRAME, _) => {
                let Preview { rows, names, head, columns } = self.preview(stored)?;
                serde_json::json!({ "rows": rows, "columns": columns, "names": names, "head": head })
            }
            (artifact::MODEL, _) => json(&stored.entry("card").map_err(CommandError::artifact)?)?,
            (artifact::TRANSFORM, _) => transform(stored)?,
            (artifact::METRICS | artifact::REPORT, _) => json(&blob(stored)?)?,
            (_, Shape::Tree) => {
                let names: Vec<&str> = stored.entries().iter().map(|entry| entry.name.as_str()).collect();
                serde_json::json!({ "files": names })
            }
            (_, Shape::Blob) => serde_json::json!({ "text": text(&blob(stored)?) }),
        };
        let (name, digest, bytes) = (&artifact.type_name, artifact.digest.to_string(), artifact.bytes);
        Ok(print_json(&serde_json::json!({
            "event": "artifact", "type": name, "digest": digest, "bytes": bytes, "content": value
        }))?)
    }
}

/// Opens an artifact that has been found.
///
/// # Errors
/// If its bytes are gone or damaged; the next run makes them again.
pub fn open(workspace: &Workspace, found: &Found) -> Result<std::sync::Arc<dyn Stored>, CommandError> {
    catalog::open(&workspace.store, &found.artifact)
        .map_err(|error| CommandError::Failed(error.to_string(), vec!["`headwater run` makes it again".into()]))
}

fn blob(stored: &dyn Stored) -> Result<Bytes, CommandError> {
    stored.blob().map_err(CommandError::artifact)
}

fn json(bytes: &[u8]) -> Result<Json, CommandError> {
    serde_json::from_slice(bytes).map_err(CommandError::failed)
}

fn transform(stored: &dyn Stored) -> Result<Json, CommandError> {
    let transform = Transform::decode(&blob(stored)?).map_err(CommandError::artifact)?;
    json(transform.describe().as_bytes())
}

fn pretty(value: &Json) -> String {
    format!("{value:#}\n")
}

fn metrics(value: &Json) -> String {
    let rows = value.as_object().into_iter().flatten();
    let rows = rows.map(|(name, value)| vec![name.clone(), value.to_string()]).collect();
    table(vec!["metric".into(), "value".into()], rows) + "\n"
}

fn entries(workspace: &Workspace, artifact: &Artifact) -> Result<String, CommandError> {
    let tree = workspace.store.get_tree(&artifact.digest).map_err(CommandError::failed)?;
    let rows =
        tree.entries.iter().map(|entry| vec![entry.name.clone(), entry.type_name.clone(), entry.bytes.to_string()]);
    Ok(table(["name", "type", "bytes"].map(String::from).to_vec(), rows.collect()) + "\n")
}

/// The bytes of a file as text, if it is one.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn file_head(text: &str, rows: usize) -> String {
    let shown = &text[..text.floor_char_boundary(HEAD_BYTES)];
    shown.lines().take(rows).map(|line| printable(line) + "\n").collect()
}

/// Rows under headings, without lines between.
pub fn table(names: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(names);
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
    }
    table.trim_fmt()
}
