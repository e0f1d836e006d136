//! What the broker must have done, followed from the outside: packets as they reach it, calls as they end. Sessions,
//! subscriptions, wills and publications are kept as facts in `ledger`; nothing of the broker's own state is looked at
//! but its counters.

use std::collections::HashMap;

use midge::codec::{Connect, Direction, Packet, Property, Publish, QoS, Split, Version, decode, split_frame};
use midge::config::{Config, Rules};
use midge::topic::ShareFilter;

use super::ledger::*;

/// SUBACK and UNSUBACK codes nobody can know.
pub const ANY_CODE: u8 = 0xFE;

pub struct Model {
    pub config: Config,
    pub rules: Rules,
    pub messages: Vec<Message>,
    pub instances: Vec<Instance>,
    pub sessions: Vec<Session>,
    pub links: Vec<Link>,
    pub names: Vec<String>,
    pub topics: Vec<String>,
    /// The living session of each client.
    pub living: HashMap<usize, usize>,
    /// Empty payloads on their way, by connection: they cannot say which message they are.
    pub empties: HashMap<usize, Vec<u32>>,
    pub moment: Moment,
    pub now_ms: u64,
    pub has_hostile: bool,
    pub failures: Vec<String>,
    pub trace: Option<Vec<String>>,
}

/// Bytes of an unfinished packet that count as a sign of life.
const UNFINISHED_BYTES: usize = 1024;

impl Model {
    pub fn new(config: Config, rules: Rules, has_hostile: bool, trace: bool) -> Model {
        Model {
            config,
            rules,
            messages: Vec::new(),
            instances: Vec::new(),
            sessions: Vec::new(),
            links: Vec::new(),
            names: Vec::new(),
            topics: Vec::new(),
            living: HashMap::new(),
            empties: HashMap::new(),
            moment: 0,
            now_ms: 0,
            has_hostile,
            failures: Vec::new(),
            trace: trace.then(Vec::new),
        }
    }

    pub fn fail(&mut self, what: String) {
        let text = format!("at {} ms, moment {}: {}", self.now_ms, self.moment, what);
        self.note(|| format!("FAILURE {text}"));
        self.failures.push(text);
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>8} ms {:>6}  {}", self.now_ms, self.moment, what()));
        }
    }

    pub fn next_moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    pub fn message(&mut self, message: Message) -> u32 {
        self.messages.push(message);
        self.messages.len() as u32 - 1
    }

    pub fn key(&self, message: u32) -> Key {
        if self.messages[message as usize].len == 0 { None } else { Some(message) }
    }

    pub fn opened(&mut self, conn: usize, client: Option<usize>) {
        assert_eq!(conn, self.links.len());
        self.links.push(Link::new(client, self.now_ms));
    }

    /// Bytes are about to be handed to the broker; says how many packets they complete.
    pub fn arrive(&mut self, conn: usize, bytes: &[u8]) -> i64 {
        if self.links[conn].client.is_none() || !self.links[conn].is_open {
            return 0;
        }
        let mut input = std::mem::take(&mut self.links[conn].input);
        let len_before = input.len();
        input.extend_from_slice(bytes);
        let (mut at, mut count) = (0, 0);
        while let Ok(Split::Frame { body, len }) = split_frame(&input[at..], 0) {
            let frame = &input[at..at + len];
            let version = self.links[conn].version;
            let packet = decode(frame[0], &frame[body..], version, Direction::ToServer);
            match packet {
                Ok(packet) => self.packet(conn, packet),
                Err(error) => self.fail(format!("conn {conn}: the test's own client sent nonsense: {error}")),
            }
            at += len;
            count += 1;
        }
        input.drain(..at);
        // A sign of life is a whole packet, or a kilobyte of one.
        if count > 0 || input.len() / UNFINISHED_BYTES > len_before / UNFINISHED_BYTES {
            self.links[conn].received_ms = self.now_ms;
        }
        self.links[conn].input = input;
        count
    }

    fn packet(&mut self, conn: usize, packet: Packet) {
        let moment = self.next_moment();
        let mut pending = Pending { moment, packet_id: 0, effect: Effect::Other };
        match packet {
            Packet::Connect(connect) => self.connect(conn, &connect, moment),
            Packet::Publish(publish) => pending = self.publish(conn, &publish, moment),
            Packet::Subscribe(subscribe) => {
                let id = subscribe.properties.find(|property| match property {
                    Property::SubscriptionIdentifier(id) => Some(id),
                    _ => None,
                });
                let (mut codes, mut new, mut old) = (Vec::new(), Vec::new(), Vec::new());
                for (filter, options) in subscribe.filters() {
                    if let Some(code) = self.subscribe(conn, filter, options, id.unwrap_or(0), &mut new, &mut old) {
                        codes.push(code);
                    }
                }
                self.links[conn].codes_due.insert(subscribe.packet_id, codes);
                pending = Pending { moment, packet_id: subscribe.packet_id, effect: Effect::Subscribe(new, old) };
            }
            Packet::Unsubscribe(unsubscribe) => {
                let (mut codes, mut old) = (Vec::new(), Vec::new());
                for filter in unsubscribe.filters() {
                    codes.push(self.unsubscribe(conn, filter, moment, &mut old));
                }
                let packet_id = unsubscribe.packet_id;
                self.links[conn].codes_due.insert(packet_id, codes);
                pending = Pending { moment, packet_id, effect: Effect::Unsubscribe(old) };
            }
            Packet::PubAck(ack) => pending = self.acknowledged(conn, ack.packet_id, 0x40, ack.reason.is_error()),
            Packet::PubRec(ack) => pending = self.acknowledged(conn, ack.packet_id, 0x50, ack.reason.is_error()),
            Packet::PubComp(ack) => pending = self.acknowledged(conn, ack.packet_id, 0x70, ack.reason.is_error()),
            Packet::PubRel(ack) => {
                if let Some(session) = self.links[conn].session {
                    self.sessions[session].received.remove(&ack.packet_id);
                }
            }
            Packet::Disconnect(disconnect) => {
                let expiry = disconnect.properties.find(|property| match property {
                    Property::SessionExpiryInterval(seconds) => Some(seconds),
                    _ => None,
                });
                self.links[conn].disconnect = Some((disconnect.reason as u8 != 0, expiry));
            }
            _ => {}
        }
        self.links[conn].pending.push(pending);
    }

    fn connect(&mut self, conn: usize, connect: &Connect, moment: Moment) {
        let Some(client) = self.links[conn].client else { return };
        let span = Span::at(moment);
        if let Some(&session) = self.living.get(&client) {
            match self.sessions[session].conn {
                Some(older) => {
                    if connect.clean_start {
                        self.sessions[session].expiry_s = 0;
                        // Whatever the old link said of it.
                        self.links[older].disconnect = self.links[older].disconnect.map(|(keeps, _)| (keeps, None));
                    }
                    self.link_closed(older, span);
                }
                None if connect.clean_start => self.end_session(session, span),
                None => {}
            }
        }
        let present = self.living.contains_key(&client);
        let session = match self.living.get(&client) {
            Some(&session) => session,
            None => {
                self.sessions.push(Session::new(client, connect.version));
                self.sessions.len() - 1
            }
        };
        self.living.insert(client, session);
        let will = connect.will.map(|will| {
            let delay = will.properties.find(|property| match property {
                Property::WillDelayInterval(seconds) => Some(seconds),
                _ => None,
            });
            Will { message: id_of(will.payload).unwrap_or(0), delay_s: delay.unwrap_or(0) }
        });
        let find = |wanted: fn(Property) -> Option<u32>| connect.properties.find(wanted);
        let receive_maximum = find(|property| match property {
            Property::ReceiveMaximum(maximum) => Some(maximum.into()),
            _ => None,
        });
        let packet_size_max = find(|property| match property {
            Property::MaximumPacketSize(maximum) => Some(maximum),
            _ => None,
        });
        let alias_maximum = find(|property| match property {
            Property::TopicAliasMaximum(maximum) => Some(maximum.into()),
            _ => None,
        });
        let own_window = match self.config.max_inflight_messages {
            0 => 65_535,
            own => own as usize,
        };
        let expiry_s = self.bounded(connect.session_expiry_s);
        let link = &mut self.links[conn];
        link.version = connect.version;
        link.session = Some(session);
        link.keep_alive_s = connect.keep_alive_s;
        link.packet_size_max = packet_size_max;
        link.alias_maximum = alias_maximum.unwrap_or(0) as u16;
        link.window = receive_maximum.map_or(own_window, |maximum| maximum as usize);
        link.is_connack_due = Some(present && connect.version != Version::V31);
        let session = &mut self.sessions[session];
        session.conn = Some(conn);
        session.links.push((conn, moment));
        session.close_gap(moment);
        session.expiry_s = expiry_s;
        session.packet_size_max = packet_size_max;
        session.will = will;
        (session.will_ms, session.expires_ms) = (u64::MAX, u64::MAX);
    }

    pub(super) fn bounded(&self, expiry_s: u32) -> u32 {
        match self.config.persistent_client_expiration_s {
            0 => expiry_s,
            max => expiry_s.min(max),
        }
    }

    fn publish(&mut self, conn: usize, publish: &Publish, moment: Moment) -> Pending {
        let other = Pending { moment, packet_id: publish.packet_id, effect: Effect::Other };
        let Some(session) = self.links[conn].session else { return other };
        let alias = publish.properties.find(|property| match property {
            Property::TopicAlias(alias) => Some(alias),
            _ => None,
        });
        let link = &mut self.links[conn];
        if let (Some(alias), false) = (alias, publish.topic.is_empty()) {
            link.aliases_in.insert(alias, publish.topic.to_string());
        }
        let id = match publish.payload.is_empty() {
            true => self.empties.get_mut(&conn).filter(|ids| !ids.is_empty()).map(|ids| ids.remove(0)),
            false => id_of(publish.payload),
        };
        let Some(message) = id else {
            self.fail(format!("conn {conn}: the test's own client sent an unknown payload"));
            return other;
        };
        let qos = publish.qos as u8;
        if qos == 2 {
            if let Some(&instance) = self.sessions[session].received.get(&publish.packet_id) {
                self.links[conn].acks_due.push((publish.packet_id, instance));
                return Pending { moment, packet_id: publish.packet_id, effect: Effect::Publish(instance) };
            }
            self.sessions[session].received.insert(publish.packet_id, self.instances.len());
        }
        if qos > 0 {
            self.links[conn].acks_due.push((publish.packet_id, self.instances.len()));
        }
        let limit = self.config.message_size_limit as usize;
        let span = Span { from: moment, to: UNKNOWN };
        let is_refused = limit != 0 && publish.payload.len() > limit || self.is_forbidden(message);
        self.instances.push(Instance {
            message,
            span,
            from_ms: self.now_ms,
            to_ms: u64::MAX,
            is_sure: false,
            session: Some(session),
            is_refused,
            has_recipients: None,
        });
        Pending { moment, packet_id: publish.packet_id, effect: Effect::Publish(self.instances.len() - 1) }
    }

    pub(super) fn is_forbidden(&self, message: u32) -> bool {
        self.messages[message as usize].topic.starts_with("$SYS/")
    }

    fn subscribe(
        &mut self,
        conn: usize,
        full: &str,
        options: midge::codec::SubscribeOptions,
        id: u32,
        new: &mut Vec<usize>,
        old: &mut Vec<usize>,
    ) -> Option<u8> {
        let session = self.links[conn].session?;
        let parsed = ShareFilter::parse(full)?;
        if parsed.filter.split('/').count() > 201 {
            return Some(match self.links[conn].version {
                Version::V31 => 0,
                Version::V311 => 0x80,
                Version::V5 => 0x8F,
            });
        }
        let moment = self.moment;
        let qos = (options.qos as u8).min(self.rules.max_qos as u8);
        let session = &mut self.sessions[session];
        for (at, subscription) in session.subscriptions.iter_mut().enumerate() {
            // Also what an earlier SUBSCRIBE should have replaced that may have been lost with its link.
            let is_open = subscription.off.is_none_or(|off| off.to == UNKNOWN);
            if is_open && subscription.full == full {
                subscription.off.get_or_insert(Span { from: moment, to: UNKNOWN });
                old.push(at);
            }
        }
        new.push(session.subscriptions.len());
        session.subscriptions.push(Subscription {
            full: full.to_string(),
            share: parsed.share_name.map(str::to_string),
            filter: parsed.filter.to_string(),
            qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
            id,
            on: Span { from: moment, to: UNKNOWN },
            off: None,
            is_vague: false,
        });
        Some(qos)
    }

    fn unsubscribe(&mut self, conn: usize, full: &str, moment: Moment, old: &mut Vec<usize>) -> u8 {
        let Some(session) = self.links[conn].session else { return ANY_CODE };
        let mut code = 0x11;
        let is_waiting = |at: usize, pending: &[Pending]| {
            pending.iter().any(|it| matches!(&it.effect, Effect::Subscribe(new, _) if new.contains(&at)))
        };
        for at in 0..self.sessions[session].subscriptions.len() {
            let subscription = &mut self.sessions[session].subscriptions[at];
            if subscription.full != full {
                continue;
            }
            let is_known = |span: Span| span.to != UNKNOWN || is_waiting(at, &self.links[conn].pending);
            match subscription.off {
                None => {
                    code = if is_known(subscription.on) { 0 } else { ANY_CODE };
                    subscription.off = Some(Span { from: moment, to: UNKNOWN });
                    old.push(at);
                }
                // An UNSUBSCRIBE or SUBSCRIBE that may have been lost with its link.
                Some(off) if off.to == UNKNOWN => {
                    old.push(at);
                    code = if code == 0x11 { ANY_CODE } else { code };
                }
                Some(_) => {}
            }
        }
        code
    }

    /// PUBACK, PUBREC or PUBCOMP of a client.
    fn acknowledged(&mut self, conn: usize, packet_id: u16, kind: u8, is_error: bool) -> Pending {
        let pending = Pending { moment: self.moment, packet_id, effect: Effect::Acknowledge(packet_id) };
        let Some(session) = self.links[conn].session else { return pending };
        if let Some(exchange) = self.sessions[session].exchanges.get_mut(&packet_id) {
            exchange.is_unsure = true;
            match (kind, exchange.qos, exchange.stage) {
                (0x40, 1, _) | (0x70, 2, Stage::Received) => exchange.stage = Stage::Done,
                (0x50, 2, _) if is_error => exchange.stage = Stage::Done,
                (0x50, 2, Stage::Sent | Stage::Received) => {
                    exchange.stage = Stage::Received;
                    exchange.releases_due += 1;
                }
                (0x50, 2, Stage::Done) => exchange.releases_due += 1,
                _ => {}
            }
        }
        pending
    }

    /// `receive` returned, and counted `delta` packets as handled.
    pub fn received(&mut self, conn: usize, arrived: i64, delta: i64) {
        let link = &mut self.links[conn];
        let was_idle = link.unhandled == 0 && link.is_exact;
        link.unhandled += arrived - delta;
        if link.is_exact && link.unhandled == 0 {
            self.settle(conn, was_idle);
        }
    }

    /// `resume` returned, and let these links go on.
    pub fn resumed(&mut self, conns: &[usize], delta: i64) {
        let waiting: i64 = conns.iter().map(|&conn| self.links[conn].unhandled).sum();
        // Nobody counts what the hostile one sent.
        let is_exact = conns.iter().all(|&conn| self.links[conn].is_exact && self.links[conn].client.is_some());
        for &conn in conns {
            let link = &mut self.links[conn];
            if is_exact && (delta == waiting || conns.len() == 1) {
                link.unhandled = if delta == waiting { 0 } else { link.unhandled - delta };
            } else if link.unhandled > 0 {
                link.is_exact = false;
            }
            if self.links[conn].is_exact && self.links[conn].unhandled == 0 {
                self.settle(conn, false);
            }
        }
    }

    /// Everything that arrived on the connection is handled: each packet as it arrived, or just now.
    pub fn settle(&mut self, conn: usize, at_once: bool) {
        let pending = std::mem::take(&mut self.links[conn].pending);
        for pending in pending {
            self.settle_one(conn, pending, at_once);
        }
    }

    /// The packet with this id was answered, so all before it are handled as well, but for those that may be overtaken.
    pub fn settle_through(&mut self, conn: usize, packet_id: u16, is_wanted: fn(&Effect) -> bool) {
        let pending = std::mem::take(&mut self.links[conn].pending);
        let last = pending.iter().position(|it| it.packet_id == packet_id && is_wanted(&it.effect));
        let mut rest = Vec::new();
        for (at, pending) in pending.into_iter().enumerate() {
            let is_before = last.is_some_and(|last| at <= last);
            match is_before && !matches!(pending.effect, Effect::Acknowledge(_)) {
                true => self.settle_one(conn, pending, false),
                false => rest.push(pending),
            }
        }
        self.links[conn].pending = rest;
    }

    fn settle_one(&mut self, conn: usize, pending: Pending, at_once: bool) {
        let (now, now_ms) = (self.moment, self.now_ms);
        let session = self.links[conn].session;
        let subscriptions = session.map(|session| &mut self.sessions[session].subscriptions);
        match (pending.effect, subscriptions) {
            (Effect::Publish(at), _) => {
                let instance = &mut self.instances[at];
                if !instance.is_sure {
                    instance.is_sure = true;
                    instance.span.to = if at_once { pending.moment } else { now };
                    instance.to_ms = now_ms;
                }
            }
            (Effect::Subscribe(new, old), Some(subscriptions)) => {
                let mut moment = now;
                for at in new {
                    let on = &mut subscriptions[at].on;
                    moment = if at_once { on.from } else { now };
                    on.to = moment;
                }
                for at in old {
                    if let Some(off) = subscriptions[at].off.as_mut().filter(|off| off.to == UNKNOWN) {
                        off.to = moment;
                    }
                }
            }
            (Effect::Unsubscribe(old), Some(subscriptions)) => {
                for at in old {
                    if let Some(off) = subscriptions[at].off.as_mut().filter(|off| off.to == UNKNOWN) {
                        off.to = if at_once { pending.moment } else { now };
                    }
                }
            }
            (Effect::Acknowledge(packet_id), _) => {
                let Some(session) = session else { return };
                let exchanges = &mut self.sessions[session].exchanges;
                if let Some(exchange) = exchanges.get_mut(&packet_id) {
                    exchange.is_unsure = false;
                    if exchange.stage == Stage::Done && exchange.releases_due == 0 {
                        exchanges.remove(&packet_id);
                    }
                }
            }
            _ => {}
        }
    }

    pub fn describe(&self, message: u32) -> String {
        let it = &self.messages[message as usize];
        let will = if it.is_will { "will " } else { "" };
        format!(
            "{will}message {message} of {} ({}, QoS {}, {} bytes{}{})",
            self.names[it.publisher],
            it.topic,
            it.qos,
            it.len,
            if it.retain { ", retain" } else { "" },
            if it.expiry_s.is_some() { ", expires" } else { "" },
        )
    }

    pub fn qos(qos: u8) -> QoS {
        QoS::from_u8(qos).unwrap_or(QoS::AtMostOnce)
    }
}
