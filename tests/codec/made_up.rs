//! Makes up packets from bytes of entropy: every type, every version, every field and property that may stand there.

use midge::codec::*;

/// Draws values from bytes; when they are used up everything is zero, so that shorter seeds give simpler packets.
struct Source<'a> {
    seed: &'a [u8],
}

impl Source<'_> {
    fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.seed.split_first() else { return 0 };
        self.seed = rest;
        byte
    }

    fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    fn packet_id(&mut self) -> u16 {
        self.u16().max(1)
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn text(&mut self) -> String {
        let len = if self.byte() == 255 { 300 } else { self.below(12) };
        (0..len)
            .map(|_| self.one_of(&['a', 'Z', '/', '$', ' ', '\u{1}', 'é', '\u{FEFF}', '日', '\u{10FFFF}']))
            .collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = if self.byte() == 255 { 70_000 } else { self.below(40) };
        (0..len).map(|_| self.byte()).collect()
    }

    fn short_bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.bytes();
        bytes.truncate(65_535);
        bytes
    }

    fn optional<T>(&mut self, draw: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    fn qos(&mut self) -> QoS {
        self.one_of(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce])
    }

    /// Some of the properties with these ids, each once, and User Properties between them.
    fn properties(&mut self, version: Version, ids: &[u8]) -> PropertiesBuf {
        let mut properties = PropertiesBuf::default();
        if !version.has_properties() || self.flag() {
            return properties;
        }
        for &id in ids {
            if self.flag() {
                self.property(id, &mut properties);
            }
            if self.below(4) == 3 {
                self.property(0x26, &mut properties);
            }
        }
        properties
    }

    fn property(&mut self, id: u8, properties: &mut PropertiesBuf) {
        let (text, value) = (self.text(), self.text());
        let bytes = self.short_bytes();
        let text = text.as_str();
        let flag = self.byte() & 1;
        properties.push(match id {
            0x01 => Property::PayloadFormatIndicator(flag),
            0x02 => Property::MessageExpiryInterval(self.u32()),
            0x03 => Property::ContentType(text),
            0x08 => Property::ResponseTopic(text),
            0x09 => Property::CorrelationData(&bytes),
            0x0B => Property::SubscriptionIdentifier((self.u32() >> 4).max(1)),
            0x11 => Property::SessionExpiryInterval(self.u32()),
            0x12 => Property::AssignedClientIdentifier(text),
            0x13 => Property::ServerKeepAlive(self.u16()),
            0x15 => Property::AuthenticationMethod(text),
            0x16 => Property::AuthenticationData(&bytes),
            0x17 => Property::RequestProblemInformation(flag),
            0x18 => Property::WillDelayInterval(self.u32()),
            0x19 => Property::RequestResponseInformation(flag),
            0x1A => Property::ResponseInformation(text),
            0x1C => Property::ServerReference(text),
            0x1F => Property::ReasonString(text),
            0x21 => Property::ReceiveMaximum(self.packet_id()),
            0x22 => Property::TopicAliasMaximum(self.u16()),
            0x23 => Property::TopicAlias(self.packet_id()),
            0x24 => Property::MaximumQoS(flag),
            0x25 => Property::RetainAvailable(flag),
            0x26 => Property::UserProperty(text, &value),
            0x27 => Property::MaximumPacketSize(self.u32().max(1)),
            0x28 => Property::WildcardSubscriptionAvailable(flag),
            0x29 => Property::SubscriptionIdentifierAvailable(flag),
            0x2A => Property::SharedSubscriptionAvailable(flag),
            _ => panic!("no property {id}"),
        });
    }

    /// Reason and properties of an answer; nothing in 3.x.
    fn reason(&mut self, version: Version, codes: &[u8], ids: &[u8]) -> (ReasonCode, PropertiesBuf) {
        if !version.has_properties() {
            return (ReasonCode::Success, PropertiesBuf::default());
        }
        (ReasonCode::from_u8(self.one_of(codes)).unwrap(), self.properties(version, ids))
    }
}

const WILL: &[u8] = &[0x18, 0x01, 0x02, 0x03, 0x08, 0x09];
const CONNECT: &[u8] = &[0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x15];
const CONNACK: &[u8] =
    &[0x11, 0x21, 0x24, 0x25, 0x27, 0x12, 0x22, 0x1F, 0x28, 0x29, 0x2A, 0x13, 0x1A, 0x1C, 0x15, 0x16];
const CONNACK_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B,
    0x9C, 0x9D, 0x9F,
];
const ACK_CODES: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
const RELEASE_CODES: &[u8] = &[0x00, 0x92];
const SUBACK_CODES: &[u8] = &[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2];
const UNSUBACK_CODES: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
const CLIENT_DISCONNECT_CODES: &[u8] =
    &[0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
const SERVER_DISCONNECT_CODES: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];

/// Calls `test` with a packet of that type, unless there is none of that version in that direction.
pub fn packet(seed: &[u8], packet_type: u8, version: Version, direction: Direction, test: impl Fn(&Packet)) {
    let from = &mut Source { seed };
    match (packet_type, direction) {
        (1, Direction::ToServer) => connect(from, version, test),
        (2, Direction::ToClient) => connack(from, version, test),
        (3, _) => publish(from, version, direction, test),
        (4..=7, _) => ack(from, packet_type, version, test),
        (8, Direction::ToServer) => subscribe(from, version, test),
        (10, Direction::ToServer) => unsubscribe(from, version, test),
        (9 | 11, Direction::ToClient) => suback(from, packet_type, version, test),
        (12, Direction::ToServer) => test(&Packet::PingReq),
        (13, Direction::ToClient) => test(&Packet::PingResp),
        (14, _) => disconnect(from, version, direction, test),
        (15, _) if version.has_properties() => auth(from, version, direction, test),
        _ => {}
    }
}

fn connect(from: &mut Source, version: Version, test: impl Fn(&Packet)) {
    let clean_start = from.flag();
    let mut properties = from.properties(version, CONNECT);
    let asked = properties.as_properties();
    if asked.iter().any(|property| matches!(property, Property::AuthenticationMethod(_))) {
        from.property(0x16, &mut properties);
    }
    let will_properties = from.properties(version, WILL);
    let (client_id, topic, payload) = (from.text(), from.text(), from.short_bytes());
    let username = from.optional(Source::text);
    let may_have_password = username.is_some() || version == Version::V5;
    let password = from.optional(Source::short_bytes).filter(|_| may_have_password);
    let properties = properties.as_properties();
    let will = from.optional(|from| Will {
        qos: from.qos(),
        retain: from.flag(),
        topic: &topic,
        payload: &payload,
        properties: will_properties.as_properties(),
    });
    let session_expiry_s = properties.find(|property| match property {
        Property::SessionExpiryInterval(seconds) => Some(seconds),
        _ => None,
    });
    let v3_session_expiry_s = if clean_start { 0 } else { u32::MAX };
    test(&Packet::Connect(Connect {
        version,
        bridge: version != Version::V5 && from.flag(),
        clean_start,
        session_expiry_s: if version == Version::V5 { session_expiry_s.unwrap_or(0) } else { v3_session_expiry_s },
        keep_alive_s: from.u16(),
        client_id: &client_id,
        will,
        username: username.as_deref(),
        password: password.as_deref(),
        properties,
    }));
}

fn connack(from: &mut Source, version: Version, test: impl Fn(&Packet)) {
    let reason = match version {
        Version::V5 => ReasonCode::from_u8(from.one_of(CONNACK_CODES)),
        _ => version.connack_reason(from.below(6) as u8),
    };
    let reason = reason.unwrap();
    let session_present = from.flag() && reason == ReasonCode::Success && version.tells_session_present();
    let properties = from.properties(version, CONNACK);
    test(&Packet::ConnAck(ConnAck { session_present, reason, properties: properties.as_properties() }));
}

fn publish(from: &mut Source, version: Version, direction: Direction, test: impl Fn(&Packet)) {
    let qos = from.qos();
    let (dup, packet_id) = if qos == QoS::AtMostOnce { (false, 0) } else { (from.flag(), from.packet_id()) };
    let mut properties = from.properties(version, &[0x01, 0x02, 0x23, 0x08, 0x09, 0x03]);
    if version == Version::V5 && direction == Direction::ToClient {
        for _ in 0..from.below(4) {
            from.property(0x0B, &mut properties);
        }
    }
    let (topic, payload) = (from.text(), from.bytes());
    let publish = Publish {
        dup,
        qos,
        retain: from.flag(),
        topic: &topic,
        packet_id,
        properties: properties.as_properties(),
        payload: &payload,
    };
    test(&Packet::Publish(publish));
}

fn ack(from: &mut Source, packet_type: u8, version: Version, test: impl Fn(&Packet)) {
    let codes = if packet_type < 6 { ACK_CODES } else { RELEASE_CODES };
    let packet_id = from.packet_id();
    let (reason, properties) = from.reason(version, codes, &[0x1F]);
    let ack = Ack { packet_id, reason, properties: properties.as_properties() };
    test(&match packet_type {
        4 => Packet::PubAck(ack),
        5 => Packet::PubRec(ack),
        6 => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    });
}

fn subscribe(from: &mut Source, version: Version, test: impl Fn(&Packet)) {
    let packet_id = from.packet_id();
    let properties = from.properties(version, &[0x0B]);
    let mut filters = Vec::new();
    for _ in 0..1 + from.below(5) {
        let v5 = version == Version::V5;
        let retain_handling = [RetainHandling::Send, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
        let options = SubscribeOptions {
            qos: from.qos(),
            no_local: v5 && from.flag(),
            retain_as_published: v5 && from.flag(),
            retain_handling: if v5 { from.one_of(&retain_handling) } else { RetainHandling::Send },
        };
        filters.push((from.text(), options));
    }
    let mut payload = Vec::new();
    for (filter, options) in &filters {
        Subscribe::push_filter(&mut payload, filter, *options);
    }
    let subscribe = Subscribe { packet_id, properties: properties.as_properties(), payload: &payload };
    assert!(subscribe.filters().eq(filters.iter().map(|(filter, options)| (filter.as_str(), *options))));
    test(&Packet::Subscribe(subscribe));
}

fn unsubscribe(from: &mut Source, version: Version, test: impl Fn(&Packet)) {
    let packet_id = from.packet_id();
    let properties = from.properties(version, &[0x26]);
    let filters: Vec<_> = (0..1 + from.below(5)).map(|_| from.text()).collect();
    let mut payload = Vec::new();
    for filter in &filters {
        Unsubscribe::push_filter(&mut payload, filter);
    }
    let unsubscribe = Unsubscribe { packet_id, properties: properties.as_properties(), payload: &payload };
    assert!(unsubscribe.filters().eq(filters.iter().map(String::as_str)));
    test(&Packet::Unsubscribe(unsubscribe));
}

fn suback(from: &mut Source, packet_type: u8, version: Version, test: impl Fn(&Packet)) {
    let packet_id = from.packet_id();
    let properties = from.properties(version, &[0x1F]);
    let allowed = match (packet_type, version) {
        (9, Version::V5) => SUBACK_CODES,
        (9, _) => &[0, 1, 2, 0x80],
        _ => UNSUBACK_CODES,
    };
    let mut codes: Vec<_> = (0..1 + from.below(5)).map(|_| from.one_of(allowed)).collect();
    if packet_type == 11 && version != Version::V5 {
        codes.clear();
    }
    let suback = SubAck { packet_id, properties: properties.as_properties(), codes: &codes };
    test(&if packet_type == 9 { Packet::SubAck(suback) } else { Packet::UnsubAck(suback) });
}

fn disconnect(from: &mut Source, version: Version, direction: Direction, test: impl Fn(&Packet)) {
    let (reason, properties) = match direction {
        Direction::ToServer => from.reason(version, CLIENT_DISCONNECT_CODES, &[0x11, 0x1F]),
        Direction::ToClient if version.server_may_send_disconnect() => {
            from.reason(version, SERVER_DISCONNECT_CODES, &[0x1C, 0x1F])
        }
        Direction::ToClient => return,
    };
    test(&Packet::Disconnect(Disconnect { reason, properties: properties.as_properties() }));
}

fn auth(from: &mut Source, version: Version, direction: Direction, test: impl Fn(&Packet)) {
    let codes = if direction == Direction::ToServer { [0x18, 0x19] } else { [0x00, 0x18] };
    let (reason, mut properties) = from.reason(version, &codes, &[0x16, 0x1F]);
    from.property(0x15, &mut properties);
    test(&Packet::Auth(Auth { reason, properties: properties.as_properties() }));
}
