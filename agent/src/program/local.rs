//! The agent's other parts on this host: the queue that collectors write to, their lock, execd, and the files that ossec-agentd
//! leaves for them.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use codec::KeyEntry;
use md5::Md5;
use sha1::{Digest, Sha1};
use socket2::SockRef;

/// Binds `queue/ossec/queue`, where collectors send their events. Not blocking.
///
/// Source: ossec-hids 4.3.0 `os_net/os_net.c`, `OS_BindUnixDomain`.
///
/// # Errors
/// When another program reads it, or the folder can't be written.
pub(crate) fn bind_queue(home: &Path) -> io::Result<UnixDatagram> {
    /// Many events, so that collectors seldom wait.
    const RECEIVE_BYTES: usize = 1 << 20;
    let path = home.join("queue/ossec/queue");
    if UnixDatagram::unbound()?.connect(&path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another agent reads it: stop ossec-agentd first",
        ));
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = UnixDatagram::bind(&path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660))?;
    // The kernel gives what its limit allows; less only means that collectors wait sooner.
    let _ = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BYTES);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// `queue/ossec/.wait`: while it is there collectors wait, and keep their places in their files.
///
/// Source: ossec-hids 4.3.0 `shared/wait_op.c`.
#[derive(Debug)]
pub(crate) struct Lock {
    path: PathBuf,
    is_set: bool,
}

impl Lock {
    /// Takes away the lock that an agent left which was killed.
    pub(crate) fn released(home: &Path) -> Lock {
        let mut lock = Lock { path: home.join("queue/ossec/.wait"), is_set: true };
        lock.release();
        lock
    }

    pub(crate) fn is_set(&self) -> bool {
        self.is_set
    }

    /// # Errors
    /// The kernel's. The collectors' sends wait then instead of the collectors.
    pub(crate) fn set(&mut self) -> io::Result<()> {
        self.is_set = true;
        fs::write(&self.path, "l")
    }

    pub(crate) fn release(&mut self) {
        // It may be gone already.
        let _ = fs::remove_file(&self.path);
        self.is_set = false;
    }
}

/// The way to execd: `queue/alerts/execq`. It may be slow, or be started later than we are.
#[derive(Debug)]
pub(crate) struct Execd {
    path: PathBuf,
    socket: Option<UnixDatagram>,
    waiting: VecDeque<(Duration, Vec<u8>)>,
}

/// Active responses that wait for execd, and how long.
const RESPONSES_MAX: usize = 64;
const RESPONSE_AGE_MAX: Duration = Duration::from_secs(60);

/// Why an active response did not reach execd.
#[derive(Debug)]
pub(crate) enum ResponseLost {
    TooLate(io::Error),
    TooMany,
}

impl fmt::Display for ResponseLost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Error communicating with execd: ")?;
        match self {
            ResponseLost::TooLate(error) => {
                write!(formatter, "{error}, for {} s; an active response is lost", RESPONSE_AGE_MAX.as_secs())
            }
            ResponseLost::TooMany => {
                write!(formatter, "{RESPONSES_MAX} active responses wait; one more is lost")
            }
        }
    }
}

impl Execd {
    pub(crate) fn new(home: &Path) -> Execd {
        let socket = UnixDatagram::unbound().and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
        Execd { path: home.join("queue/alerts/execq"), socket: socket.ok(), waiting: VecDeque::new() }
    }

    /// Sends an active response, or keeps it for a while.
    ///
    /// # Errors
    /// When too many wait already.
    pub(crate) fn send(&mut self, now: Duration, response: &[u8]) -> Result<(), ResponseLost> {
        if self.waiting.len() >= RESPONSES_MAX {
            return Err(ResponseLost::TooMany);
        }
        let mut datagram = response.to_vec();
        datagram.push(0);
        self.waiting.push_back((now, datagram));
        self.retry(now)
    }

    /// Tries again with what waits, in order.
    ///
    /// # Errors
    /// When the oldest was given up.
    pub(crate) fn retry(&mut self, now: Duration) -> Result<(), ResponseLost> {
        while let Some((since, datagram)) = self.waiting.front() {
            let unbound = || io::Error::from(io::ErrorKind::NotConnected);
            let sent = match &self.socket {
                Some(socket) => socket.send_to(datagram, &self.path).map(|_| ()),
                None => Err(unbound()),
            };
            match sent {
                Ok(()) => {
                    self.waiting.pop_front();
                }
                Err(error) if now >= *since + RESPONSE_AGE_MAX => {
                    self.waiting.pop_front();
                    return Err(ResponseLost::TooLate(error));
                }
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// Asks syscheckd for a new run.
///
/// Source: ossec-hids 4.3.0 `shared/agent_op.c`, `os_set_restart_syscheck`.
///
/// # Errors
/// The kernel's.
pub(crate) fn restart_syscheck(home: &Path) -> io::Result<()> {
    const FILE: &str = "/var/run/.syscheck_run";
    fs::write(home.join(&FILE[1..]), format!("{FILE}\n"))
}

/// Says to the agent's other programs which agent this is, so that they know their part of agent.conf.
///
/// Source: ossec-hids 4.3.0 `shared/agent_op.c`, `os_write_agent_info`.
///
/// # Errors
/// The kernel's.
pub(crate) fn write_agent_info(home: &Path, entry: &KeyEntry, profile: Option<&str>) -> io::Result<()> {
    let text = format!("{}\n-\n{}\n{}\n", entry.name, entry.id, profile.unwrap_or("-"));
    fs::write(home.join("queue/ossec/.agent_info"), text)
}

/// The events with which ossec-agentd begins: that it was started, and what its own configuration looks like.
///
/// Source: ossec-hids 4.3.0 `client-agent/start_agent.c`, `start_agent`; `client-agent/intcheck_op.c`, `intcheck_file`.
pub(crate) fn first_events(home: &Path, entry: &KeyEntry) -> Vec<String> {
    let started = format!("1:ossec:ossec: Agent started: '{}->{}'.", entry.name, entry.address);
    let files = ["etc/ossec.conf", "etc/internal_options.conf"];
    std::iter::once(started).chain(files.map(|file| integrity(&home.join(file)))).collect()
}

fn integrity(path: &Path) -> String {
    let path_text = path.display();
    let Ok(found) = fs::symlink_metadata(path) else { return format!("8:syscheck:-1 {path_text}") };
    let (md5, sha1) = digests(path).unwrap_or_else(|_| ("xxx".to_owned(), "xxx".to_owned()));
    let (size, mode, owner, group) = (found.size(), found.mode(), found.uid(), found.gid());
    format!("8:syscheck:{size}:{mode}:{owner}:{group}:{md5}:{sha1} {path_text}")
}

fn digests(path: &Path) -> io::Result<(String, String)> {
    const BYTES_MAX: u64 = 16 << 20;
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    let hexadecimal = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((hexadecimal(&Md5::digest(&bytes)), hexadecimal(&Sha1::digest(&bytes))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        for folder in ["etc", "queue/ossec", "queue/alerts", "var/run"] {
            fs::create_dir_all(home.path().join(folder)).unwrap();
        }
        home
    }

    #[test]
    fn a_queue_that_is_read_is_not_taken_and_a_dead_one_is() {
        let home = home();
        let socket = bind_queue(home.path()).unwrap();
        let error = bind_queue(home.path()).unwrap_err();
        assert!(error.to_string().contains("stop ossec-agentd first"), "{error}");
        drop(socket);
        bind_queue(home.path()).unwrap();
    }

    #[test]
    fn a_response_waits_for_execd_and_is_given_up_at_last() {
        let home = home();
        let mut execd = Execd::new(home.path());
        execd.send(Duration::ZERO, b"restart-ossec0 - null").unwrap();
        assert!(execd.is_waiting());
        let reader = UnixDatagram::bind(home.path().join("queue/alerts/execq")).unwrap();
        execd.send(Duration::from_secs(1), b"second").unwrap();
        assert!(!execd.is_waiting());
        let mut buffer = [0; 64];
        let bytes = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], b"restart-ossec0 - null\0");
        let bytes = reader.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], b"second\0");

        drop(reader);
        (0..RESPONSES_MAX).for_each(|_| execd.send(Duration::from_secs(2), b"x").unwrap());
        assert!(matches!(execd.send(Duration::from_secs(2), b"x"), Err(ResponseLost::TooMany)));
        assert!(matches!(execd.retry(Duration::from_secs(62)), Err(ResponseLost::TooLate(_))));
    }

    #[test]
    fn files_for_the_other_programs() {
        let home = home();
        let mut lock = Lock::released(home.path());
        lock.set().unwrap();
        assert_eq!(fs::read(home.path().join("queue/ossec/.wait")).unwrap(), b"l");
        assert!(!Lock::released(home.path()).is_set());
        assert!(!home.path().join("queue/ossec/.wait").exists());
        restart_syscheck(home.path()).unwrap();
        let asked = fs::read_to_string(home.path().join("var/run/.syscheck_run")).unwrap();
        assert_eq!(asked, "/var/run/.syscheck_run\n");
        let keys = codec::KeyFile::parse(b"007 web any k");
        write_agent_info(home.path(), &keys.entries[0], None).unwrap();
        let info = fs::read_to_string(home.path().join("queue/ossec/.agent_info")).unwrap();
        assert_eq!(info, "web\n-\n007\n-\n");
    }

    #[test]
    fn the_first_events_are_agentds() {
        let home = home();
        fs::write(home.path().join("etc/ossec.conf"), "abc").unwrap();
        let keys = codec::KeyFile::parse(b"007 web any k");
        let events = first_events(home.path(), &keys.entries[0]);
        assert_eq!(events[0], "1:ossec:ossec: Agent started: 'web->any'.");
        let md5_and_sha1 = "900150983cd24fb0d6963f7d28e17f72:a9993e364706816aba3e25717850c26c9cd0d89d";
        assert!(
            events[1].starts_with("8:syscheck:3:33") && events[1].contains(md5_and_sha1),
            "{}",
            events[1]
        );
        assert!(events[2].starts_with("8:syscheck:-1 "), "{}", events[2]);
    }
}
