//! Sockets as the two programs want them, and what else they ask of the host about descriptors and cores.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::ptr;

use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::enter::errno;

/// How a UDP socket is made.
#[derive(Clone, Copy, Debug)]
pub struct UdpSettings {
    /// Where it is bound. The wildcard `::` also receives IPv4, with v4-mapped addresses.
    pub address: SocketAddr,
    /// Whether other sockets may share the address (`SO_REUSEPORT`): one for each shard.
    pub shared: bool,
    /// Bytes of the receive buffer asked for. More than `net.core.rmem_max` needs `CAP_NET_ADMIN`, and is cut otherwise.
    pub receive_buffer_bytes: usize,
}

/// A bound UDP socket that tells its drops with each datagram (`SO_RXQ_OVFL`).
///
/// # Errors
///
/// The kernel's, such as `EADDRINUSE`.
pub fn udp_socket(settings: &UdpSettings) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(settings.address), Type::DGRAM, Some(Protocol::UDP))?;
    share(&socket, settings.address, settings.shared)?;
    receive_buffer(&socket, settings.receive_buffer_bytes)?;
    set_option(&socket, libc::SO_RXQ_OVFL, 1)?;
    socket.bind(&settings.address.into())?;
    Ok(socket.into())
}

/// Gives a bound UDP socket that somebody else has made what [`udp_socket`] gives its own: drops told with each datagram, and
/// as much of the receive buffer as is allowed, if that is more than it has.
///
/// # Errors
///
/// The kernel's.
pub fn adopt_udp_socket(socket: &UdpSocket, receive_buffer_bytes: usize) -> io::Result<()> {
    let socket = SockRef::from(socket);
    // The kernel tells twice what it was asked for.
    if socket.recv_buffer_size()? / 2 < receive_buffer_bytes {
        self::receive_buffer(&socket, receive_buffer_bytes)?;
    }
    Ok(set_option(&socket, libc::SO_RXQ_OVFL, 1)?)
}

/// Gives a listener that somebody else has made what [`tcp_listener`] gives its own.
///
/// # Errors
///
/// The kernel's.
pub fn adopt_tcp_listener(listener: &std::net::TcpListener, backlog: u16) -> io::Result<()> {
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.listen(i32::from(backlog))
}

/// Bytes of a socket's receive buffer, as the kernel granted them (it counts its own overhead: twice what was asked).
///
/// # Errors
///
/// The kernel's, for what is no socket.
pub fn receive_buffer_bytes(socket: impl AsFd) -> Result<usize, Errno> {
    sockopt::socket_recv_buffer_size(socket)
}

/// How a TCP listener is made.
#[derive(Clone, Copy, Debug)]
pub struct TcpSettings {
    /// Where it is bound. The wildcard `::` also accepts IPv4, with v4-mapped addresses.
    pub address: SocketAddr,
    /// Whether other sockets may share the address (`SO_REUSEPORT`): one for each shard.
    pub shared: bool,
    /// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
    pub backlog: u16,
    /// Bytes of each connection's receive buffer; `None`: the kernel sizes it by itself.
    pub receive_buffer_bytes: Option<usize>,
}

/// A listening TCP socket. Its connections inherit `TCP_NODELAY`, `SO_KEEPALIVE` and the receive buffer.
///
/// # Errors
///
/// The kernel's, such as `EADDRINUSE`.
pub fn tcp_listener(settings: &TcpSettings) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(settings.address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    share(&socket, settings.address, settings.shared)?;
    if let Some(bytes) = settings.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&settings.address.into())?;
    socket.listen(i32::from(settings.backlog))?;
    Ok(socket.into())
}

/// A TCP socket to connect by [`Op::Connect`](crate::Op::Connect), bound to `from` (port 0: the kernel chooses it when
/// it connects, so that 60,000 connections to one peer share the ports).
///
/// # Errors
///
/// The kernel's, such as `EMFILE` or `EADDRNOTAVAIL`.
pub fn tcp_client(from: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(from), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if from.port() == 0 {
        set_option_at(&socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    }
    socket.bind(&from.into())?;
    Ok(socket.into())
}

/// A datagram socket connected to the unix socket at `path`: the queue socket of analysisd.
///
/// # Errors
///
/// The kernel's: `ENOENT` or `ECONNREFUSED` when nobody listens there.
pub fn unix_datagram(path: &Path, send_buffer_bytes: usize) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    sockopt::set_socket_send_buffer_size(&socket, send_buffer_bytes)?;
    Ok(socket)
}

/// How many datagrams a socket has dropped for want of room, ever; modulo 2^32 (`SO_MEMINFO`). Unlike `SO_RXQ_OVFL` it
/// needs no datagram to come with.
///
/// # Errors
///
/// The kernel's, for what is no socket.
pub fn kernel_drops(socket: impl AsFd) -> Result<u32, Errno> {
    /// `SK_MEMINFO_DROPS`, the last of the kernel's nine words.
    const DROPS: usize = 8;
    let mut words = [0_u32; DROPS + 1];
    let mut bytes = size_of_val(&words) as libc::socklen_t;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: `words` is writable for the `bytes` it is said to have, and both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            socket,
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            ptr::from_mut(&mut bytes),
        )
    };
    if result != 0 {
        return Err(errno(&io::Error::last_os_error()));
    }
    Ok(words[DROPS])
}

/// Lets a program choose, for each datagram, the socket of `member`'s `SO_REUSEPORT` group that gets it: the result is an
/// index in the order in which they were bound; one that no socket has leaves the choice to the kernel's hash. The program
/// sees the payload from byte 0. It is the group's, and replaces an earlier one.
///
/// # Errors
///
/// `EINVAL` for what is no program, or a socket outside a group.
pub fn select_in_group(member: impl AsFd, program: &[SockFilter]) -> Result<(), Errno> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    // A `SockFilter` is a `sock_filter` (`repr(transparent)`), and the kernel only reads it.
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    let (start, bytes) = (ptr::from_ref(&program).cast(), size_of_val(&program) as libc::socklen_t);
    let (socket, option) = (member.as_fd().as_raw_fd(), libc::SO_ATTACH_REUSEPORT_CBPF);
    // SAFETY: `program` has the kernel's layout and points to `length` instructions, which outlive the call: the kernel
    // copies them.
    let result = unsafe { libc::setsockopt(socket, libc::SOL_SOCKET, option, start, bytes) };
    if result == 0 { Ok(()) } else { Err(errno(&io::Error::last_os_error())) }
}

/// Raises the soft limit of open descriptors to the hard one. Returns the limit: what one ring's table can hold.
pub fn set_nofile_to_hard() -> u32 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        // A refusal leaves the soft limit, which is then what is returned.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    nofile()
}

/// The soft limit of open descriptors: what one ring's table can hold at most.
#[must_use]
pub fn nofile() -> u32 {
    getrlimit(Resource::Nofile).current.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX)
}

/// The cores that this thread may run on, ascending.
///
/// # Errors
///
/// The kernel's; none is known.
pub fn allowed_cores() -> Result<Vec<usize>, Errno> {
    let cores = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| cores.is_set(core)).collect())
}

/// Pins the calling thread to one core.
///
/// # Errors
///
/// `EINVAL` if there is no such core, or the thread may not run on it.
pub fn pin_thread(core: usize) -> Result<(), Errno> {
    if core >= CpuSet::MAX_CPU {
        return Err(Errno::INVAL);
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores)
}

fn share(socket: &Socket, address: SocketAddr, shared: bool) -> io::Result<()> {
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)
}

/// Asks for a receive buffer beyond `net.core.rmem_max` first, and then for what is allowed.
fn receive_buffer(socket: &Socket, bytes: usize) -> io::Result<()> {
    let asked = i32::try_from(bytes).unwrap_or(i32::MAX);
    match set_option(socket, libc::SO_RCVBUFFORCE, asked) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => socket.set_recv_buffer_size(bytes),
        Err(errno) => Err(errno.into()),
    }
}

fn set_option(socket: &Socket, option: i32, value: i32) -> Result<(), Errno> {
    set_option_at(socket, libc::SOL_SOCKET, option, value)
}

fn set_option_at(socket: &Socket, level: i32, option: i32, value: i32) -> Result<(), Errno> {
    let (start, bytes) = (ptr::from_ref(&value).cast(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: `value` is an integer of `bytes` bytes, as these options take, and lives until the call returns.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, start, bytes) };
    if result == 0 { Ok(()) } else { Err(errno(&io::Error::last_os_error())) }
}
