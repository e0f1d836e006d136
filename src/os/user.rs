//! Who the process runs as: started as root it gives that up, for good, once its ports are open and before it touches a file of
//! its own.

use std::env;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use super::elsewhere::ask_elsewhere;

/// Whom privileges go to when nobody was named, in turn.
const OWN: [&str; 2] = ["midge", "mosquitto"];
/// Whom they go to when there is no such user either.
const LAST: &str = "nobody";
/// An entry of the user database takes no more.
const ENTRY_LEN_MAX: usize = 1 << 20;
/// As many as Linux lets a process be in.
const GROUPS_MAX: usize = 1 << 16;

/// A user by number, with the name under which the system knows it, if it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: Option<CString>,
    pub uid: libc::uid_t,
    pub gid: libc::gid_t,
    /// All groups it is in, `gid` among them.
    pub groups: Vec<libc::gid_t>,
}

/// What is to become of the process's privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privileges {
    /// It has none to give up.
    NotRoot,
    /// It was told to keep them.
    Stay,
    Become(User),
}

/// Why privileges cannot be given up as asked.
#[derive(Debug)]
pub enum UserError {
    /// The named user does not exist.
    Missing(String),
    /// The user database cannot be read.
    Lookup(String, io::Error),
    /// The variable is no number of a user or group.
    Number(&'static str, String),
    /// The system call does not work.
    Drop(&'static str, io::Error),
    /// They can be taken back.
    StillRoot,
}

impl UserError {
    /// Whether somebody asked for what cannot be, instead of the system failing.
    pub fn is_usage(&self) -> bool {
        matches!(self, UserError::Missing(_) | UserError::Number(..))
    }
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UserError::Missing(name) => write!(f, "user: there is no user {name:?} on this system."),
            UserError::Lookup(name, error) => write!(f, "user: looking up user {name:?} failed: {error}."),
            UserError::Number(variable, value) => {
                write!(f, "{variable}: {value:?} is not the number of a user or group.")
            }
            UserError::Drop(call, error) => write!(f, "user: privileges cannot be dropped: {call}: {error}."),
            UserError::StillRoot => f.write_str("user: privileges were dropped, but can be taken back."),
        }
    }
}

/// Decides what becomes of the privileges, and says what has to be said about it. `name` is the option `user`; the environment's
/// PUID and PGID, both numbers, take its place.
///
/// # Errors
/// When the user named does not exist, or a number is none.
pub fn choose_privileges(name: Option<&str>) -> Result<(Privileges, Option<String>), UserError> {
    // SAFETY: no preconditions; it cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Ok((Privileges::NotRoot, None));
    }
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    choose(name, variable("PUID").as_deref(), variable("PGID").as_deref(), look_up)
}

fn choose(
    name: Option<&str>,
    puid: Option<&str>,
    pgid: Option<&str>,
    find: impl Fn(&str) -> Result<Option<User>, UserError>,
) -> Result<(Privileges, Option<String>), UserError> {
    if puid.is_some() || pgid.is_some() {
        let uid = puid.map(|value| number("PUID", value)).transpose()?;
        let gid = pgid.map(|value| number("PGID", value)).transpose()?;
        return Ok(numbered(uid, gid));
    }
    if name == Some("root") {
        let warning =
            "The broker keeps running as root, as 'user root' says: whoever finds a fault in it has the machine.";
        return Ok((Privileges::Stay, Some(warning.to_string())));
    }
    let wanted: &[&str] = match &name {
        Some(name) => std::slice::from_ref(name),
        None => &OWN,
    };
    for name in wanted {
        if let Some(user) = find(name)? {
            return Ok((Privileges::Become(user), None));
        }
    }
    // Packages that were not told otherwise expect one of these, and an installation may have neither.
    if let Some(name) = name.filter(|name| !OWN.contains(name)) {
        return Err(UserError::Missing(name.to_string()));
    }
    let user = find(LAST)?.ok_or_else(|| UserError::Missing(LAST.to_string()))?;
    let warning = format!("There is no user '{}': running as '{LAST}' instead.", wanted.join("' or '"));
    Ok((Privileges::Become(user), Some(warning)))
}

/// The user of the variables, as containers have it. A group that is not said has the user's number: root's would be none to
/// stay in.
fn numbered(uid: Option<u32>, gid: Option<u32>) -> (Privileges, Option<String>) {
    let uid = uid.unwrap_or(0);
    let gid = gid.unwrap_or(uid);
    let warning = (uid == 0).then(|| "The broker keeps running as root, as PUID and PGID say.".to_string());
    match (uid, gid) {
        (0, 0) => (Privileges::Stay, warning),
        _ => (Privileges::Become(User { name: None, uid, gid, groups: vec![gid] }), warning),
    }
}

/// All bits set means "no change" to the system.
fn number(variable: &'static str, value: &str) -> Result<u32, UserError> {
    value
        .trim()
        .parse()
        .ok()
        .filter(|&number| number != u32::MAX)
        .ok_or_else(|| UserError::Number(variable, value.to_string()))
}

/// Looks a user up with its groups, in a process of its own where that saves something: glibc loads libraries to look into the
/// databases that `nsswitch.conf` names, up to that of a network's users, and never unloads them.
fn look_up(name: &str) -> Result<Option<User>, UserError> {
    if cfg!(target_env = "gnu")
        && let Ok(said) = ask_elsewhere(|| encode(&find_with_groups(name)))
    {
        return decode(name, &said);
    }
    find_with_groups(name)
}

#[inline(never)]
fn find_with_groups(name: &str) -> Result<Option<User>, UserError> {
    Ok(find_user(name)?.map(with_groups))
}

/// A user found is its own number, its group's and those of its groups; an error its number alone; nobody nothing.
fn encode(found: &Result<Option<User>, UserError>) -> Vec<u8> {
    let numbers = match found {
        Ok(Some(user)) => [&[user.uid, user.gid], &user.groups[..]].concat(),
        Ok(None) => Vec::new(),
        Err(UserError::Lookup(_, error)) => vec![error.raw_os_error().unwrap_or(libc::EIO).unsigned_abs()],
        Err(_) => vec![libc::EIO.unsigned_abs()],
    };
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

fn decode(name: &str, said: &[u8]) -> Result<Option<User>, UserError> {
    let numbers: Vec<u32> = said.as_chunks().0.iter().map(|&bytes| u32::from_ne_bytes(bytes)).collect();
    match numbers[..] {
        [] => Ok(None),
        [error] => Err(UserError::Lookup(name.to_string(), io::Error::from_raw_os_error(error as i32))),
        [uid, gid, ref groups @ ..] => {
            Ok(Some(User { name: CString::new(name).ok(), uid, gid, groups: groups.to_vec() }))
        }
    }
}

/// The user with the groups it is in besides its own.
fn with_groups(user: User) -> User {
    let Some(name) = &user.name else { return user };
    let mut groups = vec![user.gid; 32];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the name ends with a zero, and there is room for as many groups as said.
        let result =
            unsafe { libc::getgrouplist(name.as_ptr(), user.gid as _, groups.as_mut_ptr().cast(), &mut count) };
        let (count, room) = (usize::try_from(count).unwrap_or(0), groups.len());
        if result >= 0 || room >= GROUPS_MAX {
            groups.truncate(count.max(1));
            return User { groups, ..user };
        }
        // It says how many there are, but not everywhere.
        groups.resize(count.max(2 * room).min(GROUPS_MAX), user.gid);
    }
}

/// Looks a user up in the system's database; of its groups only its own.
///
/// # Errors
/// When that cannot be read. A user who is not in it is none.
pub fn find_user(name: &str) -> Result<Option<User>, UserError> {
    let failed = |error| UserError::Lookup(name.to_string(), error);
    let Ok(c_name) = CString::new(name) else { return Ok(None) };
    let mut text: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let (mut entry, mut found) = (MaybeUninit::<libc::passwd>::uninit(), ptr::null_mut());
        // SAFETY: the name ends with a zero; entry, text and found are ours for the call, and text is as long as said.
        let error =
            unsafe { libc::getpwnam_r(c_name.as_ptr(), entry.as_mut_ptr(), text.as_mut_ptr(), text.len(), &mut found) };
        match error {
            0 if found.is_null() => return Ok(None),
            0 => {
                // SAFETY: `found` points to `entry`, which was filled in, and whose strings are in `text`.
                let (name, uid, gid) = unsafe { (CStr::from_ptr((*found).pw_name), (*found).pw_uid, (*found).pw_gid) };
                return Ok(Some(User { name: Some(name.to_owned()), uid, gid, groups: vec![gid] }));
            }
            libc::EINTR => {}
            libc::ERANGE if text.len() < ENTRY_LEN_MAX => text.resize(text.len() * 2, 0),
            // Some systems say so instead of finding nobody.
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(failed(io::Error::from_raw_os_error(error))),
        }
    }
}

/// Becomes `user`, with all of its groups and nothing else, for good. To be called while there is one thread.
///
/// # Errors
/// When any part of it fails: the process is not to go on then.
pub fn become_user(user: &User) -> Result<(), UserError> {
    let failed = |call| UserError::Drop(call, io::Error::last_os_error());
    // Groups first: they need the privileges that go last.
    // SAFETY: as many groups as said, which outlive the call.
    let groups = unsafe { libc::setgroups(user.groups.len() as _, user.groups.as_ptr()) };
    if groups != 0 {
        return Err(failed("setgroups"));
    }
    // SAFETY: numbers only.
    if unsafe { libc::setgid(user.gid) } != 0 {
        return Err(failed("setgid"));
    }
    // SAFETY: numbers only.
    if unsafe { libc::setuid(user.uid) } != 0 {
        return Err(failed("setuid"));
    }
    // SAFETY: numbers only; to succeed is what must not happen.
    let is_root_again = user.uid != 0 && unsafe { libc::setuid(0) == 0 || libc::geteuid() == 0 };
    // SAFETY: numbers only; as above. Root can always change its group.
    let has_group_again = user.uid != 0 && user.gid != 0 && unsafe { libc::setgid(0) == 0 };
    if is_root_again || has_group_again {
        return Err(UserError::StillRoot);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32) -> User {
        User { name: Some(CString::new(name).unwrap()), uid, gid: uid + 1, groups: vec![uid + 1, uid + 2] }
    }

    /// The outcome on a system with these users.
    fn chosen(users: &[&str], name: Option<&str>, puid: Option<&str>, pgid: Option<&str>) -> Result<String, String> {
        let find = |name: &str| Ok(users.iter().position(|known| *known == name).map(|at| user(name, at as u32 + 10)));
        let (privileges, warning) = choose(name, puid, pgid, find).map_err(|error| error.to_string())?;
        let who = match privileges {
            Privileges::Become(User { name: Some(name), .. }) => name.into_string().unwrap(),
            Privileges::Become(User { uid, gid, .. }) => format!("{uid}:{gid}"),
            other => format!("{other:?}"),
        };
        Ok(format!("{who}{}", warning.map_or(String::new(), |text| format!(" ! {text}"))))
    }

    #[test]
    fn the_user_is_chosen_as_mosquitto_does() {
        let all = ["nobody", "mosquitto", "midge", "iot"];
        let ok = |text: &str| Ok(text.to_string());
        assert_eq!(chosen(&all, None, None, None), ok("midge"));
        assert_eq!(chosen(&all[..2], None, None, None), ok("mosquitto"));
        assert_eq!(
            chosen(&all[..1], None, None, None),
            ok("nobody ! There is no user 'midge' or 'mosquitto': running as 'nobody' instead.")
        );
        assert_eq!(chosen(&all, Some("mosquitto"), None, None), ok("mosquitto"));
        assert_eq!(
            chosen(&all[..1], Some("mosquitto"), None, None),
            ok("nobody ! There is no user 'mosquitto': running as 'nobody' instead.")
        );
        assert_eq!(chosen(&all, Some("iot"), None, None), ok("iot"));
        let missing = Err("user: there is no user \"iot\" on this system.".to_string());
        assert_eq!(chosen(&all[..1], Some("iot"), None, None), missing);
        assert!(chosen(&[], None, None, None).is_err());
        assert!(chosen(&all, Some("root"), None, None).unwrap().starts_with("Stay ! The broker keeps running as root"));
    }

    #[test]
    fn the_environments_numbers_take_the_users_place() {
        let ok = |text: &str| Ok(text.to_string());
        assert_eq!(chosen(&[], Some("iot"), Some("1000"), Some("100")), ok("1000:100"));
        assert_eq!(chosen(&[], None, Some("1000"), None), ok("1000:1000"));
        let as_root = "The broker keeps running as root, as PUID and PGID say.";
        assert_eq!(chosen(&[], None, None, Some("100")), Ok(format!("0:100 ! {as_root}")));
        assert_eq!(chosen(&[], None, Some("0"), None), Ok(format!("Stay ! {as_root}")));
        for (puid, pgid, variable) in
            [("x", "1", "PUID"), ("1", "-1", "PGID"), ("4294967295", "1", "PUID"), ("4294967296", "1", "PUID")]
        {
            let error = chosen(&[], None, Some(puid), Some(pgid)).unwrap_err();
            assert!(error.starts_with(variable), "{error}");
        }
    }

    #[test]
    fn users_are_found_by_name() {
        let root = find_user("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.name.unwrap().to_str()), (0, 0, Ok("root")));
        assert_eq!(find_user("no such user").unwrap(), None);
        assert_eq!(find_user("ro\0ot").unwrap(), None);
    }

    #[test]
    fn what_is_found_elsewhere_is_what_is_found_here() {
        let all = [Ok(Some(user("iot", 1000))), Ok(None)];
        for found in all {
            assert_eq!(decode("iot", &encode(&found)).unwrap(), found.unwrap());
        }
        let error = UserError::Lookup("iot".to_string(), io::Error::from_raw_os_error(libc::EMFILE));
        let text = error.to_string();
        assert_eq!(decode("iot", &encode(&Err(error))).unwrap_err().to_string(), text);
    }

    #[test]
    fn a_user_has_its_own_group_first() {
        let root = with_groups(find_user("root").unwrap().unwrap());
        assert_eq!((root.uid, root.groups[0]), (0, 0));
    }

    /// In a process of its own, where there is something to give up.
    #[test]
    fn privileges_that_are_given_up_do_not_come_back() {
        // SAFETY: no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            return;
        }
        let user = find_user("nobody").unwrap().unwrap();
        for user in [User { name: None, ..user.clone() }, user] {
            // SAFETY: the new process changes nothing but itself, and ends at once.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let has_become = become_user(&user).is_ok();
                // SAFETY: asking has no preconditions, and the process ends.
                unsafe {
                    let is_right = libc::getuid() == user.uid && libc::getgid() == user.gid && libc::setuid(0) != 0;
                    libc::_exit(if has_become && is_right { 0 } else { 1 })
                }
            }
            let mut status = 0;
            // SAFETY: the kernel writes one number, which is ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }

    #[test]
    fn whoever_is_not_root_keeps_what_it_has() {
        // SAFETY: no preconditions.
        if unsafe { libc::geteuid() } != 0 {
            assert_eq!(choose_privileges(Some("no such user")).unwrap(), (Privileges::NotRoot, None));
        }
    }
}
