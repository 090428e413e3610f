//! After warm-up an event costs no allocation: not for opening it, not for deciding on it, not for whatever it is refused for.

use std::net::SocketAddr;
use std::sync::Arc;

use codec::{AgentId, Counter, Envelope, KeyFile, Method, Sealer};
use manager::{
    AgentTable, ConnectionId, CounterSeed, Deliveries, Incoming, Ledger, LedgerFull, Manager, ManagerParts,
    Peer, Publish, Published, SenderCounter, Settings, ShardId, SinkFull, SinkSet, Ticket, Time, Verdict,
};

const BATCH: usize = 64;

#[derive(Default)]
struct Sink {
    events: usize,
    numbered: u64,
    dropped: usize,
}

impl Publish for Sink {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        self.events += event.event.rest.len().min(1);
        if let Some(ticket) = event.ticket {
            assert_eq!(ticket.number, self.numbered, "each one more");
            self.numbered += 1;
        }
        Ok(())
    }

    fn pass(&mut self, _ticket: Ticket) {}

    fn verdict(&mut self, _index: usize, verdict: Verdict) {
        self.dropped += usize::from(matches!(verdict, Verdict::Dropped(_)));
    }
}

#[test]
fn receiving_allocates_nothing_after_warm_up() {
    for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
        let keys = KeyFile::parse(b"001 one any key-one\n002 two any key-two\n").entries;
        let table = Arc::new(AgentTable::build(keys, None, &CounterSeed::new()));
        let mut manager = Manager::new(ManagerParts {
            settings: Settings::default(),
            shard: ShardId(0),
            table: Arc::clone(&table),
            senders: Arc::new(SenderCounter::new(Counter::ZERO)),
            seed: [1; 32],
        });
        let mut sealer = Sealer::new();
        let mut counter = Counter::ZERO;
        let mut sink = Sink::default();
        for round in 0..3 {
            let messages = batch(&table, &mut sealer, method, &mut counter);
            let from: SocketAddr = ([192, 0, 2, 1], 1_514).into();
            let incoming: Vec<_> =
                messages.iter().map(|bytes| Incoming { peer: Peer::Datagram(from), bytes }).collect();
            let counted = allocation_counter::measure(|| {
                manager.receive(Time::from_seconds(round), &incoming, &mut sink);
            });
            assert!(round < 1 || counted.count_total == 0, "{method:?}, round {round}: {counted:?}");
        }
        assert_eq!((sink.events, sink.dropped), (3 * BATCH, 3 * 4), "{method:?}");
    }
}

/// A ledger of one agent, whose sinks never have anything.
#[derive(Debug)]
struct Nothing;

impl Ledger for Nothing {
    fn open(&self, _agent: AgentId, _session: u64, _first: u64) -> Result<u32, LedgerFull> {
        Ok(0)
    }

    fn before(&self, _cell: u32, _sink: usize) -> u64 {
        0
    }

    fn sinks(&self) -> SinkSet {
        SinkSet::NONE.with(0)
    }
}

#[test]
fn an_event_of_acknowledged_delivery_allocates_nothing_either() {
    let keys = KeyFile::parse(b"001 one any key-one\n").entries;
    let table = Arc::new(AgentTable::build(keys, None, &CounterSeed::new()));
    let mut manager = Manager::new(ManagerParts {
        settings: Settings::default(),
        shard: ShardId(0),
        table: Arc::clone(&table),
        senders: Arc::new(SenderCounter::new(Counter::ZERO)),
        seed: [1; 32],
    });
    manager.set_deliveries(Some(Arc::new(Deliveries::new(Box::new(Nothing)))));
    let connection = ConnectionId { slot: 0, generation: 1 };
    let _admitted = manager.on_connected(Time::ZERO, connection, ([192, 0, 2, 1], 1_514).into());
    let (mut sealer, mut counter, mut sink) = (Sealer::new(), Counter::ZERO, Sink::default());
    let mut texts = vec![Vec::new(), Vec::new()];
    codec::startup_with_delivery(codec::DeliveryOffer { session: 1, first: 0 }, &mut texts[0]);
    codec::delivery_next(0, &mut texts[1]);
    for round in 0..3 {
        texts.extend((0..BATCH).map(|number| format!("1:log:event {round} {number}").into_bytes()));
        let mut seal = |text: Vec<u8>| {
            counter = counter.next();
            let mut message = Vec::new();
            let envelope = Envelope {
                id_prefix: Some(table.agents()[0].entry().id),
                method: Method::AesOssec,
                random: 7,
                counter,
                initialization_vector: [3; 16],
                text: &text,
            };
            sealer.seal(table.agents()[0].cipher_key(), &envelope, &mut message).expect("the text is short");
            message
        };
        let messages: Vec<_> = texts.drain(..).map(&mut seal).collect();
        let peer = Peer::Connection(connection);
        let incoming: Vec<_> = messages.iter().map(|bytes| Incoming { peer, bytes }).collect();
        let counted = allocation_counter::measure(|| {
            manager.receive(Time::from_seconds(round), &incoming, &mut sink);
        });
        assert!(round < 1 || counted.count_total == 0, "round {round}: {counted:?}");
        while manager.next_action().is_some() {}
    }
    assert_eq!((sink.numbered, sink.dropped), (3 * BATCH as u64, 0));
}

/// A batch of events that were not sent before, and between them what nobody should send.
fn batch(table: &AgentTable, sealer: &mut Sealer, method: Method, counter: &mut Counter) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for number in 0..BATCH {
        *counter = counter.next();
        let agent = &table.agents()[number % 2];
        let text = format!("1:/var/log/messages:event {counter} says {}", "something ".repeat(number % 20));
        let envelope = Envelope {
            id_prefix: Some(agent.entry().id),
            method,
            random: 7,
            counter: *counter,
            initialization_vector: [3; 16],
            text: text.as_bytes(),
        };
        let mut message = Vec::new();
        sealer.seal(agent.cipher_key(), &envelope, &mut message).expect("the text is short");
        messages.push(message);
    }
    let copy = messages[0].clone();
    let cut = messages[1][..40].to_vec();
    messages.extend([copy, cut, b"hello".to_vec(), b"!003!:12345678".to_vec()]);
    messages
}
