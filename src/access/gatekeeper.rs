//! What is remembered between logins: which were right, so that a thousand devices that come back after a restart of their
//! access point are not a thousand slow checks; and which addresses failed, so that guessing gets slower.
//!
//! A right login is remembered as an HMAC under a secret of this run, over name, password and the entry of the file: the table
//! holds no password, cannot be tried offline without the secret, and forgets an entry that changed by itself. Both tables are
//! bounded, and both hold only what may be lost: without an entry a check is run again, or a guesser begins anew.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};

use super::passwords::{Check, Tag};
use crate::time::Millis;

/// Right logins remembered: 64 KiB of tags. More devices than most brokers have; the oldest gives way.
pub const LOGINS_MAX: usize = 4096;

/// Addresses remembered for failed logins, some 40 KiB; the one whose wait ends first gives way.
pub const ADDRESSES_MAX: usize = 1024;

/// Failed logins of an address that cost nothing: a mistyped password, or a device with an old one beside its neighbours.
pub const FREE_FAILURES: u32 = 5;

/// The wait after the first failure that is not free; each further one doubles it.
const WAIT_FIRST: Millis = Millis(1000);

/// The longest wait. A minute: 1,440 guesses a day, and a device that was put right is back soon.
const WAIT_MAX: Millis = Millis(60_000);

/// After so long without a failure an address is forgotten.
const FORGET_AFTER: Millis = Millis(15 * 60_000);

/// Right logins of this run.
pub struct Logins {
    secret: [u8; 32],
    /// Oldest first.
    tags: VecDeque<Tag>,
}

impl Logins {
    /// The secret is 32 bytes of the system's randomness, new for each run.
    pub fn new(secret: [u8; 32]) -> Logins {
        Logins { secret, tags: VecDeque::new() }
    }

    /// Whether this login was right before, with the same entry of the file.
    pub fn knows(&self, check: &Check) -> bool {
        let tag = check.tag(&self.secret);
        self.tags.contains(&tag)
    }

    /// What to hand to [`Logins::remember`] when the check, which goes elsewhere to run, was right.
    pub fn tag(&self, check: &Check) -> Tag {
        check.tag(&self.secret)
    }

    /// A check that was run and was right.
    pub fn remember(&mut self, tag: Tag) {
        if self.tags.contains(&tag) {
            return;
        }
        if self.tags.len() == LOGINS_MAX {
            self.tags.pop_front();
        }
        self.tags.push_back(tag);
    }

    pub fn len(&self) -> usize {
        self.tags.len()
    }

    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }
}

/// Addresses with failed logins.
#[derive(Default)]
pub struct Failures {
    seen: Vec<Address>,
}

struct Address {
    address: IpAddr,
    failures: u32,
    /// No login is tried before.
    until: Millis,
    last: Millis,
}

impl Failures {
    /// How long this address has to wait until its next login is looked at; nothing if it need not.
    pub fn wait(&self, address: IpAddr, now: Millis) -> Option<Millis> {
        let address = network(address);
        let seen = self.seen.iter().find(|seen| seen.address == address)?;
        (seen.until > now).then_some(seen.until - now)
    }

    /// A login from this address was wrong. Not to be called for one that had to wait: that would let a device which
    /// tries each second never in again.
    pub fn failed(&mut self, address: IpAddr, now: Millis) {
        let address = network(address);
        let place = match self.seen.iter().position(|seen| seen.address == address) {
            Some(place) => place,
            None => self.place(address, now),
        };
        let seen = &mut self.seen[place];
        if seen.last + FORGET_AFTER <= now {
            seen.failures = 0;
        }
        seen.failures = seen.failures.saturating_add(1);
        seen.last = now;
        if let Some(doublings) = seen.failures.checked_sub(FREE_FAILURES + 1) {
            seen.until = now + Millis(WAIT_FIRST.0 << doublings.min(16)).min(WAIT_MAX);
        }
    }

    /// A login from this address was right. All is forgotten: behind one address there may be a house full of devices, and
    /// one of them with an old password.
    pub fn passed(&mut self, address: IpAddr) {
        let address = network(address);
        if let Some(place) = self.seen.iter().position(|seen| seen.address == address) {
            self.seen.swap_remove(place);
        }
    }

    pub fn len(&self) -> usize {
        self.seen.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// A place for a new address.
    fn place(&mut self, address: IpAddr, now: Millis) -> usize {
        let new = Address { address, failures: 0, until: Millis(0), last: now };
        if self.seen.len() < ADDRESSES_MAX {
            self.seen.push(new);
            return self.seen.len() - 1;
        }
        let ends_first = |seen: &(usize, &Address)| (seen.1.until, seen.1.last);
        let place = self.seen.iter().enumerate().min_by_key(ends_first).map_or(0, |(place, _)| place);
        self.seen[place] = new;
        place
    }
}

/// Who has an IPv6 address has a /64 of them; an IPv4 address in IPv6 clothes is itself.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::super::passwords::{Allowed, Method, parse};
    use super::*;

    fn hash_pbkdf2(password: &[u8], salt: &[u8], iterations: u32) -> String {
        Method::Pbkdf2 { iterations }.hash(password, salt).unwrap()
    }

    fn check(hash: &str, username: &str, password: &[u8]) -> Check {
        let (passwords, faults) = parse(format!("u:{hash}\nv:{hash}").as_bytes(), &Allowed::default());
        assert_eq!(faults, []);
        passwords.check(username, password)
    }

    #[test]
    fn a_right_login_is_known_until_anything_of_it_changes() {
        let mut logins = Logins::new([7; 32]);
        let hash = hash_pbkdf2(b"secret", &[1; 12], 2);
        let right = check(&hash, "u", b"secret");
        assert!(right.run() && !logins.knows(&right));
        logins.remember(logins.tag(&right));
        logins.remember(logins.tag(&right));
        assert!(logins.knows(&right) && logins.len() == 1);
        assert!(logins.knows(&check(&hash, "u", b"secret")), "the file was read again and says the same");
        assert!(!logins.knows(&check(&hash, "u", b"secre")));
        assert!(!logins.knows(&check(&hash, "v", b"secret")), "another user with the same hash");
        assert!(!logins.knows(&check(&hash_pbkdf2(b"secret", &[2; 12], 2), "u", b"secret")), "another salt");
        assert!(!logins.knows(&check(&hash_pbkdf2(b"secret", &[1; 12], 3), "u", b"secret")), "more iterations");
        let other = Logins { secret: [8; 32], tags: logins.tags.clone() };
        assert!(!other.knows(&right), "another run");
    }

    #[test]
    fn a_user_that_is_gone_is_not_known_though_the_entry_that_stands_in_is_the_same() {
        let mut logins = Logins::new([7; 32]);
        let hash = hash_pbkdf2(b"secret", &[1; 12], 2);
        let gone = check(&hash, "gone", b"secret");
        let tag = logins.tag(&gone);
        logins.remember(tag);
        assert!(!gone.run());
        let there = parse(format!("gone:{hash}").as_bytes(), &Allowed::default()).0.check("gone", b"secret");
        assert!(there.run() && !logins.knows(&there));
    }

    #[test]
    fn of_too_many_logins_the_oldest_gives_way() {
        let mut logins = Logins::new([7; 32]);
        let hash = hash_pbkdf2(b"secret", &[1; 12], 1);
        let (passwords, _) = parse(format!("u:{hash}").as_bytes(), &Allowed::default());
        let one = |number: usize| passwords.check("u", format!("{number}").as_bytes());
        for number in 0..LOGINS_MAX + 1 {
            let tag = logins.tag(&one(number));
            logins.remember(tag);
        }
        assert_eq!(logins.len(), LOGINS_MAX);
        assert!(!logins.knows(&one(0)) && logins.knows(&one(1)) && logins.knows(&one(LOGINS_MAX)));
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn some_failures_are_free_and_then_each_doubles_the_wait_up_to_a_minute() {
        let (mut failures, guesser) = (Failures::default(), address("192.0.2.7"));
        let mut now = Millis(5);
        for _ in 0..FREE_FAILURES {
            failures.failed(guesser, now);
            assert_eq!(failures.wait(guesser, now), None);
        }
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            failures.failed(guesser, now);
            assert_eq!(failures.wait(guesser, now), Some(Millis::from_secs(seconds)));
            assert_eq!(failures.wait(address("192.0.2.8"), now), None);
            now = now + Millis::from_secs(seconds);
            assert_eq!(failures.wait(guesser, now), None);
        }
        for _ in 0..100 {
            failures.failed(guesser, now);
        }
        assert_eq!(failures.wait(guesser, now), Some(Millis(60_000)));
    }

    #[test]
    fn a_right_login_and_a_quarter_of_an_hour_make_good() {
        let (mut failures, one) = (Failures::default(), address("192.0.2.7"));
        for _ in 0..10 {
            failures.failed(one, Millis(0));
        }
        failures.passed(one);
        assert!(failures.wait(one, Millis(0)).is_none() && failures.is_empty());
        for _ in 0..10 {
            failures.failed(one, Millis(0));
        }
        failures.failed(one, Millis(15 * 60_000));
        assert_eq!(failures.wait(one, Millis(15 * 60_000)), None);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_ipv4_in_it_is_ipv4() {
        let mut failures = Failures::default();
        for number in 0..10 {
            failures.failed(address(&format!("2001:db8:1:2::{number}")), Millis(0));
            failures.failed(address("::ffff:192.0.2.7"), Millis(0));
        }
        assert_eq!(failures.len(), 2);
        assert!(failures.wait(address("2001:db8:1:2:ffff::1"), Millis(0)).is_some());
        assert!(failures.wait(address("2001:db8:1:3::1"), Millis(0)).is_none());
        assert!(failures.wait(address("192.0.2.7"), Millis(0)).is_some());
        assert!(failures.wait(address("192.0.2.8"), Millis(0)).is_none());
    }

    #[test]
    fn many_addresses_do_not_push_out_the_one_that_waits() {
        let (mut failures, guesser) = (Failures::default(), address("192.0.2.7"));
        for _ in 0..20 {
            failures.failed(guesser, Millis(0));
        }
        for number in 0..10_000_u32 {
            failures.failed(IpAddr::V4((0x0A00_0000 + number).into()), Millis(1));
        }
        assert_eq!(failures.len(), ADDRESSES_MAX);
        assert!(failures.wait(guesser, Millis(1)).is_some());
    }
}
