//! What else the system is asked for besides sockets: signals, the descriptor limit, who holds a port, a
//! descriptor in reserve, memory given back, a file's lock, and the local time. Knows nothing of MQTT. Together with `net` the
//! only place with `unsafe`.

mod allocated;
mod file_lock;
mod limits;
mod local_time;
mod memory;
mod port_holder;
mod reserve;
mod signals;

pub use allocated::{Counting, allocated, memory_of_machine};
pub use file_lock::lock_file;
pub use limits::raise_descriptor_limit;
pub use local_time::append_local_time;
pub use memory::{give_back_memory, give_back_pages};
pub use port_holder::{Holder, port_holder};
pub use reserve::Reserve;
pub use signals::{Signal, Signals};
