//! The bodies of the fuzz targets, with what they assert: each takes any bytes and must return.
//!
//! The targets themselves, outside the workspace, are one line each; their corpora are replayed by the tests below.

use crate::fast::blowfish::Schedule;
use crate::fast::inflate::{Inflater, Streams};
use crate::fast::md5::{Digester, Path};
use crate::{
    AgentId, CipherKey, Counter, Envelope, Escaped, Event, FrameAt, FrameCutter, FromAgent, HexDigest,
    KeyFile, LocalTime, Merged, Method, OpenError, OpenSettings, Opened, Opener, Origin, Product,
    ProxyCutter, ProxyError, ProxyHeader, Sealed, Sealer, SyslogCutter, ToAgent, Wire, archive_json,
    archive_line, classify, limits, proxy_header, queue_datagram, syslog_archive_json, syslog_archive_line,
    syslog_datagram, syslog_line,
};
use cbc::cipher::array::Array;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use md5::{Digest, Md5};

const TIME: LocalTime = LocalTime {
    year: 2026,
    month: 11,
    day: 21,
    hour: 22,
    minute: 41,
    second: 1,
    millisecond: 0,
    utc_offset_minutes: 60,
};

const METHODS: [Method; 3] = [Method::Blowfish, Method::AesOssec, Method::AesWazuh];

/// A TCP stream, and with it a stream of syslog lines: the first two bytes say how it is split.
///
/// # Panics
/// If a split changes what the stream says, or if more is kept than was received.
pub fn frame(bytes: &[u8]) {
    let Some((split, stream)) = bytes.split_first_chunk::<2>() else { return };
    let (first, second) = stream.split_at(usize::from(split[0]).min(stream.len()));
    let (second, third) = second.split_at(usize::from(split[1]).min(second.len()));
    let whole = cut_frames(&[stream]);
    let split = cut_frames(&[first, second, third]);
    assert_eq!(whole, split, "a split changes nothing");
    assert!(whole.0.iter().all(|message| message.len() <= limits::FRAME_BYTES_MAX));
    assert_eq!(cut_lines(&[stream]), cut_lines(&[first, second, third]), "a split changes no line");
}

/// A message: as received, as a plain text, or as a body, whichever the first byte says.
///
/// # Panics
/// If what opens is over the limit, or can't be sealed and opened again, or opens otherwise in company.
pub fn open(bytes: &[u8]) {
    let Some((selector, rest)) = bytes.split_first() else { return };
    let method = METHODS[usize::from(*selector) % METHODS.len()];
    let key = CipherKey::new("web01", "001", "key");
    let message = match selector / 3 % 3 {
        0 => rest.to_vec(),
        1 => wire(&key, method, rest),
        _ => wire(&key, method, &stream_of(rest)),
    };
    let sealed = match classify(&message) {
        Ok(Wire::Address { sealed } | Wire::Id { id: _, sealed }) => sealed,
        Ok(Wire::Ping) | Err(_) => return,
    };
    let settings =
        OpenSettings { message_bytes_max: limits::MESSAGE_BYTES_MAX_OSSEC, old_format: selector & 128 != 0 };
    let mut opener = Opener::new(settings);
    let one = Sealed { key: &key, bytes: sealed, method_hint: None };
    let other = Sealed { method_hint: Some(method), ..one };
    let batch = opener.open(&[one, Sealed { bytes: b":", ..one }, other]);
    let mut alone = Opener::new(settings);
    assert_eq!(alone.open(&[one]).get(0), batch.get(0), "company changes nothing");
    assert_eq!(batch.get(1), Err(OpenError::Length));
    assert_eq!(batch.get(0).is_ok(), batch.get(2).is_ok(), "a hint changes nothing");
    if let Ok(opened) = batch.get(0) {
        assert!(opened.text.len() <= limits::MESSAGE_BYTES_MAX_OSSEC - limits::DIGEST_BYTES);
        seal_again(&key, &opened);
    }
}

/// A text, as a control message from either side, and as a merged.mg.
///
/// # Panics
/// If what it is taken for can't be written and read again, or would leave a folder.
pub fn control(bytes: &[u8]) {
    if let Ok(merged) = Merged::parse(bytes) {
        let mut written = Vec::new();
        merged.write(&mut written);
        assert_eq!(Merged::parse(&written), Ok(merged));
    }
    if let Some(Ok(FromAgent::KeepAlive(parsed))) = FromAgent::parse(bytes) {
        assert!(!format!("{parsed:?}").contains(char::is_control));
        let mut text = Vec::new();
        crate::keep_alive(&parsed, b"", &mut text);
        assert!(
            matches!(FromAgent::parse(&text), Some(Ok(FromAgent::KeepAlive(again))) if again.labels == parsed.labels)
        );
    }
    match FromAgent::parse(bytes) {
        Some(Ok(FromAgent::Startup { delivery: Some(offer), .. })) => {
            let mut text = Vec::new();
            crate::startup_with_delivery(offer, &mut text);
            assert!(matches!(
                FromAgent::parse(&text),
                Some(Ok(FromAgent::Startup { delivery: Some(again), version: None, .. })) if again == offer
            ));
        }
        Some(Ok(FromAgent::DeliveryNext { number })) => {
            let mut text = Vec::new();
            crate::delivery_next(number, &mut text);
            assert_eq!(FromAgent::parse(&text), Some(Ok(FromAgent::DeliveryNext { number })));
        }
        Some(_) | None => {}
    }
    if let Ok(parsed) = ToAgent::parse(bytes) {
        if let ToAgent::FileBegin { digest: _, name } = parsed {
            assert!(!name.as_bytes().contains(&b'/') && name.as_bytes() != b"..");
        }
        if parsed != ToAgent::FileChunk(b"") {
            let mut text = Vec::new();
            parsed.write(&mut text);
            assert_eq!(ToAgent::parse(&text), Ok(parsed));
        }
    }
}

/// A client.keys file, and with it a file of queue/rids.
///
/// # Panics
/// If an entry is not read back as it is written, if an id comes twice, or if a problem forges a line.
pub fn keys(bytes: &[u8]) {
    let parsed = KeyFile::parse(bytes);
    let mut ids: Vec<AgentId> = parsed.entries.iter().map(|entry| entry.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), parsed.entries.len(), "every id is there once");
    for entry in &parsed.entries {
        let again = KeyFile::parse(entry.to_line().as_bytes());
        assert_eq!(again.entries, std::slice::from_ref(entry));
    }
    for problem in &parsed.problems {
        assert!(!problem.to_string().contains(char::is_control));
    }
    if let Ok(counter) = Counter::parse(bytes) {
        assert_eq!(Counter::parse(counter.to_string().as_bytes()), Ok(counter));
    }
}

/// A text, as an event for both products' analysisd and for the archives.
///
/// # Panics
/// If a datagram holds a NUL before its end or is over its limit, or if an event makes more than one line.
pub fn queue_datagram_of(bytes: &[u8]) {
    let Ok(event) = Event::parse(bytes) else { return };
    let origin =
        Origin { id: AgentId::from_bytes(b"001").expect("it is an id"), name: "we|b:01", address: "fd00::1" };
    for (product, bytes_max) in [
        (Product::Ossec, limits::QUEUE_DATAGRAM_BYTES_MAX_OSSEC),
        (Product::Wazuh, limits::QUEUE_DATAGRAM_BYTES_MAX),
    ] {
        let mut datagram = Vec::new();
        queue_datagram(product, &event, &origin, &mut datagram);
        assert!(datagram.len() <= bytes_max);
        assert_eq!(datagram.iter().position(|byte| *byte == 0), Some(datagram.len() - 1));
        assert_eq!(datagram[0], event.queue);
    }
    for write in [archive_line, archive_json] {
        let mut line = Vec::new();
        match write(&TIME, &event, &origin, &mut line) {
            Ok(()) => assert_eq!(line.iter().position(u8::is_ascii_control), Some(line.len() - 1)),
            Err(_) => assert_eq!(line, b""),
        }
    }
    assert!(!Escaped(bytes).to_string().contains(char::is_control));
}

/// A syslog listener's stream, split as its first two bytes say, and what becomes of each line; the same bytes as a datagram.
///
/// # Panics
/// If a split changes a line, if more is held than one line may have, or if a line makes more than one of anything.
pub fn syslog(bytes: &[u8]) {
    let Some((split, stream)) = bytes.split_first_chunk::<2>() else { return };
    let (first, second) = stream.split_at(usize::from(split[0]).min(stream.len()));
    let (second, third) = second.split_at(usize::from(split[1]).min(second.len()));
    let whole = cut_lines(&[stream]);
    assert_eq!(whole, cut_lines(&[first, second, third]), "a split changes no line");
    let datagram = syslog_line(stream).map(<[u8]>::to_vec);
    for line in whole.0.iter().chain(&datagram) {
        assert!(!line.is_empty(), "a line of nothing is none");
        for (product, bytes_max) in [
            (Product::Ossec, limits::QUEUE_DATAGRAM_BYTES_MAX_OSSEC),
            (Product::Wazuh, limits::QUEUE_DATAGRAM_BYTES_MAX),
        ] {
            let mut out = Vec::new();
            syslog_datagram(product, std::net::Ipv6Addr::LOCALHOST.into(), line, &mut out);
            assert!(out.len() <= bytes_max);
            assert_eq!(out.iter().position(|byte| *byte == 0), Some(out.len() - 1));
        }
        for write in [syslog_archive_line, syslog_archive_json] {
            let mut out = Vec::new();
            write(&TIME, "manager", std::net::Ipv4Addr::LOCALHOST.into(), line, &mut out);
            assert_eq!(out.iter().position(u8::is_ascii_control), Some(out.len() - 1));
        }
    }
}

/// The beginning of a connection from a load balancer, split as the first byte says.
///
/// # Panics
/// If a split changes what is read, or if a header is longer than one may be.
pub fn proxy(bytes: &[u8]) {
    let Some((split, stream)) = bytes.split_first() else { return };
    let whole = proxy_header(stream);
    let (first, second) = stream.split_at(usize::from(*split).min(stream.len()));
    let mut cutter = ProxyCutter::new();
    let parts = match cutter.push(first) {
        Ok(None) => cutter
            .push(second)
            .map(|header| header.map(|header| ProxyHeader { bytes: first.len() + header.bytes, ..header })),
        decided => decided,
    };
    // A beginning that is too long may be refused before it is seen to be malformed, and the other way round.
    assert_eq!(whole.is_err(), parts.is_err(), "a split changes nothing");
    if let (Ok(whole), Ok(parts)) = (whole, parts) {
        assert_eq!(whole, parts, "a split changes nothing");
        assert!(whole.is_none_or(|header| header.bytes <= limits::PROXY_HEADER_BYTES_MAX.min(stream.len())));
    }
    if whole == Err(ProxyError::Missing) {
        assert!(!stream.starts_with(b"PROXY "));
    }
}

/// Blowfish, ours and the crate's: a key, then what it decrypts and encrypts.
///
/// # Panics
/// If the two differ, or if decrypting does not undo encrypting.
pub fn blowfish(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first() else { return };
    let key_bytes = 4 + usize::from(*length) % 53;
    let Some((key, rest)) = rest.split_at_checked(key_bytes) else { return };
    let Some((vector, text)) = rest.split_first_chunk() else { return };
    blowfish_is_the_crates(key, *vector, &text[..text.len() / 8 * 8]);
}

/// # Panics
/// If ours and the crate's differ on these whole blocks.
pub(crate) fn blowfish_is_the_crates(key: &[u8], vector: [u8; 8], bytes: &[u8]) {
    let oracle: ::blowfish::Blowfish = KeyInit::new_from_slice(key).expect("the key is long enough");
    let ours = Schedule::new(key);
    let mut expected = bytes.to_vec();
    cbc::Decryptor::inner_iv_init(&oracle, &vector.into())
        .decrypt_blocks(Array::slice_as_chunks_mut(&mut expected).0);
    let mut plain = vec![0xa5; bytes.len()];
    ours.decrypt_cbc(vector, bytes, &mut plain);
    assert_eq!(plain, expected, "decrypted as the crate does");
    cbc::Encryptor::inner_iv_init(&oracle, &vector.into())
        .encrypt_blocks(Array::slice_as_chunks_mut(&mut expected).0);
    ours.encrypt_cbc(vector, &mut plain);
    assert_eq!(expected, bytes, "the crate undoes what it did");
    assert_eq!(plain, bytes, "encrypted as the crate does");
}

/// MD5 over a batch, ours and the crate's: how many messages, their lengths in two bytes each, and what they are cut from.
///
/// # Panics
/// If the two differ.
pub fn md5(bytes: &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return };
    let Some((lengths, mut text)) = rest.split_at_checked(2 * usize::from(count % 64)) else { return };
    let mut messages = Vec::new();
    for length in lengths.as_chunks().0 {
        let (message, rest) = text.split_at(usize::from(u16::from_le_bytes(*length)).min(text.len()));
        messages.push(message);
        text = rest;
    }
    messages.push(text);
    md5_is_the_crates(&messages);
}

/// # Panics
/// If ours and the crate's differ on these messages, on any path that this processor can take.
pub(crate) fn md5_is_the_crates(messages: &[&[u8]]) {
    let expected: Vec<Option<[u8; 16]>> =
        messages.iter().map(|message| Some(Md5::digest(message).into())).collect();
    for path in [Path::Portable, Path::detect()] {
        let mut digests = vec![None; messages.len()];
        let mut digested = |index: usize, digest| {
            assert_eq!(digests[index].replace(digest), None, "each message is digested once");
        };
        Digester::on(path).digest(messages.len(), |index| messages[index], &mut digested);
        assert_eq!(digests, expected, "{path:?}");
    }
}

/// Inflate, ours and the library's: a zlib stream, or the blocks of one whose header and sum are right, as the first byte says.
///
/// # Panics
/// If ours takes what the library refuses, or if the two texts differ, or if company changes ours.
pub fn inflate(bytes: &[u8]) {
    let Some((selector, rest)) = bytes.split_first() else { return };
    let stream = if selector % 2 == 0 { rest.to_vec() } else { zlib_stream(rest) };
    let text = inflate_is_the_librarys(&mut Inflater::new(), &stream);
    let half = &stream[..stream.len() / 2];
    let mut inflating = Inflating { streams: &[&stream, half, &stream], texts: vec![None; 3] };
    Inflater::new().inflate_batch(&mut inflating);
    let half = inflate_is_the_librarys(&mut Inflater::new(), half);
    assert_eq!(inflating.texts, [Some(text.clone()), Some(half), Some(text)], "company changes nothing");
}

/// What ours makes of a stream, `None` if it declines.
///
/// # Panics
/// If ours takes what the library refuses, or if the two texts differ.
pub(crate) fn inflate_is_the_librarys(inflater: &mut Inflater, stream: &[u8]) -> Option<Vec<u8>> {
    let text = inflater.inflate(stream).map(<[u8]>::to_vec);
    if text.is_some() {
        assert_eq!(text, inflated(&mut Decompress::new(true), stream), "ours takes what the library takes");
    }
    text
}

/// The whole text of a stream of up to 100,000 bytes as the library has it, `None` if it refuses the stream.
pub(crate) fn inflated(library: &mut Decompress, stream: &[u8]) -> Option<Vec<u8>> {
    let mut text = vec![0; 100_000];
    match library.decompress(stream, &mut text, FlushDecompress::Finish) {
        Ok(Status::StreamEnd) => {
            text.truncate(usize::try_from(library.total_out()).expect("the output is a slice"));
            Some(text)
        }
        Ok(Status::Ok | Status::BufError) | Err(_) => None,
    }
}

/// A stream of these blocks and with the right sum, if the blocks are in order.
pub(crate) fn zlib_stream(blocks: &[u8]) -> Vec<u8> {
    let mut library = Decompress::new(false);
    let text = inflated(&mut library, blocks).unwrap_or_default();
    let end = usize::try_from(library.total_in()).expect("the input is a slice");
    let (low, high) = text.iter().fold((1_u32, 0), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65_521;
        (low, (high + low) % 65_521)
    });
    [&[0x78, 0xda], &blocks[..end], &(high << 16 | low).to_be_bytes(), &blocks[end..]].concat()
}

/// Streams of a batch, and what each says when it is done.
struct Inflating<'a> {
    streams: &'a [&'a [u8]],
    texts: Vec<Option<Option<Vec<u8>>>>,
}

impl Streams for Inflating<'_> {
    fn count(&self) -> usize {
        self.streams.len()
    }

    fn stream(&self, index: usize) -> Option<&[u8]> {
        Some(self.streams[index])
    }

    fn done(&mut self, index: usize, text: Option<&[u8]>) {
        let before = self.texts[index].replace(text.map(<[u8]>::to_vec));
        assert_eq!(before, None, "a stream is done once");
    }
}

type Frames = (Vec<Vec<u8>>, bool);

fn cut_frames(segments: &[&[u8]]) -> Frames {
    let mut cutter = FrameCutter::new(limits::MESSAGE_BYTES_MAX_OSSEC);
    let mut messages = Vec::new();
    let mut received_bytes = 0;
    for segment in segments {
        let mut frames = Vec::new();
        let outcome = cutter.cut(segment, &mut frames);
        messages.extend(frames.into_iter().map(|frame| match frame {
            FrameAt::Carried => cutter.carried().to_vec(),
            FrameAt::Received(range) => segment[range].to_vec(),
        }));
        if outcome.is_err() {
            return (messages, false);
        }
        received_bytes += segment.len();
        assert!(cutter.carried_bytes() <= received_bytes, "nothing is kept that did not come");
    }
    (messages, true)
}

fn cut_lines(segments: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
    let mut cutter = SyslogCutter::new(40);
    let mut lines = Vec::new();
    for segment in segments {
        cutter.cut(segment, |line| lines.push(line.to_vec()));
    }
    cutter.finish(|line| lines.push(line.to_vec()));
    (lines, cutter.cut_off())
}

/// The message whose plain text this is, filled up to a multiple of eight.
fn wire(key: &CipherKey, method: Method, plain: &[u8]) -> Vec<u8> {
    let mut plain = plain.to_vec();
    plain.resize(plain.len().next_multiple_of(8), 0);
    let counter = Counter::ZERO;
    let envelope =
        Envelope { id_prefix: None, method, random: 0, counter, initialization_vector: [1; 16], text: b"" };
    let mut out = Vec::new();
    crate::seal::write_wire(key, &envelope, &plain, &mut out);
    out
}

/// The plain text that carries these bytes behind their digest.
fn stream_of(rest: &[u8]) -> Vec<u8> {
    let body = [HexDigest::of(rest).as_bytes(), rest].concat();
    let mut stream = Vec::with_capacity(body.len() + body.len() / 8 + 64);
    Compress::new(Compression::fast(), true)
        .compress_vec(&body, &mut stream, FlushCompress::Finish)
        .expect("the output has room");
    [b"!!", &stream[..]].concat()
}

fn seal_again(key: &CipherKey, opened: &Opened<'_>) {
    let Opened { method, random, counter, text } = *opened;
    let sendable = random <= 99_999 && counter.local <= limits::LOCAL_COUNTER_MAX && !text.is_empty();
    if !sendable {
        return;
    }
    let envelope =
        Envelope { id_prefix: None, method, random, counter, initialization_vector: [2; 16], text };
    let mut message = Vec::new();
    Sealer::new().seal(key, &envelope, &mut message).expect("what was opened is short enough to be sealed");
    let mut opener = Opener::new(OpenSettings::default());
    let batch = opener.open(&[Sealed { key, bytes: &message, method_hint: None }]);
    assert_eq!(batch.get(0), Ok(*opened), "what is sealed again opens again");
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every file of a target's corpus, and each file's every beginning.
    fn replay(target: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
        let mut files = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            for length in (0..=bytes.len()).rev().take(300) {
                body(&bytes[..length]);
            }
            files += 1;
        }
        assert!(files >= 5, "{} has {files} files", folder.display());
    }

    #[test]
    fn frame() {
        replay("frame", super::frame);
    }

    #[test]
    fn blowfish() {
        replay("blowfish", super::blowfish);
    }

    #[test]
    fn md5() {
        replay("md5", super::md5);
    }

    #[test]
    fn inflate() {
        replay("inflate", super::inflate);
    }

    #[test]
    fn open() {
        replay("open", super::open);
    }

    #[test]
    fn control() {
        replay("control", super::control);
    }

    #[test]
    fn keys() {
        replay("keys", super::keys);
    }

    #[test]
    fn proxy() {
        replay("proxy", super::proxy);
    }

    #[test]
    fn syslog() {
        replay("syslog", super::syslog);
    }

    #[test]
    fn queue_datagram() {
        replay("queue_datagram", super::queue_datagram_of);
    }
}
