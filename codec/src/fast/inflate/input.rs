//! A stream, held so that both its codes and its numbers are read with one load.

/// Longest stream held.
pub const STREAM_BYTES_MAX: usize = 2_048;
/// Bytes behind a stream that a load may reach.
const SLACK_BYTES: usize = 16;
const LOAD_BYTES: usize = 8;

/// A stream in both orders of bits: deflate writes numbers lowest bit first, but codes highest bit first.
pub(super) struct Input {
    /// As it came: the first bit of each byte is its lowest.
    forward: [u8; STREAM_BYTES_MAX + SLACK_BYTES],
    /// The first bit of each byte is its highest.
    reversed: [u8; STREAM_BYTES_MAX + SLACK_BYTES],
    length: usize,
}

impl Input {
    pub(super) const EMPTY: Input = Input {
        forward: [0; STREAM_BYTES_MAX + SLACK_BYTES],
        reversed: [0; STREAM_BYTES_MAX + SLACK_BYTES],
        length: 0,
    };

    /// Takes the place of the stream before. `None` if `stream` is too long.
    pub(super) fn load(&mut self, stream: &[u8]) -> Option<()> {
        let length = stream.len();
        if length > STREAM_BYTES_MAX {
            return None;
        }
        self.forward[..length].copy_from_slice(stream);
        self.forward[length..length + LOAD_BYTES].fill(0);
        self.length = length;
        let groups = (length + LOAD_BYTES).div_ceil(LOAD_BYTES);
        let (forward, _) = self.forward.as_chunks::<LOAD_BYTES>();
        let (reversed, _) = self.reversed.as_chunks_mut::<LOAD_BYTES>();
        for (to, from) in reversed[..groups].iter_mut().zip(&forward[..groups]) {
            // All bits are reversed, and then the bytes again.
            *to = u64::from_le_bytes(*from).reverse_bits().to_be_bytes();
        }
        Some(())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.forward[..self.length]
    }

    /// The 57 bits or more from bit `position` on, the first one lowest. Past the end, anything.
    #[inline(always)]
    pub(super) fn numbers(&self, position: usize) -> u64 {
        u64::from_le_bytes(load(&self.forward, position >> 3)) >> (position & 7)
    }

    /// The 57 bits or more from bit `position` on, the first one highest. Past the end, anything.
    #[inline(always)]
    pub(super) fn codes(&self, position: usize) -> u64 {
        u64::from_be_bytes(load(&self.reversed, position >> 3)) << (position & 7)
    }

    /// The eight bytes from `at` on, the first bit highest. Past the end, anything.
    #[inline(always)]
    pub(super) fn codes_at(&self, at: usize) -> u64 {
        u64::from_be_bytes(load(&self.reversed, at))
    }
}

/// The mask makes every place one inside; a reader that is past the end finds out by its position.
#[inline(always)]
fn load(bytes: &[u8; STREAM_BYTES_MAX + SLACK_BYTES], at: usize) -> [u8; LOAD_BYTES] {
    let at = at & (STREAM_BYTES_MAX - 1);
    bytes[at..at + LOAD_BYTES].try_into().expect("the slice is as long as the array")
}
