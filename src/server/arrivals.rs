//! Connections that come: accepted within a budget, let in or turned away, and registered.

use log::{error, warn};
use mio::{Interest, Token};

use super::Server;
use crate::broker::{Denial, HangUp, LinkId, Peer};
use crate::logger::notice;
use crate::net::{Accept, Caller, Place, Refusal, Transport};
use crate::time::Millis;

/// Connections accepted from one listener in one turn: a storm must not hold up those who are connected.
const ACCEPTS_PER_TURN: usize = 64;
/// And from one that is about to be closed: more than the kernel keeps.
const ACCEPTS_OF_LEAVING: usize = 2048;
/// How soon accepting is tried again when even the descriptor in reserve did not help.
const ACCEPT_RETRY: Millis = Millis(1000);

fn peer(caller: Caller) -> Peer {
    match caller {
        Caller::Tcp(address) => address.into(),
        Caller::Unix { pid, uid } => Peer::Unix { pid, uid },
    }
}

impl Server {
    pub(super) fn accept(&mut self) {
        let end = self.doors.numbers_end();
        if end == 0 {
            return;
        }
        for number in 0..end {
            if !self.doors.is_ready(number, self.now) {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.accept_one(number) {
                    break;
                }
            }
        }
        self.doors.rest();
    }

    /// Who waits at a socket that is no longer to be served is let in, and the socket closed.
    pub(super) fn admit_leaving(&mut self) {
        while let Some(number) = self.doors.leaving() {
            let _ = (0..ACCEPTS_OF_LEAVING).all(|_| self.accept_one(number));
            self.doors.close(number);
        }
    }

    /// Accepts the next connection of a listener; false if it is to be left alone for now.
    fn accept_one(&mut self, number: usize) -> bool {
        match self.doors.accept(number) {
            Accept::Peer(transport, caller) => {
                self.admit(transport, caller, number);
                true
            }
            Accept::WouldBlock => false,
            Accept::OutOfDescriptors => match self.doors.refuse(number, &mut self.reserve) {
                Refusal::Peer(caller) => {
                    self.broker.turned_away(self.now);
                    self.log_refusal(peer(caller));
                    true
                }
                Refusal::WouldBlock => false,
                Refusal::Later => {
                    self.doors.pause(number, self.now + ACCEPT_RETRY);
                    self.log_refusal(Peer::Unknown);
                    false
                }
            },
            Accept::Failed(error) => {
                let place = self.doors.place(number);
                error!(about = "accept"; "Error: accepting connections on {place} failed: {error}.");
                self.doors.pause(number, self.now + ACCEPT_RETRY);
                false
            }
        }
    }

    /// Lets a connection in, unless there are too many.
    fn admit(&mut self, transport: Transport, caller: Caller, number: usize) {
        let is_logged = self.broker.config().connection_messages;
        let peer = peer(caller);
        let denial = match self.doors.is_full(number) {
            true => Some(Denial::of_listener(self.doors.max_connections(number))),
            false => self.broker.denial(peer, self.now),
        };
        if let Some(Denial { what, option, max }) = denial {
            self.broker.turned_away(self.now);
            if is_logged {
                notice!(
                    address = peer.number(), what = option;
                    "Client connection from {} denied: {what} exceeded. It came from {peer}, and {option} is {max}.",
                    peer.ip()
                );
            }
            return;
        }
        if is_logged {
            let place = match self.doors.place(number) {
                Place::Tcp(address) => format!("port {}", address.port()),
                Place::Unix(path) => path.display().to_string(),
            };
            notice!(address = peer.number(); "New connection from {peer} on {place}.");
        }
        let id = self.open(transport, peer, number);
        if self.entrances.len() <= id as usize {
            self.entrances.resize(id as usize + 1, 0);
        }
        self.entrances[id as usize] = self.doors.enter(number);
    }

    fn open(&mut self, mut transport: Transport, peer: Peer, number: usize) -> LinkId {
        let id = self.broker.open(peer, self.doors.rules(number), self.now);
        let at = id as usize;
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut transport, Token(at), both) {
            self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now);
        }
        if self.transports.len() <= at {
            self.transports.resize_with(at + 1, || None);
        }
        self.transports[at] = Some(transport);
        id
    }

    /// No descriptor is left: whoever comes now is turned away at once instead of left waiting.
    fn log_refusal(&self, peer: Peer) {
        let open = self.broker.link_count();
        let ip = peer.ip();
        warn!(
            address = peer.number();
            "Client connection from {ip} denied: no descriptor is free ({open} connections are open). It came from {peer}."
        );
    }
}
