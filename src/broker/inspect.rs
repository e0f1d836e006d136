//! What the broker holds, as rows for somebody who asks: made a slice at a time, so that ten thousand sessions neither hold up
//! anybody nor stand in memory as text. A slice goes on where the one before ended, by the number of a link, session or filter,
//! or behind a topic: what comes or goes meanwhile may be in the list or not, and what changes is shown as it was when its row
//! was made.

use std::collections::BinaryHeap;

use super::Broker;
use super::index::{ShareId, Subscriber, SubscriptionKey};
use super::link::Link;
use super::message::Message;
use super::retained::Found;
use super::session::{Delivery, SINCE_UNKNOWN, Session};
use crate::control::{Column, Kind, Row};
use crate::time::Millis;

/// Rows of a slice.
const ROWS_MAX: usize = 256;
/// Bytes after which a slice ends; a row may have 64 kB and more by itself.
const BYTES_MAX: usize = 32 << 10;
/// Links, sessions, filters or topics looked at for a slice.
const LOOKED_MAX: usize = 1024;
/// What is shown of a payload.
const EXCERPT_MAX: usize = 100;

use Kind::{Count, Size, Span, Text};

/// `queue` and `in_flight` are messages towards the client, `received` and `sent` PUBLISH packets on this connection modulo 2^32,
/// `unwritten` bytes that its socket did not take yet.
const CLIENTS: [Column; 15] = [
    Column::new("id", Text),
    Column::new("address", Text),
    Column::new("user", Text),
    Column::new("version", Text),
    Column::new("since", Span),
    Column::new("keep_alive", Span),
    Column::new("subscriptions", Count),
    Column::new("queue", Count),
    Column::new("queue_bytes", Size),
    Column::new("unwritten", Size),
    Column::new("in_flight", Count),
    Column::new("received", Count),
    Column::new("sent", Count),
    Column::new("dropped", Count),
    Column::new("also_used_by", Text),
];

/// `away` is not known of a session that was away before a restart and is kept for ever; no `ends_in` is never.
const SESSIONS: [Column; 10] = [
    Column::new("id", Text),
    Column::new("state", Text),
    Column::new("user", Text),
    Column::new("expiry", Span),
    Column::new("away", Span),
    Column::new("ends_in", Span),
    Column::new("subscriptions", Count),
    Column::new("queue", Count),
    Column::new("queue_bytes", Size),
    Column::new("in_flight", Count),
];

const SUBSCRIPTIONS: [Column; 6] = [
    Column::new("id", Text),
    Column::new("filter", Text),
    Column::new("qos", Count),
    Column::new("options", Text),
    Column::new("identifier", Count),
    Column::new("share", Text),
];

const RETAINED: [Column; 5] = [
    Column::new("topic", Text),
    Column::new("size", Size),
    Column::new("qos", Count),
    Column::new("expires_in", Span),
    Column::new("payload", Text),
];

const STATS: [Column; 2] = [Column::new("name", Text), Column::new("value", Count)];

enum List {
    Clients,
    Sessions,
    /// Of all clients, filter by filter.
    Subscriptions,
    /// Of one client.
    SubscriptionsOf(Box<str>),
    Retained {
        filter: Box<str>,
        has_payload: bool,
    },
    Stats,
}

/// A list that is being told, and how far.
pub struct Inspection {
    list: List,
    is_begun: bool,
    /// The number of the link, session or filter to go on with.
    next: usize,
    /// Where to go on among the subscribers of that filter, or the subscriptions of one client: the lowest number that was not
    /// told. Positions are no use, for who leaves moves those behind.
    from: u64,
    /// The last topic looked at.
    after: Option<Box<str>>,
}

impl Inspection {
    pub fn clients() -> Inspection {
        Inspection::of(List::Clients)
    }

    pub fn sessions() -> Inspection {
        Inspection::of(List::Sessions)
    }

    pub fn subscriptions() -> Inspection {
        Inspection::of(List::Subscriptions)
    }

    /// Of this client, if there is one.
    pub fn subscriptions_of(client_id: &str) -> Inspection {
        Inspection::of(List::SubscriptionsOf(client_id.into()))
    }

    /// `filter` is valid.
    pub fn retained(filter: &str, has_payload: bool) -> Inspection {
        Inspection::of(List::Retained { filter: filter.into(), has_payload })
    }

    pub fn stats() -> Inspection {
        Inspection::of(List::Stats)
    }

    fn of(list: List) -> Inspection {
        Inspection { list, is_begun: false, next: 0, from: 0, after: None }
    }

    fn columns(&self) -> &'static [Column] {
        match self.list {
            List::Clients => &CLIENTS,
            List::Sessions => &SESSIONS,
            List::Subscriptions | List::SubscriptionsOf(_) => &SUBSCRIPTIONS,
            // Without payloads, without their column.
            List::Retained { has_payload: false, .. } => &RETAINED[..RETAINED.len() - 1],
            List::Retained { .. } => &RETAINED,
            List::Stats => &STATS,
        }
    }
}

/// What a slice may still take.
struct Slice<'a> {
    out: &'a mut Vec<u8>,
    end: usize,
    rows: usize,
    looked: usize,
}

impl Slice<'_> {
    fn row(&mut self) -> Row<'_> {
        self.rows -= 1;
        Row::begin("row", self.out)
    }

    fn is_full(&self) -> bool {
        self.rows == 0 || self.looked == 0 || self.out.len() >= self.end
    }
}

impl Broker {
    /// Appends the next rows of a list to `out`; says whether they were the last.
    pub fn inspect(&mut self, inspection: &mut Inspection, out: &mut Vec<u8>, now: Millis) -> bool {
        if !std::mem::replace(&mut inspection.is_begun, true) {
            Row::columns(inspection.columns(), out);
        }
        let end = out.len() + BYTES_MAX;
        let mut slice = Slice { out, end, rows: ROWS_MAX, looked: LOOKED_MAX };
        match &inspection.list {
            List::Clients => {
                let end = self.clients.links.capacity();
                each(&mut inspection.next, end, &mut slice, |at, slice| self.tell_client(at, slice, now))
            }
            List::Sessions => {
                let end = self.clients.sessions.capacity();
                each(&mut inspection.next, end, &mut slice, |at, slice| self.tell_session(at, slice, now))
            }
            List::Subscriptions => self.tell_filters(&mut inspection.next, &mut inspection.from, &mut slice),
            List::SubscriptionsOf(id) => {
                let Some(session) = self.clients.find_session(id) else { return true };
                self.tell_subscriptions(session, &mut inspection.from, &mut slice)
            }
            List::Retained { filter, has_payload } => {
                self.tell_retained(filter, *has_payload, &mut inspection.after, &mut slice, now)
            }
            List::Stats => {
                self.tell_stats(now, &mut |name, value| {
                    let mut row = Row::begin("row", slice.out);
                    row.text(name.as_bytes());
                    row.text(value.as_bytes());
                    row.end();
                });
                true
            }
        }
    }

    fn tell_client(&self, at: usize, slice: &mut Slice, now: Millis) {
        let Some(link) = self.clients.links.get(at) else { return };
        let Some(session) = self.clients.sessions.get(link.session as usize) else { return };
        let Link { peer, version, keep_alive_s, publishes_received, publishes_sent, .. } = *link;
        let mut row = slice.row();
        row.text(session.client_id.as_bytes());
        row.shown(format_args!("{peer}"));
        row.text(username(session));
        row.text(version.name().as_bytes());
        row.known(since(session, now));
        row.number(keep_alive_s.into());
        row.number(session.subscriptions.len() as u64);
        tell_queue(&mut row, session);
        row.number(link.output.len() as u64);
        row.number(in_flight(session));
        row.number(publishes_received.into());
        row.number(publishes_sent.into());
        row.number(session.dropped().into());
        match self.rival_of(&session.client_id, peer, now) {
            Some(other) => row.shown(format_args!("{}", other.ip())),
            None => row.text(b""),
        }
        row.end();
    }

    fn tell_session(&self, at: usize, slice: &mut Slice, now: Millis) {
        let Some(session) = self.clients.sessions.get(at) else { return };
        let is_kept_for_ever = session.expiry_s == u32::MAX;
        let mut row = slice.row();
        row.text(session.client_id.as_bytes());
        row.text(if session.is_connected() { b"connected" } else { b"away" });
        row.text(username(session));
        row.known((!is_kept_for_ever).then_some(session.expiry_s.into()));
        row.known(if session.is_connected() { None } else { away(session, now) });
        row.known((session.expires_at != Millis::NEVER).then(|| (session.expires_at - now).0.div_ceil(1000)));
        row.number(session.subscriptions.len() as u64);
        tell_queue(&mut row, session);
        row.number(in_flight(session));
        row.end();
    }

    /// The subscriptions of all, filter by filter; whether those were the last.
    fn tell_filters(&self, next: &mut usize, from: &mut u64, slice: &mut Slice) -> bool {
        let number = |(share, subscriber): &(Option<ShareId>, &Subscriber)| {
            (u64::from(subscriber.session) << 32) | share.map_or(0, |share| u64::from(share) + 1)
        };
        while !slice.is_full() {
            let filter = match self.index.next_filter(*next, &mut slice.looked) {
                Ok(None) => return true,
                Ok(Some(filter)) => filter,
                Err(number) => {
                    (*next, *from) = (number, 0);
                    return false;
                }
            };
            if filter as usize != *next {
                (*next, *from) = (filter as usize, 0);
            }
            let room = slice.rows;
            let numbers = lowest(&mut self.index.members(filter).map(|member| number(&member)), *from, room);
            let mut members = vec![None; numbers.len()];
            for member in self.index.members(filter) {
                if let Ok(at) = numbers.binary_search(&number(&member)) {
                    members[at] = Some(member);
                }
            }
            for (number, (share, subscriber)) in numbers.iter().zip(members.iter().flatten()) {
                if slice.is_full() {
                    return false;
                }
                *from = number + 1;
                let Some(session) = self.clients.sessions.get(subscriber.session as usize) else { continue };
                let share = share.and_then(|share| self.index.share_name(share));
                tell_subscriber(&session.client_id, self.index.filter_text(filter), share, subscriber, slice);
            }
            if numbers.len() < room {
                (*next, *from) = (*next + 1, 0);
            }
        }
        false
    }

    /// The subscriptions of one session; whether those were the last.
    fn tell_subscriptions(&self, session: u32, from: &mut u64, slice: &mut Slice) -> bool {
        let (own, room) = (&self.clients.sessions[session as usize], slice.rows);
        let numbers = lowest(&mut own.subscriptions.iter().map(SubscriptionKey::number), *from, room);
        for number in &numbers {
            if slice.is_full() {
                return false;
            }
            *from = number + 1;
            let key = SubscriptionKey::of_number(*number);
            // Whoever else subscribes there is looked at until this one is found.
            slice.looked = slice.looked.saturating_sub(1 + self.index.subscribers(key.filter).len() / 16);
            let Some(subscriber) = self.index.subscriber(key, session) else { continue };
            let share = key.share_id().and_then(|share| self.index.share_name(share));
            tell_subscriber(&own.client_id, self.index.filter_text(key.filter), share, subscriber, slice);
        }
        numbers.len() < room
    }

    fn tell_retained(
        &self,
        filter: &str,
        has_payload: bool,
        after: &mut Option<Box<str>>,
        slice: &mut Slice,
        now: Millis,
    ) -> bool {
        let mut budget = slice.looked as u32;
        while !slice.is_full() && budget > 0 {
            match self.retained.next_match(filter.as_bytes(), after.as_deref(), &mut budget) {
                Found::Nothing => return true,
                Found::NotYet(topic) => {
                    *after = Some(topic.into());
                    return false;
                }
                Found::Match(message) => {
                    tell_message(message, has_payload, slice, now);
                    *after = Some(message.topic().into());
                }
            }
        }
        false
    }
}

/// Goes on through numbers up to `end`, as far as the slice has room; whether that was all.
fn each(next: &mut usize, end: usize, slice: &mut Slice, mut tell: impl FnMut(usize, &mut Slice)) -> bool {
    while *next < end {
        if slice.is_full() {
            return false;
        }
        slice.looked -= 1;
        tell(*next, slice);
        *next += 1;
    }
    true
}

/// The lowest of these numbers from `from` on, so many at most, in their order.
fn lowest(all: &mut dyn Iterator<Item = u64>, from: u64, max: usize) -> Vec<u64> {
    let mut found = BinaryHeap::new();
    for number in all {
        if number < from || found.len() == max && found.peek().is_some_and(|highest| *highest < number) {
            continue;
        }
        found.push(number);
        if found.len() > max {
            found.pop();
        }
    }
    found.into_sorted_vec()
}

fn username(session: &Session) -> &[u8] {
    session.username.as_deref().map_or(b"", |name| name.as_bytes())
}

fn since(session: &Session, now: Millis) -> Option<u64> {
    (session.since_s != SINCE_UNKNOWN).then(|| (now - Millis::from_secs(session.since_s.into())).0 / 1000)
}

/// Seconds since the client left, as far as that is known since a restart.
fn away(session: &Session, now: Millis) -> Option<u64> {
    let is_known = session.expires_at != Millis::NEVER && session.expiry_s != u32::MAX;
    let left_s = || (session.expires_at - now).0.div_ceil(1000);
    since(session, now).or_else(|| is_known.then(|| u64::from(session.expiry_s).saturating_sub(left_s())))
}

fn tell_queue(row: &mut Row, session: &Session) {
    let (count, bytes) =
        session.delivery.as_deref().map_or((0, 0), |Delivery { queue, queue_bytes, .. }| (queue.len(), *queue_bytes));
    row.number(count as u64);
    row.number(bytes);
}

fn in_flight(session: &Session) -> u64 {
    session.delivery.as_deref().map_or(0, |delivery| delivery.inflight.len() as u64)
}

fn tell_subscriber(client_id: &str, filter: &[u8], share: Option<&str>, subscriber: &Subscriber, slice: &mut Slice) {
    let options = match (subscriber.no_local, subscriber.retain_as_published) {
        (false, false) => "",
        (true, false) => "no-local",
        (false, true) => "retain-as-published",
        (true, true) => "no-local retain-as-published",
    };
    let mut row = slice.row();
    row.text(client_id.as_bytes());
    row.text(filter);
    row.number(subscriber.qos as u64);
    row.text(options.as_bytes());
    row.known((subscriber.subscription_id != 0).then_some(subscriber.subscription_id.into()));
    row.text(share.unwrap_or_default().as_bytes());
    row.end();
}

fn tell_message(message: &Message, has_payload: bool, slice: &mut Slice, now: Millis) {
    let (payload, expires_at) = (message.payload(), message.expires_at());
    let mut row = slice.row();
    row.text(message.topic_bytes());
    row.number(payload.len() as u64);
    row.number(message.qos() as u64);
    row.known((expires_at != Millis::NEVER).then(|| (expires_at - now).0.div_ceil(1000)));
    if has_payload {
        row.text(excerpt(payload));
    }
    row.end();
}

/// The beginning of a payload; of text, whole letters.
fn excerpt(payload: &[u8]) -> &[u8] {
    let mut end = payload.len().min(EXCERPT_MAX);
    let is_inside = |at: usize| payload.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    if end < payload.len() && std::str::from_utf8(payload).is_ok() {
        while end > 0 && is_inside(end) {
            end -= 1;
        }
    }
    &payload[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_numbers_come_in_their_order() {
        let lowest = |from, max| lowest(&mut [5, 9, 1, 7, 3, u64::MAX].into_iter(), from, max);
        assert_eq!(lowest(0, 3), [1, 3, 5]);
        assert_eq!(lowest(6, 3), [7, 9, u64::MAX]);
        assert_eq!(lowest(2, 9), [3, 5, 7, 9, u64::MAX]);
        assert_eq!(lowest(10, 1), [u64::MAX]);
    }

    #[test]
    fn an_excerpt_has_whole_letters_if_it_has_letters() {
        let text = "ä".repeat(60);
        assert_eq!(excerpt(text.as_bytes()), "ä".repeat(50).as_bytes());
        let text = format!("a{}", "ä".repeat(60));
        assert_eq!(excerpt(text.as_bytes()).len(), 99);
        assert_eq!(excerpt(&[0x80; 300]), [0x80; 100]);
        assert_eq!(excerpt(b"short"), b"short");
    }
}
