//! What clients do of their own accord, and the course of a world: some hundred turns with faults, then quiet, late
//! subscribers, the judgement, and the way home.

use midge::codec::{ReasonCode, RetainHandling, SubscribeOptions, Version};

use super::client::{Draft, State};
use super::hostile::Hostile;
use super::model::Model;
use super::net::End;
use super::plan::inspector;
use super::world::World;

/// Turns after which a quiet world should be idle.
const SETTLE_TURNS_MAX: usize = 60_000;

impl World {
    /// The whole course; what went wrong is in `model.failures`.
    pub fn run(&mut self) {
        for _ in 0..self.plan.turns {
            self.turn();
            if self.is_failed() {
                return;
            }
            self.advance();
        }
        self.model.note(|| "the faults stop".to_string());
        self.calm();
        self.settle(100_000);
        for version in [Version::V311, Version::V5] {
            let number = self.add_client(inspector(self.clients.len(), version, &self.plan.rules));
            self.begin(number, true);
        }
        self.settle(2_000);
        for number in self.clients.len() - 2..self.clients.len() {
            let filters = [("#", 2), ("$dev/#", 1)].map(|(filter, qos)| (filter.to_string(), options(qos)));
            self.clients[number].subscribe(&filters, 0, &mut self.model);
        }
        self.settle(2_000);
        if self.is_failed() {
            return;
        }
        for conn in 0..self.conns.len() {
            if self.model.links[conn].is_open {
                self.model.settle(conn, false);
            }
        }
        let stats = *self.node.broker.stats();
        self.model.judge(&stats);
        if !self.is_failed() && self.node.saboteur.is_none() {
            self.go_home();
        }
    }

    /// No faults from here on; who is away comes back.
    fn calm(&mut self) {
        self.has_faults = false;
        self.hostile = None;
        for client in &mut self.clients {
            client.profile.hold_percent = 0;
        }
        for conn in &mut self.conns {
            conn.capacity = 1 << 20;
        }
        self.reset_strays();
    }

    /// Runs until nothing is under way and `span_ms` have passed.
    fn settle(&mut self, span_ms: u64) {
        let until_ms = self.now_ms + span_ms;
        for _ in 0..SETTLE_TURNS_MAX {
            for number in 0..self.clients.len() {
                if self.clients[number].state == State::Down && !self.is_going_home {
                    self.begin(number, false);
                }
            }
            self.turn();
            if self.is_failed() {
                return;
            }
            match self.is_idle() {
                true if self.now_ms >= until_ms => return,
                true => self.now_ms = self.next_event_ms().clamp(self.now_ms + 1, until_ms),
                false => self.now_ms = (self.now_ms + 5).min(self.next_event_ms()).max(self.now_ms),
            }
            self.model.now_ms = self.now_ms;
        }
        let busy: Vec<String> = (self.clients.iter())
            .filter(|client| !client.is_settled() || client.state != State::Up)
            .map(|client| format!("{} {:?}", client.profile.id, client.state))
            .collect();
        self.model.fail(format!("the world does not come to rest; busy: {busy:?}"));
    }

    /// Sessions, subscriptions and retained messages are taken back; then nothing may be left.
    fn go_home(&mut self) {
        if self.plan.has_hostile {
            return;
        }
        self.is_going_home = true;
        let last = self.clients.len() - 1;
        self.settle(1_000);
        for number in 0..self.clients.len() {
            self.begin(number, true);
        }
        self.settle(1_000);
        if self.plan.config.retain_available {
            for topic in self.plan.topics.clone() {
                let draft = Draft { topic: topic.to_string(), qos: 0, retain: true, len: 0, expiry_s: None };
                self.clients[last].publish(&draft, &mut self.model);
            }
        }
        self.settle(1_000);
        for client in &mut self.clients {
            client.disconnect(ReasonCode::Success, None, &mut self.model);
        }
        self.settle(1_000);
        // The timer of a retained message that was taken back may fire once more, and the wheel may look a few times before.
        for _ in 0..10 {
            let Some(deadline) = self.node.broker.next_deadline() else { break };
            self.now_ms = self.now_ms.max(deadline.0);
            self.turn();
        }
        let broker = &self.node.broker;
        let left = [
            ("links", broker.link_count()),
            ("sessions", broker.session_count()),
            ("subscriptions", broker.subscription_count()),
            ("retained messages", broker.retained_count()),
            ("retained bytes", broker.retained_bytes()),
            ("deadlines", usize::from(broker.next_deadline().is_some())),
        ];
        for (what, count) in left {
            if count > 0 && !self.is_failed() {
                self.model.fail(format!("{count} {what} left at the end"));
            }
        }
    }

    /// Connects a client, giving up its present connection without a word.
    fn begin(&mut self, number: usize, is_clean: bool) {
        let conn = self.dial(Some(number));
        let has_will = self.has_faults && self.rng.chance(self.plan.will_percent);
        let will = has_will.then(|| {
            let mut draft = self.draft(number);
            draft.len = draft.len.min(140);
            draft
        });
        let delay_s = *self.rng.pick(&[0, 0, 2, 20]);
        self.clients[number].connect(conn, is_clean, will, delay_s, &mut self.model);
    }

    /// One thing a client may do in a turn.
    pub(super) fn act(&mut self, number: usize) {
        let rates = &self.plan.rates;
        let dice = |percent: usize, world: &mut World| world.rng.chance(percent);
        let client = &self.clients[number];
        if client.stalled_until_ms > self.now_ms {
            return;
        }
        let (publish, subscribe, unsubscribe) = (rates.publish, rates.subscribe, rates.unsubscribe);
        let (leave, hang_up, half_close) = (rates.disconnect, rates.hang_up, rates.half_close);
        let (stall, silence, take_over, connect) = (rates.stall, rates.silence, rates.take_over, rates.connect);
        match client.state {
            State::Down => {
                if dice(connect, self) {
                    let is_clean = self.rng.chance(10);
                    self.begin(number, is_clean);
                }
                return;
            }
            State::Leaving => return,
            State::Connecting => {}
            State::Up => {
                if client.profile.publishes && dice(publish, self) {
                    self.publish_burst(number);
                }
                if self.clients[number].profile.subscribes && dice(subscribe, self) {
                    self.subscribe(number);
                }
                if dice(unsubscribe, self) {
                    self.unsubscribe(number);
                }
                if dice(leave, self) {
                    self.leave(number);
                    return;
                }
            }
        }
        if dice(hang_up, self) || dice(half_close, self) && self.clients[number].state == State::Up {
            let end = if self.rng.chance(50) { End::Reset } else { End::Closed };
            if let Some(conn) = self.clients[number].conn {
                self.model.note(|| format!("client {number} ends conn {conn}: {end:?}"));
                self.conns[conn].close(end);
                self.clients[number].lost();
            }
        } else if dice(stall, self) {
            self.clients[number].stalled_until_ms = self.now_ms + self.rng.between(20, 10_000) as u64;
        } else if dice(silence, self) {
            self.clients[number].is_silent = true;
            self.clients[number].stalled_until_ms = self.now_ms + self.rng.between(1_000, 200_000) as u64;
        } else if dice(take_over, self) {
            let is_clean = self.rng.chance(20);
            self.begin(number, is_clean);
        }
    }

    fn draft(&mut self, number: usize) -> Draft {
        let is_5 = self.clients[number].profile.version == Version::V5;
        let qos = self.rng.between(0, self.clients[number].profile.qos_max as usize) as u8;
        let retain = self.rng.chance(self.plan.retain_percent);
        let len = match self.rng.below(20) {
            0 => 0,
            1 if retain => 0,
            1..15 => self.rng.between(5, 20),
            _ => self.rng.between(5, self.plan.payload_max),
        };
        let expiry_s = (is_5 && self.rng.chance(self.plan.expiry_percent)).then(|| *self.rng.pick(&[1, 3, 60]));
        let topic = if self.rng.chance(1) { "$SYS/forbidden" } else { *self.rng.pick(&self.plan.topics) };
        Draft { topic: topic.to_string(), qos, retain, len, expiry_s }
    }

    fn publish_burst(&mut self, number: usize) {
        for _ in 0..self.rng.between(1, self.plan.rates.burst_max) {
            let draft = self.draft(number);
            let client = &mut self.clients[number];
            if client.out.len() < 300_000 && (draft.qos == 0 || client.has_quota()) {
                client.publish(&draft, &mut self.model);
            }
        }
    }

    fn subscribe(&mut self, number: usize) {
        let profile = &self.clients[number].profile;
        let is_5 = profile.version == Version::V5;
        let (uses_ids, qos_max) = (profile.uses_subscription_ids, 2);
        let mut id = 0;
        if is_5 && self.plan.has_shares && self.rng.chance(40) {
            let filter = format!("$share/g{}/{}", self.rng.below(2), self.rng.pick(&self.plan.filters));
            id = self.next_subscription_id;
            self.next_subscription_id += 1;
            let options = options(self.rng.between(0, qos_max));
            self.clients[number].subscribe(&[(filter, options)], id, &mut self.model);
            return;
        }
        if uses_ids {
            id = self.next_subscription_id;
            self.next_subscription_id += 1;
        }
        let mut filters: Vec<(String, SubscribeOptions)> = Vec::new();
        for _ in 0..self.rng.between(1, 3) {
            let filter = match self.rng.chance(1) {
                true => "deep/".repeat(250) + "#",
                false => self.rng.pick(&self.plan.filters).to_string(),
            };
            let mut options = options(self.rng.between(0, qos_max));
            options.no_local = self.rng.chance(20);
            options.retain_as_published = self.rng.chance(20);
            options.retain_handling =
                *self.rng.pick(&[RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend]);
            if filters.iter().all(|(other, _)| *other != filter) {
                filters.push((filter, options));
            }
        }
        self.clients[number].subscribe(&filters, id, &mut self.model);
    }

    fn unsubscribe(&mut self, number: usize) {
        let own: Vec<String> = self.clients[number].filters.keys().cloned().collect();
        let filter = match own.is_empty() || self.rng.chance(20) {
            true => self.rng.pick(&self.plan.filters).to_string(),
            false => self.rng.pick(&own).clone(),
        };
        self.clients[number].unsubscribe(&filter, &mut self.model);
    }

    fn leave(&mut self, number: usize) {
        let profile = &self.clients[number].profile;
        let is_5 = profile.version == Version::V5;
        let may_change = is_5 && self.clients[number].may_change_expiry();
        let reason = match is_5 && self.rng.chance(30) {
            true => ReasonCode::DisconnectWithWillMessage,
            false => ReasonCode::Success,
        };
        let expiry_s = (may_change && self.rng.chance(20)).then(|| *self.rng.pick(&[0, 10, 1000]));
        self.clients[number].disconnect(reason, expiry_s, &mut self.model);
    }

    pub(super) fn act_hostile(&mut self) {
        let Some(mut hostile) = self.hostile.take() else { return };
        match hostile.conn {
            None if self.rng.chance(10) => {
                let conn = self.dial(None);
                hostile = Hostile::new(conn, &mut self.rng);
            }
            None => {}
            Some(at) => {
                hostile.act(&mut self.conns[at], &mut self.rng);
                self.note_room(at);
            }
        }
        self.hostile = Some(hostile);
    }
}

pub fn options(qos: usize) -> SubscribeOptions {
    SubscribeOptions {
        qos: Model::qos(qos as u8),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}
