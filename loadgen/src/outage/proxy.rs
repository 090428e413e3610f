//! The network between agents and manager: UDP and TCP on one port, passed on byte for byte, until it is cut.
//!
//! While it is cut, datagrams vanish and streams stand still: nothing is read, so what an agent sends waits in its kernel, and a
//! new connection is taken and gets no answer. Nobody is told anything, as when a cable is pulled. Or everybody is told: connections
//! are reset, as by a firewall that was started anew.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};

use nix::libc::linger;
use nix::sys::socket::{setsockopt, sockopt};

/// What one turn reads of one stream.
const CHUNK_BYTES: usize = 64 << 10;
/// So that the network loses no datagram before it is cut: what it receives while the scene has its turn waits.
const RECEIVE_BYTES: usize = 4 << 20;
/// Tries to find a port that is free for both.
const PORT_TRIES: usize = 20;

#[derive(Debug)]
pub(super) struct Proxy {
    udp: UdpSocket,
    tcp: TcpListener,
    /// Where datagrams go, and where streams do.
    datagrams_to: SocketAddr,
    streams_to: SocketAddr,
    /// By the agent's address, the socket that the manager sees.
    flows: HashMap<SocketAddr, UdpSocket>,
    /// Taken while the network was cut: the manager has not heard of them.
    unheard: Vec<TcpStream>,
    pairs: Vec<Pair>,
    is_cut: bool,
    resets: bool,
    chunk: Box<[u8]>,
}

/// A connection of an agent, and ours to the manager for it.
#[derive(Debug)]
struct Pair {
    agent: TcpStream,
    manager: TcpStream,
    to_manager: Vec<u8>,
    to_agent: Vec<u8>,
}

impl Proxy {
    pub(super) fn bind(datagrams_to: SocketAddr, streams_to: SocketAddr) -> io::Result<Proxy> {
        let (udp, tcp) = bind_both()?;
        udp.set_nonblocking(true)?;
        // The kernel gives what it may.
        let _ = setsockopt(&udp, sockopt::RcvBuf, &RECEIVE_BYTES);
        tcp.set_nonblocking(true)?;
        Ok(Proxy {
            udp,
            tcp,
            datagrams_to,
            streams_to,
            flows: HashMap::new(),
            unheard: Vec::new(),
            pairs: Vec::new(),
            is_cut: false,
            resets: false,
            chunk: vec![0; CHUNK_BYTES].into(),
        })
    }

    /// Where agents find it.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    pub(super) fn cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// While it resets, streams are reset and datagrams vanish.
    pub(super) fn reset(&mut self, resets: bool) {
        self.resets = resets;
    }

    /// Passes on what has come.
    pub(super) fn turn(&mut self) -> io::Result<()> {
        self.pass_datagrams()?;
        self.accept()?;
        if self.resets && !self.is_cut {
            self.unheard.drain(..).for_each(reset);
            for Pair { agent, manager, .. } in self.pairs.drain(..) {
                reset(agent);
                reset(manager);
            }
        } else if !self.is_cut {
            for agent in std::mem::take(&mut self.unheard) {
                // A manager that is not there refuses, and so does the network in its name.
                if let Ok(pair) = Pair::new(agent, self.streams_to) {
                    self.pairs.push(pair);
                }
            }
            self.pairs.retain_mut(|pair| pair.pass(&mut self.chunk).is_ok());
        }
        Ok(())
    }

    fn pass_datagrams(&mut self) -> io::Result<()> {
        while let Some((bytes, from)) = some(self.udp.recv_from(&mut self.chunk))? {
            if self.is_cut || self.resets {
                continue;
            }
            if !self.flows.contains_key(&from) {
                let flow = UdpSocket::bind("127.0.0.1:0")?;
                flow.connect(self.datagrams_to)?;
                flow.set_nonblocking(true)?;
                self.flows.insert(from, flow);
            }
            // Refused if the manager is not there: lost, as on any network.
            let _ = self.flows[&from].send(&self.chunk[..bytes]);
        }
        for (agent, flow) in &self.flows {
            while let Some(bytes) = some(flow.recv(&mut self.chunk))? {
                if !self.is_cut && !self.resets {
                    let _ = self.udp.send_to(&self.chunk[..bytes], agent);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        while let Some((agent, _)) = some(self.tcp.accept())? {
            agent.set_nonblocking(true)?;
            agent.set_nodelay(true)?;
            self.unheard.push(agent);
        }
        Ok(())
    }
}

impl Pair {
    fn new(agent: TcpStream, manager: SocketAddr) -> io::Result<Pair> {
        let manager = TcpStream::connect(manager)?;
        manager.set_nonblocking(true)?;
        manager.set_nodelay(true)?;
        Ok(Pair { agent, manager, to_manager: Vec::new(), to_agent: Vec::new() })
    }

    /// Passes on what has come from either side. An error ends both.
    fn pass(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        let up = pass(&mut self.agent, &mut self.manager, &mut self.to_manager, chunk);
        let down = pass(&mut self.manager, &mut self.agent, &mut self.to_agent, chunk);
        up.and(down).inspect_err(|_| {
            // Each side reads what was passed on before, and then the end.
            let _ = self.agent.shutdown(Shutdown::Write);
            let _ = self.manager.shutdown(Shutdown::Write);
        })
    }
}

/// Passes on what there is, as far as `to` takes it.
fn pass(from: &mut TcpStream, to: &mut TcpStream, waiting: &mut Vec<u8>, chunk: &mut [u8]) -> io::Result<()> {
    loop {
        while !waiting.is_empty() {
            match to.write(waiting) {
                Ok(bytes) => drop(waiting.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match from.read(chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => waiting.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// `None` if there is nothing now. What the kernel tells of an earlier datagram that was refused is nothing as well.
fn some<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Closes a stream so that the other end is told that it was not meant to end.
fn reset(stream: TcpStream) {
    // If it can't be had, the other end is told of an end.
    let _ = setsockopt(&stream, sockopt::Linger, &linger { l_onoff: 1, l_linger: 0 });
    drop(stream);
}

/// UDP and TCP on one port that the kernel chooses.
fn bind_both() -> io::Result<(UdpSocket, TcpListener)> {
    let mut last = None;
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        match UdpSocket::bind(tcp.local_addr()?) {
            Ok(udp) => return Ok((udp, tcp)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.expect("at least one try was made"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy_to(manager: SocketAddr) -> Proxy {
        Proxy::bind(manager, manager).unwrap()
    }

    /// Turns until `done` says so.
    fn turn_until<T>(proxy: &mut Proxy, mut done: impl FnMut() -> Option<T>) -> T {
        loop {
            proxy.turn().unwrap();
            if let Some(value) = done() {
                return value;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn datagrams_pass_both_ways_and_vanish_when_cut() {
        let manager = UdpSocket::bind("127.0.0.1:0").unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut proxy = proxy_to(manager.local_addr().unwrap());
        let agent = UdpSocket::bind("127.0.0.1:0").unwrap();
        agent.set_nonblocking(true).unwrap();
        agent.connect(proxy.address().unwrap()).unwrap();
        let mut buffer = [0; 16];
        agent.send(b"one").unwrap();
        let (bytes, from) = turn_until(&mut proxy, || manager.recv_from(&mut buffer).ok());
        assert_eq!(bytes, 3);
        manager.send_to(b"answer", from).unwrap();
        assert_eq!(turn_until(&mut proxy, || agent.recv(&mut buffer).ok()), 6);
        proxy.cut(true);
        agent.send(b"lost").unwrap();
        // Loopback has delivered it to the proxy when send returns.
        proxy.turn().unwrap();
        proxy.cut(false);
        agent.send(b"three").unwrap();
        assert_eq!(turn_until(&mut proxy, || manager.recv(&mut buffer).ok()), 5);
        assert_eq!(&buffer[..5], b"three");
    }

    #[test]
    fn a_stream_stands_still_when_cut_and_goes_on_after_it() {
        let manager = TcpListener::bind("127.0.0.1:0").unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut proxy = proxy_to(manager.local_addr().unwrap());
        let mut agent = TcpStream::connect(proxy.address().unwrap()).unwrap();
        let (mut accepted, _) = turn_until(&mut proxy, || manager.accept().ok());
        accepted.set_nonblocking(true).unwrap();
        proxy.cut(true);
        agent.write_all(b"while cut").unwrap();
        let mut buffer = [0; 16];
        proxy.turn().unwrap();
        assert_eq!(accepted.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
        let late = TcpStream::connect(proxy.address().unwrap()).unwrap();
        proxy.turn().unwrap();
        assert_eq!(
            manager.accept().unwrap_err().kind(),
            ErrorKind::WouldBlock,
            "the manager hears of nobody"
        );
        proxy.cut(false);
        assert_eq!(turn_until(&mut proxy, || accepted.read(&mut buffer).ok()), 9);
        turn_until(&mut proxy, || manager.accept().ok());
        drop((agent, late));
        assert_eq!(turn_until(&mut proxy, || accepted.read(&mut buffer).ok()), 0, "the end is passed on");
    }

    #[test]
    fn a_reset_tells_both_ends_and_each_that_comes() {
        let manager = TcpListener::bind("127.0.0.1:0").unwrap();
        manager.set_nonblocking(true).unwrap();
        let mut proxy = proxy_to(manager.local_addr().unwrap());
        let mut agent = TcpStream::connect(proxy.address().unwrap()).unwrap();
        let (mut accepted, _) = turn_until(&mut proxy, || manager.accept().ok());
        proxy.reset(true);
        let mut late = TcpStream::connect(proxy.address().unwrap()).unwrap();
        proxy.turn().unwrap();
        let mut buffer = [0; 16];
        for stream in [&mut agent, &mut accepted, &mut late] {
            assert_eq!(stream.read(&mut buffer).unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        proxy.reset(false);
        let _again = TcpStream::connect(proxy.address().unwrap()).unwrap();
        turn_until(&mut proxy, || manager.accept().ok());
    }
}
