//! What the fuzz targets of the password and access control files do with their bytes.

use midge::access::acl::{self, Access, Asker};
use midge::access::passwords::{self, Allowed};
use midge::access::{FAULTS_MAX, Fault};

use super::bodies::Source;
use super::{made_up_rules, reference};

/// Pieces that lines are made of, so that not all of them fail at their first word.
const ACL_PIECES: [&[u8]; 16] = [
    b"\n",
    b"\n",
    b"\r\n",
    b"topic ",
    b"pattern ",
    b"user ",
    b"read ",
    b"deny ",
    b"a",
    b"/",
    b"#",
    b"+",
    b"%c",
    b"%u",
    b"\t",
    b" ",
];

const PASSWORD_PIECES: [&[u8]; 16] = [
    b"\n",
    b":",
    b"u",
    b"$6$",
    b"$7$",
    b"$argon2id$v=19$m=",
    b"8",
    b",t=1",
    b",p=1",
    b"$",
    b"AAECAwQFBgcICQoL",
    b"5W8GCQ9GLgmhmQvoa8jmRaPnsh82mRigdSv6mQsK0sMIII/WznlQb1g+RWddfoAKTMzBJP1deJU+Rp/1QZ0zZg==",
    b"AAECAwQFBgcICQoLDA0ODw",
    b"\r",
    b"#",
    b" ",
];

/// Rules that hold decide as a scan over them does; whatever else is read has faults that name its lines, and answers.
pub fn acl(data: &[u8]) {
    let mut source = Source(data);
    if source.byte() & 1 == 0 {
        return rules(&mut source);
    }
    let file = pieces(&mut source, &ACL_PIECES);
    match acl::parse(&file) {
        Err(faults) => {
            assert!(!faults.is_empty());
            check_faults(&faults, &file);
        }
        Ok((acl, warnings)) => {
            check_faults(&warnings, &file);
            let most = file.split(|&byte| byte == b'\n').count() as u32;
            for topic in ["a", "a/a", "$a", "/", "%c/u"] {
                for username in [None, Some("u"), Some("a"), Some("+")] {
                    let decision = acl.decide(&Asker { client_id: "a", username }, Access::Read, topic);
                    assert!(
                        decision.line.is_none_or(|line| line <= most) && (decision.line.is_some() || !decision.allowed)
                    );
                }
            }
        }
    }
}

fn rules(source: &mut Source) {
    let mut choose = |limit: usize| source.byte() as usize % limit;
    let (file, rules) = made_up_rules::file(&mut choose);
    let (acl, _) = acl::parse(file.as_bytes()).unwrap_or_else(|faults| panic!("{faults:?} in\n{file}"));
    for _ in 0..10 {
        let name = choose(made_up_rules::NAMES.len() + 2);
        let client_id = made_up_rules::CLIENT_IDS[choose(made_up_rules::CLIENT_IDS.len())];
        let asker = Asker { client_id, username: made_up_rules::NAMES.get(name).copied() };
        let (access, topic) = ([Access::Read, Access::Write][choose(2)], made_up_rules::topic(&mut choose));
        let decision = acl.decide(&asker, access, &topic);
        let expected = reference::decide(&rules, &asker, access, &topic);
        assert_eq!(
            (decision.allowed, decision.line, decision.why),
            expected,
            "{asker:?} {access:?} {topic} by\n{file}"
        );
    }
}

/// Faults name lines of the file and hold nothing of what is behind the first colon; no user passes without a password.
pub fn passwords(data: &[u8]) {
    let mut source = Source(data);
    let allowed = Allowed { plain_text: source.byte() & 1 == 0, argon2_kib_max: 8 };
    let file = pieces(&mut source, &PASSWORD_PIECES);
    let (passwords, faults) = passwords::parse(&file, &allowed);
    check_faults(&faults, &file);
    for fault in &faults {
        let why = fault.text.split_once("\": ").map_or("", |(_, why)| why);
        assert!(!why.contains("AAECAwQF") && !why.contains("5W8GCQ9G"), "{fault}");
    }
    let lines = file.split(|&byte| byte == b'\n').filter(|line| line.contains(&b':')).count();
    assert!(passwords.user_count() <= lines);
    for name in ["u", "uu", "nobody"] {
        let check = passwords.check(name, b"");
        assert!(check.cost() > 16 || !check.run());
        let check = passwords.check(name, b"correct horse");
        assert!(check.cost() > 16 || !check.run() || passwords.has_user(name));
    }
}

/// What the source says: pieces, or bytes as they are.
fn pieces(source: &mut Source, pieces: &[&[u8]; 16]) -> Vec<u8> {
    let mut file = Vec::new();
    while !source.0.is_empty() {
        let byte = source.byte();
        match byte {
            0..0xE0 => file.extend_from_slice(pieces[usize::from(byte) % 16]),
            _ => file.push(source.byte()),
        }
    }
    file
}

fn check_faults(faults: &[Fault], file: &[u8]) {
    let most = file.split(|&byte| byte == b'\n').count() as u32;
    assert!(faults.len() <= FAULTS_MAX + 1);
    for fault in faults {
        assert!((1..=most).contains(&fault.line) && !fault.text.contains('\n') && fault.text.len() < 1000, "{fault}");
    }
}
