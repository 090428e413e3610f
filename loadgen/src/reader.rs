//! The other end of the manager: a thread that reads what it hands over, and tallies it.
//!
//! From the queue socket it reads as analysisd would, a batch of datagrams a call; from an archive file it reads what
//! is appended. Either way one reading of the clock a batch is the arrival of all events in it.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recv, recvmmsg};

use crate::cli::Protocol;
use crate::lines::{Found, Lines};
use crate::plan::Plan;
use crate::proc::CpuTime;
use crate::tally::{Arrival, Counts, Tally};

/// Datagrams of one call.
const BATCH: usize = 32;
/// The longest datagram of either product, with its NUL.
const DATAGRAM_BYTES_MAX: usize = 65_537;
/// How soon a reader that nothing arrives for looks whether it should stop.
const STOP_CHECK: Duration = Duration::from_millis(50);
/// What is read of an archive file in one call; it grows if one line is longer.
const FILE_BUFFER_BYTES: usize = 1 << 20;
/// How often the end of an archive file is looked at.
const FILE_CHECK: Duration = Duration::from_millis(1);

/// When the run began; unset while the fleet connects.
#[derive(Debug, Clone, Default)]
pub struct RunClock(Arc<OnceLock<Instant>>);

impl RunClock {
    /// Begins the run at a moment; a second call changes nothing.
    pub fn start(&self, at: Instant) {
        self.0.get_or_init(|| at);
    }

    /// Nanoseconds since the run began, 0 before it.
    pub fn nanoseconds(&self) -> u64 {
        self.0.get().map_or(0, |start| start.elapsed().as_nanos() as u64)
    }
}

/// Where a reader reads.
#[derive(Debug)]
pub enum Source {
    /// analysisd's queue socket.
    Queue(QueueSocket),
    /// A file that the manager appends lines to.
    File(PathBuf),
}

/// The queue socket, bound in place of analysisd; its file goes when this goes.
#[derive(Debug)]
pub struct QueueSocket {
    socket: OwnedFd,
    path: PathBuf,
}

impl QueueSocket {
    /// Binds the socket, in place of one that nobody reads any more.
    ///
    /// # Errors
    /// If somebody reads there already, or the folder is not ours to write in: says which path, and what to do.
    pub fn bind(path: &Path) -> io::Result<QueueSocket> {
        let explain = |error: io::Error, cure: &str| {
            io::Error::new(error.kind(), format!("queue socket {}: {error}; {cure}", path.display()))
        };
        if fs::symlink_metadata(path).is_ok() {
            if UnixDatagram::unbound()?.connect(path).is_ok() {
                let taken = io::Error::from(io::ErrorKind::AddrInUse);
                return Err(explain(taken, "stop the analysisd that reads it"));
            }
            fs::remove_file(path).map_err(|error| explain(error, "remove the old socket"))?;
        }
        let socket = UnixDatagram::bind(path).map_err(|error| {
            explain(error, "its folder must exist and be writable, its path shorter than 108 bytes")
        })?;
        // The manager runs as another user than we may.
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .map_err(|error| explain(error, "run loadgen as the owner of the folder"))?;
        socket.set_read_timeout(Some(STOP_CHECK))?;
        Ok(QueueSocket { socket: socket.into(), path: path.to_owned() })
    }

    /// The next datagram, which is waited for a moment (50 ms); how long it is.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match recv(self.socket.as_raw_fd(), buffer, MsgFlags::empty()) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Source {
    /// Empties a file that nobody reads or writes now, so that the next reader finds only what comes after; what waits
    /// in a queue socket stays.
    ///
    /// # Errors
    /// If the file can't be cut off.
    pub fn empty(&self) -> io::Result<()> {
        match self {
            Source::Queue(_) => Ok(()),
            Source::File(path) => match File::options().write(true).open(path) {
                Ok(file) => file.set_len(0),
                // The manager has written nothing yet.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            },
        }
    }
}

impl Drop for QueueSocket {
    fn drop(&mut self) {
        // Gone already if somebody cleaned the folder up, which is no harm.
        let _ = fs::remove_file(&self.path);
    }
}

/// What a reader needs to know of the run.
#[derive(Debug, Clone)]
pub struct ReaderSpec {
    /// The lines to look for.
    pub lines: Lines,
    /// Their schedule.
    pub plan: Arc<Plan>,
    /// Transport of each agent.
    pub protocol: Protocol,
    /// Name of each agent, as the manager puts it into the location.
    pub names: Arc<Vec<Box<str>>>,
    /// The run's clock.
    pub clock: RunClock,
    /// Cores the thread may use; none: any.
    pub cores: Vec<usize>,
}

/// A reader at work.
#[derive(Debug)]
pub struct Reader {
    progress: Arc<Progress>,
    thread: JoinHandle<io::Result<(Tally, Source)>>,
}

/// What others may know of a reader while it works. Each value may change at any time, and only grows.
#[derive(Debug, Default)]
pub struct Progress {
    delivered: AtomicU64,
    cpu_nanoseconds: AtomicU64,
    stop: AtomicBool,
}

impl Reader {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system has no thread left.
    pub fn start(source: Source, spec: ReaderSpec) -> io::Result<Reader> {
        let progress = Arc::new(Progress::default());
        let shared = Arc::clone(&progress);
        let thread = thread::Builder::new().name("reader".into()).spawn(move || {
            crate::cores::pin_this_thread(&spec.cores)?;
            crate::cores::prefer_this_thread();
            let mut desk = Desk { tally: Tally::new(&spec.plan, spec.protocol), spec, progress: shared };
            match &source {
                Source::Queue(socket) => read_queue(socket, &mut desk)?,
                Source::File(path) => read_file(path, &mut desk)?,
            }
            Ok((desk.tally, source))
        })?;
        Ok(Reader { progress, thread })
    }

    /// Different events that have arrived so far.
    pub fn delivered(&self) -> u64 {
        self.progress.delivered.load(Ordering::Relaxed)
    }

    /// CPU time of the thread so far.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.progress.cpu_nanoseconds.load(Ordering::Relaxed))
    }

    /// Whether the thread has ended by itself, which only an error makes it do.
    pub fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Reads what has arrived by now, and gives the account, and the source for another reader.
    ///
    /// # Errors
    /// If reading failed.
    ///
    /// # Panics
    /// If the thread did.
    pub fn finish(self) -> io::Result<(Tally, Source)> {
        self.progress.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a reader that panics has ended the program already: panic = abort")
    }
}

/// Where what was read is counted.
struct Desk {
    tally: Tally,
    spec: ReaderSpec,
    progress: Arc<Progress>,
}

impl Desk {
    fn count(&mut self, written: &[u8], nanoseconds: u64, names_agent: impl Fn(&[u8], &str) -> bool) {
        let found = self.spec.lines.find(written);
        let named_right = match found {
            Found::Ours(mark) => {
                self.spec.names.get(mark.agent as usize).is_some_and(|name| names_agent(written, name))
            }
            Found::Corrupt | Found::Foreign => true,
        };
        self.tally.count(&self.spec.plan, Arrival { found, named_right, nanoseconds });
    }

    fn publish(&self) {
        let Counts { delivered, .. } = self.tally.counts();
        self.progress.delivered.store(delivered, Ordering::Relaxed);
        self.progress.cpu_nanoseconds.store(CpuTime::of_this_thread().as_nanos() as u64, Ordering::Relaxed);
    }

    fn should_stop(&self) -> bool {
        self.progress.stop.load(Ordering::Relaxed)
    }
}

fn read_queue(queue: &QueueSocket, desk: &mut Desk) -> io::Result<()> {
    let mut buffers = vec![vec![0_u8; DATAGRAM_BYTES_MAX]; BATCH];
    let mut batches = 0_u64;
    loop {
        let mut slices: Vec<[IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
        let received = recvmmsg(
            queue.socket.as_raw_fd(),
            &mut headers,
            slices.iter_mut(),
            MsgFlags::MSG_WAITFORONE,
            None,
        );
        match received {
            Ok(messages) => {
                let nanoseconds = desk.spec.clock.nanoseconds();
                for message in messages {
                    for datagram in message.iovs() {
                        desk.count(datagram, nanoseconds, queue_names_agent);
                    }
                }
                batches += 1;
                if batches.is_multiple_of(64) {
                    desk.publish();
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                desk.publish();
                if desk.should_stop() {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reads until it should stop and the end of the file has been seen after that.
fn read_file(path: &Path, desk: &mut Desk) -> io::Result<()> {
    let mut file: Option<File> = None;
    let mut buffer = vec![0_u8; FILE_BUFFER_BYTES];
    // The beginning of a line whose end has not been read yet.
    let mut held_bytes = 0;
    loop {
        let last_look = desk.should_stop();
        let read_bytes = match &mut file {
            Some(file) => file.read(&mut buffer[held_bytes..])?,
            None => match File::open(path) {
                Ok(opened) => {
                    file = Some(opened);
                    continue;
                }
                Err(_) => 0,
            },
        };
        let end = held_bytes + read_bytes;
        let counted_bytes = count_lines(&buffer[..end], desk);
        buffer.copy_within(counted_bytes..end, 0);
        held_bytes = end - counted_bytes;
        if held_bytes == buffer.len() {
            buffer.resize(2 * held_bytes, 0);
        }
        desk.publish();
        if read_bytes == 0 {
            if last_look {
                return Ok(());
            }
            thread::sleep(FILE_CHECK);
        }
    }
}

/// Counts the whole lines of what was read; returns how many bytes they are.
fn count_lines(read: &[u8], desk: &mut Desk) -> usize {
    let nanoseconds = desk.spec.clock.nanoseconds();
    let mut start = 0;
    for newline in memchr::memchr_iter(b'\n', read) {
        desk.count(&read[start..=newline], nanoseconds, file_names_agent);
        start = newline + 1;
    }
    start
}

/// Whether the location of a queue datagram is that of the agent: `c:(name) ip->` or `c:[id] (name) ip->`.
fn queue_names_agent(datagram: &[u8], name: &str) -> bool {
    let Some(location) = datagram.get(2..) else { return false };
    let location = match location.first() {
        Some(b'[') => match memchr::memchr(b']', location) {
            Some(end) => location.get(end + 2..).unwrap_or_default(),
            None => return false,
        },
        Some(_) | None => location,
    };
    named_in_brackets(location, name)
}

/// Whether a line of an archive names the agent: `(name) ` in text, `"name":"..."` in JSON, before the line's own text.
fn file_names_agent(line: &[u8], name: &str) -> bool {
    if line.first() == Some(&b'{') {
        let is_quoted = |at: usize| {
            let before = at.checked_sub(1).and_then(|before| line.get(before));
            before == Some(&b'"') && line.get(at + name.len()) == Some(&b'"')
        };
        return memchr::memmem::find_iter(line, name).any(is_quoted);
    }
    memchr::memchr(b'(', line).is_some_and(|at| named_in_brackets(&line[at..], name))
}

fn named_in_brackets(text: &[u8], name: &str) -> bool {
    let rest = text.strip_prefix(b"(").and_then(|rest| rest.strip_prefix(name.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(b") "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn spec(lines: &Lines, plan: &Arc<Plan>) -> ReaderSpec {
        ReaderSpec {
            lines: lines.clone(),
            plan: Arc::clone(plan),
            protocol: Protocol::Both,
            names: Arc::new(vec!["agent-0".into(), "agent-1".into()]),
            clock: RunClock::default(),
            cores: Vec::new(),
        }
    }

    fn line(lines: &Lines, agent: u32, sequence: u64) -> String {
        let mut line = String::new();
        lines.write(agent, sequence, &mut line);
        line
    }

    #[test]
    fn the_queue_socket_is_read_in_both_forms_and_its_file_goes_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        let lines = Lines::new(5, 6, 200);
        let plan = Arc::new(Plan::new(2, 4.0, Duration::from_secs(1), 1, 1));
        let socket = QueueSocket::bind(&path).unwrap();
        assert!(QueueSocket::bind(&path).unwrap_err().to_string().contains("stop the analysisd"));
        let reader = Reader::start(Source::Queue(socket), spec(&lines, &plan)).unwrap();
        let sender = UnixDatagram::unbound().unwrap();
        let rest = |agent, sequence| line(&lines, agent, sequence)[2..].to_owned();
        for text in [
            format!("1:(agent-0) any->{}\0", rest(0, 0)),
            format!("1:[002] (agent-1) 127.0.0.1->{}\0", rest(1, 0)),
            format!("1:(agent-1) any->{}\0", rest(0, 1)),
            "1:(agent-0) any->ossec:ossec: Agent started: 'agent-0->any'.\0".into(),
        ] {
            sender.send_to(text.as_bytes(), &path).unwrap();
        }
        let counts = reader.finish().unwrap().0.counts();
        let expected =
            Counts { delivered: 3, delivered_tcp: 1, misattributed: 1, foreign: 1, ..Counts::default() };
        assert_eq!(counts, expected);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_nobody_reads_any_more_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queue");
        drop(UnixDatagram::bind(&path).unwrap());
        assert!(path.exists());
        QueueSocket::bind(&path).unwrap();
        let error = QueueSocket::bind(&folder.path().join("none/queue")).unwrap_err().to_string();
        assert!(error.contains("none/queue") && error.contains("must exist"), "{error}");
    }

    #[test]
    fn an_archive_is_followed_however_its_lines_are_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("archives.log");
        let lines = Lines::new(5, 6, 200);
        let plan = Arc::new(Plan::new(2, 4.0, Duration::from_secs(1), 1, 1));
        let mut file = File::create(&path).unwrap();
        let reader = Reader::start(Source::File(path), spec(&lines, &plan)).unwrap();
        let written = format!(
            "2026 Nov 22 01:00:00 (agent-0) any->{}\n{{\"agent\":{{\"name\":\"agent-1\"}},\"full_log\":\"{}\"}}\n",
            line(&lines, 0, 0),
            line(&lines, 1, 0)
        );
        for part in written.as_bytes().chunks(97) {
            file.write_all(part).unwrap();
        }
        let counts = reader.finish().unwrap().0.counts();
        assert_eq!(counts, Counts { delivered: 2, delivered_tcp: 1, ..Counts::default() });
    }
}
