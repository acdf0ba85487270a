//! Numbers that mean something: each is a type, small, `Copy`, ordered and printed the way people write it.

use core::fmt;
use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// A storage node. Printed as people name it: `n1`.
    NodeId(u32), "n"
}
id! {
    /// A table, unique for the life of the cluster: a dropped name that is created again gets a new id.
    TableId(u32), "table-"
}
id! {
    /// A tablet, and with it the replica group that keeps it.
    TabletId(u64), "t"
}
id! {
    /// A column family within its table. Never reused, so a family that is dropped and created again is empty.
    FamilyId(u32), "f"
}
id! {
    /// A locality group within its table. Never reused.
    LocalityId(u32), "l"
}
id! {
    /// One start of a node. A node that starts again has a higher one, so late messages of its former life show.
    Incarnation(u64), "i"
}
id! {
    /// Whoever sends requests and may repeat them; drawn at random by the client library.
    ClientId(u64), "c"
}
id! {
    /// Number of a replica group's configuration. The master adds one with every change of members, and a replica
    /// obeys only messages of its own epoch (PacificA, 2.2).
    Epoch(u32), "e"
}
id! {
    /// Position of a record in one replica group's log. Dense: the successor of `n` is `n + 1`.
    /// `Lsn::ZERO` stands before the first record and never names one.
    Lsn(u64), ""
}

impl NodeId {
    /// Reads `n7` or `7`.
    pub fn parse(text: &str) -> Option<NodeId> {
        text.strip_prefix('n').unwrap_or(text).parse().ok().map(NodeId)
    }
}

impl TabletId {
    /// Reads `t7` or `7`.
    pub fn parse(text: &str) -> Option<TabletId> {
        text.strip_prefix('t').unwrap_or(text).parse().ok().map(TabletId)
    }
}

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Epoch {
        Epoch(self.0.checked_add(1).expect("four thousand million reconfigurations do not happen"))
    }
}

impl Lsn {
    /// Before the first record.
    pub const ZERO: Lsn = Lsn(0);

    /// The position after this one.
    pub fn next(self) -> Lsn {
        Lsn(self.0 + 1)
    }

    /// The position before this one; `ZERO` stays where it is.
    pub fn prev(self) -> Lsn {
        Lsn(self.0.saturating_sub(1))
    }
}

/// Names one cluster for ever, so that a disk of another cluster is recognised. Printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Names one mutating request of one client, however often it is sent (RIFL, 3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub client: ClientId,
    /// Counts the client's requests from 1.
    pub sequence: u64,
    /// The client has had the answers to all requests before this one, so their completion records may go.
    pub first_incomplete: u64,
}
