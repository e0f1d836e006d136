//! A small file that is changed as a whole: whoever reads it sees all of it as it was or all of it as it is, even if the power
//! goes meanwhile, and two who change it do so one after the other.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;

/// A file that is there, and that nobody else changes this way meanwhile.
pub struct HeldFile {
    /// Without symbolic links: what they lead to is replaced, not they.
    path: PathBuf,
    file: File,
}

impl HeldFile {
    /// Waits for whoever changes it.
    ///
    /// # Errors
    /// When there is none, or it is no plain file, or may not be written: that is respected, though it will be replaced.
    pub fn open(path: &Path) -> io::Result<HeldFile> {
        let path = fs::canonicalize(path)?;
        loop {
            // A pipe without a writer must hold nobody up.
            let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
            let opened = file.metadata()?;
            if !opened.is_file() {
                return Err(io::Error::other("it is no plain file"));
            }
            lock(&file)?;
            // Whoever had it may have put another one in its place.
            let there = fs::metadata(&path)?;
            if (there.dev(), there.ino()) == (opened.dev(), opened.ino()) {
                return Ok(HeldFile { path, file });
            }
        }
    }

    /// A new and empty one, for its owner alone.
    ///
    /// # Errors
    /// When there is one.
    pub fn create(path: &Path) -> io::Result<HeldFile> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        HeldFile::open(path)
    }

    /// What it holds, if that is no more than so many bytes.
    ///
    /// # Errors
    /// When it is more, or cannot be read.
    pub fn read(&self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        (&self.file).take(bytes_max as u64 + 1).read_to_end(&mut content)?;
        if content.len() > bytes_max {
            return Err(io::Error::other(format!("it is larger than {bytes_max} bytes")));
        }
        Ok(content)
    }

    /// Puts this in place of what it holds; nobody else gets at it before this is dropped. Its owner and mode stay; other names that are links to the same file stay with what
    /// it held.
    ///
    /// # Errors
    /// When that cannot be written, and then it is as it was.
    pub fn replace(&self, content: &[u8]) -> io::Result<()> {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(format!(".{}", process::id()));
        let beside = self.path.with_file_name(name);
        // One that a process of the same number left when the power went.
        let _ = fs::remove_file(&beside);
        let written = self.write(&beside, content).and_then(|()| fs::rename(&beside, &self.path));
        if written.is_err() {
            let _ = fs::remove_file(&beside);
            return written;
        }
        // Where a directory cannot be synced, the name is written when the system finds the time.
        if let Some(directory) = self.path.parent() {
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        Ok(())
    }

    fn write(&self, beside: &Path, content: &[u8]) -> io::Result<()> {
        let why = |what: &'static str| move |error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
        let of = self.file.metadata()?;
        let own = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside);
        let own = own.map_err(why("no file that takes its place can be made beside it"))?;
        let made = own.metadata()?;
        if (made.uid(), made.gid()) != (of.uid(), of.gid()) {
            let kept = fchown(&own, Some(of.uid()), Some(of.gid()));
            kept.map_err(why("what takes its place cannot be given its owner"))?;
        }
        own.set_permissions(Permissions::from_mode(of.mode() & 0o7777))?;
        (&own).write_all(content)?;
        own.sync_all()
    }
}

/// Waits for the lock, which goes with the descriptor.
fn lock(file: &File) -> io::Result<()> {
    loop {
        // SAFETY: numbers only; the descriptor is open for the call.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } == 0 {
            return Ok(());
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            // A file system without locks, as some networks have: then who changes it last has changed it.
            error
                if matches!(error.raw_os_error(), Some(libc::ENOLCK | libc::ENOTSUP | libc::EINVAL | libc::EBADF)) =>
            {
                return Ok(());
            }
            error => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::thread;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path = std::env::temp_dir().join(format!("midge-held-{name}-{}", process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn names(&self) -> Vec<OsString> {
            let mut names: Vec<_> = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_new_file_is_for_its_owner_and_no_other_takes_its_place() {
        let folder = Folder::new("new");
        let path = folder.0.join("f");
        HeldFile::create(&path).unwrap().replace(b"one").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o7777), (b"one".to_vec(), 0o600));
        assert_eq!(HeldFile::create(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        symlink("nowhere", folder.0.join("link")).unwrap();
        assert!(HeldFile::create(&folder.0.join("link")).is_err());
    }

    #[test]
    fn mode_and_links_stay_and_nothing_is_left_beside() {
        let folder = Folder::new("mode");
        let (path, link) = (folder.0.join("f"), folder.0.join("link"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink("f", &link).unwrap();
        let held = HeldFile::open(&link).unwrap();
        assert_eq!(held.read(3).unwrap(), b"old");
        held.replace(b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), fs::metadata(&path).unwrap().mode() & 0o7777), (b"new".to_vec(), 0o640));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(folder.names(), ["f", "link"]);
        assert_eq!(HeldFile::open(&path).unwrap().read(2).unwrap_err().to_string(), "it is larger than 2 bytes");
        assert_eq!(HeldFile::open(Path::new("/dev/zero")).err().unwrap().to_string(), "it is no plain file");
    }

    #[test]
    fn a_file_that_may_not_be_written_is_not_replaced() {
        let folder = Folder::new("read-only");
        let path = folder.0.join("f");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o777)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        // Root may write everything; this is about the files of this thread alone.
        let error = thread::spawn(move || {
            // SAFETY: numbers only.
            unsafe { libc::setfsuid(65_534) };
            HeldFile::open(&path).err().unwrap()
        });
        assert_eq!(error.join().unwrap().kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn why_a_file_cannot_be_replaced_is_told() {
        let folder = Folder::new("directory");
        let path = folder.0.join("f");
        fs::write(&path, "old").unwrap();
        let held = HeldFile::open(&path).unwrap();
        fs::set_permissions(&folder.0, Permissions::from_mode(0o555)).unwrap();
        let error = thread::spawn(move || {
            // SAFETY: as above.
            unsafe { libc::setfsuid(65_534) };
            held.replace(b"new").unwrap_err()
        });
        let told = error.join().unwrap().to_string();
        assert_eq!(told, "no file that takes its place can be made beside it: Permission denied (os error 13)");
        fs::set_permissions(&folder.0, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(folder.names(), ["f"]);
    }

    #[test]
    fn the_owner_stays_or_nothing_changes() {
        let folder = Folder::new("owner");
        let path = folder.0.join("f");
        fs::write(&path, "old").unwrap();
        // Only root can give files away.
        if std::os::unix::fs::chown(&path, Some(4711), Some(4712)).is_ok() {
            HeldFile::open(&path).unwrap().replace(b"new").unwrap();
            let of = fs::metadata(&path).unwrap();
            assert_eq!((of.uid(), of.gid()), (4711, 4712));
        }
    }

    #[test]
    fn many_changes_at_a_time_are_made_one_after_the_other() {
        let folder = Folder::new("many");
        let path = folder.0.join("f");
        HeldFile::create(&path).unwrap();
        let change = |letter: u8| {
            let held = HeldFile::open(&path).unwrap();
            let mut content = held.read(100).unwrap();
            content.push(letter);
            held.replace(&content).unwrap();
        };
        // In one process the name beside is the same for all, so they must not meet there either.
        thread::scope(|scope| (b'a'..b'q').for_each(|letter| drop(scope.spawn(move || change(letter)))));
        let mut content = fs::read(&path).unwrap();
        content.sort();
        assert_eq!(content, (b'a'..b'q').collect::<Vec<_>>());
    }
}
