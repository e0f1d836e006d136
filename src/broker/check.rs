//! The invariants of the core, swept after each simulated step.

use std::collections::{HashMap, HashSet};

use super::link::{Paused, State};
use super::{Broker, NONE};
use crate::codec::QoS;
use crate::wheel::TimerId;

impl Broker {
    /// Panics, naming what is wrong, if the state contradicts itself. For tests: it looks at everything.
    pub fn check_invariants(&self) {
        self.check_links();
        self.check_waiting();
        self.check_sessions();
        self.check_subscriptions();
        self.check_sys();
        self.check_store();
    }

    fn check_links(&self) {
        let clients = &self.clients;
        let dirty: HashSet<u32> = clients.dirty.iter().copied().collect();
        assert_eq!(dirty.len(), clients.dirty.len(), "a link is listed as dirty twice");
        let closing: HashSet<u32> = clients.closing.iter().copied().collect();
        assert_eq!(closing.len(), clients.closing.len(), "a link is listed as closing twice");
        let resumed: HashSet<u32> = self.resumed.iter().copied().collect();
        assert_eq!(resumed.len(), self.resumed.len(), "a link is to be resumed twice");
        assert!(resumed.iter().all(|&id| clients.links.contains(id as usize)), "a freed link is to be resumed");
        let awaiting: HashSet<u32> = self.login.links().collect();
        assert_eq!(awaiting.len(), self.login.links().count(), "a link waits for two logins");
        for (id, link) in &clients.links {
            let id = id as u32;
            assert_eq!(link.paused == Paused::ForLogin, awaiting.contains(&id), "link {id}: waits for no login");
            let is_timed = link.rate().is_some_and(|bucket| bucket.timer != TimerId::NONE);
            assert_eq!(link.paused == Paused::ForRate, is_timed, "link {id}: waits without end, or for nothing");
            assert_eq!(link.is_resumed, resumed.contains(&id), "link {id}: resumed mark and list differ");
            assert_eq!(link.is_dirty, dirty.contains(&id), "link {id}: dirty mark and list differ");
            assert_eq!(link.output.is_empty(), link.unwritten_packets == 0, "link {id}: unwritten packets");
            match link.state {
                State::AwaitingConnect => assert!(link.session == NONE && link.timer != TimerId::NONE),
                State::Connected => {
                    assert_eq!(clients.sessions[link.session as usize].link, id, "link {id}: session has another link");
                    assert_eq!(link.keep_alive_s != 0, link.timer != TimerId::NONE, "link {id}: keep-alive timer");
                }
                State::Closing => {
                    assert!(link.session == NONE && link.timer == TimerId::NONE && link.rare().is_none());
                    assert!(link.input.is_empty() && !link.is_paused());
                }
            }
        }
    }

    /// Every paused link stands in exactly one list, the one it names.
    fn check_waiting(&self) {
        let links = &self.clients.links;
        let mut listed = HashSet::new();
        for (slow, link) in links {
            let mut waiter = link.first_waiter();
            if waiter != NONE {
                let stall_timer = link.awaited().map(|awaited| awaited.stall_timer);
                assert!(stall_timer != Some(TimerId::NONE), "link {slow}: others wait without end");
                assert!(!link.is_stalled, "link {slow}: others wait for a stalled link");
            }
            while waiter != NONE {
                let it = &links[waiter as usize];
                assert_eq!(it.paused, Paused::ForSubscriber);
                assert_eq!(it.rare().map(|rare| rare.waits_for), Some(slow as u32));
                assert!(listed.insert(waiter), "link {waiter} waits twice");
                waiter = it.next_waiter();
            }
        }
        for (id, link) in links {
            if link.paused == Paused::ForSubscriber {
                assert!(listed.contains(&(id as u32)), "link {id} waits, but is in no list");
            } else {
                assert!(link.rare().is_none_or(|rare| rare.waits_for == NONE && rare.next_waiter == NONE));
            }
        }
    }

    fn check_sessions(&self) {
        for (id, session) in &self.clients.sessions {
            assert_eq!(
                self.clients.find_session(&session.client_id),
                Some(id as u32),
                "a session is not found by its id"
            );
            assert_eq!(session.has_acl, session.rules.as_ref().is_some_and(|rules| rules.acl.is_some()));
            if session.is_connected() {
                assert_eq!(self.clients.links[session.link as usize].session, id as u32);
            } else {
                assert!(session.expiry_s > 0, "{}: a session without link should have ended", session.client_id);
            }
            assert!(session.received.as_slice().is_sorted_by(|one, other| one < other));
            let Some(delivery) = session.delivery.as_deref() else { continue };
            assert!(delivery.sent <= delivery.inflight.len());
            assert!(session.is_connected() || delivery.sent == 0);
            let bytes: u64 = delivery.queue.iter().map(|queued| queued.message.content_len() as u64).sum();
            let qos0 = delivery.queue.iter().filter(|queued| queued.qos == QoS::AtMostOnce).count();
            assert_eq!((delivery.queue_bytes, delivery.queue_qos0), (bytes, qos0), "{}: queue sums", session.client_id);
            let inflight = delivery.inflight.iter().filter_map(|entry| entry.message.as_ref());
            let inflight: u64 = inflight.map(|message| message.content_len() as u64).sum();
            assert_eq!(delivery.inflight_bytes, inflight, "{}: in-flight sum", session.client_id);
            for (at, entry) in delivery.inflight.iter().enumerate() {
                assert!(entry.packet_id != 0);
                assert_eq!(
                    delivery.position(entry.packet_id),
                    Some(at),
                    "{}: packet ids out of order",
                    session.client_id
                );
            }
        }
    }

    /// What is stored, or about to be, is known to be so, and nothing else is.
    fn check_store(&self) {
        let clients = &self.clients;
        let mut recorded: HashMap<usize, u32> = HashMap::new();
        let mut changed = HashSet::new();
        for (id, session) in &clients.sessions {
            let is_kept = clients.store.is_on() && session.expiry_s > 0;
            assert!(!is_kept || session.is_stored(), "{}: is not stored", session.client_id);
            let Some(delivery) = session.delivery.as_deref() else { continue };
            let keys = delivery.inflight.iter().map(|it| it.entry.key());
            assert!(
                !session.is_stored() || keys.is_sorted_by(|one, other| one < other),
                "keys in flight do not ascend"
            );
            let keys = delivery.queue.iter().map(|it| it.entry.key());
            assert!(!session.is_stored() || keys.is_sorted_by(|one, other| one < other), "keys queued do not ascend");
            let in_flight = delivery.inflight.iter().map(|it| (it.entry, it.message.as_ref(), it.qos));
            let queued = delivery.queue.iter().map(|it| (it.entry, Some(&it.message), it.qos));
            for (entry, message, qos) in in_flight.chain(queued).filter(|(_, _, qos)| *qos > QoS::AtMostOnce) {
                assert_eq!(entry.key() != 0, session.is_stored(), "{}: key {}", session.client_id, entry.key());
                if entry.key() != 0 && clients.store.has_changed(entry.key(), id as u32) {
                    changed.insert(entry.key());
                } else {
                    assert!(entry.key() == 0 || entry.is_recorded(), "{} {qos:?}: is not recorded", session.client_id);
                }
                if let Some(message) = message.filter(|_| entry.is_recorded()) {
                    *recorded.entry(message.address()).or_default() += 1;
                }
            }
        }
        let holding = clients.links.iter().filter(|(_, link)| link.held.is_some()).map(|(id, _)| id as u32).collect();
        clients.store.check(recorded, changed.len(), holding);
    }

    fn check_sys(&self) {
        let connected = self.clients.sessions.iter().filter(|(_, session)| session.is_connected()).count();
        assert_eq!(connected, self.clients.connected_count, "connected sessions are counted wrongly");
        let has_values = self.retained.find("$SYS/broker/version").is_some();
        assert_eq!(has_values, self.sys.timer != TimerId::NONE, "values below $SYS are there, but nobody keeps them");
        assert!(has_values || !self.index.has_sys_filters() || self.clients.config.sys_interval_s == 0);
    }

    fn check_subscriptions(&self) {
        let mut count = 0;
        for (id, session) in &self.clients.sessions {
            count += session.subscriptions.len();
            for &key in session.subscriptions.iter() {
                assert!(self.index.subscriber(key, id as u32).is_some(), "{}: not in the index", session.client_id);
            }
            for cursor in session.delivery.iter().flat_map(|delivery| &delivery.cursors) {
                assert!(session.subscriptions.contains(&cursor.key), "{}: stray cursor", session.client_id);
            }
        }
        assert_eq!(count, self.index.subscription_count(), "the index has subscriptions of nobody");
    }
}
