//! What a start makes of files it did not expect.

use midge::journal::{Mode, Name, OpenError, Opened, SnapshotPart, open};

use crate::history::{History, MODES, replay};
use crate::sim_disk::SimDisk;

fn refusal(disk: &SimDisk) -> String {
    let before: Vec<_> =
        disk.file_names().into_iter().map(|name| (disk.content(&name).unwrap().to_vec(), name)).collect();
    let result: Result<Opened, OpenError> = open(disk, Mode::Always, 1, &mut |_| panic!("nothing is replayed"));
    let after: Vec<_> =
        disk.file_names().into_iter().map(|name| (disk.content(&name).unwrap().to_vec(), name)).collect();
    assert_eq!(before, after);
    result.err().expect("the store is refused").to_string()
}

fn started(mode: Mode) -> History {
    let mut history = History::new();
    let mut journal = history.start(mode).unwrap();
    for part in [SnapshotPart::None, SnapshotPart::Whole, SnapshotPart::None] {
        history.commit(&mut journal, mode, part, 100).unwrap();
    }
    history.disk.lose_nothing();
    history
}

fn file(generation: u32) -> String {
    Name::Generation(generation).to_string()
}

#[test]
fn a_newer_format_is_refused() {
    let mut history = started(Mode::Always);
    let mut content = history.disk.content(&file(2)).unwrap().to_vec();
    content[14] = 2;
    content[20..24].fill(0);
    let checksum = crc32fast::hash(&content[..512]);
    content[20..24].copy_from_slice(&checksum.to_le_bytes());
    history.disk.delete(&file(2));
    history.disk.put(&file(2), content);
    let expected = "midge-00000002.journal has format version 2, this program knows versions up to 1; start the newer program \
        that wrote it, or move the files elsewhere to begin with an empty store";
    assert_eq!(refusal(&history.disk), expected);
}

#[test]
fn a_foreign_file_is_refused() {
    let mut history = started(Mode::Never);
    history.disk.put(&file(9), b"SQLite format 3\0 and so on".to_vec());
    let expected =
        "midge-00000009.journal is not a journal of this program; move it elsewhere or choose another directory";
    assert_eq!(refusal(&history.disk), expected);
}

#[test]
fn a_renamed_file_and_one_of_another_store_are_refused() {
    let mut history = started(Mode::Always);
    let content = history.disk.content(&file(2)).unwrap().to_vec();
    history.disk.put(&file(3), content);
    assert!(
        refusal(&history.disk).contains("midge-00000003.journal was renamed or copied, it is midge-00000002.journal")
    );
    history.disk.delete(&file(3));

    let mut other = SimDisk::new();
    let opened = open(&other, Mode::Always, 99, &mut |_| {}).unwrap();
    let mut journal = opened.journal;
    other.perform(&journal.first_task()).unwrap();
    history.disk.put(&file(1), other.content(&file(1)).unwrap().to_vec());
    assert!(refusal(&history.disk).contains("midge-00000001.journal and midge-00000002.journal belong to two"));
}

#[test]
fn an_empty_or_zero_file_beside_a_complete_one_is_removed() {
    for content in [vec![], vec![0; 5], vec![0; 100_000]] {
        let mut history = started(Mode::Always);
        history.disk.put(&file(3), content);
        let opened = history.open(Mode::Always);
        assert_eq!(opened.lines.len(), 1);
        assert_eq!(opened.lines[0].0, log::Level::Info);
        history.start(Mode::Always).unwrap();
        history.disk.lose_all();
        assert_eq!(history.disk.content(&file(3)), None);
        history.open(Mode::Always);
    }
}

#[test]
fn an_empty_or_zero_file_that_is_the_only_one_is_set_aside_and_the_store_begins_anew() {
    for content in [vec![], vec![0; 5], vec![0; 100_000]] {
        let mut disk = SimDisk::new();
        disk.put(&file(7), content.clone());
        disk.put(&Name::Generation(7).set_aside(1), b"an older one".to_vec());
        let (opened, replayed) = replay(&disk, Mode::Always);
        assert!(opened.is_new && opened.is_damaged && replayed.is_empty());
        assert_eq!(opened.lines[0].0, log::Level::Warn);
        let mut journal = opened.journal;
        disk.perform(&journal.first_task()).unwrap();
        assert_eq!(disk.content(&Name::Generation(7).set_aside(1)), Some(&b"an older one"[..]));
        assert_eq!(disk.content(&Name::Generation(7).set_aside(2)), Some(&content[..]));
        assert!(disk.content(&file(8)).is_some());
    }
}

#[test]
fn a_torn_tail_is_reported_with_its_size_and_cut() {
    let mut history = started(Mode::Never);
    let mut content = history.disk.content(&file(2)).unwrap().to_vec();
    let whole = content.len();
    content.truncate(whole - 30);
    history.disk.delete(&file(2));
    history.disk.put(&file(2), content);
    let (opened, replayed) = replay(&history.disk, Mode::Never);
    assert_eq!(replayed.len(), 1);
    assert!(!opened.is_damaged);
    let line = &opened.lines[0].1;
    let torn = history.commits.last().unwrap().place.unwrap().2 - 30;
    assert!(line.contains(&format!("ends with {torn} bytes of writes that were interrupted")), "{line}");
    let mut journal = opened.journal;
    history.disk.perform(&journal.first_task()).unwrap();
    assert_eq!(history.disk.content(&file(2)).unwrap().len() as u64, whole as u64 - torn - 30);
}

#[test]
fn times_and_key_come_back() {
    for mode in MODES {
        let mut disk = SimDisk::new();
        let mut journal = open(&disk, mode, 77, &mut |_| {}).unwrap().journal;
        disk.perform(&journal.first_task()).unwrap();
        let _ = journal.finish(midge::journal::Done {
            task: midge::journal::Task { steps: vec![] },
            result: Ok(()),
            wear: Default::default(),
        });
        disk.perform(&journal.commit(b"one", SnapshotPart::None, 1000, 5000)).unwrap();
        let _ = journal.finish(midge::journal::Done {
            task: midge::journal::Task { steps: vec![] },
            result: Ok(()),
            wear: Default::default(),
        });
        disk.perform(&journal.commit(b"two", SnapshotPart::None, 2000, 0)).unwrap();
        let opened = open(&disk, mode, 78, &mut |_| {}).unwrap();
        assert_eq!((opened.store_ms, opened.wall_ms, opened.journal.store_key()), (2000, 5000, 77));
    }
}

#[test]
fn compaction_is_wanted_when_half_is_garbage() {
    let mut history = History::new();
    let mode = Mode::Interval;
    let mut journal = history.start(mode).unwrap();
    for _ in 0..100 {
        history.commit(&mut journal, mode, SnapshotPart::None, 1_000).unwrap();
    }
    let held = journal.held_bytes();
    assert!(held > 150_000);
    assert!(!journal.wants_compaction(held / 2 + 1));
    assert!(journal.wants_compaction(held / 2));
    history.commit(&mut journal, mode, SnapshotPart::Begin, 10).unwrap();
    assert!(!journal.wants_compaction(0));
    history.commit(&mut journal, mode, SnapshotPart::End, 10).unwrap();
    assert!(!journal.wants_compaction(0), "{}", journal.held_bytes());
    assert_eq!(journal.wear().snapshots, 1);
}

#[test]
fn a_file_that_is_used_again_needs_no_zeros() {
    let mut history = History::new();
    let mode = Mode::Always;
    let mut journal = history.start(mode).unwrap();
    let mut written = Vec::new();
    for _ in 0..6 {
        let before = journal.wear().written_bytes;
        for _ in 0..100 {
            history.commit(&mut journal, mode, SnapshotPart::None, 100).unwrap();
        }
        history.commit(&mut journal, mode, SnapshotPart::Whole, 100).unwrap();
        written.push(journal.wear().written_bytes - before);
    }
    // A hundred commits, a first sector and a snapshot.
    assert_eq!(written[3..], [102 * 512; 3], "{written:?}");
    history.disk.lose_all();
    history.open(mode);
}
