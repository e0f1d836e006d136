//! Reads `tests/vectors`: packets as annotated hex, with what must come of them. The format is explained at the head
//! of each file.

use std::collections::HashSet;
use std::path::Path;

use midge::codec::{Direction, Version};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Decodes, and encodes to the same bytes.
    Same,
    /// Decodes, but encodes to other bytes.
    Ok,
    /// The reason, and words of the text.
    Error(u8, String),
    SplitError(u8, String),
    More,
}

#[derive(Debug)]
pub struct Vector {
    pub name: String,
    pub version: Version,
    pub direction: Direction,
    pub bytes: Vec<u8>,
    pub outcome: Outcome,
    pub shows: Vec<String>,
}

/// Every vector of every file; a name is there once.
pub fn all() -> Vec<Vector> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut names = HashSet::new();
    let mut vectors = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "txt")) {
        for vector in parse(&std::fs::read_to_string(file).unwrap()) {
            assert!(names.insert(vector.name.clone()), "{} is there twice", vector.name);
            vectors.push(vector);
        }
    }
    vectors
}

fn parse(text: &str) -> Vec<Vector> {
    let mut vectors: Vec<Vector> = Vec::new();
    let mut finished = true;
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        if !line.starts_with(' ') {
            assert!(finished, "a vector before `{line}` says nothing of what comes of it");
            finished = false;
            vectors.push(heading(line));
            continue;
        }
        let vector = vectors.last_mut().expect("a vector begins with its name");
        let line = line.trim();
        if let Some(outcome) = line.strip_prefix("=> ") {
            assert!(!finished, "{} has two outcomes", vector.name);
            finished = true;
            vector.outcome = parse_outcome(outcome);
        } else if let Some(text) = line.strip_prefix("shows ") {
            vector.shows.push(text.to_owned());
        } else {
            assert!(!finished, "{} has bytes behind its outcome", vector.name);
            parse_bytes(line, &mut vector.bytes);
        }
    }
    assert!(finished, "the last vector of a file says nothing of what comes of it");
    vectors
}

fn heading(line: &str) -> Vector {
    let words: Vec<_> = line.split_whitespace().collect();
    let [name, version, direction] = words[..] else { panic!("not a heading: {line}") };
    let version = match version {
        "3.1" => Version::V31,
        "3.1.1" => Version::V311,
        "5.0" => Version::V5,
        _ => panic!("not a version: {line}"),
    };
    let direction = match direction {
        "to_server" => Direction::ToServer,
        "to_client" => Direction::ToClient,
        _ => panic!("not a direction: {line}"),
    };
    let (bytes, outcome, shows) = (Vec::new(), Outcome::More, Vec::new());
    Vector { name: name.to_owned(), version, direction, bytes, outcome, shows }
}

fn parse_outcome(text: &str) -> Outcome {
    let error = |text: &str| {
        let (reason, words) = text.split_once(' ').expect("a reason and words");
        let reason = u8::from_str_radix(reason.trim_start_matches("0x"), 16).unwrap();
        (reason, words.to_owned())
    };
    if let Some(text) = text.strip_prefix("error ") {
        let (reason, words) = error(text);
        return Outcome::Error(reason, words);
    }
    if let Some(text) = text.strip_prefix("split error ") {
        let (reason, words) = error(text);
        return Outcome::SplitError(reason, words);
    }
    match text {
        "same" => Outcome::Same,
        "ok" => Outcome::Ok,
        "more" => Outcome::More,
        _ => panic!("not an outcome: {text}"),
    }
}

fn parse_bytes(line: &str, bytes: &mut Vec<u8>) {
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if rest.is_empty() || rest.starts_with('#') {
            return;
        }
        if let Some(quoted) = rest.strip_prefix('"') {
            let (text, behind) = quoted.split_once('"').expect("an end of the text");
            bytes.extend_from_slice(text.as_bytes());
            rest = behind;
            continue;
        }
        let (word, behind) = rest.split_once(' ').unwrap_or((rest, ""));
        let (count, hex) = word.split_once('*').map_or((1, word), |(count, hex)| (count.parse().unwrap(), hex));
        let byte = u8::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("not a byte: {line}"));
        bytes.resize(bytes.len() + count, byte);
        rest = behind;
    }
}

#[test]
fn bytes_are_read_as_hex_text_and_repetition() {
    let mut bytes = Vec::new();
    parse_bytes(r#"0a "b # c" 3*ff 01 # 02"#, &mut bytes);
    assert_eq!(bytes, *b"\x0ab # c\xff\xff\xff\x01");
}
