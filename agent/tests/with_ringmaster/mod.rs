//! The program and a real `ringmaster`, both killed again and again at moments that nobody chose, and what comes out behind them.
//!
//! `RINGMASTER_SEED=N` repeats the choices of a run that failed, though not its moments; `RINGMASTER_KILLS=N` makes it longer.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::unix::net::UnixDatagram;

use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use spool::{Sequence, Spool};

use super::stand_ins::{Home, PATIENCE, Program, client, collector, event, read};

mod ringmaster;

use ringmaster::Ringmaster;

const OWN: &str = "[delivery]\nconfirm_seconds = 1\n[reconnect]\nseconds_max = 1\n";

#[test]
fn each_event_reaches_each_sink_once_and_in_order_over_kills_of_both() {
    if ringmaster::is_child() {
        return;
    }
    let mut trial = Trial::new("each_event_reaches_each_sink_once_and_in_order_over_kills_of_both", "");
    for _ in 0..kills() {
        trial.flow(1..3_000);
        match trial.random.random_range(0..3) {
            0 => trial.kill_agent(),
            1 => trial.kill_manager(),
            _ => trial.kill_both(),
        }
        trial.start();
    }
    let events = trial.end();
    assert!(!trial.log().contains("by keep-alives"), "the manager always agrees");
    for (sink, arrived) in trial.sinks() {
        let wrong = arrived.iter().zip(0..).position(|(arrived, expected)| *arrived != expected);
        let around = |at: usize| &arrived[at.saturating_sub(3)..arrived.len().min(at + 3)];
        assert_eq!(wrong.map(around), None, "{sink}: of {events} events");
        assert_eq!(arrived.len(), events as usize, "{sink}");
    }
}

/// A manager that does not agree reads, and acknowledges keep-alives: nothing is lost as long as it lives, some may come twice, and
/// what comes again may come before what is older.
#[test]
fn a_manager_that_does_not_agree_gets_each_event_at_least_once_over_kills_of_the_agent() {
    if ringmaster::is_child() {
        return;
    }
    let name = "a_manager_that_does_not_agree_gets_each_event_at_least_once_over_kills_of_the_agent";
    let mut trial = Trial::new(name, "[agents]\nacknowledged_delivery = false\n");
    for _ in 0..kills() {
        trial.flow(1..3_000);
        trial.kill_agent();
        trial.start();
    }
    let events = trial.end();
    assert!(!trial.log().contains("is acknowledged"), "the manager never agrees");
    for (sink, mut arrived) in trial.sinks() {
        // A new connection may be another shard's, while the old one's sinks still hold what is confirmed.
        arrived.sort_unstable();
        arrived.dedup();
        assert_eq!(arrived, Vec::from_iter(0..events), "{sink}");
    }
}

fn kills() -> u32 {
    std::env::var("RINGMASTER_KILLS").map_or(10, |kills| kills.parse().unwrap())
}

/// Both programs, a collector that never rests, and a reader in analysisd's place.
struct Trial {
    random: StdRng,
    manager_home: Home,
    agent_home: Home,
    /// What runs the manager.
    test: &'static str,
    settings: &'static str,
    manager: Option<Ringmaster>,
    address: SocketAddr,
    agent: Option<Program>,
    collector: UnixDatagram,
    queue: UnixDatagram,
    /// The next event that the collector sends.
    next: u32,
    arrived: Vec<u32>,
}

impl Trial {
    fn new(test: &'static str, settings: &'static str) -> Trial {
        let seed = std::env::var("RINGMASTER_SEED")
            .map_or_else(|_| rand::random(), |seed| seed.parse::<u64>().unwrap());
        println!("RINGMASTER_SEED={seed}");
        let manager_home = ringmaster::home();
        let queue = UnixDatagram::bind(manager_home.path("queue/ossec/queue")).unwrap();
        queue.set_nonblocking(true).unwrap();
        // Its port is the same in each of its lives, so nobody else may be given it meanwhile: an address of its own.
        let [a, b, ..] = rand::random::<[u8; 4]>();
        let address = SocketAddr::from(([127, 1 + a % 250, b, 7], 0));
        let manager = Ringmaster::start(test, &manager_home, address, settings);
        let agent_home = Home::new(&client(manager.address, "tcp"), OWN);
        let agent = Program::start(&agent_home);
        let collector = collector(&agent_home);
        collector.set_nonblocking(true).unwrap();
        Trial {
            random: StdRng::seed_from_u64(seed),
            address: manager.address,
            manager_home,
            agent_home,
            test,
            settings,
            manager: Some(manager),
            agent: Some(agent),
            collector,
            queue,
            next: 0,
            arrived: Vec::new(),
        }
    }

    /// Lets some events arrive.
    fn flow(&mut self, count: Range<usize>) {
        let goal = self.arrived.len() + self.random.random_range(count);
        self.turn_until(|trial| trial.arrived.len() >= goal);
    }

    fn turn_until(&mut self, mut is_done: impl FnMut(&Trial) -> bool) {
        let started = std::time::Instant::now();
        while !is_done(self) {
            self.send();
            self.read();
            assert!(started.elapsed() < PATIENCE, "{} of {} have arrived", self.arrived.len(), self.next);
        }
    }

    /// As many as find room at once.
    fn send(&mut self) {
        for _ in 0..50 {
            match self.collector.send(&event(self.next)) {
                Ok(_) => self.next += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("the agent is there: {error}"),
            }
        }
    }

    fn read(&mut self) {
        let mut buffer = [0; 8_192];
        loop {
            match self.queue.recv(&mut buffer) {
                Ok(bytes) => self.arrived.extend(number(&buffer[..bytes])),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// What was in its socket dies with it, as with any agent: a collector begins again behind what the spool took.
    fn kill_agent(&mut self) {
        self.agent.take().unwrap().ends(Signal::SIGKILL);
        let settings = spool::Settings { bytes_max: 128 << 20, ..spool::Settings::default() };
        let (mut spool, _) = Spool::open(&self.agent_home.path("queue/ringmaster-agent"), settings).unwrap();
        let mut cursor = spool.cursor(Sequence(0));
        let mut taken = None;
        while let Some((_, text)) = spool.read(&mut cursor).unwrap() {
            taken = number(text).or(taken);
        }
        // What is forgotten has come out already.
        self.read();
        self.next = taken.max(self.arrived.iter().copied().max()).map_or(0, |last| last + 1);
    }

    /// Sometimes events come while it is away.
    fn kill_manager(&mut self) {
        self.manager.take().unwrap().kill();
        let goal = self.next + self.random.random_range(0..2_000);
        self.turn_until(|trial| trial.next >= goal);
    }

    fn kill_both(&mut self) {
        if self.random.random() {
            self.manager.take().unwrap().kill();
            self.kill_agent();
        } else {
            self.kill_agent();
            self.manager.take().unwrap().kill();
        }
    }

    /// Starts whoever is not there.
    fn start(&mut self) {
        let manager_first: bool = self.random.random();
        if manager_first {
            self.start_manager();
        }
        if self.agent.is_none() {
            self.agent = Some(Program::start(&self.agent_home));
            self.collector = collector(&self.agent_home);
            self.collector.set_nonblocking(true).unwrap();
        }
        self.start_manager();
    }

    fn start_manager(&mut self) {
        let Trial { test, manager_home, address, settings, .. } = self;
        self.manager.get_or_insert_with(|| Ringmaster::start(test, manager_home, *address, settings));
    }

    /// Waits until all has arrived and the agent knows it. Returns how many events were sent.
    fn end(&mut self) -> u32 {
        self.flow(1..100);
        let events = self.next;
        let started = std::time::Instant::now();
        loop {
            self.read();
            let agent = self.agent.as_mut().unwrap();
            agent.signal(Signal::SIGUSR1);
            if agent.says("Events: ").contains("the spool holds 0 ") {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{} of {events} have arrived", self.arrived.len());
        }
        // Whatever else it holds, it hands over now.
        let mut manager = self.manager.take().unwrap();
        manager.stop();
        while manager.is_running() {
            self.read();
        }
        self.read();
        events
    }

    /// What the agent has said in all its lives.
    fn log(&self) -> String {
        let log = read(&self.agent_home.path("logs/ossec.log"));
        assert!(log.contains("Delivery is "), "{log}");
        log
    }

    /// What came out, of each.
    fn sinks(&self) -> [(&'static str, Vec<u32>); 3] {
        let file = |name: &str| -> Vec<u32> {
            let path = self.manager_home.path("logs/archives").join(name);
            fs::read(path).unwrap().split(|byte| *byte == b'\n').filter_map(number).collect()
        };
        [
            ("the queue socket", self.arrived.clone()),
            ("archives.log", file("archives.log")),
            ("archives.json", file("archives.json")),
        ]
    }
}

/// The number of an event, in whatever form; `None` for one of the agent's own.
fn number(form: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(form).unwrap();
    let digits = text.rsplit_once("event ")?.1;
    digits.trim_end_matches(|end: char| !end.is_ascii_digit()).parse().ok()
}
