//! The password file: `username:hash` lines as `mosquitto_passwd` of any version writes them, and those of plain text; and the
//! hashes that stand in new lines.
//!
//! A line that is broken drops its entry and is reported; the others stay. What is reported never holds a password or hash.
//!
//! Checking a password is meant to be slow, so it is a job of its own: [`Passwords::check`] copies what is needed into a
//! [`Check`], and [`Check::run`] may happen on another thread. A user that does not exist costs what one of the others costs, so that
//! the time does not tell which names there are.
//!
//! Memory: some 200 bytes and the name for each user, so 13 MiB and the names for [`USERS_MAX`]; and for the time of one check
//! with Argon2id as much as its entry says and [`Allowed`] lets it.

use std::hash::{DefaultHasher, Hash, Hasher};

use base64ct::{Base64, Encoding};
use ctutils::CtEq;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha512};

use super::{FILE_BYTES_MAX, Fault, Faults, lines, quoted, trim};

/// Users of one file. 65536: far more than the connections of any box this is for.
pub const USERS_MAX: usize = 1 << 16;

/// PBKDF2 iterations of one hash: five times what OWASP asks for today, and about a second of a PC's time.
/// More is most likely a mistake, and would keep all other logins waiting.
pub const ITERATIONS_MAX: u32 = 1_000_000;

/// PBKDF2 iterations of a new hash if nobody said otherwise. 1000: what `mosquitto_passwd` of 2.1 has, ten times what that of 2.0
/// has. That is less than a millisecond of a PC, and some 60 ms of an old ARM router by its clock, which has to check a house full
/// of devices after each restart; who has the time takes more.
pub const ITERATIONS: u32 = 1000;

/// KiB times passes of one Argon2id hash, about a second of a PC's time like [`ITERATIONS_MAX`].
pub const ARGON2_WORK_MAX: u64 = 1 << 20;

/// KiB of memory that checking one Argon2id hash may take, and that a new one takes. 19 MiB: the least that OWASP recommends, and
/// less than a third of a box of 64 MB for the time of one check. The 46 MiB of `mosquitto_passwd -H argon2id` are not what such
/// a box has to spare.
const ARGON2_KIB: u32 = 19 << 10;

/// Bytes of a `$6$` or `$7$` hash: all of SHA-512.
const HASH_BYTES: usize = 64;

/// What a password file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Passwords that are not hashed.
    pub plain_text: bool,
    /// KiB of memory that checking one Argon2id hash may take.
    pub argon2_kib_max: u32,
}

impl Default for Allowed {
    /// No plain text: who reads the file, or a backup of it, could log in.
    fn default() -> Allowed {
        Allowed { plain_text: false, argon2_kib_max: ARGON2_KIB }
    }
}

/// How a hash is made. A plain text is kept as its SHA-512 with an empty salt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// One round over password and salt.
    Sha512,
    /// PBKDF2-HMAC-SHA-512.
    Pbkdf2 { iterations: u32 },
    /// Version 0x13.
    #[cfg(feature = "argon2")]
    Argon2id { kib: u32, passes: u32, lanes: u32 },
}

impl Method {
    /// With the costs OWASP goes with that much memory.
    #[cfg(feature = "argon2")]
    pub const ARGON2ID: Method = Method::Argon2id { kib: ARGON2_KIB, passes: 2, lanes: 1 };

    /// Bytes of salt for a new hash: of `$6$` and `$7$` as many as Mosquitto 2.0 accepts, which is 12 and nothing else.
    pub fn salt_len(&self) -> usize {
        match self {
            Method::Sha512 | Method::Pbkdf2 { .. } => 12,
            #[cfg(feature = "argon2")]
            Method::Argon2id { .. } => 16,
        }
    }

    /// The hash of a password as it stands behind the name in a file; nothing if there is no memory for it. A salt of
    /// [`Method::salt_len`] bytes must be one that nobody can know and no other hash has.
    pub fn hash(&self, password: &[u8], salt: &[u8]) -> Option<String> {
        let hash = self.compute(password, salt, HASH_BYTES)?;
        Some(match *self {
            Method::Sha512 => format!("$6${}${}", Base64::encode_string(salt), Base64::encode_string(&hash)),
            Method::Pbkdf2 { iterations } => {
                format!("$7${iterations}${}${}", Base64::encode_string(salt), Base64::encode_string(&hash))
            }
            #[cfg(feature = "argon2")]
            Method::Argon2id { kib, passes, lanes } => {
                // Base64 without padding.
                let parts = [salt, &hash].map(Base64::encode_string);
                let [salt, hash] = parts.each_ref().map(|part| part.trim_end_matches('='));
                format!("$argon2id$v=19$m={kib},t={passes},p={lanes}${salt}${hash}")
            }
        })
    }

    /// Has `len` bytes if it can have another length than [`HASH_BYTES`]. Nothing if there is no memory for it.
    #[cfg_attr(not(feature = "argon2"), allow(unused_variables))]
    fn compute(&self, password: &[u8], salt: &[u8], len: usize) -> Option<Vec<u8>> {
        match *self {
            Method::Sha512 => Some(Sha512::new().chain_update(password).chain_update(salt).finalize().to_vec()),
            Method::Pbkdf2 { iterations } => {
                let mut hash = vec![0; HASH_BYTES];
                pbkdf2::pbkdf2_hmac::<Sha512>(password, salt, iterations, &mut hash);
                Some(hash)
            }
            #[cfg(feature = "argon2")]
            Method::Argon2id { kib, passes, lanes } => argon2id(password, salt, kib, passes, lanes, len),
        }
    }

    /// Different for each method with its costs.
    fn encoded(&self) -> [u8; 13] {
        let (form, costs) = match *self {
            Method::Sha512 => (b'6', [0, 0, 0]),
            Method::Pbkdf2 { iterations } => (b'7', [iterations, 0, 0]),
            #[cfg(feature = "argon2")]
            Method::Argon2id { kib, passes, lanes } => (b'a', [kib, passes, lanes]),
        };
        let mut out = [form; 13];
        for (bytes, cost) in out[1..].chunks_exact_mut(4).zip(costs) {
            bytes.copy_from_slice(&cost.to_be_bytes());
        }
        out
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    method: Method,
    salt: Box<[u8]>,
    hash: Box<[u8]>,
}

/// The users of a file.
#[derive(Default)]
pub struct Passwords {
    /// By name.
    users: Vec<(Box<str>, Entry)>,
}

/// What a login is recognised by: of name, password and the file's entry, under a secret.
pub type Tag = [u8; 16];

/// A password to be checked, on whatever thread.
pub struct Check {
    username: Box<str>,
    entry: Entry,
    password: Box<[u8]>,
    /// There is such a user, and a password.
    can_pass: bool,
}

impl Passwords {
    /// The check of what a client sent. An empty password is none, as it is to Mosquitto, and never right.
    pub fn check(&self, username: &str, password: &[u8]) -> Check {
        let place = self.users.binary_search_by(|(name, _)| (**name).cmp(username));
        let entry = self.users.get(place.unwrap_or_else(|_| self.stand_in(username))).map(|(_, entry)| entry);
        // As Mosquitto has it, a password ends at a NUL byte.
        let sent = password.split(|&byte| byte == 0).next().unwrap_or_default();
        Check {
            username: username.into(),
            entry: entry.cloned().unwrap_or_else(nobody),
            password: sent.into(),
            can_pass: place.is_ok() && !sent.is_empty(),
        }
    }

    /// The user whose entry is hashed for one that does not exist: always the same one for a name, and each for as many names as
    /// any other. Where users cost the same, so do all; where they do not, a cheap name may exist or not, and a dear one likewise.
    fn stand_in(&self, username: &str) -> usize {
        let mut hasher = DefaultHasher::new();
        username.hash(&mut hasher);
        (hasher.finish() % self.users.len().max(1) as u64) as usize
    }

    pub fn user_count(&self) -> usize {
        self.users.len()
    }

    /// Whether there is an entry for this name in both, and the same: a login that was right with the one is right with the
    /// other.
    pub fn agrees_with(&self, other: &Passwords, username: &str) -> bool {
        let entry = |of: &Passwords| of.users.binary_search_by(|(name, _)| (**name).cmp(username)).ok();
        let (Some(own), Some(others)) = (entry(self), entry(other)) else { return false };
        self.users[own].1 == other.users[others].1
    }

    /// Whether there is an entry for this name.
    pub fn has_user(&self, username: &str) -> bool {
        self.users.binary_search_by(|(name, _)| (**name).cmp(username)).is_ok()
    }
}

impl Check {
    /// Whether the password is right. Takes as long as [`Check::cost`] says, whatever the answer. False as well when there is
    /// no memory for Argon2id.
    pub fn run(&self) -> bool {
        let is_right = self.entry.is_made_of(&self.password);
        is_right && self.can_pass
    }

    /// The same for the same name, password and entry of the file, and for nothing else; of no use to who does not
    /// have the secret.
    pub fn tag(&self, secret: &[u8; 32]) -> Tag {
        let mut key = hmac::digest::Key::<Hmac<Sha512>>::default();
        key[..secret.len()].copy_from_slice(secret);
        let mut mac = Hmac::<Sha512>::new(&key);
        mac.update(&self.entry.method.encoded());
        mac.update(&[u8::from(self.can_pass)]);
        for part in [self.username.as_bytes(), &self.entry.salt, &self.entry.hash, &self.password] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut tag = Tag::default();
        for (byte, whole) in tag.iter_mut().zip(mac.finalize().into_bytes()) {
            *byte = whole;
        }
        tag
    }

    /// What running it takes, in iterations of PBKDF2-HMAC-SHA-512: about so many microseconds on a PC, and many times
    /// as many on a small router.
    pub fn cost(&self) -> u64 {
        let blocks = (self.password.len() + self.entry.salt.len()) as u64 / 128;
        blocks + self.entry.cost()
    }
}

impl Entry {
    fn is_made_of(&self, password: &[u8]) -> bool {
        let hash = self.method.compute(password, &self.salt, self.hash.len());
        hash.is_some_and(|hash| hash[..].ct_eq(&self.hash[..]).to_bool())
    }

    fn cost(&self) -> u64 {
        match self.method {
            Method::Sha512 => 1,
            Method::Pbkdf2 { iterations } => u64::from(iterations),
            #[cfg(feature = "argon2")]
            Method::Argon2id { kib, passes, .. } => u64::from(kib) * u64::from(passes),
        }
    }
}

/// Stands in where there are no users at all: what `mosquitto_passwd` makes.
fn nobody() -> Entry {
    Entry { method: Method::Pbkdf2 { iterations: 1000 }, salt: [0; 64].into(), hash: [0; HASH_BYTES].into() }
}

/// Nothing if there is no memory for it.
#[cfg(feature = "argon2")]
fn argon2id(password: &[u8], salt: &[u8], kib: u32, passes: u32, lanes: u32, len: usize) -> Option<Vec<u8>> {
    use argon2::{Algorithm, Argon2, Block, Params, Version};
    let params = Params::new(kib, passes, lanes, Some(len)).ok()?;
    let mut blocks: Vec<Block> = Vec::new();
    blocks.try_reserve_exact(params.block_count()).ok()?;
    blocks.resize_with(params.block_count(), Block::new);
    let mut hash = vec![0; len];
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password_into_with_memory(password, salt, &mut hash, &mut blocks[..]).ok()?;
    Some(hash)
}

/// The users of a file, and what is wrong with the lines that were left out.
pub fn parse(bytes: &[u8], allowed: &Allowed) -> (Passwords, Vec<Fault>) {
    let mut faults = Faults::default();
    if bytes.len() > FILE_BYTES_MAX {
        faults.push(1, format!("the file has {} bytes, and {FILE_BYTES_MAX} are the most", bytes.len()));
        return (Passwords::default(), faults.finish());
    }
    let mut found: Vec<(Box<str>, Entry, u32)> = Vec::new();
    for (number, line) in lines(bytes) {
        match read_line(line, allowed) {
            Ok(None) => {}
            Ok(Some(_)) if found.len() == USERS_MAX => {
                faults.push(
                    number,
                    format!("{USERS_MAX} users are the most, and this and all further ones are left out"),
                );
                break;
            }
            Ok(Some((name, entry))) => found.push((name.into(), entry, number)),
            Err(text) => faults.push(number, text),
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0).then(one.2.cmp(&other.2)));
    found.dedup_by(|later, first| {
        let is_same = later.0 == first.0;
        if is_same {
            let name = quoted(later.0.as_bytes());
            faults.push(later.2, format!("user {name} is in line {} already, and that line holds", first.2));
        }
        is_same
    });
    let users = found.into_iter().map(|(name, entry, _)| (name, entry)).collect();
    (Passwords { users }, faults.finish())
}

/// The name and the hash of a line that is no comment; nothing for one without any colon.
pub(super) fn parts(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = line.split(|&byte| byte == b':');
    Some((trim(parts.next()?), trim(parts.next()?)))
}

/// A user and the hash; nothing for a line without any colon. What is behind a second colon is of no meaning.
fn read_line<'a>(line: &'a [u8], allowed: &Allowed) -> Result<Option<(&'a str, Entry)>, String> {
    let Some((name, hash)) = parts(line) else { return Ok(None) };
    if line.contains(&0) {
        return Err("there is a NUL byte in it".to_string());
    }
    let name = match std::str::from_utf8(name) {
        Err(_) => return Err(format!("the name {} is not UTF-8", quoted(name))),
        Ok("") => return Err("before the first : a name is missing".to_string()),
        Ok(name) if name.len() > 65_535 => {
            return Err(format!("the name has {} bytes, and 65535 are the most", name.len()));
        }
        Ok(name) => name,
    };
    match read_hash(hash, allowed) {
        Ok(entry) => Ok(Some((name, entry))),
        Err(text) => Err(format!("user {}: {text}", quoted(name.as_bytes()))),
    }
}

fn read_hash(hash: &[u8], allowed: &Allowed) -> Result<Entry, String> {
    if hash.is_empty() {
        return Err("the password's hash is missing".to_string());
    }
    let Some(behind) = hash.strip_prefix(b"$") else {
        if !allowed.plain_text {
            return Err(
                "the password is plain text, which is read only with allow_plain_text_passwords true; midge passwd -U \
                        FILE hashes it"
                    .to_string(),
            );
        }
        return Ok(Entry { method: Method::Sha512, salt: Box::default(), hash: Sha512::digest(hash)[..].into() });
    };
    let parts: Vec<&str> = std::str::from_utf8(behind).unwrap_or_default().splitn(7, '$').collect();
    match parts[..] {
        ["6", salt, hash] => sha512_entry(Method::Sha512, salt, hash),
        ["7", iterations, salt, hash] => match number(iterations) {
            Some(iterations @ 1..=ITERATIONS_MAX) => sha512_entry(Method::Pbkdf2 { iterations }, salt, hash),
            _ => Err(format!("the iterations of a $7$ hash are a number from 1 to {ITERATIONS_MAX}")),
        },
        ["argon2id", version, costs, salt, hash] => argon2id_entry(version, costs, salt, hash, allowed),
        ["6" | "7" | "argon2id", ..] => Err("the hash is cut off or too long".to_string()),
        // Only what cannot be a password is shown.
        [method, _, ..] if method.len() <= 10 && method.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Err(format!("the method ${method}$ is unknown; known are $6$, $7$ and $argon2id$"))
        }
        _ => Err("what begins with $ must be a hash of the form $6$, $7$ or $argon2id$".to_string()),
    }
}

fn sha512_entry(method: Method, salt: &str, hash: &str) -> Result<Entry, String> {
    let (Ok(salt), Ok(hash)) = (Base64::decode_vec(salt), Base64::decode_vec(hash)) else {
        return Err("salt or hash is no valid base64".to_string());
    };
    match (salt.len(), hash.len()) {
        (12 | 64, HASH_BYTES) => Ok(Entry { method, salt: salt.into(), hash: hash.into() }),
        (12 | 64, other) => Err(format!("the hash has {other} bytes instead of {HASH_BYTES}")),
        (other, _) => Err(format!("the salt has {other} bytes instead of 12 or 64")),
    }
}

/// Decimal digits and nothing else.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(not(feature = "argon2"))]
fn argon2id_entry(_: &str, _: &str, _: &str, _: &str, _: &Allowed) -> Result<Entry, String> {
    Err(format!("this build reads no argon2id hashes; {AGAIN}"))
}

#[cfg(feature = "argon2")]
fn argon2id_entry(version: &str, costs: &str, salt: &str, hash: &str, allowed: &Allowed) -> Result<Entry, String> {
    if version != "v=19" {
        return Err("of argon2id only version 19 is known".to_string());
    }
    let Some([kib, passes, lanes]) = argon2id_costs(costs) else {
        return Err("the costs of an argon2id hash are of the form m=MEMORY,t=PASSES,p=LANES".to_string());
    };
    if kib > allowed.argon2_kib_max {
        let most = allowed.argon2_kib_max;
        return Err(format!("checking it takes {kib} KiB of memory, and {most} are the most; {AGAIN}"));
    }
    if u64::from(kib) * u64::from(passes) > ARGON2_WORK_MAX {
        return Err(format!("{passes} passes over {kib} KiB are more than {ARGON2_WORK_MAX} KiB; {AGAIN}"));
    }
    let (Ok(salt), Ok(hash)) = (base64ct::Base64Unpadded::decode_vec(salt), base64ct::Base64Unpadded::decode_vec(hash))
    else {
        return Err("salt or hash is no valid base64 without =".to_string());
    };
    if !(8..=128).contains(&salt.len()) || !(16..=128).contains(&hash.len()) {
        let (salt, hash) = (salt.len(), hash.len());
        return Err(format!("salt and hash have {salt} and {hash} bytes instead of 8 to 128 and 16 to 128"));
    }
    if argon2::Params::new(kib, passes, lanes, Some(hash.len())).is_err() {
        return Err("argon2id needs a pass, a lane and 8 KiB for each lane at least".to_string());
    }
    let method = Method::Argon2id { kib, passes, lanes };
    Ok(Entry { method, salt: salt.into(), hash: hash.into() })
}

/// What to do about a hash that is too expensive.
const AGAIN: &str = "midge passwd FILE USER hashes the password anew";

#[cfg(feature = "argon2")]
fn argon2id_costs(costs: &str) -> Option<[u32; 3]> {
    let (kib, rest) = costs.strip_prefix("m=")?.split_once(",t=")?;
    let (passes, lanes) = rest.split_once(",p=")?;
    Some([number(kib)?, number(passes)?, number(lanes)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &[u8] = b"correct horse";

    const SHA: &str = "sha:$6$AAECAwQFBgcICQoL$5W8GCQ9GLgmhmQvoa8jmRaPnsh82mRigdSv6mQsK0sMIII/WznlQb1g+RWddfoAKTMzBJP1deJU+Rp/1QZ0zZg==";
    const SHA64: &str = "sha64:$6$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$29QtyxbW0Qth2GH5GN0ihmagtB/755oiG+oG0UjEg6L9UK/JDvWsZp5ejiy5IkbcHEawwhh/SPu9ZHDfEL2J9A==";
    const PB: &str = "pb:$7$101$AAECAwQFBgcICQoL$lp0Cm29zl+CI/RXyXDKvLye7OxM3OuE6RMzgXTX/f3imS/pFh2Ur7yarLDpKRUKpB0tOj6l0UrRv41zqxmD4tg==";
    const PB64: &str = "pb64:$7$1000$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw==$53KiEygVzVVEVUVTe4h79yMtYp0OxxoKFip82vf7OCrEbcm4/E88oGkCyN0NhQ7fLOSBIpiITuELG/0ldDPFMQ==";
    const AR: &str = "ar:$argon2id$v=19$m=47104,t=1,p=1$AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw$aVo1St5PsxylF7NjjIPOOE5jxNbeUNweT/LEl8ONyxYqiqflWO7BotCdzcmTPqR4fg0oMZSzDQFY9PDfbH+biw";
    const ARS: &str =
        "ars:$argon2id$v=19$m=1024,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$d8zoKiSBt1frhvkqABkQyXAGkDjHU3o+xA0i1Qdj0Pg";
    const DAVE: &str = "dave:correct horse";

    const WITH_PLAIN_TEXT: Allowed = Allowed { plain_text: true, argon2_kib_max: ARGON2_KIB };

    fn is_right(passwords: &Passwords, username: &str, password: &[u8]) -> bool {
        passwords.check(username, password).run()
    }

    /// The users of a file without faults.
    fn whole(file: &str, allowed: &Allowed) -> Passwords {
        let (passwords, faults) = parse(file.as_bytes(), allowed);
        assert_eq!(faults, []);
        passwords
    }

    /// Why the line is left out, and that its neighbours are not.
    fn fault(line: &[u8], allowed: &Allowed) -> String {
        let file = [PB.as_bytes(), line, DAVE.as_bytes()].join(&b'\n');
        let (passwords, faults) = parse(&file, &Allowed { plain_text: true, ..*allowed });
        assert!(is_right(&passwords, "pb", PASSWORD) && is_right(&passwords, "dave", PASSWORD));
        assert_eq!(passwords.user_count(), 2);
        assert_eq!((faults.len(), faults[0].line), (1, 2), "{faults:?}");
        faults[0].text.clone()
    }

    fn opens_the_door(line: &str, allowed: &Allowed) {
        let name = line.split(':').next().unwrap();
        let passwords = whole(line, allowed);
        assert!(is_right(&passwords, name, PASSWORD));
        assert!(!is_right(&passwords, name, b"correct horsf"), "{name}: the last letter differs");
        assert!(!is_right(&passwords, name, b"correct hors") && !is_right(&passwords, name, b""));
        assert!(!is_right(&passwords, "other", PASSWORD));
    }

    // Forms.

    #[test]
    fn sha512_with_the_salt_of_old_tools() {
        opens_the_door(SHA, &Allowed::default());
    }

    #[test]
    fn sha512_with_the_salt_of_new_tools() {
        opens_the_door(SHA64, &Allowed::default());
    }

    #[test]
    fn pbkdf2_with_the_salt_and_101_iterations_of_old_tools() {
        opens_the_door(PB, &Allowed::default());
    }

    #[test]
    fn pbkdf2_with_the_salt_and_1000_iterations_of_new_tools() {
        opens_the_door(PB64, &Allowed::default());
    }

    #[test]
    #[cfg(feature = "argon2")]
    fn argon2id_with_small_parameters() {
        opens_the_door(ARS, &Allowed::default());
    }

    #[test]
    #[cfg(feature = "argon2")]
    fn argon2id_with_the_tools_parameters_where_that_much_memory_is_allowed() {
        let passwords = whole(AR, &Allowed { argon2_kib_max: 47_104, ..Allowed::default() });
        assert!(is_right(&passwords, "ar", PASSWORD));
    }

    #[test]
    #[cfg(feature = "argon2")]
    fn argon2id_that_takes_too_much_memory_is_refused_with_the_way_out() {
        let text = "user \"ar\": checking it takes 47104 KiB of memory, and 19456 are the most; \
                    midge passwd FILE USER hashes the password anew";
        assert_eq!(fault(AR.as_bytes(), &Allowed::default()), text);
        assert!(fault(ARS.as_bytes(), &Allowed { argon2_kib_max: 1023, ..Allowed::default() }).contains("1024 KiB"));
    }

    #[test]
    #[cfg(not(feature = "argon2"))]
    fn argon2id_is_refused_by_a_build_without_it() {
        for (line, name) in [(ARS, "ars"), (AR, "ar")] {
            let text = format!("user \"{name}\": this build reads no argon2id hashes; {AGAIN}");
            assert_eq!(fault(line.as_bytes(), &Allowed::default()), text);
        }
    }

    #[test]
    fn plain_text_keeps_its_inner_blank_where_it_is_allowed() {
        opens_the_door(DAVE, &WITH_PLAIN_TEXT);
        let (passwords, faults) = parse(DAVE.as_bytes(), &Allowed::default());
        assert_eq!(passwords.user_count(), 0);
        assert_eq!(
            faults[0].to_string(),
            "line 1: user \"dave\": the password is plain text, which is read only with allow_plain_text_passwords true; \
             midge passwd -U FILE hashes it"
        );
        assert!(!is_right(&passwords, "dave", PASSWORD));
    }

    #[test]
    fn what_is_hashed_here_is_what_the_tools_make() {
        let salt: Vec<u8> = (0..64).collect();
        for (name, method, salt, expected) in [
            ("sha", Method::Sha512, &salt[..12], SHA),
            ("sha64", Method::Sha512, &salt, SHA64),
            ("pb", Method::Pbkdf2 { iterations: 101 }, &salt[..12], PB),
            ("pb64", Method::Pbkdf2 { iterations: 1000 }, &salt, PB64),
            #[cfg(feature = "argon2")]
            ("ar", Method::Argon2id { kib: 47_104, passes: 1, lanes: 1 }, &salt, AR),
        ] {
            assert_eq!(format!("{name}:{}", method.hash(PASSWORD, salt).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_hashed_with_the_costs_of_new_entries_may_be_in_a_file() {
        for method in [
            Method::Sha512,
            Method::Pbkdf2 { iterations: ITERATIONS },
            #[cfg(feature = "argon2")]
            Method::ARGON2ID,
        ] {
            let salt = vec![7; method.salt_len()];
            opens_the_door(&format!("u:{}", method.hash(PASSWORD, &salt).unwrap()), &Allowed::default());
        }
    }

    /// Made by mosquitto_passwd 2.0.11: with -b, -b -H sha512, -b -H sha512-pbkdf2, and two of plain text by -U.
    const OF_MOSQUITTO: &str = "ann:$7$101$mP/84gyvtXETqHoY$8h7rFyJxvStF13jFOzBFaa4inwvRh+sxDM3ojlJSVaJ8OQEpTjKlbkYcC0/amaOUZaw4c/FRUaSL6zZJYpaKrg==\n\
        bob:$6$OY8gW4ZB1Teru0KG$Cq2fYYduNEEhpMEUXQCP87njTm/FjRqIO01pDF/2GuZ9eF+3TZzQKbk9Tg/56q0Zk1iy3IbxjHcj4XnDdjW5iQ==\n\
        cid smith:$7$101$an6fuUE3bVFt4Jjk$q/Fdf9BcpVBmP9qMkKDguSbqJpSXrITS8teF2BD44N8ycvfGEeD3NYwGHxI7sJhluSkhZX7k3/P7w3ZTyXXULw==\n\
        dan:$7$101$gQZr5vhRVoCMrmY7$2hrdpWuohwOKyGvbYgGjtILybJk9tebHcm5pb83gX5F4+w38h5VNFfA1IC+gG5eRCX7t3pemhUkCb5s4/df2Gw==\n\
        eve:$7$101$+4h5UfwvzXqWXd7F$mZzL993WGIMvieHuRoRHWj6nnSNfvi2Co+3dKEyoPIW321Au9YCvhky76TVSNtWPLPBlPhGyPh5/e6V7KZ+lFg==";

    #[test]
    fn files_made_by_mosquitto_passwd_let_their_users_in() {
        let passwords = whole(OF_MOSQUITTO, &Allowed::default());
        for (name, password) in [
            ("ann", "correct horse"),
            ("bob", "pass:word $x"),
            ("cid smith", "ünïcode"),
            ("dan", "plain one"),
            ("eve", "plain2"),
        ] {
            assert!(is_right(&passwords, name, password.as_bytes()), "{name}");
            assert!(!is_right(&passwords, name, b"other"), "{name}");
        }
    }

    // Lines.

    #[test]
    fn comments_lines_without_colon_and_carriage_returns_do_no_harm() {
        let file = format!("# users: all\n\nnonsense\n  {}  \r\n{SHA}", PB.replace(':', " : "));
        let passwords = whole(&file, &Allowed::default());
        assert!(is_right(&passwords, "pb", PASSWORD) && is_right(&passwords, "sha", PASSWORD));
        assert_eq!(passwords.user_count(), 2);
    }

    #[test]
    fn an_indented_number_sign_begins_a_name() {
        assert!(is_right(&whole(" #x:secret", &WITH_PLAIN_TEXT), "#x", b"secret"));
    }

    #[test]
    fn what_is_behind_a_second_colon_means_nothing() {
        assert!(is_right(&whole(&format!("{PB}:more:$"), &Allowed::default()), "pb", PASSWORD));
        assert!(is_right(&whole("dave:a:b", &WITH_PLAIN_TEXT), "dave", b"a"));
    }

    #[test]
    fn a_broken_line_drops_its_entry_alone_and_says_why_without_the_password() {
        let allowed = WITH_PLAIN_TEXT;
        let short = "AAECAwQFBgcICQo=";
        let good = "lp0Cm29zl+CI/RXyXDKvLye7OxM3OuE6RMzgXTX/f3imS/pFh2Ur7yarLDpKRUKpB0tOj6l0UrRv41zqxmD4tg==";
        for (line, expected) in [
            ("x:".to_string(), "user \"x\": the password's hash is missing"),
            ("x:  \r".to_string(), "user \"x\": the password's hash is missing"),
            (" :$6$a$b".to_string(), "before the first : a name is missing"),
            (format!("x:$5$AAAA${good}"), "user \"x\": the method $5$ is unknown; known are $6$, $7$ and $argon2id$"),
            (
                "x:$argon2i$v=19$m=8,t=1,p=1$a$b".to_string(),
                "user \"x\": the method $argon2i$ is unknown; known are $6$, $7$ and $argon2id$",
            ),
            (
                "x:$ecret".to_string(),
                "user \"x\": what begins with $ must be a hash of the form $6$, $7$ or $argon2id$",
            ),
            (
                "x:$my secret$".to_string(),
                "user \"x\": what begins with $ must be a hash of the form $6$, $7$ or $argon2id$",
            ),
            ("x:$6$AAECAwQFBgcICQoL".to_string(), "user \"x\": the hash is cut off or too long"),
            (format!("x:$6$AAECAwQFBgcICQoL${good}$"), "user \"x\": the hash is cut off or too long"),
            (format!("x:$6${short}${good}"), "user \"x\": the salt has 11 bytes instead of 12 or 64"),
            (format!("x:$7$101${short}${good}"), "user \"x\": the salt has 11 bytes instead of 12 or 64"),
            ("x:$6$AAECAwQFBgcICQoL$AAAA".to_string(), "user \"x\": the hash has 3 bytes instead of 64"),
            (format!("x:$6$AAECAwQFBgcICQo!${good}"), "user \"x\": salt or hash is no valid base64"),
            (
                format!("x:$6$AAECAwQFBgcICQoL${}", good.trim_end_matches('=')),
                "user \"x\": salt or hash is no valid base64",
            ),
            (
                format!("x:$7$0$AAECAwQFBgcICQoL${good}"),
                "user \"x\": the iterations of a $7$ hash are a number from 1 to 1000000",
            ),
            (
                format!("x:$7$1000001$AAECAwQFBgcICQoL${good}"),
                "user \"x\": the iterations of a $7$ hash are a number from 1 to 1000000",
            ),
            (
                format!("x:$7$+1$AAECAwQFBgcICQoL${good}"),
                "user \"x\": the iterations of a $7$ hash are a number from 1 to 1000000",
            ),
            (
                format!("x:$7$$AAECAwQFBgcICQoL${good}"),
                "user \"x\": the iterations of a $7$ hash are a number from 1 to 1000000",
            ),
            ("x:a\0b".to_string(), "there is a NUL byte in it"),
            (PB.replace("101", "102"), "user \"pb\" is in line 1 already, and that line holds"),
        ] {
            assert_eq!(fault(line.as_bytes(), &allowed), expected, "{line}");
        }
        assert_eq!(fault(b"\xFF:x", &allowed), "the name \"\u{FFFD}\" is not UTF-8");
        assert!(fault(&[&[b'n'; 65_536][..], b":x"].concat(), &allowed).starts_with("the name has 65536 bytes"));
    }

    #[test]
    #[cfg(feature = "argon2")]
    fn a_broken_argon2id_line_drops_its_entry_alone() {
        for (from, to, expected) in [
            ("v=19", "v=16", "of argon2id only version 19 is known"),
            ("m=1024,t=1", "t=1,m=1024", "the costs of an argon2id hash are of the form m=MEMORY,t=PASSES,p=LANES"),
            ("p=1", "p=x", "the costs of an argon2id hash are of the form m=MEMORY,t=PASSES,p=LANES"),
            ("m=1024", "m=7", "argon2id needs a pass, a lane and 8 KiB for each lane at least"),
            ("t=1", "t=0", "argon2id needs a pass, a lane and 8 KiB for each lane at least"),
            ("p=1", "p=129", "argon2id needs a pass, a lane and 8 KiB for each lane at least"),
            (
                "t=1",
                "t=1025",
                "1025 passes over 1024 KiB are more than 1048576 KiB; midge passwd FILE USER hashes the password anew",
            ),
            ("$AAECAwQFBgcICQoLDA0ODw", "$AAEC", "salt and hash have 3 and 32 bytes instead of 8 to 128 and 16 to 128"),
            ("0Pg", "0Pg=", "salt or hash is no valid base64 without ="),
        ] {
            let line = ARS.replacen(from, to, 1);
            assert_eq!(fault(line.as_bytes(), &Allowed::default()), format!("user \"ars\": {expected}"));
        }
    }

    #[test]
    fn of_two_lines_for_a_user_the_first_whole_one_holds() {
        let (passwords, faults) = parse(b"u:$6$broken\nu:one\nu:two\nv:x\nu:three", &WITH_PLAIN_TEXT);
        assert_eq!(faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 3, 5]);
        assert!(is_right(&passwords, "u", b"one") && !is_right(&passwords, "u", b"two"));
    }

    #[test]
    fn an_empty_file_lets_nobody_in() {
        let passwords = whole("", &Allowed::default());
        assert!(!is_right(&passwords, "u", b"") && !passwords.check("", b"x").run());
        assert_eq!(passwords.check("u", b"x").cost(), 1000);
    }

    // Checks.

    #[test]
    fn a_password_ends_at_a_nul_byte() {
        assert!(is_right(&whole(PB, &Allowed::default()), "pb", b"correct horse\0battery"));
    }

    #[test]
    fn an_empty_password_is_never_right_not_even_where_it_was_hashed() {
        let passwords =
            whole(&format!("u:{}", Method::Pbkdf2 { iterations: 1 }.hash(b"", &[0; 12]).unwrap()), &Allowed::default());
        assert!(!is_right(&passwords, "u", b"") && !is_right(&passwords, "u", b"\0x"));
    }

    #[test]
    fn unknown_users_cost_what_users_cost_and_never_pass() {
        let passwords = whole(&[SHA, PB, PB64, &PB64.replace("pb64", "other")].join("\n"), &Allowed::default());
        let cost = |name: &str, password: &[u8]| passwords.check(name, password).cost();
        assert_eq!([cost("sha", b"x"), cost("pb", b"x"), cost("pb64", b"x")], [1, 101, 1000]);
        assert_eq!((cost("pb64", b""), cost("nobody", b"x")), (1000, cost("nobody", b"")));
        // Of four users one costs 1, one 101, and two 1000; all have this password.
        let mut counts = [(1, 0), (101, 0), (1000, 0)];
        for name in (0..400).map(|number| format!("nobody-{number}")) {
            let check = passwords.check(&name, PASSWORD);
            counts.iter_mut().filter(|(cost, _)| *cost == check.cost()).for_each(|(_, count)| *count += 1);
            assert!(!check.run());
        }
        let expected = [75..125, 75..125, 150..250];
        assert!(counts.iter().zip(&expected).all(|((_, count), range)| range.contains(count)), "{counts:?}");
        assert!(passwords.has_user("pb") && !passwords.has_user("nobody"));
    }

    #[test]
    fn a_check_runs_on_another_thread_after_its_file_is_gone() {
        let check = whole(PB, &Allowed::default()).check("pb", PASSWORD);
        assert!(std::thread::spawn(move || check.run()).join().unwrap());
    }

    // Bounds.

    #[test]
    fn more_users_than_any_box_has_are_left_out() {
        let file: String = (0..USERS_MAX + 5).map(|number| format!("u{number}:p\n")).collect();
        let (passwords, faults) = parse(file.as_bytes(), &WITH_PLAIN_TEXT);
        assert_eq!((passwords.user_count(), faults.len(), faults[0].line), (USERS_MAX, 1, USERS_MAX as u32 + 1));
        let (passwords, faults) = parse(&vec![b'\n'; FILE_BYTES_MAX + 1], &Allowed::default());
        assert_eq!((passwords.user_count(), faults.len()), (0, 1));
    }
}
