//! What the program does besides serving: `midge COMMAND ...`. Each command is a file of its own, with its own flags.

mod ctl;

use std::ffi::OsString;

/// Ends with its exit code.
type Command = fn(Vec<OsString>) -> u8;

const COMMANDS: [(&str, Command); 1] = [("ctl", ctl::run)];

/// What it asked for is not to be had.
const EXIT_FAILURE: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 3;

/// Runs the command that the first argument names; gives the exit code, or nothing if there is none of that name and the broker is
/// to be started.
pub fn run(mut arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    let name = arguments.next()?;
    let (_, command) = COMMANDS.iter().find(|(own, _)| name == *own)?;
    Some(command(arguments.collect()))
}
