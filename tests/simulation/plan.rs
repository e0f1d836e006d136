//! What a seed makes of a world before it begins: the broker's configuration, the clients and their habits, the rates of
//! faults. Swarm style: every feature is off in some worlds, so that others get room.

use midge::codec::{QoS, Version};
use midge::config::{Config, QueuePolicy, Rules};

use super::rng::Rng;

pub struct Plan {
    pub config: Config,
    pub rules: Rules,
    pub clients: Vec<Profile>,
    pub topics: Vec<&'static str>,
    pub filters: Vec<&'static str>,
    /// Turns with faults, before everything has to settle.
    pub turns: usize,
    pub payload_max: usize,
    /// Bytes a socket takes in one direction.
    pub socket_bytes: usize,
    pub has_hostile: bool,
    pub rates: Rates,
    /// Percent of messages and wills that expire, where the version can.
    pub expiry_percent: usize,
    pub retain_percent: usize,
    pub has_shares: bool,
    /// Percent of turns in which the clock jumps, past deadlines.
    pub jump_percent: usize,
    pub will_percent: usize,
}

/// Percent a turn, for the client whose turn it is.
pub struct Rates {
    pub publish: usize,
    pub burst_max: usize,
    pub subscribe: usize,
    pub unsubscribe: usize,
    pub disconnect: usize,
    pub hang_up: usize,
    pub half_close: usize,
    pub stall: usize,
    pub silence: usize,
    pub take_over: usize,
    pub connect: usize,
}

/// One client, over all its connections.
#[derive(Clone)]
pub struct Profile {
    pub id: String,
    pub version: Version,
    /// Wants its session back.
    pub is_durable: bool,
    pub expiry_s: u32,
    pub receive_maximum: Option<u16>,
    pub packet_size_max: Option<u32>,
    pub alias_maximum: u16,
    pub keep_alive_s: u16,
    pub publishes: bool,
    pub subscribes: bool,
    /// Percent of acknowledgements that are held back for a while.
    pub hold_percent: usize,
    pub uses_aliases: bool,
    pub uses_subscription_ids: bool,
    pub qos_max: u8,
}

const TOPICS: [&str; 12] = [
    "a",
    "a/b",
    "a/b/c",
    "a/c",
    "b",
    "b/x",
    "/a",
    "a//b",
    "$dev/a",
    "$dev/b",
    "long/topic/name/of/a/gateway",
    "c/d/e/f",
];
const FILTERS: [&str; 18] = [
    "a", "a/b", "b/x", "#", "a/#", "+/b", "a/+", "+", "+/+", "$dev/#", "$dev/+", "/+", "a/+/c", "b/#", "a//b", "+/+/#",
    "long/#", "$dev/a",
];

impl Plan {
    pub fn new(rng: &mut Rng) -> Plan {
        let config = config(rng);
        let rules = rules(rng);
        let topic_count = rng.between(2, 8);
        let topics: Vec<&str> = (0..topic_count).map(|_| *rng.pick(&TOPICS)).collect();
        let filter_count = rng.between(3, 10);
        let mut filters: Vec<&str> = (0..filter_count).map(|_| *rng.pick(&FILTERS)).collect();
        filters.push(topics[0]);
        if rng.chance(60) {
            filters.push("#");
        }
        let client_count = rng.between(3, 12);
        let clients = (0..client_count).map(|number| profile(rng, number, &rules)).collect();
        let is_wild = rng.chance(70);
        let mut rate = |percent: usize, max: usize| if rng.chance(percent) { rng.between(1, max) } else { 0 };
        let rates = Rates {
            publish: 25 + rate(100, 30),
            burst_max: 1 + rate(50, 20),
            subscribe: 2 + rate(100, 8),
            unsubscribe: rate(60, 4),
            disconnect: rate(60, 3),
            hang_up: if is_wild { rate(60, 4) } else { 0 },
            half_close: if is_wild { rate(40, 2) } else { 0 },
            stall: if is_wild { rate(50, 3) } else { 0 },
            silence: if is_wild { rate(30, 1) } else { 0 },
            take_over: if is_wild { rate(50, 2) } else { 0 },
            connect: 5 + rate(100, 40),
        };
        let payload_max = *rng.pick(&[20, 20, 200, 2000, 100_000]);
        Plan {
            topics,
            filters,
            clients,
            turns: if payload_max > 2000 { 400 } else { 650 },
            payload_max,
            socket_bytes: *rng.pick(&[64, 500, 4096, 65_536, 1 << 20]),
            has_hostile: rng.chance(20),
            rates,
            expiry_percent: *rng.pick(&[0, 0, 20]),
            retain_percent: if config.retain_available { *rng.pick(&[0, 10, 40]) } else { 0 },
            has_shares: rng.chance(35),
            jump_percent: *rng.pick(&[0, 0, 1]),
            will_percent: *rng.pick(&[0, 50]),
            config,
            rules,
        }
    }
}

fn config(rng: &mut Rng) -> Config {
    let small_queue = rng.chance(40);
    Config {
        retry_interval_s: *rng.pick(&[0, 2, 20]),
        stall_timeout_ms: *rng.pick(&[100, 1000, 5000]),
        max_inflight_messages: *rng.pick(&[0, 1, 2, 5, 20, 20]),
        max_queued_messages: if small_queue { rng.between(1, 30) as u32 } else { *rng.pick(&[0, 1000, 100_000]) },
        max_queued_bytes: if small_queue && rng.chance(30) { rng.between(100, 5000) as u32 } else { 0 },
        queue_policy: *rng.pick(&[QueuePolicy::DropOldest, QueuePolicy::DropNewest, QueuePolicy::Reject]),
        queue_qos0_messages: rng.chance(30),
        message_size_limit: if rng.chance(15) { 150 } else { 0 },
        persistent_client_expiration_s: *rng.pick(&[0, 0, 60, 86_400]),
        allow_duplicate_messages: rng.chance(50),
        upgrade_outgoing_qos: rng.chance(15),
        retain_available: !rng.chance(10),
        ..Config::default()
    }
}

/// Of all listeners. After `config`.
fn rules(rng: &mut Rng) -> Rules {
    Rules {
        allow_anonymous: true,
        max_qos: *rng.pick(&[QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::ExactlyOnce, QoS::AtLeastOnce]),
        max_topic_alias: *rng.pick(&[0, 3, 10]),
        max_topic_alias_broker: *rng.pick(&[0, 2, 10]),
        ..Rules::default()
    }
}

fn profile(rng: &mut Rng, number: usize, rules: &Rules) -> Profile {
    let version = *rng.pick(&[Version::V31, Version::V311, Version::V311, Version::V5, Version::V5]);
    let is_5 = version == Version::V5;
    let is_durable = rng.chance(60);
    let role = rng.below(4);
    Profile {
        id: format!("c{number}"),
        version,
        is_durable,
        expiry_s: if is_durable { *rng.pick(&[5, 30, 300, 100_000, u32::MAX]) } else { 0 },
        receive_maximum: if is_5 && rng.chance(40) { Some(rng.between(1, 6) as u16) } else { None },
        packet_size_max: if is_5 && rng.chance(20) { Some(*rng.pick(&[60, 120, 1500])) } else { None },
        alias_maximum: if is_5 { *rng.pick(&[0, 1, 5]) } else { 0 },
        keep_alive_s: *rng.pick(&[0, 0, 2, 10, 60]),
        publishes: role != 1,
        subscribes: role != 2,
        hold_percent: *rng.pick(&[0, 0, 20, 70]),
        uses_aliases: is_5 && rng.chance(50),
        uses_subscription_ids: is_5 && rng.chance(50),
        qos_max: (rules.max_qos as u8).min(*rng.pick(&[0, 1, 2, 2, 2])),
    }
}

/// A late client that looks at what is retained.
pub fn inspector(number: usize, version: Version, rules: &Rules) -> Profile {
    Profile {
        id: format!("inspector{number}"),
        version,
        is_durable: false,
        expiry_s: 0,
        receive_maximum: None,
        packet_size_max: None,
        alias_maximum: 0,
        keep_alive_s: 0,
        publishes: false,
        subscribes: true,
        hold_percent: 0,
        uses_aliases: false,
        uses_subscription_ids: false,
        qos_max: rules.max_qos as u8,
    }
}
