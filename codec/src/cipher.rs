//! Keys and block ciphers of the channel.
//!
//! ```text
//! client.keys:  id  name  address  key
//!
//! derived key   | md5hex(key): 32                        | md5hex(md5hex(name) md5hex(id)): first 15 |   47 characters
//! Blowfish      | all of it: the cipher's key of 376 bits                                            |
//! AES-256       | these 32 characters are the key        |
//! ```

use crate::digest::HexDigest;
use crate::fast::blowfish;
use aes::cipher::array::Array;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use aes::{Aes256Dec, Aes256Enc};
use std::fmt;
use std::hint::black_box;
use std::sync::OnceLock;

/// Bytes of a Blowfish block.
pub(crate) const BLOWFISH_BLOCK_BYTES: usize = blowfish::BLOCK_BYTES;
/// Bytes of an AES block, and of its initialization vector.
pub(crate) const AES_BLOCK_BYTES: usize = 16;

const DERIVED_BYTES: usize = 47;
const AES_KEY_BYTES: usize = 32;
/// Source: ossec-hids 4.3.0 `os_crypto/blowfish/bf_op.c`, `OS_BF_Str`.
const BLOWFISH_VECTOR: [u8; 8] = [0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54, 0x32, 0x10];

/// A cipher of the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-CBC; the token on the wire is `#AES:`.
    Aes,
    /// Blowfish-CBC; the token on the wire is `:`.
    Blowfish,
}

/// How a message is encrypted: the cipher and, for AES, the dialect. The numbers are stable: they are kept in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Method {
    /// Blowfish-CBC with a fixed initialization vector: both products.
    Blowfish = 1,
    /// AES-256-CBC, the initialization vector in front of the ciphertext: OSSEC 4.
    AesOssec = 2,
    /// AES-256-CBC with a fixed initialization vector: Wazuh.
    AesWazuh = 3,
}

impl Method {
    /// The method of this number.
    pub fn from_u8(number: u8) -> Option<Method> {
        match number {
            1 => Some(Method::Blowfish),
            2 => Some(Method::AesOssec),
            3 => Some(Method::AesWazuh),
            _ => None,
        }
    }

    /// The cipher alone.
    pub fn cipher(self) -> Cipher {
        match self {
            Method::Blowfish => Cipher::Blowfish,
            Method::AesOssec | Method::AesWazuh => Cipher::Aes,
        }
    }

    /// What a message begins with, after the id prefix.
    pub fn token(self) -> &'static [u8] {
        match self.cipher() {
            Cipher::Aes => b"#AES:",
            Cipher::Blowfish => b":",
        }
    }
}

impl fmt::Display for Cipher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Cipher::Aes => "aes",
            Cipher::Blowfish => "blowfish",
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Method::Blowfish => "blowfish",
            Method::AesOssec => "aes (ossec)",
            Method::AesWazuh => "aes (wazuh)",
        })
    }
}

/// What one agent and its manager encrypt with. Made once for each agent and kept.
///
/// The Blowfish tables (4 KiB, some microseconds) are made on first use, so that a fleet on AES pays nothing for them; an
/// AES key schedule is cheaper to make for each message than to fetch from memory. The rest is one cache line.
#[repr(align(64))]
pub struct CipherKey {
    derived: [u8; DERIVED_BYTES],
    blowfish: OnceLock<Box<blowfish::Schedule>>,
}

const _: () = assert!(size_of::<CipherKey>() == 64, "one cache line");

impl CipherKey {
    /// The key of the agent that client.keys lists with this name, id and key.
    ///
    /// Source: ossec-hids 4.3.0 `os_crypto/shared/keys.c`, `__chash`.
    pub fn new(name: &str, id: &str, key: &str) -> CipherKey {
        let mut derived = [0; DERIVED_BYTES];
        let (front, back) = derived.split_at_mut(AES_KEY_BYTES);
        front.copy_from_slice(HexDigest::of(key.as_bytes()).as_bytes());
        let mut identity = [0; 64];
        identity[..32].copy_from_slice(HexDigest::of(name.as_bytes()).as_bytes());
        identity[32..].copy_from_slice(HexDigest::of(id.as_bytes()).as_bytes());
        back.copy_from_slice(&HexDigest::of(&identity).as_bytes()[..DERIVED_BYTES - AES_KEY_BYTES]);
        CipherKey { derived, blowfish: OnceLock::new() }
    }

    /// The 47 characters that both ciphers' keys are taken from.
    ///
    /// # Panics
    /// Never: they are hexadecimal digits.
    pub fn derived(&self) -> &str {
        std::str::from_utf8(&self.derived).expect("the derived key is hexadecimal digits")
    }

    /// Has the processor fetch the key itself, while nothing waits for it yet.
    #[inline]
    pub fn touch(&self) {
        black_box(self.derived[0]);
    }

    /// Decrypts whole blocks of Blowfish into `plain`, which is as long.
    pub(crate) fn decrypt_blowfish(&self, ciphertext: &[u8], plain: &mut [u8]) {
        self.blowfish().decrypt_cbc(BLOWFISH_VECTOR, ciphertext, plain);
    }

    /// Encrypts whole blocks with Blowfish in place.
    pub(crate) fn encrypt_blowfish(&self, bytes: &mut [u8]) {
        self.blowfish().encrypt_cbc(BLOWFISH_VECTOR, bytes);
    }

    /// Decrypts whole blocks of AES into `plain`, which is as long, but only the first one if that doesn't begin well;
    /// tells whether it did.
    pub(crate) fn decrypt_aes(
        &self,
        vector: [u8; AES_BLOCK_BYTES],
        ciphertext: &[u8],
        plain: &mut [u8],
        begins_well: impl FnOnce(&[u8]) -> bool,
    ) -> bool {
        let (ciphertext, rest) = Array::slice_as_chunks(ciphertext);
        assert!(rest.is_empty(), "the caller checked that these are whole blocks");
        let (plain, _) = Array::slice_as_chunks_mut(plain);
        let Some((first, others)) = ciphertext.split_first() else { return false };
        let (plain_first, plain_others) = plain.split_first_mut().expect("the plain text is as long");
        let mut decryptor = cbc::Decryptor::<Aes256Dec>::new(&self.aes_key(), &vector.into());
        decryptor.decrypt_block_b2b(first, plain_first);
        let well = begins_well(plain_first);
        if well {
            decryptor.decrypt_blocks_b2b(others, plain_others).expect("the plain text is as long");
        }
        well
    }

    /// Encrypts whole blocks with AES in place.
    pub(crate) fn encrypt_aes(&self, vector: [u8; AES_BLOCK_BYTES], bytes: &mut [u8]) {
        let (blocks, rest) = Array::slice_as_chunks_mut(bytes);
        assert!(rest.is_empty(), "the caller padded these to whole blocks");
        cbc::Encryptor::<Aes256Enc>::new(&self.aes_key(), &vector.into()).encrypt_blocks(blocks);
    }

    fn blowfish(&self) -> &blowfish::Schedule {
        self.blowfish.get_or_init(|| Box::new(blowfish::Schedule::new(&self.derived)))
    }

    fn aes_key(&self) -> Array<u8, aes::cipher::consts::U32> {
        let key: [u8; AES_KEY_BYTES] =
            *self.derived.first_chunk().expect("the derived key is longer than AES's");
        key.into()
    }
}

impl fmt::Debug for CipherKey {
    /// Nothing of the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("CipherKey(..)")
    }
}

/// Where an AES message has its initialization vector.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum AesDialect {
    /// In its first sixteen bytes.
    Ossec,
    /// Nowhere: it is always the same.
    Wazuh,
}

impl AesDialect {
    /// Source: wazuh v4.14.7 `os_crypto/aes/aes_op.c`, `OS_AES_Str`.
    pub(crate) const WAZUH_VECTOR: [u8; AES_BLOCK_BYTES] = *b"FEDCBA0987654321";

    /// The vector and the blocks of a ciphertext. `None` if it has no whole number of blocks, or none at all.
    pub(crate) fn split(self, ciphertext: &[u8]) -> Option<([u8; AES_BLOCK_BYTES], &[u8])> {
        let (vector, blocks) = match self {
            AesDialect::Ossec => {
                let (vector, blocks) = ciphertext.split_first_chunk::<AES_BLOCK_BYTES>()?;
                (*vector, blocks)
            }
            AesDialect::Wazuh => (AesDialect::WAZUH_VECTOR, ciphertext),
        };
        (!blocks.is_empty() && blocks.len().is_multiple_of(AES_BLOCK_BYTES)).then_some((vector, blocks))
    }

    /// The method of a message in this dialect.
    pub(crate) fn method(self) -> Method {
        match self {
            AesDialect::Ossec => Method::AesOssec,
            AesDialect::Wazuh => Method::AesWazuh,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_as_the_vectors_say() {
        let key = CipherKey::new(
            "web01",
            "001",
            "5f7d7f87f8b7b345ebe47bf216c68287eadd46bbd453c0a2e5ad2bd2bca7a828",
        );
        assert_eq!(key.derived(), "346a03a375e06e06dfae71eee08f149b55ca7fce424e2b9");
        assert!(!format!("{key:?}").contains("346a"));
    }

    #[test]
    fn methods_have_stable_numbers() {
        for method in [Method::Blowfish, Method::AesOssec, Method::AesWazuh] {
            assert_eq!(Method::from_u8(method as u8), Some(method));
        }
        assert_eq!(Method::from_u8(0), None);
        assert_eq!(Method::from_u8(4), None);
    }

    #[test]
    fn keys_are_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<CipherKey>();
    }
}
