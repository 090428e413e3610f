//! `ringmaster-broker status`: a unix socket in the folder, which says one line of JSON to whoever connects.

use std::fmt::Write as _;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Event;
use crate::client::{ClientStatus, LineStatus};
use crate::server::ServerStatus;

/// How long an asker may take to read, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What a running program says of itself.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
pub enum Status {
    /// `ringmaster-broker client`.
    Client {
        /// Its process.
        pid: u32,
        /// Where it listens for agents.
        listening: Vec<SocketAddr>,
        /// Datagrams for which its listeners had no room, by the kernel's count.
        kernel_drops: u64,
        /// The core.
        client: ClientStatus,
    },
    /// `ringmaster-broker server`.
    Server {
        /// Its process.
        pid: u32,
        /// Where it listens for clients.
        listening: SocketAddr,
        /// The manager.
        manager: SocketAddr,
        /// The core.
        server: ServerStatus,
    },
}

/// Asks the program whose folder this is.
///
/// # Errors
/// If nobody answers.
pub fn ask(dir: &Path) -> Result<Status, String> {
    let path = socket_path(dir);
    let say = |error: io::Error| format!("{}: {error}; does it run, with this folder?", path.display());
    let stream = std::os::unix::net::UnixStream::connect(&path).map_err(say)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(say)?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).map_err(say)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Answers on the folder's socket, which its user alone can open, until the runtime ends.
pub(super) fn serve(dir: &Path, events: mpsc::Sender<Event>) -> Result<(), String> {
    let path = socket_path(dir);
    let say = |error: io::Error| format!("{}: {error}", path.display());
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(format!(
            "{}: another ringmaster-broker answers there; give each a folder by --dir",
            path.display()
        ));
    }
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(say(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path).map_err(say)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(say)?;
    tokio_uring::spawn(async move {
        // One asker at a time; the next ones wait in the kernel.
        loop {
            match listener.accept().await {
                // An asker that is gone has nobody to be told.
                Ok((stream, _)) => drop(timeout(PATIENCE, answer(stream, &events)).await),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, events: &mpsc::Sender<Event>) -> io::Result<()> {
    let (sender, text) = oneshot::channel();
    if events.send(Event::Status(sender)).await.is_ok()
        && let Ok(text) = text.await
    {
        stream.write_all(text.as_bytes()).await?;
    }
    Ok(())
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("status.socket")
}

impl Status {
    /// Whether the manager is well.
    pub fn is_well(&self) -> bool {
        match self {
            Status::Client { client, .. } => client.is_well,
            Status::Server { server, .. } => server.is_well,
        }
    }

    /// As one line of JSON.
    ///
    /// # Panics
    /// Never: it is numbers and texts.
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("it is numbers and texts") + "\n"
    }

    /// For Prometheus, by its node exporter's text collector.
    ///
    /// # Panics
    /// Never: it is numbers and texts.
    pub fn metrics(&self) -> String {
        super::exposition::text(self)
    }

    /// For the eye.
    pub fn table(&self) -> String {
        let mut text = String::new();
        match self {
            Status::Client { pid, listening, kernel_drops, client } => {
                client_table(&mut text, *pid, listening, *kernel_drops, client);
            }
            Status::Server { pid, listening, manager, server } => {
                server_table(&mut text, *pid, *listening, *manager, server);
            }
        }
        text
    }
}

/// Appends a line.
macro_rules! line {
    ($text:expr, $($part:tt)*) => {
        writeln!($text, $($part)*).expect("a String takes all")
    };
}

fn client_table(
    text: &mut String,
    pid: u32,
    listening: &[SocketAddr],
    kernel_drops: u64,
    client: &ClientStatus,
) {
    let counted = client.counters;
    let well = client.why_not.as_deref().unwrap_or("well");
    line!(text, "client {} ({:?}), process {pid}, listening on {listening:?}", client.name, client.mode);
    line!(text, "manager: {well}");
    line!(
        text,
        "datagrams: {} kept {} passed {} replayed {}",
        counted.datagrams,
        counted.kept,
        counted.passed,
        counted.replayed
    );
    line!(
        text,
        "dropped: {kernel_drops} by the kernel, {} malformed, {} of too many agents, {} for want of room, {} not written",
        counted.malformed,
        counted.too_many_lines,
        counted.no_room,
        counted.not_written
    );
    line!(
        text,
        "packets: {} sent, {} acknowledgements; replies: {}; connections: {}, {} refused",
        counted.packets,
        counted.acks,
        counted.replies,
        counted.connections,
        counted.refused
    );
    line!(
        text,
        "{:<20} {:>8} {:>12} {:>10} {:>9} {:>9} {:>8} {:>8}  source",
        "agent",
        "kept",
        "bytes",
        "oldest s",
        "heard s",
        "datagrams",
        "dropped",
        "replies"
    );
    for agent in &client.lines {
        agent_line(text, agent);
    }
}

fn agent_line(text: &mut String, agent: &LineStatus) {
    let oldest = agent.oldest_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1}"));
    line!(
        text,
        "{:<20} {:>8} {:>12} {oldest:>10} {:>9.1} {:>9} {:>8} {:>8}  {}",
        agent.agent,
        agent.kept,
        agent.bytes,
        agent.heard_seconds_ago,
        agent.datagrams,
        agent.dropped + agent.refused + agent.not_written + agent.damaged,
        agent.replies,
        agent.source.as_deref().unwrap_or("-")
    );
}

fn server_table(
    text: &mut String,
    pid: u32,
    listening: SocketAddr,
    manager: SocketAddr,
    server: &ServerStatus,
) {
    let counted = server.counters;
    let well = server.why_not.as_deref().unwrap_or("well");
    line!(text, "server, process {pid}, listening on {listening}");
    line!(text, "manager {manager}: {well}; it dropped {} datagrams of anybody's", counted.drops);
    line!(
        text,
        "packets: {} received, {} repeated, {} not taken; {} waiting, {} given, {} unread, {} confirmed",
        counted.packets,
        counted.repeated,
        counted.ignored,
        server.waiting,
        counted.given,
        server.unread,
        counted.confirmed
    );
    line!(
        text,
        "replies: {}, {} dropped; connections: {}, {} turned away; lines: {}",
        counted.replies,
        counted.replies_dropped,
        counted.connections,
        counted.turned_away,
        server.lines
    );
    for client in &server.clients {
        line!(
            text,
            "client {} ({:?}) from {}: {}",
            client.name,
            client.mode,
            client.peer,
            client.agents.join(" ")
        );
    }
}
