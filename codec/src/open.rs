//! Opening received messages, a batch at a time.

use self::inflate::Inflate;
use self::scratch::{Scratch, Span};
use crate::cipher::{AesDialect, BLOWFISH_BLOCK_BYTES, Cipher, CipherKey, Method};
use crate::digest::HexDigest;
use crate::fast::md5::Digester;
use crate::limits::{BODY_BYTES_MIN, DIGEST_BYTES, MESSAGE_BYTES_MAX};
use crate::message::Counter;
use crate::text::{all_digits, decimal};
use md5::{Digest, Md5};
use std::fmt;
use std::ops::Range;

mod inflate;
mod old_format;
mod scratch;

/// Messages that are decrypted and inflated before the next ones are looked at. Inflating them takes longer than it takes to
/// fetch the next ones' Blowfish tables; and fewer would leave inflate,
/// which works on two at a time, more often with one.
const ABREAST: usize = 8;

/// What an [`Opener`] accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSettings {
    /// Largest message, and largest body after inflating: 65,536, or 6,144 to be as strict as OSSEC.
    pub message_bytes_max: usize,
    /// Whether messages without compression, which nobody has sent for fifteen years, are opened.
    pub old_format: bool,
}

impl Default for OpenSettings {
    fn default() -> OpenSettings {
        OpenSettings { message_bytes_max: MESSAGE_BYTES_MAX, old_format: false }
    }
}

/// A received message and the key of the agent that it claims to be from.
#[derive(Clone, Copy, Debug)]
pub struct Sealed<'a> {
    /// The agent's key.
    pub key: &'a CipherKey,
    /// The message from its `:` or `#AES:` on ([`crate::classify`]).
    pub bytes: &'a [u8],
    /// The method of the agent's last message. A wrong one costs time only.
    pub method_hint: Option<Method>,
}

/// What a message said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// How it was encrypted: the hint for the agent's next one, and the way to answer it.
    pub method: Method,
    /// The five digits of the sender's choice; 0 in the old format.
    pub random: u32,
    /// The sender's number for it; for the caller to compare with the last.
    pub counter: Counter,
    /// The text. It may be empty and hold any byte.
    pub text: &'a [u8],
}

/// Opens messages: decrypts and inflates a few abreast, then compares the digests of the whole batch.
///
/// Its memory is kept from batch to batch, so that opening allocates nothing once it has grown; at most
/// `4 * batch * message_bytes_max` bytes are in use, and two MiB stay. A message never sees bytes of another one.
pub struct Opener {
    settings: OpenSettings,
    inflate: Inflate,
    plain: Scratch,
    bodies: Scratch,
    slots: Vec<Slot>,
    digester: Digester,
    digests: Vec<[u8; 16]>,
}

/// One message on its way through the stages. After `decrypt`, `at` is its place in `plain`; after `inflate`, in `bodies`.
#[derive(Clone, Copy)]
struct Slot {
    method: Method,
    form: Form,
    at: Span,
    outcome: Result<Numbers, OpenError>,
}

#[derive(Clone, Copy)]
struct Numbers {
    random: u32,
    counter: Counter,
}

/// How a plain text begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Compressed,
    Old,
}

impl Opener {
    /// An opener that has opened nothing yet.
    pub fn new(settings: OpenSettings) -> Opener {
        Opener {
            settings,
            inflate: Inflate::new(),
            plain: Scratch::default(),
            bodies: Scratch::default(),
            slots: Vec::new(),
            digester: Digester::new(),
            digests: Vec::new(),
        }
    }

    /// Opens the messages of a batch. Each has its own result, in its own place; none affects another.
    ///
    /// Source: ossec-hids 4.3.0 and wazuh v4.14.7 `os_crypto/shared/msgs.c`, `ReadSecMSG`.
    pub fn open<'o>(&'o mut self, batch: &[Sealed<'_>]) -> OpenedBatch<'o> {
        self.plain.clear();
        self.bodies.clear();
        self.slots.clear();
        for start in (0..batch.len()).step_by(ABREAST) {
            let end = batch.len().min(start + ABREAST);
            for sealed in &batch[start..end] {
                let slot = self.decrypt(sealed);
                self.slots.push(slot);
            }
            self.inflate(start..end);
        }
        self.verify_all();
        for (index, sealed) in batch.iter().enumerate() {
            self.try_other_dialect(index, sealed);
        }
        debug_assert_eq!(self.slots.len(), batch.len(), "every message has its slot");
        OpenedBatch { opener: self }
    }

    fn decrypt(&mut self, sealed: &Sealed<'_>) -> Slot {
        let (cipher, ciphertext) = match token(sealed.bytes) {
            Ok(parts) if sealed.bytes.len() <= self.settings.message_bytes_max => parts,
            Ok(_) => return Slot::failed(OpenError::TooLarge),
            Err(error) => return Slot::failed(error),
        };
        match cipher {
            Cipher::Blowfish => self.decrypt_blowfish(sealed.key, ciphertext),
            Cipher::Aes => {
                let (first, second) = dialects(sealed.method_hint);
                let slot = self.decrypt_aes(sealed.key, ciphertext, first);
                if slot.outcome.is_ok() {
                    return slot;
                }
                let other = self.decrypt_aes(sealed.key, ciphertext, second);
                match other.outcome {
                    Ok(_) | Err(OpenError::OldFormat) => other,
                    Err(_) => slot,
                }
            }
        }
    }

    fn decrypt_blowfish(&mut self, key: &CipherKey, ciphertext: &[u8]) -> Slot {
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(BLOWFISH_BLOCK_BYTES) {
            return Slot::failed(OpenError::Length);
        }
        key.decrypt_blowfish(ciphertext, self.plain.tail(ciphertext.len()));
        let at = self.plain.take(ciphertext.len());
        self.decrypted(Method::Blowfish, at)
    }

    fn decrypt_aes(&mut self, key: &CipherKey, ciphertext: &[u8], dialect: AesDialect) -> Slot {
        let Some((vector, blocks)) = dialect.split(ciphertext) else {
            return Slot::failed(OpenError::Length);
        };
        let plain = self.plain.tail(blocks.len());
        if !key.decrypt_aes(vector, blocks, plain, |block| form(block).is_some()) {
            return Slot::failed(OpenError::NotAKey);
        }
        let Some(length) = without_padding(plain) else { return Slot::failed(OpenError::NotAKey) };
        let at = self.plain.take(length);
        self.decrypted(dialect.method(), at)
    }

    fn decrypted(&self, method: Method, at: Span) -> Slot {
        match form(self.plain.bytes(at)) {
            Some(Form::Old) if !self.settings.old_format => Slot::failed(OpenError::OldFormat),
            Some(form) => Slot { method, form, at, outcome: Ok(Numbers::NONE) },
            None => Slot::failed(OpenError::NotAKey),
        }
    }

    fn verify_all(&mut self) {
        let Opener { slots, bodies, digester, digests, .. } = self;
        digests.clear();
        digests.resize(slots.len(), [0; 16]);
        digester.digest(
            slots.len(),
            |index| covered(&slots[index], bodies),
            |index, digest| digests[index] = digest,
        );
        for index in 0..self.slots.len() {
            self.verify(index, self.digests[index]);
        }
    }

    fn verify(&mut self, index: usize, digest: [u8; 16]) {
        let slot = &mut self.slots[index];
        if slot.outcome.is_err() {
            return;
        }
        let body = self.bodies.bytes(slot.at);
        let verified = match slot.form {
            Form::Compressed => verify_body(body, digest),
            Form::Old => old_format::verify(body),
        };
        slot.outcome = verified.map(|(numbers, text)| {
            slot.at = Span { start: slot.at.start + text.start, length: text.len() };
            numbers
        });
    }

    /// A message in one dialect begins well in the other once in some millions: that one gets its second chance here.
    fn try_other_dialect(&mut self, index: usize, sealed: &Sealed<'_>) {
        let slot = self.slots[index];
        let other = match (slot.outcome, slot.method) {
            (Ok(_), _) | (Err(_), Method::Blowfish) => return,
            (Err(_), Method::AesOssec) => AesDialect::Wazuh,
            (Err(_), Method::AesWazuh) => AesDialect::Ossec,
        };
        let Ok((Cipher::Aes, ciphertext)) = token(sealed.bytes) else { return };
        self.slots[index] = self.decrypt_aes(sealed.key, ciphertext, other);
        self.inflate(index..index + 1);
        let digest = Md5::digest(covered(&self.slots[index], &self.bodies));
        self.verify(index, digest.into());
        if self.slots[index].outcome.is_err() {
            self.slots[index] = slot;
        }
    }
}

fn dialects(hint: Option<Method>) -> (AesDialect, AesDialect) {
    match hint {
        Some(Method::AesOssec) => (AesDialect::Ossec, AesDialect::Wazuh),
        Some(Method::AesWazuh | Method::Blowfish) | None => (AesDialect::Wazuh, AesDialect::Ossec),
    }
}

fn token(bytes: &[u8]) -> Result<(Cipher, &[u8]), OpenError> {
    if let Some(ciphertext) = bytes.strip_prefix(b":") {
        Ok((Cipher::Blowfish, ciphertext))
    } else if let Some(ciphertext) = bytes.strip_prefix(b"#AES:") {
        Ok((Cipher::Aes, ciphertext))
    } else {
        Err(OpenError::Token)
    }
}

/// What a plain text that begins so can be. A wrong key passes once in a million times; the digest tells.
fn form(plain: &[u8]) -> Option<Form> {
    if old_format::begins_so(plain) {
        return Some(Form::Old);
    }
    let marks = plain.iter().take_while(|byte| **byte == b'!').count();
    let zlib = match plain[marks..] {
        [method, flags, ..] => {
            let deflate = method & 15 == 8 && method >> 4 <= 7;
            deflate && (u16::from(method) << 8 | u16::from(flags)).is_multiple_of(31)
        }
        // The marks fill the block so far that the header can't be seen.
        [] | [_] => true,
    };
    (marks > 0 && zlib).then_some(Form::Compressed)
}

/// The length of a plain text without its PKCS#7 padding; `None` if that is not in order.
fn without_padding(plain: &[u8]) -> Option<usize> {
    let padding_bytes = usize::from(*plain.last()?);
    let length = plain.len().checked_sub(padding_bytes)?;
    let in_order = (1..=16).contains(&padding_bytes)
        && plain[length..].iter().all(|byte| usize::from(*byte) == padding_bytes);
    in_order.then_some(length)
}

/// What a message's digest is taken of; nothing if it has failed, or is in the old format, which sees to that itself.
fn covered<'b>(slot: &Slot, bodies: &'b Scratch) -> &'b [u8] {
    match (slot.outcome, slot.form) {
        (Ok(_), Form::Compressed) => bodies.bytes(slot.at).get(DIGEST_BYTES..).unwrap_or_default(),
        (Err(_), _) | (Ok(_), Form::Old) => &[],
    }
}

fn verify_body(body: &[u8], found: [u8; 16]) -> Result<(Numbers, Range<usize>), OpenError> {
    if body.len() < BODY_BYTES_MIN {
        return Err(OpenError::Malformed);
    }
    let (digest, rest) = body.split_at(DIGEST_BYTES);
    if HexDigest::from_binary(found).as_bytes() != digest {
        return Err(OpenError::Checksum);
    }
    let (random, global, local) = (&rest[..5], &rest[5..15], &rest[16..20]);
    if rest[15] != b':' || rest[20] != b':' || !all_digits(local) {
        return Err(OpenError::Malformed);
    }
    let number = |digits| decimal(digits).ok_or(OpenError::Malformed);
    let counter = Counter { global: number(global)?, local: number(local)? as u16 };
    Ok((Numbers { random: number(random)?, counter }, BODY_BYTES_MIN..body.len()))
}

impl Numbers {
    const NONE: Numbers = Numbers { random: 0, counter: Counter::ZERO };
}

impl Slot {
    fn failed(error: OpenError) -> Slot {
        Slot { method: Method::Blowfish, form: Form::Compressed, at: Span::default(), outcome: Err(error) }
    }
}

impl fmt::Debug for Opener {
    /// Nothing of what it opened.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Opener({:?})", self.settings)
    }
}

/// The results of one batch, by the messages' places in it.
#[derive(Clone, Copy, Debug)]
pub struct OpenedBatch<'o> {
    opener: &'o Opener,
}

impl<'o> OpenedBatch<'o> {
    /// What became of the message at `index`.
    ///
    /// # Errors
    /// If it could not be opened; says why.
    ///
    /// # Panics
    /// If the batch had no such message.
    pub fn get(&self, index: usize) -> Result<Opened<'o>, OpenError> {
        let slot = &self.opener.slots[index];
        let Numbers { random, counter } = slot.outcome?;
        Ok(Opened { method: slot.method, random, counter, text: self.opener.bodies.bytes(slot.at) })
    }

    /// How many messages the batch had.
    pub fn len(&self) -> usize {
        self.opener.slots.len()
    }

    /// Whether the batch had no message.
    pub fn is_empty(&self) -> bool {
        self.opener.slots.is_empty()
    }

    /// The results in the order of the batch.
    pub fn iter(&self) -> impl Iterator<Item = Result<Opened<'o>, OpenError>> + use<'o> {
        let batch = *self;
        (0..batch.len()).map(move |index| batch.get(index))
    }
}

/// Why a message could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OpenError {
    /// The digest is not that of the text.
    Checksum,
    /// The zlib stream is broken or cut off.
    Inflate,
    /// The ciphertext is no whole number of blocks, or there is none.
    Length,
    /// The digest is right but the numbers behind it are none, or the body is too short to hold them.
    Malformed,
    /// It decrypts to nothing that a sender writes: another key, or another dialect.
    NotAKey,
    /// It is in the old format, and that is switched off.
    OldFormat,
    /// It begins neither with `:` nor with `#AES:`.
    Token,
    /// It is larger than the largest message, or would be after inflating.
    TooLarge,
}

impl OpenError {
    /// The number under which OSSEC logs it, for those who search logs for that.
    ///
    /// Source: ossec-hids 4.3.0 `error_messages/error_messages.h`.
    pub fn log_number(self) -> u16 {
        match self {
            OpenError::Length | OpenError::Malformed | OpenError::OldFormat | OpenError::Token => 1403,
            OpenError::NotAKey => 1404,
            OpenError::Checksum => 1406,
            OpenError::Inflate | OpenError::TooLarge => 2202,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            OpenError::Checksum => {
                "the message's checksum does not match; its key in client.keys differs, or it was altered"
            }
            OpenError::Inflate => "the message can't be uncompressed; it was cut off or altered",
            OpenError::Length => "the message is no whole number of cipher blocks; it was cut off",
            OpenError::Malformed => "the message is incorrectly formatted; no known agent writes it so",
            OpenError::NotAKey => {
                "the message was encrypted with another key; compare client.keys on both sides"
            }
            OpenError::OldFormat => {
                "the message is in the format before compression; set old_format to accept it"
            }
            OpenError::Token => {
                "the message has neither ':' nor '#AES:' where its encrypted part should begin"
            }
            OpenError::TooLarge => "the message is larger than message_bytes_max",
        })
    }
}

impl std::error::Error for OpenError {}

#[cfg(test)]
mod tests;
