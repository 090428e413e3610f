//! A datagram as a multishot receive lays it out in its buffer.
//!
//! ```text
//! | io_uring_recvmsg_out: 16 | name: 28 | control: 24 | payload ... |
//! ```

use std::fmt;
use std::net::SocketAddr;

use crate::address::{self, ADDRESS_BYTES};

/// Bytes of a buffer that the kernel fills before the payload.
pub const DATAGRAM_HEADER_BYTES: u32 = (FIELDS_BYTES + ADDRESS_BYTES + CONTROL_BYTES) as u32;

/// Bytes of `io_uring_recvmsg_out`.
const FIELDS_BYTES: usize = 16;
/// Room for one control message with four bytes: the drops of `SO_RXQ_OVFL`.
pub(crate) const CONTROL_BYTES: usize = CONTROL_HEADER_BYTES + 8;
const CONTROL_HEADER_BYTES: usize = size_of::<libc::cmsghdr>();

const _: () = assert!(CONTROL_BYTES == 24 && DATAGRAM_HEADER_BYTES == 68);

/// One received datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The sender. A v4-mapped IPv6 address stays one, as the socket has it.
    pub from: SocketAddr,
    /// What fitted into the buffer.
    pub payload: &'a [u8],
    /// How many datagrams the socket has dropped for want of room, ever; modulo 2^32. Only with `SO_RXQ_OVFL` on,
    /// and only once there was one.
    pub kernel_drops: Option<u32>,
    /// The datagram's true size in bytes, if it did not fit.
    pub truncated_from: Option<u32>,
}

/// A buffer that holds no datagram of an internet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramError {
    /// The sender's address is of another family, or has none.
    Sender,
    /// The buffer is shorter than the header.
    Short,
}

impl fmt::Display for DatagramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DatagramError::Sender => {
                "the datagram has no internet address as its sender: receive from internet sockets"
            }
            DatagramError::Short => {
                "the buffer is shorter than a datagram's header of 68 bytes: make buffers larger"
            }
        })
    }
}

impl std::error::Error for DatagramError {}

/// Reads a filled buffer.
#[inline]
pub(crate) fn parse(filled: &[u8]) -> Result<Datagram<'_>, DatagramError> {
    let (fields, rest) = filled.split_first_chunk::<FIELDS_BYTES>().ok_or(DatagramError::Short)?;
    let (name, rest) = rest.split_first_chunk::<ADDRESS_BYTES>().ok_or(DatagramError::Short)?;
    let (control, payload) = rest.split_first_chunk::<CONTROL_BYTES>().ok_or(DatagramError::Short)?;
    let [name_bytes, control_bytes, payload_bytes, flags] = fields_of(fields);
    let name = &name[..ADDRESS_BYTES.min(name_bytes as usize)];
    let control = &control[..CONTROL_BYTES.min(control_bytes as usize)];
    Ok(Datagram {
        from: address::parse(name).ok_or(DatagramError::Sender)?,
        payload,
        kernel_drops: kernel_drops(control),
        truncated_from: (flags & libc::MSG_TRUNC.cast_unsigned() != 0).then_some(payload_bytes),
    })
}

/// What the kernel writes before a payload that came whole, without control data.
#[cfg(feature = "scripted")]
pub(crate) fn header(from: SocketAddr, payload_bytes: u32) -> [u8; DATAGRAM_HEADER_BYTES as usize] {
    let name = address::RawAddress::of(from);
    let mut header = [0; DATAGRAM_HEADER_BYTES as usize];
    header[..4].copy_from_slice(&name.length.to_ne_bytes());
    header[8..12].copy_from_slice(&payload_bytes.to_ne_bytes());
    header[FIELDS_BYTES..FIELDS_BYTES + ADDRESS_BYTES].copy_from_slice(&name.bytes);
    header
}

/// The four fields of `io_uring_recvmsg_out`: bytes of the name, of the control data and of the payload as they came,
/// and the message's flags.
#[inline]
fn fields_of(fields: &[u8; FIELDS_BYTES]) -> [u32; 4] {
    let field = |at: usize| u32::from_ne_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
    [field(0), field(4), field(8), field(12)]
}

/// The drops that the control data tells, if it does: `length | level | type | drops`.
#[inline]
fn kernel_drops(control: &[u8]) -> Option<u32> {
    let level = i32::from_ne_bytes(control.get(8..12)?.try_into().ok()?);
    let kind = i32::from_ne_bytes(control.get(12..CONTROL_HEADER_BYTES)?.try_into().ok()?);
    if (level, kind) != (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
        return None;
    }
    let drops = control.get(CONTROL_HEADER_BYTES..CONTROL_HEADER_BYTES + 4)?;
    Some(u32::from_ne_bytes(drops.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::RawAddress;

    /// What the kernel would write.
    struct Filled {
        from: SocketAddr,
        control: Vec<u8>,
        payload: Vec<u8>,
        payload_bytes: u32,
        flags: i32,
    }

    impl Filled {
        fn new(from: &str, payload: &[u8]) -> Filled {
            let from = from.parse().unwrap();
            Filled {
                from,
                control: Vec::new(),
                payload: payload.into(),
                payload_bytes: payload.len() as u32,
                flags: 0,
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let name = RawAddress::of(self.from);
            let mut bytes = Vec::new();
            for field in
                [name.length, self.control.len() as u32, self.payload_bytes, self.flags.cast_unsigned()]
            {
                bytes.extend(field.to_ne_bytes());
            }
            bytes.extend(name.bytes);
            bytes.extend(&self.control);
            bytes.resize(DATAGRAM_HEADER_BYTES as usize, 0xee);
            bytes.extend(&self.payload);
            bytes
        }
    }

    fn control(level: i32, kind: i32, drops: u32) -> Vec<u8> {
        let mut control = (CONTROL_HEADER_BYTES + 4).to_ne_bytes().to_vec();
        control.extend(level.to_ne_bytes());
        control.extend(kind.to_ne_bytes());
        control.extend(drops.to_ne_bytes());
        control
    }

    #[test]
    fn a_datagram_has_its_sender_and_payload() {
        for from in ["127.0.0.1:1514", "[::1]:9", "[::ffff:10.0.0.7]:1514"] {
            let bytes = Filled::new(from, b"hello").bytes();
            let expected = Datagram {
                from: from.parse().unwrap(),
                payload: b"hello",
                kernel_drops: None,
                truncated_from: None,
            };
            assert_eq!(parse(&bytes), Ok(expected));
        }
    }

    #[test]
    fn a_truncated_datagram_tells_its_true_size() {
        let mut filled = Filled::new("127.0.0.1:1", b"hel");
        filled.payload_bytes = 4_000;
        filled.flags = libc::MSG_TRUNC;
        assert_eq!(parse(&filled.bytes()).unwrap().truncated_from, Some(4_000));
    }

    #[test]
    fn only_the_drops_are_read_from_control_data() {
        for (level, kind, expected) in [
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL, Some(77)),
            (libc::SOL_SOCKET, libc::SO_RCVBUF, None),
            (libc::IPPROTO_IP, libc::SO_RXQ_OVFL, None),
        ] {
            let mut filled = Filled::new("127.0.0.1:1", b"");
            filled.control = control(level, kind, 77);
            assert_eq!(parse(&filled.bytes()).unwrap().kernel_drops, expected);
        }
    }

    #[test]
    fn a_buffer_cut_short_holds_no_datagram() {
        let bytes = Filled::new("127.0.0.1:1", b"").bytes();
        for length in 0..DATAGRAM_HEADER_BYTES as usize {
            assert_eq!(parse(&bytes[..length]), Err(DatagramError::Short), "{length} bytes");
        }
        assert_eq!(parse(&bytes).map(|datagram| datagram.payload.len()), Ok(0));
    }

    #[test]
    fn a_sender_of_another_family_is_no_datagram_of_ours() {
        let mut bytes = Filled::new("127.0.0.1:1", b"").bytes();
        bytes[16..18].copy_from_slice(&(libc::AF_UNIX as u16).to_ne_bytes());
        assert_eq!(parse(&bytes), Err(DatagramError::Sender));
    }
}
