use super::*;

#[test]
fn passes_the_suite() {
    crate::suite::run(&MemDisk::new());
}

/// Synced bytes under a synced name survive every crash; a name alone, or bytes alone, may not.
#[test]
fn only_what_was_synced_is_sure() {
    let (mut names, mut tails) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..200 {
        let disk = MemDisk::new();
        let sure = disk.create("sure").unwrap();
        sure.write_at(0, b"synced").unwrap();
        sure.sync().unwrap();
        disk.sync_dir("").unwrap();
        sure.write_at(6, b" or not").unwrap();
        disk.create("doubtful").unwrap().sync().unwrap();
        disk.crash(seed);
        assert!(sure.read_at(0, &mut [0]).is_err(), "a dead process does not read");
        let read = read(&disk, "sure");
        assert_eq!(&read[..6], b"synced", "seed {seed}");
        tails.insert(read[6..].to_vec());
        names.insert(disk.exists("doubtful").unwrap());
    }
    assert_eq!(tails, BTreeSet::from([b"".to_vec(), b" or not".to_vec()]));
    assert_eq!(names.len(), 2);
}

/// A synced link keeps the synced bytes, whatever becomes of the first name; one that was not synced may be lost alone.
#[test]
fn links_are_durable_with_their_folder() {
    let mut kept = BTreeSet::new();
    for seed in 0..50 {
        let disk = file_with(b"abc");
        disk.create_dir("pin").unwrap();
        disk.sync_dir("").unwrap();
        disk.link("a", "pin/a").unwrap();
        disk.sync_dir("pin").unwrap();
        disk.link("a", "b").unwrap();
        disk.remove("a").unwrap();
        assert_eq!(disk.used(), 3, "one file, however many names");
        disk.crash(seed);
        assert_eq!(read(&disk, "pin/a"), b"abc", "seed {seed}");
        kept.insert((disk.exists("a").unwrap(), disk.exists("b").unwrap()));
    }
    assert!(kept.contains(&(true, false)) && kept.contains(&(false, true)), "{kept:?}");
}

/// ext4 and XFS write what fits and say so with a short count, which `write_all` turns into "no space".
#[test]
fn a_full_disk_writes_what_fits() {
    let disk = file_with(b"abc");
    disk.set_capacity(Some(5));
    assert!(disk.open("a").unwrap().write_at(3, b"defg").is_err());
    assert_eq!(read(&disk, "a"), b"abcde");
    assert!(disk.open("a").unwrap().write_at(8, b"x").is_err(), "nothing of it fits");
    assert_eq!(read(&disk, "a"), b"abcde");
    disk.open("a").unwrap().write_at(1, b"X").unwrap();
    assert_eq!(read(&disk, "a"), b"aXcde");
}

/// A write that the disk puts elsewhere: what was there is gone, what should be there is not, and nobody says so.
#[test]
fn a_misdirected_write_lies_elsewhere() {
    for seed in 0..20 {
        let disk = MemDisk::new();
        disk.create_dir("d").unwrap();
        let (apart, file) = (disk.create("apart").unwrap(), disk.create("d/a").unwrap());
        disk.misdirect_next_write("d", seed);
        apart.write_at(0, b"as it should be").unwrap();
        file.write_at(0, &[1; 100]).unwrap();
        file.write_at(100, &[2; 10]).unwrap();
        file.write_at(110, &[3; 10]).unwrap();
        file.sync().unwrap();
        assert_eq!(read(&disk, "apart"), b"as it should be");
        let read = read(&disk, "d/a");
        assert_eq!(read.len(), 120);
        assert_eq!(read[100..], [[0; 10], [3; 10]].concat(), "seed {seed}");
        assert_eq!(read[..100].iter().filter(|byte| **byte == 2).count(), 10, "seed {seed}");
    }
}

#[test]
fn all_reads_fail_until_they_do_not() {
    let disk = file_with(b"abc");
    let file = disk.open("a").unwrap();
    disk.fail_all_reads(true);
    assert_eq!(file.read_at(0, &mut [0]).unwrap_err().raw_os_error(), Some(5));
    disk.fail_all_reads(false);
    assert_eq!(file.read_at(0, &mut [0]).unwrap(), 1);
}

/// A long write may be torn at every sector, and later sectors may arrive without earlier ones.
#[test]
fn writes_tear_at_sectors() {
    let mut reordered = false;
    for seed in 0..200 {
        let disk = file_with(&[0; 2048]);
        disk.open("a").unwrap().write_at(256, &[1; 1536]).unwrap();
        disk.crash(seed);
        let read = read(&disk, "a");
        for sector in [0..256, 256..512, 512..1024, 1024..1536, 1536..1792, 1792..2048] {
            assert!(read[sector.clone()].iter().all(|byte| *byte == read[sector.start]), "seed {seed}");
        }
        reordered |= read[256] == 0 && read[1791] == 1;
    }
    assert!(reordered);
}

#[test]
fn same_seed_same_crash() {
    let after = |seed| {
        let disk = file_with(&[0; 9000]);
        for at in 0..8 {
            disk.open("a").unwrap().write_at(at * 700, &[at as u8 + 1; 1400]).unwrap();
            disk.create(&format!("b{at}")).unwrap();
        }
        disk.crash(seed);
        (read(&disk, "a"), disk.list("").unwrap())
    };
    assert!((0..50).all(|seed| after(seed) == after(seed)));
    assert!((0..50).any(|seed| after(seed) != after(seed + 1)));
}

/// A sync of the folder is what makes a rename durable; before it either name may be there, never both or none.
#[test]
fn a_rename_is_whole() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let disk = file_with(b"x");
        disk.rename("a", "b").unwrap();
        disk.crash(seed);
        seen.insert(disk.list("").unwrap());
    }
    assert_eq!(seen, BTreeSet::from([vec!["a".to_owned()], vec!["b".to_owned()]]));
    for seed in 0..100 {
        let disk = file_with(b"x");
        disk.create_dir("d").unwrap();
        disk.create("d/new").unwrap().sync().unwrap();
        disk.rename("d/new", "b").unwrap();
        disk.sync_dir("").unwrap();
        disk.crash(seed);
        assert_eq!(disk.list("").unwrap(), ["a", "b", "d"]);
        assert_eq!(disk.list("d").unwrap(), [""; 0]);
    }
}

#[test]
fn a_folder_that_is_lost_takes_its_files_along() {
    let lost = (0..20).find(|seed| {
        let disk = MemDisk::new();
        disk.create_dir("d").unwrap();
        disk.create("d/a").unwrap().sync().unwrap();
        disk.sync_dir("d").unwrap();
        disk.crash(*seed);
        !disk.exists("d/a").unwrap()
    });
    assert!(lost.is_some());
}

/// "fsyncgate": after a failed sync the bytes are still read, a later sync succeeds, and yet they are gone.
#[test]
fn a_failed_sync_loses_what_it_should_have_kept() {
    let disk = file_with(b"old");
    let file = disk.open("a").unwrap();
    file.write_at(0, b"new").unwrap();
    disk.fail_next_sync();
    assert_eq!(file.sync().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(read(&disk, "a"), b"new");
    file.sync().unwrap();
    disk.crash(1);
    assert_eq!(read(&disk, "a"), b"old");
}

#[test]
fn a_full_disk_takes_no_more_until_there_is_room() {
    let disk = file_with(&[1; 100]);
    disk.set_capacity(Some(150));
    let file = disk.open("a").unwrap();
    assert_eq!(file.write_at(100, &[2; 51]).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(151).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_at(50, &[2; 100]).unwrap();
    assert_eq!((disk.free_bytes().unwrap(), disk.used()), (0, 150));
    file.set_len(10).unwrap();
    file.allocate(150).unwrap();
}

#[test]
fn rot_and_broken_sectors() {
    let disk = file_with(b"abc");
    assert!(disk.flip("a", 1, 0x20));
    assert!(!disk.flip("a", 3, 1));
    assert_eq!(read(&disk, "a"), b"aBc");
    disk.crash(0);
    assert_eq!(read(&disk, "a"), b"aBc");
    disk.fail_reads("a", true);
    assert_eq!(disk.open("a").unwrap().read_at(0, &mut [0]).unwrap_err().raw_os_error(), Some(5));
    disk.fail_reads("a", false);
    assert_eq!(read(&disk, "a"), b"aBc");
}

#[test]
fn power_fails_when_told() {
    let disk = file_with(b"abc");
    disk.power_fails_after(1);
    let file = disk.open("a").unwrap();
    file.write_at(0, b"x").unwrap();
    assert!(file.write_at(1, b"y").is_err());
    assert!(disk.create("b").is_err());
    assert!(disk.list("").is_err());
    disk.kill();
    assert!(file.write_at(1, b"y").is_err());
    assert_eq!(read(&disk, "a"), b"xbc", "the machine itself lived on");
}

/// A durable file `a`.
fn file_with(bytes: &[u8]) -> MemDisk {
    let disk = MemDisk::new();
    let file = disk.create("a").unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    disk
}

fn read(disk: &MemDisk, path: &str) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}
