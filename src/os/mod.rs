//! What else the system is asked for besides sockets: signals, users, the background, the descriptor limit, who holds a port, a
//! descriptor in reserve, memory given back, what is better asked in a process of its own, a file's lock, configuration files, files
//! that are changed as a whole, randomness, the local time, a terminal; and what the system is told: the process id, and how the
//! service does. Knows nothing of MQTT. Together with `net` the only place with `unsafe`.
//!
//! A start as a service asks for them in this order: `set_umask`, `daemonize`, `choose_privileges` and `Signals::new`; when the
//! listeners are open `become_user`; with the store `PidFile::write`; and when everything is there `Daemon::is_serving` and
//! `Notify::ready`.

mod account;
mod allocated;
mod daemon;
mod disk_files;
mod elsewhere;
mod file_lock;
mod held_file;
mod limits;
mod local_time;
mod memory;
mod notify;
mod pid_file;
mod port_holder;
mod print;
mod random;
mod reserve;
mod signals;
mod terminal;
mod umask;
mod user;

pub use account::Owner;
pub use allocated::{Counting, allocated, memory_of_machine};
pub use daemon::{Daemon, daemonize};
pub use disk_files::DiskFiles;
pub use file_lock::lock_file;
pub use held_file::HeldFile;
pub use limits::raise_descriptor_limit;
pub use local_time::append_local_time;
pub use memory::{give_back_memory, give_back_program, give_back_stack, map_large_blocks};
pub use notify::Notify;
pub use pid_file::{PidFile, PidFileError};
pub use port_holder::{Holder, port_holder};
pub use print::print;
pub use random::random;
pub use reserve::Reserve;
pub use signals::{Signal, Signals, without_signals};
pub use terminal::{Keys, Pressed, read_secret, terminal_size};
pub use umask::{UmaskError, set_umask};
pub use user::{Privileges, User, UserError, become_user, choose_privileges, find_user};
