//! Client, server, connection and manager from one seed, with every kind of end: what the client's spools took arrives at the
//! manager's sink exactly once and in order, and nothing else does.
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use broker::client::{self, Client, ClientSettings, Moment, Verdict};
use broker::health::SocketReading;
use broker::line::Source;
use broker::server::{self, ConnectionId, GiveOutcome, LineId, Server, ServerSettings};
use broker::wire::Mode;
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64;
use tempfile::TempDir;

/// Runs from seed 0 on; `BROKER_SEED=n` runs one alone.
const RUNS: u64 = 50;

const STEPS: usize = 600;

const AGENTS: u64 = 4;

/// What the kernel gives a socket whose buffer nobody sets, and takes for a small datagram.
const SOCKET_BYTES: u64 = 212_992;
const DATAGRAM_BYTES: u64 = 1_280;

#[test]
fn what_the_spools_took_arrives_once_and_in_order() {
    let one: Option<u64> = std::env::var("BROKER_SEED").ok().map(|seed| seed.parse().unwrap());
    let mut sums = BTreeMap::new();
    for seed in one.map_or(0..RUNS, |seed| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| run(seed));
        let counted = outcome.unwrap_or_else(|_| {
            panic!("seed {seed}; again: BROKER_SEED={seed} cargo test -p ringmaster-broker --test simulation")
        });
        for (what, count) in counted {
            *sums.entry(what).or_insert(0) += count;
        }
    }
    println!("{sums:?}");
    if one.is_none() {
        for what in [
            "arrived",
            "client kills",
            "server kills",
            "manager kills",
            "cuts",
            "half-open",
            "refused",
            "replies",
        ] {
            assert!(sums[what] > RUNS / 4, "the faults do happen: {what} {}", sums[what]);
        }
    }
}

fn run(seed: u64) -> BTreeMap<&'static str, u64> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    world.check();
    world.counted
}

/// A manager that takes each counter once, and only greater ones; it has them on disk.
#[derive(Default)]
struct Manager {
    is_alive: bool,
    inode: u64,
    /// Which run of the server sent it from which line, and what.
    queue: VecDeque<(u64, LineId, Vec<u8>)>,
    counters: BTreeMap<u64, u64>,
    sink: BTreeMap<u64, Vec<u64>>,
    drops: u64,
}

struct World {
    random: Pcg64,
    scratch: TempDir,
    now: Moment,
    client: Option<Client>,
    server: Server,
    server_run: u64,
    manager: Manager,
    connection: Option<ConnectionId>,
    /// Those that the server still takes for alive.
    half_open: Vec<ConnectionId>,
    connections: u64,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    /// Lines whose next send is refused: the one before found nobody.
    refusing: BTreeSet<LineId>,
    sent: BTreeMap<u64, u64>,
    uncommitted: Vec<(u64, u64)>,
    expected: BTreeMap<u64, Vec<u64>>,
    /// Taken and not committed when the client was killed: a spool writes before it is asked to when a segment is full.
    perhaps: BTreeSet<(u64, u64)>,
    is_healing: bool,
    counted: BTreeMap<&'static str, u64>,
}

impl World {
    fn new(seed: u64) -> World {
        // In memory where there is such a place: each start of a client waits for the disk a dozen times.
        let scratch = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let now = Moment { elapsed: Duration::from_secs(1), unix_milliseconds: 1_000 };
        World {
            random: Pcg64::seed_from_u64(seed),
            client: Some(Client::open(settings(&scratch), now).unwrap()),
            scratch,
            now,
            server: new_server(),
            server_run: 0,
            manager: Manager { is_alive: true, inode: 1, ..Manager::default() },
            connection: None,
            half_open: Vec::new(),
            connections: 0,
            up: VecDeque::new(),
            down: VecDeque::new(),
            refusing: BTreeSet::new(),
            sent: BTreeMap::new(),
            uncommitted: Vec::new(),
            expected: BTreeMap::new(),
            perhaps: BTreeSet::new(),
            is_healing: false,
            counted: BTreeMap::new(),
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..1_000) {
            0..200 => self.agent_sends(),
            200..320 => self.commit(),
            320..450 => self.transport_up(),
            450..570 => self.transport_down(),
            570..670 => {
                self.look();
                self.give();
            }
            670..770 => self.look(),
            770..870 => self.manager_reads(),
            870..940 => self.connect(),
            940..950 => self.cut(),
            950..957 => self.kill_client(),
            957..964 => self.kill_server(),
            964..970 => self.kill_manager(),
            970..985 => self.start_manager(),
            _ => {}
        }
        let pause = Duration::from_millis(self.random.random_range(0..8));
        self.pass(pause);
        self.drain();
    }

    /// Everything works again, until nothing is kept any more.
    fn heal(&mut self) {
        self.is_healing = true;
        self.start_manager();
        for round in 0..20_000 {
            self.pass(Duration::from_millis(5));
            self.commit();
            self.connect();
            self.transport_up();
            self.look();
            self.give();
            self.manager_reads();
            self.transport_down();
            self.drain();
            let now = self.now;
            // Which reads from the disk.
            if round % 16 == 15 && self.client().status(now).lines.iter().all(|line| line.kept == 0) {
                return;
            }
        }
        let (now, server) = (self.now, self.server.status());
        panic!("it never came to rest: {:#?} {server:#?}", self.client().status(now));
    }

    fn check(&mut self) {
        for agent in 0..AGENTS {
            let expected = self.expected.remove(&agent).unwrap_or_default();
            let mut arrived = self.manager.sink.remove(&agent).unwrap_or_default();
            assert!(arrived.is_sorted_by(|one, next| one < next), "agent {agent}: {arrived:?}");
            arrived.retain(|number| !self.perhaps.contains(&(agent, *number)));
            assert_eq!(arrived, expected, "agent {agent}");
        }
        assert_eq!(self.manager.drops, 0, "its socket was never overrun");
    }

    fn client(&mut self) -> &mut Client {
        self.client.as_mut().unwrap()
    }

    fn count(&mut self, what: &'static str) {
        *self.counted.entry(what).or_insert(0) += 1;
    }

    fn pass(&mut self, time: Duration) {
        self.now.elapsed += time;
        self.now.unix_milliseconds += time.as_millis() as u64;
        let now = self.now.elapsed;
        if self.client().timeout(now).is_err() {
            self.cut();
        }
    }

    fn agent_sends(&mut self) {
        let agent = self.random.random_range(0..AGENTS);
        for _ in 0..self.random.random_range(1..12) {
            let number = self.sent.entry(agent).or_insert(0);
            *number += 1;
            let (number, now) = (*number, self.now);
            let padding = "x".repeat(self.random.random_range(0..600));
            let text = format!("!{agent:03}!:{number}:{padding}");
            let verdict =
                self.client().datagram(now, Source { listener: 0, address: address(agent) }, text.as_bytes());
            assert_eq!(verdict, Verdict::Kept);
            self.uncommitted.push((agent, number));
        }
    }

    fn commit(&mut self) {
        let now = self.now.elapsed;
        self.client().commit(now);
        for (agent, number) in std::mem::take(&mut self.uncommitted) {
            self.expected.entry(agent).or_default().push(number);
        }
    }

    fn connect(&mut self) {
        if self.connection.is_some() {
            return;
        }
        let now = self.now.elapsed;
        self.connections += 1;
        let id = ConnectionId(self.connections);
        self.connection = Some(id);
        self.client().connected(now);
        self.server.accepted(now, id, "127.0.0.1:9".parse().unwrap());
    }

    fn transport_up(&mut self) {
        let Some(id) = self.connection else { return };
        let budget = self.random.random_range(1..6_000);
        let mut bytes = Vec::new();
        self.client().poll_transmit(budget, &mut bytes);
        self.up.extend(bytes);
        let part = self.random.random_range(0..=self.up.len());
        let bytes: Vec<u8> = self.up.drain(..part).collect();
        self.server.received(self.now.elapsed, id, &bytes);
    }

    fn transport_down(&mut self) {
        let Some(id) = self.connection else { return };
        let mut bytes = Vec::new();
        self.server.poll_transmit(id, &mut bytes);
        self.down.extend(bytes);
        let part = self.random.random_range(0..=self.down.len());
        let bytes: Vec<u8> = self.down.drain(..part).collect();
        let now = self.now.elapsed;
        self.client().received(now, &bytes).unwrap();
    }

    fn give(&mut self) {
        let most = self.random.random_range(1..50);
        for _ in 0..most {
            if !self.is_healing && self.random.random_bool(0.03) {
                self.kill_manager();
            }
            let Some(give) = self.server.poll_give(self.now.elapsed) else { return };
            let outcome = if self.refusing.remove(&give.line) {
                GiveOutcome::Refused
            } else if self.random.random_bool(0.02) {
                GiveOutcome::Later
            } else {
                self.manager_receives(give.line, &give.bytes);
                GiveOutcome::Sent
            };
            if outcome == GiveOutcome::Refused {
                *self.counted.entry("refused").or_insert(0) += 1;
            }
            self.server.gave(self.now.elapsed, give, outcome);
        }
    }

    fn manager_receives(&mut self, line: LineId, bytes: &[u8]) {
        if !self.manager.is_alive {
            self.refusing.insert(line);
        } else if (self.manager.queue.len() as u64 + 1) * DATAGRAM_BYTES > SOCKET_BYTES {
            self.manager.drops += 1;
        } else {
            self.manager.queue.push_back((self.server_run, line, bytes.to_vec()));
        }
    }

    fn manager_reads(&mut self) {
        let most = self.random.random_range(1..60);
        for _ in 0..most {
            let Some((run, line, bytes)) = self.manager.queue.pop_front() else { return };
            let text = String::from_utf8(bytes).unwrap();
            let mut parts = text.split([':', '!']).skip(1);
            let agent: u64 = parts.next().unwrap().parse().unwrap();
            let number: u64 = parts.nth(1).unwrap().parse().unwrap();
            let last = self.manager.counters.entry(agent).or_insert(0);
            if number <= *last {
                self.count("repeats refused");
                continue;
            }
            *last = number;
            self.manager.sink.entry(agent).or_default().push(number);
            self.count("arrived");
            if run == self.server_run && self.random.random_bool(0.3) {
                self.server.reply(line, format!("{agent}").as_bytes());
            }
        }
    }

    fn look(&mut self) {
        let manager = &self.manager;
        let unread_bytes = manager.queue.len() as u64 * DATAGRAM_BYTES;
        let socket = SocketReading { inode: manager.inode, unread_bytes, drops: manager.drops };
        let sockets = if manager.is_alive { vec![socket] } else { Vec::new() };
        self.server.look(self.now.elapsed, &sockets, None);
    }

    /// The connection ends. The server may see that later than the client.
    fn cut(&mut self) {
        let Some(id) = self.connection.take() else { return };
        self.count("cuts");
        self.up.clear();
        self.down.clear();
        self.client().disconnected();
        if self.random.random_bool(0.5) {
            self.server.closed(id);
        } else {
            self.half_open.push(id);
            self.count("half-open");
        }
    }

    fn kill_client(&mut self) {
        self.count("client kills");
        self.cut();
        self.perhaps.extend(std::mem::take(&mut self.uncommitted));
        drop(self.client.take());
        self.client = Some(Client::open(settings(&self.scratch), self.now).unwrap());
    }

    fn kill_server(&mut self) {
        self.count("server kills");
        self.cut();
        self.half_open.clear();
        self.refusing.clear();
        self.server_run += 1;
        self.server = new_server();
    }

    fn kill_manager(&mut self) {
        if self.manager.is_alive {
            self.count("manager kills");
            self.manager.is_alive = false;
            self.manager.queue.clear();
            // Often it is there again before anybody has looked.
            if self.random.random_bool(0.3) {
                self.start_manager();
            }
        }
    }

    fn start_manager(&mut self) {
        if !self.manager.is_alive {
            // As fast as a program can start.
            self.pass(broker::backlog::FRESH_FOR);
            self.manager.is_alive = true;
            self.manager.inode += 1;
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.server.poll_action() {
            match action {
                server::Action::Close(id) => {
                    self.server.closed(id);
                    self.half_open.retain(|other| *other != id);
                    if self.connection == Some(id) {
                        self.cut();
                    }
                }
                server::Action::Retire(_) | server::Action::Say(_) => {}
            }
        }
        while let Some(action) = self.client().poll_action() {
            match action {
                client::Action::Reply { to, bytes } => {
                    let agent: u64 = String::from_utf8(bytes).unwrap().parse().unwrap();
                    assert_eq!(to.address, address(agent), "a reply finds its agent");
                    self.count("replies");
                }
                client::Action::Retire(_) => panic!("there is room for all agents"),
                client::Action::Say(_) => {}
            }
        }
    }
}

fn address(agent: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5_000 + agent as u16))
}

fn new_server() -> Server {
    Server::new(ServerSettings { secret: Vec::new(), lines_max: 16, answers_within: None })
}

fn settings(scratch: &TempDir) -> ClientSettings {
    ClientSettings {
        folder: scratch.path().join("broker"),
        name: "site".to_owned(),
        mode: Mode::Relay,
        secret: Vec::new(),
        lines_max: 16,
        spool: spool::Settings { bytes_max: 8 << 20, segment_bytes: 8 << 10, ..spool::Settings::default() },
        replay_per_second: 1_000,
        seed: 1,
    }
}
