#![no_main]

#[path = "../../fuzz_smoke/bodies.rs"]
#[allow(dead_code)]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::decoder(data));
