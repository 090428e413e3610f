mod notices;

use std::time::Duration;

use proptest::prelude::*;

use codec::{AgentId, Counter, Envelope, FrameCutter, KeyFile, Method, OpenSettings, ToAgent};

mod limits;

use super::*;
use crate::replay::ReplayPolicy;
use crate::settings::CryptoAccept;
use crate::table::CounterSeed;
use crate::verdict::ControlKind;
use crate::{NotSent, RETURN_PATH_LIFETIME};

const KEYS: &str = "001 one any key-one\n002 two 192.0.2.2 key-two\n003 three 198.51.100.0/24 key-three\n";
const STARTUP: &[u8] = b"#!-agent startup ";
const EVENT: &[u8] = b"1:/var/log/messages:an event";
const ACK: &[u8] = b"#!-agent ack ";

/// One manager, the agents' sealer, and what the sink took.
struct Bench {
    manager: Manager,
    sealer: Sealer,
    now: Time,
    sink: Sink,
    /// The next message's counter, of any agent.
    counter: Counter,
    /// What was told about agents, by their ids.
    notices: Vec<(String, Notice)>,
}

#[derive(Default)]
struct Sink {
    is_full: bool,
    events: Vec<(String, Vec<u8>)>,
    verdicts: Vec<Verdict>,
}

impl Publish for Sink {
    fn publish(&mut self, event: &Published<'_>) -> Result<(), SinkFull> {
        if self.is_full && event.transport == Transport::Udp {
            return Err(SinkFull);
        }
        self.events.push((event.agent.entry().name.to_string(), event.event.rest.to_vec()));
        Ok(())
    }

    fn pass(&mut self, ticket: Ticket) {
        panic!("{ticket:?} of a connection that does not deliver");
    }

    fn verdict(&mut self, index: usize, verdict: Verdict) {
        assert_eq!(index, self.verdicts.len(), "one verdict each, in order");
        self.verdicts.push(verdict);
    }
}

impl Bench {
    fn new(settings: Settings) -> Bench {
        Bench::shard(0, settings, table(KEYS, None))
    }

    fn shard(shard: u8, settings: Settings, table: Arc<AgentTable>) -> Bench {
        let senders = Arc::new(SenderCounter::new(Counter { global: 5, local: 0 }));
        let parts = ManagerParts { settings, shard: ShardId(shard), table, senders, seed: [7; 32] };
        Bench {
            manager: Manager::new(parts),
            sealer: Sealer::new(),
            now: Time::from_seconds(100),
            sink: Sink::default(),
            counter: Counter::ZERO,
            notices: Vec::new(),
        }
    }

    /// A message of the agent `id` under the next counter, as one that sends its id.
    fn seal(&mut self, id: &str, method: Method, text: &[u8]) -> Vec<u8> {
        self.counter = self.counter.next();
        let id: AgentId = id.parse().unwrap();
        let table = Arc::clone(self.manager.table());
        let envelope = Envelope {
            id_prefix: Some(id),
            method,
            random: 1,
            counter: self.counter,
            initialization_vector: [9; 16],
            text,
        };
        let mut message = Vec::new();
        self.sealer.seal(table.by_id(id).unwrap().cipher_key(), &envelope, &mut message).unwrap();
        message
    }

    fn receive(&mut self, batch: &[(Peer, &[u8])]) -> Vec<Verdict> {
        let batch: Vec<_> = batch.iter().map(|(peer, bytes)| Incoming { peer: *peer, bytes }).collect();
        self.sink.verdicts.clear();
        self.manager.receive(self.now, &batch, &mut self.sink);
        assert_eq!(self.sink.verdicts.len(), batch.len());
        self.sink.verdicts.clone()
    }

    fn says(&mut self, peer: Peer, id: &str, text: &[u8]) -> Verdict {
        let message = self.seal(id, Method::Blowfish, text);
        self.receive(&[(peer, &message)])[0]
    }

    fn connect(&mut self, slot: u32) -> Peer {
        assert_eq!(self.manager.on_connected(self.now, id(slot), from(9, 1_000)), Admission::Admit);
        Peer::Connection(id(slot))
    }

    /// What the manager wants done; what it tells about agents goes to `notices`.
    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.manager.next_action() {
            match action {
                Action::Notice { agent, notice } => self.notices.push((agent.to_string(), notice)),
                action @ (Action::Close { .. }
                | Action::Hold { .. }
                | Action::Mail { .. }
                | Action::SendDatagram { .. }
                | Action::SendFrame { .. }) => actions.push(action),
            }
        }
        actions
    }

    /// The only action, which sends something to the agent: the opened text and its method.
    fn only_answer(&mut self, agent: &str) -> (Method, Vec<u8>) {
        let actions = self.actions();
        let [action] = &actions[..] else { panic!("{actions:?}") };
        self.opened(agent, action)
    }

    fn opened(&self, agent: &str, action: &Action) -> (Method, Vec<u8>) {
        let message = match action {
            Action::SendDatagram { bytes, .. } => bytes.to_vec(),
            Action::SendFrame { bytes, .. } => {
                let mut frames = Vec::new();
                FrameCutter::new(1_024).cut(bytes, &mut frames).unwrap();
                assert_eq!(frames.len(), 1);
                bytes[codec::FRAME_HEADER_BYTES..].to_vec()
            }
            Action::Close { .. } | Action::Hold { .. } | Action::Mail { .. } | Action::Notice { .. } => {
                panic!("{action:?}")
            }
        };
        let key = self.manager.table().by_id(agent.parse().unwrap()).unwrap().cipher_key();
        let mut opener = Opener::new(OpenSettings::default());
        let opened = opener.open(&[Sealed { key, bytes: &message, method_hint: None }]);
        let opened = opened.get(0).unwrap();
        assert!(opened.counter > Counter { global: 5, local: 0 }, "the agent must see it grow");
        (opened.method, opened.text.to_vec())
    }
}

fn table(keys: &str, previous: Option<&AgentTable>) -> Arc<AgentTable> {
    Arc::new(AgentTable::build(KeyFile::parse(keys.as_bytes()).entries, previous, &CounterSeed::new()))
}

fn id(slot: u32) -> ConnectionId {
    ConnectionId { slot, generation: 1 }
}

fn from(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

fn udp(host: u8) -> Peer {
    Peer::Datagram(from(host, 1_000))
}

fn dropped(reason: Reason) -> Verdict {
    Verdict::Dropped(reason)
}

fn closes(slot: u32, reason: CloseReason) -> Action {
    Action::Close { connection: id(slot), reason }
}

#[test]
fn every_method_is_answered_in_kind() {
    for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
        for (text, kind) in
            [(STARTUP, ControlKind::Startup), (b"#!-Linux web01\nx merged.mg\n", ControlKind::KeepAlive)]
        {
            let mut bench = Bench::new(Settings::default());
            let connection = bench.connect(0);
            for peer in [udp(7), connection] {
                let message = bench.seal("001", method, text);
                assert_eq!(bench.receive(&[(peer, &message)]), [Verdict::Control(kind)]);
                assert_eq!(bench.only_answer("001"), (method, ACK.to_vec()));
            }
        }
    }
}

#[test]
fn whose_message_was_dropped_last_is_known() {
    let mut bench = Bench::new(Settings::default());
    let connection = bench.connect(3);
    assert_eq!(bench.receive(&[(udp(7), b"hello")]), [dropped(Reason::Malformed)]);
    assert_eq!(bench.says(connection, "001", b"no queue"), dropped(Reason::EventMalformed));
    let last = |reason: Reason| bench.manager.dropped_last()[reason.index()];
    assert_eq!(last(Reason::Malformed), Some(DroppedFrom { from: from(7, 1_000), agent: None }));
    let agent = last(Reason::EventMalformed).and_then(|last| last.agent);
    assert_eq!(agent.map(|id| id.to_string()).as_deref(), Some("001"));
    assert_eq!(last(Reason::WrongKey), None);
}

#[test]
fn control_messages_without_answer() {
    for (text, verdict) in [
        (&b"#!-agent shutdown "[..], Verdict::Control(ControlKind::Shutdown)),
        (b"#!-req 12 ok", Verdict::Control(ControlKind::RequestAnswer)),
        (b"#!-something else", Verdict::Control(ControlKind::Unknown)),
        (b"#!-req ", dropped(Reason::ControlMalformed)),
    ] {
        let mut bench = Bench::new(Settings::default());
        assert_eq!(bench.says(udp(7), "001", text), verdict);
        assert_eq!(bench.actions(), []);
    }
}

#[test]
fn pings_are_answered_on_the_same_transport() {
    let mut bench = Bench::new(Settings::default());
    let connection = bench.connect(3);
    assert_eq!(
        bench.receive(&[(udp(7), b"#ping"), (connection, b"#ping")]),
        [Verdict::Control(ControlKind::Ping); 2]
    );
    let pong = |bytes: &'static [u8]| bytes.into();
    let datagram = Action::SendDatagram { to: from(7, 1_000), bytes: pong(b"#pong") };
    let frame = Action::SendFrame { connection: id(3), bytes: pong(b"\x05\0\0\0#pong") };
    assert_eq!(bench.actions(), [datagram, frame]);
    assert_eq!(bench.manager.counters().authenticated, 0, "a ping proves nothing");
}

#[test]
fn what_is_dropped_and_why() {
    let mut bench = Bench::new(Settings::default());
    let good = bench.seal("001", Method::Blowfish, EVENT);
    let of_two = bench.seal("002", Method::Blowfish, EVENT);
    let of_three = bench.seal("003", Method::Blowfish, EVENT);
    let without_id = &of_two[b"!002!".len()..];
    let swapped_id = [b"!001!", without_id].concat();
    let unknown_id = [b"!009!", without_id].concat();
    let cut = &good[..good.len() - 1];
    for (peer, bytes, verdict) in [
        (udp(7), &b""[..], dropped(Reason::Malformed)),
        (udp(7), b"hello", dropped(Reason::Malformed)),
        (udp(7), cut, dropped(Reason::Malformed)),
        (udp(7), &unknown_id, dropped(Reason::IdUnknown)),
        (udp(7), &of_three, dropped(Reason::IdAddress)),
        (udp(7), without_id, dropped(Reason::AddressUnknown)),
        (udp(7), &swapped_id, dropped(Reason::WrongKey)),
        (Peer::Connection(id(5)), &good, dropped(Reason::ConnectionClosed)),
        (udp(2), without_id, Verdict::Event),
        (udp(2), without_id, dropped(Reason::CounterDuplicate)),
        (Peer::Datagram("[::ffff:198.51.100.1]:1".parse().unwrap()), &of_three, Verdict::Event),
        (udp(7), &good, Verdict::Event),
        (udp(7), &good, dropped(Reason::CounterDuplicate)),
    ] {
        assert_eq!(bench.receive(&[(peer, bytes)]), [verdict], "{peer:?} {bytes:?}");
    }
    for (text, reason) in
        [(&b"no queue"[..], Reason::EventMalformed), (b"1:keepalive and filler", Reason::KeepAliveFiller)]
    {
        assert_eq!(bench.says(udp(7), "001", text), dropped(reason));
    }
    let counters = bench.manager.counters().clone();
    assert_eq!((counters.received, counters.events, counters.dropped(Reason::CounterDuplicate)), (15, 3, 2));
    bench.manager.record_dropped(Reason::Kernel, 10);
    assert_eq!(bench.manager.counters().received, 25);
    assert!(bench.manager.counters().balanced());
    let of: Vec<&str> = bench.sink.events.iter().map(|(name, _)| &**name).collect();
    assert_eq!(of, ["two", "three", "one"]);
}

#[test]
fn crypto_accept_uses_no_counter_up() {
    let mut bench = Bench::new(Settings { crypto_accept: CryptoAccept::Aes, ..Settings::default() });
    let blowfish = bench.seal("001", Method::Blowfish, EVENT);
    assert_eq!(bench.receive(&[(udp(7), &blowfish)]), [dropped(Reason::MethodNotAccepted)]);
    assert_eq!(
        bench.manager.table().by_id("001".parse().unwrap()).unwrap().state().replay().highest(),
        Counter::ZERO
    );
    let aes = bench.seal("001", Method::AesOssec, EVENT);
    assert_eq!(bench.receive(&[(udp(7), &aes)]), [Verdict::Event]);
}

/// A datagram that found the sink full is lost once: its copy is a duplicate, whatever the sink has become.
#[test]
fn other_settings_count_for_the_next_message() {
    let mut bench = Bench::new(Settings::default());
    let peer = bench.connect(1);
    assert_eq!(bench.says(peer, "001", b"1:a:one"), Verdict::Event);
    let wanted = Settings {
        crypto_accept: CryptoAccept::Aes,
        connections_max: 1,
        message_bytes_max: 6_144,
        ..Settings::default()
    };
    bench.manager.on_settings(wanted.clone());
    assert_eq!(bench.says(peer, "001", b"1:a:two"), dropped(Reason::MethodNotAccepted));
    let stays = Settings::default();
    let expected = Settings {
        connections_max: stays.connections_max,
        message_bytes_max: stays.message_bytes_max,
        ..wanted
    };
    assert_eq!(*bench.manager.settings(), expected);
}

#[test]
fn a_full_sink_uses_the_counter_up_and_answers_control() {
    for replay in [ReplayPolicy::Strict, ReplayPolicy::Window] {
        let mut bench = Bench::new(Settings { replay, ..Settings::default() });
        let message = bench.seal("001", Method::Blowfish, EVENT);
        bench.sink.is_full = true;
        assert_eq!(bench.receive(&[(udp(7), &message)]), [dropped(Reason::SinkFull)]);
        assert_eq!(bench.says(udp(7), "001", STARTUP), Verdict::Control(ControlKind::Startup));
        assert_eq!(bench.actions().len(), 1, "acknowledged at once");
        let connection = bench.connect(0);
        assert_eq!(
            bench.says(connection, "001", EVENT),
            Verdict::Event,
            "a connection's event is always taken"
        );
        bench.sink.is_full = false;
        assert_eq!(bench.receive(&[(udp(7), &message)]), [dropped(Reason::CounterDuplicate)]);
    }
}

#[test]
fn a_newer_connection_replaces_the_old_one_at_once() {
    let mut bench = Bench::new(Settings::default());
    let (old, new) = (bench.connect(0), bench.connect(1));
    assert_eq!(bench.says(old, "001", STARTUP), Verdict::Control(ControlKind::Startup));
    bench.actions();
    // In one batch: the new one's start-up, then something that was still on its way on the old one.
    let startup = bench.seal("001", Method::AesWazuh, STARTUP);
    let late = bench.seal("001", Method::AesWazuh, EVENT);
    let verdicts = bench.receive(&[(new, &startup), (old, &late)]);
    assert_eq!(verdicts, [Verdict::Control(ControlKind::Startup), dropped(Reason::ConnectionClosed)]);
    let actions = bench.actions();
    assert_eq!(actions[0], closes(0, CloseReason::Overtaken));
    assert!(matches!(actions[1], Action::SendFrame { connection, .. } if connection == id(1)));
    bench.manager.on_closed(id(0));
    let counters = bench.manager.counters();
    assert_eq!(
        (counters.connections, counters.closed(CloseReason::Overtaken), counters.closed(CloseReason::Peer)),
        (1, 1, 0)
    );
}

#[test]
fn a_newer_connection_on_another_shard_sends_mail() {
    let table = table(KEYS, None);
    let mut here = Bench::shard(0, Settings::default(), Arc::clone(&table));
    let mut there = Bench::shard(1, Settings::default(), table);
    let (old, new) = (here.connect(4), there.connect(0));
    here.says(old, "001", STARTUP);
    here.actions();
    there.counter = here.counter;
    there.says(new, "001", STARTUP);
    assert_eq!(there.actions()[0], Action::Mail { shard: ShardId(0), connection: id(4) });
    here.manager.close_mail(id(4));
    assert_eq!(here.actions(), [closes(4, CloseReason::Overtaken)]);
    let owner = here.manager.table().by_id("001".parse().unwrap()).unwrap().state().owner();
    assert_eq!(
        owner.map(|owner| owner.shard),
        Some(ShardId(1)),
        "the late close does not take the owner away"
    );
    here.manager.close_mail(id(4));
    assert_eq!(here.actions(), [], "mail about what is gone is harmless");
}

#[test]
fn a_connection_belongs_to_one_agent() {
    let mut bench = Bench::new(Settings::default());
    let connection = bench.connect(0);
    bench.says(connection, "001", EVENT);
    let keys = "001 one any key-one\n002 two any key-two\n";
    bench.manager.on_keys(table(keys, Some(&Arc::clone(bench.manager.table()))));
    assert_eq!(bench.says(connection, "002", EVENT), dropped(Reason::ConnectionAgent));
    assert_eq!(bench.says(connection, "001", EVENT), Verdict::Event);
}

#[test]
fn keys_change_under_connections() {
    let mut bench = Bench::new(Settings::default());
    let keys = "001 one any key-one\n002 two any key-two\n003 three any key-three\n004 four any key-four\n";
    bench.manager.on_keys(table(keys, None));
    for (slot, agent) in ["001", "002", "003", "004"].into_iter().enumerate() {
        let connection = bench.connect(slot as u32);
        bench.says(connection, agent, STARTUP);
    }
    bench.connect(9);
    bench.actions();
    let keys = "004 four any key-four\n003 three 203.0.113.1 key-three\n002 two any re-keyed\n005 five any key-five\n";
    let before = Arc::clone(bench.manager.table());
    bench.manager.on_keys(table(keys, Some(&before)));
    let gone = CloseReason::KeyRemoved;
    assert_eq!(bench.actions(), [closes(0, gone), closes(1, gone), closes(2, gone)]);
    assert_eq!(
        bench.says(Peer::Connection(id(3)), "004", EVENT),
        Verdict::Event,
        "unchanged, at another index"
    );
    assert_eq!(bench.manager.counters().connections, 2, "the unauthenticated one stays too");
    assert_eq!(before.by_id("001".parse().unwrap()).unwrap().state().owner(), None);
}

#[test]
fn deadlines_close() {
    let mut bench = Bench::new(Settings { silent_deadline: Duration::from_secs(60), ..Settings::default() });
    let connection = bench.connect(0);
    bench.connect(1);
    bench.says(connection, "001", STARTUP);
    bench.actions();
    assert_eq!(bench.manager.next_timeout(), Some(bench.now + Duration::from_secs(10)));
    bench.now = bench.now + Duration::from_secs(10);
    bench.receive(&[(connection, b"garbage keeps nothing alive")]);
    bench.manager.on_timeout(bench.now);
    assert_eq!(bench.actions(), [closes(1, CloseReason::Unauthenticated)]);
    bench.manager.on_timeout(bench.now + Duration::from_secs(50));
    assert_eq!(bench.actions(), [closes(0, CloseReason::Silent)]);
    assert_eq!(bench.manager.next_timeout(), None);
}

#[test]
fn a_fleet_that_is_due_at_once_is_served_in_parts() {
    let settings = Settings { unauthenticated_per_address_max: 1_000, ..Settings::default() };
    let mut bench = Bench::new(settings);
    for slot in 0..600 {
        bench.connect(slot);
    }
    let due = bench.now + Duration::from_secs(10);
    for closed in [DUE_AT_ONCE_MAX, DUE_AT_ONCE_MAX, 600 - 2 * DUE_AT_ONCE_MAX] {
        assert_eq!(bench.manager.next_timeout(), Some(due));
        bench.manager.on_timeout(due);
        assert_eq!(bench.actions().len(), closed);
    }
    assert_eq!(bench.manager.next_timeout(), None);
}

#[test]
fn a_bad_frame_closes() {
    let mut bench = Bench::new(Settings::default());
    bench.connect(0);
    bench.manager.on_bad_frame(id(0), FrameError { length: u32::MAX, limit: 65_536 });
    assert_eq!(bench.actions(), [closes(0, CloseReason::BadFrame)]);
    assert_eq!(bench.manager.counters().dropped(Reason::FrameLength), 1);
}

#[test]
fn paused_agents_hear_that_the_manager_lives() {
    let mut bench = Bench::new(Settings::default());
    bench.manager.on_keys(table("001 one any key-one\n002 two any key-two\n", None));
    let (greeted, fresh) = (bench.connect(0), bench.connect(1));
    bench.says(greeted, "001", STARTUP);
    bench.says(fresh, "002", EVENT);
    assert_eq!(bench.actions().len(), 1);
    for slot in [0, 1] {
        bench.manager.on_paused(bench.now, id(slot));
    }
    for _ in 0..300 {
        bench.now = bench.now + Duration::from_secs(10);
        bench.manager.on_timeout(bench.now);
        assert_eq!(bench.only_answer("001").1, ACK, "and nothing to the one that waits for its first");
    }
    for slot in [0, 1] {
        bench.manager.on_resumed(bench.now, id(slot));
    }
    bench.manager.on_timeout(bench.now + Duration::from_secs(60));
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.manager.counters().acknowledged_unasked, 300);
}

/// It counts acknowledgements to know what was read.
#[test]
fn a_paused_agent_whose_offer_was_not_taken_hears_no_acknowledgement_that_it_did_not_ask_for() {
    let mut bench = Bench::new(Settings::default());
    bench.manager.on_keys(table("001 one any key-one\n", None));
    let peer = bench.connect(0);
    bench.says(peer, "001", b"#!-agent startup delivery 1 00000000000000fe 7");
    assert_eq!(bench.only_answer("001").1, ACK);
    bench.manager.on_paused(bench.now, id(0));
    bench.now = bench.now + Duration::from_secs(10);
    bench.manager.on_timeout(bench.now);
    assert_eq!(bench.only_answer("001").1, b"#!-ringmaster taken 0");
}

#[test]
fn sending_to_agents() {
    let order = ToAgent::ActiveResponse(b"restart - null");
    let one: AgentId = "001".parse().unwrap();
    let mut bench = Bench::new(Settings::default());
    assert_eq!(bench.manager.send(bench.now, "9".parse().unwrap(), &order), Err(NotSent::AgentUnknown));
    assert_eq!(bench.manager.send(bench.now, one, &order), Err(NotSent::Away));
    bench.says(udp(7), "001", EVENT);
    assert_eq!(bench.manager.send(bench.now, one, &order), Err(NotSent::Away), "an event is no return path");
    bench.says(udp(7), "001", STARTUP);
    bench.actions();
    assert_eq!(bench.manager.send(bench.now, one, &order), Ok(()));
    assert_eq!(bench.only_answer("001").1, b"#!-execd restart - null");
    let noise: Vec<u8> = (0..2_000u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    assert_eq!(bench.manager.send(bench.now, one, &ToAgent::ActiveResponse(&noise)), Err(NotSent::TooLong));
    let later = bench.now + RETURN_PATH_LIFETIME;
    assert_eq!(bench.manager.send(later, one, &order), Err(NotSent::Away));
    let connection = bench.connect(0);
    bench.says(connection, "001", EVENT);
    assert_eq!(
        bench.manager.send(bench.now, one, &order),
        Err(NotSent::Away),
        "never before the acknowledgement"
    );
    bench.says(connection, "001", STARTUP);
    bench.actions();
    assert_eq!(bench.manager.send(later, one, &ToAgent::ActiveResponse(&noise)), Ok(()));
    let mut other = Bench::shard(1, Settings::default(), Arc::clone(bench.manager.table()));
    assert_eq!(other.manager.send(later, one, &order), Err(NotSent::OtherShard(ShardId(0))));
}

proptest! {
    /// Whatever a stranger sends, or makes of a genuine message: one verdict each, sums that balance, no panic, and no
    /// more to do than there was received.
    #[test]
    fn strangers(
        genuine in proptest::collection::vec((0..3usize, 0..3usize, proptest::option::of((0..300usize, 1..=255u8))), 0..8),
        noise in proptest::collection::vec((0..4usize, proptest::collection::vec(any::<u8>(), 0..80)), 0..8),
    ) {
        let mut bench = Bench::new(Settings::default());
        let connection = bench.connect(0);
        let mut batch = Vec::new();
        for (agent, method, damage) in genuine {
            let method = [Method::Blowfish, Method::AesOssec, Method::AesWazuh][method];
            let mut message = bench.seal(["001", "002", "003"][agent], method, EVENT);
            if let Some((place, bits)) = damage {
                let place = place % message.len();
                message[place] ^= bits;
            }
            batch.push((connection, message));
        }
        for (prefix, mut bytes) in noise {
            bytes.splice(0..0, [&b""[..], b"!001!:", b"!001!#AES:", b":"][prefix].iter().copied());
            batch.push((udp(2), bytes));
        }
        let batch: Vec<(Peer, &[u8])> = batch.iter().map(|(peer, bytes)| (*peer, &bytes[..])).collect();
        let verdicts = bench.receive(&batch);
        prop_assert_eq!(verdicts.len(), batch.len());
        prop_assert!(bench.manager.counters().balanced());
        let events = verdicts.iter().filter(|verdict| **verdict == Verdict::Event).count();
        prop_assert_eq!(events, bench.sink.events.len());
        prop_assert!(bench.sink.events.iter().all(|(_, rest)| rest == &EVENT[2..]), "only what was sealed");
        prop_assert!(bench.actions().len() <= batch.len());
    }
}
