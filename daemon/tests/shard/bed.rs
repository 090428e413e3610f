//! A bed for tests: shards on loopback with a home of their own, and agents that speak to them by std's sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use codec::{CipherKey, Counter, Envelope, KeyEntry, KeyFile, Method, OpenSettings, Opener, Sealed, Sealer};
use daemon::clock::Clock;
use daemon::listen::Listener;
use daemon::mail::{Mail, MailSender, mailboxes};
use daemon::metrics::{ShardMetrics, SinkKind, SinkMetrics};
use daemon::settings::Settings;
use daemon::shard::{ShardError, ShardSpec, notices, spawn};
use manager::{AgentTable, CounterSeed, Reason, SenderCounter, ShardId};
use uring::sockets::{TcpSettings, UdpSettings, tcp_listener, udp_socket};

/// What takes longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const ACK: &[u8] = b"#!-agent ack ";
pub(crate) const STARTUP: &[u8] = b"#!-agent startup ";

/// Shards at work, each on a thread of its own.
pub(crate) struct Bed {
    _folder: tempfile::TempDir,
    pub(crate) settings: Arc<Settings>,
    /// Where each shard listens; the same for all if they share a port.
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) metrics: Vec<Arc<ShardMetrics>>,
    pub(crate) table: Arc<ArcSwap<AgentTable>>,
    mailers: Vec<MailSender>,
    shards: Vec<JoinHandle<Result<(), ShardError>>>,
}

/// Whether shards share one port.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ports {
    Own,
    Shared,
}

/// The agents `first` to `last` of client.keys.
pub(crate) fn entries(first: u32, last: u32) -> Vec<KeyEntry> {
    let lines: String =
        (first..=last).map(|number| format!("{number:03} agent{number} any key{number}\n")).collect();
    KeyFile::parse(lines.as_bytes()).entries
}

impl Bed {
    /// One shard with the queue socket as its only sink, and agents 1 to 99.
    pub(crate) fn new() -> Bed {
        Bed::with(1, Ports::Own, |_| {})
    }

    pub(crate) fn with(shards: usize, ports: Ports, change: impl FnOnce(&mut Settings)) -> Bed {
        let (folder, mut settings) = home();
        change(&mut settings);
        let mut bed = Bed::still(folder, settings);
        let mut listeners = Vec::new();
        for index in 0..shards {
            let wanted = match ports {
                Ports::Shared if index > 0 => bed.addresses[0],
                Ports::Shared | Ports::Own => "127.0.0.1:0".parse().unwrap(),
            };
            let listener = listener(wanted, ports == Ports::Shared);
            bed.addresses.push(listener.address);
            listeners.push(vec![listener]);
        }
        bed.start(listeners);
        bed
    }

    /// One shard that listens on what its settings name.
    pub(crate) fn bound(change: impl FnOnce(&mut Settings)) -> Bed {
        let (folder, mut settings) = home();
        settings.listen.addresses = vec!["127.0.0.1:0".parse().unwrap()];
        change(&mut settings);
        let mut bed = Bed::still(folder, settings);
        let bound = daemon::listen::bind(&bed.settings, 1).unwrap();
        bed.addresses = bound.addresses();
        bed.start(bound.shards);
        bed
    }

    fn still(folder: tempfile::TempDir, settings: Settings) -> Bed {
        let settings = Arc::new(settings);
        let table =
            Arc::new(ArcSwap::from_pointee(AgentTable::build(entries(1, 99), None, &CounterSeed::new())));
        Bed {
            _folder: folder,
            settings,
            addresses: Vec::new(),
            metrics: Vec::new(),
            table,
            mailers: Vec::new(),
            shards: Vec::new(),
        }
    }

    fn start(&mut self, listeners: Vec<Vec<Listener>>) {
        let (clock, senders) = (Clock::start(), Arc::new(SenderCounter::new(Counter::ZERO)));
        let (mailers, boxes): (Vec<_>, Vec<_>) = mailboxes(listeners.len()).unwrap().into_iter().unzip();
        for (index, (mail, listeners)) in boxes.into_iter().zip(listeners).enumerate() {
            self.metrics.push(Arc::default());
            let spec = ShardSpec {
                id: ShardId(index as u8),
                core: None,
                listeners,
                settings: Arc::clone(&self.settings),
                clock,
                table: Arc::clone(&self.table),
                senders: Arc::clone(&senders),
                delivery: None,
                metrics: Arc::clone(&self.metrics[index]),
                mail,
                mailers: mailers.clone(),
                notices: notices().unwrap().0,
            };
            self.shards.push(spawn(spec).unwrap());
        }
        self.mailers = mailers;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    pub(crate) fn queue_path(&self) -> PathBuf {
        self.settings.queue_path()
    }

    /// Binds the queue socket in analysisd's place.
    pub(crate) fn reader(&self) -> Reader {
        let path = self.queue_path();
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Reader(socket)
    }

    pub(crate) fn mail(&self, mail: Mail) {
        self.mailers.iter().for_each(|mailer| mailer.send(mail).unwrap());
    }

    /// A sum over the shards.
    pub(crate) fn sum(&self, of: impl Fn(&ShardMetrics) -> u64) -> u64 {
        self.metrics.iter().map(|metrics| of(metrics)).sum()
    }

    pub(crate) fn dropped(&self, reason: Reason) -> u64 {
        self.sum(|metrics| metrics.dropped.0[reason.index()].read())
    }

    /// Waits until `is_so`: for what no socket tells.
    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Bed) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            assert!(!self.shards.iter().any(JoinHandle::is_finished), "a shard ended: {what}");
            std::thread::yield_now();
        }
    }

    /// Tells the shards to stop, without waiting for it.
    pub(crate) fn stop(&self) {
        self.mail(Mail::Stop);
    }

    /// Stops the shards, waits for their end, and checks their sums.
    pub(crate) fn finish(mut self) -> Vec<Arc<ShardMetrics>> {
        self.stop();
        for shard in self.shards.drain(..) {
            shard.join().unwrap().unwrap();
        }
        for metrics in &self.metrics {
            let verdicts = metrics.events.read() + metrics.control.read() + metrics.dropped.sum();
            assert_eq!(metrics.received.read(), verdicts, "one message, one verdict");
            for kind in SinkKind::ALL {
                let sink = metrics.sink(kind);
                let failed: u64 = sink.failed.iter().map(|failed| failed.read()).sum();
                assert_eq!(sink.held.read(), 0, "{kind:?}");
                assert_eq!(sink.taken.read(), sink.delivered.read() + failed, "{kind:?}");
            }
        }
        std::mem::take(&mut self.metrics)
    }
}

/// A home, and settings with the queue socket as the only sink.
fn home() -> (tempfile::TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::with_home(folder.path());
    settings.shards.datagram_buffers = 64;
    settings.shards.stream_buffers = 64;
    settings.shards.connections_max = 1_000;
    settings.sink.queue.enabled = true;
    settings.sink.archives.text = false;
    std::fs::create_dir_all(folder.path().join("queue/ossec")).unwrap();
    std::fs::create_dir_all(folder.path().join("logs/archives")).unwrap();
    (folder, settings)
}

/// The queue socket's numbers of a shard.
pub(crate) fn queue(metrics: &ShardMetrics) -> &SinkMetrics {
    metrics.sink(SinkKind::Queue)
}

fn listener(wanted: SocketAddr, shared: bool) -> Listener {
    // A port that is free for both: UDP first, then TCP on the same one.
    for _ in 0..100 {
        let udp =
            udp_socket(&UdpSettings { address: wanted, shared, receive_buffer_bytes: 4 << 20 }).unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpSettings { address, shared, backlog: 1_024, receive_buffer_bytes: None };
        if let Ok(tcp) = tcp_listener(&tcp) {
            return Listener::secure(address, udp, tcp);
        }
    }
    panic!("no port is free for UDP and TCP");
}

/// Reads what analysisd would.
pub(crate) struct Reader(pub(crate) UnixDatagram);

impl Reader {
    /// The next datagram, less its NUL.
    pub(crate) fn next(&self) -> String {
        let mut buffer = [0; 70_000];
        let length = self.0.recv(&mut buffer).expect("a datagram comes in time");
        assert_eq!(buffer[length - 1], 0, "a NUL ends it");
        String::from_utf8(buffer[..length - 1].to_vec()).unwrap()
    }

    /// Whether there is nothing now.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.set_nonblocking(true).unwrap();
        let empty = self.0.recv(&mut [0; 16]).is_err();
        self.0.set_nonblocking(false).unwrap();
        empty
    }
}

/// An agent's secrets and counters, without a transport.
pub(crate) struct Identity {
    pub(crate) number: u32,
    pub(crate) method: Method,
    key: CipherKey,
    counter: Counter,
    sealer: Sealer,
    opener: Opener,
}

impl Identity {
    pub(crate) fn new(number: u32) -> Identity {
        let id = format!("{number:03}");
        Identity {
            number,
            method: Method::AesWazuh,
            key: CipherKey::new(&format!("agent{number}"), &id, &format!("key{number}")),
            counter: Counter::ZERO,
            sealer: Sealer::new(),
            opener: Opener::new(OpenSettings { message_bytes_max: 65_536, old_format: false }),
        }
    }

    pub(crate) fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.counter = self.counter.next();
        let envelope = Envelope {
            id_prefix: Some(format!("{:03}", self.number).parse().unwrap()),
            method: self.method,
            random: 7,
            counter: self.counter,
            initialization_vector: [9; 16],
            text,
        };
        let mut message = Vec::new();
        self.sealer.seal(&self.key, &envelope, &mut message).unwrap();
        message
    }

    pub(crate) fn frame(&mut self, text: &[u8]) -> Vec<u8> {
        let message = self.seal(text);
        let mut frame = Vec::new();
        codec::frame(&message, &mut frame);
        frame
    }

    pub(crate) fn open(&mut self, message: &[u8]) -> Vec<u8> {
        let sealed = Sealed { key: &self.key, bytes: message, method_hint: None };
        self.opener.open(&[sealed]).get(0).expect("the manager seals for this agent").text.to_vec()
    }
}

/// An event's text, and the datagram that it becomes.
pub(crate) fn event(number: u32, sequence: u32) -> String {
    format!("1:/var/log/messages:host{number} program[{sequence}]: something happened")
}

pub(crate) fn datagram(number: u32, sequence: u32) -> String {
    let rest = event(number, sequence).split_off(2);
    format!("1:(agent{number}) any->{rest}")
}

/// An agent over TCP.
pub(crate) struct TcpAgent {
    pub(crate) identity: Identity,
    pub(crate) stream: TcpStream,
}

impl TcpAgent {
    pub(crate) fn connect(number: u32, to: SocketAddr) -> TcpAgent {
        TcpAgent { identity: Identity::new(number), stream: connect(to) }
    }

    /// Connects and gets its acknowledgement.
    pub(crate) fn started(number: u32, to: SocketAddr) -> TcpAgent {
        let mut agent = TcpAgent::connect(number, to);
        agent.say(STARTUP);
        assert_eq!(agent.hear(), ACK);
        agent
    }

    pub(crate) fn say(&mut self, text: &[u8]) {
        let frame = self.identity.frame(text);
        self.stream.write_all(&frame).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Vec<u8> {
        let message = read_frame(&mut self.stream).expect("the manager answers");
        self.identity.open(&message)
    }

    /// Whether the manager closes the connection, by whatever comes first.
    pub(crate) fn is_closed(&mut self) -> bool {
        is_closed(&mut self.stream)
    }
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Waits for the end of a stream: true if it comes.
pub(crate) fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

pub(crate) fn read_frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut message)?;
    Ok(message)
}

/// An agent over UDP.
pub(crate) struct UdpAgent {
    pub(crate) identity: Identity,
    pub(crate) socket: UdpSocket,
}

impl UdpAgent {
    pub(crate) fn new(number: u32, to: SocketAddr) -> UdpAgent {
        UdpAgent { identity: Identity::new(number), socket: udp(to) }
    }

    pub(crate) fn say(&mut self, text: &[u8]) {
        let message = self.identity.seal(text);
        self.socket.send(&message).unwrap();
    }

    pub(crate) fn hear(&mut self) -> Vec<u8> {
        let mut buffer = [0; 2_048];
        let length = self.socket.recv(&mut buffer).expect("the manager answers");
        self.identity.open(&buffer[..length])
    }
}

/// A UDP socket that speaks to one address.
pub(crate) fn udp(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// A ping over UDP and back: the shard has turned since.
pub(crate) fn ping(to: SocketAddr) {
    let socket = udp(to);
    socket.send(b"#ping").unwrap();
    let mut buffer = [0; 16];
    let length = socket.recv(&mut buffer).expect("a ping is answered");
    assert_eq!(&buffer[..length], b"#pong");
}
