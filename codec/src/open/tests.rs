use super::scratch::SCRATCH_BYTES_KEPT;
use super::*;
use crate::envelope::{Wire, classify};
use crate::message::Envelope;
use crate::seal::{Sealer, write_wire};
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

const METHODS: [Method; 3] = [Method::Blowfish, Method::AesOssec, Method::AesWazuh];
const HINTS: [Option<Method>; 4] =
    [None, Some(Method::Blowfish), Some(Method::AesOssec), Some(Method::AesWazuh)];

fn key() -> CipherKey {
    CipherKey::new("web01", "001", "5f7d7f87f8b7b345ebe47bf216c68287")
}

fn opener() -> Opener {
    Opener::new(OpenSettings::default())
}

fn envelope(method: Method, text: &[u8]) -> Envelope<'_> {
    let counter = Counter { global: 7, local: 42 };
    Envelope { id_prefix: None, method, random: 99_999, counter, initialization_vector: [0x5a; 16], text }
}

fn sealed(key: &CipherKey, method: Method, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Sealer::new().seal(key, &envelope(method, text), &mut out).unwrap();
    out
}

/// The message whose plain text this is, filled up to a multiple of eight with bytes that no zlib stream needs.
fn wire(key: &CipherKey, method: Method, mut plain: Vec<u8>) -> Vec<u8> {
    plain.resize(plain.len().next_multiple_of(8), b'~');
    let mut out = Vec::new();
    write_wire(key, &envelope(method, b""), &plain, &mut out);
    out
}

fn deflated(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    Compress::new(Compression::best(), true).compress_vec(body, &mut out, FlushCompress::Finish).unwrap();
    out
}

fn with_digest(rest: &[u8]) -> Vec<u8> {
    [HexDigest::of(rest).as_bytes(), rest].concat()
}

fn marked(stream: &[u8]) -> Vec<u8> {
    [b"!", stream].concat()
}

/// What one message opens to, owned.
fn open_one(
    opener: &mut Opener,
    key: &CipherKey,
    bytes: &[u8],
) -> Result<(Method, u32, Counter, Vec<u8>), OpenError> {
    let batch = opener.open(&[Sealed { key, bytes, method_hint: None }]);
    batch.get(0).map(|opened| (opened.method, opened.random, opened.counter, opened.text.to_vec()))
}

#[test]
fn every_length_after_every_prefix_is_refused() {
    let prefixes = [
        "",
        "!",
        "!!",
        "!001",
        "!001!",
        "!001!:",
        "!12345678!:",
        "!123456789!:",
        ":",
        "::",
        "#",
        "#AES",
        "#AES:",
        "#pin",
        "!001!#",
        "!001!#AES",
        "!001!#AES:",
        "!!#AES:",
    ];
    let fills: [fn(usize) -> u8; 6] = [
        |_| 0,
        |_| 0xff,
        |_| b'!',
        |index| index as u8,
        |index| b"!x\xda!001!:#AES:"[index % 14],
        |index| (index * 167 + 13) as u8,
    ];
    let (key, mut opener) = (key(), opener());
    for prefix in prefixes {
        for fill in fills {
            for length in 0..=300 {
                let message: Vec<u8> = prefix.bytes().chain((0..length).map(fill)).collect();
                let opened = match classify(&message) {
                    Ok(Wire::Id { sealed, .. } | Wire::Address { sealed }) => {
                        open_one(&mut opener, &key, sealed)
                    }
                    Ok(Wire::Ping) | Err(_) => continue,
                };
                assert!(opened.is_err(), "{prefix} {length}: {opened:?}");
            }
        }
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let (key, mut opener) = (key(), opener());
    for method in METHODS {
        let whole =
            sealed(&key, method, b"1:/var/log/auth.log:Nov 21 22:41:01 host01 sshd[25700]: Failed password");
        for length in 0..whole.len() {
            assert!(open_one(&mut opener, &key, &whole[..length]).is_err(), "{method} cut to {length}");
        }
        let start = method.token().len();
        for bit in start * 8..whole.len() * 8 {
            let mut altered = whole.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(open_one(&mut opener, &key, &altered).is_err(), "{method} bit {bit}");
        }
        let mut longer = whole.clone();
        longer.extend_from_slice(&whole[start..]);
        // Whole blocks, and padding in order since the last block is the message's own: what follows the zlib stream is
        // ignored, as the C programs do.
        assert_eq!(open_one(&mut opener, &key, &longer), open_one(&mut opener, &key, &whole), "{method}");
        assert!(open_one(&mut opener, &key, &whole).is_ok(), "{method}: the opener is none the worse for it");
    }
}

#[test]
fn methods_are_found_whatever_the_hint() {
    let (key, mut opener) = (key(), opener());
    for method in METHODS {
        let bytes = sealed(&key, method, b"1:a:b");
        let batch = HINTS.map(|method_hint| Sealed { key: &key, bytes: &bytes, method_hint });
        for opened in opener.open(&batch).iter() {
            let expected =
                Opened { method, random: 99_999, counter: Counter { global: 7, local: 42 }, text: b"1:a:b" };
            assert_eq!(opened, Ok(expected));
        }
    }
}

#[test]
fn a_message_that_begins_well_in_both_dialects_gets_its_second_chance() {
    let key = key();
    // OSSEC's vector is the sender's choice: this one reads as marks and a zlib header for those who speak Wazuh.
    let mut initialization_vector = *b"!!\x78\xda............";
    key.encrypt_aes(AesDialect::WAZUH_VECTOR, &mut initialization_vector);
    let mut bytes = Vec::new();
    let envelope = Envelope { initialization_vector, ..envelope(Method::AesOssec, b"1:a:b") };
    Sealer::new().seal(&key, &envelope, &mut bytes).unwrap();
    let ciphertext = &bytes[Method::AesOssec.token().len()..];
    let mut plain = vec![0; ciphertext.len()];
    let deceives =
        key.decrypt_aes(AesDialect::WAZUH_VECTOR, ciphertext, &mut plain, |block| form(block).is_some());
    assert!(deceives && without_padding(&plain).is_some(), "the message deceives the first look");
    for method_hint in HINTS {
        let mut opener = opener();
        let batch = opener.open(&[Sealed { key: &key, bytes: &bytes, method_hint }]);
        assert_eq!(
            batch.get(0).map(|opened| (opened.method, opened.text)),
            Ok((Method::AesOssec, &b"1:a:b"[..]))
        );
    }
}

#[test]
fn another_agents_key_opens_nothing() {
    let other = CipherKey::new("web02", "002", "5f7d7f87f8b7b345ebe47bf216c68287");
    let mut opener = opener();
    // The two keys share what AES uses: only Blowfish takes name and id into account.
    let opened = open_one(&mut opener, &other, &sealed(&key(), Method::Blowfish, b"1:a:b"));
    assert_eq!(opened, Err(OpenError::NotAKey));
    let other = CipherKey::new("web01", "001", "5f7d7f87f8b7b345ebe47bf216c68288");
    for method in METHODS {
        let opened = open_one(&mut opener, &other, &sealed(&key(), method, b"1:a:b"));
        assert_eq!(opened, Err(OpenError::NotAKey), "{method}");
    }
}

#[test]
fn inflating_stops_at_the_limit() {
    let key = key();
    for message_bytes_max in [crate::limits::MESSAGE_BYTES_MAX, crate::limits::MESSAGE_BYTES_MAX_OSSEC] {
        let mut opener = Opener::new(OpenSettings { message_bytes_max, old_format: false });
        for method in METHODS {
            let mut check = |body_bytes: usize, expected: Result<usize, OpenError>| {
                let text = vec![b'a'; body_bytes - BODY_BYTES_MIN];
                let body = with_digest(&[b"123450000000007:0042:", &text[..]].concat());
                let bytes = wire(&key, method, marked(&deflated(&body)));
                let opened = open_one(&mut opener, &key, &bytes).map(|opened| opened.3.len());
                assert_eq!(opened, expected, "{method} {body_bytes}");
            };
            check(message_bytes_max, Ok(message_bytes_max - BODY_BYTES_MIN));
            check(message_bytes_max + 1, Err(OpenError::TooLarge));
            check(4_000_000, Err(OpenError::TooLarge));
            assert!(opener.bodies.bytes.len() <= message_bytes_max + 1, "memory is bounded by the limit");
        }
    }
}

#[test]
fn messages_over_the_limit_are_refused_unread() {
    let mut opener = Opener::new(OpenSettings { message_bytes_max: 6_144, old_format: false });
    for prefix in [&b":"[..], b"#AES:"] {
        for length in [6_145, 65_536, 1 << 20] {
            let mut bytes = prefix.to_vec();
            bytes.resize(length, 7);
            assert_eq!(open_one(&mut opener, &key(), &bytes), Err(OpenError::TooLarge));
        }
    }
    assert_eq!(opener.plain.bytes.len(), 0);
}

#[test]
fn bodies_that_are_none() {
    let (key, mut opener) = (key(), opener());
    let mut check = |body: &[u8], expected: OpenError| {
        for method in METHODS {
            let bytes = wire(&key, method, marked(&deflated(body)));
            assert_eq!(
                open_one(&mut opener, &key, &bytes),
                Err(expected),
                "{method} {}",
                crate::Escaped(body)
            );
        }
    };
    for length in 0..BODY_BYTES_MIN {
        check(&vec![b'0'; length], OpenError::Malformed);
    }
    check(&[b'0'; 60], OpenError::Checksum);
    let check_rest = |rest: &str, check: &mut dyn FnMut(&[u8], OpenError)| {
        check(&with_digest(rest.as_bytes()), OpenError::Malformed);
    };
    for rest in [
        "123450000000007;0042:text",
        "123450000000007:0042;text",
        "1234x0000000007:0042:text",
        "12345000000000x:0042:text",
        "123454294967296:0042:text",
        "12345-000000007:0042:text",
        "12345         7:0042:text",
        "123450000000007:00 2:text",
        "123450000000007:+042:text",
    ] {
        check_rest(rest, &mut check);
    }
}

#[test]
fn streams_that_are_none() {
    let (key, mut opener) = (key(), opener());
    let body = with_digest(b"123450000000007:0042:1:a:b");
    let stream = deflated(&body);
    for method in METHODS {
        let mut check = |plain: Vec<u8>, expected: Result<&[u8], OpenError>| {
            let opened = open_one(&mut opener, &key, &wire(&key, method, plain)).map(|opened| opened.3);
            assert_eq!(opened, expected.map(<[u8]>::to_vec), "{method}");
        };
        check(marked(&stream), Ok(b"1:a:b"));
        check([b"!!!!!!!!!!!!!!!!!!!!!!!!!!", &stream[..]].concat(), Ok(b"1:a:b"));
        check([b"!!", &stream[..], b"and what follows the stream is ignored"].concat(), Ok(b"1:a:b"));
        check(marked(&stream[..stream.len() - 5]), Err(OpenError::Inflate));
        check(marked(&[0x78, 0xda, 0xff, 0xff]), Err(OpenError::Inflate));
        check(stream.clone(), Err(OpenError::NotAKey));
        check(vec![b'!'; 64], Err(OpenError::Inflate));
        check(b"!not zlib at all".to_vec(), Err(OpenError::NotAKey));
        check(vec![0; 64], Err(OpenError::NotAKey));
        // A stream that asks for a dictionary.
        check(marked(&[0x78, 0xf9, 1, 2, 3, 4, 5, 6, 7]), Err(OpenError::Inflate));
    }
}

#[test]
fn an_empty_text_is_opened() {
    let (key, mut opener) = (key(), opener());
    let bytes = wire(&key, Method::Blowfish, marked(&deflated(&with_digest(b"000000000000000:0000:"))));
    assert_eq!(open_one(&mut opener, &key, &bytes), Ok((Method::Blowfish, 0, Counter::ZERO, vec![])));
}

#[test]
fn the_old_format_is_behind_its_option() {
    let key = key();
    let old = |rest: &[u8]| [b":", &with_digest(rest)[..]].concat();
    let mut accepting = Opener::new(OpenSettings { old_format: true, ..OpenSettings::default() });
    for method in METHODS {
        let plain = old(b"17322000000042:1:a:text of 8!");
        let exact = old(b"1732200000:0042:1:a:0123456");
        assert_eq!((plain.len() % 8, exact.len() % 8), (6, 4), "neither is a whole block");
        for (plain, text) in [(plain, &b"1:a:text of 8!"[..]), (exact, b"1:a:0123456")] {
            let mut padded = plain.clone();
            padded.resize(plain.len().next_multiple_of(8), 0);
            let bytes = wire(&key, method, padded);
            let counter = Counter { global: 1_732_200_000, local: 42 };
            assert_eq!(
                open_one(&mut accepting, &key, &bytes),
                Ok((method, 0, counter, text.to_vec())),
                "{method}"
            );
            assert_eq!(open_one(&mut opener(), &key, &bytes), Err(OpenError::OldFormat), "{method}");
        }
        for (rest, expected) in [
            (&b"1732200000"[..], OpenError::Malformed),
            (b"17322000000042", OpenError::Malformed),
            (b"17322000000042;text", OpenError::Malformed),
            (b"173220000x0042:text", OpenError::Malformed),
            (b"", OpenError::Malformed),
        ] {
            let mut padded = old(rest);
            padded.resize(padded.len().next_multiple_of(8), 0);
            assert_eq!(
                open_one(&mut accepting, &key, &wire(&key, method, padded)),
                Err(expected),
                "{method} {rest:?}"
            );
        }
        let altered = [b":", &[b'0'; 32][..], b"17322000000042:text"].concat();
        assert_eq!(open_one(&mut accepting, &key, &wire(&key, method, altered)), Err(OpenError::Checksum));
        for length in [8, 16, 24, 32, 40] {
            let plain = b":0123456789abcdef0123456789abcdef0000000"[..length].to_vec();
            assert!(open_one(&mut accepting, &key, &wire(&key, method, plain)).is_err(), "{method} {length}");
        }
    }
}

#[test]
fn nothing_of_an_earlier_message_is_in_a_later_one() {
    const SECRET: &[u8] = b"the-secret-of-web01;";
    let (key, mut opener) = (key(), opener());
    let secret: Vec<u8> = SECRET.iter().copied().cycle().take(60_000).collect();
    // A stream that copies from before its own beginning: what the window still holds must stay out of reach.
    let beyond = [0x78, 0xda, 0x03, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00];
    for method in METHODS {
        let long = sealed(&key, method, &secret);
        let whole = sealed(&key, method, b"1:a:b");
        let cut_stream =
            wire(&key, method, marked(&deflated(&with_digest(b"000000000000000:0000:abcdefgh"))[..30]));
        let mut later = vec![whole.clone(), cut_stream, wire(&key, method, marked(&beyond))];
        later.extend((0..whole.len()).map(|length| whole[..length].to_vec()));
        for bytes in later {
            assert_eq!(open_one(&mut opener, &key, &long).unwrap().3, secret);
            match open_one(&mut opener, &key, &bytes) {
                Ok((_, _, _, text)) => assert_eq!(text, b"1:a:b"),
                Err(error) => assert!(!format!("{error} {error:?} {opener:?}").contains("secret")),
            }
        }
    }
}

#[test]
fn memory_is_reused_and_given_back() {
    let (key, mut opener) = (key(), opener());
    let bytes = sealed(&key, Method::AesWazuh, &[b'x'; 500]);
    let batch = vec![Sealed { key: &key, bytes: &bytes, method_hint: None }; 64];
    opener.open(&batch);
    let place =
        |opener: &Opener| (opener.plain.bytes.as_ptr(), opener.bodies.bytes.as_ptr(), opener.slots.as_ptr());
    let warm = place(&opener);
    for _ in 0..10 {
        assert!(opener.open(&batch).iter().all(|opened| opened.is_ok()));
    }
    assert_eq!(place(&opener), warm, "a warm opener allocates nothing");
    let large = sealed(&key, Method::AesWazuh, &[b'x'; 65_000]);
    let batch = vec![Sealed { key: &key, bytes: &large, method_hint: None }; 64];
    assert_eq!(opener.open(&batch).len(), 64);
    assert!(opener.bodies.bytes.capacity() > SCRATCH_BYTES_KEPT);
    assert!(opener.open(&[]).is_empty());
    assert!(opener.bodies.bytes.capacity() <= SCRATCH_BYTES_KEPT, "what a large batch needed is given back");
}

/// A message as a test meets it: whole, cut off, altered, or nothing but noise.
fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(&METHODS[..]);
    let whole = (method, prop::collection::vec(any::<u8>(), 1..200))
        .prop_map(|(method, text)| sealed(&key(), method, &text));
    let cut = (whole.clone(), any::<prop::sample::Index>()).prop_map(|(message, at)| {
        let length = at.index(message.len());
        message[..length].to_vec()
    });
    let altered =
        (whole.clone(), any::<prop::sample::Index>(), 1_u8..).prop_map(|(mut message, at, change)| {
            let at = at.index(message.len());
            message[at] ^= change;
            message
        });
    let noise = prop::collection::vec(any::<u8>(), 0..100).prop_map(|noise| [b"#AES:", &noise[..]].concat());
    prop_oneof![3 => whole, 1 => cut, 1 => altered, 1 => noise]
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        text in prop::collection::vec(any::<u8>(), 1..3_000), method in prop::sample::select(&METHODS[..]),
        random in 0_u32..100_000, global: u32, local in 0_u16..=9_997, initialization_vector: [u8; 16],
        id in prop::option::of("[0-9]{1,8}"), hint in prop::sample::select(&HINTS[..]),
    ) {
        let (key, counter) = (key(), Counter { global, local });
        let id_prefix = id.map(|id| id.parse().unwrap());
        let envelope = Envelope { id_prefix, method, random, counter, initialization_vector, text: &text };
        let mut message = Vec::new();
        Sealer::new().seal(&key, &envelope, &mut message).unwrap();
        let bytes = match (classify(&message).unwrap(), id_prefix) {
            (Wire::Id { id, sealed }, Some(prefix)) if id == prefix => sealed,
            (Wire::Address { sealed }, None) => sealed,
            (wire, _) => return Err(TestCaseError::fail(format!("{wire:?}"))),
        };
        let mut opener = opener();
        let batch = opener.open(&[Sealed { key: &key, bytes, method_hint: hint }]);
        prop_assert_eq!(batch.get(0), Ok(Opened { method, random, counter, text: &text }));
    }

    #[test]
    fn a_batch_is_its_messages_one_by_one(messages in prop::collection::vec(any_message(), 0..12)) {
        let key = key();
        let mut together = opener();
        let batch: Vec<Sealed<'_>> =
            messages.iter().map(|bytes| Sealed { key: &key, bytes, method_hint: None }).collect();
        let opened = together.open(&batch);
        prop_assert_eq!(opened.len(), messages.len());
        for (one, sealed) in opened.iter().zip(&batch) {
            let mut alone = opener();
            prop_assert_eq!(alone.open(&[*sealed]).get(0), one);
        }
    }
}
