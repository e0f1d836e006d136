//! The command line: what is printed, and how a wrong one is refused.

use crate::program::{bare, fail, run};

const USAGE: i32 = 3;

#[test]
fn help_goes_to_standard_output() {
    for flag in ["--help", "-h"] {
        let output = run(&[flag], None);
        assert!(output.status.success());
        assert!(output.stderr.is_empty());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("Usage: midge [OPTION]...\n"));
        assert!(text.contains("\n  -p, --port PORT "));
        assert!(text.contains("\n  --max-queued-messages N "));
    }
}

#[test]
fn version_is_one_line() {
    let output = run(&["--version"], None);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("midge version {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_reader_that_left_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = bare().arg("--help").stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn unknown_options_get_the_nearest_name() {
    for (option, expected) in [
        ("--max-queue-messages", "--max-queue-messages; the nearest is --max-queued-messages"),
        ("--allow_anonymous", "--allow_anonymous; the nearest is --allow-anonymous"),
        ("-x", "-x; the short ones are -p -v -q -c -d -h"),
    ] {
        assert_eq!(fail(&[option]), (USAGE, vec![format!("Error: Unknown option {expected}. See --help.")]));
    }
}

#[test]
fn bad_values_are_told_with_what_is_accepted() {
    for (option, value, expected) in [
        ("--port", "65536", "a number from 0 to 65535"),
        ("--port", "mqtt", "a number from 0 to 65535"),
        (
            "--listener",
            "",
            "a port from 0 to 65535 and, if wanted, a blank and an address or host; or 0 and the path of a Unix socket",
        ),
        ("--allow-anonymous", "yes", "true or false"),
        ("--protocol", "http_api", "mqtt or websockets"),
        ("--queue-policy", "drop", "drop_oldest, drop_newest or reject"),
        ("--max-packet-size", "19", "a number from 20 to 2147483647, or 0 for half of memory_limit"),
        ("--max-queued-bytes", "4M", "a number from 1 to 2147483647, or 0 or less for no limit"),
        ("--persistent-client-expiration", "14", "never, or a number from 1 on and one of s h d w m y, such as 14d"),
    ] {
        let line = format!("Error: Invalid value '{value}' for {option}: expected {expected}.");
        assert_eq!(fail(&[option, value]), (USAGE, vec![line]));
    }
}

#[test]
fn positional_arguments_are_refused() {
    let (code, lines) = fail(&["midge.conf"]);
    assert_eq!((code, lines.len()), (USAGE, 1));
    assert!(lines[0].starts_with("Error: Unexpected argument 'midge.conf': "), "{lines:?}");
}
