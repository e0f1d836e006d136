//! Who may read and write what: what no file can change, and what the access control file of a client's listener says. A session
//! without a link is judged by the rules of the listener it was last connected to. After a restart nobody knows which that
//! was: such a session is judged by none until its client is back, and then by those it came with: what waited for it
//! and it may not read is removed before anything is sent. Its will was judged when it was stored.
//!
//! While no listener has such a file, a message costs a look at one flag, and one more for each subscriber.

use std::borrow::Cow;
use std::rc::Rc;

use super::clients::Clients;
use super::session::Session;
use super::{Broker, NONE};
use crate::access::acl::{Access, Acl, Asker, Decision};
use crate::config::{Loaded, Rules};
use crate::time::Millis;

/// Who published a retained message, as far as `check_retain_source` wants to know.
pub(super) struct Source {
    client_id: Box<str>,
    username: Option<Box<str>>,
    rules: Rc<Rules>,
}

impl Session {
    /// What the client is judged by from now on; whether there is an access control file among it.
    fn set_rules(&mut self, rules: &Rc<Rules>) -> bool {
        self.has_acl = rules.acl.is_some();
        self.rules = Some(rules.clone());
        self.has_acl
    }

    fn acl(&self) -> Option<&Loaded<Acl>> {
        self.rules.as_deref()?.acl.as_ref()
    }

    fn asker(&self) -> Asker<'_> {
        Asker { client_id: &self.client_id, username: self.username.as_deref().map(|name| &**name) }
    }

    fn decide(&self, access: Access, topic: &[u8]) -> Option<(Decision, &Loaded<Acl>)> {
        let acl = self.acl()?;
        Some((acl.decide(&self.asker(), access, std::str::from_utf8(topic).ok()?), acl))
    }

    /// Whether the client may get messages of this topic.
    fn may_read(&self, topic: &[u8]) -> bool {
        !self.has_acl || self.decide(Access::Read, topic).is_none_or(|(decision, _)| decision.allowed)
    }

    /// Why the client may not publish to this topic; nothing if it may.
    fn write_denial(&self, topic: &str) -> Option<String> {
        if !self.has_acl {
            return None;
        }
        let (decision, acl) = self.decide(Access::Write, topic.as_bytes())?;
        (!decision.allowed).then(|| format!("{decision} of {}", acl.path().display()))
    }

    /// The will, if it may be published as things are.
    pub(super) fn will_that_may_be(&self) -> Option<&super::will::Will> {
        self.will.as_deref().filter(|will| self.write_denial(&will.topic).is_none())
    }
}

impl Source {
    fn may_write(&self, topic: &str) -> bool {
        let asker = Asker { client_id: &self.client_id, username: self.username.as_deref() };
        self.rules.acl.as_ref().is_none_or(|acl| acl.decide(&asker, Access::Write, topic).allowed)
    }
}

/// Why nobody but the broker may publish to this topic, which begins with `$`, whatever files say. Its own topics are not for
/// clients, with the one exception that Mosquitto bridges need for their state; what begins with `$share` is for subscriptions.
fn reserved(topic: &str) -> Option<&'static str> {
    if topic.starts_with("$SYS") && !is_bridge_state(topic) {
        Some("topics below $SYS belong to the broker")
    } else if topic.starts_with("$share") {
        Some("topics that begin with $share are for subscriptions")
    } else {
        None
    }
}

/// `$SYS/broker/connection/<id>/state`
pub(super) fn is_bridge_state(topic: &str) -> bool {
    crate::topic::matches("$SYS/broker/connection/+/state", topic)
}

impl Broker {
    /// Listeners have other rules: each pair is what held, and what holds from now on. Sessions without a link go by the new ones
    /// of the listener they were last connected to; if that is gone, by what it had. For links there is `set_rules`.
    pub fn replace_rules(&mut self, replaced: &[(Rc<Rules>, Rc<Rules>)]) {
        let new = |old: &Rc<Rules>| replaced.iter().find(|(it, _)| Rc::ptr_eq(it, old)).map(|(_, new)| new);
        for (_, session) in self.clients.sessions.iter_mut().filter(|(_, session)| session.link == NONE) {
            if let Some(new) = session.rules.as_ref().and_then(new) {
                self.clients.has_acl |= session.set_rules(new);
            }
        }
        for source in self.retained.sources_mut() {
            if let Some(new) = new(&source.rules) {
                source.rules = new.clone();
            }
        }
    }

    /// Remembers who published the message that is retained for a topic, if that is wanted.
    pub(super) fn note_source(&mut self, topic: &str, publisher: u32) {
        let Some(session) = self.clients.sessions.get(publisher as usize) else { return };
        let Some(rules) = session.rules.clone() else { return };
        let username = session.username.as_deref().cloned();
        let source = Source { client_id: (*session.client_id).into(), username, rules };
        self.retained.set_source(topic, source);
    }
}

/// Whether a retained message may be delivered that came from there, if that is known.
pub(super) fn is_still_allowed(source: Option<&Source>, topic: &str) -> bool {
    source.is_none_or(|source| source.may_write(topic))
}

impl Clients {
    /// What a client is judged by from now on.
    pub(super) fn set_session_rules(&mut self, id: u32, rules: &Rc<Rules>) {
        self.has_acl |= self.sessions[id as usize].set_rules(rules);
    }

    /// Whether the session's client may get messages of this topic.
    #[inline]
    pub(super) fn may_read(&self, session: u32, topic: &[u8]) -> bool {
        !self.has_acl || self.sessions[session as usize].may_read(topic)
    }

    /// Why the session's client may not publish to this topic; nothing if it may.
    #[inline]
    pub(super) fn write_denial(&self, session: u32, topic: &str) -> Option<Box<Cow<'static, str>>> {
        let is_plain = !self.has_acl && topic.as_bytes().first() != Some(&b'$');
        if is_plain { None } else { self.find_denial(session, topic) }
    }

    #[cold]
    fn find_denial(&self, session: u32, topic: &str) -> Option<Box<Cow<'static, str>>> {
        if let Some(why) = reserved(topic) {
            return Some(Box::new(why.into()));
        }
        self.sessions[session as usize].write_denial(topic).map(|why| Box::new(why.into()))
    }

    /// The client is back: what waits for it and it may not read any more is removed.
    pub(super) fn remove_unreadable(&mut self, id: u32, now: Millis) {
        let session = &mut self.sessions[id as usize];
        if !session.has_acl {
            return;
        }
        let Some(mut delivery) = session.delivery.take() else { return };
        let mut gone = Vec::new();
        delivery.take_inflight(|it| {
            let is_taken = it.message.as_ref().is_some_and(|message| !session.may_read(message.topic_bytes()));
            if is_taken {
                gone.push((it.entry, it.message.clone()));
            }
            is_taken
        });
        let taken = delivery.take_queued(|queued| !session.may_read(queued.message.topic_bytes()));
        gone.extend(taken.into_iter().map(|queued| (queued.entry, Some(queued.message))));
        session.delivery = Some(delivery);
        if !gone.is_empty() {
            log::debug!("{} messages that client {} may not read were removed.", gone.len(), session.client_id);
        }
        for (entry, message) in gone {
            self.entry_gone(id, &entry, message.as_ref(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bridge_state_may_be_written_below_sys() {
        assert!(is_bridge_state("$SYS/broker/connection/house.attic/state"));
        assert!(!is_bridge_state("$SYS/broker/connection/a/b/state"));
        assert!(!is_bridge_state("$SYS/broker/version"));
        for (topic, is_reserved) in [
            ("$SYS", true),
            ("$SYS/x", true),
            ("$SYSTEM", true),
            ("$SYS/broker/connection/a/state", false),
            ("$share/g/a", true),
            ("$S", false),
            ("$other/x", false),
            ("a/$SYS", false),
        ] {
            assert_eq!(reserved(topic).is_some(), is_reserved, "{topic}");
        }
    }
}
