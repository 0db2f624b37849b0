//! `Company`: whether a program may have met somebody who is not of it, and who may still work for it when it has ended.
//!
//! The kernel refuses it the network (see [`crate::bounds`]). What is left is a socket that is a file, as that of Docker: the
//! kernel tells of each call that makes one (see [`crate::notifier`]), it is noted, and goes on. It does not know what
//! becomes of the socket. Invariants: nothing is changed in what a program does; one that is said to be alone had no socket
//! by which others can be reached, for no other way leads to one: the filter of bounds refuses all families but `AF_UNIX`
//! with an error, which comes before being told, and with it `io_uring` and calls of other kinds of processors; nothing open
//! is inherited but the three streams. A connected pair of local sockets leads nowhere else, unless it is of datagrams, which
//! can be sent, or connected, to any other.
//!
//! Not seen: files in shared memory, and messages and memory of System V, by which a program could ask somebody who looks
//! there for it.

use std::mem::offset_of;

use libc::{seccomp_data, sock_filter};
use rustix::event::PollFlags;

use crate::notifier::{Listener, step};
use crate::order::Order;

/// Bit of the number of a call of the x32 kind, whose calls are told as those of x86-64.
const X32: i64 = 0x4000_0000;
/// What is left of a type of sockets without its flags.
const TYPE: u32 = 0xf;

pub(crate) struct Company {
    /// Kept until nothing of the program is left: without it, each of these calls fails (`ENOSYS`).
    listener: Option<Listener>,
    pub alone: bool,
}

impl Company {
    /// Binds the calling thread, in which the bounds of the order are in force, and what it starts from now on. Of a program
    /// that has the network, or no bounds, or whose calls are told to another, and where the kernel cannot do it, nothing is
    /// heard.
    pub fn of(order: &Order) -> Self {
        let apart = order.twin.is_none() && order.bounds.as_ref().is_some_and(|bounds| !bounds.network);
        let calls = || [libc::SYS_socket, libc::SYS_socketpair].into_iter().flat_map(|call| [call, call | X32]);
        let listener = apart.then(|| Listener::here(closed_pairs(), calls()).ok()).flatten();
        Self { alone: listener.is_some(), listener }
    }

    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Deals with what was found of the listener.
    pub fn hear(&mut self, found: PollFlags) {
        let Some(listener) = &self.listener else { return };
        if found.contains(PollFlags::IN) {
            match listener.receive() {
                Ok(call) => {
                    self.alone = false;
                    listener.let_go(&call);
                }
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => {}
                Err(_) => (self.listener, self.alone) = (None, false),
            }
        } else if !found.is_empty() {
            // All who could be heard have ended.
            self.listener = None;
        }
    }
}

/// Lets pairs go on that lead nowhere else. They cannot be told: starting a program makes one, and waits for it.
fn closed_pairs() -> Vec<sock_filter> {
    let load = |at: usize| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at as u32, 0, 0);
    let and = |k: u32| step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, k, 0, 0);
    let is = |k: i64, jt: u8, jf: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k as u32, jt, jf);
    // The lower half of an argument: it is an `int`.
    let half = if cfg!(target_endian = "big") { 4 } else { 0 };
    let argument = |number: usize| load(offset_of!(seccomp_data, args) + number * 8 + half);
    let call = [load(offset_of!(seccomp_data, nr)), and(!X32 as u32), is(libc::SYS_socketpair, 0, 7)];
    let family = [argument(0), is(libc::AF_UNIX.into(), 0, 5)];
    let kind = [argument(1), and(TYPE), is(libc::SOCK_STREAM.into(), 1, 0), is(libc::SOCK_SEQPACKET.into(), 0, 1)];
    let end = step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0);
    call.into_iter().chain(family).chain(kind).chain([end]).collect()
}
