//! Every option, once. Names, scopes and values are Mosquitto's where Mosquitto has the option; as a flag, a name
//! has dashes for its underscores. A new option is a new row here and nothing else.

use super::draft::{Draft, Question};
use super::value::{self, Value, Zero};
use crate::codec::QoS;
use crate::config::{Domain, Host, LogTypes, Protocol, QueuePolicy, TOPIC_LEVELS_MAX, is_interface_name};

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
    /// In a file it needs a listener line before it, because it cannot be about one of its own.
    pub in_section: bool,
    /// What it does that it does not do in Mosquitto, or the other way round, and why; empty if nothing.
    pub differs: &'static str,
}

/// The heading in the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Listening,
    Sessions,
    Queues,
    Messages,
    Storage,
    Logging,
    Program,
}

/// What an option is about, and where it may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A flag only, never in a configuration file.
    CommandLine,
    /// A line of a configuration file only, never a flag.
    File,
    /// The whole broker.
    Global,
    /// Who may do what; in a file it may belong to a listener.
    Security,
    /// One listener: in a file the one whose section it stands in; as a flag the last --listener before it, or all if there is
    /// none.
    Listener,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occurs {
    /// Any number of times, and the last one counts.
    LastCounts,
    /// Once; in a file, once for each listener if it is about listeners. As a flag the last one counts.
    Once,
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
        Row::flags().find(|row| row.flag() == flag || short(row))
    }

    /// The name and its other names as flags.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let aliases = ALIASES.iter().filter(|(_, name)| *name == self.name).map(|(alias, _)| alias.replace('_', "-"));
        std::iter::once(self.flag()).chain(aliases)
    }

    /// Those that are flags.
    pub fn flags() -> impl Iterator<Item = &'static Row> {
        OPTIONS.iter().filter(|row| row.scope != Scope::File)
    }

    /// Those that may stand in a configuration file.
    pub fn keywords() -> impl Iterator<Item = &'static Row> {
        OPTIONS.iter().filter(|row| row.scope != Scope::CommandLine)
    }

    /// The row of a keyword of a configuration file.
    pub fn of_keyword(keyword: &str) -> Option<&'static Row> {
        let alias = ALIASES.iter().find(|(alias, _)| *alias == keyword);
        let name = alias.map_or(keyword, |(_, name)| name);
        Row::keywords().find(|row| row.name == name)
    }

    const fn short(mut self, letter: char) -> Row {
        self.short = Some(letter);
        self
    }

    const fn scope(mut self, scope: Scope) -> Row {
        self.scope = scope;
        self
    }

    const fn once(mut self) -> Row {
        self.occurs = Occurs::Once;
        self
    }

    const fn in_section(mut self) -> Row {
        self.in_section = true;
        self
    }

    const fn differs(mut self, how: &'static str) -> Row {
        self.differs = how;
        self
    }

    const fn up_to(mut self, times: usize) -> Row {
        self.occurs = Occurs::UpTo(times);
        self
    }
}

const fn row(group: Group, name: &'static str, value: Value, default: &'static str, help: &'static str) -> Row {
    Row {
        name,
        short: None,
        group,
        scope: Scope::Global,
        value,
        default,
        help,
        occurs: Occurs::LastCounts,
        in_section: false,
        differs: "",
    }
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
/// What the system takes for the path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;
/// The largest Remaining Length of MQTT.
const PACKET_MAX: u32 = 268_435_455;

const fn text(name: &'static str, bytes_max: usize, set: fn(&mut Draft, &str)) -> Value {
    Value::Text { name, bytes_max, set }
}

const NO_LIMIT: Zero = Zero::OrLessMeans("no limit");

/// Other names of the same options in a file.
pub static ALIASES: &[(&str, &str)] = &[("maximum_qos", "max_qos"), ("retained_persistence", "persistence")];

pub static OPTIONS: &[Row] = &[
    row(
        Group::Listening,
        "listener",
        Value::Other {
            name: "'PORT [HOST]'",
            accepted: "a port from 0 to 65535 and, if wanted, a blank and an address or host; or 0 and the path of a Unix socket",
            set: |draft, text| value::listener(text).map(|(port, host)| draft.open_listener(port, host)),
        },
        "",
        "Listen on this port of this address or host, or of all addresses. Port 0 takes a free one; with the path of a \
         Unix socket behind it, that is listened on.",
    )
    .scope(Scope::Listener)
    // Far more than a gateway has networks, far less than descriptors.
    .up_to(64)
    .differs("An address that is not there yet does not end the start: it is served when it appears."),
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
        "port",
        number("PORT", 1, 65_535, Zero::Itself, |draft, port| draft.default_listener().port = Some(port as u16)),
        "1883",
        "The old way to say 'listener PORT'.",
    )
    .scope(Scope::File),
    row(
        Group::Listening,
        "bind_address",
        Value::Other {
            name: "HOST",
            accepted: "an address or host",
            set: |draft, host| {
                value::may_be_host(host)
                    .then(|| draft.default_listener().host = Some(Host::Named(host.to_string())))
            },
        },
        "",
        "The old way to say 'listener PORT HOST'.",
    )
    .scope(Scope::File)
    .once(),
    row(
        Group::Listening,
        "bind_interface",
        Value::Other {
            name: "NAME",
            accepted: "the name of a network interface",
            set: |draft, name| {
                is_interface_name(name).then(|| draft.listener().interface = Some(name.to_string()))
            },
        },
        "",
        "Listen on the addresses of this network interface only.",
    )
    .scope(Scope::Listener)
    .once()
    .differs("An interface that is not there yet does not end the start: it is served when it appears."),
    row(
        Group::Listening,
        "socket_domain",
        Value::Word {
            name: "FAMILY",
            words: &["ipv4", "ipv6"],
            set: |draft, at| draft.listener().domain = Some([Domain::Ipv4, Domain::Ipv6][at]),
        },
        "",
        "Listen on addresses of this family only: ipv4 or ipv6.",
    )
    .scope(Scope::Listener),
    row(
        Group::Listening,
        "socket_mode",
        Value::Other {
            name: "MODE",
            accepted: "octal permissions such as 660",
            set: |draft, text| value::mode(text).map(|mode| draft.listener().socket_mode = Some(mode)),
        },
        "",
        "Permissions of a Unix socket, such as 660. By default what the umask leaves.",
    )
    .scope(Scope::Listener),
    row(
        Group::Listening,
        "socket_owner",
        text("USER[:GROUP]", 255, |draft, owner| draft.listener().socket_owner = Some(owner.to_string())),
        "",
        "Give a Unix socket to this user.",
    )
    .scope(Scope::Listener),
    row(
        Group::Listening,
        "protocol",
        Value::Word {
            name: "PROTOCOL",
            words: &["mqtt", "websockets"],
            set: |draft, at| draft.listener().protocol = Some([Protocol::Mqtt, Protocol::WebSockets][at]),
        },
        "mqtt",
        "What is spoken: mqtt, or websockets for browsers.",
    )
    .scope(Scope::Listener)
    .differs("http_api, Mosquitto's page of figures, is not served: they are below $SYS."),
    row(
        Group::Listening,
        "accept_protocol_versions",
        Value::Other {
            name: "LIST",
            accepted: "numbers of protocol levels: 3, 4 and 5, with commas between",
            set: |draft, text| {
                value::versions(text).map(|versions| draft.listener().accept_protocol_versions = Some(versions))
            },
        },
        "3,4,5",
        "Versions of MQTT that are served: 3 is 3.1, 4 is 3.1.1, 5 is 5.0.",
    )
    .scope(Scope::Listener)
    .in_section(),
    row(
        Group::Listening,
        "mount_point",
        Value::Other {
            name: "TOPIC",
            accepted: "the beginning of a topic, without the wildcards + and #",
            set: |draft, prefix| {
                let is_name = prefix.len() <= STRING_MAX && !prefix.contains(['+', '#']);
                is_name.then(|| draft.listener().mount_point = Some(prefix.to_string()))
            },
        },
        "",
        "Put this in front of the topics of these clients; it should end with a slash.",
    )
    .scope(Scope::Listener)
    .in_section(),
    row(
        Group::Listening,
        "max_connections",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.listener().max_connections = Some(n)),
        "0",
        "Connections at a time through the listener.",
    )
    .scope(Scope::Listener),
    row(
        Group::Listening,
        "set_tcp_nodelay",
        Value::Bool(|draft, on| draft.set_tcp_nodelay = Some(on)),
        "true",
        "Send small packets without delay; false lets the system gather them.",
    )
    .differs("It is on unless it is switched off: packets are gathered before they are written."),
    row(
        Group::Listening,
        "global_max_connections",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.global_max_connections = n),
        "0",
        "Connections at a time.",
    ),
    row(
        Group::Listening,
        "max_connections_per_address",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_connections_per_address = n),
        "0",
        "Connections at a time from one address, or from one /64 of IPv6.",
    ),
    row(
        Group::Listening,
        "max_connect_rate",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_connect_rate = n),
        "0",
        "Connections a minute from one address, or from one /64 of IPv6.",
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
        "max_subscriptions",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_subscriptions = n),
        "20000",
        "Subscriptions of one client.",
    ),
    row(
        Group::Sessions,
        "persistent_client_expiration",
        Value::Span(|draft, s| draft.core.persistent_client_expiration_s = s),
        "30d",
        "Forget the session of a client away for so long: never, or a number and one of s h d w m y.",
    )
    .differs("By default 30 days, so that sessions of devices that were replaced end; in Mosquitto they stay for ever."),
    row(
        Group::Sessions,
        "allow_anonymous",
        Value::Bool(|draft, allow| draft.security().allow_anonymous = Some(allow)),
        "",
        "Let clients in without a user name. By default only if there is no --listener.",
    )
    .scope(Scope::Security),
    row(
        Group::Sessions,
        "listener_allow_anonymous",
        Value::Bool(|draft, allow| draft.listener().allow_anonymous = Some(allow)),
        "",
        "The same for one listener, whatever allow_anonymous says.",
    )
    .scope(Scope::Listener)
    .in_section(),
    row(
        Group::Sessions,
        "password_file",
        text("FILE", STRING_MAX, |draft, path| draft.security().password_file = Some(path.into())),
        "",
        "Let in who has a user name and password of this file, as midge passwd and mosquitto_passwd make it.",
    )
    .scope(Scope::Security)
    .once()
    .differs(
        "A line that is wrong is left out and told; on a reload it keeps the whole configuration as it was. Hashes $6$, $7$ and \
         argon2id are read alike, argon2id up to 19 MiB for a check, and plain text with allow_plain_text_passwords. A missing file \
         ends the start with 3, not 13.",
    ),
    row(
        Group::Sessions,
        "allow_plain_text_passwords",
        Value::Bool(|draft, allow| draft.security().allow_plain_text_passwords = Some(allow)),
        "false",
        "Take passwords of the file that are not hashed, too; midge passwd -U hashes them.",
    )
    .scope(Scope::Security)
    .differs("Mosquitto reads plain text if it was built without TLS, and has no such option."),
    row(
        Group::Sessions,
        "acl_file",
        text("FILE", STRING_MAX, |draft, path| draft.security().acl_file = Some(path.into())),
        "",
        "Let clients read and write only what the rules of this file allow.",
    )
    .scope(Scope::Security)
    .once()
    .differs(
        "A missing file ends the start with 3, not 13; what is wrong with it on a reload keeps the whole configuration as it \
         was. %c and %u are whole levels, as in Mosquitto 2.1.",
    ),
    row(
        Group::Sessions,
        "check_retain_source",
        Value::Bool(|draft, on| draft.core.check_retain_source = on),
        "false",
        "Withhold a retained message when its publisher may no longer write to its topic.",
    )
    .differs(
        "It can be changed by a reload. Who published what was retained before it was on, or before the broker started, is not \
         known: that is delivered.",
    ),
    row(
        Group::Sessions,
        "per_listener_settings",
        Value::Bool(|draft, on| draft.per_listener_settings |= on),
        "false",
        "Options about who may do what (allow_anonymous, password_file, acl_file, ...) belong to the listener they stand behind; once true it stays so.",
    )
    .scope(Scope::File),
    row(
        Group::Sessions,
        "allow_zero_length_clientid",
        Value::Bool(|draft, allow| draft.security().allow_zero_length_clientid = Some(allow)),
        "true",
        "Make up a client id for a client without.",
    )
    .scope(Scope::Security),
    row(
        Group::Sessions,
        "auto_id_prefix",
        text("TEXT", 50, |draft, prefix| draft.security().auto_id_prefix = Some(prefix.to_string())),
        "auto-",
        "What made-up client ids begin with.",
    )
    .scope(Scope::Security)
    .once(),
    row(
        Group::Sessions,
        "listener_auto_id_prefix",
        text("TEXT", 50, |draft, prefix| draft.listener().auto_id_prefix = Some(prefix.to_string())),
        "",
        "The same for one listener, whatever auto_id_prefix says.",
    )
    .scope(Scope::Listener)
    .in_section()
    .once(),
    row(
        Group::Sessions,
        "use_username_as_clientid",
        Value::Bool(|draft, on| draft.listener().use_username_as_clientid = Some(on)),
        "false",
        "The user name takes the client id's place.",
    )
    .scope(Scope::Listener),
    row(
        Group::Sessions,
        "clientid_prefixes",
        text("TEXT", STRING_MAX, |draft, prefix| draft.core.clientid_prefixes = Some(prefix.to_string())),
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
        "max_inflight_bytes",
        number("BYTES", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_inflight_bytes = n),
        "0",
        "Bytes of those messages; a larger one is sent alone.",
    ),
    row(
        Group::Queues,
        "max_queued_messages",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_queued_messages = n),
        "1000",
        "Messages kept for a client that is away or slow.",
    )
    .differs("The log names the client and counts what is lost; queue_policy says which message gives way."),
    row(
        Group::Queues,
        "max_queued_bytes",
        number("BYTES", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_queued_bytes = n),
        "4194304",
        "Bytes of those messages.",
    )
    .differs("By default 4 MiB, so that a queue for a client that never comes back has an end; in Mosquitto there is no limit."),
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
    )
    .differs("They count for max_queued_messages, which in Mosquitto they do not."),
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
    )
    .differs("By default 20 seconds; Mosquitto does not send again while a client is connected."),
    row(
        Group::Messages,
        "max_packet_size",
        number("BYTES", 20, INT_MAX, Zero::Means("half of memory_limit"), |draft, n| draft.core.max_packet_size = n),
        "0",
        "Largest packet a client may send.",
    )
    .differs("By default half of memory_limit; Mosquitto 2.1 has 2,000,000 bytes, earlier ones no limit."),
    row(
        Group::Messages,
        "message_size_limit",
        number("BYTES", 1, PACKET_MAX, Zero::Means("no limit"), |draft, n| draft.core.message_size_limit = n),
        "0",
        "Drop messages with a larger payload.",
    ),
    row(
        Group::Messages,
        "max_publish_rate",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_publish_rate = n),
        "0",
        "Messages a second from one client; one that sends more is read more slowly.",
    ),
    row(
        Group::Messages,
        "max_publish_bytes_rate",
        number("BYTES", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_publish_bytes_rate = n),
        "0",
        "Bytes a second of those, whole packets.",
    ),
    row(
        Group::Messages,
        "max_topic_length",
        number("BYTES", 1, 65_535, Zero::Itself, |draft, n| draft.core.max_topic_length = n as u16),
        "65535",
        "Longest topic or filter a client may use.",
    ),
    row(
        Group::Messages,
        "max_topic_levels",
        number("N", 1, TOPIC_LEVELS_MAX as u32, Zero::Itself, |draft, n| draft.core.max_topic_levels = n as u8),
        "201",
        "Levels of the deepest topic or filter a client may use.",
    ),
    row(
        Group::Messages,
        "max_retained_messages",
        number("N", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_retained_messages = n),
        "100000",
        "Retained messages of clients.",
    ),
    row(
        Group::Messages,
        "max_retained_bytes",
        number("BYTES", 1, INT_MAX, NO_LIMIT, |draft, n| draft.core.max_retained_bytes = n),
        "0",
        "Bytes of those messages: topics, properties and payloads.",
    ),
    row(
        Group::Messages,
        "max_qos",
        Value::Word {
            name: "QOS",
            words: &["0", "1", "2"],
            set: |draft, word| draft.listener().max_qos = Some([QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][word]),
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
        "retain_expiry_interval",
        number("MINUTES", 1, 10_000_000, Zero::Itself, |draft, _| {
            draft.remark("retain_expiry_interval has nothing to do: retained messages are removed when they expire.");
        }),
        "",
        "Mosquitto's interval of looking for expired retained messages, which are removed at once here.",
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
        number("N", 0, 65_535, Zero::Itself, |draft, n| draft.listener().max_topic_alias = Some(n as u16)),
        "10",
        "Topic aliases a client may use.",
    )
    .scope(Scope::Listener)
    .in_section(),
    row(
        Group::Messages,
        "max_topic_alias_broker",
        number("N", 0, 65_535, Zero::Itself, |draft, n| draft.listener().max_topic_alias_broker = Some(n as u16)),
        "10",
        "Topic aliases used towards a client.",
    )
    .scope(Scope::Listener)
    .in_section(),
    row(
        Group::Storage,
        "persistence",
        Value::Bool(|draft, on| draft.persistence = on),
        "false",
        "Keep sessions, subscriptions, queued and retained messages on disk.",
    )
    .differs("Mosquitto's database is not read, and stays where it is; what is acknowledged is on the disk first."),
    row(
        Group::Storage,
        "persistence_location",
        text("DIR", PATH_MAX, |draft, path| draft.persistence_location = Some(path.to_string())),
        ".",
        "The directory for that. It is created if only its last part is missing.",
    )
    .once(),
    row(
        Group::Storage,
        "persistence_sync",
        Value::Other {
            name: "MODE",
            accepted: "always, never, or interval and a number of seconds from 1 to 3600",
            set: |draft, text| value::sync(text).map(|sync| draft.persistence_sync = Some(sync)),
        },
        "always",
        "When changes reach the disk: always before they are acknowledged, at an 'interval SECONDS', or never by force.",
    ),
    row(
        Group::Storage,
        "persistence_file",
        text("NAME", 255, |draft, name| draft.persistence_file = Some(name.to_string())),
        "",
        "Keep it there in a directory of this name with .midge behind it, so that several brokers have room.",
    )
    .once()
    .differs("It is a directory beside Mosquitto's file of that name, which stays as it is and is not read."),
    row(
        Group::Storage,
        "autosave_interval",
        number("N", 0, INT_MAX, Zero::OrLessMeans("with others, and at the end"), |draft, n| {
            draft.autosave_interval = Some(n);
        }),
        "",
        "Seconds that changes may wait to be written of which nothing was acknowledged. By default 5; comings and \
         goings 60.",
    )
    .differs("What is acknowledged is written before, whatever this says; nothing is ever written as a whole."),
    row(
        Group::Storage,
        "autosave_on_changes",
        Value::Bool(|draft, on| draft.autosave_on_changes = on),
        "false",
        "autosave_interval counts such changes, not seconds.",
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
        Group::Logging,
        "log_dest",
        Value::Other {
            name: "WHERE",
            accepted: "none, stdout, stderr, syslog, topic, or 'file PATH' once",
            set: |draft, text| match text {
                "dlt" | "android" => {
                    draft.remark(format!("log_dest {text} is passed over: this system has no such log."));
                    Some(())
                }
                _ => value::log_destination(text).and_then(|to| draft.add_log_destination(to).then_some(())),
            },
        },
        "stderr",
        "Where log lines go, one more each time: none, stdout, stderr, syslog, topic ($SYS/broker/log), or 'file PATH'.",
    )
    .up_to(16),
    row(
        Group::Logging,
        "log_type",
        Value::Word {
            name: "TYPE",
            words: &[
                "error", "warning", "notice", "information", "debug", "subscribe", "unsubscribe", "all", "none",
                "websockets", "internal",
            ],
            set: |draft, at| {
                let types = draft.log_types();
                match at {
                    0 => types.error = true,
                    1 => types.warning = true,
                    2 => types.notice = true,
                    3 => types.information = true,
                    4 => types.debug = true,
                    5 => types.subscribe = true,
                    6 => types.unsubscribe = true,
                    7 => *types = LogTypes::ALL,
                    8 => *types = LogTypes::NONE,
                    _ => draft.remark("There are no log lines of type websockets or internal."),
                }
            },
        },
        "",
        "What is logged, one more each time. By default error, warning, notice and information.",
    )
    .up_to(32),
    row(
        Group::Logging,
        "log_timestamp",
        Value::Bool(|draft, on| draft.log.timestamp = Some(on)),
        "true",
        "Begin lines with the time.",
    ),
    row(
        Group::Logging,
        "log_timestamp_format",
        text("FORMAT", 255, |draft, format| draft.log.timestamp_format = Some(format.to_string())),
        "",
        "How the time is written, as of strftime; by default as seconds since the epoch.",
    )
    .once(),
    row(
        Group::Logging,
        "log_facility",
        number("N", 0, 7, Zero::Itself, |draft, n| draft.log.facility = Some(n as u8)),
        "",
        "syslog's facility, local0 to local7; by default daemon.",
    ),
    row(
        Group::Logging,
        "connection_messages",
        Value::Bool(|draft, log| draft.core.connection_messages = log),
        "true",
        "Log who comes and goes.",
    ),
    row(
        Group::Logging,
        "verbose",
        Value::Switch(|draft| draft.log.verbose = true),
        "",
        "Log everything. RUST_LOG in the environment beats this and --quiet.",
    )
    .short('v')
    .scope(Scope::CommandLine),
    row(Group::Logging, "quiet", Value::Switch(|draft| draft.log.quiet = true), "", "Log nothing; beats --verbose.")
        .short('q')
        .scope(Scope::CommandLine),
    row(
        Group::Program,
        "config_file",
        text("FILE", PATH_MAX, |draft, path| draft.config_file = Some(path.into())),
        "",
        "Read Mosquitto's configuration file; flags win over what it says.",
    )
    .short('c')
    .scope(Scope::CommandLine),
    row(
        Group::Program,
        "include_dir",
        text("DIR", PATH_MAX, |_, _| {}),
        "",
        "Read the files of this directory whose names end in .conf, in their order.",
    )
    .scope(Scope::File),
    row(
        Group::Program,
        "test_config",
        Value::Switch(|draft| draft.question = Some(Question::TestConfig)),
        "",
        "Say what is wrong with flags and file, if anything, and end. Nothing is written.",
    )
    .scope(Scope::CommandLine),
    row(
        Group::Program,
        "explain_config",
        text("FILE", PATH_MAX, |draft, path| draft.question = Some(Question::Explain(path.into()))),
        "",
        "Say for each line of this file what it does here, and what it does otherwise than in Mosquitto.",
    )
    .scope(Scope::CommandLine),
    row(
        Group::Program,
        "daemon",
        Value::Switch(|draft| draft.startup.daemon = true),
        "",
        "Go into the background once it serves.",
    )
    .short('d')
    .scope(Scope::CommandLine),
    row(
        Group::Program,
        "user",
        text("NAME", 255, |draft, name| draft.startup.user = Some(name.to_string())),
        "",
        "Started by root, become this user once the listeners are open. By default midge, mosquitto or nobody.",
    )
    .differs("Listeners are opened before, so that ports below 1024 need no root either way."),
    row(
        Group::Program,
        "pid_file",
        text("FILE", PATH_MAX, |draft, path| draft.startup.pid_file = Some(path.into())),
        "",
        "Write the process id there while it runs.",
    )
    .once(),
    row(
        Group::Program,
        "control_socket",
        text("FILE", SOCKET_PATH_MAX, |draft, path| draft.control_socket = Some(path.into())),
        "",
        "Let its own user and root see and order what it does by way of this Unix socket: midge ctl.",
    )
    .once(),
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
    use super::super::Settings;
    use super::*;
    use crate::config::Config;

    #[test]
    fn names_are_unique_and_lower_case() {
        for rows in [Row::flags().collect::<Vec<_>>(), Row::keywords().collect()] {
            for (index, row) in rows.iter().enumerate() {
                let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'_' || byte == b'0';
                assert!(row.name.bytes().all(is_plain), "{}", row.name);
                for other in &rows[..index] {
                    assert_ne!(row.name, other.name);
                    assert!(row.short.is_none() || row.short != other.short, "{}", row.name);
                }
            }
        }
    }

    #[test]
    fn the_defaults_shown_are_those_of_the_configuration() {
        let settings = |row: Option<&Row>| {
            let mut draft = Draft::default();
            draft.open_listener(1883, Host::All);
            if let Some(row) = row {
                row.value.apply(&mut draft, row.default).unwrap();
            }
            draft.settle()
        };
        for row in OPTIONS.iter().filter(|row| !row.default.is_empty()) {
            let (with, without) = (settings(Some(row)), settings(None));
            assert_eq!((with.core, with.log), (without.core, without.log), "{}", row.name);
            assert_eq!(with.listeners.last(), without.listeners.last(), "{}", row.name);
        }
    }

    /// Every option takes effect, and so does every field: values that are not the defaults change all of them.
    #[test]
    fn every_field_of_the_settings_has_its_option() {
        let mut draft = Draft::default();
        draft.open_listener(1, Host::All);
        let shown = |draft: &Draft| format!("{draft:?}");
        for row in OPTIONS.iter().filter(|row| !["include_dir", "listener", "verbose", "quiet"].contains(&row.name)) {
            let before = shown(&draft);
            let (_, text) = NOT_DEFAULT.iter().find(|(name, _)| *name == row.name).copied().unwrap_or((row.name, "7"));
            row.value.apply(&mut draft, text).unwrap_or_else(|accepted| panic!("{} {text}: {accepted}", row.name));
            assert_ne!(shown(&draft), before, "{}", row.name);
        }
        let fields = |settings: &Settings| {
            let listener = settings.listeners.last().unwrap();
            let core = Config { memory_limit: settings.memory_limit.unwrap_or_default(), ..settings.core.clone() };
            let shown = format!("{core:#?}\n{listener:#?}\n{:#?}\n{:#?}", settings.log, settings.startup);
            shown.lines().map(str::to_string).collect::<Vec<_>>()
        };
        let mut default = Draft::default();
        default.open_listener(1, Host::All);
        let changed = fields(&draft.settle());
        // The place of a listener, and what stands for itself in a list.
        let passed = [
            "port: 1,",
            "host: All,",
            "true,",
            "Stderr,",
            // Read from files.
            "passwords: None,",
            "acl: None,",
            "],",
            "},",
            // All types are the ones by default, too.
            "error: true,",
            "warning: true,",
            "notice: true,",
            "information: true,",
        ];
        for line in fields(&default.settle()).iter().filter(|line| line.ends_with(',')) {
            assert!(passed.contains(&line.trim()) || !changed.contains(line), "no option for {line}");
        }
    }

    const NOT_DEFAULT: [(&str, &str); 35] = [
        ("allow_plain_text_passwords", "true"),
        ("check_retain_source", "true"),
        ("set_tcp_nodelay", "false"),
        ("autosave_on_changes", "true"),
        ("socket_domain", "ipv4"),
        ("socket_mode", "0600"),
        ("accept_protocol_versions", "4"),
        ("listener_allow_anonymous", "true"),
        ("per_listener_settings", "true"),
        ("use_username_as_clientid", "true"),
        ("log_dest", "syslog"),
        ("log_type", "all"),
        ("log_timestamp", "false"),
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
        ("test_config", ""),
        ("daemon", ""),
        ("help", ""),
        ("version", ""),
        ("bind_address", "::1"),
        ("bind_interface", "lo"),
    ];
}
