//! What is sent when there is room: what waits in the queue, then the retained messages owed to new subscriptions. Those are
//! looked up one by one, so a client that reads slowly costs no more memory than the last topic it got; and a bounded
//! number of topics at a time, so that a filter that matches little does not hold up the loop.

use super::access::is_still_allowed;
use super::retained::Found;
use super::session::{Queued, Via, WindowLimits};
use super::{Broker, NONE};
use crate::codec::QoS;
use crate::time::Millis;

/// Topics looked at for one client in one turn.
const TOPICS_PER_TURN: u32 = 1000;

impl Broker {
    /// Sends what waits for the client, as far as there is room: first what must be sent again, then the queue, then
    /// retained messages owed to new subscriptions.
    pub(super) fn pump(&mut self, session: u32, now: Millis) {
        self.clients.pump_queue(session, now);
        let mut budget = TOPICS_PER_TURN;
        while self.pump_retained(session, &mut budget, now) {
            if budget == 0 {
                let link = self.clients.sessions[session as usize].link;
                self.let_go_on(link);
                return;
            }
        }
    }

    /// Sends the next retained message that is owed; false if there is none, or no room.
    fn pump_retained(&mut self, session_id: u32, budget: &mut u32, now: Millis) -> bool {
        let Broker { clients, index, retained, .. } = self;
        let session = &mut clients.sessions[session_id as usize];
        let Some(delivery) = session.delivery.as_deref_mut() else { return false };
        if session.link == NONE || !delivery.queue.is_empty() {
            return false;
        }
        let Some(cursor) = delivery.cursors.front() else { return false };
        let link = &clients.links[session.link as usize];
        if link.output.len() >= clients.memory.output_high {
            return false;
        }
        let (window, limits) = (link.window, WindowLimits::of(&clients.config));
        // What waits to be safe goes first.
        let is_behind = delivery.sent < delivery.inflight.len();
        let filter = index.filter_text(cursor.key.filter);
        let message = match retained.next_match(filter, cursor.after.as_deref(), budget) {
            Found::Nothing => {
                let key = cursor.key;
                delivery.cursors.pop_front();
                let number = session.number;
                clients.store.paid(number, session_id, key, now);
                return true;
            }
            Found::NotYet(topic) => {
                delivery.cursors[0].after = Some(topic.into());
                return true;
            }
            Found::Match(message) => message,
        };
        let subscriber = cursor.subscriber;
        let qos = clients.config.effective_qos(message.qos(), subscriber.qos);
        // [MQTT-3.8.3-3] [MQTT-3.3.2-5] (5.0)
        let is_own = subscriber.no_local
            && message.is_of_publisher(clients.publisher_seed.hash_client(session.client_id.as_bytes()));
        let is_unwanted = is_own
            || message.expires_at() <= now
            || !clients.may_read(session_id, message.topic_bytes())
            || clients.config.check_retain_source
                && !is_still_allowed(retained.source(message.topic()), message.topic());
        let delivery = clients.sessions[session_id as usize].delivery_mut();
        let has_window = || delivery.has_window(window, limits, || message.payload().len());
        if !is_unwanted && qos > QoS::AtMostOnce && (!has_window() || is_behind && qos < QoS::ExactlyOnce) {
            return false;
        }
        delivery.cursors[0].after = Some(message.topic().into());
        let message = message.clone();
        let via = Via::subscription(subscriber.subscription_id);
        if is_unwanted {
            return true;
        }
        let entry = clients.new_entry(session_id);
        clients.send_message(session_id, Queued { message, entry, via, qos, retain: true }, now)
    }
}
