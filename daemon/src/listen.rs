//! The sockets of the agent channel: for each shard and address one UDP socket and one TCP listener, all on one port.

use std::net::{SocketAddr, TcpListener, UdpSocket};

/// What one shard listens on for one address of `listen.addresses`.
///
/// Both sockets are bound, non-blocking, and in the SO_REUSEPORT group of their address; the listener listens.
/// The UDP socket reports the kernel's drops with each datagram (SO_RXQ_OVFL).
#[derive(Debug)]
pub struct Listener {
    /// What both are bound to: the port is never 0.
    pub address: SocketAddr,
    /// Datagrams.
    pub udp: UdpSocket,
    /// Connections.
    pub tcp: TcpListener,
}
