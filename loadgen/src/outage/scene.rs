//! One path with one cut: the agents, the proxy, the manager and its reader, turn by turn on one thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent::{Profile, Tools, Transport};
use codec::Method;
use memchr::memmem;

use crate::cli::{Dialect, SinkName};
use crate::cores::usable_cores;
use crate::embedded::Embedded;
use crate::members;
use crate::outage::account::Account;
use crate::outage::cli::OutageJob;
use crate::outage::proxy::Proxy;
use crate::outage::subject::{Subject, Turn};
use crate::outage::{Cut, Path, Scene, Times, seconds};
use crate::reader::{QueueSocket, Source};

/// The wall's time between two turns.
const TURN: Duration = Duration::from_millis(1);
/// Agents are ready by then, by the wall's clock, or something else is wrong.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// What an agent may still need after its time-reconnect, in its own time: waits between two tries, and an answer.
const SETTLE: Duration = Duration::from_secs(180);
const DATAGRAM_BYTES_MAX: usize = 65_537;

/// Plays it. `None` if it was interrupted.
pub(super) fn play(
    asked: &OutageJob,
    path: Path,
    cut: Cut,
    times: Times,
    interrupted: &AtomicBool,
) -> Result<Option<Scene>, String> {
    let mut stage = Stage::set(asked, path, times)?;
    if !stage.wait_until_ready(interrupted)? {
        return Ok(None);
    }
    let [before, outage, after] = [times.before, times.outage, times.after].map(Duration::from_secs_f64);
    let begun = stage.now();
    let end = begun + before + outage + after;
    let apart = Duration::from_secs_f64(1.0 / asked.rate);
    for (index, subject) in stage.subjects.iter_mut().enumerate() {
        // Each agent at a moment of its own.
        subject.begin(begun + apart.mul_f64(index as f64 / f64::from(asked.agents)));
    }
    let schedule = Schedule { begun, end, apart };
    if !stage.until(begun + before, schedule, interrupted)? {
        return Ok(None);
    }
    let from = stage.now() - begun;
    stage.begin_outage(cut)?;
    if !stage.until(begun + before + outage, schedule, interrupted)? {
        return Ok(None);
    }
    stage.end_outage(cut)?;
    let to = stage.now() - begun;
    if !stage.until(end, schedule, interrupted)? {
        return Ok(None);
    }
    let settled = end + Duration::from_secs_f64(times.time_reconnect) + SETTLE;
    while !stage.account.is_complete() && stage.now() < settled {
        stage.turn(schedule)?;
        if interrupted.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    stage.manager.stop();
    let became = stage.account.became(from);
    Ok(Some(Scene { path, cut, outage: [seconds(from), seconds(to)], became }))
}

/// When events are written, in the agents' time.
#[derive(Clone, Copy)]
struct Schedule {
    begun: Duration,
    end: Duration,
    apart: Duration,
}

struct Stage {
    subjects: Vec<Subject>,
    proxy: Proxy,
    proxy_address: SocketAddr,
    manager: Embedded,
    queue: QueueSocket,
    account: Account,
    tools: Tools,
    scale: f64,
    zero: Instant,
}

impl Stage {
    fn set(asked: &OutageJob, path: Path, times: Times) -> Result<Stage, String> {
        let failed = |error: io::Error| format!("the scene can't be set: {error}");
        let fleet = members::made_up(asked.agents, asked.seed);
        let cores = usable_cores().map_err(failed)?;
        let (mut manager, source) =
            Embedded::prepare(Dialect::Ossec, SinkName::Queue, &members::to_file(&fleet), &cores[..1])?;
        let Source::Queue(queue) = source else { unreachable!("the queue was asked for") };
        manager.start()?;
        let proxy = Proxy::bind(manager.address()).map_err(failed)?;
        let profile = Arc::new(profile(path, times));
        let subjects = fleet.iter().enumerate().map(|(index, member)| {
            let key = Arc::clone(&member.cipher_key);
            Subject::new(index as u32, member.entry.id, key, path, Arc::clone(&profile), Duration::ZERO)
        });
        Ok(Stage {
            subjects: subjects.collect(),
            proxy_address: proxy.address().map_err(failed)?,
            proxy,
            manager,
            queue,
            account: Account::new(asked.agents),
            tools: Tools::new([asked.seed as u8; 32]),
            scale: asked.scale,
            zero: Instant::now(),
        })
    }

    /// The agents' time.
    fn now(&self) -> Duration {
        self.zero.elapsed().mul_f64(self.scale)
    }

    /// `false` if it was interrupted.
    fn wait_until_ready(&mut self, interrupted: &AtomicBool) -> Result<bool, String> {
        let nothing = Schedule { begun: Duration::ZERO, end: Duration::ZERO, apart: Duration::MAX };
        while !self.subjects.iter().all(Subject::is_ready) {
            self.turn(nothing)?;
            if self.zero.elapsed() > READY_WITHIN {
                let ready = self.subjects.iter().filter(|subject| subject.is_ready()).count();
                return Err(format!(
                    "{ready} of {} agents were acknowledged within {READY_WITHIN:?}",
                    self.subjects.len()
                ));
            }
            if interrupted.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// `false` if it was interrupted.
    fn until(
        &mut self,
        time: Duration,
        schedule: Schedule,
        interrupted: &AtomicBool,
    ) -> Result<bool, String> {
        while self.now() < time {
            self.turn(schedule)?;
            if interrupted.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn turn(&mut self, schedule: Schedule) -> Result<(), String> {
        let Schedule { begun, end, apart } = schedule;
        let now = self.now();
        let mut turn = Turn { now, tools: &mut self.tools, proxy: self.proxy_address };
        for subject in &mut self.subjects {
            subject.write_events(now, end, apart, begun, &mut self.account);
            subject.turn(&mut turn);
        }
        self.proxy.turn().map_err(|error| format!("the proxy: {error}"))?;
        self.read(begun)?;
        thread::sleep(TURN);
        Ok(())
    }

    /// Reads what the manager has handed over.
    fn read(&mut self, begun: Duration) -> Result<(), String> {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let failed = |error: io::Error| format!("the queue socket: {error}");
        while let Some(bytes) = self.queue.receive_now(&mut buffer).map_err(failed)? {
            if let Some((agent, sequence)) = event(&buffer[..bytes]) {
                let now = self.now().saturating_sub(begun);
                self.account.arrive(agent, sequence, now);
            }
        }
        Ok(())
    }

    fn begin_outage(&mut self, cut: Cut) -> Result<(), String> {
        match cut {
            Cut::Network => self.proxy.cut(true),
            Cut::ManagerStopped => drop(self.manager.stop()),
            Cut::ManagerKilled => self.manager.kill()?,
            Cut::AgentRestarted => self.subjects.iter_mut().for_each(Subject::kill),
        }
        Ok(())
    }

    fn end_outage(&mut self, cut: Cut) -> Result<(), String> {
        match cut {
            Cut::Network => self.proxy.cut(false),
            Cut::ManagerStopped | Cut::ManagerKilled => self.manager.start_again().map(drop)?,
            Cut::AgentRestarted => {
                let now = self.now();
                self.subjects.iter_mut().for_each(|subject| subject.start(now));
            }
        }
        Ok(())
    }
}

fn profile(path: Path, times: Times) -> Profile {
    let transport = match path {
        Path::Udp => Transport::Udp,
        Path::Tcp => Transport::Tcp,
    };
    Profile {
        notify_time: Duration::from_secs_f64(times.notify_time),
        time_reconnect: Duration::from_secs_f64(times.time_reconnect),
        ..Profile::ossec(transport, Method::AesOssec)
    }
}

/// Agent and sequence of an event as it stands in analysisd's queue.
fn event(datagram: &[u8]) -> Option<(u32, u32)> {
    let marker = b"->outage:event ";
    let at = memmem::find(datagram, marker)? + marker.len();
    let text = std::str::from_utf8(&datagram[at..]).ok()?.trim_end_matches('\0');
    let (agent, sequence) = text.split_once(' ')?;
    Some((agent.parse().ok()?, sequence.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_in_the_form_of_the_queue() {
        assert_eq!(event(b"1:(agent-1) any->outage:event 3 17\0"), Some((3, 17)));
        for other in [
            &b"1:(agent-1) any->ossec:ossec: Agent started: 'a->any'.\0"[..],
            b"1:(a) any->outage:event x 1\0",
            b"",
        ] {
            assert_eq!(event(other), None);
        }
    }
}
