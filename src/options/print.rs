//! The table of options for people: the program's help.

use super::table::{Group, Row};

/// Width of a terminal, as everywhere.
const WIDTH: usize = 80;
/// Where the texts of the help begin.
const TEXT_COLUMN: usize = 38;

pub(super) const GROUPS: [(Group, &str); 7] = [
    (Group::Listening, "Listening"),
    (Group::Sessions, "Clients and sessions"),
    (Group::Queues, "Queues"),
    (Group::Messages, "Messages"),
    (Group::Storage, "Storage and memory"),
    (Group::Logging, "Log"),
    (Group::Program, "Program"),
];

/// What `--help` prints.
pub fn help() -> String {
    let mut out = String::new();
    out.push_str(
        "Usage: midge [OPTION]...\n       midge COMMAND ...\n\nAn MQTT 3.1, 3.1.1 and 5.0 broker for small gateways. Without --listener it\n",
    );
    out.push_str("serves this machine only. BOOL is true or false. In a configuration file options\n");
    out.push_str("have underscores for dashes.\n");
    for (group, title) in GROUPS {
        out.push('\n');
        out.push_str(title);
        out.push_str(":\n");
        for row in Row::flags().filter(|row| row.group == group) {
            push_help(&mut out, &usage(row), &text(row));
        }
    }
    out
}

/// A flag with its text, which begins in a column of its own.
pub fn push_help(out: &mut String, flag: &str, text: &str) {
    out.push_str("  ");
    out.push_str(flag);
    let mut column = flag.len() + 2;
    for word in text.split(' ') {
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
pub(super) fn usage(row: &Row) -> String {
    flag_usage(row.short, &row.flag(), row.value.placeholder())
}

/// `-p, --port PORT`
pub fn flag_usage(short: Option<char>, long: &str, placeholder: &str) -> String {
    let mut out = String::new();
    if let Some(letter) = short {
        out.extend(['-', letter, ',', ' ']);
    }
    out.push_str("--");
    out.push_str(long);
    if !placeholder.is_empty() {
        out.push(' ');
        out.push_str(placeholder);
    }
    out
}

/// The help text with the default and what a zero means.
pub(super) fn text(row: &Row) -> String {
    let notes = match (row.value.zero_means(), row.default) {
        (None, "") => String::new(),
        (None, default) => format!(" [{default}]"),
        (Some(what), "0" | "") => format!(" [0 = {what}]"),
        (Some(what), default) => format!(" [{default}; 0 = {what}]"),
    };
    row.help.to_string() + &notes
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
        for row in Row::flags() {
            assert!(help.contains(&format!("--{}", row.flag())), "{}", row.name);
        }
        assert!(help.lines().count() < 190, "some pages of a terminal");
    }
}
