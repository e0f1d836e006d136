//! midge: an MQTT 3.1, 3.1.1 and 5.0 broker for small gateways.
//!
//! One thread, one poll loop. The core ([`codec`], [`broker`], [`wheel`], [`topic`], [`buffer`]) touches no
//! socket, no clock, no file and no randomness: bytes, time and seeds come in as arguments, and it appends to
//! plain byte buffers that the shell ([`server`], [`net`]) writes out.
//!
//! ```text
//! main.rs      flags and file -> Settings -> logger -> listeners -> no more privileges -> store -> Server::run; exit code
//! commands/    what the program does besides serving: passwd, and ctl, which asks a running broker
//! control/     what that and the broker say to each other: requests, and lists of fields; pure
//! admin.rs     what is asked at the control socket, done
//! options/     one table: every option once; flags, the configuration file, help and man pages are read from it
//! logger/      log lines in Mosquitto's form and to its destinations, and what repeats among them
//! config.rs    Config: every number with unit, default and the reason for it
//! keeper.rs    the store's place in the loop: batches to the journal, and what waited for them
//! rights.rs    password and access control files, read and put into the listeners' rules
//! verifier.rs  the helper thread that checks passwords
//! server/      THE LOOP: the only module that reads the clock or calls poll; the order of a turn. Who comes (arrivals), bytes in and
//!              out (transfer), another configuration (reload)
//! trims.rs     when it looks for memory to give back
//! net/         doors/ (all listeners: opening and reload in plan, what is not there yet in look), listener and transport (TCP, Unix, WebSocket):
//!              what turns sockets into MQTT bytes and back; control, the socket for whoever administers the broker;
//!              websocket/ is the codec of that protocol, pure
//! os/          what else the system is asked for and told: signals, users, the background, pid file, service manager,
//!              descriptor limit, who holds a port, a descriptor in reserve, memory given back, a file's lock, a file that is
//!              changed as a whole, randomness, the terminal, the local time
//! journal/     the store's files: frames, generations, what to do at start; knows no MQTT
//! time.rs      Millis since start: a value, never a clock
//! wheel.rs     hashed timer wheel; knows neither connections nor MQTT
//! buffer.rs    InBuf (unfinished input), OutBuf (append, advance, shared payloads), Pool
//! spelling.rs  how far a word as it was written is from one that exists
//! topic.rs     topic names and filters: validation, levels, $share
//! codec/       bytes <-> packets, pure; the only place that knows protocol versions
//! access/      Mosquitto's password and access control files: who may log in, read and write; pure, too
//! broker/      the pure core; owns all protocol state, and the counters below $SYS
//! bin/         midge-load, the load program: a binary of its own on top of the codec
//! ```
//!
//! Dependencies point down only: `main -> options, config, server`; `server -> admin, net, os, broker, trims`;
//! `net -> os, config, time`; `broker -> access, codec, topic, wheel, buffer, time, config, control, logger` (of that, only how a
//! line is marked);
//! `control -> config, spelling, topic`; `admin -> broker, control, logger, net`;
//! `commands -> access, control, options, os, spelling`; `config -> access, codec`; `options -> config, spelling`;
//! `rights -> access, options, os`; `verifier -> access, broker`; `logger -> config, os`; `codec -> topic`;
//! `access -> topic, time, spelling`; `journal -> os`; `keeper -> journal, broker`;
//! leaves use `std` alone. `mio` and sockets appear only in `server`, `net` and `os`, `libc` there and in `journal/disk.rs`, which
//! alone touches the store's files; `unsafe` only in `net` and `os`. The load program has sockets of its own, and `unsafe` in its
//! own `os.rs`; `midge ctl` has one at a time, to the control socket.

pub mod access;
pub mod admin;
pub mod broker;
pub mod buffer;
pub mod codec;
pub mod commands;
pub mod config;
pub mod control;
pub mod journal;
pub mod keeper;
pub mod logger;
pub mod net;
pub mod options;
pub mod os;
pub mod rights;
pub mod server;
mod spelling;
pub mod time;
pub mod topic;
mod trims;
pub mod verifier;
pub mod wheel;

/// The version of the program, as log lines and `--version` show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The exit code when what is needed is not to be had, now or any more, or what was asked for cannot be done.
pub const EXIT_FAILURE: u8 = 1;
/// And when it was asked for in a wrong way: a flag, a line of a file.
pub const EXIT_USAGE: u8 = 3;
