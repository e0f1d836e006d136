//! The real program: flags, exit codes, start-up lines, signals. Ports are always free ones that the program names
//! itself; waiting means reading the next line it writes.

mod access;
mod boot;
mod client;
mod config;
mod ctl;
mod folder;
mod listeners;
mod load;
mod logs;
mod memory;
mod passwd;
mod persistence;
mod program;
mod reload;
mod serve;
mod signals;
mod start;
mod stop;
mod usage;
mod websocket;
