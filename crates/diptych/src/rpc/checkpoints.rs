//! Checkpoints in the words of `diptych.v1.Admin`.

use client::{CheckpointState, CheckpointStatus, Checkpoints, Removal};
use model::NodeId;
use model::checkpoint::{Checkpoint, Held, TableCopy, TabletCopy};
use wire::v1::checkpoint::{Holder, Table, Tablet};
use wire::v1::{self, Unheard};

/// One that was just made.
pub fn made(made: Checkpoint) -> v1::Checkpoint {
    v1::Checkpoint {
        name: made.name.clone(),
        id: made.id.to_string(),
        state: v1::CheckpointState::Complete.into(),
        begun_micros: Some(made.begun.0),
        bytes: made.bytes(),
        tables: tables(made),
        nodes: Vec::new(),
        lacks: Vec::new(),
    }
}

/// All of them.
pub fn list(found: Checkpoints) -> v1::ListCheckpointsResponse {
    v1::ListCheckpointsResponse {
        checkpoints: found.all.into_iter().map(status).collect(),
        unheard: unheard(found.unheard),
    }
}

/// What was removed, and where.
pub fn removal(removal: Removal) -> v1::RemoveCheckpointResponse {
    let removed = removal.removed.into_iter().map(|node| node.0).collect();
    v1::RemoveCheckpointResponse { removed, unheard: unheard(removal.unheard) }
}

fn status(status: CheckpointStatus) -> v1::Checkpoint {
    let state = match status.state {
        CheckpointState::Complete => v1::CheckpointState::Complete,
        CheckpointState::Incomplete => v1::CheckpointState::Incomplete,
        CheckpointState::Unknown => v1::CheckpointState::Unheard,
    };
    let holder = |(node, held): &(NodeId, Held)| Holder {
        node: node.0,
        tablets: held.tablets.iter().map(|tablet| tablet.0).collect(),
        bytes: held.bytes,
    };
    v1::Checkpoint {
        state: state.into(),
        id: status.id.map_or_else(String::new, |id| id.to_string()),
        begun_micros: status.whole.as_ref().map(|whole| whole.begun.0),
        bytes: status.bytes(),
        nodes: status.held.iter().map(holder).collect(),
        tables: status.whole.map(tables).unwrap_or_default(),
        name: status.name,
        lacks: status.lacks,
    }
}

fn tables(checkpoint: Checkpoint) -> Vec<Table> {
    let tablet = |copy: TabletCopy| Tablet {
        tablet: copy.tablet.0,
        rows: copy.slice.to_string(),
        node: copy.node.0,
        epoch: copy.epoch.0,
        lsn: copy.upto.0,
        copied_micros: copy.date.0,
        bytes: copy.bytes,
    };
    let table =
        |table: TableCopy| Table { table: table.schema.name, tablets: table.tablets.into_iter().map(tablet).collect() };
    checkpoint.tables.into_iter().map(table).collect()
}

fn unheard(unheard: Vec<(NodeId, client::Error)>) -> Vec<Unheard> {
    unheard.into_iter().map(|(node, error)| Unheard { node: node.0, why: error.to_string() }).collect()
}
