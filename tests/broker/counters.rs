//! What the broker counts.

use midge::broker::Stats;

use crate::harness::World;
use crate::hello::{v5, v311};
use crate::script;

#[test]
fn what_is_held_is_counted() {
    let mut w = World::new();
    let (p, s, away) = (w.client("p"), w.client("s"), w.join(v311("away").stored()));
    w.subscribe(s, "a 0 b 0 $share/g/a 0");
    w.subscribe(away, "a 0");
    w.hang_up(away);
    w.dial(v311("").version);
    w.publish(p, "retain t/1 hello");
    w.publish(p, "retain t/2 world!");
    assert_eq!((w.broker.link_count(), w.broker.session_count(), w.broker.subscription_count()), (3, 3, 4));
    assert_eq!((w.broker.retained_count(), w.broker.retained_bytes()), (2, "t/1hello".len() + "t/2world!".len()));
    let persistence = w.broker.config().persistence;
    assert_eq!(w.broker.config(), &midge::config::Config { persistence, ..Default::default() });
}

#[test]
fn every_byte_and_every_packet_is_counted_both_ways() {
    for hello in [v311, v5] {
        let mut w = World::new();
        let c = w.dial(hello("c").version);
        let words = "SUBSCRIBE #1 t 1, PINGREQ, PUBLISH q1 #2 t x, PUBACK #1, PUBLISH t y";
        let sent = [hello("c").bytes(), script::encode(words, hello("c").version)].concat();
        w.send(c, &sent);
        let frames = w.heard_bytes(c);
        let expected = Stats {
            bytes_received: sent.len() as u64,
            bytes_sent: frames.concat().len() as u64,
            packets_received: 6,
            // CONNACK, SUBACK, PINGRESP, PUBACK and two messages.
            packets_sent: 6,
            publishes_received: 2,
            publishes_sent: 2,
            publish_bytes_received: 2,
            publish_bytes_sent: 2,
            connects_received: 1,
            connections_accepted: 1,
            ..Stats::default()
        };
        assert_eq!((*w.broker.stats(), frames.len()), (expected, 6));
        // Also what comes in pieces, and a second connection.
        w.send(c, &[0xC0]);
        w.send(c, &[0x00]);
        w.dial(hello("d").version);
        let stats = w.broker.stats();
        assert_eq!((stats.bytes_received, stats.packets_received), (sent.len() as u64 + 2, 7));
        assert_eq!((stats.packets_sent, stats.connections_accepted), (7, 2));
    }
}
