//! CONNECT, put together word by word. What is not said is: clean, no keep-alive, no will, no credentials.

use midge::codec::{Connect, Packet, PropertiesBuf, Version, Will};

use crate::script::{PublishWords, property};

#[derive(Clone)]
pub struct Hello {
    pub version: Version,
    client_id: String,
    clean: bool,
    bridge: bool,
    keep_alive_s: u16,
    will: String,
    username: Option<String>,
    password: Option<String>,
    properties: String,
}

pub fn v31(client_id: &str) -> Hello {
    Hello::new(Version::V31, client_id)
}

pub fn v311(client_id: &str) -> Hello {
    Hello::new(Version::V311, client_id)
}

pub fn v5(client_id: &str) -> Hello {
    Hello::new(Version::V5, client_id)
}

/// For behaviour that is the same in all versions.
pub const EVERY: [fn(&str) -> Hello; 3] = [v31, v311, v5];
/// For behaviour that 3.1.1 and 5.0 share.
pub const BOTH: [fn(&str) -> Hello; 2] = [v311, v5];

impl Hello {
    fn new(version: Version, client_id: &str) -> Hello {
        Hello {
            version,
            client_id: client_id.to_string(),
            clean: true,
            bridge: false,
            keep_alive_s: 0,
            will: String::new(),
            username: None,
            password: None,
            properties: String::new(),
        }
    }

    /// Clean Session or Clean Start 0; in 5.0 with a Session Expiry Interval of an hour.
    pub fn stored(mut self) -> Hello {
        self.clean = false;
        match self.version {
            Version::V5 => self.with("session-expiry=3600"),
            _ => self,
        }
    }

    /// Clean Session or Clean Start as told, and nothing else.
    pub fn clean(mut self, clean: bool) -> Hello {
        self.clean = clean;
        self
    }

    pub fn keep_alive(mut self, seconds: u16) -> Hello {
        self.keep_alive_s = seconds;
        self
    }

    /// `q1 retain TOPIC PAYLOAD will-delay=5 ...`
    pub fn will(mut self, will: &str) -> Hello {
        self.will = will.to_string();
        self
    }

    pub fn username(mut self, username: &str) -> Hello {
        self.username = Some(username.to_string());
        self
    }

    pub fn password(mut self, password: &str) -> Hello {
        self.password = Some(password.to_string());
        self
    }

    /// As a Mosquitto bridge: the high bit of the protocol level is set.
    pub fn bridge(mut self) -> Hello {
        self.bridge = true;
        self
    }

    /// Properties: `receive-max=5 session-expiry=100`.
    pub fn with(mut self, properties: &str) -> Hello {
        self.properties = format!("{} {properties}", self.properties);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let properties = properties_of(&self.properties);
        let (will_properties, words) = (properties_of(&self.will), words_of(&self.will));
        let will = (!words.is_empty()).then(|| PublishWords::parse(&words));
        let connect = Connect {
            version: self.version,
            bridge: self.bridge,
            clean_start: self.clean,
            session_expiry_s: 0,
            keep_alive_s: self.keep_alive_s,
            client_id: &self.client_id,
            will: will.as_ref().map(|will| Will {
                qos: will.qos,
                retain: will.retain,
                topic: will.topic,
                payload: &will.payload,
                properties: will_properties.as_properties(),
            }),
            username: self.username.as_deref(),
            password: self.password.as_deref().map(str::as_bytes),
            properties: properties.as_properties(),
        };
        let mut out = Vec::new();
        Packet::Connect(connect).encode(self.version, &mut out);
        out
    }
}

fn properties_of(text: &str) -> PropertiesBuf {
    let mut properties = PropertiesBuf::default();
    text.split_whitespace().filter_map(property).for_each(|property| properties.push(property));
    properties
}

fn words_of(text: &str) -> Vec<&str> {
    text.split_whitespace().filter(|word| property(word).is_none()).collect()
}
