//! `Excerpt`: the part of a pipeline file that one node needs, found in its text, so that a file of ten thousand stages need
//! not be read for it.
//!
//! What a stage needs is guessed from the texts in its section: names of stages, and paths of outs. The guess is checked
//! once the part is loaded: if a file that a node reads may be, hold or lie in an out of a stage that was left out, or
//! anything is wrong, the whole file is loaded. It does not know what any other key means.
//!
//! Invariants: of a file that is not written plainly (`[stages.NAME]`, `outs = [...]`) there is no excerpt; every place in
//! one leads back to the file; what is wrong in a stage that was left out is not seen.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::path::Path;

use memchr::{memchr, memchr3};

use crate::pipeline::expand::normal;
use crate::pipeline::outs::Outs;

/// The stages of a file as their texts.
pub struct Sections<'a> {
    source: &'a str,
    names: Vec<&'a str>,
    numbers: HashMap<&'a str, usize>,
    /// The number of a stage, and where its text stands; a stage may have tables of its own.
    ranges: Vec<(usize, Range<usize>)>,
    outs: Outs,
    /// Outs that mention params, as written.
    patterns: BTreeMap<&'a str, usize>,
}

/// A part of a file.
pub struct Excerpt<'a> {
    sections: &'a Sections<'a>,
    kept: BTreeSet<usize>,
    /// What is kept of the file, and where each part begins in the text of them all. The first has what stands before all
    /// stages, be it nothing.
    parts: Vec<(usize, Range<usize>)>,
}

impl<'a> Sections<'a> {
    /// Finds them, if the file is written plainly.
    pub fn of(source: &'a str) -> Option<Self> {
        let headers = headers(source)?;
        let numbers = HashMap::with_capacity(headers.len());
        let (names, ranges, outs, patterns) = Default::default();
        let mut this = Self { source, names, numbers, ranges, outs, patterns };
        let ends = headers.iter().skip(1).map(|(at, _)| *at).chain([source.len()]);
        for ((begin, header), end) in headers.iter().zip(ends) {
            let Some(name) = stage_name(header)? else { continue };
            let next = this.names.len();
            let number = *this.numbers.entry(name).or_insert(next);
            if number == next {
                this.names.push(name);
            }
            this.ranges.push((number, *begin..end));
            this.add_outs(number, &source[*begin..end])?;
        }
        Some(this)
    }

    /// Notes the outs of a section; a command without any, or a key in quotes, is not written plainly.
    fn add_outs(&mut self, number: usize, section: &'a str) -> Option<()> {
        let mut found = false;
        for (at, _) in section.match_indices("outs") {
            let line = section[..at].rfind('\n').map_or(0, |line| line + 1);
            let value = section[at + "outs".len()..].trim_start();
            if !section[line..at].trim().is_empty() || !value.starts_with('=') {
                continue;
            }
            found = true;
            let list = value[1..].trim_start().strip_prefix('[')?;
            for out in strings(&list[..list_end(list)?])? {
                self.add_out(number, out)?;
            }
        }
        let mut lines = section.lines().map(str::trim_start);
        let is_strange = |line: &str| has_quoted_key(line) || (!found && line.starts_with("run"));
        (!lines.any(is_strange)).then_some(())
    }

    fn add_out(&mut self, number: usize, out: &'a str) -> Option<()> {
        match (out.contains('\\'), out.contains('$')) {
            (true, _) => return None,
            (false, true) => drop(self.patterns.insert(out, number)),
            (false, false) => self.outs.add(&normal(Path::new(out)), number),
        }
        Some(())
    }

    /// What a stage seems to need; `None` if there is no such stage.
    pub fn needed_by(&'a self, stage: &str) -> Option<Excerpt<'a>> {
        let mut of_stage = vec![Vec::new(); self.names.len()];
        self.ranges.iter().for_each(|(number, range)| of_stage[*number].push(&self.source[range.clone()]));
        let mut open = vec![*self.numbers.get(stage)?];
        let (mut kept, mut seen) = (BTreeSet::new(), HashSet::new());
        while let Some(number) = open.pop() {
            if kept.insert(number) {
                let texts = of_stage[number].iter().map(|section| strings(section)).collect::<Option<Vec<_>>>()?;
                texts.into_iter().flatten().for_each(|text| self.named_in(text, &mut seen, &mut open));
            }
        }
        let parts = self.parts(&kept);
        Some(Excerpt { sections: self, kept, parts })
    }

    /// The file without the stages that are not kept.
    fn parts(&self, kept: &BTreeSet<usize>) -> Vec<(usize, Range<usize>)> {
        let gaps = self.ranges.iter().filter(|(number, _)| !kept.contains(number)).map(|(_, range)| range.clone());
        let (mut parts, mut begin, mut end) = (Vec::new(), 0, 0);
        for gap in gaps.chain(std::iter::once(self.source.len()..self.source.len())) {
            if gap.start > end || parts.is_empty() {
                parts.push((begin, end..gap.start));
                begin += gap.start - end;
            }
            end = gap.end;
        }
        parts
    }

    /// What a text names; each word is looked up once.
    fn named_in(&self, text: &'a str, seen: &mut HashSet<&'a str>, found: &mut Vec<usize>) {
        found.extend(self.numbers.get(text.split('.').next().unwrap_or_default()));
        found.extend(self.patterns.get(text));
        let is_between = |c: char| c.is_whitespace() || ";&|()<>\"'`".contains(c);
        for word in text.split(is_between).filter(|word| !word.is_empty() && seen.insert(word)) {
            let path = normal(Path::new(word));
            found.extend(self.outs.around(&path).map(|(_, number)| number));
            found.extend(self.outs.within(&path).map(|(_, number)| number));
        }
    }
}

impl Excerpt<'_> {
    /// The text that is kept.
    pub fn text(&self) -> String {
        self.parts.iter().map(|(_, part)| &self.sections.source[part.clone()]).collect()
    }

    /// Where a place of that text is in the file.
    pub fn place(&self, at: usize) -> usize {
        let behind = self.parts.partition_point(|(begin, _)| *begin <= at);
        let (begin, part) = &self.parts[behind.saturating_sub(1)];
        part.start + (at - begin)
    }

    /// Whether a place in the project may be, hold or lie in an out of a stage that was left out.
    pub fn may_miss(&self, path: &Path) -> bool {
        let Sections { outs, patterns, .. } = self.sections;
        let is_out = |(_, number): (&str, usize)| !self.kept.contains(&number);
        let text = path.to_string_lossy();
        let may_be = |(out, number): (&&str, &usize)| {
            let known = plain_beginning(out);
            !self.kept.contains(number) && (text.starts_with(&known) || known.starts_with(&*text))
        };
        outs.around(path).is_some_and(is_out) || outs.within(path).any(is_out) || patterns.iter().any(may_be)
    }
}

/// Whether a file that is written plainly seems to have a stage of this name.
pub fn has_stage(source: &str, name: &str) -> bool {
    let is_header = |line: &str| {
        let rest = line.trim_start().strip_prefix("[stages.").and_then(|rest| rest.strip_prefix(name));
        rest.is_some_and(|rest| rest.starts_with([']', '.']))
    };
    source.lines().any(is_header)
}

fn has_quoted_key(line: &str) -> bool {
    let Some(quote) = line.chars().next().filter(|first| "\"'".contains(*first)) else { return false };
    let behind = line[1..].split_once(quote).map_or("", |(_, behind)| behind.trim_start());
    behind.starts_with(['=', '.'])
}

/// What stands before the first param of a path.
fn plain_beginning(out: &str) -> String {
    let known = out.split('$').next().unwrap_or_default();
    let slash = if known.ends_with('/') { "/" } else { "" };
    format!("{}{slash}", normal(Path::new(known)).display())
}

/// The stage whose table a header begins, if it does; `None` if it is not written plainly.
fn stage_name(header: &str) -> Option<Option<&str>> {
    let Some(rest) = header.strip_prefix("stages") else {
        let is_plain = header.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        return is_plain.then_some(None);
    };
    let name = rest.strip_prefix('.')?.split('.').next()?;
    let is_plain = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-');
    is_plain.then_some(Some(name))
}

/// The headers of tables, with where their lines begin; `None` if there is one of another form, or stages without one.
fn headers(source: &str) -> Option<Vec<(usize, &str)>> {
    let (mut headers, mut scan, mut line_begin, mut depth) = (Vec::new(), Scan { source, at: 0 }, true, 0_usize);
    while let Some(byte) = scan.byte() {
        match byte {
            b'\n' => line_begin = true,
            b' ' | b'\t' | b'\r' => {}
            b'[' if line_begin && depth == 0 => {
                let line = source[scan.at..].split('\n').next().unwrap_or_default();
                let (header, behind) = line.split_once(']')?;
                let behind = behind.trim();
                (behind.is_empty() || behind.starts_with('#')).then_some(())?;
                let begin = source[..scan.at].rfind('\n').map_or(0, |at| at + 1);
                headers.push((begin, header));
                scan.at += line.len();
            }
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'#' => scan.comment(),
            b'"' | b'\'' => {
                scan.string(byte)?;
            }
            _ => {}
        }
        line_begin &= matches!(byte, b'\n' | b' ' | b'\t' | b'\r');
    }
    let first = headers.first().map_or(source.len(), |(at, _)| *at);
    (!source[..first].contains("stages")).then_some(headers)
}

/// The strings in a text, as written.
fn strings(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut scan) = (Vec::new(), Scan { source: text, at: 0 });
    while let Some(byte) = scan.byte() {
        match byte {
            b'#' => scan.comment(),
            b'"' | b'\'' => found.push(&text[scan.string(byte)?]),
            _ => {}
        }
    }
    Some(found)
}

/// Where an array ends whose `[` stands before the text.
fn list_end(text: &str) -> Option<usize> {
    let mut scan = Scan { source: text, at: 0 };
    while let Some(byte) = scan.byte() {
        match byte {
            b']' => return Some(scan.at - 1),
            b'#' => scan.comment(),
            b'"' | b'\'' => {
                scan.string(byte)?;
            }
            _ => {}
        }
    }
    None
}

/// A place in a text of TOML.
struct Scan<'a> {
    source: &'a str,
    at: usize,
}

impl Scan<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.source.as_bytes().get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn comment(&mut self) {
        self.at += memchr(b'\n', &self.source.as_bytes()[self.at..]).unwrap_or(self.source.len() - self.at);
    }

    /// The range inside of the quotes, the first of which has been read.
    fn string(&mut self, quote: u8) -> Option<Range<usize>> {
        let bytes = self.source.as_bytes();
        // Two quotes are an empty string, three begin a long one.
        let is_long = bytes[self.at..].starts_with(&[quote; 2]);
        if bytes.get(self.at) == Some(&quote) && !is_long {
            self.at += 1;
            return Some(self.at - 1..self.at - 1);
        }
        let begin = self.at + if is_long { 2 } else { 0 };
        let mut at = begin;
        loop {
            at += memchr3(quote, b'\\', b'\n', &bytes[at.min(bytes.len())..])?;
            match bytes[at] {
                b'\\' if quote == b'"' => at += 2,
                byte if byte == quote && (!is_long || bytes[at..].starts_with(&[quote; 3])) => break,
                b'\n' if !is_long => return None,
                _ => at += 1,
            }
        }
        self.at = at + if is_long { 3 } else { 1 };
        Some(begin..at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::value::Value;

    const FILE: &str = r#"# a comment
[params]
k = "]"

[stages.a]
run = '''
echo "[stages.no]" > made/a
'''
outs = ["made/a"]

[stages.b]
run = "cat made/a > made/b"
deps = ["made/a"]
outs = [ # where
  "made/b",
]
[stages.b.resources]
cpus = 1

[stages.c]
run = "cat made/* > c"
deps = ["made"]
outs = ["c"]

[stages.d]
uses = "sql"
input = "c"

[stages.e]
run = "echo ${k} > over/${k}.txt"
outs = ["over/${k}.txt"]
"#;

    fn kept(stage: &str) -> Vec<&'static str> {
        let sections = Sections::of(FILE).expect("plain");
        let kept = sections.needed_by(stage).expect("a stage").kept;
        kept.into_iter().map(|number| sections.names[number]).collect()
    }

    #[test]
    fn a_stage_brings_what_its_texts_name() {
        assert_eq!(kept("a"), ["a"]);
        assert_eq!(kept("b"), ["a", "b"]);
        assert_eq!(kept("c"), ["a", "b", "c"]);
        assert_eq!(kept("d"), ["a", "b", "c", "d"]);
    }

    #[test]
    fn a_stage_is_found_by_the_header_of_its_table_or_of_one_in_it() {
        for name in ["a", "b", "e"] {
            assert!(has_stage(FILE, name), "{name}");
        }
        assert!(has_stage("[stages.f.resources]\n", "f"));
        assert!(!has_stage(FILE, "f") && !has_stage(FILE, "") && !has_stage("x = \"[stages.f]\"", "f"));
    }

    #[test]
    fn what_is_left_out_is_gone_and_every_place_leads_back_to_the_file() {
        let sections = Sections::of(FILE).expect("plain");
        for stage in ["a", "b", "c", "d", "e"] {
            let excerpt = sections.needed_by(stage).expect("a stage");
            let text = excerpt.text();
            assert!(toml::from_str::<toml::Table>(&text).is_ok(), "{text}");
            assert!(text.char_indices().all(|(at, char)| FILE[excerpt.place(at)..].starts_with(char)), "{text}");
            let value = Value::parse(&text).expect("valid").moved(&|at| excerpt.place(at));
            let table =
                value.get("stages").and_then(|stages| stages.get(stage)).and_then(Value::as_table).expect("a table");
            for (key, value) in table {
                assert_eq!(FILE[key.span.clone()], key.name);
                let written = &FILE[value.span.clone()];
                assert!(value.as_text().is_none_or(|text| written.contains(text)), "{written}");
            }
        }
        assert!(!sections.needed_by("b").expect("a stage").text().contains("[stages.c]"));
    }

    #[test]
    fn a_file_that_an_out_with_params_may_be_is_missed() {
        let sections = Sections::of(FILE).expect("plain");
        let excerpt = sections.needed_by("b").expect("a stage");
        let missed = |path: &str| excerpt.may_miss(Path::new(path));
        assert!(missed("over/1.txt") && missed("over") && missed("c"));
        assert!(!missed("made/a") && !missed("data/x.csv"));
    }

    #[test]
    fn there_is_no_excerpt_of_a_file_that_is_not_written_plainly() {
        let plain = |text: &str| Sections::of(text).is_some();
        assert!(plain("[stages.a]\nuses = \"read\"\npath = \"\"\n"));
        for text in [
            "[stages]\na.uses = \"read\"\n",
            "stages.a.uses = \"read\"\n",
            "[stages.\"a\"]\nuses = \"read\"\n",
            "[ stages.a ]\nuses = \"read\"\n",
            "[stages.a]\n\"outs\" = [\"a\"]\n",
            "[stages.a]\nrun = \"echo\"\n",
            "[stages.a]\nouts = \"a\"\n",
            "[stages.a]\nouts = [\"\\u0061\"]\n",
            "[stages.a]\nrun = \"not closed\n",
        ] {
            assert!(!plain(text), "{text}");
        }
    }
}
