//! The control plane: one thread with a tokio-uring runtime, off the data path. It reaches shards by mail only.
//!
//! It watches client.keys, writes the counters, keeps account of agents, serves `/metrics`, `/readyz` and the command
//! socket, talks to systemd, says what peers cause, and ends the program.

mod agents;
mod http;
mod keys;
mod orders;
mod reload;
mod retired;

use std::{
    io,
    net::TcpListener,
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use manager::{AgentTable, SenderCounter};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval, sleep},
};
use tracing::{error, info, warn};

use crate::{
    clock::Clock,
    command::{CommandServer, Orders},
    conditions::{Conditions, say_keys_changed},
    counters_store::CounterStore,
    delivery::Delivery,
    exposition::ControlMetrics,
    home::{self, FILE_MODE},
    logging::{self, Limiter},
    mail::{Mail, MailSender},
    metrics::ShardMetrics,
    outward::{Outward, OutwardError, OutwardParts},
    readiness,
    registry::{AgentInfo, Registry},
    settings::{Settings, Sources},
    shard::{NoticeReceiver, ShardError},
    totals::Totals,
};

use agents::InfoTask;
pub use http::Face;
pub use keys::KeySource;
pub use retired::RetiredTables;

/// What the control plane is made of.
#[derive(Debug)]
pub struct ControlPlane {
    /// The clock of the process.
    pub clock: Clock,
    /// The threads of the shards.
    pub shards: Vec<JoinHandle<Result<(), ShardError>>>,
    /// What they count.
    pub metrics: Vec<Arc<ShardMetrics>>,
    /// How they are reached.
    pub mailers: Vec<MailSender>,
    /// The agents, as all shards see them.
    pub table: Arc<ArcSwap<AgentTable>>,
    /// Tables that shards may still have.
    pub retired: RetiredTables,
    /// The counter of everything that is sent.
    pub senders: Arc<SenderCounter>,
    /// What acknowledged delivery keeps, if it does.
    pub delivery: Option<Delivery>,
    /// Where counters are kept.
    pub store: CounterStore,
    /// Where agents come from.
    pub keys: KeySource,
    /// What the control plane counts.
    pub counted: Arc<ControlMetrics>,
    /// What it says once a minute.
    pub repeated: Limiter<Repeated>,
    /// What is known of each agent.
    pub registry: Registry,
    /// OSSEC's files of who is there; `None` in an installation of Wazuh's.
    pub agent_info: Option<AgentInfo>,
    /// What shards tell of agents.
    pub notices: NoticeReceiver,
    /// What is said to agents, once the control plane lives.
    pub outward: Option<Rc<Outward>>,
    /// Where the program is asked and told things.
    pub commands: CommandServer,
    /// `/metrics` and `/readyz`, and where they are served.
    pub face: Rc<Face>,
    /// The listener of HTTP, if there is one.
    pub http: Option<TcpListener>,
    /// What is written to `var/run/ringmaster.json` once all shards listen.
    pub status: Status,
    /// What is in effect.
    pub settings: Arc<Settings>,
    /// Where a reload reads; `None` if the settings came from no file.
    pub sources: Option<Sources>,
}

/// What the control plane itself meets again and again, and says once a minute.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Repeated {
    /// The counters can't be written.
    CountersUnwritten,
}

/// The file that says where a running program listens.
#[derive(Clone, Debug)]
pub struct Status {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// The same for the log.
    pub line: String,
}

/// Why the program ended otherwise than it was told to.
#[derive(Debug)]
pub enum ControlError {
    /// The counters could not be written.
    Counters(io::Error),
    /// A file or signal that the program can't be without.
    Io(io::Error),
    /// What is said to agents can't be.
    Outward(OutwardError),
    /// A shard ended by itself.
    Shard {
        /// Which.
        shard: usize,
        /// Why, if it said so.
        error: Option<ShardError>,
    },
    /// A shard did not end in time.
    Stuck {
        /// Which.
        shard: usize,
    },
}

impl std::error::Error for ControlError {}

impl std::fmt::Display for ControlError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ControlError::Counters(error) => write!(
                formatter,
                "the message counters can't be written ({error}); the next start continues with a margin: make room or \
                 give the right to write in queue/"
            ),
            ControlError::Io(error) => write!(formatter, "control plane: {error}"),
            ControlError::Outward(error) => error.fmt(formatter),
            ControlError::Shard { shard, error: Some(error) } => write!(formatter, "shard {shard}: {error}"),
            ControlError::Shard { shard, error: None } => write!(formatter, "shard {shard} ended by itself"),
            ControlError::Stuck { shard } => {
                write!(formatter, "shard {shard} did not end within stop.grace_seconds; what it held is lost")
            }
        }
    }
}

impl ControlPlane {
    /// Runs on this thread until the program is told to end, and hands back the last sums.
    ///
    /// # Errors
    /// When a shard failed, or what has to be on disk is not.
    pub fn run(self) -> Result<Totals, ControlError> {
        tokio_uring::start(self.live())
    }

    async fn live(mut self) -> Result<Totals, ControlError> {
        let mut signals = Signals::new().map_err(ControlError::Io)?;
        self.keys.watch();
        if let Some(listener) = self.http.take() {
            http::serve(listener, Rc::clone(&self.face)).map_err(ControlError::Io)?;
        }
        let outward = Outward::start(OutwardParts {
            clock: self.clock,
            settings: Arc::clone(&self.settings),
            table: Arc::clone(&self.table),
            mailers: self.mailers.clone(),
            counted: Arc::clone(&self.counted),
            metrics: self.metrics.clone(),
        });
        self.outward = Some(outward.map_err(ControlError::Outward)?);
        let orders = self.commands.serve().map_err(ControlError::Io)?;
        let mut info = InfoTask::start(self.agent_info.as_ref());
        let lived = self.until_told(&mut signals, orders, &mut info).await;
        notify(&[NotifyState::Stopping]);
        self.face.stop();
        let stopped = self.stop(info).await;
        // A missing file is what the next start wants.
        let _ = std::fs::remove_file(&self.status.path);
        lived.and(stopped)
    }

    async fn until_told(
        &mut self,
        signals: &mut Signals,
        mut orders: Orders,
        info: &mut InfoTask,
    ) -> Result<(), ControlError> {
        self.shards_listen().await?;
        home::write_whole(&self.status.path, self.status.text.as_bytes()).map_err(ControlError::Io)?;
        info!("{}", self.status.line);
        notify(&[NotifyState::Ready]);

        let mut conditions = Conditions::new();
        let mut watchdog = Watchdog::asked_for();
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = seconds.tick() => {
                    self.shards_live()?;
                    let now = self.clock.nanoseconds();
                    conditions.say(now, &Totals::of(&self.metrics));
                    logging::say_held_back();
                    if readiness::alive(now, &self.metrics).is_ok() {
                        watchdog.feed();
                    }
                    self.keys_if(KeySource::looks_changed).await;
                    self.write_counters().await;
                    self.look_at_agents(info);
                    free(self.retired.unused());
                }
                ready = self.notices.ready() => {
                    ready.map_err(ControlError::Io)?;
                    self.hear_notices();
                }
                Some(order) = orders.recv() => self.obey(order).await,
                () = self.keys.event() => self.keys_if(|_| true).await,
                _ = signals.hangup.recv() => {
                    // What became of it is said, and nobody else asks.
                    let _ = self.reload().await;
                }
                _ = signals.interrupt.recv() => return Ok(()),
                _ = signals.terminate.recv() => return Ok(()),
            }
        }
    }

    /// Waits until every shard has turned once, which is after it armed its sockets.
    async fn shards_listen(&mut self) -> Result<(), ControlError> {
        while readiness::alive(self.clock.nanoseconds(), &self.metrics).is_err() {
            self.shards_live()?;
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn shards_live(&mut self) -> Result<(), ControlError> {
        match self.shards.iter().position(JoinHandle::is_finished) {
            None => Ok(()),
            Some(shard) => Err(ControlError::Shard { shard, error: joined(self.shards.remove(shard)).err() }),
        }
    }

    /// Makes another table if client.keys says something else. No shard waits for it.
    async fn keys_if(&mut self, look: impl FnOnce(&mut KeySource) -> bool) {
        if !look(&mut self.keys) {
            return;
        }
        let Some(file) = self.keys.read_changed().await else { return };
        self.keys.say_problems(&file.problems);
        let previous = self.table.load_full();
        // Agents that are gone may come back: what they used up stays used up.
        self.store.collect(&previous, self.senders.last());
        let seed = self.store.seed(&file.entries);
        let before = Arc::clone(&previous);
        let build = move || AgentTable::build(file.entries, Some(&before), &seed);
        let table = tokio::task::spawn_blocking(build).await.expect("a panic ends the process");
        let agents = table.agents().len();
        let table = Arc::new(table);
        self.table.store(Arc::clone(&table));
        self.registry.adopt(&table);
        if let Some(outward) = &self.outward {
            outward.on_keys();
        }
        self.retired.add(previous);
        for mailer in &self.mailers {
            mailer.send(Mail::Keys).expect("only closes can find a box full");
        }
        self.counted.agents.set(agents as u64);
        self.counted.key_problems.set(file.problems.len() as u64);
        self.counted.key_loads.add(1);
        say_keys_changed(agents);
    }

    async fn write_counters(&mut self) {
        self.store.collect(&self.table.load(), self.senders.last());
        let Some(text) = self.store.unwritten() else { return };
        match write_whole(self.store.path(), text).await {
            Ok(()) => self.counted.counter_writes.add(1),
            Err(error) => {
                self.store.not_written();
                self.counted.counter_write_failures.add(1);
                let now = self.clock.nanoseconds();
                if let Some(due) = self.repeated.observe(now, Repeated::CountersUnwritten, 1) {
                    let (path, period) = (self.store.path().display(), due.period());
                    warn!("{path}: {error}{period}; tried again each second");
                }
            }
        }
    }

    /// Ends the shards, then puts every counter to rest.
    async fn stop(&mut self, info: InfoTask) -> Result<Totals, ControlError> {
        for mailer in &self.mailers {
            mailer.send(Mail::Stop).expect("only closes can find a box full");
        }
        let deadline = Instant::now() + self.settings.stop_grace() + STOP_MARGIN;
        while self.shards.iter().any(|shard| !shard.is_finished()) && Instant::now() < deadline {
            sleep(Duration::from_millis(2)).await;
        }
        self.finish_agents(info);
        if let Some(outward) = &self.outward {
            outward.stop();
        }
        self.store.collect(&self.table.load(), self.senders.last());
        let closed = self.store.close().map_err(ControlError::Counters);
        let totals = Totals::of(&self.metrics);
        info!("stopped: {totals}");
        let mut outcome = closed.map(|()| totals);
        for (shard, thread) in std::mem::take(&mut self.shards).into_iter().enumerate() {
            let ended = if thread.is_finished() {
                joined(thread).map_err(|error| ControlError::Shard { shard, error: Some(error) })
            } else {
                Err(ControlError::Stuck { shard })
            };
            outcome = ended.and(outcome);
        }
        outcome
    }
}

/// Frees tables, without this thread waiting for it.
fn free(tables: Vec<Arc<AgentTable>>) {
    if !tables.is_empty() {
        tokio::task::spawn_blocking(move || drop(tables));
    }
}

/// What a shard needs beyond the grace period to cancel what its ring has in flight.
const STOP_MARGIN: Duration = Duration::from_secs(5);

fn joined(thread: JoinHandle<Result<(), ShardError>>) -> Result<(), ShardError> {
    thread.join().expect("a panic ends the process")
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }
}

/// systemd's watchdog, if the environment asks for it: fed at least twice an interval while all shards turn.
struct Watchdog {
    every: Option<Duration>,
    fed: Instant,
}

impl Watchdog {
    fn asked_for() -> Watchdog {
        Watchdog { every: sd_notify::watchdog_enabled().map(|interval| interval / 3), fed: Instant::now() }
    }

    fn feed(&mut self) {
        if self.every.is_some_and(|every| self.fed.elapsed() >= every) {
            notify(&[NotifyState::Watchdog]);
            self.fed = Instant::now();
        }
    }
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        error!("NOTIFY_SOCKET: {error}");
    }
}

/// Writes a file whole or not at all, and without this thread waiting for the disk.
async fn write_whole(path: &std::path::Path, text: String) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let beside = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(FILE_MODE).open(&beside)?;
    let file = tokio_uring::fs::File::from_std(file);
    let (written, _) = file.write_all_at(text.into_bytes(), 0).await;
    let synced = match written {
        Ok(()) => file.sync_data().await,
        Err(error) => Err(error),
    };
    file.close().await?;
    synced?;
    tokio_uring::fs::rename(&beside, path).await
}
