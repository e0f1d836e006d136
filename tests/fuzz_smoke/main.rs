//! What fuzzing found, each with a test of its own, and a short run of every fuzz target on made-up input.

mod access;
mod bodies;
mod config;
mod control;
mod made_up;
#[path = "../access/made_up.rs"]
mod made_up_rules;
#[path = "../access/reference.rs"]
mod reference;
mod regressions;
#[path = "../journal/sim_disk.rs"]
mod sim_disk;
mod store;
mod websocket;
