//! One rumqttc client, 3.1.1 or 5.0, behind the same face, and all that it saw.
//!
//! The event loop runs as a task and turns packets into `Event`s; `Peer` takes them up while it waits for something.
//! Whatever fails is a text for the report.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rumqttc::v5::mqttbytes::v5 as packets5;
use rumqttc::{Packet, v5};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

pub use rumqttc::v5::mqttbytes::v5::{
    Filter, LastWillProperties, PublishProperties, RetainForwardRule, SubscribeProperties,
};

pub type Outcome<T = ()> = Result<T, String>;

const TIMEOUT: Duration = Duration::from_secs(15);
/// rumqttc refuses packets above 10 KiB unless it is told otherwise.
const PACKET_BYTES_MAX: u32 = 4 << 20;
/// Requests that wait for the event loop; more than any check sends at once.
const REQUESTS_MAX: usize = 1000;
const SETTLE: &str = "settle/";

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Version {
    V311,
    V5,
}

#[derive(Clone)]
pub struct Will {
    pub topic: String,
    pub payload: &'static str,
    pub qos: u8,
    pub retain: bool,
    pub properties: Option<LastWillProperties>,
}

#[derive(Clone)]
pub struct Options {
    pub clean: bool,
    pub keep_alive_s: u64,
    pub will: Option<Will>,
    /// Of 5.0 only.
    pub session_expiry_s: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self { clean: true, keep_alive_s: 60, will: None, session_expiry_s: None }
    }
}

impl Options {
    /// A session that outlives its connection.
    pub fn durable() -> Self {
        Self { clean: false, session_expiry_s: Some(300), ..Self::default() }
    }
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub properties: PublishProperties,
}

impl Seen {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }
}

#[derive(Debug)]
pub struct Connected {
    pub session_present: bool,
    pub topic_alias_max: u16,
}

enum Event {
    Connected(Connected),
    Message(Seen),
    Subscribed(Vec<u8>),
    Unsubscribed(Vec<u8>),
    Acknowledged(u8),
    Pinged,
    Ended(String),
}

enum Client {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

pub struct Peer {
    client: Client,
    id: String,
    task: JoinHandle<()>,
    events: Receiver<Event>,
    pub connected: Option<Connected>,
    pub messages: Vec<Seen>,
    settled: usize,
    subscribed: VecDeque<Vec<u8>>,
    unsubscribed: VecDeque<Vec<u8>>,
    pub acknowledged: Vec<u8>,
    pub pings_answered: usize,
    pub ended: Option<String>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peer {
    pub fn connect(version: Version, port: u16, id: &str, options: Options) -> Outcome<Self> {
        let (sender, events) = channel();
        let (client, task) = match version {
            Version::V311 => connect_v311(port, id, options, sender),
            Version::V5 => connect_v5(port, id, options, sender),
        };
        let mut peer = Self {
            client,
            id: id.to_owned(),
            task,
            events,
            connected: None,
            messages: Vec::new(),
            settled: 0,
            subscribed: VecDeque::new(),
            unsubscribed: VecDeque::new(),
            acknowledged: Vec::new(),
            pings_answered: 0,
            ended: None,
        };
        peer.wait("CONNACK", |peer| peer.connected.is_some())?;
        Ok(peer)
    }

    pub fn session_present(&self) -> bool {
        self.connected.as_ref().is_some_and(|connected| connected.session_present)
    }

    /// Takes up events until the condition holds.
    pub fn wait(&mut self, what: &str, condition: impl Fn(&Self) -> bool) -> Outcome {
        let until = Instant::now() + TIMEOUT;
        while !condition(self) {
            if let Some(reason) = &self.ended {
                return Err(format!("connection ended before {what}: {reason}"));
            }
            match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.take_up(event),
                Err(_) => return Err(format!("no {what} within {} s", TIMEOUT.as_secs())),
            }
        }
        Ok(())
    }

    /// Waits until the broker has closed the connection, and returns what rumqttc says about it.
    pub fn wait_end(&mut self) -> Outcome<String> {
        self.wait("end of the connection", |peer| peer.ended.is_some())?;
        Ok(self.ended.clone().unwrap_or_default())
    }

    fn take_up(&mut self, event: Event) {
        match event {
            Event::Connected(connected) => self.connected = Some(connected),
            Event::Message(message) if message.topic.starts_with(SETTLE) => self.settled += 1,
            Event::Message(message) => self.messages.push(message),
            Event::Subscribed(codes) => self.subscribed.push_back(codes),
            Event::Unsubscribed(codes) => self.unsubscribed.push_back(codes),
            Event::Acknowledged(code) => self.acknowledged.push(code),
            Event::Pinged => self.pings_answered += 1,
            Event::Ended(reason) => self.ended = Some(reason),
        }
    }

    /// At least this many messages.
    pub fn receive(&mut self, count: usize) -> Outcome<&[Seen]> {
        let result = self.wait("message", |peer| peer.messages.len() >= count);
        result.map_err(|reason| format!("{} of {count} messages: {reason}", self.messages.len()))?;
        Ok(&self.messages)
    }

    /// As `receive`, and none beyond.
    pub fn exactly(&mut self, count: usize) -> Outcome<&[Seen]> {
        self.receive(count)?;
        self.settle()?;
        match self.messages.get(count) {
            None => Ok(&self.messages),
            Some(extra) => Err(format!("more than {count} messages, the next is on {}", extra.topic)),
        }
    }

    /// Three markers out and back: what was under way before has arrived.
    pub fn settle(&mut self) -> Outcome {
        let topic = format!("{SETTLE}{}", self.id);
        self.subscribe(&topic, 0)?;
        for _ in 0..3 {
            let before = self.settled;
            self.send(&topic, 0, false, "", None)?;
            self.wait("marker", |peer| peer.settled > before)?;
        }
        Ok(())
    }

    /// Subscribes and returns the granted QoS or reason code.
    pub fn subscribe(&mut self, filter: &str, qos: u8) -> Outcome<u8> {
        let codes = self.subscribe_many(&[(filter, qos)])?;
        codes.first().copied().ok_or_else(|| "empty SUBACK".to_owned())
    }

    pub fn subscribe_many(&mut self, filters: &[(&str, u8)]) -> Outcome<Vec<u8>> {
        match &self.client {
            Client::V311(client) => {
                let filters =
                    filters.iter().map(|(path, qos)| rumqttc::SubscribeFilter::new((*path).into(), qos311(*qos)));
                requested(client.subscribe_many(filters))?;
            }
            Client::V5(client) => {
                requested(client.subscribe_many(filters.iter().map(|(path, qos)| Filter::new(*path, qos5(*qos)))))?;
            }
        }
        self.granted()
    }

    /// Subscribes with what only 5.0 has.
    pub fn subscribe_with(&mut self, filter: Filter, properties: SubscribeProperties) -> Outcome<Vec<u8>> {
        match &self.client {
            Client::V311(_) => return Err("no subscription options in 3.1.1".into()),
            Client::V5(client) => requested(client.subscribe_many_with_properties([filter], properties))?,
        }
        self.granted()
    }

    fn granted(&mut self) -> Outcome<Vec<u8>> {
        self.wait("SUBACK", |peer| !peer.subscribed.is_empty())?;
        Ok(self.subscribed.pop_front().unwrap_or_default())
    }

    pub fn unsubscribe(&mut self, filter: &str) -> Outcome<Vec<u8>> {
        match &self.client {
            Client::V311(client) => requested(client.unsubscribe(filter))?,
            Client::V5(client) => requested(client.unsubscribe(filter))?,
        }
        self.wait("UNSUBACK", |peer| !peer.unsubscribed.is_empty())?;
        Ok(self.unsubscribed.pop_front().unwrap_or_default())
    }

    /// Publishes and waits for the acknowledgement.
    pub fn publish(&mut self, topic: &str, qos: u8, retain: bool, payload: impl Into<Vec<u8>>) -> Outcome {
        self.publish_with(topic, qos, retain, payload, None)
    }

    pub fn publish_with(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<Vec<u8>>,
        properties: Option<PublishProperties>,
    ) -> Outcome {
        let before = self.acknowledged.len();
        self.send(topic, qos, retain, payload, properties)?;
        match qos {
            0 => Ok(()),
            _ => self.wait("acknowledgement", |peer| peer.acknowledged.len() > before),
        }
    }

    /// Hands a message to the event loop.
    pub fn send(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<Vec<u8>>,
        properties: Option<PublishProperties>,
    ) -> Outcome {
        let payload = payload.into();
        match (&self.client, properties) {
            (Client::V311(client), _) => requested(client.publish(topic, qos311(qos), retain, payload)),
            (Client::V5(client), None) => requested(client.publish(topic, qos5(qos), retain, payload)),
            (Client::V5(client), Some(properties)) => {
                requested(client.publish_with_properties(topic, qos5(qos), retain, payload, properties))
            }
        }
    }

    /// Sends DISCONNECT and waits until the broker has closed the connection.
    pub fn disconnect(mut self) -> Outcome {
        match &self.client {
            Client::V311(client) => requested(client.disconnect())?,
            Client::V5(client) => requested(client.disconnect())?,
        }
        self.wait_end().map(|_| ())
    }

    /// The socket goes away without a DISCONNECT.
    pub fn cut(mut self) {
        self.task.abort();
        let _ = RUNTIME.block_on(&mut self.task);
    }
}

/// Waits until the event loop has taken a request.
fn requested<E: std::fmt::Display>(request: impl Future<Output = Result<(), E>>) -> Outcome {
    let result = RUNTIME.block_on(async { tokio::time::timeout(TIMEOUT, request).await });
    result.map_err(|_| "the event loop takes no request".to_owned())?.map_err(|error| error.to_string())
}

fn qos311(qos: u8) -> rumqttc::QoS {
    rumqttc::qos(qos).expect("QoS is 0 to 2")
}

fn qos5(qos: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(qos).expect("QoS is 0 to 2")
}

fn connect_v311(port: u16, id: &str, options: Options, sender: Sender<Event>) -> (Client, JoinHandle<()>) {
    let mut made = rumqttc::MqttOptions::new(id, "127.0.0.1", port);
    made.set_keep_alive(Duration::from_secs(options.keep_alive_s));
    made.set_clean_session(options.clean);
    made.set_max_packet_size(PACKET_BYTES_MAX as usize, PACKET_BYTES_MAX as usize);
    if let Some(will) = options.will {
        made.set_last_will(rumqttc::LastWill::new(will.topic, will.payload, qos311(will.qos), will.retain));
    }
    let (client, mut event_loop) = rumqttc::AsyncClient::new(made, REQUESTS_MAX);
    let task = RUNTIME.spawn(async move {
        loop {
            let event = match event_loop.poll().await {
                Ok(rumqttc::Event::Incoming(packet)) => event_v311(packet),
                Ok(rumqttc::Event::Outgoing(_)) => None,
                Err(error) => Some(Event::Ended(format!("{error:?}"))),
            };
            let ended = matches!(event, Some(Event::Ended(_)));
            if event.is_some_and(|event| sender.send(event).is_err()) || ended {
                return;
            }
        }
    });
    (Client::V311(client), task)
}

fn event_v311(packet: Packet) -> Option<Event> {
    Some(match packet {
        Packet::ConnAck(connack) => {
            Event::Connected(Connected { session_present: connack.session_present, topic_alias_max: 0 })
        }
        Packet::Publish(publish) => Event::Message(Seen {
            topic: publish.topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            properties: PublishProperties::default(),
        }),
        Packet::SubAck(suback) => Event::Subscribed(
            suback
                .return_codes
                .iter()
                .map(|code| match code {
                    rumqttc::SubscribeReasonCode::Success(qos) => *qos as u8,
                    rumqttc::SubscribeReasonCode::Failure => 0x80,
                })
                .collect(),
        ),
        Packet::UnsubAck(_) => Event::Unsubscribed(Vec::new()),
        Packet::PubAck(_) | Packet::PubComp(_) => Event::Acknowledged(0),
        Packet::PingResp => Event::Pinged,
        _ => return None,
    })
}

fn connect_v5(port: u16, id: &str, options: Options, sender: Sender<Event>) -> (Client, JoinHandle<()>) {
    let mut made = v5::MqttOptions::new(id, "127.0.0.1", port);
    made.set_keep_alive(Duration::from_secs(options.keep_alive_s));
    made.set_clean_start(options.clean);
    made.set_max_packet_size(Some(PACKET_BYTES_MAX));
    made.set_session_expiry_interval(options.session_expiry_s);
    if let Some(will) = options.will {
        let qos = qos5(will.qos);
        made.set_last_will(packets5::LastWill::new(will.topic, will.payload, qos, will.retain, will.properties));
    }
    let (client, mut event_loop) = v5::AsyncClient::new(made, REQUESTS_MAX);
    let task = RUNTIME.spawn(async move {
        loop {
            let event = match event_loop.poll().await {
                Ok(v5::Event::Incoming(packet)) => event_v5(packet),
                Ok(v5::Event::Outgoing(_)) => None,
                Err(error) => Some(Event::Ended(format!("{error:?}"))),
            };
            let ended = matches!(event, Some(Event::Ended(_)));
            if event.is_some_and(|event| sender.send(event).is_err()) || ended {
                return;
            }
        }
    });
    (Client::V5(client), task)
}

fn event_v5(packet: packets5::Packet) -> Option<Event> {
    use packets5::{Packet, PubAckReason, SubscribeReasonCode, UnsubAckReason};
    Some(match packet {
        Packet::ConnAck(connack) => Event::Connected(Connected {
            session_present: connack.session_present,
            topic_alias_max: connack.properties.and_then(|properties| properties.topic_alias_max).unwrap_or(0),
        }),
        Packet::Publish(publish) => Event::Message(Seen {
            topic: String::from_utf8_lossy(&publish.topic).into_owned(),
            payload: publish.payload.to_vec(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            properties: publish.properties.unwrap_or_default(),
        }),
        Packet::SubAck(suback) => Event::Subscribed(
            suback
                .return_codes
                .iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(qos) => *qos as u8,
                    _ => 0x80,
                })
                .collect(),
        ),
        Packet::UnsubAck(unsuback) => Event::Unsubscribed(
            unsuback
                .reasons
                .iter()
                .map(|reason| match reason {
                    UnsubAckReason::Success => 0,
                    UnsubAckReason::NoSubscriptionExisted => 0x11,
                    _ => 0x80,
                })
                .collect(),
        ),
        Packet::PubAck(puback) => Event::Acknowledged(match puback.reason {
            PubAckReason::Success => 0,
            PubAckReason::NoMatchingSubscribers => 0x10,
            _ => 0x80,
        }),
        Packet::PubComp(_) => Event::Acknowledged(0),
        Packet::PingResp(_) => Event::Pinged,
        _ => return None,
    })
}
