//! The manager of a scene, which goes and comes while the scene goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::embedded::Embedded;

/// How long a manager may take to end before it is killed, and to listen before the scene is given up.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Manager {
    embedded: Embedded,
    address: SocketAddr,
    state: State,
    /// Outages that want it away.
    away: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Listens,
    Ends { since: Instant },
    Gone { since: Instant },
    Starts { since: Instant },
}

impl Manager {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// What it says it lacks.
    pub(super) fn start(mut embedded: Embedded) -> Result<Manager, String> {
        embedded.start()?;
        let address = embedded.address();
        Ok(Manager { embedded, address, state: State::Listens, away: 0 })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGTERM: it may take its time.
    pub(super) fn stop(&mut self) {
        self.away += 1;
        match self.state {
            State::Listens | State::Starts { .. } => {
                self.embedded.terminate();
                self.state = State::Ends { since: Instant::now() };
            }
            State::Ends { .. } | State::Gone { .. } => {}
        }
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// If the kernel won't.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        self.away += 1;
        self.state = State::Gone { since: Instant::now() };
        self.embedded.kill()
    }

    /// One outage is over.
    pub(super) fn come_back(&mut self) {
        self.away -= 1;
    }

    /// Whether it is there and shall be.
    pub(super) fn is_there(&self) -> bool {
        self.away == 0 && self.state == State::Listens
    }

    /// Does what is to be done.
    ///
    /// # Errors
    /// What it said last, if it does not come back.
    pub(super) fn tend(&mut self) -> Result<(), String> {
        match self.state {
            State::Listens => self.embedded.check()?,
            State::Ends { since } => {
                if since.elapsed() > PATIENCE {
                    self.embedded.kill()?;
                }
                if self.embedded.has_ended() {
                    self.state = State::Gone { since: Instant::now() };
                }
            }
            State::Gone { .. } if self.away > 0 => {}
            State::Gone { since } => {
                self.embedded.spawn()?;
                self.state = State::Starts { since };
            }
            State::Starts { since } => match self.embedded.is_listening() {
                Ok(true) => self.state = State::Listens,
                Ok(false) if since.elapsed() < PATIENCE + PATIENCE => {}
                Ok(false) => return Err("the embedded manager does not listen again".into()),
                // In between a client of somebody else's may have been given the port, for a moment.
                Err(_) if since.elapsed() < PATIENCE => {
                    self.embedded.kill()?;
                    self.state = State::Gone { since };
                }
                Err(error) => return Err(error),
            },
        }
        Ok(())
    }
}
