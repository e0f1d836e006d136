//! The table of scenarios: every one once, with its id, what it is, and how long it takes. What an id stands for does not
//! change, so that figures under it can be compared.

/// A scenario as the table has it.
#[derive(Clone)]
pub struct Scenario {
    pub id: &'static str,
    pub family: Family,
    pub about: &'static str,
    /// Part of a run that names no scenario.
    pub is_default: bool,
    /// Measured seconds of a run at full length.
    pub full_s: u32,
    pub task: Task,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Small shapes, driven to the limit or paced: what a message costs.
    Cost,
    /// A house or a workshop: what a gateway sees.
    Gateway,
    /// The ids of EMQ's Open MQTT Benchmark Suite of 2023.
    Field,
}

#[derive(Clone)]
pub enum Task {
    Traffic(Traffic),
    /// Connections that do nothing, or nothing but ping.
    Connections {
        count: u32,
        per_s: u32,
        keep_alive_s: u16,
        /// Seconds between two pings of one connection; 0 = it is silent.
        ping_interval_s: f64,
    },
    Subscriptions(u32),
    Retained(u32),
    Queued(u32),
    /// Home Assistant starts: so many retained messages to four clients, one of them slow.
    HomeStart(u32),
    /// A Zigbee2MQTT house with so many devices.
    Zigbee(u32),
    /// So many clients that all come back at once.
    Storm(u32),
    /// Not to be run: why.
    Lacking(&'static str),
}

#[derive(Clone)]
pub struct Traffic {
    pub shape: Shape,
    pub publish_qos: u8,
    pub subscribe_qos: u8,
    /// So many of the publishers use QoS 1 whatever the others do.
    pub acknowledged_publishers: u32,
    pub retain: bool,
    pub payload_len: u32,
    pub keep_alive_s: u16,
    pub speed: Speed,
    /// Instead of the topics themselves.
    pub filter: Option<&'static str>,
    /// Topics of each publisher, each with a subscription of its own; 0 = one topic.
    pub topic_count: u32,
}

#[derive(Clone, Copy)]
pub enum Shape {
    Pairs(u32),
    FanIn(u32),
    /// Every subscriber gets every message.
    FanOut {
        publishers: u32,
        topics: u32,
        subscribers: u32,
    },
    /// Every message goes to one of the members.
    Shared {
        publishers: u32,
        members: u32,
    },
}

#[derive(Clone, Copy)]
pub enum Speed {
    Open,
    /// Messages a second of each publisher.
    PerPublisher(f64),
}

const COST: Traffic = Traffic {
    shape: Shape::Pairs(100),
    publish_qos: 0,
    subscribe_qos: 0,
    acknowledged_publishers: 0,
    retain: false,
    payload_len: 64,
    keep_alive_s: 60,
    speed: Speed::Open,
    filter: None,
    topic_count: 0,
};
const FAN_OUT_1000: Shape = Shape::FanOut { publishers: 1, topics: 1, subscribers: 1000 };
const FAN_OUT_20: Shape = Shape::FanOut { publishers: 1, topics: 5, subscribers: 20 };
const FIELD: Traffic = Traffic {
    publish_qos: 1,
    subscribe_qos: 1,
    payload_len: 16,
    keep_alive_s: 300,
    speed: Speed::PerPublisher(1.0),
    ..COST
};

const fn cost(id: &'static str, about: &'static str, traffic: Traffic) -> Scenario {
    Scenario { id, family: Family::Cost, about, is_default: true, full_s: 60, task: Task::Traffic(traffic) }
}

const fn gateway(id: &'static str, about: &'static str, full_s: u32, task: Task) -> Scenario {
    Scenario { id, family: Family::Gateway, about, is_default: true, full_s, task }
}

const fn field(id: &'static str, about: &'static str, task: Task) -> Scenario {
    Scenario { id, family: Family::Field, about, is_default: false, full_s: 1800, task }
}

impl Scenario {
    const fn on_demand(self) -> Scenario {
        Scenario { is_default: false, ..self }
    }
}

const fn at_qos(qos: u8, traffic: Traffic) -> Traffic {
    Traffic { publish_qos: qos, subscribe_qos: qos, ..traffic }
}

const fn paced(rate: f64, traffic: Traffic) -> Traffic {
    Traffic { speed: Speed::PerPublisher(rate), ..traffic }
}

const PAIRS: Traffic = COST;
const PACED_50: Traffic = Traffic { shape: Shape::Pairs(50), ..paced(20.0, COST) };
const FAN_OUT: Traffic = Traffic { shape: FAN_OUT_1000, ..COST };
const fn subs(topics_each: u32) -> Traffic {
    Traffic { topic_count: topics_each, ..COST }
}
const FAN_IN_200: Traffic =
    Traffic { shape: Shape::FanIn(200), subscribe_qos: 1, acknowledged_publishers: 20, payload_len: 120, ..COST };
const PANELS: Traffic =
    Traffic { shape: FAN_OUT_20, retain: true, payload_len: 256, filter: Some("#"), ..at_qos(1, COST) };
const P2P_100: Traffic = COST;
const SHARED_1K: Shape = Shape::Shared { publishers: 1000, members: 5 };
const SHARED_50K: Shape = Shape::Shared { publishers: 50_000, members: 500 };
const FAN_OUT_5: Shape = Shape::FanOut { publishers: 5, topics: 1, subscribers: 1000 };

const fn connections(count: u32, per_s: u32, keep_alive_s: u16, ping_interval_s: f64) -> Task {
    Task::Connections { count, per_s, keep_alive_s, ping_interval_s }
}

#[rustfmt::skip]
pub const SCENARIOS: &[Scenario] = &[
    cost("pairs-q0", "100 pairs, QoS 0, open throttle", PAIRS),
    cost("pairs-q1", "100 pairs, QoS 1, window 20", at_qos(1, PAIRS)),
    cost("pairs-q2", "100 pairs, QoS 2, window 20", at_qos(2, PAIRS)),
    cost("fanin-100-1-q0", "100 publishers to one subscriber", Traffic { shape: Shape::FanIn(100), ..COST }),
    cost("fanout-1-1000-q0", "one publisher to 1,000 subscribers, QoS 0", FAN_OUT),
    cost("fanout-1-1000-q1", "one publisher to 1,000 subscribers, QoS 1", at_qos(1, FAN_OUT)),
    cost("paced-50-q0", "50 pairs, together 1,000 messages/s, QoS 0", PACED_50),
    cost("paced-50-q1", "50 pairs, together 1,000 messages/s, QoS 1", at_qos(1, PACED_50)),
    cost("paced-50-q2", "50 pairs, together 1,000 messages/s, QoS 2", at_qos(2, PACED_50)),
    cost("subs-1k", "1,000 subscriptions, a message matches one", subs(10)),
    cost("subs-100k", "100,000 subscriptions, a message matches one", subs(1_000)),
    cost("subs-1M", "1,000,000 subscriptions, a message matches one", subs(10_000)).on_demand(),

    gateway("fanin-200-1", "200 sensors to one consumer, 40 messages/s", 600, Task::Traffic(paced(0.2, FAN_IN_200))),
    gateway("fanin-200-1-x50", "the same at 2,000 messages/s", 600, Task::Traffic(paced(10.0, FAN_IN_200))),
    gateway("fanout-1-20", "one publisher to 20 panels, retained QoS 1, 10 messages/s", 600, Task::Traffic(paced(10.0, PANELS))),
    gateway("fanout-1-20-fast", "the same as fast as possible", 60, Task::Traffic(PANELS)),
    gateway("p2p-100-100", "100 pairs, QoS 1, 10 messages/s each", 600, Task::Traffic(paced(10.0, at_qos(1, P2P_100)))),
    gateway("p2p-100-100-q0", "100 pairs, QoS 0, 10 messages/s each", 600, Task::Traffic(paced(10.0, P2P_100))),
    gateway("p2p-100-100-q2", "100 pairs, QoS 2, 10 messages/s each", 600, Task::Traffic(paced(10.0, at_qos(2, P2P_100)))),
    gateway("p2p-100-100-open", "100 pairs, QoS 1, open throttle (pairs-q1)", 60, Task::Traffic(at_qos(1, P2P_100))).on_demand(),
    gateway("p2p-100-100-open-q0", "100 pairs, QoS 0, open throttle (pairs-q0)", 60, Task::Traffic(P2P_100)).on_demand(),
    gateway("p2p-100-100-open-q2", "100 pairs, QoS 2, open throttle (pairs-q2)", 60, Task::Traffic(at_qos(2, P2P_100))).on_demand(),
    gateway("ha-start", "10,001 retained messages to four clients, one slow, 50 publishers meanwhile", 60, Task::HomeStart(10_001)),
    gateway("z2m", "200 Zigbee devices, three consumers, one of them away at times", 3600, Task::Zigbee(200)),
    gateway("reconnect-storm-100", "100 clients are cut off and all come back at once", 60, Task::Storm(100)),
    gateway("idle-0", "no client: memory and wake-ups", 60, connections(0, 0, 60, 0.0)),
    gateway("idle-1000", "1,000 silent clients: bytes per connection, wake-ups", 60, connections(1000, 0, 60, 0.0)),
    gateway("conn-10k", "10,000 silent clients: bytes per connection", 60, connections(10_000, 0, 60, 0.0)),
    gateway("conn-15k-ping", "15,000 clients that ping every 5 s: cost of a ping", 60, connections(15_000, 0, 60, 5.0)),
    gateway("sub-10k", "10,000 subscriptions of three levels: bytes each", 1, Task::Subscriptions(10_000)),
    gateway("retained-10k", "10,000 retained messages (29-byte topic, 100-byte payload): bytes each", 1, Task::Retained(10_000)),
    gateway("queued-10k", "10,000 QoS 1 messages (64 bytes) for 20 clients away: bytes each", 1, Task::Queued(10_000)),
    gateway("tls-reconnect-storm-100", "100 TLS clients come back at once", 60, Task::Lacking("needs TLS, which midge does not have")).on_demand(),
    gateway("bridge-offline-24h", "a bridge without uplink", 86_400, Task::Lacking("needs a bridge, which midge does not have")).on_demand(),
    gateway("bridge-offline-1h", "the same in short", 3600, Task::Lacking("needs a bridge, which midge does not have")).on_demand(),
    gateway("power-cut-1000", "a thousand power cuts", 0, Task::Lacking("scripts/powercut does that")).on_demand(),

    field("conn-tcp-10k-100", "10,000 idle connections, 100 new a second", connections(10_000, 100, 300, 0.0)),
    field("p2p-1K-1K-1K-1K", "1,000 pairs, 1 message/s each", Task::Traffic(Traffic { shape: Shape::Pairs(1000), ..FIELD })),
    field("fanout-1-1k-1-1K", "one message a second to 1,000 subscribers", Task::Traffic(Traffic { shape: FAN_OUT_1000, ..FIELD })),
    field("sharedsub-1K-5-1K-1K", "1,000 publishers to a share of five", Task::Traffic(Traffic { shape: SHARED_1K, ..FIELD })),
    field("conn-tcp-1M-5K", "1,000,000 idle connections, 5,000 new a second", connections(1_000_000, 5000, 300, 0.0)),
    field("p2p-50K-50K-50K-50K", "50,000 pairs, 1 message/s each", Task::Traffic(Traffic { shape: Shape::Pairs(50_000), ..FIELD })),
    field("fanout-5-1000-5-250K", "five publishers, 50 messages/s each, to 1,000 subscribers", Task::Traffic(Traffic { shape: FAN_OUT_5, ..paced(50.0, FIELD) })),
    field("sharedsub-50K-500-50K-50K", "50,000 publishers to a share of 500", Task::Traffic(Traffic { shape: SHARED_50K, ..FIELD })),
];

/// A scenario as it is run: perhaps scaled down, which its id then says.
pub struct Chosen {
    pub id: String,
    pub scenario: Scenario,
}

/// Finds a scenario by its id, or one scaled to a tenth and the like by its id with `-s10` behind it.
pub fn find(id: &str) -> Option<Chosen> {
    let exact = |id: &str| SCENARIOS.iter().find(|scenario| scenario.id == id).cloned();
    if let Some(scenario) = exact(id) {
        return Some(Chosen { id: id.to_string(), scenario });
    }
    let (base, divisor) = id.rsplit_once("-s")?;
    let divisor: u32 = divisor.parse().ok().filter(|&divisor| divisor > 0)?;
    Some(Chosen { id: base.to_string(), scenario: exact(base)? }.scaled(1.0 / f64::from(divisor)))
}

pub fn defaults() -> Vec<Chosen> {
    let all = SCENARIOS.iter().filter(|scenario| scenario.is_default);
    all.map(|scenario| Chosen { id: scenario.id.to_string(), scenario: scenario.clone() }).collect()
}

impl Chosen {
    /// With so many times the clients. What they do does not change, and the figures of families that measure the cost of a
    /// message are not scaled.
    pub fn scaled(mut self, factor: f64) -> Chosen {
        if factor == 1.0 {
            return self;
        }
        let times = |count: &mut u32| *count = ((f64::from(*count) * factor).round() as u32).max(1);
        match &mut self.scenario.task {
            Task::Traffic(traffic) => match &mut traffic.shape {
                Shape::Pairs(count) | Shape::FanIn(count) => times(count),
                Shape::FanOut { subscribers, .. } => times(subscribers),
                Shape::Shared { publishers, members } => [publishers, members].into_iter().for_each(times),
            },
            Task::Connections { count, .. } if *count == 0 => return self,
            Task::Connections { count, .. }
            | Task::Subscriptions(count)
            | Task::Retained(count)
            | Task::Queued(count)
            | Task::HomeStart(count)
            | Task::Zigbee(count)
            | Task::Storm(count) => times(count),
            Task::Lacking(_) => return self,
        }
        let divisor = (1.0 / factor).round();
        self.id += &match factor < 1.0 && (divisor * factor - 1.0).abs() < 1e-9 {
            true => format!("-s{divisor}"),
            false => format!("-x{factor}"),
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_found_and_stands_once() {
        for (at, scenario) in SCENARIOS.iter().enumerate() {
            assert_eq!(find(scenario.id).unwrap().id, scenario.id);
            assert!(SCENARIOS[..at].iter().all(|other| other.id != scenario.id), "{}", scenario.id);
            assert!(scenario.about.len() < 80 && scenario.id.len() < 28, "{}", scenario.id);
        }
        assert!(find("pairs").is_none());
        assert!(find("pairs-q0-s0").is_none() && find("pairs-q0-sx").is_none());
    }

    #[test]
    fn a_tenth_says_so_in_its_id() {
        let chosen = find("p2p-50K-50K-50K-50K-s10").unwrap();
        assert_eq!(chosen.id, "p2p-50K-50K-50K-50K-s10");
        let Task::Traffic(Traffic { shape: Shape::Pairs(pairs), .. }) = chosen.scenario.task else { panic!() };
        assert_eq!(pairs, 5000);
        assert_eq!(find("fanin-200-1").unwrap().scaled(1.5).id, "fanin-200-1-x1.5");
        assert_eq!(find("fanin-200-1").unwrap().scaled(1.0).id, "fanin-200-1");
        assert_eq!(find("idle-0").unwrap().scaled(0.1).id, "idle-0");
    }

    #[test]
    fn what_is_run_by_default_can_be_run() {
        for chosen in defaults() {
            assert!(!matches!(chosen.scenario.task, Task::Lacking(_)), "{}", chosen.id);
        }
    }
}
