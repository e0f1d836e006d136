//! What is asked at the control socket, done: each request becomes an answer, which is made as it is read. What changes anything
//! leaves a line in the log, with who asked for it.

use log::info;

use crate::broker::{Broker, Deletion, Inspection};
use crate::control::{Request, Row};
use crate::logger;
use crate::net::Caller;
use crate::time::Millis;

/// An answer that is being given.
pub enum Answer {
    List(Inspection),
    Deletion(Deletion),
    /// What was done, once it is stored.
    Saving {
        said: Vec<String>,
        position: u64,
    },
    /// All of it: a sentence for the person who asked, or what was refused, and why.
    Said(Result<String, Vec<String>>),
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    More,
    /// There is nothing to do until the store has news.
    Waits,
    Over,
}

impl Answer {
    /// What was done is logged, with who ordered it. `position` is that at which it is stored.
    fn of(result: Result<u64, String>, caller: Caller, done: String) -> Answer {
        match result {
            Ok(position) => {
                // In this order: an id may be longer than a line of the log.
                info!("Control: by order of {caller}: {done}");
                Answer::Saving { said: vec![done], position }
            }
            Err(why) => Answer::Said(Err(vec![why])),
        }
    }

    /// Does what a request wants, or as much of it as is done at once. Nothing if it is a reload, which is the server's business.
    pub fn to(line: &[u8], caller: Caller, broker: &mut Broker, now: Millis) -> Option<Answer> {
        let request = match Request::parse(line) {
            Ok(request) => request,
            Err(why) => return Some(Answer::Said(Err(vec![why]))),
        };
        Some(match request {
            Request::Clients => Answer::List(Inspection::clients()),
            Request::Sessions => Answer::List(Inspection::sessions()),
            Request::Subscriptions(None) => Answer::List(Inspection::subscriptions()),
            Request::Subscriptions(Some(id)) => match broker.has_session(&id) {
                Ok(()) => Answer::List(Inspection::subscriptions_of(&id)),
                Err(why) => Answer::Said(Err(vec![why])),
            },
            Request::Retained { filter, has_payload } => Answer::List(Inspection::retained(&filter, has_payload)),
            Request::Stats => Answer::List(Inspection::stats()),
            Request::DeleteRetained(filter) => {
                info!("Control: {caller} deletes the retained messages of '{filter}'.");
                Answer::Deletion(Deletion::new(&filter))
            }
            Request::Kick(id) => {
                let result = broker.kick(&id, now).map(|()| 0);
                Answer::of(result, caller, format!("Client '{id}' was disconnected."))
            }
            Request::DeleteSession(id) => {
                let result = broker.delete_session(&id, now);
                Answer::of(result, caller, format!("The session of client '{id}' was deleted."))
            }
            Request::Log(types) => {
                // Before they change, for they may leave this line out.
                info!("Control: {caller} sets the log types.");
                let said = || "The log types hold until the next reload.".to_string();
                Answer::Said(logger::set_types(&types).map(|()| said()).map_err(|why| vec![why]))
            }
            Request::Reload => {
                info!("Control: {caller} asks for a reload.");
                return None;
            }
        })
    }

    /// Whether one that waited may go on.
    pub fn has_news(&self, broker: &Broker) -> bool {
        matches!(self, Answer::Saving { position, .. } if broker.is_saved(*position) != Some(false))
    }

    /// Appends more of the answer to `out`.
    pub fn go_on(&mut self, broker: &mut Broker, out: &mut Vec<u8>, now: Millis) -> Progress {
        match self {
            Answer::List(inspection) => {
                if !broker.inspect(inspection, out, now) {
                    return Progress::More;
                }
                end("ok", &[], out);
            }
            Answer::Deletion(deletion) => {
                if broker.delete_retained(deletion, now) {
                    let Deletion { removed, left, position, .. } = *deletion;
                    let messages = if removed == 1 { "message was" } else { "messages were" };
                    let mut said = vec![format!("{removed} retained {messages} deleted.")];
                    if left > 0 {
                        said.push(format!("{left} below $SYS are the broker's own, and stay."));
                    }
                    *self = Answer::Saving { said, position };
                }
                return Progress::More;
            }
            Answer::Saving { said, position } => match broker.is_saved(*position) {
                Some(true) => end("ok", said, out),
                Some(false) => return Progress::Waits,
                None => {
                    let told =
                        said.join(" ") + " It cannot be stored at the moment, as the log says: a restart may undo it.";
                    end("error", &[told], out);
                }
            },
            Answer::Said(Ok(said)) => end("ok", std::slice::from_ref(said), out),
            Answer::Said(Err(why)) => end("error", why, out),
        }
        Progress::Over
    }
}

/// The last line of an answer.
fn end(word: &str, sentences: &[String], out: &mut Vec<u8>) {
    let mut row = Row::begin(word, out);
    sentences.iter().for_each(|sentence| row.text(sentence.as_bytes()));
    row.end();
}
