//! The sockets that are listened on: for each shard and listener a UDP socket, a TCP listener, or both on one port.

mod steering;

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};
use uring::{
    Errno,
    sockets::{TcpSettings, UdpSettings},
};

use crate::service::Inherited;
use crate::settings::{self, Listen, ListenerKind, Settings, Transports};

/// What one shard listens on for one listener of the settings.
///
/// The sockets are bound and in the SO_REUSEPORT group of their address; the TCP one listens. Neither is
/// non-blocking: io_uring would fail where it has to wait.
/// The UDP socket reports the kernel's drops with each datagram (SO_RXQ_OVFL).
#[derive(Debug)]
pub struct Listener {
    /// What is spoken there, and who may.
    pub settings: settings::Listener,
    /// What both are bound to: the port is never 0.
    pub address: SocketAddr,
    /// Datagrams.
    pub udp: Option<UdpSocket>,
    /// Connections.
    pub tcp: Option<TcpListener>,
}

impl Listener {
    /// A listener for agents over both transports, without rules.
    pub fn secure(address: SocketAddr, udp: UdpSocket, tcp: TcpListener) -> Listener {
        let settings = settings::Listener::secure(address, "default");
        Listener { settings, address, udp: Some(udp), tcp: Some(tcp) }
    }
}

/// The sockets of every shard, and what was done differently from what the settings say.
#[derive(Debug)]
pub struct Bound {
    /// For each shard its listeners, in the order of [`Settings::listeners`].
    pub shards: Vec<Vec<Listener>>,
    /// One line each, for the log.
    pub remarks: Vec<String>,
}

impl Bound {
    /// What was bound, in the order of [`Settings::listeners`]: no port is 0.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners().map(|listener| listener.address).collect()
    }

    /// The listeners of one shard; those of the others have the same addresses.
    pub fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.shards.first().into_iter().flatten()
    }
}

/// Binds every listener for every shard, before any of them runs: what can't be had is known before anything starts.
///
/// # Errors
/// When an address can't be bound.
pub fn bind(settings: &Settings, shards: usize) -> Result<Bound, BindError> {
    bind_beside(settings, shards, &mut Inherited::default())
}

/// The same, but for what the service manager has bound already: that is taken over.
///
/// # Errors
/// When an address can't be bound.
pub fn bind_beside(
    settings: &Settings,
    shards: usize,
    inherited: &mut Inherited,
) -> Result<Bound, BindError> {
    let mut bound = Bound { shards: (0..shards).map(|_| Vec::new()).collect(), remarks: Vec::new() };
    let wanted = settings.listeners();
    for listener in wanted {
        let transports = uncovered(listener, wanted, &mut bound.remarks);
        if transports.udp || transports.tcp {
            bind_listener(&settings.listen, listener, transports, inherited, &mut bound)?;
        }
    }
    bound.remarks.extend(receive_buffer_remark(&bound, &settings.listen));
    Ok(bound)
}

/// The transports of a listener that no wider one takes: `[::]:1514` receives what is sent to `127.0.0.1:1514`. Where two
/// listeners meet, their rules agree: the settings make sure of that.
fn uncovered(
    listener: &settings::Listener,
    wanted: &[settings::Listener],
    remarks: &mut Vec<String>,
) -> Transports {
    let mut left = listener.transports;
    for wider in wanted.iter().filter(|wider| covers(wider.address, listener.address)) {
        let taken =
            Transports { udp: left.udp && wider.transports.udp, tcp: left.tcp && wider.transports.tcp };
        if taken.udp || taken.tcp {
            remarks.push(format!("{} takes what comes to {} over {taken}", wider.address, listener.address));
        }
        left = Transports { udp: left.udp && !taken.udp, tcp: left.tcp && !taken.tcp };
    }
    left
}

fn bind_listener(
    settings: &Listen,
    wanted: &settings::Listener,
    transports: Transports,
    inherited: &mut Inherited,
    bound: &mut Bound,
) -> Result<(), BindError> {
    let by = |error: BindError| BindError { origin: wanted.origin.clone(), ..error };
    let handed = Handed::take(wanted.address, transports, settings, inherited).map_err(by)?;
    let ours = Transports {
        udp: transports.udp && handed.udp.is_empty(),
        tcp: transports.tcp && handed.tcp.is_empty(),
    };
    let Claim { address, probes } = match claim(wanted.address, ours) {
        Err(error) if wanted.address.is_ipv6() && wanted.address.ip().is_unspecified() && error.no_ipv6() => {
            let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.address.port()));
            bound.remarks.push(format!("IPv6 is off: {instead} takes the place of {}", wanted.address));
            claim(instead, ours).map_err(by)?
        }
        claimed => claimed.map_err(by)?,
    };
    // Closed only now, so that port 0 gave both protocols one port that nobody else has.
    drop(probes);
    let Handed { udp, tcp } = handed;
    let (mut udp, mut tcp) = (udp.into_iter(), tcp.into_iter());
    for listeners in &mut bound.shards {
        let made = sockets(address, ours, settings, wanted).map_err(by)?;
        listeners.push(Listener { udp: made.udp.or(udp.next()), tcp: made.tcp.or(tcp.next()), ..made });
    }
    if wanted.kind == ListenerKind::Secure && transports.udp {
        bound.remarks.extend(steer(bound));
    }
    Ok(())
}

/// What the service manager has bound of one listener: a socket for each shard, or none.
struct Handed {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl Handed {
    fn take(
        address: SocketAddr,
        transports: Transports,
        settings: &Listen,
        inherited: &mut Inherited,
    ) -> Result<Handed, BindError> {
        let udp = if transports.udp { inherited.udp(address) } else { Vec::new() };
        for socket in &udp {
            uring::sockets::adopt_udp_socket(socket, settings.receive_buffer_bytes as usize / 2)
                .map_err(|error| BindError::new(address, Transport::Udp, &error))?;
        }
        let tcp = if transports.tcp { inherited.tcp(address) } else { Vec::new() };
        for listener in &tcp {
            uring::sockets::adopt_tcp_listener(listener, settings.backlog)
                .map_err(|error| BindError::new(address, Transport::Tcp, &error))?;
        }
        Ok(Handed { udp, tcp })
    }
}

/// Whether a socket bound to `wide` receives what is sent to `address`: `[::]` takes IPv4 too.
fn covers(wide: SocketAddr, address: SocketAddr) -> bool {
    wide != address
        && wide.port() == address.port()
        && wide.port() != 0
        && wide.ip().is_unspecified()
        && (wide.is_ipv6() || address.is_ipv4())
}

/// An address that nobody else uses, as sockets that prove it.
struct Claim {
    address: SocketAddr,
    probes: Vec<Socket>,
}

/// Binds without SO_REUSEPORT: that fails if any other program has the address, where joining its group would silently
/// share its agents. Port 0 is tried until one port is free in all that is wanted. What the service manager has bound is
/// claimed by nobody else.
fn claim(wanted: SocketAddr, transports: Transports) -> Result<Claim, BindError> {
    if !transports.udp && !transports.tcp {
        return Ok(Claim { address: wanted, probes: Vec::new() });
    }
    let both = transports.udp && transports.tcp;
    let mut tries_left = if wanted.port() == 0 && both { PORT_TRIES_MAX } else { 1 };
    let first = if transports.udp { Transport::Udp } else { Transport::Tcp };
    loop {
        tries_left -= 1;
        let probed = probe(wanted, first)?;
        let local = probed.local_addr().map_err(|error| BindError::new(wanted, first, &error))?;
        let address = local.as_socket().expect("an internet socket has an internet address");
        if !both {
            return Ok(Claim { address, probes: vec![probed] });
        }
        match probe(address, Transport::Tcp) {
            Ok(tcp) => return Ok(Claim { address, probes: vec![probed, tcp] }),
            Err(_) if tries_left > 0 => {}
            Err(error) => return Err(error),
        }
    }
}

/// How many ports the kernel may offer until one is free in both protocols.
const PORT_TRIES_MAX: u32 = 64;

fn probe(address: SocketAddr, transport: Transport) -> Result<Socket, BindError> {
    let bind = || {
        let socket = match transport {
            Transport::Tcp => Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?,
            Transport::Udp => Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?,
        };
        if address.is_ipv6() && address.ip().is_unspecified() {
            socket.set_only_v6(false)?;
        }
        if transport == Transport::Tcp {
            // Connections of an earlier run that linger in TIME_WAIT must not keep the port.
            socket.set_reuse_address(true)?;
        }
        socket.bind(&address.into())?;
        Ok(socket)
    };
    bind().map_err(|error| BindError::new(address, transport, &error))
}

fn sockets(
    address: SocketAddr,
    transports: Transports,
    settings: &Listen,
    wanted: &settings::Listener,
) -> Result<Listener, BindError> {
    let udp = transports.udp.then(|| {
        uring::sockets::udp_socket(&UdpSettings {
            address,
            shared: true,
            // The kernel doubles what it is asked for, to make room for its own bookkeeping.
            receive_buffer_bytes: settings.receive_buffer_bytes as usize / 2,
        })
    });
    let tcp = transports.tcp.then(|| {
        uring::sockets::tcp_listener(&TcpSettings {
            address,
            shared: true,
            backlog: settings.backlog,
            receive_buffer_bytes: None,
        })
    });
    Ok(Listener {
        settings: wanted.clone(),
        address,
        udp: udp.transpose().map_err(|error| BindError::new(address, Transport::Udp, &error))?,
        tcp: tcp.transpose().map_err(|error| BindError::new(address, Transport::Tcp, &error))?,
    })
}

/// Brings each agent's datagrams to one shard, on the address that was bound last.
fn steer(bound: &Bound) -> Option<String> {
    let shards = u32::try_from(bound.shards.len()).expect("there are few shards");
    if shards < 2 {
        return None;
    }
    let Listener { address, udp, .. } = bound.shards.first()?.last()?;
    let errno = steering::steer(udp.as_ref()?, shards).err()?;
    Some(format!(
        "the kernel does not steer agents to shards ({errno}): datagrams to {address} are spread by their ports"
    ))
}

fn receive_buffer_remark(bound: &Bound, settings: &Listen) -> Option<String> {
    let udp = bound.listeners().find_map(|listener| listener.udp.as_ref())?;
    let bytes = uring::sockets::receive_buffer_bytes(udp).ok()?;
    let wanted = settings.receive_buffer_bytes as usize;
    (bytes < wanted / 2 * 2).then(|| {
        format!(
            "the kernel gives each UDP socket {bytes} bytes instead of listen.receive_buffer_bytes = {wanted}: \
             raise net.core.rmem_max, or give ringmaster CAP_NET_ADMIN"
        )
    })
}

/// Which of the two sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        })
    }
}

/// Why an address can't be listened on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BindError {
    /// Which address.
    pub address: SocketAddr,
    /// Which line of the settings asks for it; empty if that is not known.
    pub origin: String,
    /// Which socket.
    pub transport: Transport,
    /// What the kernel said.
    pub kind: io::ErrorKind,
    errno: i32,
}

impl BindError {
    fn new(address: SocketAddr, transport: Transport, error: &io::Error) -> BindError {
        let errno = error.raw_os_error().unwrap_or(0);
        BindError { address, origin: String::new(), transport, kind: error.kind(), errno }
    }

    fn no_ipv6(&self) -> bool {
        [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL].iter().any(|errno| errno.raw_os_error() == self.errno)
    }
}

impl std::error::Error for BindError {}

impl fmt::Display for BindError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "can't listen on {} ({}): ", self.address, self.transport)?;
        match Errno::from_raw_os_error(self.errno) {
            Errno::ADDRINUSE => write!(
                formatter,
                "another program has it (`ss -lntup` says which); stop that one, or change listen.addresses or --listen"
            ),
            Errno::ADDRNOTAVAIL => {
                write!(
                    formatter,
                    "no interface of this host has it; use [::] for all, or change listen.addresses"
                )
            }
            Errno::ACCESS => {
                write!(formatter, "ports below 1024 need CAP_NET_BIND_SERVICE; give it, or use another port")
            }
            Errno::AFNOSUPPORT => {
                write!(
                    formatter,
                    "IPv6 is off on this host; turn it on, or use an IPv4 address in listen.addresses"
                )
            }
            Errno::MFILE | Errno::NFILE => {
                write!(formatter, "no descriptor is left; raise LimitNOFILE (ulimit -n)")
            }
            _ => write!(formatter, "{}", io::Error::from_raw_os_error(self.errno)),
        }?;
        if self.origin.is_empty() {
            Ok(())
        } else {
            write!(formatter, "; it is asked for by: {}", self.origin)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(addresses: &[&str]) -> Settings {
        let mut settings = Settings::default();
        settings.listen.addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        settings
    }

    #[test]
    fn port_zero_is_one_port_for_both_protocols_and_all_shards() {
        let bound = bind(&settings(&["127.0.0.1:0"]), 3).unwrap();
        let address = bound.addresses()[0];
        assert_ne!(address.port(), 0);
        assert_eq!(bound.shards.len(), 3);
        for listener in bound.shards.iter().flatten() {
            assert_eq!(listener.udp.as_ref().unwrap().local_addr().unwrap(), address);
            assert_eq!(listener.tcp.as_ref().unwrap().local_addr().unwrap(), address);
        }
    }

    #[test]
    fn an_agent_comes_to_the_shard_of_its_number() {
        let bound = bind(&settings(&["127.0.0.1:0", "127.0.0.2:0"]), 2).unwrap();
        assert_eq!(bound.remarks.iter().find(|remark| remark.contains("steer")), None);
        for (index, address) in bound.addresses().into_iter().enumerate() {
            for agent in 1..=8 {
                let text = format!("!{agent:03}!:ciphertext");
                UdpSocket::bind("127.0.0.1:0").unwrap().send_to(text.as_bytes(), address).unwrap();
                let udp = bound.shards[agent % 2][index].udp.as_ref().unwrap();
                udp.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
                let mut buffer = [0; 64];
                let bytes = udp.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..bytes], text.as_bytes());
            }
        }
    }

    #[test]
    fn an_address_in_use_is_refused_even_by_a_group_that_could_be_joined() {
        let first = bind(&settings(&["127.0.0.1:0"]), 1).unwrap();
        let address = first.addresses()[0].to_string();
        let error = bind(&settings(&[&address]), 1).unwrap_err();
        assert_eq!((error.transport, error.kind), (Transport::Udp, io::ErrorKind::AddrInUse));
        assert!(
            error
                .to_string()
                .starts_with(&format!("can't listen on {address} (UDP): another program has it"))
        );

        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(&settings(&[&taken.local_addr().unwrap().to_string()]), 1).unwrap_err();
        assert_eq!((error.transport, error.kind), (Transport::Tcp, io::ErrorKind::AddrInUse));
    }

    #[test]
    fn an_address_of_another_host_is_refused() {
        let error = bind(&settings(&["192.0.2.1:0"]), 1).unwrap_err();
        assert_eq!(error.kind, io::ErrorKind::AddrNotAvailable);
        assert!(error.to_string().contains("no interface of this host has it"), "{error}");
    }

    #[test]
    fn what_a_wider_address_takes_is_not_bound_twice() {
        let check = |wide: &str, address: &str, expected: bool| {
            assert_eq!(covers(wide.parse().unwrap(), address.parse().unwrap()), expected, "{wide} {address}");
        };
        check("[::]:1514", "0.0.0.0:1514", true);
        check("[::]:1514", "127.0.0.1:1514", true);
        check("[::]:1514", "[::1]:1514", true);
        check("0.0.0.0:1514", "127.0.0.1:1514", true);
        check("0.0.0.0:1514", "[::1]:1514", false);
        check("0.0.0.0:1514", "[::]:1514", false);
        check("[::]:1514", "127.0.0.1:1515", false);
        check("[::]:1514", "[::]:1514", false);
        check("[::]:0", "127.0.0.1:0", false);
    }
}
