//! What the benches have in common: fleets of keys, and messages as real agents send them.
//!
//! Two traps are avoided here (docs of each item): a few messages in rotation train the branch predictor and flatter
//! inflate, and one agent's key schedule stays in the cache, which 20,000 agents' do not.
#![forbid(unsafe_code)]

use codec::{AgentId, CipherKey, Counter, Envelope, Method, Sealer};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Distinct messages in rotation, at least: below this the branch predictor learns them.
pub const MESSAGES_IN_ROTATION: usize = 2_048;

/// A fleet's keys, ids counted from 1. All schedules are made, so that no bench measures that by accident.
pub fn fleet_keys(agents: usize) -> Vec<CipherKey> {
    (1..=agents)
        .map(|number| {
            let id = format!("{number:03}");
            let key = CipherKey::new(&format!("web{number:05}"), &id, &format!("{number:064x}"));
            let mut out = Vec::new();
            seal_one(&mut Sealer::new(), &key, Method::Blowfish, b"1:warm:up", &mut out);
            key
        })
        .collect()
}

/// A message of the rotation: which key opens it, and its bytes without the id prefix.
pub struct Message {
    /// Index into the fleet's keys.
    pub agent: usize,
    /// From its `:` or `#AES:` on.
    pub bytes: Vec<u8>,
}

/// Messages sealed as real agents seal them (zlib level 9), each from another agent in random order, each text distinct.
pub fn rotation(keys: &[CipherKey], method: Method, text_bytes: usize, seed: u64) -> Vec<Message> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut sealer = Sealer::new();
    let messages = MESSAGES_IN_ROTATION.max(keys.len());
    (0..messages)
        .map(|sequence| {
            let agent = random.random_range(0..keys.len());
            let mut bytes = Vec::new();
            seal_one(
                &mut sealer,
                &keys[agent],
                method,
                &log_line(&mut random, sequence, text_bytes),
                &mut bytes,
            );
            Message { agent, bytes }
        })
        .collect()
}

/// An sshd line of `text_bytes` bytes as logcollector hands it over; what varies in real logs varies here.
pub fn log_line(random: &mut impl RngExt, sequence: usize, text_bytes: usize) -> Vec<u8> {
    let mut line = String::from("1:/var/log/auth.log:");
    while line.len() < text_bytes {
        let verdict = ["Failed password", "Accepted publickey", "Invalid user", "Connection closed"];
        let user = ["admin", "root", "deploy", "oracle", "postgres", "www-data"];
        line.push_str(&format!(
            "Nov 22 {:02}:{:02}:{:02} web{:05} sshd[{}]: {} for {} from 10.{}.{}.{} port {} ssh2 {sequence:x}; ",
            random.random_range(0..24),
            random.random_range(0..60),
            random.random_range(0..60),
            random.random_range(0..30_000),
            random.random_range(300..65_000),
            verdict[random.random_range(0..verdict.len())],
            user[random.random_range(0..user.len())],
            random.random_range(0..256),
            random.random_range(0..256),
            random.random_range(0..256),
            random.random_range(1_024..65_536),
        ));
    }
    line.truncate(text_bytes);
    line.into_bytes()
}

/// Appends one sealed message without an id prefix.
///
/// # Panics
/// When the text is longer than a message holds.
pub fn seal_one(sealer: &mut Sealer, key: &CipherKey, method: Method, text: &[u8], out: &mut Vec<u8>) {
    let envelope = Envelope {
        id_prefix: None::<AgentId>,
        method,
        random: 12_345,
        counter: Counter { global: 1, local: 1 },
        initialization_vector: *b"0123456789abcdef",
        text,
    };
    sealer.seal(key, &envelope, out).expect("a bench's text fits a message");
}
