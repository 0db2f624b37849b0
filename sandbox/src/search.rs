//! Where a program is that is named without a slash.
//!
//! It does not know who asks, nor starts anything. Invariant: a folder of `PATH` that is not absolute counts for nothing:
//! what is meant by it depends on where one stands.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The first program of this name in a list of folders like `PATH`.
pub fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|found| is_program(found))
}

/// Whether a path is a file that somebody may execute.
fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_first_executable_file_of_an_absolute_folder_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["a", "b", "c"] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
        }
        fs::create_dir(folder.path().join("a/tool")).expect("a folder");
        fs::write(folder.path().join("b/tool"), "").expect("a file");
        let program = folder.path().join("c/tool");
        fs::write(&program, "").expect("a file");
        let path = std::env::join_paths(["a", "b", "c"].map(|name| folder.path().join(name))).expect("a list");
        assert_eq!(find("tool".as_ref(), &path), None);
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("permissions");
        assert_eq!(find("tool".as_ref(), &path), Some(program));
        assert_eq!(find("sh".as_ref(), "../bin:bin::.".as_ref()), None);
    }
}
