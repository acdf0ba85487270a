//! Rows out of a file: CSV under a header, flat JSON objects, or rows as `export` writes them.
//!
//! A CSV column or JSON field is a column of the table: `family:qualifier` if its name says so and the table has the
//! family, else a qualifier of `--family`. The key column is the row key and nothing else. Empty CSV fields and JSON
//! nulls are no cells.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use bytes::Bytes;
use model::{Change, Mutation, Schema, Timestamp};
use serde_json::Value;

use super::name;
use crate::cli::args::{Format, Import};
use crate::cli::csv::{self, Lines, Problem, Record};
use crate::cli::parse::{self, Column};
use crate::cli::{Failure, file, show};

/// An open file or stdin.
pub struct Input {
    name: String,
    size: Option<u64>,
    read: Box<dyn BufRead>,
}

impl Input {
    /// Opens it.
    pub fn open(path: &Path) -> Result<Input, Failure> {
        let name = name(path);
        if file::is_standard(path) {
            return Ok(Input { name, size: None, read: Box::new(BufReader::new(io::stdin())) });
        }
        let failed = |error: io::Error| Failure::file("read", path, &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::failed(format!("{name} is a folder, not a file")));
        }
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Input { name, size, read: Box::new(BufReader::with_capacity(256 << 10, file)) })
    }
}

/// A row of the file.
#[derive(Debug)]
pub struct SourceRow {
    /// May have no changes, if the row has no values.
    pub mutation: Mutation<String>,
    /// On which line it begins.
    pub line: u64,
    /// At which byte the next one begins.
    pub end: u64,
}

/// Where rows come from.
pub struct Source {
    name: String,
    size: Option<u64>,
    columns: Columns,
    rows: Rows,
}

enum Rows {
    Csv {
        reader: csv::Reader<Box<dyn BufRead>>,
        record: Record,
        /// Number of the key column.
        key: usize,
        /// What each column is; `None` for the key.
        fields: Vec<Option<(String, Bytes)>>,
    },
    Json {
        lines: Lines<Box<dyn BufRead>>,
        line: Vec<u8>,
        /// `None` for rows as `export` writes them.
        key: Option<String>,
    },
}

/// How names become columns.
struct Columns {
    families: Vec<String>,
    family: Option<String>,
    timestamp: Timestamp,
}

impl Source {
    /// Reads the header, if there is one.
    pub fn new(input: Input, format: Format, args: &Import, schema: &Schema) -> Result<Source, Failure> {
        let columns = Columns {
            families: schema.families.iter().map(|family| family.name.clone()).collect(),
            family: args.family.clone(),
            timestamp: args.timestamp.map_or(Timestamp::SERVER, Timestamp),
        };
        let Input { name, size, read } = input;
        let rows = match format {
            Format::Csv | Format::Tsv => {
                let delimiter = if format == Format::Csv { b',' } else { b'\t' };
                with_header(csv::Reader::new(read, delimiter), &name, args.key.as_deref(), &columns)?
            }
            Format::Ndjson => Rows::Json { lines: Lines::new(read), line: Vec::new(), key: args.key.clone() },
        };
        Ok(Source { name, size, columns, rows })
    }

    /// Bytes of the whole file, if it has an end.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Names a line in a message.
    pub fn at(&self, line: u64, what: &str) -> String {
        format!("{} line {line}: {what}", self.name)
    }

    /// The next row; `None` at the end.
    pub fn next(&mut self) -> Result<Option<SourceRow>, Failure> {
        let row = match &mut self.rows {
            Rows::Csv { reader, record, key, fields } => csv_row(reader, record, *key, fields, &self.columns),
            Rows::Json { lines, line, key } => json_row(lines, line, key.as_deref(), &self.columns),
        };
        row.map_err(|problem| Failure::failed(self.at(problem.line, &problem.what)).hint("correct it and import again"))
    }
}

impl Columns {
    fn column(&self, name: &str) -> Result<(String, Bytes), String> {
        if let Some((family, _)) = name.split_once(':')
            && (self.family.is_none() || self.families.iter().any(|known| known == family))
            && let Column { family, qualifier: Some(qualifier) } = parse::column(name)?
        {
            return Ok((family, qualifier));
        }
        match &self.family {
            Some(family) => Ok((family.clone(), Bytes::copy_from_slice(name.as_bytes()))),
            None => Err(format!("the column {name:?} names no family; give --family, or call it family:{name}")),
        }
    }

    fn put(&self, (family, qualifier): (String, Bytes), value: Bytes) -> Change<String> {
        Change::Put { family, qualifier, timestamp: self.timestamp, value }
    }
}

fn with_header(
    mut reader: csv::Reader<Box<dyn BufRead>>,
    name: &str,
    key: Option<&str>,
    columns: &Columns,
) -> Result<Rows, Failure> {
    let mut record = Record::default();
    let header = reader.next(&mut record);
    let header =
        header.map_err(|problem| Failure::failed(format!("{name} line {}: {}", problem.line, problem.what)))?;
    if header.is_none() {
        return Err(Failure::failed(format!("{name} is empty; its first line has to name the columns")));
    }
    let names: Vec<&str> = record.fields().map(str::trim).collect();
    let listed = || format!("its columns are: {}", names.join(", "));
    let Some(key) = key else {
        return Err(Failure::usage("a CSV file needs --key COLUMN, the column with the row key").hint(listed()));
    };
    let Some(key) = names.iter().position(|column| *column == key) else {
        return Err(Failure::failed(format!("{name} has no column {key:?} for the key")).hint(listed()));
    };
    let mut sorted = names.clone();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Failure::failed(format!("{name} line {}: two columns are called {:?}", record.line, twice[0])));
    }
    let field = |(at, column): (usize, &&str)| match at == key {
        true => Ok(None),
        false => columns.column(column).map(Some),
    };
    let fields: Result<Vec<_>, String> = names.iter().enumerate().map(field).collect();
    let fields = fields.map_err(|why| Failure::failed(format!("{name}: {why}")).hint(listed()))?;
    Ok(Rows::Csv { reader, record, key, fields })
}

fn csv_row(
    reader: &mut csv::Reader<Box<dyn BufRead>>,
    record: &mut Record,
    key: usize,
    fields: &[Option<(String, Bytes)>],
    columns: &Columns,
) -> Result<Option<SourceRow>, Problem> {
    if reader.next(record)?.is_none() {
        return Ok(None);
    }
    let line = record.line;
    let have = record.fields().len();
    if have != fields.len() {
        let what = format!("{have} fields where the first line names {} columns; is a quote missing?", fields.len());
        return Err(Problem { line, what });
    }
    let row = row_key(record.field(key).unwrap_or_default().as_bytes(), line)?;
    let cell = |(value, column): (&str, &Option<(String, Bytes)>)| match column {
        Some(column) if !value.is_empty() => {
            Some(columns.put(column.clone(), Bytes::copy_from_slice(value.as_bytes())))
        }
        _ => None,
    };
    let changes = record.fields().zip(fields).filter_map(cell).collect();
    Ok(Some(SourceRow { mutation: Mutation { row, condition: None, changes }, line, end: reader.offset() }))
}

fn json_row(
    lines: &mut Lines<Box<dyn BufRead>>,
    text: &mut Vec<u8>,
    key: Option<&str>,
    columns: &Columns,
) -> Result<Option<SourceRow>, Problem> {
    loop {
        text.clear();
        if !lines.next(text)? {
            return Ok(None);
        }
        if !text.iter().all(u8::is_ascii_whitespace) {
            break;
        }
    }
    let problem = |what: String| lines.problem(what);
    let value: Value = serde_json::from_slice(text).map_err(|error| {
        problem(match std::str::from_utf8(text) {
            Ok(_) => format!("no JSON object: {error}"),
            Err(error) => format!("invalid UTF-8 at byte {} of the line", error.valid_up_to()),
        })
    })?;
    let (row, changes) = match key {
        Some(key) => flat(&value, key, columns),
        None => show::row_from_json(&value).map(|row| {
            let put = |cell: wire::NamedCell| {
                let timestamp = match columns.timestamp {
                    Timestamp::SERVER => cell.timestamp,
                    chosen => chosen,
                };
                Change::Put { family: cell.family, qualifier: cell.qualifier, timestamp, value: cell.value }
            };
            (row.key, row.cells.into_iter().map(put).collect())
        }),
    }
    .map_err(problem)?;
    let row = row_key(&row, lines.line)?;
    let mutation = Mutation { row, condition: None, changes };
    Ok(Some(SourceRow { mutation, line: lines.line, end: lines.offset }))
}

/// An object whose fields are columns; what is no string is kept as its JSON.
fn flat(value: &Value, key: &str, columns: &Columns) -> Result<(Bytes, Vec<Change<String>>), String> {
    let object = value.as_object().ok_or("no JSON object")?;
    let listed = || object.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let row = object.get(key).ok_or_else(|| format!("no field {key:?} for the key; there are: {}", listed()))?;
    let row = scalar(row).ok_or_else(|| format!("the field {key:?} is null; the row key needs a value"))?;
    let mut changes = Vec::new();
    for (name, value) in object {
        if name != key
            && let Some(value) = scalar(value)
        {
            changes.push(columns.put(columns.column(name)?, value));
        }
    }
    Ok((row, changes))
}

fn scalar(value: &Value) -> Option<Bytes> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        Value::Object(_) if show::bytes_from_json(value).is_ok() => show::bytes_from_json(value).ok(),
        other => Some(Bytes::from(other.to_string())),
    }
}

fn row_key(key: &[u8], line: u64) -> Result<Bytes, Problem> {
    model::limits::check_row_key(key).map_err(|what| Problem { line, what })?;
    Ok(Bytes::copy_from_slice(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Exit;
    use crate::cli::args::OnDuplicate;
    use model::{Family, FamilyId, Partition, Retention, TableId};

    fn schema() -> Schema {
        let family = |id, name: &str| Family {
            id: FamilyId(id),
            name: name.into(),
            retention: Retention::Keep,
            loosened: false,
            locality: model::LocalityId(0),
            aggregate: None,
        };
        Schema {
            table: TableId(1),
            name: "airports".into(),
            version: 1,
            families: vec![family(1, "info"), family(2, "geo")],
            next_family: FamilyId(3),
            partition: Partition::Hash { tablets: 2 },
            replicas: 2,
            min_replicas: 1,
            storage: model::Storage::default(),
            settings: model::Settings::default(),
        }
    }

    fn source(text: &'static [u8], format: Format, key: Option<&str>, family: Option<&str>) -> Result<Source, Failure> {
        let args = Import {
            table: "airports".into(),
            file: "f".into(),
            key: key.map(String::from),
            family: family.map(String::from),
            format: Some(format),
            on_duplicate: OnDuplicate::Last,
            timestamp: None,
            no_resume: false,
            window: 1,
        };
        let input = Input { name: "f".into(), size: None, read: Box::new(text) };
        Source::new(input, format, &args, &schema())
    }

    /// Key, cells, line, and where the next row begins.
    type Found = (String, Vec<String>, u64, u64);

    fn rows(source: Result<Source, Failure>) -> Result<Vec<Found>, Failure> {
        let (mut source, mut all) = (source?, Vec::new());
        while let Some(row) = source.next()? {
            let change = |change: &Change<String>| match change {
                Change::Put { family, qualifier, value, .. } => {
                    format!("{family}:{}={}", show::printable(qualifier), show::printable(value))
                }
                other => format!("{other:?}"),
            };
            let changes = row.mutation.changes.iter().map(change).collect();
            all.push((show::printable(&row.mutation.row), changes, row.line, row.end));
        }
        Ok(all)
    }

    #[test]
    fn csv_columns_become_cells_of_their_family() {
        let text = b"name,iata,geo:lat,x:y\nLos Angeles,LAX,33.9,1\n\n,SFO,,\n";
        let found = rows(source(text, Format::Csv, Some("iata"), Some("info"))).unwrap();
        let cells: Vec<String> = ["info:name=Los Angeles", "geo:lat=33.9", "info:x:y=1"].map(String::from).into();
        assert_eq!(found, [("LAX".into(), cells, 2, 45), ("SFO".into(), vec![], 4, 53)]);
    }

    /// Issue 2, "Bad input": each is a line that says what and where.
    #[test]
    fn bad_csv_is_told_with_its_line() {
        let told = |text, key, family| rows(source(text, Format::Csv, key, family)).expect_err("it is bad");
        let missing = told(b"a,b\n1,2\n", Some("iata"), Some("info"));
        assert_eq!((missing.exit, missing.hint.as_str()), (Exit::Failed, "its columns are: a, b"));
        assert_eq!(told(b"a,b\n1,2\n", None, Some("info")).exit, Exit::Usage);
        assert!(told(b"a,b\n1,2\n", Some("a"), None).message.contains("\"b\" names no family"));
        assert!(told(b"a,b,b\n1,2,3\n", Some("a"), Some("info")).message.contains("two columns"));
        assert!(told(b"a,b\n1,2,3\n", Some("a"), Some("info")).message.starts_with("f line 2: 3 fields"));
        assert!(told(b"a,b\n1,2\n,2\n", Some("a"), Some("info")).message.starts_with("f line 3: the row key is empty"));
        assert!(told(b"a,b\n1,\"2\n", Some("a"), Some("info")).message.starts_with("f line 2: broken quoting"));
        assert!(told(b"a,b\n1,\xff\n", Some("a"), Some("info")).message.starts_with("f line 2: invalid UTF-8"));
        assert!(told(b"", Some("a"), Some("info")).message.contains("empty"));
    }

    #[test]
    fn json_is_flat_or_as_exported() {
        let flat =
            br#"{"iata": "LAX", "name": "Los Angeles", "geo:lat": 33.9, "none": null, "raw": {"base64": "/w=="}}"#;
        let found = rows(source(flat, Format::Ndjson, Some("iata"), Some("info"))).unwrap();
        let mut cells = found[0].1.clone();
        cells.sort();
        assert_eq!(cells, ["geo:lat=33.9", "info:name=Los Angeles", "info:raw=\\xff"]);
        let exported = b"\n{\"row\": \"LAX\", \"cells\": {\"info:note\": [{\"value\": \"busy\", \"timestamp\": 7}]}}\n";
        let mut found = source(exported, Format::Ndjson, None, None).unwrap();
        let row = found.next().unwrap().expect("there is one");
        assert!(matches!(&row.mutation.changes[..], [Change::Put { timestamp: Timestamp(7), .. }]));
        assert!(rows(source(b"{\"a\": 1}\n", Format::Ndjson, Some("iata"), Some("info"))).is_err());
        assert!(rows(source(b"[1]\n", Format::Ndjson, Some("iata"), Some("info"))).is_err());
        assert!(rows(source(b"{\n", Format::Ndjson, None, None)).is_err());
    }
}
