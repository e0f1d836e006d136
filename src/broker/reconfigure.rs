//! Another configuration while clients are connected: what holds at once, and what only for those who connect later, because
//! CONNACK told those who are here otherwise.

use std::rc::Rc;

use super::close::CloseReason;
use super::connect::{check_version, window};
use super::link::{LinkId, State};
use super::login::check_access_again;
use super::session::after;
use super::{Broker, NONE};
use crate::config::{Config, Rules};
use crate::time::Millis;

/// The rules that hold for a client which connected under the `older` ones: the copy is made only if they differ in that.
fn with_what_was_told(rules: &Rc<Rules>, older: &Rules) -> Rc<Rules> {
    let Rules { mount_point, max_topic_alias, .. } = older;
    if rules.mount_point == *mount_point && rules.max_topic_alias == *max_topic_alias {
        return rules.clone();
    }
    Rc::new(Rules { mount_point: mount_point.clone(), max_topic_alias: *max_topic_alias, ..(**rules).clone() })
}

impl Broker {
    /// Every number of `config` holds from now on, for everybody, with these exceptions:
    ///
    /// - `persistence` stays what it was at start.
    /// - `connect_timeout_s` holds for new connections.
    /// - `max_keepalive_s` holds for new clients: those who are here go on with the keep-alive they asked for or were told.
    /// - `global_max_connections`, `global_max_clients` and `clientid_prefixes` disconnect nobody.
    /// - `max_inflight_messages` as a Receive Maximum stays what CONNACK told. As a limit of what is sent it holds at once for all
    ///   clients that did not ask for a window of their own; what is under way beyond it stays under way.
    /// - `persistent_client_expiration_s` shortens how long sessions are kept, counted from when their client left, or from now
    ///   if they were to be kept for ever. It lengthens nothing: what a client asked for is asked anew with its next CONNECT.
    ///
    /// What is in queues already stays there, also if a queue may no longer be so long; so do subscriptions, retained messages and
    /// wills, also if they would no longer be accepted. A 5.0 client that was told in CONNACK of a larger `max_packet_size`, or nothing of
    /// `retain_available`, is disconnected with the reason if it makes use of that.
    pub fn reconfigure(&mut self, config: Config, now: Millis) {
        // The averages so far belong to the interval so far.
        self.note_time(now);
        let persistence = self.clients.config.persistence;
        let older = std::mem::replace(&mut self.clients.config, Config { persistence, ..config });
        self.clients.store.autosave = self.clients.config.autosave;
        let config = &self.clients.config;
        let is_sys_changed = config.sys_interval_s != older.sys_interval_s;
        let is_retry_changed = config.retry_interval_s != older.retry_interval_s;
        let is_rate_changed = (config.max_publish_rate, config.max_publish_bytes_rate)
            != (older.max_publish_rate, older.max_publish_bytes_rate);
        let is_stall_changed = config.stall_timeout_ms != older.stall_timeout_ms;
        if config.memory_limit != older.memory_limit {
            self.clients.memory.set_limit(config.memory_limit);
        }
        if is_retry_changed {
            self.clients.retry_interval_changed(now);
        }
        if is_stall_changed {
            self.clients.stall_timeout_changed();
        }
        if is_rate_changed {
            self.publish_rates_changed(now);
        }
        self.shorten_sessions(now);
        self.set_windows(now);
        if !self.clients.config.check_retain_source {
            self.retained.forget_sources();
        }
        if is_sys_changed {
            self.sys_interval_changed(now);
        }
    }

    /// The listener of `id` has other rules. A client that they would not let in is disconnected. For others they hold from their
    /// next packet on, as far as CONNACK did not tell otherwise: `mount_point`, `max_topic_alias` and `max_topic_alias_broker`
    /// stay what they were, and so does `max_qos` for what the client publishes, unless it is higher now; new subscriptions
    /// are granted the new one. A link whose CONNECT did not come yet obeys all of them.
    ///
    /// A password is known no more once it was checked: a client that logged in with one stays if the file's entry for it is the
    /// one it was checked against, and has to log in again if not. What a client may read and write changes with the next
    /// message; its subscriptions stay, and so does what is in its queue.
    ///
    /// Nobody has to go for a client id that was allowed when they came.
    pub fn set_rules(&mut self, id: LinkId, rules: &Rc<Rules>, now: Millis) {
        let link = self.clients.link_mut(id);
        match link.state {
            State::AwaitingConnect => link.rules = rules.clone(),
            State::Connected => {
                let told = with_what_was_told(rules, &link.rules);
                let older = std::mem::replace(&mut link.rules, told);
                link.max_qos = link.max_qos.max(rules.max_qos);
                let session = link.session;
                self.clients.set_session_rules(session, rules);
                if let Err(refusal) = self.check_rules(id, rules, &older) {
                    self.close(id, CloseReason::no_longer_authorised(refusal), now);
                }
            }
            State::Closing => {}
        }
    }

    /// Whether the client would be let in.
    fn check_rules(&self, id: LinkId, rules: &Rules, older: &Rules) -> Result<(), CloseReason> {
        let link = &self.clients.links[id as usize];
        check_version(rules, link.version)?;
        let session = &self.clients.sessions[link.session as usize];
        check_access_again(rules, older, session.username.as_deref().map(|name| &**name))
    }

    /// Nothing is kept longer than persistent_client_expiration says.
    fn shorten_sessions(&mut self, now: Millis) {
        let sessions = self.clients.sessions.iter().map(|(id, session)| (id as u32, session.expiry_s));
        let too_long = sessions.filter(|&(_, expiry_s)| self.bounded_expiry(expiry_s) < expiry_s);
        for (id, older_s) in too_long.collect::<Vec<_>>() {
            let expiry_s = self.bounded_expiry(older_s);
            let session = self.clients.session_mut(id);
            session.expiry_s = expiry_s;
            if session.link == NONE {
                session.expires_at = match session.expires_at {
                    Millis::NEVER => after(now, expiry_s),
                    at => at - Millis::from_secs((older_s - expiry_s).into()),
                };
                self.clients.arm_session(id);
            }
            self.clients.store_session(id, now);
        }
    }

    /// Windows, queues and who waits for them: what there is room for now goes on.
    fn set_windows(&mut self, now: Millis) {
        let own = window(self.clients.config.max_inflight_messages);
        for (_, link) in self.clients.links.iter_mut().filter(|(_, link)| !link.has_own_window) {
            link.window = own;
        }
        let connected = self.clients.links.iter().filter(|(_, link)| link.state == State::Connected);
        for id in connected.map(|(id, _)| id as LinkId).collect::<Vec<_>>() {
            self.send_more(id, now);
        }
    }
}
