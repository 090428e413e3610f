//! The PROXY protocol: what a load balancer says, at the beginning of a connection, about where it came from.
//!
//! ```text
//! version 1  "PROXY " ("TCP4" | "TCP6") " " source " " destination " " source port " " destination port "\r\n"
//!            "PROXY UNKNOWN" ... "\r\n"                                                      at most 107 bytes
//! version 2  signature: 12 | version and command: 1 | family and transport: 1 | length: 2, big endian | length bytes
//!            IPv4: source: 4 | destination: 4 | ports: 2 + 2        IPv6: 16 | 16 | 2 + 2      and additions
//! ```
//!
//! Source: HAProxy's `doc/proxy-protocol.txt` of 2020/03/05.

use crate::limits::PROXY_HEADER_BYTES_MAX;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const PREFIX_V1: &[u8] = b"PROXY ";
const HEADER_BYTES_MAX_V1: usize = 107;
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED_BYTES_V2: usize = 16;
const LOCAL_V2: u8 = 0x20;
const PROXY_V2: u8 = 0x21;
const ADDRESSES_BYTES_IPV4: usize = 12;
const ADDRESSES_BYTES_IPV6: usize = 36;

const _: () = assert!(FIXED_BYTES_V2 == SIGNATURE_V2.len() + 4);
const _: () = assert!(HEADER_BYTES_MAX_V1 < PROXY_HEADER_BYTES_MAX);

/// Where a connection really came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxySource {
    /// From where it seems to: the balancer speaks for itself (a health check), or does not know.
    Own,
    /// From here.
    Real(SocketAddr),
}

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// What it says.
    pub source: ProxySource,
    /// Its bytes; for [`ProxyCutter::push`] those of what was pushed last. What follows is the connection's.
    pub bytes: usize,
}

/// Takes the header off the beginning of a stream, however that was split. Keeps at most
/// [`PROXY_HEADER_BYTES_MAX`](crate::limits::PROXY_HEADER_BYTES_MAX) bytes.
#[derive(Debug, Default)]
pub struct ProxyCutter {
    held: Vec<u8>,
}

impl ProxyCutter {
    /// A cutter for a new stream.
    pub fn new() -> ProxyCutter {
        ProxyCutter::default()
    }

    /// Takes the next bytes; `None` while the header is not whole. Not to be called again after a header or an error.
    ///
    /// # Errors
    /// As soon as it can't become a header any more.
    pub fn push(&mut self, received: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
        let before = self.held.len();
        let room = PROXY_HEADER_BYTES_MAX - before;
        self.held.extend_from_slice(&received[..received.len().min(room)]);
        let header = proxy_header(&self.held)?;
        Ok(header.map(|header| ProxyHeader { bytes: header.bytes - before, ..header }))
    }
}

/// The header that `bytes` begin with; `None` if more of them is needed to tell.
///
/// # Errors
/// If they begin with none, or with one that can't be read or is longer than is taken.
pub fn proxy_header(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let begins = |prefix: &[u8]| bytes.iter().zip(prefix).all(|(byte, expected)| byte == expected);
    if begins(SIGNATURE_V2) {
        version_2(bytes)
    } else if begins(PREFIX_V1) {
        version_1(bytes)
    } else {
        Err(ProxyError::Missing)
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let looked_at = &bytes[..bytes.len().min(HEADER_BYTES_MAX_V1)];
    let Some(end) = looked_at.windows(2).position(|pair| pair == b"\r\n") else {
        return if looked_at.len() < HEADER_BYTES_MAX_V1 { Ok(None) } else { Err(ProxyError::TooLong) };
    };
    let text = looked_at.get(PREFIX_V1.len()..end).ok_or(ProxyError::Malformed)?;
    let text = std::str::from_utf8(text).map_err(|_| ProxyError::Malformed)?;
    let mut words = text.split(' ');
    let source = match words.next() {
        Some("UNKNOWN") => ProxySource::Own,
        Some("TCP4") => ProxySource::Real(ends_v1::<Ipv4Addr>(words).ok_or(ProxyError::Malformed)?),
        Some("TCP6") => ProxySource::Real(ends_v1::<Ipv6Addr>(words).ok_or(ProxyError::Malformed)?),
        Some(_) | None => return Err(ProxyError::Malformed),
    };
    Ok(Some(ProxyHeader { source, bytes: end + 2 }))
}

/// The source of `source destination source-port destination-port`, and nothing else.
fn ends_v1<'a, Address>(mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr>
where
    Address: std::str::FromStr + Into<IpAddr>,
{
    let source = words.next()?.parse::<Address>().ok()?;
    words.next()?.parse::<Address>().ok()?;
    let source_port = port(words.next()?)?;
    port(words.next()?)?;
    words.next().is_none().then(|| SocketAddr::new(source.into(), source_port))
}

/// Digits only, and no more of them than needed.
fn port(word: &str) -> Option<u16> {
    let plain = crate::text::all_digits(word.as_bytes()) && (word == "0" || !word.starts_with('0'));
    word.parse().ok().filter(|_| plain)
}

fn version_2(bytes: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED_BYTES_V2>() else { return Ok(None) };
    let [.., version_and_command, family_and_transport, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let ends = match (version_and_command, family_and_transport) {
        // The balancer speaks for itself; what it says of the ends does not count. Or it does not know, or of a unix socket.
        (LOCAL_V2, _) | (PROXY_V2, 0x00 | 0x31 | 0x32) => None,
        (PROXY_V2, 0x11 | 0x12) => Some(ends_ipv4 as fn(&[u8]) -> Option<SocketAddr>),
        (PROXY_V2, 0x21 | 0x22) => Some(ends_ipv6 as fn(&[u8]) -> Option<SocketAddr>),
        _ => return Err(ProxyError::Malformed),
    };
    if FIXED_BYTES_V2 + length > PROXY_HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let Some(said) = rest.get(..length) else { return Ok(None) };
    let source = match ends {
        None => ProxySource::Own,
        Some(ends) => ProxySource::Real(ends(said).ok_or(ProxyError::Malformed)?),
    };
    Ok(Some(ProxyHeader { source, bytes: FIXED_BYTES_V2 + length }))
}

fn ends_ipv4(said: &[u8]) -> Option<SocketAddr> {
    let said = said.first_chunk::<ADDRESSES_BYTES_IPV4>()?;
    let [a, b, c, d, .., high, low, _, _] = *said;
    Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low])))
}

fn ends_ipv6(said: &[u8]) -> Option<SocketAddr> {
    let said = said.first_chunk::<ADDRESSES_BYTES_IPV6>()?;
    let address = *said.first_chunk::<16>().expect("36 bytes hold 16");
    Some(SocketAddr::new(Ipv6Addr::from(address).into(), u16::from_be_bytes([said[32], said[33]])))
}

/// Why the beginning of a connection is no header. The connection must be closed: nobody knows whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyError {
    /// It begins as a header and can't be read as one.
    Malformed,
    /// It is something else.
    Missing,
    /// It is longer than is taken.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            ProxyError::Malformed => "the header of the PROXY protocol can't be read",
            ProxyError::Missing => "there is no header of the PROXY protocol",
            ProxyError::TooLong => "the header of the PROXY protocol is longer than is taken",
        })
    }
}

impl std::error::Error for ProxyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn real(address: &str) -> ProxySource {
        ProxySource::Real(address.parse().unwrap())
    }

    /// The same by the crate `ppp`.
    fn read_by_ppp(bytes: &[u8]) -> Option<(ProxySource, usize)> {
        let real = |address: IpAddr, port: u16| ProxySource::Real(SocketAddr::new(address, port));
        match ppp::HeaderResult::parse(bytes) {
            ppp::HeaderResult::V1(Ok(header)) => {
                let source = match header.addresses {
                    ppp::v1::Addresses::Unknown => ProxySource::Own,
                    ppp::v1::Addresses::Tcp4(ends) => real(ends.source_address.into(), ends.source_port),
                    ppp::v1::Addresses::Tcp6(ends) => real(ends.source_address.into(), ends.source_port),
                };
                Some((source, header.header.len()))
            }
            ppp::HeaderResult::V2(Ok(header)) => {
                let local = header.command == ppp::v2::Command::Local;
                let source = match header.addresses {
                    ppp::v2::Addresses::IPv4(ends) if !local => {
                        real(ends.source_address.into(), ends.source_port)
                    }
                    ppp::v2::Addresses::IPv6(ends) if !local => {
                        real(ends.source_address.into(), ends.source_port)
                    }
                    ppp::v2::Addresses::IPv4(_)
                    | ppp::v2::Addresses::IPv6(_)
                    | ppp::v2::Addresses::Unix(_)
                    | ppp::v2::Addresses::Unspecified => ProxySource::Own,
                };
                Some((source, header.header.len()))
            }
            ppp::HeaderResult::V1(Err(_)) | ppp::HeaderResult::V2(Err(_)) => None,
        }
    }

    fn v2(command: u8, family: u8, said: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE_V2.to_vec();
        header.extend([command, family]);
        header.extend((said.len() as u16).to_be_bytes());
        header.extend(said);
        header
    }

    fn check(bytes: &[u8], expected: Result<Option<ProxySource>, ProxyError>) {
        let found = proxy_header(bytes);
        assert_eq!(found.map(|header| header.map(|header| header.source)), expected, "{bytes:?}");
    }

    #[test]
    fn version_one() {
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 1514\r\nrest", Ok(Some(real("192.0.2.7:40000"))));
        check(b"PROXY TCP6 fd00::7 fd00::1 40000 1514\r\n", Ok(Some(real("[fd00::7]:40000"))));
        check(b"PROXY UNKNOWN\r\n", Ok(Some(ProxySource::Own)));
        check(b"PROXY UNKNOWN anything \xff\r\n", Err(ProxyError::Malformed));
        check(b"PROXY UNKNOWN any thing\r\n", Ok(Some(ProxySource::Own)));
        check(b"", Ok(None));
        check(b"PRO", Ok(None));
        check(b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 1514\r", Ok(None));
        check(b"PROXY \r\n", Err(ProxyError::Malformed));
        check(b"PROXY\r\n", Err(ProxyError::Missing));
        check(b"GET / HTTP/1.1\r\n", Err(ProxyError::Missing));
        check(b"proxy UNKNOWN\r\n", Err(ProxyError::Missing));
        for bad in [
            "TCP4 192.0.2.7 10.0.0.1 40000",
            "TCP4 192.0.2.7 10.0.0.1 40000 1514 1",
            "TCP4 192.0.2.7 10.0.0.1 40000 1514 ",
            "TCP4  192.0.2.7 10.0.0.1 40000 1514",
            "TCP4 fd00::7 fd00::1 40000 1514",
            "TCP4 192.0.2.7 10.0.0.1 +4000 1514",
            "TCP4 192.0.2.7 10.0.0.1 04000 1514",
            "TCP4 192.0.2.7 10.0.0.1 70000 1514",
            "TCP5 192.0.2.7 10.0.0.1 40000 1514",
            "tcp4 192.0.2.7 10.0.0.1 40000 1514",
        ] {
            check(format!("PROXY {bad}\r\n").as_bytes(), Err(ProxyError::Malformed));
        }
        check(&[PREFIX_V1, &[b'x'; 100]].concat(), Ok(None));
        check(&[PREFIX_V1, &[b'x'; 101], b"\r\n"].concat(), Err(ProxyError::TooLong));
    }

    #[test]
    fn version_two() {
        let ipv4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x9c, 0x40, 0x05, 0xea];
        check(&v2(0x21, 0x11, &ipv4), Ok(Some(real("192.0.2.7:40000"))));
        check(&v2(0x21, 0x12, &ipv4), Ok(Some(real("192.0.2.7:40000"))));
        let with_more = [&ipv4[..], &[4, 0, 1, 9]].concat();
        check(&v2(0x21, 0x11, &with_more), Ok(Some(real("192.0.2.7:40000"))));
        check(&v2(0x20, 0x11, &ipv4), Ok(Some(ProxySource::Own)));
        check(&v2(0x20, 0x00, &[]), Ok(Some(ProxySource::Own)));
        check(&v2(0x21, 0x00, &[]), Ok(Some(ProxySource::Own)));
        check(&v2(0x21, 0x31, &[0; 216]), Ok(Some(ProxySource::Own)));
        let mut ipv6 = [0; 36];
        ipv6[0] = 0xfd;
        ipv6[15] = 7;
        ipv6[32..34].copy_from_slice(&40_000_u16.to_be_bytes());
        check(&v2(0x21, 0x21, &ipv6), Ok(Some(real("[fd00::7]:40000"))));
        check(&v2(0x21, 0x11, &ipv4[..11]), Err(ProxyError::Malformed));
        check(&v2(0x21, 0x21, &ipv6[..35]), Err(ProxyError::Malformed));
        check(&v2(0x11, 0x11, &ipv4), Err(ProxyError::Malformed));
        check(&v2(0x22, 0x11, &ipv4), Err(ProxyError::Malformed));
        check(&v2(0x21, 0x41, &ipv4), Err(ProxyError::Malformed));
        check(&v2(0x21, 0x13, &ipv4), Err(ProxyError::Malformed));
        check(&v2(0x21, 0x10, &ipv4), Err(ProxyError::Malformed));
        check(&v2(0x21, 0x01, &ipv4), Err(ProxyError::Malformed));
        let long = v2(0x21, 0x11, &[0; 5_000]);
        check(&long[..FIXED_BYTES_V2], Err(ProxyError::TooLong));
        let whole = v2(0x21, 0x11, &ipv4);
        (0..whole.len()).for_each(|length| check(&whole[..length], Ok(None)));
    }

    #[test]
    fn what_follows_a_header_is_the_connections() {
        let stream = b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 1514\r\n\x05\0\0\0#ping";
        for split in 0..stream.len() {
            let mut cutter = ProxyCutter::new();
            let (first, second) = stream.split_at(split);
            let rest = match cutter.push(first).unwrap() {
                Some(header) => [&first[header.bytes..], second].concat(),
                None => second[cutter.push(second).unwrap().unwrap().bytes..].to_vec(),
            };
            assert_eq!(rest, b"\x05\0\0\0#ping", "split at {split}");
        }
    }

    proptest! {
        #[test]
        fn no_more_is_kept_than_a_header_may_have(segments in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..40), begin in 0_usize..3) {
            let long = v2(0x21, 0x11, &[0; 4_000]);
            let begins: [&[u8]; 3] = [b"", PREFIX_V1, &long[..100]];
            let mut cutter = ProxyCutter::new();
            let mut outcome = cutter.push(begins[begin]);
            for segment in &segments {
                if outcome != Ok(None) {
                    break;
                }
                outcome = cutter.push(segment);
                prop_assert!(cutter.held.len() <= PROXY_HEADER_BYTES_MAX);
            }
        }

        #[test]
        fn what_is_read_is_what_another_reader_reads(v1 in any::<bool>(), v6 in any::<bool>(), at in 0_usize..70, byte: u8, ends: [u8; 36]) {
            let mut header = match (v1, v6) {
                (true, false) => b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 1514\r\nrest".to_vec(),
                (true, true) => b"PROXY TCP6 fd00::7 fd00::1 40000 1514\r\nrest".to_vec(),
                (false, false) => v2(0x21, 0x11, &ends[..12]),
                (false, true) => v2(0x21, 0x21, &ends),
            };
            if let Some(place) = header.get_mut(at) {
                *place = byte;
            }
            if let Ok(Some(read)) = proxy_header(&header) {
                prop_assert_eq!(Some((read.source, read.bytes)), read_by_ppp(&header));
            }
        }

        #[test]
        fn headers_are_read_as_written(v4: u32, v6: u128, port: u16) {
            let v4: SocketAddr = (Ipv4Addr::from_bits(v4), port).into();
            let v6: SocketAddr = (Ipv6Addr::from_bits(v6), port).into();
            for (family, source) in [("TCP4", v4), ("TCP6", v6)] {
                let ip = source.ip();
                let header = format!("PROXY {family} {ip} {ip} {port} 1514\r\n");
                let read = proxy_header(header.as_bytes()).unwrap().unwrap();
                prop_assert_eq!(read, ProxyHeader { source: ProxySource::Real(source), bytes: header.len() });
            }
        }
    }
}
