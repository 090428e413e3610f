//! One agent.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use codec::{
    AgentId, CipherKey, Counter, DeliveryOffer, Envelope, HexDigest, KeepAlive, Labels, Product, SealError,
    Sealed, ToAgent,
};
use rand::Rng;

use crate::profile::{Profile, Transport};
use crate::tools::{Output, Tools};

/// How long an agent over TCP, or of Wazuh, waits for the answer to its start-up.
const ACKNOWLEDGEMENT_WAIT: Duration = Duration::from_secs(10);
/// An OSSEC agent's waits grow by a second each, to this.
const STARTUP_WAIT_MAX: Duration = Duration::from_secs(60);

/// One agent: starts up, keeps alive, locks when its manager is gone and comes back.
///
/// Times are durations since an arbitrary start that all inputs share. After each input drain [`Tools::next_output`];
/// [`Agent::next_timeout`] may change with each.
pub struct Agent {
    profile: Arc<Profile>,
    key: Arc<CipherKey>,
    id: AgentId,
    address: IpAddr,
    sends_id: bool,
    /// The counter of the last message sent, here or elsewhere.
    sent: Counter,
    /// The counter of the last message taken from the manager.
    taken: Counter,
    phase: Phase,
    /// Whether it was ever acknowledged: then its waiting is a lock.
    was_ready: bool,
    last_heard: Duration,
    /// Start-ups and keep-alives sent.
    asked: u64,
    ignored: Ignored,
    /// What its keep-alives say of its files; boxed, since most simulated agents have none.
    files: Option<Box<SharedFiles>>,
    /// What its start-ups offer.
    offer: Option<DeliveryOffer>,
}

/// The shared files that an agent has, as its keep-alives tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SharedFiles {
    /// The md5 of its agent.conf, if it has one.
    pub agent_conf: Option<HexDigest>,
    /// The md5 of its merged.mg, if it has one.
    pub merged: Option<HexDigest>,
}

/// Messages of a manager that an agent could make nothing of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ignored {
    /// They did not open: another key, or damage.
    pub unopened: u32,
    /// Their counter was not greater than the last one.
    pub stale: u32,
}

/// What makes an agent this one.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// What it has in common with others.
    pub profile: Arc<Profile>,
    /// Its id in client.keys.
    pub id: AgentId,
    /// What it seals with; may be shared with whoever seals for it.
    pub key: Arc<CipherKey>,
    /// Whether its messages begin with its id: if its address in client.keys is no single host.
    pub sends_id: bool,
    /// Its own address, as Wazuh's keep-alive tells it.
    pub address: IpAddr,
    /// The last counter that it sent in an earlier life; [`Counter::ZERO`] for a new agent.
    pub sent: Counter,
    /// The last counter of its manager that it took in an earlier life.
    pub taken: Counter,
}

/// What an agent is up to, as its caller sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// It was acknowledged before and waits to be again: events wait.
    Locked,
    /// Acknowledged: events go.
    Ready,
    /// Not acknowledged yet: events wait.
    Starting,
    /// It said goodbye.
    Stopped,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// The caller was asked to connect.
    Connecting,
    Ready {
        next_keep_alive: Duration,
    },
    /// The start-up was sent `tries` times; the next step is at `next`.
    Starting {
        tries: u32,
        next: Duration,
    },
    Stopped,
    /// Not connected; asks to be at `until`.
    Waiting {
        until: Duration,
    },
}

/// Why an event was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SubmitError {
    /// The manager is not there: keep the event.
    Locked,
    /// It can never be sent.
    Seal(SealError),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SubmitError::Locked => formatter.write_str("the manager is not there; keep the event for later"),
            SubmitError::Seal(error) => error.fmt(formatter),
        }
    }
}

impl std::error::Error for SubmitError {}

impl Agent {
    /// An agent that asks to be connected at `start`.
    pub fn new(settings: AgentSettings, start: Duration) -> Agent {
        let AgentSettings { profile, id, key, sends_id, address, sent, taken } = settings;
        Agent {
            profile,
            key,
            id,
            address,
            sends_id,
            sent,
            taken,
            phase: Phase::Waiting { until: start },
            was_ready: false,
            last_heard: start,
            asked: 0,
            ignored: Ignored::default(),
            files: None,
            offer: None,
        }
    }

    /// What the agent is up to.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Ready { .. } => State::Ready,
            Phase::Stopped => State::Stopped,
            Phase::Connecting | Phase::Starting { .. } | Phase::Waiting { .. } if self.was_ready => {
                State::Locked
            }
            Phase::Connecting | Phase::Starting { .. } | Phase::Waiting { .. } => State::Starting,
        }
    }

    /// When [`Agent::on_timeout`] is due. `None`: an input of another kind comes first. May change with every input.
    pub fn next_timeout(&self) -> Option<Duration> {
        match self.phase {
            Phase::Connecting | Phase::Stopped => None,
            Phase::Ready { next_keep_alive } => {
                Some(next_keep_alive.min(self.last_heard + self.profile.time_reconnect))
            }
            Phase::Starting { next, .. } => Some(next),
            Phase::Waiting { until } => Some(until),
        }
    }

    /// The connection that it asked for is there. Sends the start-up.
    pub fn on_connected(&mut self, tools: &mut Tools, now: Duration) {
        tools.begin_input();
        if self.phase == Phase::Connecting {
            self.send_startup(tools, now, 1);
        }
    }

    /// The connection ended, or could not be made. A lost one is asked for again at once, a refused one after a wait.
    pub fn on_closed(&mut self, tools: &mut Tools, now: Duration) {
        tools.begin_input();
        match self.phase {
            Phase::Ready { .. } => self.lose(tools),
            Phase::Connecting | Phase::Starting { .. } => self.wait(tools, now),
            Phase::Stopped | Phase::Waiting { .. } => {}
        }
    }

    /// Time has passed: what is due is done. Harmless when nothing is.
    pub fn on_timeout(&mut self, tools: &mut Tools, now: Duration) {
        tools.begin_input();
        match self.phase {
            Phase::Connecting | Phase::Stopped => {}
            Phase::Waiting { until } if now >= until => self.connect(tools),
            Phase::Starting { tries, next } if now >= next => match self.profile.transport {
                Transport::Udp => self.send_startup(tools, now, tries + 1),
                Transport::Tcp => {
                    tools.outputs.push_back(Output::Disconnect);
                    self.wait(tools, now);
                }
            },
            Phase::Ready { .. } if now >= self.last_heard + self.profile.time_reconnect => {
                tools.outputs.push_back(Output::Disconnect);
                self.lose(tools);
            }
            Phase::Ready { next_keep_alive } if now >= next_keep_alive => self.send_keep_alive(tools, now),
            Phase::Ready { .. } | Phase::Starting { .. } | Phase::Waiting { .. } => {}
        }
    }

    /// A message came: a datagram, or a frame without its length. What cannot be opened, and what is not newer than the
    /// last one, is ignored.
    pub fn on_message(&mut self, tools: &mut Tools, now: Duration, bytes: &[u8]) {
        tools.begin_input();
        let sealed = Sealed { key: &self.key, bytes, method_hint: Some(self.profile.method) };
        let Tools { opener, text, .. } = tools;
        let Ok(opened) = opener.open(&[sealed]).get(0) else {
            self.ignored.unopened = self.ignored.unopened.saturating_add(1);
            return;
        };
        if opened.counter <= self.taken {
            self.ignored.stale = self.ignored.stale.saturating_add(1);
            return;
        }
        self.taken = opened.counter;
        text.clear();
        text.extend_from_slice(opened.text);
        let text = std::mem::take(text);
        self.understand(tools, now, &text);
        tools.text = text;
    }

    /// Sends an event: its whole text, queue byte and all.
    ///
    /// # Errors
    /// [`SubmitError::Locked`] unless the agent is [`State::Ready`]; or the text cannot be sent at all.
    pub fn submit(&mut self, tools: &mut Tools, text: &[u8]) -> Result<(), SubmitError> {
        tools.begin_input();
        match self.phase {
            Phase::Ready { .. } => self.seal(tools, text).map_err(SubmitError::Seal),
            Phase::Connecting | Phase::Starting { .. } | Phase::Stopped | Phase::Waiting { .. } => {
                Err(SubmitError::Locked)
            }
        }
    }

    /// Sends a keep-alive before its time, for the acknowledgement that it brings. Nothing unless the agent is
    /// [`State::Ready`].
    pub fn probe(&mut self, tools: &mut Tools, now: Duration) {
        tools.begin_input();
        if matches!(self.phase, Phase::Ready { .. }) {
            self.send_keep_alive(tools, now);
        }
    }

    /// What keep-alives say of the agent's files from now on.
    pub fn set_files(&mut self, files: SharedFiles) {
        self.files = Some(Box::new(files));
    }

    /// What start-ups offer from now on: acknowledged delivery of the caller's events. A manager that agrees says so before the
    /// agent is ready ([`Output::DeliveryAgreed`]), and then where to begin ([`Output::DeliveryTaken`]). Start-ups of Wazuh
    /// agents have no room for it: they offer nothing.
    pub fn set_delivery(&mut self, offer: Option<DeliveryOffer>) {
        self.offer = offer;
    }

    /// Where delivery is acknowledged: the number of the event that is submitted next; those behind it count on. Nothing unless
    /// the agent is [`State::Ready`].
    ///
    /// # Panics
    /// If the number is above [`codec::DELIVERY_NUMBER_MAX`].
    pub fn say_next(&mut self, tools: &mut Tools, number: u64) {
        tools.begin_input();
        if matches!(self.phase, Phase::Ready { .. }) {
            let mut text = std::mem::take(&mut tools.text);
            text.clear();
            codec::delivery_next(number, &mut text);
            self.seal(tools, &text).expect("a number is short");
            tools.text = text;
        }
    }

    /// Leaves its manager and asks to be connected again. Nothing unless the agent is [`State::Ready`].
    pub fn reconnect(&mut self, tools: &mut Tools) {
        tools.begin_input();
        if matches!(self.phase, Phase::Ready { .. }) {
            tools.outputs.push_back(Output::Disconnect);
            self.lose(tools);
        }
    }

    /// Stops: a Wazuh agent says so to its manager. Then the caller closes the connection.
    ///
    /// # Panics
    /// Never: the text that it sends is short.
    pub fn stop(&mut self, tools: &mut Tools) {
        tools.begin_input();
        let is_ready = matches!(self.phase, Phase::Ready { .. });
        if is_ready && self.profile.product == Product::Wazuh {
            self.seal(tools, b"#!-agent shutdown ").expect("the text is short");
        }
        tools.outputs.push_back(Output::Disconnect);
        self.phase = Phase::Stopped;
    }

    /// Notes that the caller sent a message that was sealed elsewhere under `counter`: the agent's own next message takes
    /// a greater one. Gaps never matter, so who seals ahead leaves gaps for keep-alives.
    pub fn sealed_elsewhere(&mut self, counter: Counter) {
        self.sent = self.sent.max(counter);
    }

    /// The counter that the agent's next message will take.
    pub fn next_counter(&self) -> Counter {
        self.sent.next()
    }

    /// The last counter that it sent, and the last one of its manager that it took: what a real agent keeps in files.
    pub fn counters(&self) -> (Counter, Counter) {
        (self.sent, self.taken)
    }

    /// How many start-ups and keep-alives it has sent: each is answered with one acknowledgement. May change with every
    /// input.
    pub fn asked(&self) -> u64 {
        self.asked
    }

    /// When its manager's last genuine message came; its start, if there was none.
    pub fn last_heard(&self) -> Duration {
        self.last_heard
    }

    /// What it could make nothing of.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    /// Its id.
    pub fn id(&self) -> AgentId {
        self.id
    }

    /// What it seals with.
    pub fn key(&self) -> &Arc<CipherKey> {
        &self.key
    }

    /// What it has in common with others.
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The id that its messages begin with, if they do.
    pub fn id_prefix(&self) -> Option<AgentId> {
        self.sends_id.then_some(self.id)
    }

    /// Anything genuine is a sign of life; only the acknowledgement makes the agent ready.
    fn understand(&mut self, tools: &mut Tools, now: Duration, text: &[u8]) {
        self.last_heard = now;
        match (ToAgent::parse(text), self.phase) {
            (_, Phase::Stopped | Phase::Waiting { .. } | Phase::Connecting) => {}
            (Ok(ToAgent::Ack), Phase::Starting { .. }) => {
                tools.outputs.extend([Output::Acknowledged, Output::Ready]);
                self.was_ready = true;
                self.send_keep_alive(tools, now);
            }
            (Ok(ToAgent::Ack), Phase::Ready { .. }) => tools.outputs.push_back(Output::Acknowledged),
            (Ok(ToAgent::DeliveryAgreed { session }), Phase::Starting { .. })
                if self.has_offered(session) =>
            {
                tools.outputs.push_back(Output::DeliveryAgreed);
            }
            (Ok(ToAgent::DeliveryTaken { before }), Phase::Starting { .. } | Phase::Ready { .. })
                if self.offer.is_some() =>
            {
                tools.outputs.push_back(Output::DeliveryTaken { before });
            }
            // A Wazuh agent reads one message and takes anything but the acknowledgement for a failure.
            (_, Phase::Starting { .. }) => {
                if (self.profile.product, self.profile.transport) == (Product::Wazuh, Transport::Tcp) {
                    tools.outputs.push_back(Output::Disconnect);
                    self.wait(tools, now);
                }
            }
            (Ok(ToAgent::ForceReconnect), Phase::Ready { .. }) => {
                tools.outputs.push_back(Output::Disconnect);
                self.lose(tools);
            }
            (Ok(_) | Err(_), Phase::Ready { .. }) => tools.outputs.push_back(Output::Received(text.to_vec())),
        }
    }

    /// Whether its start-up offered this session.
    fn has_offered(&self, session: u64) -> bool {
        self.offer.is_some_and(|offer| offer.session == session)
    }

    fn lose(&mut self, tools: &mut Tools) {
        tools.outputs.push_back(Output::Locked);
        self.connect(tools);
    }

    fn connect(&mut self, tools: &mut Tools) {
        tools.outputs.push_back(Output::Connect);
        self.phase = Phase::Connecting;
    }

    fn wait(&mut self, tools: &mut Tools, now: Duration) {
        let jitter = tools.jitter(self.profile.reconnect_jitter);
        self.phase = Phase::Waiting { until: now + self.profile.reconnect_interval + jitter };
    }

    fn send_startup(&mut self, tools: &mut Tools, now: Duration, tries: u32) {
        let mut text = std::mem::take(&mut tools.text);
        text.clear();
        let wait = match (self.profile.product, self.profile.transport) {
            (Product::Ossec, Transport::Udp) => Duration::from_secs(u64::from(tries)).min(STARTUP_WAIT_MAX),
            (Product::Ossec | Product::Wazuh, Transport::Tcp) | (Product::Wazuh, Transport::Udp) => {
                ACKNOWLEDGEMENT_WAIT
            }
        };
        match (self.profile.product, self.offer) {
            (Product::Ossec, Some(offer)) => codec::startup_with_delivery(offer, &mut text),
            (Product::Ossec, None) => codec::startup(None, &mut text),
            (Product::Wazuh, Some(_) | None) => codec::startup(Some(&self.profile.version), &mut text),
        }
        self.seal(tools, &text).expect("a start-up is short");
        self.asked += 1;
        tools.text = text;
        self.phase = Phase::Starting { tries, next: now + wait };
    }

    fn send_keep_alive(&mut self, tools: &mut Tools, now: Duration) {
        let mut text = std::mem::take(&mut tools.text);
        text.clear();
        let own_address = self.address.to_string();
        let (agent_ip, filler) = match self.profile.product {
            Product::Ossec => (None, filler(tools)),
            Product::Wazuh => (Some(own_address.as_bytes()), Vec::new()),
        };
        let files = self.files.as_deref().copied().unwrap_or_default();
        let content = KeepAlive {
            uname: self.profile.uname.as_bytes(),
            agent_conf_digest: files.agent_conf,
            labels: Labels::default(),
            merged_digest: files.merged,
            agent_ip,
        };
        codec::keep_alive(&content, &filler, &mut text);
        self.seal(tools, &text).expect("a keep-alive is short");
        self.asked += 1;
        tools.text = text;
        self.phase = Phase::Ready { next_keep_alive: now + self.profile.notify_time };
    }

    fn seal(&mut self, tools: &mut Tools, text: &[u8]) -> Result<(), SealError> {
        let mut initialization_vector = [0; 16];
        tools.random.fill_bytes(&mut initialization_vector);
        let counter = self.sent.next();
        let envelope = Envelope {
            id_prefix: self.id_prefix(),
            method: self.profile.method,
            random: tools.random.next_u32() & 0xffff,
            counter,
            initialization_vector,
            text,
        };
        let mut message = Vec::with_capacity(text.len() + 64);
        tools.sealer.seal(&self.key, &envelope, &mut message)?;
        self.sent = counter;
        tools.outputs.push_back(Output::Transmit(message));
        Ok(())
    }
}

/// An empty line and random characters, which make each keep-alive of an OSSEC agent another one.
fn filler(tools: &mut Tools) -> Vec<u8> {
    const FILLER_BYTES: usize = 64;
    let mut filler = vec![b'\n'; 1 + FILLER_BYTES];
    tools.random.fill_bytes(&mut filler[1..]);
    for byte in &mut filler[1..] {
        *byte = b'a' + *byte % 26;
    }
    filler
}

impl fmt::Debug for Agent {
    /// Without the key: this may end up in a log.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Agent")
            .field("id", &self.id)
            .field("phase", &self.phase)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
