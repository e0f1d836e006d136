//! All listeners: what was asked for, the sockets that serve it, and what is waited for because it is not there yet. Opening, a
//! reload and what comes later obey the same rules. Owns when a missing address is looked for again; the loop only says that
//! something happened, or that the time has come.
//!
//! A reload is planned first: everything new is bound while everything old stays. Only then it is committed, which cannot fail.
//! Connections outlive the listener they came through, and count for it until they end. Who waits at a socket that is closed is let
//! in before.
//!
//! What is not there yet, an address, an interface or what a name stands for, ends no start. The kernel says when an address or
//! an interface comes (`Watch`), so waiting costs nothing; names are asked for again after 1, 2, 4 and up to 30 seconds, and when
//! an address came. A lookup never holds up the loop for long: at the start it is waited for a little, at a reload less, later not at
//! all.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;
use std::{fs, io, mem};

use log::{Level, debug, error, info, warn};
use mio::event::Source;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::lookup::Lookup;
use super::place::Place;
use super::socket::FileChange;
use super::watch::Watch;
use super::{Accept, Inherited, Listener, OpenError, Refusal, wanted};
use crate::config::{Host, ListenerConfig, Protocol, Rules};
use crate::os::{Owner, Reserve, User};
use crate::time::Millis;

/// How often another free port is tried when the one found for the first address is taken on the second.
const FREE_PORT_ATTEMPTS: u32 = 8;
/// How long a start waits for a name's addresses before it goes on without: a server on the site answers long before.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// How long a reload does, for all names together and one: what this machine itself knows comes in a few.
const RELOAD_PATIENCE: Duration = Duration::from_millis(100);
/// When to look again after word of an address, and again: it comes shortly before the address can be bound.
const FOLLOW_UPS: [Millis; 3] = [Millis(50), Millis(250), Millis(600)];
/// How often to look where the kernel gives no word: for a listener that is not served at all, and for what a served one lacks.
const LOOK_INTERVAL: Millis = Millis(500);
const LOOK_INTERVAL_SERVED: Millis = Millis(10_000);
/// How often to try again what failed though it is there: somebody else listens on the address that came.
const FAILED_INTERVAL: Millis = Millis(10_000);
const LOOKUP_DELAY_MIN: Millis = Millis(1000);
const LOOKUP_DELAY_MAX: Millis = Millis(30_000);

/// Tokens, counted from the first: of the watch, of lookups, and from then on of sockets.
const WATCH: usize = 0;
const LOOKUPS: usize = 1;
const SOCKETS: usize = 2;

/// Number of a listener: connections are counted by it.
pub type ListenerId = u32;

/// Stands for no listener.
const NOBODY: ListenerId = ListenerId::MAX;

/// A socket, and whether somebody waits there.
struct Door {
    listener: Listener,
    owner: ListenerId,
    has_waiting: bool,
    retry_at: Option<Millis>,
    /// It is closed as soon as those are let in who wait there.
    is_leaving: bool,
}

impl Door {
    fn new(listener: Listener, owner: ListenerId) -> Door {
        Door { listener, owner, has_waiting: true, retry_at: None, is_leaving: false }
    }

    fn serves(&self, id: ListenerId) -> bool {
        self.owner == id && !self.is_leaving
    }
}

/// A listener.
struct Served {
    config: ListenerConfig,
    rules: Rc<Rules>,
    connections: u32,
    /// As asked for, or the free one that was found; 0 until then.
    port: u16,
    /// What its host's name stands for, as far as that is known.
    resolved: Option<Vec<SocketAddr>>,
    lookup: Option<Lookup>,
    lookup_at: Option<Millis>,
    lookup_delay: Millis,
    /// Something of it is not there yet.
    is_waiting: bool,
    /// Its sockets are those that another listener left at its port, until it is known what its name stands for.
    is_provisional: bool,
    /// When to try again what failed.
    failed_until: Option<Millis>,
    /// Said last of why it is not served.
    told: Option<String>,
    is_removed: bool,
}

pub struct Doors {
    listeners: Slab<Served>,
    doors: Slab<Door>,
    /// Nobody waits at a socket, and none is paused or to be closed: as it is in all turns of the loop but a few.
    is_idle: bool,
    registry: Option<Registry>,
    first_token: usize,
    watch: Option<Watch>,
    /// There is none to be had.
    has_no_watch: bool,
    has_news: bool,
    is_due: bool,
    follow_ups: &'static [Millis],
    news_at: Millis,
    look_at: Option<Millis>,
}

/// What a reload will do.
pub struct Plan {
    planned: Vec<Planned>,
    /// Of sockets that are kept.
    changes: Vec<FileChange>,
}

struct Planned {
    config: ListenerConfig,
    id: Option<ListenerId>,
    port: u16,
    resolved: Option<Vec<SocketAddr>>,
    lookup: Option<Lookup>,
    missing: Vec<Place>,
    kept: Vec<usize>,
    new: Vec<Listener>,
    trouble: Option<OpenError>,
    is_waiting: bool,
    is_provisional: bool,
}

/// Opens every socket of all listeners, or none. What is not there yet is waited for. A socket that was passed on is used instead
/// of one of our own where it fits.
pub fn open(configs: &[ListenerConfig], inherited: Inherited) -> Result<Doors, OpenError> {
    let mut doors = Doors {
        listeners: Slab::new(),
        doors: Slab::new(),
        is_idle: false,
        registry: None,
        first_token: 0,
        watch: None,
        has_no_watch: false,
        has_news: false,
        is_due: true,
        follow_ups: &[],
        news_at: Millis(0),
        look_at: None,
    };
    for warning in inherited.warnings {
        warn!("Warning: {warning}");
    }
    for listener in inherited.listeners {
        doors.doors.insert(Door::new(listener, NOBODY));
    }
    let plan = doors.plan_within(configs, true)?;
    let is_kept = |number: usize| plan.planned.iter().any(|planned| planned.kept.contains(&number));
    let unused: Vec<String> = doors
        .doors
        .iter()
        .filter(|(number, _)| !is_kept(*number))
        .map(|(_, door)| door.listener.place().to_string())
        .collect();
    if !unused.is_empty() {
        warn!("Warning: no listener is configured for the sockets that were passed on for {}.", unused.join(", "));
    }
    doors.commit(plan);
    Ok(doors)
}

impl Doors {
    /// To be called before the process becomes this user: sockets and files are to be such a one's as if it had made them. A port
    /// below 1024 that could not be bound yet it never can be.
    pub fn give_to(&self, user: &User) {
        for (_, door) in &self.doors {
            let config = self.listeners.get(door.owner as usize).map(|served| &served.config);
            match door.listener.place() {
                Place::Tcp(_) => door.listener.give_to(user.uid, user.gid),
                Place::Unix(path) if config.is_some_and(|config| config.socket_owner.is_none()) => {
                    let owner = Owner { user: user.uid, group: Some(user.gid) };
                    match door.listener.change_file(Some(owner), None) {
                        Ok(change) => change.into_iter().for_each(FileChange::keep),
                        Err(error) => warn!("Warning: the socket {} stays root's: {error}.", path.display()),
                    }
                }
                Place::Unix(_) => {}
            }
        }
        let first_free = unprivileged_ports_start();
        for (_, served) in self.listeners.iter().filter(|(_, served)| served.is_waiting && served.port < first_free) {
            let who = match &user.name {
                Some(name) => name.to_string_lossy().into_owned(),
                None => user.uid.to_string(),
            };
            let what = described(served);
            if user.uid != 0 && served.port != 0 {
                warn!(
                    "Warning: {what} waits for what is not there yet, and is below {first_free}, which user {who} may not bind: once \
                     it is there, midge has to be started again."
                );
            }
        }
    }

    /// Binds what the new listeners need and the old ones do not have. Until `commit` nothing changes but the files of Unix
    /// sockets, and if the plan is dropped nothing will, and they are what they were.
    ///
    /// # Errors
    /// When something new cannot be had, and not because it is not there yet.
    pub fn plan(&mut self, configs: &[ListenerConfig]) -> Result<Plan, OpenError> {
        self.plan_within(configs, false)
    }

    fn plan_within(&mut self, configs: &[ListenerConfig], is_start: bool) -> Result<Plan, OpenError> {
        let ids = self.recognise(configs);
        let mut planned: Vec<Planned> = Vec::new();
        let mut patience = if is_start { START_PATIENCE } else { RELOAD_PATIENCE };
        for (config, id) in configs.iter().zip(ids) {
            let mut plan = self.look_up(config, id, patience, is_start)?;
            // The loop stands still meanwhile.
            if plan.lookup.is_some() && !is_start {
                patience = Duration::ZERO;
            }
            let taken = |number: &usize| planned.iter().any(|other| other.kept.contains(number));
            for place in mem::take(&mut plan.missing) {
                let door = self.doors.iter().find(|(number, door)| door.listener.serves(&place) && !taken(number));
                match door {
                    Some((number, _)) if !plan.kept.contains(&number) => plan.kept.push(number),
                    Some(_) => {}
                    None => plan.missing.push(place),
                }
            }
            planned.push(plan);
        }
        for at in 0..planned.len() {
            let kept = self.kept_meanwhile(&planned, at);
            planned[at].is_provisional = !kept.is_empty();
            planned[at].kept.extend(kept);
        }
        let is_kept = |number: usize| planned.iter().any(|planned| planned.kept.contains(&number));
        let leaving: Vec<&Listener> =
            self.doors.iter().filter(|(number, _)| !is_kept(*number)).map(|(_, door)| &door.listener).collect();
        let mut ours: Vec<Place> = self
            .doors
            .iter()
            .filter(|(number, _)| is_kept(*number))
            .map(|(_, door)| door.listener.place().clone())
            .collect();
        let result = planned.iter_mut().try_for_each(|planned| {
            bind_planned(planned, &leaving, &ours)?;
            ours.extend(planned.new.iter().map(|listener| listener.place().clone()));
            Ok(())
        });
        // It was needed for the moment of binding alone. Who else of the same user asks for it may still be let in by the kernel.
        let new = planned.iter().flat_map(|planned| &planned.new);
        for listener in leaving.into_iter().chain(new).filter(|listener| is_tcp(listener)) {
            let _ = listener.share(false);
        }
        result?;
        let changes = self.change_files(&planned)?;
        Ok(Plan { planned, changes })
    }

    /// Until it is known what its name stands for, a listener keeps the sockets that others leave at its port.
    fn kept_meanwhile(&self, planned: &[Planned], at: usize) -> Vec<usize> {
        let is_asking = planned[at].id.is_some_and(|id| self.listeners[id as usize].lookup.is_some());
        let is_unknown = name(&planned[at].config).is_some() && planned[at].resolved.is_none();
        if !is_unknown || !(planned[at].lookup.is_some() || is_asking) {
            return Vec::new();
        }
        let is_free = |number: usize, place: &Place| {
            let in_the_way = |other: &Planned| other.missing.iter().any(|missing| missing.conflicts(place));
            !planned.iter().any(|other| other.kept.contains(&number) || in_the_way(other))
        };
        let doors = self.doors.iter().filter(|(_, door)| door.owner != NOBODY);
        doors
            .filter(|(number, door)| {
                let place = door.listener.place();
                matches!(place, Place::Tcp(address) if address.port() == planned[at].port) && is_free(*number, place)
            })
            .map(|(number, _)| number)
            .collect()
    }

    /// Gives the files of sockets that are kept another owner and mode, where those changed.
    fn change_files(&self, planned: &[Planned]) -> Result<Vec<FileChange>, OpenError> {
        let mut changes = Vec::new();
        for Planned { config, kept, .. } in planned {
            let Host::Unix(path) = &config.host else { continue };
            let failed = |error| OpenError::Unix { path: path.clone(), error };
            for door in kept.iter().map(|number| &self.doors[*number]).filter(|door| door.owner != NOBODY) {
                let old = &self.listeners[door.owner as usize].config;
                if (&old.socket_owner, old.socket_mode) != (&config.socket_owner, config.socket_mode) {
                    let owner = config.socket_owner.as_deref().map(Owner::parse).transpose().map_err(failed)?;
                    changes.extend(door.listener.change_file(owner, config.socket_mode).map_err(failed)?);
                }
            }
        }
        Ok(changes)
    }

    /// Which of the listeners there are each of the new ones continues.
    fn recognise(&self, configs: &[ListenerConfig]) -> Vec<Option<ListenerId>> {
        let mut ids: Vec<Option<ListenerId>> = vec![None; configs.len()];
        // The one that is the same in all that says where it listens, before one that was widened or narrowed.
        for is_loose in [false, true] {
            let is_it = |one: &ListenerConfig, other: &ListenerConfig| {
                let is_equal = one.interface == other.interface && one.domain == other.domain;
                one.port == other.port && one.host == other.host && (is_loose || is_equal)
            };
            for at in 0..configs.len() {
                let taken = |id: ListenerId| ids.contains(&Some(id));
                let mut old = self.listeners.iter().filter(|(_, served)| !served.is_removed);
                if ids[at].is_none() {
                    ids[at] = old
                        .find(|(id, served)| !taken(*id as ListenerId) && is_it(&served.config, &configs[at]))
                        .map(|(id, _)| id as ListenerId);
                }
            }
        }
        ids
    }

    /// What a listener is to be bound to.
    fn look_up(
        &self,
        config: &ListenerConfig,
        id: Option<ListenerId>,
        patience: Duration,
        is_start: bool,
    ) -> Result<Planned, OpenError> {
        if let (Host::Unix(path), Some(owner)) = (&config.host, &config.socket_owner) {
            Owner::parse(owner).map_err(|error| OpenError::Unix { path: path.clone(), error })?;
        }
        let old = id.map(|id| &self.listeners[id as usize]);
        let mut plan = Planned {
            config: config.clone(),
            id,
            port: old.map_or(config.port, |old| old.port),
            resolved: old.and_then(|old| old.resolved.clone()),
            lookup: None,
            missing: Vec::new(),
            kept: Vec::new(),
            new: Vec::new(),
            trouble: None,
            is_waiting: false,
            is_provisional: false,
        };
        if let Some(host) = name(config)
            && plan.resolved.is_none()
            && old.is_none_or(|old| old.lookup.is_none())
        {
            let lookup_failed = |error| OpenError::Lookup { host: host.to_string(), error: Some(error) };
            match Lookup::start(host) {
                Err(error) => plan.trouble = Some(lookup_failed(error)),
                Ok(mut lookup) => match lookup.wait(patience) {
                    Some(Ok(addresses)) => plan.resolved = Some(addresses),
                    Some(Err(error)) => plan.trouble = Some(lookup_failed(error)),
                    None => plan.lookup = Some(lookup),
                },
            }
        }
        match wanted::places(config, plan.port, plan.resolved.as_deref()) {
            Ok(places) => plan.missing = places,
            Err(error) if error.may_pass() => {
                plan.is_waiting = true;
                // Of a lookup that just began nothing is to be said.
                let is_news = is_start || !matches!(error, OpenError::Lookup { .. });
                plan.trouble = plan.trouble.or(is_news.then_some(error));
            }
            Err(error) => return Err(error),
        }
        Ok(plan)
    }

    /// Does what was planned. Connections stay.
    pub fn commit(&mut self, plan: Plan) {
        let kept: Vec<usize> = plan.planned.iter().flat_map(|planned| planned.kept.iter().copied()).collect();
        let ids: Vec<ListenerId> = plan.planned.iter().filter_map(|planned| planned.id).collect();
        let leaving: Vec<usize> =
            self.doors.iter().map(|(number, _)| number).filter(|number| !kept.contains(number)).collect();
        leaving.into_iter().for_each(|number| self.leave_door(number));
        let removed: Vec<usize> =
            self.listeners.iter().map(|(id, _)| id).filter(|id| !ids.contains(&(*id as ListenerId))).collect();
        for id in removed {
            self.listeners[id].is_removed = true;
            self.listeners[id].lookup = None;
            self.forget_removed(id as ListenerId);
        }
        for planned in plan.planned {
            self.commit_one(planned);
        }
        plan.changes.into_iter().for_each(FileChange::keep);
        self.judge_removed();
        self.is_due = true;
    }

    /// Clients of listeners that are gone obey, in what decides whether they are let in, those that serve their port now, or else
    /// all; unless these do not agree.
    fn judge_removed(&mut self) {
        let removed: Vec<usize> =
            self.listeners.iter().filter(|(_, served)| served.is_removed).map(|(id, _)| id).collect();
        for id in removed {
            let old = &self.listeners[id];
            let all = || self.listeners.iter().map(|(_, served)| served).filter(|served| !served.is_removed);
            let is_successor = |served: &&Served| old.port != 0 && served.port == old.port;
            let has_successor = all().any(|served| is_successor(&served));
            let mut judges = all()
                .filter(|served| !has_successor || is_successor(served))
                .map(|judge| judged(&old.rules, &judge.rules));
            let Some(rules) = judges.next() else { continue };
            if rules != *old.rules && judges.all(|other| other == rules) {
                self.listeners[id].rules = Rc::new(rules);
            }
        }
    }

    fn commit_one(&mut self, planned: Planned) {
        let is_lookup_needed = name(&planned.config).is_some() && planned.resolved.is_none();
        let id = planned.id.unwrap_or_else(|| {
            self.listeners.insert(Served {
                config: planned.config.clone(),
                rules: Rc::new(planned.config.rules.clone()),
                connections: 0,
                port: 0,
                resolved: None,
                lookup: None,
                lookup_at: None,
                lookup_delay: LOOKUP_DELAY_MIN,
                is_waiting: false,
                is_provisional: false,
                failed_until: None,
                told: None,
                is_removed: false,
            }) as ListenerId
        });
        let served = &mut self.listeners[id as usize];
        served.config = planned.config;
        if *served.rules != served.config.rules {
            served.rules = Rc::new(served.config.rules.clone());
        }
        served.port = planned.port;
        served.resolved = planned.resolved;
        served.is_waiting = planned.is_waiting;
        served.is_provisional = planned.is_provisional;
        served.failed_until = None;
        if !is_lookup_needed {
            (served.lookup, served.lookup_at) = (None, None);
        } else if let Some(mut lookup) = planned.lookup {
            register(&self.registry, &mut lookup, self.first_token + LOOKUPS);
            served.lookup = Some(lookup);
        }
        for number in planned.kept {
            let door = &mut self.doors[number];
            let is_new = mem::replace(&mut door.owner, id) == NOBODY;
            if is_new {
                tell_open(&door.listener, self.listeners[id as usize].config.protocol);
            }
        }
        planned.new.into_iter().for_each(|listener| self.add(id, listener));
        self.tell(id, planned.trouble);
    }

    /// Says why a listener does not serve, if that was not said before.
    fn tell(&mut self, id: ListenerId, trouble: Option<OpenError>) {
        let is_served = self.doors.iter().any(|(_, door)| door.serves(id));
        let served = &mut self.listeners[id as usize];
        let text = trouble.as_ref().map(OpenError::to_string);
        match trouble {
            // A lookup is under way.
            None if served.is_waiting && !is_served => return,
            None => {}
            Some(_) if served.told == text => {}
            Some(trouble) => match trouble.weight(is_served) {
                Level::Debug => debug!("{trouble} The listener is served elsewhere."),
                Level::Warn => warn!("Warning: {trouble} {} waits until that has changed.", described(served)),
                _ => error!("Error: {trouble} {} is not served there; it is tried again.", described(served)),
            },
        }
        served.told = text;
    }

    fn add(&mut self, owner: ListenerId, listener: Listener) {
        tell_open(&listener, self.listeners[owner as usize].config.protocol);
        let number = self.doors.insert(Door::new(listener, owner));
        self.is_idle = false;
        register(&self.registry, &mut self.doors[number].listener, self.first_token + SOCKETS + number);
    }

    /// It is closed by `close`, unless nobody has been served there.
    fn leave_door(&mut self, number: usize) {
        match self.doors[number].owner {
            NOBODY => drop(self.doors.remove(number)),
            _ => self.doors[number].is_leaving = true,
        }
        self.is_idle = false;
    }

    /// A socket that is to be closed by `close` after all who wait there were accepted.
    pub fn leaving(&self) -> Option<usize> {
        if self.is_idle {
            return None;
        }
        self.doors.iter().find(|(_, door)| door.is_leaving).map(|(number, _)| number)
    }

    /// Closes a socket. Who waits there is turned away by the system.
    pub fn close(&mut self, number: usize) {
        let mut door = self.doors.remove(number);
        info!("Closing the listen socket on {}.", door.listener.place());
        if let Some(registry) = &self.registry {
            let _ = door.listener.deregister(registry);
        }
        self.forget_removed(door.owner);
    }

    /// A listener that was removed is forgotten with its last connection and its last socket.
    fn forget_removed(&mut self, id: ListenerId) {
        let is_needed =
            self.listeners[id as usize].connections > 0 || self.doors.iter().any(|(_, door)| door.owner == id);
        if self.listeners[id as usize].is_removed && !is_needed {
            self.listeners.remove(id as usize);
        }
    }

    /// From now on events are to be passed to `note`, by their tokens from `first_token` on.
    pub fn register(&mut self, registry: &Registry, first_token: usize) -> io::Result<()> {
        self.first_token = first_token;
        let registry = registry.try_clone()?;
        for (number, door) in &mut self.doors {
            registry.register(&mut door.listener, Token(first_token + SOCKETS + number), Interest::READABLE)?;
        }
        for (_, served) in &mut self.listeners {
            if let Some(lookup) = &mut served.lookup {
                registry.register(lookup, Token(first_token + LOOKUPS), Interest::READABLE)?;
            }
        }
        self.registry = Some(registry);
        self.is_due = true;
        Ok(())
    }

    /// An event with this token, counted from the first, came.
    pub fn note(&mut self, token: usize) {
        match token {
            WATCH => self.has_news = true,
            LOOKUPS => self.is_due = true,
            _ => {
                if let Some(door) = self.doors.get_mut(token - SOCKETS) {
                    door.has_waiting = true;
                    self.is_idle = false;
                }
            }
        }
    }

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
    fn plan_next_look(&mut self, now: Millis) {
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

    /// Something can be done at once.
    pub fn has_work(&self) -> bool {
        let has_waiting = || self.doors.iter().any(|(_, door)| door.has_waiting && door.retry_at.is_none());
        self.is_due || self.has_news || !self.is_idle && (self.leaving().is_some() || has_waiting())
    }

    /// When something has to be done.
    pub fn deadline(&self) -> Option<Millis> {
        match self.is_idle {
            true => self.look_at,
            false => self.doors.iter().filter_map(|(_, door)| door.retry_at).chain(self.look_at).min(),
        }
    }

    /// Sockets at which somebody may wait have numbers below this.
    pub fn numbers_end(&self) -> usize {
        match self.is_idle {
            true => 0,
            false => self.doors.iter().map(|(number, _)| number + 1).max().unwrap_or(0),
        }
    }

    /// To be called once those who waited were let in, as far as that goes in one turn.
    pub fn rest(&mut self) {
        self.is_idle =
            self.doors.iter().all(|(_, door)| !door.has_waiting && door.retry_at.is_none() && !door.is_leaving);
    }

    /// Whether somebody may wait at this socket, and is to be let in now.
    pub fn is_ready(&mut self, number: usize, now: Millis) -> bool {
        let Some(door) = self.doors.get_mut(number) else { return false };
        if door.retry_at.is_some_and(|at| at <= now) {
            door.retry_at = None;
        }
        door.has_waiting && door.retry_at.is_none()
    }

    /// As `Listener::accept`.
    pub fn accept(&mut self, number: usize) -> Accept {
        let door = &mut self.doors[number];
        let config = &self.listeners[door.owner as usize].config;
        let accept = door.listener.accept(config.protocol);
        if let Accept::Peer(transport, _) = &accept
            && !config.tcp_nodelay
        {
            transport.delay_small_packets();
        }
        door.has_waiting &= !matches!(accept, Accept::WouldBlock);
        accept
    }

    /// As `Listener::refuse`.
    pub fn refuse(&mut self, number: usize, reserve: &mut Reserve) -> Refusal {
        let door = &mut self.doors[number];
        let refusal = door.listener.refuse(reserve);
        door.has_waiting &= refusal != Refusal::WouldBlock;
        refusal
    }

    /// Leaves a socket alone until then.
    pub fn pause(&mut self, number: usize, until: Millis) {
        self.doors[number].retry_at = Some(until);
    }

    /// Where this socket listens.
    pub fn place(&self, number: usize) -> &Place {
        self.doors[number].listener.place()
    }

    /// What holds for those who come in by this socket.
    pub fn rules(&self, number: usize) -> &Rc<Rules> {
        &self.listeners[self.doors[number].owner as usize].rules
    }

    /// What holds for the connections counted by this, also if the listener was removed.
    pub fn rules_of(&self, id: ListenerId) -> Option<&Rc<Rules>> {
        self.listeners.get(id as usize).map(|served| &served.rules)
    }

    /// What holds by now, by listener, those that were removed included.
    pub fn all_rules(&self) -> Vec<(ListenerId, Rc<Rules>)> {
        self.listeners.iter().map(|(id, served)| (id as ListenerId, served.rules.clone())).collect()
    }

    /// The listener of this socket has as many connections as it may have.
    pub fn is_full(&self, number: usize) -> bool {
        let served = &self.listeners[self.doors[number].owner as usize];
        served.config.max_connections != 0 && served.connections >= served.config.max_connections
    }

    /// How many those are; 0 = no limit.
    pub fn max_connections(&self, number: usize) -> u32 {
        self.listeners[self.doors[number].owner as usize].config.max_connections
    }

    /// Counts a connection that came by this socket; to be given back to `leave` when it ends.
    pub fn enter(&mut self, number: usize) -> ListenerId {
        let id = self.doors[number].owner;
        self.listeners[id as usize].connections += 1;
        id
    }

    /// A connection that `enter` counted has ended.
    pub fn leave(&mut self, id: ListenerId) {
        self.listeners[id as usize].connections -= 1;
        self.forget_removed(id);
    }
}

/// In a line about it.
fn described(served: &Served) -> String {
    match served.port {
        0 => "The listener".to_string(),
        port => format!("The listener on port {port}"),
    }
}

/// The host's name, if it is no address.
fn name(config: &ListenerConfig) -> Option<&str> {
    match &config.host {
        Host::Named(host) if host.parse::<IpAddr>().is_err() => Some(host),
        _ => None,
    }
}

fn port(listener: &Listener) -> u16 {
    match listener.place() {
        Place::Tcp(address) => address.port(),
        Place::Unix(_) => 0,
    }
}

/// Binds what a planned listener does not have; a free port that suits all its addresses is looked for a few times.
fn bind_planned(planned: &mut Planned, leaving: &[&Listener], ours: &[Place]) -> Result<(), OpenError> {
    let mut result = bind_all(planned, leaving, ours);
    for _ in 1..FREE_PORT_ATTEMPTS {
        match result {
            Err(OpenError::Busy { place: Place::Tcp(_), .. }) if planned.port == 0 => {
                planned.new.clear();
                result = bind_all(planned, leaving, ours);
            }
            _ => break,
        }
    }
    let absence = result?;
    if planned.port == 0 {
        planned.port = planned.new.first().map_or(0, port);
    }
    match absence {
        Some(error) if planned.new.is_empty() && planned.kept.is_empty() && !error.may_pass() => return Err(error),
        Some(error) => {
            planned.is_waiting |= error.may_pass();
            planned.trouble = Some(error);
        }
        None => {}
    }
    Ok(())
}

/// Binds all missing places; the others get the port that the first one found. An address that this machine does not have (it may
/// lack IPv6) is passed over, and returned as the reason.
fn bind_all(planned: &mut Planned, leaving: &[&Listener], ours: &[Place]) -> Result<Option<OpenError>, OpenError> {
    let mut absence = None;
    for place in &planned.missing {
        let mut place = place.clone();
        if let (Place::Tcp(address), Some(first)) = (&mut place, planned.new.first()) {
            address.set_port(port(first));
        }
        match bind(&planned.config, &place, leaving, ours) {
            Ok(listener) => planned.new.push(listener),
            Err(error) if error.is_absence() => absence = Some(error),
            Err(error) => return Err(error),
        }
    }
    Ok(absence)
}

/// A socket at this place. One that is about to be closed does not stand in its way: for that moment both are there. One of ours that
/// stays does.
fn bind(config: &ListenerConfig, place: &Place, leaving: &[&Listener], ours: &[Place]) -> Result<Listener, OpenError> {
    let address = match place {
        Place::Unix(path) => return Listener::unix(path, config.socket_owner.as_deref(), config.socket_mode),
        Place::Tcp(address) => *address,
    };
    let mut in_the_way = leaving.iter().filter(|listener| listener.place().conflicts(place)).peekable();
    let is_ours = || ours.iter().any(|ours| ours.conflicts(place));
    match Listener::tcp(address, false) {
        Err(OpenError::Busy { .. }) if in_the_way.peek().is_some() && !is_ours() => {
            in_the_way.for_each(|listener| drop(listener.share(true)));
            Listener::tcp(address, true)
        }
        result => result,
    }
}

/// What holds for clients that came under the `older` rules and are let in by these: all but what they were told or live by.
fn judged(older: &Rules, rules: &Rules) -> Rules {
    Rules {
        allow_zero_length_clientid: older.allow_zero_length_clientid,
        auto_id_prefix: older.auto_id_prefix.clone(),
        use_username_as_clientid: older.use_username_as_clientid,
        mount_point: older.mount_point.clone(),
        max_qos: older.max_qos,
        max_topic_alias: older.max_topic_alias,
        max_topic_alias_broker: older.max_topic_alias_broker,
        ..rules.clone()
    }
}

fn is_tcp(listener: &Listener) -> bool {
    matches!(listener.place(), Place::Tcp(_))
}

/// The first port that anybody may bind.
fn unprivileged_ports_start() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

fn tell_open(listener: &Listener, protocol: Protocol) {
    let kind = match (protocol, listener.place()) {
        (Protocol::WebSockets, _) => "websockets",
        (Protocol::Mqtt, Place::Unix(_)) => "unix",
        (Protocol::Mqtt, Place::Tcp(address)) if address.is_ipv4() => "ipv4",
        (Protocol::Mqtt, Place::Tcp(_)) => "ipv6",
    };
    match listener.place() {
        Place::Tcp(address) => info!("Opening {kind} listen socket on port {}.", address.port()),
        Place::Unix(path) => info!("Opening {kind} listen socket on path {}.", path.display()),
    }
}

/// Before there is a loop nothing is registered; `Doors::register` does it then.
fn register(registry: &Option<Registry>, source: &mut impl Source, token: usize) {
    if let Some(registry) = registry
        && let Err(error) = registry.register(source, Token(token), Interest::READABLE)
    {
        error!("Error: the loop cannot watch what it listens on: {error}.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Domain;
    use crate::net::socket;
    use std::net::{TcpListener, TcpStream};

    fn named(port: u16, host: &str) -> ListenerConfig {
        ListenerConfig::new(port, Host::Named(host.to_string()))
    }

    fn open_all(configs: &[ListenerConfig]) -> Doors {
        open(configs, Inherited::default()).unwrap()
    }

    fn addresses(doors: &Doors) -> Vec<SocketAddr> {
        let place = |(_, door): (_, &Door)| match door.listener.place() {
            Place::Tcp(address) => *address,
            Place::Unix(path) => panic!("{path:?}"),
        };
        doors.doors.iter().map(place).collect()
    }

    fn reload(doors: &mut Doors, configs: &[ListenerConfig]) -> Result<(), OpenError> {
        let plan = doors.plan(configs)?;
        doors.commit(plan);
        while let Some(number) = doors.leaving() {
            doors.close(number);
        }
        Ok(())
    }

    fn has_ipv6() -> bool {
        TcpListener::bind("[::1]:0").is_ok()
    }

    /// Nobody listens there any more; a process that another test just started may hold a copy of the socket until it is another
    /// program.
    fn is_refused(address: SocketAddr) -> bool {
        (0..100_000).any(|_| {
            std::thread::yield_now();
            TcpStream::connect(address).is_err()
        })
    }

    /// Accepts whatever waits; says how many were let in.
    fn admit(doors: &mut Doors) -> Vec<ListenerId> {
        let mut entered = Vec::new();
        for number in 0..doors.numbers_end() {
            while doors.is_ready(number, Millis(0)) {
                if let Accept::Peer(..) = doors.accept(number)
                    && !doors.is_full(number)
                {
                    entered.push(doors.enter(number));
                }
            }
        }
        entered
    }

    #[test]
    fn both_families_share_a_free_port() {
        for host in [Host::Loopback, Host::All] {
            let doors = open_all(&[ListenerConfig::new(0, host.clone()), ListenerConfig::new(0, host)]);
            let addresses = addresses(&doors);
            let each = if has_ipv6() { 2 } else { 1 };
            assert_eq!(addresses.len(), 2 * each);
            for (index, address) in addresses.iter().enumerate() {
                assert_eq!(address.port(), addresses[index / each * each].port());
                assert_eq!(address.is_ipv4(), index % each == 0);
            }
            assert_ne!(addresses[0].port(), addresses[each].port());
        }
    }

    #[test]
    fn an_absent_address_is_waited_for_and_the_others_are_served() {
        // An address for documentation: no machine has it.
        let mut doors = open_all(&[named(1883, "203.0.113.1"), named(0, "127.0.0.1")]);
        assert_eq!(addresses(&doors).len(), 1);
        let waiting = &doors.listeners[0];
        assert!(waiting.is_waiting);
        assert_eq!(
            waiting.told.as_deref(),
            Some("Cannot assign requested address: 203.0.113.1 port 1883 (no interface has it).")
        );
        // Without word from the kernel there is no time at which it would wake up.
        let poll = mio::Poll::new().unwrap();
        doors.register(poll.registry(), 0).unwrap();
        while doors.has_work() && doors.is_due {
            doors.turn(Millis(0));
        }
        assert!(doors.deadline().is_none() || doors.has_no_watch);
        reload(&mut doors, &[named(0, "127.0.0.1")]).unwrap();
        doors.turn(Millis(1));
        assert!(doors.watch.is_none() && doors.deadline().is_none());
        assert_eq!(addresses(&doors).len(), 1);
    }

    #[test]
    fn an_address_that_came_is_served_though_the_first_word_was_early() {
        let mut doors = open_all(&[named(1883, "203.0.113.1")]);
        doors.turn(Millis(0));
        assert!(addresses(&doors).is_empty());
        // As if that had been this machine's address all along.
        doors.listeners[0].config = named(0, "127.0.0.1");
        doors.listeners[0].port = 0;
        (doors.news_at, doors.follow_ups) = (Millis(1000), &FOLLOW_UPS);
        doors.plan_next_look(Millis(1000));
        let at = doors.deadline().unwrap();
        assert!(at <= Millis(1500), "{at:?}");
        doors.turn(at);
        assert_eq!(addresses(&doors)[0].ip(), IpAddr::from([127, 0, 0, 1]));
        assert_eq!(addresses(&doors)[0].port(), doors.listeners[0].port);
        assert_eq!(doors.deadline(), None);
        assert!(!doors.listeners[0].is_waiting && doors.listeners[0].told.is_none());
    }

    #[test]
    fn a_busy_port_is_told_with_its_holder() {
        let doors = open_all(&[named(0, "127.0.0.1")]);
        let port = addresses(&doors)[0].port();
        let error = open(&[named(port, "127.0.0.1")], Inherited::default()).err().unwrap();
        assert_eq!(
            error.to_string(),
            format!("Address already in use: 127.0.0.1 port {port} is held by another listener of this broker.")
        );
        let holder = Some(crate::os::Holder { pid: 1, name: "init".to_string() });
        let busy = OpenError::Busy { place: Place::Tcp(addresses(&doors)[0]), holder };
        assert!(busy.to_string().ends_with("is held by init (pid 1)."));
    }

    #[test]
    fn what_comes_and_is_busy_is_told_and_tried_again() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let mut doors = open_all(&[named(1883, "203.0.113.1")]);
        doors.listeners[0].config = named(port, "127.0.0.1");
        doors.listeners[0].port = port;
        doors.turn(Millis(0));
        assert!(doors.listeners[0].told.as_deref().unwrap().starts_with("Address already in use"));
        drop(other);
        // As in `is_refused`.
        while addresses(&doors).is_empty() {
            doors.turn(doors.deadline().unwrap());
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_name_is_asked_for_again_without_waiting() {
        let mut doors = open_all(&[named(0, "a..b")]);
        assert!(doors.listeners[0].told.as_deref().unwrap().starts_with("Cannot resolve the listener's host a..b: "));
        doors.turn(Millis(0));
        let at = doors.deadline().unwrap();
        assert!(at <= Millis(1000));
        doors.listeners[0].config = named(0, "localhost");
        doors.turn(at);
        let mut poll = mio::Poll::new().unwrap();
        doors.register(poll.registry(), 7).unwrap();
        let mut events = mio::Events::with_capacity(8);
        while !events.iter().any(|event| event.token() == Token(7 + LOOKUPS)) {
            poll.poll(&mut events, None).unwrap();
        }
        doors.note(LOOKUPS);
        doors.turn(at);
        assert!(!addresses(&doors).is_empty());
    }

    #[test]
    fn a_reload_keeps_what_did_not_change() {
        let mut doors = open_all(&[named(0, "127.0.0.1"), named(0, "127.0.0.2")]);
        let before = addresses(&doors);
        let _waiting = TcpStream::connect(before[0]).unwrap();
        let mut first = named(0, "127.0.0.1");
        first.max_connections = 1;
        first.rules.allow_anonymous = true;
        first.protocol = Protocol::WebSockets;
        reload(&mut doors, &[first, named(0, "127.0.0.3")]).unwrap();
        let after = addresses(&doors);
        assert_eq!(after[0], before[0]);
        assert!(!after.contains(&before[1]) && after.len() == 2);
        assert!(is_refused(before[1]));
        // Who waited at a socket that stays is served, by the new rules.
        assert_eq!(admit(&mut doors).len(), 1);
        assert!(doors.rules(0).allow_anonymous && doors.is_full(0));
        assert_eq!(doors.listeners[0].config.protocol, Protocol::WebSockets);
    }

    #[test]
    fn a_reload_that_fails_changes_nothing() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = other.local_addr().unwrap().port();
        let mut doors = open_all(&[named(0, "127.0.0.1")]);
        let before = addresses(&doors);
        let mut changed = named(0, "127.0.0.1");
        changed.max_connections = 1;
        let error = reload(&mut doors, &[changed, named(0, "127.0.0.2"), named(busy, "127.0.0.1")]).unwrap_err();
        assert!(error.to_string().starts_with("Address already in use"), "{error}");
        assert_eq!(addresses(&doors), before);
        assert_eq!(doors.listeners[0].config.max_connections, 0);
        let _client = TcpStream::connect(before[0]).unwrap();
        assert_eq!(admit(&mut doors), [0]);
    }

    #[test]
    fn a_listener_moves_between_one_address_and_all_without_a_gap() {
        // The port that is free on one address may be taken on another.
        let moved = (0..FREE_PORT_ATTEMPTS).find_map(|_| {
            let mut doors = open_all(&[named(0, "127.0.0.1")]);
            let port = addresses(&doors)[0].port();
            let all = ListenerConfig { domain: Some(Domain::Ipv4), ..ListenerConfig::new(port, Host::All) };
            let is_moved = reload(&mut doors, std::slice::from_ref(&all)).is_ok();
            is_moved.then_some((doors, port, all))
        });
        let (mut doors, port, all) = moved.expect("its own old socket is in the way");
        assert_eq!(addresses(&doors), [SocketAddr::from(([0, 0, 0, 0], port))]);
        TcpStream::connect(("127.0.0.2", port)).unwrap();
        reload(&mut doors, &[named(port, "127.0.0.1")]).unwrap();
        assert_eq!(addresses(&doors), [SocketAddr::from(([127, 0, 0, 1], port))]);
        assert!(is_refused(([127, 0, 0, 2], port).into()));
        // The port is nobody else's.
        let error = socket::tcp(([0, 0, 0, 0], port).into(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        // The same listener twice is an error, and leaves what was.
        assert!(reload(&mut doors, &[all.clone(), all]).is_err());
        assert_eq!(addresses(&doors), [SocketAddr::from(([127, 0, 0, 1], port))]);
    }

    #[test]
    fn connections_outlive_their_listener_and_count_for_it_alone() {
        let mut config = named(0, "127.0.0.1");
        config.max_connections = 2;
        let mut doors = open_all(std::slice::from_ref(&config));
        let address = addresses(&doors)[0];
        let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
        let entered = admit(&mut doors);
        assert_eq!(entered.len(), 2);
        reload(&mut doors, &[]).unwrap();
        assert!(addresses(&doors).is_empty());
        assert_eq!(doors.listeners.len(), 1);
        // Its number is not given to another listener while its connections live.
        reload(&mut doors, &[config]).unwrap();
        assert!(!entered.contains(&doors.doors[0].owner));
        assert!(!doors.is_full(0));
        entered.into_iter().for_each(|id| doors.leave(id));
        assert_eq!(doors.listeners.len(), 1);
        drop(clients);
    }

    #[test]
    fn a_socket_that_was_passed_on_is_used_where_it_fits() {
        let sockets = ["127.0.0.1:0", "127.0.0.2:0"].map(|address| TcpListener::bind(address).unwrap());
        let address = sockets[0].local_addr().unwrap();
        let listeners = sockets.map(|socket| {
            socket.set_nonblocking(true).unwrap();
            Listener::inherited(socket.into()).unwrap()
        });
        let inherited = Inherited { listeners: listeners.into(), warnings: Vec::new() };
        let mut doors = open(&[named(address.port(), "127.0.0.1")], inherited).unwrap();
        assert_eq!(addresses(&doors), [address]);
        let _client = TcpStream::connect(address).unwrap();
        assert_eq!(admit(&mut doors).len(), 1);
    }

    #[test]
    fn a_unix_socket_stays_moves_and_goes() {
        let path = |name: &str| std::env::temp_dir().join(format!("midge-doors-{name}-{}", std::process::id()));
        let (one, other) = (path("one"), path("other"));
        let config = |path: &std::path::Path| ListenerConfig::new(0, Host::Unix(path.to_path_buf()));
        let mut doors = open_all(&[config(&one)]);
        let _client = std::os::unix::net::UnixStream::connect(&one).unwrap();
        let private = ListenerConfig { socket_mode: Some(0o600), ..config(&one) };
        reload(&mut doors, &[private]).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&one).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(admit(&mut doors).len(), 1);
        let unowned = ListenerConfig { socket_owner: Some("nobody-here".to_string()), ..config(&one) };
        assert!(reload(&mut doors, &[unowned]).is_err());
        assert!(reload(&mut doors, &[config(&other), config(&std::env::temp_dir())]).is_err());
        assert!(one.exists() && !other.exists());
        reload(&mut doors, &[config(&other)]).unwrap();
        assert!(!one.exists() && other.exists());
        std::os::unix::net::UnixStream::connect(&other).unwrap();
        drop(doors);
        assert!(!other.exists());
    }

    #[test]
    fn who_waits_at_a_socket_that_goes_is_let_in() {
        let mut doors = open_all(&[named(0, "127.0.0.1")]);
        let address = addresses(&doors)[0];
        let _clients = [(); 2].map(|()| TcpStream::connect(address).unwrap());
        let plan = doors.plan(&[named(0, "127.0.0.2")]).unwrap();
        doors.commit(plan);
        let number = doors.leaving().unwrap();
        assert!(doors.has_work());
        for _ in 0..2 {
            assert!(matches!(doors.accept(number), Accept::Peer(..)));
            assert!(!doors.is_full(number));
            assert_eq!(doors.enter(number), 0);
        }
        assert!(matches!(doors.accept(number), Accept::WouldBlock));
        doors.close(number);
        assert!(doors.leaving().is_none() && is_refused(address));
        // The listener is there as long as its connections.
        [0, 0].into_iter().for_each(|id| doors.leave(id));
        assert!(!doors.listeners.contains(0));
    }

    #[test]
    fn a_reload_knows_what_a_name_of_this_machine_stands_for() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = other.local_addr().unwrap().port();
        let mut doors = open_all(&[named(0, "127.0.0.1")]);
        let before = addresses(&doors);
        let error = reload(&mut doors, &[named(busy, "localhost")]).unwrap_err();
        assert!(error.to_string().starts_with("Address already in use"), "{error}");
        // The socket of the address is the one of the name.
        let _client = TcpStream::connect(before[0]).unwrap();
        reload(&mut doors, &[named(before[0].port(), "localhost")]).unwrap();
        assert!(addresses(&doors).contains(&before[0]));
        assert_eq!(admit(&mut doors).len(), 1);
    }

    /// A listener on 127.0.0.1 was replaced by one of the same port, whose name, `host`, is being looked up.
    fn replaced_by_name(host: &str) -> (Doors, SocketAddr) {
        let mut doors = open_all(&[named(0, "127.0.0.1")]);
        let address = addresses(&doors)[0];
        reload(&mut doors, &[named(0, "127.0.0.1"), named(address.port(), "a..b")]).unwrap();
        doors.listeners[1].config = named(address.port(), host);
        doors.listeners[1].lookup = Some(Lookup::start(host).unwrap());
        reload(&mut doors, &[named(address.port(), host)]).unwrap();
        assert_eq!(addresses(&doors), [address]);
        assert!(doors.listeners[1].is_provisional && doors.leaving().is_none());
        let mut poll = mio::Poll::new().unwrap();
        doors.register(poll.registry(), 0).unwrap();
        let mut events = mio::Events::with_capacity(8);
        while !events.iter().any(|event| event.token() == Token(LOOKUPS)) {
            poll.poll(&mut events, None).unwrap();
        }
        doors.note(LOOKUPS);
        doors.turn(Millis(0));
        assert!(!doors.listeners[1].is_provisional);
        (doors, address)
    }

    #[test]
    fn a_socket_stays_until_it_is_known_what_a_name_stands_for() {
        let (doors, address) = replaced_by_name("localhost");
        assert!(doors.leaving().is_none() && addresses(&doors).contains(&address));
        let (mut doors, address) = replaced_by_name("a..b");
        let number = doors.leaving().unwrap();
        doors.close(number);
        assert!(addresses(&doors).is_empty() && is_refused(address));
    }

    #[test]
    fn clients_of_a_listener_that_is_gone_are_judged_by_who_has_its_port_or_by_all() {
        let with = |port, host, is_open| {
            let mut config = named(port, host);
            config.rules.allow_anonymous = is_open;
            config.rules.max_topic_alias = 5;
            config
        };
        let mut doors = open_all(&[named(0, "127.0.0.1"), with(0, "127.0.0.2", true)]);
        let port = addresses(&doors)[1].port();
        let _client = TcpStream::connect(addresses(&doors)[1]).unwrap();
        let id = admit(&mut doors)[0];
        let mut is_open = |configs: &[ListenerConfig]| {
            reload(&mut doors, configs).unwrap();
            assert_eq!(doors.rules_of(id).unwrap().max_topic_alias, 5);
            doors.rules_of(id).unwrap().allow_anonymous
        };
        // Nobody says anything.
        assert!(is_open(&[]));
        // All that there are do not agree.
        assert!(is_open(&[with(0, "127.0.0.3", true), with(0, "127.0.0.4", false)]));
        // The port has another listener.
        assert!(!is_open(&[with(0, "127.0.0.3", true), with(port, "127.0.0.4", false)]));
        assert!(is_open(&[with(0, "127.0.0.3", true), with(0, "127.0.0.4", true)]));
        assert!(!is_open(&[named(0, "127.0.0.3")]));
    }

    #[test]
    fn a_plan_that_is_dropped_leaves_the_file_of_a_unix_socket_as_it_was() {
        let path = std::env::temp_dir().join(format!("midge-doors-plan-{}", std::process::id()));
        let mode = || std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions()) & 0o777;
        let config =
            |mode| ListenerConfig { socket_mode: Some(mode), ..ListenerConfig::new(0, Host::Unix(path.clone())) };
        let mut doors = open_all(&[config(0o640)]);
        let plan = doors.plan(&[config(0o666)]).unwrap();
        assert_eq!(mode(), 0o666);
        drop(plan);
        assert_eq!(mode(), 0o640);
        reload(&mut doors, &[config(0o666)]).unwrap();
        assert_eq!(mode(), 0o666);
    }

    #[test]
    fn without_word_from_the_kernel_addresses_are_looked_for() {
        let mut doors = open_all(&[named(1883, "203.0.113.1")]);
        doors.has_no_watch = true;
        doors.turn(Millis(5000));
        assert_eq!(doors.deadline(), Some(Millis(5500)));
        let unwatched = ListenerConfig { interface: Some("lo".to_string()), ..named(0, "127.0.0.1") };
        reload(&mut doors, &[unwatched]).unwrap();
        doors.turn(Millis(5600));
        assert_eq!(doors.deadline(), Some(Millis(15_600)));
    }

    #[test]
    fn a_machine_without_ipv6_is_no_trouble() {
        let lacks =
            |code| OpenError::Bind { address: "[::1]:0".parse().unwrap(), error: io::Error::from_raw_os_error(code) };
        assert_eq!(lacks(libc::EAFNOSUPPORT).weight(true), Level::Debug);
        assert_eq!(lacks(libc::EADDRNOTAVAIL).weight(true), Level::Debug);
        assert_eq!(lacks(libc::EADDRNOTAVAIL).weight(false), Level::Warn);
        assert_eq!(lacks(libc::EACCES).weight(true), Level::Error);
        assert!(lacks(libc::EADDRNOTAVAIL).may_pass() && !lacks(libc::EAFNOSUPPORT).may_pass());
    }

    #[test]
    fn an_interface_that_is_not_there_is_waited_for() {
        let config = ListenerConfig { interface: Some("none-such0".to_string()), ..named(0, "127.0.0.1") };
        let mut doors = open_all(std::slice::from_ref(&config));
        assert_eq!(doors.listeners[0].told.as_deref(), Some("There is no interface none-such0."));
        let on_lo = ListenerConfig { interface: Some("lo".to_string()), ..config };
        reload(&mut doors, &[on_lo]).unwrap();
        assert_eq!(addresses(&doors).len(), 1);
        assert_eq!(doors.listeners[0].told, None);
    }
}
