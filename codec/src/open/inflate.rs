//! The second stage of opening: inflating what was decrypted, two messages at a time.

use super::scratch::{Scratch, Span};
use super::{Form, OpenError, Opener, Slot};
use crate::fast::inflate::{Inflater, Streams};
use flate2::{Decompress, FlushDecompress, Status};
use std::ops::Range;

/// What inflates messages: the kernel for small ones, and the library for those that it declines.
pub(super) struct Inflate {
    small: Inflater,
    any: Decompress,
}

impl Inflate {
    pub(super) fn new() -> Inflate {
        Inflate { small: Inflater::new(), any: Decompress::new(true) }
    }
}

impl Opener {
    /// Inflates the messages of these slots that were decrypted.
    pub(super) fn inflate(&mut self, indexes: Range<usize>) {
        let mut stage = Stage {
            slots: &mut self.slots[indexes],
            plain: &self.plain,
            bodies: &mut self.bodies,
            any: &mut self.inflate.any,
            bytes_max: self.settings.message_bytes_max,
        };
        stage.take_old();
        self.inflate.small.inflate_batch(&mut stage);
    }
}

struct Stage<'o> {
    slots: &'o mut [Slot],
    plain: &'o Scratch,
    bodies: &'o mut Scratch,
    any: &'o mut Decompress,
    bytes_max: usize,
}

impl Stage<'_> {
    /// In the old format the plain text is the body.
    fn take_old(&mut self) {
        for slot in &mut *self.slots {
            match (slot.outcome, slot.form) {
                (Ok(_), Form::Old) => slot.at = self.bodies.append(self.plain.bytes(slot.at)),
                (Err(_), _) | (Ok(_), Form::Compressed) => {}
            }
        }
    }
}

impl Streams for Stage<'_> {
    fn count(&self) -> usize {
        self.slots.len()
    }

    fn stream(&self, index: usize) -> Option<&[u8]> {
        let slot = &self.slots[index];
        match (slot.outcome, slot.form) {
            (Ok(_), Form::Compressed) => Some(behind_marks(self.plain.bytes(slot.at))),
            (Err(_), _) | (Ok(_), Form::Old) => None,
        }
    }

    fn done(&mut self, index: usize, text: Option<&[u8]>) {
        let slot = &mut self.slots[index];
        let body = match text {
            Some(text) if text.len() > self.bytes_max => Err(OpenError::TooLarge),
            Some(text) => Ok(self.bodies.append(text)),
            None => {
                let stream = behind_marks(self.plain.bytes(slot.at));
                inflate_bounded(self.any, stream, self.bodies, self.bytes_max)
            }
        };
        match body {
            Ok(at) => slot.at = at,
            Err(error) => slot.outcome = Err(error),
        }
    }
}

fn behind_marks(plain: &[u8]) -> &[u8] {
    let marks = plain.iter().take_while(|byte| **byte == b'!').count();
    &plain[marks..]
}

/// Inflates `stream` to the end of `bodies`, never past `bytes_max`. Bytes after the stream are ignored.
fn inflate_bounded(
    inflate: &mut Decompress,
    stream: &[u8],
    bodies: &mut Scratch,
    bytes_max: usize,
) -> Result<Span, OpenError> {
    // One byte more than allowed, so that a stream of just the allowed size can reach its end.
    let room_max = bytes_max + 1;
    let mut room = (stream.len() * 8 + 512).min(room_max);
    let mut produced = 0;
    let mut consumed = 0;
    inflate.reset(true);
    loop {
        let output = &mut bodies.tail(room)[produced..];
        let status = inflate
            .decompress(&stream[consumed..], output, FlushDecompress::Finish)
            .map_err(|_| OpenError::Inflate)?;
        consumed = usize::try_from(inflate.total_in()).expect("the input is a slice");
        produced = usize::try_from(inflate.total_out()).expect("the output is a slice");
        if produced > bytes_max {
            return Err(OpenError::TooLarge);
        }
        match status {
            Status::StreamEnd => return Ok(bodies.take(produced)),
            Status::Ok | Status::BufError if produced < room => return Err(OpenError::Inflate),
            Status::Ok | Status::BufError => room = (room * 4).min(room_max),
        }
    }
}
