//! The judgement of what is not owed to one session: shared subscriptions, and what publishers were told.

use std::collections::{BTreeMap, HashMap};

use super::ledger::*;
use super::model::Model;
use super::verdict::{Form, Losses};

impl Model {
    /// A 5.0 publisher is told whether anybody gets its message; only where that is beyond doubt. [MQTT-3.4.2-1]
    pub(super) fn judge_answers(&mut self) {
        let wrong = self.instances.iter().position(|instance| {
            let message = &self.messages[instance.message as usize];
            let sees = |session: &Session, number: usize, it: &Subscription, must: bool| {
                let is_own = it.no_local && instance.session == Some(number);
                let is_there = if must { it.must_see(instance.span) } else { it.may_see(instance.span) };
                let is_kept = !must || it.share.is_none() && !session.has_gap(instance.span);
                !is_own && is_there && is_kept && matches(&it.filter, &message.topic)
            };
            let anybody = |must: bool| {
                let mut sessions = self.sessions.iter().enumerate();
                sessions.any(|(number, it)| it.subscriptions.iter().any(|own| sees(it, number, own, must)))
            };
            match instance.has_recipients {
                Some(true) => !self.has_hostile && !anybody(false),
                Some(false) => anybody(true),
                None => false,
            }
        });
        if let Some(at) = wrong {
            let (it, text) = (&self.instances[at], self.describe(self.instances[at].message));
            let told = it.has_recipients;
            self.fail(format!(
                "the publisher of {text}, {:?}, was told of recipients: {told:?}",
                self.instances[at].span
            ));
        }
    }

    /// Each share gets each message once, whoever of its members.
    pub(super) fn judge_shares(&mut self, losses: &mut Losses) {
        let mut members: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        for (session, it) in self.sessions.iter().enumerate() {
            for (at, subscription) in it.subscriptions.iter().enumerate() {
                if subscription.share.is_some() {
                    members.entry(subscription.full.clone()).or_default().push((session, at));
                }
            }
        }
        let mut failures = Vec::new();
        let mut instances: HashMap<(&str, Key), Vec<usize>> = HashMap::new();
        for (at, instance) in self.instances.iter().enumerate().filter(|(_, instance)| !instance.is_refused) {
            let topic = &self.messages[instance.message as usize].topic;
            instances.entry((topic, self.key(instance.message))).or_default().push(at);
        }
        for (full, members) in members {
            self.judge_share(&full, &members, &instances, losses, &mut failures);
        }
        for failure in failures {
            self.fail(failure);
        }
    }

    fn judge_share(
        &self,
        full: &str,
        members: &[(usize, usize)],
        instances: &HashMap<(&str, Key), Vec<usize>>,
        losses: &mut Losses,
        failures: &mut Vec<String>,
    ) {
        let subscription = |&(session, at): &(usize, usize)| &self.sessions[session].subscriptions[at];
        // What a member that lost its link was owed at QoS 1 goes to another one, perhaps once more, perhaps to one that
        // cannot keep it.
        let has_left = |member: &(usize, usize)| {
            let session = &self.sessions[member.0];
            session.ended.is_some() || !session.gaps.is_empty() || subscription(member).off.is_some()
        };
        let is_handed_on = members.len() > 1 && members.iter().any(has_left);
        let mut seen: HashMap<(&str, Key), (u64, u64)> = HashMap::new();
        for member in members {
            let own = subscription(member);
            for it in self.sessions[member.0].seen.iter().filter(|it| it.subscription_ids == [own.id]) {
                let (count, count_qos1) = seen.entry((&it.topic, it.key)).or_default();
                (*count, *count_qos1) = (*count + 1, *count_qos1 + u64::from(it.qos == 1));
                let fits = |&at: &usize| {
                    let instance = &self.instances[at];
                    let message = &self.messages[instance.message as usize];
                    // It may have waited while the subscription was made anew with other options.
                    let mut made = members.iter().filter(|other| other.0 == member.0).map(subscription);
                    if !made.any(|own| self.effective(message.qos, own.qos) == it.qos) || it.retain && !message.retain {
                        return false;
                    }
                    let (qos, retain) = (it.qos, it.retain);
                    let form =
                        Form { key: it.key, qos, retain, ids: vec![own.id], instance: at, asked: None, since: 0 };
                    (is_handed_on || own.may_see(instance.span)) && self.fits(member.0, &form, it)
                };
                let of_message = instances.get(&(it.topic.as_str(), it.key));
                if !matches(&own.filter, &it.topic) || !of_message.into_iter().flatten().any(fits) {
                    failures.push(format!("session {} was not owed {it:?} by {full}", member.0));
                }
            }
        }
        // Owed at most, owed at least, of these excusable, for each message.
        let mut owed: HashMap<(&str, Key), (u64, u64, bool)> = HashMap::new();
        for instance in self.instances.iter().filter(|instance| !instance.is_refused) {
            let message = &self.messages[instance.message as usize];
            let possible: Vec<&(usize, usize)> = (members.iter())
                .filter(|member| subscription(member).may_see(instance.span))
                .filter(|member| matches(&subscription(member).filter, &message.topic))
                .collect();
            if possible.is_empty() {
                continue;
            }
            let is_safe = |member: &&(usize, usize)| {
                let own = subscription(member);
                let qos = self.effective(message.qos, own.qos);
                self.is_complete(member.0) && qos > 0 && !self.is_too_large(member.0, instance.message, qos, &[own.id])
            };
            let is_must = instance.is_sure
                && possible.iter().any(|member| subscription(member).must_see(instance.span))
                && possible.iter().all(is_safe);
            // A will waits for nobody.
            let may_be_lost = message.expiry_s.is_some()
                || message.is_will
                || possible.iter().any(|member| self.may_be_dropped(member.0, instance.span));
            let entry = owed.entry((&message.topic, self.key(instance.message))).or_default();
            entry.0 += 1;
            entry.1 += u64::from(is_must);
            entry.2 |= may_be_lost;
        }
        for (key, (at_most, at_least, may_be_lost)) in owed {
            let (count, count_qos1) = seen.remove(&key).unwrap_or_default();
            if count > at_most && !(is_handed_on && count - count_qos1 <= at_most) {
                failures.push(format!("share {full}: {key:?} came {count} times, owed {at_most}"));
            }
            match at_least.saturating_sub(count) {
                0 => {}
                _ if is_handed_on => {}
                missing if may_be_lost => losses.expired += missing,
                _ => failures.push(format!("share {full}: {key:?} came {count} times, owed {at_least}")),
            }
        }
    }
}
