//! Sockets that the service manager has bound before it started us: they keep what arrives while ringmaster restarts.
//!
//! Each shard needs a socket of its own for each address and transport, in one SO_REUSEPORT group: so a unit names each address
//! as often as there are shards, with `ReusePort=yes`. One more or less is refused, since datagrams that come to a socket which
//! no shard reads would be lost in silence.

use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{Socket, Type};

use crate::listen::Transport;

/// The sockets that nobody has taken yet.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<InheritedSocket>,
}

#[derive(Debug)]
struct InheritedSocket {
    transport: Transport,
    address: SocketAddr,
    socket: Socket,
}

impl Inherited {
    /// What the environment says that this process was handed (`LISTEN_PID`, `LISTEN_FDS`); nothing, as a rule.
    ///
    /// # Errors
    /// When it can't be what it is said to be.
    pub fn take() -> Result<Inherited, InheritedError> {
        let numbers = sd_notify::listen_fds().map_err(InheritedError::Environment)?;
        if numbers.len() == 0 {
            return Ok(Inherited::default());
        }
        // Through a handle of our own process: a bare number can be made a descriptor by unsafe code only.
        let own = pidfd_open(getpid(), PidfdFlags::empty()).map_err(handed_over)?;
        let descriptors = numbers
            .map(|number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty()).map_err(handed_over))
            .collect::<Result<Vec<OwnedFd>, _>>()?;
        Inherited::of(descriptors)
    }

    fn of(descriptors: Vec<OwnedFd>) -> Result<Inherited, InheritedError> {
        let known = |descriptor: OwnedFd| {
            let socket = Socket::from(descriptor);
            let transport = match socket.r#type() {
                Ok(Type::DGRAM) => Transport::Udp,
                Ok(Type::STREAM) if socket.is_listener().unwrap_or(false) => Transport::Tcp,
                Ok(_) | Err(_) => return Err(InheritedError::Kind),
            };
            let local = socket.local_addr().map_err(InheritedError::Environment)?;
            let address = local.as_socket().ok_or(InheritedError::Kind)?;
            // io_uring would fail where it has to wait.
            socket.set_nonblocking(false).map_err(InheritedError::Environment)?;
            Ok(InheritedSocket { transport, address, socket })
        };
        Ok(Inherited { sockets: descriptors.into_iter().map(known).collect::<Result<_, _>>()? })
    }

    /// That each address and transport has one socket for each shard.
    ///
    /// # Errors
    /// When one has more, or fewer.
    pub fn each_has(&self, shards: usize) -> Result<(), InheritedError> {
        for InheritedSocket { transport, address, .. } in &self.sockets {
            let same = |other: &&InheritedSocket| (other.transport, other.address) == (*transport, *address);
            let count = self.sockets.iter().filter(same).count();
            if count != shards {
                return Err(InheritedError::Count {
                    transport: *transport,
                    address: *address,
                    count,
                    shards,
                });
            }
        }
        Ok(())
    }

    /// Takes the UDP sockets of an address, in the order in which they were bound; none, as a rule.
    pub fn udp(&mut self, address: SocketAddr) -> Vec<UdpSocket> {
        self.all_of(Transport::Udp, address).map(UdpSocket::from).collect()
    }

    /// Takes the listeners of an address.
    pub fn tcp(&mut self, address: SocketAddr) -> Vec<TcpListener> {
        self.all_of(Transport::Tcp, address).map(TcpListener::from).collect()
    }

    /// That all of them were taken.
    ///
    /// # Errors
    /// When one is for an address that is not listened on.
    pub fn all_taken(&self) -> Result<(), InheritedError> {
        match self.sockets.first() {
            None => Ok(()),
            Some(left) => Err(InheritedError::Unwanted { transport: left.transport, address: left.address }),
        }
    }

    fn all_of(&mut self, transport: Transport, address: SocketAddr) -> impl Iterator<Item = Socket> {
        let is_one =
            move |socket: &mut InheritedSocket| socket.transport == transport && socket.address == address;
        self.sockets.extract_if(.., is_one).map(|found| found.socket)
    }
}

fn handed_over(errno: rustix::io::Errno) -> InheritedError {
    InheritedError::Environment(errno.into())
}

/// Why handed-over sockets can't be used. Displays as one line.
#[derive(Debug)]
pub enum InheritedError {
    /// Not one for each shard.
    Count {
        /// UDP or TCP.
        transport: Transport,
        /// Of which address.
        address: SocketAddr,
        /// How many there are.
        count: usize,
        /// How many there should be.
        shards: usize,
    },
    /// The environment does not say what is there.
    Environment(io::Error),
    /// Neither a UDP socket nor a TCP listener.
    Kind,
    /// For an address that is not listened on.
    Unwanted {
        /// UDP or TCP.
        transport: Transport,
        /// Which.
        address: SocketAddr,
    },
}

impl std::error::Error for InheritedError {}

impl fmt::Display for InheritedError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InheritedError::Count { transport, address, count, shards } => write!(
                formatter,
                "the service manager handed over {count} of {transport} for {address}, and there are {shards} shards: \
                 name the address {shards} times in the .socket unit, with ReusePort=yes, or set shards.cores"
            ),
            InheritedError::Environment(error) => write!(
                formatter,
                "the sockets that LISTEN_FDS announces can't be taken over ({error}): start without the .socket unit, or \
                 allow pidfd_getfd"
            ),
            InheritedError::Kind => write!(
                formatter,
                "the service manager handed over a socket that is neither UDP nor a TCP listener: use ListenDatagram= and \
                 ListenStream= with address and port"
            ),
            InheritedError::Unwanted { transport, address } => write!(
                formatter,
                "the service manager handed over a {transport} socket for {address}, which is not listened on: add it to \
                 listen.addresses, or take it out of the .socket unit"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    fn inherited(udp: &[&UdpSocket], tcp: &[&TcpListener]) -> Inherited {
        let udp = udp.iter().map(|socket| OwnedFd::from(socket.try_clone().unwrap()));
        let tcp = tcp.iter().map(|listener| OwnedFd::from(listener.try_clone().unwrap()));
        Inherited::of(udp.chain(tcp).collect()).unwrap()
    }

    #[test]
    fn each_socket_goes_to_its_address_and_transport() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        let mut handed = inherited(&[&udp], &[&tcp]);
        assert!(handed.tcp(at_udp).is_empty() && handed.udp(at_tcp).is_empty());
        assert_eq!(handed.udp(at_udp)[0].local_addr().unwrap(), at_udp);
        let left = handed.all_taken().unwrap_err().to_string();
        assert!(left.contains(&format!("a TCP socket for {at_tcp}, which is not listened on")), "{left}");
        assert_eq!(handed.tcp(at_tcp).len(), 1);
        handed.all_taken().unwrap();
        assert!(handed.tcp(at_tcp).is_empty(), "it is taken once");
    }

    #[test]
    fn there_is_one_for_each_shard_or_none() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        inherited(&[], &[]).each_has(2).unwrap();
        inherited(&[&udp, &udp], &[]).each_has(2).unwrap();
        let refusal = inherited(&[&udp], &[]).each_has(2).unwrap_err().to_string();
        let expected = format!("1 of UDP for {address}, and there are 2 shards: name the address 2 times");
        assert!(refusal.contains(&expected), "{refusal}");
    }

    #[test]
    fn what_is_no_socket_of_ours_is_refused() {
        let other = OwnedFd::from(UnixDatagram::unbound().unwrap());
        assert!(matches!(Inherited::of(vec![other]), Err(InheritedError::Kind)));
        let connected = Socket::new(socket2::Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(matches!(Inherited::of(vec![OwnedFd::from(connected)]), Err(InheritedError::Kind)));
    }
}
