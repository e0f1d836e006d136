//! What `midge ctl` and a running broker say to each other through the control socket; pure, and shared by both sides.
//!
//! A connection carries one request and its answer, and ends. Both are lines; a line is a list of fields with tabs between them;
//! in a field a tab, a line feed and a backslash are written `\t`, `\n` and `\\`, and every other byte stands for itself.
//!
//! ```text
//! request   kick<TAB>thermometer                        one line: the words of `Request`
//! answer    columns<TAB>id:text<TAB>queue:count         what the fields of the rows are called, and what they are
//!           row<TAB>thermometer<TAB>0                   any number of them; an empty field that is no text is not known
//!           ok                                          the end, with sentences for whoever asked, if there are any
//!       or  error<TAB>There is no session 'x'.          the end, with one sentence or more that say why
//! ```
//!
//! The broker makes rows as fast as they are read, and never holds more than a slice of them; so a list tells of each thing at
//! the moment its row was made. The client makes tables and JSON of them.

mod line;
mod request;

pub use line::{Column, Kind, Line, Row, fields};
pub use request::{LOG_WORDS, Request, WORDS};

/// Bytes of a request with its line feed: two words of 64 kB, as long as client ids and filters can be, each byte of which
/// may have to be escaped.
pub const REQUEST_MAX: usize = 2 * (65_535 + 16);

/// Where a client looks for the socket unless it is told.
pub const DEFAULT_PATH: &str = "/run/midge/control.sock";
