//! What the store, the ledger and the file index keep of their word when calls fail, the process is killed, or the
//! power goes: at every call of one scenario that uses all of them.
//!
//! `HEADWATER_TORTURE=N` multiplies the sizes of the samples. Every sample has a fixed seed.

mod agreement;
mod crash;
mod fault;
mod kill;
mod rot;
mod scenario;
#[path = "../seeded/mod.rs"]
mod seeded;
