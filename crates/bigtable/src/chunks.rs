//! Rows, cut into the messages of `ReadRows`. Clients differ in what they take (sizes, rows over several messages): see [`Cutting`].
//!
//! ```text
//!   row ─▶ chunk: row key, family, qualifier, timestamp, value     family and qualifier only where they change
//!          chunk: …                                                a value that is too long goes over several chunks
//!          chunk: …, commit_row                                    the last one of the row
//! ```

use model::{Bytes, Timestamp};

use crate::data::ReadRowsResponse;
use crate::data::read_rows_response::CellChunk;
use crate::data::read_rows_response::cell_chunk::RowStatus;

/// Small rows go into one message until it has about so many bytes.
const PACK: usize = 1 << 20;
/// No row that is smaller than this, as a message, is cut: some clients take 4 MiB.
const WHOLE: usize = (4 << 20) - (64 << 10);
/// What a chunk needs beside its strings, at most.
const BESIDE: usize = 64;

/// A cell that goes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Name of its family.
    pub family: String,
    /// The column within it.
    pub qualifier: Bytes,
    /// In microseconds.
    pub timestamp: i64,
    /// Empty if it was stripped.
    pub value: Bytes,
    /// If it has one.
    pub label: Option<String>,
}

impl filter::Cell for Cell {
    fn family(&self) -> &str {
        &self.family
    }

    fn qualifier(&self) -> &[u8] {
        &self.qualifier
    }

    fn timestamp(&self) -> Timestamp {
        Timestamp(self.timestamp)
    }

    fn value(&self) -> &[u8] {
        &self.value
    }
}

/// How large rows are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cutting {
    /// Not at all: a row is in one message.
    Never,
    /// Into messages of about a MiB, each of which begins with the row's key (Python's data client, which takes no more than 4 MiB).
    WithKey,
}

impl Cutting {
    /// By what a client says of itself in `x-goog-api-client`.
    pub fn of_client(api_client: &str) -> Cutting {
        let python = api_client.contains("gl-python");
        let data = api_client.split(' ').any(|token| token.starts_with("gccl/") && token.contains("-data"));
        if python && data { Cutting::WithKey } else { Cutting::Never }
    }
}

/// Collects rows into messages.
pub struct Chunker {
    cutting: Cutting,
    chunks: Vec<CellChunk>,
    bytes: usize,
}

impl Chunker {
    /// An empty one.
    pub fn new(cutting: Cutting) -> Chunker {
        Chunker { cutting, chunks: Vec::new(), bytes: 0 }
    }

    /// Adds a row, which has cells, and gives the messages that are full.
    pub fn push(&mut self, key: &Bytes, cells: Vec<Cell>) -> Vec<ReadRowsResponse> {
        let weight: usize = cells.iter().map(weight).sum::<usize>() + key.len();
        let mut full = Vec::new();
        if self.bytes > 0 && self.bytes + weight > PACK {
            full.extend(self.finish());
        }
        let cut = self.cutting == Cutting::WithKey && weight >= WHOLE;
        let last = cells.len().saturating_sub(1);
        let mut column: Option<(String, Bytes)> = None;
        for (at, cell) in cells.into_iter().enumerate() {
            if cut && self.bytes > 0 && self.bytes + weight_of_piece(&cell) > PACK {
                full.extend(self.finish());
            }
            let mut chunk = CellChunk {
                timestamp_micros: cell.timestamp,
                labels: cell.label.clone().into_iter().collect(),
                ..CellChunk::default()
            };
            // The first chunk of the row, and of each message.
            let begins = self.chunks.is_empty() || column.is_none();
            if begins {
                chunk.row_key = key.clone();
            }
            let same_family = column.as_ref().is_some_and(|(family, _)| *family == cell.family);
            let same_column = same_family && column.as_ref().is_some_and(|(_, qualifier)| *qualifier == cell.qualifier);
            if begins || !same_family {
                chunk.family_name = Some(cell.family.clone());
            }
            if begins || !same_column {
                chunk.qualifier = Some(cell.qualifier.to_vec());
            }
            column = Some((cell.family.clone(), cell.qualifier.clone()));
            let mut value = cell.value;
            let total = value.len();
            while cut && value.len() > PACK {
                chunk.value = value.split_to(PACK);
                chunk.value_size = i32::try_from(total).unwrap_or(i32::MAX);
                self.add(std::mem::take(&mut chunk));
                full.extend(self.finish());
                chunk.row_key = key.clone();
            }
            chunk.value = value;
            if at == last {
                chunk.row_status = Some(RowStatus::CommitRow(true));
            }
            self.add(chunk);
        }
        if self.bytes >= PACK {
            full.extend(self.finish());
        }
        full
    }

    fn add(&mut self, chunk: CellChunk) {
        self.bytes += chunk.row_key.len() + chunk.value.len() + BESIDE;
        self.bytes += chunk.qualifier.as_ref().map_or(0, Vec::len) + chunk.family_name.as_ref().map_or(0, String::len);
        self.chunks.push(chunk);
    }

    /// What is left, as a message.
    pub fn finish(&mut self) -> Option<ReadRowsResponse> {
        self.bytes = 0;
        let chunks = std::mem::take(&mut self.chunks);
        (!chunks.is_empty()).then(|| ReadRowsResponse { chunks, ..ReadRowsResponse::default() })
    }
}

fn weight(cell: &Cell) -> usize {
    cell.family.len() + cell.qualifier.len() + cell.value.len() + cell.label.as_ref().map_or(0, String::len) + BESIDE
}

/// Of the part of a cell that cannot be cut any further.
fn weight_of_piece(cell: &Cell) -> usize {
    weight(cell) - cell.value.len() + cell.value.len().min(PACK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    fn cell(family: &str, qualifier: &str, timestamp: i64, value: Vec<u8>) -> Cell {
        let qualifier = Bytes::copy_from_slice(qualifier.as_bytes());
        Cell { family: family.into(), qualifier, timestamp, value: Bytes::from(value), label: None }
    }

    /// What a client makes of messages: rows with their cells, by the rules of the published schema.
    fn merge(messages: &[ReadRowsResponse]) -> Vec<(Bytes, Vec<Cell>)> {
        let mut rows = Vec::new();
        let mut row: Option<(Bytes, Vec<Cell>)> = None;
        let mut cut: Option<Cell> = None;
        for message in messages {
            for (at, chunk) in message.chunks.iter().enumerate() {
                let begun = row.is_some();
                let (key, cells) = row.get_or_insert_with(|| (chunk.row_key.clone(), Vec::new()));
                assert!(begun || !chunk.row_key.is_empty(), "a row begins with its key");
                assert!(at > 0 || chunk.row_key == *key, "a message begins with the key");
                let mut cell = cut.take().unwrap_or_else(|| {
                    let last = cells.last();
                    assert!(last.is_some() || (chunk.family_name.is_some() && chunk.qualifier.is_some()));
                    assert!(chunk.family_name.is_none() || chunk.qualifier.is_some());
                    Cell {
                        family: chunk.family_name.clone().unwrap_or_else(|| last.unwrap().family.clone()),
                        qualifier: chunk.qualifier.clone().map_or_else(|| last.unwrap().qualifier.clone(), Bytes::from),
                        timestamp: chunk.timestamp_micros,
                        value: Bytes::new(),
                        label: chunk.labels.first().cloned(),
                    }
                });
                cell.value = Bytes::from([&cell.value[..], &chunk.value[..]].concat());
                if chunk.value_size > 0 {
                    assert!(chunk.row_status.is_none());
                    cut = Some(cell);
                    continue;
                }
                cells.push(cell);
                if chunk.row_status == Some(RowStatus::CommitRow(true)) {
                    rows.extend(row.take());
                }
            }
        }
        assert!(row.is_none() && cut.is_none(), "all rows are committed");
        rows
    }

    fn all(cutting: Cutting, rows: &[(Bytes, Vec<Cell>)]) -> Vec<ReadRowsResponse> {
        let mut chunker = Chunker::new(cutting);
        let mut messages: Vec<_> = rows.iter().flat_map(|(key, cells)| chunker.push(key, cells.clone())).collect();
        messages.extend(chunker.finish());
        messages
    }

    fn rows() -> Vec<(Bytes, Vec<Cell>)> {
        let key = Bytes::from_static;
        let small = |key| {
            (
                key,
                vec![
                    cell("f", "", 2, vec![1]),
                    cell("f", "", 1, vec![]),
                    cell("f", "q", 1, vec![2]),
                    cell("g", "q", 1, vec![3]),
                ],
            )
        };
        let large = vec![
            cell("f", "a", 1, vec![7; 3_500_000]),
            cell("f", "b", 1, vec![8; 3_000_000]),
            cell("g", "", 1, vec![]),
        ];
        let wide = (0..5_000).map(|at| cell("f", &format!("{at:04}"), 1, vec![5; 1_000])).collect();
        vec![small(key(b"a")), (key(b"b"), large), small(key(b"c")), (key(b"d"), wide), small(key(b"e"))]
    }

    #[test]
    fn rows_come_out_as_they_went_in() {
        for cutting in [Cutting::Never, Cutting::WithKey] {
            assert_eq!(merge(&all(cutting, &rows())), rows());
        }
        assert!(all(Cutting::Never, &[]).is_empty());
    }

    #[test]
    fn messages_are_as_large_as_clients_take() {
        let messages = all(Cutting::WithKey, &rows());
        assert!(messages.iter().all(|message| message.encoded_len() < 4 << 20));
        // A row that fits is not cut.
        let fits = [(Bytes::from_static(b"k"), vec![cell("f", "q", 1, vec![1; 3_900_000])])];
        assert_eq!(all(Cutting::WithKey, &fits).len(), 1);
        let whole = all(Cutting::Never, &rows());
        let commits =
            |message: &ReadRowsResponse| message.chunks.last().unwrap().row_status == Some(RowStatus::CommitRow(true));
        assert!(whole.iter().all(commits), "each message ends with a row");
        let many: Vec<_> = (0..50_000u32)
            .map(|at| (Bytes::copy_from_slice(&at.to_be_bytes()), vec![cell("f", "q", 1, vec![0; 100])]))
            .collect();
        assert!((5..30).contains(&all(Cutting::Never, &many).len()), "small rows go together");
    }

    #[test]
    fn who_asks_is_known_by_a_header() {
        let python = "gl-python/3.11.7 grpc/1.85.1 gax/2.44.0 gapic/2.50.2 gccl/2.50.2-data-async pb/7.36.2";
        assert_eq!(Cutting::of_client(python), Cutting::WithKey);
        for other in ["", "gl-python/3.11 gapic/2.26.0", "gl-node/20 gccl/7.1", "gl-go/1.23 gccl/2-data"] {
            assert_eq!(Cutting::of_client(other), Cutting::Never);
        }
    }
}
