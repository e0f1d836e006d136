//! Two devices with one client id.

use midge::broker::Inspection;

use crate::harness::{World, log_count};

const ONE: [u8; 4] = [192, 0, 2, 7];
const OTHER: [u8; 4] = [192, 0, 2, 9];

/// Connects again and again from these hosts in turn, every so many seconds.
fn quarrel(w: &mut World, hosts: &[[u8; 4]], seconds: u64) {
    for host in hosts {
        w.host = *host;
        w.client("x");
        w.advance_s(seconds);
    }
}

fn also_used_by(w: &mut World) -> String {
    let rows = w.rows(Inspection::clients());
    rows[0].rsplit('|').next().unwrap().to_string()
}

#[test]
fn two_devices_that_take_one_id_in_turn_are_named_with_both_addresses() {
    let mut w = World::new();
    quarrel(&mut w, &[ONE, OTHER, ONE], 20);
    assert_eq!((log_count("Warning"), also_used_by(&mut w)), (0, String::new()), "twice may be a device that moves");
    quarrel(&mut w, &[OTHER], 20);
    let line = "Warning: Warning: client id 'x' is used by two devices in turn: 192.0.2.7 and 192.0.2.9 \
                (3 take-overs in 40 s). Give each its own id.";
    assert_eq!((log_count(line), log_count("Warning")), (1, 1));
    assert_eq!(also_used_by(&mut w), "192.0.2.7");
    quarrel(&mut w, &[ONE], 0);
    assert_eq!(also_used_by(&mut w), "192.0.2.9");
    // It is told again when there are twice as many, and not each time.
    quarrel(&mut w, &[OTHER, ONE, OTHER, ONE, OTHER, ONE], 1);
    assert_eq!(log_count("two devices in turn"), 2);
    w.advance_s(601);
    assert_eq!(also_used_by(&mut w), "", "they were told apart");
}

#[test]
fn a_device_that_comes_back_from_where_it_was_is_no_second_one() {
    let mut w = World::new();
    quarrel(&mut w, &[ONE; 4], 15);
    let line = "Warning: Warning: client 'x' connected anew 3 times in 30 s from 192.0.2.7 while it was connected: \
                either two programs there use this id, or its connection breaks.";
    assert_eq!((log_count(line), log_count("Warning"), also_used_by(&mut w)), (1, 1, String::new()));
}

#[test]
fn take_overs_that_are_far_apart_are_no_quarrel() {
    let mut w = World::new();
    quarrel(&mut w, &[ONE, OTHER, ONE, OTHER, ONE, OTHER], 61);
    assert_eq!((log_count("Warning"), also_used_by(&mut w)), (0, String::new()));
}

#[test]
fn who_hangs_up_before_it_comes_back_takes_over_nothing() {
    let mut w = World::new();
    for host in [ONE, OTHER, ONE, OTHER, ONE] {
        w.host = host;
        let client = w.client("x");
        w.hang_up(client);
    }
    assert_eq!(log_count("Warning"), 0);
}
