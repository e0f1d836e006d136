//! A descriptor kept back for the moment when there are no more: without it a connection that cannot be accepted
//! stays in the backlog, its client waits in vain and an edge-triggered poll never mentions it again. Given up for
//! an instant, the reserve lets the connection be accepted and closed, which the client understands.

use std::fs::File;

pub struct Reserve {
    held: Option<File>,
}

impl Reserve {
    pub fn new() -> Reserve {
        Reserve { held: open() }
    }

    /// Frees the descriptor. Does nothing if none is held.
    pub fn release(&mut self) {
        self.held = None;
    }

    /// Takes a descriptor again if none is held and one is free.
    pub fn refill(&mut self) {
        if self.held.is_none() {
            self.held = open();
        }
    }
}

impl Default for Reserve {
    fn default() -> Reserve {
        Reserve::new()
    }
}

fn open() -> Option<File> {
    File::open("/dev/null").ok()
}
