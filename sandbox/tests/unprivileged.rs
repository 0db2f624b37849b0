//! Users without privileges: what holds for root holds for them.

mod place;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use headwater_sandbox::{Ending, Supervisors};

use place::Place;

const NOBODY: u32 = 65534;

/// Supervisors that run as nobody; `None` unless this is root.
fn place() -> Option<Place> {
    let mut place = Place::new();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    if !Command::new("setpriv").args(user).arg("true").status().is_ok_and(|status| status.success()) {
        return None;
    }
    let program = place.path("supervisor");
    fs::copy(env!("CARGO_BIN_EXE_headwater-supervisor"), &program).expect("a copy");
    for path in [place.folder.path().to_owned(), place.path("work")] {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("permissions");
        chown(&path, Some(NOBODY), Some(NOBODY)).expect("an owner");
    }
    let arguments = user.iter().map(Into::into).chain([program.into_os_string()]).collect();
    place.supervisors = Supervisors::new("setpriv".into(), arguments).into();
    Some(place)
}

#[test]
fn nothing_outlives_a_command_of_a_user_without_privileges() {
    let Some(place) = place() else { return };
    let report = place.supervisors.run(&place.order("id -u; setsid sleep 1000 & sleep 0.1")).expect("a report");
    assert_eq!((report.ending, place.printed().as_str()), (Ending::Code(0), "65534\n"));
    assert!(report.survivors > 0);
}

#[test]
fn bounds_hold_for_a_user_without_privileges() {
    let Some(place) = place() else { return };
    fs::write(place.path("outside"), "text").expect("a file");
    let line = "echo a > a && ! cat ../outside && ! touch ../new && ! kill -0 $PPID && ! cat /proc/$PPID/environ";
    let report = place.supervisors.run(&place.bounded(line)).expect("a report");
    assert_eq!(report.ending, Ending::Code(0), "{}", place.printed());
}
