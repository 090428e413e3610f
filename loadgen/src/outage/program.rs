//! A program of the scene: started, killed and started again, and it never outlives loadgen.
//!
//! loadgen starts itself, asks the kernel for a signal at its parent's death, and becomes the program: nothing else can ask for
//! that in the program's name. So the process has the program's id from the beginning.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

/// First argument of the child, for loadgen only.
const CHILD: &str = "program-of-an-outage";
/// In the place of a folder that is not wanted.
const NO_FOLDER: &str = "-";
/// A program that ends by itself is started again so often within one scene: its port may have been lent to somebody for a moment.
const STARTS_AGAIN_MAX: u32 = 20;
const START_AGAIN_AFTER: Duration = Duration::from_millis(100);
/// How much of the end of a log stands in an error.
const LOG_BYTES_SHOWN: usize = 600;

/// A program, running or not.
#[derive(Debug)]
pub(super) struct Program {
    words: Vec<OsString>,
    log: PathBuf,
    /// What it takes for its home, though another folder is meant.
    home: Option<Home>,
    child: Option<Child>,
    started_at: Option<Instant>,
    starts_again: u32,
}

/// A folder that a program finds at another place, as its home that was compiled in.
#[derive(Debug, Clone)]
pub(super) struct Home {
    pub(super) folder: PathBuf,
    pub(super) seen_at: PathBuf,
}

/// Becomes the program, if this process is the child; `None` in any other.
pub fn become_if_child() -> Option<ExitCode> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != CHILD {
        return None;
    }
    let (folder, seen_at, program) = (words.next()?, words.next()?, words.next()?);
    // Without a parent nobody would ever stop it.
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        eprintln!("it can't follow its parent: {error}");
        return Some(ExitCode::FAILURE);
    }
    if folder != NO_FOLDER
        && let Err(error) = show_at(Path::new(&folder), Path::new(&seen_at))
    {
        eprintln!("{}: can't be mounted: {error}; that needs root", Path::new(&seen_at).display());
        return Some(ExitCode::FAILURE);
    }
    let error = Command::new(&program).args(words).exec();
    eprintln!("{}: {error}", Path::new(&program).display());
    Some(ExitCode::FAILURE)
}

/// For this process and its children only.
fn show_at(folder: &Path, seen_at: &Path) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing: Option<&Path> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some(folder), seen_at, nothing, MsFlags::MS_BIND, nothing)
}

impl Program {
    /// Nothing is started yet. What it says goes to the file `log`.
    pub(super) fn new(
        program: &Path,
        words: impl IntoIterator<Item = OsString>,
        log: PathBuf,
        home: Option<Home>,
    ) -> Program {
        let words = std::iter::once(program.into()).chain(words).collect();
        Program { words, log, home, child: None, started_at: None, starts_again: 0 }
    }

    /// Starts it, unless it runs.
    ///
    /// # Errors
    /// If there can be no such process.
    pub(super) fn start(&mut self) -> Result<(), String> {
        if self.child.is_some() {
            return Ok(());
        }
        let failed = |error: std::io::Error| format!("{}: {error}", self.name());
        let log = File::options().create(true).append(true).open(&self.log).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        let [folder, seen_at] = match &self.home {
            Some(home) => [home.folder.as_os_str(), home.seen_at.as_os_str()],
            None => [NO_FOLDER.as_ref(); 2],
        };
        command.arg(CHILD).args([folder, seen_at]).args(&self.words);
        command.env_remove("NOTIFY_SOCKET").stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        self.child = Some(command.spawn().map_err(failed)?);
        self.started_at = Some(Instant::now());
        Ok(())
    }

    /// SIGKILL, and waits for its end, which comes at once.
    ///
    /// # Errors
    /// If the kernel won't.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).map_err(|error| format!("{} can't be killed: {error}", self.name()))
    }

    /// SIGTERM, and does not wait: [`Program::has_ended`] tells.
    pub(super) fn terminate(&self) {
        if let Some(pid) = self.child.as_ref().and_then(|child| Pid::from_raw(child.id() as i32)) {
            // It may have ended already, which whoever waits for it sees.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Whether there is no process.
    pub(super) fn has_ended(&mut self) -> bool {
        if self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
            self.child = None;
        }
        self.child.is_none()
    }

    /// Starts it again if it should run and has ended by itself.
    ///
    /// # Errors
    /// What it said last, if it does so for ever.
    pub(super) fn tend(&mut self) -> Result<(), String> {
        let is_young = self.started_at.is_none_or(|at| at.elapsed() < START_AGAIN_AFTER);
        if is_young || !self.has_ended() {
            return Ok(());
        }
        if self.starts_again == STARTS_AGAIN_MAX {
            return Err(format!("{} ends by itself; it said last: {}", self.name(), self.said_last()));
        }
        self.starts_again += 1;
        self.start()
    }

    /// The end of its log.
    pub(super) fn said_last(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let end = &log[log.len().saturating_sub(LOG_BYTES_SHOWN)..];
        String::from_utf8_lossy(end).trim().to_owned()
    }

    fn name(&self) -> String {
        Path::new(&self.words[0]).display().to_string()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.kill();
    }
}
