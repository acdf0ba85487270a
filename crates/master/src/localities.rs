//! How a table's rows lie on disks: what may be asked for, and what becomes of it.
//!
//! ```text
//!   set groups ─▶ place families ─▶ drop groups     in this order, so that one command can empty a group and drop it
//! ```
//!
//! Nodes hear of it with their assignments, as of any other change of the schema; compaction brings what lies there
//! already into line.

use model::{LocalityChange, LocalityGroup, LocalityId, Refusal, Schema, Storage, StorageChange, limits};
use std::collections::BTreeSet;

/// Says what is wrong with the wish, whatever the table is like.
pub(crate) fn check(change: &StorageChange) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for locality in &change.set {
        limits::check_locality(locality).map_err(Refusal::Invalid)?;
        if !seen.insert(&locality.name) {
            return Err(Refusal::Invalid(format!("locality group {:?} is named twice", locality.name)));
        }
        if change.drop.contains(&locality.name) {
            let what = format!("locality group {:?} cannot be both set and dropped", locality.name);
            return Err(Refusal::Invalid(what));
        }
    }
    let mut seen = BTreeSet::new();
    match change.place.iter().find(|(family, _)| !seen.insert(family)) {
        Some((family, _)) => Err(Refusal::Invalid(format!("family {family:?} is put into a locality group twice"))),
        None => Ok(()),
    }
}

/// Changes the schema, or says why that cannot be; then it is left half changed.
pub(crate) fn change(schema: &mut Schema, change: StorageChange) -> Result<(), Refusal> {
    let StorageChange { compaction, set, place, drop } = change;
    schema.storage.compaction = compaction.unwrap_or(schema.storage.compaction);
    for wish in set {
        set_locality(&mut schema.storage, wish);
    }
    for (family, group) in place {
        let locality = schema.storage.locality(&group).ok_or_else(|| unknown(&schema.storage, &group))?.id;
        let have = schema.family_names();
        match schema.families.iter_mut().find(|known| known.name == family) {
            Some(known) => known.locality = locality,
            None => return Err(Refusal::NoSuchFamily { family, have }),
        }
    }
    for name in drop {
        drop_locality(schema, &name)?;
    }
    let count = schema.storage.localities.len();
    match count > limits::LOCALITIES {
        true => Err(Refusal::Invalid(format!("{count} locality groups; the limit is {}", limits::LOCALITIES))),
        false => Ok(()),
    }
}

fn set_locality(storage: &mut Storage, wish: LocalityChange) {
    let LocalityChange { name, in_memory, compression, block_bytes, filter } = wish;
    let at = storage.localities.iter().position(|locality| locality.name == name).unwrap_or_else(|| {
        let id = storage.next_locality;
        storage.next_locality.0 += 1;
        storage.localities.push(LocalityGroup { id, name, ..LocalityGroup::default() });
        storage.localities.len() - 1
    });
    let locality = &mut storage.localities[at];
    locality.in_memory = in_memory.unwrap_or(locality.in_memory);
    locality.compression = compression.unwrap_or(locality.compression);
    locality.block_bytes = block_bytes.unwrap_or(locality.block_bytes);
    locality.filter = filter.unwrap_or(locality.filter);
}

fn drop_locality(schema: &mut Schema, name: &str) -> Result<(), Refusal> {
    let id = schema.storage.locality(name).ok_or_else(|| unknown(&schema.storage, name))?.id;
    if id == LocalityId::default() {
        let what = format!("locality group {name:?} stays: families are in it unless they say otherwise");
        return Err(Refusal::Invalid(what));
    }
    let families: Vec<&str> =
        schema.all_families().filter(|family| family.locality == id).map(|family| family.name.as_str()).collect();
    if !families.is_empty() {
        return Err(Refusal::Invalid(format!(
            "locality group {name:?} has families: {}; put them into another group or drop them first",
            families.join(", ")
        )));
    }
    schema.storage.localities.retain(|locality| locality.id != id);
    Ok(())
}

fn unknown(storage: &Storage, name: &str) -> Refusal {
    let names: Vec<&str> = storage.localities.iter().map(|locality| locality.name.as_str()).collect();
    Refusal::Invalid(format!("no locality group {name:?}; the table has: {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{Changed, Command, State};
    use model::{Compaction, Compression, Filter, Partition, Retention};

    fn group(name: &str) -> LocalityChange {
        LocalityChange { name: name.into(), ..LocalityChange::default() }
    }

    fn place(family: &str, group: &str) -> (String, String) {
        (family.into(), group.into())
    }

    /// A table with the families `a` and `b`.
    fn with_table(storage: StorageChange) -> (State, Result<Changed, Refusal>) {
        let mut state = State::default();
        let create = Command::CreateTable {
            name: "t".into(),
            families: vec![("a".into(), Retention::Keep), ("b".into(), Retention::Keep)],
            partition: Partition::Hash { tablets: 1 },
            replicas: 1,
            min_replicas: 1,
            placement: vec![vec![model::NodeId(1)]],
            storage,
            settings: model::SettingsChange::default(),
        };
        let made = state.apply(1, create);
        (state, made)
    }

    fn alter(state: &mut State, storage: StorageChange) -> Result<Schema, String> {
        let command = Command::AlterTable {
            table: "t".into(),
            set: vec![],
            drop: vec![],
            storage,
            settings: model::SettingsChange::default(),
        };
        match state.apply(2, command) {
            Ok(Changed::Table(schema, _)) => Ok(schema),
            Ok(other) => Err(format!("{other:?}")),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    /// Bigtable 6: locality groups and their tuning parameters are part of a table's schema.
    #[test]
    fn a_table_is_made_with_locality_groups() {
        let cold = LocalityChange {
            in_memory: Some(true),
            compression: Some(Compression::Zstd),
            block_bytes: Some(65_536),
            filter: Some(Filter::Columns),
            ..group("cold")
        };
        let wish = StorageChange {
            compaction: Some(Compaction::Leveled),
            set: vec![cold, group("hot")],
            place: vec![place("b", "cold")],
            drop: vec![],
        };
        let (state, made) = with_table(wish);
        assert!(made.is_ok(), "{made:?}");
        let schema = state.table("t").unwrap();
        let cold = LocalityGroup {
            id: LocalityId(1),
            name: "cold".into(),
            in_memory: true,
            compression: Compression::Zstd,
            block_bytes: 65_536,
            filter: Filter::Columns,
        };
        let hot = LocalityGroup { id: LocalityId(2), name: "hot".into(), ..LocalityGroup::default() };
        assert_eq!(schema.storage.localities, [LocalityGroup::default(), cold, hot]);
        assert_eq!(schema.storage.compaction, Compaction::Leveled);
        let places: Vec<u32> = schema.families.iter().map(|family| family.locality.0).collect();
        assert_eq!(places, [0, 1]);
    }

    /// What is not said stays, and every change is a new version, or nodes would not hear of it.
    #[test]
    fn groups_are_altered_emptied_and_dropped() {
        let (mut state, _) = with_table(StorageChange { set: vec![group("cold")], ..StorageChange::default() });
        let set = vec![LocalityChange { compression: Some(Compression::Zstd), ..group("cold") }];
        let schema = alter(&mut state, StorageChange { set, ..StorageChange::default() }).unwrap();
        let set = vec![LocalityChange { in_memory: Some(true), ..group("cold") }];
        let place_b = vec![place("b", "cold")];
        let later = alter(&mut state, StorageChange { set, place: place_b, ..StorageChange::default() }).unwrap();
        assert_eq!((schema.version, later.version), (2, 3));
        let cold = later.storage.locality("cold").unwrap();
        assert_eq!((cold.compression, cold.in_memory), (Compression::Zstd, true));
        let drop = || vec![String::from("cold")];
        let refused = alter(&mut state, StorageChange { drop: drop(), ..StorageChange::default() }).unwrap_err();
        assert!(refused.contains("has families: b"), "{refused}");
        assert_eq!(state.table("t").unwrap().version, 3, "a refused change changes nothing");
        let back = StorageChange { place: vec![place("b", "default")], drop: drop(), ..StorageChange::default() };
        let schema = alter(&mut state, back).unwrap();
        assert_eq!(schema.storage.localities, [LocalityGroup::default()]);
        let again = alter(&mut state, StorageChange { set: vec![group("cold")], ..StorageChange::default() }).unwrap();
        assert_eq!(again.storage.locality("cold").unwrap().id, LocalityId(2), "an id is given out once");
        let set = vec![LocalityChange { filter: Some(Filter::None), ..group("default") }];
        assert!(alter(&mut state, StorageChange { set, ..StorageChange::default() }).is_ok());
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let change = StorageChange::default;
        let many = (0..limits::LOCALITIES).map(|number| group(&format!("g{number}"))).collect();
        let block = |bytes| vec![LocalityChange { block_bytes: Some(bytes), ..group("g") }];
        let cases = [
            (StorageChange { place: vec![place("a", "warm")], ..change() }, "no locality group \"warm\""),
            (StorageChange { place: vec![place("x", "default")], ..change() }, "no family \"x\""),
            (StorageChange { drop: vec!["warm".into()], ..change() }, "no locality group \"warm\""),
            (StorageChange { drop: vec!["default".into()], ..change() }, "stays"),
            (StorageChange { set: many, ..change() }, "21 locality groups"),
            (StorageChange { set: vec![group("a b")], ..change() }, "no locality group's name"),
            (StorageChange { set: block(1_023), ..change() }, "a block of 1023 bytes"),
            (StorageChange { set: block((4 << 20) + 1), ..change() }, "the limits are 1024 and 4194304"),
            (StorageChange { set: vec![group("g"), group("g")], ..change() }, "named twice"),
            (StorageChange { set: vec![group("g")], drop: vec!["g".into()], ..change() }, "both set and dropped"),
            (StorageChange { place: vec![place("a", "default"); 2], ..change() }, "twice"),
        ];
        for (wish, why) in cases {
            let refused = check(&wish).err().map(|refusal| refusal.to_string());
            let refused = refused.unwrap_or_else(|| {
                let (state, made) = with_table(wish.clone());
                assert!(state.table("t").is_none() && state.groups.is_empty(), "{wish:?}");
                made.unwrap_err().to_string()
            });
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(check(&StorageChange { set: block(1_024), ..change() }), Ok(()));
        assert_eq!(check(&StorageChange { set: block(4 << 20), ..change() }), Ok(()));
    }
}
