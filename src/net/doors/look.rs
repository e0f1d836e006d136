//! What is not there yet: when it is looked for again, and what is bound when it has come.

use std::mem;

use log::debug;
use mio::event::Source;

use super::{Doors, LOOKUPS, ListenerId, Served, WATCH, bind, is_tcp, name, port, register};
use crate::net::lookup::Lookup;
use crate::net::place::Place;
use crate::net::watch::Watch;
use crate::net::{Listener, OpenError, wanted};
use crate::time::Millis;

/// When to look again after word of an address, and again: it comes shortly before the address can be bound.
pub(super) const FOLLOW_UPS: [Millis; 3] = [Millis(50), Millis(250), Millis(600)];
/// How often to look where the kernel gives no word: for a listener that is not served at all, and for what a served one lacks.
const LOOK_INTERVAL: Millis = Millis(500);
const LOOK_INTERVAL_SERVED: Millis = Millis(10_000);
/// How often to try again what failed though it is there: somebody else listens on the address that came.
const FAILED_INTERVAL: Millis = Millis(10_000);
/// How long until a name is asked for again, at first and at most.
pub(super) const LOOKUP_DELAY_MIN: Millis = Millis(1000);
const LOOKUP_DELAY_MAX: Millis = Millis(30_000);

impl Doors {
    /// Looks for what is missing, if there is a reason.
    pub fn turn(&mut self, now: Millis) {
        if mem::take(&mut self.has_news) && self.watch.as_mut().is_some_and(Watch::drain) {
            (self.news_at, self.follow_ups) = (now, &FOLLOW_UPS);
            for (_, served) in &mut self.listeners {
                served.lookup_at = served.lookup_at.map(|_| now);
                served.lookup_delay = LOOKUP_DELAY_MIN;
            }
            self.is_due = true;
        }
        if !mem::take(&mut self.is_due) && self.look_at.is_none_or(|at| at > now) {
            return;
        }
        while let [at, rest @ ..] = self.follow_ups
            && self.news_at + *at <= now
        {
            self.follow_ups = rest;
        }
        let ids: Vec<ListenerId> = self.listeners.iter().map(|(id, _)| id as ListenerId).collect();
        for id in ids {
            self.turn_lookup(id, now);
            let served = &self.listeners[id as usize];
            let is_wanting = served.is_waiting || served.config.interface.is_some();
            if !served.is_removed && is_wanting && served.failed_until.is_none_or(|until| until <= now) {
                self.look_again(id, now);
            }
        }
        self.plan_next_look(now);
    }

    /// Asks for what a name stands for, and hears of it.
    fn turn_lookup(&mut self, id: ListenerId, now: Millis) {
        let is_served = self.doors.iter().any(|(_, door)| door.serves(id));
        let served = &mut self.listeners[id as usize];
        let Some(host) = name(&served.config) else { return };
        let mut failed = None;
        if let Some(answer) = served.lookup.as_mut().and_then(Lookup::answer) {
            if let (Some(registry), Some(mut lookup)) = (&self.registry, served.lookup.take()) {
                let _ = lookup.deregister(registry);
            }
            match answer {
                Ok(addresses) => served.resolved = Some(addresses),
                Err(error) => failed = Some(error),
            }
        }
        let is_provisional_in_vain = failed.is_some() && mem::take(&mut served.is_provisional);
        // A name without addresses here may be about to get others.
        let is_wanting = served.is_waiting && !served.is_removed && (served.resolved.is_none() || !is_served);
        if !is_wanting {
            served.lookup_at = None;
        } else if served.lookup.is_none() && served.lookup_at.is_none_or(|at| at <= now) {
            if served.lookup_at.take().is_some() {
                match Lookup::start(host) {
                    Ok(mut lookup) => {
                        register(&self.registry, &mut lookup, self.first_token + LOOKUPS);
                        served.lookup = Some(lookup);
                    }
                    Err(error) => failed = Some(error),
                }
            }
            if served.lookup.is_none() {
                served.lookup_at = Some(now + served.lookup_delay);
                served.lookup_delay = (served.lookup_delay + served.lookup_delay).min(LOOKUP_DELAY_MAX);
            }
        }
        if let Some(error) = failed
            && served.resolved.is_none()
        {
            let trouble = OpenError::Lookup { host: host.to_string(), error: Some(error) };
            self.tell(id, Some(trouble));
        }
        if is_provisional_in_vain {
            self.leave_doors_but(id, &[]);
        }
    }

    /// Leaves the sockets of a listener that are at none of these places.
    fn leave_doors_but(&mut self, id: ListenerId, places: &[Place]) {
        for (_, door) in &mut self.doors {
            if door.owner == id && !places.iter().any(|place| door.listener.serves(place)) {
                door.is_leaving = true;
                self.is_idle = false;
            }
        }
    }

    /// Binds what is missing of a listener, if it can be by now.
    fn look_again(&mut self, id: ListenerId, now: Millis) {
        let served = &self.listeners[id as usize];
        let has_interface = served.config.interface.is_some();
        let (mut is_waiting, mut trouble) = (false, None);
        let places = match wanted::places(&served.config, served.port, served.resolved.as_deref()) {
            Ok(places) => places,
            Err(OpenError::Lookup { .. }) => return,
            Err(error) => {
                is_waiting = true;
                trouble = Some(error);
                Vec::new()
            }
        };
        let is_provisional = mem::take(&mut self.listeners[id as usize].is_provisional);
        if is_provisional {
            self.leave_doors_but(id, &places);
        }
        for place in &places {
            if self.doors.iter().any(|(_, door)| door.serves(id) && door.listener.serves(place)) {
                continue;
            }
            let served = &self.listeners[id as usize];
            let mut place = place.clone();
            if let Place::Tcp(address) = &mut place {
                address.set_port(served.port);
            }
            let leaving: Vec<&Listener> =
                self.doors.iter().filter(|(_, door)| door.is_leaving).map(|(_, door)| &door.listener).collect();
            let result = bind(&served.config, &place, &leaving, &[]);
            for listener in leaving.into_iter().chain(&result).filter(|listener| is_tcp(listener)) {
                let _ = listener.share(false);
            }
            match result {
                Ok(listener) => {
                    self.listeners[id as usize].port = port(&listener);
                    self.add(id, listener);
                }
                Err(error) => {
                    is_waiting |= error.may_pass() || !error.is_absence();
                    trouble = Some(error);
                }
            }
        }
        // Addresses come and go with the networks an interface is in.
        if has_interface && !matches!(trouble, Some(OpenError::Interfaces(_))) {
            self.leave_doors_but(id, &places);
        }
        let served = &mut self.listeners[id as usize];
        served.is_waiting = is_waiting;
        let has_failed = trouble.as_ref().is_some_and(|trouble| !trouble.may_pass() && !trouble.is_absence());
        served.failed_until = has_failed.then(|| now + FAILED_INTERVAL);
        self.tell(id, trouble);
    }

    /// When to look again, and whether the kernel is to say when something comes.
    pub(super) fn plan_next_look(&mut self, now: Millis) {
        let active = || self.listeners.iter().map(|(_, served)| served).filter(|served| !served.is_removed);
        let is_wanting = active().any(|served| served.is_waiting || served.config.interface.is_some());
        if !is_wanting {
            (self.watch, self.follow_ups, self.look_at) = (None, &[], None);
            return;
        }
        let follow_up = self.follow_ups.first().map(|at| self.news_at + *at);
        let lookup = active().filter_map(|served| served.lookup_at).min();
        let failed = active().filter_map(|served| served.failed_until).min();
        let is_unserved = |(id, served): (usize, &Served)| {
            served.is_waiting && !self.doors.iter().any(|(_, door)| door.serves(id as ListenerId))
        };
        let interval = if self.listeners.iter().any(is_unserved) { LOOK_INTERVAL } else { LOOK_INTERVAL_SERVED };
        let unwatched = self.has_no_watch.then(|| now + interval);
        self.look_at = follow_up.into_iter().chain(lookup).chain(failed).chain(unwatched).min();
        if self.watch.is_none() && !self.has_no_watch && self.registry.is_some() {
            match Watch::new() {
                Ok(mut watch) => {
                    register(&self.registry, &mut watch, self.first_token + WATCH);
                    self.watch = Some(watch);
                    // What came before there was a watch.
                    self.is_due = true;
                }
                Err(error) => {
                    debug!("The system does not say when addresses come: {error}. They are looked for instead.");
                    self.has_no_watch = true;
                    self.is_due = true;
                }
            }
        }
    }
}
