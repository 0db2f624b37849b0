//! What a failed command did without beside files: variables of the environment, and the network.
//!
//! No kernel tells which variable a program asked itself for. So a variable is named that is set where Headwater was
//! started, that the command does not get, and that its text or its last words name. Of the network its last words tell.
//!
//! It does not know how a command is run. Invariant: nothing is proposed that is declared already.

use crate::process::command::{Command, CommandLine};
use crate::process::workshop::Hermetic;

/// Variables that every command gets, or that every shell sets itself.
const EVERYWHERE: [&str; 10] = ["PATH", "HOME", "TMPDIR", "LC_CTYPE", "TZ", "PWD", "OLDPWD", "SHLVL", "IFS", "_"];

/// Names that are shorter are words of any text.
const SHORTEST: usize = 3;

/// Words, in small letters, with which programs complain that there is no network.
const COMPLAINTS: [&[&str]; 9] = [
    &["name resolution"],
    &["name or service not known"],
    &["could not resolve"],
    &["unable to resolve"],
    &["network is unreachable"],
    &["couldn't connect"],
    &["failed to connect"],
    &["getaddrinfo"],
    &["socket", "operation not permitted"],
];

/// What to declare, in lines. `set` are the names of the variables that are set where Headwater was started.
pub fn hints(command: &Command, text: &str, set: impl Iterator<Item = String>) -> String {
    variable(command, text, set).into_iter().chain(network(command, text)).collect()
}

fn variable(command: &Command, text: &str, set: impl Iterator<Item = String>) -> Option<String> {
    let given = |name: &str| command.env.iter().chain(&command.secrets).any(|given| given == name);
    let is_withheld = |name: &String| !EVERYWHERE.contains(&name.as_str()) && !given(name);
    let is_wanted = |name: &String| names(text, name) || asks_for(&command.line, name);
    let name = set.filter(is_withheld).filter(is_wanted).min()?;
    let declared = command.env.iter().chain([&name]).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    Some(format!(
        "  `{name}` is set here, and commands get only what they declare: add it: env = [{declared}], or to `secrets`\n"
    ))
}

fn network(command: &Command, text: &str) -> Option<String> {
    let text = text.to_lowercase();
    let complains = COMPLAINTS.iter().any(|words| words.iter().all(|word| text.contains(word)));
    let has_none = !command.network && command.hermetic() == Hermetic::Enforced;
    (has_none && complains).then(|| "  it has no network, as it does not declare it: add: network = true\n".to_owned())
}

/// Whether a shell would put the variable in, and the line does not set it.
fn asks_for(line: &CommandLine, name: &str) -> bool {
    match line {
        CommandLine::Program(_) => false,
        CommandLine::Shell(line) => {
            let sets = [format!("{name}="), format!("for {name} "), format!("read {name}")];
            let puts_in = names_after(line, name, &["$", "${"]);
            puts_in && !sets.iter().any(|set| line.contains(set.as_str()))
        }
    }
}

/// Whether a text has the name as a word of its own.
fn names(text: &str, name: &str) -> bool {
    name.len() >= SHORTEST && names_after(text, name, &[""])
}

fn names_after(text: &str, name: &str, before: &[&str]) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(name).any(|(at, _)| {
        let (head, tail) = (&text[..at], &text[at + name.len()..]);
        let begins = before.iter().any(|mark| head.ends_with(mark)) && !head.ends_with(is_part);
        begins && !tail.starts_with(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(line: &str) -> CommandLine {
        CommandLine::Shell(line.to_owned())
    }

    #[test]
    fn a_variable_is_asked_for_where_a_shell_puts_it_in() {
        for line in ["echo $KEY", "echo ${KEY}", "echo \"a$KEY-b\"", "test -n \"${KEY:-}\""] {
            assert!(asks_for(&shell(line), "KEY"), "{line}");
        }
        for line in
            ["echo KEY", "echo $KEYS", "echo ${MY_KEY}", "KEY=1; echo $KEY", "for KEY in 1 2; do echo $KEY; done"]
        {
            assert!(!asks_for(&shell(line), "KEY"), "{line}");
        }
        assert!(!asks_for(&CommandLine::Program(vec!["echo".into(), "$KEY".into()]), "KEY"));
    }

    #[test]
    fn a_name_is_a_word_of_its_own() {
        assert!(names("KeyError: 'API_KEY'", "API_KEY"));
        assert!(names("sh: 1: API_KEY: parameter not set", "API_KEY"));
        assert!(!names("MY_API_KEY is not set", "API_KEY"));
        assert!(!names("API_KEYS", "API_KEY"));
    }
}
