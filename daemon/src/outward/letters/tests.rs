use super::*;
use proptest::prelude::*;

const KEEP: Duration = Duration::from_secs(600);

fn letters() -> Letters {
    Letters::new(LetterSettings { keep: KEEP, each_max: 20, all_max: 50, bytes_max: 1_000 })
}

fn id(text: &str) -> AgentId {
    text.parse().unwrap()
}

fn at(seconds: u64) -> Time {
    Time::from_seconds(seconds)
}

impl Letters {
    fn say(&mut self, second: u64, agent: &str, text: &str, origin: Origin) {
        self.post(at(second), id(agent), Bytes::copy_from_slice(text.as_bytes()), origin);
    }

    fn orders(&mut self) -> Vec<(u64, String)> {
        std::iter::from_fn(|| self.next_order())
            .map(|order| (order.ticket, String::from_utf8(order.text.to_vec()).unwrap()))
            .collect()
    }

    fn texts(&mut self) -> Vec<String> {
        self.orders().into_iter().map(|(_, text)| text).collect()
    }

    fn became(&mut self) -> Vec<(Origin, Became)> {
        std::iter::from_fn(|| self.next_answer()).map(|answer| (answer.origin, answer.became)).collect()
    }
}

#[test]
fn a_message_for_an_agent_that_is_there() {
    let mut letters = letters();
    letters.say(0, "001", "a", 7);
    let orders = letters.orders();
    assert_eq!(orders, [(1, "a".to_owned())]);
    assert_eq!(letters.became(), [], "nothing is known yet");
    letters.fate(1, Fate::Sent(Transport::Tcp));
    letters.fate(1, Fate::Lost);
    assert_eq!(letters.became(), [(7, Became::Sent(Transport::Tcp))]);
    assert_eq!((letters.held(), letters.next_timeout()), ((0, 0), None), "nothing stays behind");
    assert!(letters.lines.is_empty());
}

#[test]
fn what_waits_for_an_agent_goes_in_order_when_it_is_heard() {
    let mut letters = letters();
    letters.say(0, "001", "a", 1);
    assert_eq!(letters.texts(), ["a"]);
    letters.fate(1, Fate::Away(Some(Transport::Tcp)));
    letters.say(1, "001", "b", 2);
    letters.say(2, "002", "other", 0);
    letters.say(3, "001", "c", 3);
    assert_eq!(letters.became(), [(1, Became::Kept), (2, Became::Kept), (3, Became::Kept)]);
    assert_eq!(letters.texts(), ["other"], "the others do not wait");
    letters.heard(id("001"));
    for (ticket, text) in (3..).zip(["a", "b", "c"]) {
        assert_eq!(letters.texts(), [text]);
        letters.fate(ticket, Fate::Sent(Transport::Tcp));
    }
    assert_eq!(letters.became(), [(0, Became::Sent(Transport::Tcp)); 3], "nobody asks any more");
}

#[test]
fn a_connection_that_ends_under_way_changes_no_order() {
    let mut letters = letters();
    for text in ["a", "b", "c"] {
        letters.say(0, "001", text, 1);
    }
    assert_eq!(letters.texts(), ["a"], "one at a time");
    letters.fate(1, Fate::Sent(Transport::Tcp));
    assert_eq!(letters.texts(), ["b"]);
    letters.heard(id("001"));
    letters.fate(2, Fate::Lost);
    assert_eq!(letters.texts(), ["b"], "it came back in the meantime");
    assert_eq!(letters.became(), [(1, Became::Sent(Transport::Tcp))], "and nobody was told that it waits");
    letters.fate(3, Fate::Lost);
    assert_eq!(letters.texts(), Vec::<String>::new());
    assert_eq!(letters.became(), [(1, Became::Kept); 2]);
}

#[test]
fn a_message_that_ends_every_connection_is_given_up() {
    let mut letters = letters();
    letters.say(0, "001", "restart", 1);
    letters.say(0, "001", "next", 2);
    for ticket in 1..=LOSSES_MAX {
        assert_eq!(letters.texts(), ["restart"]);
        letters.fate(u64::from(ticket), Fate::Lost);
        letters.heard(id("001"));
    }
    assert_eq!(letters.texts(), ["next"]);
    let became = letters.became();
    assert_eq!(became.last(), Some(&(0, Became::Dropped(Dropped::Lost))));
}

#[test]
fn over_udp_nothing_is_kept_and_impossible_messages_are_dropped() {
    let mut letters = letters();
    for (ticket, (fate, dropped)) in [
        (Fate::Away(Some(Transport::Udp)), Dropped::Away),
        (Fate::Unknown, Dropped::Unknown),
        (Fate::TooLong, Dropped::TooLong),
    ]
    .into_iter()
    .enumerate()
    {
        letters.say(0, "001", "a", 1);
        assert_eq!(letters.texts(), ["a"]);
        letters.fate(ticket as u64 + 1, fate);
        assert_eq!(letters.became(), [(1, Became::Dropped(dropped))]);
    }
    letters.set(LetterSettings { keep: Duration::ZERO, ..letters.settings });
    letters.say(0, "001", "a", 1);
    assert_eq!(letters.texts(), ["a"]);
    letters.fate(4, Fate::Away(None));
    assert_eq!(letters.became(), [(1, Became::Dropped(Dropped::Away))], "keeping is off");
    assert_eq!(letters.held(), (0, 0));
}

#[test]
fn what_waits_for_too_long_expires_and_bounds_hold() {
    let mut letters = letters();
    letters.say(0, "001", "a", 1);
    letters.texts();
    letters.fate(1, Fate::Away(None));
    letters.say(9, "001", "b", 2);
    assert_eq!(letters.next_timeout(), Some(at(600)));
    letters.on_timeout(at(600));
    assert_eq!(letters.became(), [(1, Became::Kept), (2, Became::Kept), (0, Became::Expired)]);
    assert_eq!(letters.next_timeout(), Some(at(609)));
    for _ in 0..20 {
        letters.say(10, "001", "x", 3);
    }
    assert_eq!(letters.became().last(), Some(&(3, Became::Dropped(Dropped::Full))), "20 of one agent");
    letters.say(10, "002", &"x".repeat(990), 4);
    assert_eq!(letters.became(), [(4, Became::Dropped(Dropped::Full))], "1,000 bytes of all");
    for agent in 3..=40 {
        letters.say(10, &agent.to_string(), "x", 5);
    }
    assert_eq!(letters.held().0, 50, "50 of all");
    letters.on_timeout(at(10_000));
    assert_eq!(letters.next_timeout(), None);
    assert_eq!(letters.held(), (0, 0));
}

proptest! {
    /// Whatever becomes of connections: each message has one end, and an agent that takes what it is sent gets them in order.
    #[test]
    fn order_and_sums(steps in prop::collection::vec((0..5u8, 0..3u8), 0..120)) {
        let (mut letters, mut posted, mut under_way) = (letters(), 0u64, VecDeque::new());
        let (mut taken, mut ends) = (HashMap::<AgentId, u64>::new(), 0u64);
        for (step, which) in steps {
            let agent = AgentId::from_bytes(&[b'1' + which]).unwrap();
            match step {
                0 | 1 => {
                    posted += 1;
                    letters.post(at(posted), agent, Bytes::from(posted.to_string()), posted);
                }
                2 => letters.heard(agent),
                3 | 4 => if let Some((ticket, agent, text)) = under_way.pop_front() {
                    let fate = match which {
                        0 => Fate::Lost,
                        1 => Fate::Away(Some(Transport::Tcp)),
                        _ => Fate::Sent(Transport::Tcp),
                    };
                    if matches!(fate, Fate::Sent(_)) {
                        let last = taken.insert(agent, text);
                        prop_assert!(last < Some(text), "{last:?} before {text}");
                    }
                    letters.fate(ticket, fate);
                },
                _ => unreachable!(),
            }
            while let Some(order) = letters.next_order() {
                let text = std::str::from_utf8(&order.text).unwrap().parse::<u64>().unwrap();
                under_way.push_back((order.ticket, order.agent, text));
            }
            while let Some(answer) = letters.next_answer() {
                ends += u64::from(answer.became != Became::Kept);
            }
        }
        prop_assert_eq!(letters.held().0 as u64, posted - ends);
        for (ticket, _, _) in under_way {
            letters.fate(ticket, Fate::Lost);
        }
        letters.on_timeout(at(100_000));
        prop_assert_eq!(letters.held(), (0, 0));
        prop_assert!(letters.lines.is_empty() && letters.on_the_way.is_empty() && letters.expiries.is_empty());
    }
}
