//! Worlds whose power is cut again and again: the broker with its store on a simulated disk that loses, tears and reorders
//! what was not synced, and clients that remember what was acknowledged.
//!
//! `MIDGE_SEED=7 cargo test --test simulation cuts::of_seeds` runs one world and prints its trace if it fails;
//! `MIDGE_SEEDS=1000..2000` runs many.

mod client;
mod keeper;
mod ledger;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

use keeper::{BUGS, Bug};
use world::Outside;

use crate::named_seeds;

/// What came of a world.
struct Outcome {
    failures: Vec<String>,
    strikes: usize,
    crashes: usize,
    compactions: usize,
}

fn run(seed: u64, bug: Bug, trace: bool) -> Outcome {
    let Ok(end) = catch_unwind(AssertUnwindSafe(|| Outside::new(seed, bug, trace).run())) else {
        let failures = vec!["the broker or the simulation panicked; see above".to_string()];
        return Outcome { failures, strikes: 1, crashes: 0, compactions: 0 };
    };
    show_trace(&end);
    Outcome {
        failures: end.ledger.failures,
        strikes: end.site.strikes,
        crashes: end.crashes,
        compactions: end.compactions,
    }
}

fn show_trace(end: &Outside) {
    if let Some(trace) = end.ledger.trace.as_ref().filter(|_| end.is_failed()) {
        trace.iter().for_each(|line| println!("{line}"));
    }
}

/// Runs worlds and says how many crashes and compactions there were.
fn run_some(seeds: Range<u64>, trace: bool) -> (usize, usize) {
    let (mut failed, mut crashes, mut compactions) = (0, 0, 0);
    for seed in seeds {
        let outcome = run(seed, Bug::Nothing, trace);
        crashes += outcome.crashes;
        compactions += outcome.compactions;
        if let Some(first) = outcome.failures.first() {
            failed += 1;
            println!("seed {seed}: {first}");
            println!("    MIDGE_SEED={seed} cargo test --test simulation cuts::of_seeds -- --nocapture");
        }
    }
    assert_eq!(failed, 0, "{failed} worlds failed");
    (crashes, compactions)
}

/// The world or worlds that the environment names.
#[test]
fn of_seeds() {
    for (seeds, trace) in named_seeds() {
        let (crashes, compactions) = run_some(seeds, trace);
        println!("{crashes} crashes, {compactions} compactions");
    }
}

/// Crashes in each of the two halves, and worlds.
const CRASHES: usize = 5000;
const WORLDS: u64 = 400;

fn run_half(from: u64) {
    if !named_seeds().is_empty() {
        return;
    }
    let (crashes, compactions) = run_some(from..from + WORLDS, false);
    println!("{crashes} crashes, {compactions} compactions");
    assert!(crashes >= CRASHES, "{crashes} crashes are too few");
    assert!(compactions >= 20, "{compactions} compactions are too few");
}

#[test]
fn half_of_ten_thousand_power_cuts() {
    run_half(0);
}

#[test]
fn the_other_half() {
    run_half(WORLDS);
}

/// In small worlds, the write that is under way is cut at each of its bytes.
#[test]
fn every_byte_of_a_write() {
    if !named_seeds().is_empty() {
        return;
    }
    static CUTS: AtomicUsize = AtomicUsize::new(0);
    for seed in 0..4 {
        let Ok(mut world) = Outside::small(seed, Bug::Nothing).start() else { panic!("an empty disk") };
        if world.live_until_write(5 + 10 * seed as usize) {
            let (count, failed) = world.cut_at_every_byte();
            CUTS.fetch_add(count, Ordering::Relaxed);
            if let Some(end) = failed {
                show_trace(&end);
                panic!("seed {seed}, cut {count}: {}", end.ledger.failures[0]);
            }
        }
    }
    let cuts = CUTS.load(Ordering::Relaxed);
    println!("{cuts} cuts");
    assert!(cuts >= 3000, "{cuts} cuts are too few");
}

/// A check that cannot fail is a defect.
#[test]
fn every_planted_bug_is_found() {
    if !named_seeds().is_empty() {
        return;
    }
    for bug in BUGS {
        let found = (0..100).find(|&seed| {
            let outcome = run(seed, bug, false);
            let is_found = !outcome.failures.is_empty();
            assert!(outcome.strikes > 0 || !is_found, "{bug:?}, seed {seed}: {:?}", outcome.failures);
            if is_found {
                println!("{bug:?}, seed {seed}: {}", outcome.failures[0]);
            }
            is_found
        });
        assert!(found.is_some(), "{bug:?} is not noticed");
    }
}
