//! The stories that every disk must pass, so that what runs on one runs on the other.
//!
//! Each works in a folder of its own and panics where the disk breaks its word; meant to be called from tests.

use std::io::ErrorKind;
use std::sync::Arc;

use crate::{Disk, File, Hint};

/// All of them, on a fresh disk.
pub fn run(disk: &dyn Disk) {
    round_trip(disk);
    hints_change_nothing(disk);
    holes_are_zeros(disk);
    overwrite(disk);
    lengths(disk);
    allocate(disk);
    names(disk);
    rename_replaces(disk);
    linked_files_are_one(disk);
    removed_files_are_readable(disk);
    folders(disk);
}

/// What was written is read, and is there when the file is opened again.
pub fn round_trip(disk: &dyn Disk) {
    let file = create(disk, "round/a");
    file.write_at(0, b"hello ").expect("write");
    file.write_at(6, b"world").expect("write");
    file.sync().expect("sync");
    disk.sync_dir("round").expect("sync the folder");
    disk.sync_dir("").expect("sync the root");
    assert_eq!(contents(&*disk.open("round/a").expect("open")), b"hello world");
    let mut some = [0; 5];
    assert_eq!(file.read_at(6, &mut some).expect("read"), 5);
    assert_eq!(&some, b"world");
    assert_eq!(file.read_at(9, &mut some).expect("read across the end"), 2);
    assert_eq!(file.read_at(99, &mut some).expect("read past the end"), 0);
}

/// Whatever a file is opened for, it is the same file, to its last byte.
pub fn hints_change_nothing(disk: &dyn Disk) {
    let expected: Vec<u8> = (0..2_500_001_u32).map(|at| (at % 251) as u8).collect();
    create(disk, "hints/a").write_at(0, &expected).expect("write");
    for hint in [Hint::Random, Hint::Sequential, Hint::Direct] {
        let file = disk.open_with("hints/a", hint).expect("open");
        assert!(contents(&*file) == expected, "{hint:?}");
        for (offset, len) in [(0, 100_000), (1, 70_000), (4_095, 1_100_000), (2_400_000, 200_000), (2_500_000, 70_000)]
        {
            let mut part = vec![0; len];
            let read = file.read_at(offset as u64, &mut part).expect("read");
            assert!(part[..read] == expected[offset..(offset + len).min(expected.len())], "{hint:?} {offset} {len}");
        }
        file.write_at(5_000, b"new").expect("write");
        let mut part = vec![0; 100_000];
        assert_eq!(file.read_at(0, &mut part).expect("read"), part.len());
        assert_eq!(&part[5_000..5_003], b"new", "{hint:?}");
        file.write_at(5_000, &expected[5_000..5_003]).expect("write");
    }
    let missing = disk.open_with("hints/b", Hint::Direct).err();
    assert_eq!(missing.map(|error| error.kind()), Some(ErrorKind::NotFound));
}

/// A gap that nobody wrote reads as zeros.
pub fn holes_are_zeros(disk: &dyn Disk) {
    let file = create(disk, "holes/a");
    file.write_at(10_000, b"x").expect("write");
    let mut expected = vec![0; 10_001];
    expected[10_000] = b'x';
    assert_eq!(contents(&*file), expected);
}

/// The last write counts, wherever pages and sectors end.
pub fn overwrite(disk: &dyn Disk) {
    let file = create(disk, "overwrite/a");
    let mut expected = vec![1; 9_000];
    file.write_at(0, &expected).expect("write");
    for (offset, len) in [(0, 1), (511, 2), (4_095, 2), (4_096, 4_096), (8_999, 5)] {
        file.write_at(offset as u64, &vec![offset as u8 ^ 7; len]).expect("write");
        expected.resize(expected.len().max(offset + len), 0);
        expected[offset..offset + len].fill(offset as u8 ^ 7);
    }
    assert_eq!(contents(&*file), expected);
}

/// A file that is cut and extended again has zeros where it was cut.
pub fn lengths(disk: &dyn Disk) {
    let file = create(disk, "lengths/a");
    assert!(file.is_empty().expect("length"));
    file.write_at(0, &[9; 100]).expect("write");
    file.set_len(3).expect("cut");
    file.set_len(6).expect("extend");
    assert_eq!(contents(&*file), [9, 9, 9, 0, 0, 0]);
    create(disk, "lengths/a");
    assert_eq!(contents(&*file), []);
}

/// Reserving room extends with zeros, leaves what is there, and never shrinks.
pub fn allocate(disk: &dyn Disk) {
    let file = create(disk, "allocate/a");
    file.write_at(0, b"abc").expect("write");
    file.allocate(8_000).expect("allocate");
    file.allocate(5).expect("allocate less");
    assert_eq!(file.len().expect("length"), 8_000);
    let read = contents(&*file);
    assert_eq!(&read[..3], b"abc");
    assert!(read[3..].iter().all(|byte| *byte == 0));
}

/// Names are listed in order; what is not there is not found.
pub fn names(disk: &dyn Disk) {
    for name in ["names/b", "names/a", "names/c"] {
        create(disk, name);
    }
    disk.create_dir("names/d").expect("create a folder");
    disk.remove("names/b").expect("remove");
    assert_eq!(disk.list("names").expect("list"), ["a", "c", "d"]);
    assert!(disk.exists("names/a").expect("look"));
    assert!(disk.exists("names/d").expect("look"));
    assert!(!disk.exists("names/b").expect("look"));
    for missing in [
        disk.open("names/b").err(),
        disk.remove("names/b").err(),
        disk.create("nowhere/a").err(),
        disk.list("nowhere").err(),
        disk.rename("names/b", "names/e").err(),
    ] {
        assert_eq!(missing.map(|error| error.kind()), Some(ErrorKind::NotFound));
    }
}

/// A rename takes the place of the file that had the name; the bytes come along.
pub fn rename_replaces(disk: &dyn Disk) {
    create(disk, "rename/old").write_at(0, b"old").expect("write");
    create(disk, "rename/new").write_at(0, b"new").expect("write");
    disk.rename("rename/new", "rename/old").expect("rename");
    disk.rename("rename/old", "rename/old").expect("rename to itself");
    assert_eq!(disk.list("rename").expect("list"), ["old"]);
    assert_eq!(contents(&*disk.open("rename/old").expect("open")), b"new");
}

/// A file with two names is one file, and lives as long as it has one of them.
pub fn linked_files_are_one(disk: &dyn Disk) {
    let file = create(disk, "link/a");
    file.write_at(0, b"one").expect("write");
    disk.create_dir("link/deep").expect("create a folder");
    disk.link("link/a", "link/deep/b").expect("link");
    file.write_at(3, b" file").expect("write");
    assert_eq!(contents(&*disk.open("link/deep/b").expect("open")), b"one file");
    disk.rename("link/a", "link/deep/b").expect("rename to another name of its own");
    disk.remove("link/a").expect("remove the first name, which such a rename leaves");
    assert_eq!(contents(&*disk.open("link/deep/b").expect("open")), b"one file");
    let refused = disk.link("link/deep/b", "link/deep/b").err();
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::AlreadyExists));
    for missing in [disk.link("link/a", "link/c").err(), disk.link("link/deep/b", "link/nowhere/c").err()] {
        assert_eq!(missing.map(|error| error.kind()), Some(ErrorKind::NotFound));
    }
    assert!(disk.link("link/deep", "link/c").is_err(), "a folder has one name");
}

/// Whoever has a file open reads on when its name is gone.
pub fn removed_files_are_readable(disk: &dyn Disk) {
    let file = create(disk, "removed/a");
    file.write_at(0, b"still here").expect("write");
    disk.remove("removed/a").expect("remove");
    create(disk, "removed/a").write_at(0, b"another").expect("write");
    assert_eq!(contents(&*file), b"still here");
}

/// Folders are created once, and removed with all that is in them.
pub fn folders(disk: &dyn Disk) {
    create(disk, "folders/inner");
    disk.create_dir("folders").expect("again");
    disk.create_dir("folders/deep").expect("create");
    create(disk, "folders/deep/a");
    assert!(disk.create_dir("folders/inner").is_err(), "a file has that name");
    assert!(disk.create_dir("folders/x/y").is_err(), "parents are not created");
    disk.remove_dir_all("folders").expect("remove");
    assert!(!disk.exists("folders").expect("look"));
    disk.create_dir("folders").expect("create");
    assert_eq!(disk.list("folders").expect("list"), [""; 0]);
    assert!(disk.free_bytes().expect("room") > 0);
}

/// A new file, in a folder that is created if it is not there.
fn create(disk: &dyn Disk, path: &str) -> Arc<dyn File> {
    if let Some((dir, _)) = path.rsplit_once('/') {
        disk.create_dir(dir).expect("create the folder");
    }
    disk.create(path).expect("create")
}

fn contents(file: &dyn File) -> Vec<u8> {
    let mut bytes = vec![0; file.len().expect("length") as usize];
    assert_eq!(file.read_at(0, &mut bytes).expect("read"), bytes.len());
    bytes
}
