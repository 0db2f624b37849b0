//! What programs have told of their versions, kept with what the answers rest on ([`super::witnesses`]): as long as that
//! stands, a program need not be started to be asked again.
//!
//! It does not know how a program is asked. What is kept may be removed at any time. Invariant: what was kept counts only in
//! the environment, and for the root, in which it was told.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::kept;
use crate::process::tools;
use crate::process::witnesses::Witnesses;
use crate::project::Project;

const FILE: &str = "versions";
/// Raised when answers rest on something that was not kept before.
const VERSION: u32 = 1;

/// What programs have told, in one environment.
#[derive(Serialize, Deserialize)]
struct Told {
    version: u32,
    root: PathBuf,
    environment: Vec<(OsString, OsString)>,
    answers: BTreeMap<String, Answer>,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    version: String,
    witnesses: Witnesses,
}

/// The versions of programs, as they enter keys. Only those are asked whose answers may have changed.
pub fn versions(programs: &BTreeSet<&str>, project: &Project) -> BTreeMap<String, String> {
    let told = Told::kept(project);
    let standing =
        programs.iter().filter_map(|program| Some(((*program).to_owned(), told.standing(program)?.to_owned())));
    let mut versions: BTreeMap<String, String> = standing.collect();
    let open = programs.iter().copied().filter(|program| !versions.contains_key(*program)).collect();
    versions.extend(tools::versions(&open, &project.root, &project.workshop.supervisors));
    versions
}

/// Keeps versions that were told a while ago, of the programs that would tell the same.
pub fn keep(versions: &BTreeMap<String, String>, project: &Project) {
    let mut told = Told::kept(project);
    let open = versions.keys().filter(|program| told.standing(program).is_none());
    let found = open.filter_map(|program| Some((program.as_str(), Witnesses::of(program, &project.root)?)));
    let found: BTreeMap<&str, Witnesses> = found.collect();
    if found.is_empty() {
        return;
    }
    // What has changed since they told their versions may be seen in the witnesses, and not in the versions.
    let again = tools::versions(&found.keys().copied().collect(), &project.root, &project.workshop.supervisors);
    let same = found.into_iter().filter(|(program, _)| again.get(*program) == versions.get(*program));
    let answer = |(program, witnesses): (&str, Witnesses)| {
        (program.to_owned(), Answer { version: versions[program].clone(), witnesses })
    };
    told.answers.extend(same.map(answer));
    if let Ok(body) = serde_json::to_vec(&told) {
        kept::write(&path_in(&project.state), &body);
    }
}

impl Told {
    /// What was kept, if it counts here.
    fn kept(project: &Project) -> Self {
        let nothing = Self::nothing(&project.root);
        let kept = kept::read(&path_in(&project.state)).and_then(|body| serde_json::from_slice::<Self>(&body).ok());
        let here = |kept: &Self| {
            (kept.version, &kept.root, &kept.environment) == (nothing.version, &nothing.root, &nothing.environment)
        };
        kept.filter(here).unwrap_or(nothing)
    }

    fn nothing(root: &Path) -> Self {
        let (environment, answers) = (tools::environment(), BTreeMap::new());
        Self { version: VERSION, root: root.to_owned(), environment, answers }
    }

    /// What a program told, if it would tell the same.
    fn standing(&self, program: &str) -> Option<&str> {
        let answer = self.answers.get(program)?;
        answer.witnesses.stand(program, &self.root).then_some(&answer.version)
    }
}

fn path_in(state: &Path) -> PathBuf {
    state.join(FILE)
}
