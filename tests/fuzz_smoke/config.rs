//! The fuzz target of the configuration file.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use midge::options::{self, Files, Parsed};

use crate::bodies::Source;

/// Pieces of files: what is drawn is more often a line that means something than bytes alone are.
const WORDS: &[&str] = &[
    "\n",
    "\r\n",
    " ",
    "\t",
    "#",
    "listener",
    "port",
    "bind_address",
    "allow_anonymous",
    "true",
    "false",
    "0",
    "1",
    "1883",
    "-1",
    "0x10",
    "99999999999",
    "per_listener_settings",
    "include_dir",
    "/d",
    "max_qos",
    "mount_point",
    "a/b/",
    "log_dest",
    "file",
    "topic",
    "log_type",
    "all",
    "none",
    "persistence",
    "persistence_sync",
    "interval 7",
    "certfile",
    "connection",
    "http_dir",
    "plugin_opt_x",
    "accept_protocol_versions",
    "3,5",
    "/run/m.sock",
    "::1",
    "é",
    "\0",
    "\u{feff}",
    "auto_id_prefix",
    "user",
    "persistent_client_expiration",
    "14d",
    "socket_mode",
    "0660",
];

/// One file and what it includes.
struct Made(Vec<Vec<u8>>);

impl Files for Made {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let at = match path.to_str() {
            Some("/m.conf") => 0,
            Some("/d/a.conf") => 1,
            Some("/d/B.conf") => 2,
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        assert!(self.0[at].len() <= bytes_max);
        Ok(self.0[at].clone())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        match path.to_str() {
            Some("/d") => Ok(["a.conf", "B.conf", "c.txt"].map(OsString::from).to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Whatever a file holds, it is taken whole or each refusal names its place; what is taken is fit to serve.
pub fn config(data: &[u8]) {
    let mut source = Source(data);
    let mut files = Vec::new();
    for _ in 0..3 {
        let mut file = Vec::new();
        for _ in 0..source.byte() % 64 {
            match source.byte() {
                255 => {
                    let count = usize::from(source.byte() % 16);
                    file.extend_from_slice(source.take(count));
                }
                at => file.extend_from_slice(WORDS[usize::from(at) % WORDS.len()].as_bytes()),
            }
            if source.byte() % 4 != 0 {
                file.push(if source.byte() % 4 == 0 { b'\n' } else { b' ' });
            }
        }
        files.push(file);
    }
    let files = Made(files);
    let parse = |flags: &[&str]| options::parse(flags.iter().map(OsString::from), &files);
    match parse(&["-c", "/m.conf"]) {
        Ok(Parsed::Run(settings)) => {
            assert!(!settings.listeners.is_empty());
            assert!(matches!(
                parse(&["--explain-config", "/m.conf"]),
                Ok(Parsed::Explanation { is_accepted: true, .. })
            ));
        }
        Ok(other) => panic!("{other:?}"),
        Err(error) => {
            assert!(!error.lines().is_empty());
            for line in error.lines() {
                assert!(line.contains(" Error found at /") && !line.contains('\n'), "{line:?}");
            }
            let explained = parse(&["--explain-config", "/m.conf"]);
            let Ok(Parsed::Explanation { text, is_accepted: false }) = explained else { panic!("{explained:?}") };
            assert!(text.contains("REFUSED"), "{text}");
        }
    }
}
