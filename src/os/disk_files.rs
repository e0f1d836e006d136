//! Configuration files as they are on disk.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use crate::options::Files;

pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        // A pipe without a writer must hold nobody up.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no plain file"));
        }
        file.take(bytes_max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > bytes_max {
            return Err(io::Error::other(format!("it is larger than {bytes_max} bytes")));
        }
        Ok(content)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect()
    }
}

impl DiskFiles {
    /// Whether every user of this machine may read the file.
    pub fn is_world_readable(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_of_a_reasonable_size_are_read() {
        assert_eq!(DiskFiles.read(Path::new("/dev/zero"), 1000).unwrap_err().to_string(), "it is no plain file");
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert!(DiskFiles.read(Path::new(manifest), 10).unwrap_err().to_string().contains("larger than 10 bytes"));
        assert!(DiskFiles.read(Path::new(manifest), 1 << 20).is_ok());
        assert!(DiskFiles.list(Path::new("/nowhere")).is_err());
    }
}
