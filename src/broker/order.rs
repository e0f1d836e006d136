//! What somebody who administers the broker orders: the same things that clients and time bring about, in the same ways.

use super::access::is_bridge_state;
use super::close::{CloseReason, excerpt};
use super::retained::Found;
use super::{Broker, NONE};
use crate::time::Millis;

/// Topics looked at in one turn, and messages removed.
const LOOKED_MAX: u32 = 1024;
const REMOVED_MAX: usize = 256;

/// Retained messages that are being removed, as many as a filter matches, some in each turn.
pub struct Deletion {
    filter: Box<str>,
    /// The last topic looked at.
    after: Option<Box<str>>,
    pub removed: u64,
    /// Those below `$SYS` that are the broker's own.
    pub left: u64,
    /// Once it is over: the position at which it is stored.
    pub position: u64,
}

impl Deletion {
    /// `filter` is valid.
    pub fn new(filter: &str) -> Deletion {
        Deletion { filter: filter.into(), after: None, removed: 0, left: 0, position: 0 }
    }
}

impl Broker {
    /// Ends a client's connection. Its session goes on as after any other loss of it, and its will is sent.
    ///
    /// # Errors
    /// A sentence if it is not connected.
    pub fn kick(&mut self, client_id: &str, now: Millis) -> Result<(), String> {
        let session = self.session_of(client_id)?;
        let link = self.clients.sessions[session as usize].link;
        if link == NONE {
            let shown = excerpt(client_id);
            return Err(format!(
                "Client '{shown}' is not connected; 'session delete' ends the session that waits for it."
            ));
        }
        self.note_time(now);
        self.close(link, CloseReason::kicked("the administrator of the broker ended this connection"), now);
        Ok(())
    }

    /// Ends a session with all it holds, and the connection of its client, if there is one. Gives the position at which that is
    /// stored: whoever ordered it takes it for done.
    ///
    /// # Errors
    /// A sentence if there is none.
    pub fn delete_session(&mut self, client_id: &str, now: Millis) -> Result<u64, String> {
        let session = self.session_of(client_id)?;
        self.note_time(now);
        let link = self.clients.sessions[session as usize].link;
        if link != NONE {
            self.close(link, CloseReason::kicked("the administrator of the broker ended this session"), now);
        }
        // One that was not to outlive its link is gone by now.
        if let Some(session) = self.clients.find_session(client_id) {
            self.end_session(session, now);
        }
        Ok(self.save_now(now))
    }

    /// # Errors
    /// A sentence if there is no session of this client.
    pub fn has_session(&self, client_id: &str) -> Result<(), String> {
        self.session_of(client_id).map(|_| ())
    }

    fn session_of(&self, client_id: &str) -> Result<u32, String> {
        let session = self.clients.find_session(client_id);
        session.ok_or_else(|| format!("There is no client '{}', connected or away.", excerpt(client_id)))
    }

    /// Removes some more retained messages; says whether that was all. Subscribers are told nothing, as when a message expires: what
    /// they saw they saw.
    pub fn delete_retained(&mut self, deletion: &mut Deletion, now: Millis) -> bool {
        self.note_time(now);
        let is_over = self.delete_some_retained(deletion, now);
        if is_over && deletion.removed > 0 {
            deletion.position = self.save_now(now);
        }
        is_over
    }

    fn delete_some_retained(&mut self, deletion: &mut Deletion, now: Millis) -> bool {
        let mut budget = LOOKED_MAX;
        for _ in 0..REMOVED_MAX {
            if budget == 0 {
                return false;
            }
            let topic: Box<str> =
                match self.retained.next_match(deletion.filter.as_bytes(), deletion.after.as_deref(), &mut budget) {
                    Found::Nothing => return true,
                    Found::NotYet(topic) => {
                        deletion.after = Some(topic.into());
                        return false;
                    }
                    Found::Match(message) => message.topic().into(),
                };
            if topic.starts_with("$SYS/") && !is_bridge_state(&topic) {
                deletion.left += 1;
            } else if self.clear_retained(&topic, now) {
                deletion.removed += 1;
            }
            deletion.after = Some(topic);
        }
        false
    }
}
