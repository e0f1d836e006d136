#![no_main]

#[path = "../../fuzz_smoke/bodies.rs"]
#[allow(dead_code)]
mod bodies;

#[path = "../../fuzz_smoke/control.rs"]
mod control;

libfuzzer_sys::fuzz_target!(|data: &[u8]| control::control(data));
