//! A manager for tests: it acknowledges, hands events over to the queue socket, and errs on purpose where it is told to.
//!
//! Threads and blocking sockets; nothing of it is shared with the daemon.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use codec::{
    Counter, Envelope, Event, FrameAt, FrameCutter, OpenSettings, Opener, Origin, Product, Sealer, ToAgent,
    Wire, classify, is_control, queue_datagram,
};
use loadgen::members::Member;

/// What the stand-in does wrong, with every so many-th event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// Nothing.
    None,
    /// Loses it.
    Loses(u64),
    /// Hands it over twice.
    Repeats(u64),
    /// Hands it over after the agent's next one. Here only agents' second events count: more of theirs surely come.
    Swaps(u64),
    /// Changes a byte of it.
    Corrupts(u64),
    /// Says that another agent sent it.
    Misattributes(u64),
    /// Closes the connection that brought it, and loses it.
    HangsUp(u64),
}

/// A stand-in at work.
pub struct StandIn {
    /// Where it listens, over UDP and TCP.
    pub address: SocketAddr,
    desk: Arc<Desk>,
    threads: Vec<JoinHandle<()>>,
}

struct Desk {
    members: HashMap<String, Member>,
    product: Product,
    flaw: Flaw,
    queue_path: PathBuf,
    state: Mutex<State>,
    stop: AtomicBool,
}

struct State {
    queue: UnixDatagram,
    opener: Opener,
    sealer: Sealer,
    sent: Counter,
    events: u64,
    erred: u64,
    /// Events that wait for their agent's next one.
    held: HashMap<String, Vec<u8>>,
    /// How many events each agent has sent.
    events_of: HashMap<String, u64>,
    /// How many agents have sent a second event.
    second_events: u64,
}

/// What becomes of a connection after a message.
enum Answer {
    Nothing,
    Send(Vec<u8>),
    HangUp,
}

impl StandIn {
    /// Starts one for these agents.
    pub fn start(members: Vec<Member>, product: Product, flaw: Flaw, queue_path: PathBuf) -> StandIn {
        let (udp, tcp) = bind_both();
        let address = udp.local_addr().unwrap();
        let state = State {
            queue: UnixDatagram::unbound().unwrap(),
            opener: Opener::new(OpenSettings::default()),
            sealer: Sealer::new(),
            sent: Counter::ZERO,
            events: 0,
            erred: 0,
            held: HashMap::new(),
            events_of: HashMap::new(),
            second_events: 0,
        };
        let members = members.into_iter().map(|member| (member.entry.id.to_string(), member)).collect();
        let stop = AtomicBool::new(false);
        let desk = Arc::new(Desk { members, product, flaw, queue_path, state: Mutex::new(state), stop });
        let (for_udp, for_tcp) = (Arc::clone(&desk), Arc::clone(&desk));
        let threads = vec![
            thread::spawn(move || serve_datagrams(&for_udp, &udp)),
            thread::spawn(move || serve_connections(&for_tcp, &tcp)),
        ];
        StandIn { address, desk, threads }
    }

    /// Ends it, and tells how often it erred. An event that still waits for another one was lost.
    pub fn stop(self) -> u64 {
        self.desk.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        for thread in self.threads {
            thread.join().unwrap();
        }
        let state = self.desk.state.lock().unwrap();
        assert!(state.held.is_empty(), "a swapped event was never followed");
        state.erred
    }
}

impl Desk {
    fn on_message(&self, message: &[u8]) -> Answer {
        let mut state = self.state.lock().unwrap();
        let Ok(Wire::Id { id, sealed }) = classify(message) else { panic!("loadgen's agents say their id") };
        let member = &self.members[id.as_str()];
        let State { opener, sealer, sent, .. } = &mut *state;
        let batch = [codec::Sealed { key: &member.cipher_key, bytes: sealed, method_hint: None }];
        let (method, text) = {
            let opened = opener.open(&batch);
            let opened = opened.get(0).expect("loadgen seals with the key of client.keys");
            (opened.method, opened.text.to_vec())
        };
        if !is_control(&text) {
            return self.on_event(&mut state, member, &text);
        }
        let mut acknowledgement = Vec::new();
        ToAgent::Ack.write(&mut acknowledgement);
        *sent = sent.next();
        let envelope = Envelope {
            id_prefix: None,
            method,
            random: 7,
            counter: *sent,
            initialization_vector: [7; 16],
            text: &acknowledgement,
        };
        let mut answer = Vec::new();
        sealer.seal(&member.cipher_key, &envelope, &mut answer).unwrap();
        Answer::Send(answer)
    }

    fn on_event(&self, state: &mut State, member: &Member, text: &[u8]) -> Answer {
        let id = member.entry.id;
        state.events += 1;
        let events_of = state.events_of.entry(id.to_string()).or_default();
        *events_of += 1;
        let is_second = *events_of == 2;
        state.second_events += u64::from(is_second);
        let errs = |every: u64| state.events.is_multiple_of(every);
        let mut name = &*member.entry.name;
        let mut copies = 1;
        let mut swaps = false;
        let mut corrupts = false;
        match self.flaw {
            Flaw::Loses(every) if errs(every) => copies = 0,
            Flaw::Repeats(every) if errs(every) => copies = 2,
            Flaw::Swaps(every) if is_second && state.second_events.is_multiple_of(every) => swaps = true,
            Flaw::Corrupts(every) if errs(every) => corrupts = true,
            Flaw::Misattributes(every) if errs(every) => name = "somebody-else",
            Flaw::HangsUp(every) if errs(every) => {
                state.erred += 1;
                return Answer::HangUp;
            }
            Flaw::None
            | Flaw::Loses(_)
            | Flaw::Repeats(_)
            | Flaw::Swaps(_)
            | Flaw::Corrupts(_)
            | Flaw::Misattributes(_)
            | Flaw::HangsUp(_) => {}
        }
        state.erred += u64::from(copies != 1 || swaps || corrupts || name != &*member.entry.name);
        let mut datagram = Vec::new();
        let event = Event::parse(text).expect("loadgen's lines are events");
        queue_datagram(self.product, &event, &Origin { id, name, address: "any" }, &mut datagram);
        if corrupts {
            let middle = datagram.len() - 60;
            datagram[middle] ^= 1;
        }
        if swaps {
            state.held.insert(id.to_string(), datagram);
            return Answer::Nothing;
        }
        for _ in 0..copies {
            state.queue.send_to(&datagram, &self.queue_path).unwrap();
        }
        if let Some(held) = state.held.remove(id.as_str()) {
            state.queue.send_to(&held, &self.queue_path).unwrap();
        }
        Answer::Nothing
    }
}

fn serve_datagrams(desk: &Desk, socket: &UdpSocket) {
    let mut buffer = vec![0; 65_536];
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    while !desk.stop.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        match desk.on_message(&buffer[..length]) {
            Answer::Send(answer) => drop(socket.send_to(&answer, from).unwrap()),
            Answer::Nothing | Answer::HangUp => {}
        }
    }
}

fn serve_connections(desk: &Arc<Desk>, listener: &TcpListener) {
    let mut threads = Vec::new();
    loop {
        let (connection, _) = listener.accept().unwrap();
        if desk.stop.load(Ordering::Relaxed) {
            break;
        }
        let desk = Arc::clone(desk);
        threads.push(thread::spawn(move || serve_connection(&desk, connection)));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

fn serve_connection(desk: &Desk, mut connection: TcpStream) {
    connection.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut cutter = FrameCutter::new(65_536);
    let mut buffer = vec![0; 16_384];
    while !desk.stop.load(Ordering::Relaxed) {
        let length = match connection.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        };
        let mut frames = Vec::new();
        cutter.cut(&buffer[..length], &mut frames).unwrap();
        let carried = cutter.carried().to_vec();
        for frame in frames {
            let message = match frame {
                FrameAt::Carried => &carried[..],
                FrameAt::Received(range) => &buffer[range],
            };
            match desk.on_message(message) {
                Answer::Nothing => {}
                Answer::Send(answer) => {
                    let mut framed = Vec::new();
                    codec::frame(&answer, &mut framed);
                    // The agent may be gone already at the end of a run.
                    let _ = connection.write_all(&framed);
                }
                Answer::HangUp => return,
            }
        }
    }
}

/// Any port that is free for both.
fn bind_both() -> (UdpSocket, TcpListener) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (udp, tcp);
        }
    }
}
