//! Every numbered statement of the standard that binds a server is named by a test. A test names it in its own name
//! (`v311_mqtt_3_1_2_22_...`, `v5_mqtt_...`), in a comment of its body (`MQTT-3.1.2-22 (3.1.1)`), or as the name of a vector. An
//! id without a version does not count, nor does one outside of a test or in a test that is ignored.
//!
//! The tables say who is bound by each statement, in our own words. `open-5.0.txt` lists what is still unproven of 5.0; it may
//! only shrink.

mod scan;

use std::collections::BTreeSet;
use std::path::Path;

use scan::Id;

/// Rows of 3.1.1 that belong to what this version does not have.
const ABSENT_311: [&str; 1] = [
    // No bridge: nothing connects to other servers.
    "MQTT-7.0.0-1",
];

struct Row {
    id: &'static str,
    /// The statement binds a server.
    is_ours: bool,
}

/// Rows of a table: id, who is bound, and the statement in our own words.
fn rows(table: &'static str) -> Vec<Row> {
    let rows: Vec<Row> = table
        .lines()
        .skip(1)
        .map(|line| {
            let mut columns = line.split('\t');
            let (id, applies) = (columns.next().unwrap(), columns.next().unwrap());
            assert!(matches!(applies, "server" | "client" | "both") && columns.next().is_some(), "{line}");
            Row { id, is_ours: applies != "client" }
        })
        .collect();
    assert_eq!(rows.iter().map(|row| row.id).collect::<BTreeSet<_>>().len(), rows.len(), "an id stands twice");
    rows
}

fn rows_311() -> Vec<Row> {
    rows(include_str!("mqtt-3.1.1.tsv"))
}

fn rows_5() -> Vec<Row> {
    rows(include_str!("mqtt-5.0.tsv"))
}

/// The ids of 5.0 that are still open.
fn open_5() -> Vec<&'static str> {
    let lines = include_str!("open-5.0.txt").lines().map(|line| line.split('#').next().unwrap_or("").trim());
    lines.filter(|line| !line.is_empty()).collect()
}

/// The ids that tests name, of one version.
fn named(version: &str) -> BTreeSet<String> {
    let ids = scan::ids_in_tests(Path::new(env!("CARGO_MANIFEST_DIR")));
    ids.into_iter().filter(|id: &Id| id.version == version).map(|id| id.number).collect()
}

#[test]
fn every_statement_of_3_1_1_that_binds_a_server_has_a_test() {
    let named = named("3.1.1");
    let missing: Vec<&str> = rows_311()
        .iter()
        .filter(|row| row.is_ours && !ABSENT_311.contains(&row.id) && !named.contains(row.id))
        .map(|row| row.id)
        .collect();
    assert!(missing.is_empty(), "{} without a test: {missing:#?}", missing.len());
}

#[test]
fn every_statement_of_5_0_that_binds_a_server_has_a_test_or_is_listed_as_open() {
    let (named, open) = (named("5.0"), open_5());
    let rows = rows_5();
    let missing: Vec<&str> = rows
        .iter()
        .filter(|row| row.is_ours && !open.contains(&row.id) && !named.contains(row.id))
        .map(|row| row.id)
        .collect();
    assert!(missing.is_empty(), "{} without a test: {missing:#?}", missing.len());
    let proven: Vec<&&str> = open.iter().filter(|id| named.contains(**id)).collect();
    assert!(proven.is_empty(), "have a test, so take them out of open-5.0.txt: {proven:#?}");
    let strange: Vec<&&str> = open.iter().filter(|id| !rows.iter().any(|row| row.is_ours && row.id == **id)).collect();
    assert!(strange.is_empty(), "open-5.0.txt lists what binds no server: {strange:#?}");
}

#[test]
fn tests_name_only_statements_that_exist() {
    for (version, rows) in [("3.1.1", rows_311()), ("5.0", rows_5())] {
        let known: BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
        let unknown: Vec<String> = named(version).into_iter().filter(|id| !known.contains(id.as_str())).collect();
        assert!(unknown.is_empty(), "{version} has no {unknown:#?}");
    }
}
