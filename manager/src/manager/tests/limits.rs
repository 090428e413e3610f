//! What an agent may send in a second, and where a connection behind a load balancer comes from.

use super::*;

fn limited(events_per_second_max: u32) -> Bench {
    Bench::new(Settings { events_per_second_max, ..Settings::default() })
}

#[test]
fn a_datagram_beyond_the_rate_is_refused_and_uses_its_counter_up() {
    let mut bench = limited(2);
    assert_eq!(bench.says(udp(7), "001", EVENT), Verdict::Event);
    assert_eq!(bench.says(udp(7), "001", EVENT), Verdict::Event);
    let third = bench.seal("001", Method::Blowfish, EVENT);
    assert_eq!(bench.receive(&[(udp(7), &third)]), [dropped(Reason::RateLimited)]);
    assert_eq!(bench.says(udp(7), "001", STARTUP), Verdict::Control(ControlKind::Startup));
    let of_three = bench.seal("003", Method::Blowfish, EVENT);
    let three = Peer::Datagram("198.51.100.1:1".parse().unwrap());
    assert_eq!(bench.receive(&[(three, &of_three)]), [Verdict::Event], "each agent has its own");
    bench.now = bench.now + Duration::from_millis(500);
    assert_eq!(bench.receive(&[(udp(7), &third)]), [dropped(Reason::CounterDuplicate)]);
    assert_eq!(bench.says(udp(7), "001", EVENT), Verdict::Event);
}

#[test]
fn a_connection_beyond_the_rate_is_held_once_a_batch_and_loses_nothing() {
    let mut bench = limited(2);
    let peer = bench.connect(0);
    let messages: Vec<Vec<u8>> = (0..5).map(|_| bench.seal("001", Method::Blowfish, EVENT)).collect();
    let batch: Vec<(Peer, &[u8])> = messages.iter().map(|message| (peer, &message[..])).collect();
    assert_eq!(bench.receive(&batch), [Verdict::Event; 5]);
    let until = bench.now + Duration::from_millis(5 * 500 - 500);
    assert_eq!(bench.actions(), [Action::Hold { connection: id(0), until }]);
    assert_eq!(bench.says(peer, "001", STARTUP), Verdict::Control(ControlKind::Startup));
    assert_eq!(bench.actions().len(), 1, "what is decoded is answered, held or not");
}

#[test]
fn without_a_limit_nobody_is_asked() {
    let mut bench = limited(0);
    let peer = bench.connect(0);
    for _ in 0..1_000 {
        assert_eq!(bench.says(peer, "001", EVENT), Verdict::Event);
    }
    assert_eq!(bench.actions(), []);
}

#[test]
fn a_connection_counts_where_it_really_comes_from() {
    let mut bench = Bench::new(Settings { unauthenticated_per_address_max: 1, ..Settings::default() });
    let (balancer, behind) = (from(9, 1_000), from(2, 40_000));
    let connect = |bench: &mut Bench, slot| bench.manager.on_connected(bench.now, id(slot), balancer);
    assert_eq!(connect(&mut bench, 0), Admission::Admit);
    assert_eq!(bench.manager.on_source(id(0), behind), Admission::Admit);
    assert_eq!(connect(&mut bench, 1), Admission::Admit, "the balancer's address is free again");
    let refusal = Refusal::UnauthenticatedAddress;
    assert_eq!(bench.manager.on_source(id(1), behind), Admission::Refuse(refusal));
    assert_eq!(bench.manager.refused_last()[refusal.index()], Some(behind));
    assert_eq!(bench.manager.counters().connections, 1, "a refused one is forgotten");
    // Its key names this one host, and so it sends no id.
    let with_id = bench.seal("002", Method::Blowfish, STARTUP);
    let startup = &with_id[b"!002!".len()..];
    assert_eq!(
        bench.receive(&[(Peer::Connection(id(0)), startup)]),
        [Verdict::Control(ControlKind::Startup)]
    );
    assert!(bench.manager.counters().balanced());
}

#[test]
fn what_the_caller_decided_is_counted_like_the_rest() {
    let mut bench = Bench::new(Settings::default());
    bench.manager.record_events(3);
    bench.manager.record_dropped_from(Reason::AddressDenied, from(7, 1));
    bench.manager.record_refused(Refusal::ProxyPeer, from(8, 1));
    let counters = bench.manager.counters();
    assert_eq!((counters.received, counters.events, counters.dropped(Reason::AddressDenied)), (4, 3, 1));
    assert_eq!(counters.refused[Refusal::ProxyPeer.index()], 1);
    assert!(counters.balanced());
    let last = bench.manager.dropped_last()[Reason::AddressDenied.index()].unwrap();
    assert_eq!((last.from, last.agent), (from(7, 1), None));
}
