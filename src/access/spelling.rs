//! What somebody meant who wrote a word that does not exist.

use crate::spelling::distance;

/// The word of `known` that `written` is most likely to be, if it is like any: at most half of the letters differ.
pub(super) fn nearest<'a>(written: &[u8], known: &[&'a str]) -> Option<&'a str> {
    // No word is longer than ten letters.
    if written.len() > 20 {
        return None;
    }
    let written = written.to_ascii_lowercase();
    let (word, distance) = known.iter().map(|word| (*word, distance(&written, word))).min_by_key(|(_, d)| *d)?;
    (distance * 2 <= word.len()).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_by_most_of_its_letters() {
        let known = ["user", "topic", "pattern"];
        for (written, expected) in [
            ("topics", Some("topic")),
            ("Topic", Some("topic")),
            ("patern", Some("pattern")),
            ("username", None),
            ("users", Some("user")),
            ("xyz", None),
            ("", None),
        ] {
            assert_eq!(nearest(written.as_bytes(), &known), expected, "{written}");
        }
        assert_eq!(nearest(&[b'u'; 100_000], &known), None);
    }
}
