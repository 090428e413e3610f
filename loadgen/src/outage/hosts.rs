//! The watched hosts of a scene, simulated or with a real agent.

use std::time::Duration;

use crate::outage::account::Account;
use crate::outage::installed::Installed;
use crate::outage::subject::{Subject, Turn};

/// One host.
#[derive(Debug)]
pub(super) enum Host {
    /// A simulated agent and its collector.
    Simulated(Box<Subject>),
    /// An agent's program, to which loadgen is the collector.
    Installed(Box<Installed>),
}

/// When events are written, in the agents' time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    pub(super) begun: Duration,
    pub(super) end: Duration,
    pub(super) apart: Duration,
    /// How many events a program's collector that has to catch up writes in one turn.
    pub(super) catch_up: usize,
}

impl Host {
    /// Whether its manager has acknowledged it.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Host::Simulated(subject) => subject.is_ready(),
            Host::Installed(installed) => installed.is_ready(),
        }
    }

    /// Its manager told analysisd that it has started.
    pub(super) fn has_started(&mut self) {
        match self {
            Host::Simulated(_) => {}
            Host::Installed(installed) => installed.has_started(),
        }
    }

    /// From `at` on events are written.
    pub(super) fn begin(&mut self, at: Duration) {
        match self {
            Host::Simulated(subject) => subject.begin(at),
            Host::Installed(installed) => installed.begin(at),
        }
    }

    /// Writes the events that are due.
    pub(super) fn write_events(&mut self, now: Duration, schedule: Schedule, account: &mut Account) {
        let Schedule { begun, end, apart, catch_up: _ } = schedule;
        match self {
            Host::Simulated(subject) => subject.write_events(now, end, apart, begun, account),
            Host::Installed(installed) => installed.write_events(now, schedule, account),
        }
    }

    /// Does what is to be done.
    ///
    /// # Errors
    /// If a program does not run.
    pub(super) fn turn(&mut self, turn: &mut Turn<'_>, account: &mut Account) -> Result<(), String> {
        match self {
            Host::Simulated(subject) => subject.turn(turn),
            Host::Installed(installed) => installed.turn(account)?,
        }
        Ok(())
    }

    /// Kills the agent with its collectors.
    ///
    /// # Errors
    /// If the kernel won't.
    pub(super) fn kill_all(&mut self, account: &mut Account) -> Result<(), String> {
        match self {
            Host::Simulated(subject) => subject.kill(),
            Host::Installed(installed) => installed.kill_all(account)?,
        }
        Ok(())
    }

    /// Kills the agent alone.
    ///
    /// # Errors
    /// If the kernel won't.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        match self {
            Host::Simulated(_) => unreachable!("only a program is killed without its collectors"),
            Host::Installed(installed) => installed.kill(),
        }
    }

    /// Starts what was killed.
    ///
    /// # Errors
    /// If there can be no such process.
    pub(super) fn start(&mut self, now: Duration) -> Result<(), String> {
        match self {
            Host::Simulated(subject) => subject.start(now),
            Host::Installed(installed) => installed.start()?,
        }
        Ok(())
    }
}
