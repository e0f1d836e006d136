//! Stopping: the signals of init systems and terminals end the broker orderly.

use crate::program::Midge;

#[test]
fn term_and_int_end_it_well() {
    for signal in ["TERM", "INT"] {
        let midge = Midge::start(&["-p", "0"], None);
        midge.start_lines();
        let (status, rest) = midge.stop(signal);
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert_eq!(rest, [format!("midge version {} terminating", env!("CARGO_PKG_VERSION"))]);
    }
}
