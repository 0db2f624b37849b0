//! `headwater graph`: the nodes and edges, as text, dot, mermaid, svg or JSON.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::commands::Globals;
use crate::commands::get::{refuse_to_replace, write};
use crate::drawing::{self, Drawing};
use crate::error::CommandError;
use crate::pipeline::Pipeline;
use crate::report::print_json;

/// Draw the graph
#[derive(Debug, Args)]
pub struct DrawGraph {
    /// Write to this file; its ending chooses the form: .svg, .mmd, .dot, .txt or .json
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The form, where the file's ending does not say it
    #[arg(long = "as", value_enum, value_name = "FORM")]
    form: Option<Form>,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
    /// One box a stage instead of one a node
    #[arg(long)]
    stages: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Dot,
    Mermaid,
    Svg,
    Json,
}

#[derive(Serialize)]
struct NodeJson<'a> {
    event: &'static str,
    node: &'a str,
    kind: &'a str,
    reads: Vec<&'a str>,
}

impl DrawGraph {
    /// # Errors
    /// If the pipeline is wrong, or the file cannot be written.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let pipeline = Pipeline::load(&globals.pipeline, &[])?;
        if let Some(path) = &self.output {
            refuse_to_replace(path, self.overwrite)?;
        }
        let drawing = if self.stages { Drawing::of_stages(&pipeline) } else { Drawing::of_nodes(&pipeline) };
        let text = match self.form(globals)? {
            Form::Text => drawing::text(&drawing),
            Form::Dot => drawing::dot(&drawing),
            Form::Mermaid => drawing::mermaid(&drawing),
            Form::Svg => drawing::svg(&drawing),
            Form::Json => return self.print(&drawing),
        };
        match &self.output {
            Some(path) => write(path, text.as_bytes()),
            None => {
                use std::io::Write;
                Ok(std::io::stdout().write_all(text.as_bytes())?)
            }
        }
    }

    fn form(&self, globals: &Globals) -> Result<Form, CommandError> {
        if let Some(form) = self.form {
            return Ok(form);
        }
        let Some(path) = &self.output else { return Ok(if globals.json() { Form::Json } else { Form::Text }) };
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => Ok(Form::Svg),
            Some("dot" | "gv") => Ok(Form::Dot),
            Some("mmd" | "mermaid") => Ok(Form::Mermaid),
            Some("txt") => Ok(Form::Text),
            Some("json") => Ok(Form::Json),
            _ => Err(CommandError::Usage(
                format!("the ending of {} does not say in which form to draw", path.display()),
                vec!["use .svg, .mmd, .dot, .txt or .json, or --as FORM".into()],
            )),
        }
    }

    fn print(&self, drawing: &Drawing) -> Result<(), CommandError> {
        let mut lines = Vec::new();
        for (at, node) in drawing.boxes.iter().enumerate() {
            let reads = drawing.edges.iter().filter(|(_, to)| *to == at);
            let reads = reads.map(|(from, _)| drawing.boxes[*from].name.as_str()).collect();
            let line = NodeJson { event: "node", node: &node.name, kind: &node.kind, reads };
            match &self.output {
                None => print_json(&line)?,
                Some(_) => lines.push(serde_json::to_string(&line).map_err(CommandError::failed)?),
            }
        }
        match &self.output {
            Some(path) => write(path, (lines.join("\n") + "\n").as_bytes()),
            None => Ok(()),
        }
    }
}
