//! The cores: what machines agree on, as state machines without a world.
//!
//! ```text
//!   host ──Input──▶ Core::step(now) ──Effect──▶ host
//!                     │
//!                  deadline(): when to step again if nothing happens
//! ```
//!
//! A core never reads a clock, draws a random number, logs, waits or uses a hash map; the crate is `no_std`, so it
//! could not if it wished. The same inputs give the same effects, in the simulator and in production.

#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

extern crate alloc;

mod tail;

pub mod message;
pub mod mutant;
pub mod notes;
pub mod replica;
pub mod timing;
pub mod why;

pub use message::{Entry, FileInfo, FromMaster, GroupMessage, Line, NodeMessage, Stamp, ToMaster};
pub use mutant::{Mutant, Planted};
pub use replica::Replica;
pub use timing::Timing;
pub use why::Why;

use alloc::vec::Vec;
use model::Instant;

/// A state machine that both hosts, the real one and the simulated one, can drive.
pub trait Core {
    /// What can happen to it.
    type Input;
    /// What it wants to happen.
    type Effect;

    /// Takes one input and appends what must follow to `out`, in the order in which it must happen.
    fn step(&mut self, now: Instant, input: Self::Input, out: &mut Vec<Self::Effect>);

    /// When the core wants to hear the time again, if nothing happens before.
    fn deadline(&self) -> Option<Instant>;
}
