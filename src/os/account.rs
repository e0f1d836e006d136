//! Users and groups by name or number, as a file's owner is given.

use std::ffi::{CString, c_char};
use std::io;
use std::mem;
use std::ptr;

use super::find_user;

/// Room for one line of the user or group database. A group of thousands is beyond it, and then cannot be named.
const LINE_BYTES: usize = 16 << 10;

/// Who a file is to belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub user: u32,
    /// Nothing: the file's group stays what it is.
    pub group: Option<u32>,
}

impl Owner {
    /// What `USER` or `USER:GROUP` says, each a name or a number.
    ///
    /// # Errors
    /// When this machine knows no such user or group: the text says which.
    pub fn parse(text: &str) -> io::Result<Owner> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let unknown = |what: &str, name: &str| {
            io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} '{name}' on this machine"))
        };
        Ok(Owner {
            user: number(user).or_else(|| user_id(user)).ok_or_else(|| unknown("user", user))?,
            group: group
                .map(|name| number(name).or_else(|| group_id(name)).ok_or_else(|| unknown("group", name)))
                .transpose()?,
        })
    }
}

/// The largest number of 32 bits stands for nobody at all.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|id| *id != u32::MAX)
}

fn user_id(name: &str) -> Option<u32> {
    find_user(name).ok().flatten().map(|user| user.uid)
}

fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut line = vec![0 as c_char; LINE_BYTES];
    let mut found = ptr::null_mut();
    // SAFETY: as above, with group.
    unsafe {
        let mut entry: libc::group = mem::zeroed();
        libc::getgrnam_r(name.as_ptr(), &mut entry, line.as_mut_ptr(), line.len(), &mut found);
        (!found.is_null()).then_some(entry.gr_gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(Owner::parse("root").unwrap(), Owner { user: 0, group: None });
        assert_eq!(Owner::parse("root:root").unwrap(), Owner { user: 0, group: Some(0) });
        assert_eq!(Owner::parse("1000:7").unwrap(), Owner { user: 1000, group: Some(7) });
        for (text, expected) in [
            ("nobody-here", "there is no user 'nobody-here' on this machine"),
            ("root:none-such", "there is no group 'none-such' on this machine"),
            ("root:", "there is no group '' on this machine"),
            ("4294967295", "there is no user '4294967295' on this machine"),
        ] {
            assert_eq!(Owner::parse(text).unwrap_err().to_string(), expected);
        }
    }
}
