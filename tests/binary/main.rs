//! The real program: flags, exit codes, start-up lines, signals. Ports are always free ones that the program names
//! itself; waiting means reading the next line it writes.

mod client;
mod load;
mod logs;
mod memory;
mod persistence;
mod program;
mod serve;
mod start;
mod stop;
mod usage;
mod websocket;
