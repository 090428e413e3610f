//! Adler-32 of a short text, sixteen bytes at a time.

const MODULUS: u32 = 65_521;
const GROUP: usize = 16;
/// So many groups' sums of sums fit sixteen bits: `255 * 22 * 21 / 2 < 65,536`.
const GROUPS_MAX: usize = 22;

/// The Adler-32 of `bytes`.
pub(super) fn adler32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (1, 0);
    for part in bytes.chunks(GROUP * GROUPS_MAX) {
        (low, high) = append(low, high, part);
    }
    high << 16 | low
}

/// Both sums after `part`: that of the bytes, and that of the first sum after each byte.
fn append(low: u32, high: u32, part: &[u8]) -> (u32, u32) {
    let (groups, rest) = part.as_chunks::<GROUP>();
    // The sum of each column, and the sum of these sums before each group.
    let mut columns = [0_u16; GROUP];
    let mut before = [0_u16; GROUP];
    for group in groups {
        for column in 0..GROUP {
            before[column] += columns[column];
            columns[column] += u16::from(group[column]);
        }
    }
    let (mut sum, mut sum_before, mut weighted) = (0, 0, 0);
    for column in 0..GROUP {
        sum += u32::from(columns[column]);
        sum_before += u32::from(before[column]);
        weighted += u32::from(columns[column]) * (GROUP - column) as u32;
    }
    let mut high = high + (groups.len() * GROUP) as u32 * low + GROUP as u32 * sum_before + weighted;
    let mut low = low + sum;
    for byte in rest {
        low += u32::from(*byte);
        high += low;
    }
    (low % MODULUS, high % MODULUS)
}
