//! What is checked. A check gets a `World`: its version, a topic prefix of its own, and the means to make clients.

use std::fmt::Debug;
use std::thread::sleep;
use std::time::Duration;

use crate::peer::*;

pub struct World {
    pub version: Version,
    pub port: u16,
    pub number: usize,
}

impl World {
    fn peer(&self, name: &str) -> Outcome<Peer> {
        self.peer_with(name, Options::default())
    }

    fn peer_with(&self, name: &str, options: Options) -> Outcome<Peer> {
        Peer::connect(self.version, self.port, &format!("{}-{name}", self.id()), options)
    }

    fn id(&self) -> String {
        format!("rumqttc-{:?}-{}", self.version, self.number)
    }

    fn topic(&self, name: &str) -> String {
        format!("interop/rumqttc/{:?}/{}/{name}", self.version, self.number)
    }

    fn will(&self, payload: &'static str, retain: bool) -> Will {
        Will { topic: self.topic("will"), payload, qos: 1, retain, properties: None }
    }
}

pub struct Check {
    pub name: &'static str,
    pub versions: &'static [Version],
    /// Needs real time to pass, so it runs beside the others.
    pub slow: bool,
    pub run: fn(&World) -> Outcome,
}

const ALL: &[Version] = &[Version::V311, Version::V5];
const V5: &[Version] = &[Version::V5];

const fn check(name: &'static str, run: fn(&World) -> Outcome) -> Check {
    Check { name, versions: ALL, slow: false, run }
}

const fn check_v5(name: &'static str, run: fn(&World) -> Outcome) -> Check {
    Check { name, versions: V5, slow: false, run }
}

pub const CHECKS: &[Check] = &[
    Check {
        name: "keep-alive: the shortest, and still connected after silence for more than 1.5 of it",
        versions: ALL,
        slow: true,
        run: keep_alive,
    },
    Check {
        name: "session expiry: kept within the interval, gone after it",
        versions: V5,
        slow: true,
        run: session_expiry,
    },
    Check {
        name: "message expiry: an expired message is not delivered, another comes with the time left",
        versions: V5,
        slow: true,
        run: message_expiry,
    },
    check("connect, and a clean session is not present", connects),
    check("qos0: 200 messages, exact and in order", |w| delivers(w, 0)),
    check("qos1: 200 messages, exact and in order", |w| delivers(w, 1)),
    check("qos2: 200 messages, exact and in order", |w| delivers(w, 2)),
    check("1 MB payload at qos0", |w| large(w, 0)),
    check("1 MB payload at qos1", |w| large(w, 1)),
    check("1 MB payload at qos2", |w| large(w, 2)),
    check("retained: live without the flag, later with it, cleared by an empty payload", retained),
    check("will: sent when the socket is cut, retained if asked", will_sent),
    check("will: not sent after DISCONNECT", will_withdrawn),
    check("durable session: present again, queued qos1 and qos2 arrive in order, once", durable),
    check("wildcards: + and # match what they should and nothing else", wildcards),
    check("overlapping subscriptions: at least one copy, at the highest qos, at most one each", overlapping),
    check("unsubscribe ends one filter and leaves the other", unsubscribes),
    check("take-over: the same client id ends the first connection and keeps the durable session", take_over),
    check_v5("properties: all of PUBLISH are forwarded", properties),
    check_v5("properties: of a will are forwarded", will_properties),
    check_v5("topic alias: set once, then used with an empty topic", topic_alias),
    check_v5("subscription identifier comes with the message", subscription_identifier),
    check_v5("shared subscription: each message to one member, every member gets some", shared),
    check_v5("subscription options: no local, retain as published, retain handling", subscription_options),
    check_v5("reason codes: no matching subscribers, no subscription existed", reason_codes),
    check_v5("reason codes: a client that is taken over is told so, 0x8E", told_of_take_over),
];

fn same<T: PartialEq + Debug>(seen: T, expected: T, what: &str) -> Outcome {
    match seen == expected {
        true => Ok(()),
        false => Err(format!("{what}: saw {seen:.120?}, expected {expected:.120?}")),
    }
}

fn require(condition: bool, text: impl Into<String>) -> Outcome {
    condition.then_some(()).ok_or_else(|| text.into())
}

fn texts(messages: &[Seen]) -> Vec<String> {
    messages.iter().map(Seen::text).collect()
}

fn connects(w: &World) -> Outcome {
    let peer = w.peer("a")?;
    require(!peer.session_present(), "session present")?;
    peer.disconnect()
}

fn delivers(w: &World, qos: u8) -> Outcome {
    let payloads: Vec<Vec<u8>> =
        (0..200).map(|i: usize| if i == 0 { Vec::new() } else { vec![i as u8; i * 97 % 600 + 1] }).collect();
    let topic = w.topic("t");
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    same(subscriber.subscribe(&topic, qos)?, qos, "granted")?;
    for payload in &payloads {
        publisher.send(&topic, qos, false, payload.clone(), None)?;
    }
    for (i, (message, payload)) in subscriber.exactly(200)?.iter().zip(&payloads).enumerate() {
        same(&message.payload, payload, &format!("payload {i}"))?;
        same((&message.topic, message.qos, message.retain, message.dup), (&topic, qos, false, false), "header")?;
    }
    let expected = if qos == 0 { 0 } else { 200 };
    publisher.wait("200 acknowledgements", |peer| peer.acknowledged.len() >= expected)
}

fn large(w: &World, qos: u8) -> Outcome {
    let payload: Vec<u8> = (0..1_usize << 20).map(|i| (i * 31 + (i >> 8)) as u8).collect();
    let topic = w.topic("t");
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    subscriber.subscribe(&topic, qos)?;
    publisher.publish(&topic, qos, false, payload.clone())?;
    publisher.publish(&topic, qos, false, "after")?;
    let messages = subscriber.exactly(2)?;
    require(messages[0].payload == payload, "payload differs")?;
    same(messages[1].text().as_str(), "after", "message behind it")
}

fn retained(w: &World) -> Outcome {
    let topic = w.topic("r");
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    subscriber.subscribe(&topic, 1)?;
    publisher.publish(&topic, 1, true, "old")?;
    publisher.publish(&topic, 1, true, "new")?;
    let live: Vec<_> = subscriber.exactly(2)?.iter().map(|m| (m.text(), m.retain)).collect();
    same(live, vec![("old".to_owned(), false), ("new".to_owned(), false)], "live")?;
    let mut late = w.peer("late")?;
    late.subscribe(&topic, 1)?;
    let kept: Vec<_> = late.exactly(1)?.iter().map(|m| (m.text(), m.retain)).collect();
    same(kept, vec![("new".to_owned(), true)], "late")?;
    publisher.publish(&topic, 1, true, "")?;
    same(subscriber.exactly(3)?[2].text().as_str(), "", "clearing")?;
    let mut last = w.peer("last")?;
    last.subscribe(&topic, 1)?;
    last.exactly(0).map(|_| ())
}

fn will_sent(w: &World) -> Outcome {
    let mut observer = w.peer("observer")?;
    observer.subscribe(&w.topic("will"), 1)?;
    let victim = w.peer_with("victim", Options { will: Some(w.will("gone", true)), ..Options::default() })?;
    observer.exactly(0)?;
    victim.cut();
    let message = &observer.exactly(1)?[0];
    same((message.text().as_str(), message.qos, message.retain), ("gone", 1, false), "will")?;
    let mut late = w.peer("late")?;
    late.subscribe(&w.topic("will"), 1)?;
    require(late.exactly(1)?[0].retain, "will not retained")?;
    late.publish(&w.topic("will"), 1, true, "")
}

fn will_withdrawn(w: &World) -> Outcome {
    let mut observer = w.peer("observer")?;
    observer.subscribe(&w.topic("will"), 1)?;
    w.peer_with("victim", Options { will: Some(w.will("gone", false)), ..Options::default() })?.disconnect()?;
    observer.exactly(0).map(|_| ())
}

fn durable(w: &World) -> Outcome {
    let mut first = w.peer_with("sub", Options::durable())?;
    require(!first.session_present(), "present before it was made")?;
    same(first.subscribe_many(&[(&w.topic("q1"), 1), (&w.topic("q2"), 2)])?, vec![1, 2], "granted")?;
    first.disconnect()?;
    let mut publisher = w.peer("pub")?;
    for i in 0..50 {
        publisher.publish(&w.topic("q1"), 1, false, format!("{i}"))?;
        publisher.publish(&w.topic("q2"), 2, false, format!("{i}"))?;
    }
    let mut second = w.peer_with("sub", Options::durable())?;
    require(second.session_present(), "session not present")?;
    let expected: Vec<String> = (0..50).map(|i| i.to_string()).collect();
    let messages = second.exactly(100)?;
    for qos in [1, 2] {
        let topic = w.topic(&format!("q{qos}"));
        let queued = messages.iter().filter(|m| m.qos == qos && m.topic == topic).map(Seen::text);
        same(queued.collect(), expected.clone(), &topic)?;
    }
    second.disconnect()?;
    let mut third = w.peer("sub")?;
    require(!third.session_present(), "present after a clean start")?;
    publisher.publish(&w.topic("q1"), 1, false, "to be dropped")?;
    third.exactly(0).map(|_| ())
}

fn wildcards(w: &World) -> Outcome {
    let topics = ["a", "a/b", "a/b/c", "/a", "a//c", "b/a"];
    let filters: [(&str, &[&str]); 6] = [
        ("#", &topics),
        ("a/#", &["a", "a/b", "a/b/c", "a//c"]),
        ("a/+", &["a/b"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("+/a", &["/a", "b/a"]),
        ("+", &["a"]),
    ];
    let mut subscribers = Vec::new();
    for (i, (filter, expected)) in filters.iter().enumerate() {
        let mut subscriber = w.peer(&format!("sub{i}"))?;
        subscriber.subscribe(&w.topic(filter), 1)?;
        subscribers.push((subscriber, filter, expected));
    }
    let mut publisher = w.peer("pub")?;
    for topic in topics {
        publisher.publish(&w.topic(topic), 1, false, topic)?;
    }
    for (mut subscriber, filter, expected) in subscribers {
        let seen = texts(subscriber.exactly(expected.len())?);
        same(seen, expected.iter().map(ToString::to_string).collect(), filter)?;
    }
    Ok(())
}

fn overlapping(w: &World) -> Outcome {
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    subscriber.subscribe_many(&[(&w.topic("#"), 1), (&w.topic("+"), 2), (&w.topic("x"), 0)])?;
    for i in 0..10 {
        publisher.publish(&w.topic("x"), 2, false, format!("{i}"))?;
    }
    subscriber.receive(10)?;
    subscriber.settle()?;
    for i in 0..10 {
        let copies = subscriber.messages.iter().filter(|m| m.text() == i.to_string()).map(|m| m.qos);
        let copies: Vec<u8> = copies.collect();
        require((1..=3).contains(&copies.len()) && copies.contains(&2), format!("message {i} came as {copies:?}"))?;
    }
    Ok(())
}

fn unsubscribes(w: &World) -> Outcome {
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    subscriber.subscribe_many(&[(&w.topic("a"), 1), (&w.topic("b"), 1)])?;
    subscriber.unsubscribe(&w.topic("a"))?;
    publisher.publish(&w.topic("a"), 1, false, "a")?;
    publisher.publish(&w.topic("b"), 1, false, "b")?;
    same(texts(subscriber.exactly(1)?), vec!["b".to_owned()], "after unsubscribe")
}

fn take_over(w: &World) -> Outcome {
    let mut first = w.peer_with("same", Options::durable())?;
    first.subscribe(&w.topic("t"), 1)?;
    let mut second = w.peer_with("same", Options::durable())?;
    first.wait_end()?;
    require(second.session_present(), "session not present")?;
    w.peer("pub")?.publish(&w.topic("t"), 1, false, "x")?;
    second.exactly(1)?;
    require(first.messages.is_empty(), "the first connection got a message")
}

fn keep_alive(w: &World) -> Outcome {
    // rumqttc takes no less than 5 s in 5.0.
    let (keep_alive_s, silence_s) = if w.version == Version::V311 { (2, 5) } else { (5, 9) };
    let mut peer = w.peer_with("a", Options { keep_alive_s, ..Options::default() })?;
    peer.subscribe(&w.topic("t"), 1)?;
    sleep(Duration::from_secs(silence_s));
    peer.publish(&w.topic("t"), 1, false, "x")?;
    peer.exactly(1)?;
    require(peer.pings_answered > 0, "no PINGRESP")
}

// ---- 5.0 ------------------------------------------------------------------------------------------------------------

fn session_expiry(w: &World) -> Outcome {
    for (name, expiry_s) in [("short", 1), ("long", 100)] {
        let options = Options { session_expiry_s: Some(expiry_s), ..Options::durable() };
        let mut peer = w.peer_with(name, options)?;
        peer.subscribe(&w.topic("t"), 1)?;
        peer.disconnect()?;
    }
    sleep(Duration::from_secs(3));
    same(w.peer_with("short", Options::durable())?.session_present(), false, "short")?;
    same(w.peer_with("long", Options::durable())?.session_present(), true, "long")
}

fn message_expiry(w: &World) -> Outcome {
    let (mut subscriber, mut publisher) = (w.peer_with("sub", Options::durable())?, w.peer("pub")?);
    subscriber.subscribe(&w.topic("t"), 1)?;
    subscriber.disconnect()?;
    for (payload, expiry_s) in [("short", 1), ("long", 100)] {
        let properties = PublishProperties { message_expiry_interval: Some(expiry_s), ..PublishProperties::default() };
        publisher.publish_with(&w.topic("t"), 1, false, payload, Some(properties))?;
    }
    sleep(Duration::from_secs(3));
    let mut subscriber = w.peer_with("sub", Options::durable())?;
    let messages = subscriber.exactly(1)?;
    same(messages[0].text().as_str(), "long", "delivered")?;
    let left_s = messages[0].properties.message_expiry_interval;
    require(left_s.is_some_and(|left_s| (50..=98).contains(&left_s)), format!("expiry interval {left_s:?}"))
}

fn properties(w: &World) -> Outcome {
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    subscriber.subscribe(&w.topic("t"), 1)?;
    let sent = PublishProperties {
        payload_format_indicator: Some(1),
        response_topic: Some(w.topic("answer")),
        correlation_data: Some(vec![0, 1, 255].into()),
        content_type: Some("text/plain".into()),
        user_properties: [("b", "2"), ("a", "1"), ("b", "3")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..PublishProperties::default()
    };
    publisher.publish_with(&w.topic("t"), 1, false, "x", Some(sent.clone()))?;
    same(&subscriber.exactly(1)?[0].properties, &sent, "properties")
}

fn will_properties(w: &World) -> Outcome {
    let mut observer = w.peer("observer")?;
    observer.subscribe(&w.topic("will"), 1)?;
    let pairs = vec![("k".to_owned(), "v".to_owned())];
    let properties = LastWillProperties {
        delay_interval: None,
        payload_format_indicator: None,
        message_expiry_interval: None,
        content_type: Some("text/plain".into()),
        response_topic: None,
        correlation_data: None,
        user_properties: pairs.clone(),
    };
    let will = Will { properties: Some(properties), ..w.will("gone", false) };
    w.peer_with("victim", Options { will: Some(will), ..Options::default() })?.cut();
    let seen = &observer.exactly(1)?[0].properties;
    same(&seen.user_properties, &pairs, "user properties")?;
    same(seen.content_type.as_deref(), Some("text/plain"), "content type")
}

fn topic_alias(w: &World) -> Outcome {
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    let alias_max = publisher.connected.as_ref().map_or(0, |connected| connected.topic_alias_max);
    require(alias_max >= 1, "no Topic Alias Maximum in CONNACK")?;
    subscriber.subscribe(&w.topic("t"), 1)?;
    for (topic, payload) in [(w.topic("t"), "1"), (String::new(), "2"), (String::new(), "3")] {
        let properties = PublishProperties { topic_alias: Some(1), ..PublishProperties::default() };
        publisher.publish_with(&topic, 1, false, payload, Some(properties))?;
    }
    same(texts(subscriber.exactly(3)?), ["1", "2", "3"].map(str::to_owned).into(), "messages")
}

fn subscription_identifier(w: &World) -> Outcome {
    let (mut subscriber, mut publisher) = (w.peer("sub")?, w.peer("pub")?);
    let properties = SubscribeProperties { id: Some(300), user_properties: Vec::new() };
    subscriber.subscribe_with(Filter::new(w.topic("a"), qos1()), properties)?;
    subscriber.subscribe(&w.topic("b"), 1)?;
    publisher.publish(&w.topic("a"), 1, false, "a")?;
    publisher.publish(&w.topic("b"), 1, false, "b")?;
    let messages = subscriber.exactly(2)?;
    same(messages[0].properties.subscription_identifiers.clone(), vec![300], "with")?;
    same(messages[1].properties.subscription_identifiers.clone(), Vec::new(), "without")
}

fn shared(w: &World) -> Outcome {
    let mut members = [w.peer("one")?, w.peer("two")?, w.peer("three")?];
    let filter = format!("$share/{}/{}", w.id(), w.topic("t"));
    for member in &mut members {
        same(member.subscribe(&filter, 1)?, 1, "granted")?;
    }
    let (mut whole, mut publisher) = (w.peer("whole")?, w.peer("pub")?);
    whole.subscribe(&w.topic("t"), 1)?;
    for i in 0..90 {
        publisher.publish(&w.topic("t"), 1, false, format!("{i}"))?;
    }
    whole.exactly(90)?;
    let mut seen = Vec::new();
    for member in &mut members {
        member.settle()?;
        require(!member.messages.is_empty(), "a member got nothing")?;
        seen.extend(member.messages.iter().filter_map(|message| message.text().parse::<u32>().ok()));
    }
    seen.sort_unstable();
    same(seen, (0..90).collect(), "group")
}

fn subscription_options(w: &World) -> Outcome {
    let (mut peer, mut other) = (w.peer("peer")?, w.peer("other")?);
    let none = || SubscribeProperties { id: None, user_properties: Vec::new() };
    let mut filter = Filter::new(w.topic("own"), qos1());
    filter.nolocal = true;
    peer.subscribe_with(filter, none())?;
    peer.publish(&w.topic("own"), 1, false, "mine")?;
    other.publish(&w.topic("own"), 1, false, "other's")?;
    same(texts(peer.exactly(1)?), vec!["other's".to_owned()], "no local")?;
    other.publish(&w.topic("kept"), 1, true, "kept")?;
    let mut filter = Filter::new(w.topic("kept"), qos1());
    filter.preserve_retain = true;
    filter.retain_forward_rule = RetainForwardRule::Never;
    peer.subscribe_with(filter, none())?;
    peer.exactly(1)?;
    other.publish(&w.topic("kept"), 1, true, "flag")?;
    require(peer.exactly(2)?[1].retain, "retain not as published")?;
    other.publish(&w.topic("kept"), 1, true, "")
}

fn reason_codes(w: &World) -> Outcome {
    let mut peer = w.peer("a")?;
    peer.publish(&w.topic("nobody"), 1, false, "x")?;
    same(peer.acknowledged.clone(), vec![0x10], "PUBACK")?;
    peer.subscribe(&w.topic("a"), 1)?;
    same(peer.unsubscribe(&w.topic("a"))?, vec![0], "UNSUBACK")?;
    same(peer.unsubscribe(&w.topic("a"))?, vec![0x11], "UNSUBACK of none")
}

fn told_of_take_over(w: &World) -> Outcome {
    let mut first = w.peer("same")?;
    let _second = w.peer("same")?;
    let reason = first.wait_end()?;
    require(reason.contains("SessionTakenOver"), format!("ended with {reason}"))
}

fn qos1() -> rumqttc::v5::mqttbytes::QoS {
    rumqttc::v5::mqttbytes::QoS::AtLeastOnce
}
