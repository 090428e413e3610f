//! Messages as real agents seal them, and rotations of them.

use codec::{AgentId, CipherKey, Counter, Envelope, Method, Sealed, Sealer};
use manager::{Agent, AgentTable};
use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use crate::harness::is_test;

/// Distinct messages in rotation, at least: below this the branch predictor learns them.
pub const MESSAGES_IN_ROTATION: usize = 2_048;

/// Messages in rotation at the most: so many agents' keys are beyond any cache.
const MESSAGES_MAX: usize = 20_480;

/// The largest texts are long enough to be different within themselves, and dear to make.
const BYTES_IN_ROTATION_MAX: usize = 16 << 20;

/// Messages of a rotation when the benches run as tests: what the largest batch needs.
const TEST_MESSAGES: usize = 256;

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
    (0..rotation_length(keys.len(), text_bytes))
        .map(|sequence| {
            let agent = random.random_range(0..keys.len());
            let line = log_line(&mut random, sequence, text_bytes);
            let mut bytes = Vec::new();
            seal_one(&mut sealer, &keys[agent], method, &line, &mut bytes);
            Message { agent, bytes }
        })
        .collect()
}

/// Messages of a table's agents, with their id prefix, `burst` after one another from each agent in random order: for each,
/// the agent's index and the message.
pub fn events_of(table: &AgentTable, method: Method, text_bytes: usize, burst: usize) -> Vec<(u32, Vec<u8>)> {
    let mut random = Pcg64Mcg::seed_from_u64(1);
    let mut sealer = Sealer::new();
    let agents = table.agents();
    let bursts = rotation_length(agents.len(), text_bytes).div_ceil(burst);
    let order: Vec<&Agent> = (0..bursts).map(|_| &agents[random.random_range(0..agents.len())]).collect();
    let events = order.into_iter().flat_map(|agent| std::iter::repeat_n(agent, burst)).enumerate();
    let seal = |(sequence, agent): (usize, &Agent)| {
        let line = log_line(&mut random, sequence, text_bytes);
        let mut bytes = Vec::new();
        seal_for(&mut sealer, agent, method, &line, &mut bytes);
        (agent.index(), bytes)
    };
    events.map(seal).collect()
}

fn rotation_length(agents: usize, text_bytes: usize) -> usize {
    if is_test() {
        return TEST_MESSAGES;
    }
    let bytes_bound = BYTES_IN_ROTATION_MAX / text_bytes;
    agents.clamp(MESSAGES_IN_ROTATION, MESSAGES_MAX).min(bytes_bound).next_multiple_of(TEST_MESSAGES)
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
    seal(sealer, key, None, method, text, out);
}

/// Appends one sealed message of an agent, with its id prefix.
///
/// # Panics
/// When the text is longer than a message holds.
pub fn seal_for(sealer: &mut Sealer, agent: &Agent, method: Method, text: &[u8], out: &mut Vec<u8>) {
    seal(sealer, agent.cipher_key(), Some(agent.entry().id), method, text, out);
}

fn seal(
    sealer: &mut Sealer,
    key: &CipherKey,
    id_prefix: Option<AgentId>,
    method: Method,
    text: &[u8],
    out: &mut Vec<u8>,
) {
    let envelope = Envelope {
        id_prefix,
        method,
        random: 12_345,
        counter: Counter { global: 1, local: 1 },
        initialization_vector: *b"0123456789abcdef",
        text,
    };
    sealer.seal(key, &envelope, out).expect("a bench's text fits a message");
}

/// A rotation, handed out in batches without an allocation.
pub struct Batches<'a> {
    sealed: Vec<Sealed<'a>>,
    batch: usize,
    next: usize,
}

impl<'a> Batches<'a> {
    /// Batches of `batch` messages, beginning with message `next`.
    pub fn new(
        keys: &'a [CipherKey],
        messages: &'a [Message],
        method: Method,
        batch: usize,
        next: usize,
    ) -> Batches<'a> {
        let sealed = messages.iter().map(|message| Sealed {
            key: &keys[message.agent],
            bytes: &message.bytes,
            method_hint: Some(method),
        });
        Batches { sealed: sealed.collect(), batch, next }
    }

    /// The next batch of the rotation.
    pub fn next_batch(&mut self) -> &[Sealed<'a>] {
        if self.next + self.batch > self.sealed.len() {
            self.next = 0;
        }
        let batch = &self.sealed[self.next..self.next + self.batch];
        self.next += self.batch;
        batch
    }

    /// Where the next batch begins, for another run to go on there.
    pub fn position(&self) -> usize {
        self.next
    }
}
