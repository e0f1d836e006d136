//! Who waits for whom. A publisher that fills the queue of a client that reads is paused until that client caught up, so
//! nothing is lost. A client that makes no progress for the stall timeout is stalled: nobody waits for it, and its queue's
//! limits act, until it makes some. Progress is an acknowledged message, or a kilobyte taken: a client that only answers pings,
//! or takes a byte now and then, must not hold up the house.
//!
//! A paused link stands in the waiting list of exactly one other; the lists are chained through the links.

use super::clients::Clients;
use super::deliver::is_low;
use super::link::{LinkId, Paused, State};
use super::session::Delivery;
use super::{Broker, NONE, timers};
use crate::time::Millis;
use crate::wheel::TimerId;

/// Bytes that count as progress: about what a serial line at 9600 baud takes in the default stall timeout.
const PROGRESS_BYTES: usize = 1024;

impl Broker {
    /// The client of `id` took bytes.
    pub(super) fn took(&mut self, id: LinkId, count: usize, now: Millis) {
        let link = &mut self.clients.links[id as usize];
        if link.paused == Paused::ForOwnOutput {
            // All that can be heard of it now is that it reads.
            link.last_received = now;
        }
        if let Some(awaited) = link.if_awaited() {
            awaited.taken = awaited.taken.saturating_add(count);
            if awaited.taken >= PROGRESS_BYTES {
                self.clients.note_progress(id, now);
            }
        }
        self.send_more(id, now);
    }

    /// The client of `id` acknowledged a message.
    pub(super) fn acknowledged(&mut self, id: LinkId, now: Millis) {
        self.clients.note_progress(id, now);
        self.send_more(id, now);
    }

    /// There may be room: more is sent, and others may go on.
    pub(super) fn send_more(&mut self, id: LinkId, now: Millis) {
        let link = &mut self.clients.links[id as usize];
        let session = link.session;
        if link.paused == Paused::ForOwnOutput && link.answers_len() <= self.clients.memory.answers_max / 2 {
            link.paused = Paused::No;
            self.let_go_on(id);
        }
        if session == NONE {
            return;
        }
        if self.clients.sessions[session as usize].delivery.as_deref().is_some_and(Delivery::has_more) {
            self.pump(session, now);
        }
        if self.clients.links[id as usize].first_waiter() != NONE && self.clients.may_release(id) {
            self.release_waiters(id);
        }
    }

    /// The link's turn comes with the next `resume`.
    pub(super) fn let_go_on(&mut self, id: LinkId) {
        let link = &mut self.clients.links[id as usize];
        if !std::mem::replace(&mut link.is_resumed, true) {
            self.resumed.push(id);
        }
    }

    /// Lets everybody go on who waits for `id`.
    pub(super) fn release_waiters(&mut self, id: LinkId) {
        let Some(awaited) = self.clients.links[id as usize].if_awaited() else { return };
        let timer = std::mem::replace(&mut awaited.stall_timer, TimerId::NONE);
        let mut waiter = std::mem::replace(&mut awaited.first_waiter, NONE);
        self.clients.wheel.cancel(timer);
        while waiter != NONE {
            let link = &mut self.clients.links[waiter as usize];
            let next = link.end_wait().1;
            self.let_go_on(waiter);
            waiter = next;
        }
    }

    /// The time others wait for `id` is up, unless it made progress meanwhile.
    pub(super) fn check_stall(&mut self, id: LinkId, now: Millis) {
        let timeout = Millis(self.clients.config.stall_timeout_ms.into());
        let awaited = self.clients.links[id as usize].awaited_mut();
        awaited.stall_timer = TimerId::NONE;
        if awaited.first_waiter == NONE {
            return;
        }
        let deadline = awaited.last_progress + timeout;
        if deadline > now {
            self.clients.arm_stall(id, deadline);
            return;
        }
        self.clients.links[id as usize].is_stalled = true;
        self.clients.stats.stalls += 1;
        log::info!(
            client = self.clients.client_id(id);
            "Client {} has taken next to nothing for {} ms; publishers no longer wait for it.",
            self.clients.name(id),
            timeout.0
        );
        self.release_waiters(id);
    }
}

impl Clients {
    /// Pauses `publisher` until the client of `slow` caught up.
    pub(super) fn pause(&mut self, publisher: LinkId, slow: LinkId, now: Millis) {
        let next = self.links[slow as usize].first_waiter();
        let link = &mut self.links[publisher as usize];
        debug_assert!(!link.is_paused() && link.state != State::Closing);
        link.paused = Paused::ForSubscriber;
        let rare = link.rare_mut();
        (rare.waits_for, rare.next_waiter) = (slow, next);
        let awaited = self.links[slow as usize].awaited_mut();
        awaited.first_waiter = publisher;
        self.stats.pauses += 1;
        if awaited.stall_timer == TimerId::NONE {
            // The wait begins now, whatever the client did while nothing was due to it.
            awaited.last_progress = now;
            awaited.taken = 0;
            self.arm_stall(slow, now + Millis(self.config.stall_timeout_ms.into()));
        }
    }

    /// There is another stall timeout: it holds for waits that are under way, too.
    pub(super) fn stall_timeout_changed(&mut self) {
        let timeout = Millis(self.config.stall_timeout_ms.into());
        let waits = self.links.iter().filter_map(|(id, link)| {
            let awaited = link.awaited().filter(|awaited| awaited.stall_timer != TimerId::NONE)?;
            Some((id as LinkId, awaited.stall_timer, awaited.last_progress + timeout))
        });
        for (id, timer, deadline) in waits.collect::<Vec<_>>() {
            self.wheel.cancel(timer);
            self.arm_stall(id, deadline);
        }
    }

    fn note_progress(&mut self, id: LinkId, now: Millis) {
        let link = &mut self.links[id as usize];
        if let Some(awaited) = link.if_awaited() {
            awaited.last_progress = now;
            awaited.taken = 0;
        }
        link.is_unheard = false;
        if std::mem::replace(&mut link.is_stalled, false) {
            log::debug!("Client {} reads again.", self.name(id));
        }
    }

    /// Takes a paused link out of the list it waits in.
    pub(super) fn stop_waiting(&mut self, id: LinkId) {
        let (slow, next) = self.links[id as usize].end_wait();
        if slow == NONE {
            return;
        }
        let mut at = self.links[slow as usize].first_waiter();
        if at == id {
            let awaited = self.links[slow as usize].awaited_mut();
            awaited.first_waiter = next;
            if next == NONE {
                self.wheel.cancel(std::mem::replace(&mut awaited.stall_timer, TimerId::NONE));
            }
            return;
        }
        while at != NONE {
            let link = &mut self.links[at as usize];
            let after = link.next_waiter();
            if after == id {
                link.rare_mut().next_waiter = next;
                return;
            }
            at = after;
        }
    }

    fn may_release(&self, id: LinkId) -> bool {
        let session = self.links[id as usize].session;
        let delivery = self.sessions.get(session as usize).and_then(|session| session.delivery.as_deref());
        delivery.is_none_or(|it| is_low(it, self.config.max_queued_messages, self.config.max_queued_bytes))
    }

    fn arm_stall(&mut self, id: LinkId, deadline: Millis) {
        let timer = self.wheel.arm(deadline, timers::stall(id));
        self.links[id as usize].awaited_mut().stall_timer = timer;
    }
}
