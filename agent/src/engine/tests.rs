use std::net::IpAddr;
use std::sync::Arc;

use codec::{CipherKey, Envelope, FromAgent, Method, OpenSettings, Opener, Sealed, Sealer, ToAgent};
use proptest::prelude::*;

mod acknowledged;

use super::outbox::OUTBOX_BYTES_MAX;
use super::*;
use crate::{AgentSettings, Profile, Transport};

/// An engine, and its manager's pen and glasses.
struct Bench {
    engine: Engine,
    key: Arc<CipherKey>,
    now: Duration,
    said: Counter,
    /// What the last start-up offered.
    offered: Option<DeliveryOffer>,
    folder: tempfile::TempDir,
}

const CONFIRM_AFTER: Duration = Duration::from_secs(5);

impl Bench {
    fn new(transport: Transport, spool_settings: spool::Settings) -> Bench {
        let counters = (Counter::ZERO, Counter::ZERO);
        Bench::on(tempfile::tempdir().unwrap(), transport, spool_settings, counters)
    }

    fn on(
        folder: tempfile::TempDir,
        transport: Transport,
        spool_settings: spool::Settings,
        (sent, taken): (Counter, Counter),
    ) -> Bench {
        let (spool, _) = Spool::open(folder.path(), spool_settings).unwrap();
        let key = Arc::new(CipherKey::new("web", "001", "key"));
        let settings = AgentSettings {
            profile: Arc::new(Profile {
                reconnect_interval: Duration::ZERO,
                ..Profile::ossec(transport, Method::AesOssec)
            }),
            id: "001".parse().unwrap(),
            key: Arc::clone(&key),
            sends_id: false,
            address: IpAddr::from([127, 0, 0, 1]),
            sent,
            taken,
        };
        let agent = Agent::new(settings, Duration::ZERO);
        let delivery = Delivery {
            spool: spool_settings,
            confirm_after: (transport == Transport::Tcp).then_some(CONFIRM_AFTER),
            acknowledged: true,
        };
        let engine = Engine::new(agent, Tools::new([3; 32]), spool, delivery);
        Bench { engine, key, now: Duration::from_secs(1), said: Counter::ZERO, offered: None, folder }
    }

    /// The next life on the same spool, whose last one ended without a word.
    fn killed(self, settings: spool::Settings) -> Bench {
        let Bench { engine, now, said, folder, .. } = self;
        let (sent, taken) = engine.agent().counters();
        drop(engine);
        let next = Bench::on(folder, Transport::Tcp, settings, (sent, taken));
        Bench { now, said, ..next }
    }

    fn event(&mut self, number: u32) -> Taken {
        let taken = self.engine.take(format!("1:a:event {number}\0").as_bytes());
        assert!(self.engine.commit());
        self.engine.pump(self.now);
        taken
    }

    fn hears(&mut self, text: &[u8]) {
        self.said = self.said.next();
        let envelope = Envelope {
            id_prefix: None,
            method: Method::AesOssec,
            random: 0,
            counter: self.said,
            initialization_vector: [5; 16],
            text,
        };
        let mut message = Vec::new();
        Sealer::new().seal(&self.key, &envelope, &mut message).unwrap();
        self.engine.on_message(self.now, &message);
    }

    /// What is sent: events by their numbers, `S` a start-up, `K` a keep-alive, `#` and the number that comes next.
    fn sent(&mut self) -> String {
        let mut opener = Opener::new(OpenSettings::default());
        let key = Arc::clone(&self.key);
        let words: Vec<String> = self
            .engine
            .take_outbox()
            .iter()
            .map(|bytes| {
                let opened = opener.open(&[Sealed { key: &key, bytes, method_hint: None }]);
                let text = String::from_utf8_lossy(opened.get(0).unwrap().text).into_owned();
                match text.strip_prefix("1:a:event ") {
                    Some(number) => number.to_owned(),
                    None => self.word(&text),
                }
            })
            .collect();
        self.engine.on_sent();
        words.join(" ")
    }

    fn word(&mut self, text: &str) -> String {
        match FromAgent::parse(text.as_bytes()) {
            Some(Ok(FromAgent::Startup { delivery, .. })) => {
                self.offered = delivery;
                "S".to_owned()
            }
            Some(Ok(FromAgent::DeliveryNext { number })) => format!("#{number}"),
            Some(Ok(FromAgent::KeepAlive(_))) => "K".to_owned(),
            other => panic!("an agent never says {other:?}"),
        }
    }

    fn deeds(&mut self) -> Vec<Deed> {
        std::iter::from_fn(|| self.engine.next_deed()).collect()
    }

    fn connect(&mut self) {
        self.engine.on_timeout(self.now);
        self.engine.on_connected(self.now);
        assert_eq!(self.sent(), "S");
        self.hears(b"#!-agent ack ");
    }

    fn records(&self) -> u64 {
        self.engine.spool().records()
    }
}

fn small(at_bound: spool::AtBound) -> spool::Settings {
    spool::Settings { bytes_max: 16_384, segment_bytes: 4_096, at_bound, sync: false }
}

#[test]
fn events_are_forgotten_when_the_manager_has_confirmed_them() {
    let mut bench = Bench::new(Transport::Tcp, spool::Settings::default());
    bench.event(1);
    bench.event(2);
    assert_eq!(bench.sent(), "", "nobody is there");
    bench.connect();
    assert_eq!(bench.sent(), "K 1 2");
    assert_eq!(bench.deeds(), [Deed::Connect, Deed::Ready]);
    bench.hears(b"#!-agent ack ");
    assert_eq!(bench.records(), 2, "that keep-alive stood before them");
    bench.now += CONFIRM_AFTER;
    assert_eq!(bench.engine.next_timeout(bench.now), Some(bench.now));
    bench.engine.on_timeout(bench.now);
    assert_eq!(bench.sent(), "K");
    bench.event(3);
    bench.hears(b"#!-agent ack ");
    assert_eq!((bench.records(), bench.sent().as_str()), (1, "3"));
    assert!(!bench.engine.is_settled());
}

#[test]
fn what_a_broken_connection_did_not_confirm_comes_first_on_the_next() {
    let mut bench = Bench::new(Transport::Tcp, spool::Settings::default());
    bench.connect();
    bench.event(1);
    bench.event(2);
    assert_eq!(bench.sent(), "K 1 2");
    bench.engine.on_closed(bench.now);
    assert_eq!(bench.deeds(), [Deed::Connect, Deed::Ready, Deed::Locked, Deed::Connect]);
    bench.event(3);
    assert_eq!(bench.sent(), "");
    bench.engine.on_connected(bench.now);
    assert_eq!(bench.sent(), "S");
    bench.hears(b"#!-agent ack ");
    bench.event(4);
    assert_eq!(bench.sent(), "K 1 2 3 4");
    assert_eq!((bench.engine.counters().again, bench.engine.counters().taken), (2, 4));
}

#[test]
fn over_udp_what_is_sent_is_forgotten_and_bursts_have_pauses() {
    let mut bench = Bench::new(Transport::Udp, spool::Settings::default());
    (0..60).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    bench.connect();
    assert_eq!(bench.sent().split(' ').count(), 51, "a keep-alive and a burst");
    assert_eq!(bench.records(), 10);
    bench.engine.pump(bench.now);
    assert_eq!(bench.sent(), "");
    bench.now = bench.engine.next_timeout(bench.now).unwrap();
    bench.engine.pump(bench.now);
    assert_eq!(bench.sent().split(' ').count(), 10);
    assert_eq!(bench.records(), 0);
}

#[test]
fn a_full_spool_pushes_back_until_there_is_room_and_loses_nothing() {
    let mut bench = Bench::new(Transport::Tcp, small(spool::AtBound::PushBack));
    let mut kept = 0;
    while bench.engine.has_room() {
        assert_eq!(bench.event(kept), Taken::Kept);
        kept += 1;
    }
    while bench.event(kept) == Taken::Kept {
        kept += 1;
    }
    bench.connect();
    let expected: Vec<String> = (0..kept).map(|number| number.to_string()).collect();
    assert_eq!(bench.sent(), format!("K {}", expected.join(" ")));
    assert_eq!(bench.event(kept), Taken::Full, "sent is not confirmed");
    bench.now += CONFIRM_AFTER;
    bench.engine.on_timeout(bench.now);
    bench.hears(b"#!-agent ack ");
    bench.hears(b"#!-agent ack ");
    assert!(bench.engine.has_room());
    assert_eq!(bench.event(kept), Taken::Kept);
    assert_eq!(bench.sent(), format!("K {kept}"));
}

#[test]
fn or_drops_the_oldest_and_counts_them() {
    let mut bench = Bench::new(Transport::Tcp, small(spool::AtBound::DropOldest));
    (0..2_000).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    let dropped = bench.engine.spool().counters().dropped;
    assert_eq!(dropped + bench.records(), 2_000);
    bench.connect();
    assert!(bench.sent().starts_with(&format!("K {dropped} {} ", dropped + 1)));
}

#[test]
fn what_is_on_its_way_has_a_bound() {
    let mut bench = Bench::new(Transport::Tcp, spool::Settings::default());
    (0..5_000).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    bench.connect();
    let first = bench.engine.take_outbox();
    let bytes: usize = first.iter().map(Vec::len).sum();
    assert!((OUTBOX_BYTES_MAX..OUTBOX_BYTES_MAX + 1_000).contains(&bytes), "{bytes}");
    bench.engine.pump(bench.now);
    assert!(bench.engine.has_outbox(), "and goes on when that is sent");
}

/// What may happen, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Collectors send so many.
    Events(u32),
    /// So many of the messages on their way arrive and are answered.
    Arrive(usize),
    Cut,
    Wait,
    /// Killed, and started again.
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..20_u32).prop_map(Step::Events),
        (1..40_usize).prop_map(Step::Arrive),
        Just(Step::Cut),
        Just(Step::Wait),
        Just(Step::Kill),
    ];
    prop::collection::vec(step, 0..60)
}

proptest! {
    // Each case has folders of its own.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, every event arrives, in order but for what is repeated, and nothing that is confirmed is repeated.
    #[test]
    fn nothing_is_lost_and_order_holds_whatever_breaks(steps in steps()) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Events(count) => world.events(count),
                Step::Arrive(count) => world.arrive(count),
                Step::Cut => world.cut(),
                Step::Wait => world.wait(),
                Step::Kill => world = world.kill(),
            }
        }
        world.settle();
    }
}

/// An engine, and a manager that takes what arrives.
struct World {
    bench: Bench,
    events: u32,
    on_the_way: VecDeque<String>,
    is_connected: bool,
    /// The next event that has never arrived, and the next of this connection if one has come.
    next: u32,
    expected: Option<u32>,
    /// Confirmed by the answer to a question behind it.
    confirmed: u32,
}

impl World {
    fn new() -> World {
        let bench = Bench::new(Transport::Tcp, small_segments());
        World {
            bench,
            events: 0,
            on_the_way: VecDeque::new(),
            is_connected: false,
            next: 0,
            expected: None,
            confirmed: 0,
        }
    }

    fn events(&mut self, count: u32) {
        for _ in 0..count {
            assert_eq!(self.bench.event(self.events), Taken::Kept);
            self.events += 1;
        }
    }

    fn wait(&mut self) {
        self.bench.now += CONFIRM_AFTER;
        self.bench.engine.on_timeout(self.bench.now);
        self.follow();
    }

    /// A connection is there as soon as it is wanted.
    fn follow(&mut self) {
        for deed in self.bench.deeds() {
            if matches!(deed, Deed::Connect | Deed::Disconnect) {
                self.on_the_way.clear();
                self.expected = None;
                self.is_connected = deed == Deed::Connect;
            }
            if deed == Deed::Connect {
                self.bench.engine.on_connected(self.bench.now);
            }
        }
    }

    fn arrive(&mut self, count: usize) {
        for _ in 0..count {
            let sent = self.bench.sent();
            self.on_the_way.extend(sent.split_ascii_whitespace().map(str::to_owned));
            let Some(message) = self.on_the_way.pop_front() else { return };
            let Ok(number) = message.parse::<u32>() else {
                self.confirmed = self.expected.unwrap_or(self.confirmed).max(self.confirmed);
                self.bench.hears(b"#!-agent ack ");
                continue;
            };
            match self.expected {
                Some(expected) => assert_eq!(number, expected, "in order"),
                None => assert!(
                    (self.confirmed..=self.next).contains(&number),
                    "{number}: {} are confirmed, {} have arrived",
                    self.confirmed,
                    self.next
                ),
            }
            self.expected = Some(number + 1);
            self.next = self.next.max(number + 1);
        }
    }

    fn cut(&mut self) {
        if std::mem::take(&mut self.is_connected) {
            self.on_the_way.clear();
            self.expected = None;
            self.bench.engine.on_closed(self.bench.now);
            self.follow();
        }
    }

    /// What was not written is gone, and so is what the spool did not note: here, nothing.
    fn kill(self) -> World {
        let World { bench, events, next, confirmed, .. } = self;
        let bench = bench.killed(small_segments());
        let (on_the_way, is_connected, expected) = (VecDeque::new(), false, None);
        World { bench, events, on_the_way, is_connected, next, expected, confirmed }
    }

    fn settle(mut self) {
        for _ in 0..20 {
            self.wait();
            self.arrive(usize::MAX);
        }
        assert_eq!(self.next, self.events, "all have arrived");
        assert_eq!(self.bench.records(), 0, "and all are confirmed");
    }
}

fn small_segments() -> spool::Settings {
    spool::Settings { segment_bytes: 4_096, ..spool::Settings::default() }
}

#[test]
fn what_is_no_event_is_refused() {
    let mut bench = Bench::new(Transport::Tcp, spool::Settings::default());
    let mut check = |datagram: &[u8], expected| assert_eq!(bench.engine.take(datagram), expected);
    check(b"", Taken::Refused(Refusal::Empty));
    check(b"\0x", Taken::Refused(Refusal::Empty));
    check(b"#!-agent startup \0", Taken::Refused(Refusal::Control));
    check(&[b'a'; 6_017], Taken::Refused(Refusal::TooLong));
    check(&[b'a'; 6_016], Taken::Kept);
    check(b"1:a:b\0ignored", Taken::Kept);
    assert_eq!(bench.engine.counters(), Counters { taken: 2, refused: 4, ..Counters::default() });
}
