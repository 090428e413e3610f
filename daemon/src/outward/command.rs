//! `ringmaster send` and `ringmaster request`, as the command socket asks for them.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Outward, Sending};
use crate::command::{Answer, End, Order};

/// How long a command waits to hear what became of its messages. They go on without it.
const TOLD_WITHIN: Duration = Duration::from_secs(15);

/// How long a request's asker waits: a little less than the client of the socket does.
const ANSWERED_WITHIN: Duration = Duration::from_secs(55);

/// Answers in one page.
const PAGE: usize = 512;

/// Commands that wait at once.
const WAITING_MAX: usize = 64;

/// Commands whose answers are not all told.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    last: usize,
    sendings: BTreeMap<usize, Told>,
}

/// What one command still hears.
#[derive(Debug)]
struct Told {
    answers: mpsc::UnboundedReceiver<Sending>,
    until: Instant,
    /// How many were told, by the word for it.
    counts: BTreeMap<&'static str, u64>,
}

impl Outward {
    /// Carries out `send`: posts the messages, and answers page after page.
    pub fn on_send(self: &Rc<Outward>, order: Order, to: &str, text: &str) {
        let told = match order.from {
            0 => match self.begin_send(to, text) {
                Ok(told) => told,
                Err(why) => return order.answer(Answer::refused(why)),
            },
            number => match self.waiting.borrow_mut().sendings.remove(&number) {
                Some(told) => told,
                None => return order.answer(Answer::refused("the command has waited for too long")),
            },
        };
        let outward = Rc::clone(self);
        tokio_uring::spawn(async move {
            let answer = outward.next_page(told).await;
            order.answer(answer);
        });
    }

    /// Carries out `agent_request`.
    pub fn on_agent_request(self: &Rc<Outward>, order: Order, id: String, text: String) {
        let outward = Rc::clone(self);
        tokio_uring::spawn(async move {
            let answered = timeout(ANSWERED_WITHIN, outward.request(&id, text.as_bytes())).await;
            order.answer(match answered {
                Ok(Ok(said)) => Answer::ok(Value::from(String::from_utf8_lossy(&said).into_owned())),
                Ok(Err(error)) => Answer::refused(error.to_string()),
                Err(_) => Answer::refused("the agent has not answered"),
            });
        });
    }

    fn begin_send(&self, to: &str, text: &str) -> Result<Told, String> {
        let now = Instant::now();
        let mut waiting = self.waiting.borrow_mut();
        // Who asked for these has hung up.
        waiting.sendings.retain(|_, told| told.until + TOLD_WITHIN > now);
        if waiting.sendings.len() >= WAITING_MAX {
            return Err("as many commands wait already as may: try again".to_owned());
        }
        drop(waiting);
        let answers = self.send(to, text).map_err(|error| error.to_string())?;
        Ok(Told { answers, until: now + TOLD_WITHIN, counts: BTreeMap::new() })
    }

    /// What became known next; the sums after the last.
    async fn next_page(&self, mut told: Told) -> Answer {
        let mut items = Vec::new();
        // Gathers for a moment what comes one by one.
        let page_until = Instant::now() + Duration::from_millis(200);
        let ended = loop {
            if items.len() >= PAGE {
                break false;
            }
            let until = if items.is_empty() { told.until } else { page_until.min(told.until) };
            match timeout_at(until, told.answers.recv()).await {
                Ok(Some(Sending { agent, became })) => {
                    *told.counts.entry(became.name()).or_default() += 1;
                    items.push(json!({
                        "agent": agent.as_str(),
                        "result": became.name(),
                        "text": became.to_string(),
                    }));
                }
                Ok(None) => break true,
                Err(_) if items.is_empty() => break true,
                Err(_) => break false,
            }
        };
        if ended {
            let all_told = told.answers.is_closed() && told.answers.is_empty();
            return Answer { items, end: End::Ok(json!({ "counts": told.counts, "all_told": all_told })) };
        }
        let mut waiting = self.waiting.borrow_mut();
        waiting.last += 1;
        let number = waiting.last;
        waiting.sendings.insert(number, told);
        Answer::more(items, number)
    }
}
