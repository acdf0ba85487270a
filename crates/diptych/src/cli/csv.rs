//! CSV as RFC 4180 has it, read strictly: what is broken is an error with its line, never a guess.
//!
//! Fields are separated by a comma (or a tab), records by a newline with or without a carriage return. A field in
//! quotes may hold all of these, and a quote as two quotes. Text is UTF-8; a byte order mark at the start is skipped.
//! Empty lines are passed over. Memory is bounded by the largest row that a table takes.

use std::io::{self, BufRead, Read, Write};

use model::limits;

use super::failure::reason;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1.
    pub line: u64,
    /// In words.
    pub what: String,
}

/// A file, line by line, with its position.
pub struct Lines<R> {
    input: R,
    /// Bytes that have been read.
    pub offset: u64,
    /// Lines that have been read.
    pub line: u64,
}

impl<R: BufRead> Lines<R> {
    /// From the start of a file.
    pub fn new(input: R) -> Lines<R> {
        Lines { input, offset: 0, line: 0 }
    }

    /// Appends the next line with its newline to `into`; false at the end. `into` may become as long as a row may.
    pub fn next(&mut self, into: &mut Vec<u8>) -> Result<bool, Problem> {
        let (before, first) = (into.len(), self.offset == 0);
        let room = (limits::ROW as u64 + 1).saturating_sub(before as u64);
        let read = self.input.by_ref().take(room).read_until(b'\n', into);
        self.line += 1;
        let read = read.map_err(|error| self.problem(format!("cannot read on: {}", reason(&error))))?;
        self.offset += read as u64;
        if into.len() > limits::ROW {
            return Err(self.problem(format!("a row of more than {} bytes; is a quote never closed?", limits::ROW)));
        }
        if first && into[before..].starts_with(b"\xef\xbb\xbf") {
            into.drain(before..before + 3);
        }
        Ok(read > 0)
    }

    /// About the line that was read last.
    pub fn problem(&self, what: impl Into<String>) -> Problem {
        Problem { line: self.line.max(1), what: what.into() }
    }
}

/// A record's fields.
#[derive(Debug, Default)]
pub struct Record {
    text: String,
    ends: Vec<usize>,
    /// Line on which it begins.
    pub line: u64,
}

impl Record {
    /// In order.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.ends.len()).map(|at| {
            let start = if at == 0 { 0 } else { self.ends[at - 1] };
            &self.text[start..self.ends[at]]
        })
    }

    /// The field of that number, from 0.
    pub fn field(&self, at: usize) -> Option<&str> {
        self.fields().nth(at)
    }
}

/// Reads records.
pub struct Reader<R> {
    lines: Lines<R>,
    delimiter: u8,
    raw: Vec<u8>,
}

/// Where in a field the next byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Start,
    Plain,
    Quoted,
    /// Behind a quote within quotes: the first of two, or the last.
    AfterQuote,
}

impl<R: BufRead> Reader<R> {
    /// From the start of a file.
    pub fn new(input: R, delimiter: u8) -> Reader<R> {
        Reader { lines: Lines::new(input), delimiter, raw: Vec::new() }
    }

    /// Bytes that have been read: after a record, where the next one begins.
    pub fn offset(&self) -> u64 {
        self.lines.offset
    }

    /// The next record; `None` at the end.
    pub fn next(&mut self, record: &mut Record) -> Result<Option<()>, Problem> {
        self.raw.clear();
        loop {
            if !self.lines.next(&mut self.raw)? {
                return Ok(None);
            }
            if !matches!(&self.raw[..], b"\n" | b"\r\n") {
                break;
            }
            self.raw.clear();
        }
        record.line = self.lines.line;
        let mut bytes = std::mem::take(&mut record.text).into_bytes();
        bytes.clear();
        record.ends.clear();
        let (mut at, mut opened, mut next) = (At::Start, self.lines.line, 0);
        loop {
            let Some(&byte) = self.raw.get(next) else {
                if at != At::Quoted || !self.lines.next(&mut self.raw)? {
                    break;
                }
                continue;
            };
            next += 1;
            let rest = &self.raw[next..];
            match (at, byte) {
                (At::Quoted, b'"') => at = At::AfterQuote,
                (At::Quoted, byte) => bytes.push(byte),
                (At::Start, b'"') => (at, opened) = (At::Quoted, self.lines.line),
                (At::AfterQuote, b'"') => {
                    bytes.push(b'"');
                    at = At::Quoted;
                }
                (_, byte) if byte == self.delimiter => {
                    record.ends.push(bytes.len());
                    at = At::Start;
                }
                (_, b'\n') => break,
                (_, b'\r') if rest == b"\n" || rest.is_empty() => {}
                (At::AfterQuote, _) => {
                    let hint =
                        if opened < self.lines.line { format!(" that opens on line {opened}") } else { String::new() };
                    return Err(self.lines.problem(format!(
                        "broken quoting: something follows the closing quote of a field{hint}; a quote within quotes is \
                         written twice"
                    )));
                }
                (At::Plain, b'"') => {
                    return Err(self.lines.problem(
                        "broken quoting: a quote within a field that does not begin with one; put the field in quotes \
                         and write the quote twice",
                    ));
                }
                (_, byte) => {
                    bytes.push(byte);
                    at = At::Plain;
                }
            }
        }
        if at == At::Quoted {
            return Err(Problem {
                line: opened,
                what: String::from("broken quoting: the quote that opens here is never closed"),
            });
        }
        record.ends.push(bytes.len());
        record.text = self.utf8(bytes, record.line)?;
        if let Some(&cut) = record.ends.iter().find(|&&end| !record.text.is_char_boundary(end)) {
            // Two fields whose invalid halves make a letter when they stand side by side.
            return Err(Problem {
                line: record.line,
                what: format!("invalid UTF-8 at the end of a field (byte {cut})"),
            });
        }
        Ok(Some(()))
    }

    fn utf8(&self, bytes: Vec<u8>, first: u64) -> Result<String, Problem> {
        String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let bytes = error.as_bytes();
            let newlines = bytes[..good].iter().filter(|&&byte| byte == b'\n').count() as u64;
            let what =
                format!("invalid UTF-8: byte 0x{:02x}; convert the file, for example with iconv -t utf-8", bytes[good]);
            Problem { line: first + newlines, what }
        })
    }
}

/// Writes a record.
pub fn write<'a>(out: &mut impl Write, delimiter: u8, fields: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
    for (at, field) in fields.into_iter().enumerate() {
        if at > 0 {
            out.write_all(&[delimiter])?;
        }
        let special = |byte: u8| matches!(byte, b'"' | b'\n' | b'\r') || byte == delimiter;
        if field.bytes().any(special) {
            write!(out, "\"{}\"", field.replace('"', "\"\""))?;
        } else {
            out.write_all(field.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Vec<Vec<String>>, Problem> {
        let (mut reader, mut record, mut all) = (Reader::new(text, b','), Record::default(), Vec::new());
        while reader.next(&mut record)?.is_some() {
            all.push(record.fields().map(String::from).collect());
        }
        assert_eq!(reader.offset(), text.len() as u64);
        Ok(all)
    }

    fn line_of_problem(text: &[u8]) -> u64 {
        read(text).expect_err("it is broken").line
    }

    /// RFC 4180, 2.
    #[test]
    fn reads_what_the_rfc_shows() {
        assert_eq!(read(b"aaa,bbb\r\nccc,ddd").unwrap(), [["aaa", "bbb"], ["ccc", "ddd"]]);
        assert_eq!(read(b"\"a\r\na\",\"b\"\"b\"\n\n,x\n").unwrap(), [["a\r\na", "b\"b"], ["", "x"]]);
        assert_eq!(read(b"\xef\xbb\xbf\"k\",v\n").unwrap(), [["k", "v"]]);
        assert_eq!(read(b"a,\"\"\nb,").unwrap(), [["a", ""], ["b", ""]]);
        assert_eq!(read(b"").unwrap(), [] as [Vec<String>; 0]);
    }

    /// Issue 2, "Bad input": broken quoting and invalid UTF-8 name their line.
    #[test]
    fn what_is_broken_names_its_line() {
        assert_eq!(line_of_problem(b"a,b\nc,\"d\n\ne"), 2, "never closed");
        assert_eq!(line_of_problem(b"a,b\nc,\"d\"e\n"), 2, "text after the closing quote");
        assert_eq!(line_of_problem(b"a,b\n\nc,d\"e\n"), 3, "a quote in the middle");
        assert_eq!(line_of_problem(b"a,b\nc,\xff\n"), 2);
        assert_eq!(line_of_problem(b"a,b\nc,\"x\ny\xff\"\n"), 3);
        assert_eq!(line_of_problem(b"\xc3,\xa4\n"), 1, "halves of a letter in two fields");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in prop::collection::vec(prop::collection::vec("[a,\"\r\nü\t]{0,6}", 2..4), 0..5)) {
            let mut text = Vec::new();
            for row in &rows {
                write(&mut text, b',', row.iter().map(String::as_str)).unwrap();
            }
            prop_assert_eq!(read(&text), Ok(rows));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop::sample::select(&b"a,\"\r\n\xc3\xa4\xef\xbb\xbf"[..]), 0..40)) {
            let _ = read(&bytes);
        }
    }
}
