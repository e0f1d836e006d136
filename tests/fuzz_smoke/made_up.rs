//! The bodies of the fuzz targets on input made from fixed seeds.

use crate::{access, bodies, config, control, store, websocket};

fn run(body: fn(&[u8]), seed: u64, rounds: u32) {
    let mut state = seed;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..rounds {
        let len = next() as usize % 600;
        let bytes: Vec<u8> = (0..len).map(|_| (next() >> 24) as u8).collect();
        body(&bytes);
    }
}

#[test]
fn decoder() {
    run(bodies::decoder, 1, 200_000);
}

#[test]
fn topics() {
    run(bodies::topics, 2, 4000);
}

#[test]
fn websocket_streams() {
    run(websocket::websocket, 4, 20_000);
}

#[test]
fn broker() {
    run(bodies::broker, 3, 20_000);
}

#[test]
fn journal() {
    run(store::journal, 5, 2000);
}

#[test]
fn records() {
    run(store::records, 6, 10_000);
}

#[test]
fn config() {
    run(config::config, 7, 3000);
}

#[test]
fn control() {
    run(control::control, 9, 20_000);
}

#[test]
fn acl() {
    run(access::acl, 7, 5000);
}

#[test]
fn passwords() {
    run(access::passwords, 8, 5000);
}
