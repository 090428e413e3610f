//! After warm-up an event costs no allocation: not for opening it, not for deciding on it, not for whatever it is refused for.

use std::net::SocketAddr;
use std::sync::Arc;

use codec::{Counter, Envelope, KeyFile, Method, Sealer};
use manager::{
    AgentTable, CounterSeed, Incoming, Manager, ManagerParts, Peer, Publish, Published, SenderCounter,
    Settings, ShardId, SinkFull, Ticket, Time, Verdict,
};

const BATCH: usize = 64;

#[derive(Default)]
struct Sink {
    events: usize,
    dropped: usize,
}

impl Publish for Sink {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        self.events += event.event.rest.len().min(1);
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
