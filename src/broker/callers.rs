//! Who may not even be let in: connections beyond `global_max_connections`, or beyond what one address may have
//! (`max_connections_per_address`) or open in a minute (`max_connect_rate`). Who has an IPv6 address has a /64 of them, and that
//! counts as one. Processes that come through a Unix socket have no address: who may open that is for its mode to say.
//!
//! Connections of an address are counted by looking at all there are: that takes no memory, and cannot be wrong. How often an
//! address came is remembered of `ADDRESSES_MAX`.

use std::net::IpAddr;

use super::Broker;
use super::link::Peer;
use super::login;
use crate::access::gatekeeper::network;
use crate::time::Millis;

/// Addresses remembered, some 32 KiB. With more that come at a time the one gives way whose bucket is the fullest: least is
/// given away with it.
const ADDRESSES_MAX: usize = 1024;

const MINUTE_US: u64 = 60_000_000;

/// Why a connection is not let in, as the log says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// In Mosquitto's words, who has one for all limits.
    pub what: &'static str,
    pub option: &'static str,
    pub max: u32,
}

impl Denial {
    /// A listener has as many connections as it may have.
    pub fn of_listener(max: u32) -> Denial {
        Denial { what: "max_connections", option: "max_connections", max }
    }
}

/// A bucket for each address, which holds the connections of a minute and fills again at their rate.
#[derive(Default)]
pub struct Callers {
    seen: Vec<Caller>,
    /// When the last one came, microseconds.
    last: u64,
}

struct Caller {
    address: IpAddr,
    /// Microseconds: until then the limit would have taken for all that were let in. Past: the bucket is full. A minute ahead: it
    /// is empty.
    until: u64,
}

impl Callers {
    /// Lets one more connection in, if `per_minute` allows it.
    fn let_in(&mut self, address: IpAddr, per_minute: u32, now: Millis) -> bool {
        let (address, now, cost) = (network(address), now.0 * 1000, MINUTE_US / u64::from(per_minute));
        self.last = now;
        let place = match self.seen.iter().position(|seen| seen.address == address) {
            Some(place) => place,
            None => self.place(address, now),
        };
        let until = &mut self.seen[place].until;
        let then = (*until).max(now) + cost;
        let is_let_in = then <= now + MINUTE_US;
        if is_let_in {
            *until = then;
        }
        is_let_in
    }

    /// A place for a new address: that of one whose bucket is full, if there is none left.
    fn place(&mut self, address: IpAddr, now: u64) -> usize {
        if self.seen.len() == ADDRESSES_MAX {
            self.seen.retain(|seen| seen.until > now);
        }
        let new = Caller { address, until: 0 };
        if self.seen.len() < ADDRESSES_MAX {
            self.seen.push(new);
            return self.seen.len() - 1;
        }
        let first = self.seen.iter().enumerate().min_by_key(|(_, seen)| seen.until).map_or(0, |(place, _)| place);
        self.seen[first] = new;
        first
    }

    /// Gives back the room of those whose buckets were full when the last one came.
    pub fn shrink(&mut self) {
        self.seen.retain(|seen| seen.until > self.last);
        self.seen.shrink_to_fit();
    }
}

impl Broker {
    /// Why a connection from `peer` may not be let in; nothing if it may, and then it counts.
    pub fn denial(&mut self, peer: Peer, now: Millis) -> Option<Denial> {
        let config = &self.clients.config;
        let (max, of_address, per_minute) =
            (config.global_max_connections, config.max_connections_per_address, config.max_connect_rate);
        if max != 0 && self.link_count() >= max as usize {
            return Some(Denial { what: "max_connections", option: "global_max_connections", max });
        }
        let address = login::address(peer)?;
        if of_address != 0 && self.has_connections(address, of_address) {
            let option = "max_connections_per_address";
            return Some(Denial { what: option, option, max: of_address });
        }
        if per_minute != 0 && !self.callers.let_in(address, per_minute, now) {
            let option = "max_connect_rate";
            return Some(Denial { what: option, option, max: per_minute });
        }
        None
    }

    /// Whether an address has so many connections.
    fn has_connections(&self, address: IpAddr, count: u32) -> bool {
        let address = network(address);
        let is_own = |peer: Peer| login::address(peer).is_some_and(|it| network(it) == address);
        let own = self.clients.links.iter().filter(|(_, link)| is_own(link.peer));
        own.take(count as usize).count() == count as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Seconds of those of `tries` that are let in.
    fn let_in(callers: &mut Callers, address: &str, per_minute: u32, tries: impl Iterator<Item = u64>) -> Vec<u64> {
        tries.filter(|&at| callers.let_in(ip(address), per_minute, Millis::from_secs(at))).collect()
    }

    #[test]
    fn a_minute_of_connections_at_once_and_then_one_by_one() {
        let mut callers = Callers::default();
        assert_eq!(let_in(&mut callers, "192.0.2.1", 4, std::iter::repeat_n(0, 9)), [0; 4]);
        // Those that are turned away do not count.
        assert_eq!(let_in(&mut callers, "192.0.2.1", 4, 1..=60), [15, 30, 45, 60]);
        assert_eq!(let_in(&mut callers, "192.0.2.1", 4, std::iter::repeat_n(10_000, 9)), [10_000; 4]);
        assert_eq!(let_in(&mut callers, "192.0.2.2", 1, 0..=60), [0, 60]);
    }

    #[test]
    fn a_network_of_ipv6_is_one_address_and_ipv4_in_ipv6_is_itself() {
        let mut callers = Callers::default();
        let mut once = |address: &str| callers.let_in(ip(address), 1, Millis(1));
        assert!(once("2001:db8::1") && !once("2001:db8::ffff:1") && once("2001:db8:0:1::1"));
        assert!(once("192.0.2.1") && !once("::ffff:192.0.2.1") && once("192.0.2.2"));
    }

    #[test]
    fn no_more_addresses_are_remembered_than_there_is_room_for() {
        let mut callers = Callers::default();
        let address = |number: u32| IpAddr::from(number.to_be_bytes());
        for number in 0..5000 {
            assert!(callers.let_in(address(number), 1, Millis(number.into())));
            assert!(callers.seen.len() <= ADDRESSES_MAX);
        }
        // The last ones are remembered, the first ones were forgotten.
        assert!(!callers.let_in(address(4999), 1, Millis(5000)) && callers.let_in(address(0), 1, Millis(5000)));
        callers.shrink();
        assert_eq!(callers.seen.len(), ADDRESSES_MAX);
        assert!(callers.let_in(address(1), 1, Millis(70_000)));
        callers.shrink();
        assert_eq!((callers.seen.len(), callers.seen.capacity()), (1, 1));
    }
}
