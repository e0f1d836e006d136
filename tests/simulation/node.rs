//! The broker with a tap on everything it writes, at the moment it writes it; and, where wanted, with a saboteur behind it.

use std::collections::VecDeque;
use std::io::IoSlice;

use midge::broker::{Broker, LinkId};
use midge::buffer::OutBuf;
use midge::codec::{Split, split_frame};
use midge::time::Millis;

use super::model::Model;
use super::saboteur::Saboteur;

pub struct Node {
    pub broker: Broker,
    pub saboteur: Option<Saboteur>,
    /// By link id.
    wires: Vec<Option<Wire>>,
}

struct Wire {
    conn: usize,
    /// Bytes of the broker's output that were looked at, and that were written, since the link opened.
    tapped: u64,
    written: u64,
    /// With a saboteur: what it has not passed on, and what it has.
    partial: Vec<u8>,
    altered: VecDeque<u8>,
}

impl Node {
    pub fn new(broker: Broker, saboteur: Option<Saboteur>) -> Node {
        Node { broker, saboteur, wires: Vec::new() }
    }

    pub fn opened(&mut self, link: LinkId, conn: usize) {
        let at = link as usize;
        if self.wires.len() <= at {
            self.wires.resize_with(at + 1, || None);
        }
        self.wires[at] = Some(Wire { conn, tapped: 0, written: 0, partial: Vec::new(), altered: VecDeque::new() });
    }

    pub fn conn(&self, link: LinkId) -> Option<usize> {
        self.wires.get(link as usize)?.as_ref().map(|wire| wire.conn)
    }

    pub fn reap(&mut self, link: LinkId) {
        self.broker.reap(link);
        self.wires[link as usize] = None;
    }

    /// Shows the model what was written since the last time.
    pub fn tap(&mut self, model: &mut Model) {
        for at in 0..self.wires.len() {
            let Some(wire) = &mut self.wires[at] else { continue };
            let link = at as LinkId;
            if self.saboteur.is_some() {
                self.tap_altered(link, model);
                continue;
            }
            let total = wire.written + self.broker.output(link).len() as u64;
            if total > wire.tapped {
                let bytes = first_bytes(self.broker.output(link), usize::MAX);
                let known = (wire.tapped - wire.written) as usize;
                if bytes.len() > known {
                    wire.tapped = wire.written + bytes.len() as u64;
                    model.wrote(wire.conn, &bytes[known..]);
                }
            }
        }
    }

    /// The saboteur takes all output at once.
    fn tap_altered(&mut self, link: LinkId, model: &mut Model) {
        let (Some(saboteur), Some(wire)) = (&mut self.saboteur, &mut self.wires[link as usize]) else { return };
        while !self.broker.output(link).is_empty() {
            let bytes = first_bytes(self.broker.output(link), usize::MAX);
            self.broker.wrote(link, bytes.len(), Millis(model.now_ms));
            wire.partial.extend_from_slice(&bytes);
            let mut at = 0;
            while let Ok(Split::Frame { len, .. }) = split_frame(&wire.partial[at..], 0) {
                let mut out = Vec::new();
                saboteur.alter(wire.conn, &wire.partial[at..at + len], model, &mut out);
                model.wrote(wire.conn, &out);
                wire.altered.extend(out);
                at += len;
            }
            wire.partial.drain(..at);
            let held = saboteur.release(wire.conn);
            model.wrote(wire.conn, &held);
            wire.altered.extend(held);
        }
    }

    pub fn has_output(&self, link: LinkId) -> bool {
        let altered = self.wires[link as usize].as_ref().is_some_and(|wire| !wire.altered.is_empty());
        altered || !self.broker.output(link).is_empty()
    }

    /// One write of the socket, which takes at most `max` bytes; says also whether that was all there was.
    pub fn take_output(&mut self, link: LinkId, max: usize, now: Millis) -> (Vec<u8>, bool) {
        let Some(wire) = &mut self.wires[link as usize] else { return (Vec::new(), true) };
        if self.saboteur.is_some() {
            let count = wire.altered.len().min(max);
            return (wire.altered.drain(..count).collect(), wire.altered.is_empty());
        }
        let mut bytes = first_bytes(self.broker.output(link), usize::MAX);
        let offered = bytes.len();
        bytes.truncate(max);
        if offered > 0 {
            wire.written += bytes.len() as u64;
            self.broker.wrote(link, bytes.len(), now);
        }
        let is_all = bytes.len() == offered;
        (bytes, is_all)
    }
}

/// The bytes one vectored write would offer.
fn first_bytes(output: &OutBuf, max: usize) -> Vec<u8> {
    let mut slices = [IoSlice::new(&[]); OutBuf::SLICES_MAX];
    let count = output.slices(&mut slices);
    let mut bytes = Vec::new();
    for slice in &slices[..count] {
        let room = max.saturating_sub(bytes.len());
        bytes.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    bytes
}
