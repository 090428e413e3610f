//! Syslog lines, from datagrams and streams, straight into the sinks: there is nothing to decrypt and nobody to answer.

use std::net::{IpAddr, SocketAddr};

use codec::{SyslogCutter, syslog_line};
use manager::{ConnectionId, Reason, Time};
use uring::Lease;

use super::Shard;
use super::connections::{Connection, ROUND_SHARE, Role};
use crate::sink::{Level, Sinks};

/// The lines of one shard.
#[derive(Debug)]
pub(super) struct Lines {
    /// The longest that is taken whole.
    pub(super) bytes_max: usize,
    /// Lines of this turn, which the manager has not counted yet.
    pub(super) turn: usize,
    /// Bytes of them.
    pub(super) turn_bytes: u64,
    /// Lines taken over by the sinks.
    pub(super) taken: u64,
    /// Lines of which only the first part was taken.
    pub(super) cut: u64,
    /// The sinks' clock was read in this turn.
    clock_read: bool,
}

/// One device's stream.
#[derive(Debug)]
pub(crate) struct LineStream {
    source: IpAddr,
    cutter: SyslogCutter,
}

impl LineStream {
    pub(super) fn new(source: IpAddr, line_bytes_max: usize) -> LineStream {
        LineStream { source, cutter: SyslogCutter::new(line_bytes_max) }
    }
}

impl Lines {
    pub(super) fn new(bytes_max: usize) -> Lines {
        Lines { bytes_max, turn: 0, turn_bytes: 0, taken: 0, cut: 0, clock_read: false }
    }

    /// Hands one line over.
    fn take(&mut self, sinks: &mut Sinks, source: IpAddr, line: &[u8]) {
        if !std::mem::replace(&mut self.clock_read, true) {
            sinks.read_clock();
        }
        sinks.take_line(source, line);
        self.turn += 1;
        self.turn_bytes += line.len() as u64;
        self.taken += 1;
    }

    /// Hands over up to `lines_max` lines that `received` brings. Returns how many bytes that took.
    fn cut(&mut self, sinks: &mut Sinks, stream: &mut LineStream, received: &[u8], lines_max: u32) -> usize {
        let (mut rest, before) = (received, stream.cutter.cut_off());
        for _ in 0..lines_max {
            let Some(line) = stream.cutter.next_line(&mut rest) else { break };
            self.take(sinks, stream.source, line);
        }
        self.cut += stream.cutter.cut_off() - before;
        received.len() - rest.len()
    }
}

impl Shard {
    /// A datagram of an address that may send lines.
    pub(super) fn take_line_datagram(&mut self, from: SocketAddr, ring: usize, lease: Lease, bytes: usize) {
        let end = lease.length() as usize;
        let line = syslog_line(&self.rings[ring].ring.bytes(&lease)[end - bytes..end]);
        match line {
            None => self.manager.record_dropped_from(Reason::EventMalformed, from),
            Some(_) if self.sinks.level() >= Level::Soft => {
                self.manager.record_dropped_from(Reason::SinkFull, from);
            }
            Some(line) => {
                let kept = &line[..line.len().min(self.lines.bytes_max)];
                self.lines.cut += u64::from(kept.len() < line.len());
                self.lines.take(&mut self.sinks, from.ip(), kept);
            }
        }
        self.rings[ring].ring.give_back(lease);
    }

    /// What a device's connection received; kept, as far as it is more than its share of the round or a sink is full.
    pub(super) fn take_line_bytes(&mut self, now: Time, id: ConnectionId, ring: usize, lease: Lease) {
        self.devices.heard(now, id);
        let hard = self.stopping.is_none() && self.sinks.level() == Level::Hard;
        let round = self.tally.rounds;
        let connection = self.connections.find(id).expect("the caller has just found it");
        let left = connection.share_left(round);
        if hard || left == 0 || !connection.held.is_empty() {
            self.hold_lease(id, ring, lease);
            return;
        }
        let Connection { role: Role::Lines(stream), held, taken, .. } = connection else {
            unreachable!("the caller knows it for a device's")
        };
        let (bytes, before) = (self.rings[ring].ring.bytes(&lease), self.lines.turn);
        let used = self.lines.cut(&mut self.sinks, stream, bytes, left);
        held.append(&bytes[used..]);
        *taken += (self.lines.turn - before) as u32;
        self.rings[ring].ring.give_back(lease);
        self.note_over(id);
        self.queue_backlog(id);
    }

    /// Hands over lines of what is kept of a device's connection: its share of a turn, of `bytes_max` at the most.
    pub(super) fn cut_held_lines(&mut self, id: ConnectionId, bytes_max: usize) {
        let connection = self.connections.find(id).expect("the caller has just found it");
        let Connection { role: Role::Lines(stream), held, .. } = connection else {
            unreachable!("the caller knows it for a device's")
        };
        let used = self.lines.cut(&mut self.sinks, stream, held.first(bytes_max), ROUND_SHARE);
        held.remove_first(used);
        self.note_over(id);
    }

    /// A device's connection has ended: what it began is a line, what is still kept of it is lost.
    pub(super) fn end_lines(&mut self, id: ConnectionId) {
        self.devices.close(id);
        let Some(connection) = self.connections.find(id) else { return };
        let Connection { role: Role::Lines(stream), held, .. } = connection else { return };
        let mut lost = 0;
        stream.cutter.cut(held.first(usize::MAX), |_| lost += 1);
        if held.is_empty() {
            let (lines, sinks, source) = (&mut self.lines, &mut self.sinks, stream.source);
            stream.cutter.finish(|line| lines.take(sinks, source, line));
        }
        held.clear();
        if lost > 0 {
            self.manager.record_dropped(Reason::ConnectionClosed, lost);
        }
    }

    /// Counts the lines of the turn as events.
    pub(super) fn count_lines(&mut self) {
        if self.lines.turn == 0 {
            return;
        }
        self.tally.turn_messages += self.lines.turn;
        self.tally.received_bytes += std::mem::take(&mut self.lines.turn_bytes);
        self.manager.record_events(std::mem::take(&mut self.lines.turn) as u64);
        self.lines.clock_read = false;
    }

    /// A connection that brings lines while a sink is over its soft bound is to be paused.
    fn note_over(&mut self, id: ConnectionId) {
        if self.sinks.level() >= Level::Soft {
            self.pressure.over.push(id);
        }
    }
}
