//! What fuzzing found, each with a test of its own, and a short run of every fuzz target on made-up input.

mod bodies;
mod made_up;
mod regressions;
mod websocket;
