//! What the options fill in while they are read: first those of the configuration file, then the flags, which win. Defaults
//! that depend on other options are settled when all are known.

use std::path::PathBuf;

use super::{Settings, Startup, Store};
use crate::codec::QoS;
use crate::config::{
    Autosave, Config, Domain, Host, ListenerConfig, LogConfig, LogDestination, LogTypes, Persistence, Protocol, Rules,
};

/// The port of MQTT.
const PORT: u16 = 1883;
/// Mosquitto's default of autosave_interval, which counts changes if it is told to.
const AUTOSAVE_CHANGES: u32 = 1800;

#[derive(Debug, Default)]
pub struct Draft {
    pub core: Config,
    /// Flags are read, no more the file.
    is_flags: bool,
    /// The listener whose section is open.
    section: Option<usize>,
    pub listeners: Vec<ListenerDraft>,
    /// What a file says of listeners before the first: they are about one of its own, on the port of MQTT.
    default_listener: Option<ListenerDraft>,
    /// What flags say of all listeners.
    overrides: ListenerDraft,
    /// In a file: options of scope security belong to the listener they stand behind.
    pub per_listener_settings: bool,
    /// In a file, for all listeners.
    security: Security,
    pub set_tcp_nodelay: Option<bool>,
    /// Ports for this machine alone.
    pub local_ports: Vec<u16>,
    pub persistence: bool,
    /// Bytes; 0 = none. Nothing said: an eighth of the machine's.
    pub memory_limit: Option<u32>,
    pub persistence_location: Option<String>,
    pub persistence_sync: Option<Persistence>,
    pub persistence_file: Option<String>,
    pub autosave_interval: Option<u32>,
    pub autosave_on_changes: bool,
    pub log: LogDraft,
    pub startup: Startup,
    pub control_socket: Option<PathBuf>,
    pub config_file: Option<PathBuf>,
    pub question: Option<Question>,
    /// What was accepted and is not done, or not as it was meant. The reader adds where it stands.
    pub remarks: Vec<String>,
}

/// Who is let in, and to what. One of them for all, or one for each listener.
#[derive(Debug, Default)]
pub struct Security {
    pub allow_anonymous: Option<bool>,
    pub allow_zero_length_clientid: Option<bool>,
    pub auto_id_prefix: Option<String>,
    pub password_file: Option<PathBuf>,
    pub allow_plain_text_passwords: Option<bool>,
    pub acl_file: Option<PathBuf>,
}

/// What was said of one listener, or of several.
#[derive(Debug, Default)]
pub struct ListenerDraft {
    is_flag: bool,
    pub port: Option<u16>,
    pub host: Option<Host>,
    pub domain: Option<Domain>,
    pub interface: Option<String>,
    pub socket_mode: Option<u32>,
    pub socket_owner: Option<String>,
    pub max_connections: Option<u32>,
    pub protocol: Option<Protocol>,
    pub accept_protocol_versions: Option<[bool; 3]>,
    pub max_qos: Option<QoS>,
    pub max_topic_alias: Option<u16>,
    pub max_topic_alias_broker: Option<u16>,
    pub mount_point: Option<String>,
    pub use_username_as_clientid: Option<bool>,
    /// `listener_allow_anonymous` and `listener_auto_id_prefix` hold whatever `per_listener_settings` says.
    pub allow_anonymous: Option<bool>,
    pub auto_id_prefix: Option<String>,
    pub security: Security,
}

/// What the file and the flags say of the log; what adds up, adds up among the one or the other.
#[derive(Debug, Default)]
pub struct LogDraft {
    destinations: [Option<Vec<LogDestination>>; 2],
    types: [Option<LogTypes>; 2],
    pub timestamp: Option<bool>,
    pub timestamp_format: Option<String>,
    pub facility: Option<u8>,
    pub verbose: bool,
    pub quiet: bool,
}

/// What is answered instead of serving.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    Help,
    Version,
    TestConfig,
    Explain(PathBuf),
}

impl Draft {
    /// The file is read, flags follow.
    pub fn begin_flags(&mut self) {
        self.is_flags = true;
        self.section = None;
    }

    pub fn remark(&mut self, text: impl Into<String>) {
        self.remarks.push(text.into());
    }

    /// Begins the section of another listener.
    pub fn open_listener(&mut self, port: u16, host: Host) {
        let draft =
            ListenerDraft { is_flag: self.is_flags, port: Some(port), host: Some(host), ..ListenerDraft::default() };
        self.listeners.push(draft);
        self.section = Some(self.listeners.len() - 1);
    }

    /// The listener whose section is open, in a form that can be put back.
    pub fn section(&self) -> Option<usize> {
        self.section
    }

    pub fn set_section(&mut self, section: Option<usize>) {
        self.section = section;
    }

    /// The listener options are about: the one whose section is open; before the first, all for flags, and one of its own for
    /// a file.
    pub fn listener(&mut self) -> &mut ListenerDraft {
        match self.section {
            Some(section) => &mut self.listeners[section],
            None if self.is_flags => &mut self.overrides,
            None => self.default_listener(),
        }
    }

    /// What `port` and `bind_address` in a file are about, wherever they stand.
    pub fn default_listener(&mut self) -> &mut ListenerDraft {
        self.default_listener.get_or_insert_default()
    }

    pub fn has_default_listener(&self) -> bool {
        self.default_listener.is_some()
    }

    pub fn security(&mut self) -> &mut Security {
        if self.is_flags {
            &mut self.overrides.security
        } else if self.per_listener_settings {
            &mut self.listener().security
        } else {
            &mut self.security
        }
    }

    /// Adds a destination of the log; nothing takes away those there were. False for a second file.
    pub fn add_log_destination(&mut self, destination: Option<LogDestination>) -> bool {
        let list = self.log.destinations[usize::from(self.is_flags)].get_or_insert_default();
        let Some(destination) = destination else {
            list.clear();
            return true;
        };
        let is_file = |it: &LogDestination| matches!(it, LogDestination::File(_));
        if is_file(&destination) && list.iter().any(is_file) {
            return false;
        }
        if !list.contains(&destination) {
            list.push(destination);
        }
        true
    }

    /// The types of lines logged so far, to be added to. The first one that is named replaces the default.
    pub fn log_types(&mut self) -> &mut LogTypes {
        self.log.types[usize::from(self.is_flags)].get_or_insert(LogTypes::NONE)
    }

    pub fn settle(mut self) -> Settings {
        let local_only = self.listeners.is_empty() && self.default_listener.is_none();
        let mut remarks = std::mem::take(&mut self.remarks);
        if !local_only && !self.local_ports.is_empty() {
            remarks.push("--port is ignored, because a listener is configured.".to_string());
        }
        let mut listeners = Vec::new();
        if local_only {
            let ports = if self.local_ports.is_empty() { vec![PORT] } else { std::mem::take(&mut self.local_ports) };
            for port in ports {
                let own = ListenerDraft { port: Some(port), host: Some(Host::Loopback), ..ListenerDraft::default() };
                listeners.push(self.listener_config(&own, true));
            }
        }
        let configured = self.default_listener.iter().chain(&self.listeners);
        listeners.extend(configured.map(|own| self.listener_config(own, false)));
        let log = self.log.settle();
        let mut core = self.core;
        if self.persistence {
            core.persistence = self.persistence_sync.unwrap_or(Persistence::Always);
        } else if self.persistence_location.is_some() || self.persistence_sync.is_some() {
            remarks.push(
                "Nothing will be stored: --persistence-location and --persistence-sync need --persistence true."
                    .to_string(),
            );
        }
        core.autosave = match (self.autosave_interval, self.autosave_on_changes) {
            (Some(changes), true) => Some(Autosave::Changes(changes)),
            (None, true) => Some(Autosave::Changes(AUTOSAVE_CHANGES)),
            (Some(seconds), false) => Some(Autosave::Seconds(seconds)),
            (None, false) => None,
        };
        match core.persistence {
            Persistence::Interval(seconds) => remarks.push(format!(
                "persistence_sync is 'interval {seconds}': when the broker or its machine dies, what was acknowledged in \
                 the last {seconds} seconds is lost."
            )),
            Persistence::Never => remarks.push(
                "persistence_sync is 'never': when the power is cut, what was acknowledged in the last half minute or so \
                 is lost, as much as the system had not written yet."
                    .to_string(),
            ),
            Persistence::Off | Persistence::Always => {}
        }
        Settings {
            core,
            memory_limit: self.memory_limit.map(u64::from),
            store: self.persistence.then(|| Store {
                location: self.persistence_location.unwrap_or_else(|| ".".to_string()).into(),
                file: self.persistence_file,
            }),
            listeners,
            local_only,
            log,
            startup: self.startup,
            control_socket: self.control_socket,
            config_file: self.config_file,
            warnings: remarks,
        }
    }

    /// What flags say of all listeners comes before what a file says of one, and after what flags say of that one.
    fn listener_config(&self, own: &ListenerDraft, is_local: bool) -> ListenerConfig {
        let order = if own.is_flag { [own, &self.overrides] } else { [&self.overrides, own] };
        fn first<T>(order: [&ListenerDraft; 2], field: impl Fn(&ListenerDraft) -> Option<T>) -> Option<T> {
            order.into_iter().find_map(field)
        }
        let defaults = Rules::default();
        let rules = Rules {
            allow_anonymous: first(order, |it| it.allow_anonymous.or(it.security.allow_anonymous))
                .or(self.security.allow_anonymous)
                .unwrap_or(is_local),
            allow_zero_length_clientid: first(order, |it| it.security.allow_zero_length_clientid)
                .or(self.security.allow_zero_length_clientid)
                .unwrap_or(defaults.allow_zero_length_clientid),
            auto_id_prefix: first(order, |it| it.auto_id_prefix.clone().or(it.security.auto_id_prefix.clone()))
                .or_else(|| self.security.auto_id_prefix.clone())
                .unwrap_or(defaults.auto_id_prefix),
            use_username_as_clientid: first(order, |it| it.use_username_as_clientid)
                .unwrap_or(defaults.use_username_as_clientid),
            accept_protocol_versions: first(order, |it| it.accept_protocol_versions)
                .unwrap_or(defaults.accept_protocol_versions),
            mount_point: first(order, |it| it.mount_point.clone()).unwrap_or(defaults.mount_point),
            max_qos: first(order, |it| it.max_qos).unwrap_or(defaults.max_qos),
            max_topic_alias: first(order, |it| it.max_topic_alias).unwrap_or(defaults.max_topic_alias),
            max_topic_alias_broker: first(order, |it| it.max_topic_alias_broker)
                .unwrap_or(defaults.max_topic_alias_broker),
            ..defaults
        };
        ListenerConfig {
            port: own.port.unwrap_or(PORT),
            host: own.host.clone().unwrap_or(Host::All),
            domain: first(order, |it| it.domain),
            interface: first(order, |it| it.interface.clone()),
            socket_mode: first(order, |it| it.socket_mode),
            socket_owner: first(order, |it| it.socket_owner.clone()),
            max_connections: first(order, |it| it.max_connections).unwrap_or(0),
            protocol: first(order, |it| it.protocol).unwrap_or_default(),
            tcp_nodelay: self.set_tcp_nodelay.unwrap_or(true),
            password_file: first(order, |it| it.security.password_file.clone())
                .or_else(|| self.security.password_file.clone()),
            allow_plain_text_passwords: first(order, |it| it.security.allow_plain_text_passwords)
                .or(self.security.allow_plain_text_passwords)
                .unwrap_or(false),
            acl_file: first(order, |it| it.security.acl_file.clone()).or_else(|| self.security.acl_file.clone()),
            rules,
        }
    }
}

impl LogDraft {
    fn settle(&mut self) -> LogConfig {
        let defaults = LogConfig::default();
        let [of_file, of_flags] = &mut self.destinations;
        let types = match (self.quiet, self.verbose) {
            (true, _) => LogTypes::NONE,
            (false, true) => LogTypes::ALL,
            (false, false) => self.types[1].or(self.types[0]).unwrap_or(defaults.types),
        };
        LogConfig {
            destinations: of_flags.take().or(of_file.take()).unwrap_or(defaults.destinations),
            types,
            timestamp: self.timestamp.unwrap_or(defaults.timestamp),
            timestamp_format: self.timestamp_format.take(),
            facility: self.facility,
        }
    }
}
