//! How the manager is: a pure function over what was read of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// A datagram that the manager's host refused makes it unwell for so long.
pub const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Datagrams that wait so long for a manager that reads none make it unwell.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);

/// A manager that answers nobody is tried again after so long.
pub const SILENT_FOR: Duration = Duration::from_secs(30);

/// One socket at the manager's port, as the kernel shows it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SocketReading {
    /// What no other socket of the host has.
    pub inode: u64,
    /// Memory of what it has not read yet, in bytes; 0 exactly if that is nothing.
    pub unread_bytes: u64,
    /// Datagrams that it had no room for, since it was opened.
    pub drops: u64,
}

/// What is known of the manager at a moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Signs {
    /// Whether a socket is bound to its port.
    pub is_bound: bool,
    /// Whether its process lives; `None` if nobody said which it is.
    pub is_alive: Option<bool>,
    /// When a datagram was refused last.
    pub refused_at: Option<Duration>,
    /// Since when there is something that it does not read.
    pub unread_since: Option<Duration>,
    /// Since when datagrams are given to it and none comes back.
    pub unanswered_since: Option<Duration>,
    /// When it was found silent last.
    pub silent_at: Option<Duration>,
}

/// Why nothing is given to the manager.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Unwell {
    /// Its port is not bound.
    PortClosed,
    /// Its process does not live.
    ProcessGone,
    /// A datagram to it was refused.
    Refused,
    /// It reads nothing.
    Stuck,
    /// It answers nobody.
    Silent,
    /// It was started anew, and what it had not read is gone.
    Restarted,
}

const ALL: [Unwell; 6] = [
    Unwell::PortClosed,
    Unwell::ProcessGone,
    Unwell::Refused,
    Unwell::Stuck,
    Unwell::Silent,
    Unwell::Restarted,
];

/// Whether datagrams may be given to the manager now. `answers_within`: how long it may answer nobody, if that is to count.
///
/// # Errors
/// Why not.
pub fn judge(now: Duration, signs: &Signs, answers_within: Option<Duration>) -> Result<(), Unwell> {
    let within = |since: Option<Duration>, time: Duration| since.is_some_and(|since| now < since + time);
    let longer = |since: Option<Duration>, time: Duration| since.is_some_and(|since| now >= since + time);
    if signs.is_alive == Some(false) {
        Err(Unwell::ProcessGone)
    } else if !signs.is_bound {
        Err(Unwell::PortClosed)
    } else if within(signs.refused_at, REFUSED_FOR) {
        Err(Unwell::Refused)
    } else if longer(signs.unread_since, STUCK_AFTER) {
        Err(Unwell::Stuck)
    } else if within(signs.silent_at, SILENT_FOR)
        || answers_within.is_some_and(|time| longer(signs.unanswered_since, time))
    {
        Err(Unwell::Silent)
    } else {
        Ok(())
    }
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

impl Unwell {
    /// Its number on the wire; never 0.
    pub fn code(self) -> u8 {
        match self {
            Unwell::PortClosed => 1,
            Unwell::ProcessGone => 2,
            Unwell::Refused => 3,
            Unwell::Stuck => 4,
            Unwell::Silent => 5,
            Unwell::Restarted => 6,
        }
    }

    /// What has this number.
    pub fn from_code(code: u8) -> Option<Unwell> {
        ALL.into_iter().find(|unwell| unwell.code() == code)
    }
}

impl fmt::Display for Unwell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unwell::PortClosed => "the manager's port is not bound",
            Unwell::ProcessGone => "the manager's process is gone",
            Unwell::Refused => "the manager's host refuses datagrams",
            Unwell::Stuck => "the manager reads nothing",
            Unwell::Silent => "the manager answers nobody",
            Unwell::Restarted => "the manager was started anew",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: Signs = Signs {
        is_bound: true,
        is_alive: None,
        refused_at: None,
        unread_since: None,
        unanswered_since: None,
        silent_at: None,
    };

    #[test]
    fn signs() {
        let at = |seconds| Some(Duration::from_secs(seconds));
        let check = |signs: Signs, expected: Result<(), Unwell>| {
            assert_eq!(judge(Duration::from_secs(100), &signs, at(60)), expected, "{signs:?}");
        };
        check(WELL, Ok(()));
        check(Signs { is_alive: Some(true), ..WELL }, Ok(()));
        check(Signs { is_alive: Some(false), ..WELL }, Err(Unwell::ProcessGone));
        check(Signs { is_bound: false, ..WELL }, Err(Unwell::PortClosed));
        check(Signs { is_bound: false, is_alive: Some(true), ..WELL }, Err(Unwell::PortClosed));
        check(Signs { refused_at: at(100), ..WELL }, Err(Unwell::Refused));
        check(Signs { refused_at: at(99), ..WELL }, Ok(()));
        check(Signs { unread_since: at(91), ..WELL }, Ok(()));
        check(Signs { unread_since: at(90), ..WELL }, Err(Unwell::Stuck));
        check(Signs { unanswered_since: at(41), ..WELL }, Ok(()));
        check(Signs { unanswered_since: at(40), ..WELL }, Err(Unwell::Silent));
        check(Signs { silent_at: at(71), ..WELL }, Err(Unwell::Silent));
        check(Signs { silent_at: at(70), ..WELL }, Ok(()));
        let quiet = Signs { unanswered_since: at(1), ..WELL };
        assert_eq!(judge(Duration::from_secs(100), &quiet, None), Ok(()), "nobody asked for answers");
    }

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
        let read = || {
            let table = |name| std::fs::read_to_string(name).unwrap_or_default();
            sockets_at(manager, &table("/proc/net/udp"), &table("/proc/net/udp6"))
        };
        let quiet = read();
        assert_eq!((quiet.len(), quiet[0].unread_bytes), (1, 0), "{quiet:?}");
        socket.send_to(b"hello", manager).unwrap();
        assert!(read()[0].unread_bytes > 0);
        socket.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(read()[0].unread_bytes, 0);
        drop(socket);
        assert_eq!(read(), []);
    }
}
