//! The pipeline that is tortured: eight small stages, two of them commands, and inputs that can be chosen.
//!
//! One of its files is large enough for a file of its own in the store. Same inputs, same files; different inputs differ in at least one artifact. It does not know who runs it.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::random::Random;
use crate::score::Trouble;

/// How many contents each input has. Those of one input have the same length but the last one.
pub const CONTENTS: u64 = 5;

/// How many rows the table has.
const ROWS: u64 = 60;

/// The files that a person would edit.
pub const FILES: [&str; 3] = ["data/rows.csv", "texts/a.txt", "texts/b.txt"];

/// The files that runs make in the project.
pub const OUTS: [&str; 4] = ["report.txt", "pages/all.txt", "pages/index.txt", "pages/large.txt"];

/// All stages.
pub const STAGES: [&str; 8] = ["rows", "wide", "split", "prepare", "train", "evaluate", "joined", "report"];

/// The artifacts that are fetched, and the files that they are fetched as.
pub const ARTIFACTS: [(&str, &str); 10] = [
    ("rows.frame", "rows.csv"),
    ("wide.frame", "wide.parquet"),
    ("split.train", "train.csv"),
    ("split.test", "test.jsonl"),
    ("prepare.train", "features.csv"),
    ("prepare.test", "features-test.arrow"),
    ("evaluate.metrics", "metrics.json"),
    ("evaluate.predictions", "predictions.csv"),
    ("joined.pages", "pages"),
    ("report.report.txt", "report.txt"),
];

const PIPELINE: &str = r#"
[pipeline]
name = "torture"

[params]
seed = SEED

[stages.rows]
uses = "read"
path = "data/rows.csv"

[stages.wide]
uses = "sql"
input = "rows"
query = "select id, colour, width, height, label from input where width > 1"

[stages.split]
uses = "split"
input = "wide"
test = 0.3
stratify = "label"
seed = "${seed}"

[stages.prepare]
uses = "prepare"
input = "split"
target = "label"
features = ["colour", "width", "height"]
steps = [{ impute = "median" }, { one_hot = ["colour"] }, { scale = "standard", columns = ["width", "height"] }]

[stages.train]
uses = "train"
input = "prepare"
model = { algorithm = "decision_tree", max_depth = 3 }
seed = "${seed}"

[stages.evaluate]
uses = "evaluate"
inputs = { model = "train", data = "prepare.test" }
metrics = ["accuracy", "f1"]

[stages.joined]
run = "mkdir -p pages && cat texts/a.txt texts/b.txt > pages/all.txt && if test -x texts/a.txt; then echo executable; else echo plain; fi > pages/index.txt && { cat texts/a.txt; printf '%0100000d' 1; } > pages/large.txt"
deps = ["texts"]
outs = ["pages"]

[stages.report]
run = "cat pages/all.txt scores.json > report.txt"
deps = ["pages", { from = "evaluate.metrics", as = "scores.json" }]
outs = ["report.txt"]
"#;

/// Which content each input has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Inputs {
    /// The contents of [`FILES`].
    pub contents: [u64; 3],
    pub seed: u64,
    /// Whether `texts/a.txt` may be executed, which is part of what a dep is.
    pub executable: bool,
}

impl Inputs {
    /// Any.
    pub fn any(random: &mut Random) -> Self {
        let contents = [(); 3].map(|()| random.below(CONTENTS));
        Self { contents, seed: random.below(3), executable: false }
    }

    /// Those that differ in one place, as after an edit by a person.
    pub fn edited(&self, random: &mut Random) -> Self {
        let mut edited = *self;
        match random.below(4) {
            3 => edited.seed += 1,
            file => edited.contents[file as usize] = (edited.contents[file as usize] + 1) % CONTENTS,
        }
        edited
    }

    /// The text of one of [`FILES`].
    pub fn text(&self, file: usize) -> String {
        let content = self.contents[file];
        let tail = if content == CONTENTS - 1 { " and some more" } else { "" };
        match file {
            0 => rows(content),
            1 => format!("the first text, number {content}{tail}\n"),
            _ => format!("the second text, number {content}{tail}\n"),
        }
    }

    /// The pipeline file.
    pub fn pipeline(&self) -> String {
        PIPELINE.replace("SEED", &self.seed.to_string())
    }

    /// Writes a project.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, project: &Path) -> Result<(), Trouble> {
        for (at, file) in FILES.iter().enumerate() {
            let path = project.join(file);
            fs::create_dir_all(path.parent().unwrap_or(project))?;
            fs::write(path, self.text(at))?;
        }
        let mode = if self.executable { 0o755 } else { 0o644 };
        fs::set_permissions(project.join(FILES[1]), fs::Permissions::from_mode(mode))?;
        Ok(fs::write(project.join("pipeline.toml"), self.pipeline())?)
    }
}

/// A table that another content differs from in one digit of one row; the last content has one more row.
fn rows(content: u64) -> String {
    let mut random = Random::of(5, 0);
    let mut text = String::from("id,colour,width,height,label\n");
    for id in 0..ROWS + u64::from(content == CONTENTS - 1) {
        let colour = *random.pick(&["red", "lime", "blue"]);
        let (width, height) = (random.below(10_000), random.below(5_000));
        let label = if width + 2 * height + random.below(4_000) > 11_000 { "yes" } else { "no" };
        let digit = if id == 7 { content } else { 0 };
        let height = if random.once_in(10) { String::new() } else { format!("{}.{:03}", height / 1000, height % 1000) };
        let _ = writeln!(text, "{id:02},{colour},{}.{:03}{digit},{height},{label}", 2 + width / 1000, width % 1000);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contents_of_an_input_differ_and_all_but_the_last_have_one_length() {
        for file in 0..FILES.len() {
            let text = |content| Inputs { contents: [content; 3], ..Inputs::default() }.text(file);
            for content in 1..CONTENTS {
                assert_ne!(text(content), text(0));
                assert_eq!(text(content).len() == text(0).len(), content < CONTENTS - 1);
            }
        }
    }
}
