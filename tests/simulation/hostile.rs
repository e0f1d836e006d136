//! A client that sends what should not be sent: packets of its own, with bytes changed, cut and repeated. It keeps to
//! topics of its own, so that whatever comes of it elsewhere is the broker's fault.

use midge::codec::{Connect, Packet, Properties, Publish, Subscribe, Version, Will};

use super::act::options;
use super::model::Model;
use super::net::{Conn, End};
use super::rng::Rng;

#[derive(Default)]
pub struct Hostile {
    pub conn: Option<usize>,
    out: Vec<u8>,
    reads: bool,
}

impl Hostile {
    pub fn new(conn: usize, rng: &mut Rng) -> Hostile {
        let version = *rng.pick(&[Version::V31, Version::V311, Version::V5]);
        let mut out = Vec::new();
        let will = Will {
            qos: Model::qos(1),
            retain: true,
            topic: "evil/will",
            payload: b"zzzz",
            properties: Properties::EMPTY,
        };
        let connect = Connect {
            version,
            bridge: rng.chance(5),
            clean_start: true,
            session_expiry_s: 0,
            keep_alive_s: 1,
            client_id: "evil",
            will: rng.chance(50).then_some(will),
            username: None,
            password: None,
            properties: Properties::EMPTY,
        };
        Packet::Connect(connect).encode(version, &mut out);
        if rng.chance(20) {
            mutate(&mut out, 0, rng);
        }
        for _ in 0..rng.between(1, 30) {
            let start = out.len();
            packet(version, rng, &mut out);
            if rng.chance(15) {
                mutate(&mut out, start, rng);
            }
        }
        Hostile { conn: Some(conn), out, reads: rng.chance(60) }
    }

    pub fn act(&mut self, conn: &mut Conn, rng: &mut Rng) {
        conn.send(&mut self.out, 1 + rng.below(200));
        if self.reads {
            conn.take_down(1 + rng.below(500));
        }
        if rng.chance(2) || self.out.is_empty() && rng.chance(20) {
            conn.close(End::Closed);
        }
        if conn.is_closed_by_broker || conn.client_end != End::Open {
            self.conn = None;
        }
    }
}

fn packet(version: Version, rng: &mut Rng, out: &mut Vec<u8>) {
    let packet_id = 1 + rng.below(5) as u16;
    match rng.below(5) {
        0 => {
            let mut payload = Vec::new();
            let filter = *rng.pick(&["evil/#", "#", "evil/+", "+/evil"]);
            Subscribe::push_filter(&mut payload, filter, options(rng.below(3)));
            let properties = Properties::EMPTY;
            Packet::Subscribe(Subscribe { packet_id, properties, payload: &payload }).encode(version, out);
        }
        1 => out.extend([*rng.pick(&[0x40, 0x50, 0x62, 0x70]), 2, 0, packet_id as u8]),
        2 => out.extend([0xC0, 0]),
        _ => {
            let qos = Model::qos(rng.below(3) as u8);
            let packet_id = if qos as u8 == 0 { 0 } else { packet_id };
            let payload = vec![b'z'; rng.below(300)];
            let publish = Publish {
                dup: rng.chance(10),
                qos,
                retain: rng.chance(20),
                topic: "evil/topic",
                packet_id,
                properties: Properties::EMPTY,
                payload: &payload,
            };
            Packet::Publish(publish).encode(version, out);
        }
    }
}

/// Changes, cuts or repeats some of `out[start..]`.
fn mutate(out: &mut Vec<u8>, start: usize, rng: &mut Rng) {
    match rng.below(4) {
        0 => out.truncate(start + rng.below(out.len() - start)),
        1 => {
            let again = out[start..].to_vec();
            out.extend(again);
        }
        _ => {
            for _ in 0..rng.between(1, 3) {
                let at = start + rng.below(out.len() - start);
                out[at] ^= 1 << rng.below(8);
            }
        }
    }
}
