//! The access control file: Mosquitto's grammar, and who may read or write a topic by it.
//!
//! ```text
//! topic read news/#            before the first user line: for clients without username
//! user attic
//! topic readwrite house/attic/#
//! topic deny house/attic/key
//! pattern write devices/%c/#   for everybody, wherever it stands
//! ```
//!
//! One line that is wrong and the file as a whole is refused: a rule that is left out might have been a denial.
//!
//! [`Acl::decide`] is for one concrete topic of one message, without allocation. Before it is asked, its caller has
//! settled what no file can change: local bridges may do all, clients without id nothing; below `$SYS` nothing is written
//! but `$SYS/broker/connection/+/state`; to `$share` nothing is published; and subscribing and unsubscribing are always
//! allowed, because each message is asked about on its way to a subscriber. The topic is the one with the mount point in front.
//!
//! Memory: some 70 bytes and the name for each different level of a section's filters, so 0.7 MB for 10,000 rules that differ
//! in one level each; at most [`NODES_MAX`] levels and [`FILE_BYTES_MAX`] bytes of names, 26 MiB.

use std::fmt;

use super::levels::{Earliest, Level, Levels, Names, Root};
use super::spelling::nearest;
use super::{FILE_BYTES_MAX, Fault, Faults, lines, quoted, trim};
use crate::topic::{has_wildcard, is_valid_filter};

/// Different levels of all filters, and users. A quarter million: 18 MiB, what a box of 64 MB can spare.
pub const NODES_MAX: usize = 1 << 18;

/// Levels of a filter: Mosquitto's limit of 200 separators.
pub const LEVELS_MAX: usize = 201;

const KEYWORDS: [&str; 3] = ["topic", "user", "pattern"];
const ACCESSES: [&str; 4] = ["read", "write", "readwrite", "deny"];

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A message of the topic is about to be delivered to the client.
    Read,
    /// The client publishes, or its will is.
    Write,
}

/// The client that asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    pub client_id: &'a str,
    /// An empty one is none, as it is to Mosquitto.
    pub username: Option<&'a str>,
}

/// An answer and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// The line of the deciding rule.
    pub line: Option<u32>,
    pub why: Why,
}

/// What an answer was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// A `topic` line of the user's section, or of that of clients without username.
    Topic,
    /// A `pattern` line.
    Pattern,
    /// Patterns are not tried: `+` or `#` in the username.
    DangerousUsername,
    /// Patterns are not tried: `+` or `#` in the client id.
    DangerousClientId,
    /// No rule allows it.
    NoRule,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.allowed { "allowed" } else { "denied" };
        match (self.why, self.line) {
            (Why::Topic, Some(line)) => write!(f, "{verb} by the topic rule of line {line}"),
            (Why::Pattern, Some(line)) => write!(f, "{verb} by the pattern of line {line}"),
            (Why::DangerousUsername, _) => f.write_str("denied: a username with + or # fits no pattern"),
            (Why::DangerousClientId, _) => f.write_str("denied: a client id with + or # fits no pattern"),
            _ => f.write_str("denied: no rule allows it"),
        }
    }
}

/// The rules of a file, indexed.
pub struct Acl {
    levels: Levels,
    anonymous: Root,
    patterns: Root,
    has_patterns: bool,
    rules: u32,
}

impl Acl {
    /// What the file says about this access to this topic: the first denial that matches, else the first rule that matches
    /// and holds the access, of the client's own section; then the same of the patterns; else no.
    pub fn decide(&self, asker: &Asker, access: Access, topic: &str) -> Decision {
        // Mosquitto cannot tell an empty username from none.
        let username = asker.username.filter(|name| !name.is_empty());
        let names = Names { client_id: asker.client_id, username };
        let section = match username {
            None => Some(self.anonymous),
            Some(name) => self.levels.find_section(name),
        };
        if let Some(section) = section
            && let Some(decision) = decision(self.levels.matching(section, topic, &names), access, Why::Topic)
        {
            return decision;
        }
        let denied = |why| Decision { allowed: false, line: None, why };
        if !self.has_patterns {
            return denied(Why::NoRule);
        }
        if username.is_some_and(has_wildcard) {
            return denied(Why::DangerousUsername);
        }
        if has_wildcard(asker.client_id) {
            return denied(Why::DangerousClientId);
        }
        decision(self.levels.matching(self.patterns, topic, &names), access, Why::Pattern)
            .unwrap_or(denied(Why::NoRule))
    }

    /// `topic` and `pattern` lines.
    pub fn rule_count(&self) -> u32 {
        self.rules
    }

    /// Bytes on the heap.
    pub fn bytes(&self) -> usize {
        self.levels.bytes()
    }
}

fn decision(rules: Earliest, access: Access, why: Why) -> Option<Decision> {
    if let Some(line) = rules.deny() {
        return Some(Decision { allowed: false, line: Some(line), why });
    }
    let line = match access {
        Access::Read => rules.read(),
        Access::Write => rules.write(),
    }?;
    Some(Decision { allowed: true, line: Some(line), why })
}

/// The rules of a file and warnings, or what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<(Acl, Vec<Fault>), Vec<Fault>> {
    let (mut faults, mut warnings) = (Faults::default(), Faults::default());
    if bytes.len() > FILE_BYTES_MAX {
        faults.push(1, format!("the file has {} bytes, and {FILE_BYTES_MAX} are the most", bytes.len()));
        return Err(faults.finish());
    }
    let mut levels = Levels::new(NODES_MAX);
    // Of the first two nodes of so many.
    let (anonymous, patterns) = (levels.push_root().unwrap_or_default(), levels.push_root().unwrap_or_default());
    let mut acl = Acl { levels, anonymous, patterns, has_patterns: false, rules: 0 };
    let mut section = anonymous;
    for (number, line) in lines(bytes) {
        let meaning = read_line(line);
        let added = match meaning {
            Ok(None) => Ok(()),
            Ok(Some(Line::User(name))) => acl.levels.section(name).map(|root| section = root).ok_or_else(too_many),
            Ok(Some(Line::Rule(rule))) => {
                if let Some(warning) = rule.doubt() {
                    warnings.push(number, warning);
                }
                acl.add(number, section, &rule)
            }
            Err(text) => Err(text),
        };
        if let Err(text) = added {
            let is_full = acl.levels.is_full();
            faults.push(number, text);
            if is_full {
                break;
            }
        }
    }
    acl.levels.finish();
    if faults.is_empty() { Ok((acl, warnings.finish())) } else { Err(faults.finish()) }
}

fn too_many() -> String {
    format!("there are more than {NODES_MAX} users and levels up to here; patterns with %c and %u need fewer")
}

/// A line that means something.
enum Line<'a> {
    User(&'a str),
    Rule(Rule<'a>),
}

struct Rule<'a> {
    is_pattern: bool,
    /// None: read and write.
    access: Option<&'a str>,
    filter: &'a str,
}

impl Acl {
    fn add(&mut self, number: u32, section: Root, rule: &Rule) -> Result<(), String> {
        let access = rule.access.unwrap_or("readwrite");
        let (read, write) = (access.starts_with("read"), access.ends_with("write"));
        let earliest = Earliest::rule(number, access == "deny", read, write);
        let (path, below) = match rule.filter.strip_suffix('#') {
            Some("") => (None, true),
            Some(path) => (path.strip_suffix('/'), true),
            None => (Some(rule.filter), false),
        };
        let levels = path.into_iter().flat_map(|path| path.split('/')).map(|level| match level {
            "+" => Level::Any,
            "%c" if rule.is_pattern => Level::ClientId,
            "%u" if rule.is_pattern => Level::Username,
            name => Level::Name(name),
        });
        let root = if rule.is_pattern { self.patterns } else { section };
        if !self.levels.add(root, levels, below, &earliest) {
            return Err(too_many());
        }
        self.has_patterns |= rule.is_pattern;
        self.rules += 1;
        Ok(())
    }
}

impl Rule<'_> {
    /// What is allowed but may not be what was meant.
    fn doubt(&self) -> Option<String> {
        let filter = quoted(self.filter.as_bytes());
        let has_variable = self.filter.split('/').any(|level| level == "%c" || level == "%u");
        let has_percent = self.filter.contains("%c") || self.filter.contains("%u");
        match (self.is_pattern, has_variable, has_percent) {
            _ if self.access.is_none() && ACCESSES.contains(&self.filter) => {
                Some(format!("{filter} is taken as the topic here, to be read and written; is the topic missing?"))
            }
            (true, false, true) => Some(format!("{filter} is taken as it is: %c and %u must be whole levels")),
            (true, false, false) => Some(format!("the pattern {filter} holds neither %c nor %u: it is for everybody")),
            (false, true, _) => Some(format!("{filter} is taken as it is: only pattern lines know %c and %u")),
            _ => None,
        }
    }
}

/// What a line means; nothing for an empty one. Separators are blanks, and blanks only.
fn read_line(line: &[u8]) -> Result<Option<Line<'_>>, String> {
    let line = trim_end(line);
    if line.is_empty() {
        return Ok(None);
    }
    if line.contains(&0) {
        return Err("there is a NUL byte in it".to_string());
    }
    let (keyword, rest) = word(line);
    let rest = match keyword {
        b"user" | b"topic" | b"pattern" => rest,
        _ => return Err(unknown_keyword(line, keyword)),
    };
    let Ok(rest) = std::str::from_utf8(rest) else {
        return Err(format!("{} is not UTF-8, as topics and usernames are", quoted(rest)));
    };
    let whole = trim(rest.as_bytes());
    if keyword == b"user" {
        return match text(whole) {
            "" => Err("behind user a name is missing".to_string()),
            name if name.len() > 65_535 => Err(format!("the name has {} bytes, and 65535 are the most", name.len())),
            name => Ok(Some(Line::User(name))),
        };
    }
    let (access, filter) = match word(rest.as_bytes()) {
        (b"", _) => return Err(format!("behind {} a topic is missing", text(keyword))),
        (filter, b"") => (None, text(filter)),
        (access, filter) if ACCESSES.contains(&text(access)) => (Some(text(access)), text(trim(filter))),
        (access, _) => return Err(unknown_access(keyword, access, whole)),
    };
    match filter_fault(filter) {
        Some(fault) => Err(fault),
        None => Ok(Some(Line::Rule(Rule { is_pattern: keyword == b"pattern", access, filter }))),
    }
}

/// The first word, and what is behind it without the blanks between.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let blanks = |text: &[u8]| text.iter().take_while(|&&byte| byte == b' ').count();
    let text = &text[blanks(text)..];
    let end = text.iter().position(|&byte| byte == b' ').unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word, &rest[blanks(rest)..])
}

/// A part, cut at ASCII bytes, of what is known to be UTF-8.
fn text(part: &[u8]) -> &str {
    std::str::from_utf8(part).unwrap_or_default()
}

fn trim_end(line: &[u8]) -> &[u8] {
    let end = line.len() - line.iter().rev().take_while(|byte| matches!(byte, b'\t'..=b'\r' | b' ')).count();
    &line[..end]
}

fn unknown_keyword(line: &[u8], keyword: &[u8]) -> String {
    let shown = quoted(keyword);
    if line.starts_with(b"\xEF\xBB\xBF") {
        return "the file begins with a byte order mark, which has to go".to_string();
    }
    if trim(keyword).starts_with(b"#") {
        return "a comment's # must be the very first character of its line".to_string();
    }
    if let Some(tab) = keyword.iter().position(|&byte| byte == b'\t') {
        let known = KEYWORDS.iter().find(|known| known.as_bytes() == &keyword[..tab]);
        return match known {
            Some(known) => format!("behind {known} there must be a blank, not a tab"),
            None => format!("{shown} holds a tab; only blanks may stand before and between words"),
        };
    }
    match nearest(keyword, &KEYWORDS) {
        Some(known) => format!("{shown} is unknown; the nearest is {known}"),
        None => format!("{shown} is unknown; a line begins with {}, {} or {}", KEYWORDS[0], KEYWORDS[1], KEYWORDS[2]),
    }
}

fn unknown_access(keyword: &[u8], access: &[u8], whole: &[u8]) -> String {
    let (keyword, shown) = (text(keyword), quoted(access));
    match nearest(access, &ACCESSES) {
        Some(known) => format!("{shown} is no access; the nearest is {known}"),
        None => {
            let filter = quoted(whole);
            format!(
                "{shown} is no access; a topic with blanks needs one: {keyword} readwrite {}",
                filter.trim_matches('"')
            )
        }
    }
}

/// Why this is not a valid filter, and the nearest that is.
fn filter_fault(filter: &str) -> Option<String> {
    let levels = filter.split('/').count();
    if levels > LEVELS_MAX {
        return Some(format!("the topic has {levels} levels, and {LEVELS_MAX} are the most"));
    }
    if filter.len() > 65_535 {
        return Some(format!("the topic has {} bytes, and 65535 are the most", filter.len()));
    }
    if is_valid_filter(filter) {
        return None;
    }
    let (shown, nearest) = (quoted(filter.as_bytes()), quoted(nearest_filter(filter).as_bytes()));
    Some(format!("{shown} is no valid topic filter: + and # fill a level, # only the last; the nearest is {nearest}"))
}

/// A valid filter that says nearly the same: wildcards fill their levels, and nothing is behind a `#`.
fn nearest_filter(filter: &str) -> String {
    let mut levels: Vec<&str> = Vec::new();
    for level in filter.split('/') {
        match level.find('#') {
            Some(at) => {
                if at > 0 {
                    levels.push(if level[..at].contains('+') { "+" } else { &level[..at] });
                }
                levels.push("#");
                break;
            }
            None if level.contains('+') => levels.push("+"),
            None => levels.push(level),
        }
    }
    levels.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Read, Write};

    fn acl(file: &str) -> Acl {
        parse(file.as_bytes()).map(|(acl, _)| acl).unwrap_or_else(|faults| panic!("{file}: {faults:?}"))
    }

    fn decide(file: &str, (client_id, username): (&str, Option<&str>), access: Access, topic: &str) -> Decision {
        acl(file).decide(&Asker { client_id, username }, access, topic)
    }

    /// Whether it is allowed, and by which line.
    fn ask(file: &str, asker: (&str, Option<&str>), access: Access, topic: &str) -> (bool, Option<u32>) {
        let decision = decide(file, asker, access, topic);
        (decision.allowed, decision.line)
    }

    fn fault(file: &[u8]) -> Fault {
        let faults = parse(file).err().unwrap_or_else(|| panic!("accepted: {:?}", String::from_utf8_lossy(file)));
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    }

    const NOBODY: (&str, Option<&str>) = ("c", None);
    const U: (&str, Option<&str>) = ("A", Some("u"));
    const Z: (&str, Option<&str>) = ("A", Some("z"));

    // Grammar.

    #[test]
    fn every_faulty_line_is_named_with_what_is_next_to_it() {
        for (line, expected) in [
            (&b"topics a"[..], "\"topics\" is unknown; the nearest is topic"),
            (b"Topic a", "\"Topic\" is unknown; the nearest is topic"),
            (b"USER a", "\"USER\" is unknown; the nearest is user"),
            (b"allow a", "\"allow\" is unknown; a line begins with topic, user or pattern"),
            (b"topic\ta", "behind topic there must be a blank, not a tab"),
            (b"user\tu", "behind user there must be a blank, not a tab"),
            (b"\ttopic a", "\"\\ttopic\" holds a tab; only blanks may stand before and between words"),
            (b" # note", "a comment's # must be the very first character of its line"),
            (b"\t# note", "a comment's # must be the very first character of its line"),
            (b"\xEF\xBB\xBFtopic a", "the file begins with a byte order mark, which has to go"),
            (b"topic", "behind topic a topic is missing"),
            (b"pattern  ", "behind pattern a topic is missing"),
            (b"user", "behind user a name is missing"),
            (b"user  \r", "behind user a name is missing"),
            (b"topic Read a", "\"Read\" is no access; the nearest is read"),
            (b"topic wirte a", "\"wirte\" is no access; the nearest is write"),
            (b"topic read\ta b", "\"read\\ta\" is no access; the nearest is read"),
            (b"topic a b/#", "\"a\" is no access; a topic with blanks needs one: topic readwrite a b/#"),
            (
                b"topic read a#",
                "\"a#\" is no valid topic filter: + and # fill a level, # only the last; the nearest is \"a/#\"",
            ),
            (b"topic a\0b", "there is a NUL byte in it"),
            (b"topic a/\xFF", "\"a/\u{FFFD}\" is not UTF-8, as topics and usernames are"),
        ] {
            let file = [b"user ok\n", line, b"\ntopic ok\n"].concat();
            assert_eq!(fault(&file), Fault { line: 2, text: expected.to_string() });
        }
    }

    #[test]
    fn a_valid_filter_is_told_for_each_that_is_not() {
        for (filter, expected) in [
            ("a#", "a/#"),
            ("a/#/b", "a/#"),
            ("#/", "#"),
            ("a+", "+"),
            ("a/+b/c", "a/+/c"),
            ("x+#/y", "+/#"),
            ("##", "#"),
        ] {
            assert_eq!(nearest_filter(filter), expected, "{filter}");
            assert!(!is_valid_filter(filter) && is_valid_filter(expected));
            assert!(filter_fault(filter).is_some() && filter_fault(expected).is_none());
        }
        let deep = |levels: usize| vec!["x"; levels].join("/");
        assert_eq!(filter_fault(&deep(201)), None);
        assert_eq!(filter_fault(&deep(202)).unwrap(), "the topic has 202 levels, and 201 are the most");
        let bytes = |count: usize| format!("topic {}", "x".repeat(count));
        assert!(parse(bytes(65_535).as_bytes()).is_ok());
        assert_eq!(fault(bytes(65_536).as_bytes()).text, "the topic has 65536 bytes, and 65535 are the most");
        let name = format!("user {}", "x".repeat(65_536));
        assert_eq!(fault(name.as_bytes()).text, "the name has 65536 bytes, and 65535 are the most");
    }

    #[test]
    fn comments_empty_lines_and_white_space_around_mean_nothing() {
        let file = "# topic x\n\n   \n\t\r\n  topic  read   home/#  \t\r\n#\n";
        assert_eq!(ask(file, NOBODY, Read, "home/x"), (true, Some(5)));
        assert_eq!(ask(file, NOBODY, Write, "home/x"), (false, None));
        assert_eq!(acl(file).rule_count(), 1);
        assert!(parse(b"# only caf\xE9").is_ok());
    }

    #[test]
    fn an_access_word_that_is_missing_is_readwrite() {
        for (line, reads, writes) in [
            ("topic a", true, true),
            ("topic readwrite a", true, true),
            ("topic read a", true, false),
            ("topic write a", false, true),
            ("topic deny a", false, false),
        ] {
            assert_eq!(ask(line, NOBODY, Read, "a").0, reads, "{line}");
            assert_eq!(ask(line, NOBODY, Write, "a").0, writes, "{line}");
        }
    }

    #[test]
    fn a_filter_may_hold_blanks_behind_an_access_word() {
        assert_eq!(ask("topic read living room/+/set", NOBODY, Read, "living room/1/set"), (true, Some(1)));
        assert_eq!(ask("topic read  a  b ", NOBODY, Read, "a  b"), (true, Some(1)));
    }

    #[test]
    fn a_name_keeps_its_inner_blanks() {
        assert!(ask("user  the  attic \ntopic a", ("c", Some("the  attic")), Read, "a").0);
        assert!(!ask("user  the  attic \ntopic a", ("c", Some("the attic")), Read, "a").0);
    }

    #[test]
    fn lines_before_the_first_user_are_for_clients_without_username() {
        let file = "topic a\nuser u\ntopic b";
        assert_eq!(ask(file, NOBODY, Read, "a"), (true, Some(1)));
        assert_eq!(ask(file, NOBODY, Read, "b"), (false, None));
        assert_eq!(ask(file, U, Read, "a"), (false, None));
        assert_eq!(ask(file, U, Read, "b"), (true, Some(3)));
        assert_eq!(ask(file, Z, Read, "a"), (false, None));
        // Tried with 2.0.11.
        assert_eq!(ask(file, ("c", Some("")), Read, "a"), (true, Some(1)));
        assert!(!ask("pattern p/%u", ("c", Some("")), Read, "p/").0);
    }

    #[test]
    fn a_section_that_is_opened_again_goes_on() {
        let file = "user u\ntopic a\nuser v\ntopic b\nuser u\ntopic deny a/x\ntopic c";
        assert_eq!(ask(file, U, Read, "a"), (true, Some(2)));
        assert_eq!(ask(file, U, Read, "c"), (true, Some(7)));
        assert_eq!(ask(file, U, Read, "a/x"), (false, Some(6)));
        assert_eq!(ask(file, U, Read, "b"), (false, None));
    }

    #[test]
    fn pattern_lines_are_for_everybody_wherever_they_stand() {
        let file = "pattern read all/%c\nuser u\npattern write of/%u";
        assert_eq!(ask(file, NOBODY, Read, "all/c"), (true, Some(1)));
        assert_eq!(ask(file, Z, Write, "of/z"), (true, Some(3)));
    }

    #[test]
    fn what_may_not_be_what_was_meant_is_warned_of() {
        for (line, expected) in [
            ("pattern a/b", Some("the pattern \"a/b\" holds neither %c nor %u: it is for everybody")),
            ("pattern x%u/b", Some("\"x%u/b\" is taken as it is: %c and %u must be whole levels")),
            ("topic of/%u", Some("\"of/%u\" is taken as it is: only pattern lines know %c and %u")),
            ("topic read", Some("\"read\" is taken as the topic here, to be read and written; is the topic missing?")),
            ("pattern a/%u", None),
            ("topic 100%", None),
        ] {
            let (_, warnings) = parse(line.as_bytes()).ok().unwrap();
            let expected: Vec<_> = expected.map(|text| Fault { line: 1, text: text.into() }).into_iter().collect();
            assert_eq!(warnings, expected);
        }
    }

    #[test]
    fn a_bad_line_refuses_the_whole_file_and_all_are_told() {
        let faults = parse(b"topic a\ntopik b\nuser\ntopic c").err().unwrap();
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [2, 3]);
    }

    // Matching.

    #[test]
    fn filters_match_as_subscriptions_do() {
        for (filter, topic) in [
            ("a/#", "a"),
            ("a/#", "a/b"),
            ("a/#", "a/b/c"),
            ("a/#", "a/"),
            ("#", "a/b"),
            ("#", "/"),
            ("+/b", "a/b"),
            ("+/b", "/b"),
            ("a/+", "a/"),
            ("/+", "/a"),
            ("a/+/c", "a/b/c"),
            ("+/#", "a"),
            ("$x/#", "$x"),
            ("$x/+", "$x/y"),
            ("a/b", "b/a"),
            ("a", "A"),
            ("a", "a/b"),
            ("a/b", "a"),
            ("a/+", "a"),
            ("+", "a/b"),
        ] {
            let expected = crate::topic::matches(filter, topic);
            assert_eq!(ask(&format!("topic {filter}"), NOBODY, Read, topic).0, expected, "{filter} {topic}");
        }
    }

    #[test]
    fn a_dollar_topic_is_matched_by_dollar_filters_only() {
        assert!(!ask("topic #", NOBODY, Read, "$x/1").0);
        assert!(!ask("topic +/1", NOBODY, Read, "$x/1").0);
        assert!(!ask("pattern %u/1", ("c", Some("$x")), Read, "$x/1").0);
        assert!(!ask("pattern %c/1", ("$x", None), Read, "$x/1").0);
        assert!(ask("topic $x/#", NOBODY, Read, "$x/1").0);
        assert!(ask("topic $SYS/#", NOBODY, Read, "$SYS/broker/uptime").0);
        assert!(!ask("topic $x/#", NOBODY, Read, "x/1").0);
        // Only the first level is special.
        assert!(ask("topic a/+", NOBODY, Read, "a/$x").0);
    }

    #[test]
    fn a_variable_is_a_whole_level_and_its_value_exactly_one() {
        for (pattern, asker, topic, expected) in [
            ("pattern p/%c", ("A", None), "p/A", true),
            ("pattern p/%c", ("A", None), "p/B", false),
            ("pattern p/%c", ("a/b", None), "p/a/b", false),
            ("pattern p/%u/#", ("c", Some("a/b")), "p/a/b/x", false),
            ("pattern p/%u", ("c", Some("u")), "p/u", true),
            ("pattern %u/%c/+", ("c", Some("u")), "u/c/x", true),
            ("pattern %u/%c/+", ("c", Some("u")), "c/u/x", false),
            ("pattern x%u", ("c", Some("u")), "xu", false),
            ("pattern x%u", ("c", Some("u")), "x%u", true),
            ("pattern p/%u", ("c", None), "p/u", false),
            ("pattern p/%u", ("c", None), "p/%u", false),
            ("pattern p/%u", ("c", None), "p/", false),
            ("topic p/%u", ("c", None), "p/%u", true),
        ] {
            assert_eq!(ask(pattern, asker, Read, topic).0, expected, "{pattern} {asker:?} {topic}");
        }
    }

    #[test]
    fn a_variable_and_a_level_of_its_spelling_are_two() {
        let file = "pattern read p/%c\npattern write p/+\nuser u\ntopic p/%c";
        assert_eq!(ask(file, U, Write, "p/%c"), (true, Some(4)));
        assert_eq!(ask(file, U, Read, "p/A"), (true, Some(1)));
        assert_eq!(ask(file, U, Write, "p/A"), (true, Some(2)));
        assert_eq!(ask(file, U, Read, "p/B"), (false, None));
    }

    // Order.

    #[test]
    fn a_denial_comes_first_wherever_it_stands() {
        assert_eq!(ask("topic a/#\ntopic deny a/x", NOBODY, Read, "a/x"), (false, Some(2)));
        assert_eq!(ask("topic a/#\ntopic deny a/x", NOBODY, Write, "a/x"), (false, Some(2)));
        assert_eq!(ask("topic deny a/+\ntopic deny a/#", NOBODY, Read, "a/x"), (false, Some(1)));
    }

    #[test]
    fn a_match_without_the_access_does_not_end_the_search() {
        let file = "topic write a/b\ntopic read a/#\ntopic readwrite #";
        assert_eq!(ask(file, NOBODY, Read, "a/b"), (true, Some(2)));
        assert_eq!(ask(file, NOBODY, Write, "a/b"), (true, Some(1)));
        assert_eq!(ask(file, NOBODY, Write, "a/c"), (true, Some(3)));
    }

    #[test]
    fn an_own_rule_beats_a_patterns_denial() {
        let file = "pattern deny a/%u\nuser u\ntopic write a/u";
        assert_eq!(ask(file, U, Write, "a/u"), (true, Some(3)));
        assert_eq!(ask(file, U, Read, "a/u"), (false, Some(1)));
    }

    #[test]
    fn dangerous_names_get_no_further_than_their_own_section() {
        let file = "pattern #\nuser a+\ntopic own";
        for (asker, topic, expected) in [
            (("c", Some("a+")), "own", (true, Some(3), Why::Topic)),
            (("c", Some("a+")), "x", (false, None, Why::DangerousUsername)),
            (("c", Some("#")), "x", (false, None, Why::DangerousUsername)),
            (("c#", None), "x", (false, None, Why::DangerousClientId)),
            (("c+", Some("u+")), "x", (false, None, Why::DangerousUsername)),
            (("c", Some("u")), "x", (true, Some(1), Why::Pattern)),
        ] {
            let decision = decide(file, asker, Read, topic);
            assert_eq!((decision.allowed, decision.line, decision.why), expected, "{asker:?}");
        }
        // Without any pattern their names are of no interest.
        assert_eq!(decide("user u", ("c#", Some("a+")), Read, "x").why, Why::NoRule);
    }

    #[test]
    fn an_empty_file_denies_everything() {
        for file in ["", "# nothing\n"] {
            assert_eq!(ask(file, NOBODY, Read, "a"), (false, None));
            assert_eq!(ask(file, U, Write, "a"), (false, None));
        }
    }

    #[test]
    fn nothing_below_sys_is_read_without_a_rule_that_begins_so() {
        assert!(!ask("topic read #", NOBODY, Read, "$SYS/broker/uptime").0);
        assert!(!ask("topic read +/broker/uptime", NOBODY, Read, "$SYS/broker/uptime").0);
        assert!(ask("topic read $SYS/broker/+", NOBODY, Read, "$SYS/broker/uptime").0);
    }

    #[test]
    fn the_reason_is_a_sentence_with_its_line() {
        let file = "topic deny a\npattern read p/%c";
        for (asker, topic, expected) in [
            (NOBODY, "a", "denied by the topic rule of line 1"),
            (NOBODY, "p/c", "allowed by the pattern of line 2"),
            (NOBODY, "x", "denied: no rule allows it"),
            (("+", None), "x", "denied: a client id with + or # fits no pattern"),
            (("c", Some("#")), "x", "denied: a username with + or # fits no pattern"),
        ] {
            assert_eq!(decide(file, asker, Read, topic).to_string(), expected);
        }
    }

    // What was tried with Mosquitto.

    #[test]
    fn tried_with_mosquitto_patterns_beside_a_section() {
        let file = "user u\ntopic write a/#\npattern deny a/%u\npattern write p/%c";
        assert_eq!(ask(file, U, Write, "a/u"), (true, Some(2)));
        assert_eq!(ask(file, U, Write, "p/A"), (true, Some(4)));
        assert_eq!(ask(file, U, Write, "p/B"), (false, None));
        assert_eq!(ask(file, Z, Write, "p/A"), (true, Some(4)));
        assert_eq!(ask(file, Z, Write, "a/x"), (false, None));
    }

    #[test]
    fn tried_with_mosquitto_dollar_topics() {
        let file = "user u\ntopic readwrite #";
        assert_eq!(ask(file, U, Write, "$x/1"), (false, None));
        assert_eq!(ask(file, U, Read, "$x/1"), (false, None));
    }

    #[test]
    fn tried_with_mosquitto_a_denial_between() {
        let file = "topic readwrite home/#\ntopic deny home/secret/#\ntopic home/secret/open";
        assert_eq!(ask(file, NOBODY, Read, "home/secret/open"), (false, Some(2)));
        assert_eq!(ask(file, NOBODY, Read, "home/secret"), (false, Some(2)));
        assert_eq!(ask(file, NOBODY, Read, "home/open"), (true, Some(1)));
    }

    #[test]
    fn tried_with_mosquitto_a_write_rule_is_no_read_rule() {
        assert_eq!(ask("topic write only/w", NOBODY, Read, "only/w"), (false, None));
        assert_eq!(ask("topic write only/w", NOBODY, Write, "only/w"), (true, Some(1)));
    }

    // Bounds.

    #[test]
    fn ten_thousand_rules_are_found_one_by_one_in_less_than_a_megabyte() {
        let mut file = String::new();
        for user in 0..100 {
            file += &format!("user u{user}\n");
            for room in 0..100 {
                file += &format!("topic read house/{user}/room{room}/#\n");
            }
        }
        let acl = acl(&file);
        assert_eq!(acl.rule_count(), 10_000);
        assert!(acl.bytes() < 1_000_000, "{}", acl.bytes());
        for (user, room) in [(0, 0), (99, 99), (47, 11)] {
            let name = format!("u{user}");
            let asker = Asker { client_id: "c", username: Some(&name) };
            let decision = acl.decide(&asker, Read, &format!("house/{user}/room{room}/lamp"));
            assert_eq!((decision.allowed, decision.line), (true, Some(user * 101 + room + 2)));
            assert!(!acl.decide(&asker, Read, &format!("house/{}/room{room}/lamp", user + 1)).allowed);
        }
    }

    #[test]
    fn a_file_that_is_too_long_or_has_too_many_levels_is_refused_with_the_numbers() {
        let long = vec![b'\n'; FILE_BYTES_MAX + 1];
        assert_eq!(fault(&long).text, "the file has 8388609 bytes, and 8388608 are the most");
        let mut file = String::new();
        for number in 0..NODES_MAX {
            file += &format!("topic {number}\n");
        }
        let faults = parse(file.as_bytes()).err().unwrap();
        // Two nodes are the roots.
        assert_eq!((faults.len(), faults[0].line), (1, NODES_MAX as u32 - 1));
        assert!(faults[0].text.starts_with("there are more than 262144 users and levels"));
    }
}
