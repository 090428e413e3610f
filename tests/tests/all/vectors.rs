//! Messages that the C programs made: we open each, make it again, and do with it what ossec-remoted did.
//!
//! Reads tests/vectors, and each .jsonl of the folder that `RINGMASTER_VECTORS` names, if it is set.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use codec::{
    AddressRule, AgentId, CipherKey, Counter, Envelope, Event, FrameAt, FrameCutter, FromAgent, HexDigest,
    Merged, Method, OpenSettings, Opened, Opener, Origin, Product, Sealed, Sealer, ToAgent, Wire, limits,
};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One line of a file of vectors. What is not here is ignored, what is optional is in one product's files only.
#[derive(Deserialize)]
struct Vector {
    source: String,
    dir: String,
    id: String,
    name: String,
    ip: String,
    key: String,
    derived_key: String,
    method: String,
    prefix: String,
    rand: u32,
    pad: usize,
    global: u32,
    local: u16,
    message_b64: String,
    datagram_b64: String,
    tcp_frame_b64: Option<String>,
    remoted_queue_b64: Option<Vec<String>>,
    remoted_answers: Option<Vec<String>>,
}

/// How many messages came out of our sealer as they came out of the C one, byte for byte, and how many did not.
#[derive(Debug, Default)]
struct Tally {
    same_bytes: usize,
    other_bytes: usize,
}

#[test]
fn vectors() {
    let mut total = 0;
    let mut tally = Tally::default();
    for file in files() {
        let text = std::fs::read_to_string(&file).unwrap();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let at = format!("{}:{}", file.display(), index + 1);
            let vector: Vector = serde_json::from_str(line).unwrap_or_else(|error| panic!("{at}: {error}"));
            check(&vector, &at, &mut tally);
            total += 1;
        }
    }
    println!("{total} messages opened; sealed again: {tally:?}");
    assert!(total >= 153, "the project's own vectors alone are 153");
    assert_eq!(tally.same_bytes + tally.other_bytes, total);
    assert!(tally.same_bytes > tally.other_bytes, "zlib-rs chooses zlib's codes for short texts: {tally:?}");
}

fn files() -> Vec<PathBuf> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let folders = [own].into_iter().chain(std::env::var_os("RINGMASTER_VECTORS").map(PathBuf::from));
    let mut files = Vec::new();
    for folder in folders {
        let before = files.len();
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let paths = entries.map(|entry| entry.unwrap().path());
        files.extend(paths.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl")));
        assert!(files.len() > before, "{} holds no .jsonl file", folder.display());
    }
    files.sort();
    files
}

fn check(vector: &Vector, at: &str, tally: &mut Tally) {
    let key = CipherKey::new(&vector.name, &vector.id, &vector.key);
    assert_eq!(key.derived(), vector.derived_key, "{at}");
    check_opening(vector, &key, at);
    check_sealing(vector, &key, at, tally);
    check_frame(vector, at);
    match vector.dir.as_str() {
        "agent->manager" => check_from_agent(vector, at),
        "manager->agent" => check_to_agent(&vector.message(), at),
        other => panic!("{at}: unknown direction {other}"),
    }
}

impl Vector {
    fn is_ossec(&self) -> bool {
        self.source.starts_with("ossec")
    }

    fn method(&self) -> Method {
        match (self.method.as_str(), self.is_ossec()) {
            ("blowfish", _) => Method::Blowfish,
            ("aes", true) => Method::AesOssec,
            ("aes", false) => Method::AesWazuh,
            (other, _) => panic!("unknown method {other}"),
        }
    }

    fn message(&self) -> Vec<u8> {
        STANDARD.decode(&self.message_b64).unwrap()
    }

    fn datagram(&self) -> Vec<u8> {
        STANDARD.decode(&self.datagram_b64).unwrap()
    }

    fn id(&self) -> AgentId {
        self.id.parse().unwrap()
    }

    fn id_prefix(&self) -> Option<AgentId> {
        (!self.prefix.is_empty()).then(|| self.prefix.trim_matches('!').parse().unwrap())
    }

    fn counter(&self) -> Counter {
        Counter { global: self.global, local: self.local }
    }
}

fn sealed_part(datagram: &[u8]) -> (Option<AgentId>, &[u8]) {
    match codec::classify(datagram).unwrap() {
        Wire::Address { sealed } => (None, sealed),
        Wire::Id { id, sealed } => (Some(id), sealed),
        Wire::Ping => panic!("no vector is a ping"),
    }
}

/// Opens to the text and numbers that the file says, whatever method the agent is thought to use.
fn check_opening(vector: &Vector, key: &CipherKey, at: &str) {
    let datagram = vector.datagram();
    let (id, bytes) = sealed_part(&datagram);
    assert_eq!(id, vector.id_prefix(), "{at}");
    let hints = [None, Some(Method::Blowfish), Some(Method::AesOssec), Some(Method::AesWazuh)];
    let batch = hints.map(|method_hint| Sealed { key, bytes, method_hint });
    let message = vector.message();
    let expected =
        Opened { method: vector.method(), random: vector.rand, counter: vector.counter(), text: &message };
    let message_bytes_max =
        if vector.is_ossec() { limits::MESSAGE_BYTES_MAX_OSSEC } else { limits::MESSAGE_BYTES_MAX };
    let mut opener = Opener::new(OpenSettings { message_bytes_max, old_format: false });
    for opened in opener.open(&batch).iter() {
        assert_eq!(opened, Ok(expected), "{at}");
    }
}

/// Makes the message again: the same bytes if our zlib chooses the same codes, else one that opens to the same.
fn check_sealing(vector: &Vector, key: &CipherKey, at: &str, tally: &mut Tally) {
    let datagram = vector.datagram();
    let (_, theirs) = sealed_part(&datagram);
    let method = vector.method();
    let mut initialization_vector = [0; 16];
    if method == Method::AesOssec {
        initialization_vector.copy_from_slice(&theirs[5..21]);
    }
    let message = vector.message();
    let envelope = Envelope {
        id_prefix: vector.id_prefix(),
        method,
        random: vector.rand,
        counter: vector.counter(),
        initialization_vector,
        text: &message,
    };
    let mut ours = Vec::new();
    Sealer::new().seal(key, &envelope, &mut ours).unwrap();
    if ours == datagram {
        tally.same_bytes += 1;
        return;
    }
    tally.other_bytes += 1;
    assert!(ours.starts_with(vector.prefix.as_bytes()), "{at}");
    let (_, bytes) = sealed_part(&ours);
    let mut opener = Opener::new(OpenSettings::default());
    let batch = opener.open(&[Sealed { key, bytes, method_hint: Some(method) }]);
    let opened = batch.get(0).unwrap();
    assert_eq!((opened.text, opened.counter), (&message[..], vector.counter()), "{at}");
    check_padding(vector, theirs, bytes, at);
}

/// The marks of a message make its plain text a multiple of eight: 1 to 8 of them, theirs as many as the file says.
fn check_padding(vector: &Vector, theirs: &[u8], ours: &[u8], at: &str) {
    assert!((1..=8).contains(&vector.pad), "{at}");
    let unit = if vector.method() == Method::Blowfish { 8 } else { 16 };
    let token = vector.method().token().len();
    for sealed in [theirs, ours] {
        assert_eq!((sealed.len() - token) % unit, 0, "{at}");
    }
}

fn check_frame(vector: &Vector, at: &str) {
    let datagram = vector.datagram();
    let mut framed = Vec::new();
    codec::frame(&datagram, &mut framed);
    if let Some(expected) = &vector.tcp_frame_b64 {
        assert_eq!(framed, STANDARD.decode(expected).unwrap(), "{at}");
    }
    let mut frames = Vec::new();
    FrameCutter::new(limits::FRAME_BYTES_MAX).cut(&framed, &mut frames).unwrap();
    assert_eq!(frames, [FrameAt::Received(codec::FRAME_HEADER_BYTES..framed.len())], "{at}");
}

/// What ossec-remoted did with the message: the datagram that it wrote to the queue socket, and its answers.
fn check_from_agent(vector: &Vector, at: &str) {
    let message = vector.message();
    let rule: AddressRule = vector.ip.parse().unwrap();
    if vector.is_ossec() {
        assert_eq!(rule.agent_sends_id(), vector.id_prefix().is_some(), "{at}");
    }
    let control = FromAgent::parse(&message);
    assert!(!matches!(control, Some(Err(_))), "{at}: {control:?}");
    if let Some(expected) = &vector.remoted_queue_b64 {
        let expected: Vec<Vec<u8>> =
            expected.iter().map(|datagram| STANDARD.decode(datagram).unwrap()).collect();
        assert_eq!(queue_datagrams(vector, &message, rule.location_text()), expected, "{at}");
    }
    let answers: Vec<&str> = vector.remoted_answers.iter().flatten().map(String::as_str).collect();
    assert!(answers.is_empty() || control.is_some(), "{at}: only control messages are answered");
    check_answers(&answers, at);
}

/// The ack comes first and once; a shared file that follows has the digest that was announced, and comes apart.
fn check_answers(answers: &[&str], at: &str) {
    let mut announced = None;
    let mut file = Vec::new();
    for (index, answer) in answers.iter().enumerate() {
        let answer = ToAgent::parse(answer.as_bytes()).unwrap();
        assert_eq!(answer == ToAgent::Ack, index == 0, "{at}");
        match answer {
            ToAgent::FileBegin { digest, name } => {
                assert_eq!(name.as_bytes(), b"merged.mg", "{at}");
                announced = Some(digest);
            }
            ToAgent::FileChunk(chunk) => file.extend_from_slice(chunk),
            ToAgent::FileEnd => {
                assert_eq!(announced, Some(HexDigest::of(&file)), "{at}");
                assert!(!Merged::parse(&file).unwrap().files.is_empty(), "{at}");
            }
            ToAgent::Ack => {}
            ToAgent::ActiveResponse(_)
            | ToAgent::DeliveryAgreed { .. }
            | ToAgent::DeliveryTaken { .. }
            | ToAgent::Error(_)
            | ToAgent::ForceReconnect
            | ToAgent::Raw(_)
            | ToAgent::Request { .. }
            | ToAgent::SyscheckRestart => panic!("{at}: {answer:?}"),
        }
    }
}

fn queue_datagrams(vector: &Vector, message: &[u8], address: &str) -> Vec<Vec<u8>> {
    if codec::is_control(message) {
        return Vec::new();
    }
    let Ok(event) = Event::parse(message) else { return Vec::new() };
    let mut datagram = Vec::new();
    let origin = Origin { id: vector.id(), name: &vector.name, address };
    codec::queue_datagram(Product::Ossec, &event, &origin, &mut datagram);
    vec![datagram]
}

/// An agent understands it, and what we write for it is what the manager wrote.
fn check_to_agent(message: &[u8], at: &str) {
    let parsed = ToAgent::parse(message).unwrap_or_else(|error| panic!("{at}: {error}"));
    let mut written = Vec::new();
    parsed.write(&mut written);
    assert_eq!(written, message, "{at}");
}
