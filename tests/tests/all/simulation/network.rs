//! The network: datagrams that get lost, doubled, late, short and wrong; streams that are cut anywhere and break.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use codec::{FrameAt, FrameCutter, OpenSettings, Opener, Sealed, limits};
use manager::{ConnectionId, Peer};
use rand::RngExt;

use super::plan::CALM;
use super::world::{Happening, World};

/// One TCP connection, from the first packet to long after its end.
pub(super) struct Wire {
    pub(super) agent: usize,
    pub(super) from: SocketAddr,
    /// What the agent's events on it were.
    pub(super) sent: Vec<u32>,
    /// Whether anything ended it, on any side.
    pub(super) is_broken: bool,
    pub(super) manager_side: Option<(u8, ConnectionId)>,
    pub(super) agent_side: bool,
    /// What has arrived at a manager that does not read it.
    pub(super) kernel_buffer: VecDeque<Piece>,
    manager_cutter: FrameCutter,
    agent_cutter: FrameCutter,
    is_greeted: bool,
    /// No piece overtakes another.
    up_until: Duration,
    down_until: Duration,
}

/// What travels on a wire.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl World {
    pub(super) fn some_delay(&mut self) -> Duration {
        let max = if self.now < CALM { self.plan.faults.delay_max } else { Duration::ZERO };
        Duration::from_micros(100) + max.mul_f64(self.random.random::<f64>())
    }

    pub(super) fn datagram_to_manager(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        if self.captured.len() < 1_000 {
            self.captured.push((from, bytes.clone()));
        }
        for bytes in self.through_the_network(bytes) {
            let delay = self.some_delay();
            self.after(delay, Happening::DatagramToManager { from, bytes });
        }
    }

    pub(super) fn datagram_to_agent(&mut self, to: SocketAddr, bytes: &[u8]) {
        for bytes in self.through_the_network(bytes.to_vec()) {
            let delay = self.some_delay();
            self.after(delay, Happening::DatagramToAgent { to, bytes });
        }
    }

    /// What comes out of it: nothing, one datagram, or two of them.
    fn through_the_network(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        if self.now >= CALM {
            return vec![bytes];
        }
        let faults = self.plan.faults.clone();
        if self.random.random_bool(faults.loss) {
            return Vec::new();
        }
        let copies = if self.random.random_bool(faults.repetition) { 2 } else { 1 };
        let mut out = vec![bytes; copies];
        for bytes in &mut out {
            if self.random.random_bool(faults.truncation) {
                let length = self.random.random_range(0..bytes.len());
                bytes.truncate(length);
            }
            if self.random.random_bool(faults.corruption) && !bytes.is_empty() {
                let place = self.random.random_range(0..bytes.len());
                bytes[place] ^= 1 << self.random.random_range(0..8u32);
            }
        }
        out
    }

    /// Somebody who listened sends a datagram again, from its own source or from anywhere.
    pub(super) fn replay(&mut self) {
        if self.captured.is_empty() {
            return;
        }
        let place = self.random.random_range(0..self.captured.len());
        let (mut from, bytes) = self.captured[place].clone();
        if self.random.random_bool(0.5) {
            from = SocketAddr::from(([203, 0, 113, 9], 9));
        }
        self.after(Duration::from_millis(1), Happening::DatagramToManager { from, bytes });
    }

    pub(super) fn datagram_arrives(&mut self, from: SocketAddr, bytes: Vec<u8>) {
        // As SO_REUSEPORT does: one source always reaches the same shard, another port perhaps another one.
        let shard = (from.port() % u16::from(self.plan.shards)) as u8;
        self.enqueue(shard, Peer::Datagram(from), bytes);
    }

    pub(super) fn dial(&mut self, agent: usize) -> usize {
        let member = &self.fleet[agent];
        let cutter = || FrameCutter::new(limits::FRAME_BYTES_MAX);
        self.wires.push(Wire {
            agent,
            from: member.source,
            sent: Vec::new(),
            is_broken: false,
            manager_side: None,
            agent_side: true,
            kernel_buffer: VecDeque::new(),
            manager_cutter: cutter(),
            agent_cutter: cutter(),
            is_greeted: false,
            up_until: self.now,
            down_until: self.now,
        });
        let wire = self.wires.len() - 1;
        let delay = self.some_delay();
        self.after(delay, Happening::Dialed { wire });
        wire
    }

    pub(super) fn dialed(&mut self, wire: usize) {
        if self.accept(wire) {
            let delay = self.some_delay();
            self.wires[wire].down_until = self.now + delay;
            self.after(delay, Happening::Connected { wire });
        } else {
            self.break_wire_at_agent(wire);
        }
    }

    pub(super) fn agent_writes_wire(&mut self, wire: usize, message: &[u8]) {
        let mut bytes = Vec::new();
        codec::frame(message, &mut bytes);
        for piece in self.split(bytes) {
            self.send_up(wire, piece);
        }
    }

    pub(super) fn manager_writes(&mut self, wire: usize, bytes: Vec<u8>) {
        if !self.wires[wire].is_greeted {
            self.wires[wire].is_greeted = true;
            let is_acknowledgement = self.is_acknowledgement(self.wires[wire].agent, &bytes);
            self.oracle
                .check(is_acknowledgement, || "the first frame to an agent is no acknowledgement".into());
        }
        for piece in self.split(bytes) {
            self.send_down(wire, piece);
        }
    }

    /// The agent closes: what it sent before still arrives, then the end.
    pub(super) fn agent_closes(&mut self, wire: usize) {
        self.wires[wire].agent_side = false;
        self.wires[wire].is_broken = true;
        self.send_up(wire, Piece::End);
    }

    pub(super) fn manager_closes(&mut self, wire: usize) {
        self.wires[wire].is_broken = true;
        self.send_down(wire, Piece::End);
    }

    pub(super) fn arrives_at_manager(&mut self, wire: usize, piece: Piece) {
        let Some((shard, connection)) = self.wires[wire].manager_side else {
            return self.break_wire_at_agent(wire);
        };
        let is_paused = self
            .process
            .as_ref()
            .is_some_and(|process| process.shards[usize::from(shard)].paused.contains(&connection));
        if is_paused {
            return self.wires[wire].kernel_buffer.push_back(piece);
        }
        match piece {
            Piece::Bytes(bytes) => {
                let cutter = &mut self.wires[wire].manager_cutter;
                for frame in cut_frames(cutter, &bytes) {
                    self.enqueue(shard, Peer::Connection(connection), frame);
                }
            }
            Piece::End => {
                self.turn(shard);
                self.forget_connection(shard, connection);
                self.with_manager(shard, |manager, _| manager.on_closed(connection));
            }
        }
    }

    /// A connection is read again: first what waited.
    pub(super) fn read_kernel_buffer(&mut self, wire: usize) {
        for piece in std::mem::take(&mut self.wires[wire].kernel_buffer) {
            self.arrives_at_manager(wire, piece);
        }
    }

    pub(super) fn arrives_at_agent(&mut self, wire: usize, piece: Piece) {
        let agent = self.wires[wire].agent;
        if !self.wires[wire].agent_side || self.fleet[agent].wire != Some(wire) {
            return;
        }
        match piece {
            Piece::Bytes(bytes) => {
                for frame in cut_frames(&mut self.wires[wire].agent_cutter, &bytes) {
                    self.message_for_agent(agent, Some(wire), &frame);
                }
            }
            Piece::End => {
                self.wires[wire].agent_side = false;
                self.wires[wire].is_broken = true;
                self.fleet[agent].wire = None;
                self.with_agent(agent, agent::Agent::on_closed);
            }
        }
    }

    /// A wire breaks. Each side hears of it, or only one of them does and the other has a dead connection.
    pub(super) fn break_some_wire(&mut self) {
        let alive: Vec<usize> = (0..self.wires.len()).filter(|wire| !self.wires[*wire].is_broken).collect();
        if alive.is_empty() {
            return;
        }
        let wire = alive[self.random.random_range(0..alive.len())];
        self.wires[wire].is_broken = true;
        let (manager_hears, agent_hears) = (self.random.random_bool(0.7), self.random.random_bool(0.7));
        if agent_hears || !manager_hears {
            self.break_wire_at_agent(wire);
        }
        if let (true, Some((shard, connection))) = (manager_hears, self.wires[wire].manager_side) {
            self.forget_connection(shard, connection);
            self.with_manager(shard, |manager, _| manager.on_closed(connection));
        }
    }

    /// The agent learns that its connection is gone; what was on its way is gone too.
    pub(super) fn break_wire_at_agent(&mut self, wire: usize) {
        self.wires[wire].is_broken = true;
        let delay = self.some_delay();
        self.after(delay, Happening::ToAgent { wire, piece: Piece::End });
    }

    fn send_up(&mut self, wire: usize, piece: Piece) {
        let at = (self.now + self.some_delay()).max(self.wires[wire].up_until);
        self.wires[wire].up_until = at;
        self.at(at, Happening::ToManager { wire, piece });
    }

    fn send_down(&mut self, wire: usize, piece: Piece) {
        let at = (self.now + self.some_delay()).max(self.wires[wire].down_until);
        self.wires[wire].down_until = at;
        self.at(at, Happening::ToAgent { wire, piece });
    }

    fn split(&mut self, bytes: Vec<u8>) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while rest.len() > 1 && pieces.len() < 3 && self.random.random_bool(0.3) {
            let tail = rest.split_off(self.random.random_range(1..rest.len()));
            pieces.push(Piece::Bytes(std::mem::replace(&mut rest, tail)));
        }
        pieces.push(Piece::Bytes(rest));
        pieces
    }

    fn is_acknowledgement(&self, agent: usize, frame: &[u8]) -> bool {
        let key = self.fleet[agent].agent.key();
        let mut opener = Opener::new(OpenSettings::default());
        let sealed = Sealed { key, bytes: &frame[codec::FRAME_HEADER_BYTES..], method_hint: None };
        let opened = opener.open(&[sealed]);
        opened.get(0).is_ok_and(|opened| opened.text == b"#!-agent ack ")
    }
}

pub(crate) fn cut_frames(cutter: &mut FrameCutter, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    cutter.cut(bytes, &mut frames).expect("both sides send legal frames");
    let taken = |at: &FrameAt| match at {
        FrameAt::Carried => cutter.carried().to_vec(),
        FrameAt::Received(range) => bytes[range.clone()].to_vec(),
    };
    frames.iter().map(taken).collect()
}
