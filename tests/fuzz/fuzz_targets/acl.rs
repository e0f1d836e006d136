#![no_main]

#[path = "../../fuzz_smoke/access.rs"]
#[allow(dead_code)]
mod access;
#[path = "../../fuzz_smoke/bodies.rs"]
#[allow(dead_code)]
mod bodies;
#[path = "../../access/made_up.rs"]
mod made_up_rules;
#[path = "../../access/reference.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|data: &[u8]| access::acl(data));
