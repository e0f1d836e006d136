//! Client ids that are taken over again and again, because two devices were given the same one: each comes back as soon as the
//! other has driven it out. They are named with both addresses, in the log and in the list of clients. The table is small: it
//! costs nothing while nobody takes over anything, and a flood of made-up quarrels drives out no more than older ones.

use super::Broker;
use super::close::excerpt;
use super::link::Peer;
use crate::time::Millis;

/// Client ids that are remembered. More at once is a flood, and the log has its own limits for that.
const RIVALS_MAX: usize = 32;
/// A take-over later than this after the one before has nothing to do with it: a device tries again within a minute.
const GAP_MAX: Millis = Millis::from_secs(60);
/// From so many take-overs in a row on it is no accident: a device that moves to another network takes over once.
const QUARREL: u32 = 3;
/// For so long after the last take-over the other address is shown.
const SHOWN: Millis = Millis::from_secs(600);

#[derive(Default)]
pub struct Rivals(Vec<Rival>);

struct Rival {
    /// The hash of the client id.
    client: u64,
    began: Millis,
    last: Millis,
    take_overs: u32,
    /// Of those, the ones from another address.
    from_elsewhere: u32,
    /// Another address that uses the id, and the one that has it.
    other: Peer,
    present: Peer,
}

impl Rivals {
    /// Whoever had the id lost it to whoever is there now.
    fn note(&mut self, client: u64, from: Peer, by: Peer, now: Millis) -> &Rival {
        let known = self.0.iter().position(|rival| rival.client == client);
        let at = known.unwrap_or_else(|| self.make_room());
        let is_elsewhere = from.number() != by.number();
        let fresh = Rival { client, began: now, last: now, take_overs: 0, from_elsewhere: 0, other: from, present: by };
        match self.0.get_mut(at) {
            None => self.0.push(fresh),
            Some(rival) if known.is_none() || now - rival.last > GAP_MAX => *rival = fresh,
            Some(_) => {}
        }
        let rival = &mut self.0[at];
        rival.last = now;
        rival.take_overs = rival.take_overs.saturating_add(1);
        rival.from_elsewhere = rival.from_elsewhere.saturating_add(is_elsewhere as u32);
        if is_elsewhere || rival.from_elsewhere == 0 {
            (rival.other, rival.present) = (from, by);
        }
        rival
    }

    /// The place of the one that was quiet for longest, or one at the end.
    fn make_room(&self) -> usize {
        let oldest = || self.0.iter().enumerate().min_by_key(|(_, rival)| rival.last).map_or(0, |(at, _)| at);
        if self.0.len() < RIVALS_MAX { self.0.len() } else { oldest() }
    }

    fn find(&self, client: u64) -> Option<&Rival> {
        self.0.iter().find(|rival| rival.client == client)
    }

    pub fn shrink(&mut self) {
        self.0.shrink_to_fit();
    }
}

impl Rival {
    /// It is said when it becomes clear, and again each time there are twice as many.
    fn is_to_be_told(&self) -> bool {
        self.take_overs.is_multiple_of(QUARREL) && (self.take_overs / QUARREL).is_power_of_two()
    }

    fn is_quarrel(&self) -> bool {
        self.from_elsewhere >= QUARREL
    }
}

impl Broker {
    /// A client took over the session of one that was connected under the same id.
    pub(super) fn note_take_over(&mut self, client_id: &str, from: Peer, by: Peer, now: Millis) {
        let client = self.clients.seed.hash_client(client_id.as_bytes());
        let rival = self.rivals.note(client, from, by, now);
        if !rival.is_to_be_told() {
            return;
        }
        // Behind a longer one there would be no room for the rest of the line.
        let shown = excerpt(client_id);
        let (count, seconds) = (rival.take_overs, (rival.last - rival.began).0.div_ceil(1000));
        if rival.is_quarrel() {
            let (one, other) = (rival.other.ip(), rival.present.ip());
            log::warn!(
                client = client_id;
                "Warning: client id '{shown}' is used by two devices in turn: {one} and {other} ({count} take-overs in \
                 {seconds} s). Give each its own id."
            );
        } else {
            // From one address it may as well be one device that loses its connection and does not notice.
            log::warn!(
                client = client_id;
                "Warning: client '{shown}' connected anew {count} times in {seconds} s from {} while it was connected: \
                 either two programs there use this id, or its connection breaks.",
                rival.present.ip()
            );
        }
    }

    /// The other address that uses this client id, if two of them do.
    pub(super) fn rival_of(&self, client_id: &str, present: Peer, now: Millis) -> Option<Peer> {
        if self.rivals.0.is_empty() {
            return None;
        }
        let rival = self.rivals.find(self.clients.seed.hash_client(client_id.as_bytes()))?;
        let is_shown = rival.is_quarrel() && now - rival.last <= SHOWN;
        let other = if rival.other.number() == present.number() { rival.present } else { rival.other };
        is_shown.then_some(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: u8, port: u16) -> Peer {
        Peer::V4([192, 0, 2, host].into(), port)
    }

    #[test]
    fn the_table_is_bounded_and_keeps_the_latest() {
        let mut rivals = Rivals::default();
        for client in 0..1000 {
            rivals.note(client, at(1, 1), at(2, 1), Millis(client));
        }
        assert_eq!(rivals.0.len(), RIVALS_MAX);
        assert!(rivals.find(999).is_some() && rivals.find(968).is_some() && rivals.find(967).is_none());
    }

    #[test]
    fn a_quarrel_begins_anew_after_a_while() {
        let mut rivals = Rivals::default();
        for second in [0, 60, 120] {
            rivals.note(7, at(1, 1), at(2, 1), Millis::from_secs(second));
        }
        assert!(rivals.find(7).is_some_and(|rival| rival.is_quarrel() && rival.is_to_be_told()));
        rivals.note(7, at(1, 1), at(2, 1), Millis::from_secs(181));
        assert_eq!(rivals.find(7).map(|rival| rival.take_overs), Some(1));
    }

    #[test]
    fn it_is_told_ever_more_seldom() {
        let mut rivals = Rivals::default();
        let told = (1..100).filter(|_| rivals.note(7, at(1, 1), at(2, 1), Millis(0)).is_to_be_told()).count();
        assert_eq!(told, 6);
    }
}
