//! Rule sets and requests made from a source of decisions.

use super::reference::Rule;

/// Names and ids: some that are levels, too, and some that are dangerous.
pub const NAMES: [&str; 8] = ["u", "a", "a/b", "", "+", "x#", "%c", "$x"];
pub const CLIENT_IDS: [&str; 6] = ["c", "b", "b/c", "c+", "%u", "u"];

const LEVELS: [&str; 13] = ["a", "b", "c", "u", "", "+", "+", "%c", "%u", "%c", "%u", "$x", "x%u"];
const TOPIC_LEVELS: [&str; 11] = ["a", "b", "c", "u", "", "$x", "%c", "%u", "x%u", "a", "b"];
const ACCESSES: [&str; 5] = ["", "read", "write", "readwrite", "deny"];

/// The text of a file, and its rules. `choose(n)` takes a decision among n.
pub fn file(choose: &mut impl FnMut(usize) -> usize) -> (String, Vec<Rule>) {
    let (mut text, mut rules, mut section) = (String::new(), Vec::new(), None);
    for line in 1..=1 + choose(24) as u32 {
        match choose(12) {
            0 | 1 => {
                let name = NAMES[choose(3)];
                text += &format!("user {name}\n");
                section = Some(name.to_string());
            }
            2 => text += ["\n", "# topic deny #\n", "   \r\n"][choose(3)],
            kind => {
                let is_pattern = kind < 7;
                let access = ACCESSES[choose(ACCESSES.len())];
                let filter = filter(choose);
                let keyword = if is_pattern { "pattern" } else { "topic" };
                text += &format!(
                    "{}{keyword} {access} {filter}{}\n",
                    ["", "", "  "][choose(3)],
                    ["", " ", "\r"][choose(3)]
                );
                rules.push(Rule {
                    line,
                    section: (!is_pattern).then(|| section.clone()),
                    access: if access.is_empty() { "readwrite" } else { access },
                    filter,
                });
            }
        }
    }
    (text, rules)
}

fn filter(choose: &mut impl FnMut(usize) -> usize) -> String {
    let mut levels: Vec<&str> = (0..1 + choose(3)).map(|_| LEVELS[choose(LEVELS.len())]).collect();
    if choose(4) == 0 {
        levels.push("#");
    }
    match choose(12) {
        0 => "#".to_string(),
        // An empty filter is none.
        _ if levels == [""] => "/".to_string(),
        _ => levels.join("/"),
    }
}

pub fn topic(choose: &mut impl FnMut(usize) -> usize) -> String {
    let levels: Vec<&str> = (0..1 + choose(4)).map(|_| TOPIC_LEVELS[choose(TOPIC_LEVELS.len())]).collect();
    if levels == [""] { "a".to_string() } else { levels.join("/") }
}
