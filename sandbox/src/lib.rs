//! Runs programs so that nothing of them outlives them, and so that they reach only what they were given.
//!
//! | file | |
//! |---|---|
//! | [`order`] | what is to run and within which bounds, and what became of it: the messages |
//! | [`supervisors`] | the processes that run programs, as their parent sees them |
//! | [`supervisor`] | what such a process does |
//! | [`bounds`] | files and network that a program may use, enforced by the kernel |
//! | [`descendants`] | ending all that a program has started |
//! | [`tracing`] | which files a program uses |
//! | `company` | whether it may have met somebody else |
//! | `lookups` | which files it looked for in vain |
//! | `calls` | the calls that name a file |
//! | `notifier` | being told of calls by the kernel; all the `unsafe` there is |
//! | [`search`] | where a program is that is named without a slash |
//! | [`capture`] | what it prints, bounded |
//!
//! It does not know pipelines, stages or the store.
//!
//! # Why a supervisor
//!
//! What a program starts can leave its process group and its session, ignore `SIGTERM` and outlive its parent. Yet the
//! kernel hands an orphan to the nearest ancestor that asked for orphans (`PR_SET_CHILD_SUBREAPER`). A supervisor is such
//! an ancestor that runs one program at a time: whatever child it has when the program has ended is of that program, and
//! it goes on killing until it has none. It leads a session of its own, so that nothing typed at a terminal reaches it;
//! it holds one end of a socket whose other end its parent holds, so that the end of the parent, however it came, is an
//! end of file to it: it kills all and goes. The parent asks for orphans too: those of a supervisor that was killed.
//!
//! What else there is, and why not:
//!
//! - *`PR_SET_PDEATHSIG`* reaches the child alone, not what the child starts, and must be set between fork and exec, which
//!   takes `unsafe`.
//! - *PID namespaces* end all when their first process dies, also if parent and supervisor are killed in one instant,
//!   which this does not. Without privileges they need user namespaces, which many systems forbid; a program in one finds
//!   a `/proc` that does not fit its own process numbers, unless it is mounted anew, which containers forbid.
//! - *`cgroup.kill`* needs a cgroup that one may write: seldom.
//!
//! Supervisors are the parent's own program, started anew with another first argument, and serve many programs one after
//! the other: starting a large program takes much longer than starting a small one. Starting takes no `unsafe`: the kernel
//! keeps bounds by thread, so that a thread binds itself and then starts the program, which inherits them.
#![deny(unsafe_code)]

pub mod bounds;
mod calls;
pub mod capture;
mod company;
pub mod descendants;
mod lookups;
mod notifier;
pub mod order;
pub mod search;
pub mod supervisor;
pub mod supervisors;
pub mod tracing;

pub use order::{Bounds, Ending, Missed, Order, Report, Twin, Why};
pub use supervisors::{Level, Supervisors, SupervisorsError};
