//! Addresses of names. The system's resolver may take as long as it likes, so it is asked by a thread that ends with the
//! answer; the loop hears of that by a pipe. At most one such thread for each listener.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mio::event::Source;
use mio::unix::pipe;
use mio::{Interest, Registry, Token};

use super::interface::ordered;
use crate::os::without_signals;

/// Addresses kept of one name: nobody listens on more, and each costs a socket.
const ADDRESSES_MAX: usize = 64;

/// A question that is being answered.
#[derive(Debug)]
pub struct Lookup {
    answer: Arc<Answer>,
    /// Ends when the answer is there.
    end: pipe::Receiver,
}

/// Written once, by the thread.
#[derive(Debug, Default)]
struct Answer {
    found: Mutex<Option<io::Result<Vec<SocketAddr>>>>,
    is_there: Condvar,
}

impl Lookup {
    /// Starts to ask.
    ///
    /// # Errors
    /// When there is no thread or no pipe to be had.
    pub fn start(host: &str) -> io::Result<Lookup> {
        let answer = Arc::new(Answer::default());
        let written = Arc::clone(&answer);
        let (alive, end) = pipe::new()?;
        let host = host.to_string();
        // Signals are the loop's: one that reached this thread would end the process.
        without_signals(|| {
            thread::Builder::new().name("lookup".to_string()).spawn(move || {
                let found = resolve(&host);
                *written.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
                written.is_there.notify_one();
                drop(alive);
            })
        })?;
        Ok(Lookup { answer, end })
    }

    /// The answer if it is there.
    pub fn answer(&mut self) -> Option<io::Result<Vec<SocketAddr>>> {
        self.answer.found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for the answer, but not for ever.
    pub fn wait(&mut self, patience: Duration) -> Option<io::Result<Vec<SocketAddr>>> {
        let found = self.answer.found.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.answer.is_there.wait_timeout_while(found, patience, |found| found.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.take()
    }
}

/// With port 0, IPv4 first.
fn resolve(host: &str) -> io::Result<Vec<SocketAddr>> {
    let addresses = ordered((host, 0).to_socket_addrs()?.take(ADDRESSES_MAX));
    if addresses.is_empty() {
        return Err(io::Error::other("it has no address"));
    }
    Ok(addresses)
}

impl Source for Lookup {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.end.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.end.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.end.deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    #[test]
    fn an_answer_wakes_a_poll() {
        let mut lookup = Lookup::start("localhost").unwrap();
        let mut poll = Poll::new().unwrap();
        poll.registry().register(&mut lookup, Token(0), Interest::READABLE).unwrap();
        let mut events = Events::with_capacity(1);
        while events.is_empty() {
            poll.poll(&mut events, None).unwrap();
        }
        let found = lookup.answer().unwrap().unwrap();
        assert!(!found.is_empty() && found.is_sorted_by_key(SocketAddr::is_ipv6), "{found:?}");
    }

    #[test]
    fn a_name_that_cannot_be_one_has_no_addresses() {
        let mut lookup = Lookup::start("a..b").unwrap();
        assert!(lookup.wait(Duration::from_secs(20)).unwrap().is_err());
    }
}
