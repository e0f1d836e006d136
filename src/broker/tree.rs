//! Who subscribes to what, as text for a person, in the form in which Mosquitto prints it at SIGUSR2:
//!
//! ```text
//! (blank)                 what does not begin with '$', indented by 4
//!   house                 each level indented by 2 more
//!     + (ha, 1) (log, 0)  client ids that subscribe to house/+, with the QoS they were granted
//!       temperature (display, 0, $share/wall)
//! $SYS
//!   # (monitor, 0)
//! ```
//!
//! Shares are shown in their place, which Mosquitto leaves out. Work and memory are bounded: what is beyond is counted.

use std::io::{self, Write};

use super::Broker;
use super::index::Subscriber;

/// Filters shown: sorting more would hold up everybody else for more than some milliseconds.
const FILTERS_MAX: usize = 10_000;
/// About so many bytes are shown: names may have 64 kB each, and nobody reads more.
const BYTES_MAX: usize = 1 << 20;
/// Indentation of the first level.
const INDENT: usize = 4;

impl Broker {
    /// Writes the subscriptions of all sessions as a tree of levels. Control characters in levels and client ids are escaped.
    ///
    /// # Errors
    /// When `out` has one.
    pub fn subscription_tree(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut filters: Vec<(Vec<&[u8]>, u32)> = self.index.filters().take(FILTERS_MAX).map(path).collect();
        filters.sort_unstable();
        let (mut text, mut last, mut count) = (String::new(), &[][..], 0);
        for (levels, filter) in filters.iter() {
            let common = levels.iter().zip(last).take_while(|(one, other)| one == other).count();
            for (depth, level) in levels.iter().enumerate().skip(common) {
                let end = if depth + 1 < levels.len() { "\n" } else { "" };
                let level = String::from_utf8_lossy(level);
                text += &format!("{:indent$}{}{end}", "", level.escape_debug(), indent = INDENT + 2 * depth);
            }
            self.append_subscribers(*filter, &mut text);
            text.push('\n');
            (last, count) = (levels, count + 1);
            if text.len() > BYTES_MAX {
                break;
            }
        }
        let hidden = self.index.filter_count() - count;
        if hidden > 0 {
            text += &format!("{:INDENT$}... and {hidden} filters more\n", "");
        }
        out.write_all(text.as_bytes())
    }

    /// ` (CLIENT_ID, QOS)` for each subscriber, with the share it is in, if it is in one.
    fn append_subscribers(&self, filter: u32, text: &mut String) {
        let mut hidden = 0;
        for (share, &Subscriber { session, qos, .. }) in self.index.members(filter) {
            if text.len() > BYTES_MAX {
                hidden += 1;
                continue;
            }
            let client_id = self.clients.sessions.get(session as usize).map_or("", |session| &session.client_id);
            let share = share.and_then(|share| self.index.share_name(share));
            let share = share.map_or(String::new(), |name| format!(", $share/{}", name.escape_debug()));
            *text += &format!(" ({}, {}{share})", client_id.escape_debug(), qos as u8);
        }
        if hidden > 0 {
            *text += &format!(" ... and {hidden} subscribers more");
        }
    }
}

/// The levels of a filter below the root of its tree: `$...`, or one without a name for all others, as in Mosquitto.
fn path((filter, text): (u32, &[u8])) -> (Vec<&[u8]>, u32) {
    let root = if text.starts_with(b"$") { None } else { Some(&[][..]) };
    (root.into_iter().chain(text.split(|&byte| byte == b'/')).collect(), filter)
}
