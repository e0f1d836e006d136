//! The mount point of a listener: it stands in front of every topic and filter its clients use, and is cut off again on the way
//! to them. Index, queues, retained messages and the store know whole topics only; so a session that comes back through
//! another listener keeps its subscriptions as they were. `publish` puts it in front of topics.

use super::link::Link;
use crate::topic::ShareFilter;

/// The longest topic, whatever it was put together from.
pub const TOPIC_MAX: usize = u16::MAX as usize;

pub const TOO_LONG: &str = "the topic is longer than 65535 bytes with the listener's mount_point in front of it";

/// The filter a client below `mount_point` means with this one, which is valid; `$share/NAME/` stays in front.
pub fn mounted_filter(mount_point: &str, filter: ShareFilter) -> String {
    match filter.share_name {
        Some(name) => format!("$share/{name}/{mount_point}{}", filter.filter),
        None => format!("{mount_point}{}", filter.filter),
    }
}

/// What the client of `link`, which is below a mount point, knows `topic` as, if it may know it.
#[cold]
pub fn cut_off<'a>(link: &Link, topic: &'a [u8]) -> Option<&'a [u8]> {
    let known = known_as(&link.rules.mount_point, topic);
    if known.is_none() {
        let topic = String::from_utf8_lossy(topic);
        log::debug!("A message of topic '{topic}' is not below the mount point of {}; not sent.", link.peer);
    }
    known
}

/// What a client below `mount_point` knows `topic` as. Nothing if it stands elsewhere: 'm' matches 'm/#', and a session may
/// have come through another listener before.
fn known_as<'a>(mount_point: &str, topic: &'a [u8]) -> Option<&'a [u8]> {
    topic.strip_prefix(mount_point.as_bytes()).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_point_stands_behind_the_name_of_a_share() {
        let mounted = |filter| mounted_filter("m/", ShareFilter::parse(filter).unwrap());
        assert_eq!((mounted("a/#"), mounted("$share/g/a/+")), ("m/a/#".to_string(), "$share/g/m/a/+".to_string()));
    }

    #[test]
    fn only_what_stands_below_a_mount_point_is_known_there() {
        for (topic, known) in [("m/a", Some("a")), ("m//", Some("/")), ("m/", None), ("m", None), ("n/a", None)] {
            assert_eq!(known_as("m/", topic.as_bytes()), known.map(str::as_bytes), "{topic}");
        }
    }
}
