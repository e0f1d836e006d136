//! Every number the broker obeys, with its unit, its default and the reason for the default. Built from flags by
//! `options`; the core reads it and never changes it.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::access::acl::Acl;
use crate::access::passwords::Passwords;
use crate::codec::{QoS, Version};

/// What the core obeys. Option names are Mosquitto's where Mosquitto has the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Seconds a new connection may take until its CONNECT is complete. 30: a modem on a bad line manages,
    /// a silent socket does not keep its descriptor.
    pub connect_timeout_s: u32,
    /// Seconds until an unacknowledged QoS 1 or 2 message is sent again to a connected 3.1 or 3.1.1 client; 0 = off.
    /// 20 as in Mosquitto 1.x. Never used for 5.0.
    pub retry_interval_s: u32,
    /// Milliseconds without one byte taken after which publishers stop waiting for a subscriber. 1000: longer
    /// than a Wi-Fi retry storm, shorter than anybody's patience.
    pub stall_timeout_ms: u32,
    /// Unacknowledged QoS 1/2 messages towards one client, and the Receive Maximum told to 5.0 clients; 0 = 65535.
    /// 20 is Mosquitto's. A 5.0 client's own Receive Maximum replaces it for sending.
    pub max_inflight_messages: u16,
    /// Payload bytes of unacknowledged QoS 1/2 messages towards one client; 0 = no limit, as in Mosquitto. A single larger
    /// message is still sent, alone.
    pub max_inflight_bytes: u32,
    /// Messages queued for one client that is offline or stalled; 0 = no limit. 1000 is Mosquitto's.
    pub max_queued_messages: u32,
    /// Bytes (topic, properties, payload) queued for one client that is offline or stalled; 0 = no limit.
    /// 4 MiB: a sixteenth of a 64 MB box. A single larger message is still queued when the queue is empty.
    pub max_queued_bytes: u32,
    /// Which message gives way when a queue is full.
    pub queue_policy: QueuePolicy,
    /// Queue QoS 0 messages, too, for offline sessions.
    pub queue_qos0_messages: bool,
    /// Largest packet a client may send, fixed header included; 0 = half of `memory_limit`, and without that the protocol's own
    /// limit of 268,435,460 bytes. 0: cameras send pictures of many megabytes, and old brokers took them; what is larger would take
    /// the memory of all others.
    pub max_packet_size: u32,
    /// Largest payload that is forwarded; 0 = no limit.
    pub message_size_limit: u32,
    /// Bytes of the longest topic or filter a client may use, mount point included. 65535, the protocol's own limit: nobody needs
    /// such topics, but to refuse one that old brokers took would not make the others faster or safer.
    pub max_topic_length: u16,
    /// Levels of the deepest topic or filter a client may use, mount point included. 201, one more than Mosquitto's 200
    /// separators: filters are matched level by level, and so nobody decides how long that takes.
    pub max_topic_levels: u8,
    /// Messages a second one client may publish; beyond a second's worth it is read more slowly. 0 = no limit. 0: a sensor that
    /// was away comes back with an hour of stored values, a bridge speaks for a whole house, and to slow them down helps nobody
    /// unless the owner knows his devices.
    pub max_publish_rate: u32,
    /// Bytes a second of those, whole packets; 0 = no limit. 0 for the same reason, and because pictures come in one piece.
    pub max_publish_bytes_rate: u32,
    /// Subscriptions of one client; 0 = no limit. 20,000: ten times a large home automation, and at 90 bytes each 1.8 MB for a
    /// client that subscribes to ever new filters.
    pub max_subscriptions: u32,
    /// Retained messages of clients; 0 = no limit. 100,000: ten times a house with 10,000 entities, while a client that
    /// publishes to ever new topics comes to an end before `memory_limit` makes others pay for it, where there are 256 MB.
    pub max_retained_messages: u32,
    /// Bytes (topics, properties, payloads) of retained messages of clients; 0 = no limit. 0: a camera's pictures are retained,
    /// too, and how much memory there is for them is for `memory_limit` to say, which knows the machine.
    pub max_retained_bytes: u32,
    /// Longest keep-alive in seconds a client may ask for; 0 = no limit.
    pub max_keepalive_s: u16,
    /// Network connections at a time over all listeners; 0 = as many as descriptors allow.
    pub global_max_connections: u32,
    /// Connections at a time from one address; 0 = no limit. 0: behind a bridge, a proxy or a router a whole house has one address,
    /// and this machine's own programs have another.
    pub max_connections_per_address: u32,
    /// Connections a minute from one address, all of them at once if need be; 0 = no limit. 0 for the same reason: all devices
    /// of a house come back together after a power cut.
    pub max_connect_rate: u32,
    /// Sessions, connected and stored; 0 = no limit.
    pub global_max_clients: u32,
    /// Upper bound of how long a session without connection is kept, seconds; 0 = no bound. 30 days: a device
    /// that stays away longer was replaced, and its queue would be kept for ever.
    pub persistent_client_expiration_s: u32,
    /// Every client id must begin with this.
    pub clientid_prefixes: Option<String>,
    /// A client with overlapping filters gets one copy for each matching subscription, as from Mosquitto.
    pub allow_duplicate_messages: bool,
    /// Deliver with the subscription's QoS even if the message was published lower.
    pub upgrade_outgoing_qos: bool,
    /// Keep retained messages.
    pub retain_available: bool,
    /// A retained message is withheld when its publisher may no longer write to its topic. False, as in Mosquitto's code, not
    /// as in its manual: it costs the publisher's names with each message.
    pub check_retain_source: bool,
    /// Seconds between two updates of the topics below `$SYS`; 0 = there are none. 10 is Mosquitto's.
    pub sys_interval_s: u16,
    /// Whether, and when, what must survive a restart is stored.
    pub persistence: Persistence,
    /// When changes are stored that no acknowledgement waits for: retained messages of QoS 0, the coming and going of clients.
    /// Nothing said: after 5 and 60 seconds.
    pub autosave: Option<Autosave>,
    /// Bytes the process may allocate before it gives things up, in the order of `broker/memory.rs`; 0 = no limit.
    pub memory_limit: u64,
    /// Log lines for connects and disconnects.
    pub connection_messages: bool,
}

impl Config {
    /// The largest packet a client may send, bytes; 0 = the protocol's limit.
    #[inline]
    pub fn largest_packet(&self) -> u32 {
        match self.max_packet_size {
            0 => (self.memory_limit / 2).min(u32::MAX.into()) as u32,
            limit => limit,
        }
    }

    /// The QoS a message is delivered with. [MQTT-3.8.4-6] (3.1.1) [MQTT-3.8.4-8] (5.0)
    pub fn effective_qos(&self, published: QoS, granted: QoS) -> QoS {
        if self.upgrade_outgoing_qos { granted } else { published.min(granted) }
    }

    /// Whether clients are slowed down that publish too much.
    pub fn has_publish_rate(&self) -> bool {
        self.max_publish_rate != 0 || self.max_publish_bytes_rate != 0
    }

    /// Why a topic or filter, the `what`, is not accepted for its size; nothing if it is.
    #[inline]
    pub fn topic_fault(&self, what: &str, text: &str) -> Option<String> {
        // One of so many levels has so many slashes, but one.
        let is_short = text.len() < usize::from(self.max_topic_length.min(self.max_topic_levels.into()));
        if is_short { None } else { self.find_topic_fault(what, text) }
    }

    #[cold]
    fn find_topic_fault(&self, what: &str, text: &str) -> Option<String> {
        let (len, levels) = (text.len(), text.split('/').count());
        if len > usize::from(self.max_topic_length) {
            Some(format!("the {what} is {len} bytes long, and max_topic_length is {}", self.max_topic_length))
        } else if levels > usize::from(self.max_topic_levels) {
            Some(format!("the {what} has {levels} levels, and max_topic_levels is {}", self.max_topic_levels))
        } else {
            None
        }
    }
}

/// Levels of the deepest topic or filter there can be.
pub const TOPIC_LEVELS_MAX: u8 = 201;

impl Default for Config {
    fn default() -> Config {
        Config {
            connect_timeout_s: 30,
            retry_interval_s: 20,
            stall_timeout_ms: 1000,
            max_inflight_messages: 20,
            max_inflight_bytes: 0,
            max_queued_messages: 1000,
            max_queued_bytes: 4 << 20,
            queue_policy: QueuePolicy::DropNewest,
            queue_qos0_messages: false,
            max_packet_size: 0,
            message_size_limit: 0,
            max_topic_length: u16::MAX,
            max_topic_levels: TOPIC_LEVELS_MAX,
            max_publish_rate: 0,
            max_publish_bytes_rate: 0,
            max_subscriptions: 20_000,
            max_retained_messages: 100_000,
            max_retained_bytes: 0,
            max_keepalive_s: 0,
            global_max_connections: 0,
            max_connections_per_address: 0,
            max_connect_rate: 0,
            global_max_clients: 0,
            persistent_client_expiration_s: 30 * 86_400,
            clientid_prefixes: None,
            allow_duplicate_messages: true,
            upgrade_outgoing_qos: false,
            retain_available: true,
            check_retain_source: false,
            sys_interval_s: 10,
            persistence: Persistence::Off,
            autosave: None,
            memory_limit: 0,
            connection_messages: true,
        }
    }
}

/// When changes are stored, and what is acknowledged before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing is stored.
    #[default]
    Off,
    /// What is acknowledged was written and synced before.
    Always,
    /// Changes are written and synced every so many seconds.
    Interval(u16),
    /// Changes are written in the turn they happen and never synced.
    Never,
}

/// When changes are stored that nobody waits for. 0: with others only, when the broker ends, and when it is told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Autosave {
    /// So many seconds after the first of them.
    Seconds(u32),
    /// When there are so many.
    Changes(u32),
}

/// Which message gives way when a client's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueuePolicy {
    /// The oldest queued message is dropped: what the client gets is recent.
    DropOldest,
    /// The new message is dropped, as Mosquitto does: what the client gets is complete up to a point.
    DropNewest,
    /// The new message is dropped, and a 5.0 publisher is told with reason code 0x97.
    Reject,
}

/// One listener as it was asked for. It opens a socket for each of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// 0 takes a free port, the same one for every address of the listener. Means nothing to a Unix socket.
    pub port: u16,
    pub host: Host,
    /// The one family of addresses that is served; nothing for both.
    pub domain: Option<Domain>,
    /// Only addresses of this network interface are bound.
    pub interface: Option<String>,
    /// What a Unix socket's file is made with.
    pub socket_mode: Option<u32>,
    /// Name of the user, or `USER:GROUP`, a Unix socket's file is given to.
    pub socket_owner: Option<String>,
    /// Connections at a time through this listener; 0 = no limit but the one over all.
    pub max_connections: u32,
    pub protocol: Protocol,
    /// Small packets are sent without delay.
    pub tcp_nodelay: bool,
    /// Names and hashes of passwords, Mosquitto's password file; what is in it gets into `rules`.
    pub password_file: Option<PathBuf>,
    /// Passwords in it need not be hashed. False: whoever reads the file or a backup of it could log in, here and wherever else
    /// the same password is used.
    pub allow_plain_text_passwords: bool,
    /// Who may read and write what, Mosquitto's access control file; so does what is in this.
    pub acl_file: Option<PathBuf>,
    pub rules: Rules,
}

impl ListenerConfig {
    pub fn new(port: u16, host: Host) -> ListenerConfig {
        ListenerConfig {
            port,
            host,
            domain: None,
            interface: None,
            socket_mode: None,
            socket_owner: None,
            max_connections: 0,
            protocol: Protocol::default(),
            tcp_nodelay: true,
            password_file: None,
            allow_plain_text_passwords: false,
            acl_file: None,
            rules: Rules::default(),
        }
    }
}

/// What holds for the clients that come through one listener. The core obeys it, and never changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Clients without a user name may connect.
    pub allow_anonymous: bool,
    /// Accept a zero-length client id and make one up.
    pub allow_zero_length_clientid: bool,
    /// What made-up client ids begin with.
    pub auto_id_prefix: String,
    /// The user name takes the client id's place; without one a client is refused.
    pub use_username_as_clientid: bool,
    /// Whether protocol level 3, 4 and 5 (MQTT 3.1, 3.1.1 and 5.0) are served.
    pub accept_protocol_versions: [bool; 3],
    /// Put in front of every topic and filter of these clients, and cut off what is delivered to them. Empty for none.
    pub mount_point: String,
    /// Highest QoS accepted and granted.
    pub max_qos: QoS,
    /// Topic aliases a 5.0 client may use towards the broker. 10 as in Mosquitto: each costs a topic's bytes.
    pub max_topic_alias: u16,
    /// Topic aliases the broker uses towards a 5.0 client that allows them.
    pub max_topic_alias_broker: u16,
    /// Who a user name must be, with which password; with nothing every one is let in that `allow_anonymous` would let in
    /// without.
    pub passwords: Option<Loaded<Passwords>>,
    /// Who may read and write what; with nothing everybody everything.
    pub acl: Option<Loaded<Acl>>,
}

/// What was read from a file, shared by all who obey it. Two are equal if they are one: a file that was read again is another,
/// whatever it says.
pub struct Loaded<T> {
    path: Rc<Path>,
    content: Rc<T>,
}

impl<T> Loaded<T> {
    pub fn new(path: &Path, content: T) -> Loaded<T> {
        Loaded { path: path.into(), content: Rc::new(content) }
    }

    /// Where it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl<T> Clone for Loaded<T> {
    fn clone(&self) -> Loaded<T> {
        Loaded { path: self.path.clone(), content: self.content.clone() }
    }
}

impl<T> Deref for Loaded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

impl<T> PartialEq for Loaded<T> {
    fn eq(&self, other: &Loaded<T>) -> bool {
        Rc::ptr_eq(&self.content, &other.content)
    }
}

impl<T> Eq for Loaded<T> {}

impl<T> fmt::Debug for Loaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.fmt(f)
    }
}

impl Rules {
    /// Whether this version of the protocol is served.
    pub fn accepts(&self, version: Version) -> bool {
        self.accept_protocol_versions[usize::from(version.level()) - 3]
    }
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            allow_anonymous: false,
            allow_zero_length_clientid: true,
            auto_id_prefix: "auto-".to_string(),
            use_username_as_clientid: false,
            accept_protocol_versions: [true; 3],
            mount_point: String::new(),
            max_qos: QoS::ExactlyOnce,
            max_topic_alias: 10,
            max_topic_alias_broker: 10,
            passwords: None,
            acl: None,
        }
    }
}

/// Whether a network interface could be called this.
pub fn is_interface_name(name: &str) -> bool {
    // What the kernel has room for, beside the NUL.
    let is_free = |byte: u8| byte > b' ' && byte != b'/' && byte != b':' && byte != 0x7f;
    (1..=15).contains(&name.len()) && name.bytes().all(is_free) && name != "." && name != ".."
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    Ipv4,
    Ipv6,
}

/// Where log lines go, which, and how they begin. Option names are Mosquitto's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Empty: nowhere.
    pub destinations: Vec<LogDestination>,
    pub types: LogTypes,
    /// Lines begin with a time.
    pub timestamp: bool,
    /// As of strftime, in local time; nothing for decimal seconds since the epoch.
    pub timestamp_format: Option<String>,
    /// syslog's local0 to local7; nothing for daemon.
    pub facility: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogDestination {
    Stdout,
    Stderr,
    Syslog,
    /// `$SYS/broker/log/...`
    Topic,
    File(std::path::PathBuf),
}

/// The kinds of log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTypes {
    pub error: bool,
    pub warning: bool,
    pub notice: bool,
    pub information: bool,
    pub debug: bool,
    pub subscribe: bool,
    pub unsubscribe: bool,
}

impl LogTypes {
    pub const NONE: LogTypes = LogTypes {
        error: false,
        warning: false,
        notice: false,
        information: false,
        debug: false,
        subscribe: false,
        unsubscribe: false,
    };
    pub const ALL: LogTypes = LogTypes {
        error: true,
        warning: true,
        notice: true,
        information: true,
        debug: true,
        subscribe: true,
        unsubscribe: true,
    };
}

impl Default for LogTypes {
    fn default() -> LogTypes {
        LogTypes { error: true, warning: true, notice: true, information: true, ..LogTypes::NONE }
    }
}

impl Default for LogConfig {
    fn default() -> LogConfig {
        LogConfig {
            destinations: vec![LogDestination::Stderr],
            types: LogTypes::default(),
            timestamp: true,
            timestamp_format: None,
            facility: None,
        }
    }
}

/// What clients of a listener speak. WebSockets have to be asked for: any web page that somebody opens on this machine may
/// connect to one on 127.0.0.1, where local-only mode wants no login.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Mqtt,
    WebSockets,
}

/// Which addresses a listener binds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// All IPv4 and all IPv6 addresses.
    All,
    /// 127.0.0.1 and ::1.
    Loopback,
    /// An address, or every address a name resolves to.
    Named(String),
    /// A Unix socket at this path.
    Unix(std::path::PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces() {
        assert!(["eth0", "br-lan", "wlan0.1"].iter().all(|name| is_interface_name(name)));
        assert!(!["", "a/b", "..", "eth0 up", "a-name-too-long-x"].iter().any(|name| is_interface_name(name)));
    }
}
