//! Every option, once. Names, scopes and values are Mosquitto's where Mosquitto has the option; as a flag, a name
//! has dashes for its underscores. A new option is a new row here and nothing else.

use super::draft::{Draft, Question};
use super::value::{Value, Zero};
use crate::codec::QoS;
use crate::config::{Protocol, QueuePolicy};

pub struct Row {
    pub name: &'static str,
    pub short: Option<char>,
    pub group: Group,
    pub scope: Scope,
    pub value: Value,
    /// As it would be written; empty if there is none.
    pub default: &'static str,
    pub help: &'static str,
    pub occurs: Occurs,
}

/// The heading in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Listening,
    Sessions,
    Queues,
    Messages,
    Storage,
    Program,
}

/// What an option is about, and where it may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A flag only, never in a configuration file.
    CommandLine,
    /// The whole broker.
    Global,
    /// Who may do what; in a file it may belong to a listener.
    Security,
    /// One listener; as a flag, the last --listener that stands before it.
    Listener,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// Any number of times, and the last one counts.
    LastCounts,
    /// So many times, and each adds to the others.
    UpTo(usize),
}

impl Row {
    /// The name as a flag, without the dashes in front.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The row of a flag, long or short, without the dashes in front.
    pub fn of_flag(flag: &str) -> Option<&'static Row> {
        let short = |row: &Row| row.short.is_some_and(|letter| flag.chars().eq([letter]));
        OPTIONS.iter().find(|row| row.flag() == flag || short(row))
    }

    const fn short(mut self, letter: char) -> Row {
        self.short = Some(letter);
        self
    }

    const fn scope(mut self, scope: Scope) -> Row {
        self.scope = scope;
        self
    }

    const fn up_to(mut self, times: usize) -> Row {
        self.occurs = Occurs::UpTo(times);
        self
    }
}

const fn row(group: Group, name: &'static str, value: Value, default: &'static str, help: &'static str) -> Row {
    Row { name, short: None, group, scope: Scope::Global, value, default, help, occurs: Occurs::LastCounts }
}

const fn number(unit: &'static str, min: u32, max: u32, zero: Zero, set: fn(&mut Draft, u32)) -> Value {
    Value::Number { unit, min, max, zero, set }
}

/// Mosquitto's largest number.
const INT_MAX: u32 = i32::MAX as u32;
/// The longest string of MQTT.
const STRING_MAX: usize = u16::MAX as usize;
/// The longest path of Linux.
const PATH_MAX: usize = 4095;
/// The largest Remaining Length of MQTT.
const PACKET_MAX: u32 = 268_435_455;

const NO_LIMIT: Zero = Zero::OrLessMeans("no limit");

pub static OPTIONS: &[Row] = &[
    row(
        Group::Listening,
        "listener",
        Value::Listener(|draft, port, host| draft.listeners.push((port, host, Protocol::Mqtt))),
        "",
        "Listen on this port of this address or host, or of all addresses. Port 0 takes a free one.",
    )
    .scope(Scope::Listener)
    // Far more than a gateway has networks, far less than descriptors.
    .up_to(64),
    row(
        Group::Listening,
        "protocol",
        Value::Word {
            name: "PROTOCOL",
            words: &["mqtt", "websockets"],
            set: |draft, at| draft.set_protocol([Protocol::Mqtt, Protocol::WebSockets][at]),
        },
        "mqtt",
        "What the --listener before it speaks, or --port if there is none: mqtt, or websockets for browsers.",
    )
    .scope(Scope::Listener),
    row(
        Group::Listening,
        "allow_anonymous",
        Value::Bool(|draft, allow| draft.allow_anonymous = Some(allow)),
        "",
        "Let clients in without a user name. By default only if there is no --listener.",
    )
    .scope(Scope::Security),
    row(
        Group::Listening,
        "port",
        number("PORT", 0, 65_535, Zero::Itself, |draft, port| draft.local_ports.push(port as u16)),
        "1883",
        "Without --listener: listen on this port, for this machine only.",
    )
    .short('p')
    .scope(Scope::CommandLine)
    .up_to(10),
    row(
        Group::Listening,
        "global_max_connections",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.global_max_connections = n),
        "0",
        "Connections at a time.",
    ),
    row(
        Group::Listening,
        "connect_timeout",
        number("SECONDS", 1, 65_535, Zero::Itself, |draft, s| draft.core.connect_timeout_s = s),
        "30",
        "Time a new connection has to say who it is.",
    ),
    row(
        Group::Sessions,
        "global_max_clients",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.global_max_clients = n),
        "0",
        "Sessions, connected and stored.",
    ),
    row(
        Group::Sessions,
        "persistent_client_expiration",
        Value::Span(|draft, s| draft.core.persistent_client_expiration_s = s),
        "30d",
        "Forget the session of a client away for so long: never, or a number and one of s h d w m y.",
    ),
    row(
        Group::Sessions,
        "allow_zero_length_clientid",
        Value::Bool(|draft, allow| draft.rules.allow_zero_length_clientid = allow),
        "true",
        "Make up a client id for a client without.",
    )
    .scope(Scope::Security),
    row(
        Group::Sessions,
        "auto_id_prefix",
        Value::Text { bytes_max: 50, set: |draft, prefix| draft.rules.auto_id_prefix = prefix.to_string() },
        "auto-",
        "What made-up client ids begin with.",
    )
    .scope(Scope::Security),
    row(
        Group::Sessions,
        "clientid_prefixes",
        Value::Text {
            bytes_max: STRING_MAX,
            set: |draft, prefix| draft.core.clientid_prefixes = Some(prefix.to_string()),
        },
        "",
        "Refuse clients whose id begins otherwise.",
    ),
    row(
        Group::Sessions,
        "max_keepalive",
        number("SECONDS", 1, 65_535, Zero::Means("no limit"), |draft, s| draft.core.max_keepalive_s = s as u16),
        "0",
        "Longest keep-alive a client may ask for.",
    ),
    row(
        Group::Queues,
        "max_inflight_messages",
        number("N", 1, 65_535, NO_LIMIT, |draft, n| draft.core.max_inflight_messages = n as u16),
        "20",
        "QoS 1 and 2 messages a client may leave unacknowledged.",
    ),
    row(
        Group::Queues,
        "max_queued_messages",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_queued_messages = n),
        "1000",
        "Messages kept for a client that is away or slow.",
    ),
    row(
        Group::Queues,
        "max_queued_bytes",
        number("BYTES", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_queued_bytes = n),
        "4194304",
        "Bytes of those messages.",
    ),
    row(
        Group::Queues,
        "queue_policy",
        Value::Word {
            name: "POLICY",
            words: &["drop_oldest", "drop_newest", "reject"],
            set: |draft, word| {
                draft.core.queue_policy = [QueuePolicy::DropOldest, QueuePolicy::DropNewest, QueuePolicy::Reject][word];
            },
        },
        "drop_newest",
        "What a full queue does: drop_oldest, drop_newest or reject (drop the newest and tell its publisher).",
    ),
    row(
        Group::Queues,
        "queue_qos0_messages",
        Value::Bool(|draft, queue| draft.core.queue_qos0_messages = queue),
        "false",
        "Keep QoS 0 messages, too, for clients that are away.",
    ),
    row(
        Group::Queues,
        "stall_timeout",
        number("MILLISECONDS", 1, 3_600_000, Zero::Itself, |draft, ms| draft.core.stall_timeout_ms = ms),
        "1000",
        "Publishers wait so long for a client that takes nothing.",
    ),
    row(
        Group::Queues,
        "retry_interval",
        number("SECONDS", 1, 65_535, Zero::Means("never"), |draft, s| draft.core.retry_interval_s = s),
        "20",
        "Send again what a connected 3.1 or 3.1.1 client did not acknowledge.",
    ),
    row(
        Group::Messages,
        "max_packet_size",
        number("BYTES", 20, INT_MAX, Zero::Means("no limit"), |draft, n| draft.core.max_packet_size = n),
        "0",
        "Largest packet a client may send.",
    ),
    row(
        Group::Messages,
        "message_size_limit",
        number("BYTES", 1, PACKET_MAX, Zero::Means("no limit"), |draft, n| draft.core.message_size_limit = n),
        "0",
        "Drop messages with a larger payload.",
    ),
    row(
        Group::Messages,
        "max_qos",
        Value::Word {
            name: "QOS",
            words: &["0", "1", "2"],
            set: |draft, word| draft.rules.max_qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][word],
        },
        "2",
        "Highest QoS accepted and granted: 0, 1 or 2.",
    )
    .scope(Scope::Listener),
    row(
        Group::Messages,
        "retain_available",
        Value::Bool(|draft, available| draft.core.retain_available = available),
        "true",
        "Keep retained messages.",
    ),
    row(
        Group::Messages,
        "allow_duplicate_messages",
        Value::Bool(|draft, allow| draft.core.allow_duplicate_messages = allow),
        "true",
        "One copy for each matching subscription of a client, not one for all.",
    ),
    row(
        Group::Messages,
        "upgrade_outgoing_qos",
        Value::Bool(|draft, upgrade| draft.core.upgrade_outgoing_qos = upgrade),
        "false",
        "Deliver with the subscription's QoS even what was published with a lower one.",
    ),
    row(
        Group::Messages,
        "max_topic_alias",
        number("N", 0, 65_535, Zero::Itself, |draft, n| draft.rules.max_topic_alias = n as u16),
        "10",
        "Topic aliases a client may use.",
    )
    .scope(Scope::Listener),
    row(
        Group::Messages,
        "max_topic_alias_broker",
        number("N", 0, 65_535, Zero::Itself, |draft, n| draft.rules.max_topic_alias_broker = n as u16),
        "10",
        "Topic aliases used towards a client.",
    )
    .scope(Scope::Listener),
    row(
        Group::Storage,
        "persistence",
        Value::Bool(|draft, on| draft.persistence = on),
        "false",
        "Keep sessions, subscriptions, queued and retained messages on disk.",
    ),
    row(
        Group::Storage,
        "persistence_location",
        Value::Text { bytes_max: PATH_MAX, set: |draft, path| draft.persistence_location = Some(path.to_string()) },
        ".",
        "The directory for that. It is created if only its last part is missing.",
    ),
    row(
        Group::Storage,
        "persistence_sync",
        Value::Sync(|draft, sync| draft.persistence_sync = Some(sync)),
        "always",
        "When changes reach the disk: always before they are acknowledged, at an 'interval SECONDS', or never by force.",
    ),
    row(
        Group::Storage,
        "memory_limit",
        number("BYTES", 0, u32::MAX, Zero::OrLessMeans("no limit"), |draft, bytes| draft.memory_limit = Some(bytes)),
        "",
        "Bytes that may be allocated before things are given up. By default an eighth of the machine's memory.",
    ),
    row(
        Group::Program,
        "sys_interval",
        number("SECONDS", 1, 65_535, Zero::Means("no such topics"), |draft, s| draft.core.sys_interval_s = s as u16),
        "10",
        "How often the topics below $SYS are brought up to date.",
    ),
    row(
        Group::Program,
        "connection_messages",
        Value::Bool(|draft, log| draft.core.connection_messages = log),
        "true",
        "Log who comes and goes.",
    ),
    row(
        Group::Program,
        "verbose",
        Value::Switch(|draft| draft.verbose = true),
        "",
        "Log everything. RUST_LOG in the environment beats this and --quiet.",
    )
    .short('v')
    .scope(Scope::CommandLine),
    row(Group::Program, "quiet", Value::Switch(|draft| draft.quiet = true), "", "Log nothing; beats --verbose.")
        .short('q')
        .scope(Scope::CommandLine),
    row(
        Group::Program,
        "help",
        Value::Switch(|draft| draft.question = Some(Question::Help)),
        "",
        "Print this help and end.",
    )
    .short('h')
    .scope(Scope::CommandLine),
    row(
        Group::Program,
        "version",
        Value::Switch(|draft| draft.question = Some(Question::Version)),
        "",
        "Print the version and end.",
    )
    .scope(Scope::CommandLine),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn names_are_unique_and_lower_case() {
        for (index, row) in OPTIONS.iter().enumerate() {
            assert!(
                row.name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'0'),
                "{}",
                row.name
            );
            for other in &OPTIONS[..index] {
                assert_ne!(row.name, other.name);
                assert!(row.short.is_none() || row.short != other.short, "{}", row.name);
            }
        }
    }

    #[test]
    fn the_defaults_shown_are_those_of_the_configuration() {
        for row in OPTIONS.iter().filter(|row| !row.default.is_empty()) {
            let mut draft = Draft::default();
            row.value.apply(&mut draft, row.default).unwrap();
            assert_eq!(draft.core, Config::default(), "{}", row.name);
        }
    }

    /// Every option takes effect, and so does every field: values that are not the defaults change all of them.
    #[test]
    fn every_field_of_the_configuration_has_its_option() {
        let mut draft = Draft::default();
        for row in OPTIONS {
            let before = format!("{draft:?}");
            let (_, text) = NOT_DEFAULT.iter().find(|(name, _)| *name == row.name).copied().unwrap_or((row.name, "7"));
            row.value.apply(&mut draft, text).unwrap_or_else(|accepted| panic!("{} {text}: {accepted}", row.name));
            assert_ne!(format!("{draft:?}"), before, "{}", row.name);
        }
        let fields = |config: &Config| format!("{config:#?}").lines().map(str::to_string).collect::<Vec<_>>();
        let settings = draft.settle();
        let core = Config { memory_limit: settings.memory_limit.unwrap_or_default(), ..settings.core };
        let changed = fields(&core);
        // The option of this one comes with the configuration file.
        let is_wanted = |line: &&String| line.ends_with(',') && !line.contains("max_inflight_bytes");
        for line in fields(&Config::default()).iter().filter(is_wanted) {
            assert!(!changed.contains(line), "no option for {line}");
        }
    }

    const NOT_DEFAULT: [(&str, &str); 17] = [
        ("persistence", "true"),
        ("persistence_sync", "interval 7"),
        ("protocol", "websockets"),
        ("allow_anonymous", "false"),
        ("persistent_client_expiration", "1y"),
        ("allow_zero_length_clientid", "false"),
        ("auto_id_prefix", "x"),
        ("clientid_prefixes", "x"),
        ("queue_policy", "reject"),
        ("queue_qos0_messages", "true"),
        ("max_packet_size", "20"),
        ("max_qos", "1"),
        ("retain_available", "false"),
        ("allow_duplicate_messages", "false"),
        ("upgrade_outgoing_qos", "true"),
        ("connection_messages", "false"),
        ("listener", "7"),
    ];
}
