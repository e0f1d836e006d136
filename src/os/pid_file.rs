//! The file that tells init scripts the broker's process id: there while it runs, gone when it ends orderly.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process;

/// Removes the file when it is dropped, unless somebody else has written it meanwhile.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

/// The file cannot be written.
#[derive(Debug)]
pub struct PidFileError {
    path: PathBuf,
    error: io::Error,
}

impl fmt::Display for PidFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid_file {} cannot be written: {}.", self.path.display(), self.error)
    }
}

impl PidFile {
    /// Writes the id of this process, decimal and without an end of line, in place of what the file says. To be called after
    /// the process has forked and given up its privileges, whose file it then is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(path: &Path) -> Result<PidFile, PidFileError> {
        let write = || File::create(path)?.write_all(pid().as_bytes());
        write().map_err(|error| PidFileError { path: path.to_path_buf(), error })?;
        Ok(PidFile { path: path.to_path_buf() })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Of a second broker, or of the parent that forked.
        if fs::read(&self.path).is_ok_and(|text| text == pid().as_bytes()) && fs::remove_file(&self.path).is_err() {
            // In a directory that is not the broker's an empty file says that nobody runs.
            let _ = File::create(&self.path);
        }
    }
}

fn pid() -> String {
    process::id().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("midge-pid-{name}-{}", process::id()))
    }

    #[test]
    fn the_file_is_there_while_it_is_held() {
        let path = path("held");
        fs::write(&path, "an older and longer id, 123456").unwrap();
        let file = PidFile::write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), process::id().to_string());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_another_process_is_left_alone() {
        let path = path("other");
        let file = PidFile::write(&path).unwrap();
        fs::write(&path, "1").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "1");
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_with_its_path() {
        let error = PidFile::write(Path::new("/nonexistent/midge.pid")).unwrap_err().to_string();
        assert!(error.starts_with("pid_file /nonexistent/midge.pid cannot be written: No such file"), "{error}");
    }
}
