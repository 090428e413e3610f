use super::*;
use crate::capacity::{Sink, needed};

fn exactly(ns: f64) -> Figure {
    Figure { ns, low_ns: ns * 0.9, high_ns: ns * 1.1 }
}

/// Receive 600 ns (TCP: 4,000 a segment and 50 an event), turn 2,000, hand-over 1,000; double at 600 bytes; 1,500 and 3,000
/// in a turn with 1,000 and 100,000 agents.
fn figures(cipher: Cipher) -> Figures {
    let ns = |name: &str| {
        let segment: f64 = SEGMENTS
            .into_iter()
            .find(|segment| name.contains(&format!("tcp-{segment}-")))
            .map_or(1.0, |segment| segment as f64);
        let short = match name {
            _ if name.starts_with("uring/receive/tcp") => 4_000.0 / segment + 50.0,
            _ if name.starts_with("uring/receive/udp") => 600.0,
            _ if name.contains("-1000-agents") => 1_500.0,
            _ if name.contains("-100000-agents") => 3_000.0,
            _ if name.starts_with("daemon/turn/") => 2_000.0,
            _ => 1_000.0,
        };
        if name.ends_with("/600") { 2.0 * short } else { short }
    };
    needed(cipher, Sink::QueueSocket).into_iter().map(|name| (name.clone(), exactly(ns(&name)))).collect()
}

fn demand() -> Demand {
    Demand {
        agents: 20_000,
        events_a_second_each: 5.0,
        text_bytes: 200,
        message_bytes: 260,
        cipher: Cipher::Aes,
        protocol: Protocol::Tcp,
        sink: Sink::QueueSocket,
        margin: 0.5,
        cores: 4,
    }
}

fn lines(demand: &Demand) -> Vec<Line> {
    plan(&figures(demand.cipher), demand).unwrap().lines
}

fn find(lines: &[Line], protocol: Protocol, segment: u64) -> &Line {
    lines.iter().find(|line| (line.protocol, line.events_a_segment) == (protocol, segment)).unwrap()
}

fn close(value: f64, expected: f64) {
    assert!((value - expected).abs() < 1e-6 * expected.abs().max(1.0), "{value}, expected {expected}");
}

#[test]
fn udp_by_hand() {
    let lines = lines(&demand());
    let line = find(&lines, Protocol::Udp, 1);
    // 600 + 2,000 + 1,000.
    close(line.cpu.total.ns, 3_600.0);
    close(line.cpu.total.low_ns, 3_240.0);
    close(line.one_core_events_a_second, 277_777.777_777);
    // 100,000 events/s of 3.6 us, on cores of which half is to be free.
    close(line.load_cores, 0.36);
    assert_eq!(line.cores, 1);
    // 20,000 datagrams of 1,290 bytes in 200 ms; asking for half of it gets it.
    assert_eq!(line.receive_buffer.bytes, 25_800_000);
    assert_eq!(line.receive_buffer.sysctl, "net.core.rmem_max >= 12900000");
    // 260 + 8 + 20 + 38 bytes each.
    close(line.network.received_bits, 326.0 * 8.0 * 100_000.0);
    close(line.network.sent_bits, 0.0);
    let memory = Memory {
        base: (16 + 60) << 20,
        agents: 20_000 * 600,
        connections: 0,
        receive_buffers: 25_800_000,
        total: (76 << 20) + 12_000_000 + 25_800_000,
    };
    assert_eq!(line.memory, memory);
}

#[test]
fn tcp_by_hand() {
    let lines = lines(&demand());
    // The fleet is twice as large as the measured one, on the way from 1,500 (1,000 agents) to 2,000 (20,000).
    let more = 500.0 * 2_f64.ln() / 20_f64.ln();
    let one = find(&lines, Protocol::Tcp, 1);
    close(one.cpu.total.ns, 4_050.0 + 2_000.0 + more + 1_000.0);
    close(one.network.received_bits, (264.0 + 90.0) * 8.0 * 100_000.0);
    close(one.network.sent_bits, 90.0 * 8.0 * 100_000.0);
    let sixteen = find(&lines, Protocol::Tcp, 16);
    close(sixteen.cpu.total.ns, 300.0 + 2_000.0 + more / 16.0 + 1_000.0);
    // 4,224 bytes are three packets; two acknowledgements.
    close(sixteen.network.received_bits, (4_224.0 + 270.0) * 8.0 * 6_250.0);
    close(sixteen.network.sent_bits, 180.0 * 8.0 * 6_250.0);
    // 1,250 segments in 200 ms, of 8,192 + 1,280 bytes each.
    assert_eq!(sixteen.receive_buffer.bytes, 1_250 * 9_472);
    assert_eq!(sixteen.memory.connections, 20_000 * 5_800);
}

#[test]
fn the_margin_is_what_stays_free() {
    let cores =
        |margin| find(&lines(&Demand { margin, agents: 200_000, ..demand() }), Protocol::Udp, 1).cores;
    // A million events/s of 600 + 3,000 + 1,000 ns are 4.6 cores.
    assert_eq!([cores(0.0), cores(0.5), cores(0.75)], [5, 10, 19]);
}

#[test]
fn longer_texts_cost_more_and_shorter_ones_less() {
    let total = |text_bytes| find(&lines(&Demand { text_bytes, ..demand() }), Protocol::Udp, 4).cpu.total.ns;
    close(total(600), 7_200.0);
    close(total(400), 5_400.0);
    close(total(100), 2_700.0);
}

#[test]
fn the_fleets_size_is_between_the_measured_ones() {
    let turn = |agents| find(&lines(&Demand { agents, ..demand() }), Protocol::Udp, 1).cpu.turn.ns;
    close(turn(10), 1_500.0);
    close(turn(1_000), 1_500.0);
    close(turn(20_000), 2_000.0);
    close(turn(44_721), 2_000.0 + 1_000.0 * (44_721_f64 / 20_000.0).ln() / 5_f64.ln());
    close(turn(1_000_000), 3_000.0);
}

#[test]
fn blowfish_needs_its_tables() {
    let lines = lines(&Demand { cipher: Cipher::Blowfish, ..demand() });
    assert_eq!(find(&lines, Protocol::Udp, 1).memory.agents, 20_000 * (600 + 4_224));
}

#[test]
fn long_messages_take_more_of_the_receive_buffer() {
    assert_eq!([kept_bytes(260), kept_bytes(600)], [1_290, 1_290]);
    assert_eq!([kept_bytes(601), kept_bytes(1_400)], [1_024 + 1_280, 2_048 + 1_280]);
}

#[test]
fn every_line_says_what_it_was_computed_from() {
    for line in lines(&demand()) {
        let Line { protocol, events_a_segment, cpu, .. } = &line;
        let names: Vec<&str> = cpu.from.iter().map(|used| &used.bench[..]).collect();
        let (protocol, agents) = (*protocol, agents_of(*protocol));
        let turn = format!("{}/200", turn(protocol, *events_a_segment, Cipher::Aes, agents));
        assert!(names.contains(&&turn[..]), "{names:?}");
        assert!(names.contains(&"daemon/hand-over/queue-socket/200"), "{names:?}");
    }
}

#[test]
fn without_figures_there_is_no_plan() {
    let missing = plan(&Figures::default(), &demand()).unwrap_err();
    assert_eq!(missing.0.len(), needed(Cipher::Aes, Sink::QueueSocket).len());
}

/// The constants of the memory model against what is allocated.
#[test]
fn an_agent_takes_what_the_model_says() {
    use codec::{Method, Sealer};
    const AGENTS: u64 = 2_000;
    let mut table = None;
    let cold = allocation_counter::measure(|| {
        let entries = crate::fleet_entries(AGENTS as usize);
        table = Some(manager::AgentTable::build(entries, None, &manager::CounterSeed::new()));
    });
    let table = table.unwrap();
    let agent = cold.bytes_current.cast_unsigned() / AGENTS;
    assert!(agent.abs_diff(AGENT_BYTES) <= AGENT_BYTES / 4, "an agent takes {agent} bytes");
    let (mut sealer, mut out) = (Sealer::new(), Vec::with_capacity(1 << 20));
    let warm = allocation_counter::measure(|| {
        for agent in table.agents() {
            out.clear();
            crate::seal_one(&mut sealer, agent.cipher_key(), Method::Blowfish, b"1:a:b", &mut out);
        }
    });
    let tables = warm.bytes_current.cast_unsigned() / AGENTS;
    assert!(tables.abs_diff(BLOWFISH_BYTES) <= 512, "a Blowfish table takes {tables} bytes");
}
