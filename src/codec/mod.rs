//! Bytes to packets and back, pure; the only place that knows protocol versions. Decoding borrows from the input
//! and allocates nothing; encoding appends to a buffer of the caller. 3.x packets decode to the same structures
//! as 5.0, with empty properties.

mod ack;
mod connack;
mod connect;
mod disconnect;
mod kind;
mod packet;
mod property;
mod publish;
mod reader;
mod reason;
mod subscribe;
mod version;
mod writer;

pub use ack::{Ack, SHORT_ACK_LEN, short_ack};
pub use connack::ConnAck;
pub use connect::{Connect, Will, connect_version};
pub use disconnect::{Auth, Disconnect};
pub use packet::*;
pub use property::{Properties, PropertiesBuf, Property};
pub use publish::{Publish, PublishHeader, is_publish, publish_topic};
pub use reason::ReasonCode;
pub use subscribe::{RetainHandling, SubAck, Subscribe, SubscribeOptions, Unsubscribe};
pub use version::Version;
