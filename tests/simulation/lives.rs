//! How links and sessions end in the model: what is lost with a link, wills, expiry, timeouts, and the times in which a
//! session may lose messages.

use super::ledger::*;
use super::model::Model;

/// Deadlines that need not be exact are up to this late.
const COARSE_MS: u64 = 250;

/// Bytes that count as progress.
const PROGRESS_BYTES: usize = 1024;

fn round(ms: u64) -> u64 {
    ms.saturating_add(COARSE_MS - 1) / COARSE_MS * COARSE_MS
}

impl Model {
    /// The link ended, for whatever reason; what it brought and was not handled is lost.
    pub fn link_closed(&mut self, conn: usize, span: Span) {
        if !std::mem::replace(&mut self.links[conn].is_open, false) {
            return;
        }
        self.note(|| format!("conn {conn} closed at the broker"));
        let pending = std::mem::take(&mut self.links[conn].pending);
        let Some(session) = self.links[conn].session else { return };
        for pending in pending {
            match pending.effect {
                Effect::Publish(at) => {
                    let instance = &mut self.instances[at];
                    if !instance.is_sure && self.messages[instance.message as usize].qos < 2 {
                        (instance.span.to, instance.to_ms) = (span.to, self.now_ms);
                    }
                }
                Effect::Subscribe(new, old) => {
                    let touched = new.into_iter().chain(old);
                    touched.for_each(|at| self.sessions[session].subscriptions[at].is_vague = true);
                }
                Effect::Unsubscribe(old) => {
                    old.into_iter().for_each(|at| self.sessions[session].subscriptions[at].is_vague = true);
                }
                Effect::Acknowledge(_) | Effect::Other => {}
            }
        }
        let disconnect = self.links[conn].disconnect;
        let bounded = disconnect.and_then(|(_, expiry)| expiry).map(|expiry| self.bounded(expiry));
        let now_ms = self.now_ms;
        let session_now = &mut self.sessions[session];
        session_now.conn = None;
        session_now.open_gap(span.from);
        if let Some((false, _)) = disconnect {
            session_now.will = None;
        }
        if let Some(expiry_s) = bounded {
            session_now.expiry_s = expiry_s;
        }
        if session_now.expiry_s == 0 {
            self.end_session(session, span);
            return;
        }
        let after = |seconds: u32| if seconds == u32::MAX { u64::MAX } else { now_ms + u64::from(seconds) * 1000 };
        session_now.expires_ms = after(session_now.expiry_s);
        match session_now.will.as_ref().map(|will| will.delay_s) {
            None => {}
            Some(0) => self.publish_will(session, span),
            Some(delay_s) => session_now.will_ms = after(delay_s),
        }
    }

    pub fn end_session(&mut self, session: usize, span: Span) {
        self.note(|| format!("session {session} ends"));
        self.publish_will(session, span);
        let ended = &mut self.sessions[session];
        ended.ended = Some(span);
        for subscription in &mut ended.subscriptions {
            subscription.off.get_or_insert(span);
        }
        let received: Vec<usize> = ended.received.drain().map(|(_, instance)| instance).collect();
        self.living.remove(&ended.client);
        for at in received {
            if !self.instances[at].is_sure {
                (self.instances[at].span.to, self.instances[at].to_ms) = (span.to, self.now_ms);
            }
        }
    }

    fn publish_will(&mut self, session: usize, span: Span) {
        let session = &mut self.sessions[session];
        session.will_ms = u64::MAX;
        let Some(will) = session.will.take() else { return };
        let (from_ms, to_ms, message) = (self.now_ms, self.now_ms, will.message);
        self.note(|| format!("will {message} is due"));
        let is_refused = self.is_forbidden(message);
        self.instances.push(Instance {
            message,
            span,
            from_ms,
            to_ms,
            is_sure: true,
            session: None,
            is_refused,
            has_recipients: None,
        });
    }

    /// `tick` returned: sessions without link whose time has come.
    pub fn ticked(&mut self, span: Span) {
        let due: Vec<usize> = (self.living.values().copied())
            .filter(|&session| {
                let session = &self.sessions[session];
                session.conn.is_none() && round(session.will_ms.min(session.expires_ms)) <= self.now_ms
            })
            .collect();
        for session in due {
            if self.sessions[session].expires_ms <= self.now_ms {
                self.end_session(session, span);
            } else if self.sessions[session].will_ms <= self.now_ms {
                self.publish_will(session, span);
            }
        }
    }

    /// The broker closed a link in `tick`: only for a reason.
    pub fn check_timeout(&mut self, conn: usize) {
        let (link, now_ms) = (&self.links[conn], self.now_ms);
        let limit_ms = match link.session {
            None => u64::from(self.config.connect_timeout_s) * 1000,
            Some(_) if link.keep_alive_s == 0 => u64::MAX,
            Some(_) => u64::from(link.keep_alive_s) * 1500,
        };
        let since_ms = if link.session.is_some() { link.received_ms } else { link.opened_ms };
        let silent_ms = now_ms - since_ms;
        if link.client.is_some() && silent_ms < limit_ms {
            self.fail(format!("conn {conn}: closed by a timer after {silent_ms} ms of silence, allowed {limit_ms}"));
        }
    }

    /// No link may be silent longer than its keep-alive allows; only where nobody was ever paused.
    pub fn check_silence(&mut self) {
        let now_ms = self.now_ms;
        let late = self.links.iter().position(|link| {
            let deadline_ms = round(link.received_ms + u64::from(link.keep_alive_s) * 1500) + COARSE_MS;
            link.is_open && link.session.is_some() && link.keep_alive_s != 0 && now_ms > deadline_ms
        });
        if let Some(conn) = late {
            self.fail(format!("conn {conn}: silent for longer than its keep-alive, and still open"));
        }
    }

    /// The broker's socket took something.
    pub fn progress(&mut self, conn: usize, count: usize) {
        let link = &mut self.links[conn];
        link.taken += count;
        if link.taken >= PROGRESS_BYTES && std::mem::replace(&mut link.may_be_stalled, false) {
            self.set_gap(conn, self.moment);
        }
    }

    /// Publishers gave up waiting for somebody, perhaps for this one.
    pub fn may_be_stalled(&mut self, conn: usize, start: Moment) {
        self.links[conn].may_be_stalled = true;
        self.links[conn].taken = 0;
        self.set_gap(conn, start);
    }

    /// The broker does or does not listen to this link.
    pub fn set_deaf(&mut self, conn: usize, is_deaf: bool, start: Moment) {
        if std::mem::replace(&mut self.links[conn].is_deaf, is_deaf) != is_deaf {
            // Its queue stays bounded until it made progress.
            self.links[conn].may_be_stalled |= is_deaf;
            self.links[conn].taken = 0;
            self.set_gap(conn, start);
        }
    }

    fn set_gap(&mut self, conn: usize, start: Moment) {
        let (is_gap, now) = (self.links[conn].is_deaf || self.links[conn].may_be_stalled, self.moment);
        let Some(session) = self.links[conn].session else { return };
        self.note(|| format!("conn {conn} may lose messages: {is_gap}"));
        let session = &mut self.sessions[session];
        match session.conn == Some(conn) {
            true if is_gap => session.open_gap(start),
            true => session.close_gap(now),
            false => {}
        }
    }
}
