//! Who connects, what they subscribe to and what they publish how fast: the plan of a scenario, made of numbers alone.
//! The engine carries it out.

use std::ops::Range;

use crate::scenario::{Shape, Speed, Traffic};
use crate::wire::numbered;

/// Deliveries on their way at a time over all publishers that send as fast as they may.
pub const OUTSTANDING_MAX: u32 = 20_000;
/// Unacknowledged QoS 1 and 2 messages of a publisher.
pub const WINDOW: u32 = 20;

#[derive(Default)]
pub struct Plan {
    pub clients: Vec<ClientPlan>,
    pub streams: Vec<StreamPlan>,
    pub feeds: Vec<FeedPlan>,
    /// New connections a second; 0 = as many as are answered.
    pub connects_per_s: u32,
    /// A relay that knows nothing but routes can stand in for the broker.
    pub has_routes: bool,
}

#[derive(Default)]
pub struct ClientPlan {
    pub id: String,
    /// The session is kept when the client leaves.
    pub is_durable: bool,
    pub keep_alive_s: u16,
    pub will_topic: Option<String>,
    pub filters: Vec<String>,
    /// So many more filters: this one with a number for each `{n}`.
    pub numbered_filters: Option<(String, u32)>,
    /// Asked for with all filters.
    pub qos: u8,
    /// The streams whose messages all come to this client.
    pub sees: Range<u32>,
    /// Of what it sees others get their part.
    pub is_shared: bool,
    /// What it sees comes in no certain order, as retained messages do.
    pub is_unordered: bool,
    pub route: Route,
    /// Reads slowly, if at all.
    pub slow: Option<SlowReader>,
}

/// What a client is to the relay.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum Route {
    #[default]
    None,
    Publish(u32),
    Subscribe(u32),
}

#[derive(Clone, Copy)]
pub struct SlowReader {
    pub receive_buffer: u32,
    /// Reads nothing for so long once it has subscribed.
    pub starts_after_ms: u64,
    pub bytes_per_s: u32,
}

impl ClientPlan {
    pub fn filter_count(&self) -> u32 {
        self.filters.len() as u32 + self.numbered_filters.as_ref().map_or(0, |(_, count)| *count)
    }

    pub fn filter(&self, at: u32) -> String {
        match (self.filters.get(at as usize), &self.numbered_filters) {
            (Some(filter), _) => filter.clone(),
            (None, Some((pattern, _))) => numbered(pattern, at - self.filters.len() as u32),
            (None, None) => String::new(),
        }
    }
}

/// Messages numbered in one row: those of one publisher to one topic, or to its topics in turn.
#[derive(Clone, Default)]
pub struct StreamPlan {
    pub topic: String,
    /// The messages go to so many topics: this one with a number for each `{n}`. 0 = to this one.
    pub topic_count: u32,
    pub qos: u8,
    pub retain: bool,
    pub payload_len: u32,
    /// Subscribers of each message.
    pub fan: u32,
}

pub struct FeedPlan {
    pub client: u32,
    pub what: What,
    pub pace: Pace,
    /// Ends after so many; 0 = never.
    pub limit: u64,
}

pub enum What {
    /// A message of each of these streams in turn.
    Publish(Range<u32>),
    Ping,
}

#[derive(Clone, Copy)]
pub enum Pace {
    /// As fast as deliveries and acknowledgements come back, with so many deliveries on their way.
    Open { outstanding: u32 },
    /// One each interval, the first after the offset.
    Every { interval_ns: u64, offset_ns: u64 },
}

impl Pace {
    /// So many a second; the one with number `at` of many like it begins at another time than the others.
    pub fn per_second(rate: f64, at: u32) -> Pace {
        let interval_ns = (1e9 / rate) as u64;
        // The multiples of the golden ratio are spread evenly, however many they are.
        let offset_ns = (f64::from(at) * 0.618_033_988_749_895).fract() * interval_ns as f64;
        Pace::Every { interval_ns, offset_ns: offset_ns as u64 }
    }
}

impl Plan {
    pub fn add_client(&mut self, client: ClientPlan) -> u32 {
        self.clients.push(client);
        self.clients.len() as u32 - 1
    }

    pub fn add_stream(&mut self, stream: StreamPlan) -> u32 {
        self.streams.push(stream);
        self.streams.len() as u32 - 1
    }

    /// Feeds of one client must be added one after the other.
    pub fn publish(&mut self, client: u32, streams: Range<u32>, pace: Pace) {
        self.feeds.push(FeedPlan { client, what: What::Publish(streams), pace, limit: 0 });
    }

    /// The plan of publishers and subscribers in one of the usual shapes.
    pub fn of_traffic(traffic: &Traffic) -> Plan {
        let is_alike = traffic.publish_qos == 0 && traffic.acknowledged_publishers == 0 && traffic.subscribe_qos == 0;
        let mut plan = Plan { has_routes: is_alike, ..Plan::default() };
        match traffic.shape {
            Shape::Pairs(count) => plan.pairs(traffic, count),
            Shape::FanIn(publishers) => plan.fan_in(traffic, publishers),
            Shape::FanOut { publishers, topics, subscribers } => plan.fan_out(traffic, publishers, topics, subscribers),
            Shape::Shared { publishers, members } => plan.shared(traffic, publishers, members),
        }
        plan.has_routes &= plan.clients.iter().all(|client| client.route != Route::None);
        plan
    }

    fn subscriber(&mut self, traffic: &Traffic, at: u32, sees: Range<u32>, filters: Vec<String>) -> &mut ClientPlan {
        self.clients.push(ClientPlan {
            id: format!("load-sub-{at}"),
            keep_alive_s: traffic.keep_alive_s,
            filters,
            qos: traffic.subscribe_qos,
            sees,
            ..ClientPlan::default()
        });
        let last = self.clients.len() - 1;
        &mut self.clients[last]
    }

    /// A publisher with a feed of `topics`; `fan` deliveries of each message.
    fn publisher(&mut self, traffic: &Traffic, at: u32, all: u32, route: Route, topics: Vec<String>, fan: u32) {
        let is_acknowledged = at < traffic.acknowledged_publishers;
        let first = self.streams.len() as u32;
        for topic in topics {
            self.add_stream(StreamPlan {
                topic,
                topic_count: traffic.topic_count,
                qos: traffic.publish_qos.max(u8::from(is_acknowledged)),
                retain: traffic.retain,
                payload_len: traffic.payload_len,
                fan,
            });
        }
        let client = self.add_client(ClientPlan {
            id: publisher_id(at),
            keep_alive_s: traffic.keep_alive_s,
            route,
            ..ClientPlan::default()
        });
        let pace = match traffic.speed {
            Speed::Open => Pace::Open { outstanding: (OUTSTANDING_MAX / all).max(fan) },
            Speed::PerPublisher(rate) => Pace::per_second(rate, at),
        };
        self.publish(client, first..self.streams.len() as u32, pace);
    }

    fn pairs(&mut self, traffic: &Traffic, count: u32) {
        for at in 0..count {
            let numbers = (traffic.topic_count > 0).then(|| (format!("pairs/{at:05}/{{n}}"), traffic.topic_count));
            let filters = if numbers.is_none() { vec![format!("pairs/{at:05}/state")] } else { Vec::new() };
            let subscriber = self.subscriber(traffic, at, at..at + 1, filters);
            subscriber.numbered_filters = numbers;
            subscriber.route = Route::Subscribe(at);
        }
        for at in 0..count {
            let last = if traffic.topic_count > 0 { "{n}" } else { "state" };
            let topic = format!("pairs/{at:05}/{last}");
            self.publisher(traffic, at, count, Route::Publish(at), vec![topic], 1);
        }
    }

    fn fan_in(&mut self, traffic: &Traffic, publishers: u32) {
        self.subscriber(traffic, 0, 0..publishers, vec!["s/+/state".into()]).route = Route::Subscribe(0);
        for at in 0..publishers {
            self.publisher(traffic, at, publishers, Route::Publish(0), vec![format!("s/{at}/state")], 1);
        }
    }

    fn fan_out(&mut self, traffic: &Traffic, publishers: u32, topics: u32, subscribers: u32) {
        let topic = |publisher: u32, topic: u32| format!("fanout/{publisher}/{topic}");
        let filters: Vec<String> = match traffic.filter {
            Some(filter) => vec![filter.to_string()],
            None => (0..publishers).flat_map(|p| (0..topics).map(move |t| topic(p, t))).collect(),
        };
        for at in 0..subscribers {
            self.subscriber(traffic, at, 0..publishers * topics, filters.clone()).route = Route::Subscribe(0);
        }
        for at in 0..publishers {
            let topics = (0..topics).map(|number| topic(at, number)).collect();
            self.publisher(traffic, at, publishers, Route::Publish(0), topics, subscribers);
        }
    }

    fn shared(&mut self, traffic: &Traffic, publishers: u32, members: u32) {
        for at in 0..members {
            self.subscriber(traffic, at, 0..publishers, vec!["$share/perf/test/#".into()]).is_shared = true;
        }
        for at in 0..publishers {
            self.publisher(traffic, at, publishers, Route::None, vec![format!("test/{}", publisher_id(at))], 1);
        }
    }
}

fn publisher_id(at: u32) -> String {
    format!("load-pub-{at}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{SCENARIOS, Task};

    #[test]
    fn every_plan_fits_together() {
        for scenario in SCENARIOS {
            let Task::Traffic(traffic) = &scenario.task else { continue };
            let plan = Plan::of_traffic(traffic);
            let mut fans = vec![0; plan.streams.len()];
            for client in &plan.clients {
                assert!(client.filter_count() > 0 || client.sees.is_empty(), "{}", scenario.id);
                client.sees.clone().for_each(|stream| fans[stream as usize] += 1);
            }
            for (stream, fan) in plan.streams.iter().zip(fans) {
                assert!(stream.fan == fan || stream.fan == 1, "{}: {} of {fan}", scenario.id, stream.fan);
            }
            for feed in &plan.feeds {
                let What::Publish(streams) = &feed.what else { continue };
                assert!(!streams.is_empty() && streams.end as usize <= plan.streams.len(), "{}", scenario.id);
            }
        }
    }

    #[test]
    fn numbered_filters_follow_the_listed_ones() {
        let filters = vec!["a".to_string()];
        let client = ClientPlan { filters, numbered_filters: Some(("b/{n}".into(), 2)), ..ClientPlan::default() };
        let all: Vec<String> = (0..client.filter_count()).map(|at| client.filter(at)).collect();
        assert_eq!(all, ["a", "b/0000000", "b/0000001"]);
    }

    #[test]
    fn paced_publishers_do_not_all_begin_at_once() {
        let mut offsets = Vec::new();
        for at in 0..1000 {
            let Pace::Every { interval_ns, offset_ns } = Pace::per_second(10.0, at) else { panic!() };
            assert_eq!(interval_ns, 100_000_000);
            offsets.push(offset_ns);
        }
        offsets.sort_unstable();
        assert!(offsets.windows(2).all(|two| two[1] - two[0] < 400_000));
    }
}
