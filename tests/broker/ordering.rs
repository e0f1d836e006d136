//! Message ordering (4.6): what one publisher says of one topic at one QoS arrives in that order, none lost, and at QoS 2
//! none doubled, however much is on its way.

use crate::harness::{Client, World};
use crate::hello::{BOTH, Hello, v5, v311};
use crate::script;

/// A publisher that keeps up to 100 messages unacknowledged; `number` is the payload.
struct Publisher {
    client: Client,
    qos: u8,
    hello: fn(&str) -> Hello,
    next: u32,
    count: u32,
    open: u32,
}

impl Publisher {
    const OPEN_MAX: u32 = 100;

    fn new(w: &mut World, hello: fn(&str) -> Hello, id: &str, qos: u8, count: u32) -> Publisher {
        Publisher { client: w.join(hello(id)), qos, hello, next: 0, count, open: 0 }
    }

    /// Sends what it may, handles what it heard; false when all is acknowledged.
    fn step(&mut self, w: &mut World, topic: &str) -> bool {
        let (mut bytes, mut has_heard) = (Vec::new(), false);
        let version = (self.hello)("").version;
        while let Some(text) = w.hear_one(self.client) {
            has_heard = true;
            let (kind, id) = text.split_once(" #").unwrap();
            match kind {
                "PUBREC" => bytes.extend(script::encode(&format!("PUBREL #{id}"), version)),
                _ => self.open -= 1,
            }
        }
        // 5.0 clients keep to the Receive Maximum of CONNACK.
        let most = if version.has_receive_maximum() { 20 } else { Publisher::OPEN_MAX };
        while self.open < most && self.next < self.count {
            let id = self.next % 60_000 + 1;
            bytes.extend(script::encode(&format!("PUBLISH q{} #{id} {topic} {}", self.qos, self.next), version));
            self.next += 1;
            self.open += 1;
        }
        w.send(self.client, &bytes);
        let is_waiting = self.open > 0 || self.next < self.count;
        assert!(!is_waiting || has_heard || !bytes.is_empty(), "nothing is acknowledged any more");
        is_waiting
    }
}

/// The numbers a subscriber got of `topic`, in order.
fn numbers(w: &mut World, subscriber: Client, topic: &str) -> Vec<u32> {
    let mark = format!(" {topic} ");
    let mut numbers = Vec::new();
    while let Some(text) = w.hear_one(subscriber) {
        if let Some((_, number)) = text.split_once(&mark) {
            numbers.push(number.parse().unwrap());
        }
    }
    numbers
}

fn flood(hello: fn(&str) -> Hello, qos: u8, count: u32) {
    let mut w = World::new();
    let s = w.join(hello("s"));
    w.subscribe(s, "t 2");
    w.acknowledges(s);
    let mut publisher = Publisher::new(&mut w, hello, "p", qos, count);
    while publisher.step(&mut w, "t") {}
    w.turn();
    assert_eq!(numbers(&mut w, s, "t"), (0..count).collect::<Vec<_>>());
    assert_eq!(w.broker.stats().messages_dropped, 0);
}

#[test]
fn v311_mqtt_4_6_0_6_20_000_qos_1_messages_arrive_in_order() {
    // MQTT-4.6.0-5 (3.1.1)
    flood(v311, 1, 20_000);
}

#[test]
fn v311_mqtt_4_6_0_6_20_000_qos_2_messages_arrive_in_order_and_once() {
    // MQTT-4.6.0-5 (3.1.1)
    flood(v311, 2, 20_000);
}

#[test]
fn v5_mqtt_4_6_0_5_20_000_qos_1_messages_arrive_in_order() {
    // MQTT-4.6.0-6 (5.0)
    flood(v5, 1, 20_000);
}

#[test]
fn v5_mqtt_4_6_0_5_20_000_qos_2_messages_arrive_in_order_and_once() {
    // MQTT-4.6.0-6 (5.0)
    flood(v5, 2, 20_000);
}

#[test]
fn five_publishers_and_four_subscribers_keep_every_order() {
    for qos in [1, 2] {
        let mut w = World::new();
        let subscribers: Vec<Client> = (0..4).map(|number| w.join(BOTH[number % 2](&format!("s{number}")))).collect();
        for &s in &subscribers {
            w.subscribe(s, "t/# 2");
            w.acknowledges(s);
        }
        let mut publishers: Vec<Publisher> =
            (0..5).map(|number| Publisher::new(&mut w, BOTH[number % 2], &format!("p{number}"), qos, 2000)).collect();
        let mut busy = true;
        while busy {
            busy = false;
            for (number, publisher) in publishers.iter_mut().enumerate() {
                busy |= publisher.step(&mut w, &format!("t/{number}"));
            }
        }
        for s in subscribers {
            let mut heard = vec![Vec::new(); 5];
            while let Some(text) = w.hear_one(s) {
                let Some((_, rest)) = text.split_once(" t/") else { continue };
                let (topic, number) = rest.split_once(' ').unwrap();
                heard[topic.parse::<usize>().unwrap()].push(number.parse::<u32>().unwrap());
            }
            assert!(heard.iter().all(|numbers| *numbers == (0..2000).collect::<Vec<_>>()));
        }
        assert_eq!(w.broker.stats().messages_dropped, 0);
    }
}

#[test]
fn v311_mqtt_4_6_0_6_order_holds_over_reconnects() {
    // MQTT-4.6.0-1 (3.1.1) MQTT-4.6.0-5 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, mut s) = (w.client("p"), w.join(hello("s").stored()));
        w.subscribe(s, "t 1");
        let mut got: Vec<u32> = Vec::new();
        for number in 0..600 {
            w.publish(p, &format!("q1 t {number}"));
            if number % 7 == 0 {
                // Acknowledges one, loses the rest.
                let first = w.hear_one(s).unwrap();
                let (head, payload) = first.rsplit_once(' ').unwrap();
                let id = head.split('#').nth(1).unwrap().split(' ').next().unwrap();
                got.push(payload.parse().unwrap());
                w.tell(s, &format!("PUBACK #{id}"));
                w.hang_up(s);
                s = w.join(hello("s").stored());
            }
        }
        w.hang_up(s);
        s = w.join(hello("s").stored());
        w.acknowledges(s);
        while let Some(text) = w.hear_one(s) {
            let (head, payload) = text.rsplit_once(' ').unwrap();
            got.push(payload.parse().unwrap());
            if head.contains(" dup ") {
                let id = head.split('#').nth(1).unwrap().split(' ').next().unwrap();
                w.tell(s, &format!("PUBACK #{id}"));
            }
        }
        assert_eq!(got, (0..600).collect::<Vec<_>>());
    }
}

#[test]
fn qos_0_keeps_its_order_when_some_of_it_had_to_wait() {
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(hello("s")));
        w.subscribe(s, "t 0");
        w.takes(s, 1000);
        for number in 0..20_000 {
            w.post(p, &script::encode(&format!("PUBLISH t {number}"), v311("").version));
        }
        w.advance_while_busy(10, p, s);
        assert_eq!(numbers(&mut w, s, "t"), (0..20_000).collect::<Vec<_>>());
    }
}

#[test]
fn messages_of_all_qos_keep_their_order_within_each_qos() {
    let mut w = World::new();
    let (p, s) = (w.client("p"), w.client("s"));
    w.subscribe(s, "t 2");
    w.takes(s, 500);
    w.acknowledges(s);
    for number in 1..=3000u32 {
        w.post(p, &script::encode(&format!("PUBLISH q{} #{number} t {number}", number % 3), v311("").version));
    }
    (1..=3000u32).filter(|number| number % 3 == 2).for_each(|number| {
        w.post(p, &script::encode(&format!("PUBREL #{number}"), v311("").version));
    });
    for _ in 0..2000 {
        w.advance(10);
    }
    let heard = numbers(&mut w, s, "t");
    for qos in 0..3 {
        let of_qos: Vec<u32> = heard.iter().copied().filter(|number| number % 3 == qos).collect();
        assert_eq!(of_qos, (1..=3000).filter(|number| number % 3 == qos).collect::<Vec<_>>());
    }
}

#[test]
fn v311_mqtt_4_6_0_6_qos_0_does_not_overtake_qos_0_that_waits_behind_a_full_window() {
    // MQTT-4.6.0-5 (5.0)
    for hello in BOTH {
        let mut w = World::new();
        let (p, s) = (w.client("p"), w.join(hello("s")));
        w.subscribe(s, "t 1");
        w.takes(s, 0);
        w.publish(p, "t x*140000");
        (0..25).for_each(|number| w.publish(p, &format!("q1 t one-{number}")));
        w.publish(p, "t old");
        w.takes(s, usize::MAX);
        w.turn();
        assert_eq!(w.heard(s).matches("PUBLISH q1").count(), 20);
        w.publish(p, "t new");
        assert_eq!(w.heard(s), "");
        w.acknowledges(s);
        (1..=20).for_each(|id| w.tell(s, &format!("PUBACK #{id}")));
        assert!(w.heard(s).ends_with("one-24, PUBLISH t old, PUBLISH t new"));
    }
}
