//! Each rule of acknowledged delivery.

mod bed;
mod cuts;

use bed::*;
use codec::DELIVERY_NUMBER_MAX;

use super::*;
use crate::delivery::Ledger;
use crate::settings::Settings;
use crate::table::AgentTable;

#[test]
fn an_offer_is_agreed_before_the_acknowledgement_and_begun_behind_it() {
    let mut bed = Bed::new(1);
    assert_eq!(bed.offers(0, 0, SESSION, 7), [agreed(SESSION), ACK.into(), taken(7)]);
    assert_eq!((bed.counters(0).delivering, bed.counters(0).delivery_taken), (1, 1));
    bed.next(0, 0, 7);
    bed.events(0, 0, 7..10);
    let got = bed.shards[0].hand_all_over(bed.now);
    assert_eq!(got, [texts(7..10), texts(7..10)]);
    bed.shards[0].manager.on_closed(id(0));
    assert_eq!(bed.counters(0).delivering, 0);
    assert_eq!(bed.shards[0].manager.next_timeout(), None, "nothing stays behind");
}

#[test]
fn nothing_is_agreed_over_udp_or_where_nobody_set_deliveries() {
    let mut bed = Bed::new(1);
    let message = bed.pen.seal(&offer(SESSION, 0));
    let from = Peer::Datagram(([192, 0, 2, 1], 1_514).into());
    bed.shards[0].receive(bed.now, from, &message);
    assert_eq!(bed.shards[0].deeds(), [ACK]);
    bed.shards[0].manager.set_deliveries(None);
    assert_eq!(bed.offers(0, 0, SESSION, 0), [ACK]);
    bed.next(0, 0, 5);
    bed.events(0, 0, 5..6);
    assert_eq!(bed.shards[0].sinks.without_ticket, texts(5..6));
    assert_eq!(bed.counters(0).delivering, 0);
    assert_eq!(bed.shards[0].deeds(), [""; 0], "no word but the acknowledgement");
}

#[test]
fn a_full_ledger_agrees_with_nobody_new() {
    let mut bed = Bed::new(0);
    bed.shards = Shard::all(1, &Settings::default(), &Book::new(1));
    assert_eq!(bed.offers(0, 0, SESSION, 0).len(), 3);
    let mut other = Pen::new("002");
    std::mem::swap(&mut bed.pen, &mut other);
    assert_eq!(bed.offers(0, 1, SESSION, 0), [ACK]);
    assert_eq!((bed.counters(0).delivery_full, bed.counters(0).delivering), (1, 1));
    std::mem::swap(&mut bed.pen, &mut other);
    assert_eq!(bed.offers(0, 2, 9, 0)[1..], [agreed(9), ACK.into(), taken(0)], "who has a cell keeps it");
}

#[test]
fn a_connection_begins_when_every_sink_has_what_the_one_before_brought() {
    let mut bed = Bed::new(2);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..4);
    bed.shards[0].hand_over(bed.now, 0, 4);
    // The other sink has nothing yet. The agent comes back elsewhere.
    let answer = bed.offers(1, 5, SESSION, 0);
    assert_eq!(
        answer,
        ["mail 0/0".into(), agreed(SESSION), ACK.into()],
        "ready, and not told where to begin"
    );
    assert_eq!(bed.waits(1, Duration::from_secs(3)), []);
    bed.shards[0].hand_over(bed.now, 2, 3);
    assert_eq!(bed.waits(1, Duration::from_secs(3)), []);
    bed.shards[0].hand_over(bed.now, 2, 1);
    assert_eq!(bed.waits(1, Duration::from_secs(3)), [(10, taken(4))]);
    // Something was still on its way on the old connection.
    assert_eq!(bed.says(0, 0, &event(4)), Verdict::Dropped(Reason::DeliveryLost));
    assert_eq!(bed.shards[0].deeds().last(), closes(0).last());
}

#[test]
fn on_its_own_shard_it_begins_with_the_last_note() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..2);
    let answer = bed.offers(0, 1, SESSION, 0);
    assert_eq!(answer, ["close 0: overtaken".into(), agreed(SESSION), ACK.into()]);
    bed.says(0, 1, KEEP_ALIVE);
    assert_eq!(bed.shards[0].deeds(), [ACK], "keep-alives run while it waits");
    bed.shards[0].hand_over(bed.now, 0, 2);
    assert_eq!(bed.shards[0].deeds(), [""; 0]);
    bed.shards[0].hand_over(bed.now, 2, 2);
    assert_eq!(bed.shards[0].deeds(), [taken(2)]);
}

#[test]
fn each_sink_gets_only_what_it_does_not_have() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..5);
    assert_eq!(bed.shards[0].hand_over(bed.now, 0, 4), texts(0..4));
    assert_eq!(bed.shards[0].hand_over(bed.now, 2, 2), texts(0..2));
    // The process is killed; its ledger stays.
    let book = Arc::clone(&bed.shards[0].book);
    bed.shards = Shard::all(1, &Settings::default(), &book);
    assert_eq!(bed.offers(0, 0, SESSION, 0).last(), Some(&taken(2)));
    // An agent may give more than it must.
    bed.next(0, 0, 1);
    assert_eq!(bed.says(0, 0, &event(1)), Verdict::Dropped(Reason::DeliveredBefore));
    bed.events(0, 0, 2..6);
    assert_eq!(bed.shards[0].hand_all_over(bed.now), [texts(4..6), texts(2..6)]);
    assert_eq!(bed.shards[0].deeds(), [""; 0], "nobody was closed");
}

#[test]
fn numbers_jump_forward_and_never_back() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 3);
    bed.events(0, 0, 3..5);
    bed.next(0, 0, 5);
    bed.events(0, 0, 5..6);
    bed.next(0, 0, 1_000);
    bed.events(0, 0, 1_000..1_001);
    let numbers: Vec<u64> = bed.shards[0].sinks.held[0].iter().map(|(ticket, _)| ticket.number).collect();
    assert_eq!(numbers, [3, 4, 5, 1_000]);
    bed.next(0, 0, 1_000);
    assert_eq!(bed.shards[0].deeds(), closes(0));
    assert_eq!(bed.says(0, 0, &event(1_001)), Verdict::Dropped(Reason::ConnectionClosed));
}

#[test]
fn the_last_number_is_the_last() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, DELIVERY_NUMBER_MAX);
    bed.next(0, 0, DELIVERY_NUMBER_MAX);
    bed.events(0, 0, DELIVERY_NUMBER_MAX..DELIVERY_NUMBER_MAX + 1);
    assert_eq!(bed.says(0, 0, &event(0)), Verdict::Dropped(Reason::DeliveryUnnumbered));
    bed.shards[0].hand_all_over(bed.now);
    assert_eq!(bed.shards[0].deeds(), closes(0));
}

#[test]
fn an_event_without_a_number_closes() {
    let mut bed = Bed::new(2);
    bed.offers(0, 0, SESSION, 0);
    assert_eq!(bed.says(0, 0, &event(0)), Verdict::Dropped(Reason::DeliveryUnnumbered));
    assert_eq!(bed.shards[0].deeds(), closes(0));
    // One that waits was not told where to begin: neither a number nor an event may come.
    for is_event in [false, true] {
        bed.offers(0, 1, SESSION, 0);
        bed.next(0, 1, 0);
        bed.events(0, 1, 0..1);
        bed.offers(1, 1, SESSION, 0);
        if is_event {
            assert_eq!(bed.says(1, 1, &event(0)), Verdict::Dropped(Reason::DeliveryUnnumbered));
        } else {
            bed.next(1, 1, 0);
        }
        assert_eq!(bed.shards[1].deeds(), closes(1));
        bed.shards[0].manager.close_mail(id(1));
        bed.shards[0].sinks = Sinks::default();
        bed.shards[0].deeds();
        bed = Bed { shards: Shard::all(2, &Settings::default(), &Book::new(1)), ..bed };
    }
}

#[test]
fn what_is_lost_before_it_was_counted_closes() {
    type Lost = fn(&mut Bed) -> Vec<u8>;
    let lost: [(Lost, Reason); 5] = [
        (|_| [b"!001!", &Pen::new("002").seal(&event(0))[b"!002!".len()..]].concat(), Reason::WrongKey),
        (
            |bed| {
                let message = bed.pen.seal(KEEP_ALIVE);
                bed.shards[0].receive(bed.now, Peer::Connection(id(0)), &message);
                message
            },
            Reason::CounterDuplicate,
        ),
        (|_| Pen::new("002").seal(&event(0)), Reason::ConnectionAgent),
        (|bed| bed.pen.seal(b"#!-ringmaster next "), Reason::ControlMalformed),
        (|_| b"noise".to_vec(), Reason::Malformed),
    ];
    for (lost, reason) in lost {
        let mut bed = Bed::new(1);
        bed.offers(0, 0, SESSION, 0);
        bed.next(0, 0, 0);
        bed.events(0, 0, 0..1);
        let message = lost(&mut bed);
        let verdict = bed.shards[0].receive(bed.now, Peer::Connection(id(0)), &message);
        assert_eq!(verdict, Verdict::Dropped(reason));
        assert_eq!(bed.shards[0].deeds().last(), closes(0).last(), "{reason:?}");
    }
}

#[test]
fn a_frame_that_was_taken_out_on_the_way_closes() {
    // Behind the start-up, before a number, an event, a keep-alive: what is taken out, and what comes next.
    let next = b"#!-ringmaster next 1".to_vec();
    let cases: [(&[u8], &[u8]); 4] =
        [(&event(1), &event(2)), (&event(1), KEEP_ALIVE), (&next, &event(1)), (KEEP_ALIVE, &next)];
    for (taken_out, then) in cases {
        let mut bed = Bed::new(1);
        bed.offers(0, 0, SESSION, 0);
        bed.next(0, 0, 0);
        bed.events(0, 0, 0..1);
        bed.pen.seal(taken_out);
        assert_eq!(bed.says(0, 0, then), Verdict::Dropped(Reason::DeliveryUnnumbered));
        assert_eq!(bed.shards[0].deeds(), closes(0));
        assert_eq!(bed.shards[0].hand_all_over(bed.now), [texts(0..1), texts(0..1)]);
        assert_eq!(bed.offers(0, 1, SESSION, 0).last(), Some(&taken(1)), "and comes again");
    }
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.pen.seal(&next);
    assert_eq!(
        bed.says(0, 0, &next),
        Verdict::Dropped(Reason::DeliveryUnnumbered),
        "the first one counts too"
    );
}

#[test]
fn counters_follow_each_other_over_their_wrap() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    let count = u64::from(codec::limits::LOCAL_COUNTER_MAX) + 2;
    bed.events(0, 0, 0..count);
    assert_eq!(bed.shards[0].hand_all_over(bed.now)[0].len() as u64, count);
}

#[test]
fn what_is_no_event_has_its_number_and_is_passed() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    for (text, reason) in
        [(&b"no queue"[..], Reason::EventMalformed), (b"1:keepalive and filler", Reason::KeepAliveFiller)]
    {
        assert_eq!(bed.says(0, 0, text), Verdict::Dropped(reason));
    }
    bed.says(0, 0, b"#!-something else");
    bed.events(0, 0, 2..3);
    assert_eq!(bed.shards[0].deeds(), [""; 0]);
    assert_eq!(bed.shards[0].hand_all_over(bed.now), [texts(2..3), texts(2..3)]);
    assert_eq!(bed.shards[0].book.before(0, 2), 3, "what was no event was noted");
}

#[test]
fn an_agent_is_told_once_a_second_or_at_once_of_a_thousand() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..3);
    for _ in 0..3 {
        bed.shards[0].hand_over(bed.now, 0, 1);
        bed.shards[0].hand_over(bed.now, 2, 1);
        assert_eq!(bed.waits(0, Duration::from_millis(300)), []);
    }
    assert_eq!(bed.waits(0, Duration::from_secs(5)), [(100, taken(3))]);
    bed.events(0, 0, 3..1_010);
    bed.shards[0].hand_over(bed.now, 0, 1_005);
    bed.shards[0].hand_over(bed.now, 2, 999);
    assert_eq!(bed.shards[0].deeds(), [""; 0]);
    bed.shards[0].hand_over(bed.now, 2, 1);
    assert_eq!(bed.shards[0].deeds(), [taken(1_003)]);
    bed.shards[0].hand_over(bed.now, 2, 1);
    assert_eq!(bed.waits(0, Duration::from_secs(5)), [(1_000, taken(1_004))]);
    assert_eq!(bed.waits(0, Duration::from_secs(5)), [], "no news");
}

#[test]
fn a_keep_alive_is_answered_with_the_news_first() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..2);
    bed.says(0, 0, KEEP_ALIVE);
    assert_eq!(bed.shards[0].deeds(), [ACK], "nothing is taken yet");
    bed.shards[0].hand_all_over(bed.now);
    bed.says(0, 0, KEEP_ALIVE);
    assert_eq!(bed.shards[0].deeds(), [taken(2), ACK.into()]);
    bed.says(0, 0, KEEP_ALIVE);
    assert_eq!(bed.shards[0].deeds(), [ACK]);
    assert_eq!(bed.waits(0, Duration::from_secs(5)), [], "it was told");
}

#[test]
fn another_session_begins_when_nothing_of_the_old_one_is_on_its_way() {
    let mut bed = Bed::new(2);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..2);
    assert_eq!(bed.offers(1, 0, 9, 50)[1..], [agreed(9), ACK.into()]);
    assert_eq!(
        bed.shards[0].book.cells.lock().unwrap()[0].session,
        SESSION,
        "the old numbers are still noted"
    );
    bed.shards[0].hand_all_over(bed.now);
    assert_eq!(bed.waits(1, Duration::from_secs(1)), [(10, taken(50))]);
    bed.next(1, 0, 50);
    bed.events(1, 0, 50..51);
    assert_eq!(bed.shards[1].hand_all_over(bed.now), [texts(50..51), texts(50..51)]);
    // The old connection was not closed yet. It must not be told numbers of another session.
    bed.says(0, 0, KEEP_ALIVE);
    assert_eq!(bed.shards[0].deeds(), closes(0));
}

#[test]
fn an_agent_that_dropped_its_oldest_begins_behind_them() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.shards[0].manager.on_closed(id(0));
    assert_eq!(bed.offers(0, 0, SESSION, 70).last(), Some(&taken(70)), "0 to 69 will never come");
}

#[test]
fn of_two_that_wait_the_later_one_begins() {
    let mut bed = Bed::new(3);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..1);
    bed.offers(1, 0, SESSION, 0);
    bed.offers(2, 0, SESSION, 0);
    bed.shards[0].hand_all_over(bed.now);
    assert_eq!(bed.waits(1, Duration::from_millis(10)), [(10, closes(0)[0].clone())]);
    assert_eq!(bed.waits(2, Duration::from_millis(10)), [(0, taken(1))]);
}

#[test]
fn a_start_up_in_the_middle_closes() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.says(0, 0, &offer(SESSION, 0));
    assert_eq!(bed.shards[0].deeds(), closes(0));
}

#[test]
fn connections_that_agreed_go_on_when_new_ones_may_not() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    let deliveries = bed.shards[0].manager.desk.deliverers.deliveries.clone();
    bed.shards[0].manager.set_deliveries(None);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..1);
    bed.shards[0].hand_all_over(bed.now);
    assert_eq!(bed.waits(0, Duration::from_secs(1)), [(1_000, taken(1))]);
    assert_eq!(bed.offers(0, 1, SESSION, 1), ["close 0: overtaken", ACK]);
    bed.shards[0].manager.set_deliveries(deliveries);
    assert_eq!(bed.offers(0, 2, SESSION, 1)[1..], [agreed(SESSION), ACK.into(), taken(1)]);
}

#[test]
fn a_removed_key_ends_its_delivery() {
    let mut bed = Bed::new(1);
    bed.offers(0, 0, SESSION, 0);
    bed.next(0, 0, 0);
    bed.events(0, 0, 0..1);
    bed.shards[0].manager.on_keys(Arc::new(AgentTable::default()));
    bed.shards[0].hand_all_over(bed.now);
    assert_eq!(bed.shards[0].deeds(), ["close 0: key_removed"]);
    assert_eq!((bed.counters(0).delivering, bed.shards[0].manager.next_timeout()), (0, None));
}

#[test]
fn what_it_keeps_is_bounded_by_its_connections() {
    let mut bed = Bed::new(1);
    for slot in 0..200 {
        bed.offers(0, slot, SESSION, 0);
        bed.next(0, slot, u64::from(slot));
        bed.events(0, slot, u64::from(slot)..u64::from(slot) + 1);
        bed.shards[0].hand_all_over(bed.now);
    }
    let deliverers = &bed.shards[0].manager.desk.deliverers;
    assert_eq!((deliverers.held, deliverers.by_cell.len(), deliverers.agenda.len()), (1, 1, 1));
}
