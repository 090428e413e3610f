//! Between the state machines and the shards: which shard an order goes to, whose outcome it was, and who waits for an answer.
//! No I/O but the mail.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use codec::{AgentId, FromAgent, HexDigest};
use manager::{Agent, AgentTable, NotSent, Notice, ShardId, Time, Transport};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::letters::{LetterSettings, Letters, Origin};
use super::order::{Fate, Receipt, SendFailure, SendOrder, SendOutcome};
use super::pushes::{PushSettings, Pushes};
use super::requests::{Asker, Requests};
use super::response::{Recipient, Response};
use super::shared::SharedFiles;
use super::{OutwardError, Sending};
use crate::exposition::ControlMetrics;
use crate::logging::Limiter;
use crate::mail::{MailFull, MailSender};
use crate::settings::Settings;

/// Messages of all agents that are not settled, and their bytes.
const LETTERS_MAX: usize = 65_536;
const LETTER_BYTES_MAX: usize = 64 << 20;

/// Messages to all agents that are not given to each of them yet.
const BROADCASTS_MAX: usize = 64;

/// Agents that a message to all is given to in one turn, so that nothing else waits for it.
const BROADCAST_A_TURN: usize = 256;

/// Pushes under way at once. Each has 16 pieces with its shard at the most: half of what a shard's box holds.
const PUSHES_AT_ONCE_MAX: usize = 32;

/// How often an order follows its agent from shard to shard.
const HOPS_MAX: u32 = 8;

/// How soon a box that was full is tried again.
const FULL_BOX_WAIT: Duration = Duration::from_millis(2);

/// How often pushes that stand still are looked for.
const LOOK_FOR_STALLED: Duration = Duration::from_secs(1);

/// Whom a message sent by hand is for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recipients {
    /// All that are there.
    Active,
    /// This one.
    One(AgentId),
}

/// What is known about an agent for the sake of what is said to it.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The md5 of its merged.mg, as its last keep-alive had it; the outer `None`: it sent none yet.
    merged: Option<Option<HexDigest>>,
    /// It is one of Wazuh's.
    is_wazuh: bool,
    /// What it said, and what it was sent.
    pub(super) counts: Counts,
}

/// How many messages of each kind, since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) startups: u64,
    pub(super) keep_alives: u64,
    pub(super) shutdowns: u64,
    pub(super) answers: u64,
    pub(super) letters: u64,
    pub(super) pieces: u64,
    pub(super) requests: u64,
}

/// The state of everything that is said to agents.
pub(super) struct Desk {
    table: Arc<ArcSwap<AgentTable>>,
    mailers: Vec<MailSender>,
    counted: Arc<ControlMetrics>,
    letters: Letters,
    pushes: Pushes,
    requests: Requests,
    files: Arc<SharedFiles>,
    records: HashMap<AgentId, Record>,
    /// Orders with shards.
    sent: HashMap<u64, Sent>,
    tickets: u64,
    /// Orders whose shard's box was full.
    stuck: VecDeque<(usize, SendOrder)>,
    broadcasts: VecDeque<Broadcast>,
    origins: Origin,
    replies: HashMap<Origin, Reply>,
    askers: HashMap<Asker, oneshot::Sender<Bytes>>,
    asked: Asker,
    names: Names,
    limiter: Limiter<Complaint>,
    looked_for_stalled: Time,
}

/// Whose order it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Letter,
    Push,
    Request,
}

struct Sent {
    whose: Whose,
    /// The ticket that its state machine knows.
    own: u64,
    order: SendOrder,
    hops: u32,
}

struct Broadcast {
    table: Arc<AgentTable>,
    next: usize,
    text: Bytes,
    origin: Origin,
}

/// Who waits for what becomes of a message.
struct Reply {
    answers: mpsc::UnboundedSender<Sending>,
    waiting: usize,
    spreading: bool,
}

/// What the log says, at most once a minute each.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Complaint {
    Invalid,
    NoAgent,
}

/// Agents by name, for the table that they were last looked up in.
#[derive(Default)]
struct Names {
    table: Option<Arc<AgentTable>>,
    ids: HashMap<Box<str>, AgentId>,
}

impl Desk {
    pub(super) fn new(
        settings: &Settings,
        table: Arc<ArcSwap<AgentTable>>,
        mailers: Vec<MailSender>,
        counted: Arc<ControlMetrics>,
    ) -> Desk {
        Desk {
            table,
            mailers,
            counted,
            letters: Letters::new(letter_settings(settings)),
            pushes: Pushes::new(push_settings(settings)),
            requests: Requests::new(rand::random()),
            files: Arc::default(),
            records: HashMap::new(),
            sent: HashMap::new(),
            tickets: 0,
            stuck: VecDeque::new(),
            broadcasts: VecDeque::new(),
            origins: 0,
            replies: HashMap::new(),
            askers: HashMap::new(),
            asked: 0,
            names: Names::default(),
            limiter: Limiter::new(Duration::from_secs(60)),
            looked_for_stalled: Time::ZERO,
        }
    }

    pub(super) fn set(&mut self, settings: &Settings) {
        self.letters.set(letter_settings(settings));
        self.pushes.set(push_settings(settings));
    }

    /// Other shared files.
    pub(super) fn set_files(&mut self, now: Time, files: Arc<SharedFiles>) {
        let (count, bytes) = files.sums();
        self.counted.outward.shared_files.set(count);
        self.counted.outward.shared_bytes.set(bytes);
        self.files = files;
        let (files, records) = (&self.files, &self.records);
        self.pushes.files_changed(now, |agent| {
            let is_wazuh = records.get(&agent).is_some_and(|record| record.is_wazuh);
            files.file_for(agent, is_wazuh).cloned()
        });
    }

    /// Forgets agents that are none any more.
    pub(super) fn on_keys(&mut self) {
        let table = self.table.load();
        self.records.retain(|agent, _| table.by_id(*agent).is_some());
        self.pushes.retain(|agent| table.by_id(agent).is_some());
        // It would keep the old table alive.
        self.names = Names::default();
    }

    pub(super) fn on_notice(&mut self, now: Time, agent: AgentId, notice: &Notice) {
        let record = self.records.entry(agent).or_default();
        match notice {
            Notice::Started { version } => {
                record.counts.startups += 1;
                record.is_wazuh |= version.is_some();
                self.letters.heard(agent);
            }
            Notice::KeepAlive { text } => {
                record.counts.keep_alives += 1;
                if let Some(Ok(FromAgent::KeepAlive(said))) = FromAgent::parse(text) {
                    record.merged = Some(said.merged_digest);
                    record.is_wazuh |= said.agent_ip.is_some() || is_wazuhs(said.uname);
                }
                self.keep_alive(now, agent);
            }
            Notice::KeepAliveSame => {
                record.counts.keep_alives += 1;
                self.keep_alive(now, agent);
            }
            Notice::RequestAnswer { id, text } => {
                record.counts.answers += 1;
                let over = self.transport(agent).unwrap_or(Transport::Tcp);
                self.requests.answer(now, agent, over, id, text);
            }
            Notice::Stopped => record.counts.shutdowns += 1,
            Notice::Connected { .. } | Notice::Disconnected { .. } => {}
        }
    }

    pub(super) fn on_outcome(&mut self, now: Time, outcome: SendOutcome) {
        let Some(mut sent) = self.sent.remove(&outcome.ticket) else { return };
        let fate = match outcome.outcome {
            Ok(how) => Fate::Sent(how.over),
            Err(SendFailure::ConnectionEnded) => Fate::Lost,
            Err(SendFailure::Refused(NotSent::OtherShard(ShardId(shard)))) if sent.hops < HOPS_MAX => {
                sent.hops += 1;
                let order = sent.order.clone();
                self.sent.insert(order.ticket, sent);
                self.stuck.push_back((usize::from(shard), order));
                return;
            }
            Err(SendFailure::Refused(NotSent::OtherShard(_))) => Fate::Away(Some(Transport::Tcp)),
            Err(SendFailure::Refused(NotSent::Away)) => Fate::Away(self.transport(sent.order.agent)),
            Err(SendFailure::Refused(NotSent::AgentUnknown)) => Fate::Unknown,
            Err(SendFailure::Refused(NotSent::TooLong)) => Fate::TooLong,
        };
        self.settle(now, &sent, fate);
    }

    /// A line of `queue/alerts/ar`.
    pub(super) fn on_response(&mut self, now: Time, datagram: &[u8]) {
        match Response::parse(datagram) {
            Ok(Response { to: Recipient::Id(agent), text }) => self.post(now, agent, text, 0),
            Ok(Response { to: Recipient::Named(name), text }) => match self.names.find(&self.table, &name) {
                Some(agent) => self.post(now, agent, text, 0),
                None => {
                    self.counted.outward.dropped_unknown.add(1);
                    let name = codec::Escaped(name.as_bytes());
                    self.complain(now, Complaint::NoAgent, &format_args!("1320: Agent '{name}' not found"));
                }
            },
            Ok(Response { to: Recipient::Active, text }) => {
                if self.broadcast(text, 0).is_err() {
                    self.counted.outward.dropped_full.add(1);
                }
            }
            Err(error) => {
                self.counted.outward.invalid.add(1);
                let complaint = format_args!("1310: invalid active response message: {error}");
                self.complain(now, Complaint::Invalid, &complaint);
            }
        }
    }

    /// A message for one agent, that nobody asks about.
    pub(super) fn post(&mut self, now: Time, agent: AgentId, text: Bytes, origin: Origin) {
        self.counted.outward.posted.add(1);
        self.letters.post(now, agent, text, origin);
    }

    /// A message that somebody wants to know about.
    pub(super) fn send(
        &mut self,
        now: Time,
        to: Recipients,
        text: Bytes,
    ) -> Result<mpsc::UnboundedReceiver<Sending>, OutwardError> {
        let (answers, receiver) = mpsc::unbounded_channel();
        self.origins += 1;
        let origin = self.origins;
        match to {
            Recipients::One(agent) => {
                self.replies.insert(origin, Reply { answers, waiting: 1, spreading: false });
                self.post(now, agent, text, origin);
            }
            Recipients::Active => {
                self.broadcast(text, origin)?;
                self.replies.insert(origin, Reply { answers, waiting: 0, spreading: true });
            }
        }
        Ok(receiver)
    }

    /// A request to an agent.
    pub(super) fn ask(
        &mut self,
        now: Time,
        agent: AgentId,
        payload: &[u8],
    ) -> Result<oneshot::Receiver<Bytes>, OutwardError> {
        let (sender, receiver) = oneshot::channel();
        self.asked += 1;
        self.requests.ask(now, agent, payload, self.asked).map_err(|_| OutwardError::TooMuch)?;
        self.askers.insert(self.asked, sender);
        Ok(receiver)
    }

    /// What follows from everything that came, and from the time that passed.
    pub(super) fn turn(&mut self, now: Time) {
        self.letters.on_timeout(now);
        self.requests.on_timeout(now);
        if now.since(self.looked_for_stalled) >= LOOK_FOR_STALLED {
            self.looked_for_stalled = now;
            self.pushes.on_timeout(now);
            self.counted.outward.pushes(self.pushes.counters(), self.pushes.gauges());
        }
        self.spread(now);
        self.mail_orders(now);
        self.answer();
        let (held, bytes) = self.letters.held();
        self.counted.outward.held.set(held as u64);
        self.counted.outward.held_bytes.set(bytes as u64);
        self.counted.outward.requests(self.requests.counters());
    }

    /// How long nothing is due, if nothing happens.
    pub(super) fn next_wait(&self, now: Time) -> Duration {
        let dues = [self.letters.next_timeout(), self.requests.next_timeout()];
        let due = dues.into_iter().flatten().map(|due| due.since(now));
        let busy = !self.stuck.is_empty() || !self.broadcasts.is_empty();
        let soon = busy.then_some(FULL_BOX_WAIT);
        due.chain(soon).chain(self.pushes.next_turn()).min().unwrap_or(Duration::MAX)
    }

    /// How many messages for agents are not settled.
    pub(super) fn held(&self) -> usize {
        self.letters.held().0
    }

    /// What an agent said and was sent, if it said anything.
    pub(super) fn record(&self, agent: AgentId) -> Option<&Record> {
        self.records.get(&agent)
    }

    /// The agents of now.
    pub(super) fn table(&self) -> Arc<AgentTable> {
        self.table.load_full()
    }

    /// How many requests were sent, and how many pieces of files.
    pub(super) fn messages(&self) -> (u64, u64) {
        (self.requests.counters().messages, self.pushes.counters().messages)
    }

    fn keep_alive(&mut self, now: Time, agent: AgentId) {
        self.letters.heard(agent);
        let record = self.records.get(&agent).expect("its notice made it");
        // One that has not told what it has will.
        let Some(has) = record.merged else { return };
        let Some(file) = self.files.file_for(agent, record.is_wazuh) else { return };
        let over = self.transport(agent).unwrap_or(Transport::Tcp);
        self.pushes.report(now, agent, has, over, file);
    }

    fn transport(&self, agent: AgentId) -> Option<Transport> {
        self.table.load().by_id(agent).and_then(|agent| agent.state().transport())
    }

    fn broadcast(&mut self, text: Bytes, origin: Origin) -> Result<(), OutwardError> {
        if self.broadcasts.len() >= BROADCASTS_MAX {
            return Err(OutwardError::TooMuch);
        }
        self.broadcasts.push_back(Broadcast { table: self.table.load_full(), next: 0, text, origin });
        Ok(())
    }

    /// Gives messages to all to some more agents, those that are there. While many wait, they wait, too.
    fn spread(&mut self, now: Time) {
        for _ in 0..BROADCAST_A_TURN {
            let Some(Broadcast { table, next, text, origin }) = self.broadcasts.front_mut() else { return };
            if self.letters.held().0 >= LETTERS_MAX / 2 {
                return;
            }
            let origin = *origin;
            let Some(agent) = table.agents().get(*next) else {
                self.broadcasts.pop_front();
                if let Some(reply) = self.replies.get_mut(&origin) {
                    reply.spreading = false;
                    self.end_reply(origin);
                }
                continue;
            };
            *next += 1;
            if is_there(agent, now) {
                let (agent, text) = (agent.id(), text.clone());
                if let Some(reply) = self.replies.get_mut(&origin) {
                    reply.waiting += 1;
                }
                self.post(now, agent, text, origin);
            }
        }
    }

    /// Orders to the shards, until a box is full: what is urgent first.
    fn mail_orders(&mut self, now: Time) {
        loop {
            while let Some((shard, order)) = self.stuck.pop_front() {
                if let Err(MailFull) = self.mailers[shard].send_order(order.clone()) {
                    self.stuck.push_front((shard, order));
                    return;
                }
            }
            if let Some(order) = self.requests.next_order() {
                self.mail(now, Whose::Request, order.ticket, order.agent, order.text);
            } else if let Some(order) = self.letters.next_order() {
                self.mail(now, Whose::Letter, order.ticket, order.agent, order.text);
            } else if let Some(order) = self.pushes.next_order(now) {
                self.mail(now, Whose::Push, order.ticket, order.agent, order.text);
            } else {
                return;
            }
        }
    }

    fn mail(&mut self, now: Time, whose: Whose, own: u64, agent: AgentId, text: Bytes) {
        let receipt = match whose {
            Whose::Letter => Receipt::Arrived,
            Whose::Push | Whose::Request => Receipt::Taken,
        };
        self.tickets += 1;
        let order = SendOrder { ticket: self.tickets, agent, text, receipt };
        let sent = Sent { whose, own, order: order.clone(), hops: 0 };
        let table = self.table.load();
        let Some(agent) = table.by_id(agent) else {
            drop(table);
            self.settle(now, &sent, Fate::Unknown);
            return;
        };
        // Without a connection any shard will do; the same one for the same agent keeps its datagrams in order.
        let owner = agent.state().owner().map(|owner| usize::from(owner.shard.0));
        let shard = owner.unwrap_or(agent.index() as usize % self.mailers.len());
        drop(table);
        self.sent.insert(order.ticket, sent);
        self.stuck.push_back((shard, order));
    }

    /// Tells a state machine what became of its order.
    fn settle(&mut self, now: Time, sent: &Sent, fate: Fate) {
        let went = u64::from(matches!(fate, Fate::Sent(_)));
        if let Some(record) = self.records.get_mut(&sent.order.agent) {
            match sent.whose {
                Whose::Letter => record.counts.letters += went,
                Whose::Push => record.counts.pieces += went,
                Whose::Request => record.counts.requests += went,
            }
        }
        match sent.whose {
            Whose::Letter => self.letters.fate(sent.own, fate),
            Whose::Push => self.pushes.fate(now, sent.own, fate),
            Whose::Request => self.requests.fate(now, sent.own, fate),
        }
    }

    /// Tells those who wait.
    fn answer(&mut self) {
        while let Some(answer) = self.letters.next_answer() {
            self.counted.outward.became(answer.became);
            if let Some(reply) = self.replies.get_mut(&answer.origin) {
                reply.waiting -= 1;
                // Who does not want to know any more has hung up.
                let _ = reply.answers.send(Sending { agent: answer.agent, became: answer.became });
                self.end_reply(answer.origin);
            }
        }
        while let Some((asker, answer)) = self.requests.next_answer() {
            if let Some(asker) = self.askers.remove(&asker) {
                let _ = asker.send(answer);
            }
        }
    }

    /// Ends the answers to a message, if all are told.
    fn end_reply(&mut self, origin: Origin) {
        let told = |reply: &Reply| reply.waiting == 0 && !reply.spreading;
        if self.replies.get(&origin).is_some_and(told) {
            self.replies.remove(&origin);
        }
    }

    fn complain(&mut self, now: Time, complaint: Complaint, text: &dyn std::fmt::Display) {
        if let Some(due) = self.limiter.observe(now.as_nanoseconds(), complaint, 1) {
            let more =
                if due.count > 1 { format!(" ({} such{})", due.count, due.period()) } else { String::new() };
            warn!("{text}{more}");
        }
    }
}

impl Names {
    /// The agent of this name; the first in client.keys, if several have it.
    fn find(&mut self, table: &ArcSwap<AgentTable>, name: &str) -> Option<AgentId> {
        let table = table.load_full();
        if !self.table.as_ref().is_some_and(|known| Arc::ptr_eq(known, &table)) {
            // The last insert wins.
            let agents = table.agents().iter().rev();
            self.ids = agents.map(|agent| (agent.entry().name.clone(), agent.id())).collect();
            self.table = Some(table);
        }
        self.ids.get(name).copied()
    }
}

pub(super) fn is_there(agent: &Agent, now: Time) -> bool {
    agent.state().owner().is_some() || agent.state().return_path(now).is_some()
}

/// Whether an agent's description of itself is of one of Wazuh's: `... - Wazuh v4.14.7`.
fn is_wazuhs(uname: &[u8]) -> bool {
    uname.windows(MARK.len()).any(|part| part == MARK)
}

const MARK: &[u8] = b" - Wazuh ";

fn letter_settings(settings: &Settings) -> LetterSettings {
    let active_response = &settings.active_response;
    LetterSettings {
        keep: Duration::from_secs(u64::from(active_response.keep_seconds)),
        each_max: active_response.keep_messages_per_agent_max as usize,
        all_max: LETTERS_MAX,
        bytes_max: LETTER_BYTES_MAX,
    }
}

fn push_settings(settings: &Settings) -> PushSettings {
    PushSettings { bytes_per_second: settings.shared.bytes_per_second, at_once_max: PUSHES_AT_ONCE_MAX }
}
