//! `sql`: one query over the inputs, which are its tables.
//!
//! Rows come in a defined order: joins keep the left order (a right join the right one); if anything in the query groups,
//! drops duplicates or combines sets, the result is sorted by all its columns in turn, ascending, nulls last; under
//! `order by` the remaining columns break ties in the same way, wherever it stands. In a window equal keys keep
//! the order of rows, and null is the smallest value. Whole numbers are counted and reckoned with as i64. This file does not
//! know where tables come from, and polars-sql does not know about orders: `sql_text` holds the rules of the text,
//! `sql_columns` what is read, `sql_order` the order of the plan.
//!
//! Invariant: the result follows from the query's tree and the selected columns alone, at any number of threads.

use std::collections::BTreeMap;

use polars::prelude::*;
use polars::sql::SQLContext;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlparser::ast::Query;

use super::sql_columns::Names;
use super::sql_order::{WIDENED, collect, ordered};
use super::sql_text::{Relations, SqlText, refused};
use crate::StageError;
use crate::error::list;
use crate::frame::{self, Schema};
use crate::io::{Draft, Inputs, Outputs};
use crate::kind::{InputPorts, Kind, OutputPort, Ports, Selections, artifact};

/// Stands in for the columns of a table of which only the number of rows counts.
const ROW: &str = "headwater:row";

/// The kind `sql`.
pub enum Sql {}

/// Makes a frame by a query over frames; each input is a table of its port's name, a single one is `input`. Output
/// `frame`.
///
/// The syntax is PostgreSQL's, the meaning polars': `7 / 2` is 3.5, `-7 % 2` is 1, and `rank()` and `dense_rank()` are null
/// where what they order by is. What polars has not is an error, and so are no rows. Rows have a defined order: that of the
/// left table of a join, or the right one of a right join; after grouping, `distinct` and unions that of all columns in
/// turn, which breaks ties under `order by`, too.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One `select`, `with`, `union`, … whose tables are the inputs. A key holds its syntax tree: comments and white
    /// space do not count.
    #[schemars(with = "String")]
    pub query: SqlText,
}

impl Kind for Sql {
    const NAME: &'static str = "sql";
    /// Stands for polars 0.55.2 and sqlparser 0.62 too: to be raised with either of them.
    const VERSION: u32 = 2;
    type Config = Config;

    fn ports(_config: &Config) -> Ports {
        Ports {
            inputs: InputPorts::Named { type_name: artifact::FRAME },
            outputs: vec![OutputPort::new("frame", artifact::FRAME)],
        }
    }

    fn reads(config: &Config, schemas: &BTreeMap<String, Schema>) -> Selections {
        let columns = schemas.iter().map(|(port, schema)| (port.clone(), schema.names())).collect();
        Names::of(config.query.query()).selections(&columns)
    }

    fn run(config: &Config, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError> {
        let query = config.query.query();
        check_tables(query, inputs)?;
        let columns = columns(inputs)?;
        if let Some((column, available)) = Names::of(query).unknown(&columns) {
            return Err(StageError::UnknownColumn { place: "query".into(), column, available });
        }
        let plan = plan(&config.query, inputs)?;
        let plan = ordered(plan, config.query.has_set_operation())?;
        let mut result = collect(plan).map_err(|error| fact(&error))?;
        if result.height() == 0 {
            return Err(StageError::Empty { place: "sql".into() });
        }
        if config.query.is_unordered() {
            result = sorted(result)?;
        }
        outputs.put("frame", Draft::tree(artifact::FRAME, frame::encode(&result)?));
        Ok(())
    }
}

/// polars-sql looks for an input of a name before it looks for a table of the query by that name, so no two may share one.
fn check_tables(query: &Query, inputs: &Inputs) -> Result<(), StageError> {
    let ports: Vec<String> = inputs.ports().map(String::from).collect();
    let relations = Relations::of(query);
    let taken = |name: &String| ports.contains(name) || relations.with.contains(name);
    if let Some(name) = relations.with.iter().find(|name| ports.contains(name)) {
        return Err(refused(format!("`{name}` is an input; the table of the `with` needs another name")));
    }
    if let Some(name) = relations.tables.iter().find(|name| !taken(name)) {
        return Err(refused(format!("there is no table `{name}`; the inputs are {}", list(&ports))));
    }
    let shadows = |(alias, table): &&(String, Option<String>)| taken(alias) && table.as_ref() != Some(alias);
    match relations.aliases.iter().find(shadows) {
        Some((alias, _)) => Err(refused(format!("the alias `{alias}` is the name of another table"))),
        None => Ok(()),
    }
}

fn columns(inputs: &Inputs) -> Result<BTreeMap<String, Vec<String>>, StageError> {
    inputs.ports().map(|port| Ok((port.into(), Schema::of(inputs.one(port)?)?.names()))).collect()
}

fn plan(query: &SqlText, inputs: &Inputs) -> Result<DslPlan, StageError> {
    let used = Relations::of(query.query()).tables;
    let mut context = SQLContext::new();
    for port in inputs.ports().filter(|port| used.contains(*port)) {
        context.register(port, table(frame::decode(inputs.one(port)?)?)?.lazy());
    }
    Ok(context.execute(&query.for_polars()?).map_err(|error| fact(&error))?.logical_plan)
}

/// polars forgets the number of rows of a frame without columns.
fn table(mut frame: DataFrame) -> Result<DataFrame, StageError> {
    if frame.width() == 0 {
        let rows = BooleanChunked::full(ROW.into(), true, frame.height());
        frame = DataFrame::new(frame.height(), vec![rows.into_column()]).map_err(|error| fact(&error))?;
    }
    Ok(frame)
}

fn sorted(result: DataFrame) -> Result<DataFrame, StageError> {
    for column in result.columns() {
        if frame::type_name(column.dtype()).is_none() && !column.dtype().is_null() {
            let found = column.dtype().to_string();
            return Err(StageError::UnsupportedType { column: column.name().to_string(), found });
        }
    }
    let options = SortMultipleOptions::default().with_nulls_last(true).with_maintain_order(true);
    let names: Vec<PlSmallStr> = result.columns().iter().map(|column| column.name().clone()).collect();
    result.sort(names, options).map_err(|error| fact(&error))
}

/// What polars found wrong, in one line, without the plan.
fn fact(error: &PolarsError) -> StageError {
    let mut cause = error;
    while let PolarsError::Context { error, .. } | PolarsError::ExprContext { error, .. } = cause {
        cause = error;
    }
    let text = cause.to_string().replace(&format!(".{WIDENED}()"), "");
    let text = text.split_once("Resolved plan until failure").map_or(text.as_str(), |(before, _)| before);
    let line = text.trim().lines().next().unwrap_or_default().trim_end_matches([':', ' ']);
    if let PolarsError::Duplicate(_) = cause
        && let Some(name) = line.split('\'').nth(1)
    {
        return refused(format!("two columns are called `{name}`; name one of them with `as`"));
    }
    if let PolarsError::ColumnNotFound(_) = cause
        && let Some(name) = line.split('"').nth(1)
    {
        return refused(format!(
            "the column `{name}` is not there at that step; select it, or give it an alias, before"
        ));
    }
    let short: String = line.chars().take(200).collect();
    refused(if short.len() < line.len() { format!("{short}…") } else { short })
}
