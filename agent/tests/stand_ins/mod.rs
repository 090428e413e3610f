//! What stands around the program in a test: its home, a collector, and a manager that is a few lines long.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

use codec::{
    CipherKey, Counter, DeliveryOffer, Envelope, FrameAt, FrameCutter, FromAgent, Method, OpenSettings,
    Opener, Sealed, Sealer,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, SockAddr, Socket, Type};

/// Longer than anything takes; a test that waits so long fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An OSSEC agent's folder.
pub(crate) struct Home {
    folder: tempfile::TempDir,
}

impl Home {
    /// `client` is the inside of `<client>`.
    pub(crate) fn new(client: &str, own: &str) -> Home {
        let home = Home { folder: tempfile::tempdir().unwrap() };
        for folder in ["etc/shared", "queue/ossec", "queue/alerts", "queue/rids", "logs", "var/run"] {
            fs::create_dir_all(home.path(folder)).unwrap();
        }
        let conf = format!("<ossec_config><client>{client}</client></ossec_config>");
        fs::write(home.path("etc/ossec.conf"), conf).unwrap();
        fs::write(home.path("etc/client.keys"), "001 web any secret\n").unwrap();
        fs::write(home.path("etc/ringmaster-agent.toml"), own).unwrap();
        home
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder.path().join(below)
    }
}

/// The inside of `<client>` for a manager at this address.
pub(crate) fn client(manager: SocketAddr, protocol: &str) -> String {
    let (ip, port) = (manager.ip(), manager.port());
    format!(
        "<server-ip>{ip}</server-ip><port>{port}</port><protocol>{protocol}</protocol><notify_time>1</notify_time>"
    )
}

/// The program, running.
pub(crate) struct Program {
    child: Child,
    lines: BufReader<ChildStderr>,
}

impl Program {
    /// Starts it, and waits until collectors can send.
    pub(crate) fn start(home: &Home) -> Program {
        // So that [`Program::may_write`] does not end it.
        let mut child = Command::new("sh")
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringmaster-agent")])
            .arg("--home")
            .arg(home.folder.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        let mut program = Program { child, lines };
        program.says("Started (pid: ");
        program
    }

    /// Reads its log up to a line with this in it.
    pub(crate) fn says(&mut self, what: &str) -> String {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            let bytes = self.lines.read_line(&mut line).unwrap();
            assert!(bytes > 0, "it ended without '{what}':\n{said}");
            said.push_str(&line);
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Waits until it has taken so many events, its own first three among them.
    pub(crate) fn has_taken(&mut self, events: u64) {
        loop {
            self.signal(Signal::SIGUSR1);
            let line = self.says("Events: taken ");
            let number = line.split("taken ").nth(1).unwrap().split(',').next().unwrap();
            if number.parse::<u64>().unwrap() >= events {
                return;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// So long a file may become from now on: with nothing, the disk is as good as full for it.
    pub(crate) fn may_write(&self, bytes: Option<u64>) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        let limit = rustix::process::Rlimit { current: bytes, maximum: None };
        rustix::process::prlimit(pid, rustix::process::Resource::Fsize, limit).unwrap();
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn ends_by_itself(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// One that must not start, and what it says.
    pub(crate) fn refused(home: &Home) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster-agent"));
        let output = command.arg("--home").arg(home.folder.path()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn ends(mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.child.wait().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// As logcollector sends.
pub(crate) fn collector(home: &Home) -> UnixDatagram {
    let socket = UnixDatagram::unbound().unwrap();
    socket.connect(home.path("queue/ossec/queue")).unwrap();
    socket
}

pub(crate) fn send(collector: &UnixDatagram, numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| assert!(collector.send(&event(number)).is_ok()));
}

pub(crate) fn event(number: u32) -> Vec<u8> {
    format!("1:/var/log/messages:event {number}\0").into_bytes()
}

/// The number of an event; `None` for one of the agent's own.
pub(crate) fn number(text: &str) -> Option<u32> {
    text.strip_prefix("1:/var/log/messages:event ").map(|number| number.parse().unwrap())
}

/// A manager's address before the manager is there: connections are refused.
pub(crate) fn absent() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SockAddr::from(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// Seals and opens as the agent's manager, and accepts no counter twice.
pub(crate) struct Pen {
    key: CipherKey,
    opener: Opener,
    sealer: Sealer,
    pub(crate) said: Counter,
    pub(crate) heard: Counter,
}

impl Pen {
    pub(crate) fn new() -> Pen {
        let key = CipherKey::new("web", "001", "secret");
        let (opener, sealer) = (Opener::new(OpenSettings::default()), Sealer::new());
        Pen { key, opener, sealer, said: Counter::ZERO, heard: Counter::ZERO }
    }

    pub(crate) fn open(&mut self, message: &[u8]) -> String {
        let bytes = message.strip_prefix(b"!001!").expect("an agent at any address sends its id");
        let opened = self.opener.open(&[Sealed { key: &self.key, bytes, method_hint: None }]);
        let opened = opened.get(0).unwrap();
        assert!(opened.counter > self.heard, "a manager would refuse {:?}", opened.counter);
        self.heard = opened.counter;
        String::from_utf8(opened.text.to_vec()).unwrap()
    }

    pub(crate) fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.said = self.said.next();
        let envelope = Envelope {
            id_prefix: None,
            method: Method::AesOssec,
            random: 0,
            counter: self.said,
            initialization_vector: [9; 16],
            text,
        };
        let mut message = Vec::new();
        self.sealer.seal(&self.key, &envelope, &mut message).unwrap();
        message
    }
}

/// A manager with one agent.
pub(crate) struct Manager {
    listener: TcpListener,
    pub pen: Pen,
    stream: Option<TcpStream>,
    cutter: FrameCutter,
    texts: VecDeque<String>,
}

impl Manager {
    pub(crate) fn listen() -> (Manager, SocketAddr) {
        let (socket, address) = absent();
        (Manager::appear(socket), address)
    }

    /// It is there from now on.
    pub(crate) fn appear(socket: Socket) -> Manager {
        socket.listen(16).unwrap();
        // Of the listener: how long it waits for a connection.
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let cutter = FrameCutter::new(65_536);
        Manager { listener: socket.into(), pen: Pen::new(), stream: None, cutter, texts: VecDeque::new() }
    }

    /// The agent's next connection, started up.
    pub(crate) fn accept(&mut self) {
        // Its offer is none to this manager.
        let startup = self.accept_any();
        assert!(startup.starts_with("#!-agent startup delivery 1 "), "{startup}");
    }

    /// The same, of an agent that may offer nothing. Returns the start-up.
    pub(crate) fn accept_any(&mut self) -> String {
        self.connection();
        let startup = self.text();
        self.say(b"#!-agent ack ");
        startup
    }

    fn connection(&mut self) {
        let (stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        self.stream = Some(stream);
        self.cutter = FrameCutter::new(65_536);
        self.texts.clear();
    }

    /// The agent's next connection, started up; this manager agrees to its offer. Returns that.
    pub(crate) fn accept_and_agree(&mut self) -> DeliveryOffer {
        self.connection();
        let startup = self.text();
        let Some(Ok(FromAgent::Startup { delivery: Some(offer), .. })) = FromAgent::parse(startup.as_bytes())
        else {
            panic!("it offers nothing: {startup}");
        };
        self.say(format!("#!-ringmaster delivery {:016x}", offer.session).as_bytes());
        self.say(b"#!-agent ack ");
        offer
    }

    /// Says that it has everything before a number.
    pub(crate) fn has(&mut self, before: u64) {
        self.say(format!("#!-ringmaster taken {before}").as_bytes());
    }

    /// Cuts the connection.
    pub(crate) fn cut(&mut self) {
        self.stream = None;
    }

    /// Waits until the agent closes the connection.
    pub(crate) fn cut_by_agent(&mut self) {
        let mut rest = Vec::new();
        self.stream.take().unwrap().read_to_end(&mut rest).unwrap();
        let mut frames = Vec::new();
        self.cutter.cut(&rest, &mut frames).unwrap();
        for frame in frames {
            match &frame {
                FrameAt::Carried => self.pen.open(self.cutter.carried()),
                FrameAt::Received(range) => self.pen.open(&rest[range.clone()]),
            };
        }
    }

    /// Acknowledges keep-alives until the agent closes the connection.
    pub(crate) fn acknowledge_to_the_end(&mut self) {
        while let Some(text) = self.next_text() {
            if text.starts_with("#!-") {
                self.say(b"#!-agent ack ");
            }
        }
    }

    pub(crate) fn say(&mut self, text: &[u8]) {
        let mut frame = Vec::new();
        codec::frame(&self.pen.seal(text), &mut frame);
        self.stream.as_mut().unwrap().write_all(&frame).unwrap();
    }

    /// The next text, whatever it is.
    pub(crate) fn text(&mut self) -> String {
        self.next_text().expect("the agent closed the connection")
    }

    fn next_text(&mut self) -> Option<String> {
        while self.texts.is_empty() {
            let mut buffer = [0; 4_096];
            let bytes = self.stream.as_mut().unwrap().read(&mut buffer).unwrap();
            if bytes == 0 {
                return None;
            }
            let mut frames = Vec::new();
            self.cutter.cut(&buffer[..bytes], &mut frames).unwrap();
            for frame in frames {
                let message = match &frame {
                    FrameAt::Carried => self.cutter.carried(),
                    FrameAt::Received(range) => &buffer[range.clone()],
                };
                self.texts.push_back(self.pen.open(message));
            }
        }
        self.texts.pop_front()
    }

    /// The next keep-alive, acknowledged.
    pub(crate) fn keep_alive(&mut self) -> String {
        loop {
            let text = self.text();
            if text.starts_with("#!-") {
                self.say(b"#!-agent ack ");
                return text;
            }
        }
    }

    /// The numbers of the next events, up to and with `last`; keep-alives are acknowledged.
    pub(crate) fn events_to(&mut self, last: u32) -> Vec<u32> {
        let mut numbers = Vec::new();
        while numbers.last() != Some(&last) {
            let text = self.text();
            if text.starts_with("#!-") {
                self.say(b"#!-agent ack ");
            }
            numbers.extend(number(&text));
        }
        numbers
    }

    /// Pushes a shared file.
    pub(crate) fn push(&mut self, name: &str, content: &[u8]) {
        let digest = codec::HexDigest::of(content);
        self.say(format!("#!-up file {digest} {name}\n").as_bytes());
        content.chunks(900).for_each(|chunk| self.say(chunk));
        self.say(b"#!-close file ");
    }
}

/// The pid file of a program, if it runs.
pub(crate) fn pid_file(home: &Home, beginning: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(home.path("var/run")).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(beginning))
        .map(|entry| entry.path())
        .next()
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
