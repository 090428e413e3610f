//! An agent as far as these tests need one: it seals, it opens, and it has a socket.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
};

use codec::{
    CipherKey, Counter, Envelope, FRAME_HEADER_BYTES, KeyFile, Method, OpenSettings, Opener, Sealed, Sealer,
    Wire,
};

use crate::program::PATIENCE;

/// What an agent sends first.
pub(crate) const STARTUP: &[u8] = b"#!-agent startup ";
/// What it must be answered with, to the byte.
pub(crate) const ACK: &[u8] = b"#!-agent ack ";

/// One line of client.keys, and the counter that its owner has come to.
pub(crate) struct Agent {
    entry: codec::KeyEntry,
    key: CipherKey,
    method: Method,
    counter: Counter,
    sealer: Sealer,
}

impl Agent {
    /// The agent whose line of client.keys this is.
    pub(crate) fn new(line: &str, method: Method) -> Agent {
        let entry = KeyFile::parse(line.as_bytes()).entries.remove(0);
        let key = CipherKey::new(&entry.name, entry.id.as_str(), &entry.key);
        Agent { entry, key, method, counter: Counter::ZERO, sealer: Sealer::new() }
    }

    /// The next message, sealed.
    pub(crate) fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.counter = self.counter.next();
        let envelope = Envelope {
            id_prefix: self.entry.address.agent_sends_id().then_some(self.entry.id),
            method: self.method,
            random: 12_345,
            counter: self.counter,
            initialization_vector: *b"sixteen bytes !!",
            text,
        };
        let mut message = Vec::new();
        self.sealer.seal(&self.key, &envelope, &mut message).unwrap();
        message
    }

    /// What the manager said in this message.
    pub(crate) fn open(&self, message: &[u8]) -> Vec<u8> {
        let sealed = match codec::classify(message).unwrap() {
            Wire::Address { sealed } => sealed,
            other @ (Wire::Id { .. } | Wire::Ping) => panic!("a manager does not say {other:?}"),
        };
        let mut opener = Opener::new(OpenSettings { message_bytes_max: 65_536, old_format: false });
        let opened = opener.open(&[Sealed { key: &self.key, bytes: sealed, method_hint: None }]);
        let opened = opened.get(0).unwrap();
        assert_eq!(opened.method, self.method, "the answer comes as the agent spoke");
        opened.text.to_vec()
    }
}

/// An agent's UDP socket.
pub(crate) struct Udp(UdpSocket);

impl Udp {
    pub(crate) fn connect(manager: SocketAddr) -> Udp {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(manager).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Udp(socket)
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.0.send(message).unwrap();
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let bytes = self.0.recv(&mut buffer).expect("an answer from the manager");
        buffer.truncate(bytes);
        buffer
    }

    /// Sends the start-up message and asserts the acknowledgement.
    pub(crate) fn start(&self, agent: &mut Agent) {
        self.send(&agent.seal(STARTUP));
        assert_eq!(agent.open(&self.receive()), ACK);
    }
}

/// An agent's TCP connection.
pub(crate) struct Tcp(TcpStream);

impl Tcp {
    pub(crate) fn connect(manager: SocketAddr) -> Tcp {
        let stream = TcpStream::connect(manager).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Tcp(stream)
    }

    /// A connection whose host takes little that its agent does not read.
    pub(crate) fn connect_with_receive_buffer(manager: SocketAddr, bytes: usize) -> Tcp {
        let socket = socket2::Socket::new(socket2::Domain::for_address(manager), socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.set_recv_buffer_size(bytes).unwrap();
        socket.connect(&manager.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Tcp(stream)
    }

    /// Ends the connection at once, as a host does that goes down.
    pub(crate) fn reset(self) {
        let socket = socket2::Socket::from(self.0);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        self.0.write_all(&framed(message)).unwrap();
    }

    /// Sends as much as the connection takes at once. The rest has to go first the next time.
    pub(crate) fn send_at_once(&mut self, bytes: &[u8]) -> usize {
        self.0.set_nonblocking(true).unwrap();
        let sent = match self.0.write(bytes) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        };
        self.0.set_nonblocking(false).unwrap();
        sent
    }

    /// Sends bytes that are framed already, however long that takes.
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// The same, where the manager may be gone.
    pub(crate) fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        let mut length = [0; FRAME_HEADER_BYTES];
        self.0.read_exact(&mut length).expect("an answer from the manager");
        let mut message = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut message).unwrap();
        message
    }

    /// Sends the start-up message and asserts the acknowledgement.
    pub(crate) fn start(&mut self, agent: &mut Agent) {
        self.send(&agent.seal(STARTUP));
        assert_eq!(agent.open(&self.receive()), ACK);
    }

    /// Asserts that the manager ended the connection.
    pub(crate) fn assert_ended(&mut self) {
        let mut byte = [0];
        match self.0.read(&mut byte) {
            Ok(0) => {}
            Ok(_) => panic!("the manager said something instead of ending the connection"),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
}

/// A message with its length in front.
pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    codec::frame(message, &mut frame);
    frame
}
