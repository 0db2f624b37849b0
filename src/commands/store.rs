//! `headwater store`: how much the store holds, whether it is what it should be, and what can go.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use headwater_cache::{CollectError, Collector, Dropped, Findings, Keep, Look, Plan, Stats, StoreError};
use headwater_engine::Manifest;
use serde::Serialize;

use crate::commands::{Globals, number};
use crate::error::CommandError;
use crate::pipeline::Pipeline;
use crate::process::work::remove_all;
use crate::report::{duration, print_json, say, tell};
use crate::size::{self, human};
use crate::workspace::Workspace;

/// What outs replaced is kept for so long.
const TRASH_DAYS: u64 = 30;

/// The artifact store: how much it holds, whether it is intact, what can go
#[derive(Debug, Args)]
pub struct StoreCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say how much the store holds, and how much of it is shared
    Stats,
    /// Look whether everything is there and as it should be
    Verify(Verify),
    /// Remove what the last runs did not use
    Gc(Gc),
}

#[derive(Debug, Args)]
struct Verify {
    /// Read and hash every byte
    #[arg(long)]
    full: bool,
    /// Read every byte, and set aside what is damaged, so that the next run makes it again
    #[arg(long)]
    repair: bool,
}

#[derive(Debug, Args)]
struct Gc {
    /// Keep what so many of each project's last different runs used
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = number)]
    keep_last: usize,
    /// Beyond that keep as much as fits, what is dearest to compute again for its bytes first: 500M, 20G …
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    max_size: Option<u64>,
    /// Say what would go, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct StatsJson {
    event: &'static str,
    #[serde(flatten)]
    stats: Stats,
}

#[derive(Serialize)]
struct VerifyJson<'a> {
    event: &'static str,
    full: bool,
    blobs: u64,
    bytes: u64,
    records: u64,
    damaged: Vec<String>,
    remarks: &'a [String],
    lost: Vec<String>,
}

#[derive(Serialize)]
struct GcJson {
    event: &'static str,
    dry_run: bool,
    kept: usize,
    dropped: Vec<DroppedJson>,
    bytes_before: u64,
    bytes_freed: u64,
    quarantined: usize,
    trash: Vec<PathBuf>,
}

#[derive(Serialize)]
struct DroppedJson {
    key: String,
    kind: String,
    seconds: f64,
    bytes: u64,
}

impl StoreCommand {
    /// # Errors
    /// If the pipeline is wrong, the store cannot be read or written, or damage was found.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        match &self.verb {
            Verb::Stats => stats(globals),
            Verb::Verify(verify) => verify.execute(globals),
            Verb::Gc(gc) => gc.execute(globals),
        }
    }
}

fn stats(globals: &Globals) -> Result<(), CommandError> {
    let workspace = Workspace::open(&globals.pipeline, &[])?;
    let stats = workspace.store.stats(&workspace.ledger).map_err(CommandError::failed)?;
    if globals.json() {
        return Ok(print_json(&StatsJson { event: "store_stats", stats })?);
    }
    say(&format!("     store {}", workspace.store.root().display()))?;
    say(&format!("   records {}", stats.records))?;
    let files = format!("{} in {} files", human(stats.large_bytes), stats.large_blobs);
    let packed = format!("{} in {} segments", human(stats.segment_bytes), stats.segments);
    say(&format!("    stored {files}, {packed} of {} small blobs", stats.small_blobs))?;
    let shared = stats.referenced_bytes as f64 / stats.distinct_bytes.max(1) as f64;
    let (referenced, distinct) = (human(stats.referenced_bytes), human(stats.distinct_bytes));
    say(&format!("   outputs {referenced} referenced, {distinct} different: shared {shared:.1} times"))?;
    if stats.quarantined > 0 {
        say(&format!("quarantine {} damaged files; `headwater store gc` removes them", stats.quarantined))?;
    }
    Ok(())
}

impl Verify {
    fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let look = Look { full: self.full || self.repair, repair: self.repair };
        let found = workspace.store.verify(&workspace.ledger, look).map_err(CommandError::failed)?;
        if globals.json() {
            print_json(&self.json(&found, look))?;
        } else {
            self.tell(&found, look)?;
        }
        if found.is_clean() { Ok(()) } else { Err(CommandError::Damaged) }
    }

    fn json<'a>(&self, found: &'a Findings, look: Look) -> VerifyJson<'a> {
        VerifyJson {
            event: "store_verify",
            full: look.full,
            blobs: found.blobs,
            bytes: found.bytes,
            records: found.records,
            damaged: found.damaged.iter().map(ToString::to_string).collect(),
            remarks: &found.remarks,
            lost: found.lost.iter().map(ToString::to_string).collect(),
        }
    }

    fn tell(&self, found: &Findings, look: Look) -> Result<(), CommandError> {
        for digest in &found.damaged {
            say(&format!("blob {digest} is damaged"))?;
        }
        for remark in &found.remarks {
            say(remark)?;
        }
        for key in &found.lost {
            say(&format!("the outputs of key {key} cannot be produced"))?;
        }
        let read = if look.full { "read and hashed" } else { "looked at" };
        let Findings { blobs, bytes, records, .. } = found;
        say(&format!("{blobs} blobs of {} {read}, {records} records", human(*bytes)))?;
        match (found.is_clean(), look.repair) {
            (true, true | false) => say("no damage")?,
            (false, true) => say("what is damaged was set aside; `headwater run` makes it again")?,
            (false, false) => say("`headwater store verify --repair` sets aside what is damaged")?,
        }
        Ok(())
    }
}

impl Gc {
    fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let pipeline = Pipeline::load(&globals.pipeline, &[])?;
        let collector = Collector::open(&pipeline.store_path()).map_err(collect_error)?;
        let plan = collector.plan(Keep { last: self.keep_last, max_bytes: self.max_size }).map_err(collect_error)?;
        let trash = old_trash(&pipeline.project.state.join("trash"));
        if globals.json() {
            print_json(&self.json(&plan, &trash))?;
        } else {
            self.tell(&plan, &trash, globals)?;
        }
        if self.dry_run {
            return Ok(());
        }
        // Of a full disk they may be what gives room.
        trash.iter().try_for_each(|path| remove_all(path)).map_err(CommandError::failed)?;
        match collector.carry_out(&plan).map_err(collect_error)? {
            0 => {}
            left => tell(&format!("warning: {left} segments stay, as there is no room to write anew what they hold")),
        }
        Ok(())
    }

    fn tell(&self, plan: &Plan, trash: &[PathBuf], globals: &Globals) -> Result<(), CommandError> {
        for user in &plan.users {
            say(&format!("{:>9} {}  {} kept, {} forgotten", "runs", user.name, user.kept, user.dropped))?;
        }
        for dropped in plan.dropped.iter().filter(|_| !globals.quiet) {
            let (kind, cost) = (kind_of(dropped), duration(dropped.seconds));
            say(&format!("{:>9} {} {kind}  {}, {cost}", "drop", dropped.key.short(), human(dropped.bytes)))?;
        }
        for path in trash {
            say(&format!("{:>9} {}", "trash", path.display()))?;
        }
        let (freed, before) = (human(plan.bytes_freed), human(plan.bytes_before));
        let word = if self.dry_run { "would free" } else { "frees" };
        let quarantined = match plan.quarantined.len() {
            0 => String::new(),
            count => format!(", and {count} damaged files"),
        };
        let (kept, dropped) = (plan.kept, plan.dropped.len());
        Ok(say(&format!("{word} {freed} of {before}{quarantined}: {kept} records kept, {dropped} dropped"))?)
    }

    fn json(&self, plan: &Plan, trash: &[PathBuf]) -> GcJson {
        let dropped = |dropped: &Dropped| DroppedJson {
            key: dropped.key.to_string(),
            kind: kind_of(dropped),
            seconds: dropped.seconds,
            bytes: dropped.bytes,
        };
        GcJson {
            event: "store_gc",
            dry_run: self.dry_run,
            kept: plan.kept,
            dropped: plan.dropped.iter().map(dropped).collect(),
            bytes_before: plan.bytes_before,
            bytes_freed: plan.bytes_freed,
            quarantined: plan.quarantined.len(),
            trash: trash.to_vec(),
        }
    }
}

/// The kind of stage that a record is of, as its manifest says.
fn kind_of(dropped: &Dropped) -> String {
    let manifest = Manifest::parse(&dropped.manifest);
    let kind = manifest.lines().iter().find(|(label, _)| label == "kind");
    let word = kind.and_then(|(_, value)| value.split_whitespace().next());
    word.unwrap_or("a stage").to_owned()
}

/// What has lain in the trash for long.
fn old_trash(folder: &std::path::Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let age = Duration::from_secs(TRASH_DAYS * 24 * 3600);
    let is_old = |path: &PathBuf| {
        let changed = fs::symlink_metadata(path).and_then(|about| about.modified());
        // A clock that went back makes nothing old.
        changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|since| since > age))
    };
    let mut old: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).filter(is_old).collect();
    old.sort();
    old
}

fn collect_error(error: CollectError) -> CommandError {
    let hint = match &error {
        CollectError::Busy { .. } => "let the runs and servers that use it end, then collect again",
        CollectError::Root { source: StoreError::DamagedUses { .. }, .. } => {
            "`headwater store verify --repair` writes it anew, with all that any run used; then collect again"
        }
        CollectError::Root { .. } => "run that project once more, then collect again",
        _ => "nothing that runs use was removed; mend the cause and collect again",
    };
    CommandError::Failed(error.to_string(), vec![hint.to_owned()])
}
