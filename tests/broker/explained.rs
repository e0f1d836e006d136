//! Whatever is refused is explained: the harness looks at each packet of the broker, in every test, and lets none pass that says
//! no to a 5.0 client without a sentence which is more than the name of its code; and what is refused of a connection, a
//! message or a subscription stands in the log in the same words, with the client id and the address.

use midge::broker::Peer;
use midge::codec::{self, Connect, Direction, Packet, Properties, Property, ReasonCode, Split, Version};

use crate::harness::{World, decode, packet};
use crate::hello::v5;

/// What an acknowledgement may need besides its reason string and its codes, and so the least room at which it must have one.
const ROOM: usize = 24;

/// Words of the shortest sentence.
const WORDS_MIN: usize = 4;

/// What a client said of itself in CONNECT.
pub struct Told {
    /// What it sent, until that is a whole packet.
    sent: Vec<u8>,
    is_known: bool,
    version: Version,
    wants_explanations: bool,
    packet_size_max: usize,
    /// The client id, or what may stand in its place.
    client_id: String,
    username: String,
    peer: Peer,
}

impl Told {
    pub fn new(peer: Peer) -> Told {
        Told {
            sent: Vec::new(),
            is_known: false,
            version: Version::V311,
            wants_explanations: true,
            packet_size_max: usize::MAX,
            client_id: String::new(),
            username: String::new(),
            peer,
        }
    }

    /// The client sent this, and the broker read it.
    pub fn note(&mut self, bytes: &[u8]) {
        if self.is_known {
            return;
        }
        self.sent.extend_from_slice(bytes);
        let Ok(Split::Frame { body, len }) = codec::split_frame(&self.sent, 0) else { return };
        let sent = std::mem::take(&mut self.sent);
        (self.is_known, self.version) = (true, codec::connect_version(&sent[body..len]).unwrap_or(Version::V311));
        if let Ok(Packet::Connect(connect)) =
            codec::decode(sent[0], &sent[body..len], Version::V311, Direction::ToServer)
        {
            self.take(&connect);
        }
    }

    fn take(&mut self, connect: &Connect) {
        self.client_id = connect.client_id.to_string();
        self.username = connect.username.unwrap_or_default().to_string();
        for property in connect.properties.iter() {
            match property {
                Property::RequestProblemInformation(wanted) => self.wants_explanations = wanted != 0,
                Property::MaximumPacketSize(maximum) => self.packet_size_max = maximum as usize,
                _ => {}
            }
        }
    }
}

/// What the broker refuses with a packet, the codes of it, and what it says to that.
struct Refusal<'a> {
    kind: &'static str,
    code: u8,
    codes_len: usize,
    properties: Properties<'a>,
    /// It may always say why. [MQTT-3.1.2-29] (5.0)
    is_end: bool,
    is_logged: bool,
}

fn refusal<'a>(packet: &Packet<'a>) -> Option<Refusal<'a>> {
    let new = |kind, code, codes_len, properties, is_end, is_logged| {
        let refusal = Refusal { kind, code, codes_len, properties, is_end, is_logged };
        (code >= 0x80).then_some(refusal)
    };
    let worst = |codes: &[u8]| codes.iter().copied().max().unwrap_or_default();
    match packet {
        Packet::ConnAck(it) => new("CONNACK", it.reason as u8, 0, it.properties, true, true),
        Packet::Disconnect(it) => new("DISCONNECT", it.reason as u8, 0, it.properties, true, true),
        Packet::PubAck(it) => new("PUBACK", it.reason as u8, 0, it.properties, false, true),
        Packet::PubRec(it) => new("PUBREC", it.reason as u8, 0, it.properties, false, true),
        Packet::PubRel(it) => new("PUBREL", it.reason as u8, 0, it.properties, false, false),
        Packet::PubComp(it) => new("PUBCOMP", it.reason as u8, 0, it.properties, false, false),
        Packet::SubAck(it) => new("SUBACK", worst(it.codes), it.codes.len(), it.properties, false, true),
        Packet::UnsubAck(it) => new("UNSUBACK", worst(it.codes), it.codes.len(), it.properties, false, false),
        _ => None,
    }
}

/// What is wrong with how a packet of the broker explains itself, if anything is. `has_line` says whether a line of the log has
/// all of some parts.
pub fn fault(frame: &[u8], told: &Told, is_end_logged: bool, has_line: impl Fn(&[&str]) -> bool) -> Option<String> {
    if !told.is_known || !told.version.has_properties() {
        return None;
    }
    let packet = decode(frame, told.version);
    let Refusal { kind, code, codes_len, properties, is_end, is_logged } = refusal(&packet)?;
    let is_wanted = is_end || told.wants_explanations;
    let sentence = properties.find(|property| match property {
        Property::ReasonString(text) => Some(text),
        _ => None,
    });
    let Some(sentence) = sentence else {
        // The sentence that is not there would have been that long at most.
        let may_not_fit = told.packet_size_max < 200 + codes_len + ROOM;
        let fault = format!("{kind} {code:02x} has no reason string");
        return (is_wanted && !may_not_fit).then_some(fault);
    };
    if !is_sentence(sentence, code) {
        return Some(format!("{kind} {code:02x} is explained by '{sentence}', which says nothing"));
    }
    if !is_logged || is_end && !is_end_logged {
        return None;
    }
    let (address, rest) = (format!("{}", told.peer), &sentence[sentence.chars().next().map_or(0, char::len_utf8)..]);
    // Letters that are dangerous in a log are not shown.
    let is_plain = told.client_id.chars().all(|it| it.is_alphanumeric());
    let is_named = |name: &str| has_line(&[&address, rest, if is_plain { name } else { "" }]);
    let is_told = is_named(&told.client_id) || !told.username.is_empty() && is_named(&told.username);
    (!is_told)
        .then(|| format!("{kind} {code:02x}, '{sentence}', is not in the log with {address} and the client's name"))
}

/// Whether this is more than the name of a code.
fn is_sentence(text: &str, code: u8) -> bool {
    let plain = |text: &str| text.to_lowercase().replace(|it: char| !it.is_alphanumeric(), " ");
    let name = plain(ReasonCode::from_u8(code).map_or("", ReasonCode::name));
    let said = plain(text);
    let names: Vec<&str> = name.split_whitespace().collect();
    let own = said.split_whitespace().filter(|word| !names.contains(word) && word.len() > 3).count();
    said.split_whitespace().count() >= WORDS_MIN && own >= 1
}

/// What a 5.0 client named `c` at an address gets.
fn told() -> Told {
    let mut told = Told::new(Peer::V4([192, 0, 2, 7].into(), 40_000));
    told.note(&v5("c").bytes());
    told
}

/// PUBACK of packet id 1 with code 0x87 and this reason string.
fn puback(reason: &str) -> Vec<u8> {
    let property = [&[0x1F, 0, reason.len() as u8][..], reason.as_bytes()].concat();
    let properties = if reason.is_empty() { Vec::new() } else { property };
    packet(0x40, &[&[0, 1, 0x87, properties.len() as u8], &properties[..]].concat())
}

#[test]
fn the_bare_name_of_a_code_explains_nothing() {
    for bare in ["", "Not authorized", "not authorized!", "Error: not authorized", "denied", "it is not authorized"] {
        assert!(fault(&puback(bare), &told(), true, |_| true).is_some(), "'{bare}' passes");
    }
    let good = "denied by the topic rule of line 1 of /acl";
    assert_eq!(fault(&puback(good), &told(), true, |_| true), None);
    for (code, bare) in [(0x97, "Quota exceeded"), (0x8F, "Topic Filter invalid"), (0x95, "the Packet is too large")] {
        assert!(!is_sentence(bare, code), "'{bare}' passes");
    }
}

#[test]
fn a_refusal_that_is_not_logged_with_client_and_address_is_found() {
    let good = "denied by the topic rule of line 1 of /acl";
    for line in ["c 192.0.2.7:40000", "192.0.2.7:40000 denied by the topic rule of line 1 of /wrong", good] {
        let has_line = |parts: &[&str]| parts.iter().all(|part| line.contains(part));
        assert!(fault(&puback(good), &told(), true, has_line).is_some(), "'{line}' passes");
    }
    let line = "Denied PUBLISH from c: Denied by the topic rule of line 1 of /acl. It came from 192.0.2.7:40000.";
    let has_line = |parts: &[&str]| parts.iter().all(|part| line.contains(part));
    assert_eq!(fault(&puback(good), &told(), true, has_line), None);
}

#[test]
fn who_wants_no_explanation_or_has_no_room_for_it_need_not_get_one() {
    let mut reticent = told();
    reticent.wants_explanations = false;
    assert_eq!(fault(&puback(""), &reticent, true, |_| true), None);
    let disconnect = packet(0xE0, &[0x81, 0]);
    assert!(fault(&disconnect, &reticent, true, |_| true).is_some(), "DISCONNECT may always say why");
    let mut small = told();
    small.packet_size_max = 60;
    assert_eq!(fault(&puback(""), &small, true, |_| true), None);
    let mut old = told();
    old.version = Version::V311;
    assert_eq!(fault(&packet(0x40, &[0, 1]), &old, true, |_| true), None);
}

#[test]
fn a_client_that_is_not_let_in_is_named_in_the_log_by_what_it_calls_itself() {
    use crate::harness::log_count;
    let mut w = World::ruled(|rules| rules.allow_anonymous = false);
    w.connect(v5("garden [198.51.100.1:5] x"));
    assert_eq!(log_count("Notice: Client 192.0.2.7 [192.0.2.7:40000] disconnected: not authorised. This listener"), 1);
    assert_eq!(log_count(" It calls itself 'garden ?198.51.100.1:5? x'."), 1);
}
