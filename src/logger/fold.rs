//! Lines that repeat are folded: flash wears out, and a device that reconnects every second, or a scanner of ports, would
//! write a line or two each time, for ever. Only lines that say whom they are about take part; they are counted in windows
//! of a minute. Within one window
//!
//! - the first 5 lines of one place in the code about one client, and about one address, are written as they come, so
//!   that whoever reads them (fail2ban does) learns enough to act;
//! - of one address, 40 lines about clients that were let in, of whatever number of them;
//! - of each place, and of all together, so many bytes: a flood from ten thousand addresses is no different from one.
//!
//! What is beyond that is held: the last line is kept, with how many there were. It is written when the window ends, with
//! `(repeated 214 times in 60 s)` behind it. A window that held something is followed by another in which less is written
//! as it comes, and which is twice as long, up to two minutes for strangers and sixteen for clients.
//!
//! So strangers come to 20 kB in the first minute whatever they do, and to less after it. The time comes in as an argument.
//! Invariant: there are at most `SUBJECTS_MAX` windows of subjects, `SITES_MAX` of places, and one of each class.

use std::collections::HashMap;
use std::fmt::Write;

use super::kind::Kind;
use super::line::beginning;

/// Milliseconds of a first window.
const WINDOW_MS: u64 = 60_000;
/// Lines about one client or address.
const LINES: u32 = 5;
/// Lines about clients of one address: many devices may be behind a router, or a proxy.
const CLIENT_LINES_OF_ADDRESS: u32 = 40;
/// Of a subject in a window that follows one that held something.
const LINES_AGAIN: u32 = 1;
/// Windows of clients and addresses; a flood of new ones beyond that is counted by its place alone.
const SUBJECTS_MAX: usize = 256;
/// Many more than there are places.
const SITES_MAX: usize = 128;
/// The room of so many windows, some kilobytes, is not looked after.
const WINDOWS_FEW: usize = 28;
/// Bytes of a held line.
const HELD_BYTES_MAX: usize = 300;
/// What stands in front of a line: seconds since 1970.
const TIME_LEN: u32 = 13;

/// What a line is about.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject {
    /// Hashes of the place in the code, and of whom it is about.
    pub site: u64,
    pub client: Option<u64>,
    pub address: Option<u64>,
    /// It is about an address that was not let in.
    pub is_stranger: bool,
}

/// The bounds that hold for one of two kinds of subjects.
struct Class {
    key: u64,
    bytes: u32,
    site_bytes: u32,
    /// Windows double up to this.
    window_ms_max: u64,
    /// Clients and addresses with a line held; others are held with their place.
    held_max: usize,
}

/// Whoever reaches the port: 9 kB at once, and 7 kB more for what is held.
static STRANGERS: Class = Class { key: 1, bytes: 9_000, site_bytes: 5_000, window_ms_max: 2 * WINDOW_MS, held_max: 8 };
/// Clients, and the broker's own parts: all devices of a site may come back at once after a power cut.
static CLIENTS: Class =
    Class { key: 2, bytes: 64_000, site_bytes: 32_000, window_ms_max: 16 * WINDOW_MS, held_max: 32 };

/// What was written and held of one client, address, place or class since `began`.
struct Window {
    class: &'static Class,
    is_subject: bool,
    began: u64,
    span_ms: u64,
    /// Lines of a subject, bytes of others.
    shown: u32,
    shown_max: u32,
    held: u32,
    last: Option<(Kind, Box<str>)>,
}

/// One bound a line is under.
#[derive(Clone, Copy)]
struct Bound {
    key: u64,
    cost: u32,
    max: u32,
}

#[derive(Default)]
pub struct Fold {
    windows: HashMap<u64, Window>,
    /// When the first window ends that holds something; or when the last of many has nothing to say any more.
    due: Option<u64>,
}

impl Window {
    fn ends(&self) -> u64 {
        self.began + self.span_ms
    }

    /// Until then it says something of lines to come: that of a place or class was crowded, so that the next is to be stricter.
    fn matters_until(&self) -> u64 {
        self.ends() + if self.is_subject { 0 } else { self.span_ms }
    }
}

impl Subject {
    fn class(&self) -> &'static Class {
        if self.is_stranger { &STRANGERS } else { &CLIENTS }
    }

    /// In the order in which they are looked at: whom a line is about holds it, if it can.
    fn bounds(&self, text: &str) -> [Option<Bound>; 4] {
        let class = self.class();
        let of_address = if self.client.is_some() { CLIENT_LINES_OF_ADDRESS } else { LINES };
        let subject = |hash: Option<u64>, salt: u64, max| {
            hash.map(|hash| Bound { key: hash ^ self.site.rotate_left(17) ^ salt, cost: 1, max })
        };
        let bytes = text.len() as u32 + TIME_LEN;
        [
            subject(self.client, 3, LINES),
            subject(self.address, 4, of_address),
            Some(Bound { key: self.site, cost: bytes, max: class.site_bytes }),
            Some(Bound { key: class.key, cost: bytes, max: class.bytes }),
        ]
    }
}

impl Fold {
    /// Takes note of a line; `write` is called for it, if it is to be written now, and for what was held before.
    pub fn note(&mut self, subject: &Subject, kind: Kind, text: &str, now: u64, write: &mut dyn FnMut(Kind, &str)) {
        let bounds = subject.bounds(text);
        for bound in bounds.iter().flatten() {
            self.close_ended(bound.key, now, write);
        }
        let is_full = |bound: &Bound| {
            let window = self.windows.get(&bound.key);
            window.is_some_and(|window| window.shown > 0 && window.shown + bound.cost > window.shown_max)
        };
        match bounds.iter().flatten().position(is_full) {
            None => {
                for (at, bound) in bounds.iter().enumerate() {
                    if let Some(bound) = bound
                        && let Some(window) = self.window(bound, at < 2, subject.class(), now)
                    {
                        window.shown += bound.cost;
                    }
                }
                write(kind, text);
            }
            Some(_) => {
                let full = bounds.iter().take(2).flatten().find(|bound| is_full(bound)).map(|bound| bound.key);
                self.hold(full, bounds[2], subject.class(), kind, text, now);
            }
        }
    }

    /// When `flush` has something to write.
    pub fn due(&self) -> Option<u64> {
        self.due
    }

    /// Writes what was held in windows that ended; at the end of the program, of all.
    pub fn flush(&mut self, now: u64, is_end: bool, write: &mut dyn FnMut(Kind, &str)) {
        if !is_end && self.due.is_none_or(|due| due > now) {
            return;
        }
        let is_due = |window: &Window| window.held > 0 && (is_end || window.ends() <= now);
        // The oldest first. There are few, so that it is not worth the 4 kB of code that sort.
        while let Some((_, key)) =
            self.windows.iter().filter(|(_, window)| is_due(window)).map(|(&key, window)| (window.began, key)).min()
        {
            self.close(key, now, write);
        }
        // What a storm needed goes with it: windows that say nothing of lines to come, and their room.
        self.windows.retain(|_, window| window.held > 0 || now < window.matters_until());
        self.windows.shrink_to_fit();
        self.find_due();
    }

    /// The window of a bound, a new one if it has none and there is room.
    fn window(&mut self, bound: &Bound, is_subject: bool, class: &'static Class, now: u64) -> Option<&mut Window> {
        if !self.windows.contains_key(&bound.key) {
            let max = if is_subject { SUBJECTS_MAX } else { SUBJECTS_MAX + SITES_MAX };
            if self.windows.len() >= max {
                self.windows.retain(|_, window| window.held > 0 || window.ends() > now);
            }
            if self.windows.len() >= max {
                return None;
            }
            if self.has_much_room() {
                self.due.get_or_insert(now + 2 * WINDOW_MS);
            }
        }
        Some(self.windows.entry(bound.key).or_insert_with(|| Window {
            class,
            is_subject,
            began: now,
            span_ms: WINDOW_MS,
            shown: 0,
            shown_max: bound.max,
            held: 0,
            last: None,
        }))
    }

    /// Keeps the line with its client or address, if that is what has had enough and few others are held, else with its place.
    fn hold(
        &mut self,
        full: Option<u64>,
        site: Option<Bound>,
        class: &'static Class,
        kind: Kind,
        text: &str,
        now: u64,
    ) {
        let held = |window: &&Window| window.is_subject && window.held > 0 && std::ptr::eq(window.class, class);
        let mut own = full.filter(|key| {
            self.windows.get(key).is_some_and(|window| window.held > 0)
                || self.windows.values().filter(held).count() < class.held_max
        });
        if own.is_none()
            && let Some(site) = site
            && self.window(&site, false, class, now).is_some()
        {
            own = Some(site.key);
        }
        let Some(window) = own.and_then(|key| self.windows.get_mut(&key)) else { return };
        window.held = window.held.saturating_add(1);
        let text = beginning(text, HELD_BYTES_MAX);
        match &mut window.last {
            Some((_, last)) if last.as_ref() == text => {}
            last => *last = Some((kind, text.into())),
        }
        let ends = window.ends();
        self.due = Some(self.due.map_or(ends, |due| due.min(ends)));
    }

    fn close_ended(&mut self, key: u64, now: u64, write: &mut dyn FnMut(Kind, &str)) {
        if self.windows.get(&key).is_some_and(|window| window.ends() <= now) {
            self.close(key, now, write);
            self.find_due();
        }
    }

    /// Ends a window: the next one is stricter if this one held something, and begins with the next line if not.
    fn close(&mut self, key: u64, now: u64, write: &mut dyn FnMut(Kind, &str)) {
        let Some(window) = self.windows.get_mut(&key) else { return };
        let is_crowded = now < window.matters_until()
            && !window.is_subject
            && window.shown + window.shown_max / 4 > window.shown_max;
        if window.held == 0 && !is_crowded {
            self.windows.remove(&key);
            return;
        }
        if let Some((kind, mut text)) = window.last.take().map(|(kind, text)| (kind, String::from(text))) {
            if window.held > 1 {
                let seconds = (now - window.began).div_ceil(1000).max(1);
                // Writing to a String does not fail.
                let _ = write!(text, " (repeated {} times in {seconds} s)", window.held);
            }
            write(kind, &text);
        }
        let max = match (window.is_subject, key) {
            (true, _) => LINES_AGAIN,
            (false, key) if key == window.class.key => window.class.bytes / 4,
            (false, _) => window.class.site_bytes / 4,
        };
        window.began = now;
        window.span_ms = (window.span_ms * 2).min(window.class.window_ms_max);
        (window.shown, window.shown_max, window.held) = (0, max, 0);
    }

    fn find_due(&mut self) {
        let held = self.windows.values().filter(|window| window.held > 0).map(Window::ends).min();
        let last = || self.windows.values().map(Window::matters_until).max().filter(|_| self.has_much_room());
        self.due = held.or_else(last);
    }

    fn has_much_room(&self) -> bool {
        self.windows.capacity() > WINDOWS_FEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written, with the second in which it was.
    #[derive(Default)]
    struct Log {
        fold: Fold,
        now: u64,
        lines: Vec<(u64, String)>,
    }

    impl Log {
        fn note(&mut self, subject: Subject, text: &str) {
            let Log { fold, now, lines } = self;
            fold.note(&subject, Kind::Notice, text, *now, &mut |_, line| lines.push((*now / 1000, line.to_string())));
        }

        fn flush(&mut self, is_end: bool) {
            let Log { fold, now, lines } = self;
            fold.flush(*now, is_end, &mut |_, line| lines.push((*now / 1000, line.to_string())));
        }

        /// Time goes on, as in the loop: what is due is flushed when it is.
        fn wait_until(&mut self, then: u64) {
            while let Some(due) = self.fold.due().filter(|&due| due <= then) {
                self.now = self.now.max(due);
                self.flush(false);
            }
            self.now = then;
        }

        fn bytes(&self) -> usize {
            self.lines.iter().map(|(_, line)| line.len() + TIME_LEN as usize).sum()
        }
    }

    fn hash(number: u64) -> u64 {
        number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    fn stranger(site: u64, address: u64) -> Subject {
        Subject { site: hash(site), address: Some(hash(1000 + address)), client: None, is_stranger: true }
    }

    fn client(site: u64, client: u64, address: u64) -> Subject {
        let (client, address) = (Some(hash(1_000_000 + client)), Some(hash(1000 + address)));
        Subject { site: hash(site), address, client, is_stranger: false }
    }

    #[test]
    fn the_first_lines_of_an_address_are_written_and_the_others_counted() {
        let mut log = Log::default();
        for port in 0..219 {
            log.note(stranger(1, 1), &format!("Client 192.0.2.7 [192.0.2.7:{port}] disconnected: not authorised."));
        }
        log.note(stranger(1, 2), "another address");
        log.note(stranger(2, 1), "another place");
        assert_eq!(log.lines.len(), 7);
        assert_eq!(log.fold.due(), Some(60_000));
        log.wait_until(60_000);
        let last = "Client 192.0.2.7 [192.0.2.7:218] disconnected: not authorised. (repeated 214 times in 60 s)";
        assert_eq!(log.lines[7..], [(60, last.to_string())]);
        assert_eq!(log.fold.due(), None);
    }

    #[test]
    fn a_line_that_was_held_alone_is_written_as_it_was() {
        let mut log = Log::default();
        (0..6).for_each(|number| log.note(stranger(1, 1), &format!("line {number}")));
        log.wait_until(100_000);
        assert_eq!(log.lines[5], (60, "line 5".to_string()));
    }

    #[test]
    fn a_device_that_reconnects_every_second_is_told_ever_more_seldom() {
        let mut log = Log::default();
        for second in 0..86_400 {
            log.wait_until(second * 1000);
            log.note(client(1, 1, 1), "New client connected from 192.0.2.7:40000 as thermometer (p4, c1, k60).");
            log.note(client(2, 1, 1), "Client thermometer [192.0.2.7:40000] disconnected: session taken over.");
        }
        log.wait_until(90_000_000);
        assert!((200..500).contains(&log.lines.len()), "{}", log.lines.len());
        // Hours of quiet, and it is new again.
        let before = log.lines.len();
        (0..5).for_each(|_| log.note(client(1, 1, 1), "again"));
        assert_eq!(log.lines.len() - before, 5);
    }

    #[test]
    fn an_address_that_fails_for_hours_is_seen_often_enough_to_be_banned() {
        let mut log = Log::default();
        for second in 0..3600 {
            log.wait_until(second * 1000);
            log.note(stranger(1, 1), "Client 192.0.2.7 [192.0.2.7:40000] disconnected: not authorised.");
        }
        // fail2ban's default: five within ten minutes.
        for from in (0..3000).step_by(300) {
            let seen = log.lines.iter().filter(|(second, _)| (from..from + 600).contains(second)).count();
            assert!(seen >= 5, "{from}: {seen}");
        }
    }

    /// Ten thousand failed connects in a minute, two lines each.
    fn flood(addresses: u64, sites: u64) -> Log {
        let mut log = Log::default();
        for number in 0..10_000 {
            log.wait_until(number * 6);
            let (address, site) = (number % addresses, number % sites);
            log.note(stranger(100, address), &format!("New connection from 192.0.2.7:{number} on port 1883."));
            let detail = "this listener lets nobody in: allow_anonymous is not set, and there are no users";
            let line = format!("Client 192.0.2.7 [192.0.2.7:{number}] disconnected: not authorised. {detail}.");
            log.note(stranger(site, address), &line);
        }
        log
    }

    #[test]
    fn ten_thousand_failed_connects_a_minute_are_at_most_20_kilobytes() {
        for addresses in [1, 7, 300, 10_000] {
            for sites in [1, 3, 14] {
                let mut log = flood(addresses, sites);
                let first =
                    log.lines.iter().filter(|(second, line)| *second < 60 && line.contains("authorised")).count();
                assert!(first >= 5, "{addresses} {sites}: {first}");
                log.flush(true);
                assert!(log.bytes() <= 20_000, "{addresses} {sites}: {}", log.bytes());
                assert!(log.fold.windows.len() <= SUBJECTS_MAX + SITES_MAX);
            }
        }
    }

    #[test]
    fn a_storm_leaves_no_room_behind() {
        // All at once or one after the other; of which some are held, or none.
        for (count, pace_ms) in [(10_000, 0), (10_000, 1), (100, 0), (100, 500)] {
            let mut log = Log::default();
            for number in 0..count {
                log.wait_until(number * pace_ms);
                log.note(client(1, number, number), "New client connected from an address of its own.");
            }
            assert!(log.fold.windows.len() > 2 * WINDOWS_FEW);
            log.wait_until(60 * WINDOW_MS);
            assert_eq!(log.fold.due(), None, "{count} {pace_ms}");
            assert!(log.fold.windows.capacity() <= WINDOWS_FEW, "{count} {pace_ms}: {}", log.fold.windows.capacity());
        }
    }

    #[test]
    fn every_line_is_written_or_counted() {
        for (addresses, sites) in [(1, 1), (300, 3), (10_000, 14)] {
            let mut log = flood(addresses, sites);
            log.flush(true);
            let count = |line: &String| {
                let repeated = line.split_once(" (repeated ").and_then(|(_, rest)| rest.split_once(' '));
                repeated.map_or(1, |(count, _)| count.parse().unwrap())
            };
            assert_eq!(log.lines.iter().map(|(_, line)| count(line)).sum::<u64>(), 20_000);
        }
    }

    #[test]
    fn the_second_minute_of_a_flood_costs_less() {
        let mut log = Log::default();
        for number in 0..50_000 {
            log.wait_until(number * 6);
            log.note(
                stranger(1, number),
                &format!("Client 192.0.2.7 [192.0.2.7:{number}] disconnected: not authorised."),
            );
        }
        let bytes = |from: u64| {
            let lines = log.lines.iter().filter(|(second, _)| (from..from + 60).contains(second));
            lines.map(|(_, line)| line.len()).sum::<usize>()
        };
        assert!(bytes(0) > 3 * bytes(120), "{} {}", bytes(0), bytes(120));
    }

    #[test]
    fn hundreds_of_devices_that_come_back_at_once_are_all_named() {
        let mut log = Log::default();
        for number in 0..400 {
            log.note(client(1, number, number), &format!("New client connected from 192.0.2.7:40000 as {number}"));
        }
        assert_eq!(log.lines.len(), 400);
    }

    #[test]
    fn many_clients_of_one_address_are_folded() {
        let mut log = Log::default();
        for number in 0..10_000 {
            log.note(client(1, number, 1), &format!("New client connected from 192.0.2.7:40000 as {number}"));
        }
        log.flush(true);
        assert_eq!(log.lines.len(), CLIENT_LINES_OF_ADDRESS as usize + 1);
        assert!(log.lines[40].1.ends_with("as 9999 (repeated 9960 times in 1 s)"), "{:?}", log.lines[40]);
    }

    #[test]
    fn long_lines_are_held_short() {
        let mut log = Log::default();
        let long = "ö".repeat(500);
        (0..9).for_each(|_| log.note(client(1, 1, 1), &long));
        log.flush(true);
        assert_eq!(log.lines[5].1, format!("{} (repeated 4 times in 1 s)", "ö".repeat(150)));
    }
}
