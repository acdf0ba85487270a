//! Files of rows: which format, how far an import has come, and writing a file that is complete or not there.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::Failure;
use super::args::Format;

/// Does the name stand for stdin or stdout?
pub fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// What was asked for, or what the name says.
pub fn format(path: &Path, asked: Option<Format>) -> Result<Format, Failure> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match (asked, extension.to_ascii_lowercase().as_str()) {
        (Some(format), _) => Ok(format),
        (None, "csv") => Ok(Format::Csv),
        (None, "tsv") => Ok(Format::Tsv),
        (None, "ndjson" | "jsonl") => Ok(Format::Ndjson),
        _ => Err(Failure::usage(format!("the name {} does not tell the format", path.display()))
            .hint("give --format csv, tsv or ndjson")),
    }
}

/// `path` with something appended to its name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Replaces a file by another in one step, so that a reader sees the old one or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

/// Which import it is: one that differs in any of this begins anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster: String,
    /// The table's id, so that a table dropped and created again gets all rows.
    pub table: u32,
    /// Name of the key column.
    pub key: Option<String>,
    /// Family of columns without one.
    pub family: Option<String>,
    /// The timestamp of all cells.
    pub timestamp: Option<i64>,
    /// Bytes of the file.
    pub size: u64,
    /// When it was written.
    pub modified_ns: u64,
    /// CRC-32C of its first 64 KiB.
    pub head: u32,
}

impl Identity {
    /// Looks at the file.
    pub fn of_file(path: &Path) -> io::Result<Identity> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut head = Vec::new();
        file.take(64 << 10).read_to_end(&mut head)?;
        Ok(Identity {
            cluster: String::new(),
            table: 0,
            key: None,
            family: None,
            timestamp: None,
            size: metadata.len(),
            modified_ns: modified.as_nanos() as u64,
            head: crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &head) as u32,
        })
    }
}

/// How far an import has come: the file `FILE.diptych-import`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Of which import.
    pub import: Identity,
    /// All rows before this byte are in the table.
    pub offset: u64,
    /// How many these are.
    pub rows: u64,
}

impl Progress {
    /// Where it is kept.
    pub fn path(file: &Path) -> PathBuf {
        beside(file, ".diptych-import")
    }

    /// What an earlier import of the file left; one that cannot be read counts as none.
    pub fn read(file: &Path) -> Option<Progress> {
        serde_json::from_slice(&fs::read(Progress::path(file)).ok()?).ok()
    }

    /// Keeps it.
    pub fn write(&self, file: &Path) -> io::Result<()> {
        replace(&Progress::path(file), &serde_json::to_vec(self)?)
    }

    /// Forgets it, because all rows are in.
    pub fn remove(file: &Path) {
        // If it stays, the next import of the same file finds nothing to do, which is true.
        let _ = fs::remove_file(Progress::path(file));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_tells_the_format() {
        let of = |name: &str, asked| format(Path::new(name), asked).map_err(|failure| failure.exit);
        assert_eq!(of("a.CSV", None), Ok(Format::Csv));
        assert_eq!(of("a.jsonl", None), Ok(Format::Ndjson));
        assert_eq!(of("a.txt", Some(Format::Tsv)), Ok(Format::Tsv));
        assert_eq!(of("a.txt", None), Err(super::super::Exit::Usage));
        assert_eq!(of("-", None), Err(super::super::Exit::Usage));
    }

    /// An import resumes only if it is the same in everything.
    #[test]
    fn progress_is_of_one_import() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.csv");
        fs::write(&file, "k,v\na,1\n").unwrap();
        assert_eq!(Progress::read(&file), None);
        let import = Identity { table: 3, ..Identity::of_file(&file).unwrap() };
        let progress = Progress { import: import.clone(), offset: 4, rows: 0 };
        progress.write(&file).unwrap();
        assert_eq!(Progress::read(&file), Some(progress));
        assert_eq!(Identity { table: 3, ..Identity::of_file(&file).unwrap() }, import);
        fs::write(&file, "k,v\nb,1\n").unwrap();
        assert_ne!(Identity { table: 3, ..Identity::of_file(&file).unwrap() }.head, import.head);
        fs::write(Progress::path(&file), "{").unwrap();
        assert_eq!(Progress::read(&file), None);
        Progress::remove(&file);
        assert!(!Progress::path(&file).exists());
    }
}
