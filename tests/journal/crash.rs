//! Power cuts and kills: whatever is lost, a start succeeds, what was synced comes back in order, and nothing that was
//! gone once comes back later.

use midge::journal::{Mode, SnapshotPart};

use crate::history::{EIO, ENOSPC, History, MODES};
use crate::sim_disk::Rng;

/// Ends one life: what was not synced is lost in one of the ways there are.
fn lose(history: &mut History, rng: &mut Rng) {
    match rng.below(6) {
        0 => history.disk.lose_nothing(),
        1 => history.disk.lose_all(),
        _ => history.disk.lose_some(rng),
    }
}

/// Outcomes of one cut that are looked at: nothing lost, everything, and some at random.
const WAYS: u64 = 4;

/// Lives on after a crash, once more with a crash, so that what was left behind is built upon.
fn check_after_crash(mut history: History, mode: Mode, rng: &mut Rng) {
    for _ in 0..2 {
        let mut journal = history.start(mode).unwrap();
        for part in [SnapshotPart::None, SnapshotPart::None] {
            history.commit(&mut journal, mode, part, 30).unwrap();
        }
        lose(&mut history, rng);
    }
    history.open(mode);
}

/// The commits of a small history, life by life, with everything that makes a difference: a snapshot in parts with
/// changes between them, one in one, one that is begun twice, one that never ends.
const SMALL: [&[(SnapshotPart, usize)]; 5] = [
    &[(SnapshotPart::None, 100), (SnapshotPart::None, 600)],
    &[(SnapshotPart::Begin, 20), (SnapshotPart::None, 30), (SnapshotPart::End, 0), (SnapshotPart::None, 100)],
    &[(SnapshotPart::Whole, 50), (SnapshotPart::None, 460), (SnapshotPart::Begin, 10)],
    &[(SnapshotPart::Begin, 10), (SnapshotPart::Begin, 600), (SnapshotPart::Part, 40), (SnapshotPart::End, 10)],
    &[(SnapshotPart::None, 0), (SnapshotPart::Whole, 0)],
];

/// Runs `step` cut at each of its points in turn, checks each outcome, and returns how many points there were.
fn cut_everywhere(before: &History, mode: Mode, step: &dyn Fn(&mut History) -> Option<()>) -> u64 {
    // Differs from Interval in the zeros ahead alone, which make it slow; a prime, so that all kinds of bytes come up.
    let stride = if mode == Mode::Always { 13 } else { 1 };
    for point in (0..).step_by(stride) {
        for way in 0..WAYS {
            let mut history = before.clone();
            history.disk.cut_after(point);
            if step(&mut history).is_some() {
                return point / stride as u64;
            }
            let mut rng = Rng(point * WAYS + way);
            match way {
                0 => history.disk.lose_nothing(),
                1 => history.disk.lose_all(),
                _ => history.disk.lose_some(&mut rng),
            }
            check_after_crash(history, mode, &mut rng);
        }
    }
    unreachable!("the loop ends when nothing is cut")
}

#[test]
fn a_cut_at_any_byte_of_a_small_history_loses_nothing_that_was_synced() {
    for mode in MODES {
        let mut crashes = 0;
        let mut history = History::new();
        for life in SMALL {
            let step = |history: &mut History| {
                let mut journal = history.start(mode)?;
                life.iter().try_for_each(|(part, bytes)| history.commit(&mut journal, mode, *part, *bytes))
            };
            crashes += cut_everywhere(&history, mode, &step) * WAYS;
            step(&mut history).unwrap();
        }
        assert!(crashes > 2_500, "{crashes}");
        history.open(mode);
    }
}

fn random_life(history: &mut History, mode: Mode, rng: &mut Rng) -> Option<()> {
    if rng.below(3) == 0 {
        history.disk.cut_after(rng.below(30_000));
    }
    let mut journal = history.start(mode)?;
    for _ in 0..rng.below(30) {
        if rng.below(8) == 0 {
            let errno = if rng.below(2) == 0 { ENOSPC } else { EIO };
            history.disk.fail_after(rng.below(2_000), errno);
        }
        if rng.below(20) == 0 {
            history.disk.cut_after(rng.below(3_000));
        }
        history.commit_random(&mut journal, mode, rng)?;
    }
    Some(())
}

fn random_history(seed: u64) -> u64 {
    let mut rng = Rng(seed);
    let mut history = History::new();
    // What a failed sync loses of earlier commits nobody can write again if they were not kept, as in this mode.
    let with_never = rng.below(2) == 0;
    history.disk.forgives_failed_syncs = with_never;
    let lives = 2 + rng.below(10);
    let mut mode = Mode::Always;
    for _ in 0..lives {
        if rng.below(3) > 0 {
            mode = MODES[rng.below(if with_never { 3 } else { 2 }) as usize];
        }
        random_life(&mut history, mode, &mut rng);
        lose(&mut history, &mut rng);
    }
    history.open(mode);
    lives
}

#[test]
fn random_histories_lose_nothing_that_was_synced() {
    let histories = std::env::var("MIDGE_JOURNAL_HISTORIES").ok().and_then(|count| count.parse().ok()).unwrap_or(2_000);
    let first = std::env::var("MIDGE_JOURNAL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut crashes = 0;
    for seed in first..first + histories {
        let outcome = std::panic::catch_unwind(|| random_history(seed));
        crashes += outcome.unwrap_or_else(|_| panic!("MIDGE_JOURNAL_SEED={seed} MIDGE_JOURNAL_HISTORIES=1 repeats it"));
    }
    println!("{crashes} crashes");
}

#[test]
fn a_task_that_fails_at_any_point_is_repeated_until_it_succeeds() {
    for (mode, errno) in [(Mode::Always, EIO), (Mode::Interval, ENOSPC), (Mode::Never, EIO)] {
        for point in 0.. {
            let mut history = History::new();
            history.disk.forgives_failed_syncs = mode == Mode::Never;
            history.disk.fail_after(point, errno);
            let mut journal = history.start(mode).unwrap();
            for (part, bytes) in SMALL.concat() {
                history.commit(&mut journal, mode, part, bytes).unwrap();
            }
            let is_past_the_end = point > history.disk.points();
            history.disk.lose_all();
            history.open(mode);
            if is_past_the_end {
                break;
            }
        }
    }
}
