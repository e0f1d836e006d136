//! Topic names and topic filters: what is valid, how they split into levels, what a shared filter is. Knows
//! neither packets nor subscriptions. Matching is on raw bytes: no normalisation, no case folding. [MQTT-4.7.3-4]

/// Whether `topic` may stand in a PUBLISH or Will: not empty, no wildcard, no U+0000. [MQTT-4.7.1-1] [MQTT-4.7.3-1]
pub fn is_valid_name(topic: &str) -> bool {
    !topic.is_empty() && topic.len() <= 65_535 && !has_any(topic.as_bytes(), [b'+', b'#', 0])
}

/// Whether one of the bytes is 0.
pub fn has_nul(bytes: &[u8]) -> bool {
    has_any(bytes, [0])
}

/// Whether one of the bytes is one of these: a word at a time, because every topic goes through here.
fn has_any<const N: usize>(bytes: &[u8], wanted: [u8; N]) -> bool {
    const ONES: usize = usize::MAX / 255;
    const HIGHS: usize = ONES << 7;
    let (words, rest) = bytes.as_chunks();
    words.iter().any(|&word| {
        let word = usize::from_ne_bytes(word);
        // A byte of the difference is 0 where the byte is the wanted one, and only then borrows into its highest bit first.
        wanted.iter().any(|&byte| {
            let difference = word ^ (ONES * usize::from(byte));
            difference.wrapping_sub(ONES) & !difference & HIGHS != 0
        })
    }) || rest.iter().any(|byte| wanted.contains(byte))
}

/// Whether `filter` is a valid topic filter (the part behind `$share/NAME/` for a shared one): not empty, `#` alone
/// on the last level only, `+` alone on its level. [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]
pub fn is_valid_filter(filter: &str) -> bool {
    if filter.is_empty() || filter.len() > 65_535 || filter.as_bytes().contains(&0) {
        return false;
    }
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let whole = level.len() == 1;
        if level.contains('#') && !(whole && levels.peek().is_none()) || level.contains('+') && !whole {
            return false;
        }
    }
    true
}

/// Whether the filter needs more than a comparison.
pub fn has_wildcard(filter: &str) -> bool {
    has_any(filter.as_bytes(), [b'+', b'#'])
}

/// A subscription's filter taken apart: the share name of `$share/NAME/FILTER`, and the filter itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareFilter<'a> {
    pub share_name: Option<&'a str>,
    pub filter: &'a str,
}

impl<'a> ShareFilter<'a> {
    /// Nothing if the filter, or its `$share` form, is invalid. [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    pub fn parse(full: &'a str) -> Option<ShareFilter<'a>> {
        if full.len() > 65_535 {
            return None;
        }
        let (share_name, filter) = match full.strip_prefix("$share/") {
            None => (None, full),
            Some(rest) => {
                let (name, filter) = rest.split_once('/')?;
                if name.is_empty() || has_wildcard(name) {
                    return None;
                }
                (Some(name), filter)
            }
        };
        is_valid_filter(filter).then_some(ShareFilter { share_name, filter })
    }
}

/// Whether `filter` matches `topic`, level by level: the plain definition. The index and the retained store have their
/// own, faster ways and are tested against this one. [MQTT-4.7.2-1]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) => return true,
            (Some("+"), Some(_)) => {}
            (Some(level), Some(name)) if level == name => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_is_found_wherever_it_stands_among_whatever_others() {
        for len in 0..40 {
            for filler in [0x01, b'"', b'$', b'*', b',', 0x7F, 0x80, 0xFF] {
                let mut bytes = vec![filler; len];
                assert!(!has_any(&bytes, [b'+', b'#', 0]) && !has_nul(&bytes));
                for at in 0..len {
                    for byte in [b'+', b'#', 0] {
                        bytes[at] = byte;
                        assert!(has_any(&bytes, [b'+', b'#', 0]), "{bytes:?}");
                        assert_eq!(has_nul(&bytes), byte == 0);
                    }
                    bytes[at] = filler;
                }
            }
        }
    }

    #[test]
    fn mqtt_4_7_1_2_number_sign_stands_alone_and_last() {
        for good in ["#", "a/#", "/#", "+/#", "a/+/#"] {
            assert!(is_valid_filter(good), "{good}");
        }
        for bad in ["a#", "a/#/b", "#/", "#a", "##", "a/b#", ""] {
            assert!(!is_valid_filter(bad), "{bad}");
        }
    }

    #[test]
    fn mqtt_4_7_1_3_plus_fills_its_level() {
        for good in ["+", "a/+/b", "+/+", "/+", "+/"] {
            assert!(is_valid_filter(good), "{good}");
        }
        for bad in ["a+", "a/+b", "++", "a/b+/c"] {
            assert!(!is_valid_filter(bad), "{bad}");
        }
    }

    #[test]
    fn mqtt_4_7_3_names_and_filters_have_1_to_65535_bytes_and_no_nul() {
        let longest = "t".repeat(65_535);
        let too_long = "t".repeat(65_536);
        assert!(is_valid_name(&longest) && is_valid_filter(&longest));
        assert!(!is_valid_name(&too_long) && !is_valid_filter(&too_long));
        assert!(!is_valid_name("") && !is_valid_name("a\0b") && !is_valid_filter("a\0b"));
        assert!(!is_valid_name("a/+") && !is_valid_name("#"));
    }

    #[test]
    fn mqtt_4_8_2_shared_filters_name_a_group_and_a_filter() {
        let share = ShareFilter::parse("$share/g/a/+/b").unwrap();
        assert_eq!((share.share_name, share.filter), (Some("g"), "a/+/b"));
        assert_eq!(ShareFilter::parse("$share/g//").unwrap().filter, "/");
        assert_eq!(ShareFilter::parse("$shared/g/a").unwrap().share_name, None);
        for bad in ["$share//a", "$share/g", "$share/g/", "$share/g+/a", "$share/#/a", "$share/"] {
            assert_eq!(ShareFilter::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn matching_follows_the_examples_of_the_standard() {
        for (filter, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/x", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/x", true),
            ("$SYS/+", "$SYS/x", true),
            ("$SYS/x", "$SYS/x", true),
            ("A", "a", false),
            ("a", "a/", false),
            ("é", "$x", false),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
