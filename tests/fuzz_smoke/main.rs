//! What fuzzing found, each with a test of its own, and a short run of every fuzz target on made-up input.

mod bodies;
mod made_up;
mod regressions;
#[path = "../journal/sim_disk.rs"]
mod sim_disk;
mod store;
mod websocket;
