//! `midge passwd`: users of a password file, with the flags of `mosquitto_passwd`. Here is what the command line, standard input and
//! the disk have to do with it; what becomes of the file's text is in `access::edit`, and hashes are made in `access::passwords`.

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::Path;

use getopts::Matches;

use super::{Command, Flag, Refusal, help, nearest, parse, print};
use crate::access::edit::{STRING_MAX, check_username, hash_plain_text, put, remove};
use crate::access::passwords::{self, Allowed, ITERATIONS, ITERATIONS_MAX, Method};
use crate::access::{FILE_BYTES_MAX, Fault};
use crate::os::{HeldFile, random, read_secret};

pub const COMMAND: Command = Command {
    name: "passwd",
    purpose: "Add, change and remove users of a password file.",
    words: &[],
    are_flags_first: true,
    flags: &[
        Flag {
            short: Some('c'),
            long: "create",
            placeholder: "",
            help: "Make FILE, which must not be there yet. Without this it must be.",
        },
        Flag {
            short: Some('b'),
            long: "batch",
            placeholder: "",
            help: "Take PASSWORD from the command line, where every user of this machine can see it meanwhile.",
        },
        Flag { short: Some('D'), long: "delete", placeholder: "", help: "Remove USER." },
        Flag {
            short: Some('U'),
            long: "upgrade",
            placeholder: "",
            help: "Hash all passwords of FILE that are plain text. What is hashed already stays.",
        },
        Flag {
            short: Some('H'),
            long: "hash",
            placeholder: "HASH",
            help: "How to hash: sha512-pbkdf2, sha512 (for Mosquitto 1.6 and older), or argon2id, which takes 19 MiB of memory for \
                   each login. [sha512-pbkdf2]",
        },
        Flag {
            short: Some('I'),
            long: "iterations",
            placeholder: "N",
            help: "How often sha512-pbkdf2 hashes; more makes guessing slower, and logins, too. [1000]",
        },
        Flag { short: Some('h'), long: "help", placeholder: "", help: "Print this help and end." },
    ],
    run,
};

const HEAD: &str = "\
Usage: midge passwd [-H HASH] [-I N] [-c] FILE USER
       midge passwd [-H HASH] [-I N] [-c] -b FILE USER PASSWORD
       midge passwd -D FILE USER
       midge passwd [-H HASH] [-I N] -U FILE

Adds USER to a password file, or changes the password, in Mosquitto's format.
The password is asked for twice, or is a line of standard input if that is no
terminal. With - for FILE the entry is printed instead. Options come first.

";

const FOOT: &str = "
FILE is replaced as a whole. A broker that runs reads it when it gets SIGHUP.
";

/// How hashes are called on the command line.
const HASHES: [&str; 3] = ["sha512-pbkdf2", "sha512", "argon2id"];

fn run(arguments: &[String]) -> Result<(), Refusal> {
    let matches = parse(&COMMAND, arguments)?;
    if matches.opt_present("help") {
        print(&help(&COMMAND, HEAD, FOOT));
        return Ok(());
    }
    let asked = |name: &str| matches.opt_present(name);
    let (is_new, is_batch, is_delete, is_upgrade) =
        (asked("create"), asked("batch"), asked("delete"), asked("upgrade"));
    let given: Vec<&str> = ["create", "batch", "delete", "upgrade"].into_iter().filter(|name| asked(name)).collect();
    if let [first, .., last] = given[..]
        && (is_delete || is_upgrade)
    {
        return Err(wrong(&format!("--{first} and --{last} do not go together.")));
    }
    if is_delete && (asked("hash") || asked("iterations")) {
        return Err(wrong("--delete hashes nothing: --hash and --iterations are not for it."));
    }
    let method = method(&matches)?;
    match &matches.free[..] {
        [file] if is_upgrade => upgrade(file, method),
        [file, user] if is_delete => delete(file, user),
        [file, user, password] if is_batch => set(file, user, Some(password), is_new, method),
        [file, user] if !is_batch && !is_upgrade => set(file, user, None, is_new, method),
        [_, _, _] if !is_delete && !is_upgrade => {
            Err(wrong("A password on the command line needs --batch in front of FILE: others can see it there."))
        }
        free => {
            let wanted = match (is_upgrade, is_batch) {
                (true, _) => "FILE",
                (_, true) => "FILE, USER and PASSWORD",
                _ => "FILE and USER",
            };
            let (found, plural) = (free.len(), if free.len() == 1 { "" } else { "s" });
            Err(wrong(&format!("Expected {wanted} behind the options, found {found} argument{plural}.")))
        }
    }
}

fn wrong(text: &str) -> Refusal {
    Refusal::usage(format!("{text} See midge passwd --help."))
}

fn method(matches: &Matches) -> Result<Method, Refusal> {
    let iterations = matches.opt_str("iterations");
    let hash = matches.opt_str("hash");
    match (hash.as_deref().unwrap_or(HASHES[0]), &iterations) {
        ("sha512-pbkdf2", None) => Ok(Method::Pbkdf2 { iterations: ITERATIONS }),
        ("sha512-pbkdf2", Some(text)) => match text.parse() {
            Ok(iterations @ 1..=ITERATIONS_MAX) if !text.starts_with('+') => Ok(Method::Pbkdf2 { iterations }),
            _ => Err(wrong(&format!(
                "Invalid value '{text}' for --iterations: expected a number from 1 to {ITERATIONS_MAX}."
            ))),
        },
        ("sha512", None) => Ok(Method::Sha512),
        #[cfg(feature = "argon2")]
        ("argon2id", None) => Ok(Method::ARGON2ID),
        #[cfg(not(feature = "argon2"))]
        ("argon2id", None) => {
            Err(wrong("This build makes and reads no argon2id hashes; sha512-pbkdf2 is what it has."))
        }
        (hash @ ("sha512" | "argon2id"), Some(_)) => {
            Err(wrong(&format!("--iterations is about sha512-pbkdf2, and --hash says {hash}.")))
        }
        (other, _) => {
            let nearest = nearest(other, &mut HASHES.into_iter());
            Err(wrong(&format!("Unknown hash '{other}'; the nearest is {nearest}.")))
        }
    }
}

/// Adds the user, or changes the password; asks for it if there is none.
fn set(file: &str, user: &str, password: Option<&str>, is_new: bool, method: Method) -> Result<(), Refusal> {
    check_username(user).map_err(Refusal::usage)?;
    let path = Path::new(file);
    if file != "-" {
        // So that nobody is asked for a password in vain.
        match (is_new, path.symlink_metadata(), path.metadata()) {
            (true, Ok(_), _) => return Err(there_already(file)),
            (false, _, Err(error)) => return Err(cannot_be_changed(file, &error)),
            _ => {}
        }
    }
    let password = match password {
        Some(password) => password.as_bytes().to_vec(),
        None => ask()?,
    };
    check_password(&password)?;
    let hash = hashed(&password, method)?;
    if file == "-" {
        let line = format!("{user}:{hash}\n");
        let written = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
        return written.map_err(|error| Refusal::failure(format!("The entry cannot be printed: {error}.")));
    }
    let (held, content) = open(file, is_new)?;
    let (content, is_added) = put(&content, user, &hash);
    let (users, _) = passwords::parse(&content, &Allowed { plain_text: true, ..Allowed::default() });
    let replaced = match users.has_user(user) {
        true => held.replace(&content).map_err(|error| cannot_be_written(file, &error)),
        false => Err(full(file)),
    };
    if replaced.is_err() && is_new {
        // Empty, as it was made: it is still held, so nobody put anything in.
        let _ = fs::remove_file(path);
    }
    replaced?;
    print(&format!("{} password for user {user}\n", if is_added { "Adding" } else { "Updating" }));
    Ok(())
}

fn delete(file: &str, user: &str) -> Result<(), Refusal> {
    let (held, content) = open(file, false)?;
    let content = remove(&content, user)
        .ok_or_else(|| Refusal::failure(format!("{file} has no user \"{}\".", user.escape_debug())))?;
    held.replace(&content).map_err(|error| cannot_be_written(file, &error))
}

/// Hashes what is plain text.
fn upgrade(file: &str, method: Method) -> Result<(), Refusal> {
    let (held, content) = open(file, false)?;
    let (content, count) = hash_plain_text(&content, |password| hashed(password, method))?;
    let (_, faults) = passwords::parse(&content, &Allowed::default());
    if content.len() > FILE_BYTES_MAX {
        return Err(full(file));
    }
    if count > 0 {
        held.replace(&content).map_err(|error| cannot_be_written(file, &error))?;
    }
    for Fault { line, text } in faults {
        let _ = writeln!(io::stderr(), "Warning: {file}:{line}: {text}. The line stays as it is.");
    }
    print(&match count {
        0 => format!("{file} has no passwords in plain text.\n"),
        1 => format!("Hashed 1 password of {file}.\n"),
        _ => format!("Hashed {count} passwords of {file}.\n"),
    });
    Ok(())
}

/// The file, and what is in it; a new one if that is asked for, and else one that is there.
fn open(file: &str, is_new: bool) -> Result<(HeldFile, Vec<u8>), Refusal> {
    let opened = if is_new { HeldFile::create(Path::new(file)) } else { HeldFile::open(Path::new(file)) };
    let held = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => there_already(file),
        _ if is_new => Refusal::failure(format!("{file} cannot be made: {error}.")),
        _ => cannot_be_changed(file, &error),
    })?;
    let content = held.read(FILE_BYTES_MAX).map_err(|error| cannot_be_changed(file, &error))?;
    Ok((held, content))
}

fn full(file: &str) -> Refusal {
    let users = passwords::USERS_MAX;
    Refusal::failure(format!("{file} would be too large: {users} users and {FILE_BYTES_MAX} bytes are the most."))
}

fn there_already(file: &str) -> Refusal {
    Refusal::failure(format!(
        "{file} is there already: without --create the user is added to it; to begin anew, remove it first."
    ))
}

fn cannot_be_changed(file: &str, error: &io::Error) -> Refusal {
    Refusal::failure(match error.kind() {
        io::ErrorKind::NotFound => format!("There is no {file}: --create makes it."),
        _ => format!("{file} cannot be changed: {error}."),
    })
}

fn cannot_be_written(file: &str, error: &io::Error) -> Refusal {
    let why = match error.kind() {
        io::ErrorKind::ResourceBusy => {
            "it is mounted by itself, as in a container; mount its directory instead".to_string()
        }
        _ => error.to_string(),
    };
    Refusal::failure(format!("{file} cannot be written, and is what it was: {why}."))
}

/// From whoever sits at the terminal, or from standard input.
fn ask() -> Result<Vec<u8>, Refusal> {
    let input = io::stdin();
    let read = |prompt| match read_secret(input.as_fd(), prompt, STRING_MAX) {
        Ok(Some(password)) => Ok(password),
        Ok(None) => Err(Refusal::failure("There is no password: nothing was changed.")),
        Err(error) => Err(Refusal::failure(format!("The password cannot be read: {error}."))),
    };
    let password = read("Password: ")?;
    if input.is_terminal() && read("Reenter password: ")? != password {
        return Err(Refusal::failure("The passwords differ: nothing was changed."));
    }
    Ok(password)
}

/// Whether it can be sent and is what the broker compares.
fn check_password(password: &[u8]) -> Result<(), Refusal> {
    let len = password.len();
    match password {
        [] => Err(Refusal::usage("The password is empty: the broker lets nobody in with that.")),
        _ if len > STRING_MAX => {
            Err(Refusal::usage(format!("The password has {len} bytes, and {STRING_MAX} are the most.")))
        }
        _ if password.contains(&0) => {
            Err(Refusal::usage("The password has a NUL byte in it, where the broker would take it to end."))
        }
        _ => Ok(()),
    }
}

fn hashed(password: &[u8], method: Method) -> Result<String, Refusal> {
    let mut salt = vec![0; method.salt_len()];
    random(&mut salt).map_err(|error| Refusal::failure(format!("The system gives no random bytes: {error}.")))?;
    method.hash(password, &salt).ok_or_else(|| Refusal::failure("There is not enough memory to hash the password."))
}
