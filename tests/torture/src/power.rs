//! Row `power`: the power goes, on a real ext4 and a real XFS: everything that was not synced is lost.
//!
//! Of the cases of a tool that can be traced, a third is cut directly after exit code 0, a third at a chosen call that
//! changes files, and a third at any moment; of others all directly after exit code 0. Then the file system is mounted
//! again, its journal replayed by the kernel, and the tool judged: after exit code 0 everything must be there. Half of those
//! that were cut at a call are cut again in the work that follows.

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::calls::Scope;
use crate::crew::{Case, Orders, remove};
use crate::headwater::ending;
use crate::image::{FileSystem, Image, Memory, available};
use crate::kills::spread;
use crate::score::{Score, Trouble};
use crate::tool::{Tool, Verdict};
use crate::traced::{Act, Ending, Tracer};
use crate::watchdog::Watch;

/// What a tool is expected to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Keep what it said to be kept, and go on by itself.
    Right,
    /// Lose data every time: it shows that the harness can see a loss.
    Loss,
    /// Anything: it is shown as a comparison.
    Anything,
}

impl Expected {
    /// The row of the command line that a tool with these expectations is in.
    pub fn row(self, own: &'static str) -> &'static str {
        if self == Self::Anything { "rivals" } else { own }
    }
}

/// When the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Done,
    Call(u64),
    Random,
}

/// What a thread has.
struct Machine {
    image: Image,
    tracer: Tracer,
    /// How many calls an undisturbed run makes, and how long it takes.
    calls: u64,
    takes: Duration,
}

/// Of what the power is cut, and how.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    pub system: FileSystem,
    pub memory: Memory,
    /// What passes between exit code 0 and the cut.
    pub wait: Duration,
}

impl Cut {
    /// The arguments by which the command line has it so.
    fn arguments(&self, tool: &dyn Tool, expected: Expected) -> String {
        let mut text = format!(" --file-system {}", self.system.name());
        if expected != Expected::Anything {
            text += &format!(" --worker {}", tool.name());
        }
        if self.memory == Memory::Kept {
            text += " --same-device";
        }
        if !self.wait.is_zero() {
            text += &format!(" --wait {}", self.wait.as_secs());
        }
        text
    }
}

/// Runs the row of a tool.
///
/// # Errors
/// If the machine cannot do it.
pub fn row(tool: &dyn Tool, cut: Cut, orders: &Orders, default: u64, expected: Expected) -> Result<Score, Trouble> {
    let Cut { system, wait, .. } = cut;
    let name = format!("power {} {}", system.name(), tool.name());
    let count = orders.count.unwrap_or(default);
    let mut score =
        Score::new(name.clone(), orders.command(expected.row("power"), count) + &cut.arguments(tool, expected));
    if let Err(missing) = available(system) {
        score.take(0, missing);
        return Ok(score);
    }
    score.add("cuts", 0);
    score.add("damaged file systems", 0);
    Verdict::FIGURES.iter().for_each(|figure| score.add(figure, 0));
    let moments = if tool.can_be_traced() { 3 } else { 1 };
    Ok(orders.deal(
        score,
        count,
        |worker| Machine::new(tool, cut, orders.make_folder(&format!("{name}-disk-{worker}").replace(' ', "-"))?),
        |machine, case| {
            let number = case.number / moments;
            let moment = match case.number % moments {
                0 => Moment::Done,
                1 => Moment::Call(spread(number, count.div_ceil(moments), machine.calls, &mut case.random)),
                _ => Moment::Random,
            };
            let judged = machine.case(tool, case, moment, wait);
            let (place, verdict) = judged.map_err(|trouble| trouble.at(format!("{moment:?}")))?;
            case.add(verdict.figure(), 1);
            if let Some(text) = verdict.text() {
                case.note(format!("{place}: {}: {text}", verdict.figure()));
            }
            case.add("cuts", 1);
            let damaged = machine.image.is_damaged()?;
            case.add("damaged file systems", u64::from(damaged));
            // Who keeps data on a damaged file system can do no more than say so.
            if damaged && matches!(verdict, Verdict::Stuck(_)) {
                return Ok(());
            }
            match (expected, verdict.text()) {
                (Expected::Right, Some(text)) => {
                    Err(Trouble::violation(format!("{place}: {}: {text}", verdict.figure())))
                }
                (Expected::Loss, None) => Err(Trouble::violation("unsynced data survived: the harness cuts nothing")),
                _ => Ok(()),
            }
        },
    ))
}

impl Machine {
    fn new(tool: &dyn Tool, cut: Cut, folder: PathBuf) -> Result<Self, Trouble> {
        let image = Image::new(cut.system, cut.memory, &folder)?;
        let mut this = Self { image, tracer: Tracer::default(), calls: 0, takes: Duration::ZERO };
        if tool.can_be_traced() {
            let project = this.project()?;
            tool.prepare(&project, 0)?;
            let ended = this.tracer.run(&tool.work(&project), Scope::Changing, &folder, |_| Act::Pass)?;
            this.calls = ended.calls;
            remove(&project)?;
            tool.prepare(&project, 0)?;
            let begun = Instant::now();
            ending(&mut tool.work(&project))?;
            this.takes = begun.elapsed();
            remove(&project)?;
        }
        Ok(this)
    }

    fn project(&self) -> Result<PathBuf, Trouble> {
        let project = self.image.at.join("project");
        remove(&project)?;
        std::fs::create_dir_all(&project)?;
        Ok(project)
    }

    fn case(
        &mut self,
        tool: &dyn Tool,
        case: &mut Case<'_>,
        moment: Moment,
        wait: Duration,
    ) -> Result<(String, Verdict), Trouble> {
        self.image.refresh()?;
        let project = self.project()?;
        tool.prepare(&project, case.number)?;
        self.image.sync()?;
        let mut ended = match moment {
            Moment::Done => self.cut_when_done(tool, &project, wait)?,
            Moment::Call(point) => self.cut_at(tool, case, &project, point)?,
            Moment::Random => self.cut_at_random(tool, case, &project)?,
        };
        self.image.boot()?;
        let mut place = match &ended.hit {
            Some(hit) => format!("power cut at {hit}"),
            None => format!("power cut at {moment:?}, exit code {:?} before", ended.code),
        };
        if matches!(moment, Moment::Call(_)) && case.random.once_in(2) {
            let point = case.random.below(self.calls);
            let second = self.cut_at(tool, case, &project, point)?;
            case.add("cuts", 1);
            place = format!("{place}, then at {:?}", second.hit.as_ref().map(ToString::to_string));
            self.image.boot()?;
            let again: Vec<String> = second.with(&["ran"]).intersection(&ended.done()).cloned().collect();
            if !again.is_empty() {
                return Ok((place, Verdict::Lost(format!("reported, and ran again: {again:?}"))));
            }
            ended = Ending { code: second.code, out: ended.out + &second.out, ..second };
        }
        let verdict = tool.judge(&project, case.number, &ended).map_err(|trouble| trouble.at(&place))?;
        Ok((place, verdict))
    }

    fn cut_when_done(&self, tool: &dyn Tool, project: &std::path::Path, wait: Duration) -> Result<Ending, Trouble> {
        let ended = ending(&mut tool.work(project))?;
        thread::sleep(wait);
        self.image.cut()?;
        match ended.code {
            Some(0) => Ok(ended),
            _ => Err(Trouble::harness(format!("undisturbed work failed: {}", ended.told()))),
        }
    }

    fn cut_at(
        &mut self,
        tool: &dyn Tool,
        case: &Case<'_>,
        project: &std::path::Path,
        point: u64,
    ) -> Result<Ending, Trouble> {
        let (image, mut cut) = (&self.image, None);
        let mut ended = self.tracer.run(&tool.work(project), Scope::Changing, &case.folder, |call| {
            if call.number != point {
                return Act::Pass;
            }
            cut = Some(image.cut());
            Act::Kill
        })?;
        self.tracer.end_all()?;
        match cut {
            Some(cut) => cut?,
            None => self.image.cut()?,
        }
        if ended.hit.is_some() {
            ended.code = None;
        }
        Ok(ended)
    }

    fn cut_at_random(
        &self,
        tool: &dyn Tool,
        case: &mut Case<'_>,
        project: &std::path::Path,
    ) -> Result<Ending, Trouble> {
        use std::os::unix::process::{CommandExt, ExitStatusExt};
        let out = case.folder.join("out");
        let mut command = tool.work(project);
        command.process_group(0).stdin(Stdio::null()).stdout(File::create(&out)?).stderr(Stdio::null());
        let moment = Duration::from_micros(case.random.below(self.takes.as_micros() as u64 * 5 / 4));
        let mut child = command.spawn()?;
        let _watch = Watch::over(child.id(), crate::watchdog::PATIENCE);
        thread::sleep(moment);
        // What had exited before the cut has given its word; what exits after it has not.
        let before = child.try_wait()?;
        // What is reported while the power goes may have been reported before or after; only before counts.
        let reported = std::fs::read(&out)?;
        self.image.cut()?;
        let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
        let status = child.wait()?;
        let signal = status.signal().and_then(|signal| Signal::try_from(signal).ok());
        let out = String::from_utf8_lossy(&reported).into_owned();
        Ok(Ending { code: before.and_then(|status| status.code()), signal, out, ..Ending::default() })
    }
}
