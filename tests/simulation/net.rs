//! One simulated connection: two byte pipes of bounded size, and how each end was closed. It knows nothing of MQTT.

use std::collections::VecDeque;

/// How the client ended its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    /// What was sent before still arrives, then the end of the stream.
    Closed,
    /// What was on its way is lost; the next read or write fails.
    Reset,
}

pub struct Conn {
    /// The broker's link, until it was reaped.
    pub link: Option<u32>,
    /// `None`: the hostile client.
    pub client: Option<usize>,
    /// Client to broker.
    pub up: VecDeque<u8>,
    /// Broker to client.
    pub down: VecDeque<u8>,
    pub capacity: usize,
    pub client_end: End,
    /// The broker closed; what is in `down` can still be read.
    pub is_closed_by_broker: bool,
    /// As `server` keeps it: false after a short write, until there is room again.
    pub is_writable: bool,
    /// The end of the stream, or the failure, was told to the broker.
    pub is_end_told: bool,
}

impl Conn {
    pub fn new(client: Option<usize>, capacity: usize) -> Conn {
        Conn {
            link: None,
            client,
            up: VecDeque::new(),
            down: VecDeque::new(),
            capacity,
            client_end: End::Open,
            is_closed_by_broker: false,
            is_writable: true,
            is_end_told: false,
        }
    }

    /// The client's write: as much of `out` as there is room for, at most `max`.
    pub fn send(&mut self, out: &mut Vec<u8>, max: usize) -> usize {
        if self.client_end != End::Open || self.is_closed_by_broker {
            out.clear();
            return 0;
        }
        let count = out.len().min(max).min(self.capacity.saturating_sub(self.up.len()));
        self.up.extend(out.drain(..count));
        count
    }

    /// The client's read.
    pub fn take_down(&mut self, max: usize) -> Vec<u8> {
        let count = self.down.len().min(max);
        self.down.drain(..count).collect()
    }

    /// The broker's read.
    pub fn take_up(&mut self, max: usize) -> Vec<u8> {
        let count = self.up.len().min(max);
        self.up.drain(..count).collect()
    }

    pub fn room_down(&self) -> usize {
        self.capacity.saturating_sub(self.down.len())
    }

    /// Whether reading would give bytes, the end, or a failure.
    pub fn is_readable(&self) -> bool {
        !self.up.is_empty() || self.client_end != End::Open && !self.is_end_told
    }

    pub fn close(&mut self, end: End) {
        if self.client_end == End::Open {
            self.client_end = end;
            if end == End::Reset {
                self.up.clear();
                self.down.clear();
            }
        }
    }
}
