//! Messages for agents, in order, and kept for those that are away. Pure: input and time in; orders and answers out.
//!
//! Each agent that has messages has a line, of which one message at a time is on its way; one that did not get through goes back
//! to the front. So an agent gets its messages in the order in which they were posted, whatever becomes of its
//! connections: two at once might go over two of them.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use codec::AgentId;
use manager::{Time, Transport};

use super::order::Fate;

/// A message is tried so often on connections that end under it. An agent that is told to restart may do so before its host
/// has acknowledged the order, and must not be told for ever.
const LOSSES_MAX: u32 = 3;

/// What may be kept, and how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LetterSettings {
    /// How long a message waits for its agent. Zero: messages for agents that are away are dropped.
    pub(crate) keep: Duration,
    /// Messages of one agent, those on their way included.
    pub(crate) each_max: usize,
    /// Messages of all agents.
    pub(crate) all_max: usize,
    /// Their bytes.
    pub(crate) bytes_max: usize,
}

/// Who posted a message, and so is told what became of it. 0: nobody asks.
pub(crate) type Origin = u64;

/// What became of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Answer {
    /// Who posted it.
    pub(crate) origin: Origin,
    /// Whom it is for.
    pub(crate) agent: AgentId,
    /// What became of it. After [`Became::Kept`] another answer follows, for nobody.
    pub(crate) became: Became,
}

/// What can become of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Became {
    /// Sent, over this. Over TCP: the agent's host has it.
    Sent(Transport),
    /// The agent is away; it waits.
    Kept,
    /// It had waited for too long.
    Expired,
    /// It was dropped.
    Dropped(Dropped),
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Dropped {
    /// The agent speaks UDP and was not heard lately, or nothing is kept for agents that are away.
    Away,
    /// As many messages wait as may.
    Full,
    /// Connection after connection ended while it was on its way: perhaps it is what ends them.
    Lost,
    /// Longer than the agent reads.
    TooLong,
    /// No agent has this id.
    Unknown,
}

/// A message that a shard is to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LetterOrder {
    /// What its fate will be told with.
    pub(crate) ticket: u64,
    /// Whom it is for.
    pub(crate) agent: AgentId,
    /// The text.
    pub(crate) text: Bytes,
}

/// All messages that are not settled.
#[derive(Debug)]
pub(crate) struct Letters {
    settings: LetterSettings,
    lines: HashMap<AgentId, Line>,
    /// Whose order has which ticket.
    on_the_way: HashMap<u64, AgentId>,
    /// When the first waiting message of a line expires.
    expiries: BTreeSet<(Time, AgentId)>,
    /// Lines that may have something to send.
    ready: VecDeque<AgentId>,
    answers: VecDeque<Answer>,
    tickets: u64,
    count: usize,
    bytes: usize,
}

/// One agent's messages.
#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Letter>,
    on_the_way: Option<Way>,
    /// The agent is away: wait until it is heard.
    away: bool,
    /// In the list of those that may have something to send.
    listed: bool,
    /// How often the agent was heard.
    heard: u64,
    /// Its entry in the expiries.
    expires: Option<Time>,
}

#[derive(Debug)]
struct Letter {
    origin: Origin,
    text: Bytes,
    expires: Time,
    kept: bool,
    /// Connections that ended while it was on its way.
    losses: u32,
}

#[derive(Debug)]
struct Way {
    ticket: u64,
    letter: Letter,
    /// How often the agent had been heard when it went.
    heard: u64,
}

impl Letters {
    /// No messages.
    pub(crate) fn new(settings: LetterSettings) -> Letters {
        Letters {
            settings,
            lines: HashMap::new(),
            on_the_way: HashMap::new(),
            expiries: BTreeSet::new(),
            ready: VecDeque::new(),
            answers: VecDeque::new(),
            tickets: 0,
            count: 0,
            bytes: 0,
        }
    }

    /// Other bounds from now on. What is kept stays, with the time that it had.
    pub(crate) fn set(&mut self, settings: LetterSettings) {
        self.settings = settings;
    }

    /// A message for an agent.
    pub(crate) fn post(&mut self, now: Time, agent: AgentId, text: Bytes, origin: Origin) {
        let LetterSettings { keep, each_max, all_max, bytes_max } = self.settings;
        let each = self
            .lines
            .get(&agent)
            .map_or(0, |line| line.waiting.len() + usize::from(line.on_the_way.is_some()));
        if each >= each_max || self.count >= all_max || self.bytes + text.len() > bytes_max {
            self.answer(origin, agent, Became::Dropped(Dropped::Full));
            return;
        }
        self.count += 1;
        self.bytes += text.len();
        let letter = Letter { origin, text, expires: now + keep, kept: false, losses: 0 };
        self.lines.entry(agent).or_default().waiting.push_back(letter);
        self.settle(agent);
        self.list(agent);
        self.keep_if_away(agent);
    }

    /// The agent was acknowledged: what waits for it may go.
    pub(crate) fn heard(&mut self, agent: AgentId) {
        let Some(line) = self.lines.get_mut(&agent) else { return };
        line.heard += 1;
        line.away = false;
        self.list(agent);
    }

    /// What became of an order.
    pub(crate) fn fate(&mut self, ticket: u64, fate: Fate) {
        let Some(agent) = self.on_the_way.remove(&ticket) else { return };
        let line = self.lines.get_mut(&agent).expect("it has a message on its way");
        let way = line.on_the_way.take().filter(|way| way.ticket == ticket);
        let Way { mut letter, heard, ticket: _ } = way.expect("it is the only one on its way");
        letter.losses += u32::from(fate == Fate::Lost);
        let keeps = self.settings.keep > Duration::ZERO;
        let became = match fate {
            Fate::Sent(over) => Became::Sent(over),
            Fate::Away(Some(Transport::Udp)) => Became::Dropped(Dropped::Away),
            Fate::Away(Some(Transport::Tcp) | None) | Fate::Lost if !keeps => Became::Dropped(Dropped::Away),
            Fate::Lost if letter.losses >= LOSSES_MAX => Became::Dropped(Dropped::Lost),
            Fate::Away(Some(Transport::Tcp) | None) | Fate::Lost => Became::Kept,
            Fate::Unknown => Became::Dropped(Dropped::Unknown),
            Fate::TooLong => Became::Dropped(Dropped::TooLong),
        };
        if became == Became::Kept {
            // Heard since it went: it came back in the meantime, and nobody will say so again.
            line.away = heard == line.heard;
            line.waiting.push_front(letter);
            self.keep_if_away(agent);
        } else {
            self.count -= 1;
            self.bytes -= letter.text.len();
            self.answer(letter.origin, agent, became);
        }
        self.settle(agent);
        self.list(agent);
    }

    /// Time has passed.
    pub(crate) fn on_timeout(&mut self, now: Time) {
        while let Some(&(due, agent)) = self.expiries.first().filter(|(due, _)| *due <= now) {
            self.expiries.remove(&(due, agent));
            let line = self.lines.get_mut(&agent).expect("it has an expiry");
            line.expires = None;
            while let Some(letter) = line.waiting.pop_front_if(|letter| letter.expires <= now) {
                self.count -= 1;
                self.bytes -= letter.text.len();
                let became = Became::Expired;
                self.answers.push_back(Answer { origin: letter.origin, agent, became });
            }
            self.settle(agent);
        }
    }

    /// When [`Letters::on_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Option<Time> {
        self.expiries.first().map(|(due, _)| *due)
    }

    /// The next message to send.
    pub(crate) fn next_order(&mut self) -> Option<LetterOrder> {
        while let Some(agent) = self.ready.pop_front() {
            let Some(line) = self.lines.get_mut(&agent) else { continue };
            line.listed = false;
            if line.away || line.on_the_way.is_some() {
                continue;
            }
            let Some(letter) = line.waiting.pop_front() else { continue };
            self.tickets += 1;
            let (ticket, text) = (self.tickets, letter.text.clone());
            line.on_the_way = Some(Way { ticket, letter, heard: line.heard });
            self.on_the_way.insert(ticket, agent);
            self.settle(agent);
            return Some(LetterOrder { ticket, agent, text });
        }
        None
    }

    /// The next answer for whom it may concern.
    pub(crate) fn next_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    /// Messages that are not settled, and their bytes.
    pub(crate) fn held(&self) -> (usize, usize) {
        (self.count, self.bytes)
    }

    /// Tells those whose message waits for an agent that is away.
    fn keep_if_away(&mut self, agent: AgentId) {
        let Some(line) = self.lines.get_mut(&agent).filter(|line| line.away) else { return };
        for letter in line.waiting.iter_mut().filter(|letter| !letter.kept) {
            letter.kept = true;
            let origin = std::mem::take(&mut letter.origin);
            self.answers.push_back(Answer { origin, agent, became: Became::Kept });
        }
    }

    fn answer(&mut self, origin: Origin, agent: AgentId, became: Became) {
        self.answers.push_back(Answer { origin, agent, became });
    }

    fn list(&mut self, agent: AgentId) {
        let Some(line) = self.lines.get_mut(&agent) else { return };
        if !line.listed && !line.waiting.is_empty() {
            line.listed = true;
            self.ready.push_back(agent);
        }
    }

    /// Keeps a line's expiry at its first waiting message's, and forgets a line that has none.
    fn settle(&mut self, agent: AgentId) {
        let Some(line) = self.lines.get_mut(&agent) else { return };
        let expires = line.waiting.front().map(|letter| letter.expires);
        if line.expires != expires {
            if let Some(old) = line.expires {
                self.expiries.remove(&(old, agent));
            }
            if let Some(new) = expires {
                self.expiries.insert((new, agent));
            }
            line.expires = expires;
        }
        if line.waiting.is_empty() && line.on_the_way.is_none() {
            self.lines.remove(&agent);
        }
    }
}

#[cfg(test)]
mod tests;
