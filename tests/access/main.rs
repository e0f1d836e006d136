//! The access control file's index against a plain reading of the rules, on rule sets from fixed seeds.

#[path = "../codec/allocations.rs"]
mod allocations;
mod made_up;
mod reference;

use std::fmt::Write;
use std::path::Path;

use midge::access::acl::{self, Access, Asker, Why};

/// xorshift
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % limit
    }
}

#[test]
fn the_index_decides_as_a_scan_over_all_rules_does() {
    // How often each reason decided: a check that never meets one of them proves nothing about it.
    let mut met = [[0_u32; 2]; 5];
    for seed in 1..=2000_u64 {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut choose = |limit| random.below(limit);
        let (file, rules) = made_up::file(&mut choose);
        let (acl, _) =
            acl::parse(file.as_bytes()).unwrap_or_else(|faults| panic!("seed {seed}: {faults:?} in\n{file}"));
        assert_eq!(acl.rule_count() as usize, rules.len());
        for _ in 0..60 {
            let name = choose(made_up::NAMES.len() + 2);
            let asker = Asker {
                client_id: made_up::CLIENT_IDS[choose(made_up::CLIENT_IDS.len())],
                username: made_up::NAMES.get(name).copied(),
            };
            let access = [Access::Read, Access::Write][choose(2)];
            let topic = made_up::topic(&mut choose);
            let decision = acl.decide(&asker, access, &topic);
            let expected = reference::decide(&rules, &asker, access, &topic);
            let got = (decision.allowed, decision.line, decision.why);
            assert_eq!(got, expected, "seed {seed}: {asker:?} {access:?} {topic} by\n{file}");
            let reason = [Why::Topic, Why::Pattern, Why::DangerousUsername, Why::DangerousClientId, Why::NoRule]
                .iter()
                .position(|why| *why == decision.why);
            met[reason.unwrap()][usize::from(decision.allowed)] += 1;
        }
    }
    let [topic, pattern, [username, 0], [client_id, 0], [none, 0]] = met else { panic!("{met:?}") };
    let all = [topic[0], topic[1], pattern[0], pattern[1], username, client_id, none];
    assert!(all.iter().all(|&count| count > 1000), "{met:?}");
}

/// A user's section of so many rules, and a pattern.
fn house(rooms: u32) -> acl::Acl {
    let mut file = "pattern write of/%u/%c/#\nuser u\n".to_string();
    for room in 0..rooms {
        writeln!(file, "topic read house/+/room{room}/#").unwrap();
    }
    acl::parse(file.as_bytes()).map(|(acl, _)| acl).unwrap_or_else(|faults| panic!("{faults:?}"))
}

const ASKER: Asker = Asker { client_id: "c", username: Some("u") };

#[test]
fn a_decision_allocates_nothing() {
    let acl = house(10_000);
    for (access, topic, expected) in [
        (Access::Read, "house/attic/room9999/lamp", true),
        (Access::Write, "house/attic/room9999/lamp", false),
        (Access::Write, "of/u/c/lamp", true),
        (Access::Write, "of/u/d/lamp", false),
    ] {
        let (decision, count) = allocations::count(|| acl.decide(&ASKER, access, topic));
        assert_eq!((decision.allowed, count), (expected, 0), "{topic}");
    }
}

/// Prints what a decision costs among 10 and among 10,000 rules.
#[test]
#[ignore = "a measurement, for a release build on a quiet machine"]
fn the_time_of_a_decision() {
    for rooms in [10, 10_000] {
        let acl = house(rooms);
        let topics: Vec<String> = (0..rooms).map(|room| format!("house/attic/room{room}/lamp")).collect();
        let start = std::time::Instant::now();
        let rounds = 10_000_000 / rooms;
        for _ in 0..rounds {
            for topic in &topics {
                assert!(acl.decide(&ASKER, Access::Read, topic).allowed);
            }
        }
        println!("{rooms} rules: {} ns", start.elapsed().as_nanos() / u128::from(rounds * rooms));
    }
}

/// Rule sets, and what is decided by them, as files for a script that asks Mosquitto the same.
#[test]
#[ignore = "run by scripts/acl-compare"]
fn decisions_for_acl_compare() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by scripts/acl-compare"));
    let (directory, sets) = (variable("ACL_COMPARE_DIR"), variable("ACL_COMPARE_SETS").parse().unwrap());
    for seed in 1..=sets {
        let mut random = Random(u64::wrapping_mul(seed, 0xD1B5_4A32_D192_ED03));
        let mut choose = |limit| random.below(limit);
        let (file, _) = made_up::file(&mut choose);
        let acl = acl::parse(file.as_bytes()).map(|(acl, _)| acl).unwrap_or_else(|faults| panic!("{faults:?}"));
        let mut requests = String::new();
        for _ in 0..20 {
            let name = made_up::NAMES.get(choose(made_up::NAMES.len() + 2)).copied();
            let client_id = made_up::CLIENT_IDS[choose(made_up::CLIENT_IDS.len())];
            let (word, access) = [("read", Access::Read), ("write", Access::Write)][choose(2)];
            let topic = made_up::topic(&mut choose);
            let decision = acl.decide(&Asker { client_id, username: name }, access, &topic);
            let name = name.map_or("-".to_string(), |name| format!("={name}"));
            writeln!(requests, "{client_id}\t{name}\t{word}\t{topic}\t{}\t{decision}", u8::from(decision.allowed))
                .unwrap();
        }
        std::fs::write(Path::new(&directory).join(format!("{seed}.acl")), file).unwrap();
        std::fs::write(Path::new(&directory).join(format!("{seed}.tsv")), requests).unwrap();
    }
}
