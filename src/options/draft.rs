//! What the options fill in while they are read. Defaults that depend on other options are settled when all are known.

use log::LevelFilter;

use super::Settings;
use crate::config::{Config, Host, ListenerConfig, Persistence, Protocol, Rules};

/// The port of MQTT.
const PORT: u16 = 1883;

#[derive(Debug, Default)]
pub struct Draft {
    pub core: Config,
    /// Of every listener.
    pub rules: Rules,
    /// Ports for this machine alone.
    pub local_ports: Vec<u16>,
    pub listeners: Vec<(u16, Host, Protocol)>,
    /// The protocol of `local_ports`.
    pub local_protocol: Option<Protocol>,
    pub allow_anonymous: Option<bool>,
    pub persistence: bool,
    /// Bytes; 0 = none. Nothing said: an eighth of the machine's.
    pub memory_limit: Option<u32>,
    pub persistence_location: Option<String>,
    pub persistence_sync: Option<Persistence>,
    pub verbose: bool,
    pub quiet: bool,
    pub question: Option<Question>,
}

/// What is answered instead of serving.
#[derive(Debug, PartialEq, Eq)]
pub enum Question {
    Help,
    Version,
}

impl Draft {
    /// Of the last listener so far, or, before there is one, of what is listened on without.
    pub fn set_protocol(&mut self, protocol: Protocol) {
        match self.listeners.last_mut() {
            Some((_, _, own)) => *own = protocol,
            None => self.local_protocol = Some(protocol),
        }
    }

    pub fn settle(self) -> Settings {
        let local_only = self.listeners.is_empty();
        let allow_anonymous = self.allow_anonymous.unwrap_or(local_only);
        let mut warnings = Vec::new();
        let mut listeners = self.listeners;
        if !local_only && !self.local_ports.is_empty() {
            warnings.push("--port is ignored, because a listener is configured.".to_string());
        }
        if !local_only && self.local_protocol.is_some() {
            warnings.push(
                "--protocol before the first --listener is ignored: it holds for the --listener that stands before it."
                    .to_string(),
            );
        }
        if local_only {
            let ports = if self.local_ports.is_empty() { vec![PORT] } else { self.local_ports };
            let protocol = self.local_protocol.unwrap_or_default();
            listeners.extend(ports.into_iter().map(|port| (port, Host::Loopback, protocol)));
        }
        let mut core = self.core;
        if self.persistence {
            core.persistence = self.persistence_sync.unwrap_or(Persistence::Always);
        } else if self.persistence_location.is_some() || self.persistence_sync.is_some() {
            warnings.push(
                "Nothing will be stored: --persistence-location and --persistence-sync need --persistence true."
                    .to_string(),
            );
        }
        match core.persistence {
            Persistence::Interval(seconds) => warnings.push(format!(
                "persistence_sync is 'interval {seconds}': when the broker or its machine dies, what was acknowledged in \
                 the last {seconds} seconds is lost."
            )),
            Persistence::Never => warnings.push(
                "persistence_sync is 'never': when the power is cut, what was acknowledged in the last half minute or so \
                 is lost, as much as the system had not written yet."
                    .to_string(),
            ),
            Persistence::Off | Persistence::Always => {}
        }
        let rules = Rules { allow_anonymous, ..self.rules };
        let listener = |(port, host, protocol)| ListenerConfig {
            protocol,
            rules: rules.clone(),
            ..ListenerConfig::new(port, host)
        };
        Settings {
            core,
            memory_limit: self.memory_limit.map(u64::from),
            store: self.persistence.then(|| self.persistence_location.unwrap_or_else(|| ".".to_string()).into()),
            listeners: listeners.into_iter().map(listener).collect(),
            local_only,
            log_level: match (self.quiet, self.verbose) {
                (true, _) => LevelFilter::Off,
                (false, true) => LevelFilter::Debug,
                (false, false) => LevelFilter::Info,
            },
            warnings,
        }
    }
}
