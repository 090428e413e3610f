//! The sizes of the channel, in bytes. Each is a limit of the C programs or of ours, and says whose.

/// Largest message on the wire, and largest body after inflating. Source: wazuh v4.14.7 `headers/defs.h`, `OS_MAXSTR`.
pub const MESSAGE_BYTES_MAX: usize = 65_536;

/// The same in OSSEC. Source: ossec-hids 4.3.0 `headers/defs.h`, `OS_MAXSTR`.
pub const MESSAGE_BYTES_MAX_OSSEC: usize = 6_144;

/// Largest text that Wazuh's sender takes.
/// Source: wazuh v4.14.7 `os_crypto/shared/msgs.c`, `CreateSecMSG`: `OS_MAXSTR` less `OS_HEADER_SIZE`.
pub const TEXT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 128;

/// Largest text that OSSEC's sender takes. Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `CreateSecMSG`.
pub const TEXT_BYTES_MAX_OSSEC: usize = MESSAGE_BYTES_MAX_OSSEC - 128;

/// The md5 in hexadecimal digits that a body begins with.
pub const DIGEST_BYTES: usize = 32;

/// Random number (5), global counter (10), `:`, local counter (4), `:`.
pub const BODY_HEADER_BYTES: usize = 21;

/// A body without text. Shorter ones are malformed.
pub const BODY_BYTES_MIN: usize = DIGEST_BYTES + BODY_HEADER_BYTES;

/// Most exclamation marks that a sender writes in front of the zlib stream. A receiver takes any number.
pub const PADDING_BYTES_MAX: usize = 8;

/// Largest frame of a TCP stream, without its length. Source: wazuh v4.14.7 `remoted/netbuffer.c`.
pub const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// What an OSSEC agent reads of one datagram from its manager: never send it more in one message over UDP.
/// Source: ossec-hids 4.3.0 `client-agent/receiver.c`.
pub const DATAGRAM_TO_AGENT_BYTES_MAX: usize = 1_024;

/// Bytes of a shared file in one message. Source: ossec-hids 4.3.0 `remoted/manager.c`, `send_file_toagent`.
pub const FILE_CHUNK_BYTES: usize = 900;

/// Digits of an agent's id. Source: ossec-hids 4.3.0 `addagent/validate.c`.
pub const AGENT_ID_BYTES_MAX: usize = 8;

/// Longest agent name that client.keys may hold; the C programs cut longer ones, and so derive another key.
/// Source: ossec-hids 4.3.0 `os_crypto/shared/keys.c`, `OS_ReadKeys`.
pub const AGENT_NAME_BYTES_MAX: usize = 127;

/// Longest key that client.keys may hold; the C programs cut longer ones. Source: as above.
pub const KEY_BYTES_MAX: usize = 127;

/// Longest line of client.keys. Source: ossec-hids 4.3.0 `headers/defs.h`, `OS_BUFFER_SIZE`.
pub const KEY_LINE_BYTES_MAX: usize = 2_048;

/// Last local counter before the global one moves. Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `CreateSecMSG`.
pub const LOCAL_COUNTER_MAX: u16 = 9_997;

/// Largest datagram to OSSEC's queue socket, its closing NUL included. Source: ossec-hids 4.3.0 `shared/mq_op.c`, `SendMSG`.
pub const QUEUE_DATAGRAM_BYTES_MAX_OSSEC: usize = MESSAGE_BYTES_MAX_OSSEC;

/// Largest datagram to Wazuh's queue socket, its closing NUL included. Source: wazuh v4.14.7 `shared/mq_op.c`, `SendMSGAction`.
pub const QUEUE_DATAGRAM_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

/// Longest header of the PROXY protocol that is taken, version 2's additions included.
pub const PROXY_HEADER_BYTES_MAX: usize = 4_096;

const _: () = assert!(BODY_BYTES_MIN == 53);
const _: () = assert!(TEXT_BYTES_MAX_OSSEC == 6_016);
const _: () = assert!(TEXT_BYTES_MAX + BODY_BYTES_MIN <= MESSAGE_BYTES_MAX);
const _: () = assert!(FILE_CHUNK_BYTES < DATAGRAM_TO_AGENT_BYTES_MAX);
