//! The table of options for people: the program's help and the README.

use super::table::{Group, OPTIONS, Row};

/// Width of a terminal, as everywhere.
const WIDTH: usize = 80;
/// Where the texts of the help begin.
const TEXT_COLUMN: usize = 38;

const GROUPS: [(Group, &str); 6] = [
    (Group::Listening, "Listening"),
    (Group::Sessions, "Clients and sessions"),
    (Group::Queues, "Queues"),
    (Group::Messages, "Messages"),
    (Group::Storage, "Storage and memory"),
    (Group::Program, "Program"),
];

/// What `--help` prints.
pub fn help() -> String {
    let mut out = String::new();
    out.push_str(
        "Usage: midge [OPTION]...\n\nAn MQTT 3.1, 3.1.1 and 5.0 broker for small gateways. Without --listener it\n",
    );
    out.push_str("serves this machine only. BOOL is true or false.\n");
    for (group, title) in GROUPS {
        out.push('\n');
        out.push_str(title);
        out.push_str(":\n");
        for row in OPTIONS.iter().filter(|row| row.group == group) {
            push_entry(&mut out, row);
        }
    }
    out
}

fn push_entry(out: &mut String, row: &Row) {
    let flag = usage(row);
    out.push_str("  ");
    out.push_str(&flag);
    let mut column = flag.len() + 2;
    for word in text(row).split(' ') {
        if column < TEXT_COLUMN {
            out.extend(std::iter::repeat_n(' ', TEXT_COLUMN - column));
            column = TEXT_COLUMN;
        } else if column + 1 + word.len() > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', TEXT_COLUMN));
            column = TEXT_COLUMN;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

/// `-p, --port PORT`
fn usage(row: &Row) -> String {
    let mut out = String::new();
    if let Some(letter) = row.short {
        out.extend(['-', letter, ',', ' ']);
    }
    out.push_str("--");
    out.push_str(&row.flag());
    let placeholder = row.value.placeholder();
    if !placeholder.is_empty() {
        out.push(' ');
        out.push_str(placeholder);
    }
    out
}

/// The help text with the default and what a zero means.
fn text(row: &Row) -> String {
    let notes = match (row.value.zero_means(), row.default) {
        (None, "") => String::new(),
        (None, default) => format!(" [{default}]"),
        (Some(what), "0") => format!(" [0 = {what}]"),
        (Some(what), default) => format!(" [{default}; 0 = {what}]"),
    };
    row.help.to_string() + &notes
}

/// The options as the README shows them.
pub fn markdown_table() -> String {
    let mut out = String::from("| option | default | meaning |\n|---|---|---|\n");
    for row in GROUPS.iter().flat_map(|(group, _)| OPTIONS.iter().filter(move |row| row.group == *group)) {
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let zero = row.value.zero_means().map_or(String::new(), |what| format!(" 0 = {what}."));
        out.push_str(&format!("| `{}` | {default} | {}{zero} |\n", usage(row), row.help));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_fits_a_terminal_and_names_everything() {
        let help = help();
        for line in help.lines() {
            assert!(line.len() <= WIDTH && line.is_ascii() && line.trim_end() == line, "{line:?}");
        }
        for row in OPTIONS {
            assert!(help.contains(&format!("--{}", row.flag())), "{}", row.name);
        }
        assert!(help.lines().count() < 100, "two pages of a terminal");
    }

    /// `UPDATE_README=1 cargo test readme` writes the table into the README.
    #[test]
    fn the_readme_shows_this_table() {
        const BEGIN: &str = "<!-- options -->\n";
        const END: &str = "<!-- /options -->";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let begin = readme.find(BEGIN).expect("the README has a place for the options") + BEGIN.len();
        let end = begin + readme[begin..].find(END).expect("and that place has an end");
        if std::env::var_os("UPDATE_README").is_some() {
            let updated = [&readme[..begin], &markdown_table(), &readme[end..]].concat();
            std::fs::write(path, updated).unwrap();
        } else {
            assert_eq!(&readme[begin..end], markdown_table());
        }
    }
}
