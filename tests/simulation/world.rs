//! One world: the broker, its clients, the connections between them, and a clock that only this file moves. A turn is the
//! server's turn: accept, read, tick, resume, write, free; between the calls the model looks at what came of them.

use std::rc::Rc;

use midge::broker::{Broker, HangUp, Peer};
use midge::config::Persistence;
use midge::time::Millis;

use super::client::{Client, State};
use super::hostile::Hostile;
use super::ledger::Span;
use super::model::Model;
use super::net::{Conn, End};
use super::node::Node;
use super::plan::Plan;
use super::rng::Rng;
use super::saboteur::{Bug, Saboteur};
use super::shadow::Shadow;

pub struct World {
    pub rng: Rng,
    pub plan: Plan,
    pub node: Node,
    pub model: Model,
    pub clients: Vec<Client>,
    pub conns: Vec<Conn>,
    /// Connections with a link or not accepted yet.
    live: Vec<usize>,
    pub hostile: Option<Hostile>,
    /// In every other world.
    pub shadow: Option<Shadow>,
    /// Links to be freed at the end of the turn.
    closing: Vec<u32>,
    pub now_ms: u64,
    pub has_faults: bool,
    /// Who is away stays away.
    pub is_going_home: bool,
    pub next_subscription_id: u32,
}

/// What the broker was called for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Packets,
    Tick,
    HangUp,
    Other,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>, trace: bool) -> World {
        let mut rng = Rng::new(seed);
        let mut plan = Plan::new(&mut rng);
        let shadow = (seed.is_multiple_of(2) && bug.is_none()).then(|| Shadow::new(seed));
        if shadow.is_some() {
            // What is stored is noted, and nobody waits for it.
            plan.config.persistence = Persistence::Never;
        }
        let mut model = Model::new(plan.config.clone(), plan.rules.clone(), plan.has_hostile, trace);
        model.topics = plan.topics.iter().map(|topic| topic.to_string()).collect();
        model.note(|| format!("{:?} {:?}", plan.config, plan.rules));
        let broker = Broker::new(plan.config.clone(), seed);
        let saboteur = bug.map(|bug| Saboteur::new(bug, seed));
        let mut world = World {
            node: Node::new(broker, saboteur),
            model,
            clients: Vec::new(),
            conns: Vec::new(),
            live: Vec::new(),
            hostile: plan.has_hostile.then(Hostile::default),
            shadow,
            closing: Vec::new(),
            now_ms: 0,
            has_faults: true,
            is_going_home: false,
            next_subscription_id: 1,
            rng,
            plan,
        };
        for mut profile in world.plan.clients.clone() {
            if bug.is_some() {
                // A PUBLISH that is withheld would take an alias with it, which is too easy to notice.
                profile.alias_maximum = 0;
            }
            world.add_client(profile);
        }
        world
    }

    pub fn add_client(&mut self, profile: super::plan::Profile) -> usize {
        self.model.note(|| format!("{} {:?}", profile.id, ProfileText(&profile)));
        self.model.names.push(profile.id.clone());
        self.clients.push(Client::new(self.clients.len(), profile));
        self.clients.len() - 1
    }

    pub fn is_failed(&self) -> bool {
        !self.model.failures.is_empty()
    }

    /// A new connection of a client, or of the hostile one.
    pub fn dial(&mut self, client: Option<usize>) -> usize {
        let conn = self.conns.len();
        self.conns.push(Conn::new(client, if self.has_faults { self.plan.socket_bytes } else { 1 << 20 }));
        self.model.opened(conn, client);
        self.live.push(conn);
        conn
    }

    pub fn turn(&mut self) {
        for client in 0..self.clients.len() {
            if self.has_faults && self.rng.chance(40) {
                self.act(client);
            }
            self.move_client_bytes(client);
        }
        self.act_hostile();
        self.accept();
        self.read();
        self.tick();
        self.resume();
        self.write();
        self.free();
        if self.rng.chance(2) {
            // As the server does when traffic seems to be over: the second time nothing was needed since the first.
            self.node.broker.trim();
            self.node.broker.trim();
        }
        if let Some(shadow) = &mut self.shadow {
            let has_expiry = self.plan.expiry_percent > 0;
            if let Some(wrong) = shadow.turn(&mut self.node.broker, self.now_ms, has_expiry) {
                self.model.fail(wrong);
            }
        }
        self.node.broker.check_invariants();
        if self.node.broker.stats().pauses == 0 {
            self.model.check_silence();
        }
    }

    /// Time passes: never beyond a deadline, but for jumps.
    pub fn advance(&mut self) {
        let step_ms = match self.rng.below(100) {
            0..60 => self.rng.below(5) as u64,
            60..90 => self.rng.below(60) as u64,
            90..97 => self.rng.below(1000) as u64,
            _ => 20_000,
        };
        let jumps = self.has_faults && self.rng.chance(self.plan.jump_percent);
        let target_ms = if jumps {
            self.model.note(|| "the clock jumps".to_string());
            self.now_ms + self.rng.below(200_000) as u64
        } else {
            (self.now_ms + step_ms).min(self.next_event_ms())
        };
        self.now_ms = target_ms.max(self.now_ms);
        self.model.now_ms = self.now_ms;
    }

    /// The next deadline of the broker or ping of a client.
    pub fn next_event_ms(&self) -> u64 {
        let deadline = self.node.broker.next_deadline().map_or(u64::MAX, |deadline| deadline.0);
        self.clients.iter().filter_map(Client::next_ping_ms).fold(deadline, u64::min).max(self.now_ms)
    }

    fn now(&self) -> Millis {
        Millis(self.now_ms)
    }

    /// The client's side of its connection.
    fn move_client_bytes(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(at) = client.conn else { return };
        if client.stalled_until_ms > self.now_ms && self.has_faults {
            return;
        }
        (client.is_silent, client.stalled_until_ms) = (false, 0);
        if !self.has_faults || self.rng.chance(25) {
            client.flush_held(self.rng.between(1, 8));
        }
        client.keep_alive(self.now_ms);
        let (most, conn) = (1 + self.rng.below(3000), &mut self.conns[at]);
        let most = if self.has_faults && self.rng.chance(30) { most } else { usize::MAX };
        if conn.send(&mut client.out, most) > 0 {
            client.last_sent_ms = self.now_ms;
        }
        let most = if self.has_faults && self.rng.chance(30) { 1 + self.rng.below(200) } else { usize::MAX };
        let bytes = conn.take_down(most);
        if !bytes.is_empty() && client.state != State::Leaving {
            client.receive(&bytes, &mut self.model, &mut self.rng);
            // An answer goes out with the next turn's write at the latest.
        }
        if client.state == State::Leaving && client.out.is_empty() {
            conn.close(End::Closed);
        }
        let is_over = conn.is_closed_by_broker && conn.down.is_empty();
        if is_over || conn.client_end != End::Open && client.state == State::Leaving && client.out.is_empty() {
            client.lost();
        }
        self.note_room(at);
    }

    /// The socket can take output again.
    pub fn note_room(&mut self, at: usize) {
        let conn = &mut self.conns[at];
        if !conn.is_writable
            && conn.room_down() > 0
            && let Some(link) = conn.link
        {
            conn.is_writable = true;
            self.node.broker.mark_unwritten(link);
        }
    }

    fn accept(&mut self) {
        let rules = Rc::new(self.plan.rules.clone());
        for number in 0..self.live.len() {
            let at = self.live[number];
            if self.conns[at].link.is_none() && !self.conns[at].is_closed_by_broker {
                let link = self.node.broker.open(Peer::Unknown, &rules, self.now());
                self.conns[at].link = Some(link);
                self.node.opened(link, at);
            }
        }
    }

    fn read(&mut self) {
        let offset = self.rng.below(self.live.len());
        for number in 0..self.live.len() {
            let at = self.live[(number + offset) % self.live.len()];
            if self.has_faults && self.rng.chance(15) {
                continue;
            }
            self.read_one(at);
        }
    }

    fn read_one(&mut self, at: usize) {
        let Some(link) = self.conns[at].link else { return };
        if !self.conns[at].is_readable() || !self.node.broker.wants_input(link) {
            return;
        }
        let start = self.model.next_moment();
        let now = self.now();
        if self.conns[at].up.is_empty() {
            self.conns[at].is_end_told = true;
            let how = match self.conns[at].client_end {
                End::Reset => HangUp::Failed("reset".to_string()),
                _ => HangUp::Closed,
            };
            self.model.note(|| format!("conn {at} hangs up"));
            self.node.broker.hang_up(link, how, now);
            self.after_call(start, Call::HangUp);
            return;
        }
        let max = match self.rng.below(10) {
            0 => 1,
            1..4 => 1 + self.rng.below(50),
            _ => 64 << 10,
        };
        let bytes = self.conns[at].take_up(max);
        let arrived = self.model.arrive(at, &bytes);
        let before = self.node.broker.stats().packets_received;
        self.node.broker.receive(link, &bytes, now);
        let delta = (self.node.broker.stats().packets_received - before) as i64;
        self.model.next_moment();
        if self.conns[at].client.is_some() {
            self.model.received(at, arrived, delta);
        }
        self.after_call(start, Call::Packets);
    }

    fn tick(&mut self) {
        let start = self.model.next_moment();
        let stalls = self.node.broker.stats().stalls;
        self.node.broker.tick(self.now());
        let end = self.model.next_moment();
        self.model.ticked(Span { from: start, to: end });
        if self.node.broker.stats().stalls > stalls {
            for &at in &self.live {
                self.model.may_be_stalled(at, start);
            }
        }
        self.after_call(start, Call::Tick);
    }

    fn resume(&mut self) {
        let start = self.model.next_moment();
        let before = self.node.broker.stats().packets_received;
        let pauses = self.node.broker.stats().pauses;
        let mut readable = Vec::new();
        self.node.broker.resume(&mut readable, self.now());
        if readable.is_empty() {
            return;
        }
        let delta = (self.node.broker.stats().packets_received - before) as i64;
        self.model.next_moment();
        let mut conns: Vec<usize> = readable.iter().filter_map(|&link| self.node.conn(link)).collect();
        conns.sort();
        conns.dedup();
        conns.iter().for_each(|&at| self.model.links[at].received_ms = self.now_ms);
        self.model.resumed(&conns, delta);
        if self.node.broker.stats().pauses > pauses {
            // Each of them may have been deaf for a moment.
            for &at in &conns {
                self.model.set_deaf(at, true, start);
            }
        }
        self.after_call(start, Call::Packets);
    }

    fn write(&mut self) {
        let mut dirty = Vec::new();
        self.node.broker.take_dirty(&mut dirty);
        if self.node.saboteur.is_some() {
            dirty = self.live.iter().filter_map(|&at| self.conns[at].link).collect();
        }
        for link in dirty {
            if let Some(at) = self.node.conn(link) {
                self.write_one(at, link);
            }
        }
    }

    fn write_one(&mut self, at: usize, link: u32) {
        let conn = &self.conns[at];
        if !conn.is_writable || !self.node.has_output(link) {
            return;
        }
        let start = self.model.next_moment();
        let now = self.now();
        if conn.client_end == End::Reset && self.node.saboteur.is_none() {
            self.node.broker.hang_up(link, HangUp::Failed("reset".to_string()), now);
            self.after_call(start, Call::HangUp);
            return;
        }
        let mut max = conn.room_down();
        if self.has_faults && self.rng.chance(30) {
            max = max.min(1 + self.rng.below(2000));
        }
        let (bytes, is_all) = self.node.take_output(link, max, now);
        let conn = &mut self.conns[at];
        conn.is_writable = is_all;
        if is_all {
            self.node.broker.mark_unwritten(link);
        }
        if !bytes.is_empty() {
            conn.down.extend(&bytes);
            self.model.progress(at, bytes.len());
        }
        self.model.next_moment();
        self.after_call(start, Call::Other);
    }

    /// Shows the model what a call of the broker has done.
    fn after_call(&mut self, start: u64, call: Call) {
        let end = self.model.next_moment();
        self.node.tap(&mut self.model);
        let mut closing = Vec::new();
        self.node.broker.take_closing(&mut closing);
        for link in closing {
            self.closing.push(link);
            let Some(at) = self.node.conn(link) else { continue };
            let it = &mut self.model.links[at];
            it.is_seen_closing = true;
            let is_expected =
                !it.is_open || it.client.is_none() || it.disconnect.is_some() || self.conns[at].is_end_told;
            match call {
                Call::Tick => self.model.check_timeout(at),
                Call::Packets if !is_expected => {
                    self.model.fail(format!("conn {at}: a correct client was closed"));
                }
                _ => {}
            }
            self.model.link_closed(at, Span { from: start, to: end });
        }
        for &at in &self.live {
            if let Some(link) = self.conns[at].link {
                let is_deaf = self.model.links[at].is_open && !self.node.broker.wants_input(link);
                self.model.set_deaf(at, is_deaf, start);
            }
        }
    }

    fn free(&mut self) {
        for link in std::mem::take(&mut self.closing) {
            if let Some(at) = self.node.conn(link) {
                self.conns[at].link = None;
                self.conns[at].is_closed_by_broker = true;
            }
            self.node.reap(link);
        }
        for &at in &self.live {
            if !self.model.links[at].is_open && !self.model.links[at].is_seen_closing && !self.is_failed() {
                self.model.fail(format!("conn {at}: should have been closed"));
                break;
            }
        }
        let conns = &self.conns;
        self.live.retain(|&at| !conns[at].is_closed_by_broker);
    }

    /// Nothing is on its way anywhere.
    pub fn is_idle(&self) -> bool {
        let is_quiet = |&at: &usize| {
            let conn = &self.conns[at];
            conn.up.is_empty()
                && conn.down.is_empty()
                && conn.client_end == End::Open
                && conn.link.is_some_and(|link| !self.node.has_output(link))
        };
        let is_settled = |client: &Client| matches!(client.state, State::Up | State::Down) && client.is_settled();
        self.live.iter().all(is_quiet) && !self.node.broker.has_work() && self.clients.iter().all(is_settled)
    }

    /// Ends every connection but the present ones of the clients.
    pub fn reset_strays(&mut self) {
        for &at in &self.live {
            let is_present = self.conns[at].client.is_some_and(|client| self.clients[client].conn == Some(at));
            if !is_present {
                self.conns[at].close(End::Reset);
            }
        }
    }
}

struct ProfileText<'a>(&'a super::plan::Profile);

impl std::fmt::Debug for ProfileText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let it = self.0;
        write!(
            f,
            "{:?}, durable {}, expiry {} s, receive maximum {:?}, packet size {:?}, keep alive {} s, QoS {}",
            it.version, it.is_durable, it.expiry_s, it.receive_maximum, it.packet_size_max, it.keep_alive_s, it.qos_max
        )
    }
}
