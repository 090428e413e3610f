//! Shards whose sinks take their time, an agent, and a ledger that outlives them.

use std::collections::VecDeque;
use std::sync::Mutex;

use codec::{
    AgentId, Counter, Envelope, FRAME_HEADER_BYTES, KeyFile, Method, OpenSettings, Opener, Sealed, Sealer,
    delivery_next, startup_with_delivery,
};

use super::super::*;
use crate::action::{Action, ShardId};
use crate::delivery::{Ledger, LedgerFull};
use crate::manager::{Admission, Incoming, ManagerParts, SinkFull};
use crate::senders::SenderCounter;
use crate::settings::Settings;
use crate::table::{AgentTable, CounterSeed};
use crate::verdict::ControlKind;

pub(super) const KEYS: &str = "001 one any key-one\n002 two any key-two\n";
pub(super) const KEEP_ALIVE: &[u8] = b"#!-Linux web01\nx merged.mg\n";
pub(super) const SESSION: u64 = 0xabc;
/// The sinks that there are: one of the three is off.
pub(super) const SINKS: SinkSet = SinkSet::NONE.with(0).with(2);

/// A ledger in memory, which outlives its managers as a file does.
#[derive(Debug)]
pub(super) struct Book {
    pub(super) cells: Mutex<Vec<Page>>,
    pub(super) room: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Page {
    pub(super) agent: AgentId,
    pub(super) session: u64,
    pub(super) before: [u64; SINKS_MAX],
}

impl Ledger for Book {
    fn open(&self, agent: AgentId, session: u64, first: u64) -> Result<u32, LedgerFull> {
        let mut cells = self.cells.lock().unwrap();
        let cell = cells.iter().position(|page| page.agent == agent).unwrap_or(cells.len());
        if cell == cells.len() {
            if cell == self.room {
                return Err(LedgerFull);
            }
            cells.push(Page { agent, session, before: [first; SINKS_MAX] });
        }
        let page = &mut cells[cell];
        if page.session != session {
            (page.session, page.before) = (session, [first; SINKS_MAX]);
        }
        page.before = page.before.map(|before| before.max(first));
        Ok(cell as u32)
    }

    fn before(&self, cell: u32, sink: usize) -> u64 {
        self.cells.lock().unwrap()[cell as usize].before[sink]
    }

    fn sinks(&self) -> SinkSet {
        SINKS
    }
}

impl Book {
    pub(super) fn new(room: usize) -> Arc<Book> {
        Arc::new(Book { cells: Mutex::default(), room })
    }

    pub(super) fn note(&self, sink: usize, ticket: Ticket) {
        let before = &mut self.cells.lock().unwrap()[ticket.cell as usize].before[sink];
        assert!(ticket.number >= *before, "sink {sink} had {ticket:?}: {before}");
        *before = ticket.number + 1;
    }
}

/// A shard: its manager, and what its sinks hold. Nothing leaves them by itself.
pub(super) struct Shard {
    pub(super) manager: Manager,
    pub(super) sinks: Sinks,
    pub(super) book: Arc<Book>,
}

/// What each sink holds, in order: the text of an event, or none of what was passed.
#[derive(Default)]
pub(super) struct Sinks {
    pub(super) held: [VecDeque<(Ticket, Option<String>)>; SINKS_MAX],
    pub(super) without_ticket: Vec<String>,
    pub(super) verdicts: Vec<Verdict>,
}

impl Sinks {
    pub(super) fn hold(&mut self, ticket: Ticket, text: Option<&str>) {
        assert!(!ticket.wanted.is_empty());
        for sink in ticket.wanted.iter() {
            self.held[sink].push_back((ticket, text.map(str::to_owned)));
        }
    }
}

impl Publish for Sinks {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        let text = String::from_utf8(event.event.rest.to_vec()).unwrap();
        match event.ticket {
            Some(ticket) => self.hold(ticket, Some(&text)),
            None => self.without_ticket.push(text),
        }
        Ok(())
    }

    fn pass(&mut self, ticket: Ticket) {
        self.hold(ticket, None);
    }

    fn verdict(&mut self, _index: usize, verdict: Verdict) {
        self.verdicts.push(verdict);
    }
}

impl Shard {
    pub(super) fn all(count: u8, settings: &Settings, book: &Arc<Book>) -> Vec<Shard> {
        let table = table();
        let deliveries = Arc::new(Deliveries::new(Box::new(Arc::clone(book))));
        let senders = Arc::new(SenderCounter::new(Counter::ZERO));
        let shard = |number| {
            let mut manager = Manager::new(ManagerParts {
                settings: settings.clone(),
                shard: ShardId(number),
                table: Arc::clone(&table),
                senders: Arc::clone(&senders),
                seed: [number; 32],
            });
            manager.set_deliveries(Some(Arc::clone(&deliveries)));
            Shard { manager, sinks: Sinks::default(), book: Arc::clone(book) }
        };
        (0..count).map(shard).collect()
    }

    pub(super) fn connect(&mut self, now: Time, id: ConnectionId) {
        let from = ([192, 0, 2, 1], 1_514).into();
        assert_eq!(self.manager.on_connected(now, id, from), Admission::Admit);
    }

    pub(super) fn receive(&mut self, now: Time, peer: Peer, message: &[u8]) -> Verdict {
        self.manager.receive(now, &[Incoming { peer, bytes: message }], &mut self.sinks);
        self.sinks.verdicts.pop().unwrap()
    }

    /// One sink gets up to so many of the events that it holds, and notes them; what they were.
    pub(super) fn hand_over(&mut self, now: Time, sink: usize, count: usize) -> Vec<String> {
        let count = count.min(self.sinks.held[sink].len());
        let handed: Vec<_> = self.sinks.held[sink].drain(..count).collect();
        for (ticket, _) in &handed {
            self.book.note(sink, *ticket);
        }
        self.manager.on_sinks_moved(now, handed.iter().map(|(ticket, _)| ticket.cell));
        handed.into_iter().filter_map(|(_, text)| text).collect()
    }

    pub(super) fn hand_all_over(&mut self, now: Time) -> Vec<Vec<String>> {
        SINKS.iter().map(|sink| self.hand_over(now, sink, usize::MAX)).collect()
    }

    /// What the manager does, as texts; what it says to an agent is opened.
    pub(super) fn deeds(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.manager.next_action())
            .filter_map(|action| match action {
                Action::Close { connection, reason } => Some(format!("close {}: {reason}", connection.slot)),
                Action::Mail { shard, connection } => Some(format!("mail {}/{}", shard.0, connection.slot)),
                Action::SendFrame { connection: _, bytes } => Some(opened(&bytes[FRAME_HEADER_BYTES..])),
                Action::SendDatagram { to: _, bytes } => Some(opened(&bytes)),
                Action::Hold { .. } => Some("hold".into()),
                Action::Notice { .. } => None,
            })
            .collect()
    }
}

/// What an agent sends, of either id.
pub(super) struct Pen {
    pub(super) sealer: Sealer,
    pub(super) counter: Counter,
    pub(super) id: &'static str,
}

impl Pen {
    pub(super) fn new(id: &'static str) -> Pen {
        Pen { sealer: Sealer::new(), counter: Counter::ZERO, id }
    }

    pub(super) fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.counter = self.counter.next();
        let id: AgentId = self.id.parse().unwrap();
        let envelope = Envelope {
            id_prefix: Some(id),
            method: Method::Blowfish,
            random: 1,
            counter: self.counter,
            initialization_vector: [0; 16],
            text,
        };
        let mut message = Vec::new();
        self.sealer.seal(table().by_id(id).unwrap().cipher_key(), &envelope, &mut message).unwrap();
        message
    }
}

/// One agent and some shards.
pub(super) struct Bed {
    pub(super) shards: Vec<Shard>,
    pub(super) pen: Pen,
    pub(super) now: Time,
}

impl Bed {
    pub(super) fn new(shards: u8) -> Bed {
        let shards = Shard::all(shards, &Settings::default(), &Book::new(10));
        Bed { shards, pen: Pen::new("001"), now: Time::from_seconds(100) }
    }

    /// A connection that offered; what was answered.
    pub(super) fn offers(&mut self, shard: usize, slot: u32, session: u64, first: u64) -> Vec<String> {
        self.shards[shard].connect(self.now, id(slot));
        assert_eq!(self.says(shard, slot, &offer(session, first)), Verdict::Control(ControlKind::Startup));
        self.shards[shard].deeds()
    }

    pub(super) fn says(&mut self, shard: usize, slot: u32, text: &[u8]) -> Verdict {
        let message = self.pen.seal(text);
        self.shards[shard].receive(self.now, Peer::Connection(id(slot)), &message)
    }

    pub(super) fn next(&mut self, shard: usize, slot: u32, number: u64) {
        let mut text = Vec::new();
        delivery_next(number, &mut text);
        assert_eq!(self.says(shard, slot, &text), Verdict::Control(ControlKind::DeliveryNext));
    }

    pub(super) fn events(&mut self, shard: usize, slot: u32, numbers: std::ops::Range<u64>) {
        for number in numbers {
            assert_eq!(self.says(shard, slot, &event(number)), Verdict::Event, "{number}");
        }
    }

    /// Time passes until the shard wants it no more; what it did, with the milliseconds that had passed.
    pub(super) fn waits(&mut self, shard: usize, duration: Duration) -> Vec<(u64, String)> {
        let (begin, end) = (self.now, self.now + duration);
        let mut done = Vec::new();
        while let Some(due) = self.shards[shard].manager.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.shards[shard].manager.on_timeout(self.now);
            let after = self.now.since(begin).as_millis() as u64;
            done.extend(self.shards[shard].deeds().into_iter().map(|deed| (after, deed)));
        }
        self.now = end;
        done
    }

    pub(super) fn counters(&self, shard: usize) -> &crate::Counters {
        self.shards[shard].manager.counters()
    }
}

pub(super) fn table() -> Arc<AgentTable> {
    static TABLE: std::sync::OnceLock<Arc<AgentTable>> = std::sync::OnceLock::new();
    let build = || {
        let entries = KeyFile::parse(KEYS.as_bytes()).entries;
        Arc::new(AgentTable::build(entries, None, &CounterSeed::new()))
    };
    // The keys only: each test has agents of its own.
    let keys = TABLE.get_or_init(build);
    Arc::new(AgentTable::build(
        keys.agents().iter().map(|agent| agent.entry().clone()).collect(),
        None,
        &CounterSeed::new(),
    ))
}

pub(super) fn opened(message: &[u8]) -> String {
    let table = table();
    let mut opener = Opener::new(OpenSettings::default());
    let text = table.agents().iter().find_map(|agent| {
        let sealed = Sealed { key: agent.cipher_key(), bytes: message, method_hint: None };
        opener.open(&[sealed]).get(0).ok().map(|opened| opened.text.to_vec())
    });
    String::from_utf8(text.expect("it is sealed for one of them")).unwrap()
}

pub(super) fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

pub(super) fn offer(session: u64, first: u64) -> Vec<u8> {
    let mut text = Vec::new();
    startup_with_delivery(DeliveryOffer { session, first }, &mut text);
    text
}

pub(super) fn event(number: u64) -> Vec<u8> {
    format!("1:log:{number}").into_bytes()
}

pub(super) fn texts(numbers: std::ops::Range<u64>) -> Vec<String> {
    numbers.map(|number| format!("log:{number}")).collect()
}

pub(super) fn agreed(session: u64) -> String {
    format!("#!-ringmaster delivery {session:016x}")
}

pub(super) fn taken(before: u64) -> String {
    format!("#!-ringmaster taken {before}")
}

pub(super) const ACK: &str = "#!-agent ack ";

pub(super) fn closes(slot: u32) -> Vec<String> {
    vec![format!("close {slot}: delivery")]
}
