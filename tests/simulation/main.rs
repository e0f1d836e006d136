//! Seeded worlds: a broker, a dozen clients of all versions, and a network that splits, stalls, cuts and jumps, on a
//! virtual clock. What the broker did is judged by a model that knows the standard and nothing of the broker's state.
//!
//! Every other world has a store beside it, and the worlds of `cuts` live with theirs through power cuts.
//!
//! `MIDGE_SEED=7 cargo test --test simulation chosen` runs one world and prints its trace if it fails;
//! `MIDGE_SEEDS=1000..2000` runs many.

mod act;
mod client;
mod cuts;
mod held;
mod hostile;
mod ledger;
mod lives;
mod matching;
mod model;
mod net;
mod node;
mod plan;
mod rng;
mod saboteur;
mod shadow;
mod shares;
#[path = "../journal/sim_disk.rs"]
mod sim_disk;
mod verdict;
mod wire;
mod world;

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use saboteur::{BUGS, Bug};
use world::World;

/// Runs one world; what went wrong in it.
fn run(seed: u64, bug: Option<Bug>, trace: bool) -> (Vec<String>, usize) {
    let mut world = World::new(seed, bug, trace);
    let outcome = catch_unwind(AssertUnwindSafe(|| world.run()));
    if outcome.is_err() {
        world.model.fail("the broker or the simulation panicked; see above".to_string());
    }
    if let Some(trace) = world.model.trace.as_ref().filter(|_| !world.model.failures.is_empty()) {
        trace.iter().for_each(|line| println!("{line}"));
    }
    let strikes = world.node.saboteur.as_ref().map_or(0, |saboteur| saboteur.strikes);
    (world.model.failures, strikes)
}

/// The seeds that the environment names, and whether their worlds are traced. If there are any, no other test is run.
fn named_seeds() -> Vec<(Range<u64>, bool)> {
    let number = |text: &str| text.trim().parse::<u64>().expect("a seed is a number");
    let mut named = Vec::new();
    if let Ok(seed) = std::env::var("MIDGE_SEED") {
        let seed = number(&seed);
        named.push((seed..seed + 1, true));
    }
    if let Ok(seeds) = std::env::var("MIDGE_SEEDS") {
        let (from, to) = seeds.split_once("..").expect("MIDGE_SEEDS=a..b");
        named.push((number(from)..number(to), false));
    }
    named
}

fn run_all(seeds: Range<u64>) {
    if !named_seeds().is_empty() {
        return;
    }
    run_some(seeds, false);
}

fn run_some(seeds: Range<u64>, trace: bool) {
    let mut failed = 0;
    for seed in seeds {
        let (failures, _) = run(seed, None, trace);
        if let Some(first) = failures.first() {
            failed += 1;
            println!("seed {seed}: {first}");
            println!("    MIDGE_SEED={seed} cargo test --test simulation chosen -- --nocapture");
        }
    }
    assert_eq!(failed, 0, "{failed} worlds failed");
}

/// The world or worlds that the environment names.
#[test]
fn chosen() {
    for (seeds, trace) in named_seeds() {
        run_some(seeds, trace);
    }
}

macro_rules! worlds {
    ($($name:ident: $from:literal..$to:literal;)*) => {
        $(#[test]
        fn $name() {
            run_all($from..$to);
        })*
    };
}

worlds! {
    worlds_0_to_49: 0..50;
    worlds_50_to_99: 50..100;
    worlds_100_to_149: 100..150;
    worlds_150_to_199: 150..200;
}

/// Stores beside the worlds are read, and one that forgets is noticed.
#[test]
fn stores_beside_the_worlds() {
    if !named_seeds().is_empty() {
        return;
    }
    let (mut replays, mut found) = (0, 0);
    for seed in [0, 2, 4, 6, 8, 10] {
        for forgets in [false, true] {
            let mut world = World::new(seed, None, false);
            world.shadow.as_mut().expect("every other world has one").forgets = forgets;
            world.run();
            replays += world.shadow.as_ref().map_or(0, |shadow| shadow.replays);
            assert!(forgets || !world.is_failed(), "seed {seed}: {:?}", world.model.failures);
            found += usize::from(world.is_failed());
        }
    }
    assert!(replays >= 60 && found >= 2, "{replays} replays, {found} that forget found");
}

/// A check that cannot fail is a defect.
#[test]
fn every_planted_bug_is_found() {
    if !named_seeds().is_empty() {
        return;
    }
    for seed in 0..8 {
        let (failures, _) = run(seed, Some(Bug::Nothing), false);
        assert_eq!(failures, [] as [&str; 0], "seed {seed}: nothing was planted");
    }
    for bug in BUGS {
        let found = (0..100).any(|seed| {
            let (failures, strikes) = run(seed, Some(bug), false);
            if strikes > 0 && !failures.is_empty() {
                println!("{bug:?}, seed {seed}: {}", failures[0]);
            }
            assert!(strikes > 0 || failures.is_empty(), "{bug:?}, seed {seed}: {failures:?}, and nothing was done");
            strikes > 0 && !failures.is_empty()
        });
        assert!(found, "{bug:?} is not noticed");
    }
}
