#![no_main]

#[path = "../../fuzz_smoke/bodies.rs"]
#[allow(dead_code)]
mod bodies;
#[path = "../../journal/sim_disk.rs"]
mod sim_disk;
#[path = "../../fuzz_smoke/store.rs"]
#[allow(dead_code)]
mod store;

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::records(data));
