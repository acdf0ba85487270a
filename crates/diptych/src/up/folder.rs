//! The folder of a local cluster.
//!
//! ```text
//!   DIR/lock           locked while `up` runs; holds its process id
//!   DIR/cluster.json   which processes there are, on which ports, with which ids
//!   DIR/m1 … DIR/n1 …  the data of each process
//!   DIR/logs/n1.log …  what each process has logged
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cli::Failure;

/// A log that is longer when its process starts is emptied.
const LOG_BYTES: u64 = 10 << 20;

/// The folder, ours alone as long as this lives.
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

/// `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFile {
    /// The cluster's id.
    pub cluster: String,
    /// Where `up` serves gRPC.
    pub grpc: String,
    /// Where `up` serves HTTP.
    pub http: String,
    /// The masters and the nodes.
    pub processes: Vec<Entry>,
}

/// A process in `cluster.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// `m1` …, `n1`, `n2` …
    pub id: String,
    /// `master` or `node`.
    pub role: String,
    /// Its process id while it runs.
    pub pid: Option<u32>,
    /// Where it serves gRPC.
    pub grpc: String,
    /// Where it serves health, metrics and the rest of HTTP.
    #[serde(default)]
    pub http: String,
    /// The folder of its data.
    pub data: PathBuf,
}

impl ClusterFile {
    /// What the folder has; `None` if there is no such file.
    pub fn read(folder: &Path) -> io::Result<Option<ClusterFile>> {
        match fs::read(folder.join("cluster.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Folder {
    /// Makes the folder if it is not there, and locks it.
    pub fn open(path: &Path) -> Result<Folder, Failure> {
        let failed = |error: io::Error| Failure::file("use", path, &error).hint("choose another folder with --data");
        fs::create_dir_all(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = path.join("lock");
        if !lock.exists() && fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(Failure::failed(format!("{} holds other things and no cluster", path.display()))
                .hint("choose a new or empty folder with --data"));
        }
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // Whoever holds the lock may be about to write; then the message does without the id.
                let _ = file.read_to_string(&mut pid);
                let owner = if pid.is_empty() { String::new() } else { format!(" (process {})", pid.trim()) };
                return Err(Failure::failed(format!("another cluster runs in {}{owner}", path.display()))
                    .hint("stop that one, or choose another folder with --data"));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed)?;
        fs::create_dir_all(path.join("logs")).map_err(failed)?;
        Ok(Folder { path, _lock: file })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The data of a process.
    pub fn data(&self, id: &str) -> PathBuf {
        self.path.join(id)
    }

    /// The highest number of a node whose data is here.
    pub fn nodes(&self) -> u32 {
        self.highest('n')
    }

    /// The highest number of a master whose data is here.
    pub fn masters(&self) -> u32 {
        self.highest('m')
    }

    fn highest(&self, letter: char) -> u32 {
        let names = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix(letter)?.parse().ok();
        names.filter_map(number).max().unwrap_or(0)
    }

    /// Which ports the processes had.
    pub fn cluster_file(&self) -> Option<ClusterFile> {
        // Only the ports are taken from it: if it cannot be read, the processes get others.
        ClusterFile::read(&self.path).ok().flatten()
    }

    /// Replaces `cluster.json` in one step.
    pub fn write_cluster_file(&self, content: &ClusterFile) -> io::Result<()> {
        let new = self.path.join("cluster.json.new");
        fs::write(&new, serde_json::to_vec_pretty(content)?)?;
        fs::rename(new, self.path.join("cluster.json"))
    }

    /// The log of a process, to append to.
    pub fn log(&self, id: &str) -> io::Result<File> {
        let file = OpenOptions::new().create(true).append(true).open(self.log_path(id))?;
        if file.metadata()?.len() > LOG_BYTES {
            file.set_len(0)?;
        }
        Ok(file)
    }

    /// Where the log of a process is.
    pub fn log_path(&self, id: &str) -> PathBuf {
        self.path.join("logs").join(format!("{id}.log"))
    }

    /// What a process said last, preferably why it ended.
    pub fn last_words(&self, id: &str) -> Option<String> {
        let mut file = File::open(self.log_path(id)).ok()?;
        let end = file.seek(SeekFrom::End(0)).ok()?;
        file.seek(SeekFrom::Start(end.saturating_sub(4096))).ok()?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).ok()?;
        let tail = String::from_utf8_lossy(&tail);
        let lines: Vec<&str> = tail.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let error = lines.iter().rev().take(3).find_map(|line| error_of(line));
        error.or(lines.last().copied()).map(String::from)
    }
}

/// What a line of a log says is wrong.
fn error_of(line: &str) -> Option<&str> {
    line.strip_prefix("error: ").or_else(|| Some(line.split_once(" ERROR ")?.1.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Issue 2, "Bad input": a second cluster on the same folder hears who has it.
    #[test]
    fn a_folder_has_one_cluster() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("cluster");
        let first = Folder::open(&path).unwrap();
        let second = Folder::open(&path).err().expect("it is locked");
        assert!(second.message.contains(&std::process::id().to_string()), "{}", second.message);
        drop(first);
        assert!(Folder::open(&path).is_ok());
    }

    #[test]
    fn a_folder_with_other_things_is_left_alone() {
        let temporary = tempfile::tempdir().unwrap();
        fs::write(temporary.path().join("thesis.txt"), "…").unwrap();
        assert!(Folder::open(temporary.path()).is_err());
    }

    #[test]
    fn the_cluster_file_comes_back() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        assert_eq!((folder.cluster_file(), folder.nodes()), (None, 0));
        let entry = Entry {
            id: "n3".into(),
            role: "node".into(),
            pid: Some(5),
            grpc: "127.0.0.1:1".into(),
            http: "127.0.0.1:2".into(),
            data: folder.data("n3"),
        };
        let content =
            ClusterFile { cluster: "0".into(), grpc: "a".into(), http: "b".into(), processes: vec![entry.clone()] };
        folder.write_cluster_file(&content).unwrap();
        fs::create_dir(&entry.data).unwrap();
        assert_eq!((folder.cluster_file(), folder.nodes()), (Some(content), 3));
    }

    #[test]
    fn the_last_words_say_why() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::open(temporary.path()).unwrap();
        assert_eq!(folder.last_words("n1"), None);
        writeln!(folder.log("n1").unwrap(), "starting\nerror: the disk is gone\nhint: find it").unwrap();
        assert_eq!(folder.last_words("n1").as_deref(), Some("the disk is gone"));
        writeln!(folder.log("n1").unwrap(), "2026-11-23T07:55:20Z ERROR another cluster's data").unwrap();
        assert_eq!(folder.last_words("n1").as_deref(), Some("another cluster's data"));
    }
}
