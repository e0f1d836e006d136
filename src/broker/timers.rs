//! What the wheel is used for: connection timeouts, stalls, publishers that were too fast, and per session either retransmission (while connected) or the
//! will and the end (while not). Timers are checked lazily: a packet only notes the time, and a timer that fires too soon
//! is armed again.

use super::clients::Clients;
use super::close::CloseReason;
use super::link::{LinkId, Paused, State};
use super::session::Inflight;
use super::{Broker, NONE};
use crate::time::Millis;
use crate::wheel::{Owner, TimerId};

const LINK: u8 = 0;
const STALL: u8 = 1;
const SESSION: u8 = 2;
const RETAINED: u8 = 3;
const SYS: u8 = 4;
const RATE: u8 = 5;

/// The one timer of the topics below `$SYS`.
pub(super) const SYS_OWNER: Owner = Owner { kind: SYS, id: 0 };

/// Deadlines that need not be exact are rounded up to this, so that many share one wake-up.
const COARSE_MS: u64 = 250;

/// The retransmission interval doubles up to 64 times its beginning.
const BACKOFF_MAX: u8 = 6;

pub(super) fn link(id: LinkId) -> Owner {
    Owner { kind: LINK, id }
}

pub(super) fn stall(id: LinkId) -> Owner {
    Owner { kind: STALL, id }
}

pub(super) fn rate(id: LinkId) -> Owner {
    Owner { kind: RATE, id }
}

pub(super) fn round(deadline: Millis) -> Millis {
    deadline.round_up(COARSE_MS)
}

impl Broker {
    pub(super) fn fire(&mut self, owner: Owner, now: Millis) {
        match owner.kind {
            LINK => self.check_link(owner.id, now),
            STALL => self.check_stall(owner.id, now),
            SESSION => {
                let session = self.clients.session_mut(owner.id);
                session.timer = TimerId::NONE;
                match session.is_connected() {
                    true => self.clients.retransmit(owner.id, now),
                    false => self.session_due(owner.id, now),
                }
            }
            SYS => self.sys_due(now),
            RATE => self.rate_due(owner.id),
            _ => {
                self.retained_timer = TimerId::NONE;
                self.retained.expire(now);
                self.arm_retained();
            }
        }
    }

    /// Arms the one timer of retained messages for the first that expires.
    pub(super) fn arm_retained(&mut self) {
        self.clients.wheel.cancel(std::mem::replace(&mut self.retained_timer, TimerId::NONE));
        if let Some(deadline) = self.retained.next_expiry() {
            self.retained_timer = self.clients.wheel.arm(round(deadline), Owner { kind: RETAINED, id: 0 });
        }
    }

    /// CONNECT timeout or keep-alive.
    fn check_link(&mut self, id: LinkId, now: Millis) {
        let link = &mut self.clients.links[id as usize];
        link.timer = TimerId::NONE;
        match link.state {
            State::Closing => {}
            State::AwaitingConnect if link.paused == Paused::ForLogin => {
                let reason = CloseReason::login_timeout().with_caller(self.login.caller(id));
                self.refuse(id, reason, now)
            }
            State::AwaitingConnect => self.close(id, CloseReason::connect_timeout(), now),
            State::Connected => {
                // A client that is not listened to cannot be blamed for silence; one that does not read can.
                let heard = match link.paused {
                    _ if link.is_resumed || link.held.is_some() => now,
                    Paused::No => link.last_received,
                    Paused::ForSubscriber | Paused::ForStore | Paused::ForLogin | Paused::ForRate => now,
                    Paused::ForOwnOutput => link.last_received,
                };
                let deadline = heard + link.patience();
                match deadline > now {
                    true => link.timer = self.clients.wheel.arm(round(deadline), self::link(id)),
                    false => self.close(id, CloseReason::keep_alive(), now),
                }
            }
        }
    }
}

impl Clients {
    /// Starts keep-alive after CONNECT, in place of the CONNECT timeout.
    pub(super) fn arm_keep_alive(&mut self, id: LinkId, now: Millis) {
        let link = &mut self.links[id as usize];
        self.wheel.cancel(std::mem::replace(&mut link.timer, TimerId::NONE));
        if link.keep_alive_s != 0 {
            let deadline = now + link.patience();
            link.timer = self.wheel.arm(round(deadline), self::link(id));
        }
    }

    /// Arms the timer of a session without link for its will and its end.
    pub(super) fn arm_session(&mut self, id: u32) {
        let session = &mut self.sessions[id as usize];
        self.wheel.cancel(std::mem::replace(&mut session.timer, TimerId::NONE));
        let deadline = session.will_due_at().min(session.expires_at);
        if deadline != Millis::NEVER {
            session.timer = self.wheel.arm(round(deadline), Owner { kind: SESSION, id });
        }
    }

    /// Makes sure that unacknowledged messages are sent again, where the version does so. [MQTT-4.4.0-1] (5.0) forbids it.
    pub(super) fn arm_retry(&mut self, id: u32, now: Millis) {
        let session = &mut self.sessions[id as usize];
        let Some(link) = self.links.get(session.link as usize) else { return };
        if self.config.retry_interval_s == 0 || session.timer != TimerId::NONE {
            return;
        }
        if link.version.retransmits_while_connected() {
            let deadline = now + Millis::from_secs(self.config.retry_interval_s.into());
            session.timer = self.wheel.arm(round(deadline), Owner { kind: SESSION, id });
        }
    }

    /// There is another retransmission interval: it begins now for whoever has something unacknowledged.
    pub(super) fn retry_interval_changed(&mut self, now: Millis) {
        let connected = self.sessions.iter().filter(|(_, session)| session.is_connected());
        for id in connected.map(|(id, _)| id as u32).collect::<Vec<_>>() {
            let session = &mut self.sessions[id as usize];
            self.wheel.cancel(std::mem::replace(&mut session.timer, TimerId::NONE));
            if session.delivery.as_deref().is_some_and(|delivery| delivery.sent > 0) {
                self.arm_retry(id, now);
            }
        }
    }

    /// Sends again what has gone unacknowledged for too long, oldest first; never while earlier output is unsent.
    fn retransmit(&mut self, id: u32, now: Millis) {
        let session = &mut self.sessions[id as usize];
        let link = session.link;
        let Some(delivery) = session.delivery.as_deref_mut() else { return };
        if link == NONE || delivery.sent == 0 {
            return;
        }
        let interval = Millis::from_secs(u64::from(self.config.retry_interval_s) << delivery.backoff);
        let oldest = delivery.inflight.iter().take(delivery.sent).map(|entry| entry.sent_at).min();
        let deadline = oldest.map_or(now, |sent_at| sent_at + interval);
        if deadline > now {
            session.timer = self.wheel.arm(round(deadline), Owner { kind: SESSION, id });
            return;
        }
        if !self.links[link as usize].output.is_empty() {
            self.arm_retry(id, now);
            return;
        }
        delivery.backoff = (delivery.backoff + 1).min(BACKOFF_MAX);
        let sent = delivery.sent;
        for at in 0..sent {
            let delivery = self.sessions[id as usize].delivery_mut();
            let durable = self.store.durable();
            let is_due = |entry: &Inflight| entry.sent_at + interval <= now && entry.gate <= durable;
            if !delivery.inflight.get(at).is_some_and(is_due) {
                continue;
            }
            if self.links[link as usize].output.len() >= self.memory.output_high {
                break;
            }
            self.stats.retransmissions += 1;
            self.send_again(id, at, now);
        }
        self.arm_retry(id, now);
    }
}
