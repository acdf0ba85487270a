//! What operators watch of the group of masters.

use super::members::list;
use super::{Consensus, leads};
use metrics::gauge;
use openraft::async_runtime::WatchReceiver;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

/// Gauges are brought up to date this often.
const PAUSE: Duration = Duration::from_secs(1);

impl Consensus {
    /// Keeps the gauges true for as long as the process lives.
    pub async fn measure(self) {
        let (leading, term) = (gauge!("diptych_master_is_leader"), gauge!("diptych_master_term"));
        let applied = gauge!("diptych_master_applied_index");
        let mut peers = BTreeMap::new();
        loop {
            let metrics = self.raft.metrics().borrow_watched().clone();
            let leads = leads(&metrics).is_some();
            leading.set(f64::from(u8::from(leads)));
            term.set(metrics.current_term as f64);
            applied.set(metrics.last_applied.map_or(0, |last| last.index) as f64);
            // Only a leader knows; what it knew before is no number any more.
            peers.values_mut().for_each(|lag| *lag = f64::NAN);
            if leads {
                let others = list(&metrics).into_iter().filter(|master| !master.leads);
                peers.extend(others.map(|master| (master.id, master.behind.map_or(f64::NAN, |lag| lag as f64))));
            }
            peers.iter().for_each(|(id, lag)| gauge!("diptych_master_peer_lag", "peer" => format!("m{id}")).set(*lag));
            sleep(PAUSE).await;
        }
    }
}
