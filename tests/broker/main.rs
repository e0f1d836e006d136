//! The core driven as a library, on a clock that stands still unless a test moves it: a file per chapter of the standard,
//! and some for what no chapter says. A test is named after what it proves, with the ids of the numbered statements.

mod harness;
mod hello;
mod script;

mod access;
mod connect;
mod connect_format;
mod counters;
mod departures;
mod explained;
mod flow;
mod inspect;
mod keep_alive;
mod limits;
mod log_lines;
mod malformed;
mod memory;
mod memory_limit;
mod mount_point;
mod order;
mod ordering;
mod ping_disconnect;
mod publish;
mod qos;
mod queue;
mod quirks;
mod quotas;
mod reasons;
mod reconfigure;
mod retained;
mod retransmission;
mod rivals;
mod rules;
mod session;
mod share;
mod store;
mod subscribe;
mod sys;
mod topics;
mod tree;
mod unsubscribe;
mod will;
