//! The table of options as the README, the man pages and the shell's completion show it, and the tests that keep them equal.

use super::foreign::{FOREIGN, Foreign, Plan};
use super::print::{GROUPS, text, usage};
use super::table::{ALIASES, Occurs, Row, Scope};
use super::value::Value;
use crate::commands::COMMANDS;

/// The options as the README shows them.
fn markdown_table() -> String {
    let mut out = String::from("| option | default | meaning |\n|---|---|---|\n");
    for row in GROUPS.iter().flat_map(|(group, _)| Row::flags().filter(move |row| row.group == *group)) {
        let default = if row.default.is_empty() { String::new() } else { format!("`{}`", row.default) };
        let zero = row.value.zero_means().map_or(String::new(), |what| format!(" 0 = {what}."));
        out.push_str(&format!("| `{}` | {default} | {}{zero} |\n", usage(row), row.help));
    }
    out
}

/// The options as flags, for the section OPTIONS of midge(8).
fn man_flags() -> String {
    let mut out = String::new();
    for (group, title) in GROUPS {
        out.push_str(&format!(".SS {title}\n"));
        for row in Row::flags().filter(|row| row.group == group) {
            out.push_str(&format!(".TP\n.B {}\n{}\n", roff(&usage(row)), roff(&text(row))));
        }
    }
    out
}

/// The flags of the commands, for the section COMMANDS of midge(8): each in a part of its own.
fn man_commands() -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    for command in &COMMANDS {
        let flags = command.flags.iter();
        out.push((
            command.name,
            flags.map(|flag| format!(".TP\n.B {}\n{}\n", roff(&flag.usage()), roff(flag.help))).collect(),
        ));
    }
    out
}

/// The options as lines of a configuration file, for midge.conf(5).
fn man_keywords() -> String {
    let mut out = String::new();
    for (group, title) in GROUPS {
        let rows: Vec<&Row> = Row::keywords().filter(|row| row.group == group).collect();
        if rows.is_empty() {
            continue;
        }
        out.push_str(&format!(".SS {title}\n"));
        for row in rows {
            let value = row.value.placeholder().trim_matches('\'');
            out.push_str(&format!(".TP\n.BI {} \" {}\"\n{}\n", row.name, roff(value), roff(&text(row))));
            let names: Vec<&str> =
                ALIASES.iter().filter(|(_, name)| *name == row.name).map(|(alias, _)| *alias).collect();
            if !names.is_empty() {
                out.push_str(&format!("Also called {}.\n", names.join(", ")));
            }
            out.push_str(match (row.scope, row.occurs) {
                (Scope::Listener, _) if row.name == "listener" => "Opens a section; may be repeated.\n",
                (Scope::Listener, _) if row.in_section => "Belongs to the listener line before it, which it needs.\n",
                (Scope::Listener, _) => "Belongs to the listener line before it.\n",
                (Scope::Security, _) => "Belongs to the listener line before it if per_listener_settings is true.\n",
                (_, Occurs::UpTo(_)) => "May be repeated.\n",
                _ => "",
            });
            if !row.differs.is_empty() {
                out.push_str(&format!("Unlike Mosquitto: {}\n", roff(row.differs)));
            }
        }
    }
    out
}

/// What midge does not do, for midge.conf(5).
fn man_foreign() -> String {
    let mut out = String::new();
    for (plan, title) in
        [(Plan::Later, "Refused in this version"), (Plan::Never, "Refused"), (Plan::Warn, "Passed over with a warning")]
    {
        out.push_str(&format!(".SS {title}\n"));
        let all: Vec<&Foreign> = FOREIGN.iter().filter(|it| it.plan == plan).collect();
        for same in all.chunk_by(|one, other| one.why == other.why) {
            let names: Vec<&str> = same.iter().map(|it| it.name).collect();
            out.push_str(&format!(".TP\n.B {}\n{}\n", roff(&names.join(", ")), roff(&sentence(same[0].why))));
        }
    }
    out
}

/// With a capital.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

/// As troff reads it: a dash is a minus, a backslash is no command, and no line begins with one of its own.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

/// What bash reads to complete midge's commands, flags and the words and files behind them.
fn completion() -> String {
    let mut out =
        String::from("# Completion of midge's options in bash. Made from the table of options.\n_midge() {\n");
    out.push_str("    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n");
    out.push_str("    [ \"$COMP_CWORD\" -gt 1 ] && case ${COMP_WORDS[1]} in\n");
    for command in &COMMANDS {
        let flags = command.flags.iter().map(|flag| format!("--{}", flag.long));
        let words: Vec<String> = command.words.iter().map(|(word, _)| word.to_string()).chain(flags).collect();
        out.push_str(&format!("        {}) case $before in\n", command.name));
        for (word, behind) in command.words.iter().filter(|(_, behind)| !behind.is_empty()) {
            out.push_str(&format!("            {word}) COMPREPLY=($(compgen -W '{behind}' -- \"$word\")) ;;\n"));
        }
        out.push_str(&format!("            *) COMPREPLY=($(compgen -f -W '{}' -- \"$word\")) ;;\n", words.join(" ")));
        out.push_str("            esac\n            return ;;\n");
    }
    out.push_str("    esac\n    case $before in\n");
    for row in Row::flags() {
        let names: Vec<String> =
            row.names().map(|name| format!("--{name}")).chain(row.short.map(|letter| format!("-{letter}"))).collect();
        let action = match (&row.value, row.value.placeholder()) {
            (Value::Switch(_), _) => continue,
            (Value::Bool(_), _) => "COMPREPLY=($(compgen -W 'true false' -- \"$word\"))".to_string(),
            (Value::Word { words, .. }, _) => format!("COMPREPLY=($(compgen -W '{}' -- \"$word\"))", words.join(" ")),
            (_, "FILE") => "COMPREPLY=($(compgen -f -- \"$word\"))".to_string(),
            (_, "DIR") => "COMPREPLY=($(compgen -d -- \"$word\"))".to_string(),
            _ => "COMPREPLY=()".to_string(),
        };
        out.push_str(&format!("        {}) {action} ;;\n", names.join("|")));
    }
    let flags = Row::flags().flat_map(Row::names).map(|name| format!("--{name}"));
    let flags: Vec<String> = COMMANDS.iter().map(|command| command.name.to_string()).chain(flags).collect();
    let flags = flags.join(" ");
    out.push_str(&format!("        *) COMPREPLY=($(compgen -W '{flags}' -- \"$word\")) ;;\n    esac\n}}\n"));
    out.push_str("complete -F _midge midge\n");
    out
}

/// `UPDATE_README=1 cargo test docs` writes all of them anew.
fn check(path: &str, parts: &[(&str, &str, String)]) {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    let mut shown = std::fs::read_to_string(&path).unwrap_or_default();
    let is_update = std::env::var_os("UPDATE_README").is_some();
    for (begin, end, text) in parts {
        let from = shown.find(begin).expect("there is a place for it") + begin.len();
        let to = from + shown[from..].find(end).expect("and it has an end");
        if is_update {
            shown.replace_range(from..to, text);
        } else {
            assert!(&shown[from..to] == text, "{path} is not what the table says: UPDATE_README=1 cargo test docs");
        }
    }
    if is_update {
        std::fs::write(path, shown).unwrap();
    }
}

#[test]
fn the_readme_shows_this_table() {
    check("README.md", &[("<!-- options -->\n", "<!-- /options -->", markdown_table())]);
}

#[test]
fn the_man_pages_show_this_table() {
    let part = |name: &str, text| (format!(".\\\" {name}\n"), format!(".\\\" /{name}"), text);
    let (begin, end, flags) = part("options", man_flags());
    check("packaging/man/midge.8", &[(&begin, &end, flags)]);
    for (name, flags) in man_commands() {
        let (begin, end, flags) = part(name, flags);
        let page = if name == "ctl" { "packaging/man/midge-ctl.8" } else { "packaging/man/midge.8" };
        check(page, &[(&begin, &end, flags)]);
    }
    let (begin, end, keywords) = part("options", man_keywords());
    let (other_begin, other_end, foreign) = part("not here", man_foreign());
    check("packaging/man/midge.conf.5", &[(&begin, &end, keywords), (&other_begin, &other_end, foreign)]);
}

#[test]
fn the_completion_is_made_of_this_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/completion/midge.bash");
    if std::env::var_os("UPDATE_README").is_some() {
        std::fs::write(path, completion()).unwrap();
    }
    assert!(std::fs::read_to_string(path).unwrap_or_default() == completion(), "UPDATE_README=1 cargo test docs");
}
