//! Files of the project that a failed command seems to have missed: those that its last words name, and that are no dep.
//!
//! What fails for want of a file nearly always says which: `cat: data/x.csv: No such file or directory`,
//! `No module named 'features'`. The words are looked up in the project: only what is there is named. It does not know what
//! the command really opened; a file that it passes over in silence is not found like this.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::pipeline::expand::normal;
use crate::project::STATE;

/// No more are named.
const MOST: usize = 10;
/// A module of this name is one of these files.
const MODULES: [&str; 3] = [".py", "/__init__.py", ".R"];

/// Where a command ran, and what it did not see.
pub struct Places<'a> {
    pub project: &'a Path,
    pub staging: &'a Path,
}

impl Places<'_> {
    /// The paths within the project that a text names, that are there, and that the command did not have.
    pub fn missing(&self, text: &str) -> Vec<PathBuf> {
        let mut found = BTreeSet::new();
        for line in text.lines() {
            for word in words(line) {
                found.extend(self.resolve(word));
            }
            if let Some((_, module)) = line.split_once("No module named ") {
                found.extend(words(module).next().and_then(|module| self.module(module)));
            }
        }
        found.into_iter().take(MOST).collect()
    }

    fn resolve(&self, word: &str) -> Option<PathBuf> {
        let path = normal(Path::new(word));
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
        candidates.into_iter().find_map(|path| self.resolve(&path))
    }
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
        for path in ["data/x.csv", "features.py", "lib/util/__init__.py", "in.txt", ".headwater/work/x/project/in.txt"]
        {
            fs::create_dir_all(project.join(path).parent().expect("a parent")).expect("folders");
            fs::write(project.join(path), "").expect("a file");
        }
        let places = Places { project: &project, staging: &staging };
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
        assert_eq!(missing("read in.txt, and nothing.csv, ../p, .headwater/work and /etc/passwd"), [""; 0]);
    }
}
