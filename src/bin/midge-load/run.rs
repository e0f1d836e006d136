//! Carries out one scenario: everybody connects, a warm-up that does not count, the measured span, and the end, in which what is
//! on its way arrives. The clock of the load is the engine's, and what the broker used is read before and after the span.

use std::io;
use std::ops::Range;

use crate::client::Client;
use crate::engine::{Engine, SECOND_NS, Target};
use crate::plan::{Plan, Route};
use crate::process::{Process, Usage};
use crate::report::{Outcome, Report, Times};
use crate::scenario::{Chosen, Task};
use crate::special;
use crate::watch::Watch;

pub struct Settings {
    pub target: Target,
    /// The broker's process, if it is on this machine.
    pub process: Option<u32>,
    /// Instead of what the scenarios say.
    pub duration_s: Option<f64>,
    pub warmup_s: Option<f64>,
    /// The span ends with so many deliveries if that is before its time; 0 = it does not.
    pub messages: u64,
    /// Scenarios take as long as their definition says.
    pub is_full: bool,
    pub is_quiet: bool,
    pub descriptor_limit: u32,
}

/// Measured span and warm-up of a short run.
const SHORT_S: f64 = 5.0;
const SHORT_WARMUP_S: f64 = 1.0;
const FULL_WARMUP_S: f64 = 60.0;
/// What may be left to arrive after the span gets this long, as long as anything arrives.
const DRAIN_S: u64 = 60;
/// The broker may take so long to forget what it retains.
const FORGET_S: u64 = 30;
/// Connecting everybody takes at most this long, and what the rate of the arrivals makes necessary.
const CONNECT_S: u64 = 120;
/// Descriptors that are not connections.
const OTHER_DESCRIPTORS: usize = 32;

/// A scenario being carried out.
pub struct Run<'a> {
    pub settings: &'a Settings,
    pub engine: Engine,
    pub report: Report,
    full_s: f64,
}

pub fn run(chosen: &Chosen, settings: &Settings) -> Result<Report, String> {
    let result = match &chosen.scenario.task {
        Task::Lacking(why) => return Ok(unavailable(chosen, why.to_string())),
        Task::Traffic(traffic) => {
            let plan = Plan::of_traffic(traffic);
            if settings.target.is_relay && !plan.has_routes {
                let why = "is not for a relay: it knows no acknowledgements, and which topic goes to whom";
                return Ok(unavailable(chosen, why.to_string()));
            }
            Run::new(chosen, settings, plan)?.traffic()
        }
        Task::Connections { count, per_s, keep_alive_s, ping_interval_s } if !settings.target.is_relay => {
            let plan = special::connections(*count, *per_s, *keep_alive_s, *ping_interval_s);
            Run::new(chosen, settings, plan)?.connections(*count)
        }
        _ if settings.target.is_relay => return Ok(unavailable(chosen, "is not for a relay".to_string())),
        task => special::run(task, |plan| Run::new(chosen, settings, plan)),
    };
    result.map_err(|error| error.to_string())
}

fn unavailable(chosen: &Chosen, why: String) -> Report {
    let outcome = Outcome::Unavailable;
    Report { id: chosen.id.clone(), about: chosen.scenario.about, outcome, notes: vec![why], ..Report::default() }
}

impl<'a> Run<'a> {
    pub fn new(chosen: &Chosen, settings: &'a Settings, plan: Plan) -> Result<Run<'a>, String> {
        let needed = plan.clients.len() + OTHER_DESCRIPTORS;
        if needed > settings.descriptor_limit as usize {
            let limit = settings.descriptor_limit;
            return Err(format!("needs {needed} descriptors, and the limit is {limit} (ulimit -n)"));
        }
        let mut watch = Watch::new(&chosen.id, settings.process, settings.is_quiet);
        let memory_before = watch.memory();
        let cpu_clock = watch.process().map_or("", |process| process.clock.name());
        let engine = Engine::new(plan, settings.target, watch).map_err(|error| error.to_string())?;
        let (id, about) = (chosen.id.clone(), chosen.scenario.about);
        let report = Report { id, about, cpu_clock, memory_before, ..Report::default() };
        Ok(Run { settings, engine, report, full_s: chosen.scenario.full_s.into() })
    }

    pub fn everybody(&self) -> Range<u32> {
        0..self.engine.clients.len() as u32
    }

    pub fn span_s(&self) -> f64 {
        self.settings.duration_s.unwrap_or(if self.settings.is_full { self.full_s } else { SHORT_S })
    }

    fn warmup_s(&self) -> f64 {
        self.settings.warmup_s.unwrap_or(if self.settings.is_full { FULL_WARMUP_S } else { SHORT_WARMUP_S })
    }

    /// Has clients connect and subscribe, and waits until all of them have.
    pub fn bring_up(&mut self, ids: Range<u32>) -> io::Result<()> {
        self.engine.watch.phase("connecting");
        let count = ids.len() as u64;
        let at_least = count * self.engine.arrival_interval_ns();
        self.engine.bring_up(ids);
        let until = self.engine.clock() + at_least + CONNECT_S * SECOND_NS;
        if self.engine.drive(until, |engine| engine.coming == 0)? {
            return Ok(());
        }
        let coming = self.engine.coming;
        let why = self.engine.complaint.take().unwrap_or_else(|| "no answer".to_string());
        Err(io::Error::other(format!("{coming} of {count} clients did not get through: {why}")))
    }

    fn traffic(mut self) -> io::Result<Report> {
        let publishers = self.first_publisher();
        // Subscribers first: behind a relay nothing else makes sure that they are there in time.
        self.bring_up(0..publishers)?;
        self.bring_up(publishers..self.everybody().end)?;
        self.engine.start_all_feeds();
        self.measure()?;
        self.finish()
    }

    fn first_publisher(&self) -> u32 {
        let is_publisher = |route| matches!(route, Route::Publish(_));
        let first = self.engine.clients.iter().position(|client| is_publisher(client.plan.route));
        first.map_or(self.everybody().end, |at| at as u32)
    }

    fn connections(mut self, count: u32) -> io::Result<Report> {
        self.bring_up(self.everybody())?;
        self.settle_down()?;
        self.bytes_each("bytes_per_connection", count)?;
        self.engine.start_all_feeds();
        self.measure()?;
        self.report.pings = Times::of(&self.engine.pings);
        if let (Some(times), Some(cpu_s)) = (self.report.pings, self.report.cpu_s) {
            self.report.extra.push(("pings_per_s", self.report.per_second(times.count)));
            self.report.extra.push(("cpu_us_per_ping", cpu_s * 1e6 / times.count as f64));
        }
        self.finish()
    }

    /// A moment in which the broker does what it puts off.
    pub fn settle_down(&mut self) -> io::Result<()> {
        self.engine.drive_for(SECOND_NS / 2)
    }

    /// Waits until the broker gave back what it only used on the way: until its memory has not changed for a while.
    fn settle_memory(&mut self) -> io::Result<()> {
        const STEADY_S: u32 = 6;
        const WAIT_S: u32 = 16;
        self.engine.watch.phase("waiting for its memory to settle");
        let (mut steady_s, mut before) = (0, None);
        for _ in 0..WAIT_S {
            let now = self.engine.watch.memory().map(|memory| memory.anonymous_bytes);
            steady_s = if now == before { steady_s + 1 } else { 0 };
            before = now;
            if steady_s >= STEADY_S || now.is_none() {
                break;
            }
            // Nothing is to come meanwhile, so nobody may wait for it in vain.
            self.engine.last_progress = self.engine.clock();
            self.engine.drive_for(SECOND_NS)?;
        }
        self.engine.last_progress = self.engine.clock();
        Ok(())
    }

    /// Notes what memory has grown by since the start, for each of `count`, once it has settled.
    pub fn bytes_each(&mut self, name: &'static str, count: u32) -> io::Result<()> {
        // Of few, the pages of everything else say more than they do.
        if count >= 1000 {
            self.settle_memory()?;
        }
        if let (Some(before), Some(now)) = (self.report.memory_before, self.engine.watch.memory())
            && count > 0
        {
            let grown = now.anonymous_bytes as f64 - before.anonymous_bytes as f64;
            self.report.extra.push((name, grown / f64::from(count)));
        }
        Ok(())
    }

    /// Warm-up and measured span.
    pub fn measure(&mut self) -> io::Result<()> {
        self.engine.watch.phase("warming up");
        self.engine.last_progress = self.engine.clock();
        self.engine.drive_for((self.warmup_s() * 1e9) as u64)?;
        self.measure_while(|run, until| {
            let messages = run.settings.messages;
            let end = if messages > 0 { run.engine.tally.delivered + messages } else { u64::MAX };
            run.engine.drive(until, |engine| engine.tally.delivered >= end).map(drop)
        })
    }

    /// The measured span is what `work` does; it is told when its time has come.
    pub fn measure_while(&mut self, work: impl FnOnce(&mut Run, u64) -> io::Result<()>) -> io::Result<()> {
        self.engine.watch.phase("measuring");
        let itself = Process::new(std::process::id());
        let own_cpu_ns = || itself.as_ref().map_or(0, Process::cpu_ns);
        let tally = self.engine.tally.clone();
        let before = self.engine.watch.process().map(Process::usage);
        let (started, own_before) = (self.engine.clock(), own_cpu_ns());
        self.engine.is_recording = true;
        work(self, started + (self.span_s() * 1e9) as u64)?;
        self.engine.is_recording = false;
        let (own_ns, span_ns) = (own_cpu_ns() - own_before, self.engine.clock() - started);
        let after = self.engine.watch.process().map(Process::usage);
        self.report.span_s = span_ns as f64 / 1e9;
        self.report.generator_share = own_ns as f64 / span_ns as f64;
        self.report.published = self.engine.tally.published - tally.published;
        self.report.delivered = self.engine.tally.delivered - tally.delivered;
        if let (Some(before), Some(after)) = (before, after) {
            self.used(&before, &after);
        }
        self.engine.watch.memory();
        Ok(())
    }

    fn used(&mut self, before: &Usage, after: &Usage) {
        let report = &mut self.report;
        let per_s = |after: u64, before: u64| after.saturating_sub(before) as f64 / report.span_s;
        report.wakeups_per_s = Some(per_s(after.voluntary_switches, before.voluntary_switches));
        report.preemptions_per_s = Some(per_s(after.involuntary_switches, before.involuntary_switches));
        report.cpu_s = Some(after.cpu_ns.saturating_sub(before.cpu_ns) as f64 / 1e9);
        report.written_bytes = Some(after.written_bytes.saturating_sub(before.written_bytes));
        report.descriptors = Some(after.descriptors);
    }

    /// Stops sending and waits for what is on its way.
    pub fn drain(&mut self) -> io::Result<()> {
        self.engine.watch.phase("waiting for the rest");
        self.engine.stop_feeds();
        self.engine.last_progress = self.engine.clock();
        let until = self.engine.clock() + DRAIN_S * SECOND_NS;
        self.engine.drive(until, |engine| engine.is_settled() || engine.is_stalled()).map(drop)
    }

    /// The end of every scenario.
    pub fn finish(mut self) -> io::Result<Report> {
        self.drain()?;
        self.report.memory_after = self.engine.watch.memory();
        self.report.memory_peak = self.engine.watch.process().map(|_| self.engine.watch.peak);
        self.leave_nothing_behind()?;
        self.count_losses();
        let (report, tally) = (&mut self.report, &self.engine.tally);
        report.latency = Times::of(&self.engine.latency);
        report.acknowledgements = Times::of(&self.engine.acknowledgements);
        report.connects = Times::of(&self.engine.connects);
        report.delivered_in_all = tally.delivered;
        report.duplicated = tally.duplicated;
        report.misordered = tally.misordered;
        report.foreign = tally.foreign;
        report.hang_ups = tally.hang_ups;
        report.failed_connects = tally.failed_connects;
        report.stalls = tally.stalls;
        report.notes.extend(self.engine.complaint.take());
        report.judge();
        Ok(self.report)
    }

    /// Everybody leaves, and neither sessions nor retained messages stay with the broker.
    fn leave_nothing_behind(&mut self) -> io::Result<()> {
        let is_publisher = |client: &Client| !client.feeds.is_empty();
        for id in self.everybody() {
            if !is_publisher(&self.engine.clients[id as usize]) {
                self.engine.leave(id);
            }
        }
        let asked = self.engine.forget_retained();
        let pings = self.engine.tally.pings + asked;
        let until = self.engine.clock() + FORGET_S * SECOND_NS;
        self.engine.drive(until, |engine| engine.tally.pings >= pings)?;
        self.everybody().for_each(|id| self.engine.leave(id));
        self.forget_sessions()
    }

    fn forget_sessions(&mut self) -> io::Result<()> {
        for id in self.everybody() {
            if std::mem::take(&mut self.engine.clients[id as usize].plan.is_durable) {
                self.bring_up(id..id + 1)?;
                self.engine.leave(id);
            }
        }
        Ok(())
    }

    fn count_losses(&mut self) {
        let mut shared = None;
        for client in &self.engine.clients {
            let streams = || self.engine.streams[client.plan.sees.start as usize..client.plan.sees.end as usize].iter();
            if client.plan.is_shared || client.counted_len.is_some() && !client.plan.sees.is_empty() {
                // Of these only the sum is known.
                let published: u64 = streams().map(|stream| u64::from(stream.published)).sum();
                *shared.get_or_insert(published as i64) -= client.received as i64;
                continue;
            }
            for (seen, stream) in client.ledger.iter().zip(streams()) {
                let lost = u64::from(seen.lost(stream.published));
                match client.plan.qos.min(stream.plan.qos) {
                    0 => self.report.lost_qos0 += lost,
                    _ => self.report.lost += lost,
                }
            }
        }
        let missing = shared.unwrap_or(0).unsigned_abs() * u64::from(shared.unwrap_or(0) > 0);
        match self.engine.streams.first().map_or(0, |stream| stream.plan.qos) {
            0 => self.report.lost_qos0 += missing,
            _ => self.report.lost += missing,
        }
    }
}
