//! Merges that are worth it only when nothing else is to do: what they gain is room, and fewer files for reads.
//!
//! A tablet of which nothing was flushed or merged for [`QUIET`] is asked for such a merge, and again after it, until it has
//! none left. One at a time in a node, since nobody waits for them.

use model::{Instant, TabletId};
use std::collections::BTreeMap;
use std::time::Duration;
use store::Urgency;

use crate::api::Effect;
use crate::machine::{Node, Working};

/// So long nothing was flushed or merged.
const QUIET: Duration = Duration::from_secs(10);
/// If another merge is under way, it is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// Tablets that may have something left, and since when nothing happened to their files.
#[derive(Debug, Default)]
pub(crate) struct Tidying {
    quiet_since: BTreeMap<TabletId, Instant>,
    /// Not before this.
    due: Instant,
}

impl Tidying {
    /// The tablet's files have changed.
    pub fn stir(&mut self, now: Instant, tablet: TabletId) {
        self.quiet_since.insert(tablet, now);
    }

    /// When to look next.
    pub fn deadline(&self) -> Option<Instant> {
        self.quiet_since.values().min().map(|since| self.due.max(*since + QUIET))
    }
}

impl Node {
    pub(crate) fn tidy_if_due(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.tidying.deadline().is_none_or(|due| now < due) {
            return;
        }
        self.tidying.due = now + AGAIN;
        if self.jobs.values().any(|working| matches!(working, Working::Merge { .. })) {
            return;
        }
        let quiet = |since: &Instant| now >= *since + QUIET;
        let due: Vec<TabletId> =
            self.tidying.quiet_since.iter().filter(|(_, since)| quiet(since)).map(|(&tablet, _)| tablet).collect();
        for tablet in due {
            if self.is_busy(tablet) || self.adopting.contains(&tablet) {
                continue;
            }
            let hosted = self.hosted.get_mut(&tablet).filter(|hosted| !hosted.ending.has_ended());
            let job = hosted.and_then(|hosted| hosted.rows.choose(&hosted.schema, Urgency::Idle));
            self.tidying.quiet_since.remove(&tablet);
            if let Some(job) = job {
                self.run(job, Working::Merge { tablet }, out);
                return;
            }
        }
    }
}
