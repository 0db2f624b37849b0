//! The programs of a shell line: the first word of every simple command in it.
//!
//! A scanner, not a shell. It knows quotes, comments, here-documents, substitutions, assignments, redirections, the
//! keywords, and the words that run the command behind them. It does not know what a variable holds: a word with `$` or a
//! backquote in it names no program. Nor does it know programs that start others (`timeout 5 python`, `xargs`, `sh -c`),
//! `eval`, or what is behind a relative path after `cd`: `tools` is there to name those.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// What the shell does itself.
const BUILTINS: [&str; 44] = [
    ".", ":", "[", "[[", "alias", "bg", "break", "cd", "continue", "declare", "echo", "eval", "exit", "export",
    "false", "fg", "for", "function", "getopts", "hash", "jobs", "kill", "let", "local", "popd", "printf", "pushd",
    "pwd", "read", "readonly", "return", "set", "shift", "source", "test", "times", "trap", "true", "type", "ulimit",
    "umask", "unalias", "unset", "wait",
];

/// Substitutions within substitutions are read so deep.
const DEPTH: usize = 32;

/// Words behind which a command begins. The second group are commands of their own, with options.
const KEYWORDS: [&str; 12] = ["!", "do", "done", "elif", "else", "esac", "fi", "if", "then", "until", "while", "{"];
const RUNNERS: [&str; 6] = ["builtin", "command", "env", "exec", "nohup", "time"];

/// The programs that a line of `sh` starts, as far as its text tells.
pub fn programs(line: &str) -> BTreeSet<String> {
    let (found, functions) = (BTreeSet::new(), BTreeSet::new());
    let mut scan = Scan { chars: line.chars().peekable(), found, functions, moved: false, depth: 0 };
    scan.commands(None);
    let Scan { mut found, functions, .. } = scan;
    found.retain(|program| !functions.contains(program));
    found
}

/// A word as far as it has been read.
#[derive(Default)]
struct Word {
    text: String,
    begun: bool,
    /// A keyword in quotes is none.
    quoted: bool,
    /// What it stands for is known when the line runs, not before.
    computed: bool,
}

/// What the next word is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The first word of a command, or an assignment before it.
    Command,
    /// The command of a word that runs another, or an option of that word.
    Behind,
    Argument,
    /// The file of a redirection, followed by what was expected before.
    Target {
        then: Then,
        heredoc: bool,
    },
    /// The word of `case`, up to `in`.
    Subject,
    Pattern,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Command,
    Behind,
    Argument,
}

struct Scan<'a> {
    chars: Peekable<Chars<'a>>,
    found: BTreeSet<String>,
    functions: BTreeSet<String>,
    /// Whether a `cd` has been seen: relative paths lead elsewhere from there on.
    moved: bool,
    depth: usize,
}

/// One list of commands: the whole line, or what stands in a substitution.
struct List {
    next: Next,
    word: Word,
    cases: usize,
    heredocs: Vec<String>,
}

impl Scan<'_> {
    /// Reads commands up to the end of the line, or to the character that closes a substitution.
    fn commands(&mut self, end: Option<char>) {
        let mut list = List { next: Next::Command, word: Word::default(), cases: 0, heredocs: Vec::new() };
        let mut open = 0_usize;
        while let Some(char) = self.chars.next() {
            if list.next != Next::Pattern {
                match char {
                    char if Some(char) == end && open == 0 => break,
                    '(' => open += 1,
                    ')' => open = open.saturating_sub(1),
                    _ => {}
                }
            }
            self.char(char, &mut list);
        }
        self.end_word(&mut list);
    }

    fn char(&mut self, char: char, list: &mut List) {
        match char {
            ' ' | '\t' => self.end_word(list),
            '#' if !list.word.begun => while self.chars.next_if(|c| *c != '\n').is_some() {},
            '\n' | ';' | '&' | '|' | '(' | ')' => self.separator(char, list),
            '<' | '>' => self.redirection(char, list),
            _ => self.word_char(char, &mut list.word),
        }
    }

    fn word_char(&mut self, char: char, word: &mut Word) {
        match char {
            // A line that goes on begins no word.
            '\\' if self.chars.next_if_eq(&'\n').is_some() => return,
            '\\' => {
                word.quoted = true;
                word.text.extend(self.chars.next());
            }
            '\'' => {
                word.quoted = true;
                word.text.extend(self.chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => self.double_quoted(word),
            '$' | '`' => self.substitution(char, word),
            '*' | '?' | '~' => word.computed = true,
            other => word.text.push(other),
        }
        word.begun = true;
    }

    fn double_quoted(&mut self, word: &mut Word) {
        word.quoted = true;
        while let Some(char) = self.chars.next() {
            match char {
                '"' => return,
                '\\' => word.text.extend(self.chars.next()),
                '$' | '`' => self.substitution(char, word),
                other => word.text.push(other),
            }
        }
    }

    /// What stands in `$(…)` and between backquotes are commands, too.
    fn substitution(&mut self, char: char, word: &mut Word) {
        word.computed = true;
        if char == '`' {
            return self.inner(Some('`'));
        }
        if self.chars.next_if_eq(&'{').is_some() {
            while self.chars.next_if(|c| *c != '}').is_some() {}
            self.chars.next();
        } else if self.chars.next_if_eq(&'(').is_some() {
            match self.chars.next_if_eq(&'(') {
                Some(_) => self.arithmetic(),
                None => self.inner(Some(')')),
            }
        }
    }

    fn inner(&mut self, end: Option<char>) {
        if self.depth < DEPTH {
            self.depth += 1;
            self.commands(end);
            self.depth -= 1;
        }
    }

    /// `$((1 + 2))` holds no commands.
    fn arithmetic(&mut self) {
        let mut open = 2_usize;
        while open > 0 {
            match self.chars.next() {
                Some('(') => open += 1,
                Some(')') => open -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    fn separator(&mut self, char: char, list: &mut List) {
        if char == '(' && list.next == Next::Command && list.word.begun {
            // `name()`: a function, not a program.
            self.functions.insert(std::mem::take(&mut list.word).text);
        }
        self.end_word(list);
        if list.next == Next::Pattern {
            list.next = if char == ')' { Next::Command } else { Next::Pattern };
            return;
        }
        let ends_branch = char == ';' && list.cases > 0 && self.chars.next_if_eq(&';').is_some();
        list.next = match list.next {
            Next::Subject => Next::Subject,
            _ if ends_branch => Next::Pattern,
            _ => Next::Command,
        };
        if char == '\n' {
            list.heredocs.drain(..).for_each(|mark| self.skip_heredoc(&mark));
        }
    }

    fn skip_heredoc(&mut self, mark: &str) {
        while self.chars.peek().is_some() {
            let line: String = self.chars.by_ref().take_while(|c| *c != '\n').collect();
            if line.trim_start_matches('\t') == mark {
                return;
            }
        }
    }

    fn redirection(&mut self, char: char, list: &mut List) {
        // The number of `2>` belongs to it.
        if list.word.begun && !list.word.text.is_empty() && list.word.text.chars().all(|c| c.is_ascii_digit()) {
            list.word = Word::default();
        }
        self.end_word(list);
        let mut length = 1;
        while self.chars.next_if(|c| *c == char || (length == 1 && "&|>".contains(*c))).is_some() {
            length += 1;
        }
        let heredoc = char == '<' && length == 2;
        if heredoc {
            self.chars.next_if_eq(&'-');
        }
        let then = match list.next {
            Next::Command => Then::Command,
            Next::Behind => Then::Behind,
            _ => Then::Argument,
        };
        list.next = Next::Target { then, heredoc };
    }

    fn end_word(&mut self, list: &mut List) {
        let word = std::mem::take(&mut list.word);
        if !word.begun {
            return;
        }
        list.next = match list.next {
            Next::Command | Next::Behind => self.first_word(&word, list),
            Next::Argument => Next::Argument,
            Next::Target { then, heredoc } => {
                if heredoc {
                    list.heredocs.push(word.text);
                }
                match then {
                    Then::Command => Next::Command,
                    Then::Behind => Next::Behind,
                    Then::Argument => Next::Argument,
                }
            }
            Next::Subject if word.text == "in" => Next::Pattern,
            Next::Subject => Next::Subject,
            Next::Pattern if word.text == "esac" => {
                list.cases = list.cases.saturating_sub(1);
                Next::Argument
            }
            Next::Pattern => Next::Pattern,
        };
    }

    /// What follows the first word of a command.
    fn first_word(&mut self, word: &Word, list: &mut List) -> Next {
        let text = word.text.as_str();
        if is_assignment(text) || (list.next == Next::Behind && text.starts_with('-')) {
            return list.next;
        }
        if !word.quoted && !word.computed {
            match text {
                "case" => {
                    list.cases += 1;
                    return Next::Subject;
                }
                "esac" => list.cases = list.cases.saturating_sub(1),
                _ => {}
            }
            if KEYWORDS.contains(&text) {
                return Next::Command;
            }
            if RUNNERS.contains(&text) {
                return Next::Behind;
            }
            if text == "}" {
                return Next::Argument;
            }
        }
        self.moved |= text == "cd" || text == "pushd";
        let lost = self.moved && text.contains('/') && !text.starts_with('/');
        if !word.computed && !lost && !text.is_empty() && !BUILTINS.contains(&text) {
            self.found.insert(text.to_owned());
        }
        Next::Argument
    }
}

/// `NAME=value`.
fn is_assignment(word: &str) -> bool {
    let plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && plain(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: &[&str]) {
        let found = programs(line);
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), expected, "{line}");
    }

    #[test]
    fn the_first_word_of_every_simple_command_is_a_program() {
        check("python train.py", &["python"]);
        check("cd src && python train.py", &["python"]);
        check("set -e; python a || perl b | sort & tac\ncut", &["cut", "perl", "python", "sort", "tac"]);
        check("(cat a; { tac b; })", &["cat", "tac"]);
        check("if test -e a; then cat a; elif grep a b; else tac a; fi", &["cat", "grep", "tac"]);
        check("for f in a b; do cat $f; done; while read x; do tac; done", &["cat", "tac"]);
        check("/usr/bin/python3 -c 'import a; b'", &["/usr/bin/python3"]);
    }

    #[test]
    fn words_that_run_the_command_behind_them_are_looked_behind() {
        check("exec python a", &["python"]);
        check("time -p python a", &["python"]);
        check("A=1 B='x y' env -i C=2 python a", &["python"]);
        check("! command python; nohup tac", &["python", "tac"]);
        check("env | sort > out", &["sort"]);
    }

    #[test]
    fn quotes_comments_and_here_documents_hold_no_commands() {
        check("cat 'a; b' \"c && d\" e\\;f # g; h", &["cat"]);
        check("cat <<EOF; sort x\nrm a; b\nEOF\ntac", &["cat", "sort", "tac"]);
        check("cat <<-'E F'\n\tnot this\n\tE F\ntac", &["cat", "tac"]);
        check("'my program' a; \"tac\" b", &["my program", "tac"]);
        check("py\\\nthon a; 'if' x", &["if", "python"]);
    }

    #[test]
    fn redirections_are_passed_over() {
        check("cat a > b 2>&1 < c; >d tac; 2>e sort >> f", &["cat", "sort", "tac"]);
        check("cat a >&2 | tac", &["cat", "tac"]);
    }

    #[test]
    fn a_word_that_is_computed_names_no_program() {
        check("$PYTHON a; ${X}/bin/b; `which c`/d; ~/e; \"$f\" g", &["which"]);
        check("x=$(python a.py \"$(tac b)\") cat $((1 + (2))) \"`head c`\"", &["cat", "head", "python", "tac"]);
    }

    #[test]
    fn branches_of_a_case_hold_commands_and_its_patterns_do_not() {
        check("case $x in a|b) cat a;; (c) tac b;; *) cut;; esac; sort", &["cat", "cut", "sort", "tac"]);
        check("x=$(case a in a) cat;; esac; tac); sort", &["cat", "sort", "tac"]);
    }

    #[test]
    fn a_function_of_the_line_is_no_program() {
        check("run() { python \"$1\"; }; run a; tac", &["python", "tac"]);
    }

    #[test]
    fn a_relative_path_behind_cd_leads_elsewhere() {
        check("bin/a; cd src; bin/b; /bin/c", &["/bin/c", "bin/a"]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_scanned_to_its_end(line in "[a-c '\"$`(){};&|<>#=\\\\\n]{0,40}") {
            programs(&line);
        }
    }
}
