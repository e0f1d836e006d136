//! A blocking client on a real socket, made of the crate's own codec: enough to see what the program does.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use midge::codec::{self, Connect, Direction, Packet, Properties, Publish, QoS, Split, Subscribe, Version, Will};

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Client {
    pub socket: TcpStream,
    version: Version,
    input: Vec<u8>,
}

/// The CONNECT of a clean session.
pub fn hello<'a>(version: Version, client_id: &'a str, will: Option<Will<'a>>) -> Connect<'a> {
    Connect {
        version,
        bridge: false,
        clean_start: true,
        session_expiry_s: 0,
        keep_alive_s: 60,
        client_id,
        will,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    }
}

impl Client {
    /// Connects and waits for CONNACK 0; with a will on `gone/<id>` if asked.
    pub fn connect(port: u16, version: Version, client_id: &str, has_will: bool) -> Client {
        let topic = format!("gone/{client_id}");
        let will = Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: &topic,
            payload: b"gone",
            properties: Properties::EMPTY,
        };
        let (client, connack) = Client::greet(port, &hello(version, client_id, has_will.then_some(will)));
        assert!(connack.contains("reason: Success"), "{connack}");
        client
    }

    /// Connects, and says what CONNACK was like.
    pub fn greet(port: u16, connect: &Connect) -> (Client, String) {
        let mut client = Client::send_hello(TcpStream::connect(("127.0.0.1", port)).unwrap(), connect);
        let connack = client.next(|packet| format!("{packet:?}")).expect("no CONNACK");
        (client, connack)
    }

    /// Sends CONNECT.
    pub fn send_hello(socket: TcpStream, connect: &Connect) -> Client {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut client = Client { socket, version: connect.version, input: Vec::new() };
        client.send(&Packet::Connect(*connect));
        client
    }

    pub fn send(&mut self, packet: &Packet) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.socket.write_all(&bytes).unwrap();
    }

    pub fn subscribe(&mut self, filter: &str, qos: u8) {
        let payload = [&(filter.len() as u16).to_be_bytes()[..], filter.as_bytes(), &[qos]].concat();
        self.send(&Packet::Subscribe(Subscribe { packet_id: 1, properties: Properties::EMPTY, payload: &payload }));
        let suback = self.next(|packet| format!("{packet:?}")).expect("no SUBACK");
        assert!(suback.starts_with("SubAck"), "{suback}");
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS, packet_id: u16) {
        let (dup, retain, properties) = (false, false, Properties::EMPTY);
        self.send(&Packet::Publish(Publish { dup, qos, retain, topic, packet_id, properties, payload }));
    }

    /// Shows the next packet to `look`; nothing if the broker closed the connection.
    pub fn next<T>(&mut self, look: impl FnOnce(&Packet) -> T) -> Option<T> {
        loop {
            if let Split::Frame { body, len } = codec::split_frame(&self.input, 0).unwrap() {
                let packet =
                    codec::decode(self.input[0], &self.input[body..len], self.version, Direction::ToClient).unwrap();
                let seen = look(&packet);
                self.input.drain(..len);
                return Some(seen);
            }
            let mut bytes = [0; 65_536];
            match self.socket.read(&mut bytes) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The payload of the next packet, which must be a PUBLISH.
    pub fn next_payload(&mut self) -> Vec<u8> {
        self.next(|packet| match packet {
            Packet::Publish(publish) => publish.payload.to_vec(),
            other => panic!("{other:?}"),
        })
        .expect("the broker closed the connection")
    }

    pub fn ping(&mut self) {
        self.send(&Packet::PingReq);
        assert_eq!(self.next(|packet| matches!(packet, Packet::PingResp)), Some(true));
    }
}
