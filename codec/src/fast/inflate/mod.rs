//! Inflate for small messages: one zlib stream of one block, whole stream in, whole text out.
//!
//! A library's inflate is made for megabytes: it makes large tables, and looks for the end of its buffers at each symbol. The
//! 200 symbols of a log line don't pay for such tables. Here they are a quarter as large and filled with wide stores, in
//! the order of their codes; nothing is stored that is not used; and two messages are decoded in one loop, so that
//! one's loads are under way while the other's symbols are looked up.
//!
//! Only what agents send is decoded here: a stream of at most [`STREAM_BYTES_MAX`] bytes, a single block with codes of its
//! own or the fixed ones, at most [`OUTPUT_BYTES_MAX`] bytes of text, in order to its last bit. Everything else is declined,
//! for the library to decode or to refuse: so there is one judge of what is broken, and it's the same for all.

use self::lane::Lane;
use self::lengths::BlockLengths;
use self::symbols::decode;

mod adler;
mod input;
mod lane;
mod lengths;
mod symbols;
mod table;

pub use self::input::STREAM_BYTES_MAX;
pub use self::lane::OUTPUT_BYTES_MAX;

/// Messages decoded in one loop. Three need more registers than there are.
const LANES: usize = 2;

/// Streams to inflate, and a place for what they hold.
pub trait Streams {
    /// The number of places, of which not all need to hold a stream.
    fn count(&self) -> usize;

    /// The stream at `index`, if there is one.
    fn stream(&self, index: usize) -> Option<&[u8]>;

    /// Takes the whole text of the stream at `index`; `None` if it was declined. In no order of the indexes.
    fn done(&mut self, index: usize, text: Option<&[u8]>);
}

/// Inflates small messages. Its tables and buffers, some 20 KiB, are kept from one to the next.
pub struct Inflater {
    lanes: Box<[Lane; LANES]>,
    lengths: Box<BlockLengths>,
}

impl Inflater {
    /// An inflater that has inflated nothing yet.
    pub fn new() -> Inflater {
        Inflater { lanes: Box::new([const { Lane::EMPTY }; LANES]), lengths: Box::new(BlockLengths::EMPTY) }
    }

    /// The whole text of `stream`; `None` if it is declined. Bytes behind the stream are ignored.
    pub fn inflate(&mut self, stream: &[u8]) -> Option<&[u8]> {
        let lane = &mut self.lanes[0];
        lane.begin(stream, &mut self.lengths)?;
        decode_alone(lane)
    }

    /// Inflates all `streams`, two at a time.
    pub fn inflate_batch(&mut self, streams: &mut impl Streams) {
        let mut next = 0;
        // Which stream each lane has.
        let mut at = [None; LANES];
        loop {
            for (lane, at) in self.lanes.iter_mut().zip(&mut at) {
                while at.is_none() && next < streams.count() {
                    *at = begin(lane, &mut self.lengths, streams, next);
                    next += 1;
                }
            }
            if at.contains(&None) {
                break;
            }
            let (stopped, stop) = decode(&mut self.lanes);
            if let Some(index) = at[stopped].take() {
                streams.done(index, self.lanes[stopped].finish(stop));
            }
        }
        for (lane, at) in self.lanes.iter_mut().zip(at) {
            if let Some(index) = at {
                streams.done(index, decode_alone(lane));
            }
        }
    }
}

/// Gives `lane` the stream at `index`; which it then has.
fn begin(
    lane: &mut Lane,
    lengths: &mut BlockLengths,
    streams: &mut impl Streams,
    index: usize,
) -> Option<usize> {
    let begun = lane.begin(streams.stream(index)?, lengths);
    if begun.is_none() {
        streams.done(index, None);
    }
    begun.map(|()| index)
}

fn decode_alone(lane: &mut Lane) -> Option<&[u8]> {
    let (_, stop) = decode(std::array::from_mut(lane));
    lane.finish(stop)
}

impl Default for Inflater {
    fn default() -> Inflater {
        Inflater::new()
    }
}

impl std::fmt::Debug for Inflater {
    /// Nothing of what it inflated.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Inflater(..)")
    }
}

#[cfg(test)]
mod tests;
