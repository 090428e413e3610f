//! With a manager that says itself what it has.

use super::*;

impl Bench {
    /// Connects; the manager agrees.
    fn agree(&mut self) {
        self.start_up();
        self.says(ToAgent::DeliveryAgreed { session: self.offered.unwrap().session });
        self.says(ToAgent::Ack);
        assert_eq!(self.sent(), "K");
        assert!(self.engine.is_acknowledged());
    }

    fn start_up(&mut self) {
        self.engine.on_timeout(self.now);
        self.engine.on_connected(self.now);
        assert_eq!(self.sent(), "S");
    }

    fn says(&mut self, word: ToAgent<'_>) {
        let mut text = Vec::new();
        word.write(&mut text);
        self.hears(&text);
    }

    fn has(&mut self, before: u64) {
        self.says(ToAgent::DeliveryTaken { before });
    }

    fn session(&self) -> u64 {
        self.engine.spool().session().unwrap().get()
    }
}

fn bench() -> Bench {
    Bench::new(Transport::Tcp, spool::Settings::default())
}

#[test]
fn events_go_once_the_manager_says_where_to_begin() {
    let mut bench = bench();
    (0..3).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    bench.agree();
    assert_eq!(bench.offered, Some(DeliveryOffer { session: bench.session(), first: 0 }));
    bench.event(3);
    assert_eq!(bench.sent(), "", "not before that");
    bench.has(0);
    assert_eq!(bench.sent(), "#0 0 1 2 3");
    bench.has(1);
    bench.hears(b"#!-agent ack ");
    bench.now += CONFIRM_AFTER;
    bench.engine.on_timeout(bench.now);
    assert_eq!(
        (bench.records(), bench.sent().as_str()),
        (3, ""),
        "acknowledgements confirm nothing, so none is asked for"
    );
    bench.event(4);
    bench.has(3);
    assert_eq!((bench.records(), bench.sent().as_str()), (2, "4"));
    assert!(!bench.engine.is_settled());
    bench.has(5);
    assert!(bench.engine.is_settled());
    assert_eq!((bench.records(), bench.engine.counters().again), (0, 0));
}

#[test]
fn the_first_word_may_come_before_the_acknowledgement() {
    let mut bench = bench();
    bench.event(0);
    bench.event(1);
    bench.start_up();
    bench.says(ToAgent::DeliveryAgreed { session: bench.offered.unwrap().session });
    bench.has(0);
    assert_eq!(bench.sent(), "");
    bench.says(ToAgent::Ack);
    assert_eq!(bench.sent(), "K #0 0 1");
}

#[test]
fn a_broken_connection_repeats_what_the_manager_does_not_have() {
    let mut bench = bench();
    bench.agree();
    bench.has(0);
    (0..4).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    bench.has(1);
    assert_eq!(bench.sent(), "#0 0 1 2 3");
    bench.engine.on_closed(bench.now);
    bench.deeds();
    bench.agree();
    assert_eq!(bench.offered.unwrap().first, 1);
    bench.event(4);
    bench.has(3);
    assert_eq!(bench.sent(), "#3 3 4");
    assert_eq!(bench.engine.counters().again, 1, "2 has arrived");
}

#[test]
fn another_manager_is_asked_by_keep_alives() {
    let mut bench = bench();
    bench.agree();
    bench.has(0);
    bench.event(0);
    assert_eq!(bench.sent(), "#0 0");
    bench.engine.on_closed(bench.now);
    bench.deeds();
    bench.connect();
    assert!(bench.offered.is_some() && !bench.engine.is_acknowledged());
    assert_eq!(bench.sent(), "K 0");
    // An agreement on something else, or behind the acknowledgement, is none; and then a manager's word means nothing.
    bench.says(ToAgent::DeliveryAgreed { session: bench.session() });
    bench.has(1);
    assert_eq!((bench.records(), bench.engine.is_acknowledged()), (1, false));
    bench.now += CONFIRM_AFTER;
    bench.engine.on_timeout(bench.now);
    bench.hears(b"#!-agent ack ");
    bench.hears(b"#!-agent ack ");
    assert_eq!((bench.sent().as_str(), bench.records()), ("K", 0));
    bench.engine.on_closed(bench.now);
    bench.start_up();
    bench.says(ToAgent::DeliveryAgreed { session: !bench.session() });
    bench.says(ToAgent::Ack);
    bench.event(1);
    assert_eq!(bench.sent(), "K 1");
}

#[test]
fn who_does_not_want_it_does_not_offer_it() {
    let mut bench = Bench::new(Transport::Udp, spool::Settings::default());
    bench.connect();
    assert_eq!((bench.offered, bench.engine.is_acknowledged()), (None, false), "nor does anybody over UDP");
    let Bench { engine, .. } = bench;
    assert_eq!(engine.spool().session(), None);
    let mut bench = super::Bench::new(Transport::Tcp, spool::Settings::default());
    bench.engine.offers = false;
    bench.connect();
    assert_eq!((bench.offered, bench.engine.spool().session()), (None, None));
    bench.event(0);
    assert_eq!(bench.sent(), "K 0");
}

#[test]
fn an_end_asks_what_has_arrived() {
    let mut bench = bench();
    bench.agree();
    bench.engine.finish(bench.now);
    assert!(bench.engine.is_settled(), "nothing was given");
    assert_eq!(bench.sent(), "");
    bench.engine.is_finishing = false;
    bench.has(0);
    bench.event(0);
    bench.engine.finish(bench.now);
    assert_eq!(bench.sent(), "#0 0 K");
    bench.event(1);
    bench.hears(b"#!-agent ack ");
    assert!(!bench.engine.is_settled());
    bench.has(1);
    assert!(bench.engine.is_settled());
    assert_eq!((bench.sent().as_str(), bench.records()), ("", 1), "what came too late stays");
}

#[test]
fn a_clean_end_and_a_kill_keep_the_session() {
    let mut bench = bench();
    bench.agree();
    bench.has(0);
    bench.event(0);
    let session = bench.session();
    // How far it has been forgotten is noted now and then only: the manager knows.
    bench.has(1);
    assert_eq!(bench.records(), 0);
    let mut bench = bench.killed(spool::Settings::default());
    assert_eq!(bench.records(), 1);
    bench.agree();
    assert_eq!(bench.offered, Some(DeliveryOffer { session, first: 0 }));
    bench.event(1);
    bench.has(1);
    assert_eq!(bench.sent(), format!("#{0} 1", 1 + spool::JUMP), "numbers have jumped");
    let Bench { engine, folder, .. } = bench;
    let counters = engine.agent().counters();
    engine.close().2.unwrap();
    let mut bench =
        Bench { said: counters.1, ..Bench::on(folder, Transport::Tcp, spool::Settings::default(), counters) };
    bench.agree();
    assert_eq!(bench.offered, Some(DeliveryOffer { session, first: 1 + spool::JUMP }));
    bench.event(2);
    bench.has(2 + spool::JUMP);
    assert_eq!(bench.sent(), format!("#{0} 2", 2 + spool::JUMP));
}

#[test]
fn a_spool_that_is_a_copy_of_what_it_was_gets_a_new_session() {
    let mut bench = bench();
    (0..5).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    bench.start_up();
    let old = bench.offered.unwrap();
    bench.says(ToAgent::DeliveryAgreed { session: old.session });
    // In the copy that was closed cleanly, numbers ended at 0; that it has grown beyond 3 since does not deceive it.
    bench.has(3);
    bench.says(ToAgent::Ack);
    assert_eq!(bench.deeds(), [Deed::Connect, Deed::Ready, Deed::Disconnect, Deed::Locked, Deed::Connect]);
    assert_eq!(bench.sent(), "");
    bench.start_up();
    assert_eq!(bench.deeds(), [Deed::SessionRenewed]);
    let offer = bench.offered.unwrap();
    assert_ne!(offer.session, old.session);
    assert_eq!((offer.first, offer.session), (0, bench.session()));
    bench.says(ToAgent::DeliveryAgreed { session: offer.session });
    bench.has(0);
    bench.says(ToAgent::Ack);
    assert_eq!(bench.sent(), "K #0 0 1 2 3 4", "and all that it has goes");
    bench.has(u64::MAX);
    assert_eq!(
        (bench.records(), bench.deeds().as_slice()),
        (0, &[Deed::Ready][..]),
        "later words tell of what was given"
    );
}

#[test]
fn a_disk_that_takes_no_session_gets_no_offer() {
    let mut bench = bench();
    let in_the_way = bench.folder.path().join("state.new");
    std::fs::create_dir(&in_the_way).unwrap();
    bench.connect();
    assert!(bench.offered.is_none() && bench.engine.take_trouble().is_some());
    std::fs::remove_dir(&in_the_way).unwrap();
    bench.engine.on_closed(bench.now);
    bench.agree();
    assert_eq!(bench.offered.unwrap().session, bench.session());
}

#[test]
fn what_is_dropped_at_the_bound_leaves_a_gap() {
    let mut bench = Bench::new(Transport::Tcp, small(spool::AtBound::DropOldest));
    bench.agree();
    bench.has(0);
    assert_eq!(bench.event(0), Taken::Kept);
    assert_eq!(bench.sent(), "#0 0");
    // The connection is slow, and nothing is confirmed.
    bench.engine.on_closed(bench.now);
    bench.deeds();
    (1..2_000).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    let dropped = bench.engine.spool().counters().dropped;
    assert!(dropped > 0);
    bench.agree();
    assert_eq!(bench.offered.unwrap().first, dropped);
    bench.has(dropped);
    assert!(bench.sent().starts_with(&format!("#{dropped} {dropped} {} ", dropped + 1)));
    // And again, while what was read is on its way.
    (2_000..4_000).for_each(|number| assert_eq!(bench.event(number), Taken::Kept));
    while !bench.sent().is_empty() {
        bench.engine.pump(bench.now);
    }
    bench.has(4_000);
    assert_eq!(bench.records(), 0);
}

/// What may happen to agent, manager and their connection.
#[derive(Clone, Copy, Debug)]
enum Step {
    Events(u32),
    /// So many messages reach the manager.
    Arrive(usize),
    /// The manager says what it has.
    Word,
    Cut,
    Kill,
}

proptest! {
    // Each case has folders of its own.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A manager by the words of the specification takes each event once and in order, whatever happens.
    #[test]
    fn each_event_arrives_once_and_in_order(steps in prop::collection::vec(prop_oneof![
        (1..20_u32).prop_map(Step::Events),
        (1..40_usize).prop_map(Step::Arrive),
        Just(Step::Word),
        Just(Step::Cut),
        Just(Step::Kill),
    ], 0..60)) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Events(count) => world.events(count),
                Step::Arrive(count) => world.arrive(count),
                Step::Word => world.word(),
                Step::Cut => world.cut(),
                Step::Kill => world = world.kill(),
            }
        }
        world.settle();
    }
}

/// An engine, and a manager by the words of the specification.
struct World {
    bench: Bench,
    events: u32,
    is_connected: bool,
    on_the_way: VecDeque<String>,
    due: Option<u64>,
    /// It has everything before this number; and what that is.
    before: u64,
    has: Vec<u32>,
}

impl World {
    fn new() -> World {
        let bench = Bench::new(Transport::Tcp, small_segments());
        World {
            bench,
            events: 0,
            is_connected: false,
            on_the_way: VecDeque::new(),
            due: None,
            before: 0,
            has: Vec::new(),
        }
    }

    fn events(&mut self, count: u32) {
        for _ in 0..count {
            assert_eq!(self.bench.event(self.events), Taken::Kept);
            self.events += 1;
        }
    }

    fn arrive(&mut self, count: usize) {
        if !std::mem::replace(&mut self.is_connected, true) {
            self.bench.deeds();
            self.bench.agree();
            self.before = self.before.max(self.bench.offered.unwrap().first);
            self.bench.has(self.before);
        }
        for _ in 0..count {
            let sent = self.bench.sent();
            self.on_the_way.extend(sent.split_ascii_whitespace().map(str::to_owned));
            let Some(message) = self.on_the_way.pop_front() else { return };
            if let Some(number) = message.strip_prefix('#') {
                let number = number.parse().unwrap();
                assert!(self.due.is_none_or(|due| due <= number), "it goes back");
                self.due = Some(number);
            } else if let Ok(event) = message.parse() {
                let number = self.due.unwrap();
                self.due = Some(number + 1);
                if number >= self.before {
                    self.has.push(event);
                    self.before = number + 1;
                }
            }
        }
    }

    fn word(&mut self) {
        if self.is_connected {
            self.bench.has(self.before);
        }
    }

    fn cut(&mut self) {
        if self.is_connected {
            self.gone();
            self.bench.engine.on_closed(self.bench.now);
        }
    }

    fn kill(mut self) -> World {
        self.gone();
        World { bench: self.bench.killed(small_segments()), ..self }
    }

    fn gone(&mut self) {
        self.is_connected = false;
        self.on_the_way.clear();
        self.due = None;
    }

    fn settle(mut self) {
        self.arrive(usize::MAX);
        self.word();
        assert_eq!(self.has, Vec::from_iter(0..self.events));
        assert_eq!(self.bench.records(), 0, "and nothing is kept");
    }
}
