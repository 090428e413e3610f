//! The program `ringmaster-broker client`.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use sd_notify::NotifyState;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::conditions::Conditions;
use super::line_socket::LineSocket;
use super::status::{self, Status};
use super::stream::{Stream, StreamEvent, WRITE_BYTES};
use super::{Clock, EVENTS_MAX, Ends, Event, allow_descriptors, bind_udp, notify, start_log};
use crate::backoff::Backoff;
use crate::client::{Action, Client, Moment, Notice, Verdict};
use crate::line::Source;
use crate::options::ClientPlan;
use crate::server::GiveOutcome;
use crate::sockets::SocketTable;
use crate::tls::{self, Tls};
use crate::wire::LineNumber;

/// Datagrams that are taken from a listener before what they caused is done.
const BATCH: usize = 256;

/// Events that are taken before what they caused is done.
const EVENTS_AT_ONCE: usize = 32;

/// How long an address may take to answer.
const DIAL_PATIENCE: Duration = Duration::from_secs(5);

/// Runs until it is told to end.
///
/// # Errors
/// If it can't begin, or not all could be written at its end: one line for the operator.
pub fn run(plan: ClientPlan) -> Result<(), String> {
    start_log();
    let config = plan.fingerprint.map(tls::client_config).transpose()?;
    if config.is_none() && !plan.core.secret.is_empty() {
        warn!("without TLS the secret travels in the clear: give --fingerprint");
    }
    let clock = Clock::start();
    let descriptors = allow_descriptors();
    // Each line has a lock, a segment that is written, one that is read, and perhaps a socket.
    if (plan.core.lines_max as u64) * 4 + 64 > descriptors {
        warn!("{descriptors} descriptors are few for {} agents; raise LimitNOFILE", plan.core.lines_max);
    }
    let core = Client::open(plan.core.clone(), clock.now())?;
    tokio_uring::start(async move { Running::start(plan, config, clock, core)?.live().await })
}

struct Running {
    plan: ClientPlan,
    config: Option<Arc<ClientConfig>>,
    clock: Clock,
    core: Client,
    listeners: Vec<UdpSocket>,
    listening: Vec<SocketAddr>,
    sender: mpsc::Sender<Event>,
    events: mpsc::Receiver<Event>,
    stream: Option<Stream>,
    streams: u64,
    backoff: Backoff,
    /// When to connect; `None` while that is under way or done.
    dial_at: Option<Duration>,
    /// A gate's sockets to the manager.
    sockets: BTreeMap<LineNumber, LineSocket>,
    conditions: Conditions,
    buffer: Vec<u8>,
}

impl Running {
    fn start(
        plan: ClientPlan,
        config: Option<Arc<ClientConfig>>,
        clock: Clock,
        core: Client,
    ) -> Result<Running, String> {
        let (mut listeners, mut listening) = (Vec::new(), Vec::new());
        for address in &plan.listen {
            let socket = bind_udp(*address)?;
            listening.push(socket.local_addr().map_err(|error| error.to_string())?);
            listeners.push(UdpSocket::from_std(socket).map_err(|error| error.to_string())?);
        }
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        status::serve(&plan.core.folder, sender.clone())?;
        Ok(Running {
            plan,
            config,
            clock,
            core,
            listeners,
            listening,
            sender,
            events,
            stream: None,
            streams: 0,
            backoff: Backoff::default(),
            dial_at: Some(Duration::ZERO),
            sockets: BTreeMap::new(),
            conditions: Conditions::default(),
            buffer: vec![0; 65_536],
        })
    }

    async fn live(mut self) -> Result<(), String> {
        let mut ends = Ends::new()?;
        info!("listening on {:?} for agents; the server is {}", self.listening, self.plan.server);
        notify(NotifyState::Ready);
        loop {
            let deadline = self.core.next_timeout().into_iter().chain(self.dial_at).min();
            tokio::select! {
                listener = readable(&self.listeners) => self.take_datagrams(listener),
                Some(event) = self.events.recv() => self.take_events(event),
                () = self.clock.wait_until(deadline) => {}
                () = ends.told() => break,
            }
            self.settle();
        }
        notify(NotifyState::Stopping);
        let counted = self.core.counters();
        info!("stopped: {} datagrams, {} kept, {} passed", counted.datagrams, counted.kept, counted.passed);
        self.core.close()
    }

    fn take_datagrams(&mut self, listener: usize) {
        let now = self.clock.now();
        for _ in 0..BATCH {
            // An error here is another sender's, and says so with each of its datagrams only.
            let Ok((bytes, address)) = self.listeners[listener].try_recv_from(&mut self.buffer) else {
                return;
            };
            let verdict = self.core.datagram(now, Source { listener, address }, &self.buffer[..bytes]);
            match verdict {
                Verdict::Kept | Verdict::Dropped => {}
                Verdict::Pass(number) => {
                    let buffer = std::mem::take(&mut self.buffer);
                    if !self.pass(number, &buffer[..bytes]) {
                        self.core.passed_not(now, number, &buffer[..bytes]);
                    }
                    self.buffer = buffer;
                }
            }
        }
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
            Event::Dialed(Ok(stream)) => self.dialed(stream),
            Event::Dialed(Err(error)) => {
                let server = &self.plan.server;
                self.conditions.warn(now, "dial", &format!("{server}: {error}; datagrams are kept"));
                self.dial_later(now);
            }
            Event::Stream(id, event) if self.stream.as_ref().is_some_and(|stream| stream.id() == id) => {
                self.stream_event(now, event);
            }
            // Of a connection that is over.
            Event::Stream(..) => {}
            Event::FromManager(number, bytes) => {
                self.core.reply(LineNumber(number as u32), &bytes);
            }
            Event::ManagerRefused => self.core.hold(now),
            Event::Status(asker) => {
                let status = self.status().json();
                // An asker that is gone needs no answer.
                let _ = asker.send(status);
            }
            Event::Accepted(..) => unreachable!("a client listens for no stream"),
        }
    }

    fn dialed(&mut self, stream: TcpStream) {
        let now = self.clock.elapsed();
        self.streams += 1;
        let started = Tls::client(self.config.as_ref())
            .map_err(io::Error::other)
            .and_then(|tls| Stream::start(self.streams, stream, tls, &self.sender));
        match started {
            Ok(stream) => {
                self.stream = Some(stream);
                self.core.connected(now);
            }
            Err(error) => {
                self.conditions.warn(now, "dial", &format!("{}: {error}", self.plan.server));
                self.dial_later(now);
            }
        }
    }

    fn stream_event(&mut self, now: Duration, event: StreamEvent) {
        let stream = self.stream.as_mut().expect("the caller has compared its id");
        let outcome = match event {
            StreamEvent::Received(bytes) => stream
                .received(&bytes)
                .and_then(|plain| self.core.received(now, &plain).map_err(|error| error.to_string())),
            StreamEvent::Written => {
                stream.written();
                Ok(())
            }
            StreamEvent::Closed(why) => Err(why),
        };
        if let Err(why) = outcome {
            self.hang_up(now, &why);
        }
    }

    fn hang_up(&mut self, now: Duration, why: &str) {
        if self.core.is_greeted() {
            self.backoff.reset();
        }
        self.stream = None;
        self.core.disconnected();
        self.conditions.warn(now, "connection", &format!("{}: {why}; datagrams are kept", self.plan.server));
        self.dial_later(now);
    }

    fn dial_later(&mut self, now: Duration) {
        self.dial_at = Some(now + self.backoff.next(rand::random()));
    }

    /// Does what the inputs have caused.
    fn settle(&mut self) {
        let now = self.clock.now();
        if self.core.timeout(now.elapsed).is_err() {
            self.hang_up(now.elapsed, "it has said nothing for too long");
        }
        if self.dial_at.is_some_and(|at| now.elapsed >= at) {
            self.dial_at = None;
            tokio_uring::spawn(dial(self.plan.server.clone(), self.sender.clone()));
        }
        self.core.commit(now.elapsed);
        while let Some((number, bytes)) = self.core.poll_replay(now.elapsed) {
            let is_sent = self.pass(number, &bytes);
            self.core.replayed(now.elapsed, number, is_sent);
        }
        if let Some(stream) = self.stream.as_mut().filter(|stream| stream.is_idle()) {
            let mut out = Vec::new();
            self.core.poll_transmit(WRITE_BYTES, &mut out);
            if !out.is_empty() || stream.wants_write() {
                stream.send(out);
            }
        }
        while let Some(action) = self.core.poll_action() {
            self.act(now, action);
        }
    }

    fn act(&mut self, now: Moment, action: Action) {
        let now = now.elapsed;
        match action {
            Action::Reply { to, bytes } => {
                let socket = &self.listeners[to.listener];
                // As over any network: what can't be sent is lost, and the agent asks again.
                let _ = rustix::net::sendto(socket, &bytes, rustix::net::SendFlags::DONTWAIT, &to.address);
            }
            Action::Retire(number) => drop(self.sockets.remove(&number)),
            Action::Say(Notice::Well) => self.conditions.inform(now, "health", "the manager is well"),
            Action::Say(Notice::Unwell(why)) => {
                self.conditions.warn(now, "health", &format!("{why}; datagrams are kept"));
            }
            Action::Say(Notice::Refused(why)) => {
                self.conditions.warn(
                    now,
                    "refused",
                    &format!("{} wants no connection: {why}", self.plan.server),
                );
            }
            Action::Say(Notice::Disk(why)) => self.conditions.warn(now, "disk", &why),
            Action::Say(Notice::TooManyLines) => {
                let max = self.plan.core.lines_max;
                self.conditions.warn(
                    now,
                    "lines",
                    &format!("a datagram of a {max}th agent was dropped; raise --lines-max"),
                );
            }
            Action::Say(Notice::Full) => {
                let text = "an agent's spool is full, its new datagrams are dropped; raise --bytes-per-agent";
                self.conditions.warn(now, "full", text);
            }
        }
    }

    /// Sends a datagram straight to the manager.
    fn pass(&mut self, number: LineNumber, bytes: &[u8]) -> bool {
        let manager = self.plan.manager.expect("a gate has one");
        if !self.sockets.contains_key(&number) {
            match LineSocket::open(manager, u64::from(number.0), &self.sender) {
                Ok(socket) => drop(self.sockets.insert(number, socket)),
                Err(error) => {
                    let now = self.clock.elapsed();
                    self.conditions.warn(now, "socket", &format!("a socket to {manager}: {error}"));
                    return false;
                }
            }
        }
        match self.sockets[&number].send(bytes) {
            // Nobody will ever be able to send it: to keep it would keep all that follows.
            GiveOutcome::Sent | GiveOutcome::Never => true,
            GiveOutcome::Refused | GiveOutcome::Later => false,
        }
    }

    fn status(&mut self) -> Status {
        let mut table = SocketTable::open();
        let drops =
            |address: &SocketAddr| -> u64 { table.at(*address).iter().map(|socket| socket.drops).sum() };
        Status::Client {
            pid: std::process::id(),
            listening: self.listening.clone(),
            kernel_drops: self.listening.iter().map(drops).sum(),
            client: self.core.status(self.clock.now()),
        }
    }
}

/// The first listener that has something.
async fn readable(listeners: &[UdpSocket]) -> usize {
    let waiting = listeners.iter().map(|socket| Box::pin(socket.readable()));
    // What is wrong with a socket shows when it is read.
    let (_, listener, _) = futures_util::future::select_all(waiting).await;
    listener
}

/// Looks the server's name up, and tries its addresses in turn.
async fn dial(server: String, events: mpsc::Sender<Event>) {
    let outcome = try_all(&server).await;
    // The loop may be over.
    let _ = events.send(Event::Dialed(outcome)).await;
}

async fn try_all(server: &str) -> io::Result<TcpStream> {
    let mut outcome = Err(io::Error::other("the name has no address"));
    for address in tokio::net::lookup_host(server).await? {
        outcome = match tokio::time::timeout(DIAL_PATIENCE, tokio::net::TcpStream::connect(address)).await {
            Ok(connected) => connected.and_then(tokio::net::TcpStream::into_std),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}
