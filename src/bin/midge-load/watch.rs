//! Looks at the broker once a second while the load runs, and says on standard error how far it is.

use std::io::{self, IsTerminal, Write};

use crate::engine::Tally;
use crate::process::{Memory, Process};

pub struct Watch {
    /// The scenario.
    id: String,
    phase: &'static str,
    process: Option<Process>,
    pub peak: Memory,
    delivered: u64,
    is_quiet: bool,
    is_terminal: bool,
}

impl Watch {
    pub fn new(id: &str, process: Option<u32>, is_quiet: bool) -> Watch {
        Watch {
            id: id.to_string(),
            phase: "",
            process: process.and_then(Process::new),
            peak: Memory::default(),
            delivered: 0,
            is_quiet,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    pub fn phase(&mut self, phase: &'static str) {
        self.phase = phase;
        self.say("");
    }

    pub fn second(&mut self, tally: &Tally) {
        let rate = tally.delivered - self.delivered;
        self.delivered = tally.delivered;
        if let Some(process) = &self.process {
            self.peak = self.peak.max(process.memory_at_a_glance());
        }
        if self.is_terminal {
            self.say(&format!(", {rate} messages/s"));
        }
    }

    /// The memory of the broker, exactly, which takes a moment.
    pub fn memory(&mut self) -> Option<Memory> {
        let memory = self.process.as_ref()?.memory();
        self.peak = self.peak.max(memory);
        Some(memory)
    }

    fn say(&self, more: &str) {
        if self.is_quiet {
            return;
        }
        // In a terminal one line is written over and over.
        let (begin, end) = if self.is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let _ = write!(io::stderr(), "{begin}{}: {}{more}{end}", self.id, self.phase);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.is_terminal && !self.is_quiet {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
