//! Password and access control files on their way into the rules of the listeners: each is read once, however many listeners
//! name it. Here are what files say of users to be found and told; what it means is in `access`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::access::acl::{self, Acl};
use crate::access::passwords::{self, Allowed, Passwords};
use crate::access::{FILE_BYTES_MAX, Fault};
use crate::config::{ListenerConfig, Loaded};
use crate::options::Files;
use crate::os::DiskFiles;

/// What is to be told of the files, a line each.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Nothing of them can be used.
    pub refused: Vec<String>,
    /// Entries of password files that were left out.
    pub left_out: Vec<String>,
    pub warnings: Vec<String>,
}

impl Told {
    /// What is wrong.
    pub fn faults(self) -> Vec<String> {
        [self.refused, self.left_out].concat()
    }
}

/// Reads the files the listeners name, and puts what they say into their rules.
pub fn load(listeners: &mut [ListenerConfig]) -> Told {
    let mut told = Told::default();
    let (mut users, mut rights) = ([BTreeMap::new(), BTreeMap::new()], BTreeMap::new());
    for listener in listeners {
        let plain_text = listener.allow_plain_text_passwords;
        let passwords = listener.password_file.as_deref();
        // Who allows plain text and who does not have other users, even in the same file.
        let users = &mut users[usize::from(plain_text)];
        listener.rules.passwords = once(passwords, users, |path| read_passwords(path, plain_text, &mut told));
        listener.rules.acl = once(listener.acl_file.as_deref(), &mut rights, |path| read_acl(path, &mut told));
    }
    told
}

/// The files that cannot be read any more, once privileges were given up.
pub fn unreadable(listeners: &[ListenerConfig]) -> BTreeSet<&Path> {
    let paths = listeners.iter().flat_map(|listener| listener.password_file.iter().chain(&listener.acl_file));
    paths.map(PathBuf::as_path).filter(|path| DiskFiles.read(path, FILE_BYTES_MAX).is_err()).collect()
}

/// What is at a path, read the first time it is asked for.
fn once<T>(
    path: Option<&Path>,
    known: &mut BTreeMap<PathBuf, Option<Loaded<T>>>,
    read: impl FnOnce(&Path) -> Option<T>,
) -> Option<Loaded<T>> {
    let path = path?;
    if let Some(loaded) = known.get(path) {
        return loaded.clone();
    }
    let loaded = read(path).map(|content| Loaded::new(path, content));
    known.insert(path.into(), loaded.clone());
    loaded
}

fn read_passwords(path: &Path, plain_text: bool, told: &mut Told) -> Option<Passwords> {
    let content = read(path, "password_file", told)?;
    if DiskFiles.is_world_readable(path) {
        let shown = path.display();
        once_told(
            &mut told.warnings,
            format!(
                "Every user of this machine can read {shown}, which holds passwords or their hashes; chmod o-r {shown} changes \
                 that."
            ),
        );
    }
    let (passwords, faults) = passwords::parse(&content, &Allowed { plain_text, ..Allowed::default() });
    faults.iter().for_each(|fault| once_told(&mut told.left_out, sentence(path, fault)));
    Some(passwords)
}

fn read_acl(path: &Path, told: &mut Told) -> Option<Acl> {
    let content = read(path, "acl_file", told)?;
    match acl::parse(&content) {
        Ok((acl, warnings)) => {
            told.warnings.extend(warnings.iter().map(|warning| sentence(path, warning)));
            Some(acl)
        }
        Err(faults) => {
            told.refused.extend(faults.iter().map(|fault| sentence(path, fault)));
            None
        }
    }
}

fn read(path: &Path, option: &str, told: &mut Told) -> Option<Vec<u8>> {
    let content = DiskFiles.read(path, FILE_BYTES_MAX);
    let text = |error| format!("{option} {} cannot be read: {error}.", path.display());
    content.map_err(|error| once_told(&mut told.refused, text(error))).ok()
}

/// A file that is read in two ways is wrong in the same way.
fn once_told(told: &mut Vec<String>, text: String) {
    if !told.contains(&text) {
        told.push(text);
    }
}

/// `FILE:LINE: sentence`
fn sentence(path: &Path, fault: &Fault) -> String {
    format!("{}:{}: {}.", path.display(), fault.line, fault.text)
}
