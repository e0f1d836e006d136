//! What else the system is asked for besides sockets: signals, the descriptor limit, who holds a port, a
//! descriptor in reserve, memory given back, and a file's lock, and owners of files. Knows nothing of MQTT. Together with `net` the only place with
//! `unsafe`.

mod account;
mod allocated;
mod file_lock;
mod limits;
mod memory;
mod port_holder;
mod reserve;
mod signals;

pub use account::Owner;
pub use allocated::{Counting, allocated, memory_of_machine};
pub use file_lock::lock_file;
pub use limits::raise_descriptor_limit;
pub use memory::{give_back_memory, give_back_pages};
pub use port_holder::{Holder, port_holder};
pub use reserve::Reserve;
pub use signals::{Signal, Signals, without_signals};
