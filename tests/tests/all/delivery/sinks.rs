//! The manager's sinks and its ledger. What they have outlives it; what waits for them dies with it.
//!
//! The queue socket notes in one step with each hand-over. An archive notes after its write: what a killed manager had
//! written of the last one stands in the file all the same, and the next manager looks for it there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use codec::AgentId;
use manager::{Ledger, LedgerFull, SINKS_MAX, SinkSet, Ticket};
use rand::RngExt;

use super::plan::{CALM, Mutation};
use super::world::{Happening, World};

/// The queue socket.
const QUEUE: usize = 0;

/// What a manager keeps on disk of its agents' deliveries.
#[derive(Debug)]
pub(super) struct Disk {
    sinks: SinkSet,
    cells: Mutex<Vec<Cell>>,
}

#[derive(Clone, Debug)]
pub(super) struct Cell {
    pub(super) agent: AgentId,
    /// How often its agent came with another session.
    pub(super) renewals: u32,
    session: u64,
    before: [u64; SINKS_MAX],
}

/// A manager's way to it.
#[derive(Debug)]
pub(super) struct OnDisk(pub(super) Arc<Disk>);

impl Disk {
    pub(super) fn new(sinks: &[usize]) -> Disk {
        let none = SinkSet::default();
        let sinks = sinks.iter().fold(none, |set, sink| set.with(*sink));
        Disk { sinks, cells: Mutex::default() }
    }

    pub(super) fn sinks(&self) -> SinkSet {
        self.sinks
    }

    pub(super) fn cells(&self) -> Vec<Cell> {
        self.cells.lock().expect("nobody panics with it").clone()
    }

    fn note(&self, sink: usize, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let cells = &mut self.cells.lock().expect("nobody panics with it");
        cells[ticket.cell as usize].before[sink] = ticket.number + 1;
    }
}

impl Ledger for OnDisk {
    fn open(&self, agent: AgentId, session: u64, first: u64) -> Result<u32, LedgerFull> {
        let cells = &mut self.0.cells.lock().expect("nobody panics with it");
        let fresh = Cell { agent, renewals: 0, session, before: [first; SINKS_MAX] };
        let place = cells.iter().position(|cell| cell.agent == agent).unwrap_or_else(|| {
            cells.push(fresh.clone());
            cells.len() - 1
        });
        if cells[place].session != session {
            cells[place] = Cell { renewals: cells[place].renewals + 1, ..fresh };
        }
        cells[place].before = cells[place].before.map(|before| before.max(first));
        Ok(place as u32)
    }

    fn before(&self, cell: u32, sink: usize) -> u64 {
        self.0.cells.lock().expect("nobody panics with it")[cell as usize].before[sink]
    }

    fn sinks(&self) -> SinkSet {
        self.0.sinks
    }
}

/// What waits for the sinks of one shard.
#[derive(Default)]
pub(super) struct Waiting {
    sinks: [Line; SINKS_MAX],
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Entry>,
    /// An archive's write that is under way.
    writing: Vec<Entry>,
    is_due: bool,
}

/// An event, or the place of one that no sink takes.
#[derive(Clone)]
struct Entry {
    /// None where the manager does not agree.
    ticket: Option<Ticket>,
    text: Option<String>,
}

impl Waiting {
    /// Every sink that wants it gets it. `text`: none if there is nothing to take but its number.
    pub(super) fn push(&mut self, ticket: Option<Ticket>, sinks: SinkSet, text: Option<&str>) {
        for sink in sinks.iter() {
            // As the archives' writer does, which writes no line for such a one.
            let text = text.filter(|text| sink == QUEUE || !text.contains("/.."));
            self.sinks[sink].waiting.push_back(Entry { ticket, text: text.map(str::to_owned) });
        }
    }

    /// Events of the longest line.
    pub(super) fn longest(&self) -> usize {
        self.sinks.iter().map(|line| line.waiting.len() + line.writing.len()).max().unwrap_or_default()
    }
}

impl World {
    /// Wakes the sinks of a shard for which something waits.
    pub(super) fn sinks_wake(&mut self, shard: u8) {
        for sink in self.plan.sinks.clone() {
            let Some(line) = self.line(shard, sink) else { return };
            if !line.waiting.is_empty()
                && line.writing.is_empty()
                && !std::mem::replace(&mut line.is_due, true)
            {
                let delay = Duration::from_micros(self.random.random_range(10..30_000));
                let life = self.life;
                self.after(delay, Happening::SinkTakes { life, shard, sink });
            }
        }
    }

    pub(super) fn sink_takes(&mut self, shard: u8, sink: usize) {
        let is_stalled = self.is_stalled(sink);
        let most = self.random.random_range(1..=20);
        let mutation = self.plan.mutation;
        let Some(line) = self.line(shard, sink) else { return };
        line.is_due = false;
        // Its return wakes all.
        if is_stalled {
            return;
        }
        let count = line.waiting.len().min(most);
        let taken: Vec<Entry> = line.waiting.drain(..count).collect();
        if sink == QUEUE {
            self.hand_over(sink, &taken, true);
            self.sink_moved(shard, &taken);
        } else {
            if mutation == Some(Mutation::NoteBefore) {
                taken.iter().for_each(|entry| self.disk.note(sink, entry.ticket));
            }
            self.line(shard, sink).expect("it was there").writing = taken;
            let delay = Duration::from_micros(self.random.random_range(100..150_000));
            let life = self.life;
            self.after(delay, Happening::SinkWritten { life, shard, sink });
        }
    }

    pub(super) fn sink_written(&mut self, shard: u8, sink: usize) {
        if self.is_stalled(sink) {
            let life = self.life;
            let back = self.stalled_until[sink];
            return self.at(back, Happening::SinkWritten { life, shard, sink });
        }
        let Some(line) = self.line(shard, sink) else { return };
        let written = std::mem::take(&mut line.writing);
        self.hand_over(sink, &written, true);
        self.sink_moved(shard, &written);
    }

    fn sink_moved(&mut self, shard: u8, entries: &[Entry]) {
        let cells: Vec<u32> = entries.iter().filter_map(|entry| Some(entry.ticket?.cell)).collect();
        self.with_manager(shard, |manager, now| manager.on_sinks_moved(now, cells.into_iter()));
        self.resume_if_room(shard);
        self.sinks_wake(shard);
    }

    /// Gives events to a sink for good, and notes them.
    fn hand_over(&mut self, sink: usize, entries: &[Entry], is_noted: bool) {
        let mut entries = entries.to_vec();
        let mutation = self.plan.mutation;
        if mutation == Some(Mutation::Swap) && entries.len() > 1 {
            entries.swap(0, 1);
        }
        for Entry { ticket, text } in entries {
            let is_chosen = self.random.random_ratio(1, 30);
            if let Some(text) = text.filter(|_| !(is_chosen && mutation == Some(Mutation::Lose))) {
                self.oracle.handed_over(sink, &text);
                self.handed += 1;
            }
            if is_noted && mutation != Some(Mutation::NoteNot) {
                self.disk.note(sink, ticket);
            }
        }
    }

    /// The manager is killed: of a write that was under way something is in the file. The next one finds and notes that.
    pub(super) fn sinks_killed(&mut self, waiting: &[Waiting]) {
        let is_found = self.plan.mutation != Some(Mutation::NoLook);
        for sink in self.plan.sinks.clone() {
            for waiting in waiting {
                let writing = &waiting.sinks[sink].writing;
                let reached = &writing[..self.random.random_range(0..=writing.len())];
                // What left no line is not seen behind the last one.
                let lines = reached.iter().rposition(|entry| entry.text.is_some()).map_or(0, |last| last + 1);
                self.torn_writes += u32::from(lines > 0);
                self.hand_over(sink, &reached[..lines], is_found);
            }
        }
    }

    /// The manager ends as it should: what the sinks still take is taken.
    pub(super) fn sinks_drained(&mut self, waiting: Vec<Waiting>) {
        for waiting in waiting {
            for (sink, line) in waiting.sinks.into_iter().enumerate() {
                if !self.is_stalled(sink) {
                    let rest: Vec<Entry> = line.writing.into_iter().chain(line.waiting).collect();
                    self.hand_over(sink, &rest, true);
                }
            }
        }
    }

    /// A sink takes nothing for a while, whichever manager has it.
    pub(super) fn sink_stalls(&mut self) {
        let sink = self.plan.sinks[self.random.random_range(0..self.plan.sinks.len())];
        let back = self.now + Duration::from_millis(self.random.random_range(1..6_000));
        self.stalled_until[sink] = back.min(CALM);
        self.at(self.stalled_until[sink], Happening::SinkBack);
    }

    fn is_stalled(&self, sink: usize) -> bool {
        self.now < self.stalled_until[sink]
    }

    fn line(&mut self, shard: u8, sink: usize) -> Option<&mut Line> {
        let process = self.process.as_mut()?;
        Some(&mut process.shards[usize::from(shard)].waiting.sinks[sink])
    }
}
