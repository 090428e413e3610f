//! The manager of a run: the embedded one, which is started, asked and stopped, or any other, which is only loaded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::cli::{Job, ManagerChoice};
use crate::cores::Layout;
use crate::embedded::Embedded;
use crate::members::{self, Member};
use crate::reader::{QueueSocket, Source};

/// What a manager says it lost.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ManagerLosses {
    /// Messages that it received and dropped, by reason; without those that the kernel dropped, which /proc tells, and
    /// those that its sinks had no room for.
    pub dropped: BTreeMap<String, u64>,
    /// Events that its sinks had no room for, gave up, or still hold.
    pub queue_failed: u64,
}

/// The manager of a run.
#[derive(Debug)]
pub enum Manager {
    /// A child of this process.
    Embedded {
        /// The child.
        child: Embedded,
        /// When it is to be killed and started again.
        kill_after: Option<Duration>,
    },
    /// Somebody else's.
    Target {
        /// Where it listens.
        address: SocketAddr,
        /// Its process, if known.
        pid: Option<i32>,
    },
}

impl Manager {
    /// Prepares the manager of a job, and the source from which its events are read. Nothing is started yet, so that
    /// the queue socket is there before the manager.
    ///
    /// # Errors
    /// What is in the way, with the cure.
    pub fn prepare(job: &Job, layout: &Layout, fleet: &[Member]) -> Result<(Manager, Source), String> {
        match &job.manager {
            ManagerChoice::Embedded { sink, kill_after } => {
                let (child, source) =
                    Embedded::prepare(job.dialect, *sink, &members::to_file(fleet), &layout.manager)?;
                Ok((Manager::Embedded { child, kill_after: *kill_after }, source))
            }
            ManagerChoice::Target { address, queue, pid, .. } => {
                let socket = QueueSocket::bind(queue).map_err(|error| error.to_string())?;
                Ok((Manager::Target { address: *address, pid: *pid }, Source::Queue(socket)))
            }
        }
    }

    /// Starts it, if it is ours to start.
    ///
    /// # Errors
    /// What the manager says it lacks.
    pub fn start(&mut self) -> Result<(), String> {
        match self {
            Manager::Embedded { child, .. } => child.start(),
            Manager::Target { .. } => Ok(()),
        }
    }

    /// Where agents reach it.
    ///
    /// # Panics
    /// If it is embedded and was not started.
    pub fn address(&self) -> SocketAddr {
        match self {
            Manager::Embedded { child, .. } => child.address(),
            Manager::Target { address, .. } => *address,
        }
    }

    /// Its process now, if known.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Manager::Embedded { child, .. } => child.pid(),
            Manager::Target { pid, .. } => *pid,
        }
    }

    /// When it is to be killed and started again, after the start of the run.
    pub fn kill_after(&self) -> Option<Duration> {
        match self {
            Manager::Embedded { kill_after, .. } => *kill_after,
            Manager::Target { .. } => None,
        }
    }

    /// Kills it (SIGKILL) and starts it again at the same address; returns its new process.
    ///
    /// # Errors
    /// If it does not come back.
    ///
    /// # Panics
    /// If it is not ours to kill.
    pub fn kill_and_restart(&mut self) -> Result<i32, String> {
        match self {
            Manager::Embedded { child, .. } => child.kill_and_restart(),
            Manager::Target { .. } => {
                unreachable!("the command line gives another's manager no time to be killed")
            }
        }
    }

    /// What it says it lost; `None` if it can't be asked.
    pub fn losses(&self) -> Option<ManagerLosses> {
        match self {
            Manager::Embedded { child, .. } => child.losses(),
            Manager::Target { .. } => None,
        }
    }

    /// Sees whether a manager of ours has ended by itself.
    ///
    /// # Errors
    /// What it said last.
    pub fn check(&mut self) -> Result<(), String> {
        match self {
            Manager::Embedded { child, .. } => child.check(),
            Manager::Target { .. } => Ok(()),
        }
    }

    /// Stops a manager of ours; returns the last line that it wrote.
    pub fn stop(&mut self) -> Option<String> {
        match self {
            Manager::Embedded { child, .. } => Some(child.stop()),
            Manager::Target { .. } => None,
        }
    }

    /// Its name in the report.
    pub fn describe(&self) -> String {
        match self {
            Manager::Embedded { .. } => "embedded".into(),
            Manager::Target { address, .. } => address.to_string(),
        }
    }
}
