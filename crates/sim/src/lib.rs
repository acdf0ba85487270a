//! The house in virtual time: the real cores, driven by a host that has no clock, no network and no disk of its own.
//!
//! ```text
//!   seed ──▶ agenda (what happens when) ──▶ cores ──effects──▶ agenda
//!                                            └──────▶ checkers: the first violated invariant ends the history
//! ```
//!
//! One seed is one history, on every machine. [`group`] drives the replicas of one tablet alone, fast and cruel;
//! [`house`] drives whole nodes and the master; [`linear`] judges what clients saw.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod agenda;
pub mod group;
pub mod house;
pub mod linear;
