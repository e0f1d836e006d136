//! How fast a client may publish (`max_publish_rate`, `max_publish_bytes_rate`): a bucket for each link, which holds what may be
//! published in a second, and fills again at the rate of the limit. A PUBLISH that finds it empty waits, and all behind it:
//! the link is paused until there is enough in the bucket again, to the millisecond. Nothing is dropped; the socket is not read, so
//! TCP slows the client down.
//!
//! What that must not do to others, or to the client: its acknowledgements and pings overtake its messages while little is held of
//! it (`Link::reads_ahead`); beyond that it is deaf by its own doing, and nobody waits for it. Keep-alive begins anew with each
//! message that goes on. If it hangs up, or dies, what it sent before goes on at its pace, and its will comes behind it; a
//! client of the same id that comes back need not wait for that.
//!
//! A large message is let through when there is anything in the bucket, and is paid for afterwards.

use super::Broker;
use super::clients::Clients;
use super::link::{LinkId, Paused, State};
use super::timers;
use crate::config::Config;
use crate::logger::notice;
use crate::time::Millis;
use crate::wheel::TimerId;

const SECOND_NS: u64 = 1_000_000_000;
const MILLI_NS: u64 = 1_000_000;

/// What a bucket holds is told by a time, in nanoseconds: until then the limit would have taken for all that was taken out. With one
/// that is past the bucket is full, with one a second ahead it is empty.
#[derive(Debug, Default)]
pub struct Bucket {
    messages_until: u64,
    bytes_until: u64,
    /// Ends the pause.
    pub timer: TimerId,
    is_logged: bool,
}

/// Nanoseconds for so many of what the limit allows in a second.
fn cost(count: u64, rate: u32) -> u64 {
    count.saturating_mul(SECOND_NS) / u64::from(rate)
}

impl Bucket {
    /// Takes a message of so many bytes out.
    fn take(&mut self, len: usize, config: &Config, now: Millis) {
        let now = now.0 * MILLI_NS;
        for (until, count, rate) in [
            (&mut self.messages_until, 1, config.max_publish_rate),
            (&mut self.bytes_until, len as u64, config.max_publish_bytes_rate),
        ] {
            if rate != 0 {
                *until = (*until).max(now).saturating_add(cost(count, rate));
            }
        }
    }

    /// Empty at most: what was owed beyond that was counted by older limits, and a picture that takes an hour to pay for may be
    /// why there are others.
    fn begin_anew(&mut self, now: Millis) {
        let empty = now.0 * MILLI_NS + SECOND_NS;
        self.messages_until = self.messages_until.min(empty);
        self.bytes_until = self.bytes_until.min(empty);
    }

    /// When a message, and a byte, is in the bucket again, and by which option that is so.
    fn ready_at(&self, config: &Config) -> (Millis, &'static str) {
        let at = |until: u64, rate: u32| match rate {
            0 => Millis(0),
            _ => Millis((until + cost(1, rate)).saturating_sub(SECOND_NS).div_ceil(MILLI_NS)),
        };
        let messages = (at(self.messages_until, config.max_publish_rate), "max_publish_rate");
        let bytes = (at(self.bytes_until, config.max_publish_bytes_rate), "max_publish_bytes_rate");
        if bytes.0 > messages.0 { bytes } else { messages }
    }
}

impl Clients {
    /// A bucket for a new client, if there is a limit.
    pub(super) fn bucket(&self) -> Option<Bucket> {
        self.config.has_publish_rate().then(Bucket::default)
    }

    /// Pauses a link whose next PUBLISH has to wait; says whether it has to.
    pub(super) fn slow_down(&mut self, id: LinkId, now: Millis) -> bool {
        let link = &mut self.links[id as usize];
        let Some(bucket) = link.rate_mut() else { return false };
        let (ready_at, option) = bucket.ready_at(&self.config);
        if ready_at <= now {
            return false;
        }
        debug_assert_eq!(bucket.timer, TimerId::NONE);
        bucket.timer = self.wheel.arm(ready_at, timers::rate(id));
        let was_logged = std::mem::replace(&mut bucket.is_logged, true);
        debug_assert!(link.paused == Paused::No);
        link.paused = Paused::ForRate;
        self.stats.rate_pauses += 1;
        if !was_logged {
            let name = self.name(id);
            notice!(
                client = self.client_id(id);
                "Client {name} publishes more than {option} allows; it is listened to more slowly. Nothing is lost by that."
            );
        }
        true
    }

    /// A PUBLISH of so many bytes was handled.
    pub(super) fn note_published(&mut self, id: LinkId, len: usize, now: Millis) {
        if let Some(bucket) = self.links[id as usize].rate_mut() {
            bucket.take(len, &self.config, now);
        }
    }
}

impl Broker {
    /// There is enough in the bucket again.
    pub(super) fn rate_due(&mut self, id: LinkId) {
        let link = &mut self.clients.links[id as usize];
        if let Some(bucket) = link.rate_mut() {
            bucket.timer = TimerId::NONE;
        }
        if link.paused == Paused::ForRate {
            link.paused = Paused::No;
            self.let_go_on(id);
        }
    }

    /// There are other limits. Whoever waits looks again, and waits by the new ones.
    pub(super) fn publish_rates_changed(&mut self, now: Millis) {
        let connected = self.clients.links.iter().filter(|(_, link)| link.state == State::Connected);
        for id in connected.map(|(id, _)| id as LinkId).collect::<Vec<_>>() {
            let timer = self.clients.links[id as usize].rate().map_or(TimerId::NONE, |bucket| bucket.timer);
            self.clients.wheel.cancel(timer);
            self.rate_due(id);
            let bucket = self.clients.bucket();
            let link = &mut self.clients.links[id as usize];
            match (link.rate_mut(), bucket) {
                (Some(older), Some(_)) => older.begin_anew(now),
                (_, bucket) => link.set_rate(bucket),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The milliseconds at which messages of `len` bytes, as many as there may be, get through in `seconds`.
    fn times(messages: u32, bytes: u32, len: usize, seconds: u64) -> Vec<u64> {
        let config = Config { max_publish_rate: messages, max_publish_bytes_rate: bytes, ..Config::default() };
        let (mut bucket, begin, mut now, mut times) = (Bucket::default(), Millis(5_000), Millis(5_000), Vec::new());
        while now < begin + Millis::from_secs(seconds) {
            times.push((now - begin).0);
            bucket.take(len, &config, now);
            now = now.max(bucket.ready_at(&config).0);
        }
        times
    }

    #[test]
    fn a_second_of_messages_at_once_and_then_one_by_one() {
        assert_eq!(times(4, 0, 10, 2), [0, 0, 0, 0, 250, 500, 750, 1000, 1250, 1500, 1750]);
        assert_eq!(times(1, 0, 10, 4), [0, 1000, 2000, 3000]);
        assert_eq!(times(3, 0, 10, 2), [0, 0, 0, 334, 667, 1000, 1334, 1667]);
        assert_eq!(times(100_000, 0, 10, 2).len(), 100_000 + 1999 * 100);
    }

    #[test]
    fn bytes_count_and_a_message_larger_than_a_second_is_paid_for_afterwards() {
        assert_eq!(times(0, 100, 50, 2), [0, 0, 10, 510, 1010, 1510]);
        assert_eq!(times(0, 100, 300, 7), [0, 2010, 5010]);
        // The tighter of the two holds.
        assert_eq!(times(2, 1000, 1, 2), [0, 0, 500, 1000, 1500]);
        assert_eq!(times(1000, 10, 10, 3), [0, 100, 1100, 2100]);
    }

    #[test]
    fn a_bucket_holds_no_more_than_a_second() {
        let config = Config { max_publish_rate: 2, ..Config::default() };
        let mut bucket = Bucket::default();
        bucket.take(1, &config, Millis(1_000));
        let later = Millis(1_000_000);
        let mut count = 0;
        while bucket.ready_at(&config).0 <= later {
            bucket.take(1, &config, later);
            count += 1;
        }
        assert_eq!((count, bucket.ready_at(&config).0), (2, Millis(1_000_500)));
    }

    #[test]
    fn no_message_and_no_rate_is_too_large_to_count_with() {
        let config = Config { max_publish_rate: u32::MAX, max_publish_bytes_rate: 1, ..Config::default() };
        let mut bucket = Bucket::default();
        bucket.take(268_435_460, &config, Millis(0));
        assert_eq!(bucket.ready_at(&config).0, Millis(268_435_460_000));
    }
}
