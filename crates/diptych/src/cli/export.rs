//! `export`: a table into a file, which appears under its name when it is complete.
//!
//! Until then it is `FILE.part`. `--resume` cuts a torn last record off it and goes on behind its last key. CSV needs
//! its columns first, so the table is read twice; it has the newest version of each cell, and nothing for a cell that is
//! missing or empty. NDJSON has everything.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use bytes::Bytes;
use client::{Client, NamedRow};
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use model::{ColumnFilter, ReadOptions, RowRange};
use serde_json::json;

use super::args::{Export, Format};
use super::csv::{self, Lines, Record};
use super::show::{self, printable, row_to_json};
use super::{Failure, Output, file, parse};

/// Columns of a CSV file.
const COLUMNS: usize = 10_000;

pub async fn run(client: &Client, args: &Export, out: &mut Output) -> Result<(), Failure> {
    let standard = file::is_standard(&args.file);
    let format = match (standard, args.format) {
        (true, None) => Format::Ndjson,
        _ => file::format(&args.file, args.format)?,
    };
    if format != Format::Ndjson && args.versions > 1 {
        return Err(Failure::usage("CSV has room for one version of a cell").hint("use --format ndjson"));
    }
    if standard && args.resume {
        return Err(Failure::usage("--resume goes on with a file, not with stdout"));
    }
    if !standard && !args.overwrite && args.file.exists() {
        return Err(Failure::failed(format!("{} is there already", args.file.display()))
            .hint("choose another name, or replace it with --overwrite"));
    }
    client.table(&args.table).await?;
    let begun = Instant::now();
    let part = file::beside(&args.file, ".part");
    let mut writer = match standard {
        true => Writer::new(Box::new(io::stdout()), format, args),
        false => Writer::open(&part, format, args)?,
    };
    let bar = bar();
    writer.copy(client, args, &bar).await.map_err(|failure| match standard || !failure.hint.is_empty() {
        true => failure,
        false => failure.hint("the same command with --resume goes on"),
    })?;
    bar.finish_and_clear();
    if standard {
        return Ok(());
    }
    let done = File::open(&part).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&part, &args.file));
    done.map_err(|error| Failure::file("complete", &args.file, &error))?;
    let json = json!({
        "table": args.table,
        "file": args.file.display().to_string(),
        "rows": writer.rows,
        "resumed_after": writer.resumed,
        "seconds": begun.elapsed().as_secs_f64(),
    });
    let text = format!("{} of table {} in {}", show::rows(writer.rows), args.table, args.file.display());
    Ok(out.say(json, text)?)
}

struct Writer {
    out: BufWriter<Box<dyn Write>>,
    format: Format,
    path: PathBuf,
    key: String,
    /// The columns of a CSV file, sorted, if its header is written.
    columns: Option<Vec<(String, Bytes)>>,
    /// The last key that is written.
    last: Option<Bytes>,
    rows: u64,
    resumed: u64,
}

impl Writer {
    fn new(out: Box<dyn Write>, format: Format, args: &Export) -> Writer {
        Writer {
            out: BufWriter::with_capacity(256 << 10, out),
            format,
            path: args.file.clone(),
            key: args.key.clone(),
            columns: None,
            last: None,
            rows: 0,
            resumed: 0,
        }
    }

    /// A new file, or one that goes on.
    fn open(part: &Path, format: Format, args: &Export) -> Result<Writer, Failure> {
        let failed = |error: io::Error| Failure::file("write", part, &error);
        let resume = args.resume && part.exists();
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(!resume).open(part).map_err(failed)?;
        if !resume {
            return Ok(Writer::new(Box::new(file), format, args));
        }
        let written = Written::read(BufReader::new(file.try_clone().map_err(failed)?), format)?;
        file.set_len(written.end).and_then(|()| file.seek(io::SeekFrom::End(0))).map_err(failed)?;
        if written.rows > 0 {
            eprintln!("resuming {}: {} in already", part.display(), show::rows_are(written.rows));
        }
        let Written { columns, last, rows, .. } = written;
        Ok(Writer { columns, last, rows, resumed: rows, ..Writer::new(Box::new(file), format, args) })
    }

    async fn copy(&mut self, client: &Client, args: &Export, bar: &ProgressBar) -> Result<(), Failure> {
        let family = |family: &String| ColumnFilter { family: family.clone(), qualifier: None };
        let options = ReadOptions {
            columns: args.family.iter().map(family).collect(),
            versions: args.versions,
            ..ReadOptions::default()
        };
        let prefix = args.prefix.as_deref().map_or_else(RowRange::default, RowRange::prefix);
        if self.format != Format::Ndjson && self.columns.is_none() {
            bar.set_message("looking for columns");
            let columns = find_columns(client, args, prefix.clone(), options.clone()).await?;
            let names: Vec<String> = columns.iter().map(name).collect();
            let names = std::iter::once(self.key.as_str()).chain(names.iter().map(String::as_str));
            let header = csv::write(&mut self.out, delimiter(self.format), names);
            header.map_err(|error| self.failed(error))?;
            self.columns = Some(columns);
        }
        let start = self.last.take().map_or_else(Bytes::new, after);
        let range = prefix.intersect(&RowRange { start, end: None });
        let mut rows = client.scan(&args.table, range, options, None);
        while let Some(row) = rows.next().await {
            self.row(&row?)?;
            self.rows += 1;
            if self.rows.is_multiple_of(100) {
                bar.set_message(show::rows(self.rows));
                bar.tick();
            }
        }
        self.out.flush().map_err(|error| self.failed(error))
    }

    fn row(&mut self, row: &NamedRow) -> Result<(), Failure> {
        let Some(columns) = &self.columns else {
            return writeln!(self.out, "{}", row_to_json(row)).map_err(|error| self.failed(error));
        };
        let key = text(&row.key, || format!("the row key {}", printable(&row.key)))?;
        let mut fields = vec![""; columns.len() + 1];
        fields[0] = key;
        for cell in &row.cells {
            let order =
                |(family, qualifier): &(String, Bytes)| (family, qualifier).cmp(&(&cell.family, &cell.qualifier));
            let Ok(at) = columns.binary_search_by(order) else {
                let message = format!("row {key} has a column that was not there before: {}", show::column_name(cell));
                return Err(
                    Failure::failed(message).hint("begin anew, or use --format ndjson, which needs no list of columns")
                );
            };
            fields[at + 1] = text(&cell.value, || format!("{} of row {key}", show::column_name(cell)))?;
        }
        csv::write(&mut self.out, delimiter(self.format), fields).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::from(error),
            _ => Failure::file("write", &self.path, &error),
        }
    }
}

/// What a file that was interrupted holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Written {
    columns: Option<Vec<(String, Bytes)>>,
    last: Option<Bytes>,
    rows: u64,
    /// Bytes up to the end of the last complete record.
    end: u64,
}

impl Written {
    fn read(input: impl io::BufRead, format: Format) -> Result<Written, Failure> {
        match format {
            Format::Ndjson => Written::read_json(input),
            Format::Csv | Format::Tsv => Written::read_csv(input, delimiter(format)),
        }
    }

    fn read_json(input: impl io::BufRead) -> Result<Written, Failure> {
        let (mut lines, mut line, mut written) = (Lines::new(input), Vec::new(), Written::default());
        loop {
            line.clear();
            if !lines.next(&mut line).map_err(unreadable)? || line.last() != Some(&b'\n') {
                return Ok(written);
            }
            let row = serde_json::from_slice(&line)
                .map_err(|error| error.to_string())
                .and_then(|row| show::row_from_json(&row));
            let row = row.map_err(|what| unreadable(lines.problem(what)))?;
            written = Written { last: Some(row.key), rows: written.rows + 1, end: lines.offset, columns: None };
        }
    }

    fn read_csv(input: impl io::BufRead, delimiter: u8) -> Result<Written, Failure> {
        let (mut reader, mut record) = (csv::Reader::new(input, delimiter), Record::default());
        let mut written = Written::default();
        // The last record may be torn anywhere, also where it still looks like one: only one with another behind it
        // counts.
        let mut before: Option<(Vec<String>, u64)> = None;
        while let Ok(Some(())) = reader.next(&mut record) {
            let fields = record.fields().map(String::from).collect();
            if let Some((fields, end)) = before.replace((fields, reader.offset())) {
                written.add(fields, end)?;
            }
        }
        Ok(written)
    }

    /// The header or a row, which ends there.
    fn add(&mut self, fields: Vec<String>, end: u64) -> Result<(), Failure> {
        self.end = end;
        let mut fields = fields.into_iter();
        let first = fields.next().unwrap_or_default();
        if self.columns.is_some() {
            (self.last, self.rows) = (Some(Bytes::from(first)), self.rows + 1);
            return Ok(());
        }
        let column = |name: String| match parse::one_column(&name) {
            Ok(column) => Ok((column.family, column.qualifier.unwrap_or_default())),
            Err(what) => Err(unreadable(csv::Problem { line: 1, what })),
        };
        self.columns = Some(fields.map(column).collect::<Result<_, _>>()?);
        Ok(())
    }
}

fn unreadable(problem: csv::Problem) -> Failure {
    let message = format!("cannot go on with the .part file: line {}: {}", problem.line, problem.what);
    Failure::failed(message).hint("leave --resume out to begin anew")
}

async fn find_columns(
    client: &Client,
    args: &Export,
    range: RowRange,
    options: ReadOptions<String>,
) -> Result<Vec<(String, Bytes)>, Failure> {
    let mut columns = BTreeSet::new();
    let mut rows = client.scan(&args.table, range, options, None);
    while let Some(row) = rows.next().await {
        columns.extend(row?.cells.into_iter().map(|cell| (cell.family, cell.qualifier)));
        if columns.len() > COLUMNS {
            let message = format!("the table has more than {COLUMNS} columns, too many for CSV");
            return Err(Failure::failed(message).hint("use --format ndjson"));
        }
    }
    Ok(columns.into_iter().collect())
}

fn name((family, qualifier): &(String, Bytes)) -> String {
    format!("{family}:{}", printable(qualifier))
}

fn delimiter(format: Format) -> u8 {
    if format == Format::Tsv { b'\t' } else { b',' }
}

/// The first key behind this one.
fn after(key: Bytes) -> Bytes {
    let mut next = key.to_vec();
    next.push(0);
    Bytes::from(next)
}

fn text(bytes: &[u8], what: impl FnOnce() -> String) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| {
        Failure::failed(format!("{} is no text, and CSV holds text only", what())).hint("use --format ndjson")
    })
}

fn bar() -> ProgressBar {
    ProgressBar::no_length()
        .with_style(ProgressStyle::with_template("{spinner} {msg}  {elapsed}").expect("the template is ours"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that was cut anywhere goes on behind its last complete record.
    #[test]
    fn a_cut_file_goes_on_behind_its_last_complete_record() {
        let text = "row,f:a,f:b\nk1,1,\"x\ny\"\nk2,2,\nk3,3,\n";
        let at = |end: usize| Written::read(&text.as_bytes()[..end], Format::Csv).unwrap();
        let columns =
            Some(vec![("f".to_string(), Bytes::from_static(b"a")), ("f".to_string(), Bytes::from_static(b"b"))]);
        for end in 0..=text.len() {
            let written = at(end);
            assert!(written.end as usize <= end && text.is_char_boundary(written.end as usize));
            assert!(written.end == 0 || text.as_bytes()[written.end as usize - 1] == b'\n', "cut at {end}");
            assert_eq!(written.columns, (written.end > 0).then(|| columns.clone()).flatten());
        }
        let whole = at(text.len());
        assert_eq!((whole.rows, whole.last), (2, Some(Bytes::from_static(b"k2"))), "the last one may be torn");
        let json = "{\"row\":\"a\",\"cells\":{}}\n{\"row\":\"b\",\"ce";
        let written = Written::read(json.as_bytes(), Format::Ndjson).unwrap();
        assert_eq!((written.rows, written.last, written.end), (1, Some(Bytes::from_static(b"a")), 23));
    }
}
