//! What the program does besides serving: `midge COMMAND ...`. Each command is a file of its own, with its own flags.

use std::ffi::OsString;

/// Runs the command that the first argument names; gives the exit code, or nothing if there is none of that name and the broker is
/// to be started.
pub fn run(arguments: impl Iterator<Item = OsString>) -> Option<u8> {
    let mut arguments = arguments;
    let command = arguments.next()?;
    let (_name, _rest) = (command.to_str()?, arguments);
    None
}
