//! Finds the ids of statements in the sources of tests. Looks at text, not at syntax: rustfmt's indentation says where a
//! test ends.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A numbered statement of one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    /// `3.1.1` or `5.0`
    pub version: &'static str,
    /// `MQTT-3.1.2-22`
    pub number: String,
}

/// What the tests of the crate at `root` name.
pub fn ids_in_tests(root: &Path) -> BTreeSet<Id> {
    let mut ids = BTreeSet::new();
    visit(&root.join("src"), &mut |path, text| {
        if is_rust(path) {
            let tests = text.split_once("#[cfg(test)]").map_or("", |(_, tests)| tests);
            ids_in_rust(tests, &mut ids);
        }
    });
    visit(&root.join("tests"), &mut |path, text| match path.starts_with(root.join("tests/vectors")) {
        true => ids_in_vectors(text, &mut ids),
        false if is_rust(path) => ids_in_rust(text, &mut ids),
        false => {}
    });
    ids
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

fn visit(folder: &Path, file: &mut impl FnMut(&Path, &str)) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            visit(&path, file);
        } else if let Ok(text) = fs::read_to_string(&path) {
            file(&path, &text);
        }
    }
}

/// Ids in the functions that `#[test]` stands before: from that line, or the comment above it, to the brace that closes the
/// function.
fn ids_in_rust(text: &str, ids: &mut BTreeSet<Id>) {
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| line.trim() == "#[test]") {
        let indentation = &line[..line.len() - line.trim_start().len()];
        let comment = lines[..at].iter().rev().take_while(|line| line.trim().starts_with("//")).count();
        let end = lines[at..].iter().position(|line| line.strip_prefix(indentation) == Some("}"));
        let function = &lines[at - comment..at + end.unwrap_or(0) + 1];
        if !function.iter().any(|line| line.trim().starts_with("#[ignore")) {
            function.iter().for_each(|line| ids_in_line(line, ids));
        }
    }
}

/// Vectors begin with their names, at the beginning of a line.
fn ids_in_vectors(text: &str, ids: &mut BTreeSet<Id>) {
    let names = text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()));
    names.filter_map(|line| line.split_whitespace().next()).for_each(|name| ids_in_line(name, ids));
}

fn ids_in_line(line: &str, ids: &mut BTreeSet<Id>) {
    for (mark, version) in [("v311_mqtt_", "3.1.1"), ("v5_mqtt_", "5.0")] {
        for (at, _) in line.match_indices(mark) {
            let name: &str = line[at + mark.len()..].split(|letter: char| !is_word(letter)).next().unwrap_or("");
            let numbers: Vec<&str> = name.split('_').take(4).collect();
            ids.extend(id(&numbers, version));
        }
    }
    for (at, _) in line.match_indices("MQTT-") {
        let Some((number, rest)) = line[at + 5..].split_once(' ') else { continue };
        let numbers: Vec<&str> = number.split(['.', '-']).collect();
        for version in ["3.1.1", "5.0"] {
            if rest.starts_with(&format!("({version})")) {
                ids.extend(id(&numbers, version));
            }
        }
    }
}

fn is_word(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn id(numbers: &[&str], version: &'static str) -> Option<Id> {
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match numbers {
        [a, b, c, d] if numbers.iter().all(is_number) => Some(Id { version, number: format!("MQTT-{a}.{b}.{c}-{d}") }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, is_vector: bool) -> Vec<String> {
        let mut ids = BTreeSet::new();
        match is_vector {
            true => ids_in_vectors(text, &mut ids),
            false => ids_in_rust(text, &mut ids),
        }
        ids.into_iter().map(|id| format!("{} {}", id.version, id.number)).collect()
    }

    #[test]
    fn names_and_comments_of_tests_count() {
        // The ids are put together, so that this test does not name them itself.
        let (a, b, c) = (["v311", "mqtt_1_2_3_4"].join("_"), ["v5", "mqtt_5_6_7_8"].join("_"), "MQTT-1.2.3-5");
        let text = format!("// {c} (5.0)\n#[test]\nfn {a}_and_{b}_x() {{\n    // {c} (3.1.1) {c}\n}}\n");
        let expected = ["3.1.1 MQTT-1.2.3-4", "3.1.1 MQTT-1.2.3-5", "5.0 MQTT-1.2.3-5", "5.0 MQTT-5.6.7-8"];
        assert_eq!(found(&text, false), expected);
        let indented =
            "mod m {\n    #[test]\n    fn NAME() {\n        if x {\n        }\n    }\n}\n".replace("NAME", &a);
        assert_eq!(found(&indented, false), ["3.1.1 MQTT-1.2.3-4"]);
    }

    #[test]
    fn nothing_else_counts() {
        let (a, c) = (["v311", "mqtt_1_2_3_4"].join("_"), "MQTT-1.2.3-5");
        for text in [
            format!("fn {a}() {{\n}}\n"),
            format!("// {c} (5.0)\nfn f() {{\n}}\n#[test]\nfn g() {{\n}}\n// {c} (5.0)\n"),
            format!("#[test]\n#[ignore]\nfn {a}() {{\n    // {c} (5.0)\n}}\n"),
            format!("#[test]\nfn mqtt_1_2_3_4() {{\n    // {c}, {c} (4.0), [{c}] (5.0)\n}}\n"),
            "#[test]\nfn v5_mqtt_1_2_x_4() {\n}\n".to_string(),
        ] {
            assert_eq!(found(&text, false), [""; 0], "{text}");
        }
    }

    #[test]
    fn names_of_vectors_count() {
        let name = ["v311", "mqtt_1_2_3_4"].join("_");
        let text =
            format!("# {name}_comment\n{name}_x 3.1.1 to_server\n    {name}_y\n").replacen("1_2_3_4", "9_9_9_9", 1);
        assert_eq!(found(&text, true), ["3.1.1 MQTT-1.2.3-4"]);
    }
}
