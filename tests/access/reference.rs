//! The order of evaluation as it is written down, by a scan over all rules: slow and plain. What the index says must be the same.

use midge::access::acl::{Access, Asker, Why};
use midge::topic;

pub struct Rule {
    pub line: u32,
    /// Nothing for a pattern; else the user of the section, where nothing is that of clients without username.
    pub section: Option<Option<String>>,
    /// "read", "write", "readwrite" or "deny"
    pub access: &'static str,
    pub filter: String,
}

/// Whether it is allowed, the deciding line and the reason.
pub fn decide(rules: &[Rule], asker: &Asker, access: Access, topic: &str) -> (bool, Option<u32>, Why) {
    let asker = &Asker { username: asker.username.filter(|name| !name.is_empty()), ..*asker };
    let own = |rule: &&Rule| rule.section.as_ref().is_some_and(|section| section.as_deref() == asker.username);
    let own: Vec<&Rule> = rules.iter().filter(own).collect();
    if let Some((allowed, line)) = first(&own, asker, access, topic) {
        return (allowed, Some(line), Why::Topic);
    }
    let patterns: Vec<&Rule> = rules.iter().filter(|rule| rule.section.is_none()).collect();
    if patterns.is_empty() {
        return (false, None, Why::NoRule);
    }
    if asker.username.is_some_and(|name| name.contains(['+', '#'])) {
        return (false, None, Why::DangerousUsername);
    }
    if asker.client_id.contains(['+', '#']) {
        return (false, None, Why::DangerousClientId);
    }
    match first(&patterns, asker, access, topic) {
        Some((allowed, line)) => (allowed, Some(line), Why::Pattern),
        None => (false, None, Why::NoRule),
    }
}

/// The first denial that matches, else the first rule that matches and holds the access.
fn first(rules: &[&Rule], asker: &Asker, access: Access, topic: &str) -> Option<(bool, u32)> {
    let matching = || rules.iter().filter(|rule| matches(rule, asker, topic));
    if let Some(rule) = matching().find(|rule| rule.access == "deny") {
        return Some((false, rule.line));
    }
    let wanted = match access {
        Access::Read => ["read", "readwrite"],
        Access::Write => ["write", "readwrite"],
    };
    matching().find(|rule| wanted.contains(&rule.access)).map(|rule| (true, rule.line))
}

fn matches(rule: &Rule, asker: &Asker, topic: &str) -> bool {
    if rule.section.is_some() {
        return topic::matches(&rule.filter, topic);
    }
    if topic.starts_with('$') && !rule.filter.starts_with('$') {
        return false;
    }
    let mut names = topic.split('/');
    for level in rule.filter.split('/') {
        let Some(name) = names.next() else { return level == "#" };
        let fits = match level {
            "#" => return true,
            "+" => true,
            "%c" => name == asker.client_id,
            "%u" => Some(name) == asker.username,
            level => name == level,
        };
        if !fits {
            return false;
        }
    }
    names.next().is_none()
}
