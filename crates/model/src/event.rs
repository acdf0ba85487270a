//! Events: what happened in the cluster, with the evidence, for operators and for scripts.
//!
//! ```text
//!   node:   Noted ──batch──▶ master ──command──▶ Event(seq), the newest some thousands at every master
//!   master: what it decides is recorded with the decision itself, so no failure can come between
//! ```

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use serde::{Deserialize, Serialize};

use crate::{Epoch, NodeId, TabletId, Timestamp};

/// Who noticed or decided it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Source {
    /// The master that led.
    Master,
    /// A node.
    Node(NodeId),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Master => f.write_str("master"),
            Source::Node(node) => node.fmt(f),
        }
    }
}

/// Something that happened, as the masters keep it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one from event to event, for the life of the cluster.
    pub seq: u64,
    /// The date at its source.
    pub at: Timestamp,
    /// Who says so.
    pub source: Source,
    /// What kind of thing. Stable: scripts and alerts may match it.
    pub name: String,
    /// Of which table.
    pub table: Option<String>,
    /// Of which tablet.
    pub tablet: Option<TabletId>,
    /// Which node it is about, if another than its source.
    pub node: Option<NodeId>,
    /// The group's epochs before and after, of a decision.
    pub epochs: Option<(Epoch, Epoch)>,
    /// What happened and why, in words.
    pub what: String,
    /// How often, if the same happened several times within a short while.
    pub count: u32,
}

/// Something that happened, on its way to the masters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The date at its source.
    pub at: Timestamp,
    /// What kind of thing.
    pub name: String,
    /// Of which tablet.
    pub tablet: Option<TabletId>,
    /// In words.
    pub what: String,
    /// How often.
    pub count: u32,
}

impl Noted {
    /// Words are kept up to so many bytes.
    pub const LONGEST: usize = 500;

    /// With words and a name that are not too long.
    pub fn shortened(mut self) -> Noted {
        shorten(&mut self.name, 64);
        shorten(&mut self.what, Noted::LONGEST);
        self
    }
}

fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
}

/// Which events somebody wants to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventQuery {
    /// Those after this number, the oldest first; `None` asks for the newest `limit`.
    pub since: Option<u64>,
    /// At most so many.
    pub limit: u32,
    /// Only of this tablet.
    pub tablet: Option<TabletId>,
    /// Only by or about this node.
    pub node: Option<NodeId>,
    /// Only of this name.
    pub name: Option<String>,
    /// If there are none yet, how long to wait for one.
    pub wait_ms: u32,
}

impl EventQuery {
    /// Is the event asked for?
    pub fn wants(&self, event: &Event) -> bool {
        let by_or_about = |node| event.source == Source::Node(node) || event.node == Some(node);
        self.tablet.is_none_or(|tablet| event.tablet == Some(tablet))
            && self.node.is_none_or(by_or_about)
            && self.name.as_ref().is_none_or(|name| event.name == *name)
    }
}

/// Some events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventPage {
    /// In the order of their numbers.
    pub events: Vec<Event>,
    /// What to give as `since` to go on behind this page.
    pub next: u64,
    /// The oldest number that is kept; what was before is gone.
    pub oldest: u64,
}
