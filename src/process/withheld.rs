//! What a failed command did without beside files: variables of the environment, and the network.
//!
//! No kernel tells which variable a program asked itself for. So those are named that are set where Headwater was started,
//! that the command does not get, and that its line puts in or a complaint of its last words names; and those that it
//! declares and that are not set. Of the network its complaints tell.
//!
//! It does not know how a command is run. Invariant: nothing is proposed that is declared already.

use crate::process::command::{Command, CommandLine};
use crate::process::staging::FIXED;
use crate::process::workshop::Hermetic;

/// Variables that every command gets beside [`FIXED`], or that a shell sets itself.
const EVERYWHERE: [&str; 8] = ["PATH", "HOME", "TMPDIR", "PWD", "OLDPWD", "SHLVL", "IFS", "_"];

/// Names that are shorter are words of any text.
const SHORTEST: usize = 3;
/// No more are named.
const MOST: usize = 5;

/// How programs complain, in small letters, of a variable that is not there.
const OF_VARIABLES: [&str; 9] =
    ["keyerror", "environ", "not set", "unset", "unbound", "undefined", "not defined", "missing", "required"];

/// How they complain that there is no network.
const OF_THE_NETWORK: [&str; 8] = [
    "name resolution",
    "name or service not known",
    "could not resolve",
    "unable to resolve",
    "network is unreachable",
    "couldn't connect",
    "failed to connect",
    "getaddrinfo",
];
const NOT_PERMITTED: &str = "operation not permitted";

/// What to declare or to set, in lines. `set` are the names of the variables that are set where Headwater was started.
pub fn hints(command: &Command, text: &str, set: impl Iterator<Item = String>) -> String {
    let mut set: Vec<String> = set.collect();
    set.sort_unstable();
    [undeclared(command, text, &set), unset(command, &set), network(command, text)].into_iter().flatten().collect()
}

fn undeclared(command: &Command, text: &str, set: &[String]) -> Option<String> {
    let fixed = FIXED.map(|(name, _)| name);
    let given = |name: &&String| {
        let mut declared = command.env.iter().chain(&command.secrets);
        EVERYWHERE.contains(&name.as_str()) || fixed.contains(&name.as_str()) || declared.any(|given| given == *name)
    };
    let withheld = || set.iter().filter(|name| !given(name));
    let complaints: Vec<&str> = text.lines().filter(|line| says_one_of(&line.to_lowercase(), &OF_VARIABLES)).collect();
    let complained = |name: &&String| name.len() >= SHORTEST && complaints.iter().any(|line| names(line, name));
    let mut wanted: Vec<&String> = withheld().filter(|name| puts_in(&command.line, name)).collect();
    if wanted.is_empty() {
        wanted = withheld().filter(complained).collect();
    }
    wanted.truncate(MOST);
    let told = listed(wanted.iter().map(|name| name.as_str()))?;
    let (verb, them) = if wanted.len() == 1 { ("is", "it") } else { ("are", "them") };
    let declared = command.env.iter().chain(wanted).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    Some(format!(
        "  {told} {verb} set here and not declared, so it does without: add {them}: env = [{declared}], or to `secrets`\n"
    ))
}

/// What is declared, and set nowhere.
fn unset(command: &Command, set: &[String]) -> Option<String> {
    let declared = command.env.iter().chain(&command.secrets).filter(|name| set.binary_search(name).is_err());
    let mut unset: Vec<&str> = declared.map(String::as_str).collect();
    unset.truncate(MOST);
    let verb = if unset.len() == 1 { "is" } else { "are" };
    Some(format!("  {} {verb} declared, and not set here\n", listed(unset.into_iter())?))
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn network(command: &Command, text: &str) -> Option<String> {
    let has_none = !command.network && command.hermetic() == Hermetic::Enforced;
    let hint = "  it has no network, as it does not declare it: add: network = true\n";
    (has_none && misses_the_network(text)).then(|| hint.to_owned())
}

fn misses_the_network(text: &str) -> bool {
    let text = text.to_lowercase();
    let of_sockets = text.lines().any(|line| names(line, "socket"));
    text.lines().any(|line| {
        // A path behind it is that of a socket in the file system.
        let complains = says_one_of(line, &OF_THE_NETWORK) && !line.contains("connect to /");
        let refused = line.contains(NOT_PERMITTED);
        complains || refused && (names(line, "socket") || of_sockets && line.contains("permissionerror"))
    })
}

fn says_one_of(line: &str, phrases: &[&str]) -> bool {
    phrases.iter().any(|phrase| line.contains(phrase))
}

/// Whether a shell would put the variable in, and the line does not set it.
fn puts_in(line: &CommandLine, name: &str) -> bool {
    let CommandLine::Shell(line) = line else { return false };
    let line = without_single_quotes(line);
    let sets = words_of(&line, name).any(|(head, tail)| {
        tail.starts_with('=') || ["for ", "read ", "read -r "].iter().any(|verb| head.ends_with(verb))
    });
    !sets && words_of(&line, name).any(|(head, _)| head.ends_with('$') || head.ends_with("${"))
}

/// What a shell looks for variables in.
fn without_single_quotes(line: &str) -> String {
    let (mut kept, mut double, mut single) = (String::new(), false, false);
    let mut chars = line.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' if !single => drop(chars.next()),
            '\'' if !double => single = !single,
            '"' if !single => double = !double,
            _ if single => {}
            other => kept.push(other),
        }
    }
    kept
}

/// Whether a text has the name as a word of its own.
fn names(text: &str, name: &str) -> bool {
    words_of(text, name).next().is_some()
}

/// What stands before and behind each place at which a name is a word of its own.
fn words_of<'a>(text: &'a str, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let places = text.match_indices(name).map(|(at, name)| (&text[..at], &text[at + name.len()..]));
    places.filter(move |(head, tail)| !head.ends_with(is_part) && !tail.starts_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn puts_key_in(line: &str) -> bool {
        puts_in(&CommandLine::Shell(line.to_owned()), "KEY")
    }

    #[test]
    fn a_variable_is_put_in_where_a_shell_does_it() {
        for line in
            ["echo $KEY", "echo ${KEY}", "echo \"a$KEY-b\"", "test -n \"${KEY:-}\"", "MY_KEY=1; echo \"'$KEY'\""]
        {
            assert!(puts_key_in(line), "{line}");
        }
        let others =
            ["KEY=1; echo $KEY", "export KEY=1 && echo $KEY", "for KEY in 1 2; do echo $KEY; done", "echo KEY"];
        for line in others.into_iter().chain(["echo $KEYS", "echo ${MY_KEY}", "awk '{print $KEY}'", "echo \\$KEY"]) {
            assert!(!puts_key_in(line), "{line}");
        }
        assert!(!puts_in(&CommandLine::Program(vec!["echo".into(), "$KEY".into()]), "KEY"));
    }

    #[test]
    fn a_name_is_a_word_of_its_own() {
        assert!(names("KeyError: 'API_KEY'", "API_KEY"));
        assert!(names("sh: 1: API_KEY: parameter not set", "API_KEY"));
        assert!(!names("MY_API_KEY is not set", "API_KEY"));
        assert!(!names("API_KEYS", "API_KEY"));
    }

    #[test]
    fn programs_complain_of_the_network_in_one_line() {
        let complaints = [
            "curl: (6) Could not resolve host: example.org",
            "<urlopen error [Errno -3] Temporary failure in name resolution>",
            "ping: socket: Operation not permitted",
            "  File \"/usr/lib/python3/socket.py\", line 232\nPermissionError: [Errno 1] Operation not permitted",
        ];
        for complaint in complaints {
            assert!(misses_the_network(complaint), "{complaint}");
        }
        let others = [
            "failed to connect to /var/run/postgresql/.s.PGSQL.5432",
            "websocket module loaded\nchown: changing ownership: Operation not permitted",
            "opened the socket\nchown: changing ownership: Operation not permitted",
        ];
        for other in others {
            assert!(!misses_the_network(other), "{other}");
        }
    }
}
