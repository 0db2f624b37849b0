//! `Listener`: the kernel tells of the calls of a program, each of which waits until it is answered.
//!
//! It does not know what the calls mean. Invariants: a call is only ever let go on as it is; a listener that is dropped
//! lets all calls that wait fail (`ENOSYS`), so that nothing waits for ever.
//!
//! # Why there is `unsafe` here, and nowhere else in this crate
//!
//! A filter that asks for a listener (`SECCOMP_FILTER_FLAG_NEW_LISTENER`), and what is said to a listener, have no safe
//! door: `seccompiler` knows no notifications, `rustix` and `nix` have no `seccomp`, and what there is besides links to a
//! library in C. What is done, each with its proof beside it:
//!
//! - `seccomp(SECCOMP_GET_NOTIF_SIZES)` writes three `u16`, which `seccomp_notif_sizes` is;
//! - `seccomp(SECCOMP_SET_MODE_FILTER)` reads a `sock_fprog` and as many `sock_filter` as it counts, and returns a
//!   descriptor that nobody else has, which `from_raw_fd` takes;
//! - `ioctl(SECCOMP_IOCTL_NOTIF_RECV)` writes as many bytes as the kernel's own `seccomp_notif` has, which may grow:
//!   [`Listener::here`] refuses a kernel whose structure is larger than the buffer, which begins as zeros (`zeroed`), as the
//!   kernel wants it, and holds numbers alone;
//! - `ioctl(SECCOMP_IOCTL_NOTIF_SEND | ID_VALID)` reads what its type says, and a larger `seccomp_notif_resp` is refused
//!   like that, too;
//! - `ioctl(SECCOMP_IOCTL_NOTIF_SET_FLAGS)` is given a number, and reads nothing.
#![allow(unsafe_code)]

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use libc::{c_int, c_ulong, seccomp_data, seccomp_notif, seccomp_notif_resp, seccomp_notif_sizes, sock_filter};

/// The kind of processor whose calls are told; others' numbers mean something else.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(target_arch = "riscv64")]
const ARCHITECTURE: u32 = 0xc000_00f3;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")))]
const ARCHITECTURE: u32 = 0;

/// The caller and the answerer take turns on one processor (Linux 6.6), which spares waking another.
const SYNC_WAKE_UP: u64 = 1;

/// A call that waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    cookie: u64,
    /// The thread that makes it.
    pub task: i32,
    pub number: i64,
    pub arguments: [u64; 6],
}

/// Where the kernel writes, with room for a structure that has grown.
#[repr(C)]
struct Received {
    known: seccomp_notif,
    room: [u64; 32],
}

#[repr(C)]
struct Answer {
    known: seccomp_notif_resp,
    room: [u64; 32],
}

/// Hears of the calls of the thread that made it, and of what that has started since.
#[derive(Debug)]
pub(crate) struct Listener(OwnedFd);

impl Listener {
    /// Binds the calling thread, which must have given up to gain privileges: from now on it must be another thread that
    /// answers, or the next of these calls waits for ever. The filter begins with the steps of `before`, which may let a call
    /// go on that is not told.
    ///
    /// # Errors
    /// If the kernel cannot do it, or another listener hears of this thread already (`EBUSY`).
    pub fn here(before: Vec<sock_filter>, calls: impl Iterator<Item = i64>) -> io::Result<Self> {
        if ARCHITECTURE == 0 || !fits()? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut filter = filter(before, calls)?;
        let length = filter.len().try_into().map_err(io::Error::other)?;
        let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
        let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        // A call that was heard of waits for signals that kill alone: it does not fail for others (Linux 5.19).
        let descriptor = set_filter(listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &program).or_else(
            |error| match error.raw_os_error() {
                Some(libc::EINVAL) => set_filter(listener, &program),
                _ => Err(error),
            },
        )?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        let made = Self(unsafe { OwnedFd::from_raw_fd(descriptor) });
        // SAFETY: the argument is a number. Older kernels do not know it, and do without.
        unsafe { libc::ioctl(made.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP as c_ulong) };
        Ok(made)
    }

    /// Something else that can be waited for.
    #[cfg(test)]
    pub fn of(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// The next call that waits. It waits itself unless the listener was found readable.
    ///
    /// # Errors
    /// `ENOENT` if the call has been given up, as when its process was killed; `EINTR` if a signal came.
    pub fn receive(&self) -> io::Result<Waiting> {
        // SAFETY: both structures are plain numbers; the kernel wants them to be zero.
        let mut received: Received = unsafe { std::mem::zeroed() };
        let to = ptr::from_mut(&mut received);
        // SAFETY: the kernel writes no more than `Received` has room for, as `here` has asked.
        result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, to) })?;
        let seccomp_notif { id, pid, data, .. } = received.known;
        Ok(Waiting { cookie: id, task: pid.cast_signed(), number: data.nr.into(), arguments: data.args })
    }

    /// Whether a call still waits: if it does not, its number may be another's, and what was read with it is not its own.
    pub fn waits(&self, call: &Waiting) -> bool {
        let cookie = ptr::from_ref(&call.cookie);
        // SAFETY: the kernel reads eight bytes.
        result(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, cookie) }).is_ok()
    }

    /// Lets a call go on. One that has been given up needs no answer.
    pub fn let_go(&self, call: &Waiting) {
        let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
        let known = seccomp_notif_resp { id: call.cookie, val: 0, error: 0, flags };
        let answer = Answer { known, room: [0; 32] };
        // SAFETY: the kernel reads no more than `Answer` has, as `here` has asked.
        unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, ptr::from_ref(&answer)) };
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether there is room for the structures of this kernel.
fn fits() -> io::Result<bool> {
    let mut sizes = seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    let to = ptr::from_mut(&mut sizes);
    // SAFETY: the kernel writes a `seccomp_notif_sizes`.
    result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, to) } as c_int)?;
    let data = usize::from(sizes.seccomp_data) == size_of::<seccomp_data>();
    let notif = usize::from(sizes.seccomp_notif) <= size_of::<Received>();
    Ok(data && notif && usize::from(sizes.seccomp_notif_resp) <= size_of::<Answer>())
}

fn set_filter(flags: c_ulong, program: &libc::sock_fprog) -> io::Result<c_int> {
    let program = ptr::from_ref(program);
    // SAFETY: `program` counts the instructions of a vector that its caller holds; the kernel copies them.
    result(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, program) } as c_int)
}

fn result(returned: c_int) -> io::Result<c_int> {
    if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

pub(crate) fn step(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// Tells of these calls, and lets all others go on, and all those of another kind of processor.
fn filter(before: Vec<sock_filter>, calls: impl Iterator<Item = i64>) -> io::Result<Vec<sock_filter>> {
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32, 0, 0);
    let end = |what: u32| step(libc::BPF_RET | libc::BPF_K, what, 0, 0);
    let equals = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let calls: Vec<u32> = calls.map(u32::try_from).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let allow = u8::try_from(calls.len() + 1).map_err(io::Error::other)?;
    let mut steps = before;
    steps.extend([load(offset_of!(seccomp_data, arch)), step(equals, ARCHITECTURE, 0, allow)]);
    steps.push(load(offset_of!(seccomp_data, nr)));
    // A call that is found skips those behind it, and the step that allows.
    let left = |at: usize| (calls.len() - at) as u8;
    steps.extend(calls.iter().enumerate().map(|(at, call)| step(equals, *call, left(at), 0)));
    steps.extend([end(libc::SECCOMP_RET_ALLOW), end(libc::SECCOMP_RET_USER_NOTIF)]);
    Ok(steps)
}
