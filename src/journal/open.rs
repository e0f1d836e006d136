//! Starting: which files count, in which order they are replayed, and what is to be repaired afterwards. Reads only.
//!
//! Files are looked at from the newest to the first that holds a complete snapshot; that one and all newer ones are
//! replayed. Everything is read twice, first to judge it, then to hand it out, so that no batch is handed out that a
//! later look would take back, and memory holds one batch at a time.
//!
//! | found                                       | what happens                                                       |
//! |---------------------------------------------|--------------------------------------------------------------------|
//! | torn tail                                   | cut by the first task                                              |
//! | hole, damaged first sector, missing frames  | the rest is replayed; set aside once a new snapshot is complete    |
//! | newest file without a frame, older complete | removed by the first task: an interrupted beginning                |
//! | no file with a frame                        | set aside by the first task, and the store begins anew             |
//! | another program's file, a newer format      | refused                                                            |

use std::fmt::{self, Display, Formatter};
use std::io;

use ::log::Level;

use super::frame::{FILE_HEADER_BYTES, FORMAT_VERSION, FileHeader, FrameHeader, SECTOR, is_foreign};
use super::log::{Beginning, Held, Journal, Mode};
use super::scan::{Found, ReadDirectory, ReadFile, Scanner};
use super::survey::Survey;
use super::task::{Name, Step};

/// A frame as replay hands it out.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub header: FrameHeader,
    pub batch: &'a [u8],
}

/// A store that was read.
pub struct Opened {
    pub journal: Journal,
    /// There were no frames: the store begins (anew).
    pub is_new: bool,
    /// Something that was stored may be missing. A snapshot should be made at once: the journal wants one until then.
    pub is_damaged: bool,
    /// Of the last frame; 0 if there is none.
    pub store_ms: u64,
    /// The last wall clock that was known; 0 if none was.
    pub wall_ms: u64,
    pub frames: u64,
    /// For the log: a sentence each.
    pub lines: Vec<(Level, String)>,
}

/// Why a store is not opened. Nothing was written.
#[derive(Debug)]
pub enum OpenError {
    List(io::Error),
    Read { file: String, cause: io::Error },
    Newer { file: String, version: u16 },
    Foreign { file: String },
    Misnamed { file: String, generation: u32 },
    OtherStore { file: String, other: String },
}

impl Display for OpenError {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::List(cause) => write!(out, "the files of the store cannot be listed: {cause}"),
            OpenError::Read { file, cause } => write!(out, "{file} cannot be read: {cause}"),
            OpenError::Newer { file, version } => write!(
                out,
                "{file} has format version {version}, this program knows versions up to {FORMAT_VERSION}; start the \
                 newer program that wrote it, or move the files elsewhere to begin with an empty store"
            ),
            OpenError::Foreign { file } => {
                write!(out, "{file} is not a journal of this program; move it elsewhere or choose another directory")
            }
            OpenError::Misnamed { file, generation } => write!(
                out,
                "{file} was renamed or copied, it is {}; give it its name again or move it elsewhere",
                Name::Generation(*generation)
            ),
            OpenError::OtherStore { file, other } => {
                write!(
                    out,
                    "{file} and {other} belong to two different stores; move the one that is not meant elsewhere"
                )
            }
        }
    }
}

/// Reads the store in `directory` and hands out its frames in order. `new_key` is a number drawn at random, which a
/// store that begins keeps.
pub fn open<D: ReadDirectory>(
    directory: &D,
    mode: Mode,
    new_key: u64,
    each: &mut dyn FnMut(Frame<'_>),
) -> Result<Opened, OpenError> {
    let listing = Listing::read(directory)?;
    let files = listing.generations.iter().map(|generation| Source::open(directory, *generation));
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let known_key = one_key(&files)?;
    let mut start = Start::new(known_key);
    for source in files.iter().rev() {
        start.consider(source)?;
    }
    start.chain.reverse();
    start.settle_unused();
    let spare_bytes = listing.spare_bytes(directory, mode, &mut start.repairs)?;
    let mut replay = Replay { store_ms: 0, wall_ms: 0, sequence: 0, frames: 0 };
    for (survey, source) in &start.chain {
        start.lines.extend(describe(survey));
        replay.hand_out(source, survey, each)?;
    }
    let key = known_key.unwrap_or_else(|| match start.tag() {
        Some(tag) => new_key & !u64::from(u32::MAX) | u64::from(tag),
        None => new_key,
    });
    let newest_is_damaged = start.chain.last().is_some_and(|(survey, _)| survey.is_damaged);
    if let Some((survey, _)) = start.chain.last()
        && survey.torn_bytes > 0
        && !newest_is_damaged
    {
        start.repairs.push(Step::Truncate { file: Name::Generation(survey.generation), size: survey.end() });
    }
    let held = start.chain.iter().map(|(survey, _)| held(survey)).collect();
    let beginning = Beginning {
        mode,
        key,
        files: held,
        highest: listing.highest,
        spare_bytes,
        sequence: replay.sequence,
        repairs: start.repairs,
    };
    Ok(Opened {
        journal: Journal::new(beginning),
        is_new: start.chain.is_empty(),
        is_damaged: start.is_damaged,
        store_ms: replay.store_ms,
        wall_ms: replay.wall_ms,
        frames: replay.frames,
        lines: start.lines,
    })
}

fn held(survey: &Survey) -> Held {
    let size = if survey.torn_bytes > 0 { survey.end() } else { survey.size };
    Held { generation: survey.generation, end: survey.end(), size, is_damaged: survey.is_damaged }
}

/// The names in the directory that concern the store.
struct Listing {
    generations: Vec<u32>,
    /// The highest number that a file has or had before it was set aside.
    highest: u32,
    has_spare: bool,
}

impl Listing {
    fn read<D: ReadDirectory>(directory: &D) -> Result<Listing, OpenError> {
        let names = directory.names().map_err(OpenError::List)?;
        let mut listing = Listing { generations: Vec::new(), highest: 0, has_spare: false };
        for name in &names {
            listing.has_spare |= *name == Name::Spare.to_string();
            let whole = Name::generation_of(name);
            listing.generations.extend(whole);
            let set_aside = name.split_once(".damaged").and_then(|(before, _)| Name::generation_of(before));
            listing.highest = listing.highest.max(whole.or(set_aside).unwrap_or(0));
        }
        listing.generations.sort_unstable();
        Ok(listing)
    }

    /// The size of the spare file if it is of use, else a step that removes it.
    fn spare_bytes<D: ReadDirectory>(
        &self,
        directory: &D,
        mode: Mode,
        repairs: &mut Vec<Step>,
    ) -> Result<Option<u64>, OpenError> {
        if !self.has_spare {
            return Ok(None);
        }
        if mode == Mode::Never {
            repairs.push(Step::Remove { file: Name::Spare });
            return Ok(None);
        }
        let read = |cause| OpenError::Read { file: Name::Spare.to_string(), cause };
        let size = directory.open(&Name::Spare.to_string()).and_then(|file| file.size()).map_err(read)?;
        Ok(Some(size))
    }
}

/// A generation's file, open for reading.
struct Source<F> {
    generation: u32,
    file: F,
    size: u64,
    first_bytes: Vec<u8>,
    header: Option<FileHeader>,
}

impl<F: ReadFile> Source<F> {
    fn open<D: ReadDirectory<File = F>>(directory: &D, generation: u32) -> Result<Source<F>, OpenError> {
        let name = Name::Generation(generation).to_string();
        let read = |cause| OpenError::Read { file: name.clone(), cause };
        let file = directory.open(&name).map_err(read)?;
        let size = file.size().map_err(read)?;
        let mut first_bytes = vec![0; size.min(FILE_HEADER_BYTES as u64) as usize];
        let mut filled = 0;
        while filled < first_bytes.len() {
            match file.read_at(filled as u64, &mut first_bytes[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(read(cause)),
            }
        }
        let header = FileHeader::parse(&first_bytes);
        match header {
            Some(header) if header.version > FORMAT_VERSION => {
                Err(OpenError::Newer { file: name, version: header.version })
            }
            Some(header) if header.generation != generation => {
                Err(OpenError::Misnamed { file: name, generation: header.generation })
            }
            _ => Ok(Source { generation, file, size, first_bytes, header }),
        }
    }

    fn name(&self) -> Name {
        Name::Generation(self.generation)
    }

    fn read_error(&self, cause: io::Error) -> OpenError {
        OpenError::Read { file: self.name().to_string(), cause }
    }
}

/// The store key in the headers that are readable, which must agree.
fn one_key<F: ReadFile>(files: &[Source<F>]) -> Result<Option<u64>, OpenError> {
    let mut keys = files.iter().filter_map(|source| Some((source, source.header?.key)));
    let Some((first, key)) = keys.next() else { return Ok(None) };
    match keys.find(|(_, other)| *other != key) {
        Some((other, _)) => {
            Err(OpenError::OtherStore { file: first.name().to_string(), other: other.name().to_string() })
        }
        None => Ok(Some(key)),
    }
}

/// What opening has found out so far.
struct Start<'a, F> {
    /// The lower half of the store key, as frames carry it.
    known_tag: Option<u32>,
    /// Files to be replayed, with what they hold: newest first while they are considered.
    chain: Vec<(Survey, &'a Source<F>)>,
    /// Newer than all of the chain and without a frame that counts.
    unused: Vec<(Survey, &'a Source<F>)>,
    /// All that are considered from now on are out of date.
    is_closed: bool,
    is_damaged: bool,
    repairs: Vec<Step>,
    lines: Vec<(Level, String)>,
}

impl<'a, F: ReadFile> Start<'a, F> {
    fn new(known_key: Option<u64>) -> Start<'a, F> {
        Start {
            known_tag: known_key.map(|key| key as u32),
            chain: Vec::new(),
            unused: Vec::new(),
            is_closed: false,
            is_damaged: false,
            repairs: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Looks at the next older file.
    fn consider(&mut self, source: &'a Source<F>) -> Result<(), OpenError> {
        if self.is_closed {
            self.drop_out_of_date(source);
            return Ok(());
        }
        let survey = Survey::read(&source.file, source.size, source.generation, source.header, self.tag());
        let mut survey = survey.map_err(|cause| source.read_error(cause))?;
        if survey.runs.is_empty() && source.header.is_none() && is_foreign(&source.first_bytes) {
            return Err(OpenError::Foreign { file: source.name().to_string() });
        }
        match self.chain.last() {
            None => survey.settle_newest(),
            Some((next, _)) if joins(&survey, next) => survey.settle_older(next.first_sequence()),
            Some(_) => {
                self.is_closed = true;
                self.is_damaged = true;
                self.drop_out_of_date(source);
                return Ok(());
            }
        }
        if self.chain.is_empty() && survey.runs.is_empty() {
            self.unused.push((survey, source));
            return Ok(());
        }
        self.is_closed = survey.is_complete;
        self.is_damaged |= survey.is_damaged;
        self.chain.push((survey, source));
        Ok(())
    }

    /// A file that a newer snapshot replaces, or that does not belong to what is replayed. It is kept under another name
    /// unless it is known to be replaced.
    fn drop_out_of_date(&mut self, source: &Source<F>) {
        let is_replaced = self.chain.last().is_some_and(|(survey, _)| survey.is_complete);
        let file = source.name();
        if is_replaced && source.header.is_some() {
            self.repairs.push(Step::Remove { file });
        } else {
            self.repairs.push(Step::SetAside { file });
            self.lines.push((Level::Warn, format!("{file} is not part of the store any more and is set aside.")));
        }
    }

    /// Files without frames: an interrupted beginning if there is something older, else all there is.
    fn settle_unused(&mut self) {
        let has_older = !self.chain.is_empty();
        for (survey, source) in std::mem::take(&mut self.unused) {
            let file = source.name();
            // A store's first frame is empty and has one sector: nothing can have come after it.
            let is_first = source.header.is_some_and(|header| header.first_sequence == 1)
                && survey.size <= FILE_HEADER_BYTES as u64 + SECTOR;
            if has_older || is_first {
                self.repairs.push(Step::Remove { file });
                let text = format!("{file} was begun and holds nothing yet: it is removed, nothing is lost.");
                self.lines.push((Level::Info, text));
            } else {
                self.repairs.push(Step::SetAside { file });
                self.is_damaged = true;
                let text = format!(
                    "{file} ({} bytes) holds nothing that can be read: it is set aside as {}, and the store begins anew. \
                     What was stored is lost unless you have a copy of this file.",
                    survey.size,
                    file.set_aside(1)
                );
                self.lines.push((Level::Warn, text));
            }
        }
        let first_is_missing = self.chain.first().is_some_and(|(survey, _)| !survey.is_complete);
        if first_is_missing && !self.is_damaged {
            self.mark_oldest_damaged();
        }
    }

    /// No snapshot is complete and no hole says why: the file with its beginning is gone.
    fn mark_oldest_damaged(&mut self) {
        self.is_damaged = true;
        if let Some((survey, _)) = self.chain.first_mut() {
            survey.is_damaged = true;
        }
    }

    fn tag(&self) -> Option<u32> {
        self.known_tag.or_else(|| self.chain.iter().find_map(|(survey, _)| survey.tag))
    }
}

/// Whether `older` is the file just before `newer`. If not, what was between them was removed, so a snapshot that has
/// become unreadable since had replaced `older`, too.
fn joins(older: &Survey, newer: &Survey) -> bool {
    older.generation + 1 == newer.generation
        || older.last_sequence().is_some_and(|last| newer.first_sequence() == Some(last + 1))
}

/// What the log says about a file that is replayed.
fn describe(survey: &Survey) -> Option<(Level, String)> {
    let file = Name::Generation(survey.generation);
    if survey.is_damaged {
        let (places, bytes, first) = survey.holes();
        let what = match (survey.header, places) {
            (_, 1..) => format!("{bytes} bytes in {places} places cannot be read, the first at offset {first}"),
            (None, 0) => "its first 512 bytes cannot be read".to_string(),
            (Some(_), 0) => "its beginning or its end is missing".to_string(),
        };
        let text = format!(
            "{file} is damaged: {what}. {} commits in it are intact and were read; what else it held is lost. \
             The file is kept as {} once a new one has replaced it.",
            survey.frame_count(),
            file.set_aside(1)
        );
        return Some((Level::Warn, text));
    }
    (survey.torn_bytes > 0).then(|| {
        let (torn, end) = (survey.torn_bytes, survey.end());
        let text = format!(
            "{file} ends with {torn} bytes of writes that were interrupted: they are cut off behind offset {end}, \
             nothing that was synced is lost."
        );
        (Level::Warn, text)
    })
}

/// The second reading.
struct Replay {
    store_ms: u64,
    wall_ms: u64,
    sequence: u64,
    frames: u64,
}

impl Replay {
    fn hand_out<F: ReadFile>(
        &mut self,
        source: &Source<F>,
        survey: &Survey,
        each: &mut dyn FnMut(Frame<'_>),
    ) -> Result<(), OpenError> {
        let first = source.header.map_or(0, |header| header.first_sequence);
        let mut scanner = Scanner::new(&source.file, survey.end(), source.generation, survey.tag, first);
        let mut batch = Vec::new();
        while let Some(found) = scanner.next().map_err(|cause| source.read_error(cause))? {
            let Found::Frame(header, offset) = found else { continue };
            scanner.load(&header, offset, &mut batch).map_err(|cause| source.read_error(cause))?;
            self.sequence = self.sequence.max(header.sequence);
            self.store_ms = header.store_ms;
            self.wall_ms = if header.wall_ms == 0 { self.wall_ms } else { header.wall_ms };
            self.frames += 1;
            each(Frame { header, batch: &batch });
        }
        Ok(())
    }
}
