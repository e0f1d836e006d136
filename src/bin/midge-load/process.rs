//! What /proc says about a process: its processor time, memory, wake-ups, writing and descriptors. Everything is read anew
//! each time; what cannot be read is 0, and a process of another machine is none at all.

use std::fs;

/// Totals since the process started, and what it holds now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    pub cpu_ns: u64,
    pub voluntary_switches: u64,
    pub involuntary_switches: u64,
    pub written_bytes: u64,
    pub descriptors: u64,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Memory {
    pub resident_bytes: u64,
    /// What no other process has mapped; parts of libraries come and go with others that use them.
    pub private_bytes: u64,
    /// What is no file's: heap, stacks and changed data.
    pub anonymous_bytes: u64,
}

impl Memory {
    pub fn max(self, other: Memory) -> Memory {
        Memory {
            resident_bytes: self.resident_bytes.max(other.resident_bytes),
            private_bytes: self.private_bytes.max(other.private_bytes),
            anonymous_bytes: self.anonymous_bytes.max(other.anonymous_bytes),
        }
    }
}

/// The clock that `Usage::cpu_ns` is read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuClock {
    /// Run time of all threads, nanoseconds.
    SchedStat,
    /// utime and stime, in clock ticks.
    Stat,
}

impl CpuClock {
    pub fn name(self) -> &'static str {
        match self {
            CpuClock::SchedStat => "schedstat",
            CpuClock::Stat => "stat",
        }
    }
}

pub struct Process {
    pub id: u32,
    pub clock: CpuClock,
}

impl Process {
    /// Nothing if there is no such process.
    pub fn new(id: u32) -> Option<Process> {
        fs::metadata(format!("/proc/{id}/stat")).ok()?;
        let clock = if run_time_ns(id) > 0 { CpuClock::SchedStat } else { CpuClock::Stat };
        Some(Process { id, clock })
    }

    /// All figures but memory.
    pub fn usage(&self) -> Usage {
        let (mut voluntary_switches, mut involuntary_switches) = (0, 0);
        for task in tasks(self.id) {
            let status = read(&format!("{task}/status"));
            voluntary_switches += number_behind(&status, "voluntary_ctxt_switches:");
            involuntary_switches += number_behind(&status, "nonvoluntary_ctxt_switches:");
        }
        Usage {
            cpu_ns: self.cpu_ns(),
            voluntary_switches,
            involuntary_switches,
            written_bytes: number_behind(&read(&format!("/proc/{}/io", self.id)), "write_bytes:"),
            descriptors: fs::read_dir(format!("/proc/{}/fd", self.id)).map_or(0, |list| list.count() as u64),
        }
    }

    pub fn cpu_ns(&self) -> u64 {
        match self.clock {
            CpuClock::SchedStat => run_time_ns(self.id),
            CpuClock::Stat => ticks(self.id) * 10_000_000,
        }
    }

    /// Resident and private bytes, exactly. Takes milliseconds for a large process, so not to be called while times are taken.
    pub fn memory(&self) -> Memory {
        let rollup = read(&format!("/proc/{}/smaps_rollup", self.id));
        let bytes = |name| number_behind(&rollup, name) * 1024;
        Memory {
            resident_bytes: bytes("Rss:"),
            private_bytes: bytes("Private_Clean:") + bytes("Private_Dirty:"),
            anonymous_bytes: bytes("Anonymous:"),
        }
    }

    /// The same from what the kernel counts anyway, without walking the pages; of what is private, the anonymous part.
    pub fn memory_at_a_glance(&self) -> Memory {
        let status = read(&format!("/proc/{}/status", self.id));
        let bytes = |name| number_behind(&status, name) * 1024;
        let anonymous_bytes = bytes("RssAnon:");
        Memory { resident_bytes: bytes("VmRSS:"), private_bytes: anonymous_bytes, anonymous_bytes }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn tasks(id: u32) -> impl Iterator<Item = String> {
    let list = fs::read_dir(format!("/proc/{id}/task")).ok();
    list.into_iter().flatten().flatten().map(|entry| entry.path().display().to_string())
}

fn run_time_ns(id: u32) -> u64 {
    tasks(id).map(|task| number_behind(&read(&format!("{task}/schedstat")), "")).sum()
}

fn ticks(id: u32) -> u64 {
    let stat = read(&format!("/proc/{id}/stat"));
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The first number of the line that begins with `name`; 0 if there is none.
fn number_behind(text: &str, name: &str) -> u64 {
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let process = Process::new(std::process::id()).unwrap();
        while process.cpu_ns() == 0 {
            std::hint::black_box((0..1_000_000u64).sum::<u64>());
        }
        let usage = process.usage();
        assert!(usage.cpu_ns > 0 && usage.descriptors >= 3, "{usage:?}");
        let memory = process.memory();
        assert!(memory.private_bytes > 0 && memory.resident_bytes >= memory.private_bytes, "{memory:?}");
        assert!(process.memory_at_a_glance().resident_bytes > 0);
    }

    #[test]
    fn no_process_is_none() {
        assert!(Process::new(0).is_none());
    }

    #[test]
    fn numbers_behind_names() {
        let text = "Rss:   12 kB\nnonvoluntary_ctxt_switches:\t3\nvoluntary_ctxt_switches:\t45\n";
        assert_eq!(number_behind(text, "Rss:"), 12);
        assert_eq!(number_behind(text, "voluntary_ctxt_switches:"), 45);
        assert_eq!(number_behind(text, "Pss:"), 0);
        assert_eq!(number_behind("121007 88676 2", ""), 121_007);
    }
}
