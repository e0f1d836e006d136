//! The one helper thread: it performs a task, every write and sync of it, so that the loop never waits for a device.
//! It owns the open files and no state of the broker; all it knows is steps.
//!
//! One task at a time. Dropping the worker waits until what was submitted is done.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::disk::{Directory, Disk};
use super::log::Mode;
use super::task::{Done, Step, Task};

/// Steps need a few hundred bytes of stack; the rest is for what libc may do in between.
const STACK_BYTES: usize = 64 * 1024;

pub struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    finished: Condvar,
}

#[derive(Default)]
struct State {
    task: Option<Task>,
    done: Option<Done>,
    syncs_are_held: bool,
    is_closing: bool,
}

impl Worker {
    /// Starts the thread. `wake` is called on it after each task, when `take_done` has something.
    pub fn start(directory: Directory, mode: Mode, wake: impl Fn() + Send + 'static) -> io::Result<Worker> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), finished: Condvar::new() });
        let theirs = Arc::clone(&shared);
        let mut disk = Disk::new(directory, mode != Mode::Never);
        let builder = thread::Builder::new().name("midge-journal".to_string()).stack_size(STACK_BYTES);
        let thread = builder.spawn(move || {
            while let Some(task) = theirs.next_task() {
                let result = perform(&mut disk, &task, &theirs);
                let wear = disk.take_wear();
                theirs.lock().done = Some(Done { task, result, wear });
                theirs.finished.notify_all();
                wake();
            }
        })?;
        Ok(Worker { shared, thread: Some(thread) })
    }

    /// Hands over a task. The one before must be done and taken.
    pub fn submit(&self, task: Task) {
        let mut state = self.shared.lock();
        debug_assert!(state.task.is_none() && state.done.is_none());
        state.task = Some(task);
        self.shared.changed.notify_all();
    }

    /// What became of the task that was submitted last, once.
    pub fn take_done(&self) -> Option<Done> {
        self.shared.lock().done.take()
    }

    /// Waits until the task that was submitted last is done.
    pub fn wait(&self) {
        let busy = |state: &mut State| state.done.is_none();
        drop(self.shared.finished.wait_while(self.shared.lock(), busy));
    }

    /// For tests: from now on no sync begins, as if the device had stalled.
    pub fn hold_syncs(&self) {
        self.shared.lock().syncs_are_held = true;
    }

    /// For tests: ends what `hold_syncs` began.
    pub fn release_syncs(&self) {
        self.shared.lock().syncs_are_held = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_closing = true;
        state.syncs_are_held = false;
        drop(state);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a task; `None` when the worker is dropped and nothing is left to do.
    fn next_task(&self) -> Option<Task> {
        let idle = |state: &mut State| state.task.is_none() && !state.is_closing;
        let waited = self.changed.wait_while(self.lock(), idle);
        waited.unwrap_or_else(PoisonError::into_inner).task.take()
    }

    fn wait_until_syncs_are_released(&self) {
        drop(self.changed.wait_while(self.lock(), |state| state.syncs_are_held));
    }
}

fn perform(disk: &mut Disk, task: &Task, shared: &Shared) -> io::Result<()> {
    for step in &task.steps {
        if matches!(step, Step::Sync { .. }) {
            shared.wait_until_syncs_are_released();
        }
        if let Err(error) = disk.perform(step) {
            disk.close();
            return Err(error);
        }
    }
    Ok(())
}
