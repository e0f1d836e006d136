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

mod look;
mod plan;

pub use self::plan::{Plan, open};

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::{fs, io};

use log::{Level, debug, error, info, warn};
use mio::event::Source;
use mio::{Interest, Registry, Token};
use slab::Slab;

use super::lookup::Lookup;
use super::place::Place;
use super::socket::FileChange;
use super::watch::Watch;
use super::{Accept, Listener, OpenError, Refusal};
use crate::config::{Host, ListenerConfig, Protocol, Rules};
use crate::os::{Owner, Reserve, User};
use crate::time::Millis;

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
        self.is_idle = false;
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
mod tests;
