//! The manager of a scene, which goes and comes while the scene goes on.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::embedded::Embedded;
use crate::outage::ossec::Remoted;

/// How long a manager may take to end before it is killed, and to listen before the scene is given up.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub(super) struct Manager {
    program: Kind,
    address: SocketAddr,
    state: State,
    /// Outages that want it away.
    away: u32,
}

/// Whose it is.
#[derive(Debug)]
pub(super) enum Kind {
    /// ringmaster.
    Embedded(Embedded),
    /// OSSEC's.
    Remoted(Remoted),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Listens,
    Ends {
        since: Instant,
    },
    /// With the time since which it shall be there again.
    Gone {
        since: Option<Instant>,
    },
    Starts {
        since: Instant,
    },
}

impl Manager {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// What it says it lacks.
    pub(super) fn start(mut program: Kind) -> Result<Manager, String> {
        program.spawn()?;
        let since = Instant::now();
        while !program.is_listening()? {
            if since.elapsed() > PATIENCE {
                return Err(format!("{} does not listen after {PATIENCE:?}", program.name()));
            }
            thread::sleep(LOOK);
        }
        let address = match &program {
            Kind::Embedded(embedded) => embedded.address(),
            Kind::Remoted(remoted) => remoted.address,
        };
        Ok(Manager { program, address, state: State::Listens, away: 0 })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// SIGTERM: it may take its time.
    pub(super) fn stop(&mut self) {
        self.away += 1;
        match self.state {
            State::Listens | State::Starts { .. } => {
                self.program.terminate();
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
        self.state = State::Gone { since: None };
        self.program.kill()
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
            State::Listens => self.program.check()?,
            State::Ends { since } => {
                if since.elapsed() > PATIENCE {
                    self.program.kill()?;
                }
                if self.program.has_ended() {
                    self.state = State::Gone { since: None };
                }
            }
            State::Gone { .. } if self.away > 0 => {}
            State::Gone { since } => {
                self.program.spawn()?;
                self.state = State::Starts { since: since.unwrap_or_else(Instant::now) };
            }
            State::Starts { since } => match self.program.is_listening() {
                Ok(true) => self.state = State::Listens,
                Ok(false) if since.elapsed() < PATIENCE + PATIENCE => {}
                Ok(false) => return Err(format!("{} does not listen again", self.program.name())),
                // In between a client of somebody else's may have been given the port, for a moment.
                Err(_) if since.elapsed() < PATIENCE => {
                    self.program.kill()?;
                    self.state = State::Gone { since: Some(since) };
                }
                Err(error) => return Err(error),
            },
        }
        Ok(())
    }
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Kind::Embedded(_) => "the embedded manager",
            Kind::Remoted(_) => "ossec-remoted",
        }
    }

    fn spawn(&mut self) -> Result<(), String> {
        match self {
            Kind::Embedded(embedded) => embedded.spawn(),
            Kind::Remoted(remoted) => remoted.program.start(),
        }
    }

    fn is_listening(&mut self) -> Result<bool, String> {
        match self {
            Kind::Embedded(embedded) => embedded.is_listening(),
            Kind::Remoted(remoted) => {
                remoted.program.tend()?;
                Ok(remoted.is_listening())
            }
        }
    }

    fn terminate(&self) {
        match self {
            Kind::Embedded(embedded) => embedded.terminate(),
            Kind::Remoted(remoted) => remoted.program.terminate(),
        }
    }

    fn has_ended(&mut self) -> bool {
        match self {
            Kind::Embedded(embedded) => embedded.has_ended(),
            Kind::Remoted(remoted) => remoted.program.has_ended(),
        }
    }

    fn kill(&mut self) -> Result<(), String> {
        match self {
            Kind::Embedded(embedded) => embedded.kill(),
            Kind::Remoted(remoted) => remoted.program.kill(),
        }
    }

    /// Sees whether it has ended by itself.
    fn check(&mut self) -> Result<(), String> {
        match self {
            Kind::Embedded(embedded) => embedded.check(),
            Kind::Remoted(remoted) => remoted.program.tend(),
        }
    }
}
