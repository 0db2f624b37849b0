//! `Outs`: which node writes which file of the project. No out equals, contains or lies inside another node's.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use crate::error::Diagnostic;
use crate::pipeline::expand::{Expansion, Work};
use crate::pipeline::interpolate::mentions;
use crate::pipeline::value::{Datum, Span, Value};

/// The node that writes each out, by the out's path in the project, whose parts are joined by one `/` each.
#[derive(Default)]
pub struct Outs(BTreeMap<String, usize>);

impl Outs {
    /// Notes an out; of two at one path the first counts.
    pub fn add(&mut self, path: &Path, node: usize) {
        self.0.entry(path.to_string_lossy().into_owned()).or_insert(node);
    }

    /// The out at this path, or the one that holds it.
    pub fn around(&self, path: &Path) -> Option<(&str, usize)> {
        let path = path.to_string_lossy();
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        let found = ends.filter_map(|end| self.0.get_key_value(&path[..end])).next()?;
        Some((found.0.as_str(), *found.1))
    }

    /// The outs inside a folder, in the order of their paths.
    pub fn within(&self, folder: &Path) -> impl Iterator<Item = (&str, usize)> {
        let mut inside = folder.to_string_lossy().into_owned();
        if !inside.is_empty() {
            inside.push('/');
        }
        let from = self.0.range::<str, _>((Bound::Included(inside.as_str()), Bound::Unbounded));
        from.take_while(move |(path, _)| path.starts_with(&inside)).map(|(path, node)| (path.as_str(), *node))
    }
}

impl Expansion<'_> {
    /// Every file that nodes write, checked against each other.
    pub(super) fn outs(&mut self) -> Outs {
        let (mut outs, mut errors) = (Outs::default(), Vec::<Diagnostic>::new());
        for (node, draft) in self.nodes.iter().enumerate() {
            let Work::Command(command) = &draft.work else { continue };
            for (path, span) in &command.outs {
                let other = outs.around(path).or_else(|| outs.within(path).next());
                let clash = other.map(|(other, out)| self.clash(path, span, node, Path::new(other), out));
                errors.extend(clash.filter(|clash| errors.iter().all(|known| known.span != clash.span)));
                outs.add(path, node);
            }
        }
        self.errors.extend(errors);
        outs
    }

    fn clash(&self, path: &Path, span: &Span, node: usize, other_path: &Path, other: usize) -> Diagnostic {
        let (mine, theirs) = (&self.nodes[node], &self.nodes[other]);
        let stage = &self.file.stages[theirs.info.stage].name.name;
        if mine.info.stage == theirs.info.stage && node != other {
            return self.shared_out(span, node, &path.display().to_string());
        }
        let (mine, theirs) = (path.display(), other_path.display());
        let text = match (path == other_path, path.starts_with(other_path)) {
            (true, _) => format!("`{mine}` is an out of `{stage}` already"),
            (false, true) => format!("the out `{mine}` lies inside the out `{theirs}` of `{stage}`"),
            (false, false) => format!("the out `{mine}` contains the out `{theirs}` of `{stage}`"),
        };
        Diagnostic::new(text).at(span.clone(), "").hint("a file has one writer: give each out a path of its own")
    }

    /// Nodes of one stage write the same file: its path does not tell them apart.
    fn shared_out(&self, span: &Span, node: usize, path: &str) -> Diagnostic {
        let info = &self.nodes[node].info;
        let stage = &self.file.stages[info.stage];
        let text = Diagnostic::new(format!("several nodes of `{}` would write `{path}`", stage.name.name));
        let written = self.source.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
        let value = Value { datum: Datum::Text(written.into()), span: span.clone() };
        let mentioned: Vec<String> = mentions(&value, self.source).into_iter().map(|(name, _)| name).collect();
        let axes = info.assignment.iter().map(|(axis, _)| axis);
        let missing: Vec<String> =
            axes.filter(|axis| !mentioned.contains(axis)).map(|axis| format!("${{{axis}}}")).collect();
        if missing.is_empty() {
            return text.at(span.clone(), "").hint("the values run together: put a `-` or a `/` between the params");
        }
        let label = format!("does not mention {}", missing.join(" and "));
        text.at(span.clone(), label).hint(format!("write: \"{}\"", with_folder(written, &missing.join("/"))))
    }
}

/// A path with a folder put in before its last part; a folder's path gets it behind.
fn with_folder(written: &str, folder: &str) -> String {
    let written = written.strip_prefix("./").unwrap_or(written);
    match written.rsplit_once('/') {
        Some((above, "")) => format!("{above}/{folder}/"),
        Some((above, file)) => format!("{above}/{folder}/{file}"),
        None => format!("{folder}/{written}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_out_is_found_from_within_and_from_around() {
        let outs = Outs(["a", "a-b/x", "b/c", "b/c-d", "b/d/e"].into_iter().map(str::to_owned).zip(0..).collect());
        let around = |path: &str| outs.around(Path::new(path)).map(|(out, _)| out);
        assert_eq!(around("a"), Some("a"));
        assert_eq!(around("a/b/c"), Some("a"));
        assert_eq!(around("a-b"), None);
        assert_eq!(around("b"), None);
        assert_eq!(around("b/c/x"), Some("b/c"));
        let within = |folder: &str| outs.within(Path::new(folder)).map(|(out, _)| out).collect::<Vec<_>>();
        assert_eq!(within("a"), [""; 0]);
        assert_eq!(within("b"), ["b/c", "b/c-d", "b/d/e"]);
        assert_eq!(within("").len(), 5);
    }
}
