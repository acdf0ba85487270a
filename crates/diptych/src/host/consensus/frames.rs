//! A file of frames that only grows: each is written whole and synced before the next one.
//!
//! ```text
//!   file = MAGIC, frame, frame, …
//!
//!   offset  size  field of a frame, little-endian
//!        0     4  head   CRC-32C of bytes 4..20, so that the length can be trusted
//!        4     4  len    bytes of the body
//!        8     8  at     where in the file the frame begins: a frame in the wrong place is none
//!       16     4  crc    CRC-32C of the body
//!       20   len  body
//! ```
//!
//! Because every frame is synced before the next one is written, a crash can tear only the last one. So a bad frame
//! with nothing after it is a torn tail and is cut; a bad frame with a frame after it is damage, and is refused with
//! the name of the file and the place. After a failed write nothing more is written: what the disk holds is unknown.

use disk::{Disk, File};
use std::io;
use std::sync::Arc;

/// Some numbers are passed over: a flipped bit must not make one of them another.
const MAGIC: &[u8; 8] = b"DIPRAFT7";
/// Of versions whose groups had one member, and whose commands say nothing of how rows lie on disks, or of settings.
const OLD: [&[u8; 8]; 3] = [b"DIPRAFT1", b"DIPRAFT2", b"DIPRAFT4"];
const HEADER: usize = 20;
/// Longest body.
const LONGEST: u64 = 1 << 30;

/// An open file of frames.
pub struct Frames {
    file: Arc<dyn File>,
    name: String,
    end: u64,
    broken: bool,
}

/// What lies at some place of the file.
enum Found {
    Frame(Vec<u8>),
    End,
    Bad(&'static str),
}

impl Frames {
    /// Puts a new file in the place of the one of that name, if there is one: after a crash there is either. The new
    /// one holds this one frame.
    pub fn replace(disk: &dyn Disk, name: &str, body: &[u8]) -> io::Result<Frames> {
        let draft = format!("{name}.new");
        let file = disk.create(&draft)?;
        file.write_at(0, MAGIC)?;
        let mut frames = Frames { file, name: String::from(name), end: MAGIC.len() as u64, broken: false };
        frames.append(body)?;
        disk.rename(&draft, name)?;
        disk.sync_dir("")?;
        Ok(frames)
    }

    /// Opens the file and gives the bodies of its frames to `each`, in order. The text tells of a torn tail.
    pub fn open(
        disk: &dyn Disk,
        name: &str,
        mut each: impl FnMut(Vec<u8>) -> Result<(), String>,
    ) -> io::Result<(Frames, Option<String>)> {
        let file = disk.open(name)?;
        let mut magic = [0; MAGIC.len()];
        read_full(&*file, 0, &mut magic)?;
        let mut frames = Frames { file, name: String::from(name), end: MAGIC.len() as u64, broken: false };
        if OLD.contains(&&magic) {
            let what = format!("{name} was written by an earlier version of Diptych; begin with an empty folder");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if magic != *MAGIC {
            return Err(frames.damaged(0, "it does not begin like one of our files"));
        }
        let length = frames.file.len()?;
        let note = loop {
            match frames.read(length)? {
                Found::Frame(body) => {
                    let next = frames.end + (HEADER + body.len()) as u64;
                    each(body).map_err(|what| frames.damaged(frames.end, &what))?;
                    frames.end = next;
                }
                Found::End => break None,
                Found::Bad(what) => {
                    if let Some(later) = frames.frame_after(length)? {
                        let what = format!("{what}, and there is a frame behind it at byte {later}");
                        return Err(frames.damaged(frames.end, &what));
                    }
                    frames.file.set_len(frames.end)?;
                    frames.file.sync()?;
                    let cut = length - frames.end;
                    break Some(format!("{name}: cut a torn tail of {cut} bytes at byte {}: {what}", frames.end));
                }
            }
        };
        Ok((frames, note))
    }

    /// Writes a frame and syncs it. Fails for ever once it has failed.
    pub fn append(&mut self, body: &[u8]) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(format!("{}: an earlier write failed", self.name)));
        }
        if body.len() as u64 > LONGEST {
            return Err(io::Error::other(format!(
                "{}: a frame of {} bytes; the limit is {LONGEST}",
                self.name,
                body.len()
            )));
        }
        let mut frame = Vec::with_capacity(HEADER + body.len());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
        frame.extend_from_slice(&self.end.to_le_bytes());
        frame.extend_from_slice(&checksum(body).to_le_bytes());
        let head = checksum(&frame[4..HEADER]);
        frame[..4].copy_from_slice(&head.to_le_bytes());
        frame.extend_from_slice(body);
        let written = self.file.write_at(self.end, &frame).and_then(|()| self.file.sync());
        self.broken = written.is_err();
        written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.name)))?;
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Refuses all further writes.
    pub fn give_up(&mut self) {
        self.broken = true;
    }

    /// What lies at `end`.
    fn read(&self, length: u64) -> io::Result<Found> {
        if self.end >= length {
            return Ok(Found::End);
        }
        let mut header = [0; HEADER];
        if read_full(&*self.file, self.end, &mut header)? < HEADER {
            return Ok(Found::Bad("the frame ends within its header"));
        }
        let Some(len) = check_header(&header, self.end) else {
            return Ok(Found::Bad("the frame's header fails its checksum"));
        };
        if len > LONGEST || self.end + HEADER as u64 + len > length {
            return Ok(Found::Bad("the frame reaches beyond the end of the file"));
        }
        let mut body = vec![0; len as usize];
        read_full(&*self.file, self.end + HEADER as u64, &mut body)?;
        if checksum(&body) != u32::from_le_bytes(quarter(&header, 16)) {
            return Ok(Found::Bad("the frame's body fails its checksum"));
        }
        Ok(Found::Frame(body))
    }

    /// The first place behind `end` where a frame's header stands.
    fn frame_after(&self, length: u64) -> io::Result<Option<u64>> {
        const STRIDE: usize = 1 << 16;
        let mut window = vec![0; STRIDE + HEADER - 1];
        let mut from = self.end + 1;
        while from + HEADER as u64 <= length {
            let filled = read_full(&*self.file, from, &mut window)?;
            let found =
                window[..filled].windows(HEADER).zip(from..).find(|(bytes, at)| check_header(bytes, *at).is_some());
            if let Some((_, at)) = found {
                return Ok(Some(at));
            }
            from += STRIDE as u64;
        }
        Ok(None)
    }

    fn damaged(&self, at: u64, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: damaged at byte {at}: {what}", self.name))
    }
}

/// The body's length, if this is the header of a frame at `at`.
fn check_header(header: &[u8], at: u64) -> Option<u64> {
    let mut place = [0; 8];
    place.copy_from_slice(&header[8..16]);
    let good =
        u64::from_le_bytes(place) == at && checksum(&header[4..HEADER]) == u32::from_le_bytes(quarter(header, 0));
    good.then(|| u64::from(u32::from_le_bytes(quarter(header, 4))))
}

fn quarter(bytes: &[u8], at: usize) -> [u8; 4] {
    let mut quarter = [0; 4];
    quarter.copy_from_slice(&bytes[at..at + 4]);
    quarter
}

fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// Reads until `into` is full or the file ends.
fn read_full(file: &dyn File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(offset + filled as u64, &mut into[filled..])? {
            0 => break,
            more => filled += more,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use disk::MemDisk;

    const BODIES: [&[u8]; 4] = [b"first", b"", b"the third frame", b"last"];

    fn written() -> (MemDisk, Vec<u64>) {
        let disk = MemDisk::new();
        let mut frames = Frames::replace(&disk, "log", BODIES[0]).unwrap();
        let mut ends = vec![frames.end];
        for body in &BODIES[1..] {
            frames.append(body).unwrap();
            ends.push(frames.end);
        }
        (disk, ends)
    }

    fn bytes_of(disk: &MemDisk) -> Vec<u8> {
        let file = disk.open("log").unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        read_full(&*file, 0, &mut bytes).unwrap();
        bytes
    }

    fn holding(bytes: &[u8]) -> MemDisk {
        let disk = MemDisk::new();
        disk.create("log").unwrap().write_at(0, bytes).unwrap();
        disk
    }

    fn reopened(disk: &MemDisk) -> io::Result<(Vec<Vec<u8>>, Option<String>)> {
        let mut bodies = Vec::new();
        let (_, note) = Frames::open(disk, "log", |body| {
            bodies.push(body);
            Ok(())
        })?;
        Ok((bodies, note))
    }

    #[test]
    fn what_was_appended_is_there() {
        let (disk, _) = written();
        assert_eq!(reopened(&disk).unwrap(), (BODIES.map(<[u8]>::to_vec).to_vec(), None));
    }

    /// A crash tears only what was not synced: the tail.
    #[test]
    fn every_cut_leaves_the_whole_frames_before_it() {
        let (disk, ends) = written();
        let whole = bytes_of(&disk);
        for len in MAGIC.len()..whole.len() {
            let cut = holding(&whole[..len]);
            let frames = ends.iter().filter(|&&end| end <= len as u64).count();
            let (bodies, note) = reopened(&cut).unwrap();
            assert_eq!(bodies, BODIES[..frames], "cut to {len} bytes");
            let clean = len == MAGIC.len() || ends.contains(&(len as u64));
            assert_eq!(note.is_none(), clean, "cut to {len} bytes: {note:?}");
            assert_eq!(reopened(&cut).unwrap(), (bodies, None), "the tail is gone for good");
        }
    }

    /// Damage before the last frame cannot come from a crash: it is refused and not cut away with all that follows.
    #[test]
    fn every_flipped_bit_is_refused_or_costs_the_last_frame() {
        let (disk, ends) = written();
        let whole = bytes_of(&disk);
        let last = ends[ends.len() - 2];
        for bit in 0..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            match reopened(&holding(&bytes)) {
                Ok((bodies, note)) => {
                    assert!((bit / 8) as u64 >= last, "bit {bit} is not in the last frame");
                    assert_eq!((bodies, note.is_some()), (BODIES[..3].iter().map(|b| b.to_vec()).collect(), true));
                }
                Err(error) => {
                    assert!(((bit / 8) as u64) < last, "bit {bit} is in the last frame: {error}");
                    assert!(error.to_string().starts_with("log: damaged at byte"), "{error}");
                }
            }
        }
    }

    /// A page of zeros or of old bytes behind the end is what some file systems leave after a power cut.
    #[test]
    fn a_tail_of_zeros_is_cut() {
        let (disk, _) = written();
        let mut bytes = bytes_of(&disk);
        bytes.extend_from_slice(&[0; 4096]);
        let (bodies, note) = reopened(&holding(&bytes)).unwrap();
        assert_eq!((bodies.len(), note.is_some()), (BODIES.len(), true));
    }

    #[test]
    fn a_replaced_file_is_either() {
        let (disk, _) = written();
        Frames::replace(&disk, "log", b"new").unwrap();
        assert_eq!(reopened(&disk).unwrap().0, [b"new"]);
        assert!(!disk.exists("log.new").unwrap());
    }
}
