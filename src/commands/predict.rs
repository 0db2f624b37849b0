//! `headwater predict`: a trained model, with its fitted preparation, over a new file.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use headwater_engine::NodeId;
use headwater_stages::collect::write::{check_path, write_frame};
use headwater_stages::collect::{ReadConfig, read_frame_for};
use headwater_stages::deploy::predict::predict;
use headwater_stages::kind::artifact;
use headwater_stages::model::Model;

use crate::commands::Globals;
use crate::commands::get::{refuse_to_replace, write};
use crate::commands::show::open;
use crate::error::CommandError;
use crate::report::tell;
use crate::workspace::Workspace;

/// Predict with a trained model over a new file
#[derive(Debug, Args)]
pub struct Predict {
    /// The model, such as train[model=forest]
    model: String,
    /// The rows: .csv, .tsv, .parquet, .arrow or .jsonl, .gz and .zst too
    input: PathBuf,
    /// Where the predictions go, in the order of the rows
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// A text that stands for a missing value in the file, beside the empty one; may be repeated. Default: those of
    /// the files that the model was trained on
    #[arg(long, value_name = "TEXT")]
    null_value: Vec<String>,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
}

impl Predict {
    /// # Errors
    /// If there is no such model, the file cannot be read, or a column that the model takes is missing.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let found = workspace.artifact(&self.model)?;
        if found.artifact.type_name != artifact::MODEL {
            let text = format!("`{}` is a {}, not a model", found.reference, found.artifact.type_name);
            return Err(CommandError::Usage(text, vec!["name the output of a `train` stage".into()]));
        }
        refuse_to_replace(&self.output, self.overwrite)?;
        check_path(&self.output.to_string_lossy()).map_err(|error| CommandError::usage(error.to_string()))?;
        let path = self.input.to_string_lossy();
        let bytes = std::fs::read(&self.input).map_err(|error| CommandError::failed(format!("{path}: {error}")))?;
        let model = open(&workspace, &found)?;
        let mut config = ReadConfig::of_path(&path).map_err(|error| CommandError::usage(error.to_string()))?;
        config.null_values = match (self.null_value.as_slice(), found.node) {
            ([], Some(id)) => null_values(&workspace, id),
            (own, _) => own.to_vec(),
        };
        let frame = read_frame_for(config, &bytes, &text_columns(&*model)?).map_err(CommandError::failed)?;
        let predictions = predict(&*model, &frame).map_err(|error| {
            let hint = format!("the file is {path}; what stands for a missing value there: --null-value TEXT");
            CommandError::Failed(error.to_string(), vec![hint])
        })?;
        let rows = predictions.height();
        let bytes = write_frame(&predictions, &self.output.to_string_lossy());
        write(&self.output, &bytes.map_err(|error| CommandError::usage(error.to_string()))?)?;
        if !globals.quiet {
            tell(&format!("{rows} predictions of {} in {}", found.reference, self.output.display()));
        }
        Ok(())
    }
}

/// What stood for a missing value in the files above the model.
fn null_values(workspace: &Workspace, id: NodeId) -> Vec<String> {
    let graph = &workspace.pipeline.graph;
    let above = graph.closure(&[id]);
    let reads =
        graph.ids().filter(|id| above[id.0]).map(|id| &graph.node(id).stage).filter(|stage| stage.kind == "read");
    let lines = reads.flat_map(|stage| &stage.config).filter(|(label, _)| label.starts_with("null_values."));
    let texts: BTreeSet<String> = lines.filter_map(|(_, text)| serde_json::from_str(text).ok()).collect();
    texts.into_iter().collect()
}

/// The columns that the model was fitted on as text: digits there are no numbers.
fn text_columns(model: &dyn headwater_stages::io::Stored) -> Result<Vec<String>, CommandError> {
    let transform = Model::transform(model).map_err(CommandError::artifact)?;
    Ok(transform.map(|transform| transform.text_inputs()).unwrap_or_default())
}
