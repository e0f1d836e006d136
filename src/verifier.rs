//! The helper thread that checks passwords, which is slow on purpose: the loop goes on meanwhile. It owns no state; all it knows is
//! checks. One at a time: whoever waits is in the core's queue, which is bounded.
//!
//! Dropping it does not wait: a check that is under way ends by itself, and nobody asks for its answer.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use crate::access::passwords::Check;
use crate::broker::LoginId;

/// A check needs a few kilobytes of stack, and several times as many without optimisation; Argon2's memory is not on it.
const STACK_BYTES: usize = 256 * 1024;

pub struct Verifier {
    checks: SyncSender<(LoginId, Check)>,
    answers: Receiver<(LoginId, bool)>,
    is_busy: bool,
}

impl Verifier {
    /// Starts the thread. `wake` is called on it after each check, when `take_answer` has something.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub fn start(wake: impl Fn() + Send + 'static) -> io::Result<Verifier> {
        let (checks, theirs) = sync_channel::<(LoginId, Check)>(1);
        let (answer, answers) = sync_channel(1);
        let builder = thread::Builder::new().name("midge-login".to_string()).stack_size(STACK_BYTES);
        builder.spawn(move || {
            while let Ok((id, check)) = theirs.recv() {
                if answer.send((id, check.run())).is_err() {
                    return;
                }
                wake();
            }
        })?;
        Ok(Verifier { checks, answers, is_busy: false })
    }

    /// Whether a check is under way.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Hands over a check. The one before must be done and its answer taken.
    pub fn submit(&mut self, id: LoginId, check: Check) {
        debug_assert!(!self.is_busy);
        self.is_busy = self.checks.try_send((id, check)).is_ok();
    }

    /// What came of the check that was handed over last, once.
    pub fn take_answer(&mut self) -> Option<(LoginId, bool)> {
        let answer = self.answers.try_recv().ok()?;
        self.is_busy = false;
        Some(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::passwords::{Allowed, parse};

    #[test]
    fn each_check_is_answered_once() {
        let (woken, wakes) = std::sync::mpsc::channel();
        let mut verifier = Verifier::start(move || woken.send(()).unwrap_or_default()).unwrap();
        let (passwords, _) = parse(b"u:secret", &Allowed { plain_text: true, ..Allowed::default() });
        for (number, password, is_right) in [(1, "secret", true), (2, "other", false)] {
            verifier.submit(LoginId(number), passwords.check("u", password.as_bytes()));
            assert!(verifier.is_busy());
            wakes.recv().unwrap();
            assert_eq!(verifier.take_answer(), Some((LoginId(number), is_right)));
            assert!(!verifier.is_busy() && verifier.take_answer().is_none());
        }
    }
}
