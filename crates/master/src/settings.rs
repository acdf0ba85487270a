//! What a table promises beside its rows, and tables that nobody sees any more but that can be brought back.

use model::settings::CHANGES;
use model::{
    Family, LocalityChange, Refusal, Retention, Schema, SettingsChange, StorageChange, TableId, Timestamp, limits,
};
use std::collections::BTreeSet;

use crate::localities;
use crate::state::{Changed, State};

/// Says what is wrong with the wish, whatever the table is like.
pub(crate) fn check(change: &SettingsChange) -> Result<(), Refusal> {
    if let Some(kept) = change.changes.filter(|kept| !kept.is_zero() && *kept > limits::CHANGES_KEPT) {
        let (most, kept) = (limits::CHANGES_KEPT.as_secs(), kept.as_secs());
        return Err(Refusal::Invalid(format!("changes are kept for at most {most} s, not for {kept} s")));
    }
    let mut seen = BTreeSet::new();
    match change.aggregates.iter().find(|(family, _)| !seen.insert(family)) {
        Some((family, _)) => Err(Refusal::Invalid(format!("family {family:?} is given two aggregates"))),
        None => Ok(()),
    }
}

/// Changes the schema, or says why that cannot be; then it is left half changed. Families are new if their ids are not
/// below `first_new`.
pub(crate) fn change(schema: &mut Schema, change: SettingsChange, first_new: u32) -> Result<(), Refusal> {
    let SettingsChange { granularity, protected, changes, aggregates } = change;
    schema.settings.granularity = granularity.unwrap_or(schema.settings.granularity);
    schema.settings.protected = protected.unwrap_or(schema.settings.protected);
    for (name, aggregate) in aggregates {
        let have = schema.family_names();
        match schema.families.iter_mut().find(|family| family.name == name) {
            None => return Err(Refusal::NoSuchFamily { family: name, have }),
            Some(family) if family.id.0 >= first_new => family.aggregate = Some(aggregate),
            Some(family) if family.aggregate == Some(aggregate) => {}
            Some(_) => {
                let what = format!("family {name:?} is there, and what its cells add up cannot be changed any more");
                return Err(Refusal::Invalid(what));
            }
        }
    }
    match changes {
        None => Ok(()),
        Some(kept) if kept.is_zero() => {
            schema.settings.changes = None;
            schema.storage.localities.retain(|locality| locality.name != CHANGES);
            Ok(())
        }
        Some(kept) => keep_changes(schema, Retention::Age(kept)),
    }
}

/// From now on changes are kept in a family that nobody names, and in files that no other read opens.
fn keep_changes(schema: &mut Schema, retention: Retention) -> Result<(), Refusal> {
    if let Some(family) = &mut schema.settings.changes {
        family.loosened |= family.retention != retention;
        family.retention = retention;
        return Ok(());
    }
    let wish = LocalityChange { name: CHANGES.into(), ..LocalityChange::default() };
    localities::change(schema, StorageChange { set: vec![wish], ..StorageChange::default() })?;
    let locality = schema.storage.locality(CHANGES).map(|locality| locality.id).unwrap_or_default();
    let (id, name) = (schema.next_family, CHANGES.into());
    schema.next_family.0 += 1;
    schema.settings.changes = Some(Family { id, name, retention, loosened: false, locality, aggregate: None });
    Ok(())
}

/// Neither the table nor a family of it may go while it is protected.
pub(crate) fn check_droppable(schema: &Schema) -> Result<(), Refusal> {
    match schema.settings.protected {
        true => Err(Refusal::Protected(schema.name.clone())),
        false => Ok(()),
    }
}

impl State {
    /// Tables that can be brought back, the last one first.
    pub fn hidden(&self) -> Vec<&Schema> {
        let mut hidden: Vec<&Schema> =
            self.tables.values().filter(|schema| schema.settings.dropped.is_some()).collect();
        hidden.sort_by_key(|schema| std::cmp::Reverse((schema.settings.dropped, schema.table)));
        hidden
    }

    /// Is there anything to [purge](crate::Command::Purge) at that date?
    pub(crate) fn has_stale(&self, date: Timestamp) -> bool {
        self.tables.values().any(|schema| schema.settings.dropped.is_some_and(|until| until <= date))
    }

    pub(crate) fn hide_table(&mut self, name: &str, until: Timestamp) -> Result<Changed, Refusal> {
        let mut schema = self.table(name).cloned().ok_or_else(|| Refusal::NoSuchTable(name.to_owned()))?;
        check_droppable(&schema)?;
        schema.settings.dropped = Some(until);
        Ok(self.put_schema(schema))
    }

    pub(crate) fn restore_table(&mut self, name: &str) -> Result<Changed, Refusal> {
        if self.table(name).is_some() {
            return Err(Refusal::Exists(format!("table {name:?}")));
        }
        let hidden = self.hidden().into_iter().find(|schema| schema.name == name).cloned();
        let mut schema = hidden.ok_or_else(|| Refusal::NoSuchTable(name.to_owned()))?;
        schema.settings.dropped = None;
        Ok(self.put_schema(schema))
    }

    pub(crate) fn purge(&mut self, date: Timestamp) -> Changed {
        let stale = |schema: &&Schema| schema.settings.dropped.is_some_and(|until| until <= date);
        let tables: Vec<TableId> = self.tables.values().filter(stale).map(|schema| schema.table).collect();
        Changed::Purged(tables.into_iter().flat_map(|table| self.remove_table(table)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Command;
    use model::{Aggregate, Granularity, NodeId, Partition};
    use std::time::Duration;

    fn state() -> State {
        let mut state = State::default();
        let create = Command::CreateTable {
            name: "t".into(),
            families: vec![("f".into(), Retention::Keep)],
            partition: Partition::Hash { tablets: 2 },
            replicas: 1,
            min_replicas: 1,
            placement: vec![vec![NodeId(1)], vec![NodeId(1)]],
            storage: StorageChange::default(),
            settings: SettingsChange::default(),
        };
        state.apply(1, create).unwrap();
        state
    }

    fn alter(state: &mut State, set: &[&str], drop: &[&str], settings: SettingsChange) -> Result<Schema, Refusal> {
        let set = set.iter().map(|name| (String::from(*name), Retention::Keep)).collect();
        let drop = drop.iter().map(|name| String::from(*name)).collect();
        let command = Command::AlterTable { table: "t".into(), set, drop, storage: StorageChange::default(), settings };
        match state.apply(2, command)? {
            Changed::Table(schema, _) => Ok(schema),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn changes_are_kept_in_a_family_of_their_own() {
        let mut state = state();
        let kept = |seconds| SettingsChange {
            changes: Some(Duration::from_secs(seconds)),
            granularity: Some(Granularity::Millis),
            ..SettingsChange::default()
        };
        let schema = alter(&mut state, &[], &[], kept(60)).unwrap();
        let family = schema.settings.changes.clone().unwrap();
        assert_eq!((schema.families.len(), schema.settings.changes_kept()), (1, Some(Duration::from_secs(60))));
        assert!(family.id > schema.families[0].id && schema.family(CHANGES).is_none());
        assert_eq!(schema.locality(schema.locality_of(family.id)).name, CHANGES);
        let longer = alter(&mut state, &["g"], &[], kept(90)).unwrap();
        let later = longer.settings.changes.clone().unwrap();
        assert_eq!((later.id, later.loosened), (family.id, true));
        assert!(longer.family("g").unwrap().id > family.id);
        let none = alter(&mut state, &[], &[], kept(0)).unwrap();
        assert_eq!((none.settings.changes.as_ref(), none.storage.localities.len()), (None, 1));
        let again = alter(&mut state, &[], &[], kept(60)).unwrap().settings.changes.unwrap();
        assert!(again.id > family.id, "what was kept before is not seen again");
        let much = SettingsChange { changes: Some(limits::CHANGES_KEPT * 2), ..SettingsChange::default() };
        assert!(check(&much).is_err());
    }

    #[test]
    fn what_cells_add_up_is_said_once() {
        let mut state = state();
        let with = |name: &str, aggregate| SettingsChange {
            aggregates: vec![(name.into(), aggregate)],
            ..SettingsChange::default()
        };
        let schema = alter(&mut state, &["sums"], &[], with("sums", Aggregate::Sum)).unwrap();
        assert_eq!(schema.family("sums").unwrap().aggregate, Some(Aggregate::Sum));
        assert!(alter(&mut state, &["sums"], &[], with("sums", Aggregate::Sum)).is_ok(), "the same again");
        for (name, aggregate) in [("sums", Aggregate::Max), ("f", Aggregate::Sum), ("other", Aggregate::Sum)] {
            assert!(alter(&mut state, &[], &[], with(name, aggregate)).is_err(), "{name} {aggregate:?}");
        }
    }

    #[test]
    fn a_protected_table_loses_nothing() {
        let mut state = state();
        let guard = |protected| SettingsChange { protected: Some(protected), ..SettingsChange::default() };
        alter(&mut state, &["g"], &[], guard(true)).unwrap();
        let refused = Err(Refusal::Protected("t".into()));
        assert_eq!(alter(&mut state, &[], &["g"], SettingsChange::default()), refused);
        assert_eq!(state.apply(3, Command::DropTable("t".into())).map(|_| ()), Err(Refusal::Protected("t".into())));
        let hide = Command::HideTable { table: "t".into(), until: Timestamp(9) };
        assert_eq!(state.apply(3, hide).map(|_| ()), Err(Refusal::Protected("t".into())));
        assert!(alter(&mut state, &["h"], &[], SettingsChange::default()).is_ok(), "more it may become");
        assert!(alter(&mut state, &[], &["g"], guard(false)).is_ok());
    }

    #[test]
    fn a_hidden_table_comes_back_or_goes() {
        let mut state = state();
        let hide = |until| Command::HideTable { table: "t".into(), until: Timestamp(until) };
        assert!(matches!(state.apply(2, hide(100)), Ok(Changed::Table(schema, tablets))
            if schema.version == 2 && tablets.len() == 2));
        assert!(state.table("t").is_none() && state.groups.len() == 2);
        assert!(!state.has_stale(Timestamp(99)) && state.has_stale(Timestamp(100)));
        assert!(state.apply(3, Command::RestoreTable("t".into())).is_ok());
        assert!(state.table("t").is_some() && state.hidden().is_empty());
        assert!(matches!(state.apply(4, Command::RestoreTable("t".into())), Err(Refusal::Exists(_))));
        state.apply(5, hide(100)).unwrap();
        assert_eq!(state.apply(6, Command::Purge(Timestamp(99))), Ok(Changed::Purged(vec![])));
        let purged = state.apply(7, Command::Purge(Timestamp(100))).unwrap();
        assert!(matches!(purged, Changed::Purged(gone) if gone.len() == 2) && state.groups.is_empty());
        assert!(matches!(state.apply(8, Command::RestoreTable("t".into())), Err(Refusal::NoSuchTable(_))));
    }
}
