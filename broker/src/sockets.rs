//! The sockets at the manager's port, as the kernel shows them: by sock_diag, or from `/proc/net/udp` where that is not to be had.
//!
//! The file lists every socket of the host, and the server has one for each agent: with thousands it takes a tenth of a second to
//! read. sock_diag tells of one port, within a fraction of a millisecond.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};

use crate::health::SocketReading;

/// How long the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks the kernel.
#[derive(Debug)]
pub struct SocketTable {
    diag: Option<OwnedFd>,
    answer: Vec<u8>,
}

impl SocketTable {
    /// By sock_diag, if the kernel has it.
    pub fn open() -> SocketTable {
        let open = || {
            let (family, kind) = (AddressFamily::NETLINK, SocketType::DGRAM);
            let diag = socket_with(family, kind, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
            sockopt::set_socket_timeout(&diag, sockopt::Timeout::Recv, Some(PATIENCE))?;
            Ok::<_, rustix::io::Errno>(diag)
        };
        SocketTable { diag: open().ok(), answer: vec![0; 64 << 10] }
    }

    /// The sockets that a datagram to `manager` comes to.
    pub fn at(&mut self, manager: SocketAddr) -> Vec<SocketReading> {
        if let Some(diag) = &self.diag {
            if let Some(readings) = ask(diag, manager, &mut self.answer) {
                return readings;
            }
            // A kernel without the module has it in no later moment either.
            self.diag = None;
        }
        let table = |name| fs::read_to_string(name).unwrap_or_default();
        sockets_at(manager, &table("/proc/net/udp"), &table("/proc/net/udp6"))
    }
}

/// Both families' sockets; `None` if the kernel does not answer as it should.
fn ask(diag: &OwnedFd, manager: SocketAddr, answer: &mut [u8]) -> Option<Vec<SocketReading>> {
    let mut best = (u8::MAX, Vec::new());
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        let family = family.as_raw() as u8;
        send(diag, &diag_request(family, manager.port()), SendFlags::empty()).ok()?;
        loop {
            let (_, bytes) = recv(diag, &mut *answer, RecvFlags::empty()).ok()?;
            let part = parse_diag(answer.get(..bytes)?)?;
            part.rows.iter().for_each(|row| row.collect(manager, &mut best));
            if part.is_last {
                break;
            }
        }
    }
    Some(best.1)
}

/// Bytes of a netlink message's header, of `inet_diag_msg`, and of an attribute's header.
const NETLINK_HEADER_BYTES: usize = 16;
const DIAG_MESSAGE_BYTES: usize = 72;
const ATTRIBUTE_HEADER_BYTES: usize = 4;

/// Numbers of linux/netlink.h and linux/inet_diag.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const IPPROTO_UDP: u8 = 17;
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Where the count of drops stands among the words of that attribute.
const SK_MEMINFO_DROPS: usize = 8;

/// `nlmsghdr`, `inet_diag_req_v2`: all UDP sockets of a family at a port, with their memory.
fn diag_request(family: u8, port: u16) -> Vec<u8> {
    let mut request = Vec::with_capacity(DIAG_MESSAGE_BYTES);
    request.extend_from_slice(&(DIAG_MESSAGE_BYTES as u32).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[family, IPPROTO_UDP, 1 << (INET_DIAG_SKMEMINFO - 1), 0]);
    // In every state.
    request.extend_from_slice(&u32::MAX.to_ne_bytes());
    request.extend_from_slice(&port.to_be_bytes());
    // No port of a peer, no addresses, no interface; and no cookie, which is all ones.
    request.extend_from_slice(&[0; 2 + 16 + 16 + 4]);
    request.extend_from_slice(&[0xff; 8]);
    request
}

/// What one datagram of the kernel's answer says.
struct DiagPart {
    rows: Vec<Row>,
    is_last: bool,
}

/// `None` if it is an error, or no answer at all.
fn parse_diag(mut bytes: &[u8]) -> Option<DiagPart> {
    let mut part = DiagPart { rows: Vec::new(), is_last: false };
    while !bytes.is_empty() {
        let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
        let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
        let message = bytes.get(NETLINK_HEADER_BYTES..length)?;
        match kind {
            NLMSG_DONE => part.is_last = true,
            NLMSG_ERROR => return None,
            SOCK_DIAG_BY_FAMILY => part.rows.extend(parse_diag_message(message)?),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(part)
}

/// `Some(None)` if the socket is connected: it takes from its own peer only.
fn parse_diag_message(message: &[u8]) -> Option<Option<Row>> {
    let word = |at: usize| Some(u32::from_ne_bytes(*message.get(at..)?.first_chunk()?));
    let port = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let (local_port, peer_port) = (port(4)?, port(6)?);
    let address: [u8; 16] = *message.get(8..)?.first_chunk()?;
    let is_v4 = u16::from(*message.first()?) == AddressFamily::INET.as_raw();
    let address = if is_v4 {
        IpAddr::V4(Ipv4Addr::new(address[0], address[1], address[2], address[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(address))
    };
    let (unread_bytes, inode) = (u64::from(word(56)?), u64::from(word(68)?));
    let mut drops = 0;
    let mut attributes = message.get(DIAG_MESSAGE_BYTES..)?;
    while attributes.len() >= ATTRIBUTE_HEADER_BYTES {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        let value = attributes.get(ATTRIBUTE_HEADER_BYTES..length)?;
        if kind == INET_DIAG_SKMEMINFO {
            drops = value
                .get(SK_MEMINFO_DROPS * 4..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |word| u32::from_ne_bytes(*word));
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let reading = SocketReading { inode, unread_bytes, drops: u64::from(drops) };
    Some((peer_port == 0).then_some(Row { address, port: local_port, reading }))
}

/// The sockets that a datagram to `manager` can come to, from the text of `/proc/net/udp` and `/proc/net/udp6`.
pub fn sockets_at(manager: SocketAddr, udp: &str, udp6: &str) -> Vec<SocketReading> {
    let mut best = (u8::MAX, Vec::new());
    for row in udp.lines().skip(1).filter_map(|line| Row::parse(line, address_v4)) {
        row.collect(manager, &mut best);
    }
    for row in udp6.lines().skip(1).filter_map(|line| Row::parse(line, address_v6)) {
        row.collect(manager, &mut best);
    }
    best.1
}

/// What a row of the kernel's table says of an unconnected socket.
struct Row {
    address: IpAddr,
    port: u16,
    reading: SocketReading,
}

impl Row {
    /// `sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode ref pointer drops`
    fn parse(line: &str, address: fn(&str) -> Option<IpAddr>) -> Option<Row> {
        let mut fields = line.split_ascii_whitespace();
        let (local, local_port) = fields.nth(1)?.split_once(':')?;
        let (remote, remote_port) = fields.next()?.split_once(':')?;
        // A connected one takes from its own peer only.
        if remote_port != "0000" || remote.bytes().any(|byte| byte != b'0') {
            return None;
        }
        let (_, unread) = fields.nth(1)?.split_once(':')?;
        let inode = fields.nth(4)?.parse().ok()?;
        let drops = fields.nth(2)?.parse().ok()?;
        let unread_bytes = u64::from_str_radix(unread, 16).ok()?;
        Some(Row {
            address: address(local)?,
            port: u16::from_str_radix(local_port, 16).ok()?,
            reading: SocketReading { inode, unread_bytes, drops },
        })
    }

    /// Adds it to those that the kernel prefers: one that is bound to the very address goes before one of any address.
    fn collect(&self, manager: SocketAddr, best: &mut (u8, Vec<SocketReading>)) {
        let wanted = manager.ip().to_canonical();
        let rank = match self.address {
            _ if self.port != manager.port() => return,
            address if address.to_canonical() == wanted => 0,
            IpAddr::V4(address) if address.is_unspecified() && wanted.is_ipv4() => 1,
            IpAddr::V6(address) if address.is_unspecified() => 2,
            IpAddr::V4(_) | IpAddr::V6(_) => return,
        };
        if rank < best.0 {
            *best = (rank, Vec::new());
        }
        if rank == best.0 {
            best.1.push(self.reading);
        }
    }
}

fn address_v4(hex: &str) -> Option<IpAddr> {
    let word = u32::from_str_radix(hex, 16).ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(word.to_ne_bytes())))
}

/// Four words, each of the host's order.
fn address_v6(hex: &str) -> Option<IpAddr> {
    let mut bytes = [0; 16];
    for (index, bytes) in bytes.chunks_exact_mut(4).enumerate() {
        let word = u32::from_str_radix(hex.get(index * 8..index * 8 + 8)?, 16).ok()?;
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    Some(IpAddr::V6(Ipv6Addr::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  101: 00000000:05EA 00000000:0000 07 00000000:00000300 00:00000000 00000000     0        0 4711 2 0000000000000000 12
  102: 0100007F:05EB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 0
  103: 00000000:05EB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4713 2 0000000000000000 0
  104: 0100007F:05EA 0100007F:1000 01 00000000:00000000 00:00000000 00000000     0        0 4714 2 0000000000000000 0
  105: 0200007F:05EB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4715 2 0000000000000000 0
";
    const UDP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  201: 00000000000000000000000000000000:05EC 00000000000000000000000000000000:0000 07 00000000:00000001 00:00000000 00000000  0  0 4720 2 0000000000000000 3
  202: 00000000000000000000000001000000:05EA 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000  0  0 4721 2 0000000000000000 0
torn";

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_of_a_port() {
        let check = |manager: &str, expected: &[(u64, u64, u64)]| {
            let found = sockets_at(manager.parse().unwrap(), UDP, UDP6);
            let found: Vec<_> = found.iter().map(|row| (row.inode, row.unread_bytes, row.drops)).collect();
            assert_eq!(found, expected, "{manager}");
        };
        check("127.0.0.1:1514", &[(4711, 768, 12)]);
        check("127.0.0.1:1515", &[(4712, 0, 0)]);
        check("127.0.0.3:1515", &[(4713, 0, 0)]);
        check("127.0.0.1:1516", &[(4720, 1, 3)]);
        check("[::1]:1514", &[(4721, 0, 0)]);
        check("[::2]:1514", &[]);
        check("127.0.0.1:9", &[]);
    }

    #[test]
    fn the_kernel_writes_what_is_parsed() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let manager = socket.local_addr().unwrap();
        let mut diag = SocketTable::open();
        let mut file = SocketTable { diag: None, answer: Vec::new() };
        let mut read = || {
            let found = file.at(manager);
            assert_eq!(diag.at(manager), found, "both tell the same");
            found
        };
        let quiet = read();
        assert_eq!((quiet.len(), quiet[0].unread_bytes), (1, 0), "{quiet:?}");
        socket.send_to(b"hello", manager).unwrap();
        assert!(read()[0].unread_bytes > 0);
        socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(read()[0].unread_bytes, 0);
        for _ in 0..1_000 {
            socket.send_to(&[0; 1_000], manager).unwrap();
        }
        assert!(read()[0].drops > 0);
        drop(socket);
        assert_eq!(read(), []);
    }

    #[test]
    fn answers_of_the_kernel_that_are_none() {
        assert!(parse_diag(&[]).is_some_and(|part| part.rows.is_empty() && !part.is_last));
        let message = |length: u32, kind: u16| {
            let mut bytes = length.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.resize(20, 0);
            bytes
        };
        assert!(parse_diag(&message(20, NLMSG_DONE)).is_some_and(|part| part.is_last));
        assert!(parse_diag(&message(20, NLMSG_ERROR)).is_none());
        assert!(parse_diag(&message(20, SOCK_DIAG_BY_FAMILY)).is_none(), "it is short");
        assert!(parse_diag(&message(0, NLMSG_DONE)).is_none());
        assert!(parse_diag(&message(21, NLMSG_DONE)).is_none());
        assert!(parse_diag(&[1, 2]).is_none());
    }
}
