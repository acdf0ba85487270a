//! Where the masters are, and which of them leads, as this process has heard.
//!
//! It begins with the addresses that the process was given. The leader says who belongs to the group, and from then on
//! only those are asked: a master that was removed is left alone, one that was added is found without a restart.
//! Nothing of it is kept over a restart.

use std::collections::VecDeque;
use std::sync::Arc;

use model::request::MasterStatus;
use parking_lot::Mutex;
use tonic::metadata::MetadataMap;

/// In the metadata of answers of a master that does not lead: where the one that does is.
const LEADER: &str = "diptych-leader";

/// The masters. Clones share what they know.
#[derive(Clone, Debug)]
pub struct Masters(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    /// `host:port` each.
    addresses: Vec<String>,
    leader: Option<String>,
}

impl Masters {
    /// Those that the process was told of.
    pub fn new(addresses: Vec<String>) -> Masters {
        Masters(Arc::new(Mutex::new(Known { addresses, leader: None })))
    }

    /// The leader has said who they are.
    pub fn learn(&self, masters: &[MasterStatus]) {
        if masters.is_empty() {
            return;
        }
        self.are_at(masters.iter().map(|master| master.address.clone()).collect());
        self.0.lock().leader = masters.iter().find(|master| master.leads).map(|master| master.address.clone());
    }

    /// The same from a session, whose master is the leader.
    pub fn are_at(&self, addresses: Vec<String>) {
        if !addresses.is_empty() {
            self.0.lock().addresses = addresses;
        }
    }

    /// That one leads.
    pub fn led_by(&self, address: &str) {
        self.0.lock().leader = Some(String::from(address));
    }

    /// That one does not lead, or does not answer.
    pub fn not_led_by(&self, address: &str) {
        let mut known = self.0.lock();
        known.leader.take_if(|leader| leader == address);
    }

    /// Whom to ask: the leader if one is known, and else each in turn.
    pub fn pick(&self, turn: usize) -> Option<String> {
        let known = self.0.lock();
        let all = known.addresses.len().max(1);
        known.leader.clone().or_else(|| known.addresses.get(turn % all).cloned())
    }

    /// All, the leader first.
    pub fn all(&self) -> VecDeque<String> {
        let known = self.0.lock();
        let others = known.addresses.iter().filter(|address| Some(*address) != known.leader.as_ref());
        known.leader.iter().chain(others).cloned().collect()
    }
}

/// Says in an answer where the leader is.
pub fn hint_at(leader: &str, metadata: &mut MetadataMap) {
    if let Ok(leader) = leader.parse() {
        metadata.insert(LEADER, leader);
    }
}

/// What an answer says of the leader.
pub fn hint_in(metadata: &MetadataMap) -> Option<String> {
    Some(String::from(metadata.get(LEADER)?.to_str().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(id: u32, leads: bool) -> MasterStatus {
        let address = format!("m{id}:1");
        MasterStatus { id, address, leads, learns: false, heard_ms_ago: None, behind: None }
    }

    /// The leader is asked first while it is believed to be one; otherwise all have their turn.
    #[test]
    fn the_leader_is_asked_first() {
        let masters = Masters::new(vec![String::from("m1:1"), String::from("m2:1")]);
        assert_eq!((masters.pick(0).as_deref(), masters.pick(3).as_deref()), (Some("m1:1"), Some("m2:1")));
        masters.led_by("m2:1");
        assert_eq!(masters.pick(0).as_deref(), Some("m2:1"));
        assert_eq!(masters.all(), ["m2:1", "m1:1"]);
        masters.not_led_by("m1:1");
        assert_eq!(masters.pick(0).as_deref(), Some("m2:1"));
        masters.not_led_by("m2:1");
        assert_eq!(masters.pick(0).as_deref(), Some("m1:1"));
        assert_eq!(Masters::new(Vec::new()).pick(7), None);
    }

    /// Who belongs to the group says the leader; an answer without anybody says nothing.
    #[test]
    fn the_group_takes_the_place_of_what_was_given() {
        let masters = Masters::new(vec![String::from("m1:1")]);
        masters.learn(&[master(2, false), master(4, true)]);
        masters.learn(&[]);
        assert_eq!(masters.all(), ["m4:1", "m2:1"]);
    }
}
