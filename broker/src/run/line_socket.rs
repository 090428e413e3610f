//! A line's own socket to the manager, which so sees one source an agent.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Event;
use crate::server::GiveOutcome;
use crate::wire::DATAGRAM_BYTES_MAX;

/// A UDP socket connected to the manager. What comes back is an event.
#[derive(Debug)]
pub(super) struct LineSocket {
    socket: Rc<UdpSocket>,
    reader: JoinHandle<()>,
}

impl LineSocket {
    /// Opens it; its events have this number.
    pub(super) fn open(
        manager: SocketAddr,
        number: u64,
        events: &mpsc::Sender<Event>,
    ) -> io::Result<LineSocket> {
        let any: SocketAddr =
            if manager.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(manager)?;
        socket.set_nonblocking(true)?;
        let socket = Rc::new(UdpSocket::from_std(socket)?);
        let reader = tokio_uring::spawn(read(Rc::clone(&socket), number, events.clone()));
        Ok(LineSocket { socket, reader })
    }

    /// Sends a datagram, without waiting.
    pub(super) fn send(&self, bytes: &[u8]) -> GiveOutcome {
        // Not by readiness, which the runtime learns of only when it is polled: a fresh socket would not be writable.
        match rustix::net::send(&self.socket, bytes, rustix::net::SendFlags::DONTWAIT) {
            Ok(_) => GiveOutcome::Sent,
            Err(rustix::io::Errno::CONNREFUSED) => GiveOutcome::Refused,
            Err(rustix::io::Errno::MSGSIZE | rustix::io::Errno::INVAL) => GiveOutcome::Never,
            Err(_) => GiveOutcome::Later,
        }
    }
}

impl Drop for LineSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(socket: Rc<UdpSocket>, number: u64, events: mpsc::Sender<Event>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let event = match socket.recv(&mut buffer).await {
            Ok(bytes) => Event::FromManager(number, buffer[..bytes].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Event::ManagerRefused,
            // A host or network that is not reachable now may be later, and says so with each datagram only.
            Err(_) => continue,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
