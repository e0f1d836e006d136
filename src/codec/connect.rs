//! CONNECT of all versions, normalised: what a broker has to know is in the same fields whatever the version.

use super::kind::{Kind, malformed, protocol_error};
use super::reader::{Field, Reader, field};
use super::writer::{put_binary, put_frame, put_properties, put_string, put_u16};
use super::{DecodeError, Direction, Properties, Property, QoS, ReasonCode, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    pub version: Version,
    /// Bit 7 of the protocol level was set: a Mosquitto bridge (3.1 and 3.1.1 only).
    pub bridge: bool,
    /// Clean Session of 3.x, Clean Start of 5.0.
    pub clean_start: bool,
    /// Seconds the session outlives its connection; u32::MAX = for ever. 3.x: 0 with Clean Session, else u32::MAX.
    /// `encode` writes what `properties` says.
    pub session_expiry_s: u32,
    pub keep_alive_s: u16,
    pub client_id: &'a str,
    pub will: Option<Will<'a>>,
    pub username: Option<&'a str>,
    pub password: Option<&'a [u8]>,
    pub properties: Properties<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Will<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: Properties<'a>,
}

const RESERVED: u8 = 1;
const CLEAN_START: u8 = 1 << 1;
const WILL: u8 = 1 << 2;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 1 << 5;
const PASSWORD: u8 = 1 << 6;
const USERNAME: u8 = 1 << 7;
/// Set in the protocol level by Mosquitto's bridges.
const BRIDGE: u8 = 0x80;

static PROTOCOL_NAME: Field = field!("Protocol Name of the CONNECT");
static CLIENT_ID: Field = field!("Client Identifier of the CONNECT");
static WILL_TOPIC: Field = field!("Will Topic of the CONNECT");
static WILL_PAYLOAD: Field = field!("Will Payload of the CONNECT");
static USERNAME_FIELD: Field = field!("User Name of the CONNECT");
static PASSWORD_FIELD: Field = field!("Password of the CONNECT");

/// The version a CONNECT asks for, if it is one of ours; nothing else of `body` is judged. For the answer to a CONNECT
/// that cannot be decoded.
pub fn connect_version(body: &[u8]) -> Option<Version> {
    decode_version(&mut Reader::new(body)).ok().map(|(version, _)| version)
}

/// [MQTT-3.1.2-1] [MQTT-3.1.2-2]
fn decode_version(reader: &mut Reader) -> Result<(Version, bool), DecodeError> {
    let name = reader.string(&PROTOCOL_NAME)?;
    let level = reader.u8("the CONNECT ends before its Protocol Level")?;
    let unsupported = |what| DecodeError { reason: ReasonCode::UnsupportedProtocolVersion, what };
    let versions: &[Version] = match name {
        "MQTT" => &[Version::V311, Version::V5],
        "MQIsdp" => &[Version::V31],
        _ => return Err(unsupported("the Protocol Name of the CONNECT is neither MQTT nor MQIsdp")),
    };
    let is_asked_for = |version: Version| match version {
        Version::V31 | Version::V311 => version.level() == level & !BRIDGE,
        Version::V5 => version.level() == level,
    };
    match versions.iter().find(|&&version| is_asked_for(version)) {
        Some(&version) => Ok((version, level & BRIDGE != 0)),
        None => Err(unsupported("the Protocol Level of the CONNECT is not supported")),
    }
}

impl<'a> Connect<'a> {
    pub(super) fn decode(reader: &mut Reader<'a>) -> Result<Connect<'a>, DecodeError> {
        let (version, bridge) = decode_version(reader)?;
        let flags = reader.u8("the CONNECT ends before its Connect Flags")?;
        check_flags(flags, version)?;
        let keep_alive_s = reader.u16("the CONNECT ends before its Keep Alive")?;
        let properties = Properties::decode(reader, Kind::Connect, version, Direction::ToServer)?;
        // [MQTT-3.1.3-1]
        let client_id = reader.string(&CLIENT_ID)?;
        let will = if flags & WILL != 0 { Some(Will::decode(reader, flags, version)?) } else { None };
        let username = match has_field(USERNAME, flags, reader, version) {
            true => Some(reader.string(&USERNAME_FIELD)?),
            false => None,
        };
        let password = match has_field(PASSWORD, flags, reader, version) {
            true => Some(reader.binary(&PASSWORD_FIELD)?),
            false => None,
        };
        let clean_start = flags & CLEAN_START != 0;
        Ok(Connect {
            version,
            bridge,
            clean_start,
            session_expiry_s: session_expiry_s(version, clean_start, properties),
            keep_alive_s,
            client_id,
            will,
            username,
            // A password without a user name means nothing to 3.1.
            password: password.filter(|_| username.is_some() || version.allows_password_alone()),
            properties,
        })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let version = self.version;
        let bridge = if self.bridge && !version.has_properties() { BRIDGE } else { 0 };
        put_frame(out, Kind::Connect, |out| {
            put_string(out, version.protocol_name());
            out.push(version.level() | bridge);
            out.push(self.flags());
            put_u16(out, self.keep_alive_s);
            put_properties(out, version, self.properties);
            put_string(out, self.client_id);
            if let Some(will) = &self.will {
                put_properties(out, version, will.properties);
                put_string(out, will.topic);
                put_binary(out, will.payload);
            }
            if let Some(username) = self.username {
                put_string(out, username);
            }
            if let Some(password) = self.password {
                put_binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let flag = |bit: u8, set: bool| if set { bit } else { 0 };
        flag(CLEAN_START, self.clean_start)
            | flag(USERNAME, self.username.is_some())
            | flag(PASSWORD, self.password.is_some())
            | self.will.map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | flag(WILL_RETAIN, will.retain))
    }
}

impl<'a> Will<'a> {
    fn decode(reader: &mut Reader<'a>, flags: u8, version: Version) -> Result<Will<'a>, DecodeError> {
        // [MQTT-3.1.2-14] (3.1.1) [MQTT-3.1.2-12] (5.0)
        let qos = QoS::from_u8(flags >> WILL_QOS_SHIFT & 3)
            .ok_or(malformed("the Will QoS of the CONNECT is 3; only 0, 1 and 2 exist"))?;
        let properties = Properties::decode(reader, Kind::Will, version, Direction::ToServer)?;
        let topic = reader.string(&WILL_TOPIC)?;
        let payload = reader.binary(&WILL_PAYLOAD)?;
        Ok(Will { qos, retain: flags & WILL_RETAIN != 0, topic, payload, properties })
    }
}

/// What the Connect Flags alone can be wrong in; 3.1 leaves it open.
fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
    if !version.is_strict() {
        return Ok(());
    }
    // [MQTT-3.1.2-3]
    if flags & RESERVED != 0 {
        return Err(malformed("the reserved bit of the Connect Flags is set"));
    }
    if flags & WILL == 0 {
        // [MQTT-3.1.2-13] (3.1.1) [MQTT-3.1.2-11] (5.0)
        if flags >> WILL_QOS_SHIFT & 3 != 0 {
            return Err(malformed("the CONNECT has a Will QoS without a Will"));
        }
        // [MQTT-3.1.2-15] (3.1.1) [MQTT-3.1.2-13] (5.0)
        if flags & WILL_RETAIN != 0 {
            return Err(malformed("the CONNECT has Will Retain without a Will"));
        }
    }
    // [MQTT-3.1.2-22] (3.1.1)
    if flags & PASSWORD != 0 && flags & USERNAME == 0 && !version.allows_password_alone() {
        return Err(protocol_error("the CONNECT has a Password without a User Name"));
    }
    Ok(())
}

/// Old 3.1 clients set the flags of User Name and Password and send neither.
fn has_field(flag: u8, flags: u8, reader: &Reader, version: Version) -> bool {
    flags & flag != 0 && (version.is_strict() || !reader.is_empty())
}

fn session_expiry_s(version: Version, clean_start: bool, properties: Properties) -> u32 {
    if version.has_properties() {
        let expiry = |property| match property {
            Property::SessionExpiryInterval(seconds) => Some(seconds),
            _ => None,
        };
        properties.find(expiry).unwrap_or(0)
    } else if clean_start {
        0
    } else {
        u32::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(name: &str, level: u8) -> Vec<u8> {
        let mut body = Vec::new();
        put_string(&mut body, name);
        body.push(level);
        body
    }

    #[test]
    fn the_version_is_found_whatever_follows() {
        let mut found = Vec::new();
        for name in ["MQTT", "MQIsdp", "mqtt", "MQTTX", ""] {
            for level in 0..=255 {
                if let Some(version) = connect_version(&body(name, level)) {
                    found.push((name, level, version));
                }
            }
        }
        let expected = [
            ("MQTT", 4, Version::V311),
            ("MQTT", 5, Version::V5),
            ("MQTT", 0x84, Version::V311),
            ("MQIsdp", 3, Version::V31),
            ("MQIsdp", 0x83, Version::V31),
        ];
        assert_eq!(found, expected);
        assert_eq!(connect_version(b"\x00\x04MQTT\x05\xFF\xFF\xFF"), Some(Version::V5));
        for cut in [&b""[..], b"\x00", b"\x00\x04MQT", b"\x00\x04MQTT", b"\x00\x02\xC3\x28\x04"] {
            assert_eq!(connect_version(cut), None);
        }
    }

    #[test]
    fn old_clients_may_leave_out_what_their_flags_promise() {
        for (flags, rest, username, password) in [
            (0x80, &b""[..], None, None),
            (0xC0, b"", None, None),
            (0xC0, b"\x00\x01u", Some("u"), None),
            (0xC0, b"\x00\x01u\x00\x01p", Some("u"), Some(&b"p"[..])),
            (0x40, b"\x00\x01p", None, None),
            (0x40, b"", None, None),
            (0x80, b"\x00\x00", Some(""), None),
        ] {
            let mut body = body("MQIsdp", 3);
            body.extend_from_slice(&[flags, 0, 0, 0, 1, b'a']);
            body.extend_from_slice(rest);
            let connect = Connect::decode(&mut Reader::new(&body)).unwrap();
            assert_eq!((connect.username, connect.password), (username, password), "{flags:x} {rest:?}");
        }
    }
}
