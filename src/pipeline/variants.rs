//! Params, matrix and named variants -> the list of variants and their axes.
//!
//! A variant assigns every param. The variants are the matrix's combinations, less `exclude`, plus the named ones. A
//! param is an axis if it has more than one value among them. It does not know stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Diagnostic;
use crate::pipeline::expand::normal;
use crate::pipeline::file::{PipelineFile, WorkDeclaration};
use crate::pipeline::interpolate::{Choice, Choices};
use crate::pipeline::value::{Datum, Key, Span, Value};
use crate::project::STATE;

/// More variants than this are taken for a mistake.
const LIMIT: usize = 1_000_000;

/// All variants.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    /// The params that vary, in the order of the file.
    pub axes: Vec<String>,
    pub all: Vec<Variant>,
}

/// One assignment of all params.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// The name, of a named one.
    pub name: Option<String>,
    pub choices: Choices,
}

impl Variants {
    /// Expands the file's params, with the settings of the command line laid over them. `root` is where globs look.
    ///
    /// # Errors
    /// Everything that is wrong with params, matrix and variants.
    pub fn expand(file: &PipelineFile, settings: &[(String, Value)], root: &Path) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let matrix = read_matrix(file, root, &mut errors);
        check_settings(file, &matrix, settings, &mut errors);
        check_exclusions(file, &matrix, &mut errors);
        check_size(file, &matrix, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        let defaults = params_of(file);
        let mut all = combinations(file, &matrix, &defaults);
        for (name, settings) in &file.variants {
            all.extend(named(name, settings, &matrix, &defaults));
        }
        let mut variants = Self { axes: Vec::new(), all: distinct(all) };
        variants.apply(settings);
        variants.axes = variants.find_axes(file);
        variants.check(file)?;
        Ok(variants)
    }

    /// The value of `--set` wins everywhere; for an axis that has a value of this label, the others are dropped.
    fn apply(&mut self, settings: &[(String, Value)]) {
        for (name, value) in settings {
            let label = label_of(value, "");
            let has = |variant: &Variant| variant.choices.get(name).is_some_and(|choice| choice.label == label);
            if self.all.iter().any(has) {
                self.all.retain(has);
            } else {
                for variant in &mut self.all {
                    variant.choices.insert(name.clone(), Choice { label: label.clone(), value: value.clone() });
                }
            }
        }
        self.all = distinct(std::mem::take(&mut self.all));
    }

    fn find_axes(&self, file: &PipelineFile) -> Vec<String> {
        let set_by_variants = file.variants.iter().flat_map(|(_, settings)| settings.iter().map(|(key, _)| key));
        let mut names: Vec<&str> = Vec::new();
        for key in file.matrix.iter().map(|(key, _)| key).chain(set_by_variants) {
            if !names.contains(&key.name.as_str()) {
                names.push(&key.name);
            }
        }
        let varies = |name: &&str| {
            let first = self.all.first().and_then(|variant| variant.choices.get(*name));
            self.all.iter().any(|variant| !is_same(variant.choices.get(*name), first))
        };
        names.into_iter().filter(varies).map(str::to_owned).collect()
    }

    /// One label, one value; and every variant has every axis.
    fn check(&self, file: &PipelineFile) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        if self.all.is_empty() {
            let none = Diagnostic::new("no variant is left: `exclude` takes every combination of the matrix");
            let rules = file.exclude.first().zip(file.exclude.last());
            errors.push(match rules {
                Some((first, last)) => none.at(first.span.start..last.span.end, ""),
                None => none,
            });
        }
        for axis in &self.axes {
            errors.extend(self.gap(file, axis).or_else(|| self.clash(file, axis)));
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// A variant that has no value for an axis.
    fn gap(&self, file: &PipelineFile, axis: &str) -> Option<Diagnostic> {
        let without = self.all.iter().find(|variant| !variant.choices.contains_key(axis))?;
        let named = |(key, _): &&(Key, _)| Some(&key.name) == without.name.as_ref();
        let settings = file.variants.iter().flat_map(|(_, settings)| settings);
        let (text, place) = match file.variants.iter().find(named) {
            Some((key, _)) => (format!("variant `{}` has no value for the param `{axis}`", key.name), &key.span),
            None => {
                let (key, _) = settings.clone().find(|(key, _)| key.name == axis)?;
                (format!("the variants of the matrix have no value for the param `{axis}`"), &key.span)
            }
        };
        let hint = format!("set `{axis}` in [params]: variants that leave it out take that value");
        Some(Diagnostic::new(text).at(place.clone(), "").hint(hint))
    }

    /// Two values of an axis that no name could tell apart.
    fn clash(&self, file: &PipelineFile, axis: &str) -> Option<Diagnostic> {
        let mut seen: BTreeMap<&str, &Value> = BTreeMap::new();
        let choices = self.all.iter().filter_map(|variant| variant.choices.get(axis));
        for choice in choices {
            let first = seen.entry(&choice.label).or_insert(&choice.value);
            if !first.is_same(&choice.value) {
                let text = format!("the axis `{axis}` has two different values with the label `{}`", choice.label);
                let text = Diagnostic::new(text).at(place_of(file, axis, &choice.value), "");
                return Some(text.hint("labels tell nodes apart: write the values so that their texts differ"));
            }
        }
        None
    }
}

fn is_same(one: Option<&Choice>, other: Option<&Choice>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.label == other.label && one.value.is_same(&other.value),
        (one, other) => one.is_none() && other.is_none(),
    }
}

fn check_size(file: &PipelineFile, matrix: &Matrix, errors: &mut Vec<Diagnostic>) {
    let mut size = 1usize;
    for (axis, choices) in matrix {
        size = size.saturating_mul(choices.len());
        let key = file.matrix.iter().map(|(key, _)| key).find(|key| key.name == *axis);
        if let (Some(key), true) = (key, size > LIMIT) {
            let text = format!("the matrix has more than {LIMIT} combinations");
            let label = "it is too many with this axis";
            errors.push(
                Diagnostic::new(text)
                    .at(key.span.clone(), label)
                    .hint("`exclude` does not count here: give axes fewer values"),
            );
            return;
        }
    }
}

fn place_of(file: &PipelineFile, axis: &str, value: &Value) -> Span {
    let key = file.matrix.iter().find(|(key, _)| key.name == axis).map(|(key, _)| key.span.clone());
    if value.span.is_empty() { key.unwrap_or_default() } else { value.span.clone() }
}

/// What stands for a value in names and paths: its text, or for a table the name it goes by.
fn label_of(value: &Value, table: &str) -> String {
    match value.datum {
        Datum::Table(_) => table.to_owned(),
        _ => value.to_string(),
    }
}

fn params_of(file: &PipelineFile) -> Choices {
    let choice = |(key, value): &(Key, Value)| {
        (key.name.clone(), Choice { label: label_of(value, &key.name), value: value.clone() })
    };
    file.params.iter().map(choice).collect()
}

type Matrix = Vec<(String, Vec<Choice>)>;

fn read_matrix(file: &PipelineFile, root: &Path, errors: &mut Vec<Diagnostic>) -> Matrix {
    let mut matrix = Vec::new();
    let files = Files { root, outs: literal_outs(file) };
    for (key, value) in &file.matrix {
        match read_axis(&key.name, value, &files) {
            Ok(choices) => matrix.push((key.name.clone(), choices)),
            Err(error) => errors.push(error),
        }
    }
    matrix
}

/// Where globs look, and what they pass over.
struct Files<'a> {
    root: &'a Path,
    outs: Vec<PathBuf>,
}

impl Files<'_> {
    /// A path found, as it is written in the project: folders are no values, what commands make is there only after a
    /// run, and the state is Headwater's own.
    fn relative<'a>(&self, found: &'a Path) -> Option<&'a Path> {
        let relative = found.strip_prefix(self.root).unwrap_or(found);
        let made = self.outs.iter().any(|out| relative.starts_with(out));
        (!found.is_dir() && !relative.starts_with(STATE) && !made).then_some(relative)
    }
}

/// The outs of commands that mention no param. The others depend on the axes, which are not known yet.
fn literal_outs(file: &PipelineFile) -> Vec<PathBuf> {
    let commands = file.stages.iter().filter(|stage| matches!(stage.work, WorkDeclaration::Run(_)));
    let outs = commands.filter_map(|stage| match &stage.config.get("outs")?.datum {
        Datum::List(outs) => Some(outs),
        _ => None,
    });
    let literal = outs.flatten().filter_map(Value::as_text).filter(|out| !out.is_empty() && !out.contains("${"));
    literal.map(|out| normal(Path::new(out))).collect()
}

fn read_axis(name: &str, value: &Value, files: &Files<'_>) -> Result<Vec<Choice>, Diagnostic> {
    let wrong = |text: String| Diagnostic::new(text).at(value.span.clone(), "");
    match &value.datum {
        Datum::List(values) if values.is_empty() => Err(wrong("an axis needs at least one value".into())),
        Datum::Table(entries) if entries.is_empty() => Err(wrong("an axis needs at least one value".into())),
        Datum::List(values) => values.iter().map(|value| read_scalar(name, value)).collect(),
        Datum::Table(entries) if is_set(value, "glob") => read_glob(value, entries, files),
        Datum::Table(entries) if is_set(value, "below") || is_set(value, "from") => read_range(value, entries),
        Datum::Table(entries) if entries.iter().all(|(_, value)| value.as_table().is_some()) => {
            let choice = |(key, value): &(Key, Value)| Choice { label: key.name.clone(), value: value.clone() };
            Ok(entries.iter().map(choice).collect())
        }
        Datum::Table(_) => Err(wrong(format!("a table as a value of the axis `{name}` needs a label"))
            .hint(format!("write: {name}.LABEL = {{ … }}"))),
        _ => Err(wrong(format!(
            "`{name}` is {}, expected an array, a range, a glob or labelled tables",
            value.describe()
        ))
        .hint("write: lr = [0.1, 0.01], or fold = { from = 0, below = 5 }, or model.LABEL = { … }")),
    }
}

/// Whether a table has a key that is no label of an axis.
fn is_set(value: &Value, name: &str) -> bool {
    value.get(name).is_some_and(|value| value.as_table().is_none())
}

fn read_scalar(axis: &str, value: &Value) -> Result<Choice, Diagnostic> {
    let wrong = |text: String| Diagnostic::new(text).at(value.span.clone(), "");
    match value.datum {
        Datum::Table(_) => Err(wrong(format!("a table as a value of the axis `{axis}` needs a label"))
            .hint(format!("write: {axis}.LABEL = {{ … }}"))),
        Datum::List(_) => Err(wrong(format!("a value of the axis `{axis}` is an array, expected one value"))
            .hint("a param of a named variant may be an array: [variants.NAME]")),
        _ => Ok(Choice { label: value.to_string(), value: value.clone() }),
    }
}

fn check_keys(entries: &[(Key, Value)], known: &[&str], what: &str) -> Result<(), Diagnostic> {
    let Some((key, _)) = entries.iter().find(|(key, _)| !known.contains(&key.name.as_str())) else { return Ok(()) };
    let unknown = Diagnostic::new(format!("unknown key `{}` in {what}", key.name)).at(key.span.clone(), "");
    Err(unknown.hint(format!("the keys are: {}", known.join(", "))))
}

fn read_range(value: &Value, entries: &[(Key, Value)]) -> Result<Vec<Choice>, Diagnostic> {
    check_keys(entries, &["from", "below"], "a range")?;
    let wrong = |text: String| Diagnostic::new(text).at(value.span.clone(), "");
    let bound = |name: &str| match value.get(name) {
        None if name == "from" => Ok(0),
        None => Err(wrong("the key `below` of a range is missing".into()).hint("write: { from = 0, below = 5 }")),
        Some(Value { datum: Datum::Integer(number), .. }) => Ok(*number),
        Some(other) => {
            let text = format!("`{name}` of a range is {}, expected an integer", other.describe());
            Err(Diagnostic::new(text).at(other.span.clone(), ""))
        }
    };
    let (from, below) = (bound("from")?, bound("below")?);
    if below <= from {
        return Err(wrong(format!("the range from {from} below {below} has no values")));
    }
    if below.checked_sub(from).is_none_or(|size| size > LIMIT as i64) {
        return Err(wrong(format!("the range from {from} below {below} has more than {LIMIT} values")));
    }
    let integer = |number: i64| Value { datum: Datum::Integer(number), span: value.span.clone() };
    Ok((from..below).map(|number| Choice { label: number.to_string(), value: integer(number) }).collect())
}

fn read_glob(value: &Value, entries: &[(Key, Value)], files: &Files<'_>) -> Result<Vec<Choice>, Diagnostic> {
    check_keys(entries, &["glob"], "a glob")?;
    let span = value.get("glob").map_or_else(|| value.span.clone(), |pattern| pattern.span.clone());
    let wrong = |text: String| Diagnostic::new(text).at(span.clone(), "");
    let pattern = value.get("glob").unwrap_or(value);
    let unfit = || wrong(format!("`glob` is {}, expected a pattern of paths", pattern.describe()));
    let pattern = pattern.as_text().ok_or_else(unfit)?;
    let invalid = |error: &glob::PatternError| {
        wrong(format!("`{pattern}` is no pattern: {} at character {}", error.msg, error.pos + 1))
    };
    glob::Pattern::new(pattern).map_err(|error| invalid(&error))?;
    // The project's own path may hold characters that a pattern would read.
    let full = format!("{}/{pattern}", glob::Pattern::escape(&files.root.to_string_lossy()));
    let found = glob::glob(&full).map_err(|error| invalid(&error))?;
    let mut choices = Vec::new();
    for path in found {
        let path = path.map_err(|error| wrong(error.to_string()))?;
        let Some(relative) = files.relative(&path) else { continue };
        let relative = relative.to_string_lossy().into_owned();
        let datum = Datum::Text(relative.clone());
        choices.push(Choice { label: relative, value: Value { datum, span: value.span.clone() } });
    }
    if choices.is_empty() {
        let hint = "patterns are relative to the folder of the pipeline file";
        return Err(wrong(format!("no file matches `{pattern}`")).hint(hint));
    }
    Ok(choices)
}

fn check_settings(file: &PipelineFile, matrix: &Matrix, settings: &[(String, Value)], errors: &mut Vec<Diagnostic>) {
    let params = file.params.iter().map(|(key, _)| key.name.as_str());
    let named = file.variants.iter().flat_map(|(_, settings)| settings.iter().map(|(key, _)| key.name.as_str()));
    let known: Vec<&str> = params.chain(matrix.iter().map(|(name, _)| name.as_str())).chain(named).collect();
    for (name, _) in settings.iter().filter(|(name, _)| !known.contains(&name.as_str())) {
        let unknown = Diagnostic::new(format!("--set names an unknown param `{name}`"));
        errors.push(unknown.suggest(name, known.iter().copied(), "params"));
    }
}

fn check_exclusions(file: &PipelineFile, matrix: &Matrix, errors: &mut Vec<Diagnostic>) {
    for (key, value) in file.exclude.iter().flat_map(|value| value.as_table().unwrap_or_default()) {
        match matrix.iter().find(|(name, _)| *name == key.name) {
            None => {
                let unknown = Diagnostic::new(format!("`exclude` names an unknown axis `{}`", key.name));
                let names = matrix.iter().map(|(name, _)| name.as_str());
                errors.push(unknown.at(key.span.clone(), "").suggest(&key.name, names, "axes"));
            }
            Some((_, choices)) if !choices.iter().any(|choice| choice.label == value.to_string()) => {
                let text = format!("axis `{}` has no value `{value}`", key.name);
                let labels = choices.iter().map(|choice| choice.label.as_str());
                errors.push(Diagnostic::new(text).at(value.span.clone(), "").suggest(
                    &value.to_string(),
                    labels,
                    "values",
                ));
            }
            Some(_) => {}
        }
    }
}

fn combinations(file: &PipelineFile, matrix: &Matrix, defaults: &Choices) -> Vec<Variant> {
    // Without a matrix the named variants are all there is; without those, the params are the one variant.
    if matrix.is_empty() && !file.variants.is_empty() {
        return Vec::new();
    }
    let excluded = |variant: &Variant| {
        file.exclude.iter().any(|rule| {
            let mut wanted = rule.as_table().unwrap_or_default().iter();
            wanted.all(|(key, value)| {
                variant.choices.get(&key.name).is_some_and(|choice| choice.label == value.to_string())
            })
        })
    };
    let mut all = product(matrix, Variant { name: None, choices: defaults.clone() });
    all.retain(|variant| !excluded(variant));
    all
}

/// Every combination of the axes over a variant; the last axis turns fastest.
fn product(matrix: &[(String, Vec<Choice>)], base: Variant) -> Vec<Variant> {
    let mut all = vec![base];
    for (name, choices) in matrix {
        let with = |variant: &Variant, choice: &Choice| {
            let mut variant = variant.clone();
            variant.choices.insert(name.clone(), choice.clone());
            variant
        };
        all = all.iter().flat_map(|variant| choices.iter().map(move |choice| with(variant, choice))).collect();
    }
    all
}

/// A named variant: its own settings, and every value of the axes that it leaves out.
fn named(name: &Key, settings: &[(Key, Value)], matrix: &Matrix, defaults: &Choices) -> Vec<Variant> {
    let mut base = Variant { name: Some(name.name.clone()), choices: defaults.clone() };
    for (key, value) in settings {
        let labelled = matrix.iter().find(|(axis, _)| *axis == key.name);
        let text = value.as_text();
        let chosen =
            labelled.and_then(|(_, choices)| choices.iter().find(|choice| Some(choice.label.as_str()) == text));
        let own = || Choice { label: label_of(value, &name.name), value: value.clone() };
        base.choices.insert(key.name.clone(), chosen.cloned().unwrap_or_else(own));
    }
    let left: Matrix =
        matrix.iter().filter(|(axis, _)| !settings.iter().any(|(key, _)| key.name == *axis)).cloned().collect();
    product(&left, base)
}

fn distinct(all: Vec<Variant>) -> Vec<Variant> {
    let mut seen = std::collections::BTreeSet::new();
    let identity = |variant: &Variant| -> Vec<(String, String, String)> {
        let of = |(name, choice): (&String, &Choice)| (name.clone(), choice.label.clone(), choice.value.identity());
        variant.choices.iter().map(of).collect()
    };
    all.into_iter().filter(|variant| seen.insert(identity(variant))).collect()
}
