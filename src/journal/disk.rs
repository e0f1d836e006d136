//! The real directory: its lock, reading it, and performing tasks on it. The only file that touches the store on disk.
//! Decides nothing about what is written where.
//!
//! Invariant: while a `Directory` lives, no other process has the store.

use std::fmt::{self, Display, Formatter};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::frame::SECTOR;
use super::scan::{ReadDirectory, ReadFile};
use super::task::{Name, Step, Wear};
use crate::os::lock_file;

const LOCK_NAME: &str = "midge.lock";
const PAGE: u64 = 4096;
/// Bytes per write: enough for the device to be busy, little enough to have by the way.
const CHUNK_BYTES: usize = 64 * 1024;

/// A directory that holds a store, locked for this process.
pub struct Directory {
    path: PathBuf,
    /// Never read or written; the lock is on it.
    _lock: File,
}

/// Why a directory cannot hold the store.
#[derive(Debug)]
pub enum DirectoryError {
    NoParent(PathBuf),
    NotADirectory(PathBuf),
    Create { path: PathBuf, cause: io::Error },
    Lock { path: PathBuf, cause: io::Error },
    InUse { path: PathBuf, pid: u32 },
}

impl Display for DirectoryError {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            DirectoryError::NoParent(path) => {
                write!(out, "{} cannot be created: the directory it would be in does not exist", path.display())
            }
            DirectoryError::NotADirectory(path) => write!(out, "{} is not a directory", path.display()),
            DirectoryError::Create { path, cause } => write!(out, "{} cannot be created: {cause}", path.display()),
            DirectoryError::Lock { path, cause } => {
                write!(out, "{} cannot be written: {LOCK_NAME} in it: {cause}", path.display())
            }
            DirectoryError::InUse { path, pid } => {
                write!(out, "{} is in use by the process with id {pid}; stop it or choose another", path.display())
            }
        }
    }
}

impl Directory {
    /// Locks the directory at `path`, which is created if only its last part is missing.
    pub fn open(path: &Path) -> Result<Directory, DirectoryError> {
        create_if_missing(path)?;
        let error = |cause| DirectoryError::Lock { path: path.to_path_buf(), cause };
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(LOCK_NAME));
        let lock = lock.map_err(error)?;
        match lock_file(&lock).map_err(error)? {
            Some(pid) => Err(DirectoryError::InUse { path: path.to_path_buf(), pid }),
            None => Ok(Directory { path: path.to_path_buf(), _lock: lock }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(&self, name: Name) -> PathBuf {
        self.path.join(name.to_string())
    }
}

fn create_if_missing(path: &Path) -> Result<(), DirectoryError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(DirectoryError::NotADirectory(path.to_path_buf())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(cause) => return Err(DirectoryError::Create { path: path.to_path_buf(), cause }),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !parent.is_dir() {
        return Err(DirectoryError::NoParent(path.to_path_buf()));
    }
    let created = DirBuilder::new().mode(0o700).create(path).and_then(|()| File::open(parent)?.sync_all());
    created.map_err(|cause| DirectoryError::Create { path: path.to_path_buf(), cause })
}

impl ReadDirectory for Directory {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name))
    }
}

impl ReadFile for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

/// Performs steps on a directory, with the one file open that is written.
pub(super) struct Disk {
    directory: Directory,
    /// Direct writes may be tried.
    tries_direct: bool,
    written: Option<OpenFile>,
    buffer: AlignedBuffer,
    wear: Wear,
}

struct OpenFile {
    name: Name,
    file: File,
    is_direct: bool,
    /// Pages from the first to before this one were counted as written since the last sync, if they were touched.
    counted_pages: u64,
}

impl Disk {
    pub fn new(directory: Directory, tries_direct: bool) -> Disk {
        Disk { directory, tries_direct, written: None, buffer: AlignedBuffer::new(), wear: Wear::default() }
    }

    /// What the steps performed since the last call cost.
    pub fn take_wear(&mut self) -> Wear {
        std::mem::take(&mut self.wear)
    }

    /// Forgets what is open. After a failure a file is opened anew: an old descriptor may have told of it already.
    pub fn close(&mut self) {
        self.written = None;
    }

    pub fn perform(&mut self, step: &Step) -> io::Result<()> {
        match step {
            Step::Create { file, header, from_spare } => self.create(*file, header, *from_spare),
            Step::Truncate { file, size } => self.file(*file)?.file.set_len(*size),
            Step::Write { file, offset, bytes } => self.write(*file, *offset, bytes),
            Step::Extend { file, from, to } => {
                // If it fails for a reason that matters, the sync that follows fails, too.
                let _ = self.extend(*file, *from, *to);
                Ok(())
            }
            Step::Sync { file } => unless_missing(self.sync(*file)),
            Step::Rename { from, to } => self.rename(*from, *to),
            Step::Remove { file } => {
                self.close();
                unless_missing(fs::remove_file(self.directory.at(*file)))
            }
            Step::SetAside { file } => self.set_aside(*file),
            Step::SyncDirectory => {
                self.wear.syncs += 1;
                File::open(&self.directory.path)?.sync_all()
            }
        }
    }

    fn create(&mut self, name: Name, header: &[u8], from_spare: bool) -> io::Result<()> {
        if self.directory.at(name).try_exists()? {
            return Ok(());
        }
        if !from_spare {
            self.file(Name::Spare)?.file.set_len(0)?;
        }
        self.write(Name::Spare, 0, header)?;
        self.sync(Name::Spare)?;
        self.rename(Name::Spare, name)
    }

    fn write(&mut self, name: Name, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (index, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            self.buffer.bytes(chunk.len()).copy_from_slice(chunk);
            self.write_buffer(name, offset + (index * CHUNK_BYTES) as u64, chunk.len())?;
        }
        Ok(())
    }

    fn extend(&mut self, name: Name, from: u64, to: u64) -> io::Result<()> {
        let mut at = from;
        while at < to {
            let length = (to - at).min(CHUNK_BYTES as u64) as usize;
            self.buffer.bytes(length).fill(0);
            self.write_buffer(name, at, length)?;
            at += length as u64;
        }
        Ok(())
    }

    /// Writes what stands in the buffer; where the file system refuses that directly, through the page cache.
    fn write_buffer(&mut self, name: Name, offset: u64, length: usize) -> io::Result<()> {
        let is_aligned = offset.is_multiple_of(SECTOR) && length.is_multiple_of(SECTOR as usize);
        self.file(name)?;
        let written = self.written.as_ref().is_some_and(|open| open.is_direct) && is_aligned;
        if written {
            let Some(open) = &self.written else { return Ok(()) };
            match open.file.write_all_at(self.buffer.bytes(length), offset) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
                result => {
                    self.wear.written_bytes += length as u64;
                    return result;
                }
            }
        }
        if self.written.as_ref().is_some_and(|open| open.is_direct) {
            self.tries_direct = false;
            self.close();
        }
        self.file(name)?;
        let Some(open) = &mut self.written else { return Ok(()) };
        let end_page = (offset + length as u64).div_ceil(PAGE);
        let new_pages = end_page.saturating_sub(open.counted_pages.max(offset / PAGE));
        open.counted_pages = open.counted_pages.max(end_page);
        self.wear.written_bytes += new_pages * PAGE;
        open.file.write_all_at(self.buffer.bytes(length), offset)
    }

    fn sync(&mut self, name: Name) -> io::Result<()> {
        self.wear.syncs += 1;
        let open = self.file(name)?;
        open.counted_pages = 0;
        open.file.sync_data()
    }

    fn rename(&mut self, from: Name, to: Name) -> io::Result<()> {
        match &mut self.written {
            Some(open) if open.name == from => open.name = to,
            Some(open) if open.name == to => self.written = None,
            _ => {}
        }
        unless_missing(fs::rename(self.directory.at(from), self.directory.at(to)))
    }

    fn set_aside(&mut self, name: Name) -> io::Result<()> {
        self.close();
        let from = self.directory.at(name);
        let mut attempt = 1;
        loop {
            let to = self.directory.path.join(name.set_aside(attempt));
            if !to.try_exists()? {
                return unless_missing(fs::rename(from, to));
            }
            attempt += 1;
        }
    }

    /// The file open for writing.
    fn file(&mut self, name: Name) -> io::Result<&mut OpenFile> {
        if self.written.as_ref().is_none_or(|open| open.name != name) {
            self.written = None;
            self.written = Some(self.open_for_writing(name)?);
        }
        self.written.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open_for_writing(&self, name: Name) -> io::Result<OpenFile> {
        let path = self.directory.at(name);
        let mut options = OpenOptions::new();
        // Only the spare file is ever made: a generation that has gone missing must not come back empty.
        options.write(true).create(name == Name::Spare).truncate(false).mode(0o600);
        if self.tries_direct {
            match options.clone().custom_flags(libc::O_DIRECT).open(&path) {
                Ok(file) => return Ok(OpenFile { name, file, is_direct: true, counted_pages: 0 }),
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(OpenFile { name, file: options.open(path)?, is_direct: false, counted_pages: 0 })
    }
}

fn unless_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Memory that a direct write accepts: it begins at a page's boundary.
struct AlignedBuffer {
    bytes: Vec<u8>,
    skip: usize,
}

impl AlignedBuffer {
    fn new() -> AlignedBuffer {
        let bytes = vec![0; CHUNK_BYTES + PAGE as usize];
        let skip = bytes.as_ptr().align_offset(PAGE as usize);
        AlignedBuffer { bytes, skip }
    }

    fn bytes(&mut self, length: usize) -> &mut [u8] {
        &mut self.bytes[self.skip..self.skip + length]
    }
}
