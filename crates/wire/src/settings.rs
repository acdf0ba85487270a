//! What a table promises beside its rows, and documents: protobuf ↔ the model's words.

use std::time::Duration;

use model::{
    AdminRequest, Aggregate, Document, DocumentChange, Documents, Granularity, Settings, SettingsChange, Timestamp,
};

use crate::admin::{family_from_proto, family_to_proto};
use crate::convert::Invalid;
use crate::v1::{self, settings_change::Aggregated};

pub(crate) fn to_proto(settings: Settings) -> v1::Settings {
    let Settings { granularity, protected, changes, dropped } = settings;
    v1::Settings {
        granularity: granularity_to_proto(Some(granularity)),
        protected,
        changes: changes.map(family_to_proto),
        dropped_micros: dropped.map(|until| until.0),
    }
}

pub(crate) fn from_proto(message: v1::Settings) -> Result<Settings, Invalid> {
    Ok(Settings {
        granularity: granularity_from_proto(message.granularity)?.unwrap_or_default(),
        protected: message.protected,
        changes: message.changes.map(family_from_proto).transpose()?,
        dropped: message.dropped_micros.map(Timestamp),
    })
}

/// `None` changes nothing.
pub(crate) fn change_to_proto(change: SettingsChange) -> Option<v1::SettingsChange> {
    if change.is_empty() {
        return None;
    }
    let SettingsChange { granularity, protected, changes, aggregates } = change;
    let aggregated = |(family, aggregate)| Aggregated { family, aggregate: aggregate_to_proto(Some(aggregate)) };
    Some(v1::SettingsChange {
        granularity: granularity_to_proto(granularity),
        protected,
        changes: changes.map(duration_to_proto),
        aggregates: aggregates.into_iter().map(aggregated).collect(),
    })
}

pub(crate) fn change_from_proto(message: Option<v1::SettingsChange>) -> Result<SettingsChange, Invalid> {
    let Some(message) = message else { return Ok(SettingsChange::default()) };
    let aggregated = |Aggregated { family, aggregate }| match aggregate_from_proto(aggregate)? {
        Some(aggregate) => Ok((family, aggregate)),
        None => Err(Invalid(String::from("an aggregate is not said; sum, min and max are known"))),
    };
    Ok(SettingsChange {
        granularity: granularity_from_proto(message.granularity)?,
        protected: message.protected,
        changes: message.changes.map(|kept| duration_from_proto(kept, "changes")).transpose()?,
        aggregates: message.aggregates.into_iter().map(aggregated).collect::<Result<_, _>>()?,
    })
}

fn granularity_to_proto(granularity: Option<Granularity>) -> i32 {
    let granularity = granularity.map_or(v1::Granularity::Unspecified, |granularity| match granularity {
        Granularity::Micros => v1::Granularity::Micros,
        Granularity::Millis => v1::Granularity::Millis,
    });
    granularity as i32
}

fn granularity_from_proto(number: i32) -> Result<Option<Granularity>, Invalid> {
    match v1::Granularity::try_from(number) {
        Ok(v1::Granularity::Unspecified) => Ok(None),
        Ok(v1::Granularity::Micros) => Ok(Some(Granularity::Micros)),
        Ok(v1::Granularity::Millis) => Ok(Some(Granularity::Millis)),
        Err(_) => Err(Invalid(format!("granularity {number} is not known; 1 is microseconds, 2 milliseconds"))),
    }
}

pub(crate) fn aggregate_to_proto(aggregate: Option<Aggregate>) -> i32 {
    let aggregate = aggregate.map_or(v1::Aggregate::Unspecified, |aggregate| match aggregate {
        Aggregate::Sum => v1::Aggregate::Sum,
        Aggregate::Min => v1::Aggregate::Min,
        Aggregate::Max => v1::Aggregate::Max,
    });
    aggregate as i32
}

pub(crate) fn aggregate_from_proto(number: i32) -> Result<Option<Aggregate>, Invalid> {
    match v1::Aggregate::try_from(number) {
        Ok(v1::Aggregate::Unspecified) => Ok(None),
        Ok(v1::Aggregate::Sum) => Ok(Some(Aggregate::Sum)),
        Ok(v1::Aggregate::Min) => Ok(Some(Aggregate::Min)),
        Ok(v1::Aggregate::Max) => Ok(Some(Aggregate::Max)),
        Err(_) => Err(Invalid(format!("aggregate {number} is not known; 1 is the sum, 2 the least, 3 the greatest"))),
    }
}

fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    prost_types::Duration { seconds, nanos: duration.subsec_nanos() as i32 }
}

fn duration_from_proto(duration: prost_types::Duration, what: &str) -> Result<Duration, Invalid> {
    Duration::try_from(duration).map_err(|_| Invalid(format!("{what} is less than no time")))
}

/// Builds the message that hides a table.
pub fn hide_request(table: String, keep: Duration) -> v1::HideTableRequest {
    v1::HideTableRequest { table, keep: Some(duration_to_proto(keep)) }
}

impl TryFrom<v1::HideTableRequest> for AdminRequest {
    type Error = Invalid;

    fn try_from(message: v1::HideTableRequest) -> Result<AdminRequest, Invalid> {
        let keep = duration_from_proto(message.keep.unwrap_or_default(), "keep")?;
        Ok(AdminRequest::HideTable { table: message.table, keep })
    }
}

impl From<Documents> for v1::Documents {
    fn from(documents: Documents) -> v1::Documents {
        let document = |Document { name, version, body }| v1::Document { name, version, body };
        v1::Documents { version: documents.version, documents: documents.documents.into_iter().map(document).collect() }
    }
}

impl From<v1::Documents> for Documents {
    fn from(message: v1::Documents) -> Documents {
        let document = |v1::Document { name, version, body }| Document { name, version, body };
        Documents { version: message.version, documents: message.documents.into_iter().map(document).collect() }
    }
}

impl From<DocumentChange> for v1::ChangeDocumentRequest {
    fn from(change: DocumentChange) -> v1::ChangeDocumentRequest {
        let DocumentChange { name, body, expect } = change;
        v1::ChangeDocumentRequest { name, body, expect }
    }
}

impl From<v1::ChangeDocumentRequest> for DocumentChange {
    fn from(message: v1::ChangeDocumentRequest) -> DocumentChange {
        let v1::ChangeDocumentRequest { name, body, expect } = message;
        DocumentChange { name, body, expect }
    }
}
