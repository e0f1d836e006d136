//! What can be asked of a running broker. The words are those of the command line, so that one table names them, and says what is
//! wrong with others.

use super::REQUEST_MAX;
use super::line::{Row, fields};
use crate::config::LogTypes;
use crate::spelling::distance;
use crate::topic;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Clients,
    Sessions,
    /// Of one client, or of all.
    Subscriptions(Option<String>),
    Retained {
        filter: String,
        has_payload: bool,
    },
    DeleteRetained(String),
    Kick(String),
    DeleteSession(String),
    Log(LogTypes),
    Stats,
    Reload,
}

/// The first words of requests.
pub const WORDS: [&str; 9] =
    ["clients", "sessions", "subscriptions", "retained", "kick", "session", "log", "stats", "reload"];

/// In front of the filter of `retained`: payloads are wanted, too.
const PAYLOAD: &str = "--payload";

/// Each severity contains those before it; `subscribe` and `unsubscribe` are added to what else is named.
pub const LOG_WORDS: [&str; 9] =
    ["none", "error", "warning", "notice", "information", "debug", "subscribe", "unsubscribe", "all"];

impl Request {
    /// What these words of a command line mean. With `has_payload`, retained messages are shown with their payloads.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_words(words: &[String], has_payload: bool) -> Result<Request, String> {
        let Some((word, rest)) = words.split_first() else {
            return Err(format!("A command is missing; there are {}.", listed(&WORDS)));
        };
        if has_payload && (word != "retained" || rest.first().is_some_and(|word| word == "delete")) {
            return Err("--payload goes with 'retained' alone.".to_string());
        }
        let one = |what: &str| match rest {
            [] => Err(format!("'{word}' needs {what}.")),
            [it] => Ok(it.clone()),
            [_, more, ..] => Err(stray(word, more)),
        };
        let none = |request: Request| rest.first().map_or(Ok(request), |more| Err(stray(word, more)));
        match word.as_str() {
            "clients" => none(Request::Clients),
            "sessions" => none(Request::Sessions),
            "stats" => none(Request::Stats),
            "reload" => none(Request::Reload),
            "subscriptions" => match rest {
                [] => Ok(Request::Subscriptions(None)),
                _ => one("a client id").map(|id| Request::Subscriptions(Some(id))),
            },
            "kick" => one("the id of a client").map(Request::Kick),
            "session" => match rest {
                [action, id] if action == "delete" => Ok(Request::DeleteSession(id.clone())),
                [action, _, more, ..] if action == "delete" => Err(stray("session delete", more)),
                [action, ..] if action != "delete" => {
                    Err(format!("'session' knows no '{}'; the nearest is 'delete'.", shortened(action)))
                }
                _ => Err("'session' needs 'delete' and the id of a client.".to_string()),
            },
            "retained" => match rest {
                [] => Ok(Request::Retained { filter: "#".to_string(), has_payload }),
                [action] if action == "delete" => Err("'retained delete' needs a topic filter.".to_string()),
                [action, filter] if action == "delete" => filter_of(filter).map(Request::DeleteRetained),
                [action, _, more, ..] if action == "delete" => Err(stray("retained delete", more)),
                _ => Ok(Request::Retained { filter: filter_of(&one("a topic filter")?)?, has_payload }),
            },
            "log" => log_types(rest).map(Request::Log),
            _ => Err(format!("There is no command {}.", unknown(word, &WORDS))),
        }
    }

    /// The words that ask for it.
    fn words(&self) -> Vec<&str> {
        match self {
            Request::Clients => vec!["clients"],
            Request::Sessions => vec!["sessions"],
            Request::Subscriptions(None) => vec!["subscriptions"],
            Request::Subscriptions(Some(id)) => vec!["subscriptions", id],
            Request::Retained { filter, has_payload: false } => vec!["retained", filter],
            Request::Retained { filter, has_payload: true } => vec![PAYLOAD, "retained", filter],
            Request::DeleteRetained(filter) => vec!["retained", "delete", filter],
            Request::Kick(id) => vec!["kick", id],
            Request::DeleteSession(id) => vec!["session", "delete", id],
            Request::Log(types) => {
                let words = LOG_WORDS.iter().filter(|word| is_named(word, types)).copied();
                // Without a severity, nothing but what is named.
                ["log", "none"].into_iter().chain(words).collect()
            }
            Request::Stats => vec!["stats"],
            Request::Reload => vec!["reload"],
        }
    }

    /// The line that is sent.
    pub fn line(&self) -> Vec<u8> {
        let mut line = Vec::new();
        let words = self.words();
        let mut row = Row::begin(words[0], &mut line);
        words[1..].iter().for_each(|word| row.text(word.as_bytes()));
        row.end();
        line
    }

    /// The request in a line that arrived, without its line feed.
    ///
    /// # Errors
    /// A sentence for whoever sent it.
    pub fn parse(line: &[u8]) -> Result<Request, String> {
        if line.len() >= REQUEST_MAX {
            return Err(format!("The request is longer than {REQUEST_MAX} bytes."));
        }
        let words = fields(line).and_then(|fields| fields.into_iter().map(|it| String::from_utf8(it).ok()).collect());
        let words: Vec<String> =
            words.ok_or("The request is not one line of UTF-8 with the escapes \\t, \\n and \\\\.")?;
        match words.split_first() {
            Some((word, rest)) if word == PAYLOAD => Request::of_words(rest, true),
            _ => Request::of_words(&words, false),
        }
    }
}

fn stray(word: &str, more: &str) -> String {
    format!("'{}' is one word too many behind '{word}'; one with a blank in it needs quotes.", shortened(more))
}

/// What was written, and what was meant.
fn unknown(word: &str, words: &[&str]) -> String {
    let shown = shortened(word);
    // The beginning of a word is nearer to it than any other.
    let begun = words.iter().find(|it| word.len() > 1 && it.starts_with(word));
    let nearest = begun.or_else(|| words.iter().min_by_key(|it| distance(shown.as_bytes(), it)));
    let nearest = nearest.copied().unwrap_or_default();
    format!("'{shown}'; the nearest is '{nearest}'")
}

/// As much as is worth repeating, and can be in a sentence.
fn shortened(word: &str) -> String {
    word.chars().take(40).filter(|letter| !letter.is_control()).collect()
}

fn listed(words: &[&str]) -> String {
    words.join(", ")
}

fn filter_of(text: &str) -> Result<String, String> {
    if topic::is_valid_filter(text) && !text.starts_with("$share/") {
        return Ok(text.to_string());
    }
    let shown = shortened(text);
    Err(format!("'{shown}' is no topic filter: '+' fills a level, '#' the last one, and $share is for subscriptions."))
}

fn log_types(words: &[String]) -> Result<LogTypes, String> {
    if words.is_empty() {
        return Err(format!("'log' needs one of {}.", listed(&LOG_WORDS)));
    }
    let mut types = LogTypes::NONE;
    for word in words {
        let severity = match word.as_str() {
            "none" => 0,
            "error" => 1,
            "warning" => 2,
            "notice" => 3,
            "information" => 4,
            "debug" => 5,
            "subscribe" | "unsubscribe" => {
                *(if word == "subscribe" { &mut types.subscribe } else { &mut types.unsubscribe }) = true;
                continue;
            }
            "all" => {
                types = LogTypes::ALL;
                continue;
            }
            _ => return Err(format!("There is no log type {}.", unknown(word, &LOG_WORDS))),
        };
        types.error |= severity >= 1;
        types.warning |= severity >= 2;
        types.notice |= severity >= 3;
        types.information |= severity >= 4;
        types.debug |= severity >= 5;
    }
    Ok(types)
}

/// Whether the types are those of `word`, and maybe more.
fn is_named(word: &str, types: &LogTypes) -> bool {
    match word {
        "error" => types.error,
        "warning" => types.warning,
        "notice" => types.notice,
        "information" => types.information,
        "debug" => types.debug,
        "subscribe" => types.subscribe,
        "unsubscribe" => types.unsubscribe,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Request, String> {
        let words: Vec<String> = line.split(' ').filter(|word| !word.is_empty()).map(String::from).collect();
        Request::of_words(&words, false)
    }

    #[test]
    fn what_is_asked_for_arrives() {
        let all = LogTypes { unsubscribe: false, ..LogTypes::ALL };
        let id = || "a\tb\\c\nd ä".to_string();
        for request in [
            Request::Clients,
            Request::Sessions,
            Request::Subscriptions(None),
            Request::Subscriptions(Some(id())),
            Request::Subscriptions(Some(String::new())),
            Request::Retained { filter: "#".into(), has_payload: false },
            Request::Retained { filter: "house/+/a b".into(), has_payload: true },
            Request::DeleteRetained("$SYS/#".into()),
            Request::Kick(id()),
            Request::DeleteSession(id()),
            Request::Log(all),
            Request::Log(LogTypes::NONE),
            Request::Stats,
            Request::Reload,
        ] {
            let line = request.line();
            assert_eq!(Request::parse(line.strip_suffix(b"\n").unwrap()), Ok(request));
        }
        assert_eq!(of("log error"), Ok(Request::Log(LogTypes { error: true, ..LogTypes::NONE })));
        let debug = LogTypes { debug: true, ..LogTypes::default() };
        assert_eq!(of("log debug"), Ok(Request::Log(debug)));
        assert_eq!(of("log subscribe debug"), Ok(Request::Log(LogTypes { subscribe: true, ..debug })));
        assert_eq!(of("log all"), Ok(Request::Log(LogTypes::ALL)));
    }

    #[test]
    fn the_longest_request_fits() {
        let id = "\\".repeat(65_535);
        for request in [Request::DeleteSession(id.clone()), Request::Kick(id.clone()), Request::DeleteRetained(id)] {
            assert!(request.line().len() <= REQUEST_MAX);
        }
        let error = Request::parse(&[b'x'; REQUEST_MAX]).unwrap_err();
        assert_eq!(error, format!("The request is longer than {REQUEST_MAX} bytes."));
    }

    #[test]
    fn wrong_words_are_told_what_is_right() {
        for (line, told) in [
            ("", "A command is missing; there are clients, sessions, subscriptions, retained, kick, session, log, "),
            ("client", "There is no command 'client'; the nearest is 'clients'."),
            ("clients x", "'x' is one word too many behind 'clients'; one with a blank in it needs quotes."),
            ("kick", "'kick' needs the id of a client."),
            ("kick a b", "'b' is one word too many behind 'kick'; "),
            ("session", "'session' needs 'delete' and the id of a client."),
            ("session delete", "'session' needs 'delete' and the id of a client."),
            ("session remove x", "'session' knows no 'remove'; the nearest is 'delete'."),
            ("session delete a b", "'b' is one word too many behind 'session delete'; "),
            ("retained delete", "'retained delete' needs a topic filter."),
            ("retained delete a/# b", "'b' is one word too many behind 'retained delete'; "),
            ("retained a/#/b", "'a/#/b' is no topic filter: '+' fills a level, '#' the last one, and $share is for "),
            ("retained $share/g/a", "'$share/g/a' is no topic filter: "),
            (
                "log",
                "'log' needs one of none, error, warning, notice, information, debug, subscribe, unsubscribe, all.",
            ),
            ("log info", "There is no log type 'info'; the nearest is 'information'."),
            ("log warn", "There is no log type 'warn'; the nearest is 'warning'."),
            ("log information debugg", "There is no log type 'debugg'; the nearest is 'debug'."),
        ] {
            let error = of(line).unwrap_err();
            assert!(error.starts_with(told), "{line}: {error}");
        }
        let error = Request::parse(b"kick\t\xFF").unwrap_err();
        assert_eq!(error, "The request is not one line of UTF-8 with the escapes \\t, \\n and \\\\.");
        assert_eq!(Request::parse(b"--payload\tstats").unwrap_err(), "--payload goes with 'retained' alone.");
    }
}
