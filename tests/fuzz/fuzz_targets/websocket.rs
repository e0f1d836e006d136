#![no_main]

#[path = "../../fuzz_smoke/bodies.rs"]
#[allow(dead_code)]
mod bodies;
#[path = "../../fuzz_smoke/websocket.rs"]
mod websocket;

libfuzzer_sys::fuzz_target!(|data: &[u8]| websocket::websocket(data));
