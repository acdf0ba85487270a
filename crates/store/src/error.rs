//! What the engine says when the world is at fault.

use std::io;

use model::{Lsn, TabletId};
use thiserror::Error;

/// The disk failed, is full, or gave back other bytes than were written.
#[derive(Debug, Error)]
pub enum Error {
    /// The disk refused an operation.
    #[error("cannot {what} {file}: {source}")]
    Io {
        /// The file, relative to the data folder.
        file: String,
        /// What was tried, as a verb: `read`, `sync`.
        what: &'static str,
        /// What the disk said.
        source: io::Error,
    },
    /// Bytes that were written and synced came back changed.
    #[error("{file} is damaged at offset {offset}: {what}; keep the file for inspection and replace this replica")]
    Corrupt {
        /// The file, relative to the data folder.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The folder belongs to somebody else.
    #[error("{what}")]
    Foreign {
        /// Whose it is, and what to do.
        what: String,
    },
    /// No room is left.
    #[error("no room to write {file}: the disk is full; free some space, the work goes on by itself")]
    Full {
        /// The file that needed room.
        file: String,
    },
    /// The file is of a version that this program does not know: a newer one, or one from before the first release.
    #[error(
        "{file} has format version {found}, and this program reads {known}: start the one that wrote it, or give the node an empty folder"
    )]
    Version {
        /// The file, relative to the data folder.
        file: String,
        /// The version that it has.
        found: u32,
        /// The newest version that we read.
        known: u32,
    },
    /// Entries that the log does not hold any more.
    #[error("{tablet}: the entry {from} has been trimmed from the log, which begins at {first:?}; take a checkpoint")]
    Trimmed {
        /// Whose entries.
        tablet: TabletId,
        /// The first that was asked for.
        from: Lsn,
        /// The oldest that is held.
        first: Option<Lsn>,
    },
}

impl Error {
    /// Names the file and the operation; a full disk becomes [`Error::Full`].
    pub fn io(file: impl Into<String>, what: &'static str, source: io::Error) -> Error {
        let file = file.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full { file },
            _ => Error::Io { file, what, source },
        }
    }

    /// Names the place of damage.
    pub fn corrupt(file: impl Into<String>, offset: u64, what: impl Into<String>) -> Error {
        Error::Corrupt { file: file.into(), offset, what: what.into() }
    }

    /// The same, about a file of this folder.
    pub fn within(self, folder: &str) -> Error {
        let at = |file: String| if file.is_empty() { folder.to_owned() } else { format!("{folder}/{file}") };
        match self {
            Error::Io { file, what, source } => Error::Io { file: at(file), what, source },
            Error::Corrupt { file, offset, what } => Error::Corrupt { file: at(file), offset, what },
            Error::Full { file } => Error::Full { file: at(file) },
            Error::Version { file, found, known } => Error::Version { file: at(file), found, known },
            error @ (Error::Foreign { .. } | Error::Trimmed { .. }) => error,
        }
    }

    /// Whether the operation may succeed once there is room.
    pub fn is_full(&self) -> bool {
        matches!(self, Error::Full { .. })
    }

    /// Whether the disk refused to read what is there. That may pass, or a part of the disk is gone for good.
    pub fn is_unreadable(&self) -> bool {
        let absent = |source: &io::Error| source.kind() == io::ErrorKind::NotFound;
        matches!(self, Error::Io { what: "read", source, .. } if !absent(source))
    }

    /// Whether bytes came back changed.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Error::Corrupt { .. })
    }
}

/// How often a read is tried that a disk refuses, before what it was to bring is given up. Only where nobody comes back
/// later to try again: at the start.
const TRIES: usize = 3;

/// Reads again if the disk refuses.
pub(crate) fn again_if_unreadable<T>(mut read: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..TRIES {
        match read() {
            Err(error) if error.is_unreadable() => {}
            done => return done,
        }
    }
    read()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A part of the disk that is gone is as good as changed; a file that is not there is another matter.
    #[test]
    fn what_cannot_be_read_is_told_apart_from_what_is_not_there() {
        let read = |code| Error::io("tables/1", "read", io::Error::from_raw_os_error(code));
        assert!(read(5).is_unreadable() && !read(5).is_corrupt());
        assert!(!read(2).is_unreadable());
        assert!(!Error::io("tables/1", "write", io::Error::from_raw_os_error(5)).is_unreadable());
        let mut tries = 0;
        let passes = again_if_unreadable(|| {
            tries += 1;
            if tries < 3 { Err(read(5)) } else { Ok(()) }
        });
        assert!(passes.is_ok());
        assert!(again_if_unreadable(|| Err::<(), _>(read(5))).is_err());
    }

    #[test]
    fn no_space_is_told_apart_from_failure() {
        assert!(Error::io("log/1", "write", io::Error::from_raw_os_error(28)).is_full());
        assert!(!Error::io("log/1", "write", io::Error::from_raw_os_error(5)).is_full());
    }
}
