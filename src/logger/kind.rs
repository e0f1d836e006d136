//! The kinds of log lines, as Mosquitto has them. The `log` crate has no level for notices, and none for subscriptions:
//! those lines have a target that ends with the kind, behind the module's path, so that RUST_LOG goes on filtering by modules.

use log::{Level, Metadata};

use crate::config::LogTypes;

/// Logs a notice: who comes, goes, or is turned away. Takes what `log::info!` takes.
macro_rules! notice {
    ($($rest:tt)+) => {
        log::info!(target: concat!(module_path!(), "!notice"), $($rest)+)
    };
}
pub(crate) use notice;

/// The target of lines about subscriptions; their level is debug, so that they cost nothing unless somebody wants them.
pub const SUBSCRIBE: &str = "midge::broker::subscribe!subscribe";
/// The same for their end.
pub const UNSUBSCRIBE: &str = "midge::broker::subscribe!unsubscribe";

/// What kind of line it is: one of Mosquitto's log types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Error,
    Warning,
    Notice,
    Information,
    Debug,
    Subscribe,
    Unsubscribe,
}

impl Kind {
    /// Of a line that was logged.
    pub fn of(line: &Metadata) -> Kind {
        match (line.level(), line.target().rsplit_once('!')) {
            (_, Some((_, "subscribe"))) => Kind::Subscribe,
            (_, Some((_, "unsubscribe"))) => Kind::Unsubscribe,
            (Level::Info, Some((_, "notice"))) => Kind::Notice,
            (Level::Error, _) => Kind::Error,
            (Level::Warn, _) => Kind::Warning,
            (Level::Info, _) => Kind::Information,
            (Level::Debug | Level::Trace, _) => Kind::Debug,
        }
    }

    pub fn is_among(self, types: &LogTypes) -> bool {
        match self {
            Kind::Error => types.error,
            Kind::Warning => types.warning,
            Kind::Notice => types.notice,
            Kind::Information => types.information,
            Kind::Debug => types.debug,
            Kind::Subscribe => types.subscribe,
            Kind::Unsubscribe => types.unsubscribe,
        }
    }

    /// Where a line of `log_dest topic` is published; debug lines are not.
    pub fn topic(self) -> Option<&'static str> {
        match self {
            Kind::Error => Some("$SYS/broker/log/E"),
            Kind::Warning => Some("$SYS/broker/log/W"),
            Kind::Notice => Some("$SYS/broker/log/N"),
            Kind::Information => Some("$SYS/broker/log/I"),
            Kind::Debug => None,
            Kind::Subscribe => Some("$SYS/broker/log/M/subscribe"),
            Kind::Unsubscribe => Some("$SYS/broker/log/M/unsubscribe"),
        }
    }

    /// syslog's number for it.
    pub fn severity(self) -> u8 {
        match self {
            Kind::Error => 3,
            Kind::Warning => 4,
            Kind::Notice | Kind::Subscribe | Kind::Unsubscribe => 5,
            Kind::Information => 6,
            Kind::Debug => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(level: Level, target: &str) -> Kind {
        Kind::of(&Metadata::builder().level(level).target(target).build())
    }

    #[test]
    fn lines_are_of_the_kind_their_level_and_target_say() {
        assert_eq!(kind(Level::Info, "midge::broker::close!notice"), Kind::Notice);
        assert_eq!(kind(Level::Info, "midge::broker::close"), Kind::Information);
        assert_eq!(kind(Level::Debug, SUBSCRIBE), Kind::Subscribe);
        assert_eq!(kind(Level::Debug, UNSUBSCRIBE), Kind::Unsubscribe);
        assert_eq!(kind(Level::Warn, "midge"), Kind::Warning);
        assert_eq!(kind(Level::Error, "midge"), Kind::Error);
        assert_eq!(kind(Level::Debug, "midge"), Kind::Debug);
    }

    #[test]
    fn debug_lines_are_never_published() {
        assert_eq!(Kind::Debug.topic(), None);
        assert!(!Kind::Debug.is_among(&LogTypes::default()) && Kind::Debug.is_among(&LogTypes::ALL));
        assert!(Kind::Notice.is_among(&LogTypes::default()) && !Kind::Subscribe.is_among(&LogTypes::default()));
    }
}
