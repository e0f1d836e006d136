//! `midge passwd`: what it does to files, what it says, and its exit codes. That its files let users in is tested beside the broker's
//! own reading of them, in `access`; that Mosquitto's tools agree, by scripts/passwd-compare.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use midge::access::passwords::{Allowed, ITERATIONS, parse};

use crate::ctl::{mode, read_until, terminal};
use crate::folder::Folder;
use crate::program::run;

/// The command with these arguments and this on standard input.
pub fn run_passwd(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_midge"));
    command.arg("passwd").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may have ended without reading.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Exit code, standard output, and standard error.
fn passwd(arguments: &[&str], input: &str) -> (i32, String, String) {
    let output = run_passwd(arguments, input);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn done(said: &str) -> (i32, String, String) {
    (0, said.to_string(), String::new())
}

fn lets_in(content: &str, username: &str, password: &str) -> bool {
    let (passwords, faults) = parse(content.as_bytes(), &Allowed::default());
    assert_eq!(faults, []);
    passwords.check(username, password.as_bytes()).run()
}

#[test]
fn users_are_added_changed_and_removed() {
    let folder = Folder::new("passwd");
    let path = folder.path("f").display().to_string();
    assert_eq!(passwd(&["-c", "-b", &path, "ann", "one"], ""), done("Adding password for user ann\n"));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(passwd(&[&path, "bob"], "two words\nnot this"), done("Adding password for user bob\n"));
    assert_eq!(
        passwd(&["-b", "-H", "sha512", &path, "cid smith", "-three"], ""),
        done("Adding password for user cid smith\n")
    );
    let content = folder.read("f");
    let forms: Vec<&str> = content.lines().map(|line| &line[line.find(':').unwrap()..][..10]).collect();
    assert!(forms[0].starts_with(":$7$1000$") && forms[1].starts_with(":$7$1000$") && forms[2].starts_with(":$6$"));
    assert!(lets_in(&content, "ann", "one") && lets_in(&content, "bob", "two words"));
    assert!(lets_in(&content, "cid smith", "-three"));

    // What is not about the user stays.
    let commented = content.replace("bob:", "# bob's\n\nnobody knows\nbob:");
    folder.write("f", &commented);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(passwd(&["--iterations=7", "-b", &path, "bob", "four"], ""), done("Updating password for user bob\n"));
    let changed = folder.read("f");
    assert!(
        changed.contains("bob:$7$7$") && lets_in(&changed, "bob", "four") && !lets_in(&changed, "bob", "two words")
    );
    let others = |text: &str| text.lines().filter(|line| !line.starts_with("bob:")).collect::<Vec<_>>().join("\n");
    assert_eq!(others(&changed), others(&commented));
    assert_eq!(passwd(&["-D", &path, "bob"], ""), done(""));
    assert_eq!(folder.read("f"), others(&changed) + "\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(folder.path("")).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
#[cfg(feature = "argon2")]
fn argon2id_is_made_as_the_broker_reads_it() {
    let (code, line, _) = passwd(&["--hash", "argon2id", "-b", "-", "ann", "one"], "");
    assert!(
        code == 0 && line.starts_with("ann:$argon2id$v=19$m=19456,t=2,p=1$") && lets_in(&line, "ann", "one"),
        "{line}"
    );
}

#[test]
fn an_entry_is_printed_instead() {
    for create in [&["-c"][..], &[]] {
        let (code, line, error) = passwd(&[create, &["-", "ann"]].concat(), "one\r\n");
        assert!(code == 0 && error.is_empty() && line.ends_with("==\n") && lets_in(&line, "ann", "one"), "{line}");
    }
    // And each has another salt.
    assert_ne!(passwd(&["-", "ann"], "one\n").1, passwd(&["-", "ann"], "one\n").1);
}

#[test]
fn a_signal_at_the_prompt_leaves_the_terminal_as_it_was() {
    let folder = Folder::new("passwd-signal");
    let path = folder.write("f", "ann:$6$x\n");
    for signal in ["INT", "TERM", "HUP"] {
        let (mut near, far) = terminal();
        let before = mode(&far);
        let stdio = || Stdio::from(far.try_clone().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_midge"));
        command.args(["passwd", &path, "bob"]).stdin(stdio()).stdout(stdio()).stderr(stdio());
        let mut child = command.spawn().unwrap();
        read_until(&mut near, "Password: ");
        assert_ne!(mode(&far), before);
        let kill = format!("kill -{signal} {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{signal}");
        assert_eq!(mode(&far), before, "{signal}");
        read_until(&mut near, "Error: There is no password: nothing was changed.");
    }
    assert_eq!(folder.read("f"), "ann:$6$x\n");
}

#[test]
fn plain_text_is_hashed_once() {
    let folder = Folder::new("upgrade");
    let path = folder.write("f", "# all\nann:two words\nbob:$6$broken\n\ncid:x:y\n");
    let warning =
        format!("Warning: {path}:3: user \"bob\": the hash is cut off or too long. The line stays as it is.\n");
    assert_eq!(passwd(&["-U", &path], ""), (0, format!("Hashed 2 passwords of {path}.\n"), warning.clone()));
    let content = folder.read("f");
    assert!(content.starts_with("# all\nann:$7$1000$") && content.contains("\nbob:$6$broken\n\ncid:$7$1000$"));
    let whole = content.replace("bob:$6$broken\n", "");
    assert!(lets_in(&whole, "ann", "two words") && lets_in(&whole, "cid", "x"));
    assert_eq!(passwd(&["-U", &path], ""), (0, format!("{path} has no passwords in plain text.\n"), warning));
    assert_eq!(folder.read("f"), content);
}

#[test]
fn a_failure_is_one_line_and_changes_nothing() {
    let folder = Folder::new("failure");
    let path = folder.write("f", "ann:$6$x\n");
    let none = folder.path("none").display().to_string();
    let directory = folder.path("").display().to_string();
    let nowhere = folder.path("none/f").display().to_string();
    let cases: [(&[&str], &str, String); 9] = [
        (
            &["-c", "-b", &path, "bob", "x"],
            "",
            format!(
                "{path} is there already: without --create the user is added to it; to begin anew, remove it first."
            ),
        ),
        (&["-b", &none, "bob", "x"], "", format!("There is no {none}: --create makes it.")),
        (
            &["-c", "-b", &nowhere, "bob", "x"],
            "",
            format!("{nowhere} cannot be made: No such file or directory (os error 2)."),
        ),
        (&["-D", &none, "bob"], "", format!("There is no {none}: --create makes it.")),
        (&["-U", &none], "", format!("There is no {none}: --create makes it.")),
        (&["-D", &path, "bob"], "", format!("{path} has no user \"bob\".")),
        (&["-b", &directory, "bob", "x"], "", format!("{directory} cannot be changed: Is a directory (os error 21).")),
        (&[&path, "bob"], "", "There is no password: nothing was changed.".to_string()),
        (
            &[&path, "bob"],
            &"x".repeat(65_536),
            "The password cannot be read: it has more than 65535 bytes.".to_string(),
        ),
    ];
    for (arguments, input, expected) in cases {
        assert_eq!(passwd(arguments, input), (1, String::new(), format!("Error: {expected}\n")), "{arguments:?}");
    }
    assert_eq!((folder.read("f").as_str(), fs::read_dir(folder.path("")).unwrap().count()), ("ann:$6$x\n", 1));
}

#[test]
fn a_wrong_command_line_is_refused_with_the_way_out() {
    let cases: [(&[&str], &str); 19] = [
        (&[], "Expected FILE and USER behind the options, found 0 arguments. See midge passwd --help."),
        (&["f"], "Expected FILE and USER behind the options, found 1 argument. See midge passwd --help."),
        (
            &["-b", "f", "u"],
            "Expected FILE, USER and PASSWORD behind the options, found 2 arguments. See midge passwd --help.",
        ),
        (&["-U", "f", "u"], "Expected FILE behind the options, found 2 arguments. See midge passwd --help."),
        (
            &["f", "u", "p"],
            "A password on the command line needs --batch in front of FILE: others can see it there. See midge passwd --help.",
        ),
        (&["-D", "-c", "f", "u"], "--create and --delete do not go together. See midge passwd --help."),
        (&["-U", "-b", "-c", "f"], "--create and --upgrade do not go together. See midge passwd --help."),
        (
            &["-D", "-I", "5", "f", "u"],
            "--delete hashes nothing: --hash and --iterations are not for it. See midge passwd --help.",
        ),
        (&["--creat", "f", "u"], "Unknown option --creat; the nearest is --create. See midge passwd --help."),
        (&["-x", "f", "u"], "Unknown option -x; the short ones are -c -b -D -U -H -I -h. See midge passwd --help."),
        (&["-H"], "--hash needs a value. See midge passwd --help."),
        (&["-H", "md5", "f", "u"], "Unknown hash 'md5'; the nearest is sha512. See midge passwd --help."),
        (
            &["-I", "0", "f", "u"],
            "Invalid value '0' for --iterations: expected a number from 1 to 1000000. See midge passwd --help.",
        ),
        (
            &["-I", "9", "-H", "sha512", "f", "u"],
            "--iterations is about sha512-pbkdf2, and --hash says sha512. See midge passwd --help.",
        ),
        (&["--create=x", "f", "u"], "--create takes no value. See midge passwd --help."),
        (&["-c", "f", "a:b"], "The user name \"a:b\" has a ':' in it, which ends names in the file."),
        (&["-c", "f", ""], "The user name is empty."),
        (&["-b", "-", "u", ""], "The password is empty: the broker lets nobody in with that."),
        (&["-I", "9", "-I", "9", "f", "u"], "--iterations may stand once. See midge passwd --help."),
    ];
    for (arguments, expected) in cases {
        assert_eq!(passwd(arguments, "x\n"), (3, String::new(), format!("Error: {expected}\n")), "{arguments:?}");
    }
}

#[test]
fn commands_are_in_the_help_and_found_by_their_letters() {
    let (code, text, error) = passwd(&["--help"], "");
    assert!(code == 0 && error.is_empty() && text.starts_with("Usage: midge passwd "), "{text}");
    assert!(text.replace('\n', "").contains(&format!("[{ITERATIONS}]")), "{text}");
    for line in text.lines() {
        assert!(line.len() <= 80 && line.is_ascii() && line.trim_end() == line, "{line:?}");
    }
    let help = String::from_utf8(run(&["--help"], None).stdout).unwrap();
    assert!(help.contains("\n  passwd "), "{help}");
    let output = Command::new(env!("CARGO_BIN_EXE_midge")).args(["password", "f", "u"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let expected = "Error: There is no command 'password'; the nearest is passwd. See --help.\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
}
