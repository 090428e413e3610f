//! Memory for the messages of one batch.

/// Scratch memory that a batch may leave behind. What a larger one needed is given back at the next.
pub(super) const SCRATCH_BYTES_KEPT: usize = 1 << 20;

/// A place in a [`Scratch`].
#[derive(Clone, Copy, Default)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) length: usize,
}

/// Memory for the messages of one batch, one behind the other. It keeps its high-water mark, so that growing zeroes a byte
/// once and not for each message; only what was written for a message is ever in a [`Span`].
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) bytes: Vec<u8>,
    used: usize,
}

impl Scratch {
    pub(super) fn clear(&mut self) {
        self.used = 0;
        if self.bytes.len() > SCRATCH_BYTES_KEPT {
            self.bytes.truncate(SCRATCH_BYTES_KEPT);
            self.bytes.shrink_to(SCRATCH_BYTES_KEPT);
        }
    }

    /// The unused `length` bytes behind what is used; [`Scratch::take`] makes a part of them used.
    pub(super) fn tail(&mut self, length: usize) -> &mut [u8] {
        let end = self.used + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[self.used..end]
    }

    pub(super) fn take(&mut self, length: usize) -> Span {
        let span = Span { start: self.used, length };
        self.used += length;
        assert!(self.used <= self.bytes.len(), "only what a tail gave can be taken");
        span
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Span {
        self.tail(bytes.len()).copy_from_slice(bytes);
        self.take(bytes.len())
    }

    pub(super) fn bytes(&self, span: Span) -> &[u8] {
        &self.bytes[span.start..span.start + span.length]
    }
}
