//! Requests to Wazuh agents: `#!-req <number> <target> <command>`, and their answers. Pure.
//!
//! Over UDP an agent acknowledges a request (`#!-req <number> ack`), which is sent again until it does, and the manager
//! acknowledges the answer. An answer counts only if it comes from the agent that was asked.
//!
//! Source: wazuh v4.14.7 `remoted/request.c`, `req_dispatch` and `req_save`.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use codec::{AgentId, ToAgent};
use manager::{Time, Transport};

use super::order::Fate;

/// Requests that are open at once. Source: wazuh v4.14.7 `remoted.request_pool`.
pub(crate) const OPEN_MAX: usize = 1_024;

/// How often a request is sent over UDP, and how long an acknowledgement may take. Source: `remoted.max_attempts`, `request_rto_sec`.
const ATTEMPTS_MAX: u32 = 4;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(1);

/// How long an answer may take. Source: `remoted.response_timeout`.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);

const CAN_NOT_SEND: &[u8] = b"err Cannot send request";
const TOO_MANY_ATTEMPTS: &[u8] = b"err Maximum attempts exceeded";
const NO_ANSWER: &[u8] = b"err Response timeout";

/// Who asked.
pub(crate) type Asker = u64;

/// As many requests are open as may.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct TooManyRequests;

/// A message that a shard is to send. Its fate matters for requests only.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RequestOrder {
    /// What its fate will be told with.
    pub(crate) ticket: u64,
    /// Whom it is for.
    pub(crate) agent: AgentId,
    /// The text.
    pub(crate) text: Bytes,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct RequestCounters {
    /// Asked.
    pub(crate) asked: u64,
    /// Messages sent for them, repetitions and acknowledgements included.
    pub(crate) messages: u64,
    /// Answered by the agent.
    pub(crate) answered: u64,
    /// Not sent, not acknowledged or not answered in time.
    pub(crate) failed: u64,
    /// Answers that nobody waits for.
    pub(crate) unexpected: u64,
}

/// All open requests.
#[derive(Debug)]
pub(crate) struct Requests {
    open: HashMap<u32, Request>,
    deadlines: BTreeSet<(Time, u32)>,
    /// Which request a ticket is of.
    on_the_way: HashMap<u64, u32>,
    orders: VecDeque<RequestOrder>,
    answers: VecDeque<(Asker, Bytes)>,
    /// The number of the next request.
    number: u32,
    tickets: u64,
    counters: RequestCounters,
}

#[derive(Debug)]
struct Request {
    asker: Asker,
    agent: AgentId,
    text: Bytes,
    attempts: u32,
    /// Over UDP, and no acknowledgement came yet.
    unacknowledged: bool,
    over: Option<Transport>,
    deadline: Time,
}

impl Requests {
    /// No requests; `first` is the number of the next. It should differ from run to run, so that no late answer fits.
    pub(crate) fn new(first: u32) -> Requests {
        Requests {
            open: HashMap::new(),
            deadlines: BTreeSet::new(),
            on_the_way: HashMap::new(),
            orders: VecDeque::new(),
            answers: VecDeque::new(),
            number: first,
            tickets: 0,
            counters: RequestCounters::default(),
        }
    }

    /// Asks an agent.
    ///
    /// # Errors
    /// [`TooManyRequests`]; nothing is asked then.
    pub(crate) fn ask(
        &mut self,
        now: Time,
        agent: AgentId,
        payload: &[u8],
        asker: Asker,
    ) -> Result<(), TooManyRequests> {
        if self.open.len() >= OPEN_MAX {
            return Err(TooManyRequests);
        }
        while self.open.contains_key(&self.number) {
            self.number = self.number.wrapping_add(1);
        }
        let number = self.number;
        self.number = number.wrapping_add(1);
        let deadline = now + ANSWERED_WITHIN;
        let text = text(number, payload);
        let request =
            Request { asker, agent, text, attempts: 0, unacknowledged: false, over: None, deadline };
        self.open.insert(number, request);
        self.deadlines.insert((deadline, number));
        self.counters.asked += 1;
        self.send(number);
        Ok(())
    }

    /// What became of a message.
    pub(crate) fn fate(&mut self, now: Time, ticket: u64, fate: Fate) {
        let Some(number) = self.on_the_way.remove(&ticket) else { return };
        let Some(request) = self.open.get_mut(&number) else { return };
        match fate {
            Fate::Sent(over) => {
                let is_first = request.over.replace(over).is_none();
                if over == Transport::Udp && (is_first || request.unacknowledged) {
                    request.unacknowledged = true;
                    self.due(number, now + ACKNOWLEDGED_WITHIN);
                } else {
                    self.due(number, now + ANSWERED_WITHIN);
                }
            }
            Fate::Away(_) | Fate::Lost | Fate::TooLong | Fate::Unknown => self.fail(number, CAN_NOT_SEND),
        }
    }

    /// An agent said `#!-req <counter> <payload>`, over this.
    pub(crate) fn answer(
        &mut self,
        now: Time,
        agent: AgentId,
        over: Transport,
        counter: &[u8],
        payload: &[u8],
    ) {
        let number = std::str::from_utf8(counter).ok().and_then(|text| u32::from_str_radix(text, 16).ok());
        let asked =
            number.filter(|number| self.open.get(number).is_some_and(|request| request.agent == agent));
        let Some(number) = asked else {
            self.counters.unexpected += 1;
            return;
        };
        let request = self.open.get_mut(&number).expect("it was just found");
        if payload == ACKNOWLEDGED {
            request.unacknowledged = false;
            request.over = Some(over);
            self.due(number, now + ANSWERED_WITHIN);
            return;
        }
        self.counters.answered += 1;
        let request = self.close(number);
        self.answers.push_back((request.asker, Bytes::copy_from_slice(payload)));
        if over == Transport::Udp {
            self.order(agent, text(number, ACKNOWLEDGED), None);
        }
    }

    /// Time has passed.
    pub(crate) fn on_timeout(&mut self, now: Time) {
        while let Some(&(_, number)) = self.deadlines.first().filter(|(due, _)| *due <= now) {
            let request = self.open.get_mut(&number).expect("it has a deadline");
            if !request.unacknowledged {
                self.fail(number, NO_ANSWER);
            } else if request.attempts >= ATTEMPTS_MAX {
                self.fail(number, TOO_MANY_ATTEMPTS);
            } else {
                self.due(number, now + ACKNOWLEDGED_WITHIN);
                self.send(number);
            }
        }
    }

    /// When [`Requests::on_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(due, _)| *due)
    }

    /// The next message to send.
    pub(crate) fn next_order(&mut self) -> Option<RequestOrder> {
        self.orders.pop_front()
    }

    /// The next answer, and who asked.
    pub(crate) fn next_answer(&mut self) -> Option<(Asker, Bytes)> {
        self.answers.pop_front()
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> RequestCounters {
        self.counters
    }

    fn send(&mut self, number: u32) {
        let request = self.open.get_mut(&number).expect("the caller has it");
        request.attempts += 1;
        let (agent, text) = (request.agent, request.text.clone());
        self.order(agent, text, Some(number));
    }

    fn order(&mut self, agent: AgentId, text: Bytes, number: Option<u32>) {
        self.tickets += 1;
        let ticket = self.tickets;
        if let Some(number) = number {
            self.on_the_way.insert(ticket, number);
        }
        self.counters.messages += 1;
        self.orders.push_back(RequestOrder { ticket, agent, text });
    }

    fn due(&mut self, number: u32, deadline: Time) {
        let request = self.open.get_mut(&number).expect("the caller has it");
        self.deadlines.remove(&(request.deadline, number));
        self.deadlines.insert((deadline, number));
        request.deadline = deadline;
    }

    fn fail(&mut self, number: u32, why: &'static [u8]) {
        self.counters.failed += 1;
        let request = self.close(number);
        self.answers.push_back((request.asker, Bytes::from_static(why)));
    }

    fn close(&mut self, number: u32) -> Request {
        let request = self.open.remove(&number).expect("the caller has it");
        self.deadlines.remove(&(request.deadline, number));
        request
    }
}

const ACKNOWLEDGED: &[u8] = b"ack";

fn text(number: u32, payload: &[u8]) -> Bytes {
    let counter = format!("{number:x}");
    let mut text = Vec::new();
    ToAgent::Request { counter: counter.as_bytes(), payload }.write(&mut text);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> AgentId {
        text.parse().unwrap()
    }

    fn at(milliseconds: u64) -> Time {
        Time::from_nanoseconds(milliseconds * 1_000_000)
    }

    impl Requests {
        fn orders(&mut self) -> Vec<(u64, String)> {
            let orders = std::iter::from_fn(|| self.next_order());
            orders.map(|order| (order.ticket, String::from_utf8(order.text.to_vec()).unwrap())).collect()
        }

        fn answered(&mut self) -> Vec<(Asker, Bytes)> {
            std::iter::from_fn(|| self.next_answer()).collect()
        }
    }

    #[test]
    fn over_tcp_one_message_and_one_answer() {
        let mut requests = Requests::new(0x10);
        requests.ask(at(0), id("003"), b"agent getstate", 7).unwrap();
        assert_eq!(requests.orders(), [(1, "#!-req 10 agent getstate".to_owned())]);
        requests.fate(at(1), 1, Fate::Sent(Transport::Tcp));
        requests.answer(at(2), id("004"), Transport::Tcp, b"10", b"forged");
        requests.answer(at(2), id("003"), Transport::Tcp, b"11", b"none");
        requests.answer(at(2), id("003"), Transport::Tcp, b"\xff", b"none");
        assert_eq!(requests.answered(), []);
        requests.answer(at(2), id("003"), Transport::Tcp, b"10", b"{\"error\":0}");
        requests.answer(at(2), id("003"), Transport::Tcp, b"10", b"again");
        assert_eq!(requests.answered(), [(7, Bytes::from_static(b"{\"error\":0}"))]);
        assert_eq!((requests.orders(), requests.next_timeout()), (vec![], None));
        let expected = RequestCounters { asked: 1, messages: 1, answered: 1, failed: 0, unexpected: 4 };
        assert_eq!(requests.counters(), expected);
    }

    #[test]
    fn over_udp_it_is_repeated_until_acknowledged_and_the_answer_is_acknowledged() {
        let mut requests = Requests::new(1);
        requests.ask(at(0), id("003"), b"agent getstate", 7).unwrap();
        requests.orders();
        requests.fate(at(0), 1, Fate::Sent(Transport::Udp));
        assert_eq!(requests.next_timeout(), Some(at(1_000)));
        requests.on_timeout(at(1_000));
        assert_eq!(requests.orders(), [(2, "#!-req 1 agent getstate".to_owned())]);
        requests.fate(at(1_000), 2, Fate::Sent(Transport::Udp));
        requests.answer(at(1_100), id("003"), Transport::Udp, b"1", b"ack");
        assert_eq!(requests.next_timeout(), Some(at(61_100)));
        requests.answer(at(2_000), id("003"), Transport::Udp, b"1", b"ok {}");
        assert_eq!(requests.answered(), [(7, Bytes::from_static(b"ok {}"))]);
        assert_eq!(requests.orders(), [(3, "#!-req 1 ack".to_owned())]);
        requests.fate(at(2_000), 3, Fate::Lost);
        assert!(requests.on_the_way.is_empty() && requests.open.is_empty() && requests.deadlines.is_empty());
    }

    #[test]
    fn nobody_waits_for_ever() {
        let mut requests = Requests::new(u32::MAX);
        requests.ask(at(0), id("001"), b"a b", 1).unwrap();
        requests.ask(at(0), id("002"), b"a b", 2).unwrap();
        requests.ask(at(0), id("003"), b"a b", 3).unwrap();
        assert_eq!(requests.orders()[1].1, "#!-req 0 a b", "numbers begin anew");
        requests.fate(at(0), 1, Fate::Away(None));
        assert_eq!(requests.answered(), [(1, Bytes::from_static(CAN_NOT_SEND))]);
        requests.fate(at(0), 2, Fate::Sent(Transport::Udp));
        for second in 1..4 {
            requests.on_timeout(at(second * 1_000));
            assert_eq!(requests.orders().len(), 1, "second {second}");
        }
        requests.on_timeout(at(4_000));
        assert_eq!(requests.answered(), [(2, Bytes::from_static(TOO_MANY_ATTEMPTS))]);
        requests.on_timeout(at(60_000));
        assert_eq!(requests.answered(), [(3, Bytes::from_static(NO_ANSWER))], "its fate was never told");
        for asker in 0..OPEN_MAX as u64 {
            requests.ask(at(0), id("001"), b"a b", asker).unwrap();
        }
        assert_eq!(requests.ask(at(0), id("001"), b"a b", 0), Err(TooManyRequests));
    }
}
