//! How far a word as somebody wrote it is from one that exists.

/// Letters to insert, remove or replace until `a` is `b` (Levenshtein), where Mosquitto's underscore is as good as a dash.
pub fn distance(a: &[u8], b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.bytes().enumerate() {
            let is_same = *left == right || (*left == b'_' && right == b'-');
            let replaced = diagonal + usize::from(!is_same);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("max_qos", "max-qos", 0)] {
            assert_eq!(distance(a.as_bytes(), b), expected, "{a} {b}");
        }
    }
}
