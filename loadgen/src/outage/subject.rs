//! One agent with its host: events are written, its collector reads them, the agent sends them or locks the collector.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use agent::{Agent, AgentSettings, Output, Profile, State, Tools, Transport};
use codec::{AgentId, CipherKey, Counter, FrameAt, FrameCutter};

use crate::outage::account::Account;

/// What a collector that has to catch up reads in one turn. All agents' together fit into a socket's default receive buffer,
/// so that the outage is what loses events, and not the burst after it.
const READ_IN_A_TURN: usize = 4;
/// The longest message of a manager.
const MESSAGE_BYTES_MAX: usize = 65_536;

#[derive(Debug)]
pub(super) struct Subject {
    index: u32,
    settings: AgentSettings,
    /// `None` while the agent is killed.
    agent: Option<Agent>,
    link: Option<Link>,
    /// Written, and not sent yet: what the collector is still to read.
    unread: VecDeque<u32>,
    /// When the next event is written.
    next_event: Duration,
    /// The event that is being sent.
    submitted: Option<u32>,
    datagrams: Datagrams,
}

/// What became of datagrams, as far as the sender's kernel tells: on one host it tells at once when nobody is there.
#[derive(Debug, Default)]
pub(super) struct Datagrams {
    /// The event in each of those that went to a socket, if there is one, in order.
    pub(super) accepted: Vec<Option<u32>>,
    /// The events in those that nobody was there for.
    pub(super) refused: Vec<u32>,
}

/// The way to the manager, or to what stands before it.
#[derive(Debug)]
enum Link {
    Udp(UdpSocket),
    Tcp { stream: TcpStream, cutter: FrameCutter, unsent: Vec<u8> },
}

/// What a turn of all subjects has in common.
pub(super) struct Turn<'t> {
    pub(super) now: Duration,
    pub(super) tools: &'t mut Tools,
    pub(super) server: SocketAddr,
}

impl Subject {
    pub(super) fn new(
        index: u32,
        id: AgentId,
        key: Arc<CipherKey>,
        profile: Arc<Profile>,
        now: Duration,
    ) -> Subject {
        let settings = AgentSettings {
            profile,
            id,
            key,
            sends_id: true,
            address: Ipv4Addr::LOCALHOST.into(),
            sent: Counter::ZERO,
            taken: Counter::ZERO,
        };
        let agent = Some(Agent::new(settings.clone(), now));
        Subject {
            index,
            settings,
            agent,
            link: None,
            unread: VecDeque::new(),
            next_event: Duration::MAX,
            submitted: None,
            datagrams: Datagrams::default(),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.state() == State::Ready)
    }

    /// From `at` on events are written.
    pub(super) fn begin(&mut self, at: Duration) {
        self.next_event = at;
    }

    /// Writes what is due until `end`, one event every `apart`. A collector that is not running reads none of them later: it
    /// begins at the end of the file.
    pub(super) fn write_events(
        &mut self,
        now: Duration,
        end: Duration,
        apart: Duration,
        begun: Duration,
        account: &mut Account,
    ) {
        while self.next_event <= now && self.next_event < end {
            let sequence = account.make(self.index, self.next_event - begun);
            if self.agent.is_some() {
                self.unread.push_back(sequence);
            }
            self.next_event += apart;
        }
    }

    /// Kills the agent with its collector: what was not sent yet is behind the collector's place for good.
    pub(super) fn kill(&mut self) {
        if let Some(agent) = self.agent.take() {
            (self.settings.sent, self.settings.taken) = agent.counters();
        }
        self.link = None;
        self.unread.clear();
    }

    /// What became of its datagrams since this was last asked.
    pub(super) fn take_datagrams(&mut self) -> Datagrams {
        std::mem::take(&mut self.datagrams)
    }

    /// Starts it again with the counters that it had on disk.
    pub(super) fn start(&mut self, now: Duration) {
        if self.agent.is_none() {
            self.agent = Some(Agent::new(self.settings.clone(), now));
        }
    }

    /// Receives, does what is due, and sends what the collector has.
    pub(super) fn turn(&mut self, turn: &mut Turn<'_>) {
        self.receive(turn);
        if self.agent.as_ref().and_then(Agent::next_timeout).is_some_and(|due| due <= turn.now) {
            self.input(turn, |agent, tools, now| agent.on_timeout(tools, now));
        }
        self.flush(turn);
        for _ in 0..READ_IN_A_TURN {
            if !self.is_ready() || self.is_blocked() {
                break;
            }
            let Some(sequence) = self.unread.pop_front() else { break };
            let text = format!("1:outage:event {} {sequence}", self.index);
            let mut is_taken = false;
            self.submitted = Some(sequence);
            self.input(turn, |agent, tools, _| is_taken = agent.submit(tools, text.as_bytes()).is_ok());
            self.submitted = None;
            if !is_taken {
                self.unread.push_front(sequence);
            }
        }
    }

    /// Over TCP an agent's send() waits until the kernel has taken the message.
    fn is_blocked(&self) -> bool {
        match &self.link {
            Some(Link::Tcp { unsent, .. }) => !unsent.is_empty(),
            Some(Link::Udp(_)) | None => false,
        }
    }

    fn receive(&mut self, turn: &mut Turn<'_>) {
        let mut buffer = [0; 16 << 10];
        loop {
            let mut messages = Vec::new();
            let is_open = match &mut self.link {
                None => return,
                Some(Link::Udp(socket)) => match socket.recv(&mut buffer) {
                    Ok(bytes) => {
                        messages.push(buffer[..bytes].to_vec());
                        true
                    }
                    Err(_) => return,
                },
                Some(Link::Tcp { stream, cutter, .. }) => match stream.read(&mut buffer) {
                    Ok(0) => false,
                    Ok(bytes) => cut(cutter, &buffer[..bytes], &mut messages),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                    Err(_) => false,
                },
            };
            for message in messages {
                self.input(turn, |agent, tools, now| agent.on_message(tools, now, &message));
            }
            if !is_open {
                self.close(turn);
                return;
            }
        }
    }

    /// Gives an input to the agent, and does what it asks for.
    fn input(&mut self, turn: &mut Turn<'_>, input: impl FnOnce(&mut Agent, &mut Tools, Duration)) {
        let Some(agent) = &mut self.agent else { return };
        input(agent, turn.tools, turn.now);
        let outputs: Vec<Output> = std::iter::from_fn(|| turn.tools.next_output()).collect();
        for output in outputs {
            match output {
                Output::Connect => self.connect(turn),
                Output::Disconnect => self.link = None,
                Output::Transmit(message) => self.transmit(&message, turn),
                // It offers no delivery of its own, so none is agreed.
                Output::Acknowledged
                | Output::DeliveryAgreed
                | Output::DeliveryTaken { .. }
                | Output::Locked
                | Output::Ready
                | Output::Received(_) => {}
            }
        }
    }

    fn connect(&mut self, turn: &mut Turn<'_>) {
        self.link = Link::open(self.settings.profile.transport, turn.server).ok();
        if self.link.is_some() {
            self.input(turn, |agent, tools, now| agent.on_connected(tools, now));
        } else {
            self.close(turn);
        }
    }

    fn close(&mut self, turn: &mut Turn<'_>) {
        self.link = None;
        self.input(turn, |agent, tools, now| agent.on_closed(tools, now));
    }

    fn transmit(&mut self, message: &[u8], turn: &mut Turn<'_>) {
        match &mut self.link {
            // An agent does not ask what became of it; the account does.
            Some(Link::Udp(socket)) => {
                let sent = socket.send(message);
                let is_accepted = sent.is_ok() && matches!(socket.take_error(), Ok(None));
                if is_accepted {
                    self.datagrams.accepted.push(self.submitted);
                } else {
                    self.datagrams.refused.extend(self.submitted);
                }
            }
            Some(Link::Tcp { unsent, .. }) => codec::frame(message, unsent),
            None => {}
        }
        self.flush(turn);
    }

    fn flush(&mut self, turn: &mut Turn<'_>) {
        let Some(Link::Tcp { stream, unsent, .. }) = &mut self.link else { return };
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(bytes) => drop(unsent.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.close(turn),
            }
        }
    }
}

impl Link {
    fn open(transport: Transport, server: SocketAddr) -> std::io::Result<Link> {
        match transport {
            Transport::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0")?;
                socket.connect(server)?;
                socket.set_nonblocking(true)?;
                Ok(Link::Udp(socket))
            }
            Transport::Tcp => {
                let stream = TcpStream::connect(server)?;
                stream.set_nonblocking(true)?;
                stream.set_nodelay(true)?;
                Ok(Link::Tcp { stream, cutter: FrameCutter::new(MESSAGE_BYTES_MAX), unsent: Vec::new() })
            }
        }
    }
}

/// Whether the stream makes sense.
fn cut(cutter: &mut FrameCutter, received: &[u8], messages: &mut Vec<Vec<u8>>) -> bool {
    let mut frames = Vec::new();
    let is_sound = cutter.cut(received, &mut frames).is_ok();
    messages.extend(frames.into_iter().map(|frame| match frame {
        FrameAt::Carried => cutter.carried().to_vec(),
        FrameAt::Received(range) => received[range].to_vec(),
    }));
    is_sound
}
