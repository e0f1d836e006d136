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
    /// All of it: a sentence for the person who asked, or what was refused, and why.
    Said(Result<String, Vec<String>>),
}

impl Answer {
    /// What was done is logged, with who ordered it.
    fn of(result: Result<(), String>, caller: Caller, done: String) -> Answer {
        match result {
            Ok(()) => {
                info!("Control: {done} It was ordered by {caller}.");
                Answer::Said(Ok(done))
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
                let result = broker.kick(&id, now);
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

    /// Appends more of the answer to `out`; says whether that was the end of it.
    pub fn go_on(&mut self, broker: &mut Broker, out: &mut Vec<u8>, now: Millis) -> bool {
        match self {
            Answer::List(inspection) => {
                let is_over = broker.inspect(inspection, out, now);
                if is_over {
                    end("ok", &[], out);
                }
                is_over
            }
            Answer::Deletion(deletion) => {
                let is_over = broker.delete_retained(deletion, now);
                if is_over {
                    let Deletion { removed, left, .. } = *deletion;
                    let messages = if removed == 1 { "message was" } else { "messages were" };
                    let mut said = vec![format!("{removed} retained {messages} deleted.")];
                    if left > 0 {
                        said.push(format!("{left} below $SYS are the broker's own, and stay."));
                    }
                    end("ok", &said, out);
                }
                is_over
            }
            Answer::Said(Ok(said)) => {
                end("ok", std::slice::from_ref(said), out);
                true
            }
            Answer::Said(Err(why)) => {
                end("error", why, out);
                true
            }
        }
    }
}

/// The last line of an answer.
fn end(word: &str, sentences: &[String], out: &mut Vec<u8>) {
    let mut row = Row::begin(word, out);
    sentences.iter().for_each(|sentence| row.text(sentence.as_bytes()));
    row.end();
}
