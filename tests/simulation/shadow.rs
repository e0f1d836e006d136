//! A store beside a world that goes its way as without one: batches are safe at once and nobody waits for them. Every now
//! and then they are read into a second broker, which must be sound, hold what the first one holds, and write itself down
//! in the same words when read once more.

use midge::broker::{Broker, Part, Replay};
use midge::config::Config;
use midge::time::Millis;

use super::rng::Rng;

pub struct Shadow {
    /// Its own, so that the world's course does not depend on it.
    rng: Rng,
    batches: Vec<(Vec<u8>, Part)>,
    pub replays: usize,
    /// A planted bug: some batches are lost.
    pub forgets: bool,
}

impl Shadow {
    pub fn new(seed: u64) -> Shadow {
        Shadow { rng: Rng::new(seed ^ 0x5AD0), batches: Vec::new(), replays: 0, forgets: false }
    }

    /// What is due is stored; says what is wrong with it, if somebody looked.
    pub fn turn(&mut self, broker: &mut Broker, now_ms: u64, has_expiry: bool) -> Option<String> {
        let looks = self.rng.chance(1);
        if self.rng.chance(1) && !broker.is_making_snapshot() {
            broker.begin_snapshot(Millis(now_ms));
        }
        while broker.batch_due().is_some_and(|due| due.0 <= now_ms || looks) {
            self.store(broker, looks, now_ms);
        }
        if looks { self.look(broker, now_ms, has_expiry) } else { None }
    }

    fn store(&mut self, broker: &mut Broker, is_last: bool, now_ms: u64) {
        let mut records = Vec::new();
        let Some(batch) = broker.take_batch(&mut records, is_last, Millis(now_ms)) else { return };
        if !self.forgets || batch.part != Part::None || self.rng.chance(80) {
            self.batches.push((records, batch.part));
        }
        if batch.part == Part::End || batch.part == Part::Whole {
            let begins = |part: Part| part == Part::Begin || part == Part::Whole;
            let begin = self.batches.iter().rposition(|(_, part)| begins(*part)).unwrap_or(0);
            self.batches.drain(..begin);
        }
        broker.durable(batch.position, Millis(now_ms));
    }

    fn look(&mut self, broker: &Broker, now_ms: u64, has_expiry: bool) -> Option<String> {
        self.replays += 1;
        let mut second = replayed(broker.config(), &self.batches, now_ms);
        // Of subscriptions, those of sessions that are not stored are missing; retained messages may have expired.
        let bytes = |broker: &Broker| broker.live_bytes() - 32 * broker.subscription_count() as u64;
        if !has_expiry && bytes(&second) != bytes(broker) {
            let what = "sessions, entries, messages and retained messages, and what is left of them after a start";
            return Some(format!("{what}: {} and {} bytes", bytes(broker), bytes(&second)));
        }
        if second.subscription_count() > broker.subscription_count() {
            return Some("there are more subscriptions after a start".to_string());
        }
        if second.session_count() > broker.session_count() {
            let counts = (broker.session_count(), second.session_count());
            return Some(format!("sessions, and how many there are after a start: {counts:?}"));
        }
        let written = snapshot(&mut second, now_ms);
        let mut third = replayed(broker.config(), &written, now_ms);
        let again = snapshot(&mut third, now_ms);
        // Sessions may stand in another order.
        (sorted(&written) != sorted(&again)).then(|| "a snapshot that is read is written in other words".to_string())
    }
}

fn replayed(config: &Config, batches: &[(Vec<u8>, Part)], now_ms: u64) -> Broker {
    let (mut broker, mut replay) = (Broker::new(config.clone(), 1), Replay::default());
    for (batch, part) in batches {
        replay.apply(&mut broker, batch, *part).expect("the broker's own records");
    }
    replay.finish(&mut broker, Millis(now_ms));
    broker.check_invariants();
    broker
}

/// Everything, when what the start itself changed is written.
fn snapshot(broker: &mut Broker, now_ms: u64) -> Vec<(Vec<u8>, Part)> {
    let mut batches = Vec::new();
    let flush = |broker: &mut Broker, batches: &mut Vec<(Vec<u8>, Part)>| {
        while broker.batch_due().is_some() {
            let mut records = Vec::new();
            if let Some(batch) = broker.take_batch(&mut records, true, Millis(now_ms)) {
                batches.push((records, batch.part));
                broker.durable(batch.position, Millis(now_ms));
            }
        }
        broker.check_invariants();
    };
    flush(broker, &mut Vec::new());
    broker.begin_snapshot(Millis(now_ms));
    flush(broker, &mut batches);
    batches
}

fn sorted(batches: &[(Vec<u8>, Part)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = batches.iter().flat_map(|(bytes, _)| bytes.iter().copied()).collect();
    bytes.sort_unstable();
    bytes
}
