//! The loop: one poll, and the order of a turn. The only module that reads the clock or calls poll. It owns sockets and moves
//! bytes between them and the core, which owns everything else.
//!
//! A turn: wait; note what is ready; accept, within a budget; read each ready socket once, but of those that bring much only as many
//! as a budget allows; let paused links go on; write each link with output once, or earlier if much gathers; let the core's timers
//! fire, and write what they said; hand what must be stored to the helper thread; free closed links. Sockets are registered once, edge-triggered, for
//! both directions: what is not read or written to the end is remembered here. With nothing left to do the next turn
//! waits for the core's next deadline, or for ever.
//!
//! Per message in a burst: one read and one write a socket and turn, whatever the number of messages.

mod arrivals;
mod reload;
mod transfer;

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::VERSION;
use crate::admin::{Answer, Progress};
use crate::broker::{Broker, LinkId};
use crate::config::Config;
use crate::control::REQUEST_MAX;
use crate::keeper::{Keeper, KeeperError};
use crate::logger;
use crate::net::{self, Control, Doors, ListenerId, Transport};
use crate::options::{Settings, UsageError};
use crate::os::{
    Notify, Reserve, Signal, Signals, allocated, give_back_memory, give_back_program, give_back_stack,
    memory_of_machine, print, raise_descriptor_limit,
};
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
const EVENTS_PER_TURN: usize = 256;
/// From so long a wait on, it may be longer by what the turn took that goes before it.
const WAIT_LONG: Millis = Millis(1000);
/// Full turns in a row after which timers are looked at all the same: 16,384 sockets.
const CROWDED_TURNS_MAX: u32 = 64;

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
                // What the start took, or the load that is over; the buffer's pages, too.
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
        let is_such_a_time = is_past(self.trims.next()) || is_past(self.watchdog_at);
        events.is_empty() && is_such_a_time && !is_past(self.broker.next_deadline())
    }

    /// Gives back memory that was not needed for a while; an idle broker that has none to give back does not wake up for it.
    fn trim(&mut self) {
        match self.trims.next() {
            None if !self.is_settled || self.broker.has_spare_memory() => self.trims.begin(self.now),
            Some(at) if at <= self.now => {
                let is_quieter = self.broker.trim();
                self.trims.looked(is_quieter, is_quieter && !self.broker.has_spare_memory(), self.now);
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
