//! Flipped bits and zeroed ranges anywhere in the files: a start succeeds, everything the damage does not touch comes
//! back, and a damaged file is kept, as it was, until and after a new snapshot has replaced it.

use midge::journal::{Mode, Name, SnapshotPart};

use crate::history::{Commit, History, MODES, replay};
use crate::sim_disk::{Rng, SimDisk};

/// Two generations: one complete with changes behind it, and one whose snapshot is under way.
fn store(mode: Mode) -> History {
    let mut history = History::new();
    let mut journal = history.start(mode).unwrap();
    let parts = [SnapshotPart::None, SnapshotPart::Begin, SnapshotPart::None, SnapshotPart::End, SnapshotPart::None];
    for part in parts.into_iter().chain([SnapshotPart::Begin, SnapshotPart::Part, SnapshotPart::None]) {
        history.commit(&mut journal, mode, part, 200).unwrap();
    }
    history.disk.lose_nothing();
    history.open(mode);
    // What is out of date is not on the disk any more.
    history.commits.retain(|commit| commit.place.is_some_and(|(file, ..)| file != Name::Generation(1)));
    history
}

/// Damages `from..to` of `name` and checks everything that follows from it.
fn check(history: &History, mode: Mode, name: &str, from: usize, to: usize, damage: &dyn Fn(&mut u8)) {
    let mut disk = history.disk.clone();
    let mut content = disk.content(name).unwrap().to_vec();
    content[from..to].iter_mut().for_each(damage);
    if content == disk.content(name).unwrap() {
        return;
    }
    disk.delete(name);
    disk.put(name, content.clone());

    let (opened, replayed) = replay(&disk, mode);
    let is_touched = |commit: &&Commit| {
        let Some((file, offset, _)) = commit.place else { return false };
        let end = offset + 48 + commit.batch.len() as u64;
        file.to_string() == name && (from as u64) < end && offset < to as u64
    };
    let whole: Vec<_> = history.commits.iter().filter(|commit| !is_touched(commit)).collect();
    let same =
        |(commit, (part, batch)): (&&Commit, &(SnapshotPart, Vec<u8>))| commit.part == *part && commit.batch == *batch;
    assert!(replayed.iter().zip(whole.iter()).all(|(found, commit)| same((commit, found))), "{name} {from}..{to}");
    if mode != Mode::Never {
        assert_eq!(replayed.len(), whole.len(), "{name} {from}..{to}: {:?}", opened.lines);
    }
    check_kept(disk, mode, name, &content, opened.is_damaged);
}

/// A damaged file is kept under another name when a new snapshot is complete, and the next start is a clean one.
fn check_kept(mut disk: SimDisk, mode: Mode, name: &str, content: &[u8], is_damaged: bool) {
    let (opened, replayed) = replay(&disk, mode);
    let was_new = opened.is_new;
    let mut journal = opened.journal;
    let task = journal.first_task();
    assert!(journal.finish(disk.run(task).unwrap()).is_ok());
    if is_damaged && !was_new {
        assert!(journal.wants_compaction(u64::MAX));
        assert_eq!(disk.content(name), Some(content), "a damaged file is not written");
    }
    let task = journal.commit(b"all there is", SnapshotPart::Whole, 1, 1);
    assert!(journal.finish(disk.run(task).unwrap()).is_ok());
    assert!(!journal.has_damage());
    let kept = disk.file_names().into_iter().filter(|name| name.contains(".damaged"));
    let kept: Vec<_> = kept.map(|name| disk.content(&name).unwrap().to_vec()).collect();
    assert_eq!(kept.is_empty(), !is_damaged, "{} came back", replayed.len());
    assert!(!is_damaged || kept.iter().any(|kept| kept == content));
    disk.lose_all();
    let (opened, replayed) = replay(&disk, mode);
    assert!(!opened.is_damaged);
    assert_eq!(replayed, [(SnapshotPart::Whole, b"all there is".to_vec())]);
}

fn journals(history: &History) -> Vec<(String, usize)> {
    let names = history.disk.file_names().into_iter().filter(|name| Name::generation_of(name).is_some());
    names.map(|name| (name.clone(), history.disk.content(&name).unwrap().len())).collect()
}

#[test]
fn any_one_byte_may_be_wrong() {
    for mode in MODES {
        let history = store(mode);
        for (name, size) in journals(&history) {
            // Behind the frames there are only zeros, written ahead.
            for at in 0..size.min(6_000) {
                check(&history, mode, &name, at, at + 1, &|byte| *byte ^= 1 << (at % 8));
            }
        }
    }
}

#[test]
fn any_range_may_be_zeros_or_rubbish() {
    for mode in MODES {
        let history = store(mode);
        for (name, size) in journals(&history) {
            let size = size.min(6_000) as u64;
            for seed in 0..2_000 {
                let mut rng = Rng(seed);
                let from = rng.below(size) as usize;
                let to = from + 1 + rng.below((size - from as u64).min(1 << (seed % 13))) as usize;
                check(&history, mode, &name, from, to, &|byte| *byte = 0);
                // A wrong text at the start would make it somebody else's file.
                if from >= 14 {
                    check(&history, mode, &name, from, to, &|byte| *byte = byte.wrapping_add(91));
                }
            }
        }
    }
}

#[test]
fn a_lost_file_with_the_only_snapshot_leaves_what_came_later() {
    for mode in MODES {
        let history = store(mode);
        let mut disk = history.disk.clone();
        disk.delete(&journals(&history)[0].0);
        let (opened, replayed) = replay(&disk, mode);
        assert!(opened.is_damaged);
        assert_eq!(replayed.len(), 3);
    }
}

/// Spoils a byte in the batch of a commit.
fn spoil(disk: &mut SimDisk, commit: &Commit) {
    let (file, offset, _) = commit.place.unwrap();
    let name = file.to_string();
    let mut content = disk.content(&name).unwrap().to_vec();
    content[offset as usize + 50] ^= 1;
    disk.delete(&name);
    disk.put(&name, content);
}

#[test]
fn a_damaged_snapshot_falls_back_on_the_one_before_if_it_is_still_there() {
    let mode = Mode::Interval;
    let mut history = History::new();
    let mut journal = history.start(mode).unwrap();
    history.commit(&mut journal, mode, SnapshotPart::None, 100).unwrap();
    history.commit(&mut journal, mode, SnapshotPart::Begin, 100).unwrap();
    let old = history.disk.content("midge-00000001.journal").unwrap().to_vec();
    history.commit(&mut journal, mode, SnapshotPart::End, 100).unwrap();
    history.disk.lose_nothing();
    // As if the power had gone between the last sync and the removal.
    history.disk.put("midge-00000001.journal", old);
    assert_eq!(replay(&history.disk, mode).1.len(), 2);
    spoil(&mut history.disk, &history.commits[2]);
    let (opened, replayed) = replay(&history.disk, mode);
    assert!(opened.is_damaged);
    let batches: Vec<_> = replayed.into_iter().map(|(_, batch)| batch).collect();
    assert_eq!(batches, [0, 1, 3].map(|index: usize| history.commits[index].batch.clone()));
}

#[test]
fn what_a_damaged_file_gave_once_it_gives_again() {
    let mode = Mode::Never;
    let mut history = History::new();
    for commits in [2, 3] {
        let mut journal = history.start(mode).unwrap();
        for _ in 0..commits {
            history.commit(&mut journal, mode, SnapshotPart::None, 100).unwrap();
        }
        history.disk.lose_nothing();
    }
    // The first of the damaged ones was known to be synced; a hole like the other one alone would be a torn tail.
    spoil(&mut history.disk, &history.commits[1]);
    spoil(&mut history.disk, &history.commits[4]);
    let (opened, first) = replay(&history.disk, mode);
    assert_eq!(first.len(), 4);
    let mut journal = opened.journal;
    let task = journal.first_task();
    assert!(journal.finish(history.disk.run(task).unwrap()).is_ok());
    let task = journal.commit(b"later", SnapshotPart::None, 1, 1);
    assert!(journal.finish(history.disk.run(task).unwrap()).is_ok());
    let (opened, again) = replay(&history.disk, mode);
    assert!(opened.is_damaged);
    assert_eq!(again, [&first[..], &[(SnapshotPart::None, b"later".to_vec())]].concat());
}
