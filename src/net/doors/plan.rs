//! What a start or a reload will do: everything new is bound while everything old stays, and then it is committed, which cannot fail.

use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use slab::Slab;

use super::look::LOOKUP_DELAY_MIN;
use super::{Door, Doors, LOOKUPS, ListenerId, NOBODY, Served, bind, is_tcp, name, port, register, tell_open};
use crate::config::{Host, ListenerConfig, Rules};
use crate::net::lookup::Lookup;
use crate::net::place::Place;
use crate::net::socket::FileChange;
use crate::net::{Inherited, Listener, OpenError, wanted};
use crate::os::Owner;
use crate::time::Millis;

/// How often another free port is tried when the one found for the first address is taken on the second.
pub(super) const FREE_PORT_ATTEMPTS: u32 = 8;
/// How long a start waits for a name's addresses before it goes on without: a server on the site answers long before.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// How long a reload does, for all names together and one: what this machine itself knows comes in a few.
const RELOAD_PATIENCE: Duration = Duration::from_millis(100);

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
