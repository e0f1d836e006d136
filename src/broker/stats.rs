//! What the broker counts. Counters only: rates and `$SYS` are made of them elsewhere.

/// Since the broker started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Control packets of every type.
    pub packets_received: u64,
    pub packets_sent: u64,
    pub publishes_received: u64,
    pub publishes_sent: u64,
    /// Payloads of those.
    pub publish_bytes_received: u64,
    pub publish_bytes_sent: u64,
    /// CONNECT packets, well-formed or not.
    pub connects_received: u64,
    /// Messages lost to full queues.
    pub messages_dropped: u64,
    /// Messages whose Message Expiry Interval passed before they were sent.
    pub messages_expired: u64,
    /// Messages of clients that were not accepted: an access control file or a limit forbids them.
    pub publishes_refused: u64,
    pub subscriptions_refused: u64,
    pub sessions_expired: u64,
    pub connections_accepted: u64,
    /// Of those, the ones that were closed at once: there were too many, or no descriptor was left.
    pub connections_refused: u64,
    /// Publishers that had to wait for a subscriber.
    pub pauses: u64,
    /// Publishers that had to wait because of `max_publish_rate` or `max_publish_bytes_rate`.
    pub rate_pauses: u64,
    pub stalls: u64,
    pub retransmissions: u64,
}
