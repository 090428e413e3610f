//! A host with an agent's program, whose collector is loadgen: it writes its events to the agent's queue as logcollector does, and waits
//! while the agent takes none.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::outage::ProgramTimes;
use crate::outage::account::Account;
use crate::outage::hosts::Schedule;
use crate::outage::ossec::{Ossec, QUEUE};
use crate::outage::program::Program;
use crate::outage::taken::Taken;

/// What ringmaster-agent's spool has of its own after each start, before any collector's.
const OWN_EVENTS: u64 = 3;
const SPOOL: &str = "queue/ringmaster-agent";

#[derive(Debug)]
pub(super) struct Installed {
    index: u32,
    home: tempfile::TempDir,
    program: Program,
    /// Whether it should run.
    is_wanted: bool,
    /// Whether its collectors run.
    collects: bool,
    collector: Option<UnixDatagram>,
    /// When the events were written that the collector is still to read.
    unread: VecDeque<Duration>,
    next_event: Duration,
    /// Of the schedule.
    catch_up: usize,
    is_ready: bool,
    /// The events that the agent's socket took in this run of the agent, in order.
    accepted: Vec<u32>,
    /// Of an agent with a spool.
    taken: Option<Taken>,
    /// In the place of ossec-execd, for which ossec-agentd would look half a minute.
    _execd: Option<UnixDatagram>,
}

/// What ringmaster-agent is told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) manager: SocketAddr,
    pub(super) times: ProgramTimes,
    pub(super) is_acknowledged: bool,
}

impl Installed {
    /// Makes the agent's home. `key` is its line of client.keys.
    ///
    /// # Errors
    /// If the folder for temporary files can't hold it.
    pub(super) fn ringmaster_agent(
        index: u32,
        program: &Path,
        key: &str,
        told: Told,
    ) -> Result<Installed, String> {
        let failed =
            |error: io::Error| format!("an agent's home: {error}; set TMPDIR to a folder that is writable");
        let home = tempfile::Builder::new().prefix("loadgen-").tempdir().map_err(failed)?;
        fill(home.path(), key, told).map_err(failed)?;
        let words = ["--home".into(), home.path().into()];
        let program = Program::new(program, words, home.path().join("logs/program.log"), None);
        let taken = Taken::new(home.path().join(SPOOL));
        Installed::start_with(index, home, program, Some(taken), None)
    }

    /// Makes the home of an ossec-agentd.
    ///
    /// # Errors
    /// What can't be made, and what to do.
    pub(super) fn ossec_agentd(
        index: u32,
        ossec: &Ossec,
        key: &str,
        server: SocketAddr,
        times: ProgramTimes,
    ) -> Result<Installed, String> {
        let (home, program) = ossec.agent(key, server, times)?;
        let execd = UnixDatagram::bind(home.path().join("queue/alerts/execq"));
        let execd = execd.and_then(|execd| {
            let everybody = Permissions::from_mode(0o666);
            fs::set_permissions(home.path().join("queue/alerts/execq"), everybody).map(|()| execd)
        });
        let execd = execd.map_err(|error| format!("an agent's execd: {error}"))?;
        Installed::start_with(index, home, program, None, Some(execd))
    }

    fn start_with(
        index: u32,
        home: tempfile::TempDir,
        mut program: Program,
        taken: Option<Taken>,
        execd: Option<UnixDatagram>,
    ) -> Result<Installed, String> {
        program.start()?;
        Ok(Installed {
            index,
            home,
            program,
            is_wanted: true,
            collects: true,
            collector: None,
            unread: VecDeque::new(),
            next_event: Duration::MAX,
            catch_up: 0,
            is_ready: false,
            accepted: Vec::new(),
            taken,
            _execd: execd,
        })
    }

    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Its manager told analysisd that it has started.
    pub(super) fn has_started(&mut self) {
        self.is_ready = true;
    }

    pub(super) fn begin(&mut self, at: Duration) {
        self.next_event = at;
    }

    /// Writes what is due. What is written while no collector runs is never read: one begins at the end of the file.
    pub(super) fn write_events(&mut self, now: Duration, schedule: Schedule, account: &mut Account) {
        self.catch_up = schedule.catch_up;
        while self.next_event <= now && self.next_event < schedule.end {
            let written = self.next_event - schedule.begun;
            if self.collects {
                self.unread.push_back(written);
            } else {
                account.make(self.index, written);
            }
            self.next_event += schedule.apart;
        }
    }

    /// Gives the agent what its socket takes: only that was made.
    ///
    /// # Errors
    /// If the program does not run.
    pub(super) fn turn(&mut self, account: &mut Account) -> Result<(), String> {
        if self.is_wanted {
            self.program.tend()?;
        }
        for _ in 0..self.catch_up {
            let Some(written) = self.unread.front() else { break };
            self.collector = self.collector.take().or_else(|| reach(&self.home.path().join(QUEUE)).ok());
            let Some(collector) = &self.collector else { break };
            let text = format!("1:outage:event {} {}\0", self.index, account.next(self.index));
            match collector.send(text.as_bytes()) {
                Ok(_) => {
                    self.accepted.push(account.make(self.index, *written));
                    self.unread.pop_front();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The agent is gone; the collector tries to reach the next one.
                Err(_) => {
                    self.collector = None;
                    break;
                }
            }
        }
        Ok(())
    }

    /// Kills the agent with its collectors: what these had not read yet is behind their place for good.
    ///
    /// # Errors
    /// If the kernel won't.
    pub(super) fn kill_all(&mut self, account: &mut Account) -> Result<(), String> {
        self.kill()?;
        self.collects = false;
        for written in self.unread.drain(..) {
            account.make(self.index, written);
        }
        Ok(())
    }

    /// Kills the agent alone.
    ///
    /// # Errors
    /// If the kernel won't.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        self.is_wanted = false;
        self.collector = None;
        self.program.kill()
    }

    /// Starts what was killed.
    ///
    /// # Errors
    /// If there can be no such process.
    pub(super) fn start(&mut self) -> Result<(), String> {
        self.is_wanted = true;
        self.collects = true;
        self.accepted.clear();
        self.program.start()
    }

    /// Takes out of the account what lay in the socket of an agent that was killed: the spool did not have it. To be called while it is dead.
    ///
    /// # Errors
    /// If the spool can't be read.
    pub(super) fn sort_out_untaken(&mut self, account: &mut Account) -> Result<(), String> {
        let Some(taken) = &mut self.taken else { return Ok(()) };
        let taken = taken.since_start()?.saturating_sub(OWN_EVENTS);
        for sequence in self.accepted.drain(..).skip(taken as usize) {
            account.untake(self.index, sequence);
        }
        Ok(())
    }
}

fn reach(queue: &Path) -> io::Result<UnixDatagram> {
    let collector = UnixDatagram::unbound()?;
    collector.connect(queue)?;
    collector.set_nonblocking(true)?;
    Ok(collector)
}

fn fill(home: &Path, key: &str, told: Told) -> io::Result<()> {
    for folder in ["etc/shared", "queue/ossec", "queue/alerts", "queue/rids", "logs", "var/run"] {
        fs::create_dir_all(home.join(folder))?;
    }
    let Told { manager, times, is_acknowledged } = told;
    let ProgramTimes { notify_time, time_reconnect, lost_after, wait_max, confirm } = times;
    let conf = format!(
        "<ossec_config><client><server-ip>{}</server-ip><port>{}</port><protocol>tcp</protocol>\
         <notify_time>{notify_time}</notify_time><time-reconnect>{time_reconnect}</time-reconnect></client></ossec_config>\n",
        manager.ip(),
        manager.port()
    );
    let own = format!(
        "[reconnect]\nseconds_max = {wait_max}\nlost_after_seconds = {lost_after}\n\
         [delivery]\nconfirm_seconds = {confirm}\nacknowledged = {is_acknowledged}\n"
    );
    fs::write(home.join("etc/ossec.conf"), conf)?;
    fs::write(home.join("etc/ringmaster-agent.toml"), own)?;
    fs::write(home.join("etc/client.keys"), format!("{key}\n"))
}
