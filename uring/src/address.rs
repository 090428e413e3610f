//! Socket addresses as the kernel writes them, and as we do.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Bytes of the greatest address of ours, `sockaddr_in6`.
pub(crate) const ADDRESS_BYTES: usize = size_of::<libc::sockaddr_in6>();
/// Bytes of `sockaddr_in`.
const ADDRESS_BYTES_V4: usize = size_of::<libc::sockaddr_in>();

const _: () = assert!(ADDRESS_BYTES == 28 && ADDRESS_BYTES_V4 == 16);

/// An address in the kernel's layout, with its length: `family u16 | port u16 be | ...`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    pub(crate) bytes: [u8; ADDRESS_BYTES],
    pub(crate) length: libc::socklen_t,
}

impl RawAddress {
    /// Room for the kernel to write any address of ours.
    pub(crate) const EMPTY: RawAddress =
        RawAddress { bytes: [0; ADDRESS_BYTES], length: ADDRESS_BYTES as libc::socklen_t };

    /// `address` in the kernel's layout.
    pub(crate) fn of(address: SocketAddr) -> RawAddress {
        let mut bytes = [0; ADDRESS_BYTES];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, length) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, ADDRESS_BYTES_V4)
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, ADDRESS_BYTES)
            }
        };
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        RawAddress { bytes, length: length as libc::socklen_t }
    }
}

/// The address that `name` holds; `None` if it is of no internet family, or too short for its family.
///
/// A v4-mapped IPv6 address stays one, as `SocketAddr` has it; `IpAddr::to_canonical` makes it IPv4.
#[inline]
pub(crate) fn parse(name: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(field(name, 0)?));
    let port = u16::from_be_bytes(field(name, 2)?);
    if family == libc::AF_INET {
        let octets: [u8; 4] = field(name, 4)?;
        return Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port));
    }
    if family == libc::AF_INET6 {
        let flow = u32::from_be_bytes(field(name, 4)?);
        let octets: [u8; 16] = field(name, 8)?;
        let scope = u32::from_ne_bytes(field(name, 24)?);
        return Some(SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope)));
    }
    None
}

#[inline]
fn field<const N: usize>(name: &[u8], at: usize) -> Option<[u8; N]> {
    name.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_round_trip() {
        for text in
            ["127.0.0.1:1514", "255.255.255.255:65535", "[::1]:1", "[::ffff:10.1.2.3]:1514", "[fe80::1%7]:9"]
        {
            let address: SocketAddr = text.parse().unwrap();
            let raw = RawAddress::of(address);
            assert_eq!(parse(&raw.bytes[..raw.length as usize]), Some(address), "{text}");
        }
    }

    #[test]
    fn what_is_too_short_or_of_another_family_is_no_address() {
        let raw = RawAddress::of("[::1]:1".parse().unwrap());
        for length in 0..raw.length as usize {
            assert_eq!(parse(&raw.bytes[..length]), None, "{length} bytes");
        }
        let unix = (libc::AF_UNIX as u16).to_ne_bytes();
        assert_eq!(parse(&[unix[0], unix[1], b'/', b'a', 0, 0, 0, 0]), None);
    }
}
