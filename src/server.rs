//! The loop: one poll, and the order of a turn. The only place that reads the clock or calls poll. It owns sockets and moves
//! bytes between them and the core, which owns everything else.
//!
//! A turn: wait; note what is ready; accept, within a budget; read each ready socket once, but of those that bring much only as many
//! as a budget allows; let paused links go on; write each link with output once, or earlier if much gathers; let the core's timers
//! fire, and write what they said; hand what must be stored to the helper thread; free closed links. Sockets are registered once, edge-triggered, for
//! both directions: what is not read or written to the end is remembered here. With nothing left to do the next turn
//! waits for the core's next deadline, or for ever.
//!
//! Per message in a burst: one read and one write a socket and turn, whatever the number of messages.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::VERSION;
use crate::admin::{Answer, Progress};
use crate::broker::{Broker, Denial, HangUp, LinkId, Peer};
use crate::buffer::OutBuf;
use crate::config::{Config, Rules};
use crate::control::REQUEST_MAX;
use crate::keeper::{Keeper, KeeperError};
use crate::logger::{self, notice};
use crate::net::{
    self, Accept, Caller, Control, ControlDoor, Doors, Edge, Left, ListenerId, OpenError, Place, Refusal, Transport,
};
use crate::options::{Settings, UsageError};
use crate::os::{
    Notify, Reserve, Signal, Signals, allocated, give_back_memory, give_back_pages, give_back_program, give_back_stack,
    memory_of_machine, print, raise_descriptor_limit,
};
use crate::rights;
use crate::time::Millis;
use crate::trims::Trims;
use crate::verifier::Verifier;

/// By default the broker takes no more than this part of the machine's memory: a gateway has other things to do.
const MEMORY_SHARE: u64 = 8;

const SIGNALS: Token = Token(usize::MAX - 1);
/// A helper thread, of the store or of logins, is done with something.
const HELPER: Token = Token(usize::MAX - 2);
/// The control socket and those who call there.
const FIRST_CONTROL: usize = HELPER.0 - net::TOKENS;
const FIRST_LISTENER: usize = usize::MAX / 2;

/// One read, and so what one link may bring in one turn.
const READ_LEN: usize = 64 << 10;
/// The buffer all sockets are read into is twice as large as one read, so that allocators map it by itself: its pages cost
/// nothing until they are touched.
const SCRATCH_LEN: usize = 2 * READ_LEN;
/// A link that brings so much in one read is read after all others, and one turn takes the second amount of such links together:
/// who floods the broker makes a turn longer by little, and so does not keep the others waiting.
const GREEDY_LEN: usize = 16 << 10;
const GREEDY_PER_TURN: usize = READ_LEN;
/// What one read of such a link may take: the smallest packets, and slow machines, are read in smaller pieces, down to the second
/// number of halvings of a read.
const GREEDY_READ_MAX: Duration = Duration::from_micros(150);
const HALVINGS_MAX: u8 = 5;
/// Output that gathers before it is written, though there is more to read: a write of so much costs no more per byte than
/// a larger one.
const GATHERED_MAX: usize = 64 << 10;
/// Connections accepted from one listener in one turn: a storm must not hold up those who are connected.
const ACCEPTS_PER_TURN: usize = 64;
/// And from one that is about to be closed: more than the kernel keeps.
const ACCEPTS_OF_LEAVING: usize = 2048;
const EVENTS_PER_TURN: usize = 256;
/// From so long a wait on, it may be longer by what the turn took that goes before it.
const WAIT_LONG: Millis = Millis(1000);
/// Full turns in a row after which timers are looked at all the same: 16,384 sockets.
const CROWDED_TURNS_MAX: u32 = 64;
/// How soon accepting is tried again when even the descriptor in reserve did not help.
const ACCEPT_RETRY: Millis = Millis(1000);

/// The broker with its sockets, ready to serve.
pub struct Server {
    poll: Poll,
    waker: Arc<Waker>,
    /// When it was `started_at`.
    started: Instant,
    started_at: Millis,
    now: Millis,
    /// What flags and file said when they were last taken over.
    settings: Settings,
    read_settings: Box<dyn Fn() -> Result<Settings, UsageError>>,
    notify: Notify,
    /// When the service manager wants to hear that the loop turns.
    watchdog_at: Option<Millis>,
    broker: Broker,
    keeper: Option<Keeper>,
    /// Nothing until there is a password file.
    verifier: Option<Verifier>,
    doors: Doors,
    control: Control,
    /// What those who called there are being told.
    answers: [Option<Answer>; net::CALLS_MAX],
    /// By link id.
    transports: Vec<Option<Transport>>,
    /// By link id: the listener it came through.
    entrances: Vec<ListenerId>,
    /// Links to read in this turn or the next.
    ready: Vec<LinkId>,
    /// Those of them that brought much of late, in the order of their turn.
    greedy: VecDeque<LinkId>,
    /// Reused every turn.
    links: Vec<LinkId>,
    scratch: Vec<u8>,
    trims: Trims,
    /// The next wait is likely to be a long one: the first, and the first after it has become quieter.
    may_settle: bool,
    /// Nothing has happened since the last of those that could leave anything behind.
    is_settled: bool,
    crowded_turns: u32,
    reserve: Reserve,
    signals: Signals,
}

/// Everything the loop begins with.
pub struct Start {
    pub settings: Settings,
    pub signals: Signals,
    pub doors: Doors,
    pub control: Control,
    pub broker: Broker,
    pub keeper: Option<Keeper>,
    pub notify: Notify,
    /// Reads flags and file again.
    pub read_settings: Box<dyn Fn() -> Result<Settings, UsageError>>,
}

/// A broker that holds what is stored, if anything is, and what keeps it stored. Writes nothing.
///
/// # Errors
/// When the store cannot be read, or is not to be touched.
pub fn broker(settings: &Settings) -> Result<(Broker, Option<Keeper>), KeeperError> {
    let random = || RandomState::new().build_hasher().finish();
    let mut broker = Broker::new(core_config(settings), random());
    broker.set_login_secret(secret());
    let Some(store) = &settings.store else { return Ok((broker, None)) };
    let keeper = Keeper::open(&store.path(), &mut broker, random())?;
    Ok((broker, Some(keeper)))
}

/// Of the system's randomness, by way of the standard library's hash keys.
fn secret() -> [u8; 32] {
    let state = RandomState::new();
    let mut secret = [0; 32];
    for (part, number) in secret.chunks_exact_mut(8).zip(0u64..) {
        part.copy_from_slice(&state.hash_one(number).to_ne_bytes());
    }
    secret
}

/// What the core obeys, with the limit of memory that this machine has if none was given.
fn core_config(settings: &Settings) -> Config {
    let of_machine = || memory_of_machine().map_or(0, |bytes| bytes / MEMORY_SHARE);
    Config { memory_limit: settings.memory_limit.unwrap_or_else(of_machine), ..settings.core.clone() }
}

/// What a helper thread calls when it is done with something.
fn wakes(waker: &Arc<Waker>) -> impl Fn() + Send + 'static {
    let waker = waker.clone();
    move || {
        // It fails only if the loop is gone.
        let _ = waker.wake();
    }
}

fn has_passwords(settings: &Settings) -> bool {
    settings.listeners.iter().any(|listener| listener.rules.passwords.is_some())
}

fn no_thread(error: &io::Error) -> String {
    format!("the thread that checks passwords cannot be started: {error}.")
}

fn peer(caller: Caller) -> Peer {
    match caller {
        Caller::Tcp(address) => address.into(),
        Caller::Unix { pid, uid } => Peer::Unix { pid, uid },
    }
}

/// Writes output that is in several pieces, or in none because the transport has some of its own; how much there was of it, and what
/// came of it.
#[inline(never)]
fn write_pieces(transport: &mut Transport, output: &OutBuf) -> (usize, io::Result<usize>) {
    let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
    let count = output.slices(&mut slices);
    let offered = slices[..count].iter().map(|slice| slice.len()).sum();
    (offered, transport.write_vectored(&slices[..count]))
}

impl Server {
    /// # Errors
    /// When the system has no poll, no signal descriptor or no thread for what needs one.
    pub fn new(start: Start) -> io::Result<Box<Server>> {
        let Start { settings, signals, mut doors, mut control, broker, mut keeper, notify, read_settings } = start;
        let poll = Poll::new()?;
        poll.registry().register(&mut SourceFd(&signals.as_raw_fd()), SIGNALS, Interest::READABLE)?;
        match raise_descriptor_limit() {
            Ok(limit) => info!("Up to {limit} descriptors can be open."),
            Err(error) => warn!("Warning: the limit of open descriptors could not be raised: {error}."),
        }
        doors.register(poll.registry(), FIRST_LISTENER)?;
        control.register(poll.registry(), FIRST_CONTROL)?;
        // A poll has one at most.
        let waker = Arc::new(Waker::new(poll.registry(), HELPER)?);
        let now = keeper.as_ref().map_or(Millis(0), Keeper::started_at);
        if let Some(keeper) = &mut keeper {
            keeper.start(wakes(&waker))?;
        }
        let mut server = Box::new(Server {
            poll,
            waker,
            started: Instant::now(),
            started_at: now,
            now,
            settings,
            read_settings,
            notify,
            watchdog_at: None,
            broker,
            keeper,
            verifier: None,
            doors,
            control,
            answers: Default::default(),
            transports: Vec::new(),
            entrances: Vec::new(),
            ready: Vec::new(),
            greedy: VecDeque::new(),
            links: Vec::new(),
            scratch: vec![0; SCRATCH_LEN],
            trims: Trims::default(),
            may_settle: true,
            is_settled: false,
            crowded_turns: 0,
            reserve: Reserve::new(),
            signals,
        });
        if has_passwords(&server.settings) {
            server.start_verifier().map_err(|error| io::Error::other(no_thread(&error)))?;
        }
        Ok(server)
    }

    /// Serves until a signal ends it. `is_serving` is called once it does.
    ///
    /// # Errors
    /// When poll itself fails, or `is_serving` does.
    pub fn run(&mut self, is_serving: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.watchdog();
        info!("midge version {VERSION} running");
        is_serving()?;
        self.notify.ready();
        self.serve()?;
        logger::finish();
        info!("midge version {VERSION} terminating");
        Ok(())
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            let timeout = self.timeout();
            if self.may_settle && timeout != Some(Duration::ZERO) {
                (self.may_settle, self.is_settled) = (false, true);
                // What the start took, or the load that is over.
                give_back_stack(&mut self.scratch);
                give_back_program(&mut self.scratch);
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.now = self.clock();
            self.is_settled &= self.leaves_nothing_behind(&events);
            let mut is_signalled = false;
            for event in &events {
                match event.token() {
                    SIGNALS => is_signalled = true,
                    HELPER => {}
                    Token(number) if number >= FIRST_CONTROL => self.control.note(number - FIRST_CONTROL, event),
                    Token(number) if number >= FIRST_LISTENER => self.doors.note(number - FIRST_LISTENER),
                    Token(id) => self.note(id as LinkId, event),
                }
            }
            while is_signalled && let Some(signal) = self.signals.read() {
                match signal {
                    Signal::Terminate | Signal::Interrupt => {
                        self.stop();
                        return Ok(());
                    }
                    // What was refused is in the log.
                    Signal::Hangup => drop(self.reload()),
                    Signal::Rotate => logger::reopen(),
                    Signal::User1 => {
                        self.broker.save_now(self.now);
                        self.keeper.iter().for_each(|keeper| keeper.log_wear(self.now));
                    }
                    Signal::User2 => self.print_subscriptions(),
                }
            }
            self.turn_control();
            // What waited for the store may go with what this turn brings.
            self.turn_keeper();
            self.doors.turn(self.now);
            self.admit_leaving();
            self.turn_logins();
            self.accept();
            self.read_ready();
            self.turn_logins();
            self.resume();
            self.write_dirty();
            // Last, so that nobody is found late or slow who was not offered the chance to be otherwise in this turn; and not
            // while there are more events than one turn takes, for a while: they may be signs of life.
            let is_crowded = events.iter().count() == EVENTS_PER_TURN;
            self.crowded_turns = if is_crowded { self.crowded_turns + 1 } else { 0 };
            if self.crowded_turns.is_multiple_of(CROWDED_TURNS_MAX) {
                self.excuse_unread();
                self.broker.set_memory_used(allocated());
                self.broker.tick(self.now);
                self.write_dirty();
            }
            self.turn_keeper();
            self.free_closed();
            self.trim();
            self.turn_log();
            self.watchdog();
        }
    }

    /// Who called at the control socket is answered, a slice of each answer in a turn.
    fn turn_control(&mut self) {
        if self.control.is_idle() {
            return;
        }
        self.control.turn(self.poll.registry(), FIRST_CONTROL, REQUEST_MAX, self.now);
        while let Some((slot, request, caller)) = self.control.take_request(self.now) {
            self.broker.set_memory_used(allocated());
            let answer = Answer::to(&request, caller, &mut self.broker, self.now).unwrap_or_else(|| {
                let refused = self.reload();
                let is_taken_over = refused.is_empty();
                let said = || "The new configuration is in force.".to_string();
                Answer::Said(if is_taken_over { Ok(said()) } else { Err(refused) })
            });
            self.answers[slot] = Some(answer);
        }
        for (slot, open) in self.answers.iter_mut().enumerate() {
            let Some(answer) = open else { continue };
            let Some(out) = self.control.room(slot) else { continue };
            let progress = answer.go_on(&mut self.broker, out, self.now);
            self.control.set_waiting(slot, progress == Progress::Waits);
            if progress == Progress::Over {
                self.control.finish(slot);
                *open = None;
            }
        }
        self.control.write(self.now);
        for (slot, open) in self.answers.iter_mut().enumerate() {
            if !self.control.is_answering(slot) {
                *open = None;
            }
        }
    }

    /// Flags and file are read again, and all that can change while the broker runs is taken over; or, if anything is wrong,
    /// nothing is. Says what is wrong. Log files are opened again either way.
    fn reload(&mut self) -> Vec<String> {
        info!("Reloading config.");
        self.notify.reloading();
        let refused = match (self.read_settings)() {
            Ok(settings) => self.take_over(settings).err().unwrap_or_default(),
            Err(error) => error.lines().to_vec(),
        };
        for why in &refused {
            error!("Error: {why}");
        }
        match refused.is_empty() {
            true => info!("The new configuration is in force."),
            false => error!("Error: the configuration stays what it was, because of what is wrong with the new one."),
        }
        self.notify.ready();
        logger::reopen();
        refused
    }

    fn take_over(&mut self, mut new: Settings) -> Result<(), Vec<String>> {
        let one = |error: String| vec![error];
        let mut told = rights::load(&mut new.listeners);
        let warnings = std::mem::take(&mut told.warnings);
        let faults = told.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let plan = self.doors.plan(&new.listeners).map_err(|error| one(error.to_string()))?;
        if has_passwords(&new) {
            self.start_verifier().map_err(|error| one(no_thread(&error)))?;
        }
        let control = self.other_control(new.control_socket.as_deref()).map_err(|error| one(error.to_string()))?;
        let older = self.doors.all_rules();
        logger::reconfigure(&new.log).map_err(one)?;
        // From here on nothing fails.
        self.doors.commit(plan);
        if let Some(door) = control
            && let Err(error) = self.control.replace_door(door, self.poll.registry(), FIRST_CONTROL)
        {
            error!("Error: the control socket cannot be watched: {error}.");
        }
        for warning in new.warnings.iter().chain(&warnings) {
            warn!("Warning: {warning}");
        }
        if (&new.store, &new.startup) != (&self.settings.store, &self.settings.startup)
            || new.core.persistence != self.settings.core.persistence
        {
            warn!(
                "Warning: what the new configuration says of storage, user, pid file and background counts from the next start on."
            );
        }
        let core = Config { persistence: self.settings.core.persistence, ..core_config(&new) };
        self.broker.reconfigure(core, self.now);
        let replaced: Vec<(Rc<Rules>, Rc<Rules>)> = older
            .into_iter()
            .filter_map(|(listener, older)| Some((older, self.doors.rules_of(listener)?.clone())))
            .filter(|(older, rules)| !Rc::ptr_eq(older, rules))
            .collect();
        self.broker.replace_rules(&replaced);
        for id in 0..self.transports.len() {
            if self.transports[id].is_some()
                && let Some(rules) = self.doors.rules_of(self.entrances[id])
            {
                self.broker.set_rules(id as LinkId, rules, self.now);
            }
        }
        self.admit_leaving();
        let started = std::mem::replace(&mut self.settings, new);
        // What counts from the next start on is compared with what counted at this one.
        self.settings.store = started.store;
        self.settings.startup = started.startup;
        self.settings.core.persistence = started.core.persistence;
        Ok(())
    }

    /// The door that belongs at this path if it is not the one there is: another one, or none.
    fn other_control(&self, path: Option<&Path>) -> Result<Option<Option<ControlDoor>>, OpenError> {
        let is_there = match (path, self.control.door()) {
            (Some(path), Some(door)) => door.serves(path),
            (path, door) => path.is_none() && door.is_none(),
        };
        if is_there { Ok(None) } else { path.map(ControlDoor::open).transpose().map(Some) }
    }

    /// There is a thread that checks passwords from now on.
    fn start_verifier(&mut self) -> io::Result<()> {
        if self.verifier.is_none() {
            self.verifier = Some(Verifier::start(wakes(&self.waker))?);
        }
        Ok(())
    }

    /// Passwords that were checked, and the next one to be.
    fn turn_logins(&mut self) {
        let Some(verifier) = &mut self.verifier else { return };
        if let Some((id, is_right)) = verifier.take_answer() {
            self.broker.login(id, is_right, self.now);
        }
        if !verifier.is_busy()
            && let Some((id, check)) = self.broker.take_login(self.now)
        {
            verifier.submit(id, check);
        }
    }

    /// Tells the service manager that the loop turns, as often as it wants to hear it.
    fn watchdog(&mut self) {
        let Some(interval) = self.notify.watchdog_interval() else { return };
        if self.watchdog_at.is_none_or(|at| at <= self.now) {
            self.notify.watchdog();
            self.watchdog_at = Some(self.now + interval);
        }
    }

    /// Who subscribes to what, on standard output.
    fn print_subscriptions(&self) {
        let mut text = Vec::new();
        // Writing to a Vec does not fail.
        let _ = self.broker.subscription_tree(&mut text);
        match print(&text) {
            Ok(count) if count < text.len() => {
                warn!(
                    "Warning: the subscription tree has {} bytes, of which standard output took {count}.",
                    text.len()
                );
            }
            Ok(_) => {}
            Err(error) => warn!("Warning: the subscription tree could not be printed: {error}."),
        }
    }

    /// Nothing happened but that it was time to look for memory, or to tell the service manager that the loop turns.
    fn leaves_nothing_behind(&self, events: &Events) -> bool {
        let is_past = |at: Option<Millis>| at.is_some_and(|at| at <= self.now);
        events.is_empty() && (is_past(self.trims.next()) || is_past(self.watchdog_at))
    }

    /// Gives back memory that was not needed for a while; an idle broker that has none to give back does not wake up for it.
    fn trim(&mut self) {
        match self.trims.next() {
            None if !self.is_settled || self.broker.has_spare_memory() => self.trims.begin(self.now),
            Some(at) if at <= self.now => {
                let is_quieter = self.broker.trim();
                // With no output needed it has become quieter: if nothing is left to look for, the next wait settles.
                self.trims.looked(is_quieter, !self.broker.has_spare_memory(), self.now);
                if !is_quieter {
                    return;
                }
                while self.transports.last().is_some_and(Option::is_none) {
                    self.transports.pop();
                }
                self.transports.shrink_to_fit();
                self.entrances.truncate(self.transports.len());
                self.entrances.shrink_to_fit();
                self.ready.shrink_to_fit();
                self.greedy.shrink_to_fit();
                self.links.shrink_to_fit();
                give_back_pages(&mut self.scratch);
                give_back_memory();
                self.may_settle = true;
            }
            _ => {}
        }
    }

    fn clock(&self) -> Millis {
        self.started_at + Millis(self.started.elapsed().as_millis() as u64)
    }

    fn turn_keeper(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.turn(&mut self.broker, self.now);
        }
    }

    /// Log lines that were held long enough, and those that somebody subscribes to: last, for every part of a turn may log.
    fn turn_log(&mut self) {
        logger::turn();
        self.broker.set_log_bytes(logger::bytes() as u64);
        logger::publish(self.broker.hears_log(), |topic, line| self.broker.publish_log(topic, line, self.now));
    }

    /// Nothing to wait for while something is left to do; else until the core's next deadline.
    fn timeout(&self) -> Option<Duration> {
        let is_busy = self.doors.has_work()
            || !self.control.is_idle()
                && (self.control.has_work()
                    || self.answers.iter().flatten().any(|answer| answer.has_news(&self.broker)))
            || self.broker.has_work();
        if is_busy || !self.ready.is_empty() || !self.greedy.is_empty() {
            return Some(Duration::ZERO);
        }
        let store = self.keeper.as_ref().and_then(|keeper| keeper.deadline(&self.broker));
        let deadline = self
            .doors
            .deadline()
            .into_iter()
            .chain(self.broker.next_deadline())
            .chain(self.trims.next())
            .chain(self.watchdog_at)
            .chain(self.control.deadline())
            .chain(store)
            .min();
        let deadline = deadline.map(|at| match at - self.now {
            // The turn took some of that.
            wait if wait < WAIT_LONG => Duration::from_millis((at - self.clock()).0),
            wait => Duration::from_millis(wait.0),
        });
        let log = logger::deadline().map(|at| at.saturating_duration_since(Instant::now()));
        deadline.into_iter().chain(log).min()
    }

    /// Remembers what an event says of a connection.
    fn note(&mut self, id: LinkId, event: &mio::event::Event) {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return };
        transport.edges.note(Edge::Ended, event.is_read_closed() || event.is_error());
        if event.is_writable() && !transport.edges.has(Edge::Writable) {
            transport.edges.set(Edge::Writable, true);
            self.broker.mark_unwritten(id);
            if transport.has_output() {
                self.broker.mark_dirty(id);
            }
        }
        if event.is_readable() || transport.edges.has(Edge::Ended) {
            transport.edges.set(Edge::Readable, true);
            self.queue_read(id);
        }
    }

    /// Puts a link on one of the lists of those to read.
    fn queue_read(&mut self, id: LinkId) {
        if let Some(Some(transport)) = self.transports.get_mut(id as usize)
            && transport.edges.has(Edge::Readable)
            && !transport.edges.has(Edge::Queued)
        {
            transport.edges.set(Edge::Queued, true);
            match transport.edges.has(Edge::Greedy) {
                true => self.greedy.push_back(id),
                false => self.ready.push(id),
            }
        }
    }

    fn accept(&mut self) {
        let end = self.doors.numbers_end();
        if end == 0 {
            return;
        }
        for number in 0..end {
            if !self.doors.is_ready(number, self.now) {
                continue;
            }
            for _ in 0..ACCEPTS_PER_TURN {
                if !self.accept_one(number) {
                    break;
                }
            }
        }
        self.doors.rest();
    }

    /// Who waits at a socket that is no longer to be served is let in, and the socket closed.
    fn admit_leaving(&mut self) {
        while let Some(number) = self.doors.leaving() {
            let _ = (0..ACCEPTS_OF_LEAVING).all(|_| self.accept_one(number));
            self.doors.close(number);
        }
    }

    /// Accepts the next connection of a listener; false if it is to be left alone for now.
    fn accept_one(&mut self, number: usize) -> bool {
        match self.doors.accept(number) {
            Accept::Peer(transport, caller) => {
                self.admit(transport, caller, number);
                true
            }
            Accept::WouldBlock => false,
            Accept::OutOfDescriptors => match self.doors.refuse(number, &mut self.reserve) {
                Refusal::Peer(caller) => {
                    self.broker.turned_away(self.now);
                    self.log_refusal(peer(caller));
                    true
                }
                Refusal::WouldBlock => false,
                Refusal::Later => {
                    self.doors.pause(number, self.now + ACCEPT_RETRY);
                    self.log_refusal(Peer::Unknown);
                    false
                }
            },
            Accept::Failed(error) => {
                let place = self.doors.place(number);
                error!(about = "accept"; "Error: accepting connections on {place} failed: {error}.");
                self.doors.pause(number, self.now + ACCEPT_RETRY);
                false
            }
        }
    }

    /// Lets a connection in, unless there are too many.
    fn admit(&mut self, transport: Transport, caller: Caller, number: usize) {
        let is_logged = self.broker.config().connection_messages;
        let peer = peer(caller);
        let denial = match self.doors.is_full(number) {
            true => Some(Denial::of_listener(self.doors.max_connections(number))),
            false => self.broker.denial(peer, self.now),
        };
        if let Some(Denial { what, option, max }) = denial {
            self.broker.turned_away(self.now);
            if is_logged {
                notice!(
                    address = peer.number(), what = option;
                    "Client connection from {} denied: {what} exceeded. It came from {peer}, and {option} is {max}.",
                    peer.ip()
                );
            }
            return;
        }
        if is_logged {
            let place = match self.doors.place(number) {
                Place::Tcp(address) => format!("port {}", address.port()),
                Place::Unix(path) => path.display().to_string(),
            };
            notice!(address = peer.number(); "New connection from {peer} on {place}.");
        }
        let id = self.open(transport, peer, number);
        if self.entrances.len() <= id as usize {
            self.entrances.resize(id as usize + 1, 0);
        }
        self.entrances[id as usize] = self.doors.enter(number);
    }

    fn open(&mut self, mut transport: Transport, peer: Peer, number: usize) -> LinkId {
        let id = self.broker.open(peer, self.doors.rules(number), self.now);
        let at = id as usize;
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut transport, Token(at), both) {
            self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now);
        }
        if self.transports.len() <= at {
            self.transports.resize_with(at + 1, || None);
        }
        self.transports[at] = Some(transport);
        id
    }

    /// No descriptor is left: whoever comes now is turned away at once instead of left waiting.
    fn log_refusal(&self, peer: Peer) {
        let open = self.broker.link_count();
        let ip = peer.ip();
        warn!(
            address = peer.number();
            "Client connection from {ip} denied: no descriptor is free ({open} connections are open). It came from {peer}."
        );
    }

    /// Reads each ready link once, and the greedy ones within their budget; what is left in a socket is read in a later turn.
    fn read_ready(&mut self) {
        let mut ready = std::mem::replace(&mut self.ready, std::mem::take(&mut self.links));
        for id in ready.drain(..) {
            self.read_next(id);
        }
        self.links = ready;
        if self.greedy.is_empty() {
            return;
        }
        // What the others said does not wait for those.
        self.write_dirty();
        let (mut budget, mut begun) = (GREEDY_PER_TURN, Instant::now());
        for _ in 0..self.greedy.len() {
            let Some(id) = self.greedy.pop_front() else { break };
            budget = budget.saturating_sub(self.read_next(id));
            let took = begun.elapsed();
            begun += took;
            if let Some(Some(transport)) = self.transports.get_mut(id as usize) {
                let edges = &mut transport.edges;
                if took > GREEDY_READ_MAX {
                    edges.halvings = (edges.halvings + 1).min(HALVINGS_MAX);
                    break;
                } else if took < GREEDY_READ_MAX / 4 {
                    edges.halvings = edges.halvings.saturating_sub(1);
                }
            }
            if budget == 0 {
                break;
            }
        }
    }

    /// Those whose turn to be read is still to come are not silent, however many there are of them.
    fn excuse_unread(&mut self) {
        if self.greedy.is_empty() || self.broker.next_deadline().is_none_or(|at| at > self.now) {
            return;
        }
        for &id in &self.greedy {
            if let Some(Some(_)) = self.transports.get(id as usize) {
                self.broker.waits_unread(id, self.now);
            }
        }
    }

    /// Reads a link whose turn it is; says how many bytes it brought.
    fn read_next(&mut self, id: LinkId) -> usize {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return 0 };
        transport.edges.set(Edge::Queued, false);
        // A link that must wait keeps its readiness until it is resumed.
        if !self.broker.wants_input(id) {
            return 0;
        }
        let (count, has_more) = self.read(id);
        if has_more {
            self.queue_read(id);
        }
        // Many publishers of one subscriber would otherwise fill its output before it is offered anything.
        if self.broker.gathered() >= GATHERED_MAX {
            self.write_dirty();
        }
        count
    }

    /// One read: how many bytes it brought, and whether there may be more.
    fn read(&mut self, id: LinkId) -> (usize, bool) {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return (0, false) };
        let room = READ_LEN >> transport.edges.halvings;
        let read = match transport.read(&mut self.scratch[..room]) {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => return (0, true),
            Err(error) => {
                transport.edges.set(Edge::Readable, false);
                if error.kind() != ErrorKind::WouldBlock {
                    self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now);
                }
                return (0, false);
            }
        };
        let is_greedy = read.count >= GREEDY_LEN.min(room);
        transport.edges.set(Edge::Greedy, is_greedy);
        if !is_greedy {
            transport.edges.halvings = 0;
        }
        let is_readable = match read.left {
            Left::Full => true,
            // Unless the end is still to be read.
            Left::Empty => transport.edges.has(Edge::Ended),
            Left::Ended | Left::Broken(_) => false,
        };
        transport.edges.set(Edge::Readable, is_readable);
        if transport.has_output() {
            self.broker.mark_dirty(id);
        }
        if read.count > 0 {
            self.broker.set_memory_used(allocated());
            self.broker.receive(id, &self.scratch[..read.count], self.now);
        }
        match read.left {
            Left::Full | Left::Empty => return (read.count, true),
            Left::Ended => self.broker.hang_up(id, HangUp::Closed, self.now),
            Left::Broken(fault) => self.broker.hang_up(id, HangUp::Breach(fault.to_string()), self.now),
        }
        (read.count, false)
    }

    /// Links that waited for others handle the input they hold, and are read again.
    fn resume(&mut self) {
        if !self.broker.has_resumed() {
            return;
        }
        let mut readable = std::mem::take(&mut self.links);
        self.broker.resume(&mut readable, self.now);
        readable.drain(..).for_each(|id| self.queue_read(id));
        self.links = readable;
    }

    fn write_dirty(&mut self) {
        if !self.broker.has_dirty() {
            return;
        }
        let mut dirty = std::mem::take(&mut self.links);
        self.broker.take_dirty(&mut dirty);
        dirty.drain(..).for_each(|id| self.write(id));
        self.links = dirty;
    }

    /// One write, if the socket takes any.
    fn write(&mut self, id: LinkId) {
        let Some(Some(transport)) = self.transports.get_mut(id as usize) else { return };
        if !transport.edges.has(Edge::Writable) {
            return;
        }
        let output = self.broker.output(id);
        let (offered, result) = match output.piece() {
            Some(piece) => (piece.len(), transport.write_vectored(&[IoSlice::new(piece)])),
            None if output.is_empty() && !transport.has_output() => return,
            None => write_pieces(transport, output),
        };
        match result {
            Ok(written) => {
                let is_writable = written == offered && !transport.has_output();
                transport.edges.set(Edge::Writable, is_writable);
                self.broker.wrote(id, written, self.now);
                if is_writable {
                    self.broker.mark_unwritten(id);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => self.broker.mark_dirty(id),
            Err(error) if error.kind() == ErrorKind::WouldBlock => transport.edges.set(Edge::Writable, false),
            Err(error) => self.broker.hang_up(id, HangUp::Failed(error.to_string()), self.now),
        }
    }

    /// The end of closed links: what they were told is on its way, and what they sent meanwhile is read, because a socket that
    /// is closed with unread input takes back what it sent last.
    fn free_closed(&mut self) {
        if !self.broker.has_closing() {
            return;
        }
        let mut closed = std::mem::take(&mut self.links);
        self.broker.take_closing(&mut closed);
        for id in closed.drain(..) {
            if let Some(mut transport) = self.transports[id as usize].take() {
                let _ = transport.shutdown_write();
                let _ = transport.read(&mut self.scratch[..READ_LEN]);
                self.doors.leave(self.entrances[id as usize]);
            }
            self.broker.reap(id);
        }
        self.links = closed;
    }

    /// An orderly end: wills, DISCONNECT for those who know it, and the sockets closed.
    fn stop(&mut self) {
        self.notify.stopping();
        self.broker.shut_down(self.now);
        if let Some(keeper) = &mut self.keeper {
            keeper.finish(&mut self.broker, self.now);
        }
        self.write_dirty();
        self.free_closed();
    }
}
