//! What the C managers do to open one message, rebuilt from the same crates as ours: the order of work and its waste are
//! theirs, the building blocks are as good as ours. Not their code, and kinder to them than they are: zlib-rs in place of
//! zlib.
//!
//! Source: ossec-hids 4.3.0 and wazuh v4.14.7 `os_crypto/shared/msgs.c`, `ReadSecMSG`; `os_crypto/blowfish/bf_op.c`;
//! `os_crypto/aes/aes_op.c`; `os_zlib/os_zlib.c`; wazuh v4.14.7 `remoted/secure.c`, `HandleSecureMessage`.

use std::hint::black_box;
use std::sync::Mutex;

use aes::Aes256Dec;
use aes::cipher::array::Array;
use aes::cipher::{BlockModeDecrypt, InnerIvInit, KeyInit, KeyIvInit};
use blowfish::Blowfish;
use codec::{CipherKey, HexDigest, Method};
use flate2::{Decompress, FlushDecompress, Status};
use md5::{Digest, Md5};

/// Bytes of each of their buffers.
const BUFFER_BYTES: usize = 65_536;
/// What a body begins with before its text: digest, random number, counters.
const HEADER_BYTES: usize = 53;
const DIGEST_BYTES: usize = 32;
const BLOWFISH_VECTOR: [u8; 8] = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];
const WAZUH_VECTOR: [u8; 16] = *b"FEDCBA0987654321";

/// A reader that works as ossec-remoted's: the key's schedule made for each message, zlib set up anew for each message, one
/// message at a time.
pub struct OssecReader {
    plain: Vec<u8>,
    body: Vec<u8>,
}

/// A reader that works as wazuh-remoted's: as OSSEC's; and 64-KiB buffers cleared four times a message, one lock taken for
/// it, and two allocations.
pub struct WazuhReader {
    reader: OssecReader,
    key_store: Mutex<u64>,
    spare: [Vec<u8>; 2],
}

impl Default for OssecReader {
    fn default() -> OssecReader {
        OssecReader { plain: vec![0; BUFFER_BYTES], body: vec![0; BUFFER_BYTES] }
    }
}

impl Default for WazuhReader {
    fn default() -> WazuhReader {
        let spare = [vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]];
        WazuhReader { reader: OssecReader::default(), key_store: Mutex::new(0), spare }
    }
}

impl OssecReader {
    /// The text of a message; `None` if it is not sound.
    pub fn open(&mut self, key: &CipherKey, method: Method, message: &[u8]) -> Option<&[u8]> {
        let ciphertext = message.strip_prefix(method.token())?;
        let plain = match method {
            Method::Blowfish => self.decrypt_blowfish(key, ciphertext)?,
            Method::AesOssec => {
                let (vector, blocks) = ciphertext.split_first_chunk::<16>()?;
                self.decrypt_aes(key, *vector, blocks)?
            }
            Method::AesWazuh => self.decrypt_aes(key, WAZUH_VECTOR, ciphertext)?,
        };
        let marks = self.plain[..plain].iter().take_while(|byte| **byte == b'!').count();
        let mut inflate = Decompress::new(true);
        let stream = &self.plain[marks..plain];
        let status = inflate.decompress(stream, &mut self.body, FlushDecompress::Finish).ok()?;
        let body = &self.body[..usize::try_from(inflate.total_out()).ok()?];
        if status != Status::StreamEnd || body.len() < HEADER_BYTES {
            return None;
        }
        let digest = Md5::digest(&body[DIGEST_BYTES..]);
        let digest = HexDigest::from_binary(digest.into());
        (digest.as_bytes() == &body[..DIGEST_BYTES]).then(|| &body[HEADER_BYTES..])
    }

    fn decrypt_blowfish(&mut self, key: &CipherKey, ciphertext: &[u8]) -> Option<usize> {
        let plain = self.plain.get_mut(..ciphertext.len())?;
        plain.copy_from_slice(ciphertext);
        let schedule: Blowfish = Blowfish::new_from_slice(key.derived().as_bytes()).ok()?;
        let (blocks, _) = Array::slice_as_chunks_mut(plain);
        cbc::Decryptor::inner_iv_init(&schedule, &Array(BLOWFISH_VECTOR)).decrypt_blocks(blocks);
        Some(ciphertext.len())
    }

    fn decrypt_aes(&mut self, key: &CipherKey, vector: [u8; 16], ciphertext: &[u8]) -> Option<usize> {
        let plain = self.plain.get_mut(..ciphertext.len())?;
        plain.copy_from_slice(ciphertext);
        let key = key.derived().as_bytes().first_chunk::<32>()?;
        let (blocks, _) = Array::slice_as_chunks_mut(plain);
        cbc::Decryptor::<Aes256Dec>::new(key.into(), &vector.into()).decrypt_blocks(blocks);
        ciphertext.len().checked_sub(usize::from(*plain.last()?))
    }
}

impl WazuhReader {
    /// The text of a message; `None` if it is not sound.
    pub fn open(&mut self, key: &CipherKey, method: Method, message: &[u8]) -> Option<&[u8]> {
        let received = black_box(message.to_vec());
        let queued = black_box(received.clone());
        *black_box(&self.key_store).lock().ok()? += 1;
        for buffer in [&mut self.reader.plain, &mut self.reader.body].into_iter().chain(&mut self.spare) {
            black_box(buffer).fill(0);
        }
        self.reader.open(key, method, &queued)
    }
}

#[cfg(test)]
mod tests {
    use codec::{OpenSettings, Opener, Sealed};

    use super::*;
    use crate::{fleet_keys, rotation};

    #[test]
    fn they_read_what_ours_reads() {
        let keys = fleet_keys(3);
        let (mut ossec, mut wazuh) = (OssecReader::default(), WazuhReader::default());
        let mut opener = Opener::new(OpenSettings::default());
        for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
            for text_bytes in [40, 200, 6_000] {
                for message in &rotation(&keys, method, text_bytes, 1)[..50] {
                    let (key, bytes) = (&keys[message.agent], &message.bytes[..]);
                    let opened = opener.open(&[Sealed { key, bytes, method_hint: None }]);
                    let text = opened.get(0).unwrap().text;
                    assert_eq!(ossec.open(key, method, bytes), Some(text));
                    assert_eq!(wazuh.open(key, method, bytes), Some(text));
                }
            }
        }
    }

    #[test]
    fn they_refuse_another_agents_message() {
        let keys = fleet_keys(2);
        for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
            let messages = rotation(&keys, method, 200, 1);
            let stranger = messages.iter().find(|message| message.agent == 1).unwrap();
            assert_eq!(OssecReader::default().open(&keys[0], method, &stranger.bytes), None);
        }
    }
}
