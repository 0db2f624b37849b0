//! What stages take up while they run, and what there is of it: `resources` of a stage, and `[resources]`.
//!
//! `cpus`, `memory` and `gpus` have a meaning; any other name is a tag of the project's own. None of it is in a key.

use std::num::NonZeroU32;

use headwater_engine::{Capacities, Excess, Request};

use crate::error::Diagnostic;
use crate::pipeline::file::StageDeclaration;
use crate::pipeline::value::{Datum, Key, Value};
use crate::size::{self, human};

/// What people write for what has a name here.
const MISNAMED: [(&str, &str); 8] = [
    ("core", "cpus"),
    ("cores", "cpus"),
    ("cpu", "cpus"),
    ("gpu", "gpus"),
    ("mem", "memory"),
    ("ram", "memory"),
    ("thread", "cpus"),
    ("threads", "cpus"),
];

/// A stage that is tried again more often than this will not succeed.
const MOST_RETRIES: u32 = 100;

/// What a stage's `resources` ask for.
///
/// # Errors
/// Every amount that is none.
pub fn request(value: &Value) -> Result<Request, Vec<Diagnostic>> {
    let hint = "write: resources = { cpus = 2, memory = \"4G\" }";
    let (mut request, mut errors) = (Request::default(), Vec::new());
    for (key, value) in entries(value, hint)? {
        let read = match key.name.as_str() {
            "cpus" => {
                count(key, value, 1).map(|count| request.cpus = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN))
            }
            "memory" => bytes(key, value).map(|bytes| request.memory = bytes),
            "gpus" => count(key, value, 0).map(|count| request.gpus = count),
            _ => tag(key, value, 0).map(|count| request.tags.extend([(key.name.clone(), count)])),
        };
        errors.extend(read.err());
    }
    if errors.is_empty() { Ok(request) } else { Err(errors) }
}

/// What `[resources]` says there is. Its cpus are those of `--jobs`.
///
/// # Errors
/// Every amount that is none.
pub fn capacities(entries: &[(Key, Value)]) -> Result<Capacities, Vec<Diagnostic>> {
    let (mut capacities, mut errors) = (Capacities::default(), Vec::new());
    for (key, value) in entries {
        let read = match key.name.as_str() {
            "cpus" => Err(Diagnostic::new("`cpus` is not set in the file: it is what `--jobs` says")
                .at(key.span.clone(), "")
                .hint("remove it; by default all cores are used")),
            "memory" => bytes(key, value).map(|bytes| capacities.memory = Some(bytes)),
            "gpus" => count(key, value, 0).map(|count| capacities.gpus = count),
            _ => tag(key, value, 1).map(|count| capacities.tags.extend([(key.name.clone(), count)])),
        };
        errors.extend(read.err());
    }
    if errors.is_empty() { Ok(capacities) } else { Err(errors) }
}

/// How often a stage is tried again.
///
/// # Errors
/// If it is no number, or too large a one.
pub fn retries(value: &Value) -> Result<u32, Diagnostic> {
    let number = match value.datum {
        Datum::Integer(number) => u32::try_from(number).ok().filter(|number| *number <= MOST_RETRIES),
        _ => None,
    };
    number.ok_or_else(|| {
        let text = format!("`retries` is {}, expected a whole number from 0 to {MOST_RETRIES}", told(value));
        Diagnostic::new(text).at(value.span.clone(), "").hint("write: retries = 2")
    })
}

/// What memory there is, if the system says so.
pub fn memory_of_machine() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What is wrong with a stage that asks for more than there is.
pub fn excessive(stage: &StageDeclaration, excess: &Excess) -> Diagnostic {
    let (requested, capacity) = (excess.requested, excess.capacity);
    let (asked, there) = match excess.resource.as_str() {
        "memory" => (format!("{} of memory", human(requested)), human(capacity)),
        name => (format!("{requested} of `{name}`"), capacity.to_string()),
    };
    let text = format!("`{}` asks for {asked}, and there is {there}", stage.name.name);
    let place = stage.request_span.as_ref().unwrap_or(&stage.name.span).clone();
    let hint = "say what there is: [resources] in the pipeline file, or run --resource NAME=AMOUNT";
    Diagnostic::new(text).at(place, "").hint(hint)
}

fn entries<'a>(value: &'a Value, hint: &str) -> Result<&'a [(Key, Value)], Vec<Diagnostic>> {
    value.as_table().ok_or_else(|| {
        let text = format!("`resources` is {}, expected a table", value.describe());
        vec![Diagnostic::new(text).at(value.span.clone(), "").hint(hint)]
    })
}

fn count(key: &Key, value: &Value, least: u32) -> Result<u32, Diagnostic> {
    let number = match value.datum {
        Datum::Integer(number) => u32::try_from(number).ok().filter(|number| *number >= least),
        _ => None,
    };
    number.ok_or_else(|| {
        let text = format!("`{}` is {}, expected a whole number of at least {least}", key.name, told(value));
        Diagnostic::new(text).at(value.span.clone(), "")
    })
}

/// A tag of the project's own, which is not called as if it were more.
fn tag(key: &Key, value: &Value, least: u32) -> Result<u32, Diagnostic> {
    match MISNAMED.iter().find(|(wrong, _)| *wrong == key.name) {
        Some((wrong, right)) => {
            let text = format!("`{wrong}` would be a tag that means nothing");
            Err(Diagnostic::new(text).at(key.span.clone(), "").hint(format!("did you mean `{right}`?")))
        }
        None => count(key, value, least),
    }
}

fn bytes(key: &Key, value: &Value) -> Result<u64, Diagnostic> {
    let found = match &value.datum {
        Datum::Integer(number) => u64::try_from(*number).ok(),
        Datum::Text(text) => size::parse(text).ok(),
        _ => None,
    };
    found.ok_or_else(|| {
        let text = format!("`{}` is {}, {}", key.name, told(value), size::EXPECTED);
        Diagnostic::new(text).at(value.span.clone(), "").hint(format!("write: {} = \"4G\"", key.name))
    })
}

/// A value that can be shown in a sentence, or what it is.
fn told(value: &Value) -> String {
    match value.datum {
        Datum::Integer(_) | Datum::Float(_) | Datum::Text(_) => format!("`{value}`"),
        _ => value.describe().to_owned(),
    }
}

/// The capacities with those of the command line, `NAME=AMOUNT`, laid over them.
///
/// # Errors
/// A setting that is none, as a sentence.
pub fn overlaid(declared: &Capacities, settings: &[String]) -> Result<Capacities, String> {
    let mut capacities = declared.clone();
    for setting in settings {
        let wrong = |expected: &str| format!("`{setting}` is no resource: {expected}");
        let (name, amount) = setting.split_once('=').ok_or_else(|| wrong("expected NAME=AMOUNT, such as gpus=1"))?;
        let count = || amount.parse::<u32>().map_err(|_| wrong("expected a whole number"));
        match name {
            "cpus" => return Err(wrong("the cpus are set by --jobs")),
            "memory" => capacities.memory = Some(size::parse(amount).map_err(|expected| wrong(&expected))?),
            "gpus" => capacities.gpus = count()?,
            _ => capacities.tags.extend([(name.to_owned(), count()?)]),
        }
    }
    capacities.memory = capacities.memory.or_else(memory_of_machine);
    Ok(capacities)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_command_line_is_laid_over_the_file() {
        let declared = Capacities { memory: Some(5), gpus: 1, tags: BTreeMap::from([("license".into(), 2)]) };
        let laid = |settings: &[&str]| {
            overlaid(&declared, &settings.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        let found = laid(&["memory=4G", "license=3", "slot=1"]).unwrap();
        assert_eq!((found.memory, found.gpus), (Some(4_000_000_000), 1));
        assert_eq!(found.tags, BTreeMap::from([("license".into(), 3), ("slot".into(), 1)]));
        let errors = [
            ("gpus", "`gpus` is no resource: expected NAME=AMOUNT, such as gpus=1"),
            ("gpus=many", "`gpus=many` is no resource: expected a whole number"),
            ("cpus=4", "`cpus=4` is no resource: the cpus are set by --jobs"),
            ("memory=4X", "`memory=4X` is no resource: expected a number of bytes such as 500M or 20G"),
        ];
        for (setting, error) in errors {
            assert_eq!(laid(&[setting]), Err(error.to_owned()));
        }
    }

    #[test]
    fn the_machine_says_what_memory_it_has() {
        assert!(memory_of_machine().is_some_and(|bytes| bytes > 1 << 20));
    }
}
