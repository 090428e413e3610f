//! Acknowledged delivery: what is agreed and confirmed, what is dropped when it comes again, and each event once in each sink
//! whatever kills the program.

use std::{
    fs, io,
    os::unix::net::UnixDatagram,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use codec::{DeliveryOffer, Method, ToAgent, delivery_next, startup_with_delivery};

use crate::{
    agent::{ACK, Agent, Tcp, framed},
    program::{PATIENCE, Program, TestHome},
};

const WEB: &str = "001 web any 0123456789abcdef";
const SESSION: u64 = 0x00c0_ffee;
const QUEUE: &str = "[sink.queue]\nenabled = true\n[sink.archives]\ntext = false\n";
const ALL: &str = "[sink.queue]\nenabled = true\n[sink.archives]\ntext = true\njson = true\n";
const KEEP_ALIVE: &[u8] = b"#!-Linux web 6.1 - OSSEC HIDS v4.3.0 / 0123456789abcdef0123456789abcdef\n";

/// analysisd's end of the queue socket.
struct Queue(UnixDatagram);

impl Queue {
    fn bind(home: &Path) -> Queue {
        let socket = UnixDatagram::bind(home.join("queue/ossec/queue")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Queue(socket)
    }

    /// The number of the next event.
    fn next(&self) -> u64 {
        self.receive().expect("an event that the manager holds")
    }

    /// The numbers of the events that are there now.
    fn rest(&self) -> Vec<u64> {
        self.0.set_nonblocking(true).unwrap();
        let rest = std::iter::from_fn(|| self.receive().ok()).collect();
        self.0.set_nonblocking(false).unwrap();
        rest
    }

    fn receive(&self) -> io::Result<u64> {
        let mut buffer = [0; 65_536];
        let bytes = self.0.recv(&mut buffer)?;
        Ok(number_in(std::str::from_utf8(&buffer[..bytes - 1]).unwrap()))
    }
}

/// The number at the end of an event.
fn number_in(line: &str) -> u64 {
    line.rsplit_once(' ').unwrap().1.trim_end_matches(['"', '}']).parse().unwrap()
}

fn text(number: u64) -> Vec<u8> {
    format!("1:/var/log/a:event {number}").into_bytes()
}

/// A connection on which the agent offers to deliver.
struct Delivering {
    tcp: Tcp,
    agreed: bool,
    /// What every sink has; `None` until the manager said so.
    before: Option<u64>,
}

impl Delivering {
    /// Connects, offers, and reads to the acknowledgement.
    fn start(program: &Program, agent: &mut Agent, first: u64) -> Delivering {
        let mut delivering = Delivering { tcp: Tcp::connect(program.address), agreed: false, before: None };
        let mut offer = Vec::new();
        startup_with_delivery(DeliveryOffer { session: SESSION, first }, &mut offer);
        delivering.tcp.send(&agent.seal(&offer));
        delivering.hear_ack(agent);
        delivering
    }

    /// Reads to the next acknowledgement.
    fn hear_ack(&mut self, agent: &Agent) {
        while self.hear(agent) != ACK {}
    }

    /// Reads until the manager says where to begin.
    fn hear_where(&mut self, agent: &Agent) -> u64 {
        assert!(self.agreed, "agreed before the acknowledgement");
        while self.before.is_none() {
            self.hear(agent);
        }
        self.before.unwrap()
    }

    fn hear(&mut self, agent: &Agent) -> Vec<u8> {
        let text = agent.open(&self.tcp.receive());
        let said = ToAgent::parse(&text).unwrap();
        if let ToAgent::DeliveryAgreed { session } = said {
            assert_eq!(session, SESSION);
            self.agreed = true;
        } else if let ToAgent::DeliveryTaken { before } = said {
            assert!(self.before.is_none_or(|earlier| earlier < before), "it only says what is new");
            self.before = Some(before);
        }
        text
    }

    fn say_next(&mut self, agent: &mut Agent, number: u64) {
        self.tcp.send(&agent.seal(&next(number)));
    }

    fn send(&mut self, agent: &mut Agent, numbers: std::ops::Range<u64>) {
        numbers.for_each(|number| self.tcp.send(&agent.seal(&text(number))));
    }

    /// Asks by a keep-alive until every sink has everything before this number.
    fn wait_for(&mut self, agent: &mut Agent, before: u64) {
        let started = Instant::now();
        while self.before.is_none_or(|known| known < before) {
            assert!(started.elapsed() < PATIENCE, "{:?} is confirmed, not {before}", self.before);
            self.tcp.send(&agent.seal(KEEP_ALIVE));
            self.hear_ack(agent);
        }
        assert_eq!(self.before, Some(before));
    }
}

fn next(number: u64) -> Vec<u8> {
    let mut text = Vec::new();
    delivery_next(number, &mut text);
    text
}

#[test]
fn what_every_sink_has_is_confirmed_and_dropped_when_it_comes_again() {
    // Archives note after their disk, the queue as it hands over.
    let home = TestHome::new(&format!("{WEB}\n"), &format!("{ALL}sync = true\n"));
    let queue = Queue::bind(home.path());
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut first = Delivering::start(&program, &mut agent, 5);
    assert_eq!(first.hear_where(&agent), 5, "nothing is known of the session: all that the agent has");
    first.say_next(&mut agent, 5);
    first.send(&mut agent, 5..15);
    // A jump, and one that has no form: it is of no sink, and confirmed all the same.
    first.say_next(&mut agent, 20);
    first.tcp.send(&agent.seal(b"no event"));
    first.send(&mut agent, 21..23);
    let expected: Vec<u64> = (5..15).chain(21..23).collect();
    assert_eq!((0..12).map(|_| queue.next()).collect::<Vec<_>>(), expected);
    first.wait_for(&mut agent, 23);
    assert_eq!(program.metric("ringmaster_delivery_connections", &[]), 1);
    assert_eq!(program.wait_for_metric("ringmaster_delivery_agents", &[], 1), 1);
    assert!(program.metric("ringmaster_delivery_taken_messages_total", &[]) >= 2);

    // It is cut, and the agent that heard nothing comes back with all of it.
    first.tcp.reset();
    let mut again = Delivering::start(&program, &mut agent, 5);
    assert_eq!(again.hear_where(&agent), 23);
    again.say_next(&mut agent, 10);
    again.send(&mut agent, 10..15);
    again.say_next(&mut agent, 22);
    again.send(&mut agent, 22..25);
    assert_eq!([queue.next(), queue.next()], [23, 24]);
    again.wait_for(&mut agent, 25);
    assert!(queue.rest().is_empty());
    let dropped = program.metric("ringmaster_dropped_total", &["reason=\"delivered_before\""]);
    assert_eq!(dropped, 6, "10 to 14, and 22");
    program.assert_balanced();
    program.terminate();
    for file in ["archives.log", "archives.json"] {
        let lines = home.read(&format!("logs/archives/{file}"));
        let numbers: Vec<u64> = lines.lines().map(archived_number).collect();
        assert_eq!(numbers, [&expected[..], &[23, 24]].concat(), "{file}");
    }
}

#[test]
fn numbers_that_can_not_be_relied_on_end_the_connection() {
    let home = TestHome::new(&format!("{WEB}\n"), QUEUE);
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut unnumbered = Delivering::start(&program, &mut agent, 1);
    unnumbered.hear_where(&agent);
    unnumbered.send(&mut agent, 1..2);
    unnumbered.tcp.assert_ended();
    let mut damaged = Delivering::start(&program, &mut agent, 1);
    damaged.hear_where(&agent);
    damaged.say_next(&mut agent, 1);
    damaged.tcp.send(b"!001!:what does not open");
    damaged.tcp.assert_ended();
    let mut backwards = Delivering::start(&program, &mut agent, 1);
    backwards.hear_where(&agent);
    backwards.say_next(&mut agent, 4);
    backwards.say_next(&mut agent, 3);
    backwards.tcp.assert_ended();
    let closed = program.wait_for_metric("ringmaster_connections_closed_total", &["reason=\"delivery\""], 3);
    assert_eq!((closed, program.metric("ringmaster_delivery_connections", &[])), (3, 0));
}

#[test]
fn where_it_is_off_an_offer_is_a_start_up_like_any_other() {
    let home =
        TestHome::new(&format!("{WEB}\n"), &format!("[agents]\nacknowledged_delivery = false\n{QUEUE}"));
    let queue = Queue::bind(home.path());
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut plain = Delivering::start(&program, &mut agent, 1);
    assert!(!plain.agreed && plain.before.is_none());
    plain.send(&mut agent, 1..3);
    assert_eq!([queue.next(), queue.next()], [1, 2]);
    // A reload changes that for connections that come from now on.
    let settings = home.read("etc/ringmaster.toml").replace("acknowledged_delivery = false", "");
    fs::write(home.path().join("etc/ringmaster.toml"), settings).unwrap();
    home.said(&["reload"]);
    let mut agreed = Delivering::start(&program, &mut agent, 3);
    assert_eq!(agreed.hear_where(&agent), 3);
}

#[test]
fn a_connection_waits_for_what_an_earlier_one_left_in_a_sink() {
    let home = TestHome::new(&format!("{WEB}\n"), QUEUE);
    let queue = Queue::bind(home.path());
    let program = home.start();
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let mut first = Delivering::start(&program, &mut agent, 1);
    first.hear_where(&agent);
    first.say_next(&mut agent, 1);
    // More than the queue has room for, so that the sink keeps some.
    first.send(&mut agent, 1..2_001);
    program.wait_for_metric("ringmaster_events_total", &[], 2_000);
    assert!(program.metric("ringmaster_sink_held", &[]) > 0);
    first.tcp.reset();
    let mut second = Delivering::start(&program, &mut agent, 1);
    assert!(second.agreed && second.before.is_none(), "acknowledged, and not told where to begin");
    assert_eq!((0..2_000).map(|_| queue.next()).collect::<Vec<_>>(), Vec::from_iter(1..2_001));
    assert_eq!(second.hear_where(&agent), 2_001);
    second.say_next(&mut agent, 2_001);
    second.send(&mut agent, 2_001..2_003);
    assert_eq!(([queue.next(), queue.next()], queue.rest()), ([2_001, 2_002], vec![]));
}

#[test]
fn each_event_is_once_in_each_sink_however_often_the_program_is_killed() {
    const KILLS: u64 = 20;
    let home = TestHome::new(&format!("{WEB}\n"), ALL);
    let queue = Queue::bind(home.path());
    let mut agent = Agent::new(WEB, Method::AesWazuh);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed;
    let (mut received, mut confirmed, mut given) = (1, 1, 1);
    for kill in 0..KILLS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let program = home.start();
        let mut connection = Delivering::start(&program, &mut agent, confirmed);
        confirmed = connection.hear_where(&agent);
        assert!(confirmed <= received, "kill {kill}: nothing is confirmed that did not arrive");
        connection.say_next(&mut agent, confirmed);
        // Some hundred events beyond what is there, and the kill comes wherever it finds the program.
        let until = received + 1 + (random >> 55);
        let sent = AtomicU64::new(confirmed);
        thread::scope(|scope| {
            scope.spawn(|| send_until_the_end(&mut connection, &mut agent, &sent));
            while received < until {
                assert_eq!(queue.next(), received, "kill {kill}: each once, in order");
                received += 1;
            }
            program.kill();
        });
        for number in queue.rest() {
            assert_eq!(number, received, "kill {kill}: each once, in order");
            received += 1;
        }
        given = given.max(sent.load(Ordering::Relaxed));
        assert!(received <= given);
    }
    // What is left comes when nobody kills any more. An archive may have what the queue has not.
    let program = home.start();
    let mut connection = Delivering::start(&program, &mut agent, confirmed);
    let begin = connection.hear_where(&agent);
    connection.say_next(&mut agent, begin);
    thread::scope(|scope| {
        scope.spawn(|| (received..given).for_each(|number| assert_eq!(queue.next(), number)));
        connection.send(&mut agent, begin..given);
    });
    connection.wait_for(&mut agent, given);
    assert!(queue.rest().is_empty());
    program.terminate();
    for file in ["archives.log", "archives.json"] {
        let lines = home.read(&format!("logs/archives/{file}"));
        let numbers: Vec<u64> = lines.lines().map(archived_number).collect();
        let expected = Vec::from_iter(1..given);
        let difference = numbers.iter().zip(&expected).find(|(found, expected)| found != expected);
        assert_eq!((difference, numbers.len()), (None, expected.len()), "{file}: each once, in order");
    }
}

/// Sends events from where `sent` is on, for as long as somebody takes them.
fn send_until_the_end(connection: &mut Delivering, agent: &mut Agent, sent: &AtomicU64) {
    loop {
        let number = sent.fetch_add(1, Ordering::Relaxed);
        let frame = framed(&agent.seal(&text(number)));
        if connection.tcp.try_send_raw(&frame).is_err() {
            return;
        }
    }
}

/// The number of an event in a line of an archive.
fn archived_number(line: &str) -> u64 {
    match serde_json::from_str::<serde_json::Value>(line) {
        Ok(event) => number_in(event["full_log"].as_str().unwrap()),
        Err(_) => number_in(line),
    }
}
