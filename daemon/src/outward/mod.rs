//! Everything that the manager says to agents of its own accord: shared files, active responses, what operators send, requests
//! to Wazuh agents.
//!
//! What is decided is pure: `letters` (messages, kept for agents that are away), `pushes` (merged.mg, within a budget),
//! `requests` (questions and their answers). [`Outward`] is around them: it reads the sockets and folders, mails orders to
//! the shards that have the agents, and takes what became of them. All of it is on the control plane's thread.

mod budget;
mod command;

mod desk;
mod letters;
mod local;
mod merged;
mod metrics;
mod order;
mod pushes;
mod remote;
mod remote_stats;
mod requests;
mod response;
mod shared;
mod watch;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use arc_swap::ArcSwap;
use bytes::Bytes;
use codec::{AgentId, limits};
use manager::{AgentTable, Notice, Time};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::exposition::ControlMetrics;
use crate::mail::MailSender;
use crate::metrics::{ShardMetrics, Stored};
use crate::settings::Settings;
use desk::{Desk, Recipients};
use shared::{Look, SharedFolders};

pub use letters::{Became, Dropped};
pub use metrics::OutwardMetrics;
pub(crate) use metrics::{COUNTERS, GAUGES};
pub use order::{Receipt, SendFailure, SendHow, SendOrder, SendOutcome};

/// How long the desk may rest while nothing happens: gauges are as old at the most.
const REST_MAX: Duration = Duration::from_secs(1);

/// What [`Outward`] is made of.
#[derive(Debug)]
pub struct OutwardParts {
    /// The clock of the process.
    pub clock: Clock,
    /// What the operator chose.
    pub settings: Arc<Settings>,
    /// The agents, as all shards see them.
    pub table: Arc<ArcSwap<AgentTable>>,
    /// How shards are reached.
    pub mailers: Vec<MailSender>,
    /// What the control plane counts.
    pub counted: Arc<ControlMetrics>,
    /// What the shards count.
    pub metrics: Vec<Arc<ShardMetrics>>,
}

/// What the manager says to agents.
pub struct Outward {
    clock: Clock,
    desk: RefCell<Desk>,
    /// Something may be due earlier than it was.
    wake: Notify,
    waiting: RefCell<command::Waiting>,
    counted: Arc<ControlMetrics>,
    metrics: Vec<Arc<ShardMetrics>>,
    started: std::time::SystemTime,
}

impl fmt::Debug for Outward {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Outward").finish_non_exhaustive()
    }
}

/// What became of a message that was sent by hand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sending {
    /// Whom it was for.
    pub agent: AgentId,
    /// What became of it.
    pub became: Became,
}

/// Why nothing is sent or asked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum OutwardError {
    /// Neither an id nor `all`.
    Agent(String),
    /// A socket can't be had.
    Socket {
        /// Its place in the home.
        path: &'static str,
        /// Why.
        error: String,
    },
    /// Empty, or longer than an agent reads.
    Text,
    /// As much is under way as may be.
    TooMuch,
}

impl fmt::Display for OutwardError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OutwardError::Agent(text) => {
                write!(formatter, "{text:?} is no agent: want an id of 1 to 8 digits, or \"all\"")
            }
            OutwardError::Socket { path, error } => write!(formatter, "{path}: {error}"),
            OutwardError::Text => {
                write!(
                    formatter,
                    "a message has 1 to {} bytes",
                    limits::TEXT_BYTES_MAX - codec::CONTROL_PREFIX.len()
                )
            }
            OutwardError::TooMuch => formatter.write_str("as much is under way already as may be: try again"),
        }
    }
}

impl std::error::Error for OutwardError {}

impl Outward {
    /// Begins, in the runtime of this thread: binds the sockets, reads the shared files, and works from then on.
    ///
    /// # Errors
    /// When another program has one of the sockets, or it can't be made.
    pub fn start(parts: OutwardParts) -> Result<Rc<Outward>, OutwardError> {
        let OutwardParts { clock, settings, table, mailers, counted, metrics } = parts;
        let responses =
            settings.active_response.enabled.then(|| local::responses(&settings.home)).transpose()?;
        let dumps = local::dumps(&settings)?;
        let requests = local::requests(&settings.home)?;
        let mut folders = SharedFolders::new(settings.home.clone(), settings.sink.queue.product);
        let look = if settings.shared.enabled { folders.look() } else { Look::default() };
        let outward = Rc::new(Outward {
            clock,
            desk: RefCell::new(Desk::new(&settings, table, mailers, Arc::clone(&counted))),
            wake: Notify::new(),
            waiting: RefCell::default(),
            counted,
            metrics,
            started: std::time::SystemTime::now(),
        });
        let watched = outward.take_look(look);
        if settings.shared.enabled {
            tokio_uring::spawn(watch::follow(Rc::clone(&outward), folders, watched));
        }
        if let Some(socket) = responses {
            tokio_uring::spawn(local::read_responses(Rc::clone(&outward), socket));
        }
        if let Some(socket) = dumps {
            tokio_uring::spawn(local::read_dumps(Rc::clone(&outward), socket));
        }
        if let Some(listener) = requests {
            tokio_uring::spawn(remote::serve(Rc::clone(&outward), listener));
        }
        tokio_uring::spawn(Rc::clone(&outward).work());
        Ok(outward)
    }

    /// News of an agent.
    pub fn on_notice(&self, agent: AgentId, notice: &Notice) {
        let now = self.now();
        self.with(|desk| desk.on_notice(now, agent, notice));
    }

    /// What became of an order.
    pub fn on_outcome(&self, outcome: SendOutcome) {
        let now = self.now();
        self.with(|desk| desk.on_outcome(now, outcome));
    }

    /// client.keys changed.
    pub fn on_keys(&self) {
        self.with(Desk::on_keys);
    }

    /// What the operator chose changed.
    pub fn on_settings(&self, settings: &Settings) {
        self.with(|desk| desk.set(settings));
    }

    /// Sends a message to the agent of this id, or to all that are there (`all`). The answers come as they are known; the channel
    /// ends after the last.
    ///
    /// # Errors
    /// When it is for nobody, or says nothing.
    pub fn send(&self, to: &str, text: &str) -> Result<mpsc::UnboundedReceiver<Sending>, OutwardError> {
        let recipients = match to {
            "all" => Recipients::Active,
            id => Recipients::One(id.parse().map_err(|_| OutwardError::Agent(to.to_owned()))?),
        };
        let text = message(text)?;
        let now = self.now();
        self.with(|desk| desk.send(now, recipients, text))
    }

    /// Asks a Wazuh agent: `payload` is the target and the command, as `agent getstate`. Answers as wazuh-remoted does: what the
    /// agent's program says, or `err` and why not.
    ///
    /// # Errors
    /// When it is for nobody, says nothing, or as many requests are open as may.
    ///
    /// # Panics
    /// Never: each request is answered, if only by its deadline.
    pub async fn request(&self, agent: &str, payload: &[u8]) -> Result<Bytes, OutwardError> {
        let id: AgentId = agent.parse().map_err(|_| OutwardError::Agent(agent.to_owned()))?;
        if payload.is_empty() || payload.len() > limits::TEXT_BYTES_MAX - 32 {
            return Err(OutwardError::Text);
        }
        let now = self.now();
        let answer: oneshot::Receiver<Bytes> = self.with(|desk| desk.ask(now, id, payload))?;
        Ok(answer.await.expect("each request is answered, if only by its deadline"))
    }

    /// How it goes, for the command socket.
    pub fn status(&self) -> serde_json::Value {
        let value = |of: fn(&OutwardMetrics) -> &Stored| of(&self.counted.outward).read().into();
        let numbers = COUNTERS.iter().chain(GAUGES).map(|(name, _, of)| ((*name).to_owned(), value(*of)));
        numbers.collect::<serde_json::Map<_, _>>().into()
    }

    /// The program ends: says what goes unsaid with it.
    pub fn stop(&self) {
        let held = self.desk.borrow().held();
        if held > 0 {
            warn!("{held} messages for agents were on their way or kept, and end with this program");
        }
    }

    fn now(&self) -> Time {
        Time::from_nanoseconds(self.clock.nanoseconds())
    }

    /// Does something at the desk. What follows from it is done once for all that comes at the same time.
    fn with<T>(&self, act: impl FnOnce(&mut Desk) -> T) -> T {
        let done = act(&mut self.desk.borrow_mut());
        self.wake.notify_one();
        done
    }

    /// Does what follows from what came, and what is due by the clock, until the runtime ends.
    async fn work(self: Rc<Outward>) {
        loop {
            let wait = {
                let (mut desk, now) = (self.desk.borrow_mut(), self.now());
                desk.turn(now);
                desk.next_wait(now).min(REST_MAX)
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.wake.notified() => {}
            }
        }
    }

    /// Takes what a look at the shared folders brought; returns what is to be watched.
    fn take_look(&self, look: Look) -> Vec<std::path::PathBuf> {
        for problem in &look.problems {
            warn!("{problem}");
        }
        if let Some(files) = look.files {
            let (count, bytes) = files.sums();
            info!("shared files: {count} merged.mg of {bytes} bytes together");
            let now = self.now();
            self.with(|desk| desk.set_files(now, files));
        }
        look.folders
    }

    /// A line of `queue/alerts/ar`.
    fn on_response(&self, datagram: &[u8]) {
        let now = self.now();
        self.with(|desk| desk.on_response(now, datagram));
    }
}

/// The control message that an operator wants sent.
fn message(text: &str) -> Result<Bytes, OutwardError> {
    let said = text.strip_prefix("#!-").unwrap_or(text);
    if said.is_empty() || text.len() > limits::TEXT_BYTES_MAX - codec::CONTROL_PREFIX.len() {
        return Err(OutwardError::Text);
    }
    Ok(response::control_message(text))
}

fn socket_error(path: &'static str) -> impl Fn(io::Error) -> OutwardError {
    move |error| OutwardError::Socket { path, error: error.to_string() }
}

impl fmt::Display for Became {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Became::Sent(over) => write!(formatter, "sent over {}", over.name()),
            Became::Kept => formatter.write_str("kept: the agent is away, and gets it when it comes back"),
            Became::Expired => formatter.write_str("expired: the agent was away for too long"),
            Became::Dropped(Dropped::Away) => formatter.write_str("dropped: the agent is away"),
            Became::Dropped(Dropped::Full) => formatter.write_str("dropped: as many messages wait as may"),
            Became::Dropped(Dropped::Lost) => {
                formatter.write_str("dropped: one connection after the other ended under it")
            }
            Became::Dropped(Dropped::TooLong) => formatter.write_str("dropped: longer than the agent reads"),
            Became::Dropped(Dropped::Unknown) => formatter.write_str("dropped: no agent has this id"),
        }
    }
}

impl Became {
    /// One word for programs.
    pub fn name(self) -> &'static str {
        match self {
            Became::Sent(_) => "sent",
            Became::Kept => "kept",
            Became::Expired => "expired",
            Became::Dropped(_) => "dropped",
        }
    }
}
