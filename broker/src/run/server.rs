//! The program `ringmaster-broker server`.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, test_kill_process};
use rustls::ServerConfig;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::conditions::Conditions;
use super::line_socket::LineSocket;
use super::status::{self, Status};
use super::stream::{Stream, StreamEvent};
use super::{Clock, EVENTS_MAX, Ends, Event, allow_descriptors, notify, start_log};
use crate::health::SocketReading;
use crate::options::ServerPlan;
use crate::server::{Action, ConnectionId, Give, GiveOutcome, LineId, Notice, Server};
use crate::sockets::SocketTable;
use crate::tls::{self, Tls};

/// Events that are taken before what they caused is done.
const EVENTS_AT_ONCE: usize = 32;

/// How often the manager's process is looked at.
const PROCESS_EVERY: Duration = Duration::from_secs(1);

/// Runs until it is told to end.
///
/// # Errors
/// If it can't begin: one line for the operator.
pub fn run(plan: ServerPlan) -> Result<(), String> {
    start_log();
    let config = match &plan.certificate {
        Some((certificate, key)) => {
            let (config, fingerprint) = tls::server_config(certificate, key)?;
            info!("TLS is on; clients give --fingerprint {fingerprint}");
            Some(config)
        }
        None => None,
    };
    if config.is_none() && !plan.core.secret.is_empty() {
        warn!("without TLS the secret travels in the clear: give --certificate and --key");
    }
    if plan.core.secret.is_empty() && !plan.listen.ip().is_loopback() {
        warn!(
            "without --secret-file anybody who reaches {} can send to the manager as over UDP",
            plan.listen
        );
    }
    tokio_uring::start(async move { Running::start(plan, config).await?.live().await })
}

struct Running {
    plan: ServerPlan,
    clock: Clock,
    core: Server,
    listening: SocketAddr,
    config: Option<Arc<ServerConfig>>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    streams: BTreeMap<ConnectionId, Stream>,
    next_stream: u64,
    sockets: Sockets,
    manager: Manager,
    conditions: Conditions,
}

impl Running {
    async fn start(plan: ServerPlan, config: Option<Arc<ServerConfig>>) -> Result<Running, String> {
        let clock = Clock::start();
        let descriptors = allow_descriptors();
        let listener = TcpListener::bind(plan.listen).await;
        let listener = listener.map_err(|error| format!("tcp {}: {error}", plan.listen))?;
        let listening = listener.local_addr().map_err(|error| error.to_string())?;
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&plan.dir);
        made.map_err(|error| format!("{}: {error}", plan.dir.display()))?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        status::serve(&plan.dir, sender.clone())?;
        tokio_uring::spawn(accept(listener, sender.clone()));
        let manager = Manager::new(&plan);
        let sockets = Sockets {
            manager: plan.manager,
            max: plan.core.lines_max.min(usize::try_from(descriptors / 2).unwrap_or(usize::MAX)).max(1),
            by_line: BTreeMap::new(),
            uses: 0,
        };
        let core = Server::new(plan.core.clone());
        Ok(Running {
            plan,
            clock,
            core,
            listening,
            config,
            sender,
            events,
            streams: BTreeMap::new(),
            next_stream: 1,
            sockets,
            manager,
            conditions: Conditions::default(),
        })
    }

    async fn live(mut self) -> Result<(), String> {
        let mut ends = Ends::new()?;
        info!("listening on {} for clients; the manager is {}", self.listening, self.plan.manager);
        notify(NotifyState::Ready);
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.take_events(event),
                () = self.clock.wait_until(Some(self.core.next_look())) => {}
                () = ends.told() => break,
            }
            self.settle();
        }
        notify(NotifyState::Stopping);
        let counted = self.core.counters();
        info!(
            "stopped: {} packets, {} given, {} confirmed",
            counted.packets, counted.given, counted.confirmed
        );
        Ok(())
    }

    fn take_events(&mut self, first: Event) {
        self.take_event(first);
        for _ in 1..EVENTS_AT_ONCE {
            let Ok(event) = self.events.try_recv() else { return };
            self.take_event(event);
        }
    }

    fn take_event(&mut self, event: Event) {
        let now = self.clock.elapsed();
        match event {
            Event::Accepted(stream, peer) => {
                let id = ConnectionId(self.next_stream);
                self.next_stream += 1;
                let tls = Tls::server(self.config.as_ref());
                let started = tls.and_then(|tls| {
                    Stream::start(id.0, stream, tls, &self.sender).map_err(|error| error.to_string())
                });
                match started {
                    Ok(stream) => {
                        self.streams.insert(id, stream);
                        self.core.accepted(now, id, peer);
                    }
                    Err(error) => self.conditions.warn(now, "connection", &format!("{peer}: {error}")),
                }
            }
            Event::Stream(id, event) => self.stream_event(now, ConnectionId(id), event),
            Event::FromManager(line, bytes) => self.core.reply(LineId(line), &bytes),
            Event::ManagerRefused => self.core.refused(now),
            Event::Status(asker) => {
                let status = Status::Server {
                    pid: std::process::id(),
                    listening: self.listening,
                    manager: self.plan.manager,
                    server: self.core.status(),
                };
                // An asker that is gone needs no answer.
                let _ = asker.send(status.json());
            }
            Event::Dialed(_) => unreachable!("a server connects to nobody"),
        }
    }

    fn stream_event(&mut self, now: Duration, id: ConnectionId, event: StreamEvent) {
        // One that is being closed is known no more.
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let why = match event {
            StreamEvent::Received(bytes) => match stream.received(&bytes) {
                Ok(plain) => return self.core.received(now, id, &plain),
                Err(why) => why,
            },
            StreamEvent::Written => return stream.written(),
            StreamEvent::Closed(why) => why,
        };
        self.conditions.inform(now, "connection", &format!("connection {}: {why}", id.0));
        self.core.closed(id);
        self.streams.remove(&id);
    }

    /// Does what the inputs have caused.
    fn settle(&mut self) {
        let now = self.clock.elapsed();
        if now >= self.core.next_look() {
            let (sockets, is_alive) = self.manager.look(now);
            self.core.look(self.clock.elapsed(), &sockets, is_alive);
        }
        // By the clock of each moment: what was read must be fresh, however long this thread had to wait.
        while let Some(give) = self.core.poll_give(self.clock.elapsed()) {
            let outcome = self.sockets.send(&give, &self.sender);
            if outcome == GiveOutcome::Later {
                self.conditions.warn(now, "send", "a datagram could not be sent to the manager yet");
            }
            self.core.gave(now, give, outcome);
        }
        for id in self.core.transmitting() {
            self.transmit(id);
        }
        let handshaking = self.streams.iter().filter(|(_, stream)| stream.wants_write());
        let handshaking: Vec<_> = handshaking.map(|(id, _)| *id).collect();
        handshaking.into_iter().for_each(|id| self.transmit(id));
        while let Some(action) = self.core.poll_action() {
            self.act(now, action);
        }
    }

    fn transmit(&mut self, id: ConnectionId) {
        if let Some(stream) = self.streams.get_mut(&id).filter(|stream| stream.is_idle()) {
            let mut out = Vec::new();
            self.core.poll_transmit(id, &mut out);
            stream.send(out);
        }
    }

    fn act(&mut self, now: Duration, action: Action) {
        match action {
            Action::Close(id) => {
                if let Some(mut stream) = self.streams.remove(&id) {
                    let mut out = Vec::new();
                    self.core.poll_transmit(id, &mut out);
                    stream.send(out);
                }
                self.core.closed(id);
            }
            Action::Retire(line) => drop(self.sockets.by_line.remove(&line)),
            Action::Say(Notice::Joined(client)) => self.conditions.inform(now, "joined", &client),
            Action::Say(Notice::Turned(peer)) => self.conditions.warn(now, "turned", &peer),
            Action::Say(Notice::Well) => self.conditions.inform(now, "health", "the manager is well"),
            Action::Say(Notice::Unwell(why)) => self.conditions.warn(now, "health", &why.to_string()),
            Action::Say(Notice::Drops(count)) => {
                let text = format!(
                    "the manager had no room for {count} datagrams; some may be the broker's, and are lost"
                );
                self.conditions.warn(now, "drops", &text);
            }
        }
    }
}

/// The lines' sockets to the manager: as many as the process may have; the one not used for longest gives way.
struct Sockets {
    manager: SocketAddr,
    max: usize,
    by_line: BTreeMap<LineId, (LineSocket, u64)>,
    uses: u64,
}

impl Sockets {
    fn send(&mut self, give: &Give, events: &mpsc::Sender<Event>) -> GiveOutcome {
        self.uses += 1;
        if !self.by_line.contains_key(&give.line) {
            if self.by_line.len() >= self.max {
                let oldest = self.by_line.iter().min_by_key(|(_, (_, used))| *used).map(|(line, _)| *line);
                oldest.and_then(|line| self.by_line.remove(&line));
            }
            match LineSocket::open(self.manager, give.line.0, events) {
                Ok(socket) => drop(self.by_line.insert(give.line, (socket, self.uses))),
                Err(_) => return GiveOutcome::Later,
            }
        }
        let (socket, used) = self.by_line.get_mut(&give.line).expect("it was just made if it was missing");
        *used = self.uses;
        socket.send(&give.bytes)
    }
}

/// How the manager is looked at.
struct Manager {
    address: SocketAddr,
    table: SocketTable,
    pid_file: Option<std::path::PathBuf>,
    is_alive: Option<bool>,
    process_at: Duration,
}

impl Manager {
    fn new(plan: &ServerPlan) -> Manager {
        Manager {
            address: plan.manager,
            table: SocketTable::open(),
            pid_file: plan.manager_pid_file.clone(),
            is_alive: None,
            process_at: Duration::ZERO,
        }
    }

    /// Its sockets, and whether its process lives.
    fn look(&mut self, now: Duration) -> (Vec<SocketReading>, Option<bool>) {
        if let Some(path) = &self.pid_file
            && (self.is_alive.is_none() || now >= self.process_at)
        {
            self.process_at = now + PROCESS_EVERY;
            let pid = fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok());
            // A process of another user is alive, although it can't be signalled.
            let lives = |pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH));
            self.is_alive = Some(pid.and_then(Pid::from_raw).is_some_and(lives));
        }
        (self.table.at(self.address), self.is_alive)
    }
}

async fn accept(listener: TcpListener, events: mpsc::Sender<Event>) {
    loop {
        let event = match listener.accept().await {
            Ok((stream, peer)) => match stream.into_std() {
                Ok(stream) => Event::Accepted(stream, peer),
                Err(_) => continue,
            },
            // Out of descriptors, most likely.
            Err(_) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
