//! Packets as one line of text, both ways, so that a test reads like the conversation it is about:
//!
//! ```text
//! PUBLISH dup q1 retain #7 a/b hello expiry=10      DISCONNECT 04 session-expiry=5
//! SUBSCRIBE #1 a/+ 1 b 2 nl rap rh1 sid=3           UNSUBSCRIBE #2 a/+ b
//! PUBACK #7 10    PUBREC #7    PUBREL #7    PUBCOMP #7 92    PINGREQ    AUTH 19 method=x
//! ```
//!
//! Several packets are joined with `, `. Reason codes are hexadecimal and left out where they are 0 (never in CONNACK). `''`
//! is an empty topic, `x*5000` a payload of 5000 times `x`. The bytes are made and read by the codec.

use midge::codec::{
    Ack, Auth, Disconnect, Packet, PropertiesBuf, Property, Publish, QoS, ReasonCode, RetainHandling, Subscribe,
    SubscribeOptions, Unsubscribe, Version,
};

/// The bytes of the packets in `text`, as a client of `version` sends them.
pub fn encode(text: &str, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    text.split(", ").for_each(|packet| encode_one(packet, version, &mut out));
    out
}

fn encode_one(text: &str, version: Version, out: &mut Vec<u8>) {
    let mut properties = PropertiesBuf::default();
    let (texts, words): (Vec<&str>, Vec<&str>) = text.split_whitespace().partition(|word| property(word).is_some());
    texts.iter().filter_map(|word| property(word)).for_each(|property| properties.push(property));
    let properties = properties.as_properties();
    let (kind, words) = words.split_first().expect("an empty packet");
    let id = words.iter().find_map(|word| packet_id(word)).unwrap_or(0);
    let words: Vec<&str> = words.iter().copied().filter(|word| packet_id(word).is_none()).collect();
    let reason = || words.first().map_or(ReasonCode::Success, |word| reason(word));
    let ack = || Ack { packet_id: id, reason: reason(), properties };
    match *kind {
        "PUBLISH" => {
            let message = PublishWords::parse(&words);
            let publish = Publish {
                dup: message.dup,
                qos: message.qos,
                retain: message.retain,
                topic: message.topic,
                packet_id: id,
                properties,
                payload: &message.payload,
            };
            Packet::Publish(publish).encode(version, out);
        }
        "SUBSCRIBE" => {
            let payload = filters(&words);
            Packet::Subscribe(Subscribe { packet_id: id, properties, payload: &payload }).encode(version, out);
        }
        "UNSUBSCRIBE" => {
            let mut payload = Vec::new();
            words.iter().for_each(|filter| Unsubscribe::push_filter(&mut payload, filter));
            Packet::Unsubscribe(Unsubscribe { packet_id: id, properties, payload: &payload }).encode(version, out);
        }
        "PUBACK" => Packet::PubAck(ack()).encode(version, out),
        "PUBREC" => Packet::PubRec(ack()).encode(version, out),
        "PUBREL" => Packet::PubRel(ack()).encode(version, out),
        "PUBCOMP" => Packet::PubComp(ack()).encode(version, out),
        "PINGREQ" => Packet::PingReq.encode(version, out),
        "DISCONNECT" => Packet::Disconnect(Disconnect { reason: reason(), properties }).encode(version, out),
        "AUTH" => Packet::Auth(Auth { reason: reason(), properties }).encode(version, out),
        other => panic!("a client does not send {other}"),
    }
}

fn packet_id(word: &str) -> Option<u16> {
    word.strip_prefix('#').and_then(|number| number.parse().ok())
}

fn reason(word: &str) -> ReasonCode {
    ReasonCode::from_u8(u8::from_str_radix(word, 16).unwrap()).unwrap()
}

/// What stands behind PUBLISH, and what describes a will: flags, topic, payload.
pub struct PublishWords<'a> {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: Vec<u8>,
}

impl<'a> PublishWords<'a> {
    pub fn parse(words: &[&'a str]) -> PublishWords<'a> {
        let flags = words.iter().take_while(|word| matches!(**word, "dup" | "retain" | "q0" | "q1" | "q2"));
        let flags: Vec<&str> = flags.copied().collect();
        let rest = &words[flags.len()..];
        assert!(matches!(rest.len(), 1 | 2), "topic and payload expected: {words:?}");
        let qos = flags.iter().find_map(|flag| flag.strip_prefix('q')).map_or(0, |qos| qos.parse().unwrap());
        PublishWords {
            dup: flags.contains(&"dup"),
            qos: QoS::from_u8(qos).unwrap(),
            retain: flags.contains(&"retain"),
            topic: if rest[0] == "''" { "" } else { rest[0] },
            payload: rest.get(1).map_or(Vec::new(), |payload| unfolded(payload)),
        }
    }
}

fn filters(words: &[&str]) -> Vec<u8> {
    let mut payload = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(filter) = words.next() {
        let qos = words.next().unwrap_or_else(|| panic!("no QoS behind filter {filter}"));
        let qos = qos.parse().ok().and_then(QoS::from_u8).unwrap_or_else(|| panic!("{qos} is no QoS"));
        let mut options = SubscribeOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        while let Some(word) = words.next_if(|word| matches!(**word, "nl" | "rap" | "rh1" | "rh2")) {
            match *word {
                "nl" => options.no_local = true,
                "rap" => options.retain_as_published = true,
                "rh1" => options.retain_handling = RetainHandling::SendIfNew,
                _ => options.retain_handling = RetainHandling::DoNotSend,
            }
        }
        Subscribe::push_filter(&mut payload, filter, options);
    }
    payload
}

/// `x*5000` written out.
fn unfolded(payload: &str) -> Vec<u8> {
    match payload.split_once('*') {
        Some((byte, count)) if byte.len() == 1 => vec![byte.as_bytes()[0]; count.parse().unwrap()],
        _ => payload.as_bytes().to_vec(),
    }
}

fn folded(payload: &[u8]) -> String {
    match payload.first() {
        Some(&first) if payload.len() > 20 && payload.iter().all(|&byte| byte == first) => {
            format!("{}*{}", first as char, payload.len())
        }
        _ => String::from_utf8_lossy(payload).into_owned(),
    }
}

/// `NAME=VALUE`, if NAME is a property.
pub fn property(word: &str) -> Option<Property<'_>> {
    let (name, value) = word.split_once('=')?;
    let number = || value.parse::<u32>().unwrap();
    let (short, byte) = (|| value.parse::<u16>().unwrap(), || value.parse::<u8>().unwrap());
    Some(match name {
        "format" => Property::PayloadFormatIndicator(byte()),
        "expiry" => Property::MessageExpiryInterval(number()),
        "type" => Property::ContentType(value),
        "response" => Property::ResponseTopic(value),
        "correlation" => Property::CorrelationData(value.as_bytes()),
        "sid" => Property::SubscriptionIdentifier(number()),
        "session-expiry" => Property::SessionExpiryInterval(number()),
        "method" => Property::AuthenticationMethod(value),
        "data" => Property::AuthenticationData(value.as_bytes()),
        "problem" => Property::RequestProblemInformation(byte()),
        "will-delay" => Property::WillDelayInterval(number()),
        "want-response" => Property::RequestResponseInformation(byte()),
        "reason" => Property::ReasonString(value),
        "receive-max" => Property::ReceiveMaximum(short()),
        "alias-max" => Property::TopicAliasMaximum(short()),
        "alias" => Property::TopicAlias(short()),
        "user" => value.split_once(':').map(|(name, value)| Property::UserProperty(name, value)).unwrap(),
        "max-packet" => Property::MaximumPacketSize(number()),
        _ => return None,
    })
}

fn show_property(property: Property) -> String {
    match property {
        Property::PayloadFormatIndicator(value) => format!("format={value}"),
        Property::MessageExpiryInterval(value) => format!("expiry={value}"),
        Property::ContentType(value) => format!("type={value}"),
        Property::ResponseTopic(value) => format!("response={value}"),
        Property::CorrelationData(value) => format!("correlation={}", String::from_utf8_lossy(value)),
        Property::SubscriptionIdentifier(value) => format!("sid={value}"),
        Property::SessionExpiryInterval(value) => format!("session-expiry={value}"),
        Property::ReasonString(value) => format!("reason='{value}'"),
        Property::ReceiveMaximum(value) => format!("receive-max={value}"),
        Property::TopicAliasMaximum(value) => format!("alias-max={value}"),
        Property::TopicAlias(value) => format!("alias={value}"),
        Property::UserProperty(name, value) => format!("user={name}:{value}"),
        Property::MaximumPacketSize(value) => format!("max-packet={value}"),
        Property::AssignedClientIdentifier(value) => format!("assigned={value}"),
        Property::ServerKeepAlive(value) => format!("keep-alive={value}"),
        Property::MaximumQoS(value) => format!("max-qos={value}"),
        Property::RetainAvailable(value) => format!("retain-available={value}"),
        other => format!("{other:?}"),
    }
}

/// How much of a packet is shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Properties of PUBLISH only.
    Brief,
    /// All properties.
    Full,
}

/// One packet of the broker as text.
pub fn show(packet: &Packet, version: Version, detail: Detail) -> String {
    let code = |reason: ReasonCode| if reason == ReasonCode::Success { String::new() } else { hex(reason as u8) };
    let codes = |codes: &[u8]| codes.iter().map(|&code| hex(code)).collect::<String>();
    let ack = |kind: &str, ack: &Ack| format!("{kind} #{}{}", ack.packet_id, code(ack.reason));
    let (mut text, properties) = match packet {
        Packet::ConnAck(connack) => {
            let code = version.connack_code(connack.reason).unwrap();
            let present = if connack.session_present { " present" } else { "" };
            (format!("CONNACK{}{present}", hex(code)), connack.properties)
        }
        Packet::Publish(publish) => (show_publish(publish), publish.properties),
        Packet::PubAck(packet) => (ack("PUBACK", packet), packet.properties),
        Packet::PubRec(packet) => (ack("PUBREC", packet), packet.properties),
        Packet::PubRel(packet) => (ack("PUBREL", packet), packet.properties),
        Packet::PubComp(packet) => (ack("PUBCOMP", packet), packet.properties),
        Packet::SubAck(suback) => (format!("SUBACK #{}{}", suback.packet_id, codes(suback.codes)), suback.properties),
        Packet::UnsubAck(suback) => {
            (format!("UNSUBACK #{}{}", suback.packet_id, codes(suback.codes)), suback.properties)
        }
        Packet::PingResp => return "PINGRESP".to_string(),
        Packet::Disconnect(disconnect) => {
            (format!("DISCONNECT{}", hex(disconnect.reason as u8)), disconnect.properties)
        }
        Packet::Auth(auth) => (format!("AUTH{}", hex(auth.reason as u8)), auth.properties),
        other => panic!("a server does not send {other:?}"),
    };
    if detail == Detail::Full || matches!(packet, Packet::Publish(_)) {
        properties.iter().for_each(|property| text += &format!(" {}", show_property(property)));
    }
    text
}

fn show_publish(publish: &Publish) -> String {
    let mut text = "PUBLISH".to_string();
    for (word, is_set) in [("dup", publish.dup), ("retain", publish.retain)] {
        if is_set {
            text += &format!(" {word}");
        }
    }
    if publish.qos > QoS::AtMostOnce {
        text += &format!(" q{} #{}", publish.qos as u8, publish.packet_id);
    }
    text += &format!(" {}", if publish.topic.is_empty() { "''" } else { publish.topic });
    if !publish.payload.is_empty() {
        text += &format!(" {}", folded(publish.payload));
    }
    text
}

fn hex(byte: u8) -> String {
    format!(" {byte:02x}")
}
