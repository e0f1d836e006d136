//! The control socket: who connects asks one thing, gets the answer as fast as it reads, and is gone. Knows bytes, not what they
//! mean. Everything about it is bounded: callers at a time, bytes of a request, bytes of an answer that wait, and how long
//! somebody may do nothing. While nobody calls it costs nothing, and wakes nobody.

use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;

use log::{error, info, warn};
use mio::{Interest, Registry, Token};

use super::{Accept, Caller, Edge, Left, Listener, OpenError, Transport};
use crate::config::Protocol;
use crate::time::Millis;

/// Callers at a time: people and their scripts. Whoever comes then waits until one is done.
pub const CALLS_MAX: usize = 8;
/// Tokens: that of the socket, and one for each caller behind it.
pub const TOKENS: usize = 1 + CALLS_MAX;

/// The owner alone may connect, and root.
const MODE: u32 = 0o600;
/// How long a caller may take to say what it wants.
const ASKING: Millis = Millis::from_secs(10);
/// How long one may read nothing of its answer.
const ANSWERING: Millis = Millis::from_secs(30);
/// When accepting is tried again that failed.
const ACCEPT_RETRY: Millis = Millis::from_secs(1);
/// Bytes of one read.
const READ_LEN: usize = 4096;

/// The socket that listens; its file goes with it.
#[derive(Debug)]
pub struct ControlDoor {
    listener: Listener,
    /// Somebody may wait.
    is_ready: bool,
    retry_at: Option<Millis>,
}

impl ControlDoor {
    /// Listens at this path. What a dead broker left there is replaced.
    ///
    /// # Errors
    /// When that is not to be had; a socket that answers is somebody else's, and left alone.
    pub fn open(path: &Path) -> Result<ControlDoor, OpenError> {
        let listener = Listener::unix(path, None, Some(MODE))?;
        info!("Opening control socket {}.", path.display());
        Ok(ControlDoor { listener, is_ready: true, retry_at: None })
    }

    /// Whether whoever connects to this path comes here.
    pub fn serves(&self, path: &Path) -> bool {
        self.listener.serves(&super::Place::Unix(path.to_path_buf()))
    }
}

/// The door, if there is one, and those who came in.
#[derive(Default)]
pub struct Control {
    door: Option<ControlDoor>,
    calls: [Option<Call>; CALLS_MAX],
    /// Nobody calls, nor is accepting to be tried again: as it is in all turns of the loop but a few.
    is_idle: bool,
}

struct Call {
    transport: Transport,
    caller: Caller,
    stage: Stage,
    /// The request, and later what of the answer waits to be written.
    bytes: Vec<u8>,
    written: usize,
    /// The answer does not go on before something else happens.
    is_waiting: bool,
    /// When it is too slow.
    deadline: Millis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asking,
    /// The request is complete, and nobody has taken it yet.
    Asked,
    Answering,
    /// The answer is complete, and on its way.
    Ending,
}

impl Control {
    pub fn new(door: Option<ControlDoor>) -> Control {
        Control { door, calls: Default::default(), is_idle: false }
    }

    pub fn door(&self) -> Option<&ControlDoor> {
        self.door.as_ref()
    }

    /// Begins to watch the door, under the first of the tokens.
    pub fn register(&mut self, registry: &Registry, first: usize) -> io::Result<()> {
        match &mut self.door {
            Some(door) => registry.register(&mut door.listener, Token(first), Interest::READABLE),
            None => Ok(()),
        }
    }

    /// From now on there is another door, or none. Those who are in go on.
    pub fn replace_door(&mut self, door: Option<ControlDoor>, registry: &Registry, first: usize) -> io::Result<()> {
        self.door = door;
        self.is_idle = false;
        self.register(registry, first)
    }

    /// Remembers what an event says; `number` is that of its token, the first being 0.
    pub fn note(&mut self, number: usize, event: &mio::event::Event) {
        self.is_idle = false;
        let Some(slot) = number.checked_sub(1) else {
            self.door.iter_mut().for_each(|door| door.is_ready = true);
            return;
        };
        let Some(Some(call)) = self.calls.get_mut(slot) else { return };
        call.transport.edges.note(Edge::Readable, event.is_readable() || event.is_error());
        call.transport.edges.note(Edge::Writable, event.is_writable() || event.is_error());
    }

    /// Accepts who waits while there is room, reads what they want, and lets go who is too slow.
    pub fn turn(&mut self, registry: &Registry, first: usize, request_max: usize, now: Millis) {
        for call in &mut self.calls {
            if call.as_ref().is_some_and(|call| call.deadline <= now) {
                *call = None;
            }
        }
        self.accept(registry, first, now);
        for slot in &mut self.calls {
            if let Some(call) = slot
                && call.stage == Stage::Asking
                && call.transport.edges.has(Edge::Readable)
                && call.read(request_max).is_err()
            {
                *slot = None;
            }
        }
    }

    fn accept(&mut self, registry: &Registry, first: usize, now: Millis) {
        let Control { door: Some(door), calls, .. } = self else { return };
        if door.retry_at.is_some_and(|at| at <= now) {
            (door.is_ready, door.retry_at) = (true, None);
        }
        while door.is_ready
            && let Some(slot) = calls.iter().position(Option::is_none)
        {
            match door.listener.accept(Protocol::Mqtt) {
                Accept::Peer(mut transport, caller) => {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    if registry.register(&mut transport, Token(first + 1 + slot), both).is_err() {
                        continue;
                    }
                    // It may have asked already.
                    transport.edges.set(Edge::Readable, true);
                    let (stage, deadline) = (Stage::Asking, now + ASKING);
                    let (bytes, written, is_waiting) = (Vec::new(), 0, false);
                    calls[slot] = Some(Call { transport, caller, stage, bytes, written, is_waiting, deadline });
                }
                Accept::WouldBlock => door.is_ready = false,
                Accept::OutOfDescriptors => {
                    warn!(about = "control"; "A call at the control socket waits: no descriptor is free.");
                    (door.is_ready, door.retry_at) = (false, Some(now + ACCEPT_RETRY));
                }
                Accept::Failed(error) => {
                    error!(about = "control"; "Error: accepting calls at the control socket failed: {error}.");
                    (door.is_ready, door.retry_at) = (false, Some(now + ACCEPT_RETRY));
                }
            }
        }
    }

    /// The next request that is complete, without its line feed: the number of its caller, and who that is. One that is too long
    /// is cut off at `request_max` bytes, and has to be refused.
    pub fn take_request(&mut self, now: Millis) -> Option<(usize, Vec<u8>, Caller)> {
        let (slot, call) = self.calls.iter_mut().enumerate().find_map(|(slot, call)| {
            let call = call.as_mut().filter(|call| call.stage == Stage::Asked)?;
            Some((slot, call))
        })?;
        (call.stage, call.deadline) = (Stage::Answering, now + ANSWERING);
        Some((slot, std::mem::take(&mut call.bytes), call.caller))
    }

    /// Whether an answer is not complete.
    pub fn is_answering(&self, slot: usize) -> bool {
        self.calls[slot].as_ref().is_some_and(|call| call.stage == Stage::Answering)
    }

    /// Where more of an answer goes, once all there was of it is written.
    pub fn room(&mut self, slot: usize) -> Option<&mut Vec<u8>> {
        let call = self.calls[slot].as_mut().filter(|call| call.stage == Stage::Answering)?;
        call.bytes.is_empty().then_some(&mut call.bytes)
    }

    /// Whether the answer has to wait for something else to happen: until then it is no work.
    pub fn set_waiting(&mut self, slot: usize, is_waiting: bool) {
        if let Some(call) = &mut self.calls[slot] {
            call.is_waiting = is_waiting;
        }
    }

    /// The answer is complete.
    pub fn finish(&mut self, slot: usize) {
        if let Some(call) = &mut self.calls[slot] {
            call.stage = Stage::Ending;
        }
    }

    /// Writes what waits, as far as it is taken; who has the whole answer, or is gone, is let go.
    pub fn write(&mut self, now: Millis) {
        for slot in &mut self.calls {
            if let Some(call) = slot
                && matches!(call.stage, Stage::Answering | Stage::Ending)
                && !call.write(now)
            {
                *slot = None;
            }
        }
        let is_left_alone = self.door.as_ref().is_none_or(|door| !door.is_ready && door.retry_at.is_none());
        self.is_idle = is_left_alone && self.calls.iter().all(Option::is_none);
    }

    /// Nothing has to be done until the next event, whatever the time.
    pub fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Something is left to do at once.
    pub fn has_work(&self) -> bool {
        let has_room = self.calls.iter().any(Option::is_none);
        self.door.as_ref().is_some_and(|door| door.is_ready && has_room)
            || self.calls.iter().flatten().any(|call| match call.stage {
                Stage::Asking => call.transport.edges.has(Edge::Readable),
                Stage::Asked => true,
                Stage::Answering if call.bytes.is_empty() => !call.is_waiting,
                Stage::Answering => call.transport.edges.has(Edge::Writable),
                Stage::Ending => call.transport.edges.has(Edge::Writable),
            })
    }

    /// When somebody is too slow, or accepting is to be tried again; nothing while nobody calls.
    pub fn deadline(&self) -> Option<Millis> {
        if self.is_idle {
            return None;
        }
        let retry = self.door.as_ref().and_then(|door| door.retry_at);
        self.calls.iter().flatten().map(|call| call.deadline).chain(retry).min()
    }
}

impl Call {
    /// Reads until the request is complete, or there is no more of it for now.
    fn read(&mut self, request_max: usize) -> io::Result<()> {
        let mut scratch = [0; READ_LEN];
        loop {
            let read = match self.transport.read(&mut scratch) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.transport.edges.set(Edge::Readable, false);
                    return Ok(());
                }
                Err(error) => return Err(error),
            };
            let from = self.bytes.len();
            self.bytes.extend_from_slice(&scratch[..read.count]);
            let end = self.bytes[from..].iter().position(|&byte| byte == b'\n').map(|at| from + at);
            if let Some(end) = end.or((self.bytes.len() > request_max).then_some(request_max)) {
                self.bytes.truncate(end);
                self.stage = Stage::Asked;
                return Ok(());
            }
            if matches!(read.left, Left::Ended | Left::Broken(_)) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// One write; false once it is done with, one way or the other.
    fn write(&mut self, now: Millis) -> bool {
        let edges = &mut self.transport.edges;
        let left = &self.bytes[self.written..];
        if !left.is_empty() && edges.has(Edge::Writable) {
            match self.transport.write_vectored(&[IoSlice::new(left)]) {
                Ok(count) => {
                    self.transport.edges.set(Edge::Writable, count == left.len());
                    self.written += count;
                    self.deadline = now + ANSWERING;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.transport.edges.set(Edge::Writable, false),
                Err(_) => return false,
            }
        }
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
            return self.stage != Stage::Ending;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::time::Duration;

    use mio::{Events, Poll};

    const FIRST: usize = 100;
    const REQUEST_MAX: usize = 1000;

    /// A control socket, and the loop around it.
    struct Office {
        poll: Poll,
        control: Control,
        path: PathBuf,
        now: Millis,
    }

    impl Office {
        fn new(name: &str) -> Office {
            let path = env::temp_dir().join(format!("midge-control-{name}-{}", std::process::id()));
            let poll = Poll::new().unwrap();
            let mut control = Control::new(Some(ControlDoor::open(&path).unwrap()));
            control.register(poll.registry(), FIRST).unwrap();
            Office { poll, control, path, now: Millis(1000) }
        }

        /// One turn of the loop; whoever asked gets `answer` of its request.
        fn turn(&mut self, answer: &mut dyn FnMut(&[u8], &mut Vec<u8>) -> bool) {
            let mut events = Events::with_capacity(16);
            self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
            events.iter().for_each(|event| self.control.note(event.token().0 - FIRST, event));
            self.control.turn(self.poll.registry(), FIRST, REQUEST_MAX, self.now);
            while let Some((slot, request, caller)) = self.control.take_request(self.now) {
                assert!(matches!(caller, Caller::Unix { pid, .. } if pid == std::process::id()));
                if answer(&request, self.control.room(slot).unwrap()) {
                    self.control.finish(slot);
                }
            }
            self.control.write(self.now);
        }
    }

    impl Drop for Office {
        fn drop(&mut self) {
            self.control = Control::default();
            assert!(!self.path.exists(), "the file stays");
        }
    }

    #[test]
    fn a_request_in_pieces_is_answered_once_and_the_caller_let_go() {
        let mut office = Office::new("pieces");
        assert!(office.control.deadline().is_none());
        let mut caller = UnixStream::connect(&office.path).unwrap();
        let mut asked = Vec::new();
        for piece in [&b"ki"[..], b"ck\tx", b"\nmore"] {
            caller.write_all(piece).unwrap();
            office.turn(&mut |request, out| {
                asked.push(request.to_vec());
                out.extend_from_slice(b"ok\n");
                true
            });
        }
        assert_eq!(asked, [b"kick\tx"]);
        let mut answer = [0; 3];
        caller.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ok\n");
        assert!(office.control.deadline().is_none() && !office.control.has_work(), "it waits for nobody");
    }

    #[test]
    fn a_request_without_end_is_cut_off() {
        let mut office = Office::new("long");
        let mut caller = UnixStream::connect(&office.path).unwrap();
        caller.write_all(&vec![b'x'; 5000]).unwrap();
        let mut len = 0;
        office.turn(&mut |request, _| {
            len = request.len();
            true
        });
        assert_eq!(len, REQUEST_MAX);
    }

    #[test]
    fn more_callers_than_there_is_room_for_wait() {
        let mut office = Office::new("many");
        let mut callers: Vec<_> = (0..CALLS_MAX + 2).map(|_| UnixStream::connect(&office.path).unwrap()).collect();
        callers.iter_mut().for_each(|caller| caller.write_all(b"stats\n").unwrap());
        let mut asked = 0;
        let mut answer = |_: &[u8], _: &mut Vec<u8>| {
            asked += 1;
            true
        };
        office.turn(&mut answer);
        office.turn(&mut answer);
        assert_eq!(asked, CALLS_MAX + 2);
    }

    #[test]
    fn who_asks_nothing_or_reads_nothing_is_let_go_after_a_while() {
        let mut office = Office::new("slow");
        let silent = UnixStream::connect(&office.path).unwrap();
        let mut deaf = UnixStream::connect(&office.path).unwrap();
        deaf.write_all(b"clients\n").unwrap();
        office.turn(&mut |_, out| {
            out.extend_from_slice(&vec![b'x'; 4 << 20]);
            false
        });
        assert!(!office.control.has_work(), "nothing is to be done before the socket takes more");
        let slots = |office: &Office| office.control.calls.iter().flatten().count();
        assert_eq!((slots(&office), office.control.deadline()), (2, Some(Millis(11_000))));
        office.now = Millis(11_000);
        office.turn(&mut |_, _| true);
        assert_eq!((slots(&office), office.control.deadline()), (1, Some(Millis(31_000))));
        office.now = Millis(31_000);
        office.turn(&mut |_, _| true);
        assert_eq!((slots(&office), office.control.deadline()), (0, None));
        drop((silent, deaf));
    }
}
