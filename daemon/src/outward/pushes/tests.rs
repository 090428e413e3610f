use super::super::merged::Part;
use super::*;
use proptest::prelude::*;

fn file(bytes: usize, fill: u8) -> SharedFile {
    SharedFile::merge(None, &[Part { name: b"f".to_vec(), content: vec![fill; bytes] }]).unwrap()
}

fn id(number: u32) -> AgentId {
    number.to_string().parse().unwrap()
}

fn at(milliseconds: u64) -> Time {
    Time::from_nanoseconds((100_000 + milliseconds) * 1_000_000)
}

fn pushes(bytes_per_second: u64, at_once_max: usize) -> Pushes {
    Pushes::new(PushSettings { bytes_per_second, at_once_max })
}

const SENT: Fate = Fate::Sent(Transport::Tcp);
const PLENTY: u64 = 1 << 40;

impl Pushes {
    fn wants(&mut self, now: Time, agent: u32, file: &SharedFile) {
        self.report(now, id(agent), None, Transport::Tcp, file);
    }

    /// All that may go now.
    fn burst(&mut self, now: Time) -> Vec<PushOrder> {
        std::iter::from_fn(|| self.next_order(now)).collect()
    }

    /// Sends to the end, each piece taken at once.
    fn finish(&mut self, now: Time) -> Vec<Bytes> {
        let mut texts = Vec::new();
        while let Some(order) = self.next_order(now) {
            texts.push(order.text);
            self.fate(now, order.ticket, SENT);
        }
        texts
    }
}

#[test]
fn a_push_from_its_first_to_its_last_word() {
    let (mut pushes, file) = (pushes(PLENTY, 4), file(2_000, b'x'));
    pushes.report(at(0), id(1), Some(file.digest()), Transport::Tcp, &file);
    assert_eq!(pushes.burst(at(0)), [], "it has the file");
    pushes.wants(at(0), 1, &file);
    pushes.wants(at(0), 1, &file);
    let texts = pushes.finish(at(0));
    let begin = format!("#!-up file {} merged.mg\n", file.digest());
    assert_eq!(texts[0], begin);
    assert_eq!(texts.last().unwrap(), &b"#!-close file "[..]);
    assert_eq!(texts[1..texts.len() - 1].concat(), file.content()[..]);
    assert_eq!(pushes.gauges(), PushGauges { unconfirmed: 1, ..PushGauges::default() });
    pushes.report(at(20), id(1), Some(file.digest()), Transport::Tcp, &file);
    assert_eq!(pushes.gauges(), PushGauges::default(), "nothing stays behind");
    let expected = PushCounters {
        begun: 1,
        sent: 1,
        confirmed: 1,
        bytes: file.content().len() as u64,
        messages: texts.len() as u64,
        ..PushCounters::default()
    };
    assert_eq!(pushes.counters(), expected);
    assert!(pushes.on_the_way.is_empty() && pushes.agents.is_empty());
}

#[test]
fn an_agent_that_reads_slowly_has_few_pieces_under_way_and_gives_its_place_away() {
    let (mut pushes, file) = (pushes(PLENTY, 1), file(100_000, b'x'));
    pushes.wants(at(0), 1, &file);
    pushes.wants(at(0), 2, &file);
    let orders = pushes.burst(at(0));
    assert_eq!(orders.len(), WINDOW);
    assert!(orders.iter().all(|order| order.agent == id(1)), "one at a time");
    pushes.on_timeout(at(4_999));
    assert_eq!(pushes.burst(at(4_999)), []);
    pushes.on_timeout(at(5_000));
    assert_eq!(pushes.gauges(), PushGauges { stalled: 1, queued: 1, ..PushGauges::default() });
    assert!(pushes.burst(at(5_000)).iter().all(|order| order.agent == id(2)));
    pushes.fate(at(6_000), orders[0].ticket, SENT);
    let goes_on = pushes.burst(at(6_000));
    assert_eq!((goes_on.len(), goes_on[0].agent), (1, id(1)), "it goes on where it was");
    assert_eq!(pushes.gauges(), PushGauges { moving: 2, ..PushGauges::default() });
}

#[test]
fn the_budget_is_for_all_and_all_have_turns() {
    let (mut pushes, file) = (pushes(100_000, 10), file(50_000, b'x'));
    (1..=10).for_each(|agent| pushes.wants(at(0), agent, &file));
    let (mut bytes, mut each) = (0, HashMap::<AgentId, usize>::new());
    for millisecond in (0..2_000).step_by(5) {
        while let Some(order) = pushes.next_order(at(millisecond)) {
            bytes += order.text.len();
            *each.entry(order.agent).or_default() += order.text.len();
            pushes.fate(at(millisecond), order.ticket, SENT);
        }
        assert!(pushes.next_turn().is_some());
    }
    assert!((190_000..=212_000).contains(&bytes), "{bytes}");
    let (least, most) = (each.values().min().unwrap(), each.values().max().unwrap());
    assert!(each.len() == 10 && most - least <= 2_000, "{each:?}");
}

#[test]
fn over_udp_it_is_paced_and_tried_again_ever_more_seldom() {
    let (mut pushes, file) = (pushes(PLENTY, 4), file(30_000, b'x'));
    let over_udp = |pushes: &mut Pushes, milliseconds: u64| {
        pushes.report(at(milliseconds), id(1), None, Transport::Udp, &file);
    };
    over_udp(&mut pushes, 0);
    let mut sent = 0;
    for hundreds in 0..4u64 {
        let texts = pushes.finish(at(hundreds * 100));
        assert_eq!(texts.len(), if hundreds < 3 { PACED } else { 6 });
        assert_eq!(pushes.finish(at(hundreds * 100 + 99)).len(), 0);
        sent += texts.len();
    }
    assert_eq!(sent, 36, "34 chunks, and what is around them");
    let mut tries = 1;
    for seconds in 1..40_000u64 {
        over_udp(&mut pushes, seconds * 1_000);
        if pushes.finish(at(seconds * 1_000)).is_empty() {
            continue;
        }
        tries += 1;
        for hundreds in 1..4 {
            pushes.finish(at(seconds * 1_000 + hundreds * 100));
        }
        assert_eq!(pushes.gauges().unconfirmed, 1);
    }
    assert!((15..25).contains(&tries), "10 s, 20 s, and so on up to an hour apart: {tries}");
    assert!(pushes.counters().put_off > 30_000);
}

#[test]
fn a_push_that_fails_is_tried_again_at_the_next_keep_alive() {
    let (mut pushes, file) = (pushes(PLENTY, 4), file(30_000, b'x'));
    pushes.wants(at(0), 1, &file);
    let orders = pushes.burst(at(0));
    pushes.fate(at(1), orders[0].ticket, SENT);
    pushes.fate(at(1), orders[1].ticket, Fate::Lost);
    for order in &orders[2..] {
        pushes.fate(at(1), order.ticket, Fate::Lost);
    }
    assert_eq!(pushes.gauges(), PushGauges { unconfirmed: 1, ..PushGauges::default() });
    assert_eq!(pushes.burst(at(1)), []);
    pushes.wants(at(2), 1, &file);
    assert!(pushes.finish(at(2))[0].starts_with(b"#!-up file "));
    assert_eq!((pushes.counters().failed, pushes.counters().sent), (1, 1));
}

#[test]
fn a_file_that_changes_under_way_begins_anew() {
    let (mut pushes, old, new) = (pushes(PLENTY, 4), file(30_000, b'x'), file(30_000, b'y'));
    pushes.wants(at(0), 1, &old);
    let orders = pushes.burst(at(0));
    pushes.files_changed(at(1), |_| Some(old.clone()));
    assert_eq!(pushes.counters().restarted, 0, "it is the same");
    pushes.files_changed(at(1), |_| Some(new.clone()));
    for order in orders {
        pushes.fate(at(2), order.ticket, SENT);
    }
    let texts = pushes.finish(at(3));
    assert_eq!(texts[0], format!("#!-up file {} merged.mg\n", new.digest()));
    assert_eq!(texts[1..texts.len() - 1].concat(), new.content()[..]);
}

#[test]
fn agents_that_are_none_any_more_are_forgotten() {
    let (mut pushes, file) = (pushes(PLENTY, 1), file(30_000, b'x'));
    pushes.wants(at(0), 1, &file);
    pushes.wants(at(0), 2, &file);
    let orders = pushes.burst(at(0));
    pushes.retain(|agent| agent == id(2));
    pushes.fate(at(1), orders[0].ticket, SENT);
    assert!(pushes.burst(at(1)).iter().all(|order| order.agent == id(2)));
    assert_eq!(pushes.gauges(), PushGauges { moving: 1, ..PushGauges::default() });
}

proptest! {
    /// Whatever comes: no more pushes move than may, counts agree with states, and an agent that takes all pieces of one push
    /// has the file.
    #[test]
    fn states_agree(steps in prop::collection::vec((0..6u8, 1..5u32, 0..40u64), 0..150)) {
        let (mut pushes, files) = (pushes(200_000, 2), [file(5_000, b'x'), file(3_000, b'y')]);
        let (mut now, mut orders) = (0u64, VecDeque::new());
        for (step, agent, more) in steps {
            now += more * 20;
            match step {
                0 | 1 => pushes.wants(at(now), agent, &files[usize::from(step)]),
                2 => orders.extend(pushes.next_order(at(now))),
                3 => if let Some(PushOrder { ticket, .. }) = orders.pop_front() {
                    pushes.fate(at(now), ticket, if more == 0 { Fate::Lost } else { SENT });
                },
                4 => pushes.on_timeout(at(now)),
                5 if more < 3 => pushes.retain(|other| other != id(agent)),
                _ => pushes.files_changed(at(now), |_| Some(files[agent as usize % 2].clone())),
            }
            let gauges = pushes.gauges();
            prop_assert_eq!(gauges.moving as usize, pushes.moving);
            prop_assert!(gauges.moving <= 2 + gauges.stalled + 4);
            prop_assert!(pushes.turns.len() <= 8 + pushes.agents.len());
        }
    }
}
