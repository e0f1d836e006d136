//! What flows: feeds send as fast as their pace, their window and what is on its way allow, and packets that come in are
//! counted, acknowledged and compared with what was sent. The message path; nothing here allocates per message.

use std::cmp::Reverse;

use midge::codec::{Split, split_frame};

use crate::client::State;
use crate::engine::{Alarm, Engine, SECOND_NS, Stream};
use crate::plan::{FeedPlan, Pace, WINDOW, What};
use crate::sequence::Verdict;
use crate::wire::{self, Stamp};

/// Output of one client beyond which its feeds wait until it has gone out.
const UNSENT_MAX: usize = 256 << 10;
/// A message path without progress for so long has lost what was on it.
const STALL_NS: u64 = 2 * SECOND_NS;

pub struct Feed {
    pub plan: FeedPlan,
    pub is_active: bool,
    is_ready: bool,
    next_due: u64,
    /// The alarm it has set.
    alarm_at: u64,
    /// Offset in the streams of the one whose turn it is.
    turn: u32,
    pub sent: u64,
    /// Deliveries of its messages on their way.
    outstanding: u32,
    /// Deliveries of one message.
    fan: u32,
}

impl Feed {
    pub fn new(plan: FeedPlan, streams: &[Stream]) -> Feed {
        let fan = match &plan.what {
            What::Publish(range) => streams[range.start as usize].plan.fan,
            What::Ping => 0,
        };
        Feed {
            plan,
            is_active: false,
            is_ready: false,
            next_due: 0,
            alarm_at: 0,
            turn: 0,
            sent: 0,
            outstanding: 0,
            fan,
        }
    }

    /// So few are on their way that a burst is worth sending: every broker then gets bursts of the same size.
    #[inline]
    fn wants_more(&self) -> bool {
        match self.plan.pace {
            Pace::Open { outstanding } => self.outstanding <= outstanding / 4,
            Pace::Every { .. } => false,
        }
    }

    fn is_over(&self) -> bool {
        self.plan.limit > 0 && self.sent >= self.plan.limit
    }
}

impl Engine {
    /// Lets these feeds begin. Paced ones keep their distances from now on.
    pub fn start_feeds(&mut self, feeds: impl Iterator<Item = u32>) {
        let now = self.clock();
        for id in feeds {
            let feed = &mut self.feeds[id as usize];
            feed.is_active = true;
            match feed.plan.pace {
                Pace::Open { .. } => self.make_ready(id),
                Pace::Every { offset_ns, .. } => {
                    feed.next_due = now + offset_ns;
                    feed.alarm_at = feed.next_due;
                    self.alarms.push(Reverse((feed.next_due, Alarm::Feed(id))));
                }
            }
        }
    }

    pub fn start_all_feeds(&mut self) {
        self.start_feeds(0..self.feeds.len() as u32);
    }

    pub fn stop_feeds(&mut self) {
        self.feeds.iter_mut().for_each(|feed| feed.is_active = false);
    }

    /// Has the broker forget what it retains of the streams, and pings behind it; returns the number of pings.
    pub fn forget_retained(&mut self) -> u64 {
        let mut pings = 0;
        for at in 0..self.feeds.len() {
            let feed = &self.feeds[at];
            let What::Publish(streams) = &feed.plan.what else { continue };
            let id = feed.plan.client;
            let client = &mut self.clients[id as usize];
            let before = client.out.len();
            for stream in streams.clone() {
                let plan = &self.streams[stream as usize].plan;
                if plan.retain && client.is_up() {
                    let numbers = 0..plan.topic_count.max(1);
                    numbers.for_each(|number| wire::put_forget(&mut client.out, &wire::numbered(&plan.topic, number)));
                }
            }
            if client.out.len() > before {
                client.out.extend_from_slice(&wire::PINGREQ);
                pings += 1;
                self.mark_dirty(id);
            }
        }
        pings
    }

    /// Everything published has arrived and is acknowledged.
    pub fn is_settled(&self) -> bool {
        self.tally.settled >= self.tally.expected && self.unacknowledged == 0
    }

    /// Whether nothing has come for so long that nothing will.
    pub fn is_stalled(&self) -> bool {
        self.now.saturating_sub(self.last_progress) > STALL_NS
    }

    /// Feeds that wait for messages that will not come go on without them.
    pub(crate) fn write_off_if_stalled(&mut self) {
        if self.is_settled() || !self.is_stalled() || !self.feeds.iter().any(|feed| feed.is_active && feed.fan > 0) {
            return;
        }
        let is_open = |feed: &Feed| matches!(feed.plan.pace, Pace::Open { .. });
        if !self.feeds.iter().any(|feed| feed.is_active && is_open(feed) && feed.outstanding > 0) {
            return;
        }
        self.tally.stalls += 1;
        self.tally.settled = self.tally.expected;
        self.last_progress = self.now;
        for id in 0..self.feeds.len() {
            self.feeds[id].outstanding = 0;
            self.make_ready(id as u32);
        }
    }

    #[inline]
    pub(crate) fn make_ready(&mut self, id: u32) {
        let feed = &mut self.feeds[id as usize];
        if feed.is_active && !feed.is_ready {
            feed.is_ready = true;
            self.ready.push(id);
        }
    }

    pub(crate) fn send_ready(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        for id in ready.drain(..) {
            self.feeds[id as usize].is_ready = false;
            self.send(id);
        }
        if self.ready.is_empty() {
            self.ready = ready;
        }
    }

    /// Sends what the feed may send now. Whatever stops it makes it ready again when it is over.
    fn send(&mut self, id: u32) {
        let feed = &mut self.feeds[id as usize];
        let client = &mut self.clients[feed.plan.client as usize];
        if !feed.is_active || !client.is_up() {
            return;
        }
        let before = feed.sent;
        while !feed.is_over() {
            if client.unsent() > UNSENT_MAX {
                client.is_full = true;
                break;
            }
            let time_ns = match feed.plan.pace {
                Pace::Open { outstanding } if feed.outstanding + feed.fan > outstanding => break,
                Pace::Open { .. } => self.now,
                // The time it should have been sent, however late that is noticed.
                Pace::Every { .. } if feed.next_due > self.now => break,
                Pace::Every { .. } => feed.next_due,
            };
            let What::Publish(streams) = &feed.plan.what else {
                client.out.extend_from_slice(&wire::PINGREQ);
                client.ping_sent = time_ns;
                feed.advance();
                continue;
            };
            let stream_id = streams.start + feed.turn;
            let stream = &mut self.streams[stream_id as usize];
            let mut packet_id = 0;
            if stream.plan.qos > 0 {
                if client.unacknowledged.len() >= WINDOW as usize {
                    break;
                }
                packet_id = client.packet_id();
                client.unacknowledged.push_back(time_ns);
                self.unacknowledged += 1;
            }
            let stamp = Stamp { stream: stream_id, number: stream.published, time_ns };
            // Neighbours are a prime apart, so that no topic stands near the one before.
            let topic_number = (u64::from(stream.published) * 7919).checked_rem(stream.plan.topic_count.into());
            stream.template.push(&mut client.out, stamp, packet_id, topic_number.unwrap_or(0) as u32);
            stream.published += 1;
            feed.turn = if feed.turn + 1 == streams.len() as u32 { 0 } else { feed.turn + 1 };
            feed.outstanding += feed.fan;
            self.tally.published += 1;
            self.tally.expected += u64::from(feed.fan);
            feed.advance();
        }
        if let Pace::Every { .. } = feed.plan.pace
            && feed.next_due > self.now
            && feed.alarm_at != feed.next_due
        {
            feed.alarm_at = feed.next_due;
            self.alarms.push(Reverse((feed.next_due, Alarm::Feed(id))));
        }
        if feed.sent != before {
            let client = feed.plan.client;
            self.mark_dirty(client);
        }
    }

    // ---- What comes in ----------------------------------------------------------------------------------------------

    /// Takes the whole packets of `bytes` and returns their length.
    pub(crate) fn take(&mut self, id: u32, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.target.is_relay {
            let client = &self.clients[id as usize];
            if client.state == State::Greeting {
                if bytes.len() < 3 {
                    return 0;
                }
                at = 3;
                self.greeted(id, false);
            } else if let Some(len) = client.counted_len {
                return self.count(id, bytes.len() / len) * len;
            }
        }
        loop {
            match split_frame(&bytes[at..], 0) {
                Ok(Split::Frame { body, len }) => {
                    let packet = &bytes[at..at + len];
                    match packet[0] >> 4 {
                        3 => self.deliver(id, packet[0], &packet[body..]),
                        _ => self.control(id, packet[0], &packet[body..]),
                    }
                    at += len;
                }
                Ok(Split::NeedMore) => return at,
                Err(error) => {
                    self.lose(id, error.what);
                    return bytes.len();
                }
            }
        }
    }

    #[inline]
    fn deliver(&mut self, id: u32, first_byte: u8, body: &[u8]) {
        let Some((packet_id, payload)) = publish_parts(first_byte, body) else {
            self.lose(id, "a PUBLISH that is too short");
            return;
        };
        let client = &mut self.clients[id as usize];
        if let Some(packet_id) = packet_id {
            let ack = if first_byte & 0b0110 == 0b0010 { wire::PUBACK } else { wire::PUBREC };
            wire::put_ack(&mut client.out, ack, packet_id);
        }
        let stamp = Stamp::read(payload);
        let place = |stamp: Stamp| stamp.stream.wrapping_sub(client.plan.sees.start) as usize;
        let seen = stamp.and_then(|stamp| client.ledger.get_mut(place(stamp)));
        let stream = stamp.and_then(|stamp| self.streams.get(stamp.stream as usize));
        // What was not yet published is from somebody before us.
        if let (Some(stamp), Some(seen), Some(stream)) = (stamp, seen, stream)
            && stamp.number < stream.published
        {
            self.tally.delivered += 1;
            client.received += 1;
            if self.is_recording {
                self.latency.record(self.now.saturating_sub(stamp.time_ns));
            }
            let settled = match seen.take(stamp.number) {
                // What a member of a share does not get, others do.
                Verdict::InOrder { .. } if client.plan.is_shared => 1,
                Verdict::InOrder { skipped } => 1 + skipped,
                Verdict::Late => {
                    self.tally.misordered += u64::from(!client.plan.is_unordered);
                    u32::from(client.plan.is_shared)
                }
                Verdict::Duplicate => {
                    self.tally.duplicated += 1;
                    0
                }
            };
            if stream.plan.retain && settled > 0 {
                client.last_retained_at = self.now;
            }
            self.settle(stream.feed, settled);
        } else {
            self.tally.foreign += 1;
        }
        if packet_id.is_some() {
            self.mark_dirty(id);
        }
    }

    #[inline]
    fn settle(&mut self, id: u32, count: u32) {
        self.last_progress = self.now;
        let feed = &mut self.feeds[id as usize];
        if feed.fan == 0 {
            return;
        }
        self.tally.settled += u64::from(count);
        feed.outstanding = feed.outstanding.saturating_sub(count);
        if feed.wants_more() {
            self.make_ready(id);
        }
    }

    /// Messages of which only the length is known: they are taken to be of each feed in turn that waits for any.
    fn count(&mut self, id: u32, count: usize) -> usize {
        self.clients[id as usize].received += count as u64;
        self.tally.delivered += count as u64;
        let feeds = self.feeds.len() as u32;
        let mut rest = count as u32;
        for _ in 0..feeds {
            let feed = self.counted_feed;
            self.counted_feed = (feed + 1) % feeds;
            let share = self.feeds[feed as usize].outstanding.min(rest);
            self.settle(feed, share);
            rest -= share;
            if rest == 0 {
                break;
            }
        }
        count
    }

    fn control(&mut self, id: u32, first_byte: u8, body: &[u8]) {
        match (first_byte & 0xF0, body) {
            (0x20, [flags, 0]) => self.greeted(id, flags & 1 == 1),
            (0x20, [_, code]) => self.lose(id, &format!("refused with return code {code}")),
            (0x40 | 0x70, _) => self.acknowledged(id),
            (0x50, [high, low]) => self.answer(id, wire::PUBREL, [*high, *low]),
            (0x60, [high, low]) => self.answer(id, wire::PUBCOMP, [*high, *low]),
            (0x90, [_, _, codes @ ..]) => {
                if codes.contains(&0x80) {
                    self.complain(format!("a subscription of {} was refused", self.clients[id as usize].plan.id));
                }
                let client = &mut self.clients[id as usize];
                client.subacks_due = client.subacks_due.saturating_sub(1);
                if client.subacks_due == 0 && client.state == State::Subscribing {
                    self.up(id);
                }
            }
            (0xD0, _) => {
                self.tally.pings += 1;
                self.last_progress = self.now;
                if self.is_recording {
                    self.pings.record(self.now.saturating_sub(self.clients[id as usize].ping_sent));
                }
            }
            _ => self.lose(id, &format!("a packet with first byte {first_byte:#x}")),
        }
    }

    fn answer(&mut self, id: u32, first_byte: u8, packet_id: [u8; 2]) {
        wire::put_ack(&mut self.clients[id as usize].out, first_byte, packet_id);
        self.mark_dirty(id);
    }

    fn acknowledged(&mut self, id: u32) {
        let client = &mut self.clients[id as usize];
        let Some(sent) = client.unacknowledged.pop_front() else { return };
        self.unacknowledged -= 1;
        self.tally.acknowledged += 1;
        self.last_progress = self.now;
        if self.is_recording {
            self.acknowledgements.record(self.now.saturating_sub(sent));
        }
        for feed in client.feeds.clone() {
            self.make_ready(feed);
        }
    }
}

/// The packet id, if the QoS has one, and the payload.
#[inline]
fn publish_parts(first_byte: u8, body: &[u8]) -> Option<(Option<[u8; 2]>, &[u8])> {
    let (topic_len, rest) = body.split_first_chunk::<2>()?;
    let rest = rest.get(usize::from(u16::from_be_bytes(*topic_len))..)?;
    if first_byte & 0b0110 == 0 {
        return Some((None, rest));
    }
    let (packet_id, payload) = rest.split_first_chunk::<2>()?;
    Some((Some(*packet_id), payload))
}

impl Feed {
    #[inline]
    fn advance(&mut self) {
        self.sent += 1;
        if let Pace::Every { interval_ns, .. } = self.plan.pace {
            self.next_due += interval_ns;
        }
    }
}
