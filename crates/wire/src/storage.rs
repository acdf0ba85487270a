//! How a table's rows lie on disks: protobuf ↔ the model's words.
//!
//! A value that is not known comes from a newer release. In a table that is shown it is an error, as it is in a wish:
//! what was asked for must not become something else.

use model::{
    Compaction, Compression, Filter, LocalityChange, LocalityGroup, LocalityId, Storage, StorageChange, limits,
};

use crate::convert::Invalid;
use crate::v1::{self, storage_change};

impl From<Storage> for v1::Storage {
    fn from(storage: Storage) -> v1::Storage {
        let locality = |locality: LocalityGroup| v1::LocalityGroup {
            id: locality.id.0,
            name: locality.name,
            in_memory: locality.in_memory,
            compression: compression_to_proto(locality.compression).into(),
            block_bytes: locality.block_bytes,
            filter: filter_to_proto(locality.filter).into(),
        };
        v1::Storage {
            compaction: compaction_to_proto(storage.compaction).into(),
            localities: storage.localities.into_iter().map(locality).collect(),
            next_locality: storage.next_locality.0,
        }
    }
}

impl TryFrom<v1::Storage> for Storage {
    type Error = Invalid;

    fn try_from(message: v1::Storage) -> Result<Storage, Invalid> {
        let locality = |locality: v1::LocalityGroup| {
            Ok(LocalityGroup {
                id: LocalityId(locality.id),
                name: locality.name,
                in_memory: locality.in_memory,
                compression: compression(locality.compression)?.unwrap_or_default(),
                block_bytes: locality.block_bytes,
                filter: filter(locality.filter)?.unwrap_or_default(),
            })
        };
        Ok(Storage {
            compaction: compaction(message.compaction)?.unwrap_or_default(),
            localities: message.localities.into_iter().map(locality).collect::<Result<_, Invalid>>()?,
            next_locality: LocalityId(message.next_locality),
        })
    }
}

/// Builds the message of a change; none of one that changes nothing.
pub(crate) fn change_to_proto(change: StorageChange) -> Option<v1::StorageChange> {
    let locality = |locality: LocalityChange| storage_change::Locality {
        name: locality.name,
        in_memory: locality.in_memory,
        compression: locality.compression.map_or(0, |known| compression_to_proto(known).into()),
        block_bytes: locality.block_bytes,
        filter: locality.filter.map_or(0, |known| filter_to_proto(known).into()),
    };
    let place = |(family, locality): (String, String)| storage_change::Place { family, locality };
    (!change.is_empty()).then(|| v1::StorageChange {
        compaction: change.compaction.map_or(0, |known| compaction_to_proto(known).into()),
        set: change.set.into_iter().map(locality).collect(),
        place: change.place.into_iter().map(place).collect(),
        drop: change.drop,
    })
}

/// Reads what [`change_to_proto`] builds, and checks it.
pub(crate) fn change_from_proto(message: Option<v1::StorageChange>) -> Result<StorageChange, Invalid> {
    let Some(message) = message else { return Ok(StorageChange::default()) };
    let (set, place, drop) = (message.set.len(), message.place.len(), message.drop.len());
    if set > limits::LOCALITIES || drop > limits::LOCALITIES || place > limits::FAMILIES {
        return Err(Invalid(format!(
            "a change of {set} locality groups that drops {drop} and places {place} families; \
             the limits are {} groups and {} families",
            limits::LOCALITIES,
            limits::FAMILIES
        )));
    }
    let locality = |locality: storage_change::Locality| {
        let locality = LocalityChange {
            name: short(locality.name)?,
            in_memory: locality.in_memory,
            compression: compression(locality.compression)?,
            block_bytes: locality.block_bytes,
            filter: filter(locality.filter)?,
        };
        limits::check_locality(&locality).map_err(Invalid)?;
        Ok(locality)
    };
    let place = |place: storage_change::Place| Ok((short(place.family)?, short(place.locality)?));
    Ok(StorageChange {
        compaction: compaction(message.compaction)?,
        set: message.set.into_iter().map(locality).collect::<Result<_, Invalid>>()?,
        place: message.place.into_iter().map(place).collect::<Result<_, Invalid>>()?,
        drop: message.drop.into_iter().map(short).collect::<Result<_, Invalid>>()?,
    })
}

/// A name that may be quoted in a message.
fn short(name: String) -> Result<String, Invalid> {
    if name.len() > 256 { Err(Invalid(format!("a name of {} bytes", name.len()))) } else { Ok(name) }
}

fn compaction_to_proto(compaction: Compaction) -> v1::Compaction {
    match compaction {
        Compaction::Tiered => v1::Compaction::Tiered,
        Compaction::Leveled => v1::Compaction::Leveled,
    }
}

fn compaction(number: i32) -> Result<Option<Compaction>, Invalid> {
    match v1::Compaction::try_from(number) {
        Ok(v1::Compaction::Unspecified) => Ok(None),
        Ok(v1::Compaction::Tiered) => Ok(Some(Compaction::Tiered)),
        Ok(v1::Compaction::Leveled) => Ok(Some(Compaction::Leveled)),
        Err(_) => Err(Invalid(format!("compaction {number} is not known"))),
    }
}

fn compression_to_proto(compression: Compression) -> v1::Compression {
    match compression {
        Compression::None => v1::Compression::None,
        Compression::Lz4 => v1::Compression::Lz4,
        Compression::Zstd => v1::Compression::Zstd,
    }
}

fn compression(number: i32) -> Result<Option<Compression>, Invalid> {
    match v1::Compression::try_from(number) {
        Ok(v1::Compression::Unspecified) => Ok(None),
        Ok(v1::Compression::None) => Ok(Some(Compression::None)),
        Ok(v1::Compression::Lz4) => Ok(Some(Compression::Lz4)),
        Ok(v1::Compression::Zstd) => Ok(Some(Compression::Zstd)),
        Err(_) => Err(Invalid(format!("compression {number} is not known"))),
    }
}

fn filter_to_proto(filter: Filter) -> v1::Filter {
    match filter {
        Filter::None => v1::Filter::None,
        Filter::Rows => v1::Filter::Rows,
        Filter::Columns => v1::Filter::Columns,
    }
}

fn filter(number: i32) -> Result<Option<Filter>, Invalid> {
    match v1::Filter::try_from(number) {
        Ok(v1::Filter::Unspecified) => Ok(None),
        Ok(v1::Filter::None) => Ok(Some(Filter::None)),
        Ok(v1::Filter::Rows) => Ok(Some(Filter::Rows)),
        Ok(v1::Filter::Columns) => Ok(Some(Filter::Columns)),
        Err(_) => Err(Invalid(format!("filter {number} is not known"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change() -> StorageChange {
        let group = |name: &str, in_memory, compression, block_bytes, filter| LocalityChange {
            name: name.into(),
            in_memory,
            compression,
            block_bytes,
            filter,
        };
        StorageChange {
            compaction: Some(Compaction::Leveled),
            set: vec![
                group("a", None, None, None, None),
                group("b", Some(false), Some(Compression::None), Some(1_024), Some(Filter::None)),
                group("c", Some(true), Some(Compression::Zstd), Some(4 << 20), Some(Filter::Columns)),
            ],
            place: vec![("f".into(), "a".into())],
            drop: vec!["d".into()],
        }
    }

    #[test]
    fn a_change_comes_out_as_it_went_in() {
        assert_eq!(change_from_proto(change_to_proto(change())), Ok(change()));
        assert_eq!(change_to_proto(StorageChange::default()), None);
        assert_eq!(change_from_proto(None), Ok(StorageChange::default()));
    }

    #[test]
    fn storage_comes_out_as_it_went_in() {
        let cold = LocalityGroup {
            id: LocalityId(3),
            name: "cold".into(),
            in_memory: true,
            compression: Compression::None,
            block_bytes: 1 << 20,
            filter: Filter::None,
        };
        let storage = Storage {
            compaction: Compaction::Leveled,
            localities: vec![LocalityGroup::default(), cold],
            next_locality: LocalityId(4),
        };
        assert_eq!(Storage::try_from(v1::Storage::from(storage.clone())), Ok(storage));
    }

    /// A value of a newer release must not become the default in silence.
    #[test]
    fn what_is_not_known_is_invalid() {
        let good = || change_to_proto(change()).unwrap_or_default();
        let locality = |locality| Some(v1::StorageChange { set: vec![locality], ..v1::StorageChange::default() });
        let named = |name: &str| storage_change::Locality { name: name.into(), ..Default::default() };
        let bad = [
            Some(v1::StorageChange { compaction: 9, ..good() }),
            locality(storage_change::Locality { compression: 9, ..named("a") }),
            locality(storage_change::Locality { filter: 9, ..named("a") }),
            locality(storage_change::Locality { block_bytes: Some(1_023), ..named("a") }),
            locality(named("a b")),
            locality(named(&"x".repeat(65))),
            Some(v1::StorageChange { set: vec![named("a"); limits::LOCALITIES + 1], ..Default::default() }),
        ];
        for message in bad {
            assert!(change_from_proto(message.clone()).is_err(), "{message:?}");
        }
        let filters = v1::LocalityGroup { filter: 9, ..v1::LocalityGroup::default() };
        let storage = v1::Storage { localities: vec![filters], ..v1::Storage::default() };
        assert!(Storage::try_from(storage).is_err());
    }
}
