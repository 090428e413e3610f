//! `ringmaster-agent status`: a unix socket beside the spool, which says one JSON document to whoever connects.
//!
//! Nothing is kept of an asker: the document fits into the socket's buffer, so it is written in one go and the socket closed.
//! Askers that come faster wait in the kernel. Nobody asks: nothing wakes.

mod ages;
mod exposition;

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::process::SPOOL;
pub(crate) use ages::Ages;

/// How long an asker waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer that is read; one takes less than two KiB.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// After an accept that failed, for want of descriptors as a rule.
const RETRY: Duration = Duration::from_secs(1);

/// What a running program is and has counted since its start.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) uptime_seconds: f64,
    /// Its id and name in client.keys.
    pub(crate) id: String,
    pub(crate) name: String,
    /// `tcp` or `udp`.
    pub(crate) transport: String,
    /// Whether a manager has answered its start-up, and is not lost since.
    pub(crate) is_connected: bool,
    /// Whether that manager says itself what its sinks have (acknowledged delivery).
    pub(crate) is_acknowledged: bool,
    /// Which server it is connected to, or tried last, as in the log.
    pub(crate) server: Option<String>,
    /// Times a manager has answered its start-up: all but the first are reconnects.
    pub(crate) connections: u64,
    /// Since the manager's last genuine message; `None` if there was none since the start.
    pub(crate) last_word_seconds: Option<f64>,
    /// Whether collectors are made to wait.
    pub(crate) is_locked: bool,
    pub(crate) events: Events,
    pub(crate) spool: SpoolStatus,
    pub(crate) ignored: IgnoredMessages,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Events {
    /// From collectors, into the spool.
    pub(crate) taken: u64,
    /// Of collectors, and can't be sent.
    pub(crate) refused: u64,
    /// To a connection, again included.
    pub(crate) handed: u64,
    /// Handed over before, to a connection that broke.
    pub(crate) again: u64,
    /// Forgotten, since the manager has them; over UDP, since they were sent.
    pub(crate) confirmed: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct SpoolStatus {
    /// Events in it, those on their way to the manager included.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) bytes_max: u64,
    /// Since the oldest event was taken: at least, if an earlier run took it.
    pub(crate) oldest_seconds: Option<f64>,
    /// Lost for want of room.
    pub(crate) dropped: u64,
    /// Lost since they could not be read back.
    pub(crate) damaged: u64,
    /// Whether the disk takes what it is given.
    pub(crate) is_written: bool,
}

/// Messages of the manager that changed nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct IgnoredMessages {
    /// They did not open with this agent's key.
    pub(crate) unopened: u32,
    /// Their counter was not new.
    pub(crate) stale: u32,
}

/// Asks the program that runs in this home.
///
/// # Errors
/// If nobody answers, or not in time.
pub(crate) fn ask(home: &Path) -> Result<Status, String> {
    let path = socket_path(home);
    let say = |error: io::Error| format!("{}: {error}; does ringmaster-agent run there?", path.display());
    let stream = StdUnixStream::connect(&path).map_err(say)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(say)?;
    let mut text = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut text).map_err(say)?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// Listens for askers until the runtime ends. Whoever receives them answers each by [`answer`]; without one there is nobody.
///
/// # Errors
/// The kernel's, as for a path that is too long for a socket.
pub(crate) fn listen(home: &Path) -> io::Result<mpsc::Receiver<UnixStream>> {
    let path = socket_path(home);
    // Whoever left it is gone: the spool's lock is ours.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o660))?;
    let (sender, askers) = mpsc::channel(1);
    tokio_uring::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    if sender.send(stream).await.is_err() {
                        return;
                    }
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    });
    Ok(askers)
}

/// Tells an asker, and is done with it: one that is gone has nobody to be told.
///
/// # Panics
/// Never: it is numbers and texts.
pub(crate) fn answer(asker: UnixStream, status: &Status) {
    let text = serde_json::to_vec(status).expect("it is numbers and texts");
    // Not by readiness, which the runtime has yet to learn of. It does not block, and an empty buffer takes all.
    let _ = asker.into_std().and_then(|mut asker| io::Write::write_all(&mut asker, &text));
}

fn socket_path(home: &Path) -> PathBuf {
    home.join(SPOOL).join("status")
}

impl Status {
    /// As one line of JSON.
    ///
    /// # Panics
    /// Never: it is numbers and texts.
    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("it is numbers and texts") + "\n"
    }

    /// For the text collector of Prometheus' node exporter.
    pub(crate) fn metrics(&self) -> String {
        exposition::text(self)
    }
}

impl fmt::Display for Status {
    /// For the eye.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Status { events, spool, ignored, .. } = self;
        let seconds =
            |seconds: Option<f64>| seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"));
        let state = if self.is_connected { "connected to" } else { "not connected; tried last:" };
        let server = self.server.as_deref().unwrap_or("none");
        let acknowledged = if self.is_acknowledged { ", acknowledged" } else { "" };
        writeln!(
            formatter,
            "agent       {} ({}), process {}, version {}, up {:.0} s",
            self.name, self.id, self.pid, self.version, self.uptime_seconds
        )?;
        writeln!(
            formatter,
            "manager     {state} {server} ({}{acknowledged}), connections {}",
            self.transport, self.connections
        )?;
        writeln!(
            formatter,
            "            last word {} ago; ignored {} that do not open, {} stale",
            seconds(self.last_word_seconds),
            ignored.unopened,
            ignored.stale
        )?;
        writeln!(
            formatter,
            "events      taken {}, refused {}, handed over {}, of these again {}, confirmed {}",
            events.taken, events.refused, events.handed, events.again, events.confirmed
        )?;
        writeln!(
            formatter,
            "spool       {} events in {} of {} bytes, the oldest {}; dropped {}, damaged {}",
            spool.records,
            spool.bytes,
            spool.bytes_max,
            seconds(spool.oldest_seconds),
            spool.dropped,
            spool.damaged
        )?;
        let collectors = if self.is_locked { "wait" } else { "go on" };
        let disk = if spool.is_written { "takes all" } else { "takes nothing" };
        writeln!(formatter, "collectors  {collectors}; the disk {disk}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_the_eye() {
        let status = Status {
            version: "1.2.3".to_owned(),
            pid: 7,
            uptime_seconds: 9.4,
            id: "001".to_owned(),
            name: "web".to_owned(),
            transport: "tcp".to_owned(),
            is_connected: true,
            is_acknowledged: true,
            server: Some("m, port 1514".to_owned()),
            connections: 2,
            last_word_seconds: Some(1.25),
            events: Events { taken: 5, refused: 1, handed: 6, again: 2, confirmed: 4 },
            spool: SpoolStatus {
                records: 1,
                bytes: 90,
                bytes_max: 1_000,
                is_written: true,
                ..Default::default()
            },
            ..Status::default()
        };
        assert_eq!(
            status.to_string(),
            "agent       web (001), process 7, version 1.2.3, up 9 s\n\
             manager     connected to m, port 1514 (tcp, acknowledged), connections 2\n            \
             last word 1.2 s ago; ignored 0 that do not open, 0 stale\n\
             events      taken 5, refused 1, handed over 6, of these again 2, confirmed 4\n\
             spool       1 events in 90 of 1000 bytes, the oldest -; dropped 0, damaged 0\n\
             collectors  go on; the disk takes all\n"
        );
        let away = Status { is_locked: true, ..Status::default() }.to_string();
        assert!(away.contains("not connected; tried last: none ()"), "{away}");
        assert!(away.ends_with("collectors  wait; the disk takes nothing\n"), "{away}");
    }

    #[test]
    fn a_home_where_nothing_runs_is_named() {
        let home = tempfile::tempdir().unwrap();
        let error = ask(home.path()).unwrap_err();
        assert!(
            error.contains("queue/ringmaster-agent/status") && error.contains("does ringmaster-agent run"),
            "{error}"
        );
    }
}
