//! The scenarios that are more than a stream of messages: populations whose memory is measured, a house that starts, a storm.

use std::io;

use crate::engine::{Engine, SECOND_NS};
use crate::plan::{ClientPlan, FeedPlan, Pace, Plan, SlowReader, StreamPlan, What};
use crate::report::{Outcome, Report};
use crate::run::Run;
use crate::scenario::Task;

const KEEP_ALIVE_S: u16 = 60;
/// As much on its way as the window allows.
const UNBOUNDED: Pace = Pace::Open { outstanding: u32::MAX };
/// Clients among which subscriptions are divided.
const SUBSCRIBERS: u32 = 10;
/// Clients away among which queued messages are divided: no queue gets more than brokers hold by default.
const ABSENT: u32 = 20;

type Start<'a, 'b> = &'b dyn Fn(Plan) -> Result<Run<'a>, String>;

pub fn run<'a>(task: &Task, start: impl Fn(Plan) -> Result<Run<'a>, String>) -> io::Result<Report> {
    match *task {
        Task::Subscriptions(count) => subscriptions(count, &start),
        Task::Retained(count) => retained(count, &start),
        Task::Queued(count) => queued(count, &start),
        Task::HomeStart(count) => home_start(count, &start),
        Task::Zigbee(devices) => zigbee(devices, &start),
        Task::Storm(count) => storm(count, &start),
        _ => Err(io::Error::other("is no scenario of its own")),
    }
}

fn client(id: String) -> ClientPlan {
    ClientPlan { id, keep_alive_s: KEEP_ALIVE_S, ..ClientPlan::default() }
}

fn burst(client: u32, streams: std::ops::Range<u32>, limit: u64) -> FeedPlan {
    FeedPlan { client, what: What::Publish(streams), pace: UNBOUNDED, limit }
}

pub fn connections(count: u32, per_s: u32, keep_alive_s: u16, ping_interval_s: f64) -> Plan {
    let mut plan = Plan { connects_per_s: per_s, ..Plan::default() };
    for at in 0..count {
        let id = plan.add_client(ClientPlan { keep_alive_s, ..client(format!("load-idle-{at}")) });
        if ping_interval_s > 0.0 {
            let pace = Pace::per_second(1.0 / ping_interval_s, at);
            plan.feeds.push(FeedPlan { client: id, what: What::Ping, pace, limit: 0 });
        }
    }
    plan
}

/// Bytes per subscription; then each of them gets a message.
fn subscriptions(count: u32, start: Start) -> io::Result<Report> {
    let mut plan = Plan::default();
    let each = count.div_ceil(SUBSCRIBERS);
    for at in 0..SUBSCRIBERS {
        // Of every filter the second level and the third are its own.
        let pattern = format!("house/room{at}-{{n}}/lamp{{n}}");
        let topic = StreamPlan { topic: pattern.clone(), topic_count: each, fan: 1, ..StreamPlan::default() };
        plan.add_stream(topic);
        let numbered_filters = Some((pattern, each));
        plan.add_client(ClientPlan { numbered_filters, sees: at..at + 1, ..client(format!("load-sub-{at}")) });
    }
    let publisher = plan.add_client(client("load-pub".into()));
    for at in 0..SUBSCRIBERS {
        let pace = Pace::Open { outstanding: 1000 };
        plan.feeds.push(FeedPlan { client: publisher, what: What::Publish(at..at + 1), pace, limit: each.into() });
    }
    let mut run = start(plan).map_err(io::Error::other)?;
    run.bring_up(run.everybody())?;
    run.settle_down()?;
    run.bytes_each("bytes_per_subscription", each * SUBSCRIBERS)?;
    publish_all(&mut run, u64::from(each * SUBSCRIBERS), Engine::is_settled)?;
    run.finish()
}

/// Runs the feeds until they have sent `count` messages and all is done with them, as the measured span.
fn publish_all(run: &mut Run, count: u64, is_done: impl Fn(&Engine) -> bool) -> io::Result<()> {
    let sent = run.engine.tally.published + count;
    run.engine.start_all_feeds();
    run.engine.last_progress = run.engine.clock();
    let is_over = |engine: &Engine| engine.tally.published >= sent && is_done(engine) || engine.is_stalled();
    run.measure_while(|run, _| run.engine.drive(u64::MAX, is_over).map(drop))
}

fn is_acknowledged(engine: &Engine) -> bool {
    engine.unacknowledged == 0
}

/// Bytes per retained message; then somebody subscribes to all of them.
fn retained(count: u32, start: Start) -> io::Result<Report> {
    let mut plan = Plan::default();
    // 29 bytes with its numbers.
    let topic = "house/room{n}/lamp{n}".to_string();
    let (qos, retain, payload_len) = (1, true, 100);
    plan.add_stream(StreamPlan { topic, topic_count: count, qos, retain, payload_len, ..StreamPlan::default() });
    let publisher = plan.add_client(client("load-pub".into()));
    let filters = vec!["house/#".to_string()];
    let is_unordered = true;
    let reader = client("load-sub".into());
    let reader = plan.add_client(ClientPlan { filters, qos, sees: 0..1, is_unordered, ..reader });
    plan.feeds.push(burst(publisher, 0..1, count.into()));
    let mut run = start(plan).map_err(io::Error::other)?;
    run.bring_up(publisher..publisher + 1)?;
    publish_all(&mut run, count.into(), is_acknowledged)?;
    run.settle_down()?;
    run.bytes_each("bytes_per_retained_message", count)?;
    run.bring_up(reader..reader + 1)?;
    await_received(&mut run, reader, count.into())?;
    run.report.extra.push(("retained_received", run.engine.clients[reader as usize].received as f64));
    run.finish()
}

fn await_received(run: &mut Run, id: u32, count: u64) -> io::Result<()> {
    run.engine.last_progress = run.engine.clock();
    run.engine.drive(u64::MAX, |engine| engine.clients[id as usize].received >= count || engine.is_stalled()).map(drop)
}

/// Bytes per queued message; then those who were away come back for them.
fn queued(count: u32, start: Start) -> io::Result<Report> {
    let mut plan = Plan::default();
    for at in 0..ABSENT {
        let topic = format!("queued/{at:02}/state");
        let (filters, qos) = (vec![topic.clone()], 1);
        let absent = client(format!("load-away-{at}"));
        plan.add_client(ClientPlan { filters, qos, is_durable: true, sees: at..at + 1, ..absent });
        plan.add_stream(StreamPlan { topic, qos, payload_len: 64, fan: 1, ..StreamPlan::default() });
    }
    let publisher = plan.add_client(client("load-pub".into()));
    plan.feeds.push(burst(publisher, 0..ABSENT, count.into()));
    let mut run = start(plan).map_err(io::Error::other)?;
    run.bring_up(0..ABSENT)?;
    (0..ABSENT).for_each(|id| run.engine.leave(id));
    run.bring_up(publisher..publisher + 1)?;
    run.settle_down()?;
    run.report.memory_before = run.engine.watch.memory();
    publish_all(&mut run, count.into(), is_acknowledged)?;
    run.settle_down()?;
    run.bytes_each("bytes_per_queued_message", count)?;
    run.engine.stop_feeds();
    run.bring_up(0..ABSENT)?;
    run.finish()
}

const HOME_READERS: u32 = 4;
const HOME_PUBLISHERS: u32 = 50;
const HOME_SINGLE_FILTERS: u32 = 40;
/// What each of the four clients reports.
const HOME_FIGURES: [[&str; 3]; HOME_READERS as usize] = [
    ["retained_received_slow", "subscribed_after_ms_slow", "last_retained_after_ms_slow"],
    ["retained_received_1", "subscribed_after_ms_1", "last_retained_after_ms_1"],
    ["retained_received_2", "subscribed_after_ms_2", "last_retained_after_ms_2"],
    ["retained_received_3", "subscribed_after_ms_3", "last_retained_after_ms_3"],
];

/// A client with a feed of `count` retained messages, 50 publishers, and the four clients at the end.
fn home_plan(count: u32) -> Plan {
    let mut plan = Plan::default();
    let states = count / 5;
    for at in 0..count {
        let (topic, payload_len) = match at {
            0 => ("homeassistant/picture".to_string(), 100 * count),
            at if at <= states => (format!("house/{at}/state"), 20 + at * 7919 % 61),
            at => (format!("homeassistant/sensor/node{}/object{at}/config", at % 200), 350 + at * 7919 % 501),
        };
        plan.add_stream(StreamPlan { topic, qos: 1, retain: true, payload_len, ..StreamPlan::default() });
    }
    let loader = plan.add_client(client("load-pub".into()));
    plan.feeds.push(burst(loader, 0..count, count.into()));
    for at in 0..HOME_PUBLISHERS {
        let (topic, fan) = (format!("house/live/{at}"), HOME_READERS);
        let stream = plan.add_stream(StreamPlan { topic, qos: 1, payload_len: 64, fan, ..StreamPlan::default() });
        let id = plan.add_client(client(format!("load-pub-{at}")));
        plan.publish(id, stream..stream + 1, Pace::per_second(1.0, at));
    }
    let mut filters = vec!["#".to_string()];
    filters.extend((1..=HOME_SINGLE_FILTERS.min(states)).map(|at| format!("house/{at}/state")));
    for at in 0..HOME_READERS {
        let slow = SlowReader { receive_buffer: 4096, starts_after_ms: 3000, bytes_per_s: 200_000 };
        plan.add_client(ClientPlan {
            filters: filters.clone(),
            sees: 0..count + HOME_PUBLISHERS,
            is_unordered: true,
            slow: (at == 0).then_some(slow),
            ..client(format!("load-home-{at}"))
        });
    }
    plan
}

/// Home Assistant starts: four clients subscribe to everything at once, one of them reads late and slowly, and 50 publishers
/// must not notice.
fn home_start(count: u32, start: Start) -> io::Result<Report> {
    let mut run = start(home_plan(count)).map_err(io::Error::other)?;
    let readers = run.everybody().end - HOME_READERS..run.everybody().end;
    run.bring_up(0..readers.start)?;
    run.engine.start_feeds(0..1);
    run.engine.last_progress = run.engine.clock();
    let is_stored = |engine: &Engine| engine.feeds[0].sent >= count.into() && engine.unacknowledged == 0;
    run.engine.drive(u64::MAX, |engine| is_stored(engine) || engine.is_stalled())?;
    run.settle_down()?;
    run.report.memory_before = run.engine.watch.memory();
    run.engine.start_feeds(1..1 + HOME_PUBLISHERS);
    let started = run.engine.clock();
    run.measure_while(|run, _| {
        run.bring_up(readers.clone())?;
        // Ends when all have everything, or the slow one has not got a byte for some seconds.
        let is_over = |engine: &Engine| {
            let all = readers.clone().all(|id| retained_missing(engine, id, count) == 0);
            all || engine.now.saturating_sub(engine.clients[readers.start as usize].last_read_at) > 6 * SECOND_NS
        };
        while !is_over(&run.engine) {
            run.engine.drive_for(SECOND_NS / 2)?;
        }
        Ok(())
    })?;
    let ms = |at: u64| at.saturating_sub(started) as f64 / 1e6;
    for ([received, subscribed, complete], id) in HOME_FIGURES.into_iter().zip(readers) {
        let missing = retained_missing(&run.engine, id, count);
        let client = &run.engine.clients[id as usize];
        run.report.extra.push((received, f64::from(count - missing)));
        run.report.extra.push((subscribed, ms(client.subscribed_at)));
        run.report.extra.push((complete, ms(client.last_retained_at)));
        if missing > 0 {
            run.report.outcome = Outcome::Fail;
            run.report.notes.push(format!("{missing} of {count} retained messages did not come to {}", client.plan.id));
        }
    }
    run.finish()
}

fn retained_missing(engine: &Engine, id: u32, count: u32) -> u32 {
    engine.clients[id as usize].ledger[..count as usize].iter().map(|seen| seen.lost(1)).sum()
}

/// The one with a session, who is away at times, comes first. The feeds are the devices' states and their list.
fn zigbee_plan(devices: u32) -> Plan {
    let mut plan = Plan::default();
    for at in 0..devices {
        let (topic, retain) = (format!("zigbee2mqtt/device{at}"), at % 2 == 0);
        let payload_len = 300 + at * 7919 % 601;
        plan.add_stream(StreamPlan { topic, retain, payload_len, fan: 3, ..StreamPlan::default() });
    }
    let (topic, retain, payload_len) = ("zigbee2mqtt/bridge/devices".to_string(), true, 400_000);
    plan.add_stream(StreamPlan { topic, retain, payload_len, fan: 2, ..StreamPlan::default() });
    let own = |filters: Vec<String>, qos, sees| ClientPlan { filters, qos, sees, ..client(String::new()) };
    let all = 0..devices + 1;
    let house = own(vec!["zigbee2mqtt/#".into()], 1, all.clone());
    plan.add_client(ClientPlan { id: "load-house".into(), is_durable: true, ..house });
    plan.add_client(ClientPlan { id: "load-everything".into(), ..own(vec!["#".into()], 0, all) });
    let single = (0..devices).map(|at| format!("zigbee2mqtt/device{at}")).collect();
    plan.add_client(ClientPlan { id: "load-single".into(), ..own(single, 1, 0..devices) });
    let will_topic = Some("zigbee2mqtt/bridge/state".to_string());
    let bridge = plan.add_client(ClientPlan { will_topic, ..client("load-bridge".into()) });
    plan.publish(bridge, 0..devices, Pace::per_second(f64::from(devices) * 0.2, 0));
    plan.publish(bridge, devices..devices + 1, Pace::Every { interval_ns: 3 * SECOND_NS, offset_ns: SECOND_NS });
    plan
}

/// A Zigbee2MQTT house: one bridge publishes for all devices, and a consumer with a session is away at times.
fn zigbee(devices: u32, start: Start) -> io::Result<Report> {
    let away = 0;
    let mut run = start(zigbee_plan(devices)).map_err(io::Error::other)?;
    if run.settings.is_full {
        // The list of devices comes every ten minutes, in a short run every third second.
        run.engine.feeds[1].plan.pace = Pace::Every { interval_ns: 600 * SECOND_NS, offset_ns: SECOND_NS };
    }
    run.bring_up(run.everybody())?;
    run.engine.start_all_feeds();
    // Away for a third of each minute, or of each sixth of a short run.
    let period_s = (run.span_s() / 6.0).min(60.0);
    let part = |share: f64| (period_s * share * 1e9) as u64;
    run.measure_while(|run, until| {
        while run.engine.clock() < until {
            run.engine.drive_for(part(2.0 / 3.0))?;
            run.engine.leave(away);
            run.engine.drive_for(part(1.0 / 3.0))?;
            run.bring_up(away..away + 1)?;
        }
        Ok(())
    })?;
    let received = run.engine.clients[away as usize].received as f64;
    run.report.extra.push(("received_by_the_one_away_percent", received * 100.0 / run.engine.tally.published as f64));
    run.finish()
}

/// Everybody is cut off and comes back at once, again and again; ten publishers must not notice.
fn storm(count: u32, start: Start) -> io::Result<Report> {
    let mut plan = Plan::default();
    for at in 0..count {
        plan.add_client(ClientPlan { filters: vec![format!("storm/{at}")], ..client(format!("load-storm-{at}")) });
    }
    for at in 0..10 {
        let topic = format!("calm/{at}");
        let stream = plan.add_stream(StreamPlan { topic, qos: 1, payload_len: 64, ..StreamPlan::default() });
        let id = plan.add_client(client(format!("load-pub-{at}")));
        plan.publish(id, stream..stream + 1, Pace::per_second(10.0, at));
    }
    let mut run = start(plan).map_err(io::Error::other)?;
    run.bring_up(run.everybody())?;
    run.engine.start_all_feeds();
    let mut all_back_ns = Vec::new();
    run.measure_while(|run, until| {
        while run.engine.clock() < until {
            (0..count).for_each(|id| run.engine.cut(id));
            let cut_at = run.engine.clock();
            run.bring_up(0..count)?;
            all_back_ns.push(run.engine.clock() - cut_at);
            run.engine.drive_for(SECOND_NS)?;
        }
        Ok(())
    })?;
    all_back_ns.sort_unstable();
    let ms = |ns: Option<&u64>| ns.map_or(0.0, |&ns| ns as f64 / 1e6);
    run.report.extra.push(("storms", all_back_ns.len() as f64));
    run.report.extra.push(("all_back_ms_median", ms(all_back_ns.get(all_back_ns.len() / 2))));
    run.report.extra.push(("all_back_ms_max", ms(all_back_ns.last())));
    run.finish()
}
