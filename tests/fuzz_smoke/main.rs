//! What fuzzing found, each with a test of its own, and a short run of every fuzz target on made-up input.

mod regressions;
