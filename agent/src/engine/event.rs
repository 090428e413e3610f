//! A collector's datagram.

use codec::limits::TEXT_BYTES_MAX_OSSEC;

/// What became of a collector's datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Taken {
    /// It is in the spool.
    Kept,
    /// There is no room: whoever has it waits.
    Full,
    /// It is no event.
    Refused(Refusal),
}

/// Why a datagram is no event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It would be taken for a word of the agent itself.
    Control,
    /// There is nothing before its first NUL.
    Empty,
    /// It is longer than 6,016 bytes.
    TooLong,
}

impl Refusal {
    /// For a log.
    pub fn text(self) -> &'static str {
        match self {
            Refusal::Control => "an event that begins with '#!-' would be a control message: refused",
            Refusal::Empty => "an empty event: refused",
            Refusal::TooLong => "an event is longer than the 6,016 bytes that a manager takes: refused",
        }
    }
}

/// The event in a datagram.
///
/// Source: ossec-hids 4.3.0 `client-agent/event-forward.c`, `EventForward`: a NUL ends it.
pub(super) fn text(datagram: &[u8]) -> Result<&[u8], Refusal> {
    let end = datagram.iter().position(|byte| *byte == 0).unwrap_or(datagram.len());
    let text = &datagram[..end];
    if text.is_empty() {
        Err(Refusal::Empty)
    } else if text.len() > TEXT_BYTES_MAX_OSSEC {
        Err(Refusal::TooLong)
    } else if codec::is_control(text) {
        Err(Refusal::Control)
    } else {
        Ok(text)
    }
}
