//! A storage node as one machine: it routes inputs to its tablets and gathers what they want done.
//!
//! ```text
//!   requests ──▶ serve ──▶ hosted tablet ── replica ──▶ Log, Send
//!   peers    ──▶ beacons        │             │ commit
//!   master   ──▶ assign         │           apply ──▶ engine (memtable, tables) ──▶ Reply
//!   disk     ──▶ durable        └─ catch_up: brings learners up to date
//! ```
//!
//! Like every core it takes the time and one input and gives effects; it starts no thread, opens no socket and waits
//! for nothing. Only [`open`] touches the disk. The same machine runs in the server and in the simulator.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
pub mod completions;
pub mod fsck;
pub mod read;

mod assign;
mod beacons;
mod catch_up;
mod changes;
mod checkpoints;
mod confine;
mod deadlines;
mod digest;
mod events;
mod eventual;
mod garbage;
mod hosted;
mod identity;
mod lanes;
mod load;
mod machine;
mod merges;
mod pressure;
mod quarantine;
mod recovery;
mod report;
mod scrub;
mod serve;
mod splits;
mod stage;
mod standing;
mod tidy;
mod upkeep;

pub use api::{Effect, Event, Input};
pub use machine::{FlushOptions, Node, Options, Upkeep};
pub use pressure::Stalls;
pub use quarantine::Tally;
pub use recovery::{Hands, open, open_with};
pub use stage::Stage;

#[cfg(test)]
mod tests;
