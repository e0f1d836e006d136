//! One PUBLISH into one client's output, in the form in which that client gets it. A message for several is encoded once for each
//! layout ({3.x, 5.0} x {QoS 0, QoS > 0}) and copied with its packet id patched in; large payloads are not copied at all.

use super::alias::Outgoing as Alias;
use super::clients::Clients;
use super::hash::Seed;
use super::link::{Link, LinkId};
use super::message::{Content, Message};
use super::mount::cut_off;
use crate::codec::{PropertiesBuf, Property, PublishHeader, QoS};
use crate::time::Millis;

/// From this payload size on, output refers to the message instead of copying it: below, the copy is cheaper than
/// another slice in the write.
pub(super) const SHARE_MIN: usize = 4096;

/// What a Topic Alias adds at most: the property, and a longer length of properties and packet.
const ALIAS_LEN: usize = 3 + 2;

/// The encoded forms of the message that is being routed.
#[derive(Default)]
pub(super) struct Layouts {
    bytes: Vec<u8>,
    known: [Option<Layout>; 4],
    topic_hash: Option<u32>,
}

#[derive(Clone, Copy)]
struct Layout {
    start: usize,
    end: usize,
    packet_id_at: usize,
}

/// One PUBLISH to one client.
pub(super) struct Outgoing<'a> {
    pub content: Content<'a>,
    pub message: Option<&'a Message>,
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub packet_id: u16,
    pub subscription_id: u32,
    /// Others get the same message now.
    pub is_shared: bool,
}

impl Clients {
    /// Appends a PUBLISH to the link's output; false if it is larger than the client takes, and counts as delivered.
    /// [MQTT-3.1.2-24] [MQTT-3.1.2-25] (5.0)
    pub(super) fn write_publish(&mut self, id: LinkId, outgoing: &Outgoing, now: Millis) -> bool {
        let Clients { links, pool, layouts, hop_properties, stats, turn_bytes, seed, .. } = self;
        let link = &mut links[id as usize];
        let content = outgoing.content;
        let mut header = PublishHeader {
            dup: outgoing.dup,
            qos: outgoing.qos,
            retain: outgoing.retain,
            topic: content.topic,
            packet_id: outgoing.packet_id,
            hop_properties: &[],
            properties: content.properties,
            payload_len: content.payload.len(),
        };
        let mut is_plain = true;
        if link.has_mount {
            match cut_off(link, content.topic) {
                Some(topic) => header.topic = topic,
                None => return false,
            }
            // The topic is another one than that of the layouts.
            is_plain = false;
        }
        if link.version.has_properties() {
            outgoing.hop_into(hop_properties, now);
            is_plain &= hop_properties.as_properties().is_empty();
            let hop = hop_properties.as_properties().as_bytes();
            let len = PublishHeader { hop_properties: hop, ..header }.packet_len(link.version);
            if len > link.packet_size_max as usize {
                let topic = String::from_utf8_lossy(content.topic);
                log::debug!("A message of topic '{topic}' is larger than {} takes; not sent.", link.peer);
                return false;
            }
            // Aliases go by the whole topic, also below a mount point.
            let hash = || layouts.topic_hash(content.topic, outgoing.is_shared, seed);
            let alias = alias_for(link, content.topic, len, hash);
            if let Alias::Introduce(alias) | Alias::Use(alias) = alias {
                is_plain = false;
                hop_properties.push(Property::TopicAlias(alias));
            }
            if matches!(alias, Alias::Use(_)) {
                header.topic = b"";
            }
            header.hop_properties = hop_properties.as_properties().as_bytes();
        } else if header.packet_len(link.version) > link.packet_size_max as usize {
            return false;
        }
        stats.publishes_sent += 1;
        stats.publish_bytes_sent += content.payload.len() as u64;
        stats.packets_sent += 1;
        link.unwritten_packets += 1;
        link.publishes_sent = link.publishes_sent.wrapping_add(1);
        let before = link.output.own_len();
        let output = &mut link.output;
        match outgoing.message {
            Some(message) if content.payload.len() >= SHARE_MIN => {
                header.encode(link.version, output.tail(pool));
                let (payload, from) = message.shared_payload();
                output.append_shared(payload, from, pool);
            }
            _ if is_plain && outgoing.is_shared => layouts.append(&header, link, content.payload, pool),
            _ => {
                let tail = output.tail(pool);
                header.encode(link.version, tail);
                tail.extend_from_slice(content.payload);
            }
        }
        *turn_bytes += link.output.own_len() - before;
        if !link.is_dirty {
            self.mark_dirty(id);
        }
        true
    }
}

/// How the topic of a packet of this length is said to a client that may take aliases.
#[inline]
fn alias_for(link: &mut Link, topic: &[u8], len: usize, hash: impl FnOnce() -> u32) -> Alias {
    match link.topic_alias_max {
        0 => Alias::Plain,
        _ if len + ALIAS_LEN > link.packet_size_max as usize => Alias::Plain,
        maximum => link.aliases_mut().outgoing(topic, hash(), maximum),
    }
}

impl Outgoing<'_> {
    /// The properties that are this hop's, but for the alias.
    #[inline]
    fn hop_into(&self, properties: &mut PropertiesBuf, now: Millis) {
        properties.clear();
        if self.content.expires_at != Millis::NEVER {
            // [MQTT-3.3.2-6] (5.0)
            let left_ms = (self.content.expires_at - now).0;
            properties.push(Property::MessageExpiryInterval(left_ms.div_ceil(1000) as u32));
        }
        if self.subscription_id != 0 {
            properties.push(Property::SubscriptionIdentifier(self.subscription_id));
        }
    }
}

impl Layouts {
    pub(super) fn forget(&mut self) {
        self.bytes.clear();
        self.known = [None; 4];
        self.topic_hash = None;
    }

    /// The hash of the topic, computed once while its message is routed.
    fn topic_hash(&mut self, topic: &[u8], is_shared: bool, seed: &Seed) -> u32 {
        match is_shared {
            true => *self.topic_hash.get_or_insert_with(|| seed.hash(0, topic)),
            false => seed.hash(0, topic),
        }
    }

    /// Appends the message in the layout the link wants, encoded once and patched.
    fn append(&mut self, header: &PublishHeader, link: &mut Link, payload: &[u8], pool: &mut crate::buffer::Pool) {
        let has_packet_id = header.qos > QoS::AtMostOnce;
        let number = link.version.has_properties() as usize * 2 + has_packet_id as usize;
        let tail = link.output.tail(pool);
        let at = tail.len();
        if let Some(layout) = self.known[number] {
            tail.extend_from_slice(&self.bytes[layout.start..layout.end]);
            tail[at] = 0x30 | (header.qos as u8) << 1 | header.retain as u8;
            if has_packet_id {
                let packet_id_at = at + layout.packet_id_at;
                tail[packet_id_at..packet_id_at + 2].copy_from_slice(&header.packet_id.to_be_bytes());
            }
            return;
        }
        header.encode(link.version, tail);
        tail.extend_from_slice(payload);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&tail[at..]);
        let packet_id_at = header.packet_id_at(link.version);
        self.known[number] = Some(Layout { start, end: self.bytes.len(), packet_id_at });
    }
}
