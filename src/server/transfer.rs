//! Bytes between sockets and the core: what the events say of a socket, its turn to be read and to be written, and its end.

use std::io::{self, ErrorKind, IoSlice};
use std::time::{Duration, Instant};

use super::{READ_LEN, Server};
use crate::broker::{HangUp, LinkId};
use crate::buffer::OutBuf;
use crate::net::{Edge, Left, Transport};
use crate::os::allocated;

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
    /// Remembers what an event says of a connection.
    pub(super) fn note(&mut self, id: LinkId, event: &mio::event::Event) {
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

    /// Reads each ready link once, and the greedy ones within their budget; what is left in a socket is read in a later turn.
    pub(super) fn read_ready(&mut self) {
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
    pub(super) fn excuse_unread(&mut self) {
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
    pub(super) fn resume(&mut self) {
        if !self.broker.has_resumed() {
            return;
        }
        let mut readable = std::mem::take(&mut self.links);
        self.broker.resume(&mut readable, self.now);
        readable.drain(..).for_each(|id| self.queue_read(id));
        self.links = readable;
    }

    pub(super) fn write_dirty(&mut self) {
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
    pub(super) fn free_closed(&mut self) {
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
}
