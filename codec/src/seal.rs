//! Making a message to send.

use crate::cipher::{AES_BLOCK_BYTES, AesDialect, BLOWFISH_BLOCK_BYTES, CipherKey, Method};
use crate::digest::HexDigest;
use crate::limits::{
    BODY_BYTES_MIN, DIGEST_BYTES, LOCAL_COUNTER_MAX, MESSAGE_BYTES_MAX, PADDING_BYTES_MAX, TEXT_BYTES_MAX,
};
use crate::message::Envelope;
use flate2::{Compress, Compression, FlushCompress, Status};
use std::fmt;
use std::io::Write;

/// Largest number that five digits write.
const RANDOM_MAX: u32 = 99_999;

/// Makes messages. Keeps its deflate state (some 270 KiB) and its scratch memory from one to the next.
pub struct Sealer {
    deflate: Compress,
    body: Vec<u8>,
    plain: Vec<u8>,
}

impl Sealer {
    /// A sealer at zlib level 9, as the C senders use it.
    pub fn new() -> Sealer {
        Sealer { deflate: Compress::new(Compression::best(), true), body: Vec::new(), plain: Vec::new() }
    }

    /// Appends to `out` the message that says what `envelope` holds.
    ///
    /// Over TCP it still lacks its length ([`crate::frame`]).
    ///
    /// # Errors
    /// If the text is empty or too long; then `out` is as it was.
    ///
    /// # Panics
    /// If the random number has more than five digits or the local counter is above 9,997: the caller's mistake.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/msgs.c`, `CreateSecMSG`.
    pub fn seal(
        &mut self,
        key: &CipherKey,
        envelope: &Envelope<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        assert!(
            envelope.random <= RANDOM_MAX,
            "the random number {} has more than five digits",
            envelope.random
        );
        let local = envelope.counter.local;
        assert!(local <= LOCAL_COUNTER_MAX, "the local counter {local} is past its wrap");
        if envelope.text.is_empty() {
            return Err(SealError::Empty);
        }
        if envelope.text.len() > TEXT_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        self.write_body(envelope);
        self.compress_and_pad();
        let start = out.len();
        write_wire(key, envelope, &self.plain, out);
        if out.len() - start > MESSAGE_BYTES_MAX {
            out.truncate(start);
            return Err(SealError::TooLong);
        }
        Ok(())
    }

    fn write_body(&mut self, envelope: &Envelope<'_>) {
        let counter = envelope.counter;
        self.body.clear();
        self.body.resize(DIGEST_BYTES, 0);
        write!(self.body, "{:05}{:010}:{:04}:", envelope.random, counter.global, counter.local)
            .expect("writing to a Vec can't fail");
        debug_assert_eq!(self.body.len(), BODY_BYTES_MIN);
        self.body.extend_from_slice(envelope.text);
        let digest = HexDigest::of(&self.body[DIGEST_BYTES..]);
        self.body[..DIGEST_BYTES].copy_from_slice(digest.as_bytes());
    }

    /// Leaves in `plain` one to eight exclamation marks and the zlib stream, a multiple of eight together.
    fn compress_and_pad(&mut self) {
        // Deflate falls back to stored blocks, whose headers are far less than an eighth of what they hold.
        let stream_bytes_max = self.body.len() + self.body.len() / 8 + 64;
        self.plain.clear();
        self.plain.resize(PADDING_BYTES_MAX + stream_bytes_max, b'!');
        self.deflate.reset();
        let status =
            self.deflate.compress(&self.body, &mut self.plain[PADDING_BYTES_MAX..], FlushCompress::Finish);
        assert!(
            matches!(status, Ok(Status::StreamEnd)),
            "the output holds any deflate stream of the input: {status:?}"
        );
        let stream_bytes = usize::try_from(self.deflate.total_out()).expect("the output was a slice");
        let padding_bytes = PADDING_BYTES_MAX - stream_bytes % BLOWFISH_BLOCK_BYTES;
        self.plain.truncate(PADDING_BYTES_MAX + stream_bytes);
        self.plain.drain(..PADDING_BYTES_MAX - padding_bytes);
    }
}

/// Encrypts a plain text that is a multiple of eight bytes, and puts in front of it what the method and the prefix need.
pub(crate) fn write_wire(key: &CipherKey, envelope: &Envelope<'_>, plain: &[u8], out: &mut Vec<u8>) {
    if let Some(id) = envelope.id_prefix {
        out.push(b'!');
        out.extend_from_slice(id.as_bytes());
        out.push(b'!');
    }
    out.extend_from_slice(envelope.method.token());
    let mut start = out.len();
    let vector = match envelope.method {
        Method::Blowfish => {
            out.extend_from_slice(plain);
            key.encrypt_blowfish(&mut out[start..]);
            return;
        }
        Method::AesWazuh => AesDialect::WAZUH_VECTOR,
        Method::AesOssec => {
            out.extend_from_slice(&envelope.initialization_vector);
            start = out.len();
            envelope.initialization_vector
        }
    };
    out.extend_from_slice(plain);
    let padding_bytes = AES_BLOCK_BYTES - plain.len() % AES_BLOCK_BYTES;
    out.resize(out.len() + padding_bytes, padding_bytes as u8);
    key.encrypt_aes(vector, &mut out[start..]);
}

impl Default for Sealer {
    fn default() -> Sealer {
        Sealer::new()
    }
}

impl fmt::Debug for Sealer {
    /// Nothing of what it sealed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sealer(..)")
    }
}

/// Why a text can't be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// There is no text. The C receivers take it for an error.
    Empty,
    /// The text, or the message that it makes, is larger than any receiver takes.
    TooLong,
}

impl fmt::Display for SealError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SealError::Empty => formatter.write_str("an empty text can't be sent"),
            SealError::TooLong => {
                write!(formatter, "the text is too long; send at most {TEXT_BYTES_MAX} bytes")
            }
        }
    }
}

impl std::error::Error for SealError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Counter;

    fn envelope(text: &[u8]) -> Envelope<'_> {
        Envelope {
            id_prefix: None,
            method: Method::AesOssec,
            random: 0,
            counter: Counter { global: 0, local: 1 },
            initialization_vector: [7; 16],
            text,
        }
    }

    #[test]
    fn refused_texts_leave_the_output_alone() {
        let key = CipherKey::new("web01", "001", "key");
        let mut sealer = Sealer::new();
        let mut out = b"before".to_vec();
        assert_eq!(sealer.seal(&key, &envelope(b""), &mut out), Err(SealError::Empty));
        assert_eq!(
            sealer.seal(&key, &envelope(&[b'a'; TEXT_BYTES_MAX + 1]), &mut out),
            Err(SealError::TooLong)
        );
        let mut noise = 1_u64;
        let incompressible: Vec<u8> = (0..TEXT_BYTES_MAX)
            .map(|_| {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (noise >> 56) as u8
            })
            .collect();
        assert_eq!(out, b"before");
        assert_eq!(sealer.seal(&key, &envelope(&incompressible), &mut Vec::new()), Ok(()));
        assert_eq!(sealer.seal(&key, &envelope(&[b'a'; TEXT_BYTES_MAX]), &mut out), Ok(()));
        assert!(out.starts_with(b"before#AES:\x07\x07"));
    }

    #[test]
    fn one_to_eight_marks_make_a_multiple_of_eight() {
        let mut sealer = Sealer::new();
        let mut seen = [false; PADDING_BYTES_MAX + 1];
        for length in 1..300 {
            let text: Vec<u8> = (0..length).map(|index| (index * 7 + index * index / 3) as u8).collect();
            sealer.write_body(&envelope(&text));
            sealer.compress_and_pad();
            let marks = sealer.plain.iter().take_while(|byte| **byte == b'!').count();
            assert_eq!((sealer.plain.len() % 8, sealer.plain[marks]), (0, 0x78), "{length}");
            seen[marks] = true;
        }
        assert_eq!(seen, [false, true, true, true, true, true, true, true, true]);
    }

    #[test]
    #[should_panic(expected = "past its wrap")]
    fn a_counter_past_its_wrap_is_our_mistake() {
        let counter = Counter { global: 0, local: LOCAL_COUNTER_MAX + 1 };
        let envelope = Envelope { counter, ..envelope(b"x") };
        let _ = Sealer::new().seal(&CipherKey::new("a", "1", "k"), &envelope, &mut Vec::new());
    }
}
