//! Messages in a TCP stream: each behind its length.
//!
//! ```text
//! | length: u32, little endian | message: length bytes |        the length leaves itself out
//! ```

use crate::limits::FRAME_BYTES_MAX;
use std::fmt;
use std::ops::Range;

/// Bytes of the length in front of a message.
pub const FRAME_HEADER_BYTES: usize = 4;

/// Memory for parts of frames that a cutter keeps when it is not in use.
const CARRIED_BYTES_KEPT: usize = 4_096;

/// Appends `message` as a frame.
///
/// # Panics
/// If it is larger than [`FRAME_BYTES_MAX`]: no sealed message is.
pub fn frame(message: &[u8], out: &mut Vec<u8>) {
    assert!(message.len() <= FRAME_BYTES_MAX, "a message of {} bytes fits no frame", message.len());
    out.extend_from_slice(&(message.len() as u32).to_le_bytes());
    out.extend_from_slice(message);
}

/// Cuts a stream into messages, however it was split into segments.
///
/// A message that lies whole in what was received is used where it is. Only what the segment breaks off in the middle of is
/// copied ("carried"), so at most one message of each cut is a carried one, and it is the first.
#[derive(Debug)]
pub struct FrameCutter {
    limit: u32,
    /// The beginning of a frame, header included; never a whole one.
    partial: Vec<u8>,
    /// The carried message that the last cut completed, with its header; empty if none.
    completed: Vec<u8>,
    failed: Option<FrameError>,
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameAt {
    /// In [`FrameCutter::carried`], until the next cut.
    Carried,
    /// In what was received.
    Received(Range<usize>),
}

impl FrameCutter {
    /// A cutter for a new stream that refuses messages of more than `limit` bytes, before any of them is kept.
    ///
    /// # Panics
    /// If `limit` is above [`FRAME_BYTES_MAX`].
    pub fn new(limit: usize) -> FrameCutter {
        assert!(limit <= FRAME_BYTES_MAX, "no frame of {limit} bytes is ever taken");
        FrameCutter { limit: limit as u32, partial: Vec::new(), completed: Vec::new(), failed: None }
    }

    /// Takes the next bytes of the stream and appends to `frames` the messages that they complete, in order.
    ///
    /// # Errors
    /// If a length is over the limit. What was appended before it is good; the stream is lost, and so every later cut
    /// fails too.
    pub fn cut(&mut self, received: &[u8], frames: &mut Vec<FrameAt>) -> Result<(), FrameError> {
        self.completed.clear();
        self.completed.shrink_to(CARRIED_BYTES_KEPT);
        if let Some(error) = self.failed {
            return Err(error);
        }
        let mut at = match self.complete_carried(received, frames) {
            Ok(Some(at)) => at,
            Ok(None) => return Ok(()),
            Err(error) => return Err(self.fail(error)),
        };
        while let Some((header, rest)) = received[at..].split_first_chunk() {
            let length = self.length(*header).map_err(|error| self.fail(error))?;
            if rest.len() < length {
                break;
            }
            let start = at + FRAME_HEADER_BYTES;
            frames.push(FrameAt::Received(start..start + length));
            at = start + length;
        }
        self.partial.extend_from_slice(&received[at..]);
        Ok(())
    }

    /// The message that [`FrameAt::Carried`] of the last cut stands for.
    pub fn carried(&self) -> &[u8] {
        self.completed.get(FRAME_HEADER_BYTES..).unwrap_or_default()
    }

    /// How many bytes of an unfinished frame are held.
    pub fn carried_bytes(&self) -> usize {
        self.partial.len()
    }

    /// Completes what was carried; tells how much of `received` that took, or `None` if all of it was not enough.
    fn complete_carried(
        &mut self,
        received: &[u8],
        frames: &mut Vec<FrameAt>,
    ) -> Result<Option<usize>, FrameError> {
        if self.partial.is_empty() {
            return Ok(Some(0));
        }
        let mut at = self.carry(received, 0, FRAME_HEADER_BYTES);
        let Some(header) = self.partial.first_chunk().copied() else { return Ok(None) };
        let whole = FRAME_HEADER_BYTES + self.length(header)?;
        at = self.carry(received, at, whole);
        if self.partial.len() < whole {
            return Ok(None);
        }
        std::mem::swap(&mut self.partial, &mut self.completed);
        frames.push(FrameAt::Carried);
        Ok(Some(at))
    }

    /// Moves bytes of `received` from `at` on into `partial`, until that has `length`; tells where it stopped.
    fn carry(&mut self, received: &[u8], at: usize, length: usize) -> usize {
        let missing = length.saturating_sub(self.partial.len());
        let end = received.len().min(at + missing);
        self.partial.extend_from_slice(&received[at..end]);
        end
    }

    fn length(&self, header: [u8; FRAME_HEADER_BYTES]) -> Result<usize, FrameError> {
        let length = u32::from_le_bytes(header);
        if length > self.limit {
            return Err(FrameError { length, limit: self.limit });
        }
        Ok(length as usize)
    }

    fn fail(&mut self, error: FrameError) -> FrameError {
        self.failed = Some(error);
        self.partial = Vec::new();
        error
    }
}

/// A length over the limit: an error, an attack, or another protocol. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    /// The length that was announced, in bytes.
    pub length: u32,
    /// The limit, in bytes.
    pub limit: u32,
}

impl fmt::Display for FrameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameError { length, limit } = self;
        write!(
            formatter,
            "a frame of {length} bytes was announced, but {limit} is the most; closing the connection"
        )
    }
}

impl std::error::Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The messages that `segments` bring.
    fn messages(cutter: &mut FrameCutter, segments: &[&[u8]]) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
        let mut messages = Vec::new();
        for segment in segments {
            let mut frames = Vec::new();
            let outcome = cutter.cut(segment, &mut frames);
            messages.extend(frames.into_iter().map(|frame| match frame {
                FrameAt::Carried => cutter.carried().to_vec(),
                FrameAt::Received(range) => segment[range].to_vec(),
            }));
            if outcome.is_err() {
                return (messages, outcome);
            }
        }
        (messages, Ok(()))
    }

    #[test]
    fn an_announced_giant_is_refused_before_it_is_kept() {
        let mut cutter = FrameCutter::new(6_144);
        let (before, outcome) = messages(&mut cutter, &[b"\x01\0\0\0a\x01\x18\0\0bcd"]);
        assert_eq!(before, [b"a"]);
        assert_eq!(outcome, Err(FrameError { length: 6_145, limit: 6_144 }));
        assert_eq!(cutter.carried_bytes(), 0);
        assert!(cutter.cut(b"\x01\0\0\0a", &mut Vec::new()).is_err(), "a lost stream stays lost");
        let split = messages(&mut FrameCutter::new(10), &[b"\xff", b"\xff\xff", b"\xffrest"]);
        assert_eq!(split, (vec![], Err(FrameError { length: u32::MAX, limit: 10 })));
    }

    #[test]
    fn empty_messages_are_messages() {
        let (cut, outcome) = messages(&mut FrameCutter::new(10), &[b"\0\0\0\0\0\0", b"\0\0\x01\0\0\0x"]);
        assert_eq!((cut, outcome), (vec![vec![], vec![], b"x".to_vec()], Ok(())));
    }

    #[test]
    fn nothing_large_is_kept_when_idle() {
        let mut cutter = FrameCutter::new(FRAME_BYTES_MAX);
        let mut stream = Vec::new();
        frame(&[7; FRAME_BYTES_MAX], &mut stream);
        let (cut, outcome) = messages(&mut cutter, &[&stream[..60_000], &stream[60_000..], b"", b""]);
        assert_eq!((cut, outcome), (vec![vec![7; FRAME_BYTES_MAX]], Ok(())));
        assert_eq!(cutter.carried_bytes(), 0);
        assert!(cutter.partial.capacity() + cutter.completed.capacity() <= 2 * CARRIED_BYTES_KEPT);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_messages(
            sent in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
            cuts in prop::collection::vec(0_usize..8, 1..200),
        ) {
            let mut stream = Vec::new();
            for message in &sent {
                frame(message, &mut stream);
            }
            let mut segments = Vec::new();
            let mut rest = &stream[..];
            let mut cuts = cuts.iter().cycle();
            let mut zeros = 0;
            while !rest.is_empty() {
                let length = (*cuts.next().unwrap()).min(rest.len());
                zeros += usize::from(length == 0);
                let (segment, after) = rest.split_at(if zeros > 100 { rest.len() } else { length });
                segments.push(segment);
                rest = after;
            }
            let mut cutter = FrameCutter::new(40);
            prop_assert_eq!(messages(&mut cutter, &segments), (sent, Ok(())));
            prop_assert_eq!(cutter.carried_bytes(), 0);
        }
    }
}
