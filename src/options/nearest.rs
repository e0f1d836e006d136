//! What somebody meant who wrote an option that does not exist.

use super::foreign::FOREIGN;
use super::table::{ALIASES, Row};
use crate::spelling::distance;

/// The unknown option as it was written, and the valid one next to it. A single letter has no neighbours: then all
/// valid letters are named.
pub fn unknown(name: &str) -> String {
    if name.chars().count() == 1 {
        let letters: String = Row::flags().filter_map(|row| row.short).flat_map(|letter| [' ', '-', letter]).collect();
        return format!("-{name}; the short ones are{letters}");
    }
    let nearest = Row::flags().map(Row::flag).min_by_key(|flag| distance(name.as_bytes(), flag)).unwrap_or_default();
    format!("--{name}; the nearest is --{nearest}")
}

/// The keyword of a configuration file next to one that does not exist. Those that are known and refused count, too: they tell
/// what was meant.
pub fn keyword(name: &str) -> &'static str {
    let aliases = ALIASES.iter().map(|(alias, _)| *alias);
    let all = Row::keywords().map(|row| row.name).chain(aliases).chain(FOREIGN.iter().map(|it| it.name));
    // No keyword is longer.
    let name = name.char_indices().nth(64).map_or(name, |(end, _)| &name[..end]);
    all.min_by_key(|keyword| distance(name.as_bytes(), keyword)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_neighbour_of_a_keyword_is_named() {
        for (name, expected) in
            [("lisener", "listener"), ("Listener", "listener"), ("max_qos_", "max_qos"), ("certfiles", "certfile")]
        {
            assert_eq!(keyword(name), expected);
        }
        assert!(!keyword(&"é".repeat(100_000)).is_empty());
    }

    #[test]
    fn the_neighbour_is_named() {
        for (name, expected) in [
            ("allow_anonymous", "--allow-anonymous"),
            ("anonymous", "--allow-anonymous"),
            ("listen", "--listener"),
            ("max-queue-bytes", "--max-queued-bytes"),
            ("", "--port"),
        ] {
            let text = unknown(name);
            assert_eq!(text, format!("--{name}; the nearest is {expected}"));
        }
    }
}
