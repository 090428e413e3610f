//! Shared files on their way to agents: who needs one, whose turn it is, and how fast. Pure.
//!
//! ```text
//! keep-alive names another md5 ─► queued ─► #!-up file <md5> merged.mg ─► chunks ─► #!-close file ─► resting
//!                                   ▲            (as many at once as may be)                            │
//!                                   └──────────── the next keep-alive still names another md5 ◄─────────┘
//! ```
//!
//! One budget of bytes a second holds for all of them. Over TCP a push goes on as the kernel takes its chunks, which is as the
//! agent reads; one that stands still gives its place to others. Over UDP it is paced.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use codec::{AgentId, HexDigest, SharedName, ToAgent};
use manager::{Time, Transport};

use super::budget::Budget;
use super::merged::{MERGED_NAME, SharedFile};
use super::order::Fate;

/// Chunks of one agent that are on their way at once: enough to keep a connection busy while outcomes come back, and far less
/// than what an agent that does not read may have waiting.
const WINDOW: usize = 16;

/// Over UDP, so many chunks go at once to an agent, every [`PACE`]: 90,000 bytes a second. An agent's receive buffer, 208 KiB
/// by default, holds about 90 of them, so it may look away for most of a second.
const PACED: usize = 10;
const PACE: Duration = Duration::from_millis(100);

/// A push that waits so long for its agent gives its place to another, and goes on when the agent reads.
const STALLED_AFTER: Duration = Duration::from_secs(5);

/// After a push, a keep-alive may have been under way that does not know of it yet.
const REST: Duration = Duration::from_secs(10);
/// An agent that never has the file, however often it was sent, is sent it this seldom: each try doubles [`REST`].
const REST_MAX: Duration = Duration::from_secs(3_600);

/// The bounds of all pushes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PushSettings {
    /// Bytes of files that are sent in a second, to all agents.
    pub(crate) bytes_per_second: u64,
    /// Pushes that are under way at once.
    pub(crate) at_once_max: usize,
}

/// A piece of a push that a shard is to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PushOrder {
    /// What its fate will be told with.
    pub(crate) ticket: u64,
    /// Whom it is for.
    pub(crate) agent: AgentId,
    /// The text.
    pub(crate) text: Bytes,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct PushCounters {
    /// Begun.
    pub(crate) begun: u64,
    /// Sent to the end.
    pub(crate) sent: u64,
    /// Given up, since the agent went away.
    pub(crate) failed: u64,
    /// Begun anew in the middle, since the file changed.
    pub(crate) restarted: u64,
    /// Agents that said they have the file after it was sent.
    pub(crate) confirmed: u64,
    /// Keep-alives with another md5 that were not answered with the file, since it had just been sent.
    pub(crate) put_off: u64,
    /// Bytes of files.
    pub(crate) bytes: u64,
    /// Messages.
    pub(crate) messages: u64,
}

/// All pushes.
#[derive(Debug)]
pub(crate) struct Pushes {
    settings: PushSettings,
    budget: Budget,
    agents: HashMap<AgentId, State>,
    /// Agents whose push may begin, in order; some have gone by now.
    queued: VecDeque<AgentId>,
    /// Pushes under way that may go on, each in turn.
    turns: VecDeque<AgentId>,
    /// Whose piece has which ticket.
    on_the_way: HashMap<u64, (AgentId, u64)>,
    tickets: u64,
    /// Pushes under way that do not stand still.
    moving: usize,
    counters: PushCounters,
}

/// Where an agent is with its file.
#[derive(Debug)]
enum State {
    Queued { file: SharedFile, over: Transport, tries: u32 },
    Moving(Box<Push>),
    Resting { digest: HexDigest, tries: u32, until: Time },
}

#[derive(Debug)]
struct Push {
    /// Which push this is: pieces of an earlier one may still be on their way.
    number: u64,
    file: SharedFile,
    over: Transport,
    tries: u32,
    next: Piece,
    /// Pieces whose fate is not known.
    on_the_way: usize,
    /// When it last went on.
    moved: Time,
    /// Over UDP: when the next pieces may go, and how many of them went.
    paced: Time,
    paced_count: usize,
    /// It stands still, and has given its place away.
    stalled: bool,
    /// In the list of those that may go on.
    listed: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Piece {
    Begin,
    Chunk { start: usize },
    End,
    Nothing,
}

impl Pushes {
    /// No pushes.
    pub(crate) fn new(settings: PushSettings) -> Pushes {
        Pushes {
            budget: Budget::new(settings.bytes_per_second),
            settings,
            agents: HashMap::new(),
            queued: VecDeque::new(),
            turns: VecDeque::new(),
            on_the_way: HashMap::new(),
            tickets: 0,
            moving: 0,
            counters: PushCounters::default(),
        }
    }

    /// Other bounds from now on.
    pub(crate) fn set(&mut self, settings: PushSettings) {
        if settings.bytes_per_second != self.settings.bytes_per_second {
            self.budget = Budget::new(settings.bytes_per_second);
        }
        self.settings = settings;
    }

    /// An agent's keep-alive says that it has `has`, and should have `file`.
    pub(crate) fn report(
        &mut self,
        now: Time,
        agent: AgentId,
        has: Option<HexDigest>,
        over: Transport,
        file: &SharedFile,
    ) {
        if has == Some(file.digest()) {
            if let Some(State::Resting { .. }) = self.agents.get(&agent) {
                self.counters.confirmed += 1;
                self.agents.remove(&agent);
            } else if let Some(State::Queued { .. }) = self.agents.get(&agent) {
                self.agents.remove(&agent);
            }
            return;
        }
        let tries = match self.agents.get_mut(&agent) {
            None => 0,
            Some(State::Queued { file: queued, over: queued_over, tries: _ }) => {
                (*queued, *queued_over) = (file.clone(), over);
                return;
            }
            // Its file is kept up to date by `files_changed`.
            Some(State::Moving(_)) => return,
            Some(State::Resting { digest, tries, until }) if *digest == file.digest() => {
                if now < *until {
                    self.counters.put_off += 1;
                    return;
                }
                *tries
            }
            Some(State::Resting { .. }) => 0,
        };
        self.agents.insert(agent, State::Queued { file: file.clone(), over, tries });
        self.queued.push_back(agent);
    }

    /// The files changed: what is under way begins anew with `file_of` the agent, if that is another one.
    pub(crate) fn files_changed(
        &mut self,
        now: Time,
        mut file_of: impl FnMut(AgentId) -> Option<SharedFile>,
    ) {
        for (agent, state) in &mut self.agents {
            match state {
                State::Resting { .. } => {}
                State::Queued { file, .. } => {
                    if let Some(new) = file_of(*agent) {
                        *file = new;
                    }
                }
                State::Moving(push) => {
                    let Some(new) = file_of(*agent).filter(|new| new.digest() != push.file.digest()) else {
                        continue;
                    };
                    self.counters.restarted += 1;
                    self.tickets += 1;
                    let (stalled, listed) = (push.stalled, push.listed);
                    **push = Push { stalled, listed, ..Push::new(now, self.tickets, new, push.over, 0) };
                    push.list(*agent, &mut self.turns);
                }
            }
        }
    }

    /// Forgets agents that are none any more.
    pub(crate) fn retain(&mut self, is_agent: impl Fn(AgentId) -> bool) {
        let moving = &mut self.moving;
        self.agents.retain(|agent, state| {
            let stays = is_agent(*agent);
            *moving -= usize::from(!stays && matches!(state, State::Moving(push) if !push.stalled));
            stays
        });
    }

    /// What became of a piece.
    pub(crate) fn fate(&mut self, now: Time, ticket: u64, fate: Fate) {
        let Some((agent, number)) = self.on_the_way.remove(&ticket) else { return };
        let Some(State::Moving(push)) = self.agents.get_mut(&agent) else { return };
        if push.number != number {
            return;
        }
        push.on_the_way -= 1;
        push.moved = now;
        if std::mem::take(&mut push.stalled) {
            self.moving += 1;
        }
        match fate {
            Fate::Sent(_) if push.next == Piece::Nothing && push.on_the_way == 0 => {
                self.counters.sent += 1;
                let (digest, tries) = (push.file.digest(), push.tries + 1);
                self.rest(agent, digest, tries, now + rest(tries));
            }
            Fate::Sent(_) => push.list(agent, &mut self.turns),
            // The next keep-alive, of a new connection, asks again at once.
            Fate::Away(_) | Fate::Lost | Fate::TooLong | Fate::Unknown => {
                self.counters.failed += 1;
                let (digest, tries) = (push.file.digest(), push.tries);
                self.rest(agent, digest, tries, now);
            }
        }
    }

    /// Time has passed: who stands still gives its place away.
    pub(crate) fn on_timeout(&mut self, now: Time) {
        for state in self.agents.values_mut() {
            if let State::Moving(push) = state
                && !push.stalled
                && push.on_the_way > 0
                && now.since(push.moved) >= STALLED_AFTER
            {
                push.stalled = true;
                self.moving -= 1;
            }
        }
    }

    /// The next piece to send; `None` if nothing may go now: ask again when something became of another, or at
    /// [`Pushes::next_turn`].
    pub(crate) fn next_order(&mut self, now: Time) -> Option<PushOrder> {
        self.begin(now);
        for _ in 0..self.turns.len() {
            let agent = self.turns.pop_front()?;
            let Some(State::Moving(push)) = self.agents.get_mut(&agent) else { continue };
            push.listed = false;
            if push.stalled || push.next == Piece::Nothing || push.on_the_way >= WINDOW {
                // It has another turn when something became of one of its pieces.
                continue;
            }
            if !push.may_go(now) {
                push.list(agent, &mut self.turns);
                continue;
            }
            let (text, after) = push.piece();
            if !self.budget.take(now, text.len() as u64) {
                push.listed = true;
                self.turns.push_front(agent);
                return None;
            }
            if let Piece::Chunk { .. } = push.next {
                self.counters.bytes += text.len() as u64;
            }
            self.counters.messages += 1;
            push.next = after;
            push.on_the_way += 1;
            push.moved = now;
            self.tickets += 1;
            let ticket = self.tickets;
            self.on_the_way.insert(ticket, (agent, push.number));
            push.list(agent, &mut self.turns);
            return Some(PushOrder { ticket, agent, text });
        }
        None
    }

    /// How long to wait for a turn, if nothing becomes of any piece before: budget or pace is used up.
    pub(crate) fn next_turn(&self) -> Option<Duration> {
        let waits =
            !self.turns.is_empty() || (!self.queued.is_empty() && self.moving < self.settings.at_once_max);
        waits.then_some(TURN)
    }

    /// What was counted.
    pub(crate) fn counters(&self) -> PushCounters {
        self.counters
    }

    /// How many are under way, stand still, wait for their turn, and were sent and not confirmed yet.
    pub(crate) fn gauges(&self) -> PushGauges {
        let mut gauges = PushGauges::default();
        for state in self.agents.values() {
            match state {
                State::Queued { .. } => gauges.queued += 1,
                State::Moving(push) if push.stalled => gauges.stalled += 1,
                State::Moving(_) => gauges.moving += 1,
                State::Resting { .. } => gauges.unconfirmed += 1,
            }
        }
        gauges
    }

    /// Begins as many pushes as may be under way.
    fn begin(&mut self, now: Time) {
        while self.moving < self.settings.at_once_max {
            let Some(agent) = self.queued.pop_front() else { return };
            let Some(state @ State::Queued { .. }) = self.agents.get_mut(&agent) else { continue };
            let State::Queued { file, over, tries } = state else { unreachable!("it was just looked at") };
            self.tickets += 1;
            let mut push = Box::new(Push::new(now, self.tickets, file.clone(), *over, *tries));
            push.list(agent, &mut self.turns);
            *state = State::Moving(push);
            self.moving += 1;
            self.counters.begun += 1;
        }
    }

    fn rest(&mut self, agent: AgentId, digest: HexDigest, tries: u32, until: Time) {
        self.moving -= 1;
        self.agents.insert(agent, State::Resting { digest, tries, until });
    }
}

/// How often budget and pace are looked at: a budget of 2 MiB a second grows by ten chunks in this time.
const TURN: Duration = Duration::from_millis(5);

/// How many agents are where with their file.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct PushGauges {
    /// Under way.
    pub(crate) moving: u64,
    /// Under way, and their agents do not read.
    pub(crate) stalled: u64,
    /// Waiting for their turn.
    pub(crate) queued: u64,
    /// Sent, and no keep-alive said yet that the file is there.
    pub(crate) unconfirmed: u64,
}

impl Push {
    fn new(now: Time, number: u64, file: SharedFile, over: Transport, tries: u32) -> Push {
        Push {
            number,
            file,
            over,
            tries,
            next: Piece::Begin,
            on_the_way: 0,
            moved: now,
            paced: now,
            paced_count: 0,
            stalled: false,
            listed: false,
        }
    }

    /// Gives it a turn.
    fn list(&mut self, agent: AgentId, turns: &mut VecDeque<AgentId>) {
        if !std::mem::replace(&mut self.listed, true) {
            turns.push_back(agent);
        }
    }

    /// Whether its pace allows another piece.
    fn may_go(&mut self, now: Time) -> bool {
        match self.over {
            Transport::Tcp => true,
            Transport::Udp if now >= self.paced => {
                self.paced = now + PACE;
                self.paced_count = 1;
                true
            }
            Transport::Udp if self.paced_count < PACED => {
                self.paced_count += 1;
                true
            }
            Transport::Udp => false,
        }
    }

    /// The text of the next piece, and what comes after it.
    fn piece(&self) -> (Bytes, Piece) {
        let written = |message: ToAgent<'_>| {
            let mut text = Vec::new();
            message.write(&mut text);
            Bytes::from(text)
        };
        let from = |start: usize| {
            if start < self.file.content().len() { Piece::Chunk { start } } else { Piece::End }
        };
        match self.next {
            Piece::Begin => {
                let name = SharedName::new(MERGED_NAME.as_bytes()).expect("it is a plain name");
                (written(ToAgent::FileBegin { digest: self.file.digest(), name }), from(0))
            }
            Piece::Chunk { start } => {
                let chunk = self.file.chunk(start);
                let end = start + chunk.len();
                (chunk, from(end))
            }
            Piece::End => (written(ToAgent::FileEnd), Piece::Nothing),
            Piece::Nothing => unreachable!("the caller has looked"),
        }
    }
}

/// How long an agent rests after so many tries.
fn rest(tries: u32) -> Duration {
    REST.saturating_mul(1 << tries.saturating_sub(1).min(16)).min(REST_MAX)
}

#[cfg(test)]
mod tests;
