//! What happened to rows, as the messages of a change stream.
//!
//! ```text
//!   RowChange ──▶ DataChange { USER, row, commit_timestamp, tiebreaker, chunks } … { CONTINUATION, chunks, done, token }
//! ```
//!
//! A change may be larger than a message should be: then it is several, and a value is cut where it must be. Only the last message
//! has the token: whoever was cut off before it gets the change again, as a whole.

use std::time::Duration;

use model::changes::RowChange;
use model::{Bytes, Change, RowRange, Timestamp, limits};

use crate::admin::ChangeStreamConfig;
use crate::data::mutation::{DeleteFromColumn, DeleteFromFamily, DeleteFromRow, SetCell};
use crate::data::read_change_stream_response::mutation_chunk::ChunkInfo;
use crate::data::read_change_stream_response::{DataChange, MutationChunk, data_change};
use crate::data::row_range::{EndKey, StartKey};
use crate::data::{Mutation, StreamPartition, TimestampRange, mutation};
use crate::{Problem, data, rows};

/// Bytes after which a message ends. A value that is larger is cut into pieces of so many.
const MESSAGE: usize = 1 << 20;
/// How short a table's changes may be kept.
const LEAST: Duration = Duration::from_secs(86_400);
/// How long a stream may be silent, and how long it is if nobody says.
const HEARTBEAT: (Duration, Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(300), Duration::from_secs(5));

/// How long a table's changes shall be kept.
pub fn kept(config: &ChangeStreamConfig) -> Result<Duration, Problem> {
    let wrong =
        |what: &str| Problem::invalid(format!("Error in field 'change_stream_config.retention_period' : {what}"));
    let period = config.retention_period.ok_or_else(|| wrong("it is not given; give 1 to 7 days"))?;
    let period = Duration::try_from(period).map_err(|_| wrong("it is negative"))?;
    let period = Duration::from_micros(u64::try_from(period.as_micros()).unwrap_or(u64::MAX));
    match (LEAST..=limits::CHANGES_KEPT).contains(&period) {
        true => Ok(period),
        false => Err(wrong("it is not between 1 and 7 days")),
    }
}

/// The same as a table shows it.
pub fn config(kept: Duration) -> ChangeStreamConfig {
    let seconds = i64::try_from(kept.as_secs()).unwrap_or(i64::MAX);
    let retention_period = Some(prost_types::Duration { seconds, nanos: kept.subsec_nanos() as i32 });
    ChangeStreamConfig { retention_period }
}

/// How long a stream may be silent.
pub fn heartbeat(wish: Option<prost_types::Duration>) -> Result<Duration, Problem> {
    let (least, most, default) = HEARTBEAT;
    let Some(wish) = wish else { return Ok(default) };
    match Duration::try_from(wish) {
        Ok(wish) if (least..=most).contains(&wish) => Ok(wish),
        _ => Err(Problem::invalid("Error in field 'heartbeat_duration' : it is not between 1 second and 5 minutes")),
    }
}

/// A date, exact to the microsecond.
pub fn date(field: &str, at: prost_types::Timestamp) -> Result<Timestamp, Problem> {
    let wrong = || Problem::invalid(format!("Error in field '{field}' : it is no date after 1970"));
    let nanos = u32::try_from(at.nanos).ok().filter(|nanos| *nanos < 1_000_000_000).ok_or_else(wrong)?;
    let micros = at.seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(i64::from(nanos / 1_000)));
    micros.filter(|micros| *micros >= 0).map(Timestamp).ok_or_else(wrong)
}

/// The other way.
pub fn to_date(at: Timestamp) -> prost_types::Timestamp {
    let nanos = (at.0.rem_euclid(1_000_000) * 1_000) as i32;
    prost_types::Timestamp { seconds: at.0.div_euclid(1_000_000), nanos }
}

/// The rows of a partition; all without one.
pub fn partition_range(partition: Option<&StreamPartition>) -> Result<RowRange, Problem> {
    partition.and_then(|partition| partition.row_range.as_ref()).map_or(Ok(RowRange::default()), rows::range)
}

/// A partition with these rows. Both ends are said: an empty one is that of the table.
pub fn partition(range: &RowRange) -> StreamPartition {
    let start_key = Some(StartKey::StartKeyClosed(range.start.clone()));
    let end_key = Some(EndKey::EndKeyOpen(range.end.clone().unwrap_or_default()));
    StreamPartition { row_range: Some(data::RowRange { start_key, end_key }) }
}

/// What happened to a row, in as many messages as it takes.
pub fn data_changes(change: RowChange<String>, cluster: &str, token: String, watermark: Timestamp) -> Vec<DataChange> {
    let mut messages = vec![DataChange {
        r#type: data_change::Type::User.into(),
        source_cluster_id: cluster.to_owned(),
        row_key: change.row.clone(),
        commit_timestamp: Some(to_date(change.at.version)),
        tiebreaker: i32::try_from(change.at.number).unwrap_or(i32::MAX),
        ..DataChange::default()
    }];
    let mut bytes = 0;
    for each in change.changes {
        for (chunk, weight) in chunks(each) {
            if bytes > 0 && bytes + weight > MESSAGE {
                let r#type = data_change::Type::Continuation.into();
                messages.push(DataChange { r#type, ..DataChange::default() });
                bytes = 0;
            }
            bytes += weight;
            messages.last_mut().expect("there is the first one").chunks.push(chunk);
        }
    }
    let last = messages.last_mut().expect("there is the first one");
    (last.done, last.token, last.estimated_low_watermark) = (true, token, Some(to_date(watermark)));
    messages
}

/// A change in one piece, or its value in several; and what each weighs.
fn chunks(change: Change<String>) -> Vec<(MutationChunk, usize)> {
    let whole = |mutation| MutationChunk { chunk_info: None, mutation: Some(Mutation { mutation: Some(mutation) }) };
    let (weight, chunk) = (
        change.weight(),
        match change {
            Change::Put { family, qualifier, timestamp, value } if value.len() > MESSAGE => {
                return pieces(&family, &qualifier, timestamp, &value);
            }
            Change::Put { family, qualifier, timestamp, value } => whole(mutation::Mutation::SetCell(SetCell {
                family_name: family,
                column_qualifier: qualifier,
                timestamp_micros: timestamp.0,
                value,
            })),
            Change::DeleteCell { family, qualifier, timestamp } => {
                let (start, end) = (timestamp.0, timestamp.next().0);
                let time_range = Some(TimestampRange { start_timestamp_micros: start, end_timestamp_micros: end });
                whole(mutation::Mutation::DeleteFromColumn(DeleteFromColumn {
                    family_name: family,
                    column_qualifier: qualifier,
                    time_range,
                }))
            }
            Change::DeleteColumn { family, qualifier } => {
                whole(mutation::Mutation::DeleteFromColumn(DeleteFromColumn {
                    family_name: family,
                    column_qualifier: qualifier,
                    time_range: None,
                }))
            }
            Change::DeleteFamily { family } => {
                whole(mutation::Mutation::DeleteFromFamily(DeleteFromFamily { family_name: family }))
            }
            Change::DeleteRow => whole(mutation::Mutation::DeleteFromRow(DeleteFromRow {})),
        },
    );
    vec![(chunk, weight)]
}

fn pieces(family: &str, qualifier: &Bytes, timestamp: Timestamp, value: &Bytes) -> Vec<(MutationChunk, usize)> {
    let size = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let piece = |offset: usize| {
        let piece = value.slice(offset..value.len().min(offset + MESSAGE));
        let set = SetCell {
            family_name: family.to_owned(),
            column_qualifier: qualifier.clone(),
            timestamp_micros: timestamp.0,
            value: piece.clone(),
        };
        let chunk_info = Some(ChunkInfo {
            chunked_value_size: size(value.len()),
            chunked_value_offset: size(offset),
            last_chunk: offset + piece.len() == value.len(),
        });
        let mutation = Some(Mutation { mutation: Some(mutation::Mutation::SetCell(set)) });
        (MutationChunk { chunk_info, mutation }, piece.len())
    };
    (0..value.len()).step_by(MESSAGE).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::changes::Place;

    fn change(changes: Vec<Change<String>>) -> RowChange<String> {
        let at = Place { version: Timestamp(1_500_000), number: 3 };
        RowChange { row: Bytes::from_static(b"r"), at, changes }
    }

    fn put(value: Vec<u8>) -> Change<String> {
        let (qualifier, value) = (Bytes::from_static(b"q"), Bytes::from(value));
        Change::Put { family: "f".into(), qualifier, timestamp: Timestamp(7), value }
    }

    #[test]
    fn a_small_change_is_one_message() {
        let (family, qualifier) = (|| String::from("f"), || Bytes::from_static(b"q"));
        let delete = Change::DeleteCell { family: family(), qualifier: qualifier(), timestamp: Timestamp(7) };
        let changes = vec![put(b"v".to_vec()), delete, Change::DeleteFamily { family: family() }];
        let [message] = &data_changes(change(changes), "c", "t".into(), Timestamp(9))[..] else { panic!() };
        assert_eq!((message.r#type, message.tiebreaker, message.done), (1, 3, true));
        assert_eq!(message.commit_timestamp, Some(prost_types::Timestamp { seconds: 1, nanos: 500_000_000 }));
        assert_eq!((message.chunks.len(), message.token.as_str()), (3, "t"));
        let Some(mutation::Mutation::DeleteFromColumn(delete)) =
            message.chunks[1].mutation.clone().and_then(|mutation| mutation.mutation)
        else {
            panic!()
        };
        let range = TimestampRange { start_timestamp_micros: 7, end_timestamp_micros: 8 };
        assert_eq!(delete.time_range, Some(range));
    }

    /// Clients put pieces together by their offsets, and take a change for whole when the last message says so.
    #[test]
    fn a_large_change_is_several_messages() {
        let value: Vec<u8> = (0..(2 << 20) + 5).map(|at: usize| at as u8).collect();
        let messages =
            data_changes(change(vec![put(b"v".to_vec()), put(value.clone())]), "c", "t".into(), Timestamp(9));
        let types: Vec<i32> = messages.iter().map(|message| message.r#type).collect();
        assert_eq!(types, [1, 3, 3, 3]);
        let mut joined = Vec::new();
        for chunk in messages.iter().flat_map(|message| &message.chunks).skip(1) {
            let info = chunk.chunk_info.unwrap();
            assert_eq!(
                (info.chunked_value_size as usize, info.chunked_value_offset as usize),
                (value.len(), joined.len())
            );
            let Some(mutation::Mutation::SetCell(set)) = chunk.mutation.clone().and_then(|its| its.mutation) else {
                panic!()
            };
            joined.extend(set.value);
            assert_eq!(info.last_chunk, joined.len() == value.len());
        }
        assert_eq!(joined, value);
        assert!(messages[..3].iter().all(|message| !message.done && message.token.is_empty()) && messages[3].done);
        assert!(messages[1..].iter().all(|message| message.row_key.is_empty()));
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        let seconds = |seconds| prost_types::Duration { seconds, nanos: 0 };
        let config = |period| ChangeStreamConfig { retention_period: period };
        for bad in [None, Some(seconds(86_399)), Some(seconds(7 * 86_400 + 1)), Some(seconds(-1))] {
            assert!(kept(&config(bad)).is_err(), "{bad:?}");
        }
        for good in [86_400, 7 * 86_400] {
            assert_eq!(super::config(kept(&config(Some(seconds(good)))).unwrap()), config(Some(seconds(good))));
        }
        assert!(heartbeat(Some(seconds(0))).is_err() && heartbeat(Some(seconds(301))).is_err());
        assert_eq!(heartbeat(None), Ok(Duration::from_secs(5)));
        for at in [-1, i64::MAX] {
            assert!(date("start_time", prost_types::Timestamp { seconds: at, nanos: 0 }).is_err());
        }
        let at = prost_types::Timestamp { seconds: 2, nanos: 1_999 };
        assert_eq!(date("start_time", at).map(|at| at.0), Ok(2_000_001));
        assert_eq!(partition_range(Some(&partition(&RowRange::default()))), Ok(RowRange::default()));
    }
}
