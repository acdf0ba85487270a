//! How long is long.

use core::time::Duration;
use model::Instant;

use crate::Planted;

/// Periods of the protocol. What matters is their order: `beacon < lease < grace < session < replace_after`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Timing {
    /// A primary asks its members for a new lease this often.
    pub beacon: Duration,
    /// A primary may serve reads for this long after it *sent* the last beacon that a member acknowledged.
    pub lease: Duration,
    /// A secondary gives its primary up after hearing nothing for this long since it *received* the last beacon.
    pub grace: Duration,
    /// What was sent or proposed without an answer is sent again after this.
    pub retry: Duration,
    /// A member that takes longer than this to have an entry on disk is slow.
    pub slow: Duration,
    /// A member that has been slow for this long is removed; a primary that has been hands over.
    pub patience: Duration,
    /// A node reports to the master this often.
    pub heartbeat: Duration,
    /// The master takes a node for dead after hearing nothing for this long.
    pub session: Duration,
    /// A missing replica is made anew on another node after this long.
    pub replace_after: Duration,
    /// Bytes of committed entries that stay in memory for those who are a little behind.
    pub keep_bytes: usize,
    /// Not a period, but told to every core in the same way: which fault it has, of those to check the checkers.
    pub planted: Planted,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            beacon: Duration::from_millis(125),
            lease: Duration::from_millis(500),
            grace: Duration::from_millis(700),
            retry: Duration::from_millis(200),
            slow: Duration::from_millis(500),
            patience: Duration::from_millis(2500),
            heartbeat: Duration::from_millis(500),
            session: Duration::from_secs(3),
            replace_after: Duration::from_secs(300),
            keep_bytes: 8 << 20,
            planted: Planted::default(),
        }
    }
}

impl Timing {
    /// How far clocks may drift apart, in percent of the time that passes.
    pub const DRIFT_PERCENT: u32 = 1;

    /// Whether a secondary can only give its primary up after the primary's lease has ended, whatever the clocks do:
    /// `grace * (1 - drift) >= lease * (1 + drift)` (PacificA, 2.3).
    pub fn is_safe(&self) -> bool {
        self.grace * (100 - Timing::DRIFT_PERCENT) >= self.lease * (100 + Timing::DRIFT_PERCENT)
    }
}

/// The earlier of two deadlines.
pub(crate) fn earliest(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_safe() {
        assert!(Timing::default().is_safe());
    }
}
