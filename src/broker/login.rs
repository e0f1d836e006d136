//! Logins that are being looked at. Checking a password is slow, so it is done elsewhere: the shell takes a check with
//! `take_login` and brings the answer with `login`, and the link waits. Then its CONNECT is handled as if it had come now: a login
//! that was right is remembered, and so found to be right.
//!
//! Bounded: `WAITING_MAX` logins wait at a time, half of them from one address, with `BYTES_MAX` bytes of CONNECT; who comes
//! beyond that is told to come later. An address that guesses has to wait longer and longer between its guesses; a login
//! that was right before does not wait with it.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::Broker;
use super::close::{CloseReason, NOT_AUTHORISED};
use super::connect::client_id_of;
use super::link::{LinkId, Paused, Peer, State};
use crate::access::gatekeeper::{Failures, Logins};
use crate::access::passwords::{Check, Passwords, Tag};
use crate::codec::{Connect, ReasonCode};
use crate::config::Rules;
use crate::time::Millis;

/// Logins that wait for their check. A thousand devices behind an access point that is back: at a millisecond each, the last one
/// is in after a second; a box that takes thirty has closed the last ones by then (`connect_timeout`).
const WAITING_MAX: usize = 1024;
/// Bytes of CONNECT packets that wait, most of which have less than a hundred.
const BYTES_MAX: usize = 1 << 20;

/// Names a check that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginId(pub u64);

pub(super) struct Login {
    logins: Logins,
    failures: Failures,
    /// Oldest first.
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// The one that was taken.
    taken: Option<Taken>,
    last: u64,
}

struct Waiting {
    link: LinkId,
    address: Option<IpAddr>,
    check: Check,
    body: Box<[u8]>,
}

struct Taken {
    id: LoginId,
    /// Nothing once it closed.
    link: Option<LinkId>,
    address: Option<IpAddr>,
    tag: Tag,
    body: Box<[u8]>,
}

impl Login {
    /// `secret` must be unpredictable to clients.
    pub fn new(secret: [u8; 32]) -> Login {
        Login {
            logins: Logins::new(secret),
            failures: Failures::default(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            taken: None,
            last: 0,
        }
    }

    /// Whether somebody waits whose check can be taken.
    pub fn has_work(&self) -> bool {
        self.taken.is_none() && !self.waiting.is_empty()
    }

    /// Links that wait, each once.
    pub fn links(&self) -> impl Iterator<Item = LinkId> {
        let taken = self.taken.iter().filter_map(|taken| taken.link);
        self.waiting.iter().map(|waiting| waiting.link).chain(taken)
    }

    /// The link is closed.
    pub fn forget(&mut self, link: LinkId) {
        if let Some(taken) = &mut self.taken
            && taken.link == Some(link)
        {
            taken.link = None;
        }
        if let Some(at) = self.waiting.iter().position(|waiting| waiting.link == link)
            && let Some(waiting) = self.waiting.remove(at)
        {
            self.waiting_bytes -= waiting.body.len();
        }
    }

    /// What the client of a link that waits calls itself.
    pub fn caller(&self, link: LinkId) -> &str {
        let waiting = self.waiting.iter().find(|waiting| waiting.link == link).map(|waiting| &waiting.body);
        let taken = || self.taken.iter().find(|taken| taken.link == Some(link)).map(|taken| &taken.body);
        waiting.or_else(taken).map_or("", |body| client_id_of(body))
    }

    /// The room of those who are gone.
    pub fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
    }

    fn has_no_room(&self, address: Option<IpAddr>, len: usize) -> bool {
        let of_address = || self.waiting.iter().filter(|waiting| waiting.address == address).count();
        self.waiting.len() >= WAITING_MAX
            || self.waiting_bytes + len > BYTES_MAX
            || self.waiting.len() >= WAITING_MAX / 2 && of_address() >= WAITING_MAX / 2
    }

    fn check_wait(&self, address: Option<IpAddr>, now: Millis) -> Result<(), CloseReason> {
        match address.and_then(|address| self.failures.wait(address, now)) {
            None => Ok(()),
            Some(wait) => {
                let seconds = wait.0.div_ceil(1000);
                let detail =
                    format!("too many logins from this address were wrong; the next is looked at in {seconds} s");
                Err(CloseReason::refused(ReasonCode::ConnectionRateExceeded, "connection rate exceeded", detail))
            }
        }
    }
}

/// The address a peer is known by; processes of this machine have none.
pub(super) fn address(peer: Peer) -> Option<IpAddr> {
    match peer {
        Peer::V4(ip, _) => Some(ip.into()),
        Peer::V6(ip, _) => Some(ip.into()),
        Peer::Unix { .. } | Peer::Unknown => None,
    }
}

/// An empty user name is none, as it is to Mosquitto.
pub(super) fn username<'a>(connect: &Connect<'a>) -> Option<&'a str> {
    connect.username.filter(|username| !username.is_empty())
}

/// Whose password is to be looked at, if anybody's; or that the client is not let in.
fn check_access<'a>(rules: &'a Rules, username: Option<&str>) -> Result<Option<&'a Passwords>, CloseReason> {
    match (username, &rules.passwords) {
        (Some(_), Some(passwords)) => return Ok(Some(passwords)),
        _ if rules.allow_anonymous => return Ok(None),
        _ => {}
    }
    let detail = match (username, &rules.passwords) {
        (None, Some(_)) => "a user name is missing, which this listener wants",
        _ => "this listener lets nobody in: allow_anonymous is not set, and there are no users",
    };
    Err(CloseReason::refused(ReasonCode::NotAuthorized, NOT_AUTHORISED, detail))
}

/// Whether a client that was let in by the `older` rules would be by these. Its password is not known any more: what it was checked
/// against must still be what it is checked against.
pub(super) fn check_access_again(rules: &Rules, older: &Rules, username: Option<&str>) -> Result<(), CloseReason> {
    let (Some(passwords), Some(username)) = (check_access(rules, username)?, username) else { return Ok(()) };
    if older.passwords.as_ref().is_some_and(|older| older.agrees_with(passwords, username)) {
        return Ok(());
    }
    let detail = "the user or the password is another one by now, or was not asked for before; log in again";
    Err(CloseReason::refused(ReasonCode::NotAuthorized, NOT_AUTHORISED, detail))
}

impl Broker {
    /// Keys what is remembered of logins: 32 bytes that nobody can know, others with each run.
    pub fn set_login_secret(&mut self, secret: [u8; 32]) {
        self.login = Login::new(secret);
    }

    /// Whether the client is let in; false if its password has to be looked at first, for which it waits now.
    pub(super) fn is_let_in(
        &mut self,
        id: LinkId,
        rules: &Rules,
        connect: &Connect,
        body: &[u8],
        now: Millis,
    ) -> Result<bool, CloseReason> {
        let username = username(connect);
        let (Some(passwords), Some(username)) = (check_access(rules, username)?, username) else { return Ok(true) };
        let check = passwords.check(username, connect.password.unwrap_or_default());
        if self.login.logins.knows(&check) {
            return Ok(true);
        }
        let address = address(self.clients.links[id as usize].peer);
        self.login.check_wait(address, now)?;
        if self.login.has_no_room(address, body.len()) {
            let detail = "as many logins wait to be looked at as may; try again later";
            return Err(CloseReason::refused(ReasonCode::QuotaExceeded, "server busy", detail));
        }
        self.login.waiting_bytes += body.len();
        self.login.waiting.push_back(Waiting { link: id, address, check, body: body.into() });
        self.clients.link_mut(id).paused = Paused::ForLogin;
        Ok(false)
    }

    /// The next password to be looked at, if somebody waits for that and the one before was answered.
    pub fn take_login(&mut self, now: Millis) -> Option<(LoginId, Check)> {
        self.note_time(now);
        while self.login.has_work() {
            let Waiting { link, address, check, body } = self.login.waiting.pop_front()?;
            self.login.waiting_bytes -= body.len();
            if let Err(reason) = self.login.check_wait(address, now) {
                // Those before it were wrong.
                self.clients.link_mut(link).paused = Paused::No;
                self.refuse(link, reason.with_caller(client_id_of(&body)), now);
                continue;
            }
            self.login.last += 1;
            let (id, tag) = (LoginId(self.login.last), self.login.logins.tag(&check));
            self.login.taken = Some(Taken { id, link: Some(link), address, tag, body });
            return Some((id, check));
        }
        None
    }

    /// What came of a check that was taken.
    pub fn login(&mut self, id: LoginId, is_right: bool, now: Millis) {
        self.note_time(now);
        let Some(Taken { link, address, tag, body, .. }) = self.login.taken.take_if(|taken| taken.id == id) else {
            return;
        };
        match (is_right, address) {
            (true, Some(address)) => self.login.failures.passed(address),
            (false, Some(address)) => self.login.failures.failed(address, now),
            (_, None) => {}
        }
        if is_right {
            self.login.logins.remember(tag);
        }
        let Some(link) = link else { return };
        debug_assert!(self.clients.links[link as usize].state == State::AwaitingConnect);
        self.clients.link_mut(link).paused = Paused::No;
        if is_right {
            self.handle_connect(link, &body, now);
        } else {
            let detail = "unknown user or wrong password";
            let reason = CloseReason::refused(ReasonCode::NotAuthorized, NOT_AUTHORISED, detail);
            self.refuse(link, reason.with_caller(client_id_of(&body)), now);
        }
        let link_now = &self.clients.links[link as usize];
        if link_now.state == State::Connected && !link_now.is_paused() {
            // What it sent behind CONNECT, and what is still in its socket.
            self.let_go_on(link);
        }
    }
}
