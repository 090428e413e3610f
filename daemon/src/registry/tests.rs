use bytes::Bytes;
use codec::{Counter, KeyFile};
use manager::{CloseReason, CounterSeed, Transport};

use super::*;

const MINUTE: u64 = 60;
const START: u64 = 1_700_000_000;

/// `seconds` after the start of the process.
fn at(seconds: u64) -> Moment {
    Moment { process: Time::from_seconds(seconds), unix_seconds: START + seconds }
}

fn table(keys: &str, previous: Option<&AgentTable>) -> Arc<AgentTable> {
    Arc::new(AgentTable::build(KeyFile::parse(keys.as_bytes()).entries, previous, &CounterSeed::new()))
}

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

fn registry(keys: &str) -> Registry {
    Registry::new(table(keys, None), Duration::from_secs(30 * MINUTE), true)
}

fn status(registry: &Registry, now: Moment, id: &str) -> (Status, Option<String>) {
    let answer = registry.answer(now, &[id.to_owned()], 0);
    let report: AgentReport = serde_json::from_value(answer.items[0].clone()).unwrap();
    (report.status, report.since)
}

fn keep_alive() -> Notice {
    Notice::KeepAlive { text: Bytes::from_static(b"#!-Linux web01 - OSSEC HIDS v4.2.0\nx merged.mg\n\n") }
}

fn connected() -> Notice {
    Notice::Connected { from: "192.0.2.7:40000".parse().unwrap(), transport: Transport::Udp }
}

/// A registry whose agent was heard through a real manager, which alone moves an agent's state.
struct Heard {
    registry: Registry,
    manager: manager::Manager,
    sealer: codec::Sealer,
    counter: Counter,
}

struct Ignore;

impl manager::Publish for Ignore {
    fn publish(&mut self, _event: &manager::Published<'_>) -> Result<(), manager::SinkFull> {
        Ok(())
    }

    fn pass(&mut self, _: manager::Ticket) {}

    fn verdict(&mut self, _index: usize, _verdict: manager::Verdict) {}
}

impl Heard {
    fn new(keys: &str) -> Heard {
        let table = table(keys, None);
        let manager = manager::Manager::new(manager::ManagerParts {
            settings: manager::Settings::default(),
            shard: manager::ShardId(0),
            table: Arc::clone(&table),
            senders: Arc::new(manager::SenderCounter::new(Counter::ZERO)),
            seed: [3; 32],
        });
        let registry = Registry::new(table, Duration::from_secs(30 * MINUTE), true);
        Heard { registry, manager, sealer: codec::Sealer::new(), counter: Counter::ZERO }
    }

    fn says(&mut self, now: Moment, peer: manager::Peer, agent: &str, text: &[u8]) {
        self.counter = self.counter.next();
        let envelope = codec::Envelope {
            id_prefix: Some(id(agent)),
            method: codec::Method::AesOssec,
            random: 1,
            counter: self.counter,
            initialization_vector: [9; 16],
            text,
        };
        let mut message = Vec::new();
        let table = Arc::clone(self.manager.table());
        self.sealer.seal(table.by_id(id(agent)).unwrap().cipher_key(), &envelope, &mut message).unwrap();
        self.manager.receive(now.process, &[manager::Incoming { peer, bytes: &message }], &mut Ignore);
        self.drain(now);
    }

    fn drain(&mut self, now: Moment) {
        while let Some(action) = self.manager.next_action() {
            if let manager::Action::Notice { agent, notice } = action {
                self.registry.on_notice(now, agent, &notice);
            }
        }
    }

    fn report(&self, now: Moment, id: &str) -> AgentReport {
        let answer = self.registry.answer(now, &[id.to_owned()], 0);
        serde_json::from_value(answer.items[0].clone()).unwrap()
    }
}

fn udp() -> manager::Peer {
    manager::Peer::Datagram("192.0.2.7:40000".parse().unwrap())
}

#[test]
fn over_udp_an_agent_is_there_until_it_is_silent_or_says_that_it_goes() {
    let mut heard = Heard::new("001 web any k\n002 db any k\n");
    assert_eq!(heard.registry.look(at(1)), StatusCounts { never: 2, ..StatusCounts::default() });
    heard.says(at(10), udp(), "001", b"#!-agent startup ");
    assert_eq!(status(&heard.registry, at(10), "001"), (Status::Active, Some("2023-11-14T22:13:30Z".into())));
    heard.registry.look(at(10 + 30 * MINUTE));
    assert_eq!(status(&heard.registry, at(10 + 30 * MINUTE), "001").0, Status::Active);
    let counts = heard.registry.look(at(11 + 30 * MINUTE));
    assert_eq!(counts, StatusCounts { disconnected: 1, never: 1, ..StatusCounts::default() });
    let since = status(&heard.registry, at(12 + 30 * MINUTE), "001");
    assert_eq!(since, (Status::Disconnected, Some("2023-11-14T22:43:31Z".into())));

    heard.says(at(3_000), udp(), "001", b"1:a:event");
    heard.registry.look(at(3_000));
    assert_eq!(status(&heard.registry, at(3_000), "001").0, Status::Active, "an event is a sign of life");
    heard.says(at(3_010), udp(), "001", b"#!-agent shutdown ");
    assert_eq!(status(&heard.registry, at(3_010), "001").0, Status::Disconnected);
    heard.says(at(3_010), udp(), "001", b"#!-agent startup {\"version\":\"v4.14.7\"}");
    let report = heard.report(at(3_010), "001");
    assert_eq!((report.status, report.version.as_deref()), (Status::Active, Some("v4.14.7")));
}

#[test]
fn over_tcp_an_agent_is_gone_with_its_connection() {
    let mut heard = Heard::new("001 web any k\n");
    let connection = manager::ConnectionId { slot: 0, generation: 1 };
    let from = "192.0.2.7:40000".parse().unwrap();
    assert_eq!(heard.manager.on_connected(at(5).process, connection, from), manager::Admission::Admit);
    heard.says(at(5), manager::Peer::Connection(connection), "001", b"#!-agent startup ");
    heard.says(at(6), manager::Peer::Connection(connection), "001", b"1:a:event");
    heard.says(at(7), manager::Peer::Connection(connection), "001", b"no event");
    heard.registry.look(at(7));
    let report = heard.report(at(7), "001");
    assert_eq!(
        (report.status, report.address, report.events, report.dropped),
        (Status::Active, Some(from), 1, 1)
    );
    let of = |text: &Option<String>| text.clone().unwrap();
    assert_eq!((of(&report.protocol), of(&report.cipher)), ("tcp".to_owned(), "aes_random_iv".to_owned()));
    assert_eq!((of(&report.last_event), report.counter.as_str()), ("2023-11-14T22:13:27Z".to_owned(), "0:3"));
    heard.manager.on_closed(connection);
    heard.drain(at(9));
    assert_eq!(
        status(&heard.registry, at(9), "001"),
        (Status::Disconnected, Some("2023-11-14T22:13:29Z".into()))
    );
    let line = table_line(&heard.report(at(9), "001"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[..6], ["001", "web", "any", "disconnected", "2023-11-14T22:13:29Z", "192.0.2.7:40000"]);
    assert_eq!(words.len(), 12);
    assert_eq!(heading().split_whitespace().count(), 13, "LAST EVENT are two words");
}

#[test]
fn files_of_agent_info_are_behind_after_keep_alives_only() {
    let mut heard = Heard::new("001 web 10.0.0.0/8 k\n002 db any k\n");
    let text = b"#!-Linux web01 - OSSEC HIDS v4.2.0\nx merged.mg\n\nfiller";
    let peer = || manager::Peer::Datagram("10.1.2.3:40000".parse().unwrap());
    heard.says(at(1), peer(), "001", b"#!-agent startup ");
    assert_eq!(heard.registry.take_writes(), []);
    heard.says(at(2), peer(), "001", text);
    heard.says(at(3), peer(), "001", text);
    let write = InfoWrite {
        agent: id("001"),
        name: "web-10.0.0.0".to_owned(),
        bytes: b"Linux web01 - OSSEC HIDS v4.2.0\ncrypto_method:aes\n".to_vec(),
        is_new: true,
        unix_seconds: START + 3,
    };
    assert_eq!(heard.registry.take_writes(), std::slice::from_ref(&write));
    assert_eq!(heard.registry.take_writes(), []);
    heard.says(at(5), peer(), "001", text);
    let touch = InfoWrite { is_new: false, unix_seconds: START + 5, ..write.clone() };
    assert_eq!(heard.registry.take_writes(), [touch]);
    heard.registry.not_written(&[id("001")]);
    heard.says(at(6), peer(), "001", text);
    assert!(heard.registry.take_writes()[0].is_new, "it was not written the last time");

    heard.says(at(7), peer(), "001", text);
    let moved = table("001 web 10.0.0.0/9 k\n002 db any k\n", Some(&heard.registry.table));
    heard.registry.adopt(&moved);
    assert!(!heard.registry.take_writes()[0].is_new, "the same name");
    heard.says(at(8), peer(), "001", text);
    let moved = table("001 web 10.0.0.0/8 k\n", Some(&heard.registry.table));
    heard.registry.adopt(&moved);
    let moved = table("003 new any k\n001 web any k\n", Some(&heard.registry.table));
    heard.registry.adopt(&moved);
    let writes = heard.registry.take_writes();
    assert_eq!((writes.len(), writes[0].name.as_str(), writes[0].is_new), (1, "web-any", true));
    assert_eq!(heard.report(at(9), "001").status, Status::Active, "what is known is kept");
    assert_eq!(heard.report(at(9), "003").status, Status::Never);
}

#[test]
fn wazuh_has_no_agent_info() {
    let mut registry = Registry::new(table("001 web any k\n", None), Duration::from_secs(30), false);
    registry.on_notice(at(1), id("001"), &keep_alive());
    assert_eq!(registry.take_writes(), []);
}

#[test]
fn what_the_files_said_at_the_start_counts_until_the_agent_is_heard() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("queue")).unwrap();
    let info = AgentInfo::prepare(home.path()).unwrap();
    let write = |name: &str, unix_seconds| InfoWrite {
        agent: id("001"),
        name: name.to_owned(),
        bytes: b"Linux web01 - OSSEC HIDS v4.2.0\ncrypto_method:aes\n".to_vec(),
        is_new: false,
        unix_seconds,
    };
    let writes = [write("web-any", START - MINUTE), write("db-any", START - 60 * MINUTE)];
    assert_eq!(info.write(&writes).done, 2);
    // The first write of a file gives it the time of now.
    assert_eq!(info.write(&writes).done, 2);
    let mut registry = registry("001 web any k\n002 db any k\n003 new any k\n");
    registry.restore(at(1), info.read_all().unwrap());
    assert_eq!(status(&registry, at(1), "001"), (Status::Active, Some("2023-11-14T22:12:20Z".into())));
    assert_eq!(status(&registry, at(1), "002"), (Status::Disconnected, Some("2023-11-14T21:13:20Z".into())));
    assert_eq!(status(&registry, at(1), "003"), (Status::Never, None));
    let answer = registry.answer(at(1), &["2".to_owned()], 0);
    assert_eq!(answer.items[0]["version"], "v4.2.0");
}

#[test]
fn agents_are_told_in_pages_and_an_unknown_one_is_refused() {
    use crate::command::End;
    let keys: String = (1..=2_500).map(|number| format!("{number:03} agent{number} any k\n")).collect();
    let registry = registry(&keys);
    let (mut from, mut told) = (0, 0);
    loop {
        let answer = registry.answer(at(1), &[], from);
        told += answer.items.len();
        match answer.end {
            End::More(next) => from = next,
            End::Ok(_) => break,
            End::Refused(why) => panic!("{why}"),
        }
    }
    assert_eq!(told, 2_500);
    let answer = registry.answer(at(1), &["7".to_owned(), "9999".to_owned()], 0);
    assert_eq!(answer.end, End::Refused("no agent in client.keys has the id \"9999\"".to_owned()));
}

#[test]
fn notices_of_strangers_change_nothing() {
    let mut registry = registry("001 web any k\n");
    registry.on_notice(at(1), id("002"), &connected());
    registry.on_notice(at(1), id("002"), &Notice::Disconnected { reason: CloseReason::Peer });
    assert_eq!(registry.look(at(1)).never, 1);
}
