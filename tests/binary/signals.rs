//! What signals ask for while the broker runs.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use midge::codec::Version;

use crate::client::Client;
use crate::program::{Midge, command, port};

#[test]
fn hangup_and_the_first_real_time_signal_end_nothing() {
    let midge = Midge::start(&["-p", "0"], None);
    midge.start_lines();
    midge.signal("HUP");
    assert_eq!(midge.line_with("config"), "Reloading config.");
    midge.signal("RTMIN");
    midge.signal("USR1");
    let (status, _) = midge.stop("TERM");
    assert_eq!(status.code(), Some(0), "{status}");
}

#[test]
fn the_second_user_signal_prints_the_subscription_tree_on_standard_output() {
    let mut child = command(&["-p", "0"], None).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
    let midge = Midge::follow(child);
    let port = port(&midge.start_lines(), "ipv4").unwrap();
    let mut client = Client::connect(port, Version::V311, "c", false);
    client.subscribe("house/+", 1);
    midge.signal("USR2");
    let lines: Vec<String> = output.by_ref().take(3).map(Result::unwrap).collect();
    assert_eq!(lines, ["    ", "      house", "        + (c, 1)"]);
    let (status, _) = midge.stop("TERM");
    assert_eq!((status.code(), output.count()), (Some(0), 0));
}
