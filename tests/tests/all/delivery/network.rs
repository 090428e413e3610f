//! Connections: cut into pieces anywhere, late, and ended in all the ways in which one side knows less than the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use codec::{FrameCutter, limits};
use manager::{ConnectionId, Peer};
use rand::RngExt;
use rand::seq::IndexedRandom;

use super::plan::{CALM, Cut};
use super::world::{Happening, World};
use crate::simulation::cut_frames;

/// Bytes that a connection holds before the agent's writes wait.
const WIRE_BYTES_MAX: usize = 4_096;
/// How long after its last sign an agent's kernel gives a connection up.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// One TCP connection.
pub(super) struct Wire {
    pub(super) agent: usize,
    pub(super) from: SocketAddr,
    pub(super) manager_side: Option<(u8, ConnectionId)>,
    /// Whether the agent holds its end.
    pub(super) agent_side: bool,
    /// What has arrived at a manager that does not read it.
    pub(super) kernel_buffer: VecDeque<Piece>,
    /// Sent by the agent, and not read.
    up_bytes: usize,
    /// Nothing of what is on the way arrives, that way.
    is_up_dead: bool,
    is_down_dead: bool,
    /// What the agent sends comes late, and perhaps not all of it.
    late: Option<Late>,
    /// No piece overtakes another.
    up_until: Duration,
    down_until: Duration,
    manager_cutter: FrameCutter,
    agent_cutter: FrameCutter,
}

/// What is held up on its way.
struct Late {
    held: VecDeque<Piece>,
    is_over: bool,
    pieces_left: u32,
}

/// What travels on a wire.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
}

impl World {
    pub(super) fn some_delay(&mut self) -> Duration {
        let max = if self.now < CALM { self.plan.delay_max } else { Duration::from_millis(1) };
        Duration::from_micros(50) + max.mul_f64(self.random.random::<f64>())
    }

    pub(super) fn dial(&mut self, agent: usize) {
        let from = self.hosts[agent].next_source();
        let cutter = || FrameCutter::new(limits::FRAME_BYTES_MAX);
        self.wires.push(Wire {
            agent,
            from,
            manager_side: None,
            agent_side: true,
            kernel_buffer: VecDeque::new(),
            up_bytes: 0,
            is_up_dead: false,
            is_down_dead: false,
            late: None,
            up_until: self.now,
            down_until: self.now,
            manager_cutter: cutter(),
            agent_cutter: cutter(),
        });
        let wire = self.wires.len() - 1;
        self.hosts[agent].wire = Some(wire);
        let delay = self.some_delay();
        self.after(delay, Happening::Dialed { wire });
    }

    pub(super) fn dialed(&mut self, wire: usize) {
        if self.wires[wire].agent_side && self.accept(wire) {
            let delay = self.some_delay();
            self.wires[wire].down_until = self.now + delay;
            self.after(delay, Happening::Connected { wire });
        } else {
            self.end_at_agent(wire, Duration::ZERO);
        }
    }

    /// Whether the agent's kernel takes more.
    pub(super) fn has_room(&self, wire: usize) -> bool {
        self.wires[wire].up_bytes < WIRE_BYTES_MAX
    }

    /// Any number of frames, in one write.
    pub(super) fn agent_writes(&mut self, wire: usize, bytes: Vec<u8>) {
        self.wires[wire].up_bytes += bytes.len();
        for piece in self.split(bytes) {
            self.send_up(wire, Piece::Bytes(piece));
        }
    }

    pub(super) fn manager_writes(&mut self, wire: usize, bytes: Vec<u8>) {
        for piece in self.split(bytes) {
            self.send_down(wire, Piece::Bytes(piece));
        }
    }

    /// The agent closes, or its kernel does when it is killed: what it sent before still arrives, then the end.
    pub(super) fn agent_closes(&mut self, wire: usize) {
        if std::mem::replace(&mut self.wires[wire].agent_side, false) {
            self.send_up(wire, Piece::End);
        }
    }

    pub(super) fn manager_closes(&mut self, wire: usize) {
        self.send_down(wire, Piece::End);
    }

    pub(super) fn arrives_at_manager(&mut self, wire: usize, piece: Piece) {
        if self.wires[wire].is_up_dead {
            return;
        }
        if let Some(late) = &mut self.wires[wire].late {
            if !late.is_over {
                return late.held.push_back(piece);
            }
            if late.pieces_left == 0 {
                self.wires[wire].is_up_dead = true;
                return self.end_at_manager(wire);
            }
            late.pieces_left -= 1;
        }
        self.reaches_manager(wire, piece);
    }

    /// It is in the manager's kernel.
    fn reaches_manager(&mut self, wire: usize, piece: Piece) {
        let Some((shard, connection)) = self.wires[wire].manager_side else {
            return self.end_at_agent(wire, Duration::ZERO);
        };
        if self.is_paused(shard, connection) {
            return self.wires[wire].kernel_buffer.push_back(piece);
        }
        match piece {
            Piece::Bytes(bytes) => {
                let state = &mut self.wires[wire];
                state.up_bytes -= bytes.len();
                for frame in cut_frames(&mut state.manager_cutter, &bytes) {
                    self.enqueue(shard, Peer::Connection(connection), frame);
                }
                self.agent_may_write(self.wires[wire].agent);
            }
            Piece::End => self.end_at_manager(wire),
        }
    }

    /// A connection is read again: first what waited.
    pub(super) fn read_kernel_buffer(&mut self, wire: usize) {
        for piece in std::mem::take(&mut self.wires[wire].kernel_buffer) {
            self.reaches_manager(wire, piece);
        }
    }

    pub(super) fn arrives_at_agent(&mut self, wire: usize, piece: Piece) {
        let agent = self.wires[wire].agent;
        if !self.wires[wire].agent_side || self.hosts[agent].wire != Some(wire) {
            return;
        }
        match piece {
            Piece::Bytes(_) if self.wires[wire].is_down_dead => {}
            Piece::Bytes(bytes) => {
                for frame in cut_frames(&mut self.wires[wire].agent_cutter, &bytes) {
                    self.message_for_agent(agent, wire, &frame);
                }
            }
            Piece::End => {
                if self.wires[wire].late.is_some() {
                    self.send_up(wire, Piece::End);
                }
                self.wires[wire].agent_side = false;
                self.agent_lost(agent);
            }
        }
    }

    /// Some connection that both ends hold ends.
    pub(super) fn cut(&mut self, how: Cut) {
        let alive: Vec<usize> = (0..self.wires.len())
            .filter(|wire| self.wires[*wire].agent_side && self.wires[*wire].manager_side.is_some())
            .collect();
        let Some(wire) = alive.choose(&mut self.random).copied() else { return };
        match how {
            Cut::AgentFirst => {
                // What is sent piles up on the way, until the agent sees it.
                self.makes_late(wire);
                self.collectors_burst(self.wires[wire].agent);
                let later = Duration::from_millis(self.random.random_range(0..200));
                self.end_at_agent(wire, later);
            }
            Cut::Both => {
                self.wires[wire].is_up_dead = true;
                self.end_at_manager(wire);
                self.end_at_agent(wire, Duration::ZERO);
            }
            Cut::ManagerFirst => {
                self.wires[wire].is_up_dead = true;
                self.end_at_manager(wire);
                let later = LOST_AFTER.mul_f64(self.random.random::<f64>());
                self.end_at_agent(wire, later);
            }
            Cut::Nobody => {
                self.wires[wire].is_up_dead = true;
                self.wires[wire].is_down_dead = true;
                self.end_at_agent(wire, LOST_AFTER);
            }
        }
    }

    /// What the agent has on the way comes late, perhaps not all of it, and perhaps ends in the middle of a frame.
    pub(super) fn makes_late(&mut self, wire: usize) {
        if self.wires[wire].late.is_some() {
            return;
        }
        let pieces_left =
            if self.random.random_bool(0.5) { u32::MAX } else { self.random.random_range(0..30) };
        self.wires[wire].late = Some(Late { held: VecDeque::new(), is_over: false, pieces_left });
        let delay = Duration::from_millis(self.random.random_range(0..4_000));
        self.after(delay, Happening::LateArrives { wire });
    }

    pub(super) fn late_arrives(&mut self, wire: usize) {
        let Some(late) = &mut self.wires[wire].late else { return };
        late.is_over = true;
        for piece in std::mem::take(&mut late.held) {
            self.arrives_at_manager(wire, piece);
        }
    }

    /// What older connections of an agent have on their way comes just when the next one is there.
    pub(super) fn late_meets(&mut self, next: usize) {
        for wire in 0..next {
            let is_older = self.wires[wire].agent == self.wires[next].agent;
            if is_older && self.wires[wire].late.is_some() && self.random.random_bool(0.6) {
                let delay = Duration::from_micros(self.random.random_range(0..60_000));
                self.after(delay, Happening::LateArrives { wire });
            }
        }
    }

    /// The manager's kernel says that a connection is gone.
    fn end_at_manager(&mut self, wire: usize) {
        let Some((shard, connection)) = self.wires[wire].manager_side else { return };
        self.turn(shard);
        self.forget_connection(shard, connection);
        self.with_manager(shard, |manager, _| manager.on_closed(connection));
    }

    /// The agent learns that its connection is gone, `later` than it could.
    pub(super) fn end_at_agent(&mut self, wire: usize, later: Duration) {
        let delay = later + self.some_delay();
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

    fn split(&mut self, bytes: Vec<u8>) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        let mut rest = bytes;
        while rest.len() > 1 && self.random.random_bool(0.6) {
            let most = rest.len().min(1_500);
            let tail = rest.split_off(self.random.random_range(1..most));
            pieces.push(std::mem::replace(&mut rest, tail));
        }
        pieces.push(rest);
        pieces
    }
}
