//! The real directory and the thread that writes to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use midge::journal::{Directory, Done, Journal, Mode, Name, Opened, SnapshotPart, Task, Worker, open};

/// A directory of its own for a test, beside the test programs, where a file system is and not memory.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("journal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Place(path)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Store {
    journal: Journal,
    worker: Worker,
    wakes: Receiver<()>,
    replayed: Vec<Vec<u8>>,
}

impl Store {
    fn open(place: &Place, mode: Mode) -> Store {
        let directory = Directory::open(&place.0).unwrap_or_else(|error| panic!("{error}"));
        let mut replayed = Vec::new();
        let opened: Opened = open(&directory, mode, 5, &mut |frame| replayed.push(frame.batch.to_vec())).unwrap();
        assert!(!opened.is_damaged, "{:?}", opened.lines);
        assert!(opened.lines.is_empty(), "{:?}", opened.lines);
        let (wake, wakes) = channel();
        let worker = Worker::start(directory, mode, move || wake.send(()).unwrap()).unwrap();
        let mut store = Store { journal: opened.journal, worker, wakes, replayed };
        let task = store.journal.first_task();
        store.perform(task);
        store
    }

    fn perform(&mut self, task: Task) {
        self.worker.submit(task);
        let done = self.wait();
        self.journal.finish(done).unwrap();
    }

    fn wait(&self) -> Done {
        self.wakes.recv().unwrap();
        self.worker.take_done().unwrap()
    }

    fn commit(&mut self, batch: &[u8], part: SnapshotPart) {
        let task = self.journal.commit(batch, part, 1, 2);
        self.perform(task);
    }
}

/// Bytes this process, and no other test in it, has made the device write. `None`: the system does not count.
fn write_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("write_bytes: "))?.parse().ok()
}

fn allows_direct_writes(directory: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    let path = directory.join("probe");
    let opened =
        fs::OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(&path);
    let _ = fs::remove_file(path);
    opened.is_ok()
}

/// Runs one test of this program in a process of its own, since what is counted or locked belongs to a process.
fn in_own_process(test: &str) -> bool {
    const ALONE: &str = "MIDGE_JOURNAL_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program).args(["--exact", test, "--nocapture"]).env(ALONE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
    print!("{text}");
    false
}

fn record(number: u32) -> Vec<u8> {
    let mut record = format!("record {number} ").into_bytes();
    record.resize(170, b'.');
    record
}

/// Fills a store with 10,000 records and returns it ready for small commits.
fn filled(place: &Place, mode: Mode) -> Store {
    let mut store = Store::open(place, mode);
    for hundred in 0..100 {
        let batch: Vec<u8> = (0..100).flat_map(|one| record(hundred * 100 + one)).collect();
        let part = if hundred == 0 { SnapshotPart::Begin } else { SnapshotPart::Part };
        store.commit(&batch, part);
    }
    store.commit(&[], SnapshotPart::End);
    store
}

#[test]
fn a_hundred_synced_updates_of_a_full_store_write_60_kb_at_most() {
    if !in_own_process("real::a_hundred_synced_updates_of_a_full_store_write_60_kb_at_most") {
        return;
    }
    let place = Place::new("wear");
    let mut store = filled(&place, Mode::Always);
    let (Some(before), true) = (write_bytes(), allows_direct_writes(&place.0)) else {
        println!("skipped: no /proc/self/io, or no direct writes in {}", place.0.display());
        return;
    };
    let counted = store.journal.wear();
    for number in 0..100 {
        store.commit(&record(number), SnapshotPart::None);
    }
    let written = write_bytes().unwrap() - before;
    let counter = store.journal.wear().written_bytes - counted.written_bytes;
    println!("100 commits of 170 bytes: {written} bytes written, {counter} counted");
    assert!(written <= 60_000, "{written}");
    assert!(counter.abs_diff(written) * 10 <= written, "{counter} for {written}");
    assert_eq!(store.journal.wear().syncs - counted.syncs, 100);
}

#[test]
fn the_wear_counter_agrees_with_the_kernel() {
    if !in_own_process("real::the_wear_counter_agrees_with_the_kernel") {
        return;
    }
    for mode in [Mode::Always, Mode::Interval, Mode::Never] {
        let place = Place::new("counter");
        let Some(before) = write_bytes() else {
            println!("skipped: no /proc/self/io");
            return;
        };
        let mut store = filled(&place, mode);
        for number in 0..1000 {
            store.commit(&record(number), SnapshotPart::None);
        }
        let written = write_bytes().unwrap() - before;
        let counter = store.journal.wear().written_bytes;
        println!("{mode:?}: {written} bytes written, {counter} counted, {:?}", store.journal.wear());
        assert!(counter.abs_diff(written) * 10 <= written, "{mode:?}: {counter} for {written}");
    }
}

#[test]
fn an_interval_of_a_hundred_updates_writes_20_kb_at_most() {
    if !in_own_process("real::an_interval_of_a_hundred_updates_writes_20_kb_at_most") {
        return;
    }
    let place = Place::new("interval");
    let mut store = filled(&place, Mode::Interval);
    if write_bytes().is_none() || !allows_direct_writes(&place.0) {
        println!("skipped: no /proc/self/io, or no direct writes in {}", place.0.display());
        return;
    }
    let batch: Vec<u8> = (0..100).flat_map(record).collect();
    // Now and then a page of the file system's own is put down to whoever writes.
    let written = (0..5).map(|_| {
        let before = write_bytes().unwrap();
        store.commit(&batch, SnapshotPart::None);
        write_bytes().unwrap() - before
    });
    let written = written.min().unwrap();
    println!("one commit of 100 records: {written} bytes written");
    assert!(written <= 20_000, "{written}");
}

#[test]
fn what_was_committed_comes_back_in_any_mode_and_after_any_change_of_it() {
    let place = Place::new("modes");
    let mut expected = vec![Vec::new()];
    for mode in [Mode::Always, Mode::Never, Mode::Interval, Mode::Never, Mode::Always] {
        let mut store = Store::open(&place, mode);
        assert_eq!(store.replayed, if expected.len() == 1 { Vec::new() } else { expected.clone() });
        for number in 0..20 {
            let batch = record(number).repeat(if number == 7 { 1000 } else { 1 });
            store.commit(&batch, SnapshotPart::None);
            expected.push(batch);
        }
    }
    assert_eq!(Store::open(&place, Mode::Never).replayed, expected);
}

#[test]
fn a_file_is_used_again_for_the_next_generation() {
    let place = Place::new("again");
    let mut store = Store::open(&place, Mode::Always);
    for generation in 2..8 {
        store.commit(b"a change", SnapshotPart::None);
        store.commit(b"all", SnapshotPart::Whole);
        let names = ["midge-spare.journal", "midge.lock"].map(String::from);
        let newest = Name::Generation(generation).to_string();
        assert_eq!(place.names(), [&[newest], &names[..]].concat());
    }
    store.commit(b"the last", SnapshotPart::None);
    drop(store);
    assert_eq!(Store::open(&place, Mode::Always).replayed, [&b"all"[..], b"the last"]);
    // Without syncs there is nothing to spare.
    drop(Store::open(&place, Mode::Never));
    assert_eq!(place.names(), ["midge-00000007.journal", "midge.lock"]);
}

#[test]
fn a_second_process_is_refused_and_told_the_first_one() {
    const DIRECTORY: &str = "MIDGE_JOURNAL_LOCKED";
    if let Some(path) = std::env::var_os(DIRECTORY) {
        match Directory::open(Path::new(&path)) {
            Ok(_) => println!("opened"),
            Err(error) => println!("refused: {error}"),
        }
        return;
    }
    let place = Place::new("lock");
    let test = "real::a_second_process_is_refused_and_told_the_first_one";
    let try_it = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(DIRECTORY, &place.0).stderr(Stdio::inherit());
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let held = Directory::open(&place.0).unwrap();
    let text = try_it();
    let expected = format!("is in use by the process with id {};", std::process::id());
    assert!(text.contains(&expected), "{text}");
    assert_eq!(fs::read(place.0.join("midge.lock")).unwrap(), b"");
    drop(held);
    assert!(try_it().contains("opened"));
}

#[test]
fn a_directory_that_cannot_be_is_refused_with_the_reason() {
    let refusal = |path: &Path| Directory::open(path).err().map(|error| error.to_string()).unwrap();
    let place = Place::new("refused");
    let without_parent = refusal(&place.0.join("store"));
    assert!(
        without_parent.ends_with("cannot be created: the directory it would be in does not exist"),
        "{without_parent}"
    );
    assert!(!place.0.exists());
    drop(Directory::open(&place.0).unwrap());
    assert!(refusal(&place.0.join("midge.lock")).ends_with("is not a directory"));
    // Nobody may write there, not even root.
    let cannot_write = refusal(Path::new("/proc/self"));
    assert!(cannot_write.starts_with("/proc/self cannot be written: midge.lock in it: "), "{cannot_write}");
    let cannot_create = refusal(Path::new("/proc/self/store"));
    assert!(cannot_create.starts_with("/proc/self/store cannot be created: "), "{cannot_create}");
}

#[test]
fn a_new_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new("owner");
    drop(Store::open(&place, Mode::Always));
    assert_eq!(fs::metadata(&place.0).unwrap().permissions().mode() & 0o777, 0o700);
    for name in place.names() {
        assert_eq!(fs::metadata(place.0.join(&name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_store_of_a_newer_version_is_left_as_it_is() {
    let place = Place::new("newer");
    drop(Store::open(&place, Mode::Always));
    let path = place.0.join("midge-00000001.journal");
    let mut content = fs::read(&path).unwrap();
    content[14] = 200;
    content[20..24].fill(0);
    let checksum = crc32fast::hash(&content[..512]);
    content[20..24].copy_from_slice(&checksum.to_le_bytes());
    fs::write(&path, &content).unwrap();
    let names = place.names();
    let directory = Directory::open(&place.0).unwrap();
    let error = open(&directory, Mode::Always, 1, &mut |_| {}).err().unwrap().to_string();
    assert!(error.starts_with("midge-00000001.journal has format version 200"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), content);
    assert_eq!(place.names(), names);
}

#[test]
fn a_held_sync_holds_the_task_and_nothing_else() {
    let place = Place::new("held");
    let mut store = Store::open(&place, Mode::Always);
    store.worker.hold_syncs();
    let task = store.journal.commit(b"held", SnapshotPart::None, 1, 1);
    store.worker.submit(task);
    assert!(store.worker.take_done().is_none());
    assert!(store.journal.is_busy());
    store.worker.release_syncs();
    let done = store.wait();
    store.journal.finish(done).unwrap();
    assert!(!store.journal.is_busy());
}

#[test]
fn a_dropped_worker_has_done_what_was_submitted() {
    let place = Place::new("dropped");
    let mut store = Store::open(&place, Mode::Always);
    store.worker.hold_syncs();
    let task = store.journal.commit(b"submitted", SnapshotPart::None, 1, 1);
    store.worker.submit(task);
    drop(store);
    assert_eq!(Store::open(&place, Mode::Always).replayed, [&b""[..], b"submitted"]);
}

/// /dev/full says that there is no space. A link to it in the place of the spare file makes the next generation fail.
#[test]
fn a_task_that_failed_succeeds_when_submitted_again() {
    let place = Place::new("full");
    let mut store = Store::open(&place, Mode::Never);
    std::os::unix::fs::symlink("/dev/full", place.0.join("midge-spare.journal")).unwrap();
    let task = store.journal.commit(b"all", SnapshotPart::Whole, 1, 1);
    store.worker.submit(task);
    let done = store.wait();
    let (task, _) = store.journal.finish(done).unwrap_err();
    assert!(store.journal.is_busy());
    fs::remove_file(place.0.join("midge-spare.journal")).unwrap();
    store.perform(task);
    drop(store);
    assert_eq!(Store::open(&place, Mode::Never).replayed, [b"all"]);
}
