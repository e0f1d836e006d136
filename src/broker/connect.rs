//! CONNECT: checked, refused with the code the version has for it, or tied to its session: a new one, the stored one, or the
//! one another link has, which gives way.

use super::close::{CloseReason, NOT_AUTHORISED};
use super::link::{LinkId, Paused, State};
use super::login;
use super::memory::Level;
use super::mount;
use super::publish::PAYLOAD_NOT_TEXT;
use super::session::whole_seconds;
use super::store::Wait;
use super::will::Will;
use super::{Broker, NONE};
use crate::codec::{
    self, ConnAck, Connect, Direction, PACKET_SIZE_MAX, Packet, PropertiesBuf, Property, QoS, ReasonCode, Version,
};
use crate::config::Rules;
use crate::logger::notice;
use crate::time::Millis;
use crate::topic;
use crate::wheel::TimerId;

/// What CONNECT asks for in its properties.
struct Wishes {
    /// 0 = not said.
    receive_maximum: u16,
    packet_size_max: u32,
    topic_alias_maximum: u16,
    problem_information: bool,
    authentication_method: bool,
}

/// Messages sent to a client that allows more without one being acknowledged: far beyond what a link of a gateway needs, and few
/// enough to find one among them at once.
const SEND_WINDOW_MAX: u16 = 1000;

const ID_NOT_VALID: &str = "client identifier not valid";

impl Broker {
    /// Handles the body of the first packet.
    pub(super) fn connect(&mut self, id: LinkId, body: &[u8], now: Millis) {
        let version = codec::connect_version(body);
        self.clients.stats.connects_received += 1;
        self.clients.link_mut(id).version = version.unwrap_or(Version::V311);
        self.handle_connect(id, body, now);
    }

    /// The same, for the first time or once its login was looked at.
    pub(super) fn handle_connect(&mut self, id: LinkId, body: &[u8], now: Millis) {
        match codec::decode(super::input::FIRST_BYTE_OF_CONNECT, body, Version::V311, Direction::ToServer) {
            Ok(Packet::Connect(connect)) => {
                if let Err(reason) = self.accept(id, &connect, body, now) {
                    self.refuse(id, reason.with_caller(connect.client_id), now);
                }
            }
            Ok(_) => self.close(id, CloseReason::wrong_direction(), now),
            Err(error) => {
                let reason = CloseReason::decode(error);
                // 3.x must not answer a malformed CONNECT, 5.0 may. [MQTT-3.1.4-1]
                match codec::connect_version(body) {
                    Some(version) if !version.answers_malformed_connect() => self.close(id, reason, now),
                    _ => self.refuse(id, reason, now),
                }
            }
        }
    }

    /// CONNACK with the reason, if the version has a code for it, and the end. [MQTT-3.2.2-5] (3.1.1) [MQTT-3.2.2-7] (5.0)
    pub(super) fn refuse(&mut self, id: LinkId, reason: CloseReason, now: Millis) {
        let code = reason.code.unwrap_or(ReasonCode::UnspecifiedError);
        let link = &self.clients.links[id as usize];
        if link.version.connack_code(code).is_some() {
            let mut properties = PropertiesBuf::default();
            if reason.detail.len() + 16 <= link.packet_size_max as usize {
                properties.push(Property::ReasonString(&reason.detail));
            }
            // [MQTT-3.2.2-4] (3.1.1) [MQTT-3.2.2-6] (5.0)
            let connack = ConnAck { session_present: false, reason: code, properties: properties.as_properties() };
            self.clients.send(id, &Packet::ConnAck(connack));
        }
        self.close(id, reason, now);
    }

    fn accept(&mut self, id: LinkId, connect: &Connect, body: &[u8], now: Millis) -> Result<(), CloseReason> {
        let wishes = wishes(connect);
        self.clients.link_mut(id).packet_size_max = wishes.packet_size_max;
        let rules = self.clients.links[id as usize].rules.clone();
        check_version(&rules, connect.version)?;
        let client_id = wanted_client_id(&rules, connect)?;
        self.check_room(client_id, &wishes)?;
        let keep_alive_s = self.check_keep_alive(connect)?;
        self.check_will(&rules, connect)?;
        if !self.is_let_in(id, &rules, connect, body, now)? {
            return Ok(());
        }
        let assigned = self.assigned_client_id(&rules, connect)?;
        let client_id = assigned.as_deref().unwrap_or(client_id);
        self.check_client_id(client_id)?;

        // [MQTT-3.1.4-2] (3.1.1) [MQTT-3.1.4-3] (5.0)
        if let Some(session) = self.clients.find_session(client_id) {
            let older = self.clients.sessions[session as usize].link;
            if older != NONE {
                let by = self.clients.links[id as usize].peer;
                let from = self.clients.links[older as usize].peer;
                self.close(older, CloseReason::taken_over(by), now);
                self.note_take_over(client_id, from, by, now);
            }
        }
        if connect.clean_start
            && let Some(session) = self.clients.find_session(client_id)
        {
            self.end_session(session, now);
        }
        let stored = self.clients.find_session(client_id);
        // That there is no session holds whatever happens.
        let position = if stored.is_none() { self.clients.store.promise_ends(now) } else { 0 };
        let session = match stored {
            Some(session) => session,
            None => self.clients.add_session(client_id),
        };
        self.attach(id, session, connect, &wishes, keep_alive_s, now);
        self.clients.remove_unreadable(session, now);
        self.log_connect(id, connect);
        self.send_connack(id, stored.is_some(), connect, assigned.as_deref(), keep_alive_s, position);
        if self.clients.links[id as usize].is_unanswerable {
            // Without CONNACK no DISCONNECT. [MQTT-3.14.0-1] (5.0)
            self.close(id, CloseReason::no_room_for_connack(wishes.packet_size_max), now);
            return Ok(());
        }
        self.pump(session, now);
        Ok(())
    }

    fn check_room(&self, client_id: &str, wishes: &Wishes) -> Result<(), CloseReason> {
        if wishes.authentication_method {
            let detail = "this broker knows no authentication methods; connect with user name and password";
            return Err(CloseReason::refused(ReasonCode::BadAuthenticationMethod, "bad authentication method", detail));
        }
        let config = &self.clients.config;
        if config.global_max_clients != 0
            && self.clients.sessions.len() >= config.global_max_clients as usize
            && self.clients.find_session(client_id).is_none()
        {
            let detail = "as many sessions exist as global_max_clients allows";
            return Err(CloseReason::refused(ReasonCode::ServerBusy, "server busy", detail));
        }
        if self.clients.memory.level() == Level::Full && self.clients.find_session(client_id).is_none() {
            let detail = "the broker has no memory for more sessions (memory_limit)";
            return Err(CloseReason::refused(ReasonCode::QuotaExceeded, "quota exceeded", detail));
        }
        Ok(())
    }

    /// The keep-alive that holds, in seconds; the client's own unless it is too long. [MQTT-3.1.2-21] (5.0)
    fn check_keep_alive(&self, connect: &Connect) -> Result<u16, CloseReason> {
        let max = self.clients.config.max_keepalive_s;
        if max == 0 || (1..=max).contains(&connect.keep_alive_s) {
            return Ok(connect.keep_alive_s);
        }
        if connect.version.has_server_keep_alive() {
            return Ok(max);
        }
        let detail = format!("keep alive {} is longer than max_keepalive {max}", connect.keep_alive_s);
        Err(CloseReason::refused(ReasonCode::ClientIdentifierNotValid, "keepalive too long", detail))
    }

    fn check_will(&self, rules: &Rules, connect: &Connect) -> Result<(), CloseReason> {
        let Some(will) = &connect.will else { return Ok(()) };
        let config = &self.clients.config;
        let (code, detail) = if !topic::is_valid_name(will.topic) {
            (ReasonCode::TopicNameInvalid, "the will topic is empty or has '+' or '#' in it")
        } else if rules.mount_point.len() + will.topic.len() > mount::TOPIC_MAX {
            (ReasonCode::TopicNameInvalid, "the will topic is longer than 65535 bytes with mount_point in front of it")
        } else if will.qos > rules.max_qos {
            // [MQTT-3.2.2-12] (5.0)
            (ReasonCode::QoSNotSupported, "the will has a higher QoS than max_qos")
        } else if will.retain && !config.retain_available {
            // [MQTT-3.2.2-13] (5.0)
            (ReasonCode::RetainNotSupported, "the will asks to be retained, which retain_available forbids")
        } else if config.message_size_limit != 0 && will.payload.len() > config.message_size_limit as usize {
            (ReasonCode::PacketTooLarge, "the will is larger than message_size_limit")
        } else if has_format(will) && std::str::from_utf8(will.payload).is_err() {
            (ReasonCode::PayloadFormatInvalid, PAYLOAD_NOT_TEXT)
        } else if let Some(fault) = config.topic_fault("will topic", &[&rules.mount_point, will.topic].concat()) {
            return Err(CloseReason::refused(ReasonCode::TopicNameInvalid, "protocol error", fault));
        } else {
            return Ok(());
        };
        Err(CloseReason::refused(code, "protocol error", detail))
    }

    /// A made-up id for a client without one. [MQTT-3.1.3-6] [MQTT-3.1.3-8] (3.1.1) [MQTT-3.2.2-16] (5.0)
    fn assigned_client_id(&mut self, rules: &Rules, connect: &Connect) -> Result<Option<String>, CloseReason> {
        if !connect.client_id.is_empty() {
            return Ok(None);
        }
        if !rules.allow_zero_length_clientid || !connect.version.may_omit_client_id(connect.clean_start) {
            let detail = "the client id is empty, which this broker or the clean session flag does not allow";
            return Err(CloseReason::refused(ReasonCode::ClientIdentifierNotValid, ID_NOT_VALID, detail));
        }
        if rules.use_username_as_clientid {
            return Ok(connect.username.map(str::to_string));
        }
        loop {
            let (high, low) = (self.next_random(), self.next_random());
            let client_id = format!(
                "{}{:08X}-{:04X}-{:04X}-{:04X}-{:012X}",
                rules.auto_id_prefix,
                high >> 32,
                high >> 16 & 0xFFFF,
                high & 0xFFFF,
                low >> 48,
                low & 0xFFFF_FFFF_FFFF
            );
            if self.clients.find_session(&client_id).is_none() {
                return Ok(Some(client_id));
            }
        }
    }

    pub(super) fn check_client_id(&self, client_id: &str) -> Result<(), CloseReason> {
        match &self.clients.config.clientid_prefixes {
            Some(prefix) if !client_id.starts_with(prefix.as_str()) => {
                let detail = format!("the client id does not begin with '{prefix}' (clientid_prefixes)");
                Err(CloseReason::refused(ReasonCode::NotAuthorized, NOT_AUTHORISED, detail))
            }
            _ => Ok(()),
        }
    }

    /// Ties link and session together.
    fn attach(
        &mut self,
        id: LinkId,
        session_id: u32,
        connect: &Connect,
        wishes: &Wishes,
        keep_alive_s: u16,
        now: Millis,
    ) {
        let expiry_s = self.bounded_expiry(connect.session_expiry_s);
        let (own_window, rate) = (self.clients.config.max_inflight_messages, self.clients.bucket());
        let link = self.clients.link_mut(id);
        link.set_rate(rate);
        link.max_qos = link.rules.max_qos;
        link.has_mount = !link.rules.mount_point.is_empty();
        let will = connect.will.as_ref().map(|will| Box::new(Will::new(will, &link.rules.mount_point)));
        link.state = State::Connected;
        link.session = session_id;
        link.is_bridge = connect.bridge;
        link.wants_problem_information = wishes.problem_information;
        link.has_own_window = wishes.receive_maximum != 0;
        link.window = match wishes.receive_maximum {
            0 => window(own_window),
            asked => asked.min(SEND_WINDOW_MAX),
        };
        link.receive_maximum = own_window;
        link.may_change_expiry = connect.session_expiry_s != 0;
        link.keep_alive_s = keep_alive_s;
        link.topic_alias_max = wishes.topic_alias_maximum.min(link.rules.max_topic_alias_broker);
        self.clients.session_comes_back(session_id, now);
        let rules = self.clients.links[id as usize].rules.clone();
        self.clients.set_session_rules(session_id, &rules);
        let session = self.clients.session_mut(session_id);
        session.username = login::username(connect).map(|name| Box::new(name.into()));
        session.link = id;
        session.since_s = whole_seconds(now);
        session.expiry_s = expiry_s;
        session.will = will;
        session.expires_at = Millis::NEVER;
        let timer = std::mem::replace(&mut session.timer, TimerId::NONE);
        self.clients.connected_count += 1;
        self.clients.wheel.cancel(timer);
        self.clients.store_session(session_id, now);
        self.clients.arm_keep_alive(id, now);
    }

    /// The session expiry that holds: the client's, within persistent_client_expiration.
    pub(super) fn bounded_expiry(&self, wanted_s: u32) -> u32 {
        match self.clients.config.persistent_client_expiration_s {
            0 => wanted_s,
            max => wanted_s.min(max),
        }
    }

    /// CONNACK with what differs from what the client asked for or would assume.
    #[allow(clippy::too_many_arguments)]
    fn send_connack(
        &mut self,
        id: LinkId,
        present: bool,
        connect: &Connect,
        assigned: Option<&str>,
        keep_alive_s: u16,
        position: u64,
    ) {
        let (config, rules) = (&self.clients.config, &self.clients.links[id as usize].rules);
        let mut properties = PropertiesBuf::default();
        if connect.version.has_properties() {
            let expiry_s = self.bounded_expiry(connect.session_expiry_s);
            if expiry_s != connect.session_expiry_s {
                properties.push(Property::SessionExpiryInterval(expiry_s));
            }
            if !matches!(config.max_inflight_messages, 0 | u16::MAX) {
                properties.push(Property::ReceiveMaximum(config.max_inflight_messages));
            }
            if rules.max_qos < QoS::ExactlyOnce {
                properties.push(Property::MaximumQoS(rules.max_qos as u8));
            }
            if !config.retain_available {
                properties.push(Property::RetainAvailable(0));
            }
            // Some clients refuse to connect when told more than the protocol's own limit.
            if (1..=268_435_455).contains(&config.largest_packet()) {
                properties.push(Property::MaximumPacketSize(config.largest_packet()));
            }
            if let Some(assigned) = assigned {
                properties.push(Property::AssignedClientIdentifier(assigned));
            }
            if rules.max_topic_alias > 0 {
                properties.push(Property::TopicAliasMaximum(rules.max_topic_alias));
            }
            if keep_alive_s != connect.keep_alive_s {
                properties.push(Property::ServerKeepAlive(keep_alive_s));
            }
        }
        let session_present = present && connect.version.tells_session_present();
        let connack = ConnAck { session_present, reason: ReasonCode::Success, properties: properties.as_properties() };
        self.clients.send_after(id, &Packet::ConnAck(connack), Wait { position, publish: 0 });
        let link = self.clients.link_mut(id);
        if link.held.is_some() {
            // CONNACK comes first. [MQTT-3.2.0-1]
            link.paused = Paused::ForStore;
        }
    }

    fn log_connect(&self, id: LinkId, connect: &Connect) {
        if !self.clients.config.connection_messages {
            return;
        }
        let user =
            connect.username.filter(|user| !user.is_empty()).map_or(String::new(), |user| format!(", u'{user}'"));
        let (link, client_id) = (&self.clients.links[id as usize], self.clients.client_id(id));
        notice!(
            client = client_id, address = link.peer.number();
            "New {} connected from {} as {} (p{}, c{}, k{}{user}).",
            if connect.bridge { "bridge" } else { "client" },
            link.peer,
            client_id,
            connect.version.level(),
            connect.clean_start as u8,
            connect.keep_alive_s,
        );
    }

    /// Not secret, only never the same twice.
    pub(super) fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// What the client calls itself in the body of its CONNECT; nothing if that is malformed.
pub(super) fn client_id_of(body: &[u8]) -> &str {
    match codec::decode(super::input::FIRST_BYTE_OF_CONNECT, body, Version::V311, Direction::ToServer) {
        Ok(Packet::Connect(connect)) => connect.client_id,
        _ => "",
    }
}

/// Whether the listener serves this version.
pub(super) fn check_version(rules: &Rules, version: Version) -> Result<(), CloseReason> {
    if rules.accepts(version) {
        return Ok(());
    }
    let detail = format!("this listener does not serve MQTT {} (accept_protocol_versions)", version.name());
    Err(CloseReason::refused(ReasonCode::UnsupportedProtocolVersion, "protocol error", detail))
}

/// The client id that holds unless it is empty.
fn wanted_client_id<'a>(rules: &Rules, connect: &Connect<'a>) -> Result<&'a str, CloseReason> {
    if !rules.use_username_as_clientid {
        return Ok(connect.client_id);
    }
    connect.username.filter(|username| !username.is_empty()).ok_or_else(|| {
        let detail = "there is no user name, which this listener wants for a client id (use_username_as_clientid)";
        CloseReason::refused(ReasonCode::NotAuthorized, NOT_AUTHORISED, detail)
    })
}

/// The send window of a client that did not ask for one; 0 = no limit.
pub(super) fn window(max_inflight_messages: u16) -> u16 {
    if max_inflight_messages == 0 { u16::MAX } else { max_inflight_messages }
}

/// Whether the will is said to be text.
fn has_format(will: &codec::Will) -> bool {
    will.properties.iter().any(|property| property == Property::PayloadFormatIndicator(1))
}

fn wishes(connect: &Connect) -> Wishes {
    let mut wishes = Wishes {
        receive_maximum: 0,
        packet_size_max: PACKET_SIZE_MAX,
        topic_alias_maximum: 0,
        problem_information: true,
        authentication_method: false,
    };
    for property in connect.properties.iter() {
        match property {
            Property::ReceiveMaximum(maximum) => wishes.receive_maximum = maximum,
            Property::MaximumPacketSize(maximum) => wishes.packet_size_max = maximum.min(PACKET_SIZE_MAX),
            Property::TopicAliasMaximum(maximum) => wishes.topic_alias_maximum = maximum,
            Property::RequestProblemInformation(wanted) => wishes.problem_information = wanted != 0,
            Property::AuthenticationMethod(_) => wishes.authentication_method = true,
            _ => {}
        }
    }
    wishes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The numbers are those of SplitMix64 from 1234567 on.
    #[test]
    fn made_up_ids_are_random_and_have_the_form_of_a_uuid() {
        let mut broker = Broker::new(Config::default(), 0);
        broker.random = 1_234_567;
        let connect = Connect {
            version: Version::V5,
            bridge: false,
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 0,
            client_id: "",
            will: None,
            username: None,
            password: None,
            properties: codec::Properties::EMPTY,
        };
        let id = broker.assigned_client_id(&Rules::default(), &connect).unwrap();
        assert_eq!(id.as_deref(), Some("auto-599ED017-FB08-FC85-2C73-F08458540FA5"));
        assert_eq!(
            (broker.next_random(), broker.next_random()),
            (9_817_491_932_198_370_423, 4_593_380_528_125_082_431)
        );
    }
}
