use disk::MemDisk;
use model::LocalityId;

use super::*;

const T: TabletId = TabletId(7);

fn run(age: u64) -> RunId {
    RunId { locality: LocalityId(0), level: 0, age: Lsn(age) }
}

fn placed(number: u64, age: u64) -> Placed {
    Placed { number, run: run(age) }
}

fn flush(number: u64, after: u64, upto: u64) -> Edit {
    let note = Bytes::from(format!("note {upto}"));
    Edit::Flushed { added: vec![placed(number, upto)], after: Lsn(after), upto: Lsn(upto), note }
}

fn open(disk: &MemDisk) -> (Manifest, BTreeMap<TabletId, String>) {
    Manifest::open(Arc::new(disk.clone())).unwrap()
}

fn disk() -> MemDisk {
    let disk = MemDisk::new();
    disk.create_dir(DIR).unwrap();
    disk.sync_dir("").unwrap();
    disk
}

fn bytes(disk: &MemDisk) -> Vec<u8> {
    let file = disk.open("manifest/7").unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

fn put(disk: &MemDisk, bytes: &[u8]) {
    let file = disk.create("manifest/7").unwrap();
    file.write_at(0, bytes).unwrap();
}

fn numbers(manifest: &Manifest) -> Vec<u64> {
    manifest.states().flat_map(|state| state.tables.iter().map(|placed| placed.number)).collect()
}

/// Flushes, a merge, a move; what is read back after each restart is what was edited.
#[test]
fn edits_lead_to_a_state_that_survives() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    assert_eq!(manifest.edit(T, flush(1, 0, 5)).unwrap(), []);
    assert_eq!(manifest.edit(T, flush(2, 5, 9)).unwrap(), []);
    (manifest, _) = open(&disk);
    assert_eq!(numbers(&manifest), [1, 2]);
    let down = RunId::on_level(LocalityId(0), 6);
    let edit = Edit::Merged { removed: vec![1], added: vec![Placed { number: 1, run: down }] };
    assert_eq!(manifest.edit(T, edit).unwrap(), [], "it only stands elsewhere");
    let edit = Edit::Merged { removed: vec![2], added: vec![Placed { number: 3, run: down }] };
    assert_eq!(manifest.edit(T, edit).unwrap(), [2]);
    manifest.check(T).unwrap();
    let (mut manifest, damaged) = open(&disk);
    assert!(damaged.is_empty());
    let state = manifest.states().next().unwrap().clone();
    assert_eq!(state.tables, [Placed { number: 1, run: down }, Placed { number: 3, run: down }]);
    assert_eq!((state.flushed, &state.note[..]), (Lsn(9), &b"note 9"[..]));
    let whole = Edit::Whole { tables: vec![placed(8, 4)], upto: Lsn(4), note: Bytes::new() };
    assert_eq!(manifest.edit(T, whole).unwrap(), [1, 3]);
    assert_eq!(numbers(&open(&disk).0), [8]);
}

/// A log of edits does not grow for ever.
#[test]
fn a_long_log_is_replaced_by_the_state() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    let mut longest = 0;
    for n in 1..2_000 {
        manifest.edit(T, flush(n, n - 1, n)).unwrap();
        if n > 1 {
            manifest.edit(T, Edit::Merged { removed: vec![n - 1], added: vec![] }).unwrap();
        }
        longest = longest.max(bytes(&disk).len());
    }
    assert!(longest < 20_000, "{longest}");
    assert_eq!(numbers(&open(&disk).0), [1_999]);
}

/// Whatever a crash leaves of the last edit, the state is that before it or that after it, and the next edits count.
#[test]
fn a_torn_edit_has_not_happened() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    manifest.edit(T, flush(1, 0, 5)).unwrap();
    let before = bytes(&disk);
    manifest.edit(T, flush(2, 5, 9)).unwrap();
    let after = bytes(&disk);
    for cut in before.len()..after.len() {
        for zeros in [false, true] {
            let mut torn = after[..cut].to_vec();
            if zeros {
                torn.resize(after.len(), 0);
            }
            put(&disk, &torn);
            let (mut manifest, damaged) = open(&disk);
            assert!(damaged.is_empty());
            assert_eq!(numbers(&manifest), [1], "cut at {cut}");
            manifest.edit(T, flush(3, 5, 7)).unwrap();
            assert_eq!(numbers(&open(&disk).0), [1, 3]);
        }
    }
}

/// Any flipped bit is damage, except in the last edit, where it looks like a tear: then the state is the one before.
#[test]
fn every_flipped_bit_is_detected() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    manifest.edit(T, flush(1, 0, 5)).unwrap();
    manifest.edit(T, flush(2, 5, 9)).unwrap();
    let last = bytes(&disk).len();
    manifest.edit(T, flush(3, 9, 11)).unwrap();
    let good = bytes(&disk);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            put(&disk, &bad);
            assert!(manifest.check(T).is_err(), "a scrub sees bit {bit} of byte {at}");
            match read(&disk, T) {
                Ok(known) => {
                    assert!(at >= last && known.end.is_none(), "bit {bit} of byte {at}");
                    assert_eq!(known.state.flushed, Lsn(9));
                }
                Err(error) => assert!(at < last && error.is_corrupt(), "bit {bit} of byte {at}: {error}"),
            }
        }
    }
    put(&disk, &good[..10]);
    assert!(read(&disk, T).err().unwrap().is_corrupt());
}

/// Another tablet's file under this one's name is not believed.
#[test]
fn a_file_under_another_name_is_damaged() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    manifest.edit(T, flush(1, 0, 5)).unwrap();
    disk.rename("manifest/7", "manifest/8").unwrap();
    let (manifest, damaged) = open(&disk);
    assert_eq!((manifest.states().count(), damaged.len()), (0, 1));
}

/// A full disk: the edit has certainly not happened, and the next one does when there is room.
#[test]
fn an_edit_without_room_changes_nothing() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    manifest.edit(T, flush(1, 0, 5)).unwrap();
    disk.set_capacity(Some(disk.used() + 10));
    let failed = manifest.edit(T, flush(2, 5, 9)).unwrap_err();
    assert!(failed.certain && failed.error.is_full());
    manifest.check(T).unwrap();
    disk.set_capacity(None);
    assert_eq!(numbers(&open(&disk).0), [1]);
    manifest.edit(T, flush(3, 5, 9)).unwrap();
    assert_eq!(numbers(&open(&disk).0), [1, 3]);
}

/// After a failed sync nobody knows what the file says: it is not appended to any more.
#[test]
fn after_a_failed_sync_the_file_is_written_anew() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    manifest.edit(T, flush(1, 0, 5)).unwrap();
    disk.fail_next_sync();
    assert!(!manifest.edit(T, flush(2, 5, 9)).unwrap_err().certain);
    manifest.edit(T, flush(3, 5, 9)).unwrap();
    disk.crash(1);
    disk.kill();
    assert_eq!(numbers(&open(&disk).0), [1, 3]);
}

/// Files of version 1 lie on disks: they are read, and written anew in the present form.
#[test]
fn version_1_is_read() {
    let disk = disk();
    let hex = "6469706d616e6966010000000b00000041f2a62a070203ac0209046e6f7465";
    let old: Vec<u8> = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    put(&disk, &old);
    let (mut manifest, damaged) = open(&disk);
    assert!(damaged.is_empty());
    let state = manifest.states().next().unwrap().clone();
    assert_eq!((state.flushed, &state.note[..]), (Lsn(9), &b"note"[..]));
    assert_eq!(state.tables, [placed(3, 8), placed(300, 9)]);
    manifest.edit(T, flush(301, 9, 12)).unwrap();
    assert_eq!(numbers(&open(&disk).0), [3, 300, 301]);
    for at in 0..old.len() {
        let mut bad = old.clone();
        bad[at] ^= 4;
        put(&disk, &bad);
        assert!(read(&disk, T).is_err(), "byte {at}");
    }
}

/// Sums that are right do not make an edit one that we wrote (`fuzz`, target `manifest`).
#[test]
fn an_edit_that_does_not_follow_is_damage() {
    let merged = |removed: &[u64]| Edit::Merged { removed: removed.to_vec(), added: vec![] };
    let whole = Edit::Whole { tables: vec![placed(1, 1), placed(2, 2)], upto: Lsn(5), note: Bytes::new() };
    let files: [&[Edit]; 5] = [
        &[merged(&[1])],
        &[flush(1, 3, 5)],
        &[whole.clone(), merged(&[1, 1])],
        &[whole.clone(), merged(&[3])],
        &[whole.clone(), flush(3, 4, 6)],
    ];
    for edits in files {
        let disk = disk();
        let (mut file, mut chain) = (header(), 0);
        for edit in edits {
            chain = encode_frame(T, edit, file.len() as u64, chain, &mut file);
        }
        put(&disk, &file);
        let (manifest, damaged) = open(&disk);
        assert_eq!((manifest.states().count(), damaged.len()), (0, 1), "{edits:?}");
    }
}

/// Files of version 2 lie on disks: they must be readable for ever.
#[test]
fn the_form_of_version_2_is_pinned() {
    let disk = disk();
    let (mut manifest, _) = open(&disk);
    let run = RunId { locality: LocalityId(2), level: 6, age: Lsn(0) };
    let whole = Edit::Whole { tables: vec![Placed { number: 300, run }], upto: Lsn(5), note: Bytes::from_static(b"n") };
    manifest.edit(T, whole).unwrap();
    manifest.edit(T, flush(301, 5, 9)).unwrap();
    manifest.edit(T, Edit::Merged { removed: vec![300, 301], added: vec![] }).unwrap();
    let hex: String = bytes(&disk).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "6469706d616e6966020000004c8add6931b981700a000000070000000000000000000000000000000001ac0202060005016e\
         d772990310000000070000000000000031b98170000000000101ad020000090509066e6f746520\
         397acb4cc6070000000700000000000000d7729903000000000202ac02ad0200"
    );
}
