//! What a scene is played on: hosts, network, broker, manager and its reader, turn by turn on one thread.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use agent::{Profile, Tools, Transport};
use codec::Method;

use crate::cli::{Dialect, SinkName};
use crate::cores::usable_cores;
use crate::embedded::Embedded;
use crate::members::{self, Member};
use crate::outage::account::Account;
use crate::outage::arrivals::{Arrivals, Said};
use crate::outage::away::{Chances, Cut};
use crate::outage::broker::Broker;
use crate::outage::cli::OutageJob;
use crate::outage::hosts::{Host, Schedule};
use crate::outage::installed::{Installed, Told};
use crate::outage::managers::{Kind, Manager};
use crate::outage::program::Program;
use crate::outage::proxy::Proxy;
use crate::outage::subject::{Subject, Turn};
use crate::outage::{Path, Times};
use crate::reader::{QueueSocket, Source};

/// Between two turns: so much of the agents' time, within what is sensible on the wall's clock.
const TURN: Duration = Duration::from_millis(60);
const TURN_MIN: Duration = Duration::from_millis(1);
const TURN_MAX: Duration = Duration::from_millis(10);
/// A collector that has to catch up reads so many times as fast as events are written: a burst of all at once, over UDP, would lose more than
/// the outage does.
const CATCH_UP: f64 = 4.0;
/// Agents are ready by then, by the wall's clock, or something else is wrong.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A kill comes so much later than a turn at most, by chance, so that it hits whatever follows a turn.
const KILL_LATER_MAX: Duration = Duration::from_micros(1_500);

#[derive(Debug)]
pub(super) struct Stage {
    path: Path,
    hosts: Vec<Host>,
    /// Where agents send to.
    server: SocketAddr,
    broker: Option<Broker>,
    proxy: Proxy,
    manager: Manager,
    arrivals: Arrivals,
    pub(super) account: Account,
    /// Whether what nobody took is told from what was lost.
    sorts_untaken: bool,
    away: Away,
    tools: Tools,
    chances: Chances,
    scale: f64,
    turn: Duration,
    zero: Instant,
    last_arrival: Instant,
}

/// How many outages want something away now. The manager counts for itself.
#[derive(Debug, Default)]
struct Away {
    network: u32,
    connections: u32,
    client: u32,
    server: u32,
    hosts: Vec<u32>,
}

impl Stage {
    /// Sets it; nobody is connected yet. With `sorts_untaken` events that no program had taken when it was killed are not
    /// accounted for, where that can be told.
    ///
    /// # Errors
    /// What can't be started.
    pub(super) fn set(
        asked: &OutageJob,
        path: Path,
        times: Times,
        seed: u64,
        sorts_untaken: bool,
    ) -> Result<Stage, String> {
        let failed = |error: io::Error| format!("the scene can't be set: {error}");
        let fleet = members::made_up(asked.agents, seed);
        let host = own_address();
        let (manager, queue) = manager(asked, path, &fleet, seed, host)?;
        let arrivals = Arrivals::read(queue).map_err(failed)?;
        let manager = Manager::start(manager)?;
        let mut broker = match path {
            Path::BrokerGate | Path::BrokerRelay | Path::OssecRelay => {
                let ids = fleet.iter().map(|member| member.entry.id);
                let is_gate = path == Path::BrokerGate;
                Some(Broker::start_server(&asked.broker, is_gate, host, manager.address(), ids)?)
            }
            Path::Udp | Path::Tcp | Path::AgentPlain | Path::AgentAcknowledged | Path::OssecUdp => None,
        };
        let streams_to = broker.as_ref().map_or(manager.address(), Broker::server_address);
        let proxy = Proxy::bind(manager.address(), streams_to).map_err(failed)?;
        let proxy_address = proxy.address().map_err(failed)?;
        let server = match &mut broker {
            Some(broker) => broker.start_client(proxy_address)?,
            None => proxy_address,
        };
        let hosts = hosts(asked, path, times, &fleet, server)?;
        let now = Instant::now();
        Ok(Stage {
            path,
            away: Away { hosts: vec![0; hosts.len()], ..Away::default() },
            hosts,
            server,
            broker,
            proxy,
            manager,
            arrivals,
            account: Account::new(asked.agents),
            sorts_untaken,
            tools: Tools::new([seed as u8; 32]),
            chances: Chances(!seed),
            scale: asked.scale,
            turn: TURN.div_f64(asked.scale).clamp(TURN_MIN, TURN_MAX),
            zero: now,
            last_arrival: now,
        })
    }

    /// The agents' time.
    pub(super) fn now(&self) -> Duration {
        self.zero.elapsed().mul_f64(self.scale)
    }

    /// How long nothing has arrived, by the wall's clock.
    pub(super) fn quiet(&self) -> Duration {
        self.last_arrival.elapsed()
    }

    /// Waits until all agents are acknowledged. `false` if it was interrupted.
    ///
    /// # Errors
    /// If they are not, after a minute.
    pub(super) fn wait_until_ready(&mut self, interrupted: &AtomicBool) -> Result<bool, String> {
        let nothing =
            Schedule { begun: Duration::ZERO, end: Duration::ZERO, apart: Duration::MAX, catch_up: 0 };
        while !self.hosts.iter().all(Host::is_ready) {
            self.turn(nothing)?;
            if self.zero.elapsed() > READY_WITHIN {
                let ready = self.hosts.iter().filter(|host| host.is_ready()).count();
                return Err(format!(
                    "{}: {ready} of {} agents were acknowledged within {READY_WITHIN:?}",
                    self.path.words(),
                    self.hosts.len()
                ));
            }
            if interrupted.load(Ordering::Relaxed) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// From now on each agent has its events, at a moment of its own, until `length` of their time has passed.
    pub(super) fn begin_events(&mut self, length: Duration, rate: f64) -> Schedule {
        let apart = Duration::from_secs_f64(1.0 / rate);
        let begun = self.now();
        let agents = self.hosts.len() as f64;
        for (index, host) in self.hosts.iter_mut().enumerate() {
            host.begin(begun + apart.mul_f64(index as f64 / agents));
        }
        let in_a_turn = self.turn.as_secs_f64() * self.scale * rate;
        let catch_up = (CATCH_UP * in_a_turn).ceil() as usize;
        Schedule { begun, end: begun + length, apart, catch_up }
    }

    /// `false` if it was interrupted.
    ///
    /// # Errors
    /// If something does not run.
    pub(super) fn until(
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

    /// Everybody does what is to be done, and then all rest for a moment.
    ///
    /// # Errors
    /// If something does not run.
    pub(super) fn turn(&mut self, schedule: Schedule) -> Result<(), String> {
        self.act(schedule)?;
        thread::sleep(self.turn);
        Ok(())
    }

    /// Whether the manager is there again.
    pub(super) fn manager_is_there(&self) -> bool {
        self.manager.is_there()
    }

    /// The ends of the programs' logs.
    pub(super) fn said_last(&self) -> Vec<String> {
        let broker = self.broker.iter().flat_map(|broker| broker.client.iter().chain([&broker.server]));
        let installed = self.hosts.iter().filter_map(|host| match host {
            Host::Simulated(_) => None,
            Host::Installed(installed) => Some(installed.program()),
        });
        broker.chain(installed).map(Program::said_last).collect()
    }

    /// Something goes away; of `agent` alone, if it is an agent's.
    ///
    /// # Errors
    /// If it can't be killed.
    pub(super) fn begin_outage(
        &mut self,
        cut: Cut,
        agent: Option<u32>,
        schedule: Schedule,
    ) -> Result<(), String> {
        if cut.is_kill() {
            self.act(schedule)?;
            let later = KILL_LATER_MAX.mul_f64(self.chances.share());
            let from = Instant::now();
            while from.elapsed() < later {
                std::hint::spin_loop();
            }
        }
        match cut {
            Cut::Network => self.away.network += 1,
            Cut::NetworkReset => self.away.connections += 1,
            Cut::ManagerStopped => self.manager.stop(),
            Cut::ManagerKilled => self.manager.kill()?,
            Cut::AgentRestarted | Cut::AgentKilled => {
                for host in of(agent, self.hosts.len()) {
                    self.away.hosts[host] += 1;
                    if cut == Cut::AgentKilled {
                        self.hosts[host].kill()?;
                    } else {
                        self.hosts[host].kill_all(&mut self.account)?;
                    }
                }
            }
            Cut::BrokerClientKilled => {
                self.away.client += 1;
                self.broker_mut().client.as_mut().expect("it was started with the scene").kill()?;
            }
            Cut::BrokerServerKilled => {
                self.away.server += 1;
                self.broker_mut().server.kill()?;
            }
        }
        self.set_network();
        Ok(())
    }

    /// It comes back, unless another outage wants it away as well.
    ///
    /// # Errors
    /// If it can't be started.
    pub(super) fn end_outage(&mut self, cut: Cut, agent: Option<u32>) -> Result<(), String> {
        match cut {
            Cut::Network => self.away.network -= 1,
            Cut::NetworkReset => self.away.connections -= 1,
            Cut::ManagerStopped | Cut::ManagerKilled => self.manager.come_back(),
            Cut::AgentRestarted | Cut::AgentKilled => {
                for host in of(agent, self.hosts.len()) {
                    self.away.hosts[host] -= 1;
                    if self.away.hosts[host] == 0 {
                        self.start_host(host)?;
                    }
                }
            }
            Cut::BrokerClientKilled => {
                self.away.client -= 1;
                if self.away.client == 0 {
                    self.start_client()?;
                }
            }
            Cut::BrokerServerKilled => {
                self.away.server -= 1;
                if self.away.server == 0 {
                    self.broker_mut().server.start()?;
                }
            }
        }
        self.set_network();
        Ok(())
    }

    fn start_host(&mut self, index: usize) -> Result<(), String> {
        let now = self.now();
        let host = &mut self.hosts[index];
        if let (true, Host::Installed(installed)) = (self.sorts_untaken, &mut *host) {
            installed.sort_out_untaken(&mut self.account)?;
        }
        host.start(now)
    }

    fn start_client(&mut self) -> Result<(), String> {
        self.note_datagrams();
        let broker = self.broker.as_mut().expect("only a path with a broker has this cut");
        if self.sorts_untaken && self.path == Path::BrokerRelay {
            broker.sort_out_untaken(&mut self.account)?;
        }
        broker.client.as_mut().expect("it was started with the scene").start()
    }

    fn act(&mut self, schedule: Schedule) -> Result<(), String> {
        let now = self.now();
        let mut turn = Turn { now, tools: &mut self.tools, server: self.server };
        for host in &mut self.hosts {
            host.write_events(now, schedule, &mut self.account);
            host.turn(&mut turn, &mut self.account)?;
        }
        self.note_datagrams();
        self.proxy.turn().map_err(|error| format!("the proxy: {error}"))?;
        self.manager.tend()?;
        let Away { client, server, .. } = self.away;
        if let Some(broker) = &mut self.broker {
            if let (0, Some(client)) = (client, &mut broker.client) {
                client.tend()?;
            }
            if server == 0 {
                broker.server.tend()?;
            }
        }
        self.read(schedule.begun)
    }

    /// Reads what the manager has handed over.
    fn read(&mut self, begun: Duration) -> Result<(), String> {
        while let Some(arrival) = self.arrivals.next() {
            let (at, said) = arrival.map_err(|error| format!("the queue socket: {error}"))?;
            match said {
                Said::Started { agent } => {
                    if let Some(host) = self.hosts.get_mut(agent as usize) {
                        host.has_started();
                    }
                }
                Said::Event { agent, sequence } => {
                    let at_agents = at.saturating_duration_since(self.zero).mul_f64(self.scale);
                    self.account.arrive(agent, sequence, at_agents.saturating_sub(begun));
                    self.last_arrival = at;
                }
            }
        }
        Ok(())
    }

    /// Simulated agents know at once what nobody was there for; a relay's spools tell the rest.
    fn note_datagrams(&mut self) {
        for (index, host) in self.hosts.iter_mut().enumerate() {
            let Host::Simulated(subject) = host else { continue };
            let datagrams = subject.take_datagrams();
            if let (true, Path::BrokerRelay, Some(broker)) = (self.sorts_untaken, self.path, &mut self.broker)
            {
                broker.note(index as u32, datagrams, &mut self.account);
            }
        }
    }

    fn set_network(&mut self) {
        self.proxy.cut(self.away.network > 0);
        self.proxy.reset(self.away.connections > 0);
    }

    fn broker_mut(&mut self) -> &mut Broker {
        self.broker.as_mut().expect("only a path with a broker has this cut")
    }
}

/// The agents that are meant: one, or all.
fn of(agent: Option<u32>, agents: usize) -> std::ops::Range<usize> {
    match agent {
        Some(agent) => agent as usize..agent as usize + 1,
        None => 0..agents,
    }
}

/// An address for the listeners of one scene. At 127.0.0.1 all connections of this host begin: while a program is away, one of them could
/// have its port for as long as it lives.
fn own_address() -> Ipv4Addr {
    static SCENES: AtomicU32 = AtomicU32::new(0);
    let number = SCENES.fetch_add(1, Ordering::Relaxed) % (250 * 250);
    let process = std::process::id() % 64;
    Ipv4Addr::new(127, 64 + process as u8, (number / 250) as u8, 1 + (number % 250) as u8)
}

/// The manager, not started yet, and the socket that it hands over to.
fn manager(
    asked: &OutageJob,
    path: Path,
    fleet: &[Member],
    seed: u64,
    host: Ipv4Addr,
) -> Result<(Kind, QueueSocket), String> {
    let keys = members::to_file(fleet);
    if path.is_ossec() {
        let (remoted, queue) = asked.ossec().manager(&keys, host)?;
        return Ok((Kind::Remoted(remoted), queue));
    }
    let cores = usable_cores().map_err(|error| format!("the cores of this host: {error}"))?;
    let core = cores[seed as usize % cores.len()];
    let (mut embedded, source) = Embedded::prepare(Dialect::Ossec, SinkName::Queue, &keys, &[core])?;
    let Source::Queue(queue) = source else { unreachable!("the queue was asked for") };
    embedded.listen_on(host);
    Ok((Kind::Embedded(embedded), queue))
}

fn hosts(
    asked: &OutageJob,
    path: Path,
    times: Times,
    fleet: &[Member],
    server: SocketAddr,
) -> Result<Vec<Host>, String> {
    let numbered = fleet.iter().enumerate().map(|(index, member)| (index as u32, member));
    let transport = match path {
        Path::Udp | Path::BrokerGate | Path::BrokerRelay => Transport::Udp,
        Path::Tcp => Transport::Tcp,
        Path::AgentPlain | Path::AgentAcknowledged => {
            let is_acknowledged = path == Path::AgentAcknowledged;
            let told = Told { manager: server, times: asked.program_times(), is_acknowledged };
            let host = |(index, member): (u32, &Member)| {
                let key = member.entry.to_line();
                let installed = Installed::ringmaster_agent(index, &asked.agent_program, &key, told)?;
                Ok(Host::Installed(Box::new(installed)))
            };
            return numbered.map(host).collect();
        }
        Path::OssecUdp | Path::OssecRelay => {
            let host = |(index, member): (u32, &Member)| {
                let (key, times) = (member.entry.to_line(), asked.program_times());
                let installed = Installed::ossec_agentd(index, asked.ossec(), &key, server, times)?;
                Ok(Host::Installed(Box::new(installed)))
            };
            return numbered.map(host).collect();
        }
    };
    let profile = Arc::new(Profile {
        notify_time: Duration::from_secs_f64(times.notify_time),
        time_reconnect: Duration::from_secs_f64(times.time_reconnect),
        ..Profile::ossec(transport, Method::AesOssec)
    });
    let host = |(index, member): (u32, &Member)| {
        let key = Arc::clone(&member.cipher_key);
        let subject = Subject::new(index, member.entry.id, key, Arc::clone(&profile), Duration::ZERO);
        Ok(Host::Simulated(Box::new(subject)))
    };
    numbered.map(host).collect()
}
