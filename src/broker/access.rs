//! Who may do what. Password and access control files are not read yet: a listener either lets everybody in or nobody,
//! and everybody may publish everywhere but below `$SYS`.

use super::Broker;

impl Broker {
    /// Whether this client may publish to this topic. The broker's own topics are not for clients, with the one exception
    /// that Mosquitto bridges need for their state.
    pub(super) fn may_publish(&self, _client_id: &str, topic: &str) -> bool {
        !(topic == "$SYS" || topic.starts_with("$SYS/")) || is_bridge_state(topic)
    }
}

/// `$SYS/broker/connection/<id>/state`
fn is_bridge_state(topic: &str) -> bool {
    crate::topic::matches("$SYS/broker/connection/+/state", topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bridge_state_may_be_written_below_sys() {
        assert!(is_bridge_state("$SYS/broker/connection/house.attic/state"));
        assert!(!is_bridge_state("$SYS/broker/connection/a/b/state"));
        assert!(!is_bridge_state("$SYS/broker/version"));
    }
}
