//! Bytes to packets and back, pure; the only place that knows protocol versions. Decoding borrows from the input
//! and allocates nothing; encoding appends to a buffer of the caller. 3.x packets decode to the same structures
//! as 5.0, with empty properties.

mod packet;
mod property;
mod reason;
mod version;

pub use packet::*;
pub use property::*;
pub use reason::ReasonCode;
pub use version::Version;
