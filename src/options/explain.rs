//! What a configuration file does here, line by line.

use super::Settings;
use super::file::{Line, Verdict};
use super::table::Row;
use crate::config::{Host, ListenerConfig};

/// Every line with what it does, what it does otherwise than in Mosquitto, and why it is refused if it is; and at the end what is
/// listened on and who is let in, if nothing is refused.
pub fn text(lines: &[Line], settings: Option<&Settings>) -> String {
    let mut out = String::new();
    for line in lines {
        let (mark, text) = match &line.verdict {
            Verdict::Nothing => continue,
            Verdict::Done(row) => ("done", row.help.to_string()),
            Verdict::Remarked(text) => ("note", text.clone()),
            Verdict::Refused(text) => ("REFUSED", text.clone()),
        };
        out.push_str(&format!("{}: {}\n    {mark}: {text}\n", line.place, line.text.trim().escape_debug()));
        if let Verdict::Done(row) = &line.verdict
            && !row.differs.is_empty()
        {
            out.push_str(&format!("    unlike Mosquitto: {}\n", row.differs));
        }
    }
    match settings {
        Some(settings) => {
            let is_said =
                |row: &Row| lines.iter().any(|line| matches!(line.verdict, Verdict::Done(it) if it.name == row.name));
            for row in Row::keywords().filter(|row| row.differs.starts_with("By default") && !is_said(row)) {
                out.push_str(&format!(
                    "Nothing is said of {}, and it is not what it is in Mosquitto: {}\n",
                    row.name, row.differs
                ));
            }
            settings.warnings.iter().for_each(|warning| out.push_str(&format!("Warning: {warning}\n")));
            for listener in &settings.listeners {
                out.push_str(&format!("{}\n", summary(listener)));
            }
        }
        None => out.push_str("midge does not start with this file.\n"),
    }
    out
}

fn summary(listener: &ListenerConfig) -> String {
    let place = match &listener.host {
        Host::All => format!("port {} of all addresses", listener.port),
        Host::Loopback => format!("port {} of 127.0.0.1 and ::1", listener.port),
        Host::Named(host) => format!("port {} of {host}", listener.port),
        Host::Unix(path) => format!("the Unix socket {}", path.display()),
    };
    let anonymous = listener.rules.allow_anonymous;
    let who =
        if anonymous { "clients without a user name are let in" } else { "clients without a user name are refused" };
    let users = listener.password_file.as_ref();
    let users = users.map_or(String::new(), |file| format!("; the others must be in {}", file.display()));
    let rights = listener
        .acl_file
        .as_ref()
        .map_or(String::new(), |file| format!("; what they may read and write is in {}", file.display()));
    format!("Listening on {place}: {who}{users}{rights}.")
}
