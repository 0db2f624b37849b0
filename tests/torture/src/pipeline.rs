//! `Pipeline`: Headwater with the tortured pipeline, as a [`Tool`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::oracle::Oracle;
use crate::random::Random;
use crate::score::Trouble;
use crate::subject::{ARTIFACTS, Inputs, OUTS, STAGES};
use crate::tool::{Tool, Verdict, wrong};
use crate::traced::Ending;
use crate::world::{Base, World};

/// Headwater, as one who keeps data.
pub struct Pipeline<'a> {
    pub world: &'a World,
}

/// Even numbers begin afresh, odd ones with a finished project.
fn base(number: u64) -> Base {
    if number.is_multiple_of(2) { Base::Fresh } else { Base::Edited }
}

fn inputs(number: u64) -> Inputs {
    base(number).inputs(&mut Random::of(number, 1))
}

impl Pipeline<'_> {
    fn run(&self, folder: &Path) -> Result<Ending, Trouble> {
        self.world.headwater.call(folder, &["run", "--format", "json"])
    }

    /// Reads single artifacts in a way that the case chooses.
    fn peek(&self, folder: &Path, oracle: &Oracle, random: &mut Random) -> Result<Option<Ending>, Trouble> {
        let headwater = &self.world.headwater;
        let at = random.below(ARTIFACTS.len() as u64) as usize;
        match random.below(6) {
            0 | 1 => oracle.judge_get(headwater, folder, at),
            2 => oracle.judge_show(headwater, folder, at),
            3 => oracle.judge_predict(headwater, folder),
            4 => {
                let verb = *random.pick(&["log", "status", "graph", "compare"]);
                headwater.call(folder, &[verb]).map(Some)
            }
            _ => {
                let stage = *random.pick(&STAGES);
                headwater.call(folder, &["explain", stage]).map(Some)
            }
        }
    }

    /// A run that has to read much of the store: outs are gone, and stages are forced. Also says whether a stage ran that
    /// nobody forced.
    fn use_all(&self, folder: &Path, random: &mut Random) -> Result<(Ending, bool), Trouble> {
        for out in OUTS {
            fs::remove_file(folder.join(out))?;
        }
        // What the forced stages read, and do not make, is read from the store.
        let forced = *random.pick(&[&[][..], &["wide", "prepare", "evaluate"], &["split", "train", "report"]]);
        let flags = forced.iter().flat_map(|stage| ["--force", stage]);
        let arguments: Vec<&str> = ["run", "--format", "json"].into_iter().chain(flags).collect();
        let ended = self.world.headwater.call(folder, &arguments)?;
        let made_again = ended.with(&["ran"]).iter().any(|stage| !forced.contains(&stage.as_str()));
        Ok((ended, made_again))
    }
}

/// An end that is no answer, or one without a word, is wrong.
fn check_honest(ended: &Ending) -> Result<(), Trouble> {
    if let Some(broken) = ended.broke_down() {
        return Err(Trouble::violation(broken));
    }
    if ended.code != Some(0) && ended.message().trim().is_empty() {
        return Err(Trouble::violation(format!("it failed without a word: {}", ended.told())));
    }
    Ok(())
}

impl Tool for Pipeline<'_> {
    fn name(&self) -> &'static str {
        "headwater"
    }

    fn version(&self) -> Result<String, Trouble> {
        self.world.headwater.version()
    }

    fn prepare(&self, folder: &Path, number: u64) -> Result<(), Trouble> {
        self.world.begin(base(number), folder, &inputs(number))
    }

    fn work(&self, folder: &Path) -> Command {
        self.world.headwater.command(folder, &["run", "--format", "json"])
    }

    fn can_be_traced(&self) -> bool {
        true
    }

    fn judge(&self, folder: &Path, number: u64, work: &Ending) -> Result<Verdict, Trouble> {
        let oracle = self.world.oracles.of(&inputs(number))?;
        if let Err(trouble) = oracle.judge_reported(work) {
            return wrong(Err(trouble));
        }
        let recovery = self.run(folder)?;
        if recovery.code != Some(0) {
            return Ok(Verdict::Stuck(recovery.told()));
        }
        if let Err(trouble) = oracle.judge_run(folder, &recovery) {
            return wrong(Err(trouble));
        }
        let ran = recovery.with(&["ran"]);
        let again: Vec<_> = ran.intersection(&work.done()).cloned().collect();
        if work.code == Some(0) && !ran.is_empty() || !again.is_empty() {
            return Ok(Verdict::Lost(format!("exit code {:?}, reported and ran again: {again:?}", work.code)));
        }
        Ok(Verdict::Right)
    }

    fn kept(&self, folder: &Path) -> PathBuf {
        folder.join(".headwater")
    }

    fn read(&self, folder: &Path, number: u64, random: &mut Random) -> Result<Verdict, Trouble> {
        let oracle = self.world.oracles.of(&inputs(number))?;
        let judged = (|| {
            if let Some(ended) = self.peek(folder, &oracle, random)? {
                check_honest(&ended)?;
            }
            let (ended, made_again) = self.use_all(folder, random)?;
            check_honest(&ended)?;
            oracle.judge_reported(&ended)?;
            if ended.code == Some(0) {
                oracle.judge_run(folder, &ended)?;
            }
            let last = self.run(folder)?;
            check_honest(&last)?;
            if last.code != Some(0) {
                return Ok(Verdict::Stuck(last.told()));
            }
            oracle.judge_run(folder, &last)?;
            Ok(match ended.code {
                Some(0) if made_again => Verdict::MadeAgain,
                Some(0) => Verdict::Right,
                _ => Verdict::Refused(ended.told()),
            })
        })();
        wrong(judged)
    }
}
