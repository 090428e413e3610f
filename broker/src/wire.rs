//! What client and server say to each other, message by message. Each travels in a frame of its own ([`codec::frame`]).
//!
//! ```text
//! Hello    1 | version 1 | mode 1 | incarnation 8 | name length 1 | name | secret: the rest     first, from the client
//! Open     2 | line 4 | identity 8 | key: the rest          which agent a line number means from now on
//! Packet   3 | line 4 | sequence 8 | previous 8 | datagram: the rest
//! Ack      4 | line 4 | sequence 8                          the manager has this one and all before it
//! Reply    5 | line 4 | datagram: the rest                  from the manager to the agent
//! Health   6 | 0: well, or why not                          the server's first answer, and at each change
//! Ping     7 | token 8
//! Pong     8 | token 8
//! Refused  9 | why                                          then the server closes
//! Shut    10 | line 4                                       the line number means nothing any more
//! ```
//! Numbers are little-endian. A `previous` of all ones says that the packet begins a chain.

use std::fmt;

use crate::health::Unwell;
use crate::key::{KEY_BYTES_MAX, LineKey};
use codec::limits::FRAME_BYTES_MAX;
use spool::Sequence;

/// What both sides must agree on.
pub const VERSION: u8 = 1;

/// Longest name of a client.
pub const NAME_BYTES_MAX: usize = 64;

/// Longest shared secret.
pub const SECRET_BYTES_MAX: usize = 256;

/// Largest datagram that UDP over IPv4 carries.
pub const DATAGRAM_BYTES_MAX: usize = 65_507;

/// What stands in front of a packet's datagram.
pub const PACKET_HEADER_BYTES: usize = 1 + 4 + 8 + 8;

const _: () = assert!(PACKET_HEADER_BYTES + DATAGRAM_BYTES_MAX <= FRAME_BYTES_MAX);

/// `previous` of a packet that begins a chain.
const NO_PREVIOUS: u64 = u64::MAX;

/// A client's number for one of its lines; never used twice by one run of the client.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LineNumber(pub u32);

/// How a client lets packets through.
#[derive(
    Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, serde::Serialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// All through the connection, acknowledged.
    #[default]
    Relay,
    /// Straight to the manager as long as all is well; kept otherwise.
    Gate,
}

/// Why a server does not want a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The secret is another one.
    Secret,
    /// A newer connection of the same name is there.
    Stale,
    /// The server has as many lines as it may.
    TooManyLines,
    /// It speaks another version.
    Version,
}

/// One message, its bytes borrowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message<'a> {
    /// Who the client is.
    Hello(Hello<'a>),
    /// From now on this number means this agent's line.
    Open {
        /// The number.
        line: LineNumber,
        /// What the line's sequence numbers belong to: another spool has another one.
        identity: u64,
        /// The agent.
        key: LineKey,
    },
    /// A datagram of an agent.
    Packet(Packet<'a>),
    /// The manager has read this packet and all before it.
    Ack {
        /// The line.
        line: LineNumber,
        /// The packet.
        sequence: Sequence,
    },
    /// A datagram for an agent.
    Reply {
        /// The agent's line.
        line: LineNumber,
        /// What the manager sent.
        bytes: &'a [u8],
    },
    /// How the manager is.
    Health(Result<(), Unwell>),
    /// Is anybody there?
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// The connection ends, and this is why.
    Refused(Refusal),
    /// The line number means nothing any more.
    Shut {
        /// The number.
        line: LineNumber,
    },
}

/// What a client says first.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Hello<'a> {
    /// [`VERSION`].
    pub version: u8,
    /// How it lets packets through.
    pub mode: Mode,
    /// Greater for each connection of the same client.
    pub incarnation: u64,
    /// Its name: printable ASCII without spaces.
    pub name: &'a str,
    /// The shared secret, or nothing.
    pub secret: &'a [u8],
}

impl fmt::Debug for Hello<'_> {
    /// All but the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Hello({} {:?} {:#x} v{})", self.name, self.mode, self.incarnation, self.version)
    }
}

/// A datagram of an agent on its way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet<'a> {
    /// Whose.
    pub line: LineNumber,
    /// Its number in the line's spool.
    pub sequence: Sequence,
    /// The one that was sent before it; `None` if it begins a chain, being the oldest that is not confirmed.
    pub previous: Option<Sequence>,
    /// The datagram.
    pub bytes: &'a [u8],
}

/// Bytes that are no message: an attack, or another protocol. The connection must be closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WireError;

impl fmt::Display for WireError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(
            "the other side does not speak the broker's protocol; do both have the same version, and TLS?",
        )
    }
}

impl std::error::Error for WireError {}

impl<'a> Message<'a> {
    /// Appends the message as a frame.
    ///
    /// # Panics
    /// If it is longer than a frame, or a name or secret longer than it may be.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; codec::FRAME_HEADER_BYTES]);
        self.write_body(out);
        let length = out.len() - start - codec::FRAME_HEADER_BYTES;
        assert!(length <= FRAME_BYTES_MAX, "a message of {length} bytes fits no frame");
        out[start..start + codec::FRAME_HEADER_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        match *self {
            Message::Hello(hello) => write_hello(&hello, out),
            Message::Open { line, identity, key } => {
                head(2, line, out);
                out.extend_from_slice(&identity.to_le_bytes());
                out.extend_from_slice(key.to_string().as_bytes());
            }
            Message::Packet(packet) => {
                head(3, packet.line, out);
                out.extend_from_slice(&packet.sequence.0.to_le_bytes());
                let previous = packet.previous.map_or(NO_PREVIOUS, |previous| previous.0);
                out.extend_from_slice(&previous.to_le_bytes());
                out.extend_from_slice(packet.bytes);
            }
            Message::Ack { line, sequence } => {
                head(4, line, out);
                out.extend_from_slice(&sequence.0.to_le_bytes());
            }
            Message::Reply { line, bytes } => {
                head(5, line, out);
                out.extend_from_slice(bytes);
            }
            Message::Health(health) => out.extend_from_slice(&[6, health.err().map_or(0, Unwell::code)]),
            Message::Ping(token) => {
                out.push(7);
                out.extend_from_slice(&token.to_le_bytes());
            }
            Message::Pong(token) => {
                out.push(8);
                out.extend_from_slice(&token.to_le_bytes());
            }
            Message::Refused(why) => out.extend_from_slice(&[9, why.code()]),
            Message::Shut { line } => head(10, line, out),
        }
    }

    /// The message that a frame holds.
    ///
    /// # Errors
    /// If it is none.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, WireError> {
        let mut rest = Rest(bytes);
        let message = match rest.byte()? {
            1 => return parse_hello(rest).map(Message::Hello),
            2 => {
                let (line, identity) = (rest.line()?, rest.number()?);
                let key = std::str::from_utf8(rest.all()).ok().filter(|key| key.len() <= KEY_BYTES_MAX);
                let key = key.and_then(|key| key.parse().ok()).ok_or(WireError)?;
                Message::Open { line, identity, key }
            }
            3 => {
                let (line, sequence) = (rest.line()?, Sequence(rest.number()?));
                let previous = Some(rest.number()?).filter(|number| *number != NO_PREVIOUS).map(Sequence);
                let is_in_order = previous.is_none_or(|previous| previous < sequence);
                let bytes = rest.all();
                if !is_in_order || sequence.0 == NO_PREVIOUS || bytes.len() > DATAGRAM_BYTES_MAX {
                    return Err(WireError);
                }
                Message::Packet(Packet { line, sequence, previous, bytes })
            }
            4 => Message::Ack { line: rest.line()?, sequence: Sequence(rest.number()?) },
            5 => {
                let (line, bytes) = (rest.line()?, rest.all());
                if bytes.len() > DATAGRAM_BYTES_MAX {
                    return Err(WireError);
                }
                Message::Reply { line, bytes }
            }
            6 => Message::Health(match rest.byte()? {
                0 => Ok(()),
                code => Err(Unwell::from_code(code).ok_or(WireError)?),
            }),
            7 => Message::Ping(rest.number()?),
            8 => Message::Pong(rest.number()?),
            9 => Message::Refused(Refusal::from_code(rest.byte()?).ok_or(WireError)?),
            10 => Message::Shut { line: rest.line()? },
            _ => return Err(WireError),
        };
        rest.0.is_empty().then_some(message).ok_or(WireError)
    }
}

fn head(kind: u8, line: LineNumber, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&line.0.to_le_bytes());
}

fn write_hello(hello: &Hello<'_>, out: &mut Vec<u8>) {
    assert!(hello.name.len() <= NAME_BYTES_MAX, "the settings have checked the name");
    assert!(hello.secret.len() <= SECRET_BYTES_MAX, "the settings have checked the secret");
    let mode = match hello.mode {
        Mode::Relay => 0,
        Mode::Gate => 1,
    };
    out.extend_from_slice(&[1, hello.version, mode]);
    out.extend_from_slice(&hello.incarnation.to_le_bytes());
    out.push(hello.name.len() as u8);
    out.extend_from_slice(hello.name.as_bytes());
    out.extend_from_slice(hello.secret);
}

fn parse_hello(mut rest: Rest<'_>) -> Result<Hello<'_>, WireError> {
    let version = rest.byte()?;
    let mode = match rest.byte()? {
        0 => Mode::Relay,
        1 => Mode::Gate,
        _ => return Err(WireError),
    };
    let incarnation = rest.number()?;
    let length = usize::from(rest.byte()?);
    let name = rest.some(length)?;
    let name = std::str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or(WireError)?;
    let secret = rest.all();
    if secret.len() > SECRET_BYTES_MAX {
        return Err(WireError);
    }
    Ok(Hello { version, mode, incarnation, name, secret })
}

/// Whether a client may be called that: it stands in logs and tables.
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What is not parsed yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn byte(&mut self) -> Result<u8, WireError> {
        let (byte, rest) = self.0.split_first().ok_or(WireError)?;
        self.0 = rest;
        Ok(*byte)
    }

    fn number(&mut self) -> Result<u64, WireError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(WireError)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn line(&mut self) -> Result<LineNumber, WireError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(WireError)?;
        self.0 = rest;
        Ok(LineNumber(u32::from_le_bytes(*number)))
    }

    fn some(&mut self, bytes: usize) -> Result<&'a [u8], WireError> {
        let (some, rest) = self.0.split_at_checked(bytes).ok_or(WireError)?;
        self.0 = rest;
        Ok(some)
    }

    fn all(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}

impl Refusal {
    fn code(self) -> u8 {
        match self {
            Refusal::Secret => 1,
            Refusal::Stale => 2,
            Refusal::TooManyLines => 3,
            Refusal::Version => 4,
        }
    }

    fn from_code(code: u8) -> Option<Refusal> {
        [Refusal::Secret, Refusal::Stale, Refusal::TooManyLines, Refusal::Version]
            .into_iter()
            .find(|why| why.code() == code)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Refusal::Secret => "the shared secret is another one; give both sides the same file",
            Refusal::Stale => {
                "a newer connection of the same client name is there; give each client a name of its own"
            }
            Refusal::TooManyLines => "the server has as many agents as its lines-max says",
            Refusal::Version => "the other side has another version of ringmaster-broker",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(message: &Message<'_>) {
        let mut framed = Vec::new();
        message.write(&mut framed);
        let (length, body) = framed.split_first_chunk().unwrap();
        assert_eq!(u32::from_le_bytes(*length) as usize, body.len());
        assert_eq!(Message::parse(body).as_ref(), Ok(message));
    }

    #[test]
    fn messages_come_back() {
        let hello =
            Hello { version: 1, mode: Mode::Gate, incarnation: 7 << 32, name: "site-7", secret: b"\0\xff" };
        round_trip(&Message::Hello(hello));
        for key in ["001", "12345678", "ip-192.0.2.7", "ip-2001:db8::1"] {
            round_trip(&Message::Open { line: LineNumber(3), identity: 9, key: key.parse().unwrap() });
        }
        for code in 1..=255 {
            if let Some(unwell) = Unwell::from_code(code) {
                round_trip(&Message::Health(Err(unwell)));
            }
            if let Some(why) = Refusal::from_code(code) {
                round_trip(&Message::Refused(why));
            }
        }
        round_trip(&Message::Health(Ok(())));
        round_trip(&Message::Ping(u64::MAX));
        round_trip(&Message::Pong(0));
        round_trip(&Message::Shut { line: LineNumber(u32::MAX) });
        let bytes = vec![7; DATAGRAM_BYTES_MAX];
        let (line, sequence) = (LineNumber(1), Sequence(2));
        round_trip(&Message::Packet(Packet { line, sequence, previous: Some(Sequence(1)), bytes: &bytes }));
    }

    #[test]
    fn what_is_refused() {
        let check = |bytes: &[u8]| assert_eq!(Message::parse(bytes), Err(WireError), "{bytes:?}");
        check(b"");
        check(&[0]);
        check(&[11, 0, 0, 0, 0]);
        check(&[7, 0]);
        check(&[6, 200]);
        check(&[10, 0, 0, 0, 0, 0]);
        check(b"\x02\x01\0\0\0\x01\0\0\0\0\0\0\0../../etc");
        check(b"\x01\x01\0\0\0\0\0\0\0\0\0\x04a\nb ");
        check(b"\x01\x01\0\0\0\0\0\0\0\0\0\xffa");
        let mut backwards = vec![3, 0, 0, 0, 0];
        backwards.extend_from_slice(&5u64.to_le_bytes());
        backwards.extend_from_slice(&5u64.to_le_bytes());
        check(&backwards);
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes: Vec<u8>) {
            if let Ok(message) = Message::parse(&bytes) {
                let mut framed = Vec::new();
                message.write(&mut framed);
                prop_assert_eq!(&framed[4..], &bytes[..], "one way to write each message");
            }
        }

        #[test]
        fn packets_come_back(line: u32, sequence in 1u64..u64::MAX, back in 0u64..9, bytes: Vec<u8>) {
            let previous = (back > 0).then(|| Sequence(sequence.saturating_sub(back)));
            let previous = previous.filter(|previous| previous.0 < sequence);
            let (line, sequence) = (LineNumber(line), Sequence(sequence));
            round_trip(&Message::Packet(Packet { line, sequence, previous, bytes: &bytes }));
            round_trip(&Message::Ack { line, sequence });
            round_trip(&Message::Reply { line, bytes: &bytes });
        }
    }
}
