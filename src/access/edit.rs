//! Changes of the password file, as text: every line that is not about the user in question stays as it is, byte for byte, be it
//! a comment, an empty line or one that nobody can read.

use super::passwords::parts;
use super::quoted;

/// Bytes of a user name or password, as many as MQTT can carry.
pub const STRING_MAX: usize = 65_535;

/// Whether a user of a password file can be called this.
///
/// # Errors
/// A sentence, when a line that begins with this name would not be about it.
pub fn check_username(username: &str) -> Result<(), String> {
    let name = quoted(username.as_bytes());
    Err(match username {
        "" => "The user name is empty.".to_string(),
        _ if username.len() > STRING_MAX => {
            format!("The user name has {} bytes, and {STRING_MAX} are the most.", username.len())
        }
        _ if username.contains(':') => format!("The user name {name} has a ':' in it, which ends names in the file."),
        _ if username.contains(char::is_control) => format!("The user name {name} has a control character in it."),
        _ if username.starts_with('#') => {
            format!("The user name {name} begins with '#', which makes its line a comment.")
        }
        _ if username.starts_with(' ') || username.ends_with(' ') => {
            format!("The user name {name} begins or ends with a blank, which is lost in the file.")
        }
        _ => return Ok(()),
    })
}

/// The file with this hash for this user: in the place of its first line, without further ones, or in a new last line. True if it
/// had none.
pub fn put(content: &[u8], username: &str, hash: &str) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(content.len() + username.len() + hash.len() + 2);
    let mut is_new = true;
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        if !is_about(line, username) {
            out.extend_from_slice(line);
        } else if is_new {
            push_entry(&mut out, username.as_bytes(), hash, line);
            is_new = false;
        }
    }
    if is_new {
        if out.last().is_some_and(|&byte| byte != b'\n') {
            out.push(b'\n');
        }
        push_entry(&mut out, username.as_bytes(), hash, b"");
    }
    (out, is_new)
}

/// The file without this user; nothing if it is not in there.
pub fn remove(content: &[u8], username: &str) -> Option<Vec<u8>> {
    let lines = content.split_inclusive(|&byte| byte == b'\n');
    let out: Vec<u8> = lines.filter(|line| !is_about(line, username)).flatten().copied().collect();
    (out.len() < content.len()).then_some(out)
}

/// The file with hashes in place of plain text, and of how many. What is a hash, or is broken, stays.
///
/// # Errors
/// What `hash` says.
pub fn hash_plain_text<E>(content: &[u8], hash: impl Fn(&[u8]) -> Result<String, E>) -> Result<(Vec<u8>, usize), E> {
    let mut out = Vec::with_capacity(content.len());
    let mut count = 0;
    for line in content.split_inclusive(|&byte| byte == b'\n') {
        match entry(line) {
            Some((name, password))
                if !name.is_empty()
                    && std::str::from_utf8(name).is_ok()
                    && !password.is_empty()
                    && !password.starts_with(b"$")
                    && !line.contains(&0) =>
            {
                push_entry(&mut out, name, &hash(password)?, line);
                count += 1;
            }
            _ => out.extend_from_slice(line),
        }
    }
    Ok((out, count))
}

/// Name and hash, or plain text, of a line that has them.
fn entry(line: &[u8]) -> Option<(&[u8], &[u8])> {
    if line.starts_with(b"#") { None } else { parts(line) }
}

fn is_about(line: &[u8], username: &str) -> bool {
    entry(line).is_some_and(|(name, _)| name == username.as_bytes())
}

/// With the line's end that there was before.
fn push_entry(out: &mut Vec<u8>, name: &[u8], hash: &str, before: &[u8]) {
    let end: &[u8] = if before.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
    for part in [name, b":", hash.as_bytes(), end] {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# users: all\nann:$1\n\nnobody knows\n bob : $2 :x\n#ann:$3\ncid:$4";

    fn text(content: Vec<u8>) -> String {
        String::from_utf8(content).unwrap()
    }

    #[test]
    fn a_user_keeps_its_place_and_a_new_one_comes_last() {
        let put = |file: &str, name| {
            let (content, is_new) = put(file.as_bytes(), name, "$9");
            (text(content), is_new)
        };
        assert_eq!(put(FILE, "ann"), (FILE.replace("ann:$1", "ann:$9"), false));
        assert_eq!(put(FILE, "bob"), (FILE.replace(" bob : $2 :x", "bob:$9"), false));
        assert_eq!(put(FILE, "cid"), (FILE.replace("cid:$4", "cid:$9\n"), false));
        assert_eq!(put(FILE, "dan"), (format!("{FILE}\ndan:$9\n"), true));
        assert_eq!(put(FILE, "nobody knows"), (format!("{FILE}\nnobody knows:$9\n"), true));
        assert_eq!(put("", "ann"), ("ann:$9\n".to_string(), true));
        assert_eq!(put("ann:$1\r\nbob:$2\r\n", "ann"), ("ann:$9\r\nbob:$2\r\n".to_string(), false));
    }

    #[test]
    fn of_a_user_with_several_lines_one_is_left() {
        let twice = "ann:$1\nbob:$2\nann:$3\n";
        assert_eq!(text(put(twice.as_bytes(), "ann", "$9").0), "ann:$9\nbob:$2\n");
        assert_eq!(remove(twice.as_bytes(), "ann").map(text).as_deref(), Some("bob:$2\n"));
    }

    #[test]
    fn a_user_is_removed_and_nothing_else() {
        assert_eq!(remove(FILE.as_bytes(), "ann").map(text), Some(FILE.replace("\nann:$1", "")));
        assert_eq!(remove(FILE.as_bytes(), "bob").map(text), Some(FILE.replace(" bob : $2 :x\n", "")));
        assert_eq!(remove(FILE.as_bytes(), "cid").map(text), Some(FILE.replace("cid:$4", "")));
        for name in ["#ann", "an", "nobody knows", "users"] {
            assert_eq!(remove(FILE.as_bytes(), name), None, "{name}");
        }
    }

    #[test]
    fn plain_text_is_hashed_and_hashes_are_left_alone() {
        let file = b"#a:b\nann: two words \r\nbob:$6$x\ncid:\n:x\n\nnul:\0\nx:a:b\n\xFF:y\ndan:last";
        let hash = |password: &[u8]| Ok::<String, ()>(format!("<{}>", String::from_utf8_lossy(password)));
        let expected = b"#a:b\nann:<two words>\r\nbob:$6$x\ncid:\n:x\n\nnul:\0\nx:<a>\n\xFF:y\ndan:<last>\n";
        assert_eq!(hash_plain_text(file, hash), Ok((expected.to_vec(), 3)));
        assert_eq!(hash_plain_text(b"a:$1\n#b:c\n", |_| Err(())), Ok((b"a:$1\n#b:c\n".to_vec(), 0)));
        assert_eq!(hash_plain_text(b"a:$1\nb:c\n", |_| Err(())), Err(()));
    }

    #[test]
    fn names_that_the_file_cannot_hold_are_refused_with_the_reason() {
        for name in ["ann", "ann smith", "a#b", "Ænn", "$ann"] {
            assert_eq!(check_username(name), Ok(()));
        }
        for (name, expected) in [
            ("", "The user name is empty."),
            ("a:b", "The user name \"a:b\" has a ':' in it, which ends names in the file."),
            ("a\nb", "The user name \"a\\nb\" has a control character in it."),
            ("a\u{85}", "The user name \"a\\u{85}\" has a control character in it."),
            ("#a", "The user name \"#a\" begins with '#', which makes its line a comment."),
            (" a", "The user name \" a\" begins or ends with a blank, which is lost in the file."),
            ("a ", "The user name \"a \" begins or ends with a blank, which is lost in the file."),
        ] {
            assert_eq!(check_username(name).unwrap_err(), expected);
        }
        assert!(check_username(&"a".repeat(STRING_MAX)).is_ok());
        let long = check_username(&"a".repeat(STRING_MAX + 1)).unwrap_err();
        assert_eq!(long, "The user name has 65536 bytes, and 65535 are the most.");
    }
}
