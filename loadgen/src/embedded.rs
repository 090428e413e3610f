//! The embedded manager: this program again, as a child process that runs the daemon in a folder of its own.
//!
//! The only file that knows the daemon's crate. A process of its own has its own CPU time, memory and descriptors, so
//! that what /proc says of it is the manager's alone.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use daemon::settings::{self, Settings};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;

use crate::cli::{Cores, Dialect, SinkName};
use crate::managed::ManagerLosses;
use crate::metrics::Exposition;
use crate::reader::{QueueSocket, Source};

/// First argument of the child, for this program only.
const CHILD: &str = "embedded-manager";
/// How long a manager may take to listen, with 20,000 keys and more to read.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to hand over what it holds and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const LOOK: Duration = Duration::from_millis(5);

/// The embedded manager; it and its folder go when this goes.
#[derive(Debug)]
pub struct Embedded {
    home: tempfile::TempDir,
    settings: ChildSettings,
    cores: Vec<usize>,
    child: Option<Child>,
    status: Option<Status>,
}

/// What is not the manager's default.
#[derive(Debug, Clone)]
struct ChildSettings {
    listen: SocketAddr,
    dialect: Dialect,
    sink: SinkName,
    cores: Cores,
}

/// var/run/ringmaster.json.
#[derive(Debug, Clone, Deserialize)]
struct Status {
    pid: i32,
    listen: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
}

/// Runs the manager if this process is the child; `None` in any other.
pub fn run_if_child() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != CHILD {
        return None;
    }
    let home = PathBuf::from(words.next()?);
    // Without a parent nobody would ever stop it.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("the embedded manager can't follow its parent: {error}");
        return Some(ExitCode::FAILURE);
    }
    daemon::logging::start();
    match settings::load(&home.join("etc/ringmaster.toml"), &home) {
        Ok(loaded) => Some(daemon::run(loaded.settings)),
        Err(error) => {
            eprintln!("{error}");
            Some(ExitCode::FAILURE)
        }
    }
}

impl Embedded {
    /// Makes the manager's folder with its settings and keys, and the source that its events will come from.
    ///
    /// # Errors
    /// If the folder for temporary files can't hold it.
    pub fn prepare(
        dialect: Dialect,
        sink: SinkName,
        keys: &str,
        cores: &[usize],
    ) -> Result<(Embedded, Source), String> {
        let home = tempfile::Builder::new().prefix("loadgen-").tempdir().map_err(|error| {
            format!("no folder for the embedded manager: {error}; set TMPDIR to one that is writable")
        })?;
        let settings = ChildSettings {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            dialect,
            sink,
            cores: Cores(cores.to_vec()),
        };
        let made = fill_home(home.path(), keys).and_then(|()| source_of(home.path(), sink));
        let source = made.map_err(|error| format!("the embedded manager's folder: {error}"))?;
        Ok((Embedded { home, settings, cores: cores.to_vec(), child: None, status: None }, source))
    }

    /// Where it will listen, on a port that the kernel chooses, in place of 127.0.0.1.
    ///
    /// # Panics
    /// If it was started already.
    pub fn listen_on(&mut self, address: Ipv4Addr) {
        assert!(self.status.is_none(), "it was not started yet");
        self.settings.listen = SocketAddr::from((address, 0));
    }

    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// What it says it lacks.
    pub fn start(&mut self) -> Result<(), String> {
        self.spawn()?;
        let deadline = Instant::now() + START_TIMEOUT;
        while !self.is_listening()? {
            if Instant::now() > deadline {
                return Err(format!(
                    "the embedded manager does not listen after {START_TIMEOUT:?}; it said last: {}",
                    self.last_line()
                ));
            }
            thread::sleep(LOOK);
        }
        Ok(())
    }

    /// Starts it, at the address that it had if it was started before, and does not wait: [`Embedded::is_listening`] tells.
    ///
    /// # Errors
    /// If there can be no such process.
    pub fn spawn(&mut self) -> Result<(), String> {
        if let Some(status) = &self.status {
            self.settings.listen = status.listen[0];
        }
        let failed = |error: io::Error| format!("the embedded manager can't be started: {error}");
        fs::write(self.home.path().join("etc/ringmaster.toml"), self.settings.to_toml(self.home.path()))
            .map_err(failed)?;
        let log = File::options().create(true).append(true).open(self.log_path()).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command
            .arg(CHILD)
            .arg(self.home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log);
        let child = spawn_on(&self.cores, &mut command).map_err(failed)?;
        self.child = Some(child);
        Ok(())
    }

    /// Whether it listens by now.
    ///
    /// # Errors
    /// What it said last, if it has ended.
    pub fn is_listening(&mut self) -> Result<bool, String> {
        self.check()?;
        let Some(pid) = self.child.as_ref().map(|child| child.id() as i32) else { return Ok(false) };
        let path = self.home.path().join("var/run/ringmaster.json");
        // An older file may be there after a restart: it names another process.
        let read = fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Status>(&json).ok());
        let status = read.filter(|status| status.pid == pid && !status.listen.is_empty());
        let is_listening = status.is_some();
        self.status = status.or(self.status.take());
        Ok(is_listening)
    }

    /// Where it listens.
    ///
    /// # Panics
    /// If it was not started.
    pub fn address(&self) -> SocketAddr {
        let status = self.status.as_ref().expect("the run asks after start()");
        status.listen[0]
    }

    /// Its process, if it was started.
    pub fn pid(&self) -> Option<i32> {
        self.status.as_ref().map(|status| status.pid)
    }

    /// Kills it (SIGKILL) and starts it again at the same address; returns its new process.
    ///
    /// # Errors
    /// If it does not come back.
    ///
    /// # Panics
    /// If it was never started.
    pub fn kill_and_restart(&mut self) -> Result<i32, String> {
        self.kill()?;
        self.start_again()
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// If the kernel won't.
    pub fn kill(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).map_err(|error| format!("the embedded manager can't be killed: {error}"))
    }

    /// Starts it again, at the same address; returns its new process.
    ///
    /// # Errors
    /// If it does not come back.
    ///
    /// # Panics
    /// If it was never started.
    pub fn start_again(&mut self) -> Result<i32, String> {
        assert!(self.status.is_some(), "it was started before");
        // In between a client of somebody else's may have been given the port, for a moment.
        let deadline = Instant::now() + START_TIMEOUT;
        while let Err(error) = self.start() {
            if Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(LOOK);
        }
        Ok(self.pid().expect("start() has just read it"))
    }

    /// Asks it to stop (SIGTERM), and does not wait: [`Embedded::has_ended`] tells.
    pub fn terminate(&self) {
        if let Some(pid) = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)) {
            // It may have ended already, which whoever waits for it sees.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Whether there is no process, be it that it was never started, was killed, or has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
            self.child = None;
        }
        self.child.is_none()
    }

    /// What it says on /metrics that it lost; `None` if it does not answer.
    pub fn losses(&self) -> Option<ManagerLosses> {
        let exposition = Exposition::fetch(self.status.as_ref()?.metrics?).ok()?;
        let mut dropped = exposition.by_label("ringmaster_dropped_total", "reason");
        dropped.retain(|_, count| *count > 0);
        // What the kernel dropped, /proc tells of any manager.
        dropped.remove("kernel");
        let sink_full = dropped.remove("sink_full").unwrap_or(0);
        let given_up =
            exposition.sum("ringmaster_sink_failed_total") + exposition.sum("ringmaster_sink_held");
        Some(ManagerLosses { dropped, queue_failed: sink_full + given_up })
    }

    /// Sees whether it has ended by itself.
    ///
    /// # Errors
    /// What it said last.
    pub fn check(&mut self) -> Result<(), String> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
        match ended {
            None => Ok(()),
            Some(status) => Err(format!("the embedded manager ended ({status}): {}", self.last_line())),
        }
    }

    /// Stops it (SIGTERM, and SIGKILL if that does not help); returns the last line that it wrote.
    pub fn stop(&mut self) -> String {
        self.terminate();
        let Some(mut child) = self.child.take() else { return "was not running".into() };
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = child.try_wait() {
                let line = self.last_line();
                return if status.success() { line } else { format!("{line} ({})", describe(status)) };
            }
            thread::sleep(LOOK);
        }
        kill_and_wait(&mut child);
        format!("did not stop within {STOP_TIMEOUT:?} and was killed; it said last: {}", self.last_line())
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("manager.log")
    }

    fn last_line(&self) -> String {
        let log = fs::read(self.log_path()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing").to_owned()
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            kill_and_wait(child);
        }
    }
}

impl ChildSettings {
    fn to_toml(&self, home: &Path) -> String {
        let mut settings = Settings::with_home(home);
        settings.listen.addresses = vec![self.listen];
        settings.metrics.address = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        settings.sink.queue.enabled = self.sink == SinkName::Queue;
        settings.sink.queue.path = PathBuf::from(QUEUE_SOCKET);
        settings.sink.queue.product = match self.dialect {
            Dialect::Ossec => settings::Product::Ossec,
            Dialect::Wazuh => settings::Product::Wazuh,
        };
        settings.sink.archives.text = self.sink == SinkName::Archives;
        settings.sink.archives.json = self.sink == SinkName::Json;
        let cores = self.cores.0.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        settings.shards.cores = cores.parse().expect("a list of cores that this machine has");
        toml::to_string(&settings).expect("settings become TOML")
    }
}

const QUEUE_SOCKET: &str = "queue/ossec/queue";

fn fill_home(home: &Path, keys: &str) -> io::Result<()> {
    for folder in ["etc", "logs/archives", "queue/ossec", "var/run"] {
        fs::create_dir_all(home.join(folder))?;
    }
    fs::write(home.join("etc/client.keys"), keys)
}

fn source_of(home: &Path, sink: SinkName) -> io::Result<Source> {
    Ok(match sink {
        SinkName::Queue => Source::Queue(QueueSocket::bind(&home.join(QUEUE_SOCKET))?),
        SinkName::Archives => Source::File(home.join("logs/archives/archives.log")),
        SinkName::Json => Source::File(home.join("logs/archives/archives.json")),
    })
}

/// Starts a child on some cores: a child has those of the thread that makes it.
///
/// The thread must outlive the child, which gets its death signal when the *thread* ends, so it is this one.
fn spawn_on(cores: &[usize], command: &mut Command) -> io::Result<Child> {
    let before = crate::cores::usable_cores()?;
    crate::cores::pin_this_thread(cores)?;
    let child = command.spawn();
    crate::cores::pin_this_thread(&before)?;
    child
}

fn kill_and_wait(child: &mut Child) {
    // Either fails only if the child is gone already.
    let _ = child.kill();
    let _ = child.wait();
}

fn describe(status: std::process::ExitStatus) -> String {
    match status.signal() {
        Some(signal) => format!("ended by signal {signal}"),
        None => status.to_string(),
    }
}
