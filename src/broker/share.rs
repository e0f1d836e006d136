//! Shared subscriptions: which member gets a message, and who gets what a member leaves behind. [MQTT-4.8.2-3] (5.0)

use super::clients::Clients;
use super::deliver::Route;
use super::index::{Share, ShareId, Subscriber, SubscriptionKey};
use super::message::Message;
use super::session::Via;
use super::{Broker, NONE};
use crate::codec::QoS;
use crate::time::Millis;

impl Broker {
    /// A member of shares lost its link. What it was sent at QoS 1 and did not acknowledge, and what only waited for it, goes
    /// to members who are there; if it leaves for good, to members who may come back, too. QoS 2 messages it was sent stay
    /// its own: they are completed with it, or with nobody. [MQTT-4.8.2-4] [MQTT-4.8.2-5] (5.0)
    pub(super) fn fail_over(&mut self, session_id: u32, is_ending: bool, now: Millis) {
        let Broker { clients, index, .. } = self;
        let session = &mut clients.sessions[session_id as usize];
        let shares: Vec<ShareId> = session.subscriptions.iter().filter_map(SubscriptionKey::share_id).collect();
        if shares.is_empty() {
            return;
        }
        let Some(mut delivery) = session.delivery.take() else { return };
        let (mut left, mut gone) = (Vec::new(), Vec::new());
        let mut is_left = |via: Via, message: Option<&Message>| {
            let (Some(share), Some(message)) = (via.share_id().filter(|share| shares.contains(share)), message) else {
                return false;
            };
            if message.expires_at() <= now {
                return false;
            }
            let has_heir = index
                .share_mut(share)
                .is_some_and(|it| clients.heir(it, session_id, message.topic_bytes(), is_ending).is_some());
            if has_heir {
                left.push((share, message.clone()));
            }
            has_heir
        };
        delivery.take_inflight(|it| {
            let is_taken = it.qos == QoS::AtLeastOnce && is_left(it.via, it.message.as_ref());
            if is_taken {
                gone.push((it.entry, it.message.clone()));
            }
            is_taken
        });
        let taken = delivery.take_queued(|queued| is_left(queued.via, Some(&queued.message)));
        gone.extend(taken.into_iter().map(|queued| (queued.entry, Some(queued.message))));
        clients.session_mut(session_id).delivery = Some(delivery);
        clients.store.is_handing_on = true;
        for (entry, message) in gone {
            clients.entry_gone(session_id, &entry, message.as_ref(), now);
        }
        for (id, message) in left {
            let Some(share) = index.share_mut(id) else { continue };
            let Some(at) = clients.heir(share, session_id, message.topic_bytes(), is_ending) else { continue };
            share.turn = (at + 1) % share.members.len();
            let member = share.members[at];
            let mut route = Route::new(message.parts(), NONE);
            clients.deliver(&mut route, &member, Via::share(id), now);
        }
        clients.store.is_handing_on = false;
    }
}

impl Clients {
    /// Hands the message to one member of a share: in turn, first to those who can take it at once, then to those who are
    /// connected, then to those for whom it is kept.
    pub(super) fn deliver_to_share(&mut self, route: &mut Route, id: ShareId, share: &mut Share, now: Millis) {
        let count = share.members.len();
        let topic = route.topic().as_bytes();
        let may_read = |at: &usize| self.may_read(share.members[*at].session, topic);
        let in_turn = || (0..count).map(|step| (share.turn + step) % count).filter(may_read);
        let is_connected = |member: &Subscriber| self.sessions[member.session as usize].is_connected();
        let chosen = in_turn()
            .find(|&at| {
                self.can_send(share.members[at].session, share.members[at].qos.min(route.qos()), route.payload_len())
            })
            .or_else(|| in_turn().find(|&at| is_connected(&share.members[at])))
            .or_else(|| in_turn().find(|&at| keeps(&share.members[at])))
            .or_else(|| in_turn().next());
        let Some(chosen) = chosen else { return };
        share.turn = (chosen + 1) % count;
        let member = share.members[chosen];
        self.deliver(route, &member, Via::share(id), now);
    }

    /// Whose turn it is to take what `leaving` leaves: somebody connected; failing that, and only if it never comes back,
    /// anybody; of those who may read it.
    fn heir(&self, share: &Share, leaving: u32, topic: &[u8], is_ending: bool) -> Option<usize> {
        let count = share.members.len();
        let may_inherit = |session: u32| session != leaving && self.may_read(session, topic);
        let in_turn =
            || (0..count).map(|step| (share.turn + step) % count).filter(|&at| may_inherit(share.members[at].session));
        in_turn()
            .find(|&at| self.sessions[share.members[at].session as usize].is_connected())
            .or_else(|| in_turn().find(|&at| keeps(&share.members[at])).filter(|_| is_ending))
    }
}

/// Whether messages are kept for the member while it is away.
fn keeps(member: &Subscriber) -> bool {
    member.qos > QoS::AtMostOnce
}
