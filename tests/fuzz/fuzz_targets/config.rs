#![no_main]

#[path = "../../fuzz_smoke/bodies.rs"]
#[allow(dead_code)]
mod bodies;

#[path = "../../fuzz_smoke/config.rs"]
mod config;

libfuzzer_sys::fuzz_target!(|data: &[u8]| config::config(data));
