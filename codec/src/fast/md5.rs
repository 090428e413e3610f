//! MD5 over a batch: sixteen messages at once, a lane of the vector registers for each.
//!
//! Each step of MD5 waits for the one before it, so one message alone leaves most of the processor idle whatever is done
//! to it. Lanes have no such wait for one another: eight to a register, and two registers by turns.

use super::cpu;
use md5::{Digest, Md5};

#[cfg(target_arch = "x86_64")]
pub(super) mod lanes;

const DIGEST_BYTES: usize = 16;
const BLOCK_BYTES: usize = 64;
/// What the padding needs of the last block, at least: its first bit, in a byte, and the length.
const PADDING_BYTES_MIN: usize = 9;
/// Messages at once.
pub(super) const LANES: usize = 16;
/// Messages that are worth the lanes, which take as long for one as for all: fewer are done sooner one by one.
const LANES_WORTHWHILE: usize = 3;

/// Which code digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Sixteen lanes with AVX2.
    Lanes,
    /// The crate, one message after the other.
    Portable,
}

impl Path {
    /// The fastest that this processor can take.
    pub fn detect() -> Path {
        if cpu::has_avx2() { Path::Lanes } else { Path::Portable }
    }
}

/// Digests batches. Its memory is kept from batch to batch.
#[derive(Debug)]
pub struct Digester {
    path: Path,
    order: Vec<Place>,
}

/// A message by its size, so that messages of one size share their lanes' time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    blocks: u32,
    index: u32,
}

impl Digester {
    /// A digester on the fastest path of this processor.
    pub fn new() -> Digester {
        Digester::on(Path::detect())
    }

    /// A digester on this path.
    ///
    /// # Panics
    /// If the processor can't take it.
    pub fn on(path: Path) -> Digester {
        assert!(path == Path::Portable || path == Path::detect(), "the processor has no AVX2");
        Digester { path, order: Vec::new() }
    }

    /// Hands `digested` the index and the digest of each of `count` messages, in no particular order.
    ///
    /// # Panics
    /// If there are 2^32 messages, or one has 2^32 blocks.
    pub fn digest<'m>(
        &mut self,
        count: usize,
        message: impl Fn(usize) -> &'m [u8],
        mut digested: impl FnMut(usize, [u8; DIGEST_BYTES]),
    ) {
        match self.path {
            Path::Portable => {
                (0..count).for_each(|index| digested(index, Md5::digest(message(index)).into()));
            }
            Path::Lanes => {
                self.sort(count, &message);
                for places in self.order.chunks(LANES) {
                    let messages =
                        places.iter().map(|place| (place.index as usize, message(place.index as usize)));
                    digest_abreast(messages, &mut digested);
                }
            }
        }
    }

    fn sort<'m>(&mut self, count: usize, message: &impl Fn(usize) -> &'m [u8]) {
        self.order.clear();
        self.order.extend((0..count).map(|index| Place {
            blocks: u32::try_from(blocks(message(index))).expect("a message has less than 2^32 blocks"),
            index: u32::try_from(index).expect("a batch has less than 2^32 messages"),
        }));
        self.order.sort_unstable();
    }
}

/// Digests up to sixteen messages.
fn digest_abreast<'m>(
    messages: impl ExactSizeIterator<Item = (usize, &'m [u8])>,
    digested: &mut impl FnMut(usize, [u8; DIGEST_BYTES]),
) {
    if messages.len() < LANES_WORTHWHILE {
        messages.for_each(|(index, message)| digested(index, Md5::digest(message).into()));
        return;
    }
    let count = messages.len();
    let (mut indices, mut lanes) = ([0; LANES], [&[][..]; LANES]);
    for (lane, (index, message)) in messages.enumerate() {
        (indices[lane], lanes[lane]) = (index, message);
    }
    for (index, digest) in indices.into_iter().zip(cpu::md5_lanes(&lanes)).take(count) {
        digested(index, digest);
    }
}

impl Default for Digester {
    fn default() -> Digester {
        Digester::new()
    }
}

/// The blocks of a message, with its padding.
fn blocks(message: &[u8]) -> usize {
    (message.len() + PADDING_BYTES_MIN).div_ceil(BLOCK_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::md5_is_the_crates;
    use proptest::prelude::*;

    #[test]
    fn every_length_alone_and_in_company() {
        let bytes: Vec<u8> = (0..2_000_u32).map(|index| (index * 167 + index / 256) as u8).collect();
        let messages: Vec<&[u8]> = (0..=bytes.len()).map(|length| &bytes[..length]).collect();
        md5_is_the_crates(&messages);
        for length in 0..=130 {
            md5_is_the_crates(&vec![&bytes[..length]; LANES]);
            // One lane that outlives or is outlived by all others.
            md5_is_the_crates(&[&vec![&bytes[..length]; LANES - 1][..], &[&bytes[..200]]].concat());
            md5_is_the_crates(&[&vec![&bytes[..200]; LANES - 1][..], &[&bytes[..length]]].concat());
        }
    }

    #[test]
    fn every_size_of_a_batch() {
        for count in 0..=3 * LANES {
            let messages: Vec<Vec<u8>> = (0..count).map(|index| vec![index as u8; index * 29]).collect();
            md5_is_the_crates(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }

    #[test]
    fn this_processor_takes_its_path() {
        assert_eq!(Path::detect() == Path::Lanes, cpu::has_avx2());
        assert_eq!(Digester::on(Path::Portable).path, Path::Portable);
    }

    proptest! {
        #[test]
        fn ours_is_the_crates(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..=2_000), 0..40),
        ) {
            md5_is_the_crates(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
    }
}
