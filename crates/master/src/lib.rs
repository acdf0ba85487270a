//! The master as one machine: it knows which nodes and tables there are and who keeps each tablet, and it is the only
//! one to change that (PacificA, 2.1: the configuration manager).
//!
//! ```text
//!   nodes, clients ──▶ Master ──Propose(command)──▶ consensus ──Committed──▶ State (the same at every master)
//!                        │                                                      │
//!                        └── what it has heard: who lives, who reports what     └──▶ Assignments to nodes
//! ```
//!
//! [`state::State`] changes only by committed commands, so it is derived from the log alone. What the master has merely
//! heard ([`machine::Master`]) is lost with it and heard again. It is on no data path: with the master away, reads and
//! writes go on, and only reconfiguration waits. It never runs consensus itself: that is its host's service.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
mod machine;
pub mod placement;
pub mod state;

pub mod events;

mod admin;
mod balance;
mod healing;
pub mod library;
mod localities;
mod mending;
mod merges;
mod moves;
mod operate;
mod settings;
mod splits;

pub use api::{Effect, Input};
pub use machine::{Master, Options};
pub use state::{Command, Error};
