//! The program at work: one thread, one loop. Tasks do the waiting; everything is owned and decided here.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentSettings, Profile, State, Tools, Transport};
use rand::rngs::{StdRng, SysRng};
use rand::{Rng, SeedableRng, TryRng};
use sd_notify::NotifyState;
use spool::Spool;
use tokio::net::UnixDatagram;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::connection::{Connection, News, What};
use super::local::{self, Execd, Lock};
use super::log::{Condition, Log};
use super::process::{self, SPOOL};
use super::rids::Rids;
use super::servers::{BackOff, Way};
use super::settings::{PRODUCT, Settings};
use super::shared::{Digests, Incoming};
use super::status;
use agent::engine::{Deed, Delivery, Engine, Refusal, Taken};
use standing::Standing;

mod intake;
mod manager;
mod standing;

/// How long the end of the program waits for the manager to confirm what is on its way.
const STOP_WAIT: Duration = Duration::from_secs(2);
/// Batches of events that are taken at the end: more than a socket's queue holds.
const LAST_BATCHES: u32 = 16;
/// Between two attempts at what this host does not take: a full disk, an absent execd.
const RETRY: Duration = Duration::from_secs(1);
/// Start-ups over UDP that nobody answers, before the next server is tried: 21 seconds, as OSSEC's.
const STARTUPS_MAX: u32 = 6;
/// Pieces of news that wait for the loop.
const NEWS_MAX: usize = 16;

/// What is opened before the ring: all of it can fail, and says why.
#[derive(Debug)]
pub(crate) struct Parts {
    home: PathBuf,
    settings: Settings,
    engine: Engine,
    rids: Rids,
    queue: std::os::unix::net::UnixDatagram,
    random: StdRng,
    recovered: Option<String>,
}

impl Parts {
    /// # Errors
    /// One line: what, and what to do.
    pub(crate) fn prepare(home: &Path, settings: Settings) -> Result<Parts, String> {
        // The spool's lock goes first: whoever has it also has the queue.
        let (spool, recovery) =
            Spool::open(&home.join(SPOOL), settings.own.spool()).map_err(|error| error.to_string())?;
        let queue = local::bind_queue(home)
            .map_err(|error| format!("(1210): Queue 'queue/ossec/queue' not accessible: {error}"))?;
        let mut seed = [0; 32];
        SysRng.try_fill_bytes(&mut seed).map_err(|error| format!("no random numbers: {error}"))?;
        let mut random = StdRng::from_seed(seed);
        let mut tools_seed = [0; 32];
        random.fill_bytes(&mut tools_seed);
        let rids = Rids::open(home, settings.entry.id);
        let (sent, taken) = rids.counters();
        let client = &settings.client;
        let profile = Profile {
            notify_time: client.notify_time,
            time_reconnect: client.time_reconnect,
            // Waits are ours: they grow, and no two agents share them.
            reconnect_interval: Duration::ZERO,
            uname: process::uname().into(),
            product: PRODUCT,
            ..Profile::ossec(client.transport, settings.method())
        };
        let agent = AgentSettings {
            profile: Arc::new(profile),
            id: settings.entry.id,
            key: Arc::new(settings.cipher_key()),
            sends_id: settings.entry.address.agent_sends_id(),
            address: client.local_address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            sent,
            taken,
        };
        let agent = Agent::new(agent, Duration::ZERO);
        let confirm_after = match client.transport {
            Transport::Tcp => Some(settings.own.confirm_after()),
            Transport::Udp => None,
        };
        let waiting = spool.records();
        let damage = recovery.cut_bytes + recovery.lost_records + recovery.set_aside;
        let recovered = (waiting > 0 || damage > 0).then(|| {
            format!(
                "The spool holds {waiting} events of an earlier run; cut off {} bytes of an unfinished one, lost {}, set aside {} \
                 files.",
                recovery.cut_bytes, recovery.lost_records, recovery.set_aside
            )
        });
        let acknowledged = settings.own.acknowledged();
        let delivery = Delivery { spool: settings.own.spool(), confirm_after, acknowledged };
        let engine = Engine::new(agent, Tools::new(tools_seed), spool, delivery);
        Ok(Parts { home: home.to_owned(), settings, engine, rids, queue, random, recovered })
    }
}

/// Runs until a signal ends it.
///
/// # Errors
/// When the end was not clean: the next start takes it for a crash.
pub(crate) async fn run(parts: Parts, log: &mut Log) -> Result<(), String> {
    let failed = |error: io::Error| format!("the runtime: {error}");
    let (sender, mut news) = mpsc::channel(NEWS_MAX);
    let queue = parts.queue.try_clone().and_then(UnixDatagram::from_std).map_err(failed)?;
    let mut signals = Signals::take().map_err(failed)?;
    // Said once signals mean what they should.
    log.info(&format!("Started (pid: {}).", std::process::id()));
    let mut askers = status::listen(&parts.home).map_err(|error| {
        log.warn(&format!("{SPOOL}/status: {error}; 'ringmaster-agent status' will not be answered"));
    });
    let mut running = Running::new(parts, log, Connection::none(sender));
    running.begin();
    // Whoever started us may not want to know.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    while !running.is_over() {
        let deadline = running.deadline();
        let takes = running.takes_events();
        tokio::select! {
            ready = queue.readable(), if takes => match ready {
                Ok(()) => running.read_queue(&queue),
                Err(error) => return Err(failed(error)),
            },
            Some(news) = news.recv() => running.on_news(news),
            () = tokio::time::sleep_until(deadline) => {}
            signal = signals.next() => running.on_signal(signal, &queue),
            Some(asker) = standing::next(&mut askers) => status::answer(asker, &running.status()),
        }
        running.on_time();
    }
    running.end()
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    quit: Signal,
    /// As in OSSEC's programs, ignored.
    hang_up: Signal,
    user: Signal,
}

#[derive(Clone, Copy, Debug)]
enum Said {
    /// By this number and name.
    End(i32, &'static str),
    Report,
}

impl Signals {
    fn take() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            hang_up: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Said {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Said::End(15, "Terminated"),
                _ = self.interrupt.recv() => return Said::End(2, "Interrupt"),
                _ = self.quit.recv() => return Said::End(3, "Quit"),
                _ = self.user.recv() => return Said::Report,
                _ = self.hang_up.recv() => {}
            }
        }
    }
}

/// Everything, while it runs.
struct Running<'a> {
    home: PathBuf,
    settings: Settings,
    log: &'a mut Log,
    engine: Engine,
    rids: Rids,
    connection: Connection,
    way: Way,
    back_off: BackOff,
    /// When the connection that the agent wants is begun.
    connect_at: Option<Duration>,
    /// Which server is tried first.
    server: usize,
    was_connected: bool,
    lock: Lock,
    execd: Execd,
    incoming: Incoming,
    digests: Digests,
    random: StdRng,
    intake: Intake,
    start: Instant,
    stop_at: Option<Duration>,
    /// What was said of messages that the agent ignored, and of records that the spool lost.
    ignored: agent::Ignored,
    lost: u64,
    recovered: Option<String>,
    standing: Standing,
}

/// Between the collectors and the spool.
#[derive(Debug, Default)]
struct Intake {
    /// Taken from a collector, and not by the spool.
    held: VecDeque<Vec<u8>>,
    /// How large the spool was when it refused.
    full_bytes: u64,
    /// The spool has no room for the next event: none is read until it has.
    is_full: bool,
    /// The disk does not take what the spool has in memory.
    is_stuck: bool,
    retry_at: Option<Duration>,
}

impl<'a> Running<'a> {
    fn new(parts: Parts, log: &'a mut Log, connection: Connection) -> Running<'a> {
        let Parts { home, settings, engine, rids, queue: _, random, recovered } = parts;
        let way = Way {
            servers: settings.client.servers.clone(),
            is_tcp: settings.client.transport == Transport::Tcp,
            local: settings.client.local_address,
            lost_after: settings.own.lost_after(),
        };
        Running {
            standing: Standing::new(&engine),
            log,
            engine,
            rids,
            connection,
            way,
            back_off: BackOff::new(settings.own.wait_min(), settings.own.wait_max()),
            connect_at: None,
            server: 0,
            was_connected: false,
            lock: Lock::released(&home),
            execd: Execd::new(&home),
            incoming: Incoming::new(&home),
            digests: Digests::new(&home),
            random,
            intake: Intake::default(),
            start: Instant::now(),
            stop_at: None,
            ignored: agent::Ignored::default(),
            lost: 0,
            recovered,
            home,
            settings,
        }
    }

    fn begin(&mut self) {
        let client = &self.settings.client;
        self.settings.remarks.iter().for_each(|remark| self.log.info(remark));
        self.log.info(&format!(
            "Using notify time: {} and max time to reconnect: {}",
            client.notify_time.as_secs(),
            client.time_reconnect.as_secs()
        ));
        for (index, server) in client.servers.iter().enumerate() {
            self.log.info(&format!("Server {}: {server}", index + 1));
        }
        if let Some(recovered) = self.recovered.take() {
            self.log.info(&recovered);
        }
        let profile = client.profile.as_deref();
        if let Err(error) = local::write_agent_info(&self.home, &self.settings.entry, profile) {
            self.log.error(&format!("queue/ossec/.agent_info: {error}"));
        }
        let first = local::first_events(&self.home, &self.settings.entry);
        self.intake.held.extend(first.into_iter().map(String::into_bytes));
        self.on_time();
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// When something is due. Idle, that is the next keep-alive: no timer runs for its own sake.
    fn deadline(&self) -> Instant {
        /// Far enough for any setting.
        const NEVER: Duration = Duration::from_secs(24 * 3_600);
        let now = self.now();
        let execd = self.execd.is_waiting().then(|| now + RETRY);
        let stop = self.stop_at;
        let due = [self.engine.next_timeout(now), self.connect_at, self.intake.retry_at, execd, stop];
        let at = due.into_iter().flatten().min().unwrap_or(now + NEVER);
        self.start + at.min(now + NEVER)
    }

    /// Whatever happened: does what is due, and then what follows from it.
    fn on_time(&mut self) {
        let now = self.now();
        if self.connect_at.is_some_and(|at| at <= now) {
            self.connect_at = None;
            self.connection.begin(self.way.clone(), self.server);
        }
        if self.execd.is_waiting()
            && let Err(lost) = self.execd.retry(now)
        {
            self.log.condition(now, Condition::Execd, &lost.to_string());
        }
        if self.engine.next_timeout(now).is_some_and(|at| at <= now) {
            self.engine.set_files(self.digests.look());
            self.engine.on_timeout(now);
        }
        self.refill(now);
        self.engine.pump(now);
        self.follow(now);
    }

    fn on_signal(&mut self, said: Said, queue: &UnixDatagram) {
        match said {
            Said::Report => self.report(),
            Said::End(number, name) => {
                let now = self.now();
                self.log.info(&format!("(1225): SIGNAL [({number})-({name})] Received. Exit Cleaning..."));
                let _ = sd_notify::notify(&[NotifyState::Stopping]);
                (0..LAST_BATCHES).for_each(|_| self.read_queue(queue));
                self.engine.finish(now);
                self.stop_at = Some(now + STOP_WAIT);
            }
        }
    }

    /// What became of events, on one line.
    fn report(&self) {
        let (counters, spool) = (self.engine.counters(), self.engine.spool());
        let spooled = spool.counters();
        self.log.info(&format!(
            "Events: taken {}, refused {}, handed over {}, of these again {}; the spool holds {} in {} bytes, has forgotten {}, \
             dropped {}, damaged {}.",
            counters.taken,
            counters.refused,
            counters.handed,
            counters.again,
            spool.records(),
            spool.bytes(),
            spooled.forgotten,
            spooled.dropped,
            spooled.damaged
        ));
    }

    fn is_over(&self) -> bool {
        let is_settled = || self.engine.is_settled() && !self.connection.is_writing();
        self.stop_at.is_some_and(|at| at <= self.now() || is_settled())
    }

    fn end(mut self) -> Result<(), String> {
        self.report();
        self.connection.close();
        let (sent, taken, closed) = self.engine.close();
        let noted = self.rids.close(sent, taken).map_err(|error| format!("queue/rids: {error}"));
        closed.map_err(|error| format!("{SPOOL}: {error}")).and(noted)
    }
}
