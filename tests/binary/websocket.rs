//! MQTT over WebSocket on real sockets. The client here is its own implementation of the protocol's other side.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use midge::codec::{self, Direction, Packet, Properties, Publish, QoS, Split, Subscribe, Version, Will};

use crate::client::{Client, hello};
use crate::program::{Midge, port};

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const CONTINUATION: u8 = 0x00;
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;
const FINAL: u8 = 0x80;

/// One listener of each kind: their ports, the plain one first.
fn start(more: &[&str]) -> (Midge, u16, u16) {
    let plain = ["--allow-anonymous", "true", "--listener", "0 127.0.0.1"];
    let websockets = ["--listener", "0 127.0.0.1", "--protocol", "websockets"];
    let midge = Midge::start(&[&plain[..], &websockets, more].concat(), None);
    let lines = midge.start_lines();
    let ports = ["ipv4", "websockets"].map(|kind| port(&lines, kind).unwrap());
    (midge, ports[0], ports[1])
}

fn dial(port: u16) -> TcpStream {
    let socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn request(protocol: &str) -> String {
    format!(
        "GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\
         \r\n"
    )
}

/// The broker's answer to these bytes, which must be all it says.
fn answer(port: u16, bytes: &[u8]) -> String {
    let mut socket = dial(port);
    socket.write_all(bytes).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 0x80, 0xFF, 1];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => out.extend([&[0xFE][..], &(len as u16).to_be_bytes()].concat()),
        len => out.extend([&[0xFF][..], &(len as u64).to_be_bytes()].concat()),
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

fn encoded(version: Version, packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    bytes
}

fn connect(version: Version, client_id: &str, has_will: bool) -> Vec<u8> {
    let (qos, retain, properties) = (QoS::AtMostOnce, false, Properties::EMPTY);
    let will = Will { qos, retain, topic: "gone", payload: client_id.as_bytes(), properties };
    encoded(version, &Packet::Connect(hello(version, client_id, has_will.then_some(will))))
}

fn publish(version: Version, topic: &str, payload: &[u8], qos: QoS, packet_id: u16) -> Vec<u8> {
    let (dup, retain, properties) = (false, false, Properties::EMPTY);
    encoded(version, &Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }))
}

struct WebSocket {
    socket: TcpStream,
    version: Version,
    /// What came of frames that are not whole.
    raw: Vec<u8>,
    /// What came of packets that are not whole.
    mqtt: Vec<u8>,
    /// Most bytes read at once.
    room: usize,
}

impl WebSocket {
    fn open(port: u16, version: Version) -> WebSocket {
        let mut socket = dial(port);
        socket.write_all(request("mqtt").as_bytes()).unwrap();
        let mut websocket = WebSocket { socket, version, raw: Vec::new(), mqtt: Vec::new(), room: 65_536 };
        websocket.read_answer();
        websocket
    }

    /// The head of the answer, which must be an acceptance.
    fn read_answer(&mut self) -> String {
        loop {
            if let Some(at) = self.raw.windows(4).position(|end| end == b"\r\n\r\n") {
                let head: Vec<u8> = self.raw.drain(..at + 4).collect();
                let head = String::from_utf8(head).unwrap();
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                return head;
            }
            assert!(self.read(), "closed within the answer: {:?}", self.raw);
        }
    }

    fn connect(port: u16, version: Version, client_id: &str, has_will: bool) -> WebSocket {
        let mut websocket = WebSocket::open(port, version);
        websocket.send(BINARY, &connect(version, client_id, has_will));
        websocket.expect("ConnAck");
        websocket
    }

    fn send(&mut self, first: u8, payload: &[u8]) {
        self.socket.write_all(&frame(first, payload)).unwrap();
    }

    fn subscribe(&mut self, filter: &str) {
        let payload = [&(filter.len() as u16).to_be_bytes()[..], filter.as_bytes(), &[2]].concat();
        let subscribe = Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload };
        self.send(BINARY, &encoded(self.version, &Packet::Subscribe(subscribe)));
        self.expect("SubAck");
    }

    fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, packet_id: u16) {
        self.send(BINARY, &publish(self.version, topic, payload, qos, packet_id));
    }

    /// One read; false at the end.
    fn read(&mut self) -> bool {
        let mut bytes = vec![0; self.room];
        match self.socket.read(&mut bytes) {
            Ok(0) => false,
            Ok(count) => {
                self.raw.extend_from_slice(&bytes[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The next frame: its first byte and its payload; nothing at the end.
    fn next_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((from, len)) = header(&self.raw)
                && self.raw.len() >= from + len
            {
                let frame: Vec<u8> = self.raw.drain(..from + len).collect();
                return Some((frame[0], frame[from..].to_vec()));
            }
            if !self.read() {
                assert!(self.raw.is_empty(), "closed within a frame");
                return None;
            }
        }
    }

    /// Shows the next packet to `look`. Nothing but binary frames may come before it.
    fn next<T>(&mut self, look: impl FnOnce(&Packet) -> T) -> T {
        loop {
            if let Split::Frame { body, len } = codec::split_frame(&self.mqtt, 0).unwrap() {
                let packet =
                    codec::decode(self.mqtt[0], &self.mqtt[body..len], self.version, Direction::ToClient).unwrap();
                let seen = look(&packet);
                self.mqtt.drain(..len);
                return seen;
            }
            match self.next_frame() {
                Some((BINARY, payload)) => self.mqtt.extend(payload),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The next packet is of this type.
    fn expect(&mut self, name: &str) {
        let shown = self.next(|packet| format!("{packet:?}"));
        assert!(shown.starts_with(name), "{shown}");
    }

    fn next_payload(&mut self) -> Vec<u8> {
        self.next(|packet| match packet {
            Packet::Publish(publish) => publish.payload.to_vec(),
            other => panic!("{other:?}"),
        })
    }

    fn expect_close(&mut self, code: u16) {
        assert_eq!(self.next_frame(), Some((CLOSE, code.to_be_bytes().to_vec())));
        assert_eq!(self.next_frame(), None);
    }
}

/// Where the payload of a server's frame begins, and how long it is.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes {
        [_, 126, high, low, ..] => Some((4, usize::from(high) << 8 | usize::from(low))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => Some((10, u64::from_be_bytes([a, b, c, d, e, f, g, h]) as usize)),
        [_, len @ 0..=125, ..] => Some((2, len.into())),
        _ => None,
    }
}

#[test]
fn v311_mqtt_6_0_0_4_v5_mqtt_6_0_0_4_the_answer_selects_mqtt() {
    let (_midge, _, port) = start(&[]);
    for (offered, selected) in [("mqtt", "mqtt"), ("mqttv3.1, mqtt", "mqtt"), ("mqttv3.1", "mqttv3.1")] {
        let mut socket = dial(port);
        socket.write_all(request(offered).as_bytes()).unwrap();
        let mut websocket =
            WebSocket { socket, version: Version::V311, raw: Vec::new(), mqtt: Vec::new(), room: 65_536 };
        let head = websocket.read_answer();
        assert!(head.contains(&format!("\r\nSec-WebSocket-Protocol: {selected}\r\n")), "{head}");
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    }
}

#[test]
fn websocket_and_plain_clients_talk_to_each_other_at_every_qos() {
    let (_midge, plain, port) = start(&[]);
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut browser = WebSocket::connect(port, version, "browser", false);
        browser.subscribe("t/#");
        let mut device = Client::connect(plain, version, "device", false);
        device.subscribe("t/#", 2);
        for (qos, id) in [(QoS::AtMostOnce, 0), (QoS::AtLeastOnce, 7), (QoS::ExactlyOnce, 8)] {
            device.publish("t/x", &[qos as u8], qos, id);
            assert_eq!(browser.next_payload(), [qos as u8]);
        }
        let mut other = WebSocket::connect(port, version, "other", false);
        for (qos, id, answer) in
            [(QoS::AtMostOnce, 0, ""), (QoS::AtLeastOnce, 7, "PubAck"), (QoS::ExactlyOnce, 8, "PubRec")]
        {
            other.publish("t/y", &[qos as u8], qos, id);
            if !answer.is_empty() {
                other.expect(answer);
            }
            assert_eq!(browser.next_payload(), [qos as u8]);
        }
    }
}

#[test]
fn v311_mqtt_6_0_0_2_v5_mqtt_6_0_0_2_packets_and_frames_have_borders_of_their_own() {
    let (_midge, _, port) = start(&[]);
    for version in [Version::V311, Version::V5] {
        let mut client = WebSocket::open(port, version);
        // A byte a frame.
        connect(version, "split", false).iter().for_each(|byte| client.send(BINARY, &[*byte]));
        client.expect("ConnAck");
        client.subscribe("t");
        // Several packets in one frame, the last one unfinished, and that one in fragments with a ping between them.
        let [one, two, three] =
            ["one", "two", "three"].map(|text| publish(version, "t", text.as_bytes(), QoS::AtMostOnce, 0));
        client.send(BINARY, &[&one[..], &two, &three[..3]].concat());
        client.send(BINARY & !FINAL, &three[3..5]);
        client.send(PING, b"between");
        client.send(CONTINUATION, &three[5..6]);
        client.send(CONTINUATION | FINAL, &three[6..]);
        let (mut payloads, mut pongs) = (Vec::new(), Vec::new());
        while payloads.len() < one.len() + two.len() + three.len() || pongs.is_empty() {
            match client.next_frame() {
                Some((BINARY, payload)) => payloads.extend(payload),
                Some((PONG, payload)) => pongs.push(payload),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(payloads, [one, two, three].concat());
        assert_eq!(pongs, [b"between"]);
    }
}

#[test]
fn v311_mqtt_6_0_0_1_v5_mqtt_6_0_0_1_a_text_frame_closes_and_all_that_is_sent_is_binary() {
    let (midge, _, port) = start(&[]);
    let mut observer = WebSocket::connect(port, Version::V5, "observer", false);
    observer.subscribe("gone");
    for version in [Version::V311, Version::V5] {
        let mut client = WebSocket::connect(port, version, "talker", true);
        client.send(TEXT, &encoded(version, &Packet::PingReq));
        client.expect_close(1003);
        assert_eq!(observer.next_payload(), b"talker");
    }
    let mut client = WebSocket::connect(port, Version::V5, "rude", true);
    client.socket.write_all(&[BINARY, 2, 0xC0, 0]).unwrap();
    client.expect_close(1002);
    assert_eq!(observer.next_payload(), b"rude");
    let (_, lines) = midge.stop("TERM");
    for (name, code) in [("talker", 1003), ("rude", 1002)] {
        let is_told =
            |line: &&String| line.starts_with(&format!("Client {name} [127.0.0.1:")) && line.contains("protocol error");
        let line = lines.iter().find(is_told).unwrap_or_else(|| panic!("{lines:#?}"));
        assert!(line.contains(&format!("WebSocket closed with code {code}: ")), "{line}");
    }
}

#[test]
fn what_is_no_websocket_of_mqtt_is_answered_with_the_reason() {
    let (midge, _, port) = start(&["--connection-messages", "false"]);
    let version_8 = request("mqtt").replace("Version: 13", "Version: 8");
    let cookie = request("mqtt").replace("Host: ", &format!("Cookie: {}\r\nHost: ", "x".repeat(4000)));
    let plain = b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n";
    for (bytes, status, named) in [
        (&plain[..], "400 Bad Request", "MQTT over WebSocket"),
        (request("chat").as_bytes(), "400 Bad Request", "sub-protocol mqtt"),
        (version_8.as_bytes(), "426 Upgrade Required", "Sec-WebSocket-Version: 13"),
        (cookie.as_bytes(), "431 Request Header Fields Too Large", "4096 bytes"),
        (&connect(Version::V311, "plain", false), "400 Bad Request", "MQTT came without WebSocket"),
    ] {
        let answer = answer(port, bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(body.contains(named) && body.ends_with(".\n"), "{answer}");
    }
    let (_, lines) = midge.stop("TERM");
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for line in &lines[..5] {
        assert!(line.starts_with("Protocol error from 127.0.0.1:"), "{line}");
        assert!(line.contains(": WebSocket refused with HTTP status 4"), "{line}");
    }
}

#[test]
fn frames_may_follow_the_request_at_once() {
    let (_midge, _, port) = start(&[]);
    let mut socket = dial(port);
    let version = Version::V5;
    let ping = frame(BINARY, &encoded(version, &Packet::PingReq));
    let all = [request("mqtt").into_bytes(), frame(BINARY, &connect(version, "hasty", false)), ping].concat();
    socket.write_all(&all).unwrap();
    let mut client = WebSocket { socket, version, raw: Vec::new(), mqtt: Vec::new(), room: 65_536 };
    client.read_answer();
    client.expect("ConnAck");
    client.expect("PingResp");
}

#[test]
fn a_request_that_never_ends_is_closed_by_the_connect_timeout() {
    let (midge, _, port) = start(&["--connect-timeout", "1"]);
    let mut quiet = WebSocket::open(port, Version::V311);
    assert_eq!(answer(port, b"GET / HTTP/1.1\r\nHost: gate"), "");
    // An open WebSocket without CONNECT likewise, with a farewell.
    quiet.expect_close(1000);
    let (_, lines) = midge.stop("TERM");
    assert_eq!(lines.iter().filter(|line| line.contains("No complete CONNECT came")).count(), 2, "{lines:#?}");
}

#[test]
fn large_messages_pass_both_ways_to_one_who_reads_slowly() {
    let (_midge, plain, port) = start(&[]);
    let payload: Vec<u8> = (0..1_000_000u32).map(|number| (number * 7) as u8).collect();
    for version in [Version::V311, Version::V5] {
        let mut slow = WebSocket::connect(port, version, "slow", false);
        slow.subscribe("big");
        slow.room = 2000;
        let mut publisher = WebSocket::connect(port, version, "publisher", false);
        let mut device = Client::connect(plain, version, "device", false);
        let large = payload.clone();
        let sender = thread::spawn(move || {
            publisher.publish("big", &large, QoS::AtLeastOnce, 1);
            publisher.publish("big", b"small", QoS::AtLeastOnce, 2);
            publisher.expect("PubAck");
            publisher.expect("PubAck");
            device.publish("big", &large, QoS::AtLeastOnce, 1);
            device.next(|packet| assert!(matches!(packet, Packet::PubAck(_)))).unwrap();
        });
        // Nothing is read until all of it has been sent.
        sender.join().unwrap();
        slow.send(PING, b"amid");
        let mut pongs = 0;
        let mut bytes = Vec::new();
        while bytes.len() < 2 * payload.len() + 5 || pongs == 0 {
            match slow.next_frame() {
                Some((BINARY, part)) => bytes.extend(part),
                Some((PONG, _)) => pongs += 1,
                other => panic!("{other:?}"),
            }
        }
        slow.mqtt = bytes;
        assert!(slow.next_payload() == payload);
        assert_eq!(slow.next_payload(), b"small");
        assert!(slow.next_payload() == payload);
    }
}

#[test]
fn pings_are_answered_however_many_come() {
    let (_midge, _, port) = start(&[]);
    let mut client = WebSocket::connect(port, Version::V311, "pinger", false);
    client.send(PING, b"are you there?");
    assert_eq!(client.next_frame(), Some((PONG, b"are you there?".to_vec())));
    client.send(PONG, b"nobody asked");
    // Of many that come at once the last one counts.
    client.socket.write_all(&frame(PING, &[b'x'; 125]).repeat(5000)).unwrap();
    client.send(PING, b"last");
    loop {
        match client.next_frame() {
            Some((PONG, payload)) if payload == b"last" => break,
            Some((PONG, payload)) => assert_eq!(payload, [b'x'; 125]),
            other => panic!("{other:?}"),
        }
    }
    client.send(BINARY, &encoded(Version::V311, &Packet::PingReq));
    client.expect("PingResp");
}

#[test]
fn a_close_is_answered_and_counts_as_the_end() {
    let (_midge, _, port) = start(&[]);
    let mut observer = WebSocket::connect(port, Version::V5, "observer", false);
    observer.subscribe("gone");
    let mut client = WebSocket::connect(port, Version::V5, "leaver", true);
    client.send(CLOSE, &[&1001u16.to_be_bytes()[..], b"tab closed"].concat());
    client.expect_close(1001);
    assert_eq!(observer.next_payload(), b"leaver");
}

#[test]
fn the_broker_takes_leave_with_a_close_frame() {
    let (midge, _, port) = start(&[]);
    let mut client = WebSocket::connect(port, Version::V311, "polite", true);
    client.send(BINARY, &[0xE0, 0]);
    client.expect_close(1000);
    let mut client = WebSocket::connect(port, Version::V5, "staying", true);
    midge.stop("TERM");
    client.expect("Disconnect");
    client.expect_close(1000);
}

#[test]
fn a_handshake_with_no_whole_connect_behind_it_is_closed_by_the_connect_timeout() {
    let (midge, _, port) = start(&["--connect-timeout", "1"]);
    // Nothing, and half a frame.
    for more in [&[][..], &[BINARY, 0x90, 7, 0x80, 0xFF]] {
        let mut socket = dial(port);
        socket.write_all(request("mqtt").as_bytes()).unwrap();
        socket.write_all(more).unwrap();
        // The end comes, or reading fails for want of patience.
        socket.read_to_end(&mut Vec::new()).unwrap();
        let line = midge.line_with("disconnected");
        assert!(line.ends_with("exceeded timeout. No complete CONNECT came within connect_timeout."), "{line}");
    }
}
