//! What connects the cores to the world: one thread with a tokio-uring runtime.
//!
//! Streams are read and written by the ring. Datagrams are taken as many as there are at a wake-up, so that a spool is written
//! once for all of them.

pub mod client;
mod conditions;
mod exposition;
mod line_socket;
pub mod server;
pub mod status;
mod stream;

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::warn;

use crate::client::Moment;
use stream::StreamEvent;

/// Events that wait for the core; whoever brings more waits.
const EVENTS_MAX: usize = 64;

/// Receive buffer of a UDP listener, as far as the kernel allows.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// How long sent bytes may be without the other side's acknowledgement before the kernel gives the connection up.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(20);

/// What a task brings to the loop that owns the core.
#[derive(Debug)]
enum Event {
    /// The client's attempt to connect has come to an end.
    Dialed(io::Result<TcpStream>),
    /// A client has connected.
    Accepted(TcpStream, SocketAddr),
    /// Of a stream.
    Stream(u64, StreamEvent),
    /// The manager has sent something to a line's socket.
    FromManager(u64, Vec<u8>),
    /// Nobody listens where a line's socket sends to.
    ManagerRefused,
    /// Somebody asks for the status.
    Status(oneshot::Sender<String>),
}

/// The clocks.
#[derive(Clone, Copy, Debug)]
struct Clock {
    started: Instant,
}

impl Clock {
    fn start() -> Clock {
        Clock { started: Instant::now() }
    }

    fn now(&self) -> Moment {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { elapsed: self.elapsed(), unix_milliseconds: unix.as_millis() as u64 }
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Waits until then; for ever if there is no such moment.
    async fn wait_until(&self, then: Option<Duration>) {
        match then {
            Some(then) => tokio::time::sleep_until((self.started + then).into()).await,
            None => std::future::pending().await,
        }
    }
}

/// SIGINT and SIGTERM: a clean end.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
}

impl Ends {
    fn new() -> Result<Ends, String> {
        let say = |error: io::Error| format!("signals: {error}");
        let interrupt = signal(SignalKind::interrupt()).map_err(say)?;
        Ok(Ends { interrupt, terminate: signal(SignalKind::terminate()).map_err(say)? })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Sends the program's lines to standard error.
fn start_log() {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_target(false)
        .with_max_level(tracing::level_filters::LevelFilter::INFO)
        .init();
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        warn!("NOTIFY_SOCKET: {error}");
    }
}

/// Allows as many descriptors as the host lets this process have, and says how many that is.
fn allow_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let granted = if setrlimit(Resource::Nofile, wanted).is_ok() { limit.maximum } else { limit.current };
    granted.unwrap_or(1 << 20)
}

fn bind_udp(address: SocketAddr) -> Result<UdpSocket, String> {
    let say = |error: io::Error| format!("udp {address}: {error}; is another program there already?");
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)).map_err(say)?;
    // The kernel gives what it may; drops are counted.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES);
    socket.set_nonblocking(true).map_err(say)?;
    socket.bind(&address.into()).map_err(say)?;
    Ok(socket.into())
}

/// So that a connection that is dead is seen, and small messages go at once.
fn tune_stream(stream: &TcpStream) -> io::Result<()> {
    // The ring waits for a blocking socket; for another one it says "try again".
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX))?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)
}
