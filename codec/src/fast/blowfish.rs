//! Blowfish in CBC mode. Decrypting works on several blocks at once: a block alone leaves the processor waiting for the
//! load of each round, sixteen times.

mod pi;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 8;
/// Blocks in flight at once. Fewer leave the processor waiting, more don't fit into its registers.
const BLOCKS_AT_ONCE: usize = 6;
const KEY_BYTES_MIN: usize = 4;
const KEY_BYTES_MAX: usize = 56;
const ROUNDS: usize = 16;

/// A key as the rounds use it: 4,168 bytes, in whole cache lines.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Schedule {
    boxes: [[u32; 256]; 4],
    subkeys: [u32; ROUNDS + 2],
}

const _: () = assert!(size_of::<Schedule>() == 4_224, "66 cache lines");

impl Schedule {
    /// The schedule of a key: 521 encryptions, each of what the one before it wrote.
    ///
    /// # Panics
    /// If the key has less than 4 or more than 56 bytes.
    pub fn new(key: &[u8]) -> Schedule {
        assert!(
            (KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()),
            "Blowfish takes keys of 4 to 56 bytes, not of {}",
            key.len()
        );
        let mut schedule = Schedule { boxes: pi::BOXES, subkeys: pi::SUBKEYS };
        let mut key_bytes = key.iter().cycle();
        for subkey in &mut schedule.subkeys {
            let bytes = [(); 4].map(|()| *key_bytes.next().expect("a cycle of some bytes has no end"));
            *subkey ^= u32::from_be_bytes(bytes);
        }
        let mut block = 0;
        for pair in 0..schedule.subkeys.len() / 2 {
            block = schedule.encrypt_block(block);
            schedule.subkeys[2 * pair] = (block >> 32) as u32;
            schedule.subkeys[2 * pair + 1] = block as u32;
        }
        for substitution in 0..schedule.boxes.len() {
            for pair in 0..schedule.boxes[substitution].len() / 2 {
                block = schedule.encrypt_block(block);
                schedule.boxes[substitution][2 * pair] = (block >> 32) as u32;
                schedule.boxes[substitution][2 * pair + 1] = block as u32;
            }
        }
        schedule
    }

    /// Decrypts `ciphertext` into `plain`.
    ///
    /// # Panics
    /// If the two differ in length, or are no whole number of blocks.
    pub fn decrypt_cbc(&self, vector: [u8; BLOCK_BYTES], ciphertext: &[u8], plain: &mut [u8]) {
        assert_eq!(ciphertext.len(), plain.len(), "a byte of plain text for each of ciphertext");
        let (ciphertext, rest) = ciphertext.as_chunks::<BLOCK_BYTES>();
        assert!(rest.is_empty(), "only whole blocks can be decrypted");
        let (plain, _) = plain.as_chunks_mut::<BLOCK_BYTES>();
        let (groups, ciphertext_rest) = ciphertext.as_chunks::<BLOCKS_AT_ONCE>();
        let (plain_groups, plain_rest) = plain.as_chunks_mut::<BLOCKS_AT_ONCE>();
        let mut before = u64::from_be_bytes(vector);
        for (group, plain_group) in groups.iter().zip(plain_groups) {
            before = self.decrypt_group(before, group, plain_group);
        }
        self.decrypt_rest(before, ciphertext_rest, plain_rest);
    }

    /// Encrypts `plain` in place. Each block waits for the one before it: that is CBC.
    ///
    /// # Panics
    /// If it is no whole number of blocks.
    pub fn encrypt_cbc(&self, vector: [u8; BLOCK_BYTES], plain: &mut [u8]) {
        let (blocks, rest) = plain.as_chunks_mut::<BLOCK_BYTES>();
        assert!(rest.is_empty(), "only whole blocks can be encrypted");
        let mut before = u64::from_be_bytes(vector);
        for block in blocks {
            before = self.encrypt_block(before ^ u64::from_be_bytes(*block));
            *block = before.to_be_bytes();
        }
    }

    /// What is left after the whole groups, in one group of just its size.
    fn decrypt_rest(&self, before: u64, ciphertext: &[[u8; BLOCK_BYTES]], plain: &mut [[u8; BLOCK_BYTES]]) {
        const { assert!(BLOCKS_AT_ONCE == 6, "one arm for each number of blocks that can be left") };
        match ciphertext.len() {
            0 => {}
            1 => self.decrypt_exactly::<1>(before, ciphertext, plain),
            2 => self.decrypt_exactly::<2>(before, ciphertext, plain),
            3 => self.decrypt_exactly::<3>(before, ciphertext, plain),
            4 => self.decrypt_exactly::<4>(before, ciphertext, plain),
            5 => self.decrypt_exactly::<5>(before, ciphertext, plain),
            more => unreachable!("{more} blocks are more than a group"),
        }
    }

    fn decrypt_exactly<const N: usize>(
        &self,
        before: u64,
        ciphertext: &[[u8; BLOCK_BYTES]],
        plain: &mut [[u8; BLOCK_BYTES]],
    ) {
        let ciphertext = ciphertext.first_chunk::<N>().expect("the caller counted them");
        let plain = plain.first_chunk_mut::<N>().expect("there are as many as of ciphertext");
        self.decrypt_group(before, ciphertext, plain);
    }

    /// Decrypts blocks side by side; returns the last one's ciphertext, which the next block is chained to.
    #[inline(always)]
    fn decrypt_group<const N: usize>(
        &self,
        mut before: u64,
        ciphertext: &[[u8; BLOCK_BYTES]; N],
        plain: &mut [[u8; BLOCK_BYTES]; N],
    ) -> u64 {
        let blocks = ciphertext.map(u64::from_be_bytes);
        let mut left = blocks.map(|block| (block >> 32) as u32);
        let mut right = blocks.map(|block| block as u32);
        let ([last, pairs @ ..], _) = self.subkeys.as_chunks::<2>() else {
            unreachable!("there are nine pairs of subkeys")
        };
        for [even, odd] in pairs.iter().rev() {
            for lane in 0..N {
                left[lane] ^= odd;
                right[lane] ^= self.round(left[lane]);
            }
            for lane in 0..N {
                right[lane] ^= even;
                left[lane] ^= self.round(right[lane]);
            }
        }
        for lane in 0..N {
            let block = join(right[lane] ^ last[0], left[lane] ^ last[1]);
            plain[lane] = (block ^ before).to_be_bytes();
            before = blocks[lane];
        }
        before
    }

    fn encrypt_block(&self, block: u64) -> u64 {
        let (mut left, mut right) = ((block >> 32) as u32, block as u32);
        for round in 0..ROUNDS / 2 {
            left ^= self.subkeys[2 * round];
            right ^= self.round(left);
            right ^= self.subkeys[2 * round + 1];
            left ^= self.round(right);
        }
        join(right ^ self.subkeys[ROUNDS + 1], left ^ self.subkeys[ROUNDS])
    }

    #[inline(always)]
    fn round(&self, half: u32) -> u32 {
        let [d, c, b, a] = half.to_le_bytes();
        let [first, second, third, fourth] = &self.boxes;
        (first[usize::from(a)].wrapping_add(second[usize::from(b)]) ^ third[usize::from(c)])
            .wrapping_add(fourth[usize::from(d)])
    }
}

fn join(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl std::fmt::Debug for Schedule {
    /// Nothing of the key.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Schedule(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::blowfish_is_the_crates;
    use proptest::prelude::*;

    #[test]
    fn known_answers() {
        // Eric Young's vectors: one block under a key of eight bytes.
        let check = |key: u64, plain: u64, expected: u64| {
            let schedule = Schedule::new(&key.to_be_bytes());
            let mut bytes = plain.to_be_bytes();
            schedule.encrypt_cbc([0; 8], &mut bytes);
            assert_eq!(u64::from_be_bytes(bytes), expected, "{key:x}");
            let mut again = [0; 8];
            schedule.decrypt_cbc([0; 8], &bytes, &mut again);
            assert_eq!(u64::from_be_bytes(again), plain, "{key:x}");
        };
        check(0, 0, 0x4ef9_9745_6198_dd78);
        check(u64::MAX, u64::MAX, 0x5186_6fd5_b85e_cb8a);
        check(0x0123_4567_89ab_cdef, 0x1111_1111_1111_1111, 0x61f9_c380_2281_b096);
    }

    #[test]
    #[should_panic(expected = "not of 3")]
    fn a_short_key_is_our_mistake() {
        let _ = Schedule::new(b"abc");
    }

    #[test]
    fn every_number_of_blocks() {
        let bytes: Vec<u8> = (0..2_000_u32).map(|index| (index * 167 + index / 256) as u8).collect();
        for length in (0..=bytes.len()).step_by(BLOCK_BYTES) {
            blowfish_is_the_crates(b"a key of the channel", [7; 8], &bytes[..length]);
        }
    }

    proptest! {
        #[test]
        fn ours_is_the_crates(
            key in prop::collection::vec(any::<u8>(), KEY_BYTES_MIN..=KEY_BYTES_MAX), vector: [u8; 8],
            mut bytes in prop::collection::vec(any::<u8>(), 0..=2_000),
        ) {
            bytes.truncate(bytes.len() / BLOCK_BYTES * BLOCK_BYTES);
            blowfish_is_the_crates(&key, vector, &bytes);
        }
    }
}
