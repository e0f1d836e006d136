//! Sockets: what listens, and what turns socket bytes into MQTT bytes and back, by way of WebSocket if asked. Knows nothing of
//! MQTT itself.
//! Together with `os` the only place with `unsafe`.

mod listener;
mod transport;
pub mod websocket;

pub use listener::{Accept, Listener, OpenError, Refusal, open};
pub use transport::{Left, Read, Transport};
