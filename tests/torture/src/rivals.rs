//! Row `rivals`: git and DVC under the same faults, by the same functions, as a measure for the figures.
//!
//! Both keep twenty files: git commits them, DVC adds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::crew::remove;
use crate::headwater::{PROGRAMS, ending};
use crate::random::Random;
use crate::score::Trouble;
use crate::tool::{Tool, Verdict};
use crate::traced::Ending;

const FILES: u64 = 20;

/// git, with its settings as they come.
pub struct Git;

/// DVC, with its settings as they come.
pub struct Dvc {
    pub program: PathBuf,
}

fn text(number: u64, file: u64, after: bool) -> String {
    let mut random = Random::of(number, file * 2 + u64::from(after));
    (0..1000).map(|_| format!("{:016x}\n", random.next())).collect()
}

fn write(folder: &Path, number: u64, after: bool) -> Result<(), Trouble> {
    fs::create_dir_all(folder.join("data"))?;
    for file in 0..FILES {
        fs::write(folder.join(format!("data/{file}.txt")), text(number, file, after))?;
    }
    Ok(())
}

/// What a tool gave that said that it succeeded.
fn compare(folder: &Path, number: u64) -> Verdict {
    let (mut missing, mut wrong) = (0, Vec::new());
    for file in 0..FILES {
        match fs::read(folder.join(format!("data/{file}.txt"))) {
            Ok(found) if found == text(number, file, true).as_bytes() => {}
            Ok(found) => wrong.push(found.len()),
            Err(_) => missing += 1,
        }
    }
    let text = format!("exit code 0, {missing} files missing, {} with wrong bytes, of lengths {wrong:?}", wrong.len());
    match (missing, wrong.is_empty()) {
        (0, true) => Verdict::Right,
        (_, true) => Verdict::Lost(text),
        _ => Verdict::Wrong(text),
    }
}

fn tool(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder).env_clear().env("HOME", folder).env("LANG", "C.UTF-8");
    let own = program.parent().map(|folder| folder.to_string_lossy().into_owned()).unwrap_or_default();
    command.env("PATH", format!("{own}:/usr/local/bin:{PROGRAMS}")).env("DVC_NO_ANALYTICS", "1");
    command
}

fn done(command: &mut Command) -> Result<String, Trouble> {
    let ended = ending(command)?;
    if ended.code == Some(0) { Ok(ended.out) } else { Err(Trouble::harness(format!("{command:?}: {}", ended.err))) }
}

fn git(folder: &Path, arguments: &[&str]) -> Command {
    tool(Path::new("git"), folder, arguments)
}

impl Tool for Git {
    fn name(&self) -> &'static str {
        "git"
    }

    fn version(&self) -> Result<String, Trouble> {
        Ok(done(&mut git(Path::new("/"), &["--version"]))?.trim().to_owned())
    }

    fn prepare(&self, folder: &Path, number: u64) -> Result<(), Trouble> {
        done(&mut git(folder, &["init", "-q", "--template=", "."]))?;
        for setting in [["user.name", "torture"], ["user.email", "torture@localhost"]] {
            done(&mut git(folder, &["config", setting[0], setting[1]]))?;
        }
        write(folder, number, false)?;
        done(&mut git(folder, &["add", "data"]))?;
        done(&mut git(folder, &["commit", "-q", "-m", "before"]))?;
        write(folder, number, true)
    }

    fn work(&self, folder: &Path) -> Command {
        tool(Path::new("sh"), folder, &["-c", "git add data && git commit -q -m after"])
    }

    fn judge(&self, folder: &Path, number: u64, work: &Ending) -> Result<Verdict, Trouble> {
        let checked = ending(&mut git(folder, &["fsck", "--full"]))?;
        if checked.code != Some(0) {
            return Ok(Verdict::Stuck(checked.err));
        }
        let last = ending(&mut git(folder, &["log", "-1", "--format=%s"]))?;
        if work.code == Some(0) && last.out.trim() != "after" {
            return Ok(Verdict::Lost("the commit is gone".into()));
        }
        self.read(folder, number, &mut Random::of(0, 0))
    }

    fn kept(&self, folder: &Path) -> PathBuf {
        folder.join(".git")
    }

    fn read(&self, folder: &Path, number: u64, _random: &mut Random) -> Result<Verdict, Trouble> {
        remove(&folder.join("data"))?;
        let ended = ending(&mut git(folder, &["checkout", "-q", "HEAD", "--", "data"]))?;
        if ended.code == Some(0) { Ok(compare(folder, number)) } else { Ok(Verdict::Stuck(ended.err)) }
    }
}

impl Dvc {
    fn command(&self, folder: &Path, arguments: &[&str]) -> Command {
        tool(&self.program, folder, arguments)
    }
}

impl Tool for Dvc {
    fn name(&self) -> &'static str {
        "DVC"
    }

    fn version(&self) -> Result<String, Trouble> {
        Ok(format!("DVC {}", done(&mut self.command(Path::new("/"), &["--version"]))?.trim()))
    }

    fn prepare(&self, folder: &Path, number: u64) -> Result<(), Trouble> {
        done(&mut self.command(folder, &["init", "-q", "--no-scm"]))?;
        // Its database of what is cached lies elsewhere by default, and would survive the cut.
        let own = folder.join(".dvc/site").to_string_lossy().into_owned();
        for setting in [["core.site_cache_dir", own.as_str()], ["core.check_update", "false"]] {
            done(&mut self.command(folder, &["config", setting[0], setting[1]]))?;
        }
        write(folder, number, true)
    }

    fn work(&self, folder: &Path) -> Command {
        // The pointer is saved by hand, as a push to a git server saves it: it is the cache that is looked at.
        let program = self.program.to_string_lossy();
        let arguments = ["-c", r#""$0" add -q data && sync data.dvc"#, &program];
        let mut command = tool(Path::new("sh"), folder, &arguments);
        let own = self.program.parent().unwrap_or(folder).display();
        command.env("PATH", format!("{own}:/usr/local/bin:{PROGRAMS}"));
        command
    }

    fn judge(&self, folder: &Path, number: u64, work: &Ending) -> Result<Verdict, Trouble> {
        if work.code == Some(0) && !folder.join("data.dvc").exists() {
            return Ok(Verdict::Lost("data.dvc is gone".into()));
        }
        self.read(folder, number, &mut Random::of(0, 0))
    }

    fn kept(&self, folder: &Path) -> PathBuf {
        folder.join(".dvc/cache")
    }

    fn read(&self, folder: &Path, number: u64, _random: &mut Random) -> Result<Verdict, Trouble> {
        remove(&folder.join("data"))?;
        let ended = ending(&mut self.command(folder, &["checkout"]))?;
        if ended.code == Some(0) { Ok(compare(folder, number)) } else { Ok(Verdict::Stuck(ended.err)) }
    }
}
