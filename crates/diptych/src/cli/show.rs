//! What commands write on stdout: lines for people, or JSON.
//!
//! A row is the same JSON here, in files and over HTTP: `{"row": "LAX", "cells": {"info:note": [{"value": "busy",
//! "timestamp": 1732276800000000}]}}`. Bytes that are UTF-8 are a string, others `{"base64": …}`. A column's name is
//! text always: other bytes, control characters and the backslash are `\xNN` in it.

use std::io::{self, BufWriter, Stdout, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use model::{Freshness, Timestamp};
use serde_json::{Map, Value, json};
use wire::{NamedCell, NamedRow};

use super::parse;

/// Stdout, as text or JSON. Flush it before the command ends.
pub struct Output {
    /// JSON instead of text?
    pub json: bool,
    out: BufWriter<Stdout>,
}

impl Output {
    /// For one command.
    pub fn new(json: bool) -> Output {
        Output { json, out: BufWriter::with_capacity(64 << 10, io::stdout()) }
    }

    /// A line.
    pub fn line(&mut self, line: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{line}")
    }

    /// A line of JSON, or of text for people.
    pub fn say(&mut self, value: Value, text: impl std::fmt::Display) -> io::Result<()> {
        if self.json { self.line(value) } else { self.line(text) }
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    /// Columns under their names; those whose name ends in `#` hold numbers.
    pub fn table(&mut self, names: &[&str], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(names.iter().map(|name| name.trim_end_matches('#').to_uppercase()));
        table.add_rows(rows);
        for (at, name) in names.iter().enumerate() {
            if let Some(column) = table.column_mut(at) {
                column.set_padding((0, 2));
                if name.ends_with('#') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// A row of an eventual read: its JSON says by whom and how old.
    pub fn row_from(&mut self, row: &NamedRow, from: Option<&Freshness>) -> io::Result<()> {
        match from {
            Some(from) if self.json => {
                let mut value = row_to_json(row);
                value["from"] = freshness_to_json(from);
                self.line(value)
            }
            _ => self.row(row),
        }
    }

    /// A row: a line of JSON, or a line for each cell.
    pub fn row(&mut self, row: &NamedRow) -> io::Result<()> {
        if self.json {
            return self.line(row_to_json(row));
        }
        let key = printable(&row.key);
        let width = row.cells.iter().map(|cell| column_name(cell).chars().count()).max().unwrap_or(0);
        for cell in &row.cells {
            let column = column_name(cell);
            writeln!(self.out, "{key}  {column:width$}  @{}  {}", cell.timestamp, printable(&cell.value))?;
        }
        Ok(())
    }

    /// The values alone, with a newline between two of them; `first` says whether none came before.
    pub fn values(&mut self, row: &NamedRow, first: &mut bool) -> io::Result<()> {
        for cell in &row.cells {
            if !std::mem::take(first) {
                self.raw(b"\n")?;
            }
            self.raw(&cell.value)?;
        }
        Ok(())
    }

    /// Everything is out when it returns.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub use model::text::escaped as printable;

/// `family:qualifier`.
pub fn column_name(cell: &NamedCell) -> String {
    format!("{}:{}", cell.family, printable(&cell.qualifier))
}

/// A string if it is text.
pub fn bytes_to_json(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}

/// Reads what [`bytes_to_json`] writes.
pub fn bytes_from_json(value: &Value) -> Result<Bytes, String> {
    match value {
        Value::String(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        Value::Object(object) if object.len() == 1 => match object.get("base64") {
            Some(Value::String(text)) => STANDARD.decode(text).map(Bytes::from).map_err(|why| format!("base64: {why}")),
            _ => Err(String::from("expected a string or {\"base64\": …}")),
        },
        _ => Err(String::from("expected a string or {\"base64\": …}")),
    }
}

/// A version of a column.
pub fn version_to_json(value: &[u8], timestamp: Timestamp) -> Value {
    json!({"value": bytes_to_json(value), "timestamp": timestamp.0})
}

/// A row as it is everywhere.
pub fn row_to_json(row: &NamedRow) -> Value {
    let mut cells = Map::new();
    for cell in &row.cells {
        let versions = cells.entry(column_name(cell)).or_insert_with(|| json!([]));
        if let Value::Array(versions) = versions {
            versions.push(version_to_json(&cell.value, cell.timestamp));
        }
    }
    json!({"row": bytes_to_json(&row.key), "cells": cells})
}

/// The date and time in UTC, to the millisecond: `2026-11-27 22:24:48.123`.
pub fn date(at: Timestamp) -> String {
    let (seconds, millis) = (at.0.div_euclid(1_000_000), at.0.rem_euclid(1_000_000) / 1_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since the first of March of the year 0, in cycles of 400 years (the proleptic Gregorian calendar).
    let days = days + 719_468;
    let (cycle, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = cycle * 400 + year + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{millis:03}")
}

/// Who answered an eventual read, and how old the answer may be.
pub fn freshness_to_json(from: &Freshness) -> Value {
    json!({
        "node": from.node.to_string(),
        "position": {"epoch": from.epoch.0, "lsn": from.applied.0},
        "lag_us": from.lag.map(|lag| u64::try_from(lag.as_micros()).unwrap_or(u64::MAX)),
        "behind": from.behind,
    })
}

/// Reads what [`row_to_json`] writes. A version without a timestamp gets the primary's time.
pub fn row_from_json(value: &Value) -> Result<NamedRow, String> {
    let row = value.get("row").ok_or("the object has no \"row\"")?;
    let key = bytes_from_json(row).map_err(|why| format!("\"row\": {why}"))?;
    let columns =
        value.get("cells").and_then(Value::as_object).ok_or("the object has no \"cells\" that are an object")?;
    let mut cells = Vec::new();
    for (name, versions) in columns {
        let column = parse::one_column(name)?;
        let versions = versions.as_array().ok_or_else(|| format!("{name:?} is no list of versions"))?;
        for version in versions {
            let value = version.get("value").ok_or_else(|| format!("a version of {name:?} has no \"value\""))?;
            let timestamp = match version.get("timestamp") {
                None | Some(Value::Null) => Timestamp::SERVER,
                Some(stamp) => match stamp.as_i64() {
                    Some(micros) if micros >= 0 => Timestamp(micros),
                    _ => {
                        return Err(format!(
                            "a version of {name:?} has a \"timestamp\" that is no number of microseconds"
                        ));
                    }
                },
            };
            cells.push(NamedCell {
                family: column.family.clone(),
                qualifier: column.qualifier.clone().unwrap_or_default(),
                timestamp,
                value: bytes_from_json(value).map_err(|why| format!("a value of {name:?}: {why}"))?,
            });
        }
    }
    Ok(NamedRow { key, cells })
}

/// Bytes in a unit that people read.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let step = (0..4).find(|step| bytes >> (10 * (step + 1)) == 0).unwrap_or(4);
    if step == 0 {
        format!("{bytes} B")
    } else {
        format!("{:.1} {}", bytes as f64 / f64::from(1 << (10 * step)), units[step])
    }
}

/// A number with commas between its thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row is`, `2 rows are`.
pub fn rows_are(number: u64) -> String {
    format!("{} {}", rows(number), if number == 1 { "is" } else { "are" })
}

/// `1 row`, `2 rows`, `3,376 rows`.
pub fn rows(number: u64) -> String {
    if number == 1 { String::from("1 row") } else { format!("{} rows", count(number)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(family: &str, qualifier: &[u8], timestamp: i64, value: &[u8]) -> NamedCell {
        NamedCell {
            family: family.into(),
            qualifier: Bytes::copy_from_slice(qualifier),
            timestamp: Timestamp(timestamp),
            value: Bytes::copy_from_slice(value),
        }
    }

    /// architecture.md 5: the shape of a row.
    #[test]
    fn dates_are_those_of_the_calendar() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00.000"),
            (951_782_400_000_000, "2000-02-29 00:00:00.000"),
            (1_795_818_288_123_456, "2026-11-27 22:24:48.123"),
            (-1, "1969-12-31 23:59:59.999"),
            (4_107_542_399_999_999, "2100-02-28 23:59:59.999"),
        ] {
            assert_eq!(date(Timestamp(micros)), text);
        }
    }

    #[test]
    fn a_row_is_this_json() {
        let row =
            NamedRow { key: Bytes::from_static(b"LAX"), cells: vec![cell("info", b"note", 1732276800000000, b"busy")] };
        let expected =
            json!({"row": "LAX", "cells": {"info:note": [{"value": "busy", "timestamp": 1732276800000000_i64}]}});
        assert_eq!(row_to_json(&row), expected);
    }

    #[test]
    fn any_row_comes_back_from_json() {
        let row = NamedRow {
            key: Bytes::from_static(b"\xff\x00"),
            cells: vec![
                cell("a", b"", 2, b"\xfe"),
                cell("a", b"q:\\\x01\xff", 9, b"new"),
                cell("a", b"q:\\\x01\xff", 3, b"old"),
                cell("b", "ü".as_bytes(), 0, b""),
            ],
        };
        assert_eq!(row_from_json(&row_to_json(&row)), Ok(row));
    }

    #[test]
    fn other_json_is_no_row() {
        for text in [
            r#"{}"#,
            r#"{"row": 5, "cells": {}}"#,
            r#"{"row": "a"}"#,
            r#"{"row": "a", "cells": {"f": []}}"#,
            r#"{"row": "a", "cells": {"f:q": {}}}"#,
            r#"{"row": "a", "cells": {"f:q": [{}]}}"#,
            r#"{"row": "a", "cells": {"f:q": [{"value": "x", "timestamp": -1}]}}"#,
            r#"{"row": {"base64": "?"}, "cells": {}}"#,
            r#"[]"#,
        ] {
            assert!(row_from_json(&serde_json::from_str(text).unwrap()).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([count(0), count(999), count(3376), count(1234567)], ["0", "999", "3,376", "1,234,567"]);
        assert_eq!([size(0), size(1023), size(1536), size(5 << 30)], ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
    }
}
