//! The two programs as children, an agent that seals, and a manager that opens and takes no counter twice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use codec::{
    AgentId, CipherKey, Counter, Envelope, Method, OpenSettings, Opener, Sealed, Sealer, Wire, classify,
};

/// How long anything may take; only a failure waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running program; killed when dropped.
pub(crate) struct Program {
    child: Child,
    log: Receiver<String>,
    said: Vec<String>,
    dir: PathBuf,
}

impl Program {
    /// Starts `client` or `server` over the folder `dir`, and waits until it listens.
    pub(crate) fn start(role: &str, dir: &Path, options: &[&str]) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster-broker"));
        command.arg(role).arg("--dir").arg(dir).args(options).env_remove("NOTIFY_SOCKET");
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = mpsc::channel();
        thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut program = Program { child, log, said: Vec::new(), dir: dir.to_owned() };
        program.wait_for_line("listening on ");
        program
    }

    /// Waits until the log has a line that contains `text`.
    pub(crate) fn wait_for_line(&mut self, text: &str) -> String {
        loop {
            match self.log.recv_timeout(PATIENCE) {
                Ok(line) => {
                    self.said.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with {text:?} ({error}); the program said {:#?}", self.said),
            }
        }
    }

    /// What `ringmaster-broker status --json` prints.
    pub(crate) fn status(&self) -> serde_json::Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster-broker"));
        let output = command.args(["status", "--json", "--dir"]).arg(&self.dir).output().unwrap();
        assert_ne!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Asks until it is so.
    pub(crate) fn wait_until(&self, holds: impl Fn(&serde_json::Value) -> bool) {
        let started = Instant::now();
        loop {
            let status = self.status();
            if holds(&status) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "it did not come to that: {status:#}");
        }
    }

    /// The address that it listens on.
    pub(crate) fn listening(&self) -> SocketAddr {
        let status = self.status();
        let listening = &status["listening"];
        listening.as_str().or(listening[0].as_str()).unwrap().parse().unwrap()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait_for_line("stopped: ");
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn key(agent: &str) -> CipherKey {
    CipherKey::new("web", agent, "0123456789abcdef")
}

/// An agent that stays as it is: it seals, sends by UDP, and counts.
pub(crate) struct Agent {
    id: AgentId,
    key: CipherKey,
    socket: UdpSocket,
    sealer: Sealer,
    counter: Counter,
    /// How many events it has sent.
    pub(crate) sent: u32,
}

impl Agent {
    pub(crate) fn new(id: &str) -> Agent {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Agent {
            id: id.parse().unwrap(),
            key: key(id),
            socket,
            sealer: Sealer::new(),
            counter: Counter::ZERO,
            sent: 0,
        }
    }

    /// Sends its next events.
    pub(crate) fn send(&mut self, broker: SocketAddr, events: u32) {
        for _ in 0..events {
            self.sent += 1;
            self.counter = self.counter.next();
            let text = self.sent.to_string();
            let envelope = Envelope {
                id_prefix: Some(self.id),
                method: Method::Blowfish,
                random: 1,
                counter: self.counter,
                initialization_vector: [0; 16],
                text: text.as_bytes(),
            };
            let mut message = Vec::new();
            self.sealer.seal(&self.key, &envelope, &mut message).unwrap();
            self.socket.send_to(&message, broker).unwrap();
        }
    }

    /// Waits for an answer of the manager.
    pub(crate) fn answer(&self) -> String {
        let mut buffer = [0; 2_048];
        let (bytes, _) = self.socket.recv_from(&mut buffer).unwrap();
        String::from_utf8(buffer[..bytes].to_vec()).unwrap()
    }
}

/// A manager: it opens what comes, takes greater counters only, and answers each event that it takes in the clear.
pub(crate) struct Manager {
    address: SocketAddr,
    socket: Option<UdpSocket>,
    opener: Opener,
    counters: BTreeMap<String, Counter>,
    /// What it has taken of each agent, in order.
    pub(crate) sink: BTreeMap<String, Vec<u32>>,
    /// Messages with a counter that it had.
    pub(crate) repeated: u32,
    /// From where each agent was heard last.
    pub(crate) sources: BTreeMap<String, SocketAddr>,
}

impl Manager {
    pub(crate) fn start() -> Manager {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager {
            address: socket.local_addr().unwrap(),
            socket: Some(socket),
            opener: Opener::new(OpenSettings::default()),
            counters: BTreeMap::new(),
            sink: BTreeMap::new(),
            repeated: 0,
            sources: BTreeMap::new(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// It dies, and with it what its socket has unread. Its counters are on disk.
    pub(crate) fn stop(&mut self) {
        self.socket = None;
    }

    /// It is there again, at the same address.
    pub(crate) fn start_again(&mut self) {
        let socket = UdpSocket::bind(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        self.socket = Some(socket);
    }

    /// Reads until it has taken `events` of an agent.
    pub(crate) fn take(&mut self, agent: &str, events: u32) {
        while self.sink.get(agent).map_or(0, Vec::len) < events as usize {
            self.read();
        }
    }

    /// Reads one message.
    pub(crate) fn read(&mut self) {
        let socket = self.socket.as_ref().unwrap();
        let mut buffer = [0; 65_536];
        let (bytes, from) = socket.recv_from(&mut buffer).unwrap_or_else(|error| {
            let lengths: Vec<_> = self.sink.iter().map(|(agent, events)| (agent, events.len())).collect();
            panic!("nothing came ({error}); it has {lengths:?}")
        });
        let Ok(Wire::Id { id, sealed }) = classify(&buffer[..bytes]) else { panic!("no message of ours") };
        let cipher = key(id.as_str());
        let batch = self.opener.open(&[Sealed { key: &cipher, bytes: sealed, method_hint: None }]);
        let opened = batch.get(0).unwrap();
        let agent = id.as_str().to_owned();
        self.sources.insert(agent.clone(), from);
        let last = self.counters.entry(agent.clone()).or_default();
        if opened.counter <= *last {
            self.repeated += 1;
            return;
        }
        *last = opened.counter;
        let event: u32 = std::str::from_utf8(opened.text).unwrap().parse().unwrap();
        socket.send_to(format!("answer {event}").as_bytes(), from).unwrap();
        self.sink.entry(agent).or_default().push(event);
    }

    /// All events of an agent have come, each once, in order.
    pub(crate) fn assert_whole(&self, agent: &Agent) {
        let expected: Vec<u32> = (1..=agent.sent).collect();
        assert_eq!(self.sink[agent.id.as_str()], expected, "agent {}", agent.id);
    }
}
