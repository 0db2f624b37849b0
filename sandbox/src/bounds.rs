//! Bounds on files and network, enforced by the kernel on the calling thread and on all that it starts.
//!
//! Files by Landlock: what is not named can be neither read, listed, executed, written, made, removed nor renamed. Of
//! what Landlock leaves open, `stat`, `chmod`, `chown` and `utime` work on every path that the user may do them to.
//! With Landlock of Linux 6.12 and later, signals, `ptrace` and abstract sockets reach no process outside.
//!
//! The network by seccomp, which refuses calls as containers do (`EPERM`): a socket of any family but `AF_UNIX` cannot be
//! made, whatever its protocol. Landlock knows TCP alone; a network namespace needs a user namespace, which many systems
//! forbid. `io_uring` could make sockets past the filter, so it is refused, too. Sockets in the file system can be connected
//! to.
//!
//! Also with the network, limits of other processes (`prlimit`) cannot be changed: a supervisor without open files can do
//! nothing. A filter knows no process numbers but 0, the caller: who gives its own is refused as well.
//!
//! What root may do past all this, such as looking into the memory of other processes, is given up: bounded programs of
//! root lack the capabilities for it.
//!
//! Invariant: [`enter`] succeeds only if all are in force.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::mem::offset_of;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use libc::seccomp_data;
use rustix::fs::FileType;
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    sock_filter,
};

use crate::order::Bounds;

/// What this program was written for and tested with. Older kernels enforce what they know of it.
const KNOWN: ABI = ABI::V7;

/// Calls of the x32 kind have this bit in their number.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

/// The kinds of processors whose programs may run here, and their number of the call `prlimit64`.
#[cfg(target_arch = "x86_64")]
const PRLIMIT: [(u32, u32); 3] = [(0xc000_003e, 302), (0xc000_003e, 302 | X32 as u32), (0x4000_0003, 340)];
#[cfg(target_arch = "aarch64")]
const PRLIMIT: [(u32, u32); 2] = [(0xc000_00b7, 261), (0x4000_0028, 369)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const PRLIMIT: [(u32, u32); 1] = [(0xc000_00f3, 261)];

/// What no program needs that makes files of files, and what leads past bounds.
const GIVEN_UP: [CapabilitySet; 14] = [
    CapabilitySet::SYS_ADMIN,
    CapabilitySet::SYS_PTRACE,
    CapabilitySet::PERFMON,
    CapabilitySet::BPF,
    CapabilitySet::CHECKPOINT_RESTORE,
    CapabilitySet::SYS_MODULE,
    CapabilitySet::SYS_RAWIO,
    CapabilitySet::SYS_BOOT,
    CapabilitySet::SYS_TIME,
    CapabilitySet::SYSLOG,
    CapabilitySet::NET_ADMIN,
    CapabilitySet::NET_RAW,
    CapabilitySet::MAC_ADMIN,
    CapabilitySet::MAC_OVERRIDE,
];

/// Why bounds are not in force.
#[derive(Debug, thiserror::Error)]
pub enum BoundsError {
    #[error("Landlock is not available")]
    NoLandlock,
    #[error("Landlock: {0}")]
    Landlock(#[from] RulesetError),
    #[error("seccomp: {0}")]
    Seccomp(#[from] seccompiler::Error),
    #[error("seccomp: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// Whether the kernel can enforce bounds.
pub fn enforceable() -> bool {
    ruleset(CompatLevel::HardRequirement, ABI::V1, false).is_ok() && local_filter().is_ok()
}

/// Binds the calling thread, and what it starts from now on.
///
/// # Errors
/// If the kernel does not enforce them.
pub fn enter(bounds: &Bounds) -> Result<(), BoundsError> {
    let all = AccessFs::from_all(KNOWN);
    let devices =
        AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::Truncate | AccessFs::IoctlDev;
    let folders = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    for capability in GIVEN_UP {
        // Refused to who has none of them, and could not give them to what it starts.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let mut rules = ruleset(CompatLevel::BestEffort, KNOWN, true)?;
    rules = allow(rules, &bounds.read, AccessFs::from_read(KNOWN))?;
    rules = allow(rules, &bounds.devices, devices)?;
    rules = allow(rules, &bounds.write, folders)?;
    let RestrictionStatus { ruleset, .. } = rules.restrict_self()?;
    if ruleset == RulesetStatus::NotEnforced {
        return Err(BoundsError::NoLandlock);
    }
    seccompiler::apply_filter(&if bounds.network { limits_filter() } else { local_filter()? })?;
    Ok(())
}

fn ruleset(level: CompatLevel, abi: ABI, scoped: bool) -> Result<RulesetCreated, RulesetError> {
    let rules = Ruleset::default().set_compatibility(level).handle_access(AccessFs::from_all(abi))?;
    if scoped { rules.scope(Scope::from_all(abi))?.create() } else { rules.create() }
}

/// A path that cannot be opened cannot be used by the program either.
fn allow(
    mut rules: RulesetCreated,
    paths: &[OsString],
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, RulesetError> {
    for path in paths {
        let Ok(place) = PathFd::new(path) else { continue };
        let Ok(about) = rustix::fs::fstat(&place) else { continue };
        let folder = FileType::from_raw_mode(about.st_mode).is_dir();
        let access = if folder { access } else { access & AccessFs::from_file(KNOWN) };
        rules = rules.add_rule(PathBeneath::new(place, access))?;
    }
    Ok(rules)
}

/// No socket but local ones, no other way to have one, and no limits but one's own. One filter, with one error for all that
/// it refuses: the kernel compiles each anew for each program.
fn local_filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let is_not =
        |number: libc::c_int| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, number as u64);
    let when = |condition| Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition])?]);
    let refused = [
        (libc::SYS_socket, when(is_not(libc::AF_UNIX)?)?),
        (libc::SYS_prlimit64, when(is_not(0)?)?),
        (libc::SYS_io_uring_setup, Vec::new()),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let rules = BTreeMap::from(refused);
    #[cfg(target_arch = "x86_64")]
    let rules: BTreeMap<_, _> =
        refused.into_iter().flat_map(|(call, when)| [(call | X32, when.clone()), (call, when)]).collect();
    let (allow, refuse) = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    SeccompFilter::new(rules, allow, refuse, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// No limits but one's own. A filter of the library ends programs of another kind of processor, which may run where the
/// network may be used: this one knows their call, too.
fn limits_filter() -> BpfProgram {
    let step = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32, 0, 0);
    let is = |k: u32, jt: u8, jf: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k, jt, jf);
    let end = |what: u32| step(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    // The lower half of the first argument: `pid_t` has 32 bits.
    let process = offset_of!(seccomp_data, args) + if cfg!(target_endian = "big") { 4 } else { 0 };
    let one = |(kind, call): &(u32, u32)| {
        let kind = [load(offset_of!(seccomp_data, arch)), is(*kind, 0, 5)];
        let call = [load(offset_of!(seccomp_data, nr)), is(*call, 0, 3)];
        [kind, call, [load(process), is(0, 1, 0)]].concat()
    };
    let refuse = || end(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
    let blocks = PRLIMIT.iter().flat_map(|call| one(call).into_iter().chain([refuse()]));
    blocks.chain([end(libc::SECCOMP_RET_ALLOW)]).collect()
}

impl From<BoundsError> for io::Error {
    fn from(error: BoundsError) -> Self {
        Self::other(error.to_string())
    }
}
