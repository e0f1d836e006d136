//! One world: a few clients, a broker whose store is on the simulated disk, and one life of the box after the other, each
//! ended by a power cut, a kill or an orderly stop. What outlives a life can be copied, so that one cut may end in many ways.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;

use midge::broker::{Broker, HangUp, Peer};
use midge::buffer::OutBuf;
use midge::codec::{Split, Version, split_frame};
use midge::config::{Config, Persistence, QueuePolicy, Rules};
use midge::journal::{Mode, Step, Task};
use midge::time::Millis;

use super::client::{Client, Draft, Profile, State};
use super::keeper::{Bug, Keeper, Site, Start, lose};
use super::ledger::Ledger;
use crate::rng::Rng;
use crate::sim_disk::{self, SimDisk};

const TOPICS: [&str; 4] = ["a", "a/b", "b", "c/d/e"];
const FILTERS: [&str; 7] = ["a", "a/b", "#", "+/b", "c/#", "b", "a/#"];
/// Turns after which a quiet world should be idle.
const SETTLE_TURNS_MAX: usize = 5000;

/// What the seed makes of the world before it begins.
#[derive(Clone)]
pub struct Plan {
    config: Config,
    mode: Mode,
    lives: usize,
    turns_max: usize,
    payload_max: usize,
    large_percent: usize,
    retain_percent: usize,
    expiry_percent: usize,
    will_percent: usize,
    publish_percent: usize,
    subscribe_percent: usize,
    hang_up_percent: usize,
    stop_percent: usize,
    inspect_percent: usize,
    fail_percent: usize,
    /// Percent of turns in which seconds pass.
    leap_percent: usize,
}

/// A connection, between its two ends.
#[derive(Clone)]
struct Wire {
    client: usize,
    link: Option<u32>,
    up: Vec<u8>,
    down: Vec<u8>,
    is_hung_up: bool,
    /// With `Bug::NoGate`: what waits for the disk, and for which batch.
    waits: VecDeque<(u64, Vec<u8>)>,
    partial: Vec<u8>,
}

/// What is there when the power is off.
#[derive(Clone)]
pub struct Outside {
    pub rng: Rng,
    pub plan: Plan,
    pub site: Site,
    pub ledger: Ledger,
    clients: Vec<Client>,
    wires: Vec<Wire>,
    /// Who looks at what is retained after a start.
    inspector: usize,
    now_ms: u64,
    pub crashes: usize,
    pub compactions: usize,
}

pub struct World {
    pub outside: Outside,
    broker: Broker,
    keeper: Keeper,
    is_calm: bool,
}

impl Outside {
    pub fn new(seed: u64, bug: Bug, trace: bool) -> Outside {
        let mut rng = Rng::new(seed);
        let plan = plan(&mut rng, bug);
        let client_count = rng.between(2, 6);
        let mut clients: Vec<Client> = (0..client_count).map(|at| Client::new(at, profile(&mut rng))).collect();
        clients[0].profile.publishes = true;
        clients.push(Client::new(client_count, inspector()));
        let has_limits = plan.config.max_queued_messages < 1000;
        let mut disk = SimDisk::new();
        // What a sync that failed lost of earlier batches is not written again where nothing was promised.
        disk.forgives_failed_syncs = plan.mode == Mode::Never;
        let mut outside = Outside {
            site: Site {
                disk,
                sync_ms_max: *rng.pick(&[0, 3, 40, 40, 900]),
                fails_until_ms: 0,
                wall_ms: 1_800_000_000_000,
                bug,
                strikes: 0,
            },
            ledger: Ledger::new(TOPICS.to_vec(), has_limits, trace),
            inspector: client_count,
            clients,
            wires: Vec::new(),
            now_ms: 0,
            crashes: 0,
            compactions: 0,
            rng,
            plan,
        };
        let is_fragile = |client: &&Client| client.profile.version == Version::V5 && client.profile.expiry_s < 1000;
        outside.ledger.fragile = outside.clients.iter().filter(is_fragile).map(|client| client.number).collect();
        outside.ledger.rejects = has_limits && outside.plan.config.queue_policy == QueuePolicy::Reject;
        if outside.plan.fail_percent > 0 {
            let is_5 = |client: &&Client| client.profile.version == Version::V5;
            outside.ledger.refused = outside.clients.iter().filter(is_5).map(|client| client.number).collect();
        }
        let text = format!("{:?}, {:?}", outside.plan.config, outside.plan.mode);
        outside.ledger.note(|| text);
        for client in &outside.clients {
            let it = &client.profile;
            let text = format!(
                "c{}: {:?}, durable {}, expiry {}, receive maximum {:?}, QoS {}, holds {}",
                client.number, it.version, it.is_durable, it.expiry_s, it.receive_maximum, it.qos_max, it.hold_percent
            );
            outside.ledger.note(|| text);
        }
        outside
    }

    /// A world for long looks at one moment.
    pub fn small(seed: u64, bug: Bug) -> Outside {
        let mut outside = Outside::new(seed, bug, true);
        outside.plan.config.persistence = Persistence::Always;
        outside.plan.mode = Mode::Always;
        outside.plan.config.max_queued_messages = 100_000;
        outside.plan.payload_max = 100;
        outside.plan.hang_up_percent = 0;
        outside.plan.subscribe_percent = 20;
        outside.ledger.has_limits = false;
        outside.site.sync_ms_max = 5;
        outside
    }

    fn is_strict(&self) -> bool {
        self.plan.mode == Mode::Always
    }

    /// The whole course: lives, each with an end, and the judgement.
    pub fn run(mut self) -> Outside {
        for life in 0..self.plan.lives {
            let mut world = match self.start() {
                Ok(world) => world,
                Err(outside) => return *outside,
            };
            world.live();
            if !world.outside.is_failed() && life % 4 == 3 {
                world.settle_and_judge();
            }
            if world.outside.is_failed() {
                return world.outside;
            }
            self = world.end();
            if self.is_failed() {
                return self;
            }
        }
        self.finish()
    }

    /// A last start, after which everything must come right.
    pub fn finish(self) -> Outside {
        match self.start() {
            Err(outside) => *outside,
            Ok(mut world) => {
                world.settle_and_judge();
                world.outside
            }
        }
    }

    pub fn is_failed(&self) -> bool {
        !self.ledger.failures.is_empty()
    }

    /// # Errors
    /// When it fails, which is noted.
    pub fn start(mut self) -> Result<World, Box<Outside>> {
        let seed = self.rng.next();
        match Keeper::start(&self.plan.config, self.plan.mode, &mut self.site, seed) {
            Err(why) => {
                self.ledger.fail(why);
                Err(Box::new(self))
            }
            Ok(Start { broker, keeper, now_ms }) => {
                self.now_ms = now_ms;
                self.ledger.now_ms = now_ms;
                self.ledger.note(|| "the broker starts".to_string());
                Ok(World { outside: self, broker, keeper, is_calm: false })
            }
        }
    }

    /// The box is off: connections are gone, and what was not acknowledged counts as lost.
    fn power_off(&mut self, is_orderly: bool) {
        let durable: Vec<bool> = self.clients.iter().map(|client| client.profile.is_durable).collect();
        for at in 0..self.wires.len() {
            let wire = &mut self.wires[at];
            wire.waits.clear();
            // What was on its way to the client may still arrive.
            let count = match self.rng.below(3) {
                0 => wire.down.len(),
                1 => self.rng.below(wire.down.len() + 1),
                _ => 0,
            };
            let client = &mut self.clients[wire.client];
            if client.state != State::Down {
                let bytes: Vec<u8> = wire.down.drain(..count).collect();
                client.receive(&bytes, &mut self.ledger, &mut self.rng);
            }
        }
        self.wires.clear();
        self.clients.iter_mut().for_each(|client| client.lost(&mut self.ledger));
        self.ledger.cut(|client| durable[client]);
        if !self.is_strict() && !is_orderly {
            for client in self.clients.iter_mut().filter(|client| client.profile.is_durable) {
                (client.wants_reset, client.may_have_session) = (true, true);
                if let Some(session) = client.session {
                    self.ledger.sessions[session].is_vague = true;
                }
            }
            self.ledger.forget_values();
        }
    }
}

impl World {
    /// Some turns in which anything may happen.
    fn live(&mut self) {
        if self.outside.rng.chance(self.outside.plan.inspect_percent) {
            self.inspect();
        }
        let turns = self.outside.rng.between(1, self.outside.plan.turns_max);
        for _ in 0..turns {
            for client in 0..self.outside.inspector {
                if self.outside.rng.chance(45) {
                    self.act(client);
                }
            }
            if self.outside.rng.chance(self.outside.plan.fail_percent) {
                let span_ms = self.outside.rng.between(1, 4000) as u64;
                self.outside.site.fails_until_ms = self.outside.now_ms + span_ms;
                self.outside.ledger.note(|| format!("the disk fails for {span_ms} ms"));
            }
            self.turn();
            if self.outside.is_failed() {
                return;
            }
            let step_ms = match self.outside.rng.below(100) {
                at if at < self.outside.plan.leap_percent => self.outside.rng.below(8000),
                0..60 => self.outside.rng.below(4),
                _ => self.outside.rng.below(40),
            };
            self.pass(step_ms as u64);
        }
    }

    fn pass(&mut self, step_ms: u64) {
        self.outside.now_ms += step_ms;
        self.outside.site.wall_ms += step_ms;
        self.outside.ledger.now_ms = self.outside.now_ms;
    }

    /// Ends this life in one of the ways there are.
    fn end(mut self) -> Outside {
        if self.outside.rng.chance(self.outside.plan.stop_percent) && self.stop() {
            return self.off(true);
        }
        let World { outside, keeper, .. } = &mut self;
        outside.crashes += 1;
        let mut torn = Keeper::cut_now(keeper, &mut outside.site, &mut outside.rng);
        lose(&mut torn, &mut outside.rng);
        outside.site.disk = torn;
        self.off(false)
    }

    fn off(self, is_orderly: bool) -> Outside {
        let World { mut outside, keeper, .. } = self;
        outside.ledger.note(|| if is_orderly { "the broker stops" } else { "the power is cut" }.to_string());
        outside.compactions += keeper.compactions;
        outside.power_off(is_orderly);
        outside.site.fails_until_ms = 0;
        outside.site.wall_ms = match outside.rng.below(8) {
            0 => 0,
            1 => outside.site.wall_ms.saturating_sub(86_400_000),
            2 => outside.site.wall_ms + 1_000_000_000_000,
            3 => outside.site.wall_ms + 60_000,
            _ => outside.site.wall_ms,
        };
        outside
    }

    /// Ends this life once for each byte of the write the disk is about to perform, and judges each outcome; says how many
    /// there were, and what went wrong.
    pub fn cut_at_every_byte(mut self) -> (usize, Option<Outside>) {
        let World { outside, keeper, .. } = &mut self;
        let Some((before, write, size)) = keeper.next_write() else { return (0, None) };
        let before: Vec<Step> = before.to_vec();
        let write = write.clone();
        outside.site.fails_until_ms = 0;
        if outside.site.disk.perform(&Task { steps: before }).is_err() {
            return (0, None);
        }
        let disk = outside.site.disk.clone();
        let off = self.off(false);
        for at in 0..=size {
            for way in 0..2 {
                let mut outside = off.clone();
                outside.site.disk = disk.clone();
                outside.site.disk.cut_after(at as u64);
                let _ = outside.site.disk.perform(&Task { steps: vec![write.clone()] });
                match way {
                    0 => outside.site.disk.lose_nothing(),
                    _ => outside.site.disk.lose_some(&mut sim_disk::Rng(at as u64)),
                }
                outside.ledger.note(|| format!("cut at byte {at} of {size}"));
                let outside = outside.finish();
                if outside.is_failed() {
                    return (at * 2 + way, Some(outside));
                }
            }
        }
        (size * 2 + 2, None)
    }

    /// Runs until a write of a batch is about to be performed.
    pub fn live_until_write(&mut self, turns: usize) -> bool {
        for turn in 0.. {
            for client in 0..self.outside.inspector {
                self.act(client);
            }
            self.turn();
            self.pass(10);
            if self.outside.is_failed() || turn > turns + 200 {
                return false;
            }
            if turn >= turns && self.keeper.next_write().is_some() {
                return true;
            }
        }
        false
    }

    /// What the program does when it is asked to end; false if the store fails just now.
    fn stop(&mut self) -> bool {
        let World { outside, broker, keeper, .. } = self;
        outside.site.fails_until_ms = 0;
        for is_last in [false, true] {
            if is_last && broker.batch_due().is_some() {
                keeper.write_batch(broker, &mut outside.site, &mut outside.rng, true, outside.now_ms);
            }
            // However long it takes.
            for _ in 0..1000 {
                if keeper.is_free() {
                    break;
                }
                outside.now_ms += 100;
                keeper.turn_task(broker, &mut outside.site, &mut outside.rng, outside.now_ms);
            }
            if !keeper.is_free() {
                return false;
            }
        }
        match outside.plan.mode {
            Mode::Never => outside.site.disk.lose_nothing(),
            _ => lose(&mut outside.site.disk, &mut outside.rng),
        }
        true
    }

    /// No faults; everybody comes back; when nothing is under way, everything that was promised must be there.
    fn settle_and_judge(&mut self) {
        self.is_calm = true;
        self.outside.site.fails_until_ms = 0;
        self.outside.ledger.note(|| "all is calm".to_string());
        // A slow disk makes slow progress with a small window; that is not what is looked for.
        let usual_ms = std::mem::replace(&mut self.outside.site.sync_ms_max, 3);
        self.settle();
        self.outside.site.sync_ms_max = usual_ms;
    }

    fn settle(&mut self) {
        for _ in 0..SETTLE_TURNS_MAX {
            for client in 0..self.outside.inspector {
                if self.outside.clients[client].state == State::Down {
                    self.dial(client);
                }
            }
            self.turn();
            if self.outside.is_failed() {
                return;
            }
            if self.is_idle() {
                self.outside.ledger.judge();
                self.inspect();
                self.is_calm = false;
                return;
            }
            let now_ms = self.outside.now_ms;
            let due_ms = self.keeper.next_event_ms(&self.broker);
            self.pass(due_ms.saturating_sub(now_ms).clamp(1, 100));
        }
        let busy = self.outside.clients[..self.outside.inspector].iter().filter(|client| !client.is_settled());
        let busy: Vec<usize> = busy.map(|client| client.number).collect();
        let (is_silent, compactions) = (self.is_silent(), self.keeper.compactions);
        self.outside.ledger.fail(format!(
            "the world does not come to rest; busy: {busy:?}, silent: {is_silent}, {compactions} compactions"
        ));
    }

    fn is_idle(&self) -> bool {
        let clients = &self.outside.clients[..self.outside.inspector];
        clients.iter().all(Client::is_settled) && self.is_silent() && self.keeper.is_free()
    }

    /// Nothing is on its way to anybody.
    fn is_silent(&self) -> bool {
        let is_silent = |wire: &Wire| {
            let has_output = wire.link.is_some_and(|link| !self.broker.output(link).is_empty());
            wire.up.is_empty() && wire.down.is_empty() && wire.waits.is_empty() && !has_output && !wire.is_hung_up
        };
        self.outside.wires.iter().all(is_silent) && !self.broker.has_work()
    }

    /// Somebody new looks at everything that is retained.
    fn inspect(&mut self) {
        let (inspector, was_calm) = (self.outside.inspector, std::mem::replace(&mut self.is_calm, true));
        self.dial(inspector);
        for turn in 0..SETTLE_TURNS_MAX {
            self.turn();
            self.pass(1);
            let client = &mut self.outside.clients[inspector];
            let Some(session) = client.session else { continue };
            if self.outside.ledger.sessions[session].filters.is_empty() {
                client.request(&["#"], Some(0), &mut self.outside.ledger);
            } else if client.is_quiet() && self.is_silent() {
                self.outside.ledger.inspected(session);
                self.hang_up(inspector);
                self.turn();
                break;
            }
            if turn + 1 == SETTLE_TURNS_MAX {
                self.outside.ledger.fail("the inspector gets no answer".to_string());
            }
        }
        self.is_calm = was_calm;
    }

    fn dial(&mut self, client: usize) {
        let outside = &mut self.outside;
        let will = outside.rng.chance(outside.plan.will_percent).then(|| draft(&mut outside.rng, &outside.plan, 2));
        let it = &mut outside.clients[client];
        it.wants_reset |= it.profile.is_durable && !self.is_calm && outside.rng.chance(5);
        it.connect(will.filter(|_| client != outside.inspector), &mut outside.ledger);
        outside.wires.iter_mut().filter(|wire| wire.client == client).for_each(|wire| {
            wire.is_hung_up = true;
            wire.down.clear();
        });
        let (up, down, waits, partial) = (Vec::new(), Vec::new(), VecDeque::new(), Vec::new());
        outside.wires.push(Wire { client, link: None, up, down, is_hung_up: false, waits, partial });
    }

    fn hang_up(&mut self, client: usize) {
        let outside = &mut self.outside;
        outside.clients[client].lost(&mut outside.ledger);
        outside.ledger.note(|| format!("c{client} hangs up"));
        for wire in outside.wires.iter_mut().filter(|wire| wire.client == client) {
            wire.is_hung_up = true;
            wire.up.clear();
            wire.down.clear();
        }
    }

    /// One thing a client may do.
    fn act(&mut self, client: usize) {
        let outside = &mut self.outside;
        let (plan, rng) = (&outside.plan, &mut outside.rng);
        let it = &mut outside.clients[client];
        if it.state == State::Down {
            if rng.chance(50) {
                self.dial(client);
            }
            return;
        }
        if rng.chance(plan.hang_up_percent) {
            self.hang_up(client);
            return;
        }
        if it.state != State::Up {
            return;
        }
        if it.profile.publishes && rng.chance(plan.publish_percent) && it.inflight_count() < 15 {
            for _ in 0..rng.between(1, 3) {
                let draft = draft(rng, plan, it.profile.qos_max);
                it.publish(&draft, &mut outside.ledger);
            }
        }
        if rng.chance(plan.subscribe_percent) {
            let qos = rng.below(3) as u8;
            let is_end = rng.chance(25);
            let mut filters = vec![*rng.pick(&FILTERS)];
            if rng.chance(20) {
                filters.push(*rng.pick(&FILTERS));
                filters.dedup();
            }
            it.request(&filters, (!is_end).then_some(qos), &mut outside.ledger);
        }
    }

    fn turn(&mut self) {
        self.move_up();
        self.broker.tick(Millis(self.outside.now_ms));
        let mut readable = Vec::new();
        self.broker.resume(&mut readable, Millis(self.outside.now_ms));
        let World { outside, broker, keeper, .. } = self;
        keeper.turn(broker, &mut outside.site, &mut outside.rng, outside.now_ms);
        self.move_down();
        let mut closing = Vec::new();
        self.broker.take_closing(&mut closing);
        for link in closing {
            self.broker.reap(link);
            for wire in self.outside.wires.iter_mut().filter(|wire| wire.link == Some(link)) {
                wire.link = None;
                if !wire.is_hung_up {
                    let number = wire.client;
                    self.outside.ledger.fail(format!("c{number} was closed by the broker"));
                }
                wire.is_hung_up = true;
            }
        }
        self.outside.wires.retain(|wire| wire.link.is_some() || !wire.is_hung_up);
        if self.outside.rng.chance(3) {
            self.broker.trim();
            self.broker.trim();
        }
        self.broker.check_invariants();
    }

    /// From the clients to the broker.
    fn move_up(&mut self) {
        let World { outside: Outside { rng, clients, wires, now_ms, .. }, broker, is_calm, .. } = self;
        let now = Millis(*now_ms);
        let rules = Rc::new(Rules { allow_anonymous: true, ..Rules::default() });
        for wire in wires.iter_mut() {
            let client = &mut clients[wire.client];
            if !wire.is_hung_up {
                if *is_calm || rng.chance(40) {
                    client.flush_held(if *is_calm { 1000 } else { rng.between(1, 4) });
                }
                wire.up.append(&mut client.out);
                let link = *wire.link.get_or_insert_with(|| broker.open(Peer::Unknown, &rules, now));
                let count = if *is_calm || rng.chance(70) { wire.up.len() } else { rng.below(wire.up.len() + 1) };
                let bytes: Vec<u8> = wire.up.drain(..count).collect();
                if !bytes.is_empty() && broker.wants_input(link) {
                    broker.receive(link, &bytes, now);
                } else {
                    wire.up.splice(0..0, bytes);
                }
            } else if let Some(link) = wire.link
                && broker.wants_input(link)
            {
                broker.hang_up(link, HangUp::Failed("reset".to_string()), now);
            }
        }
    }

    /// From the broker to the clients.
    fn move_down(&mut self) {
        let World { outside, broker, keeper, is_calm } = self;
        let Outside { rng, clients, wires, now_ms, ledger, site, .. } = outside;
        let mut dirty = Vec::new();
        broker.take_dirty(&mut dirty);
        let has_gate = site.bug != Bug::NoGate;
        for wire in wires.iter_mut() {
            let Some(link) = wire.link else { continue };
            while !broker.output(link).is_empty() {
                let bytes = first_bytes(broker.output(link));
                broker.wrote(link, bytes.len(), Millis(*now_ms));
                if has_gate { wire.down.extend(bytes) } else { wire.partial.extend(bytes) }
            }
            if !has_gate {
                site.strikes += wire.hold_back(keeper.taken + 1, keeper.safe);
            }
            let client = &mut clients[wire.client];
            if wire.is_hung_up || client.state == State::Down {
                wire.down.clear();
                continue;
            }
            let count = if *is_calm || rng.chance(75) { wire.down.len() } else { rng.below(wire.down.len() + 1) };
            let bytes: Vec<u8> = wire.down.drain(..count).collect();
            client.receive(&bytes, ledger, rng);
        }
        if !has_gate && keeper.is_free() && wires.iter().any(|wire| !wire.waits.is_empty()) {
            keeper.write_batch(broker, site, rng, true, *now_ms);
        }
    }
}

impl Wire {
    /// As a broker without gates would: what promises something waits for the disk, messages do not. Says how many
    /// messages overtook something.
    fn hold_back(&mut self, position: u64, safe: u64) -> usize {
        let (mut at, mut count) = (0, 0);
        while let Ok(Split::Frame { len, .. }) = split_frame(&self.partial[at..], 0) {
            let frame = &self.partial[at..at + len];
            if frame[0] >> 4 == 3 {
                count += !self.waits.is_empty() as usize;
                self.down.extend_from_slice(frame);
            } else if frame[0] >> 4 == 2 {
                self.down.extend_from_slice(frame);
            } else {
                self.waits.push_back((position, frame.to_vec()));
            }
            at += len;
        }
        self.partial.drain(..at);
        while self.waits.front().is_some_and(|(position, _)| *position <= safe)
            && let Some((_, frame)) = self.waits.pop_front()
        {
            self.down.extend(frame);
        }
        count
    }
}

fn first_bytes(output: &OutBuf) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
    let count = output.slices(&mut slices);
    slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
}

fn draft(rng: &mut Rng, plan: &Plan, qos_max: u8) -> Draft {
    let retain = rng.chance(plan.retain_percent);
    let len = match rng.below(20) {
        0 if retain => 0,
        _ if rng.chance(plan.large_percent) => rng.between(5, plan.payload_max),
        _ => rng.between(5, 20),
    };
    let expires = rng.chance(plan.expiry_percent);
    let topic = TOPICS[rng.between(0, TOPICS.len() - 1)];
    Draft { topic, qos: rng.between(0, qos_max as usize) as u8, retain, len, expires }
}

fn plan(rng: &mut Rng, bug: Bug) -> Plan {
    let persistence = match rng.below(10) {
        _ if bug != Bug::Nothing => Persistence::Always,
        0 => Persistence::Interval(rng.between(1, 5) as u16),
        1 => Persistence::Never,
        _ => Persistence::Always,
    };
    let mode = Mode::from(persistence);
    let has_limits = bug == Bug::Nothing && rng.chance(10);
    let config = Config {
        retry_interval_s: *rng.pick(&[0, 0, 2]),
        max_inflight_messages: *rng.pick(&[0, 1, 2, 5, 20]),
        max_queued_messages: if has_limits { rng.between(1, 10) as u32 } else { 100_000 },
        max_queued_bytes: if has_limits { 100_000 } else { 0 },
        queue_policy: *rng.pick(&[QueuePolicy::DropOldest, QueuePolicy::DropNewest, QueuePolicy::Reject]),
        persistent_client_expiration_s: 0,
        allow_duplicate_messages: false,
        connection_messages: false,
        sys_interval_s: 0,
        persistence: if bug == Bug::NoGate { Persistence::Never } else { persistence },
        ..Config::default()
    };
    Plan {
        config,
        mode,
        lives: *rng.pick(&[8, 12, 25]),
        turns_max: *rng.pick(&[8, 25, 60, 120]),
        payload_max: *rng.pick(&[20, 600, 5000, 30_000, 30_000]),
        large_percent: *rng.pick(&[5, 5, 30, 80]),
        retain_percent: *rng.pick(&[0, 15, 50]),
        expiry_percent: *rng.pick(&[0, 0, 0, 10]),
        will_percent: *rng.pick(&[0, 0, 30]),
        publish_percent: *rng.pick(&[15, 40, 70]),
        subscribe_percent: *rng.pick(&[2, 8, 20]),
        hang_up_percent: *rng.pick(&[0, 1, 5]),
        stop_percent: *rng.pick(&[0, 10, 10]),
        inspect_percent: *rng.pick(&[20, 60]),
        fail_percent: *rng.pick(&[0, 0, 3]),
        leap_percent: *rng.pick(&[0, 0, 3, 10]),
    }
}

fn profile(rng: &mut Rng) -> Profile {
    let is_durable = rng.chance(75);
    let version = match rng.below(if is_durable { 4 } else { 5 }) {
        0 | 1 => Version::V311,
        2 | 3 => Version::V5,
        // It cannot tell whether it has its session back.
        _ => Version::V31,
    };
    Profile {
        version,
        is_durable,
        expiry_s: *rng.pick(&[15, 100_000, u32::MAX, u32::MAX]),
        receive_maximum: rng.chance(30).then(|| rng.between(1, 4) as u16),
        publishes: rng.chance(70),
        qos_max: *rng.pick(&[1, 2, 2, 2]),
        hold_percent: *rng.pick(&[0, 0, 20, 70]),
    }
}

fn inspector() -> Profile {
    Profile {
        version: Version::V5,
        is_durable: false,
        expiry_s: 0,
        receive_maximum: None,
        publishes: false,
        qos_max: 0,
        hold_percent: 0,
    }
}
