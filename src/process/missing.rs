//! What a failed command missed: files of the project that are no deps, and the line that makes them such.
//!
//! What a command looked for in vain is told by the kernel, if the command was watched. A program that lists a folder and
//! does not find in it what it wants names no file to the kernel: a module of python is known by the command's last words
//! alone. Of a command that was not watched, they are all there is: `cat: data/x.csv: No such file or directory`.
//!
//! It does not know how a command is run or watched. Invariant: a file that is not in the project is named only if the
//! command was to open it, nothing else is found, and its last words name it, too: most of what programs look for is
//! nowhere.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use headwater_sandbox::{Missed, Why};

use crate::pipeline::expand::normal;
use crate::process::command::{Command, Dep};
use crate::process::staging::printable;
use crate::project::{STATE, is_by_product};

/// No more are named.
const MOST: usize = 10;
/// A module of this name is one of these files.
const MODULES: [&str; 3] = [".py", "/__init__.py", ".R"];

/// How the last words of a command begin to complain that there is no file.
const COMPLAINTS: [&str; 4] = ["no such file", "not found", "permission denied", "no module named"];

/// Where a command ran, and what it did not see.
pub struct Places<'a> {
    pub project: &'a Path,
    pub staging: &'a Path,
    /// Folders in which scripts look for their modules.
    pub modules: BTreeSet<PathBuf>,
}

impl Places<'_> {
    /// What to do for a command that failed, in lines: from what it looked for in vain, if it was watched, and its last
    /// words.
    pub fn hints(&self, command: &Command, node: &str, text: &str, missed: Option<&[Missed]>) -> String {
        if let Some(out) = self.unmade_folder(command, text) {
            return format!("  `{0}` is an out: a folder that the command makes itself: mkdir -p {0}\n", shown(out));
        }
        let Some(missed) = missed else {
            let hint = undeclared(command, &self.missing(text));
            let complains = COMPLAINTS.iter().any(|complaint| text.to_lowercase().contains(complaint));
            let traced = cfg!(target_arch = "x86_64") && complains;
            let more = traced.then(|| format!("  `headwater deps {node}` runs it once, and tells what it reads\n"));
            return hint.or(more).unwrap_or_default();
        };
        let of = |why: Why| missed.iter().filter(move |one| one.why == why).map(|one| PathBuf::from(&one.path));
        let is_new = |path: &PathBuf| !passed_over(path) && !has(command, path);
        let mut undeclared_paths: Vec<PathBuf> = of(Why::OnlyThere).filter(is_new).collect();
        let refused: Vec<PathBuf> = of(Why::Refused).filter(|path| !passed_over(path)).collect();
        match undeclared_paths.is_empty() && refused.is_empty() {
            // It listed a folder, or the kernel could not read what it named.
            true => undeclared_paths = self.missing(text),
            false => undeclared_paths.extend(text.lines().filter_map(|line| self.named_module(line))),
        }
        let hints = undeclared(command, &undeclared_paths).into_iter().chain(barred(command, &refused));
        let hints: String = hints.collect();
        let named = |path: &PathBuf| path.file_name().is_some_and(|name| text.contains(&*name.to_string_lossy()));
        let nowhere = || of(Why::Nowhere).filter(|path| !passed_over(path)).find(named);
        match hints.is_empty().then(nowhere).flatten() {
            Some(path) => format!("  `{}` is no dep, and not in the project either\n", shown(&path)),
            None => hints,
        }
    }

    /// An out that is not there, and in which a text names something.
    fn unmade_folder<'a>(&self, command: &'a Command, text: &str) -> Option<&'a Path> {
        let outs = command.outs.iter().map(|(out, _)| out.as_path());
        let is_named = |out: &&Path| text.contains(&format!("{}/", out.display()));
        outs.filter(is_named).find(|out| !self.staging.join(out).exists())
    }

    /// The paths within the project that a text names, that are there, and that the command did not have.
    fn missing(&self, text: &str) -> Vec<PathBuf> {
        let mut found = BTreeSet::new();
        for line in text.lines() {
            for word in words(line) {
                found.extend(self.resolve(Path::new(word)));
            }
            found.extend(self.named_module(line));
        }
        found.into_iter().collect()
    }

    fn named_module(&self, line: &str) -> Option<PathBuf> {
        let (_, module) = line.split_once("No module named ")?;
        self.module(words(module).next()?)
    }

    fn resolve(&self, path: &Path) -> Option<PathBuf> {
        let path = normal(path);
        let inside = [self.staging, self.project].iter().find_map(|root| path.strip_prefix(root).ok());
        let path = inside.map_or_else(|| path.clone(), Path::to_owned);
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let named = plain && !path.as_os_str().is_empty() && !path.starts_with(STATE);
        (named && !self.staging.join(&path).exists() && self.project.join(&path).exists()).then_some(path)
    }

    /// `a.b` is `a/b.py`, or in `a.py`.
    fn module(&self, name: &str) -> Option<PathBuf> {
        let whole = name.replace('.', "/");
        let first = name.split('.').next().unwrap_or(name);
        let candidates =
            [whole.as_str(), first].into_iter().flat_map(|stem| MODULES.map(|ending| format!("{stem}{ending}")));
        let places = || self.modules.iter();
        candidates.flat_map(|path| places().map(move |place| place.join(&path))).find_map(|path| self.resolve(&path))
    }
}

/// The line to write for paths that are in the project, and no deps.
fn undeclared(command: &Command, paths: &[PathBuf]) -> Option<String> {
    let wanted = |path: &&PathBuf| !has(command, path) && !paths.iter().any(|other| inside(path, other));
    let mut paths: Vec<&PathBuf> = paths.iter().filter(wanted).collect();
    let mut seen = BTreeSet::new();
    paths.retain(|path| seen.insert(*path));
    paths.truncate(MOST);
    let first = shown(paths.first()?);
    Some(format!("  `{first}` is in the project, and no dep: add it: {}\n", line(&deps(command, paths))))
}

/// What to do about paths that were named where they are in the project.
fn barred(command: &Command, paths: &[PathBuf]) -> Option<String> {
    let first = paths.first()?;
    let name = shown(first);
    let text = format!("  `{name}` was to be read in the project itself, which is out of a hermetic command's sight: ");
    let rest = if declares(command, first) {
        format!("it is a dep, and stands at `{name}` where the command runs\n")
    } else {
        format!("name it by that path, and add it: {}\n", line(&deps(command, [first])))
    };
    Some(text + &rest)
}

/// Whether a path is a dep, or lies in one.
fn declares(command: &Command, path: &Path) -> bool {
    command.deps.iter().any(|(dep, _)| path.starts_with(dep.path()))
}

/// Whether a command has a path, or makes it. One that it has, and that is not there in the end, it has moved or removed.
fn has(command: &Command, path: &Path) -> bool {
    command.makes(path) || declares(command, path)
}

/// What stands in the line of a pipeline file: what is declared, and more.
pub fn deps<'a>(command: &'a Command, more: impl IntoIterator<Item = &'a PathBuf>) -> Vec<String> {
    let quoted = |path: &Path| printable(&format!("{:?}", path.display().to_string()));
    let declared = command.deps.iter().map(|(dep, _)| match dep {
        Dep::Path(path) => quoted(path),
        Dep::Mount { reference, path, .. } => format!("{{ from = {reference:?}, as = {} }}", quoted(path)),
    });
    declared.chain(more.into_iter().map(|path| quoted(path))).collect()
}

/// The line of a pipeline file.
pub fn line(deps: &[String]) -> String {
    format!("deps = [{}]", deps.join(", "))
}

/// A path as text.
pub fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// Many programs look for these wherever they are.
fn passed_over(path: &Path) -> bool {
    path.iter().any(|part| part == STATE || is_by_product(part))
}

/// Whether a folder is named for the sake of what is in it.
fn inside(folder: &Path, path: &Path) -> bool {
    path != folder && path.starts_with(folder)
}

/// What of a line may be a path: what stands between spaces, quotes and brackets, without the colons and commas around.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let between = |c: char| c.is_whitespace() || c.is_control() || "'\"`()[]{}<>=,;‘’“”".contains(c);
    let words = line.split(between).map(|word| word.trim_matches(':').trim_end_matches('.'));
    words.flat_map(|word| word.split(':')).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_a_command_complains_of_is_found_in_the_project() {
        let folder = tempfile::tempdir().expect("a folder");
        let (project, staging) = (folder.path().join("p"), folder.path().join("p/.headwater/work/x/project"));
        for path in [
            "data/x.csv",
            "features.py",
            "scripts/common.py",
            "lib/util/__init__.py",
            "in.txt",
            ".headwater/work/x/project/in.txt",
        ] {
            fs::create_dir_all(project.join(path).parent().expect("a parent")).expect("folders");
            fs::write(project.join(path), "").expect("a file");
        }
        let modules = ["", "scripts"].map(PathBuf::from).into();
        let places = Places { project: &project, staging: &staging, modules };
        let missing = |text: &str| -> Vec<String> {
            places.missing(text).iter().map(|path| path.display().to_string()).collect()
        };
        assert_eq!(missing("cat: data/x.csv: No such file or directory"), ["data/x.csv"]);
        assert_eq!(missing("FileNotFoundError: [Errno 2] No such file or directory: './data/x.csv'"), ["data/x.csv"]);
        assert_eq!(missing("sh: 1: cannot open data/x.csv: No such file"), ["data/x.csv"]);
        assert_eq!(missing(&format!("open {}/data/x.csv.", project.display())), ["data/x.csv"]);
        assert_eq!(missing(&format!("open {}/data/x.csv", staging.display())), ["data/x.csv"]);
        assert_eq!(missing("ModuleNotFoundError: No module named 'features'"), ["features.py"]);
        assert_eq!(missing("ModuleNotFoundError: No module named 'lib.util'"), ["lib/util/__init__.py"]);
        assert_eq!(missing("ModuleNotFoundError: No module named 'common'"), ["scripts/common.py"]);
        assert_eq!(missing("read in.txt, and nothing.csv, ../p, .headwater/work and /etc/passwd"), [""; 0]);
    }
}
