//! Sockets: what listens, and what turns socket bytes into MQTT bytes and back, by way of WebSocket if asked. Knows nothing of
//! MQTT itself.
//! Together with `os` the only place with `unsafe`.

mod control;
mod doors;
mod error;
mod inherited;
mod interface;
mod listener;
mod lookup;
mod place;
mod socket;
mod transport;
mod wanted;
mod watch;
pub mod websocket;

pub use control::{CALLS_MAX, Control, ControlDoor, TOKENS};
pub use doors::{Doors, ListenerId, Plan, open};
pub use error::OpenError;
pub use inherited::{Inherited, inherited};
pub use listener::{Accept, Listener, Refusal};
pub use place::{Caller, Place};
pub use transport::{Edge, Left, Read, Transport};
