//! Who waits for whom. A publisher that fills the queue of a client that reads is paused until that client caught up, so
//! nothing is lost. A client that takes no byte and acknowledges nothing for the stall timeout is stalled: nobody waits for
//! it, and its queue's limits act, until it takes something again.
//!
//! A paused link stands in the waiting list of exactly one other; the lists are chained through the links.

use super::clients::Clients;
use super::deliver::is_low;
use super::link::{Link, LinkId, Paused, State};
use super::{Broker, NONE, timers};
use crate::time::Millis;
use crate::wheel::TimerId;

impl Broker {
    /// The client of `id` took bytes or acknowledged something: more may be sent, and others may go on.
    pub(super) fn progress(&mut self, id: LinkId, now: Millis) {
        let link = &mut self.clients.links[id as usize];
        link.last_progress = now;
        if link.is_stalled {
            link.is_stalled = false;
            log::debug!("Client {} reads again.", self.clients.name(id));
        }
        let link = &mut self.clients.links[id as usize];
        if link.paused == Paused::ForOwnOutput && link.output.own_len() <= Link::OUTPUT_MAX / 2 {
            link.paused = Paused::No;
            self.resumed.push(id);
        }
        let session = link.session;
        if session == NONE {
            return;
        }
        if self.clients.sessions[session as usize].delivery.is_some() {
            self.pump(session, now);
        }
        if self.clients.links[id as usize].first_waiter != NONE && self.clients.may_release(id) {
            self.release_waiters(id);
        }
    }

    /// Lets everybody go on who waits for `id`.
    pub(super) fn release_waiters(&mut self, id: LinkId) {
        let link = &mut self.clients.links[id as usize];
        let timer = std::mem::replace(&mut link.stall_timer, TimerId::NONE);
        let mut waiter = std::mem::replace(&mut link.first_waiter, NONE);
        self.clients.wheel.cancel(timer);
        while waiter != NONE {
            let link = &mut self.clients.links[waiter as usize];
            link.paused = Paused::No;
            self.resumed.push(waiter);
            waiter = std::mem::replace(&mut link.next_waiter, NONE);
        }
    }

    /// The time others wait for `id` is up, unless it took something meanwhile.
    pub(super) fn check_stall(&mut self, id: LinkId, now: Millis) {
        let timeout = Millis(self.clients.config.stall_timeout_ms.into());
        let link = &mut self.clients.links[id as usize];
        link.stall_timer = TimerId::NONE;
        if link.first_waiter == NONE {
            return;
        }
        let deadline = link.last_progress + timeout;
        if deadline > now {
            self.clients.arm_stall(id, deadline);
            return;
        }
        link.is_stalled = true;
        self.clients.stats.stalls += 1;
        log::info!(
            "Client {} has taken nothing for {} ms; publishers no longer wait for it.",
            self.clients.name(id),
            timeout.0
        );
        self.release_waiters(id);
    }
}

impl Clients {
    /// Pauses `publisher` until the client of `slow` caught up.
    pub(super) fn pause(&mut self, publisher: LinkId, slow: LinkId, now: Millis) {
        let next = self.links[slow as usize].first_waiter;
        let link = &mut self.links[publisher as usize];
        if link.is_paused() || link.state == State::Closing {
            return;
        }
        link.paused = Paused::ForSubscriber(slow);
        link.next_waiter = next;
        self.links[slow as usize].first_waiter = publisher;
        self.stats.pauses += 1;
        if self.links[slow as usize].stall_timer == TimerId::NONE {
            self.arm_stall(slow, now + Millis(self.config.stall_timeout_ms.into()));
        }
    }

    /// Takes a paused link out of the list it waits in.
    pub(super) fn stop_waiting(&mut self, id: LinkId) {
        let Paused::ForSubscriber(slow) = std::mem::replace(&mut self.links[id as usize].paused, Paused::No) else {
            return;
        };
        let next = std::mem::replace(&mut self.links[id as usize].next_waiter, NONE);
        let mut at = self.links[slow as usize].first_waiter;
        if at == id {
            self.links[slow as usize].first_waiter = next;
            return;
        }
        while at != NONE {
            let link = &mut self.links[at as usize];
            if link.next_waiter == id {
                link.next_waiter = next;
                return;
            }
            at = link.next_waiter;
        }
    }

    fn may_release(&self, id: LinkId) -> bool {
        let session = self.links[id as usize].session;
        let delivery = self.sessions.get(session as usize).and_then(|session| session.delivery.as_deref());
        delivery.is_none_or(|it| is_low(it, self.config.max_queued_messages, self.config.max_queued_bytes))
    }

    fn arm_stall(&mut self, id: LinkId, deadline: Millis) {
        self.links[id as usize].stall_timer = self.wheel.arm(deadline, timers::stall(id));
    }
}
