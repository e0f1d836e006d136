//! What else the system is asked for besides sockets: signals, users, the background, the descriptor limit, who holds a port, a
//! descriptor in reserve, memory given back, a file's lock; and what the system is told: the process id, and how the service
//! does. Knows nothing of MQTT. Together with `net` the only place with `unsafe`.
//!
//! A start as a service asks for them in this order: `set_umask`; once the configuration is known `choose_privileges` and
//! `become_user`, `daemonize`, `PidFile::write`; then listeners and the store; and when everything is there
//! `Daemon::is_serving` and `Notify::ready`.

mod allocated;
mod daemon;
mod file_lock;
mod limits;
mod memory;
mod notify;
mod pid_file;
mod port_holder;
mod print;
mod reserve;
mod signals;
mod umask;
mod user;

pub use allocated::{Counting, allocated, memory_of_machine};
pub use daemon::{Daemon, daemonize};
pub use file_lock::lock_file;
pub use limits::raise_descriptor_limit;
pub use memory::{give_back_memory, give_back_pages};
pub use notify::Notify;
pub use pid_file::{PidFile, PidFileError};
pub use port_holder::{Holder, port_holder};
pub use print::print;
pub use reserve::Reserve;
pub use signals::{Signal, Signals};
pub use umask::{UmaskError, set_umask};
pub use user::{Privileges, User, UserError, become_user, choose_privileges, find_user};
