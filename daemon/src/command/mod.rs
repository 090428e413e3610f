//! The command socket: how a running manager is asked and told things on its host.
//!
//! `queue/ringmaster/command`, a unix stream socket for the home's user and group. Each request is one line of JSON; each
//! answer is lines of JSON with one key:
//!
//! ```text
//! {"command":"agents","ids":["001"]}         -> {"item":{"id":"001",...}}\n   any number of them, and at the end one of
//!                                               {"ok":null}\n                 what is said of the whole, or null
//!                                               {"refused":"no agent ..."}\n  why not; items before it stand
//! ```

mod client;
mod server;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

pub use client::{CommandError, ask};
pub use server::{CommandServer, Orders};

/// The longest request. It is more than a message to an agent can be, and room for some thousand ids.
pub const REQUEST_BYTES_MAX: usize = 128 << 10;

/// What can be asked.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub enum Request {
    /// What is known of these agents, or of all. An item each: [`crate::registry::AgentReport`].
    Agents {
        /// Ids as in client.keys; none: all agents.
        #[serde(default)]
        ids: Vec<String>,
    },
    /// Read settings and client.keys again. Says the [`crate::settings::Changes`].
    Reload,
    /// Ask a Wazuh agent something, and wait for its answer.
    AgentRequest {
        /// Its id.
        id: String,
        /// Target and command, as `agent getstate`.
        text: String,
    },
    /// Forget the counters that this agent used up.
    ResetCounter {
        /// Its id.
        id: String,
    },
    /// Send a control message. An item for each agent, as it becomes known: `agent`, `result` (`sent`, `kept`, `dropped`), `text`.
    Send {
        /// An agent's id, or `all`: those that are there now.
        to: String,
        /// What follows `#!-`.
        text: String,
    },
    /// What the program is and has counted.
    Status,
}

/// A request on its way to the control plane, and the way back.
#[derive(Debug)]
pub struct Order {
    /// What is asked.
    pub request: Request,
    /// Where a long answer goes on: what [`End::More`] said; 0 at first.
    pub from: usize,
    answer: oneshot::Sender<Answer>,
}

/// What is answered: at once, or whenever it is known.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Lines of their own.
    pub items: Vec<Value>,
    /// What follows them.
    pub end: End,
}

/// How an answer goes on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum End {
    /// There is more: the same request is asked again, from here on.
    More(usize),
    /// That was all.
    Ok(Value),
    /// It can't be done, and why.
    Refused(String),
}

/// A line of an answer.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Item(Value),
    Ok(Value),
    Refused(String),
}

impl Answer {
    /// Items, and nothing more to say.
    pub fn done(items: Vec<Value>) -> Answer {
        Answer { items, end: End::Ok(Value::Null) }
    }

    /// Items, and more of them from `next` on.
    pub fn more(items: Vec<Value>, next: usize) -> Answer {
        Answer { items, end: End::More(next) }
    }

    /// One thing to say.
    pub fn ok(value: Value) -> Answer {
        Answer { items: Vec::new(), end: End::Ok(value) }
    }

    /// It can't be done.
    pub fn refused(why: impl Into<String>) -> Answer {
        Answer { items: Vec::new(), end: End::Refused(why.into()) }
    }
}

impl Order {
    /// Says it. Whoever asked may be gone, which is nobody's loss.
    pub fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}
