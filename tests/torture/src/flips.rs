//! Row `flips`: one bit of one file of a finished store is flipped, or a file is damaged as a whole; then it is used.
//!
//! It does not know how a store looks: files are files. A case damages one place, so that what happens is known to come of
//! it; with `--exhaustive` the cases are all bits of all files, in order.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::crew::{Case, Orders};
use crate::headwater::ending;
use crate::power::Expected;
use crate::random::Random;
use crate::score::{Score, Trouble, during};
use crate::tool::{Tool, Verdict};
use crate::world::copy;

/// The case of which all templates are: begun afresh.
const NUMBER: u64 = 0;

/// One in so many cases damages a file as a whole.
const WHOLE: u64 = 5;

/// What is done to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    Flip(u64),
    Truncate(u64),
    Empty,
    ZeroTail(u64),
    Grow,
    Delete,
    Swap,
    Folder,
    Link,
}

/// A finished store to copy, and its files.
pub struct Template {
    pub folder: PathBuf,
    /// Path, relative to the folder that is damaged, and bytes.
    pub files: Vec<(PathBuf, u64)>,
    bits: u64,
}

/// Runs the row of a tool.
///
/// # Errors
/// If there is no undisturbed store.
pub fn row(
    tool: &dyn Tool,
    orders: &Orders,
    default: u64,
    exhaustive: bool,
    expected: Expected,
) -> Result<Score, Trouble> {
    let name = format!("flips {}", tool.name());
    let template = Template::make(tool, "", orders.make_folder(&name.replace(' ', "-"))?)?;
    let count = if exhaustive { template.bits } else { orders.count.unwrap_or(default) };
    let mut score = Score::new(name, orders.command(expected.row("flips"), count));
    score.add("bits in the store", template.bits);
    ["flips", "whole files"].iter().for_each(|figure| score.add(figure, 0));
    Verdict::FIGURES.iter().for_each(|figure| score.add(figure, 0));
    Ok(orders.deal(
        score,
        count,
        |_| Ok(()),
        |(), case| {
            let (file, damage) = if exhaustive { template.bit(case.number) } else { template.choose(&mut case.random) };
            one(tool, case, &template, file, damage, expected)
        },
    ))
}

impl Template {
    /// Does the work in `folder`; what is `inside` of what the tool keeps will be damaged.
    ///
    /// # Errors
    /// If the work fails.
    pub fn make(tool: &dyn Tool, inside: &str, folder: PathBuf) -> Result<Self, Trouble> {
        tool.prepare(&folder, NUMBER)?;
        let worked = ending(&mut tool.work(&folder))?;
        if worked.code != Some(0) {
            return Err(Trouble::harness(format!("undisturbed work failed: {}", worked.told())));
        }
        let kept = tool.kept(&folder).join(inside);
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(&kept).sort_by_file_name() {
            let entry = during("list", entry)?;
            if entry.file_type().is_file() {
                let path = entry.path().strip_prefix(&kept).unwrap_or(entry.path()).to_owned();
                files.push((path, during("look at", entry.metadata())?.len()));
            }
        }
        let bits = files.iter().map(|(_, bytes)| bytes * 8).sum();
        Ok(Self { folder, files, bits })
    }

    /// The bit of this number, counted over all files.
    fn bit(&self, number: u64) -> (&(PathBuf, u64), Damage) {
        let mut left = number;
        for file in &self.files {
            if left < file.1 * 8 {
                return (file, Damage::Flip(left));
            }
            left -= file.1 * 8;
        }
        unreachable!("bit {number} of {}", self.bits)
    }

    /// Half of the flips are anywhere, half in any file, as small files matter as much.
    pub fn choose(&self, random: &mut Random) -> (&(PathBuf, u64), Damage) {
        let file = random.pick(&self.files);
        let bytes = file.1;
        if random.once_in(WHOLE) || bytes == 0 {
            let at = random.below(bytes);
            let all = [
                Damage::Truncate(at),
                Damage::Empty,
                Damage::ZeroTail(at),
                Damage::Grow,
                Damage::Delete,
                Damage::Swap,
                Damage::Folder,
                Damage::Link,
            ];
            return (file, *random.pick(&all));
        }
        if random.once_in(2) {
            self.bit(random.below(self.bits))
        } else {
            (file, Damage::Flip(random.below(bytes * 8)))
        }
    }
}

fn one(
    tool: &dyn Tool,
    case: &mut Case<'_>,
    template: &Template,
    (file, _): &(PathBuf, u64),
    damage: Damage,
    expected: Expected,
) -> Result<(), Trouble> {
    let folder = case.folder.join("project");
    copy(&template.folder, &folder)?;
    let path = tool.kept(&folder).join(file);
    let other = tool.kept(&folder).join(&case.random.pick(&template.files).0);
    let place = format!("{damage:?} of {}", file.display());
    inflict(damage, &path, &other).map_err(|trouble| trouble.at(&place))?;
    case.add(if matches!(damage, Damage::Flip(_)) { "flips" } else { "whole files" }, 1);
    let verdict = tool.read(&folder, NUMBER, &mut case.random).map_err(|trouble| trouble.at(&place))?;
    case.add(verdict.figure(), 1);
    if let Some(text) = verdict.text() {
        case.note(format!("{place}: {}: {text}", verdict.figure()));
    }
    match (expected, &verdict) {
        (Expected::Loss, Verdict::Right) if matches!(damage, Damage::Flip(_)) => {
            Err(Trouble::violation(format!("{place} was not seen: the harness sees nothing")))
        }
        (Expected::Right, Verdict::Wrong(text) | Verdict::Lost(text)) => {
            Err(Trouble::violation(format!("{place}: {text}")))
        }
        _ => Ok(()),
    }
}

/// Damages a file; `other` is a second file of the store.
///
/// # Errors
/// If it cannot be damaged.
pub fn inflict(damage: Damage, path: &Path, other: &Path) -> Result<(), Trouble> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match damage {
        Damage::Flip(bit) => flip(&open()?, bit)?,
        Damage::Truncate(at) => open()?.set_len(at)?,
        Damage::Empty => open()?.set_len(0)?,
        Damage::ZeroTail(at) => {
            let (file, bytes) = (open()?, fs::metadata(path)?.len());
            file.set_len(at)?;
            file.set_len(bytes)?;
        }
        Damage::Grow => {
            let (file, bytes) = (open()?, fs::metadata(path)?.len());
            file.write_all_at(b"more", bytes)?;
        }
        Damage::Delete => fs::remove_file(path)?,
        Damage::Swap => swap(path, other)?,
        Damage::Folder => fs::remove_file(path).and_then(|()| fs::create_dir(path))?,
        Damage::Link => fs::remove_file(path).and_then(|()| symlink(other, path))?,
    }
    Ok(())
}

fn flip(file: &File, bit: u64) -> std::io::Result<()> {
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8)?;
    file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8)
}

fn swap(path: &Path, other: &Path) -> std::io::Result<()> {
    if path == other {
        return Ok(());
    }
    let aside = path.with_extension("aside");
    fs::rename(path, &aside)?;
    fs::rename(other, path)?;
    fs::rename(&aside, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_a_number() {
        let files = vec![(PathBuf::from("a"), 1), (PathBuf::from("b"), 2)];
        let template = Template { folder: PathBuf::new(), files, bits: 24 };
        let all: Vec<_> = (0..24).map(|number| template.bit(number)).collect();
        assert_eq!(all[7], (&template.files[0], Damage::Flip(7)));
        assert_eq!(all[8], (&template.files[1], Damage::Flip(0)));
        assert_eq!(all[23], (&template.files[1], Damage::Flip(15)));
    }

    #[test]
    fn a_flip_changes_one_bit_and_a_second_one_changes_it_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        fs::write(&path, [0, 0]).expect("written");
        inflict(Damage::Flip(9), &path, &path).expect("flipped");
        assert_eq!(fs::read(&path).expect("read"), [0, 2]);
        inflict(Damage::Flip(9), &path, &path).expect("flipped");
        assert_eq!(fs::read(&path).expect("read"), [0, 0]);
    }
}
