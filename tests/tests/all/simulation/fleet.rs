//! The agents and their hosts.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentSettings, Output, Profile, State, Tools, Transport};
use codec::{CipherKey, Counter, KeyEntry, Product};
use rand::RngExt;

use super::oracle::Oracle;
use super::plan::{CALM, Kind, Plan, RECOVERED};
use super::world::{Happening, World};

/// One agent on its host.
pub(super) struct Member {
    pub(super) agent: Agent,
    pub(super) entry: KeyEntry,
    pub(super) kind: Kind,
    /// Where it sends from; another port after each connect.
    pub(super) source: SocketAddr,
    pub(super) wire: Option<usize>,
    /// Events that its collectors keep while it is locked.
    pub(super) waiting: u32,
    time_reconnect: Duration,
    /// How often it lost its manager.
    pub(super) locks: u32,
    is_up: bool,
    timer: Option<Duration>,
}

impl Member {
    pub(super) fn all(plan: &Plan) -> Vec<Member> {
        let kinds = plan.fleet.iter().enumerate();
        kinds.map(|(index, kind)| Member::new(index, *kind, plan.time_reconnect)).collect()
    }

    fn new(index: usize, kind: Kind, time_reconnect: Duration) -> Member {
        let host = IpAddr::from([10, 0, 0, index as u8 + 1]);
        let address = if kind.any { "any".to_owned() } else { host.to_string() };
        let line = format!("{:03} agent{index} {address} key-of-agent-{index}", index + 1);
        let entry = codec::KeyFile::parse(line.as_bytes()).entries.remove(0);
        let key = Arc::new(CipherKey::new(&entry.name, entry.id.as_str(), &entry.key));
        Member {
            agent: Agent::new(settings(kind, time_reconnect, &entry, key, host), Duration::ZERO),
            entry,
            kind,
            time_reconnect,
            source: SocketAddr::from((host, 20_000)),
            wire: None,
            waiting: 0,
            locks: 0,
            is_up: true,
            timer: None,
        }
    }
}

fn settings(
    kind: Kind,
    time_reconnect: Duration,
    entry: &KeyEntry,
    key: Arc<CipherKey>,
    address: IpAddr,
) -> AgentSettings {
    let profile = match kind.product {
        Product::Ossec => Profile::ossec(kind.transport, kind.method),
        Product::Wazuh => Profile::wazuh(kind.transport, kind.method),
    };
    let profile = Profile {
        notify_time: time_reconnect / 3,
        time_reconnect,
        reconnect_jitter: Duration::from_secs(1),
        ..profile
    };
    let sends_id = entry.address.agent_sends_id();
    // Close to where the local part wraps: most agents pass it in a run.
    let (sent, taken) = (Counter { global: 4, local: 9_985 }, Counter::ZERO);
    AgentSettings { profile: Arc::new(profile), id: entry.id, key, sends_id, address, sent, taken }
}

impl World {
    /// One input for an agent, then all that it wants done.
    pub(super) fn with_agent(&mut self, index: usize, input: impl FnOnce(&mut Agent, &mut Tools, Duration)) {
        if !self.fleet[index].is_up {
            return;
        }
        input(&mut self.fleet[index].agent, &mut self.tools, self.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| self.tools.next_output()).collect();
        for output in outputs {
            self.agent_wants(index, output);
        }
        let member = &mut self.fleet[index];
        let Some(next) = member.agent.next_timeout() else { return };
        if member.timer.is_none_or(|timer| next < timer) {
            member.timer = Some(next);
            self.at(next, Happening::AgentTimer { agent: index });
        }
    }

    pub(super) fn agent_timer(&mut self, index: usize) {
        self.fleet[index].timer = None;
        self.with_agent(index, Agent::on_timeout);
    }

    fn agent_wants(&mut self, index: usize, output: Output) {
        let member = &mut self.fleet[index];
        match (output, member.kind.transport) {
            // None of these offers acknowledged delivery.
            (Output::Acknowledged | Output::DeliveryAgreed | Output::DeliveryTaken { .. }, _) => {}
            (Output::Locked, _) => member.locks += 1,
            (Output::Ready, _) => self.at(self.now, Happening::AgentFlushes { agent: index }),
            (Output::Received(text), _) => {
                let known = self.orders.contains(&(index, text));
                self.oracle.check(known, || format!("agent {index} received what nobody sent to it"));
            }
            (Output::Connect, transport) => {
                let port = member.source.port();
                member.source.set_port(port.wrapping_add(1).max(1_024));
                match transport {
                    Transport::Udp => self.at(self.now, Happening::SocketOpen { agent: index }),
                    Transport::Tcp => {
                        let wire = self.dial(index);
                        self.fleet[index].wire = Some(wire);
                    }
                }
            }
            (Output::Disconnect, _) => {
                if let Some(wire) = member.wire.take() {
                    self.agent_closes(wire);
                }
            }
            (Output::Transmit(bytes), Transport::Udp) => {
                let from = member.source;
                self.datagram_to_manager(from, bytes);
            }
            (Output::Transmit(bytes), Transport::Tcp) => {
                if let Some(wire) = member.wire {
                    self.agent_writes_wire(wire, &bytes);
                }
            }
        }
    }

    /// A collector has an event: it goes, or waits until the agent is ready.
    pub(super) fn agent_writes(&mut self, index: usize) {
        self.fleet[index].waiting += 1;
        self.agent_flushes(index);
        if self.now < CALM {
            let delay = Duration::from_millis(self.random.random_range(50..8_000));
            self.after(delay, Happening::AgentWrites { agent: index });
        }
    }

    pub(super) fn agent_flushes(&mut self, index: usize) {
        while self.fleet[index].is_up
            && self.fleet[index].waiting > 0
            && self.fleet[index].agent.state() == State::Ready
        {
            self.fleet[index].waiting -= 1;
            let text = Oracle::text(index, self.oracle.next_sequence(index));
            let sequence = self.oracle.send(index);
            if let Some(wire) = self.fleet[index].wire {
                self.wires[wire].sent.push(sequence);
            }
            self.with_agent(index, |agent, tools, _| {
                agent.submit(tools, text.as_bytes()).expect("it is ready");
            });
        }
    }

    pub(super) fn message_for_agent(&mut self, index: usize, wire: Option<usize>, bytes: &[u8]) {
        if self.fleet[index].wire == wire {
            self.with_agent(index, |agent, tools, now| agent.on_message(tools, now, bytes));
        }
    }

    pub(super) fn datagram_arrives_at_agent(&mut self, to: SocketAddr, bytes: &[u8]) {
        let index = self.fleet.iter().position(|member| member.source == to);
        if let Some(index) = index {
            self.message_for_agent(index, None, bytes);
        }
    }

    /// An agent ends: its host says so to the network, or it is simply gone. It is back soon, with its counters.
    pub(super) fn crash_some_agent(&mut self) {
        let index = self.random.random_range(0..self.fleet.len());
        if !self.fleet[index].is_up {
            return;
        }
        if self.random.random_bool(0.3) {
            self.with_agent(index, |agent, tools, _| agent.stop(tools));
        }
        let is_silent = self.random.random_bool(0.5);
        let member = &mut self.fleet[index];
        member.is_up = false;
        if let Some(wire) = member.wire.take() {
            self.wires[wire].is_broken = true;
            self.wires[wire].agent_side = false;
            if !is_silent {
                self.agent_closes(wire);
            }
        }
        let delay = Duration::from_millis(self.random.random_range(1..15_000));
        self.after(delay, Happening::AgentStarts { agent: index });
    }

    pub(super) fn agent_starts(&mut self, index: usize) {
        let member = &mut self.fleet[index];
        let key = Arc::clone(member.agent.key());
        let (sent, taken) = member.agent.counters();
        let first = settings(member.kind, member.time_reconnect, &member.entry, key, member.source.ip());
        let settings = AgentSettings { sent, taken, ..first };
        member.agent = Agent::new(settings, self.now);
        member.is_up = true;
        self.with_agent(index, Agent::on_timeout);
    }

    /// After the faults: every agent is ready, and sends what must arrive.
    pub(super) fn check_recovered(&mut self) {
        assert_eq!(self.now, RECOVERED, "this is the moment");
        for index in 0..self.fleet.len() {
            let member = &self.fleet[index];
            let (state, waiting) = (member.agent.state(), member.waiting);
            self.oracle
                .check(state == State::Ready, || format!("agent {index} does not come back: {state:?}"));
            self.oracle.check(waiting == 0, || format!("agent {index} keeps {waiting} events back"));
        }
        // One after the other, so that even the smallest sink has room for what comes as a datagram.
        for turn in 0..3 * self.fleet.len() {
            let delay = Duration::from_millis(80) * turn as u32;
            self.after(delay, Happening::AgentWritesLast { agent: turn % self.fleet.len() });
        }
    }

    /// From here on whatever is sent arrives.
    pub(super) fn agent_writes_last(&mut self, index: usize) {
        let sequence = self.oracle.next_sequence(index);
        self.agent_writes(index);
        let is_sent = self.oracle.next_sequence(index) == sequence + 1;
        self.oracle.check(is_sent, || format!("agent {index} has gone again"));
        self.finals.push((index, sequence));
    }
}
