//! The shutdown of a file system: everything that is not on the disk is lost, as when the power goes.
//!
//! The one `unsafe` block of the harness is here: no crate has this call as a safe function.

use std::fs::File;
use std::path::Path;

use crate::score::{Trouble, during};

/// `XFS_FSOP_GOING_FLAGS_NOLOGFLUSH`, the same number for ext4: not even the journal is written.
const WITHOUT_FLUSH: u32 = 2;

nix::ioctl_read!(
    /// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`: despite its name the kernel reads the flags from `data`.
    shutdown,
    b'X',
    125,
    u32
);

/// Shuts down the file system that is mounted there.
///
/// # Errors
/// If it cannot be.
pub fn go_down(mounted: &Path) -> Result<(), Trouble> {
    use std::os::fd::AsRawFd;
    let root = during("open the mounted folder", File::open(mounted))?;
    let mut flags = WITHOUT_FLUSH;
    // SAFETY: the descriptor is open as long as `root`, and the kernel copies 4 bytes from the address of a living u32.
    #[expect(unsafe_code, reason = "there is no other way to this call")]
    let result = unsafe { shutdown(root.as_raw_fd(), &raw mut flags) };
    during("shut the file system down", result).map(drop)
}
